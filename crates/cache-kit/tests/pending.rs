//! Invalidations that the backend has not confirmed: told, remembered, not forgotten, and never read past.

// long: each way to stay unconfirmed is shown on one stage.

#![cfg(all(feature = "redis", feature = "memcached"))]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cache_kit::backend::{CacheBackend, InMemoryBackend, MemcachedBackend, MemcachedConfig, RedisBackend};
use cache_kit::testing::{Faults, FaultyBackend, Gate, Operation};
use cache_kit::{
    Cache, CacheStrategy, Error, ErrorKind, InlineOptions, Invalidation, Limits, LoadOptions, ManualClock,
    Outcome, Policy, Result, Source, Step, Stored, TtlPolicy,
};
use cache_kit_test_support::{MemcachedServer, RedisServer};
use common::{SourceDown, bounded, settle, until};
use futures_util::FutureExt as _;

const SECOND: Duration = Duration::from_secs(1);
const DELETES: [Operation; 3] = [Operation::Delete, Operation::Mdelete, Operation::DeletePattern];

struct Stage {
    time: ManualClock,
    memory: InMemoryBackend,
    faults: Arc<Faults>,
    cache: Cache,
}

/// A cache that holds "old" under these keys, which the source has changed to "new" since.
async fn stage(keys: &[&str], limits: Limits) -> Stage {
    stage_with(keys, limits, Policy::default()).await
}

async fn stage_with(keys: &[&str], limits: Limits, policy: Policy) -> Stage {
    let time = ManualClock::new();
    let memory = InMemoryBackend::builder().clock(time.clock()).build().unwrap();
    let (backend, faults) = FaultyBackend::new(memory.clone());
    let builder = Cache::builder().clock(time.clock()).namespace("shop").limits(limits).policy(policy);
    let stage = Stage { time, memory, faults, cache: builder.build(backend).unwrap() };
    for key in keys {
        stage.cache.set(key, &"old".to_owned()).await.unwrap();
    }
    stage
}

async fn read(cache: &Cache, key: &str) -> Outcome<String> {
    let new = || async { Ok::<_, SourceDown>("new".to_owned()) };
    bounded(cache.get_or_load_outcome(key, LoadOptions::default(), new)).await.unwrap()
}

fn is_unconfirmed<T: std::fmt::Debug>(result: Result<T>) {
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Unconfirmed);
}

impl Stage {
    fn pending(&self) -> usize {
        self.cache.gauges().pending_invalidations
    }

    /// Whatever way it is asked for, the old value is not the answer, and what is loaded is not stored.
    async fn is_not_believed(&self, key: &str) {
        let before = self.faults.calls(Operation::Fill);
        let new = || async { Ok::<_, SourceDown>("new".to_owned()) };
        let inline = self.cache.get_or_load_inline_outcome(key, InlineOptions::default(), new).await.unwrap();
        for outcome in [read(&self.cache, key).await, inline] {
            assert_eq!((outcome.value.as_str(), outcome.source), ("new", Source::Load), "{key}");
            assert_eq!(outcome.stored, Stored::BackendUnknown, "{key}");
            assert!(outcome.steps.contains(Step::Quarantined), "{key}: {:?}", outcome.steps);
            assert_eq!(outcome.degraded.unwrap().kind(), ErrorKind::Unconfirmed, "{key}");
        }
        is_unconfirmed(self.cache.get::<String>(key).await);
        is_unconfirmed(self.cache.get_outcome::<String>(key).await);
        let load = |missing: Vec<String>| async move {
            Ok::<_, SourceDown>(missing.into_iter().map(|key| (key, "new".to_owned())).collect::<Vec<_>>())
        };
        let many = self.cache.get_many_or_load_outcomes([key], LoadOptions::default(), load).await.unwrap();
        let first = many[0].as_ref().unwrap();
        assert_eq!((first.value.as_deref(), first.stored), (Some("new"), Stored::BackendUnknown));
        assert_eq!(self.faults.calls(Operation::Fill), before, "{key}: nothing is stored");
    }

