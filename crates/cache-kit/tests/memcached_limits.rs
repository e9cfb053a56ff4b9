//! A Memcached server that has no room, and values that are larger than it takes: typed errors, and never an old value.

#![cfg(feature = "memcached")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::print_stdout, reason = "what was measured, for `--nocapture`")]

mod common;

use std::time::{Duration, Instant};

use bytes::Bytes;
use cache_kit::backend::{Acquired, CacheBackend, MemcachedBackend, MemcachedConfig, SetEntry};
use cache_kit::{
    Cache, CacheExpander, CacheStrategy, ErrorKind, LoadOptions, OperationConfig, Source, Stored,
};
use cache_kit_test_support::MemcachedServer;
use common::{User, Users};

/// Not about deadlines: thousands of writes, and large ones.
fn backend(server: &MemcachedServer) -> MemcachedBackend {
    let config = MemcachedConfig { servers: vec![server.addr()], max_connections: 2, min_connections: 1 };
    MemcachedBackend::builder(config).operation_timeout(Duration::from_secs(5)).build().unwrap()
}

#[tokio::test]
async fn a_server_that_is_full_still_answers_reads_and_invalidations() {
    let server = MemcachedServer::builder().memory_megabytes(1).max_item_size("512k").arg("-M").start();
    let backend = backend(&server);
    let expander = CacheExpander::new(backend.clone());
    let users = Users::with(&[(1, "one"), (2, "two"), (3, "three")]);
    let outcome = async |id: u64, strategy| {
        expander.get_outcome::<User, _>(&id, &users, strategy, OperationConfig::default()).await.unwrap()
    };
    assert_eq!(outcome(1, CacheStrategy::Refresh).await.stored, Stored::Yes);
    let entry = u64::try_from(backend.get("user:1").await.unwrap().unwrap().len()).unwrap();

    // Items of like size share their memory: values first, then what is as small as a lease.
    fill_up(&backend, entry).await;
    let miss = outcome(2, CacheStrategy::Refresh).await;
    assert_eq!((miss.value.unwrap().name.as_str(), miss.stored), ("two", Stored::Failed));
    assert_eq!(miss.degraded.unwrap().kind(), ErrorKind::Full);
    assert_eq!(server.command("mg user:2"), "EN", "the lease was given back");
    fill_up(&backend, 8).await;
    let error = backend.acquire("no:room", None, Duration::from_secs(30)).await.unwrap_err();
    assert_eq!((error.kind(), error.backend()), (ErrorKind::Full, Some("memcached")));
    let miss = outcome(3, CacheStrategy::Refresh).await;
    assert_eq!(miss.value.unwrap().name, "three");
    assert_eq!(miss.degraded.unwrap().kind(), ErrorKind::Full);

    // What is refused has taken the old value with it, which nobody may read any more.
    let value = Bytes::from("v".repeat(8));
    assert!(backend.exists("8:0").await.unwrap());
    assert_eq!(backend.set("8:0", value, None).await.unwrap_err().kind(), ErrorKind::Full);
    assert_eq!(backend.get("8:0").await.unwrap(), None);

    let hit = outcome(1, CacheStrategy::Refresh).await;
    assert_eq!((hit.value.unwrap().name.as_str(), hit.source), ("one", Source::Cache));
    let changed = outcome(1, CacheStrategy::Invalidate).await;
    assert_eq!(changed.value.unwrap().name, "one");
    expander.invalidate::<User>(&1).await.unwrap();
    assert!(!backend.exists("user:1").await.unwrap());
    assert!(backend.health_check().await.unwrap());
}

