//! What a Memcached is started with.

use crate::builder::Builder;
use crate::certificates::Certificate;
use crate::memcached::{Login, Memcached};

impl Builder<Memcached> {
    /// Makes the server listen on a unix socket in its directory and on no port; [`addr`](crate::Server::addr) is then
    /// the path of the socket.
    #[must_use]
    pub fn unix_socket(mut self) -> Self {
        self.kind.unix_socket = true;
        self
    }

    /// Makes the server speak TLS on its port, with a certificate for `localhost`, `127.0.0.1` and `::1` from an
    /// authority of its own, whose certificate is at [`ca_certificate`](crate::Server::ca_certificate).
    ///
    /// On another port, [`plain_addr`](crate::Server::plain_addr), it speaks the plain protocol; all that a test asks
    /// of the server through this crate goes there.
    #[must_use]
    pub fn tls(mut self) -> Self {
        self.kind.tls.get_or_insert_default();
        self
    }

    /// [`tls`](Self::tls) with this certificate.
    #[must_use]
    pub fn certificate(mut self, certificate: Certificate) -> Self {
        self.kind.tls.get_or_insert_default().identity.certificate = certificate;
        self
    }

    /// [`tls`](Self::tls) for clients that show a certificate of the same authority, such as
    /// [`client_certificate`](crate::Server::client_certificate).
    #[must_use]
    pub fn client_certificates(mut self) -> Self {
        self.kind.tls.get_or_insert_default().identity.asks_clients = true;
        self
    }

    /// Makes the server ask for a login in the text protocol (`-Y`). Without spaces, colons and characters that a URL
    /// escapes.
    #[must_use]
    pub fn auth(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.kind.login = Some(Login { user: user.into(), password: password.into() });
        self
    }

    /// Memory for items, in megabytes; 64 unless changed.
    #[must_use]
    pub fn memory_megabytes(self, megabytes: u32) -> Self {
        self.arg("-m").arg(megabytes.to_string())
    }

    /// The largest item, in bytes or with a unit as in `512k` and `2m`; 1 megabyte unless changed.
    #[must_use]
    pub fn max_item_size(self, size: &str) -> Self {
        self.arg("-I").arg(size)
    }
}
