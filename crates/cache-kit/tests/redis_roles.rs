//! What a server's change of mind means: another role, other credentials, a primary that it has lost.

#![cfg(feature = "redis")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cache_kit::backend::redis::{RedisCredentials, RedisReadFrom};
use cache_kit::backend::{CacheBackend, RedisBackend, RedisConfig};
use cache_kit::{Error, ErrorKind};
use cache_kit_test_support::{Direction, Fault, FaultProxy, RedisServer};
use common::bounded;

fn backend(server: &RedisServer) -> RedisBackend {
    let builder = RedisBackend::builder_from_url(&server.url()).unwrap();
    builder.operation_timeout(Duration::from_secs(2)).build().unwrap()
}

async fn set(backend: &RedisBackend) -> cache_kit::Result<()> {
    backend.set("k", Bytes::from_static(b"v"), None).await
}

/// Clients of this library that the server has had, in all.
fn connections_received(server: &RedisServer) -> u64 {
    let stats = server.command("INFO stats");
    let count = stats.lines().find_map(|line| line.strip_prefix("total_connections_received:"));
    count.unwrap().trim().parse().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_becomes_a_replica_refuses_writes_as_unavailable_and_is_used_when_it_is_a_primary_again()
 {
    let (primary, server) = (RedisServer::start(), RedisServer::start());
    let backend = backend(&server);
    set(&backend).await.unwrap();
    server.command(&format!("REPLICAOF 127.0.0.1 {}", primary.port()));
    let linked = async || server.command("INFO replication").contains("master_link_status:up");
    common::until("the replica's link", Duration::from_secs(20), linked).await;
    let before = connections_received(&server);
    for _ in 0..100 {
        let error = set(&backend).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
        assert!(error.is_transient() && error.to_string().contains("replica"), "{error}");
        assert!(backend.delete("k").await.is_err(), "an invalidation that did not happen is no success");
    }
    // Whoever is there now may be another one: looked for at most once a second, however many are refused. The test bed
    // connects as well, once for the count.
    let reconnects = connections_received(&server) - before;
    assert!(reconnects < 12, "{reconnects} connections");
    server.command("REPLICAOF NO ONE");
    common::until("the primary", Duration::from_secs(3), async || set(&backend).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_name_that_leads_to_another_server_is_followed_when_the_old_one_is_a_replica() {
    // As an endpoint of a managed service is, whose address changes with the primary.
    let (old, new) = (RedisServer::start(), RedisServer::start());
    let proxy = FaultProxy::start(old.addr());
    let endpoint = RedisBackend::builder_from_url(&format!("redis://{}", proxy.addr())).unwrap();
    let endpoint = endpoint.operation_timeout(Duration::from_secs(2)).build().unwrap();
    set(&endpoint).await.unwrap();
    old.command(&format!("REPLICAOF 127.0.0.1 {}", new.port()));
    proxy.set_upstream(new.addr());
    // The write is refused, the connection is made anew, and the write is sent again: nobody notices.
    set(&endpoint).await.unwrap();
    assert_eq!(new.command("GET k"), "v");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_that_change_are_asked_for_with_each_connection() {
    let server = RedisServer::builder().acl_user("app", "first", "~* +@all").start();
    let (password, asked) = (Arc::new(Mutex::new("first".to_owned())), Arc::new(AtomicUsize::new(0)));
    let provider = {
        let (password, asked) = (Arc::clone(&password), Arc::clone(&asked));
        move || {
            asked.fetch_add(1, Ordering::SeqCst);
            let password = password.lock().unwrap().clone();
            async move { Ok(RedisCredentials { username: Some("app".to_owned()), password }) }
        }
    };
    let config = RedisConfig { host: "127.0.0.1".into(), port: server.port(), ..RedisConfig::default() };
    let builder = RedisBackend::builder(config).operation_timeout(Duration::from_secs(2));
    let backend = builder.credentials_provider(provider).build().unwrap();
    set(&backend).await.unwrap();
    assert_eq!(asked.load(Ordering::SeqCst), 1);
    // Rotated: the server lets the old connection go on until it is closed.
    server.command("ACL SETUSER app resetpass >second");
    server.command("CLIENT KILL USER app");
    let refused = async || set(&backend).await.is_err_and(|error| error.kind() == ErrorKind::Auth);
    common::until("the refusal", Duration::from_secs(3), refused).await;
    *password.lock().unwrap() = "second".to_owned();
    let began = Instant::now();
    common::until("the new password", Duration::from_secs(3), async || set(&backend).await.is_ok()).await;
    assert!(began.elapsed() < Duration::from_secs(3));
    let text = format!("{backend:?}");
    assert!(!text.contains("second") && !text.contains("first"), "{text}");
}

#[tokio::test]
async fn a_provider_of_credentials_that_fails_is_an_error_and_not_a_login_without() {
    let server = RedisServer::start();
    let config = RedisConfig { host: "127.0.0.1".into(), port: server.port(), ..RedisConfig::default() };
    let builder = RedisBackend::builder(config);
    let failing = builder
        .credentials_provider(|| async { Err::<RedisCredentials, _>(Error::source("vault is sealed")) })
        .build()
        .unwrap();
    let error = failing.connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Auth, "{error:?}");
    assert!(format!("{error:?}").contains("vault is sealed"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn replicas_that_are_named_are_read_from_and_passed_over_when_they_have_lost_their_primary() {
    let (primary, replica) = (RedisServer::start(), RedisServer::start());
    replica.command("CONFIG SET replica-serve-stale-data no");
    replica.command(&format!("REPLICAOF 127.0.0.1 {}", primary.port()));
    let linked = async || replica.command("INFO replication").contains("master_link_status:up");
    common::until("the replica's link", Duration::from_secs(20), linked).await;
    let builder = RedisBackend::builder_from_url(&primary.url()).unwrap();
    let backend = builder
        .replicas([replica.addr()])
        .read_from(RedisReadFrom::PreferReplica)
        .operation_timeout(Duration::from_secs(2))
        .build()
        .unwrap();
    set(&backend).await.unwrap();
    let gets = |server: &RedisServer| server.command("INFO commandstats").contains("cmdstat_get:");
    common::until("the replica", Duration::from_secs(5), async || {
        bounded(backend.get("k")).await.unwrap();
        gets(&replica)
    })
    .await;
    assert!(!gets(&primary) || backend.get("k").await.unwrap().is_some());
    // MASTERDOWN to every read from now on.
    replica.command("REPLICAOF 127.0.0.1 1");
    for _ in 0..20 {
        assert_eq!(bounded(backend.get("k")).await.unwrap().unwrap(), "v");
        assert_eq!(bounded(backend.mget(&["k"])).await.unwrap()[0].as_ref().unwrap(), "v");
    }
    // What a replica does not know yet, the primary knows.
    replica.command("REPLICAOF NO ONE");
    backend.delete("k").await.unwrap();
    let acquired = backend.acquire("k", None, Duration::from_secs(5)).await.unwrap();
    assert!(matches!(acquired, cache_kit::backend::Acquired::Granted { .. }), "{acquired:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_link_that_is_dead_is_noticed_within_two_seconds_though_nobody_calls() {
    let server = RedisServer::start();
    let proxy = FaultProxy::start(server.addr());
    let backend = RedisBackend::from_url(&format!("redis://{}", proxy.addr())).unwrap();
    set(&backend).await.unwrap();
    let began = Instant::now();
    proxy.set(Direction::ToClient, Fault::Blackhole { keep_reading: true });
    common::until("the suspicion", Duration::from_secs(10), async || backend.connections() == 0).await;
    let took = began.elapsed();
    println!("a dead link, nobody calling: noticed after {took:?}");
    assert!(took < Duration::from_secs(5 * 2), "{took:?}");
    proxy.clear();
    common::until("the server", Duration::from_secs(3), async || set(&backend).await.is_ok()).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_value_that_takes_long_to_come_is_a_sign_of_life_itself() {
    let server = RedisServer::start();
    let proxy = FaultProxy::start(server.addr());
    let builder = RedisBackend::builder_from_url(&format!("redis://{}", proxy.addr())).unwrap();
    let backend = builder.operation_timeout(Duration::from_millis(900)).build().unwrap();
    let large = Bytes::from(vec![7_u8; 6 << 20]);
    backend.set("large", large.clone(), None).await.unwrap();
    // Two and a half seconds: more than a sign of life may take, and than an operation of another caller may.
    proxy.set(Direction::ToClient, Fault::Throttle { bytes_per_second: 2_500_000 });
    let before = connections_received(&server);
    let slow = backend.get("large").await;
    assert!(slow.is_err_and(|error| error.kind() == ErrorKind::Timeout), "its own deadline");
    let came = async || proxy.received(Direction::ToClient) == proxy.forwarded(Direction::ToClient);
    common::until("the large value", Duration::from_secs(20), came).await;
    proxy.clear();
    common::until("the server", Duration::from_secs(3), async || set(&backend).await.is_ok()).await;
    assert_eq!(connections_received(&server) - before, 1, "that of the count itself");
}

#[test]
fn the_least_rights_in_the_documentation_are_those_that_the_suite_runs_under() {
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    let guide = words(include_str!("../src/backend/redis/guide.md"));
    assert!(guide.contains(&words(&common::least_rights("app:"))));
}