    async fn is_believed(&self, key: &str, value: &str) {
        assert_eq!(self.cache.get::<String>(key).await.unwrap().as_deref(), Some(value), "{key}");
    }

    async fn heals(&self) {
        self.faults.heal();
        bounded(self.cache.flush_pending(SECOND)).await.unwrap();
        assert_eq!((self.pending(), self.cache.gauges().oldest_pending), (0, None));
    }
}

#[tokio::test]
async fn what_the_backend_does_not_confirm_is_an_error_and_its_key_is_not_believed_until_it_does() {
    let stage = stage(&["key", "other"], Limits::default()).await;
    stage.faults.fail(DELETES);
    let error = stage.cache.invalidate("key").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unconfirmed);
    assert!(error.is_transient() && error.find_source::<Error>().is_some(), "it tells what kept it");
    assert_eq!((stage.pending(), stage.cache.gauges().oldest_pending), (1, Some(Duration::ZERO)));
    stage.is_not_believed("key").await;
    stage.is_believed("other", "old").await;
    stage.time.advance(5 * SECOND);
    settle().await;
    assert_eq!((stage.pending(), stage.cache.gauges().oldest_pending), (1, Some(5 * SECOND)));
    stage.is_not_believed("key").await;
    assert_eq!(common::values_in(&stage.memory), 2, "it is still there, and nobody was told of it");
    stage.heals().await;
    assert_eq!(stage.cache.get::<String>("key").await.unwrap(), None, "gone before it is used again");
    assert_eq!(read(&stage.cache, "key").await.stored, Stored::Yes);
    stage.is_believed("key", "new").await;
    let stats = stage.cache.stats();
    assert_eq!((stats.unconfirmed, stats.replayed, stats.invalidations), (1, 1, 0));
    assert_eq!(stats.quarantined, 10);
}

#[tokio::test]
async fn it_is_sent_again_by_itself() {
    let stage = stage(&["key"], Limits::default()).await;
    stage.faults.fail(DELETES);
    is_unconfirmed(stage.cache.invalidate_many(["key", "more"]).await);
    settle().await;
    stage.time.advance(2 * SECOND);
    settle().await;
    assert_eq!(stage.pending(), 2);
    stage.faults.heal();
    // The longest pause between two tries is half a second.
    stage.time.advance(Duration::from_millis(500));
    settle().await;
    assert_eq!((stage.pending(), stage.cache.stats().replayed), (0, 2));
    assert_eq!(stage.cache.get::<String>("key").await.unwrap(), None);
}

#[tokio::test]
async fn an_invalidation_whose_caller_goes_away_before_the_answer_is_queued() {
    let stage = stage(&["key"], Limits::default()).await;
    stage.faults.hang(DELETES);
    let cache = stage.cache.clone();
    let hanging = tokio::spawn(async move { cache.invalidate("key").await });
    settle().await;
    assert_eq!(stage.pending(), 0, "it may still be confirmed");
    hanging.abort();
    assert!(hanging.await.unwrap_err().is_cancelled());
    assert_eq!(stage.pending(), 1);
    stage.is_not_believed("key").await;
    stage.heals().await;
    assert_eq!(stage.cache.get::<String>("key").await.unwrap(), None);
}

#[tokio::test]
async fn the_newest_of_each_key_is_enough_and_what_succeeds_later_settles_it() {
    let stage = stage(&["key"], Limits::default()).await;
    stage.faults.fail(DELETES);
    stage.faults.fail([Operation::Set]);
    for _ in 0..3 {
        is_unconfirmed(stage.cache.invalidate("key").await);
    }
    is_unconfirmed(stage.cache.invalidate_many(["key", "key"]).await);
    assert_eq!((stage.pending(), stage.cache.stats().unconfirmed), (1, 5));
    assert!(stage.cache.set("key", &"set".to_owned()).await.is_err());
    stage.is_not_believed("key").await;
    stage.faults.heal();
    stage.cache.set("key", &"set".to_owned()).await.unwrap();
    assert_eq!(stage.pending(), 0);
    stage.is_believed("key", "set").await;
    stage.faults.fail(DELETES);
    is_unconfirmed(stage.cache.invalidate("key").await);
    stage.faults.heal();
    stage.cache.invalidate("key").await.unwrap();
    assert_eq!(stage.pending(), 0, "an older one is settled by a newer one");
}

