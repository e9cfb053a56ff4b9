//! Connections over TLS, by rustls: whom to trust, who we are, and why there is no connection.

use std::fmt;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, OnceLock};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime};
use rustls::{
    AlertDescription, CertificateError, ClientConfig, DigitallySignedStruct, RootCertStore, SignatureScheme,
};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;
use tokio_rustls::TlsConnector;

use crate::dial::Address;
use crate::stream::Stream;

/// What TLS connections are made with, as text: PEM until [`build`](Self::build) reads it.
///
/// Certificates are verified, and so is the name of the server: that of its address, unless
/// [`server_name`](Self::server_name) says another one. Only
/// [`danger_accept_invalid_certificates`](Self::danger_accept_invalid_certificates) weakens that.
#[derive(Clone, Default)]
#[must_use]
pub struct TlsBuilder {
    roots: Option<Vec<u8>>,
    /// Certificate and key.
    client: Option<(Vec<u8>, Vec<u8>)>,
    server_name: Option<String>,
    accepts_invalid: bool,
}

impl TlsBuilder {
    /// Trusts these certificates and nobody else. Default: whom the operating system trusts.
    pub fn root_certificates(mut self, pem: impl Into<Vec<u8>>) -> Self {
        self.roots = Some(pem.into());
        self
    }

    /// Shows this certificate, whose key this is, to servers that ask for one.
    pub fn client_certificate(mut self, pem: impl Into<Vec<u8>>, key_pem: impl Into<Vec<u8>>) -> Self {
        self.client = Some((pem.into(), key_pem.into()));
        self
    }

    /// The name that the certificate of each server must have. Default: the host of its address. Needed for unix
    /// sockets.
    pub fn server_name(mut self, name: impl Into<String>) -> Self {
        self.server_name = Some(name.into());
        self
    }

    /// Takes any certificate, for any name, of anybody, as the right one. Whoever can stand between this process and the
    /// server then reads and changes everything, credentials included: for tests only.
    pub fn danger_accept_invalid_certificates(mut self) -> Self {
        self.accepts_invalid = true;
        self
    }

    /// Reads the certificates.
    ///
    /// # Errors
    /// Which of them cannot be used.
    pub fn build(&self) -> Result<Tls, TlsConfigError> {
        // Named, and not the default of the process: whoever uses this library may have chosen another one, or none.
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let builder = ClientConfig::builder_with_provider(Arc::clone(&provider))
            .with_safe_default_protocol_versions()
            .map_err(|error| wrong("the TLS settings do not fit").because(error))?;
        let builder = if self.accepts_invalid {
            builder.dangerous().with_custom_certificate_verifier(Arc::new(AcceptAll(provider)))
        } else {
            builder.with_root_certificates(match &self.roots {
                Some(pem) => roots(pem)?,
                None => system_roots()?,
            })
        };
        let config = match &self.client {
            None => builder.with_no_client_auth(),
            Some((certificate, key)) => {
                let key = PrivateKeyDer::from_pem_slice(key)
                    .map_err(|_| wrong("the client's key is no PEM private key"))?;
                builder
                    .with_client_auth_cert(certificates(certificate, "the client's certificate")?, key)
                    .map_err(|error| wrong("the client's certificate and key do not fit").because(error))?
            }
        };
        let server_name = self.server_name.as_deref().map(parse_name).transpose()?;
        Ok(Tls { connector: TlsConnector::from(Arc::new(config)), server_name })
    }
}

impl fmt::Debug for TlsBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TlsBuilder")
            .field("server_name", &self.server_name)
            .field("accepts_invalid", &self.accepts_invalid)
            .finish_non_exhaustive()
    }
}

/// How connections are encrypted.
#[derive(Clone)]
pub struct Tls {
    connector: TlsConnector,
    server_name: Option<ServerName<'static>>,
}

impl Tls {
    /// Connections with these settings.
    pub fn builder() -> TlsBuilder {
        TlsBuilder::default()
    }

