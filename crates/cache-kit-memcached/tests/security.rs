//! TLS, authentication, and the ways to name a server: connected where that is right, and an error that says why where
//! it is not, which never holds a password.

#![cfg(feature = "tls")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::print_stdout, reason = "what was measured, for `--nocapture`")]

mod common;

use std::path::PathBuf;
use std::time::{Duration, Instant};

use cache_kit_memcached::protocol::{Credentials, SetOptions, StatsTopic};
use cache_kit_memcached::{Client, ClientBuilder, Error, ErrorKind, Server, Tls};
use cache_kit_test_support::{Certificate, MemcachedServer};
use common::{counting, patient, seconds, told};
use futures_util::future::join_all;

const BOUND: Duration = Duration::from_secs(2);

fn to(server: &MemcachedServer) -> ClientBuilder {
    patient([server.addr()]).connection_timeout(BOUND).min_connections(1)
}

fn pem(path: PathBuf) -> Vec<u8> {
    std::fs::read(path).unwrap()
}

fn trusting(server: &MemcachedServer) -> Tls {
    Tls::with_root_certificates(&pem(server.ca_certificate())).unwrap()
}

/// All kinds of operations, a value that takes many TLS records, and many callers at the same time.
async fn works(client: &Client) {
    client.connect().await.unwrap();
    let large: Vec<u8> = (0..900_000_u32).map(|n| (n % 251) as u8).collect();
    assert!(client.set(b"large", &large, SetOptions::default()).await.unwrap());
    assert!(client.get(b"large").await.unwrap().unwrap().data == large);
    let n = counting(|o| (o.vivify, o.initial, o.value) = (Some(seconds(60)), 7, true));
    assert_eq!(client.arithmetic(b"a number", n).await.unwrap().reply.number(), Some(7));
    assert!(client.delete(b"a number").await.unwrap());
    assert!(client.stats(StatsTopic::General).await.remove(0).is_ok());
    let callers = (0..200).map(|n| async move {
        let key = format!("key:{n}");
        client.set(key.as_bytes(), key.as_bytes(), SetOptions::default()).await.unwrap();
        assert_eq!(client.get(key.as_bytes()).await.unwrap().unwrap().data, key.as_bytes());
    });
    join_all(callers).await;
    assert!(client.get_many(&[b"large", b"key:1", b"missing"]).await.iter().all(Result::is_ok));
    client.flush_all().await.unwrap();
}