/// Stores values of this length until there is no room for another.
async fn fill_up(backend: &MemcachedBackend, length: u64) {
    let value = Bytes::from("v".repeat(usize::try_from(length).unwrap()));
    let (mut stored, began) = (0, Instant::now());
    loop {
        let keys: Vec<String> = (0..500).map(|n| format!("{length:x}:{}", stored + n)).collect();
        let entries: Vec<_> =
            keys.iter().map(|key| SetEntry { key, value: value.clone(), ttl: None }).collect();
        if let Err(error) = backend.mset(&entries).await {
            assert_eq!((error.kind(), error.backend()), (ErrorKind::Full, Some("memcached")));
            break;
        }
        stored += keys.len();
        assert!(began.elapsed() < Duration::from_secs(20), "never full: {stored} values");
    }
    println!("full after {stored} values of {length} bytes");
}

#[tokio::test]
async fn a_value_that_is_too_large_is_refused_and_the_old_one_is_gone() {
    let server = MemcachedServer::start();
    let backend = backend(&server);
    let large = Bytes::from(vec![b'v'; 2 << 20]);
    backend.set("key", Bytes::from("old"), None).await.unwrap();
    let error = backend.set("key", large.clone(), None).await.unwrap_err();
    assert_eq!((error.kind(), error.backend()), (ErrorKind::TooLarge, Some("memcached")), "{error:?}");
    assert_eq!(server.command("mg key"), "EN", "gone, and not only for us");
    backend.set("key", Bytes::from("old"), None).await.unwrap();
    let entries = [("key", large.clone()), ("small", Bytes::from("v"))].map(|(key, value)| SetEntry {
        key,
        value,
        ttl: None,
    });
    assert_eq!(backend.mset(&entries).await.unwrap_err().kind(), ErrorKind::TooLarge);
    assert_eq!(backend.mget(&["key", "small"]).await.unwrap(), [None, Some(Bytes::from("v"))]);
    // A fill that cannot be stored leaves what its lease kept.
    backend.set("key", Bytes::from("stale"), None).await.unwrap();
    let seen = Bytes::from("stale");
    let acquired = backend.acquire("key", Some(&seen), Duration::from_secs(30)).await.unwrap();
    let Acquired::Granted { lease, .. } = acquired else { panic!("{acquired:?}") };
    assert_eq!(backend.fill("key", &lease, large, None).await.unwrap_err().kind(), ErrorKind::TooLarge);
    backend.release("key", &lease).await.unwrap();
    assert_eq!(backend.get("key").await.unwrap(), Some(seen));
}

#[tokio::test]
async fn a_loaded_value_that_is_too_large_is_answered_and_holds_no_lease() {
    let server = MemcachedServer::start();
    let cache = Cache::new(backend(&server));
    for _ in 0..2 {
        let load = || async { Ok::<_, std::io::Error>("v".repeat(2 << 20)) };
        let read = cache.get_or_load_outcome("key", LoadOptions::default(), load).await.unwrap();
        assert_eq!((read.value.len(), read.source, read.stored), (2 << 20, Source::Load, Stored::Failed));
        assert_eq!(read.degraded.unwrap().kind(), ErrorKind::TooLarge);
        assert_eq!(server.command("mg key"), "EN");
    }
}

#[tokio::test]
async fn around_the_largest_item_a_value_is_stored_whole_or_too_large() {
    for (size, most) in [("512k", 512 << 10), ("1m", 1 << 20), ("2m", 2 << 20)] {
        let server = MemcachedServer::builder().max_item_size(size).start();
        let backend = backend(&server);
        let (mut stored, mut refused) = (0, 0);
        for length in (most - 180..most + 20).step_by(7) {
            let value = Bytes::from(vec![b'v'; length]);
            match backend.set("key", value.clone(), None).await {
                Ok(()) => {
                    assert_eq!(backend.get("key").await.unwrap().map(|found| found.len()), Some(length));
                    stored += 1;
                }
                Err(error) => {
                    assert_eq!(error.kind(), ErrorKind::TooLarge, "-I {size}, {length} bytes: {error:?}");
                    assert_eq!(backend.get("key").await.unwrap(), None, "-I {size}, {length} bytes");
                    refused += 1;
                }
            }
        }
        println!("-I {size}: {stored} stored, {refused} too large");
        assert!(stored > 0 && refused > 0);
    }
}