    /// Makes a connection a TLS connection within this time, and gives what tells of a failure that only shows later.
    ///
    /// # Errors
    /// Why there is none to be had.
    pub async fn connect(
        &self,
        address: &Address,
        stream: Stream,
        bound: Duration,
    ) -> Result<(Stream, LateFailure), TlsError> {
        let name = match (&self.server_name, address) {
            (Some(name), _) => name.clone(),
            (None, Address::Tcp { host, .. }) => parse_name(host).map_err(|error| TlsError {
                failure: TlsFailure::WrongName,
                source: io::Error::other(error.to_string()),
            })?,
            (None, Address::Unix(_)) => {
                let source = io::Error::other("a unix socket has no name that a certificate could be for");
                return Err(TlsError { failure: TlsFailure::WrongName, source });
            }
        };
        // A server that does not speak TLS may wait for the end of a line that it takes the greeting for.
        let Ok(connected) = timeout(bound, self.connector.connect(name, stream)).await else {
            return Err(TlsError { failure: TlsFailure::Silent, source: io::ErrorKind::TimedOut.into() });
        };
        match connected {
            Ok(stream) => {
                let failure = LateFailure::default();
                Ok((Stream::wrapped(Secured { stream, failure: failure.clone() }), failure))
            }
            Err(source) => Err(TlsError { failure: TlsFailure::of(&source), source }),
        }
    }
}

impl fmt::Debug for Tls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tls").field("server_name", &self.server_name).finish_non_exhaustive()
    }
}

/// Tells why a connection ended that was made. In TLS 1.3 a server refuses a client's certificate, or the lack of one, only
/// after the client takes the handshake to be done.
#[derive(Clone, Debug, Default)]
pub struct LateFailure(Arc<OnceLock<TlsFailure>>);

impl LateFailure {
    /// The failure, if there was one.
    #[must_use]
    pub fn get(&self) -> Option<TlsFailure> {
        self.0.get().copied()
    }
}

/// A TLS connection that remembers how reading from it has failed.
struct Secured<S> {
    stream: S,
    failure: LateFailure,
}

impl<S: AsyncRead + Unpin> AsyncRead for Secured<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let read = ready!(Pin::new(&mut self.stream).poll_read(cx, buf));
        if let Err(error) = &read {
            // Who asks has seen the first one.
            let _first = self.failure.0.set(TlsFailure::of(error));
        }
        Poll::Ready(read)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Secured<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

/// Why a TLS connection was refused, by us or by the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TlsFailure {
    /// The server's certificate is for another name.
    WrongName,
    /// The server's certificate is no longer, or not yet, valid.
    Expired,
    /// Nobody whom we trust has signed the server's certificate.
    Untrusted,
    /// The server's certificate is not right for another reason.
    Certificate,
    /// The server asks for a certificate of ours, or does not take the one that it got.
    ClientCertificate,
    /// The server does not speak TLS.
    NotTls,
    /// The server does not answer.
    Silent,
    /// The connection ended during the handshake.
    Ended,
    /// Something else.
    Other,
}

impl TlsFailure {
    /// What an error of a TLS stream means.
    #[must_use]
    pub fn of(error: &io::Error) -> Self {
        let Some(error) = error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) else {
            return match error.kind() {
                io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe => Self::Ended,
                _ => Self::Other,
            };
        };
        match error {
            rustls::Error::InvalidCertificate(why) => match why {
                CertificateError::NotValidForName | CertificateError::NotValidForNameContext { .. } => {
                    Self::WrongName
                }
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. } => Self::Expired,
                // Signed by another authority of the same name.
                CertificateError::UnknownIssuer | CertificateError::BadSignature => Self::Untrusted,
                _ => Self::Certificate,
            },
            rustls::Error::AlertReceived(
                AlertDescription::CertificateRequired
                | AlertDescription::BadCertificate
                | AlertDescription::UnknownCA
                | AlertDescription::CertificateUnknown
                | AlertDescription::CertificateExpired
                | AlertDescription::UnsupportedCertificate
                | AlertDescription::HandshakeFailure,
            ) => Self::ClientCertificate,
            rustls::Error::InvalidMessage(_) => Self::NotTls,
            _ => Self::Other,
        }
    }

    /// In words.
    #[must_use]
    pub fn message(self) -> &'static str {
        match self {
            Self::WrongName => "the server's certificate is for another name",
            Self::Expired => "the server's certificate has expired, or is not valid yet",
            Self::Untrusted => "the server's certificate is signed by nobody who is trusted",
            Self::Certificate => "the server's certificate is not right",
            Self::ClientCertificate => {
                "the server does not take the client's certificate, or the lack of one"
            }
            Self::NotTls => "the server does not speak TLS",
            Self::Silent => "the server does not answer the greeting of TLS",
            Self::Ended => "the server ended the TLS connection at once",
            Self::Other => "there is no TLS connection to be had",
        }
    }

    /// What to do about it.
    #[must_use]
    pub fn hint(self) -> &'static str {
        match self {
            Self::WrongName => {
                "connect by a name that its certificate has, or say which one it has (tls_server_name)"
            }
            Self::Expired => "renew the certificate, and check the clocks of both machines",
            Self::Untrusted => "name the certificate of its authority (tls_roots)",
            Self::Certificate => "see the cause; the certificate is the server's to mend",
            Self::ClientCertificate => {
                "name a certificate that its authority has signed, and the key (tls_certificate, tls_key)"
            }
            Self::NotTls | Self::Silent => {
                "is it the port for TLS? Or is the server to be spoken to without?"
            }
            Self::Ended => {
                "does it speak TLS on this port, and does it ask for a client certificate (tls_certificate)?"
            }
            Self::Other => "does the server speak TLS, and a version of it from 1.2 on?",
        }
    }
}

