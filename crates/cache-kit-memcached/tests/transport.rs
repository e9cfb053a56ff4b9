//! TLS, authentication, unix sockets, IPv6: connected where that is right, and an error that says why where it is not.

#![cfg(feature = "tls")]
#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test that cannot go on fails")]

use std::time::{Duration, Instant};

use cache_kit_memcached::protocol::{Credentials, SetOptions};
use cache_kit_memcached::{Client, ClientBuilder, ErrorKind, Tls};
use cache_kit_test_support::{Certificate, MemcachedServer};

fn to(server: &MemcachedServer) -> ClientBuilder {
    let builder = Client::builder().servers([server.addr()]).unwrap();
    builder.connection_timeout(Duration::from_secs(5)).min_connections(1)
}

async fn works(client: &Client) {
    client.connect().await.unwrap();
    client.set(b"key", b"value", SetOptions::default()).await.unwrap();
    assert_eq!(client.get(b"key").await.unwrap().unwrap().data, &b"value"[..]);
    let large = vec![b'x'; 900_000];
    client.set(b"large", &large, SetOptions::default()).await.unwrap();
    assert_eq!(client.get(b"large").await.unwrap().unwrap().data, large);
}

fn trusting(server: &MemcachedServer) -> Tls {
    Tls::with_root_certificates(&std::fs::read(server.ca_certificate()).unwrap()).unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_everything_works_and_many_callers_share_it() {
    let server = MemcachedServer::builder().tls().start();
    let client = to(&server).tls(trusting(&server)).build().unwrap();
    works(&client).await;
    let callers = (0..500).map(|n| {
        let client = client.clone();
        async move {
            let key = format!("key:{n}");
            client.set(key.as_bytes(), key.as_bytes(), SetOptions::default()).await.unwrap();
            assert_eq!(client.get(key.as_bytes()).await.unwrap().unwrap().data, key.as_bytes());
        }
    });
    futures_util::future::join_all(callers).await;
}

#[tokio::test]
async fn a_certificate_that_is_not_right_is_refused() {
    let valid = MemcachedServer::builder().tls().start();
    let stranger = MemcachedServer::builder().tls().start();
    for (what, server, tls) in [
        ("an unknown authority", &valid, trusting(&stranger)),
        ("another name", &valid, trusting(&valid).server_name("cache.example").unwrap()),
    ] {
        let error = to(server).tls(tls).build().unwrap().connect().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{what}: {error:?}");
        assert!(error.to_string().contains("TLS"), "{what}: {error}");
    }
    for certificate in [Certificate::WrongName, Certificate::Expired] {
        let server = MemcachedServer::builder().certificate(certificate).start();
        let error = to(&server).tls(trusting(&server)).build().unwrap().connect().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    }
}

#[tokio::test]
async fn a_server_that_asks_for_a_client_certificate_gets_it() {
    let server = MemcachedServer::builder().client_certificates().start();
    let read = |path: std::path::PathBuf| std::fs::read(path).unwrap();
    let (ca, certificate, key) =
        (read(server.ca_certificate()), read(server.client_certificate()), read(server.client_key()));
    let tls = Tls::with_client_certificate(&ca, &certificate, &key).unwrap();
    works(&to(&server).tls(tls).build().unwrap()).await;
    let without = to(&server).tls(trusting(&server)).build().unwrap();
    assert!(without.connect().await.is_err());
}

#[tokio::test]
async fn tls_on_one_side_only_is_an_error_in_time() {
    let (plain, secured) = (MemcachedServer::start(), MemcachedServer::builder().tls().start());
    let began = Instant::now();
    let bound = Duration::from_millis(500);
    let error = to(&secured).connection_timeout(bound).build().unwrap().connect().await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Unavailable), "{error:?}");
    let tls = trusting(&secured);
    let error = to(&plain).tls(tls).connection_timeout(bound).build().unwrap().connect().await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Timeout | ErrorKind::Unavailable), "{error:?}");
    assert!(began.elapsed() < 10 * bound, "{:?}", began.elapsed());
}

#[tokio::test]
async fn credentials_let_in_and_wrong_ones_are_named_and_never_printed() {
    let server = MemcachedServer::builder().auth("shop", "sesame").start();
    let with = |user: &str, password: &str| {
        to(&server).credentials(Credentials::new(user, password).unwrap()).build().unwrap()
    };
    works(&with("shop", "sesame")).await;
    for wrong in [with("shop", "hunter2"), with("nobody", "hunter2"), to(&server).build().unwrap()] {
        let error = wrong.connect().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Auth, "{error:?}");
        let text = format!("{error} {error:?} {error:#?} {wrong:?}");
        assert!(!text.contains("hunter2") && !text.contains("sesame"), "{text}");
        assert!(wrong.get(b"key").await.is_err());
    }
}

#[tokio::test]
async fn a_unix_socket_serves_as_a_port_does() {
    let server = MemcachedServer::builder().unix_socket().start();
    works(&to(&server).build().unwrap()).await;
}

#[tokio::test]
async fn ipv6_and_host_names_are_found() {
    let server = MemcachedServer::builder().arg("-l").arg("[::1]").start();
    for host in ["[::1]", "localhost", "127.0.0.1"] {
        let builder = Client::builder().servers([format!("{host}:{}", server.port())]).unwrap();
        works(&builder.build().unwrap()).await;
    }
}
