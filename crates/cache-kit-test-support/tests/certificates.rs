//! The certificates of a Memcached with TLS, looked at by a client that checks them.

#![expect(clippy::unwrap_used, reason = "a failure is the test's")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use cache_kit_test_support::{Certificate, MemcachedServer};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, Stream};

/// A command over TLS; what went wrong in words, if anything did.
struct Visit<'a> {
    server: &'a MemcachedServer,
    trusted: PathBuf,
    name: &'static str,
    certificate: Option<(PathBuf, PathBuf)>,
}

impl<'a> Visit<'a> {
    fn to(server: &'a MemcachedServer) -> Self {
        Self { server, trusted: server.ca_certificate(), name: "127.0.0.1", certificate: None }
    }

    fn go(self) -> Result<(), String> {
        let mut roots = RootCertStore::empty();
        roots.add(certificate(&self.trusted)).unwrap();
        let config = ClientConfig::builder().with_root_certificates(roots);
        let config = match &self.certificate {
            Some((chain, key)) => {
                let key = PrivateKeyDer::from_pem_file(key).unwrap();
                config.with_client_auth_cert(vec![certificate(chain)], key).unwrap()
            }
            None => config.with_no_client_auth(),
        };
        let name = ServerName::try_from(self.name).unwrap();
        let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut socket = TcpStream::connect(self.server.addr()).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut stream = Stream::new(&mut connection, &mut socket);
        // In TLS 1.3 a client learns with the first reply whether its certificate was accepted.
        let mut reply = [0; 4];
        let answered = stream.write_all(b"mn\r\n").and_then(|()| stream.read_exact(&mut reply));
        answered.map_err(|error| error.to_string())?;
        assert_eq!(reply, *b"MN\r\n");
        Ok(())
    }
}

fn certificate(pem: &Path) -> CertificateDer<'static> {
    CertificateDer::from_pem_file(pem).unwrap()
}

#[test]
fn a_valid_certificate_is_good_for_the_names_of_the_loopback_and_trusted_by_its_authority_only() {
    let server = MemcachedServer::builder().tls().start();
    for name in ["127.0.0.1", "::1", "localhost"] {
        assert_eq!(Visit { name, ..Visit::to(&server) }.go(), Ok(()), "{name}");
    }
    let other = MemcachedServer::builder().tls().start();
    let said = Visit { trusted: other.ca_certificate(), ..Visit::to(&server) }.go().unwrap_err();
    assert!(said.contains("invalid peer certificate"), "{said}");
}

#[test]
fn a_wrong_name_is_wrong_for_the_loopback_and_otherwise_good() {
    let server = MemcachedServer::builder().certificate(Certificate::WrongName).start();
    for name in ["127.0.0.1", "localhost"] {
        let said = Visit { name, ..Visit::to(&server) }.go().unwrap_err();
        assert!(said.contains("not valid for name"), "{said}");
    }
    assert_eq!(Visit { name: "elsewhere.example", ..Visit::to(&server) }.go(), Ok(()));
}

#[test]
fn an_expired_certificate_is_expired() {
    let server = MemcachedServer::builder().certificate(Certificate::Expired).start();
    let said = Visit::to(&server).go().unwrap_err();
    assert!(said.contains("expired"), "{said}");
}

#[test]
fn a_server_that_asks_for_client_certificates_serves_who_shows_one_of_its_authority() {
    let shown = |server: &MemcachedServer| Some((server.client_certificate(), server.client_key()));
    let server = MemcachedServer::builder().client_certificates().start();
    assert_eq!(Visit { certificate: shown(&server), ..Visit::to(&server) }.go(), Ok(()));
    assert!(Visit::to(&server).go().is_err(), "without a certificate");
    let other = MemcachedServer::builder().client_certificates().start();
    let foreign = Visit { certificate: shown(&other), ..Visit::to(&server) }.go();
    assert!(foreign.is_err(), "with one of another authority");
}
