//! What a test can learn of a Redis that runs.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use crate::certificates;
use crate::redis::Redis;
use crate::redis::reply::Reply;
use crate::server::{REPLY, Server};

impl Server<Redis> {
    /// The certificate of the authority that signed the server's, a PEM file.
    ///
    /// # Panics
    ///
    /// Without TLS.
    #[must_use]
    pub fn ca_certificate(&self) -> PathBuf {
        self.tls_file(certificates::AUTHORITY)
    }

    /// A certificate that the server accepts from a client, and its key in PKCS#8, both as PEM.
    ///
    /// # Panics
    ///
    /// Without TLS.
    #[must_use]
    pub fn client_certificate(&self) -> (String, String) {
        let pem = |name| match std::fs::read_to_string(self.tls_file(name)) {
            Ok(pem) => pem,
            Err(error) => panic!("redis-server on port {}: no {name}: {error}", self.port()),
        };
        (pem(certificates::CLIENT), pem(certificates::CLIENT_KEY))
    }

    /// Sends a command of these words, whatever is in them.
    pub(super) fn ask(&self, words: &[&[u8]]) -> Reply {
        match self.try_ask(words, REPLY) {
            Ok(reply) => reply,
            Err(error) => panic!("redis-server on port {}: {error}", self.port()),
        }
    }

    /// [`ask`](Self::ask) with a limit on time and an error instead of a panic.
    pub(super) fn try_ask(&self, words: &[&[u8]], timeout: Duration) -> io::Result<Reply> {
        self.kind().session(self.place(), timeout)?.ask(words)
    }

    fn tls_file(&self, name: &str) -> PathBuf {
        assert!(self.kind().tls.is_some(), "redis-server on port {} was started without TLS", self.port());
        self.dir().join(name)
    }
}