#[tokio::test]
async fn an_entry_that_expired_meanwhile_is_not_a_fallback_of_what_was_to_be_invalidated() {
    let policy = Policy::default().with_stale_if_error(60 * SECOND);
    let stage = stage_with(&["key"], Limits::default(), policy).await;
    stage.faults.fail(DELETES);
    is_unconfirmed(stage.cache.invalidate("key").await);
    // Takes no delete where the backend answers everything else.
    let _ = stage.cache.expire("key").await;
    let down = || async { Err::<String, _>(SourceDown(1)) };
    let outcome = stage.cache.get_or_load_outcome("key", LoadOptions::default(), down).await;
    assert_eq!(outcome.map(|outcome| outcome.value).unwrap_err().kind(), ErrorKind::Source);
}

/// A store whose deletes fail, or stop at a gate.
struct Gated {
    inner: InMemoryBackend,
    is_down: Arc<AtomicBool>,
    gate: Gate,
}

#[async_trait]
impl CacheBackend for Gated {
    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        self.inner.get(key).await
    }

    async fn set(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<()> {
        self.inner.set(key, value, ttl).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        if self.is_down.load(Ordering::SeqCst) {
            return Err(Error::new(ErrorKind::Unavailable, "down"));
        }
        self.gate.pass().await;
        self.inner.delete(key).await
    }
}

#[tokio::test]
async fn what_is_sent_twice_at_a_time_is_counted_once() {
    let (time, gate, is_down) = (ManualClock::new(), Gate::new(), Arc::new(AtomicBool::new(true)));
    let backend = Gated { inner: InMemoryBackend::new(), is_down: Arc::clone(&is_down), gate: gate.clone() };
    let cache = Cache::builder().clock(time.clock()).build(backend).unwrap();
    is_unconfirmed(cache.invalidate("key").await);
    settle().await;
    is_down.store(false, Ordering::SeqCst);
    time.advance(SECOND);
    gate.reached().await; // The task sends it,
    let flushing = cache.clone();
    let flush = tokio::spawn(async move { flushing.flush_pending(SECOND).await });
    gate.reached().await; // and so does the flush.
    gate.open();
    bounded(flush).await.unwrap().unwrap();
    settle().await;
    let stats = cache.stats();
    assert_eq!((stats.unconfirmed, stats.replayed), (1, 1));
}

#[tokio::test]
async fn a_pattern_or_a_clear_that_is_not_confirmed_holds_every_key_that_it_matches() {
    let stage = stage(&["user:1", "user:2", "order:1"], Limits::default()).await;
    stage.faults.fail(DELETES);
    is_unconfirmed(stage.cache.invalidate_matching("user:*").await);
    stage.is_not_believed("user:1").await;
    stage.is_not_believed("user:2").await;
    stage.is_not_believed("user:3").await;
    stage.is_believed("order:1", "old").await;
    is_unconfirmed(stage.cache.clear().await);
    stage.is_not_believed("order:1").await;
    assert_eq!(stage.pending(), 2);
    stage.heals().await;
    for key in ["user:1", "user:2", "user:3", "order:1"] {
        assert_eq!(stage.cache.get::<String>(key).await.unwrap(), None, "{key}");
    }
    assert_eq!(read(&stage.cache, "user:1").await.stored, Stored::Yes);
}

