//! The certificates of servers with TLS, looked at by a client that checks them.

#![expect(clippy::unwrap_used, reason = "a failure is the test's")]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use cache_kit_test_support::{Ca, Certificate, MemcachedServer, RedisServer};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, Stream};

/// A command over TLS and its reply; what went wrong in words, if anything did.
struct Visit {
    addr: String,
    says: [&'static [u8]; 2],
    trusted: String,
    name: &'static str,
    certificate: Option<(String, String)>,
}

impl Visit {
    fn to(server: &MemcachedServer) -> Self {
        let trusted = std::fs::read_to_string(server.ca_certificate()).unwrap();
        let says: [&[u8]; 2] = [b"mn\r\n", b"MN\r\n"];
        Self { addr: server.addr(), says, trusted, name: "127.0.0.1", certificate: None }
    }

    fn to_redis(server: &RedisServer) -> Self {
        let trusted = std::fs::read_to_string(server.ca_certificate()).unwrap();
        let says: [&[u8]; 2] = [b"PING\r\n", b"+PONG\r\n"];
        Self { addr: server.addr(), says, trusted, name: "127.0.0.1", certificate: None }
    }

    fn go(self) -> Result<(), String> {
        let mut roots = RootCertStore::empty();
        roots.add(certificate(&self.trusted)).unwrap();
        let config = ClientConfig::builder().with_root_certificates(roots);
        let config = match &self.certificate {
            Some((chain, key)) => {
                let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).unwrap();
                config.with_client_auth_cert(vec![certificate(chain)], key).unwrap()
            }
            None => config.with_no_client_auth(),
        };
        let name = ServerName::try_from(self.name).unwrap();
        let mut connection = ClientConnection::new(Arc::new(config), name).unwrap();
        let mut socket = TcpStream::connect(&self.addr).unwrap();
        socket.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        let mut stream = Stream::new(&mut connection, &mut socket);
        // In TLS 1.3 a client learns with the first reply whether its certificate was accepted.
        let [command, expected] = self.says;
        let mut reply = vec![0; expected.len()];
        let answered = stream.write_all(command).and_then(|()| stream.read_exact(&mut reply));
        answered.map_err(|error| error.to_string())?;
        assert_eq!(reply, expected);
        Ok(())
    }
}

fn certificate(pem: &str) -> CertificateDer<'static> {
    CertificateDer::from_pem_slice(pem.as_bytes()).unwrap()
}

#[test]
fn a_valid_certificate_is_good_for_the_names_of_the_loopback_and_trusted_by_its_authority_only() {
    let server = MemcachedServer::builder().tls().start();
    for name in ["127.0.0.1", "::1", "localhost"] {
        assert_eq!(Visit { name, ..Visit::to(&server) }.go(), Ok(()), "{name}");
    }
    let other = MemcachedServer::builder().tls().start();
    let said = Visit { trusted: Visit::to(&other).trusted, ..Visit::to(&server) }.go().unwrap_err();
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
    let shown = |server: &MemcachedServer| {
        let files = [server.client_certificate(), server.client_key()];
        let [certificate, key] = files.map(|file| std::fs::read_to_string(file).unwrap());
        Some((certificate, key))
    };
    let server = MemcachedServer::builder().client_certificates().start();
    assert_eq!(Visit { certificate: shown(&server), ..Visit::to(&server) }.go(), Ok(()));
    assert!(Visit::to(&server).go().is_err(), "without a certificate");
    let other = MemcachedServer::builder().client_certificates().start();
    let foreign = Visit { certificate: shown(&other), ..Visit::to(&server) }.go();
    assert!(foreign.is_err(), "with one of another authority");
}

#[test]
fn the_certificates_of_a_redis_are_as_good_and_as_bad() {
    let server = RedisServer::builder().tls().start();
    for name in ["127.0.0.1", "::1", "localhost"] {
        assert_eq!(Visit { name, ..Visit::to_redis(&server) }.go(), Ok(()), "{name}");
    }
    for (certificate, complaint) in
        [(Certificate::WrongName, "not valid for name"), (Certificate::Expired, "expired")]
    {
        let server = RedisServer::builder().certificate(certificate).start();
        let said = Visit::to_redis(&server).go().unwrap_err();
        assert!(said.contains(complaint), "{said}");
    }
}

#[test]
fn a_redis_that_asks_for_client_certificates_serves_who_shows_one_of_its_authority() {
    let server = RedisServer::builder().client_certificates().start();
    let shown = Some(server.client_certificate());
    assert_eq!(Visit { certificate: shown, ..Visit::to_redis(&server) }.go(), Ok(()));
    assert!(Visit::to_redis(&server).go().is_err(), "without a certificate");
    let foreign = Some(RedisServer::builder().tls().start().client_certificate());
    assert!(
        Visit { certificate: foreign, ..Visit::to_redis(&server) }.go().is_err(),
        "with one of another authority"
    );
}

#[test]
fn who_trusts_an_authority_trusts_all_servers_that_it_signs_for() {
    let ca = Ca::new();
    let servers = [(); 2].map(|()| RedisServer::builder().ca(&ca).start());
    for server in servers {
        let trusted = ca.certificate().to_owned();
        assert_eq!(Visit { trusted, ..Visit::to_redis(&server) }.go(), Ok(()));
    }
}
