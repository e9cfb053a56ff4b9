//! A backend of the user's own without a fence: the engine protects what goes through itself.

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cache_kit::backend::{CacheBackend, Fence, InMemoryBackend};
use cache_kit::testing::Gate;
use cache_kit::{Cache, LoadOptions, Result, Stored};
use common::{SourceDown, Users, bounded};
use futures_util::future::join_all;

/// The least that a backend must write. Writes can be held up on their way.
struct Plain {
    inner: InMemoryBackend,
    before_set: Option<Gate>,
}

#[async_trait]
impl CacheBackend for Plain {
    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        self.inner.get(key).await
    }

    async fn set(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<()> {
        // Not for versions, whose keys are the crate's own.
        if let Some(gate) = self.before_set.as_ref().filter(|_| !key.starts_with('%')) {
            gate.pass().await;
        }
        self.inner.set(key, value, ttl).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.inner.delete(key).await
    }
}

fn plain(before_set: Option<Gate>) -> (Cache, InMemoryBackend) {
    let inner = InMemoryBackend::new();
    let cache = Cache::new(Plain { inner: inner.clone(), before_set });
    assert_eq!(cache.backend().capabilities().fence, Fence::None);
    (cache, inner)
}

#[tokio::test]
async fn a_load_that_an_invalidation_overtook_stores_nothing() {
    let (cache, _) = plain(None);
    let (users, gate) = (Users::with(&[(1, "old")]), Gate::new());
    let (reader, slow) = (cache.clone(), users.behind(&gate));
    let old = tokio::spawn(async move {
        reader.get_or_load_outcome("user:1", LoadOptions::default(), || slow.name(1)).await.unwrap()
    });
    gate.reached().await;
    users.put(1, "new");
    cache.invalidate("user:1").await.unwrap();
    let now = users.clone();
    assert_eq!(bounded(cache.get_or_load("user:1", || now.name(1))).await.unwrap(), "new");
    gate.open();
    assert_eq!(bounded(old).await.unwrap().stored, Stored::FencedOff);
    assert_eq!(cache.get::<String>("user:1").await.unwrap().as_deref(), Some("new"));
}

#[tokio::test]
async fn a_write_that_an_invalidation_overtook_on_its_way_is_taken_back() {
    let gate = Gate::new();
    let (cache, inner) = plain(Some(gate.clone()));
    let reader = cache.clone();
    let old = tokio::spawn(async move {
        let loader = || async { Ok::<_, SourceDown>("old".to_owned()) };
        reader.get_or_load_outcome("key", LoadOptions::default(), loader).await.unwrap()
    });
    gate.reached().await; // Loaded, and about to be written.
    cache.invalidate("key").await.unwrap();
    gate.open();
    assert_eq!(bounded(old).await.unwrap().stored, Stored::FencedOff);
    assert_eq!(inner.get("key").await.unwrap(), None);
}

#[tokio::test]
async fn a_write_whose_caller_goes_away_after_an_invalidation_is_taken_back_behind_it() {
    let gate = Gate::new();
    let (cache, inner) = plain(Some(gate.clone()));
    let reader = cache.clone();
    let old = tokio::spawn(async move {
        let loader = || async { Ok::<_, SourceDown>("old".to_owned()) };
        reader.get_or_load_inline("key", loader).await
    });
    gate.reached().await; // Loaded, and about to be written.
    cache.invalidate("key").await.unwrap();
    // What was sent lands, and nobody is there to hear of it.
    inner.set("key", Bytes::from("old"), None).await.unwrap();
    old.abort();
    assert!(old.await.unwrap_err().is_cancelled());
    assert_eq!(cache.stats().unconfirmed, 1);
    cache.flush_pending(Duration::from_secs(60)).await.unwrap();
    assert_eq!(inner.get("key").await.unwrap(), None);
}

#[tokio::test]
async fn what_is_loaded_during_a_hold_is_not_stored() {
    let (cache, inner) = plain(None);
    let read = || cache.get_or_load_outcome("a", LoadOptions::default(), || async { Ok::<_, SourceDown>(1) });
    let hold = cache.hold(["a", "b"]).await.unwrap();
    assert_eq!(read().await.unwrap().stored, Stored::FencedOff);
    let load = |missing: Vec<String>| async { Ok::<_, SourceDown>(missing.into_iter().map(|key| (key, 1))) };
    assert_eq!(cache.get_many_or_load(["b"], load).await.unwrap(), [Some(1)]);
    assert_eq!(common::values_in(&inner), 0);
    hold.confirm().await.unwrap();
    assert_eq!(read().await.unwrap().stored, Stored::Yes);
}

#[tokio::test]
async fn a_batch_does_not_store_what_an_invalidation_overtook() {
    let (cache, inner) = plain(None);
    let gate = Gate::new();
    let (reader, at) = (cache.clone(), gate.clone());
    let batch = tokio::spawn(async move {
        reader
            .get_many_or_load(["a", "b"], move |missing| {
                let at = at.clone();
                async move {
                    at.pass().await;
                    Ok::<_, SourceDown>(missing.into_iter().map(|key| (key, 1)).collect::<Vec<_>>())
                }
            })
            .await
    });
    gate.reached().await;
    cache.invalidate("a").await.unwrap();
    gate.open();
    assert_eq!(bounded(batch).await.unwrap().unwrap(), [Some(1), Some(1)]);
    assert!(!inner.exists("a").await.unwrap() && inner.exists("b").await.unwrap());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_tasks_on_one_cold_key_make_one_load() {
    let (cache, _) = plain(None);
    let users = Users::with(&[(1, "one")]);
    let reads = (0..10_000).map(|_| {
        let (cache, users) = (cache.clone(), users.clone());
        tokio::spawn(async move { cache.get_or_load("user:1", || users.name(1)).await })
    });
    for name in bounded(join_all(reads)).await {
        assert_eq!(name.unwrap().unwrap(), "one");
    }
    assert_eq!(users.asked(), 1);
}

/// A store whose first answer is a miss, whatever it holds: what a reader sees that looks just before
/// another's load ends.
struct TooEarly {
    inner: InMemoryBackend,
    looked: AtomicBool,
}

#[async_trait]
impl CacheBackend for TooEarly {
    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        if self.looked.swap(true, Ordering::SeqCst) { self.inner.get(key).await } else { Ok(None) }
    }

    async fn set(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<()> {
        self.inner.set(key, value, ttl).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.inner.delete(key).await
    }
}

#[tokio::test]
async fn a_reader_that_looked_too_early_looks_again_before_it_loads() {
    let inner = InMemoryBackend::new();
    Cache::new(inner.clone()).set("key", &"stored".to_owned()).await.unwrap();
    let cache = Cache::new(TooEarly { inner, looked: AtomicBool::new(false) });
    let value = cache.get_or_load("key", || async { Err::<String, _>(SourceDown(1)) }).await;
    assert_eq!(value.unwrap(), "stored");
    assert_eq!(cache.stats().loads, 0);
}
