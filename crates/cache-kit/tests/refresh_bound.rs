//! A backend that is dead, hung, slow or flapping fails no `Refresh`, and costs it no more than it must: a read that has
//! seen the backend fail does not ask it again.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cache_kit::backend::{
    Acquired, CacheBackend, Capabilities, Distribution, Filled, InMemoryBackend, Lease,
};
use cache_kit::testing::{FaultyBackend, Gate, Operation};
use cache_kit::{
    Cache, CacheExpander, CacheStrategy, Error, ErrorKind, InlineOptions, Limits, LoadOptions, ManualClock,
    OperationConfig, Result, Stored,
};
use common::{User, Users, bounded, settle};
use tokio::time::Instant;

/// After how long an operation of the backend gives up by itself.
const DEADLINE: Duration = Duration::from_millis(200);
const SLOW: Duration = Duration::from_millis(50);

/// What ails a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Illness {
    /// Every operation fails at once.
    Dead,
    /// Every operation fails at its deadline.
    Hung,
    /// Every operation takes its time.
    Slow,
    /// Every second operation fails at once.
    Flapping,
    /// Every second operation fails at its deadline.
    FlappingAndHung,
    /// The operation with this number hangs, and no other.
    HungAt(u64),
    /// All operations hang from the one with this number on.
    HungFrom(u64),
}

/// What lookups can do, and who else is there.
#[derive(Clone, Copy, Debug)]
enum Like {
    Memory,
    /// Lookups bring leases, and other processes change the epoch.
    Server,
    /// No leases.
    Plain,
}

struct Sick {
    inner: InMemoryBackend,
    illness: Illness,
    like: Like,
    asked: AtomicU64,
    failed: AtomicU64,
}

impl Sick {
    /// An operation under this key. Versions are looked at beside a read, and make none longer.
    async fn suffer(&self, key: &str) -> Result<()> {
        if key.starts_with('%') {
            let asked = self.asked.load(Ordering::SeqCst);
            return match self.illness {
                Illness::HungFrom(from) if asked < from => Ok(()),
                Illness::Dead | Illness::Hung | Illness::HungFrom(_) => {
                    tokio::time::sleep(DEADLINE).await;
                    Err(Error::new(ErrorKind::Timeout, "hung"))
                }
                _ => Ok(()),
            };
        }
        let number = self.asked.fetch_add(1, Ordering::SeqCst);
        let hangs = match self.illness {
            Illness::Slow => {
                tokio::time::sleep(SLOW).await;
                return Ok(());
            }
            Illness::Dead => false,
            Illness::Hung => true,
            Illness::Flapping if number.is_multiple_of(2) => false,
            Illness::FlappingAndHung if number.is_multiple_of(2) => true,
            Illness::HungAt(at) if number == at => true,
            Illness::HungFrom(from) if number >= from => true,
            _ => return Ok(()),
        };
        if hangs {
            tokio::time::sleep(DEADLINE).await;
        }
        self.failed.fetch_add(1, Ordering::SeqCst);
        Err(Error::new(if hangs { ErrorKind::Timeout } else { ErrorKind::Unavailable }, "sick"))
    }
}

#[async_trait]
impl CacheBackend for Sick {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = match self.like {
            Like::Plain => Capabilities::minimal("sick"),
            Like::Memory | Like::Server => self.inner.capabilities(),
        };
        if matches!(self.like, Like::Server) {
            capabilities.lease_on_read = true;
            capabilities.distribution = Distribution::Clustering;
        }
        capabilities
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        self.suffer(key).await?;
        self.inner.get(key).await
    }

    async fn set(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<()> {
        self.suffer(key).await?;
        self.inner.set(key, value, ttl).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.suffer(key).await?;
        self.inner.delete(key).await
    }

    async fn mget(&self, keys: &[&str]) -> Result<Vec<Option<Bytes>>> {
        self.suffer("").await?;
        self.inner.mget(keys).await
    }

    async fn acquire(&self, key: &str, seen: Option<&Bytes>, life: Duration) -> Result<Acquired> {
        if matches!(self.like, Like::Plain) {
            return Ok(Acquired::Unfenced);
        }
        self.suffer(key).await?;
        self.inner.acquire(key, seen, life).await
    }

    async fn fill(&self, key: &str, lease: &Lease, value: Bytes, ttl: Option<Duration>) -> Result<Filled> {
        self.suffer(key).await?;
        self.inner.fill(key, lease, value, ttl).await
    }

    fn release_later(&self, key: &str, lease: Lease) {
        // Nobody waits for it.
        self.inner.release_later(key, lease);
    }
}

