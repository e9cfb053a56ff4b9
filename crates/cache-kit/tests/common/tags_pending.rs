//! Invalidations of tags, and of everything, that the backend has not confirmed: told, remembered, and never read past.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cache_kit::backend::{CacheBackend, InMemoryBackend};
use cache_kit::testing::{Faults, FaultyBackend, Gate, Operation};
use cache_kit::{Cache, ErrorKind, LoadOptions, Loaded, ManualClock, Previous, Source, Step, Stored};

use crate::common::{SourceDown, bounded, drop_after, settle};
use crate::tagged::{By, SECOND, exact};
use crate::{LONG, is_unconfirmed};

struct Stage {
    time: ManualClock,
    faults: Arc<Faults>,
    cache: Cache,
}

const DELETES: [Operation; 3] = [Operation::Delete, Operation::Mdelete, Operation::DeletePattern];
/// What is stored, and its tags.
const ENTRIES: [(&str, &[&str]); 4] = [("t", &["t"]), ("u", &["u"]), ("both", &["t", "u"]), ("none", &[])];

impl Stage {
    async fn new() -> Self {
        let time = ManualClock::new();
        let memory = InMemoryBackend::builder().clock(time.clock()).build().unwrap();
        let (backend, faults) = FaultyBackend::new(memory);
        let cache = Cache::builder().clock(time.clock()).policy(exact()).namespace("shop").build(backend);
        let stage = Self { time, faults, cache: cache.unwrap() };
        for (key, tags) in ENTRIES {
            let options = LoadOptions::default().with_tags(tags);
            stage.cache.set_with(key, options, &"old".to_owned()).await.unwrap();
        }
        stage
    }

    /// Of the entries, these are not believed and what is loaded under their keys is not stored; the others are hits.
    async fn doubts(&self, doubted: &[&str]) {
        for (key, tags) in ENTRIES {
            let options = LoadOptions::default().with_tags(tags);
            let new = || async { Ok::<_, SourceDown>("new".to_owned()) };
            if !doubted.contains(&key) {
                assert_eq!(self.cache.get::<String>(key).await.unwrap().as_deref(), Some("old"), "{key}");
                continue;
            }
            is_unconfirmed(self.cache.get::<String>(key).await);
            let got = bounded(self.cache.get_or_load_outcome(key, options, new)).await.unwrap();
            assert_eq!((got.value.as_str(), got.source), ("new", Source::Load), "{key}");
            assert_eq!(got.stored, Stored::BackendUnknown, "{key}");
            assert!(got.steps.contains(Step::Quarantined), "{key}: {}", got.explain());
        }
    }
}

#[tokio::test]
async fn what_is_not_confirmed_is_an_error_and_what_it_concerns_is_not_believed_until_it_is() {
    for failing in [&DELETES[..], &[Operation::Delete], &[Operation::Mdelete]] {
        let stage = Stage::new().await;
        stage.faults.fail(failing.iter().copied());
        is_unconfirmed(stage.cache.invalidate_tag("t").await);
        assert_eq!(stage.cache.gauges().pending_invalidations, 1);
        stage.doubts(&["t", "both"]).await;
        // Nor is what a loader gives the tag to.
        let load = |_: Previous<String>| async {
            Ok::<_, SourceDown>(Loaded::value("new".to_owned()).with_tags(["t"]))
        };
        let outcome =
            stage.cache.get_or_load_entry_outcome("chosen", LoadOptions::default(), load).await.unwrap();
        assert_ne!(outcome.stored, Stored::Yes);
        is_unconfirmed(stage.cache.invalidate_tags(["t", "u"]).await);
        stage.doubts(&["t", "u", "both"]).await;
        if failing.contains(&Operation::Delete) {
            is_unconfirmed(stage.cache.clear().await);
            assert_eq!(stage.cache.gauges().pending_invalidations, 3);
            stage.doubts(&["t", "u", "both", "none"]).await;
        }
        stage.time.advance(5 * SECOND);
        settle().await;
        assert_eq!(stage.cache.gauges().oldest_pending, Some(5 * SECOND));
        stage.faults.heal();
        // The longest pause between two tries is half a second.
        stage.time.advance(SECOND / 2);
        settle().await;
        assert_eq!(stage.cache.gauges().pending_invalidations, 0, "sent again by itself");
        for (key, tags) in ENTRIES {
            let is_there = key == "none" && !failing.contains(&Operation::Delete);
            assert_eq!(stage.cache.get::<String>(key).await.unwrap().is_some(), is_there, "{key}");
            let options = LoadOptions::default().with_tags(tags);
            let new = || async { Ok::<_, SourceDown>("new".to_owned()) };
            let got = stage.cache.get_or_load_outcome(key, options, new).await.unwrap();
            assert_eq!(got.stored == Stored::Yes, !is_there, "{key}");
        }
    }
}

