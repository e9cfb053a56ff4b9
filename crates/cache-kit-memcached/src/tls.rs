//! Connections over TLS, with errors of this crate.

use std::time::Duration;

use cache_kit_net::{Address, Stream, TlsBuilder, TlsConfigError};

use crate::error::{Error, ErrorKind, Result};

/// How connections are encrypted: whom to trust, and who we are.
///
/// Certificates are verified, and so is the name of the server: that of its address, unless
/// [`server_name`](Self::server_name) says another one.
#[derive(Clone, Debug)]
pub struct Tls {
    made: cache_kit_net::Tls,
    settings: TlsBuilder,
}

impl Tls {
    /// Trusts what the operating system trusts.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) when it trusts nobody.
    pub fn with_system_roots() -> Result<Self> {
        Self::with(TlsBuilder::default())
    }

    /// Trusts the certificates of a PEM file's text, and nobody else.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) when there is none.
    pub fn with_root_certificates(pem: &[u8]) -> Result<Self> {
        Self::with(TlsBuilder::default().root_certificates(pem))
    }

    /// Trusts the certificates of a PEM file's text and nobody else, and shows a certificate of its own, with its key.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) when one of them cannot be read, or they do not belong together.
    pub fn with_client_certificate(root_pem: &[u8], certificate_pem: &[u8], key_pem: &[u8]) -> Result<Self> {
        Self::with(
            TlsBuilder::default().root_certificates(root_pem).client_certificate(certificate_pem, key_pem),
        )
    }

    /// Whatever these settings say.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) when some of them cannot be read, or do not belong together.
    pub fn with(settings: TlsBuilder) -> Result<Self> {
        Ok(Self { made: settings.build().map_err(refused)?, settings })
    }

    /// The name that the certificate of each server must have. Default: the host of its address. Needed for unix sockets.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) when it is neither a host name nor an address.
    pub fn server_name(self, name: &str) -> Result<Self> {
        Self::with(self.settings.server_name(name))
    }

    pub(crate) async fn connect(&self, address: &Address, stream: Stream, bound: Duration) -> Result<Stream> {
        self.made.connect(address, stream, bound).await.map(|(stream, _)| stream).map_err(|error| {
            let failure = error.failure();
            Error::new(ErrorKind::Unavailable, failure.message()).with_hint(failure.hint()).with_source(error)
        })
    }
}

fn refused(error: TlsConfigError) -> Error {
    Error::config(error.to_string()).with_hint(error.hint()).with_source(error)
}
