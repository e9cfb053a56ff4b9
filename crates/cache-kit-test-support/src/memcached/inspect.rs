//! What a test can learn of a Memcached that runs.

use std::path::PathBuf;

use crate::certificates;
use crate::exchange::number_after;
use crate::memcached::{Memcached, Tls};
use crate::server::Server;

impl Server<Memcached> {
    /// One number of the server's statistics, such as `cmd_get` or `curr_connections`; the connection that asks is one
    /// of the latter.
    ///
    /// # Panics
    ///
    /// When there is no reply within 5 seconds, or no such number in it.
    #[must_use]
    pub fn stat(&self, name: &str) -> u64 {
        match number_after(&self.command_bytes("stats"), &format!("STAT {name} ")) {
            Ok(number) => number,
            Err(error) => panic!("memcached on port {}: {error}", self.port()),
        }
    }

    /// How many seconds the server's own clock is behind, as that of one that gets little of the processor is.
    ///
    /// # Panics
    ///
    /// As [`stat`](Self::stat).
    #[must_use]
    pub fn clock_behind(&self) -> u64 {
        std::time::UNIX_EPOCH.elapsed().map_or(0, |now| now.as_secs().saturating_sub(self.stat("time")))
    }

    /// `127.0.0.1:port` where a server with TLS speaks the plain protocol.
    ///
    /// # Panics
    ///
    /// Without TLS.
    #[must_use]
    pub fn plain_addr(&self) -> String {
        self.tls().plain_addr()
    }

    /// The certificate of the authority that signed the server's, a PEM file.
    ///
    /// # Panics
    ///
    /// Without TLS.
    #[must_use]
    pub fn ca_certificate(&self) -> PathBuf {
        self.tls_file(certificates::AUTHORITY)
    }

    /// A certificate that the server accepts from a client, a PEM file.
    ///
    /// # Panics
    ///
    /// Without TLS.
    #[must_use]
    pub fn client_certificate(&self) -> PathBuf {
        self.tls_file(certificates::CLIENT)
    }

    /// The key of [`client_certificate`](Self::client_certificate), a PEM file in PKCS#8.
    ///
    /// # Panics
    ///
    /// Without TLS.
    #[must_use]
    pub fn client_key(&self) -> PathBuf {
        self.tls_file(certificates::CLIENT_KEY)
    }

    fn tls_file(&self, name: &str) -> PathBuf {
        let _ = self.tls();
        self.dir().join(name)
    }

    fn tls(&self) -> &Tls {
        match &self.kind().tls {
            Some(tls) => tls,
            None => panic!("memcached on port {} was started without TLS", self.port()),
        }
    }
}