#[tokio::test]
async fn more_than_may_be_remembered_makes_everything_invalid_and_reads_go_on() {
    let limits = Limits::default().with_max_pending_invalidations(2);
    let stage = stage(&["a", "b", "c", "other"], limits).await;
    stage.faults.fail(DELETES);
    for key in ["a", "b", "c"] {
        is_unconfirmed(stage.cache.invalidate(key).await);
    }
    assert_eq!((stage.cache.stats().collapsed, stage.pending()), (1, 1));
    for key in ["a", "b", "c", "other"] {
        stage.is_not_believed(key).await;
    }
    settle().await;
    assert_eq!(stage.pending(), 1, "the version is still to be changed");
    stage.heals().await;
    for key in ["a", "b", "c", "other"] {
        assert_eq!(stage.cache.get::<String>(key).await.unwrap(), None, "{key}: all that is old is a miss");
        let outcome = read(&stage.cache, key).await;
        assert_eq!((outcome.value.as_str(), outcome.stored), ("new", Stored::Yes), "{key}");
        stage.is_believed(key, "new").await;
    }
    stage.cache.invalidate("a").await.unwrap();
    assert_eq!(read(&stage.cache, "a").await.stored, Stored::Yes);
}

/// Makes everything invalid at the moment that it is asked for a lifetime, which is when a value is about to be stored.
static AT_THE_LAST_MOMENT: Mutex<Option<(Cache, Arc<Faults>)>> = Mutex::new(None);

fn invalidating(_: &str) -> Duration {
    if let Some((cache, faults)) = AT_THE_LAST_MOMENT.lock().unwrap().take() {
        faults.fail(DELETES);
        for key in ["key", "another"] {
            is_unconfirmed(cache.invalidate(key).now_or_never().unwrap());
        }
    }
    SECOND
}

#[tokio::test]
async fn what_was_loaded_before_everything_became_invalid_is_not_stored_after() {
    let (backend, faults) = FaultyBackend::new(InMemoryBackend::new());
    let limits = Limits::default().with_max_pending_invalidations(1);
    let builder = Cache::builder().limits(limits).ttl_policy(TtlPolicy::PerType(invalidating));
    let cache = builder.build(backend).unwrap();
    *AT_THE_LAST_MOMENT.lock().unwrap() = Some((cache.clone(), Arc::clone(&faults)));
    assert_eq!(read(&cache, "key").await.value, "new");
    assert_eq!(cache.stats().collapsed, 1);
    faults.heal();
    cache.flush_pending(60 * SECOND).await.unwrap();
    assert_eq!(cache.get::<String>("key").await.unwrap(), None, "it is from before the invalidation");
}

#[test]
fn it_is_sent_again_on_the_next_runtime_when_the_first_is_gone() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let first = runtime();
    let stage = first.block_on(async {
        let stage = stage(&["key"], Limits::default()).await;
        stage.faults.fail(DELETES);
        is_unconfirmed(stage.cache.invalidate("key").await);
        settle().await;
        stage
    });
    drop(first);
    stage.faults.heal();
    runtime().block_on(async {
        assert_eq!(stage.pending(), 1);
        assert_eq!(read(&stage.cache, "key").await.stored, Stored::BackendUnknown, "not before it is gone");
        settle().await;
        assert_eq!(stage.pending(), 0, "the read has seen to it");
        assert_eq!(read(&stage.cache, "key").await.stored, Stored::Yes);
    });
}

#[tokio::test]
async fn a_read_that_invalidates_has_the_fresh_value_and_the_word_of_the_backend() {
    let stage = stage(&["key"], Limits::default()).await;
    let options = LoadOptions::default().with_strategy(CacheStrategy::Invalidate);
    let new = || async { Ok::<_, SourceDown>("new".to_owned()) };
    let confirmed = stage.cache.get_or_load_outcome("key", options, new).await.unwrap();
    assert_eq!((confirmed.value.as_str(), confirmed.stored), ("new", Stored::Yes));
    assert_eq!((confirmed.invalidation, confirmed.is_degraded()), (Some(Invalidation::Confirmed), false));
    stage.faults.fail(DELETES);
    let newest = || async { Ok::<_, SourceDown>("newest".to_owned()) };
    let queued = stage.cache.get_or_load_outcome("key", options, newest).await.unwrap();
    assert_eq!((queued.value.as_str(), queued.stored), ("newest", Stored::BackendUnknown));
    assert_eq!(queued.invalidation, Some(Invalidation::Queued));
    assert_eq!(queued.degraded.unwrap().kind(), ErrorKind::Unconfirmed);
    stage.is_not_believed("key").await;
    assert_eq!(read(&stage.cache, "other").await.invalidation, None);
}

