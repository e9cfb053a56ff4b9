//! A primary behind sentinels: found by name, followed when another one takes its place. Bounds in time are five times what
//! is aimed at, for machines that are busy with something else.

#![cfg(feature = "redis")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cache_kit::ErrorKind;
use cache_kit::backend::redis::RedisReadFrom;
use cache_kit::backend::{CacheBackend, RedisBackend, RedisConfig};
use cache_kit_test_support::{RedisSentinels, RedisServer};
use common::bounded;

const DEADLINE: Duration = Duration::from_millis(500);
/// After the sentinels have named the new primary.
const RECOVERY: Duration = Duration::from_millis(500);

fn backend(sentinels: &RedisSentinels) -> RedisBackend {
    let builder = RedisBackend::builder_from_url(&sentinels.url()).unwrap();
    builder.operation_timeout(DEADLINE).build().unwrap()
}

async fn set(backend: &RedisBackend) -> bool {
    backend.set("k", Bytes::from_static(b"v"), None).await.is_ok()
}

/// Lets the primary fail in some way, and tells how long after the new one was named it is used, and the longest call.
async fn followed(
    sentinels: &Arc<RedisSentinels>,
    backend: &RedisBackend,
    fail: impl FnOnce(&RedisSentinels) -> usize + Send + 'static,
) -> (Duration, Duration) {
    common::until("the primary", Duration::from_secs(5), async || set(backend).await).await;
    let named = {
        let sentinels = Arc::clone(sentinels);
        tokio::task::spawn_blocking(move || {
            let old = fail(&sentinels);
            sentinels.wait_for_new_primary(old);
            Instant::now()
        })
    };
    let mut longest = Duration::ZERO;
    while !named.is_finished() {
        let began = Instant::now();
        set(backend).await;
        longest = longest.max(began.elapsed());
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let named = bounded(named).await.unwrap();
    common::until("the new primary", Duration::from_secs(10), async || set(backend).await).await;
    (named.elapsed(), longest)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_the_primary_dies_the_one_that_the_sentinels_name_is_used() {
    let sentinels = Arc::new(RedisSentinels::start());
    let backend = backend(&sentinels);
    let (took, longest) = followed(&sentinels, &backend, RedisSentinels::kill_primary).await;
    println!("killed: used {took:?} after it was named, longest call {longest:?}");
    assert!(took < 5 * RECOVERY, "{took:?}");
    assert!(longest < DEADLINE + Duration::from_millis(250), "{longest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_primary_that_hangs_does_not_hold_up_the_use_of_the_next_one() {
    let sentinels = Arc::new(RedisSentinels::start());
    let backend = backend(&sentinels);
    let stand_still = |sentinels: &RedisSentinels| {
        let old = sentinels.primary();
        sentinels.servers()[old].pause();
        old
    };
    let (took, longest) = followed(&sentinels, &backend, stand_still).await;
    println!("standing still: used {took:?} after it was named, longest call {longest:?}");
    assert!(took < 5 * RECOVERY, "{took:?}");
    assert!(longest < DEADLINE + Duration::from_millis(250), "{longest:?}");
    // The old one comes back and still thinks that it is the primary: it is not written to.
    let old = 1 - sentinels.primary();
    sentinels.servers()[old].resume();
    for n in 0..200 {
        let key = format!("after:{n}");
        backend.set(&key, Bytes::new(), None).await.unwrap();
    }
    let new = &sentinels.servers()[1 - old];
    assert_eq!(new.command("EXISTS after:0 after:199"), "2");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planned_failover_is_followed() {
    let sentinels = Arc::new(RedisSentinels::start());
    let backend = backend(&sentinels);
    let (took, longest) = followed(&sentinels, &backend, |sentinels| sentinels.fail_over().0).await;
    println!("planned: used {took:?} after it was named, longest call {longest:?}");
    assert!(took < 5 * RECOVERY, "{took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_to_a_primary_that_has_become_a_replica_is_noticed_without_a_write() {
    let sentinels = Arc::new(RedisSentinels::start());
    let backend = backend(&sentinels);
    assert!(set(&backend).await);
    let (old, new) = {
        let sentinels = Arc::clone(&sentinels);
        bounded(tokio::task::spawn_blocking(move || sentinels.fail_over())).await.unwrap()
    };
    let gets = |server: &RedisServer| server.command("INFO commandstats").matches("cmdstat_get:").count();
    for server in sentinels.servers() {
        server.command("CONFIG RESETSTAT");
    }
    let read = async || {
        let _may_fail = backend.get("k").await;
        gets(&sentinels.servers()[new]) > 0
    };
    let took = common::until("reads from the new primary", 5 * RECOVERY, read).await;
    println!("read from the new primary {took:?} after it was named");
    sentinels.servers()[old].command("CONFIG RESETSTAT");
    for _ in 0..50 {
        backend.get("k").await.unwrap();
    }
    assert_eq!(gets(&sentinels.servers()[old]), 0, "nothing is read from the old one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_still_takes_itself_for_the_primary_is_left_when_the_sentinels_name_another_one() {
    let (sentinels, another) = (RedisSentinels::start(), RedisServer::start());
    let backend = backend(&sentinels);
    assert!(set(&backend).await);
    let name = sentinels.name();
    for sentinel in sentinels.sentinels() {
        sentinel.command(&format!("SENTINEL REMOVE {name}"));
        sentinel.command(&format!("SENTINEL MONITOR {name} 127.0.0.1 {} 2", another.port()));
    }
    let began = Instant::now();
    let moved = async || set(&backend).await && another.command("EXISTS k") == "1";
    common::until("the one that they name", 5 * RECOVERY, moved).await;
    println!("left {:?} after the last sentinel named another one", began.elapsed());
    let still = |server: &RedisServer| server.command("ROLE").starts_with("master");
    assert!(sentinels.servers().iter().any(still), "nobody has told the old one");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_that_are_down_are_passed_over() {
    let sentinels = RedisSentinels::start();
    sentinels.sentinels()[0].kill();
    sentinels.sentinels()[1].pause();
    let backend = backend(&sentinels);
    for _ in 0..20 {
        backend.connect().await.unwrap();
        assert!(set(&backend).await);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sentinel_that_has_forgotten_the_primary_or_names_another_one_is_outvoted() {
    let sentinels = RedisSentinels::start();
    let elsewhere = RedisServer::start();
    let (name, odd) = (sentinels.name(), &sentinels.sentinels()[0]);
    odd.command(&format!("SENTINEL REMOVE {name}"));
    for _ in 0..10 {
        let backend = backend(&sentinels);
        backend.connect().await.unwrap();
        assert!(set(&backend).await);
    }
    odd.command(&format!("SENTINEL MONITOR {name} 127.0.0.1 {} 2", elsewhere.port()));
    let backend = backend(&sentinels);
    for _ in 0..200 {
        assert!(set(&backend).await);
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(elsewhere.command("DBSIZE"), "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sentinels_and_servers_have_credentials_of_their_own() {
    let sentinels = RedisSentinels::builder().password("data").sentinel_password("watch").start();
    let addresses = sentinels.sentinel_addrs();
    let config = RedisConfig { password: Some("data".into()), ..RedisConfig::default() };
    let builder = RedisBackend::builder(config).sentinels(addresses, sentinels.name());
    let right = builder.clone().sentinel_credentials(None, "watch").build().unwrap();
    right.connect().await.unwrap();
    assert!(set(&right).await);
    for (what, builder) in
        [("none", builder.clone()), ("wrong", builder.clone().sentinel_credentials(None, "data"))]
    {
        let error = builder.build().unwrap().connect().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Auth, "{what}: {error:?}");
        let text = format!("{error:?} {error:#}");
        assert!(!text.contains("watch") && !text.contains("data\""), "{text}");
    }
}

#[tokio::test]
async fn a_name_that_no_sentinel_knows_and_a_sentinel_taken_for_a_server_are_named() {
    let sentinels = RedisSentinels::start();
    let url = sentinels.url().replace(&format!("/{}", sentinels.name()), "/nobody");
    let error = RedisBackend::from_url(&url).unwrap().connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
    assert!(error.to_string().contains("`nobody`"), "{error}");
    let address = &sentinels.sentinel_addrs()[0];
    let error = RedisBackend::from_url(&format!("redis://{address}")).unwrap().connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
    assert!(error.hint().unwrap().contains(&format!("redis+sentinel://{address}/")), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_that_prefer_replicas_go_there_and_writes_to_the_primary() {
    let sentinels = RedisSentinels::start();
    let builder = RedisBackend::builder_from_url(&sentinels.url()).unwrap();
    let backend = builder.read_from(RedisReadFrom::PreferReplica).build().unwrap();
    assert!(set(&backend).await);
    let replica = &sentinels.servers()[1 - sentinels.primary()];
    let gets = || replica.command("INFO commandstats").contains("cmdstat_get:");
    common::until("the replica", Duration::from_secs(10), async || {
        backend.get("k").await.unwrap();
        gets()
    })
    .await;
    assert!(set(&backend).await);
    replica.kill();
    assert_eq!(backend.get("k").await.unwrap().unwrap(), "v", "the primary answers");
}
