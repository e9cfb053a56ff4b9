//! Everything that waits has an end: callers, loads, leaders that nobody runs, and the cache itself.

// long: each deadline is shown on one stage.

#![expect(clippy::unwrap_used, clippy::future_not_send, reason = "tests fail, each on its own thread")]

mod common;

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cache_kit::backend::{Acquired, CacheBackend, Capabilities, Filled, InMemoryBackend, Lease};
use cache_kit::testing::{Faults, FaultyBackend, Gate, Operation};
use cache_kit::{
    Cache, CacheStrategy, ErrorKind, InlineOptions, LoadOptions, ManualClock, Outcome, Policy, Result,
    Source, Step, Stored,
};
use common::{SourceDown, Users, bounded, settle};
use tokio::task::JoinHandle;

const TTL: Duration = Duration::from_secs(10);
const SECOND: Duration = Duration::from_secs(1);

struct Stage {
    time: ManualClock,
    memory: InMemoryBackend,
    faults: Arc<Faults>,
    cache: Cache,
    users: Users,
}

fn stage(policy: Policy) -> Stage {
    // Lives are exact here.
    let policy = policy.with_ttl_jitter(0.0);
    let time = ManualClock::new();
    let memory = InMemoryBackend::builder().clock(time.clock()).build().unwrap();
    let (backend, faults) = FaultyBackend::new(memory.clone());
    let cache = Cache::builder().clock(time.clock()).ttl(TTL).policy(policy).build(backend).unwrap();
    Stage { time, memory, faults, cache, users: Users::with(&[(1, "new")]) }
}

/// The same, with a stale value under the key.
async fn stale_stage(policy: Policy) -> Stage {
    let stage = stage(policy.with_stale_if_error(60 * SECOND));
    stage.cache.set("user:1", &"old".to_owned()).await.unwrap();
    stage.time.advance(TTL + SECOND);
    stage
}

type Reading = JoinHandle<Result<Outcome<String>>>;

impl Stage {
    fn read(&self, users: Users, inline: bool) -> Reading {
        self.read_with(move || users.name(1), inline)
    }

    fn read_with<F, Fut>(&self, loader: F, inline: bool) -> Reading
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<String, SourceDown>> + Send + 'static,
    {
        let cache = self.cache.clone();
        tokio::spawn(async move {
            match inline {
                true => cache.get_or_load_inline_outcome("user:1", InlineOptions::default(), loader).await,
                false => cache.get_or_load_outcome("user:1", LoadOptions::default(), loader).await,
            }
        })
    }

    /// Lets time go by as it does: in small steps, and everybody who has something to do does it.
    async fn pass(&self, time: Duration) {
        let step = Duration::from_millis(250);
        let mut left = time;
        while !left.is_zero() {
            settle().await;
            self.time.advance(step.min(left));
            left = left.saturating_sub(step);
        }
        settle().await;
    }

    fn nothing_is_left(&self, what: &str) {
        let gauges = self.cache.gauges();
        assert_eq!((gauges.loads, gauges.tasks, gauges.waiting), (0, 0, 0), "{what}");
        assert_eq!((self.cache.loads_under_way(), self.cache.readers_waiting()), (0, 0), "{what}");
        assert_eq!(self.memory.stats().leases, 0, "{what}: no lease is left");
    }

    async fn stored(&self) -> Option<String> {
        self.cache.get("user:1").await.unwrap()
    }
}

/// Counts how many are alive.
struct Alive(Arc<AtomicU64>);

impl Alive {
    fn new(count: &Arc<AtomicU64>) -> Self {
        count.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(count))
    }
}

