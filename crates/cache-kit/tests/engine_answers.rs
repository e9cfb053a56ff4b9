//! What happens while an answer of the backend is on its way. Gates, not sleeps.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cache_kit::backend::{Acquired, CacheBackend, Capabilities, Filled, InMemoryBackend, Lease};
use cache_kit::testing::{FaultyBackend, Gate, Operation};
use cache_kit::{Cache, Outcome, Policy, Result, Source, Stored};
use common::engine::{How, Load, one, read};
use common::{bounded, until};
use tokio::task::JoinHandle;

const KEY: &str = "user:1";

/// A store without a fence, whose answer to a deletion takes its time.
struct SlowToAnswer {
    inner: InMemoryBackend,
    deleted: Gate,
}

#[async_trait]
impl CacheBackend for SlowToAnswer {
    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        self.inner.get(key).await
    }

    async fn set(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<()> {
        self.inner.set(key, value, ttl).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.inner.delete(key).await?;
        self.deleted.pass().await;
        Ok(())
    }
}

#[tokio::test]
async fn a_load_that_ends_before_the_answer_to_an_invalidation_stores_nothing_without_a_fence() {
    for how in [How::Owned, How::Inline] {
        let (inner, deleted) = (InMemoryBackend::new(), Gate::new());
        let cache = Cache::new(SlowToAnswer { inner: inner.clone(), deleted: deleted.clone() });
        let load = Load::begin(&cache, how, "user:1", &one("old")).await;
        let invalidating = cache.clone();
        let invalidating = tokio::spawn(async move { invalidating.invalidate("user:1").await });
        bounded(deleted.reached()).await;
        assert_eq!(load.end().await.1, Stored::FencedOff, "{how:?}");
        deleted.open();
        bounded(invalidating).await.unwrap().unwrap();
        assert_eq!(inner.get("user:1").await.unwrap(), None, "{how:?}");
    }
}

/// A store of one process, with a fence, whose questions or answers can be held up on their way.
struct Slow {
    inner: InMemoryBackend,
    after_get: Option<Gate>,
    before_acquire: Option<Gate>,
    after_acquire: Option<Gate>,
    before_fill: Option<Gate>,
    after_fill: Option<Gate>,
}

/// Versions have keys of their own, which nothing here is about.
async fn pass(key: &str, gate: Option<&Gate>) {
    if let Some(gate) = gate.filter(|_| key == KEY) {
        gate.pass().await;
    }
}

#[async_trait]
impl CacheBackend for Slow {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        let found = self.inner.get(key).await;
        pass(key, self.after_get.as_ref()).await;
        found
    }

    async fn set(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<()> {
        self.inner.set(key, value, ttl).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.inner.delete(key).await
    }

    async fn acquire(&self, key: &str, seen: Option<&Bytes>, life: Duration) -> Result<Acquired> {
        pass(key, self.before_acquire.as_ref()).await;
        let acquired = self.inner.acquire(key, seen, life).await;
        pass(key, self.after_acquire.as_ref()).await;
        acquired
    }

    async fn fill(&self, key: &str, lease: &Lease, value: Bytes, ttl: Option<Duration>) -> Result<Filled> {
        pass(key, self.before_fill.as_ref()).await;
        let filled = self.inner.fill(key, lease, value, ttl).await;
        pass(key, self.after_fill.as_ref()).await;
        filled
    }

    async fn renew(&self, key: &str, lease: &Lease, life: Duration) -> Result<Option<Lease>> {
        self.inner.renew(key, lease, life).await
    }

    async fn release(&self, key: &str, lease: &Lease) -> Result<()> {
        self.inner.release(key, lease).await
    }
}

impl Slow {
    fn over(inner: &InMemoryBackend) -> Self {
        let inner = inner.clone();
        let (before_acquire, after_acquire) = (None, None);
        Self { inner, after_get: None, before_acquire, after_acquire, before_fill: None, after_fill: None }
    }

    /// A cache whose readers join nobody without asking.
    fn cache(self) -> Cache {
        let policy = Policy::default().with_join_max_age(Duration::ZERO);
        Cache::builder().policy(policy).build(self).unwrap()
    }
}

fn begin(cache: &Cache, how: How, row: &str) -> JoinHandle<Outcome<String>> {
    let (cache, users) = (cache.clone(), one(row));
    tokio::spawn(async move { read(&cache, how, KEY, &users).await })
}