/// Why there is no TLS connection.
#[derive(Debug)]
pub struct TlsError {
    failure: TlsFailure,
    source: io::Error,
}

impl TlsError {
    /// What kind of failure it is.
    #[must_use]
    pub fn failure(&self) -> TlsFailure {
        self.failure
    }
}

impl fmt::Display for TlsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.failure.message())
    }
}

impl std::error::Error for TlsError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        Some(&self.source)
    }
}

/// A setting of TLS that makes no sense.
#[derive(Debug)]
pub struct TlsConfigError {
    message: String,
    hint: &'static str,
    source: Option<rustls::Error>,
}

impl TlsConfigError {
    fn because(mut self, source: rustls::Error) -> Self {
        self.source = Some(source);
        self
    }

    /// What to do about it; empty where there is nothing to say.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        self.hint
    }
}

impl fmt::Display for TlsConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for TlsConfigError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        self.source.as_ref().map(|source| source as _)
    }
}

fn wrong(message: impl Into<String>) -> TlsConfigError {
    TlsConfigError { message: message.into(), hint: "", source: None }
}

fn parse_name(name: &str) -> Result<ServerName<'static>, TlsConfigError> {
    ServerName::try_from(name.to_owned())
        .map_err(|_| wrong(format!("`{name}` is no name that a certificate can have")))
}

fn system_roots() -> Result<RootCertStore, TlsConfigError> {
    let mut roots = RootCertStore::empty();
    // Some of what a system trusts may be unreadable; that is no reason to trust nobody.
    roots.add_parsable_certificates(rustls_native_certs::load_native_certs().certs);
    if roots.is_empty() {
        let hint = "install some (ca-certificates), or name the one to trust";
        return Err(TlsConfigError { hint, ..wrong("the system has no root certificates that can be read") });
    }
    Ok(roots)
}

fn roots(pem: &[u8]) -> Result<RootCertStore, TlsConfigError> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(pem, "the root certificate")? {
        roots.add(certificate).map_err(|error| wrong("a root certificate cannot be used").because(error))?;
    }
    Ok(roots)
}

fn certificates(pem: &[u8], what: &str) -> Result<Vec<CertificateDer<'static>>, TlsConfigError> {
    let read: Vec<_> = CertificateDer::pem_slice_iter(pem)
        .collect::<Result<_, _>>()
        .map_err(|_| wrong(format!("{what} is no PEM file that can be read")))?;
    if read.is_empty() {
        return Err(wrong(format!("{what} holds no certificate")));
    }
    Ok(read)
}

/// Takes any certificate, but still wants the server to have its key.
#[derive(Debug)]
struct AcceptAll(Arc<CryptoProvider>);

impl ServerCertVerifier for AcceptAll {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls12_signature(message, certificate, signed, algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        let algorithms = &self.0.signature_verification_algorithms;
        rustls::crypto::verify_tls13_signature(message, certificate, signed, algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