impl Drop for Alive {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// A loader that never returns.
async fn forever(count: Arc<AtomicU64>) -> Result<String, SourceDown> {
    let _alive = Alive::new(&count);
    pending().await
}

#[tokio::test]
async fn after_the_soft_timeout_the_stale_value_is_served_and_the_load_goes_on() {
    let stage = stale_stage(Policy::default().with_soft_timeout(SECOND)).await;
    let gate = Gate::new();
    let reads = [stage.read(stage.users.behind(&gate), false), stage.read(stage.users.clone(), false)];
    gate.reached().await;
    settle().await;
    stage.time.advance(SECOND - Duration::from_millis(1));
    settle().await;
    assert!(reads.iter().all(|read| !read.is_finished()), "not before");
    stage.time.advance(Duration::from_millis(1));
    for read in reads {
        let outcome = bounded(read).await.unwrap().unwrap();
        assert_eq!((outcome.value.as_str(), outcome.stale_for), ("old", Some(SECOND)));
        assert!(outcome.steps.contains(Step::SoftTimeout) && !outcome.is_degraded());
    }
    assert_eq!(stage.cache.stats().soft_timeouts, 2);
    gate.open();
    settle().await;
    assert_eq!((stage.stored().await.as_deref(), stage.users.asked()), (Some("new"), 1));
    stage.nothing_is_left("after the load");
    stage.cache.invalidate("user:1").await.unwrap();
    let gate = Gate::new();
    let read = stage.read(stage.users.behind(&gate), false);
    stage.pass(5 * SECOND).await;
    gate.open();
    assert_eq!(bounded(read).await.unwrap().unwrap().source, Source::Load);
}

#[tokio::test]
async fn after_its_timeout_a_caller_waits_no_more_and_an_owned_load_goes_on() {
    for stale in [false, true] {
        let policy = Policy::default().with_timeout(2 * SECOND);
        let stage = if stale { stale_stage(policy).await } else { stage(policy) };
        let gate = Gate::new();
        let reads = [stage.read(stage.users.behind(&gate), false), stage.read(stage.users.clone(), false)];
        gate.reached().await;
        stage.pass(2 * SECOND).await;
        for read in reads {
            match bounded(read).await.unwrap() {
                Ok(outcome) => {
                    assert_eq!((outcome.value.as_str(), stale), ("old", true));
                    assert!(outcome.steps.contains(Step::TimedOut));
                    assert_eq!(outcome.degraded.unwrap().kind(), ErrorKind::Timeout);
                }
                Err(error) => assert_eq!((error.kind(), stale), (ErrorKind::Timeout, false)),
            }
        }
        assert_eq!((stage.cache.stats().timeouts, stage.cache.gauges().waiting), (2, 0));
        gate.open();
        settle().await;
        assert_eq!((stage.stored().await.as_deref(), stage.users.asked()), (Some("new"), 1));
        stage.nothing_is_left("after the load");
    }
}

#[tokio::test]
async fn an_inline_load_ends_with_the_timeout_of_its_caller() {
    let stage = stage(Policy::default().with_timeout(2 * SECOND));
    let count = Arc::new(AtomicU64::new(0));
    let running = Arc::clone(&count);
    let read = stage.read_with(|| forever(running), true);
    settle().await;
    assert_eq!(count.load(Ordering::SeqCst), 1);
    stage.pass(2 * SECOND).await;
    assert_eq!(bounded(read).await.unwrap().unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(count.load(Ordering::SeqCst), 0, "the load is dropped");
    stage.nothing_is_left("inline");
}

#[tokio::test]
async fn the_timeout_of_an_inline_leader_passes_the_lead_to_one_who_waits() {
    let stage = stage(Policy::default());
    let (cache, gate) = (stage.cache.clone(), Gate::new());
    let slow = stage.users.behind(&gate);
    let leader = tokio::spawn(async move {
        let options = InlineOptions::default().with_timeout(SECOND);
        cache.get_or_load_inline_with("user:1", options, || slow.name(1)).await
    });
    gate.reached().await;
    let followers = [stage.read(stage.users.clone(), true), stage.read(stage.users.clone(), true)];
    stage.pass(SECOND).await;
    assert_eq!(bounded(leader).await.unwrap().unwrap_err().kind(), ErrorKind::Timeout);
    let mut took_over = 0;
    for follower in followers {
        let outcome = bounded(follower).await.unwrap().unwrap();
        assert_eq!((outcome.value.as_str(), outcome.stored), ("new", Stored::Yes));
        took_over += u64::from(outcome.steps.contains(Step::TookOver) && outcome.source == Source::Load);
    }
    assert_eq!((took_over, stage.users.asked(), stage.cache.stats().taken_over), (1, 2, 1));
    stage.nothing_is_left("after the follower");
}

#[tokio::test]
async fn a_load_that_never_returns_is_dropped_at_its_deadline_and_its_key_serves_again() {
    for (inline, stale) in [(false, false), (true, false), (false, true), (true, true)] {
        let what = format!("inline: {inline}, stale: {stale}");
        let policy = Policy::default().with_load_deadline(5 * SECOND);
        let stage = if stale { stale_stage(policy).await } else { stage(policy) };
        let count = Arc::new(AtomicU64::new(0));
        let reads: Vec<_> = (0..10)
            .map(|_| {
                let count = Arc::clone(&count);
                stage.read_with(|| forever(count), inline)
            })
            .collect();
        settle().await;
        assert_eq!(count.load(Ordering::SeqCst), 1, "{what}: one load");
        assert_eq!((stage.cache.gauges().loads, stage.memory.stats().leases), (1, 1), "{what}");
        stage.pass(5 * SECOND - Duration::from_millis(250)).await;
        assert!(reads.iter().all(|read| !read.is_finished()), "{what}: not before");
        stage.pass(Duration::from_millis(250)).await;
        assert_eq!(count.load(Ordering::SeqCst), 0, "{what}: the load is dropped");
        for read in reads {
            match bounded(read).await.unwrap() {
                Ok(outcome) => {
                    assert_eq!((outcome.value.as_str(), stale), ("old", true), "{what}");
                    assert_eq!(outcome.degraded.unwrap().kind(), ErrorKind::Timeout, "{what}");
                }
                Err(error) => assert_eq!((error.kind(), stale), (ErrorKind::Timeout, false), "{what}"),
            }
        }
        let stats = stage.cache.stats();
        assert_eq!((stats.loads_dropped, stats.load_failures), (1, 1), "{what}");
        stage.nothing_is_left(&what);
        // The source is left alone for a second where there is a stale value.
        stage.time.advance(SECOND);
        let again = bounded(stage.read(stage.users.clone(), inline)).await.unwrap().unwrap();
        assert_eq!((again.value.as_str(), again.stored), ("new", Stored::Yes), "{what}");
    }
}

#[tokio::test]
async fn batches_and_reads_past_the_cache_end_at_the_deadline_too() {
    let stage = stage(Policy::default().with_load_deadline(5 * SECOND));
    let count = Arc::new(AtomicU64::new(0));
    let (cache, running) = (stage.cache.clone(), Arc::clone(&count));
    let batch = tokio::spawn(async move {
        let load = move |_| {
            let running = Arc::clone(&running);
            async move { forever(running).await.map(|value| vec![("a".to_owned(), value)]) }
        };
        cache.get_many_or_load::<String, _, _, _, _>(["a", "b"], load).await
    });
    let (cache, running) = (stage.cache.clone(), Arc::clone(&count));
    let bypass = tokio::spawn(async move {
        let options = LoadOptions::default().with_strategy(CacheStrategy::Bypass);
        cache.get_or_load_with("c", options, || forever(running)).await
    });
    settle().await;
    assert_eq!((count.load(Ordering::SeqCst), stage.memory.stats().leases), (2, 2));
    stage.pass(5 * SECOND).await;
    assert_eq!(bounded(batch).await.unwrap().unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(bounded(bypass).await.unwrap().unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(count.load(Ordering::SeqCst), 0);
    stage.nothing_is_left("batch and bypass");
}

#[tokio::test]
async fn a_leader_that_nobody_polls_is_given_up_and_does_no_harm_when_it_is_polled_again() {
    for inline in [true, false] {
        let stage = stage(Policy::default());
        let gate = Gate::new();
        let slow = Users::with(&[(1, "outdated")]).behind(&gate);
        let options = InlineOptions::default();
        let mut old =
            Box::pin(stage.cache.get_or_load_inline_outcome("user:1", options, move || slow.name(1)));
        assert!(old.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        let followers: Vec<_> = (0..5).map(|_| stage.read(stage.users.clone(), inline)).collect();
        settle().await;
        stage.time.advance(3 * SECOND - Duration::from_millis(1));
        settle().await;
        assert!(followers.iter().all(|follower| !follower.is_finished()), "not before");
        stage.time.advance(Duration::from_millis(1));
        let (mut gave_up, mut stored) = (0, 0);
        for follower in followers {
            let outcome = bounded(follower).await.unwrap().unwrap();
            assert_eq!(outcome.value, "new", "inline: {inline}");
            gave_up += u64::from(outcome.steps.contains(Step::GaveUpOnLeader));
            stored += u64::from(outcome.source == Source::Load && outcome.stored == Stored::Yes);
        }
        // Who comes after the one that loads joins it, or finds what it stored.
        assert_eq!((stage.users.asked(), stored, stage.cache.stats().ousted), (1, 1, 1), "one loads");
        assert!(gave_up >= 1);
        assert_eq!(stage.cache.gauges().loads, 0);
        gate.open();
        let late = bounded(old).await.unwrap();
        assert_eq!((late.value.as_str(), late.stored), ("outdated", Stored::FencedOff));
        assert_eq!(stage.stored().await.as_deref(), Some("new"));
        stage.nothing_is_left("after the old leader");
    }
}

#[tokio::test]
async fn a_leader_that_is_polled_is_waited_for_however_long_it_takes() {
    let stage = stage(Policy::default());
    let gate = Gate::new();
    let reads = [stage.read(stage.users.behind(&gate), true), stage.read(stage.users.clone(), true)];
    gate.reached().await;
    stage.pass(20 * SECOND).await;
    gate.open();
    for read in reads {
        assert_eq!(bounded(read).await.unwrap().unwrap().stored, Stored::Yes, "its lease was kept");
    }
    assert_eq!((stage.users.asked(), stage.cache.stats().ousted), (1, 0));
}

#[tokio::test]
async fn a_lookup_that_hangs_gets_half_of_the_callers_time_and_the_source_the_rest() {
    for inline in [false, true] {
        let stage = stage(Policy::default().with_timeout(2 * SECOND));
        stage.faults.hang([Operation::Get]);
        let read = stage.read(stage.users.clone(), inline);
        settle().await;
        stage.time.advance(SECOND - Duration::from_millis(1));
        settle().await;
        assert_eq!(stage.users.asked(), 0);
        stage.time.advance(Duration::from_millis(1));
        let outcome = bounded(read).await.unwrap().unwrap();
        assert_eq!((outcome.value.as_str(), outcome.stored), ("new", Stored::BackendUnknown));
        assert_eq!(outcome.degraded.unwrap().kind(), ErrorKind::Timeout, "inline: {inline}");
        stage.nothing_is_left("after a hung lookup");
    }
}

/// Whatever operation hangs, a read with a timeout of two seconds is over after them.
async fn over_in_time(hangs: Operation, read: impl AsyncFnOnce(Cache, Users) -> Result<()> + 'static) {
    let stage = stage(Policy::default().with_timeout(2 * SECOND));
    stage.faults.hang([hangs]);
    let (cache, users) = (stage.cache.clone(), stage.users.clone());
    let local = tokio::task::LocalSet::new();
    let reading = local.spawn_local(async move { read(cache, users).await });
    local
        .run_until(async {
            stage.pass(2 * SECOND).await;
            assert!(reading.is_finished(), "{hangs:?} hangs, and the read with it");
        })
        .await;
}

#[tokio::test]
async fn an_invalidation_that_hangs_keeps_no_read_beyond_its_timeout() {
    over_in_time(Operation::Delete, async |cache, users| {
        let options = LoadOptions::default().with_strategy(CacheStrategy::Invalidate);
        cache.get_or_load_with("user:1", options, || users.name(1)).await.map(|_| ())
    })
    .await;
}

#[tokio::test]
async fn a_lookup_of_many_keys_that_hangs_keeps_no_read_beyond_its_timeout() {
    over_in_time(Operation::Mget, async |cache, users| {
        let load = move |_| {
            let users = users.clone();
            async move { users.name(1).await.map(|name| vec![("user:1".to_owned(), name)]) }
        };
        cache.get_many_or_load::<String, _, _, _, _>(["user:1"], load).await.map(|_| ())
    })
    .await;
}

#[tokio::test]
async fn a_lease_that_cannot_be_renewed_is_given_back_when_the_load_ends() {
    let stage = stage(Policy::default());
    let gate = Gate::new();
    let read = stage.read(stage.users.behind(&gate), false);
    gate.reached().await;
    stage.faults.fail([Operation::Renew]);
    stage.pass(Duration::from_millis(1_250)).await;
    stage.faults.heal();
    gate.open();
    let outcome = bounded(read).await.unwrap().unwrap();
    assert_eq!((outcome.value.as_str(), outcome.stored), ("new", Stored::BackendUnknown));
    stage.nothing_is_left("after a renewal that failed");
}

#[tokio::test]
async fn a_renewal_that_hangs_keeps_no_load_beyond_its_deadline() {
    let stage = stage(Policy::default().with_load_deadline(5 * SECOND));
    stage.faults.hang([Operation::Renew]);
    let count = Arc::new(AtomicU64::new(0));
    let running = Arc::clone(&count);
    let read = stage.read_with(|| forever(running), true);
    stage.pass(5 * SECOND).await;
    assert_eq!(count.load(Ordering::SeqCst), 0, "the load is dropped at its deadline");
    assert_eq!(bounded(read).await.unwrap().unwrap_err().kind(), ErrorKind::Timeout);
}

#[tokio::test]
async fn a_shutdown_waits_for_what_runs_and_then_loads_no_more() {
    let stage = stage(Policy::default());
    stage.cache.set("hit", &1_u32).await.unwrap();
    let gate = Gate::new();
    let read = stage.read(stage.users.behind(&gate), false);
    gate.reached().await;
    let cache = stage.cache.clone();
    let closing = tokio::spawn(async move { cache.shutdown(10 * SECOND).await });
    settle().await;
    assert!(!closing.is_finished());
    gate.open();
    bounded(closing).await.unwrap().unwrap();
    assert_eq!(bounded(read).await.unwrap().unwrap().stored, Stored::Yes);
    let refused = stage.cache.get_or_load("other", || async { Ok::<_, SourceDown>(1) }).await.unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::LoadAborted);
    let hit = stage.cache.get_or_load("hit", || async { Err::<u32, _>(SourceDown(1)) }).await;
    assert_eq!(hit.unwrap(), 1, "hits are answered as before");
    stage.nothing_is_left("after a shutdown");
}

#[tokio::test]
async fn a_shutdown_stops_what_does_not_end_in_time() {
    let stage = stage(Policy::default());
    let count = Arc::new(AtomicU64::new(0));
    let reads = [(); 3].map(|()| {
        let count = Arc::clone(&count);
        stage.read_with(|| forever(count), false)
    });
    settle().await;
    let cache = stage.cache.clone();
    let closing = tokio::spawn(async move { cache.shutdown(SECOND).await });
    stage.pass(SECOND).await;
    assert_eq!(bounded(closing).await.unwrap().unwrap_err().kind(), ErrorKind::Timeout);
    for read in reads {
        assert_eq!(bounded(read).await.unwrap().unwrap_err().kind(), ErrorKind::LoadAborted);
    }
    assert_eq!(count.load(Ordering::SeqCst), 0, "the load is dropped");
    stage.nothing_is_left("after a shutdown");
}

#[tokio::test]
async fn a_shutdown_sends_what_is_pending_or_tells_that_it_is_left() {
    let stage = stage(Policy::default());
    stage.faults.fail([Operation::Delete, Operation::Mdelete]);
    assert_eq!(stage.cache.invalidate("user:1").await.unwrap_err().kind(), ErrorKind::Unconfirmed);
    let cache = stage.cache.clone();
    let closing = tokio::spawn(async move { cache.shutdown(SECOND).await });
    stage.pass(SECOND).await;
    assert_eq!(bounded(closing).await.unwrap().unwrap_err().kind(), ErrorKind::Unconfirmed);
    stage.faults.heal();
    bounded(stage.cache.shutdown(SECOND)).await.unwrap();
    assert_eq!(stage.cache.gauges().pending_invalidations, 0);
}

/// A store whose lookups bring leases, as those of servers do.
struct LeaseOnRead(InMemoryBackend);

#[async_trait]
impl CacheBackend for LeaseOnRead {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = self.0.capabilities();
        capabilities.lease_on_read = true;
        capabilities
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        self.0.get(key).await
    }

    async fn set(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<()> {
        self.0.set(key, value, ttl).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.0.delete(key).await
    }

    async fn acquire(&self, key: &str, seen: Option<&Bytes>, life: Duration) -> Result<Acquired> {
        self.0.acquire(key, seen, life).await
    }

    async fn fill(&self, key: &str, lease: &Lease, value: Bytes, ttl: Option<Duration>) -> Result<Filled> {
        self.0.fill(key, lease, value, ttl).await
    }

    async fn release(&self, key: &str, lease: &Lease) -> Result<()> {
        self.0.release(key, lease).await
    }
}

#[tokio::test]
async fn a_load_that_is_refused_by_a_cache_that_is_shut_down_leaves_no_lease() {
    let memory = InMemoryBackend::new();
    let cache = Cache::new(LeaseOnRead(memory.clone()));
    cache.shutdown(SECOND).await.unwrap();
    let refused = cache.get_or_load("key", || async { Ok::<_, SourceDown>(1) }).await;
    assert_eq!(refused.unwrap_err().kind(), ErrorKind::LoadAborted);
    assert_eq!(memory.stats().leases, 0, "other processes need not wait for it to end");
}