/// What a read is made through.
#[derive(Clone, Copy, Debug)]
enum Door {
    Owned,
    Inline,
    Entity,
    EntityOwned,
}

const DOORS: [Door; 4] = [Door::Owned, Door::Inline, Door::Entity, Door::EntityOwned];
const LIKES: [Like; 3] = [Like::Memory, Like::Server, Like::Plain];

/// One read of an absent key through a new cache, or several: the most operations that failed in one, and the longest.
async fn reads(illness: Illness, like: Like, door: Door, times: u64) -> (u64, Duration) {
    let inner = InMemoryBackend::new();
    let (asked, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    let sick = Arc::new(Sick { inner, illness, like, asked, failed });
    let backend: Arc<dyn CacheBackend> = Arc::clone(&sick) as _;
    let (cache, expander) = (Cache::new(Arc::clone(&backend)), CacheExpander::new(backend));
    let (refresh, config) = (CacheStrategy::Refresh, OperationConfig::default());
    let (mut most, mut longest) = (0, Duration::ZERO);
    for id in 0..times {
        let users = Users::with(&[(id, "one")]);
        let (before, began, own) = (sick.failed.load(Ordering::SeqCst), Instant::now(), users.clone());
        let key = format!("user:{id}");
        let name = match door {
            Door::Owned => {
                let options = LoadOptions::default();
                cache.get_or_load_outcome(key, options, move || own.name(id)).await.unwrap().value
            }
            Door::Inline => {
                let options = InlineOptions::default();
                cache.get_or_load_inline_outcome(key, options, || own.name(id)).await.unwrap().value
            }
            Door::Entity => {
                let read = expander.get_outcome::<User, _>(&id, &users, refresh, config);
                read.await.unwrap().value.unwrap().name
            }
            Door::EntityOwned => {
                let read =
                    expander.get_owned_outcome::<User, _>(id, Arc::new(users.clone()), refresh, config);
                read.await.unwrap().value.unwrap().name
            }
        };
        assert_eq!((name.as_str(), users.asked()), ("one", 1), "{illness:?} {like:?} {door:?}");
        most = most.max(sick.failed.load(Ordering::SeqCst) - before);
        longest = longest.max(began.elapsed());
    }
    (most, longest)
}

#[tokio::test(start_paused = true)]
async fn a_sick_backend_fails_no_read_and_is_not_asked_again_by_one_that_has_seen_it_fail() {
    let illnesses =
        [Illness::Dead, Illness::Hung, Illness::Slow, Illness::Flapping, Illness::FlappingAndHung];
    for illness in illnesses {
        for like in LIKES {
            for door in DOORS {
                let what = format!("{illness:?} {like:?} {door:?}");
                let (failed, took) = bounded(reads(illness, like, door, 8)).await;
                assert!(failed <= 1, "{what}: {failed} operations failed in one read");
                let bound = match illness {
                    // Lookup, lease, and fill.
                    Illness::Slow => 3 * SLOW,
                    Illness::Flapping => Duration::ZERO,
                    // Here the look at the versions hangs beside the first one.
                    Illness::Dead => DEADLINE,
                    _ => 2 * DEADLINE,
                };
                assert!(took <= bound, "{what}: {took:?}");
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn whichever_operation_is_the_first_to_hang_is_the_last_that_a_read_waits_for() {
    for number in 0..6 {
        for like in LIKES {
            for door in DOORS {
                for illness in [Illness::HungAt(number), Illness::HungFrom(number)] {
                    let what = format!("{illness:?} {like:?} {door:?}");
                    let (failed, took) = bounded(reads(illness, like, door, 1)).await;
                    assert!(failed <= 1, "{what}: {failed} operations failed in one read");
                    assert!(took <= DEADLINE, "{what}: {took:?}");
                }
            }
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_asks_a_dead_backend_once() {
    for illness in [Illness::Dead, Illness::Hung, Illness::HungFrom(0)] {
        let (asked, failed) = (AtomicU64::new(0), AtomicU64::new(0));
        let inner = InMemoryBackend::new();
        let sick = Arc::new(Sick { inner, illness, like: Like::Memory, asked, failed });
        let expander = CacheExpander::new(Arc::clone(&sick) as Arc<dyn CacheBackend>);
        let users = Users::with(&[(1, "one"), (2, "two"), (3, "three")]);
        let began = Instant::now();
        let found = bounded(expander.get_many::<User, _>(&[1, 2, 3], &users)).await.unwrap();
        assert_eq!((found.iter().flatten().count(), users.asked()), (3, 1), "{illness:?}");
        assert_eq!(sick.asked.load(Ordering::SeqCst), 1, "{illness:?}");
        assert!(began.elapsed() <= DEADLINE, "{illness:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_batch_whose_first_lease_hangs_waits_for_one_deadline_not_for_one_of_each_key() {
    let (asked, failed) = (AtomicU64::new(0), AtomicU64::new(0));
    let inner = InMemoryBackend::new();
    // The lookup answers, and nothing after it.
    let sick = Arc::new(Sick { inner, illness: Illness::HungFrom(1), like: Like::Memory, asked, failed });
    let expander = CacheExpander::new(Arc::clone(&sick) as Arc<dyn CacheBackend>);
    let ids: Vec<u64> = (0..20).collect();
    let rows: Vec<_> = ids.iter().map(|id| (*id, "one")).collect();
    let began = Instant::now();
    let found = bounded(expander.get_many::<User, _>(&ids, &Users::with(&rows))).await.unwrap();
    assert_eq!(found.iter().flatten().count(), 20);
    assert!(began.elapsed() <= 2 * DEADLINE, "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_renewal_that_fails_is_the_last_that_the_backend_is_asked_for() {
    for inline in [false, true] {
        let time = ManualClock::new();
        let memory = InMemoryBackend::builder().clock(time.clock()).build().unwrap();
        let (backend, faults) = FaultyBackend::new(memory.clone());
        let cache = Cache::builder().clock(time.clock()).build(backend).unwrap();
        let (users, gate) = (Users::with(&[(1, "one")]), Gate::new());
        // The version of the namespace is there.
        cache.set("other", &1).await.unwrap();
        let filled = faults.calls(Operation::Fill);
        let (reader, slow) = (cache.clone(), users.behind(&gate));
        let read = tokio::spawn(async move {
            let loader = || slow.name(1);
            match inline {
                true => reader.get_or_load_inline_outcome("key", InlineOptions::default(), loader).await,
                false => reader.get_or_load_outcome("key", LoadOptions::default(), loader).await,
            }
        });
        gate.reached().await;
        faults.fail([Operation::Renew, Operation::Fill]);
        settle().await;
        time.advance(Duration::from_secs(1));
        settle().await;
        gate.open();
        let outcome = bounded(read).await.unwrap().unwrap();
        assert_eq!((outcome.value.as_str(), outcome.stored), ("one", Stored::BackendUnknown));
        assert_eq!((faults.calls(Operation::Renew), faults.calls(Operation::Fill)), (1, filled), "{inline}");
    }
}

/// A store whose lookups bring leases; the answer to the first, or to deletes, stays at a gate.
struct Stuck {
    inner: InMemoryBackend,
    gate: Gate,
    first: AtomicBool,
    deletes: bool,
}

#[async_trait]
impl CacheBackend for Stuck {
    fn capabilities(&self) -> Capabilities {
        let mut capabilities = self.inner.capabilities();
        capabilities.lease_on_read = true;
        capabilities
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        self.inner.get(key).await
    }

    async fn set(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<()> {
        self.inner.set(key, value, ttl).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        let deleted = self.inner.delete(key).await;
        if self.deletes {
            self.gate.pass().await;
        }
        deleted
    }

    async fn acquire(&self, key: &str, seen: Option<&Bytes>, life: Duration) -> Result<Acquired> {
        let acquired = self.inner.acquire(key, seen, life).await;
        if self.first.swap(false, Ordering::SeqCst) {
            self.gate.pass().await;
        }
        acquired
    }

    async fn fill(&self, key: &str, lease: &Lease, value: Bytes, ttl: Option<Duration>) -> Result<Filled> {
        self.inner.fill(key, lease, value, ttl).await
    }

    async fn release(&self, key: &str, lease: &Lease) -> Result<()> {
        self.inner.release(key, lease).await
    }
}

#[tokio::test]
async fn a_reader_whose_lookup_nobody_polls_keeps_the_others_no_longer_than_its_lease() {
    for inline in [false, true] {
        let (time, gate) = (ManualClock::new(), Gate::new());
        let inner = InMemoryBackend::builder().clock(time.clock()).build().unwrap();
        let backend = Stuck { inner, gate: gate.clone(), first: AtomicBool::new(true), deletes: false };
        let cache = Cache::builder().clock(time.clock()).build(backend).unwrap();
        let users = Users::with(&[(1, "one")]);
        let own = users.clone();
        let mut old = Box::pin(cache.get_or_load_inline("key", || own.name(1)));
        assert!(old.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
        // It has the lease, and does not know yet.
        let (reader, own) = (cache.clone(), users.clone());
        let read = tokio::spawn(async move {
            match inline {
                true => reader.get_or_load_inline("key", || own.name(1)).await,
                false => reader.get_or_load("key", || own.name(1)).await,
            }
        });
        for _ in 0..20 {
            settle().await;
            time.advance(Duration::from_millis(250));
        }
        settle().await;
        assert!(read.is_finished(), "inline: {inline}");
        assert_eq!(read.await.unwrap().unwrap(), "one");
        gate.open();
        assert_eq!(bounded(old).await.unwrap(), "one", "and it does no harm later");
    }
}

#[tokio::test]
async fn a_read_for_which_there_is_no_room_gives_back_the_lease_that_its_lookup_brought() {
    let inner = InMemoryBackend::new();
    let backend =
        Stuck { inner: inner.clone(), gate: Gate::new(), first: AtomicBool::new(false), deletes: false };
    let limits = Limits::default().with_max_concurrent_loads(1).with_max_waiting_reads(1);
    let cache = Cache::builder().limits(limits).build(backend).unwrap();
    let (users, gate) = (Users::with(&[(1, "one")]), Gate::new());
    let read = |key: &'static str| {
        let (cache, slow) = (cache.clone(), users.behind(&gate));
        tokio::spawn(async move { cache.get_or_load_inline(key, || slow.name(1)).await })
    };
    let busy = read("busy");
    gate.reached().await;
    let waiting = read("waiting");
    settle().await;
    let refused = bounded(read("refused")).await.unwrap().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Overloaded);
    gate.open();
    for read in [busy, waiting] {
        assert_eq!(bounded(read).await.unwrap().unwrap(), "one");
    }
    assert_eq!(inner.stats().leases, 0, "others can load and store the key at once");
}

#[tokio::test]
async fn a_load_that_loses_its_leader_while_an_invalidation_ends_keeps_no_lease() {
    let (inner, gate, source) = (InMemoryBackend::new(), Gate::new(), Gate::new());
    let backend =
        Stuck { inner: inner.clone(), gate: gate.clone(), first: AtomicBool::new(false), deletes: true };
    let cache = Cache::new(backend);
    let (users, mut cx) = (Users::with(&[(1, "one")]), Context::from_waker(Waker::noop()));
    let mut invalidating = Box::pin(cache.invalidate("key"));
    assert!(invalidating.as_mut().poll(&mut cx).is_pending());
    // The key is deleted, and whoever invalidates has not heard of it: this lease is of after it.
    let (slow, own) = (users.behind(&source), users.clone());
    let mut leader = Box::pin(cache.get_or_load_inline("key", || slow.name(1)));
    assert!(leader.as_mut().poll(&mut cx).is_pending());
    let mut follower = Box::pin(cache.get_or_load_inline("key", || own.name(1)));
    assert!(follower.as_mut().poll(&mut cx).is_pending());
    drop(leader);
    gate.open();
    bounded(invalidating).await.unwrap();
    assert_eq!(inner.stats().leases, 0, "nobody leads the load that it was taken for");
    assert_eq!(bounded(follower).await.unwrap(), "one");
}
