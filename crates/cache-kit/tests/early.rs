//! Values that are loaded anew before their life ends: as likely as the paper says, behind their readers, once at a time.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cache_kit::backend::InMemoryBackend;
use cache_kit::testing::Gate;
use cache_kit::{
    Cache, CacheExpander, CacheStrategy, DataRepository, Error, ErrorKind, GenericFeeder, InlineOptions,
    LoadOptions, Loaded, ManualClock, OperationConfig, Outcome, Policy, Previous, Result, Source, Step,
    Stored,
};
use common::engine::{Place, on_places};
use common::{SourceDown, User, Users, bounded, until};
use futures_util::FutureExt as _;
use futures_util::future::join_all;

const TTL: Duration = Duration::from_secs(1_000);
const COST: Duration = Duration::from_millis(100);
const MILLI: Duration = Duration::from_millis(1);
const TEAM: &[&str] = &["team"];
/// So eager that every read of a value whose load took time begins a load.
const EAGER: f64 = 1e20;

/// One that does not leave the source alone when it has failed.
fn policy(beta: f64) -> Policy {
    let exact = Policy::default().with_ttl(TTL).with_ttl_jitter(0.0);
    exact.with_early_refresh_beta(beta).with_retry_after_error(Duration::ZERO)
}

fn cache_on(place: &Place, time: &ManualClock, beta: f64) -> Cache {
    let builder = Cache::builder().clock(time.clock()).policy(policy(beta));
    match place {
        Place::Memory(backend) => builder.build(backend.clone()),
        _ => builder.build_url(&place.url()),
    }
    .unwrap()
}

/// A cache that holds the name "old", whose load took [`COST`], and which the source has changed to "new" since.
struct Stage {
    time: ManualClock,
    memory: InMemoryBackend,
    cache: Cache,
    users: Users,
}

impl Stage {
    /// In memory, whose clock is that of the cache.
    async fn new(beta: f64) -> Self {
        let time = ManualClock::new();
        let memory = InMemoryBackend::builder().clock(time.clock()).build().unwrap();
        let stage = Self::on(&Place::Memory(memory.clone()), time, beta).await;
        Self { memory, ..stage }
    }

    async fn on(place: &Place, time: ManualClock, beta: f64) -> Self {
        let cache = cache_on(place, &time, beta);
        let stage = Self { time, memory: InMemoryBackend::new(), cache, users: Users::with(&[(1, "old")]) };
        stage.store("user:1", COST).await;
        stage.users.put(1, "new");
        stage
    }

    /// Stores the name, at the cost of so much time.
    async fn store(&self, key: &str, cost: Duration) {
        let (time, users) = (self.time.clone(), self.users.clone());
        let load = move || async move {
            time.advance(cost);
            users.name(1).await
        };
        let options = LoadOptions::default().with_tags(TEAM);
        let stored = self.cache.get_or_load_outcome(key, options, load).await.unwrap().stored;
        assert_eq!(stored, Stored::Yes);
    }

    async fn read(&self, users: Users) -> Outcome<String> {
        let options = LoadOptions::default().with_tags(TEAM);
        bounded(self.cache.get_or_load_outcome("user:1", options, || users.name(1))).await.unwrap()
    }

    /// Reads with a source that is down.
    async fn read_failing(&self, key: &str) -> Result<Outcome<String>> {
        let down = || async { Err::<String, _>(SourceDown(0)) };
        self.cache.get_or_load_outcome(key, LoadOptions::default(), down).await
    }

    /// Waits for what runs behind.
    async fn idle(&self) {
        let is_idle = async || self.cache.gauges().tasks == 0;
        until("what runs behind ends", Duration::from_secs(20), is_idle).await;
    }
}

fn is_early(outcome: &Outcome<String>) -> bool {
    assert!(outcome.is_hit() && !outcome.is_stale() && !outcome.is_degraded(), "{outcome:?}");
    assert_eq!((outcome.value.as_str(), outcome.stored), ("old", Stored::NotAsked));
    outcome.steps.contains(Step::RefreshingBehind)
}