/// Neither connects nor answers, in time.
async fn refused(what: &str, client: &Client) -> Error {
    let began = Instant::now();
    let error = client.connect().await.unwrap_err();
    let took = began.elapsed();
    println!("{what}, after {took:?}: {error}");
    assert!(took < 5 * BOUND, "{what}: {took:?}");
    let set = client.set(b"key", b"value", SetOptions::default()).await;
    assert!(set.is_err() && client.get(b"key").await.is_err(), "{what}");
    error
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_everything_works_and_comes_back_after_a_restart() {
    let server = MemcachedServer::builder().tls().start();
    let client = to(&server).tls(trusting(&server)).build().unwrap();
    works(&client).await;
    // By name, and by another name that is said to be the right one.
    let port = server.port();
    for host in ["localhost", "127.0.0.1"] {
        let builder = patient([format!("{host}:{port}")]).tls(trusting(&server));
        works(&builder.build().unwrap()).await;
    }
    let named = trusting(&server).server_name("localhost").unwrap();
    works(&to(&server).tls(named).build().unwrap()).await;
    server.restart();
    common::until("the restarted server", Duration::from_secs(5), async || client.get(b"k").await.is_ok())
        .await;
    works(&client).await;
}

#[tokio::test]
async fn a_certificate_that_is_not_right_is_refused_and_the_error_says_so() {
    let (valid, stranger) =
        (MemcachedServer::builder().tls().start(), MemcachedServer::builder().tls().start());
    let [wrong_name, expired] = [Certificate::WrongName, Certificate::Expired]
        .map(|certificate| MemcachedServer::builder().certificate(certificate).start());
    let elsewhere = trusting(&valid).server_name("elsewhere.example").unwrap();
    for (what, word, server, tls) in [
        ("unknown authority", "InvalidCertificate", &valid, trusting(&stranger)),
        ("not for this name", "name", &wrong_name, trusting(&wrong_name)),
        ("not for the name that was said", "name", &valid, elsewhere),
        ("expired", "xpired", &expired, trusting(&expired)),
    ] {
        let error = refused(what, &to(server).tls(tls).build().unwrap()).await;
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{what}: {error:?}");
        assert!(error.hint().contains("certificate"), "{what}: {error}");
        assert!(told(&error).contains(word), "{what}: {error:?}");
        assert_eq!(server.stat("cmd_set"), 0, "{what}");
    }
    // Which name it is, is for who configures it to say.
    let tls = trusting(&wrong_name).server_name("elsewhere.example").unwrap();
    works(&to(&wrong_name).tls(tls).build().unwrap()).await;
}

#[tokio::test]
async fn a_server_that_asks_for_a_certificate_gets_one_of_its_authority_or_refuses() {
    let server = MemcachedServer::builder().client_certificates().start();
    let stranger = MemcachedServer::builder().client_certificates().start();
    let shown = |from: &MemcachedServer| {
        let (certificate, key) = (pem(from.client_certificate()), pem(from.client_key()));
        Tls::with_client_certificate(&pem(server.ca_certificate()), &certificate, &key).unwrap()
    };
    works(&to(&server).tls(shown(&server)).build().unwrap()).await;
    let without = refused("no certificate", &to(&server).tls(trusting(&server)).build().unwrap()).await;
    let others =
        refused("somebody else's certificate", &to(&server).tls(shown(&stranger)).build().unwrap()).await;
    assert_eq!([without.kind(), others.kind()], [ErrorKind::Unavailable; 2]);
    // A key that is another certificate's is found out before anything is sent.
    let (ca, certificate) = (pem(server.ca_certificate()), pem(server.client_certificate()));
    let error = Tls::with_client_certificate(&ca, &certificate, &pem(stranger.client_key())).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
}

// In TLS 1.3 the refusal comes after the handshake, as an alert that the first read finds.
#[tokio::test]
async fn a_client_certificate_that_is_missing_is_named_as_the_problem() {
    let server = MemcachedServer::builder().client_certificates().start();
    let error = refused("no certificate", &to(&server).tls(trusting(&server)).build().unwrap()).await;
    assert!(told(&error).contains("ertificate"), "{}", told(&error));
}

#[test]
fn what_is_no_certificate_is_a_wrong_setting() {
    let server = MemcachedServer::builder().client_certificates().start();
    let (ca, key) = (pem(server.ca_certificate()), pem(server.client_key()));
    for wrong in [
        Tls::with_root_certificates(b""),
        Tls::with_root_certificates(b"-----BEGIN CERTIFICATE-----\nsesame\n-----END CERTIFICATE-----\n"),
        Tls::with_root_certificates(&key),
        Tls::with_client_certificate(&ca, &ca, b"sesame"),
        Tls::with_client_certificate(&ca, b"sesame", &key),
        Tls::with_root_certificates(&ca).and_then(|tls| tls.server_name("not a name")),
    ] {
        let error = wrong.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
        assert!(!told(&error).contains("sesame"), "{error:?}");
    }
}

#[tokio::test]
async fn tls_on_one_side_only_is_an_error_in_time() {
    let (plain, secured) = (MemcachedServer::start(), MemcachedServer::builder().tls().start());
    let tls = trusting(&secured);
    for (what, client) in [
        ("no TLS to a server with TLS", to(&secured).build().unwrap()),
        ("TLS to a server without", to(&plain).tls(tls).build().unwrap()),
    ] {
        let error = refused(what, &client).await;
        assert!(error.is_transient(), "{what}: {error:?}");
        assert!(error.to_string().contains("TLS") || error.kind() == ErrorKind::Timeout, "{what}: {error}");
    }
}

#[tokio::test]
async fn the_right_credentials_let_in_and_wrong_ones_are_named_and_never_printed() {
    let server = MemcachedServer::builder().auth("shop", "sesame").start();
    let with =
        |user: &str, password: &str| to(&server).credentials(Credentials::new(user, password).unwrap());
    let right = with("shop", "sesame").build().unwrap();
    works(&right).await;
    for (what, builder) in [
        ("wrong password", with("shop", "hunter2")),
        ("wrong user", with("hunter2", "sesame")),
        ("no credentials", to(&server)),
    ] {
        let mut texts = format!("{builder:?} {builder:#?}");
        let client = builder.build().unwrap();
        let error = refused(what, &client).await;
        assert_eq!(error.kind(), ErrorKind::Auth, "{what}: {error:?}");
        assert!(!error.is_transient() && error.hint().contains("password"), "{what}: {error}");
        texts += &told(&error);
        for _ in 0..5 {
            texts += &told(&client.get(b"key").await.unwrap_err());
            texts += &told(&client.flush_all().await.unwrap_err());
            texts += &told(&client.stats(StatsTopic::General).await.remove(0).unwrap_err());
            texts += &told(&client.get_many(&[b"key"]).await.remove(0).unwrap_err());
        }
        texts += &format!("{client:?} {client:#?}");
        assert!(!texts.contains("hunter2") && !texts.contains("sesame"), "{what}: {texts}");
    }
    // Who is let in is let in again.
    server.restart();
    common::until("the restarted server", Duration::from_secs(5), async || right.get(b"k").await.is_ok())
        .await;
    works(&right).await;
}

#[tokio::test]
async fn credentials_for_a_server_that_asks_for_none_are_not_left_there_for_everybody_to_read() {
    let server = MemcachedServer::start();
    let client = to(&server).credentials(Credentials::new("shop", "sesame").unwrap()).build().unwrap();
    works(&client).await;
    for key in ["%#auth", "shop", "login", "auth"] {
        assert_eq!(server.command(&format!("get {key}")), "END");
    }
}

#[tokio::test]
async fn credentials_go_over_tls_and_over_a_unix_socket_too() {
    let credentials = || Credentials::new("shop", "sesame").unwrap();
    let server = MemcachedServer::builder().tls().auth("shop", "sesame").start();
    works(&to(&server).tls(trusting(&server)).credentials(credentials()).build().unwrap()).await;
    let error =
        refused("no credentials over TLS", &to(&server).tls(trusting(&server)).build().unwrap()).await;
    assert_eq!(error.kind(), ErrorKind::Auth);
    let server = MemcachedServer::builder().unix_socket().auth("shop", "sesame").start();
    works(&to(&server).credentials(credentials()).build().unwrap()).await;
    let error = refused("no credentials over a unix socket", &to(&server).build().unwrap()).await;
    assert_eq!(error.kind(), ErrorKind::Auth);
}

#[tokio::test]
async fn a_unix_socket_serves_as_a_port_does() {
    let server = MemcachedServer::builder().unix_socket().start();
    works(&to(&server).build().unwrap()).await;
    let with_scheme = Server::parse(&format!("unix:{}", server.addr())).unwrap();
    let client = Client::builder().server(with_scheme).build().unwrap();
    works(&client).await;
    server.kill();
    assert!(client.get(b"key").await.unwrap_err().is_transient());
    server.restart();
    common::until("the restarted server", Duration::from_secs(5), async || client.get(b"k").await.is_ok())
        .await;
    // TLS has no name to verify there, and says so.
    let tls =
        Tls::with_root_certificates(&pem(MemcachedServer::builder().tls().start().ca_certificate())).unwrap();
    let error = refused("TLS over a unix socket", &to(&server).tls(tls).build().unwrap()).await;
    assert!(error.hint().contains("server_name"), "{error:?}");
}

#[tokio::test]
async fn ipv6_and_host_names_are_found() {
    let has_ipv6 = std::net::TcpListener::bind("[::1]:0");
    assert!(
        has_ipv6.is_ok(),
        "this machine has no IPv6 loopback address, which this test needs: {has_ipv6:?}"
    );
    let server = MemcachedServer::builder().arg("-l").arg("[::1]").start();
    for host in ["[::1]", "localhost", "127.0.0.1"] {
        let client = patient([format!("{host}:{}", server.port())]).build().unwrap();
        works(&client).await;
        assert_eq!(client.address(0), format!("{host}:{}", server.port()));
    }
    // Of the addresses of a name the one that answers.
    let only_v6 = patient([format!("[::1]:{}", MemcachedServer::start().port())]).build().unwrap();
    let error = refused("nobody at this address", &only_v6).await;
    assert!(error.is_transient() && error.to_string().contains("[::1]"), "{error}");
    let nowhere = patient(["no-such-host.invalid:1"]).connection_timeout(BOUND).build().unwrap();
    let error = refused("no such host", &nowhere).await;
    assert!(error.to_string().contains("no-such-host.invalid"), "{error}");
}