#[tokio::test]
async fn an_invalidation_whose_caller_goes_away_is_queued() {
    let stage = Stage::new().await;
    stage.faults.hang([Operation::Delete]);
    assert_eq!(drop_after(stage.cache.invalidate_tag("t"), 3).await.map(|done| done.is_ok()), None);
    assert_eq!(stage.cache.gauges().pending_invalidations, 1);
    stage.doubts(&["t", "both"]).await;
    stage.faults.heal();
    stage.cache.invalidate_tag("t").await.unwrap();
    assert_eq!(stage.cache.gauges().pending_invalidations, 0, "an older one is settled by a newer one");
    assert_eq!(stage.cache.get::<String>("t").await.unwrap(), None);
}

/// A store whose deletes fail, and whose answers about versions stop at a gate once they are known.
struct Slow {
    inner: InMemoryBackend,
    is_down: Arc<AtomicBool>,
    is_slow: Arc<AtomicBool>,
    gate: Gate,
}

impl Slow {
    async fn known(&self, keys: &[&str]) {
        if keys.iter().any(|key| key.starts_with('%')) && self.is_slow.load(Ordering::SeqCst) {
            self.gate.pass().await;
        }
    }
}

#[async_trait]
impl CacheBackend for Slow {
    async fn get(&self, key: &str) -> cache_kit::Result<Option<Bytes>> {
        let found = self.inner.get(key).await;
        self.known(&[key]).await;
        found
    }

    async fn set(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> cache_kit::Result<()> {
        self.inner.set(key, value, ttl).await
    }

    async fn delete(&self, key: &str) -> cache_kit::Result<()> {
        if self.is_down.load(Ordering::SeqCst) {
            return Err(cache_kit::Error::new(ErrorKind::Unavailable, "down"));
        }
        self.inner.delete(key).await
    }

    async fn mget_each(&self, keys: &[&str]) -> cache_kit::Result<Vec<cache_kit::Result<Option<Bytes>>>> {
        let found = self.inner.mget_each(keys).await;
        self.known(keys).await;
        found
    }
}

#[tokio::test]
async fn a_version_that_was_read_before_its_invalidation_was_confirmed_is_not_believed_after() {
    for by in [By::CallTag, By::Clear] {
        let [is_down, is_slow] = [(); 2].map(|()| Arc::new(AtomicBool::new(false)));
        let (inner, gate) = (InMemoryBackend::new(), Gate::new());
        let backend =
            Slow { inner, is_down: Arc::clone(&is_down), is_slow: Arc::clone(&is_slow), gate: gate.clone() };
        let cache = Cache::builder().policy(exact()).build(backend).unwrap();
        let options = LoadOptions::default().with_tags(&["t"]);
        cache.set_with("key", options, &"old".to_owned()).await.unwrap();
        assert_eq!(cache.get::<String>("key").await.unwrap().as_deref(), Some("old"));
        is_down.store(true, Ordering::SeqCst);
        is_unconfirmed(by.invalidate(&cache, "t").await);
        is_slow.store(true, Ordering::SeqCst);
        let reader = cache.clone();
        let mut reading = tokio::spawn(async move { reader.get::<String>("key").await });
        // It may know before it asks.
        let found = bounded(async {
            tokio::select! {
                found = &mut reading => Some(found.unwrap()),
                () = gate.reached() => None,
            }
        });
        let found = found.await;
        is_down.store(false, Ordering::SeqCst);
        bounded(cache.flush_pending(LONG)).await.unwrap();
        gate.open();
        let found = match found {
            Some(found) => found,
            None => bounded(reading).await.unwrap(),
        };
        assert!(!found.is_ok_and(|found| found.is_some()), "{by:?}: the old value, and it came after");
    }
}