#[tokio::test]
async fn a_hold_keeps_everybody_from_storing_and_its_end_is_queued_if_it_is_not_confirmed() {
    let stage = stage(&["key"], Limits::default()).await;
    let elsewhere = Cache::builder().clock(stage.time.clock()).namespace("shop").build(stage.memory.clone());
    let elsewhere = elsewhere.unwrap();
    let hold = stage.cache.hold(["key"]).await.unwrap();
    assert!(hold.degraded().is_none());
    assert_eq!(stage.cache.get::<String>("key").await.unwrap(), None, "the old value is gone");
    for cache in [&stage.cache, &elsewhere] {
        let reading = read(cache, "key");
        let waiting = async {
            // Nobody stores meanwhile, and who waits for that does not wait for ever.
            for _ in 0..8 {
                settle().await;
                stage.time.advance(Duration::from_millis(250));
            }
        };
        let (outcome, ()) = tokio::join!(reading, waiting);
        assert_ne!(outcome.stored, Stored::Yes);
    }
    hold.confirm().await.unwrap();
    assert_eq!(read(&elsewhere, "key").await.stored, Stored::Yes);
    stage.cache.invalidate("key").await.unwrap();
    // Dropped: the transaction may have been committed.
    let hold = stage.cache.hold(["key"]).await.unwrap();
    stage.faults.fail(DELETES);
    drop(hold);
    assert_eq!(stage.pending(), 1);
    stage.is_not_believed("key").await;
    stage.heals().await;
    drop(stage.cache.hold(["key"]).await.unwrap());
    settle().await;
    // The task that sends may be in the longest of its pauses.
    stage.time.advance(Duration::from_millis(500));
    settle().await;
    assert_eq!((stage.pending(), stage.memory.stats().leases), (0, 0), "sent by itself");
}

#[tokio::test]
async fn a_hold_that_the_backend_does_not_answer_keeps_no_transaction_waiting() {
    let stage = stage(&["key"], Limits::default()).await;
    stage.faults.fail_all();
    let hold = bounded(stage.cache.hold(["key", "key"])).await.unwrap();
    assert_eq!(hold.degraded().unwrap().kind(), ErrorKind::Unconfirmed);
    is_unconfirmed(hold.confirm().await);
    assert_eq!(stage.pending(), 1);
    stage.faults.heal();
    stage.faults.fail(DELETES);
    stage.is_not_believed("key").await;
    stage.heals().await;
    assert_eq!(stage.cache.get::<String>("key").await.unwrap(), None);
}

/// A store that will never delete what it is asked to.
struct Refusing(InMemoryBackend);

#[async_trait]
impl CacheBackend for Refusing {
    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        self.0.get(key).await
    }

    async fn set(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<()> {
        self.0.set(key, value, ttl).await
    }

    async fn delete(&self, _: &str) -> Result<()> {
        Err(Error::new(ErrorKind::InvalidInput, "no such key can be"))
    }
}

