//! What a Redis is started with.

use crate::builder::Builder;
use crate::certificates::{Ca, Certificate};
use crate::redis::Redis;

impl Builder<Redis> {
    /// Makes the server ask for a password, which [`url`](crate::Server::url) then holds. Without characters that a URL
    /// escapes.
    #[must_use]
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.kind.password = Some(password.into());
        self
    }

    /// Makes the server listen on a unix socket in its directory and on no port; [`addr`](crate::Server::addr) is then
    /// the path of the socket.
    #[must_use]
    pub fn unix_socket(mut self) -> Self {
        self.kind.unix_socket = true;
        self
    }

    /// Makes the server speak TLS on its port, and nothing else there, with a certificate for `localhost`, `127.0.0.1`
    /// and `::1` from an authority of its own, whose certificate is at
    /// [`ca_certificate`](crate::Server::ca_certificate).
    ///
    /// The program is then the `redis-server` on the path even where `CACHE_KIT_REDIS_SERVER` names another: it comes
    /// from a distribution, whose build speaks TLS, which others may not.
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.kind.tls.get_or_insert_default();
        self
    }

    /// [`tls`](Self::tls) with this certificate.
    #[must_use]
    pub fn certificate(mut self, certificate: Certificate) -> Self {
        self.kind.tls.get_or_insert_default().certificate = certificate;
        self
    }

    /// [`tls`](Self::tls) for clients that show a certificate of the same authority, such as
    /// [`client_certificate`](crate::Server::client_certificate).
    #[must_use]
    pub fn client_certificates(mut self) -> Self {
        self.kind.tls.get_or_insert_default().asks_clients = true;
        self
    }

    /// [`tls`](Self::tls) with a certificate that this authority signs.
    #[must_use]
    pub fn ca(mut self, ca: &Ca) -> Self {
        self.kind.tls.get_or_insert_default().ca = Some(ca.clone());
        self
    }

    /// Adds a user with a password and rules as in `~cache:* +get +set`, there after each start of the server.
    /// [`url`](crate::Server::url) then holds the credentials of the user that was added last; what a test asks through
    /// this crate is still asked by one who may do everything. Without spaces and characters that a URL escapes.
    #[must_use]
    pub fn acl_user(
        mut self,
        name: impl Into<String>,
        password: impl Into<String>,
        rules: impl Into<String>,
    ) -> Self {
        self.kind.acl.add(name.into(), password.into(), rules.into());
        self
    }

    /// Turns the default user off: without a user name nobody gets in, whatever the password.
    #[must_use]
    pub fn default_user_off(mut self) -> Self {
        self.kind.acl.turn_default_off();
        self
    }
}