on_places! {
    memory { a_hit_is_answered_at_once_and_the_next_one_is_new a_crowd_of_two_caches_begins_one_load
        an_invalidation_beats_an_early_load }
    redis { a_hit_is_answered_at_once_and_the_next_one_is_new a_crowd_of_two_caches_begins_one_load
        an_invalidation_beats_an_early_load }
    memcached { a_hit_is_answered_at_once_and_the_next_one_is_new a_crowd_of_two_caches_begins_one_load
        an_invalidation_beats_an_early_load }
}

/// Each of the points is a mean of `n` independent draws. By Hoeffding's inequality it is off by `t` or more with a chance
/// of at most `2 exp(-2 n t²)`, whatever its expectation; for all of `k` points together to be wrong less often than once in
/// 10^9 runs, `t = sqrt(ln(2 k 10^9) / 2 n)`.
#[tokio::test]
async fn the_share_of_reads_that_load_early_is_that_of_the_paper() {
    const KEYS: u32 = 20;
    const READS: u32 = 1_000;
    const POINTS: [(f64, u32); 8] =
        [(1.0, 50), (1.0, 100), (1.0, 200), (1.0, 500), (2.0, 100), (2.0, 400), (0.5, 50), (0.5, 200)];
    let n = f64::from(KEYS * READS);
    let tolerance = ((2.0 * POINTS.len() as f64 * 1e9).ln() / (2.0 * n)).sqrt();
    let mut shares = Vec::new();
    for (beta, left) in POINTS {
        let stage = Stage::new(beta).await;
        stage.users.put(1, "old");
        let mut early = 0;
        for key in 0..KEYS {
            let key = format!("key:{key}");
            stage.store(&key, COST).await;
            stage.time.advance(TTL - left * MILLI);
            for _ in 0..READS {
                if is_early(&stage.read_failing(&key).await.unwrap()) {
                    early += 1;
                    // It fails, and the value stays as it was for the next read.
                    while stage.cache.gauges().tasks > 0 {
                        tokio::task::yield_now().await;
                    }
                }
            }
        }
        assert_eq!(stage.cache.stats().early_refreshes, early);
        let share = early as f64 / n;
        // P(cost * beta * -ln(u) >= left)
        let theory = (-f64::from(left) / (100.0 * beta)).exp();
        println!(
            "beta {beta}, {left} ms before the end: {share:.4}, in theory {theory:.4} +- {tolerance:.4}"
        );
        assert!((share - theory).abs() < tolerance, "beta {beta}, {left} ms left: {share} for {theory}");
        shares.push(share);
    }
    assert!(shares[5] > shares[3] && shares[4] > shares[1] && shares[1] > shares[7], "more is earlier");
}

#[tokio::test]
async fn nothing_is_loaded_early_that_took_no_time_or_where_it_is_off() {
    for (beta, cost) in [(0.0, COST), (EAGER, Duration::ZERO)] {
        let stage = Stage::new(beta).await;
        stage.users.put(1, "old");
        stage.store("key", cost).await;
        let before = stage.cache.stats();
        stage.time.advance(TTL - MILLI);
        for _ in 0..10_000 {
            assert!(!is_early(&stage.read_failing("key").await.unwrap()), "beta {beta}, cost {cost:?}");
        }
        let done = stage.cache.stats().since(&before);
        assert_eq!((done.hits, done.loads, done.early_refreshes), (10_000, 0, 0));
        stage.time.advance(MILLI);
        assert_eq!(stage.read_failing("key").await.unwrap_err().kind(), ErrorKind::Source, "its end");
    }
}

