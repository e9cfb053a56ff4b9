//! What a server with TLS shows, and what it asks of its clients.

use std::path::Path;

use crate::certificates::{self, Ca, Certificate};

/// What a server with TLS shows, and what it asks of its clients.
#[derive(Debug, Default)]
pub(crate) struct Identity {
    pub(crate) certificate: Certificate,
    pub(crate) asks_clients: bool,
    /// Who signs; an authority of the server's own unless it is given one.
    pub(crate) ca: Option<Ca>,
}

impl Identity {
    /// Writes the files of [`certificates`] into `dir`.
    pub(crate) fn prepare(&self, dir: &Path) -> Result<(), String> {
        certificates::write(dir, self.certificate, &self.ca.clone().unwrap_or_default())
    }
}