#[tokio::test]
async fn what_would_be_refused_for_ever_is_not_queued() {
    let cache = Cache::builder().namespace("shop").build(Refusing(InMemoryBackend::new())).unwrap();
    assert_eq!(cache.invalidate("key").await.unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(cache.invalidate_many(["key"]).await.unwrap_err().kind(), ErrorKind::InvalidInput);
    assert_eq!(cache.invalidate_matching("k*").await.unwrap_err().kind(), ErrorKind::Unsupported);
    assert_eq!((cache.gauges().pending_invalidations, cache.stats().unconfirmed), (0, 0));
    assert_eq!(read(&cache, "key").await.stored, Stored::Yes, "and the key goes on");
}

fn redis(server: &RedisServer) -> RedisBackend {
    let url = format!("{}?pool_size=4", server.url());
    let builder = RedisBackend::builder_from_url(&url).unwrap();
    builder.operation_timeout(Duration::from_millis(200)).build().unwrap()
}

fn memcached(server: &MemcachedServer) -> MemcachedBackend {
    let config = MemcachedConfig { servers: vec![server.addr()], max_connections: 2, min_connections: 1 };
    MemcachedBackend::builder(config).operation_timeout(Duration::from_millis(200)).build().unwrap()
}

/// An outage in which a key is invalidated: nobody reads the old value after it, whether the server has kept it or not.
async fn an_outage(here: Cache, there: Cache, begin: impl FnOnce(), end: impl FnOnce()) {
    here.set("key", &"old".to_owned()).await.unwrap();
    assert_eq!(there.get::<String>("key").await.unwrap().as_deref(), Some("old"));
    begin();
    is_unconfirmed(here.invalidate("key").await);
    for _ in 0..3 {
        let outcome = read(&here, "key").await;
        assert_eq!((outcome.value.as_str(), outcome.stored), ("new", Stored::BackendUnknown));
    }
    assert_eq!(here.gauges().pending_invalidations, 1);
    assert!(here.flush_pending(Duration::from_millis(300)).await.is_err(), "the server is away");
    end();
    bounded(here.flush_pending(15 * SECOND)).await.unwrap();
    let again = async || there.get::<String>("key").await.inspect(|found| assert_eq!(*found, None)).is_ok();
    until("used again", 10 * SECOND, again).await;
    assert_eq!(read(&there, "key").await.value, "new");
    assert_eq!(here.gauges().pending_invalidations, 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_redis_that_is_killed_or_stands_still_is_told_afterwards() {
    for killed in [true, false] {
        let server = RedisServer::start();
        let [here, there] = [(); 2].map(|()| Cache::new(redis(&server)));
        match killed {
            true => an_outage(here, there, || server.kill(), || server.restart()).await,
            false => an_outage(here, there, || server.pause(), || server.resume()).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_memcached_that_is_killed_or_stands_still_is_told_afterwards() {
    for killed in [true, false] {
        let server = MemcachedServer::start();
        let [here, there] = [(); 2].map(|()| Cache::new(memcached(&server)));
        match killed {
            true => an_outage(here, there, || server.kill(), || server.restart()).await,
            false => an_outage(here, there, || server.pause(), || server.resume()).await,
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn others_on_the_same_server_learn_within_a_second_that_everything_is_invalid() {
    let server = RedisServer::start();
    let (backend, faults) = FaultyBackend::new(redis(&server));
    let limits = Limits::default().with_max_pending_invalidations(1);
    let here = Cache::builder().limits(limits).build(backend).unwrap();
    let there = Cache::new(redis(&server));
    here.set("key", &"old".to_owned()).await.unwrap();
    assert_eq!(there.get::<String>("key").await.unwrap().as_deref(), Some("old"));
    faults.fail(DELETES);
    for key in ["a", "b"] {
        is_unconfirmed(here.invalidate(key).await);
    }
    assert_eq!(here.stats().collapsed, 1);
    let error = here.get::<String>("key").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unconfirmed, "here at once");
    faults.heal();
    bounded(here.flush_pending(SECOND)).await.unwrap();
    let learned = async || there.get::<String>("key").await.unwrap().is_none();
    let took = until("the others learn", 3 * SECOND, learned).await;
    println!("learned after {took:?}");
    assert!(took < Duration::from_millis(1_200), "{took:?}");
    assert_eq!(read(&there, "key").await.stored, Stored::Yes);
    assert_eq!(here.get::<String>("key").await.unwrap().as_deref(), Some("new"), "and they share again");
}