#[tokio::test]
async fn what_has_no_end_is_not_loaded_early_and_what_was_set_took_no_load() {
    let stage = Stage::new(EAGER).await;
    let (time, users) = (stage.time.clone(), Users::with(&[(1, "old")]));
    let endless = Policy::default().without_ttl().with_early_refresh_beta(EAGER);
    let cache = Cache::builder().clock(time.clock()).policy(endless).build(stage.memory.clone()).unwrap();
    let load = move || async move {
        time.advance(COST);
        users.name(1).await
    };
    cache.get_or_load("endless", load).await.unwrap();
    cache.set("set", &"old".to_owned()).await.unwrap();
    stage.cache.set("set too", &"old".to_owned()).await.unwrap();
    stage.time.advance(TTL - MILLI);
    for (cache, key) in [(&cache, "endless"), (&cache, "set"), (&stage.cache, "set too")] {
        let loader = || async { Err::<String, _>(SourceDown(0)) };
        let outcome = cache.get_or_load_outcome(key, LoadOptions::default(), loader).await.unwrap();
        assert!(!is_early(&outcome), "{key}");
    }
}

async fn a_hit_is_answered_at_once_and_the_next_one_is_new(place: Place) {
    let stage = Stage::on(&place, ManualClock::new(), EAGER).await;
    let gate = Gate::new();
    // The gate stays closed: nobody waits for the load.
    assert!(is_early(&stage.read(stage.users.behind(&gate)).await));
    bounded(gate.reached()).await;
    assert!(is_early(&stage.read(stage.users.clone()).await), "as long as it runs");
    assert_eq!(stage.cache.get::<String>("user:1").await.unwrap().as_deref(), Some("old"));
    assert_eq!((stage.users.asked(), stage.cache.stats().early_refreshes), (2, 1));
    gate.open();
    stage.idle().await;
    let next = stage.read(stage.users.clone()).await;
    assert_eq!((next.value.as_str(), next.source), ("new", Source::Cache));
    assert!(!next.steps.contains(Step::RefreshingBehind), "that load took no time");
    let stats = stage.cache.stats();
    assert_eq!((stage.users.asked(), stats.loads, stats.stored, stats.misses), (2, 2, 2, 1));
}

async fn a_crowd_of_two_caches_begins_one_load(place: Place) {
    let time = ManualClock::new();
    let stage = Arc::new(Stage::on(&place, time.clone(), EAGER).await);
    let gate = Gate::new();
    let other = Stage {
        memory: InMemoryBackend::new(),
        cache: cache_on(&place, &time, EAGER),
        users: stage.users.clone(),
        time,
    };
    let caches = [Arc::clone(&stage), Arc::new(other)];
    let reads = (0..1_000).map(|at| {
        let (stage, users) = (Arc::clone(&caches[at % 2]), caches[at % 2].users.behind(&gate));
        tokio::spawn(async move { is_early(&stage.read(users).await) })
    });
    let reads = bounded(join_all(reads)).await;
    assert!(reads.into_iter().all(|early| early.unwrap()), "each is told that a load runs");
    bounded(gate.reached()).await;
    // Who has found the lease taken has given up by itself.
    let one_runs = async || caches.iter().map(|stage| stage.cache.gauges().tasks).sum::<usize>() == 1;
    until("one load is left", Duration::from_secs(20), one_runs).await;
    assert_eq!(stage.users.asked(), 2, "one load of both");
    gate.open();
    for stage in &caches {
        stage.idle().await;
    }
    for stage in &caches {
        let next = stage.read(stage.users.clone()).await;
        assert_eq!((next.value.as_str(), next.source), ("new", Source::Cache));
    }
    assert_eq!(stage.users.asked(), 2);
    let counted = caches.iter().map(|stage| stage.cache.stats().early_refreshes).sum::<u64>();
    assert_eq!(counted, 1, "one load was begun, and who left it to another has begun none");
}

