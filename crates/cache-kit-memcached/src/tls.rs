//! Connections over TLS.

use std::fmt;
use std::sync::Arc;

use cache_kit_net::{Address, Stream};
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio_rustls::TlsConnector;

use crate::error::{Error, ErrorKind, Result};

/// How connections are encrypted: whom to trust, and who we are.
///
/// Certificates are always verified, and so is the name of the server: that of its address, unless
/// [`server_name`](Self::server_name) says another one.
#[derive(Clone)]
pub struct Tls {
    config: Arc<ClientConfig>,
    server_name: Option<ServerName<'static>>,
}

impl Tls {
    /// Trusts what the operating system trusts.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) when it trusts nobody.
    pub fn with_system_roots() -> Result<Self> {
        let mut roots = RootCertStore::empty();
        // Some of what a system trusts may be unreadable; that is no reason to trust nobody.
        roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
        if roots.is_empty() {
            return Err(Error::config("the system has no root certificates that can be read")
                .with_hint("install some (ca-certificates), or name the one to trust"));
        }
        Self::with_roots(roots, None)
    }

    /// Trusts the certificates of a PEM file's text, and nobody else.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) when there is none.
    pub fn with_root_certificates(pem: &[u8]) -> Result<Self> {
        Self::with_roots(roots(pem)?, None)
    }

    /// Trusts the certificates of a PEM file's text and nobody else, and shows a certificate of its own, with its key.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) when one of them cannot be read, or they do not belong together.
    pub fn with_client_certificate(root_pem: &[u8], certificate_pem: &[u8], key_pem: &[u8]) -> Result<Self> {
        let key = PrivateKeyDer::from_pem_slice(key_pem)
            .map_err(|_| Error::config("the client's key is no PEM private key"))?;
        let chain = certificates(certificate_pem, "the client's certificate")?;
        Self::with_roots(roots(root_pem)?, Some((chain, key)))
    }

    fn with_roots(
        roots: RootCertStore,
        client: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
    ) -> Result<Self> {
        let wrong = |error: rustls::Error| Error::config("the TLS settings do not fit").with_source(error);
        // Named, and not the default of the process: whoever uses this library may have chosen another one.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .map_err(wrong)?
            .with_root_certificates(roots);
        let config = match client {
            None => builder.with_no_client_auth(),
            Some((chain, key)) => builder.with_client_auth_cert(chain, key).map_err(wrong)?,
        };
        Ok(Self { config: Arc::new(config), server_name: None })
    }

    /// The name that the certificate of each server must have. Default: the host of its address. Needed for unix sockets.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config) when it is neither a host name nor an address.
    pub fn server_name(mut self, name: &str) -> Result<Self> {
        self.server_name = Some(parse_name(name)?);
        Ok(self)
    }

    pub(crate) async fn connect(&self, address: &Address, stream: Stream) -> Result<Stream> {
        let name = match (&self.server_name, address) {
            (Some(name), _) => name.clone(),
            (None, Address::Tcp { host, .. }) => parse_name(host)?,
            (None, Address::Unix(_)) => {
                return Err(Error::config("TLS over a unix socket needs the name of the server")
                    .with_hint("say server_name"));
            }
        };
        let connected = TlsConnector::from(Arc::clone(&self.config)).connect(name, stream).await;
        connected.map(Stream::wrapped).map_err(|error| {
            Error::new(ErrorKind::Unavailable, "there is no TLS connection to be had")
                .with_hint(
                    "does the server speak TLS (-Z), and is its certificate trusted and for this name?",
                )
                .with_source(error)
        })
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

fn parse_name(name: &str) -> Result<ServerName<'static>> {
    ServerName::try_from(name.to_owned())
        .map_err(|_| Error::config(format!("`{name}` is no name that a certificate can have")))
}

fn roots(pem: &[u8]) -> Result<RootCertStore> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem, "the root certificate")? {
        roots
            .add(certificate)
            .map_err(|error| Error::config("a root certificate cannot be used").with_source(error))?;
    }
    Ok(roots)
}

fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>> {
    let read: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|_| Error::config(format!("{what} is no PEM file that can be read")))?;
    if read.is_empty() {
        return Err(Error::config(format!("{what} holds no certificate")));
    }
    Ok(read)
}
