//! Where a server is.

use std::path::Path;

/// Where a server is: what it is started with, and what its clients look for.
#[derive(Debug, Clone, Copy)]
pub struct Place<'a> {
    /// The port that is kept for it on the loopback address.
    pub port: u16,
    /// Its private directory.
    pub dir: &'a Path,
}

impl Place<'_> {
    /// `127.0.0.1:port`.
    #[must_use]
    pub fn addr(&self) -> String {
        loopback(self.port)
    }
}

/// `127.0.0.1:port`.
pub(crate) fn loopback(port: u16) -> String {
    format!("127.0.0.1:{port}")
}
