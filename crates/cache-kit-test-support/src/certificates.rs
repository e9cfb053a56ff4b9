//! Certificates that are good for one test: an authority, a server, a client.

use std::path::Path;
use std::sync::Arc;

use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, date_time_ymd,
};

pub(crate) const AUTHORITY: &str = "ca.pem";
pub(crate) const SERVER: &str = "server.pem";
pub(crate) const SERVER_KEY: &str = "server.key";
pub(crate) const CLIENT: &str = "client.pem";
pub(crate) const CLIENT_KEY: &str = "client.key";

/// What is in order with the certificate of a server, and what is not.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum Certificate {
    /// For `localhost`, `127.0.0.1` and `::1`, for a long time to come.
    #[default]
    Valid,
    /// For `elsewhere.example` only.
    WrongName,
    /// For the right names, up to the end of the year 2000.
    Expired,
}

/// An authority that signs certificates for several servers: a client that trusts it trusts them all.
#[derive(Debug, Clone)]
pub struct Ca(Arc<Authority>);

#[derive(Debug)]
struct Authority {
    pem: String,
    issuer: Issuer<'static, KeyPair>,
}

impl Ca {
    /// A new authority, which nobody trusts yet.
    ///
    /// # Panics
    ///
    /// When the system has no randomness for a key.
    #[must_use]
    pub fn new() -> Self {
        match Self::make() {
            Ok(ca) => ca,
            Err(error) => panic!("no authority: {error}"),
        }
    }

    /// Its certificate, as PEM.
    #[must_use]
    pub fn certificate(&self) -> &str {
        &self.0.pem
    }

    fn make() -> Result<Self, rcgen::Error> {
        let mut params = named("cache-kit test authority", &[])?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        let key = KeyPair::generate()?;
        let pem = params.self_signed(&key)?.pem();
        Ok(Self(Arc::new(Authority { pem, issuer: Issuer::new(params, key) })))
    }
}

impl Default for Ca {
    fn default() -> Self {
        Self::new()
    }
}

/// Writes the certificate of the authority, and what it signs for a server and a client of it, into `dir`, as PEM.
pub(crate) fn write(dir: &Path, server: Certificate, ca: &Ca) -> Result<(), String> {
    let failed = |error: &dyn std::error::Error| format!("no certificates: {error}");
    let files = make(server, ca).map_err(|error| failed(&error))?;
    for (name, pem) in files {
        std::fs::write(dir.join(name), pem).map_err(|error| failed(&error))?;
    }
    Ok(())
}

fn make(server: Certificate, ca: &Ca) -> Result<[(&'static str, String); 5], rcgen::Error> {
    let authority = &ca.0.issuer;
    let names: &[&str] = match server {
        Certificate::WrongName => &["elsewhere.example"],
        Certificate::Valid | Certificate::Expired => &["localhost", "127.0.0.1", "::1"],
    };
    let mut params = named("cache-kit test server", names)?;
    // A Redis that connects to another shows the certificate that it has as a server.
    params.extended_key_usages =
        vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    if server == Certificate::Expired {
        (params.not_before, params.not_after) = (date_time_ymd(2000, 1, 1), date_time_ymd(2001, 1, 1));
    }
    let server_key = KeyPair::generate()?;
    let server_pem = params.signed_by(&server_key, authority)?.pem();

    let mut params = named("cache-kit test client", &[])?;
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
    let client_key = KeyPair::generate()?;
    let client_pem = params.signed_by(&client_key, authority)?.pem();

    Ok([
        (AUTHORITY, ca.certificate().to_owned()),
        (SERVER, server_pem),
        (SERVER_KEY, server_key.serialize_pem()),
        (CLIENT, client_pem),
        (CLIENT_KEY, client_key.serialize_pem()),
    ])
}

fn named(name: &str, alternatives: &[&str]) -> Result<CertificateParams, rcgen::Error> {
    let alternatives: Vec<String> = alternatives.iter().map(|name| (*name).to_owned()).collect();
    let mut params = CertificateParams::new(alternatives)?;
    params.distinguished_name.push(DnType::CommonName, name);
    Ok(params)
}
