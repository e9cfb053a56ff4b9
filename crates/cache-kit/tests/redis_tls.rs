//! Redis over TLS: what is not right is refused, with an error that says which and what to do, before any credentials
//! are sent.

#![cfg(all(feature = "redis", feature = "tls"))]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::print_stdout, reason = "what was refused, for `--nocapture`")]

mod common;

use std::time::{Duration, Instant};

use bytes::Bytes;
use cache_kit::backend::redis::RedisBuilder;
use cache_kit::backend::{CacheBackend, RedisBackend};
use cache_kit::{Error, ErrorKind};
use cache_kit_test_support::{Ca, Certificate, RedisCluster, RedisServer};

const PASSWORD: &str = "correct horse";

fn builder(url: &str) -> RedisBuilder {
    RedisBackend::builder_from_url(url).unwrap().operation_timeout(Duration::from_secs(5))
}

fn to(server: &RedisServer) -> RedisBuilder {
    builder(&format!("rediss://:correct%20horse@{}", server.addr()))
}

fn ca(server: &RedisServer) -> Vec<u8> {
    std::fs::read(server.ca_certificate()).unwrap()
}

async fn works(backend: &RedisBackend) {
    backend.connect().await.unwrap();
    let large = Bytes::from(vec![7_u8; 900_000]);
    backend.set("large", large.clone(), None).await.unwrap();
    assert_eq!(backend.get("large").await.unwrap().unwrap(), large);
}

