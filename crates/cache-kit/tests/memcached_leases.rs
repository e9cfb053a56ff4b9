//! What a miss costs on Memcached, and what becomes of leases whose readers go away.

#![cfg(feature = "memcached")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use cache_kit::backend::{Acquired, CacheBackend, MemcachedBackend, MemcachedConfig};
use cache_kit::{Cache, LoadOptions, Source, Stored};
use cache_kit_test_support::MemcachedServer;
use common::{Users, bounded, drop_after};

fn backend(server: &MemcachedServer) -> MemcachedBackend {
    let config = MemcachedConfig { servers: vec![server.addr()], max_connections: 2, min_connections: 1 };
    MemcachedBackend::builder(config).operation_timeout(Duration::from_secs(5)).build().unwrap()
}

/// The commands on items that the server has run: meta reads, and everything that stores or deletes.
fn commands(server: &MemcachedServer) -> (u64, u64) {
    (
        server.stat("cmd_get"),
        server.stat("cmd_set") + server.stat("delete_hits") + server.stat("delete_misses"),
    )
}

#[tokio::test]
async fn a_miss_costs_one_look_and_one_fill_and_a_hit_one_look() {
    let server = MemcachedServer::start();
    let (cache, users) = (Cache::new(backend(&server)), Users::with(&[(1, "one")]));
    cache.get::<String>("warm").await.unwrap();
    let (looks, changes) = commands(&server);
    let read = async || {
        let users = users.clone();
        cache.get_or_load_outcome("user:1", LoadOptions::default(), move || users.name(1)).await.unwrap()
    };
    let miss = read().await;
    assert_eq!((miss.source, miss.stored), (Source::Load, Stored::Yes));
    let (looks_now, changes_now) = commands(&server);
    // The stub that the look leaves is no command of its own.
    assert_eq!((looks_now - looks, changes_now - changes), (1, 1));
    assert_eq!(read().await.source, Source::Cache);
    let after = commands(&server);
    assert_eq!((after.0 - looks_now, after.1 - changes_now), (1, 0));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_crowd_on_a_cold_key_loads_once_and_stores() {
    let server = MemcachedServer::start();
    let cache = Cache::new(backend(&server));
    for round in 0..50 {
        let key = format!("user:{round}");
        let (users, stored) = (Users::with(&[(1, "one")]), Arc::new(AtomicUsize::new(0)));
        let crowd: Vec<_> = (0..100)
            .map(|_| {
                let (cache, users, key) = (cache.clone(), users.clone(), key.clone());
                let stored = Arc::clone(&stored);
                tokio::spawn(async move {
                    let options = LoadOptions::default();
                    let read = cache.get_or_load_outcome(key, options, move || users.name(1)).await.unwrap();
                    assert_eq!(read.value, "one");
                    if read.stored == Stored::Yes {
                        stored.fetch_add(1, Ordering::SeqCst);
                    }
                })
            })
            .collect();
        for reader in crowd {
            bounded(reader).await.unwrap();
        }
        assert_eq!(users.asked(), 1, "round {round}");
        assert!(stored.load(Ordering::SeqCst) >= 1, "round {round}: loaded and not stored");
        assert_eq!(cache.get::<String>(&key).await.unwrap().as_deref(), Some("one"));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_whose_reader_went_away_is_given_back() {
    let server = MemcachedServer::start();
    let (backend, life) = (backend(&server), Duration::from_secs(600));
    let mut abandoned = 0;
    for round in 0..400 {
        let key = format!("key:{round}");
        // Gone after so many polls, wherever the answer is by then.
        if drop_after(backend.acquire(&key, None, life), round % 3).await.is_some() {
            continue;
        }
        abandoned += 1;
        let free = async {
            loop {
                if let Acquired::Granted { lease, .. } = backend.acquire(&key, None, life).await.unwrap() {
                    return backend.release(&key, &lease).await.unwrap();
                }
                tokio::task::yield_now().await;
            }
        };
        bounded(free).await;
    }
    assert!(abandoned > 100, "{abandoned}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_go_away_leave_no_key_that_nobody_can_fill() {
    let server = MemcachedServer::start();
    let cache = Cache::new(backend(&server));
    for round in 0..300_u32 {
        let (key, users) = (format!("user:{round}"), Users::with(&[(1, "one")]));
        let load = {
            let users = users.clone();
            cache.get_or_load_inline(key.clone(), async || users.name(1).await)
        };
        drop_after(load, round % 5).await;
        let stored = async {
            loop {
                let users = users.clone();
                let read = cache
                    .get_or_load_outcome(key.clone(), LoadOptions::default(), move || users.name(1))
                    .await
                    .unwrap();
                if read.source == Source::Cache {
                    return;
                }
                tokio::task::yield_now().await;
            }
        };
        bounded(stored).await;
    }
}