async fn an_invalidation_beats_an_early_load(place: Place) {
    for how in ["key", "tag", "clear", "set", "elsewhere"] {
        let stage = Stage::on(&place, ManualClock::new(), EAGER).await;
        let gate = Gate::new();
        assert!(is_early(&stage.read(stage.users.behind(&gate)).await));
        bounded(gate.reached()).await;
        stage.users.put(1, "newer");
        let other = cache_on(&place, &stage.time, EAGER);
        match how {
            "key" => stage.cache.invalidate("user:1").await,
            "tag" => stage.cache.invalidate_tag("team").await,
            "clear" => stage.cache.clear().await,
            "set" => stage.cache.set("user:1", &"set".to_owned()).await,
            _ => other.invalidate("user:1").await,
        }
        .unwrap();
        gate.open();
        stage.idle().await;
        let left = stage.cache.get::<String>("user:1").await.unwrap();
        assert_eq!(left.as_deref(), (how == "set").then_some("set"), "{how}");
        if how != "set" {
            let next = stage.read(stage.users.clone()).await;
            assert_eq!((next.value.as_str(), next.source, next.stored), ("newer", Source::Load, Stored::Yes));
        }
        place.flush().await;
    }
}

#[tokio::test]
async fn whoever_comes_after_the_end_waits_for_the_load_that_began_before() {
    let stage = Arc::new(Stage::new(EAGER).await);
    let gate = Gate::new();
    stage.time.advance(TTL - COST);
    assert!(is_early(&stage.read(stage.users.behind(&gate)).await));
    gate.reached().await;
    stage.time.advance(COST);
    let late = Arc::clone(&stage);
    let late = tokio::spawn(async move { late.read(late.users.clone()).await });
    until("it waits", Duration::from_secs(20), async || stage.cache.readers_waiting() == 1).await;
    gate.open();
    let late = bounded(late).await.unwrap();
    assert_eq!((late.value.as_str(), late.source), ("new", Source::SharedLoad));
    assert_eq!(stage.users.asked(), 2);
}

#[tokio::test]
async fn an_early_load_that_fails_leaves_the_value_until_its_end() {
    let stage = Stage::new(EAGER).await;
    stage.time.advance(TTL - Duration::from_secs(10));
    for (left, step) in [(10_000, 5_000), (5_000, 4_000), (1_000, 999), (1, 1)] {
        assert!(is_early(&stage.read_failing("user:1").await.unwrap()), "{left} ms before its end");
        stage.idle().await;
        assert_eq!(stage.memory.stats().leases, 0, "the lease is given back");
        stage.time.advance(step * MILLI);
    }
    assert_eq!(stage.cache.stats().load_failures, 4);
    assert_eq!(stage.read_failing("user:1").await.unwrap_err().kind(), ErrorKind::Source, "and no longer");
}

#[tokio::test]
async fn after_an_early_load_that_failed_the_source_is_left_alone_for_a_moment() {
    let stage = Stage::new(EAGER).await;
    let patient = policy(EAGER).with_retry_after_error(2 * COST);
    let builder = Cache::builder().clock(stage.time.clock()).policy(patient);
    let stage = Stage { cache: builder.build(stage.memory.clone()).unwrap(), ..stage };
    for (wait, early) in [(0, true), (0, false), (199, false), (1, true), (199, false), (1, true)] {
        stage.time.advance(wait * MILLI);
        assert_eq!(is_early(&stage.read_failing("user:1").await.unwrap()), early, "after {wait} ms");
        stage.idle().await;
    }
    assert_eq!(stage.cache.stats().load_failures, 3);
    stage.time.advance(TTL);
    assert_eq!(stage.read(stage.users.clone()).await.value, "new", "who has nothing else asks at once");
}

#[tokio::test]
async fn an_early_load_finds_out_that_a_row_is_gone() {
    let stage = Stage::new(EAGER).await;
    let options = LoadOptions::default();
    let gone = |previous: Previous<String>| async move {
        assert_eq!(previous.value.as_deref(), Some("old"), "the loader is shown what is still good");
        Ok::<_, SourceDown>(Loaded::absent())
    };
    let outcome = stage.cache.get_or_load_entry_outcome("user:1", options, gone).await.unwrap();
    assert!(outcome.value.as_deref() == Some("old") && outcome.steps.contains(Step::RefreshingBehind));
    stage.idle().await;
    let found = stage.cache.get_outcome::<String>("user:1").await.unwrap();
    assert!(found.value.is_none() && found.steps.contains(Step::FoundAbsent), "{found:?}");
}