/// A reader that has come, and waits for the load that is under way.
async fn join(cache: &Cache, how: How, row: &str) -> JoinHandle<Outcome<String>> {
    let waiting = cache.readers_waiting();
    let joined = begin(cache, how, row);
    until("it waits", Duration::from_secs(20), async || cache.readers_waiting() > waiting).await;
    joined
}

#[tokio::test]
async fn a_reader_that_always_asks_does_not_get_what_was_invalidated_on_its_way_to_be_stored() {
    for how in [How::Owned, How::Inline] {
        let (inner, filling) = (InMemoryBackend::new(), Gate::new());
        let here = Slow { before_fill: Some(filling.clone()), ..Slow::over(&inner) }.cache();
        let elsewhere = Cache::new(inner);
        let first = begin(&here, how, "old");
        bounded(filling.reached()).await; // Loaded, and about to be stored: nobody asks about the lease any more.
        elsewhere.invalidate(KEY).await.unwrap();
        let later = join(&here, how, "new").await;
        filling.open();
        assert_eq!(bounded(first).await.unwrap().stored, Stored::FencedOff, "{how:?}");
        let later = bounded(later).await.unwrap();
        assert_eq!((later.value.as_str(), later.stored), ("new", Stored::Yes), "{how:?}");
    }
}

#[tokio::test]
async fn a_reader_that_always_asks_does_not_get_what_was_stored_and_invalidated_before_it_came() {
    for how in [How::Owned, How::Inline] {
        let (inner, filled) = (InMemoryBackend::new(), Gate::new());
        let here = Slow { after_fill: Some(filled.clone()), ..Slow::over(&inner) }.cache();
        let elsewhere = Cache::new(inner);
        let first = begin(&here, how, "old");
        bounded(filled.reached()).await; // Stored, which the one who stored it does not know yet.
        elsewhere.invalidate(KEY).await.unwrap();
        let later = join(&here, how, "new").await;
        filled.open();
        assert_eq!(bounded(first).await.unwrap().stored, Stored::Yes, "{how:?}");
        let later = bounded(later).await.unwrap();
        assert_eq!(later.value, "new", "{how:?}: {}", later.explain());
    }
}

#[tokio::test]
async fn a_reader_that_always_asks_does_not_get_what_was_found_and_invalidated_before_it_came() {
    for how in [How::Owned, How::Inline] {
        let (inner, asking, asked) = (InMemoryBackend::new(), Gate::new(), Gate::new());
        let (before_acquire, after_acquire) = (Some(asking.clone()), Some(asked.clone()));
        let here = Slow { before_acquire, after_acquire, ..Slow::over(&inner) }.cache();
        let elsewhere = Cache::new(inner);
        let first = begin(&here, how, "not asked");
        bounded(asking.reached()).await;
        elsewhere.set(KEY, &"old".to_owned()).await.unwrap();
        asking.open();
        bounded(asked.reached()).await; // Found, which the one who asked does not know yet.
        elsewhere.invalidate(KEY).await.unwrap();
        let later = join(&here, how, "new").await;
        asked.open();
        let first = bounded(first).await.unwrap();
        assert_eq!((first.value.as_str(), first.source), ("old", Source::Cache), "{how:?}");
        let later = bounded(later).await.unwrap();
        assert_eq!(later.value, "new", "{how:?}: {}", later.explain());
    }
}

#[tokio::test]
async fn what_comes_with_the_lease_is_not_believed_while_an_invalidation_is_queued() {
    for how in [How::Owned, How::Inline] {
        let (inner, looked) = (InMemoryBackend::new(), Gate::new());
        let (backend, faults) =
            FaultyBackend::new(Slow { after_get: Some(looked.clone()), ..Slow::over(&inner) });
        let here = Cache::new(backend);
        let read = begin(&here, how, "new");
        bounded(looked.reached()).await; // Nothing was there.
        Cache::new(inner).set(KEY, &"old".to_owned()).await.unwrap();
        faults.fail([Operation::Delete]);
        here.invalidate(KEY).await.unwrap_err();
        looked.open();
        let read = bounded(read).await.unwrap();
        assert_eq!((read.value.as_str(), read.stored), ("new", Stored::BackendUnknown), "{how:?}");
    }
}
