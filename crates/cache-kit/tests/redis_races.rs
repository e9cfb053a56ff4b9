//! Late fills on Redis are refused, whoever invalidated and however: this process, another one, a plain `DEL`, a
//! flush, a restart. Gates, not sleeps.

#![cfg(feature = "redis")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::time::Duration;

use bytes::Bytes;
use cache_kit::backend::{Acquired, CacheBackend, Filled, RedisBackend, RedisConfig};
use cache_kit::testing::Gate;
use cache_kit::{Cache, LoadOptions, Outcome, Source, Stored};
use cache_kit_test_support::RedisServer;
use common::{Users, bounded};

fn backend(server: &RedisServer) -> RedisBackend {
    let config = RedisConfig { host: "127.0.0.1".into(), port: server.port(), ..RedisConfig::default() };
    RedisBackend::builder(config).operation_timeout(Duration::from_secs(5)).build().unwrap()
}

async fn read(cache: &Cache, users: Users) -> Outcome<String> {
    cache.get_or_load_outcome("user:1", LoadOptions::default(), move || users.name(1)).await.unwrap()
}

/// Begins a load that has read the old row, holds the lease, and stands at the gate; then lets `invalidate` happen.
async fn late_fill(
    server: &RedisServer,
    invalidate: impl AsyncFnOnce(&Cache),
) -> (Cache, Users, Outcome<String>) {
    let (cache, users, gate) = (Cache::new(backend(server)), Users::with(&[(1, "old")]), Gate::new());
    let (reader, slow) = (cache.clone(), users.behind(&gate));
    let old = tokio::spawn(async move { read(&reader, slow).await });
    gate.reached().await;
    users.put(1, "new");
    invalidate(&cache).await;
    gate.open();
    let old = bounded(old).await.unwrap();
    (cache, users, old)
}

#[tokio::test]
async fn a_late_fill_is_refused_after_every_kind_of_invalidation() {
    let server = RedisServer::start();
    for how in ["this cache", "another cache", "DEL", "UNLINK", "SET and DEL", "FLUSHALL", "EXPIRE", "RENAME"]
    {
        let (cache, users, old) = late_fill(&server, async |cache| match how {
            "this cache" => cache.invalidate("user:1").await.unwrap(),
            "another cache" => Cache::new(backend(&server)).invalidate("user:1").await.unwrap(),
            "SET and DEL" => {
                server.command("SET user:1 foreign");
                server.command("DEL user:1");
            }
            "EXPIRE" => {
                server.command("PEXPIRE user:1 0");
            }
            "RENAME" => {
                server.command("RENAME user:1 elsewhere");
            }
            "FLUSHALL" => {
                server.command("FLUSHALL");
            }
            command => assert_eq!(server.command(&format!("{command} user:1")), "1", "the stub was there"),
        })
        .await;
        assert_eq!((old.value.as_str(), old.stored), ("old", Stored::FencedOff), "{how}");
        let now = bounded(read(&cache, users)).await;
        assert_eq!((now.value.as_str(), now.source, now.stored), ("new", Source::Load, Stored::Yes), "{how}");
        server.command("DEL user:1");
    }
}

#[tokio::test]
async fn a_late_fill_is_refused_after_a_restart() {
    let server = RedisServer::start();
    let (cache, users, old) = late_fill(&server, async |cache| {
        server.kill();
        server.restart();
        // Until the lost connection was noticed and replaced, the fill would fail for that reason alone.
        while cache.backend().get("any").await.is_err() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
    assert_eq!((old.value.as_str(), old.stored), ("old", Stored::FencedOff));
    assert_eq!(bounded(read(&cache, users)).await.value, "new");
}

#[tokio::test]
async fn a_foreign_write_is_not_overwritten_by_a_late_fill() {
    let server = RedisServer::start();
    let (cache, _, old) = late_fill(&server, async |_| {
        server.command("SET user:1 foreign");
    })
    .await;
    assert_eq!(old.stored, Stored::FencedOff);
    assert_eq!(server.command("GET user:1"), "foreign");
    assert_eq!(cache.get::<String>("user:1").await.unwrap(), None);
    assert_eq!(cache.stats().rejected.foreign, 1);
}

#[tokio::test]
async fn a_key_of_another_type_is_a_miss_and_heals() {
    let server = RedisServer::start();
    server.command("LPUSH user:1 element");
    let (cache, users) = (Cache::new(backend(&server)), Users::with(&[(1, "row")]));
    assert_eq!(cache.get::<String>("user:1").await.unwrap(), None);
    assert!(!cache.backend().exists("user:1").await.unwrap());
    assert_eq!(read(&cache, users.clone()).await.stored, Stored::Yes);
    assert_eq!(read(&cache, users).await.source, Source::Cache);
}

#[tokio::test]
async fn scripts_are_sent_again_when_the_server_has_forgotten_them() {
    let server = RedisServer::start();
    let (cache, users) = (Cache::new(backend(&server)), Users::with(&[(1, "row")]));
    for _ in 0..3 {
        server.command("SCRIPT FLUSH");
        assert_eq!(read(&cache, users.clone()).await.stored, Stored::Yes);
        cache.invalidate("user:1").await.unwrap();
    }
}

#[tokio::test]
async fn a_stale_value_keeps_its_life_while_it_is_leased() {
    let server = RedisServer::start();
    let backend = backend(&server);
    backend.set("key", Bytes::from("stale"), Some(Duration::from_secs(100))).await.unwrap();
    let seen = Bytes::from("stale");
    let acquired = backend.acquire("key", Some(&seen), Duration::from_secs(5)).await.unwrap();
    let Acquired::Granted { lease, kept: Some(_) } = acquired else { panic!("{acquired:?}") };
    let left: i64 = server.command("PTTL key").parse().unwrap();
    assert!((90_000..=100_000).contains(&left), "{left}");
    assert_eq!(backend.get("key").await.unwrap(), Some(seen.clone()));
    backend.release("key", &lease).await.unwrap();
    let left: i64 = server.command("PTTL key").parse().unwrap();
    assert!((90_000..=100_000).contains(&left), "{left}");
    assert_eq!(server.command("GET key"), "stale", "as any client reads it");
    // A lease over a value ends by the server's clock.
    let life = Duration::from_millis(300);
    let acquired = backend.acquire("key", Some(&seen), life).await.unwrap();
    let Acquired::Granted { lease, .. } = acquired else { panic!("{acquired:?}") };
    tokio::time::sleep(life + Duration::from_millis(100)).await;
    assert_eq!(backend.fill("key", &lease, Bytes::from("late"), None).await.unwrap(), Filled::Refused);
    let again = backend.acquire("key", Some(&seen), life).await.unwrap();
    assert!(matches!(again, Acquired::Granted { .. }), "{again:?}");
}

#[tokio::test]
async fn values_are_stored_as_any_client_reads_them() {
    let server = RedisServer::start();
    let backend = backend(&server);
    backend.set("key", Bytes::from("plain"), None).await.unwrap();
    assert_eq!(server.command("GET key"), "plain");
    let cache = Cache::new(backend);
    cache.set("user:1", &"Ada".to_owned()).await.unwrap();
    assert!(server.command("GETRANGE user:1 0 3").starts_with("CKIT"));
    let ttl: i64 = server.command("PTTL user:1").parse().unwrap();
    assert!((290_000..=300_000).contains(&ttl), "five minutes by default, in milliseconds: {ttl}");
}