#[tokio::test]
async fn what_an_early_load_finds_to_be_good_lives_on() {
    let stage = Stage::new(EAGER).await;
    stage.time.advance(TTL - MILLI);
    let good = |previous: Previous<String>| async move {
        assert_eq!((previous.value.as_deref(), previous.age), (Some("old"), Some(TTL - MILLI)));
        Ok::<_, SourceDown>(Loaded::not_modified())
    };
    let read = stage.cache.get_or_load_entry_outcome("user:1", LoadOptions::default(), good).await.unwrap();
    assert!(read.is_hit() && read.steps.contains(Step::RefreshingBehind));
    stage.idle().await;
    assert_eq!((stage.cache.stats().not_modified, stage.cache.stats().stored), (1, 2));
    for (wait, left) in [(TTL - MILLI, Some("old")), (MILLI, None)] {
        stage.time.advance(wait);
        assert_eq!(stage.cache.get::<String>("user:1").await.unwrap().as_deref(), left);
    }
}

/// A table whose reads take [`COST`].
struct Slow(ManualClock, Users);

impl DataRepository<User> for Slow {
    async fn fetch_by_id(&self, id: &u64) -> Result<Option<User>> {
        self.0.advance(COST);
        self.1.find(*id).await.map_err(Error::source)
    }
}

#[tokio::test]
async fn who_loads_in_its_own_task_or_many_at_once_or_nothing_never_does_so_early() {
    let stage = Stage::new(EAGER).await;
    let (cache, owned, inline) = (&stage.cache, LoadOptions::default(), InlineOptions::default());
    let never = || async { Err::<String, _>(SourceDown(0)) };
    let never_entry = |_: Previous<String>| async { Err::<Loaded<String>, _>(SourceDown(0)) };
    let never_many = |_: Vec<String>| async { Err::<Vec<(String, String)>, _>(SourceDown(0)) };
    let before = cache.stats();
    assert!(!is_early(&cache.get_or_load_inline_outcome("user:1", inline, never).await.unwrap()));
    let entry = cache.get_or_load_entry_inline_outcome("user:1", inline, never_entry).await.unwrap();
    assert!(entry.is_hit() && !entry.steps.contains(Step::RefreshingBehind));
    let many = cache.get_many_or_load_outcomes(["user:1"], owned, never_many).await.unwrap();
    let many = many.into_iter().next().unwrap().unwrap();
    assert!(many.is_hit() && !many.steps.contains(Step::RefreshingBehind));
    let fresh = owned.with_strategy(CacheStrategy::Fresh);
    assert!(!is_early(&cache.get_or_load_outcome("user:1", fresh, never).await.unwrap()));
    assert!(cache.get::<String>("user:1").await.unwrap().is_some());
    let expander = CacheExpander::new(stage.memory.clone()).with_clock(stage.time.clock());
    let expander = expander.with_policy(policy(EAGER)).unwrap();
    let users = Users::with(&[(2, "two")]);
    let (slow, config) = (Arc::new(Slow(stage.time.clone(), users.clone())), OperationConfig::default());
    let refresh = CacheStrategy::Refresh;
    assert!(expander.get::<User, _>(&2, &*slow).await.unwrap().is_some());
    assert!(expander.get::<User, _>(&2, &*slow).await.unwrap().is_some());
    let mut feeder = GenericFeeder::<User>::new(2);
    assert!(expander.with_outcome(&mut feeder, &*slow, refresh, config).await.unwrap().is_hit());
    assert!(expander.get_many::<User, _>(&[2], &*slow).await.unwrap()[0].is_some());
    stage.idle().await;
    assert_eq!((cache.stats().since(&before).loads, users.asked()), (0, 1));
    assert_eq!((cache.stats().early_refreshes, expander.stats().early_refreshes), (0, 0));
    // And the others do.
    let behind = expander.get_owned_outcome::<User, _>(2, Arc::clone(&slow), refresh, config).await.unwrap();
    assert!(behind.is_hit() && behind.steps.contains(Step::RefreshingBehind));
    assert!(is_early(&cache.get_or_load_outcome("user:1", owned, never).await.unwrap()));
    until("both ran", Duration::from_secs(20), async || expander.gauges().tasks == 0).await;
    stage.idle().await;
    assert_eq!((cache.stats().since(&before).loads, users.asked()), (1, 2));
}