/// Neither connects nor answers, says why in time, and gives nothing away.
async fn refused(what: &str, backend: &RedisBackend, says: &str, hints: &str) -> Error {
    let began = Instant::now();
    let error = backend.connect().await.unwrap_err();
    println!("{what}, after {:?}: {error}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(5), "{what}: {:?}", began.elapsed());
    let (message, hint) = (error.to_string(), error.hint().unwrap_or_default());
    assert!(message.contains(says), "{what}: {message}");
    assert!(hint.contains(hints), "{what}: {hint}");
    assert!(!format!("{error:?} {error:#}").contains(PASSWORD), "{what}");
    assert!(backend.get("key").await.is_err(), "{what}");
    error
}

/// How often the server was sent credentials, this question's own included.
fn logins(server: &RedisServer) -> u64 {
    let stats = server.command("INFO commandstats");
    let calls = stats.lines().find_map(|line| line.strip_prefix("cmdstat_auth:calls="));
    calls.and_then(|rest| rest.split(',').next()?.parse().ok()).unwrap()
}

fn server(certificate: Certificate) -> RedisServer {
    RedisServer::builder().certificate(certificate).password(PASSWORD).start()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_trusted_certificate_for_the_right_name_is_all_it_takes() {
    let server = RedisServer::builder().tls().start();
    let roots = server.ca_certificate();
    let url = format!("rediss://localhost:{}?tls_roots={}&require_tls=true", server.port(), roots.display());
    works(&builder(&url).build().unwrap()).await;
    let valkeys = url.replace("rediss://", "valkeys://");
    works(&builder(&valkeys).build().unwrap()).await;
    let by_address = builder(&format!("rediss://127.0.0.1:{}", server.port()));
    works(&by_address.tls_root_certificates(ca(&server)).build().unwrap()).await;
}

#[tokio::test]
async fn a_certificate_that_is_not_right_is_refused_by_what_is_wrong_with_it() {
    let [wrong_name, expired, valid, stranger] =
        [Certificate::WrongName, Certificate::Expired, Certificate::Valid, Certificate::Valid].map(server);
    for (what, server, trusted, says, hints) in [
        ("wrong name", &wrong_name, &wrong_name, "another name", "tls_server_name"),
        ("expired", &expired, &expired, "expired", "renew"),
        ("untrusted", &valid, &stranger, "trusted", "tls_roots"),
    ] {
        let backend = to(server).tls_root_certificates(ca(trusted)).build().unwrap();
        let before = logins(server);
        let error = refused(what, &backend, says, hints).await;
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{what}");
        assert!(!error.is_transient(), "{what}: a certificate does not change by itself");
        assert_eq!(logins(server), before + 1, "{what}");
    }
    // The system's roots do not have the authority of a test.
    let (backend, before) = (to(&valid).build().unwrap(), logins(&valid));
    refused("system roots", &backend, "trusted", "tls_roots").await;
    assert_eq!(logins(&valid), before + 1);
}

#[tokio::test]
async fn a_name_that_is_said_to_be_right_is_the_one_that_counts() {
    let server = server(Certificate::WrongName);
    let named = to(&server).tls_root_certificates(ca(&server)).tls_server_name("elsewhere.example");
    works(&named.build().unwrap()).await;
    let url = format!(
        "rediss://:correct%20horse@{}?tls_roots={}&tls_server_name=nowhere.example",
        server.addr(),
        server.ca_certificate().display()
    );
    refused("other name", &builder(&url).build().unwrap(), "another name", "tls_server_name").await;
}

#[tokio::test]
async fn a_client_certificate_that_is_missing_is_named_as_the_problem() {
    let server = RedisServer::builder().client_certificates().password(PASSWORD).start();
    let backend = to(&server).tls_root_certificates(ca(&server)).build().unwrap();
    refused("no client certificate", &backend, "certificate", "tls_certificate").await;
    let (certificate, key) = server.client_certificate();
    let shown = to(&server).tls_root_certificates(ca(&server)).tls_client_certificate(certificate, key);
    works(&shown.build().unwrap()).await;
}

#[tokio::test]
async fn a_server_without_tls_gets_no_credentials() {
    let server = RedisServer::builder().password(PASSWORD).start();
    let url = format!("rediss://:correct%20horse@{}?connection_timeout=1s", server.addr());
    let before = logins(&server);
    refused("plaintext server", &builder(&url).build().unwrap(), "TLS", "port").await;
    assert_eq!(logins(&server), before + 1);
}

#[tokio::test]
async fn verification_is_weakened_only_by_a_call_that_says_danger() {
    let server = server(Certificate::Expired);
    let backend = to(&server).danger_accept_invalid_certificates().build().unwrap();
    works(&backend).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_node_of_a_cluster_is_verified() {
    let cluster = RedisCluster::builder().tls().replicas(0).password("secret").start();
    let url = format!("{}?tls_roots={}", cluster.url(), cluster.ca_certificate().display());
    let backend = builder(&url).build().unwrap();
    backend.connect().await.unwrap();
    for n in 0..100 {
        let key = format!("key:{n}");
        backend.set(&key, Bytes::from(key.clone()), None).await.unwrap();
        assert_eq!(backend.get(&key).await.unwrap().unwrap(), key);
    }
    // Somebody else's nodes, whom nobody trusts.
    let other = Ca::new();
    let pem = other.certificate();
    let backend = builder(&cluster.url()).tls_root_certificates(pem).build().unwrap();
    refused("cluster of another authority", &backend, "trusted", "tls_roots").await;
}

/// A node of a cluster with this certificate of this authority, for these slots, whose bus is not encrypted: the nodes
/// need not trust each other.
fn node(ca: &Ca, slots: &str) -> (RedisServer, u16) {
    let bus = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
    let server = RedisServer::builder()
        .ca(ca)
        .password(PASSWORD)
        .arg("--cluster-enabled")
        .arg("yes")
        .arg("--tls-cluster")
        .arg("no")
        .arg("--cluster-port")
        .arg(bus.to_string())
        .start();
    let announce = format!("CONFIG SET cluster-announce-port {}", server.port());
    assert_eq!(server.command(&announce), "OK");
    assert_eq!(server.command(&format!("CLUSTER ADDSLOTSRANGE {slots}")), "OK");
    (server, bus)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redirection_to_a_node_with_a_bad_certificate_is_not_followed() {
    let (trusted, stranger) = (Ca::new(), Ca::new());
    let (good, _) = node(&trusted, "0 8191");
    let (bad, bus) = node(&stranger, "8192 16383");
    assert_eq!(good.command(&format!("CLUSTER MEET 127.0.0.1 {} {bus}", bad.port())), "OK");
    common::until("the cluster", Duration::from_secs(20), async || {
        good.command("CLUSTER INFO").contains("cluster_state:ok")
    })
    .await;
    let backend = to(&good).tls_root_certificates(trusted.certificate()).build().unwrap();
    let before = logins(&bad);
    // `bar` is in slot 5,061 and `foo` in 12,182.
    backend.set("bar", Bytes::from_static(b"here"), None).await.unwrap();
    let error = backend.set("foo", Bytes::from_static(b"there"), None).await.unwrap_err();
    println!("redirected: {error}");
    assert!(error.to_string().contains("trusted"), "{error}");
    assert!(error.hint().unwrap_or_default().contains("tls_roots"), "{error:?}");
    assert_eq!(backend.get("bar").await.unwrap().unwrap(), "here");
    assert_eq!(logins(&bad), before + 1);
    let error = backend.connect().await.unwrap_err();
    assert!(error.to_string().contains(&bad.addr()), "the node is named: {error}");
}