#[tokio::test]
async fn a_cache_that_is_shut_down_begins_no_early_load_and_says_so() {
    let stage = Stage::new(EAGER).await;
    stage.cache.shutdown(COST).await.unwrap();
    assert!(!is_early(&stage.read(stage.users.clone()).await), "nothing runs");
    assert_eq!((stage.users.asked(), stage.cache.stats().early_refreshes), (1, 0));
}

#[test]
fn without_a_runtime_a_value_is_served_to_its_end() {
    let stage = Stage::new(EAGER).now_or_never().unwrap();
    stage.time.advance(TTL - MILLI);
    assert!(!is_early(&stage.read_failing("user:1").now_or_never().unwrap().unwrap()));
    stage.time.advance(MILLI);
    assert_eq!(stage.cache.stats().loads, 1);
    assert!(stage.read_failing("user:1").now_or_never().unwrap().is_err());
}

/// A thousand reads a second of one key, for 30 lives of ten seconds each, and loads that take 80 ms. That none of the reads
/// before the last 80 ms of a life begins a load has a chance of `exp(-80 / e)`, less than 10^-12.
#[tokio::test]
async fn a_hot_key_is_loaded_about_once_in_a_life_and_nobody_waits_for_it() {
    const LIVES: u64 = 30;
    const LIFE: u64 = 10_000;
    const TOOK: u64 = 80;
    let time = ManualClock::new();
    let memory = InMemoryBackend::builder().clock(time.clock()).build().unwrap();
    for beta in [1.0, 0.0] {
        let hot = policy(beta).with_ttl(Duration::from_millis(LIFE));
        let cache = Cache::builder().clock(time.clock()).policy(hot).build(memory.clone()).unwrap();
        cache.clear().await.unwrap();
        // When the load that runs has begun, by the number of the read.
        let (began, loads) = (Arc::new(AtomicU64::new(u64::MAX)), Arc::new(AtomicU64::new(0)));
        let gate = Gate::new();
        let (mut misses, mut waiting) = (0, Vec::new());
        for now in 0..LIVES * LIFE {
            let (begins, counts, waits) = (Arc::clone(&began), Arc::clone(&loads), gate.clone());
            let load = move || async move {
                begins.store(now, Ordering::SeqCst);
                counts.fetch_add(1, Ordering::SeqCst);
                waits.pass().await;
                Ok::<_, SourceDown>(now)
            };
            let reader = cache.clone();
            let mut read = Box::pin(async move { reader.get_or_load("hot", load).await.unwrap() });
            if (&mut read).now_or_never().is_none() {
                misses += 1;
                waiting.push(tokio::spawn(read));
            }
            time.advance(MILLI);
            // Both are `u64::MAX` apart while none runs.
            let is_due = now.checked_sub(began.load(Ordering::SeqCst)).is_some_and(|ran| ran + 1 >= TOOK);
            if is_due {
                began.store(u64::MAX, Ordering::SeqCst);
                gate.let_one_pass();
            }
            if is_due || cache.gauges().tasks > 0 {
                common::settle().await;
            }
        }
        for read in waiting {
            read.abort();
        }
        let loads = loads.load(Ordering::SeqCst);
        let per_life = loads as f64 / LIVES as f64;
        println!("beta {beta}: {loads} loads in {LIVES} lives, {per_life:.3} each; {misses} reads waited");
        if beta == 1.0 {
            assert!((1.0..1.1).contains(&per_life), "{per_life} loads in each life");
            assert_eq!(misses, TOOK, "only those of the first load");
        } else {
            assert!(misses >= LIVES * (TOOK - 1), "who waits at the end of each life: {misses}");
        }
    }
}
