//! Values past their fresh life: served where the policy says so, for as long as it says, and never after the source or an
//! invalidation has said otherwise.

// long: each stale window is shown on one stage.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cache_kit::backend::{CacheBackend, InMemoryBackend};
use cache_kit::testing::Gate;
use cache_kit::{
    Cache, CacheEntity, CacheExpander, CacheStrategy, Error, ErrorKind, GenericFeeder, InlineOptions,
    LoadOptions, ManualClock, OperationConfig, Outcome, Policy, Result, Source, SourceFailure, Step, Stored,
    TtlPolicy,
};
use common::{SourceDown, User, Users, bounded, settle};
use futures_util::future::join_all;
use serde::{Deserialize, Serialize};

const TTL: Duration = Duration::from_secs(10);
const SECOND: Duration = Duration::from_secs(1);
const MINUTE: Duration = Duration::from_secs(60);

struct Stage {
    time: ManualClock,
    memory: InMemoryBackend,
    cache: Cache,
    users: Users,
}

fn memory() -> (ManualClock, InMemoryBackend) {
    let time = ManualClock::new();
    let memory = InMemoryBackend::builder().clock(time.clock()).build().unwrap();
    (time, memory)
}

/// A cache with this policy that holds the name "old", which the source has changed to "new" since.
async fn stage(policy: Policy) -> Stage {
    // Lives are exact here.
    let policy = policy.with_ttl_jitter(0.0);
    let (time, memory) = memory();
    let cache = Cache::builder().clock(time.clock()).ttl(TTL).policy(policy).build(memory.clone()).unwrap();
    let stage = Stage { time, memory, cache, users: Users::with(&[(1, "old")]) };
    assert_eq!(stage.read(false).await.unwrap().value, "old");
    stage.users.put(1, "new");
    stage
}

impl Stage {
    async fn read(&self, inline: bool) -> Result<Outcome<String>> {
        self.read_from(self.users.clone(), inline).await
    }

    async fn read_from(&self, users: Users, inline: bool) -> Result<Outcome<String>> {
        self.load(move || users.name(1), inline).await
    }

    /// Reads with a loader that fails in the way that this number stands for.
    async fn read_failing(&self, code: u64, inline: bool) -> Result<Outcome<String>> {
        self.load(move || async move { Err(SourceDown(code)) }, inline).await
    }

    async fn load<F, Fut>(&self, loader: F, inline: bool) -> Result<Outcome<String>>
    where
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<String, SourceDown>> + Send + 'static,
    {
        match inline {
            true => self.cache.get_or_load_inline_outcome("user:1", InlineOptions::default(), loader).await,
            false => self.cache.get_or_load_outcome("user:1", LoadOptions::default(), loader).await,
        }
    }

    /// To this long after the fresh life of what was stored at the beginning.
    fn past_fresh(&self, by: Duration) {
        self.time.advance(TTL + by);
    }
}

fn while_revalidate(window: Duration) -> Policy {
    Policy::default().with_stale_while_revalidate(window)
}

fn if_error(window: Duration) -> Policy {
    Policy::default().with_stale_if_error(window)
}

#[tokio::test]
async fn a_crowd_is_served_the_stale_value_at_once_and_one_load_runs_behind() {
    let stage = Arc::new(stage(while_revalidate(MINUTE)).await);
    stage.past_fresh(3 * SECOND);
    let gate = Gate::new();
    let reads = (0..1_000).map(|_| {
        let (stage, users) = (Arc::clone(&stage), stage.users.behind(&gate));
        tokio::spawn(async move { stage.read_from(users, false).await.unwrap() })
    });
    // The gate stays closed: nobody waits for the load.
    for outcome in bounded(join_all(reads)).await {
        let outcome = outcome.unwrap();
        assert_eq!((outcome.value.as_str(), outcome.source), ("old", Source::Cache));
        assert!(outcome.is_stale() && outcome.is_hit() && !outcome.is_degraded());
        assert_eq!((outcome.stale_for, outcome.age), (Some(3 * SECOND), Some(TTL + 3 * SECOND)));
        assert!(outcome.steps.contains(Step::RefreshingBehind) && outcome.steps.contains(Step::ServedStale));
    }
    gate.reached().await;
    assert_eq!((stage.users.asked(), stage.cache.stats().stale_served), (2, 1_000), "one behind");
    gate.open();
    settle().await;
    let next = stage.read(false).await.unwrap();
    assert_eq!((next.value.as_str(), next.source, next.is_stale()), ("new", Source::Cache, false));
    assert_eq!(stage.users.asked(), 2);
    assert_eq!((stage.cache.gauges().tasks, stage.memory.stats().leases), (0, 0));
}

#[tokio::test]
async fn past_the_window_a_value_is_loaded_before_it_is_answered() {
    for (policy, window) in [
        (while_revalidate(5 * SECOND), 5 * SECOND),
        // Kept longer, for the sake of errors; that widens nothing.
        (while_revalidate(5 * SECOND).with_stale_if_error(MINUTE), 5 * SECOND),
        (Policy::default(), Duration::ZERO),
    ] {
        let before = stage(policy).await;
        before.past_fresh(window.saturating_sub(Duration::from_millis(1)));
        assert_eq!(before.read(false).await.unwrap().is_stale(), !window.is_zero());
        let after = stage(policy).await;
        after.past_fresh(window);
        let outcome = after.read(false).await.unwrap();
        assert_eq!((outcome.value.as_str(), outcome.source), ("new", Source::Load));
        assert_eq!((outcome.stale_for, outcome.stored), (None, Stored::Yes));
    }
}

#[tokio::test]
async fn an_inline_reader_loads_and_the_others_are_served_stale_only_meanwhile() {
    let stage = Arc::new(stage(while_revalidate(MINUTE)).await);
    stage.past_fresh(SECOND);
    let gate = Gate::new();
    let (leading, slow) = (Arc::clone(&stage), stage.users.behind(&gate));
    let leader = tokio::spawn(async move { leading.read_from(slow, true).await.unwrap() });
    gate.reached().await;
    for _ in 0..100 {
        let outcome = bounded(stage.read(true)).await.unwrap();
        assert_eq!((outcome.value.as_str(), outcome.is_stale()), ("old", true));
        assert!(outcome.steps.contains(Step::Joined));
    }
    assert_eq!((stage.users.asked(), stage.cache.gauges().waiting), (2, 0));
    gate.open();
    let led = bounded(leader).await.unwrap();
    assert_eq!((led.value.as_str(), led.source, led.is_stale()), ("new", Source::Load, false));
    assert_eq!(stage.read(true).await.unwrap().value, "new");
}

#[tokio::test]
async fn a_failing_source_is_survived_and_left_alone_for_a_moment_and_then_asked_again() {
    for inline in [false, true] {
        let stage = stage(if_error(MINUTE).with_retry_after_error(2 * SECOND)).await;
        stage.past_fresh(SECOND);
        stage.users.fail(u64::MAX);
        let outcome = stage.read(inline).await.unwrap();
        assert_eq!((outcome.value.as_str(), outcome.stale_for), ("old", Some(SECOND)), "inline: {inline}");
        assert!(outcome.steps.contains(Step::LoadFailed) && outcome.steps.contains(Step::ServedStale));
        assert_eq!(outcome.degraded.unwrap().find_source::<SourceDown>(), Some(&SourceDown(2)));
        assert_eq!(stage.memory.stats().leases, 0, "the lease of the failed load is given back");
        for wait in [Duration::ZERO, SECOND, Duration::from_millis(999)] {
            stage.time.advance(wait);
            let outcome = stage.read(inline).await.unwrap();
            assert!(outcome.is_stale() && outcome.steps.contains(Step::Throttled), "{:?}", outcome.steps);
        }
        assert_eq!(stage.users.asked(), 2, "left alone");
        stage.time.advance(Duration::from_millis(1));
        assert!(stage.read(inline).await.unwrap().steps.contains(Step::LoadFailed));
        assert_eq!(stage.users.asked(), 3, "and asked again");
        let stats = stage.cache.stats();
        assert_eq!((stats.stale_served, stats.stale_on_error, stats.throttled), (5, 2, 3));
        stage.users.fail(0);
        stage.time.advance(2 * SECOND);
        let outcome = stage.read(inline).await.unwrap();
        assert_eq!((outcome.value.as_str(), outcome.is_stale()), ("new", false));
    }
}

#[tokio::test]
async fn without_a_stale_value_a_failing_source_is_asked_each_time() {
    let stage = stage(if_error(MINUTE)).await;
    stage.cache.invalidate("user:1").await.unwrap();
    stage.users.fail(3);
    for _ in 0..3 {
        assert_eq!(stage.read(false).await.unwrap_err().kind(), ErrorKind::Source);
    }
    assert_eq!(stage.users.asked(), 4);
}

#[tokio::test]
async fn no_value_is_served_past_its_window_whatever_the_source_says() {
    for inline in [false, true] {
        let within = stage(if_error(5 * SECOND)).await;
        within.users.fail(u64::MAX);
        within.past_fresh(5 * SECOND - Duration::from_millis(1));
        assert!(within.read(inline).await.unwrap().is_stale());
        let past = stage(if_error(5 * SECOND)).await;
        past.users.fail(u64::MAX);
        past.past_fresh(5 * SECOND);
        assert_eq!(past.read(inline).await.unwrap_err().kind(), ErrorKind::Source, "inline: {inline}");
    }
}

/// 404 is an answer, 403 a refusal, 500 out of order; all else may pass.
fn by_number(error: &Error) -> SourceFailure {
    match error.find_source::<SourceDown>() {
        Some(SourceDown(404)) => SourceFailure::NotFound,
        Some(SourceDown(403)) => SourceFailure::Fatal,
        Some(SourceDown(500)) => panic!("classifier out of order"),
        _ => SourceFailure::Transient,
    }
}

#[tokio::test]
async fn what_an_error_says_decides_whether_a_stale_value_is_the_answer() {
    for inline in [false, true] {
        let (time, memory) = memory();
        let builder = Cache::builder().clock(time.clock()).ttl(TTL).policy(if_error(MINUTE));
        let cache = builder.classify_errors(by_number).build(memory.clone()).unwrap();
        let stage = Stage { time, memory, cache, users: Users::with(&[(1, "old")]) };
        stage.read(inline).await.unwrap();
        stage.past_fresh(SECOND);
        // Not rights: the error is the answer. A classifier that is out of order decides nothing.
        for code in [403, 500] {
            let error = stage.read_failing(code, inline).await.unwrap_err();
            assert_eq!(error.find_source::<SourceDown>(), Some(&SourceDown(code)), "inline: {inline}");
        }
        let outcome = stage.read_failing(1, inline).await.unwrap();
        assert_eq!((outcome.value.as_str(), outcome.is_stale()), ("old", true));
        stage.time.advance(SECOND);
        let error = stage.read_failing(404, inline).await.unwrap_err();
        assert_eq!(error.find_source::<SourceDown>(), Some(&SourceDown(404)));
        assert_eq!((common::values_in(&stage.memory), stage.memory.stats().leases), (0, 0), "it is gone");
        assert!(stage.read_failing(1, inline).await.is_err(), "and does not come back");
        assert_eq!(stage.cache.gauges().loads, 0);
    }
}

#[tokio::test]
async fn an_error_that_says_it_will_not_pass_is_the_answer_by_default() {
    let stage = stage(if_error(MINUTE)).await;
    stage.past_fresh(SECOND);
    let read = async |error: Error| {
        let loader = move || async move { Err::<String, _>(error) };
        stage.cache.get_or_load_outcome("user:1", LoadOptions::default(), loader).await
    };
    let error = read(Error::source(SourceDown(1)).with_transient(false)).await.unwrap_err();
    assert_eq!(error.find_source::<SourceDown>(), Some(&SourceDown(1)));
    assert!(read(Error::source(SourceDown(2))).await.unwrap().is_stale());
}

/// A store that keeps no leases.
struct Unfenced(InMemoryBackend);

#[async_trait]
impl CacheBackend for Unfenced {
    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        self.0.get(key).await
    }

    async fn set(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<()> {
        self.0.set(key, value, ttl).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.0.delete(key).await
    }
}

/// What is gone at the source is not served when the source fails later.
async fn gone_is_gone(backend: impl CacheBackend, memory: &InMemoryBackend, time: &ManualClock, door: &str) {
    let expander = CacheExpander::new(backend).with_clock(time.clock());
    // That there is nothing is not remembered, so that the source is asked again.
    let policy = if_error(MINUTE).with_ttl_jitter(0.0).with_absent_ttl(Duration::ZERO);
    let expander = expander.with_ttl_policy(TtlPolicy::Fixed(TTL)).with_policy(policy).unwrap();
    let (users, nobody) = (Users::with(&[(1, "old")]), Users::default());
    assert!(expander.get::<User, _>(&1, &users).await.unwrap().is_some());
    time.advance(TTL + SECOND);
    let found = match door {
        "inline" => expander.get::<User, _>(&1, &nobody).await.unwrap(),
        "owned" => expander.get_owned::<User, _>(1, Arc::new(nobody)).await.unwrap(),
        _ => expander.get_many::<User, _>(&[1], &nobody).await.unwrap().remove(0),
    };
    assert_eq!(found, None, "{door}");
    users.fail(1);
    let later = expander.get::<User, _>(&1, &users).await;
    assert_eq!(later.unwrap_err().kind(), ErrorKind::Source, "{door}: what is gone is not served");
    assert_eq!((common::values_in(memory), memory.stats().leases), (0, 0), "{door}");
}

#[tokio::test]
async fn what_the_repository_does_not_have_any_more_is_not_served_when_it_fails_later() {
    for door in ["inline", "owned"] {
        let (time, memory) = memory();
        gone_is_gone(memory.clone(), &memory, &time, door).await;
    }
}

#[tokio::test]
async fn what_a_batch_does_not_find_any_more_is_not_served_later() {
    let (time, memory) = memory();
    gone_is_gone(memory.clone(), &memory, &time, "batch").await;
}

#[tokio::test]
async fn what_is_gone_at_the_source_is_gone_from_a_store_without_leases_too() {
    for door in ["inline", "owned", "batch"] {
        let (time, memory) = memory();
        gone_is_gone(Unfenced(memory.clone()), &memory, &time, door).await;
    }
}

/// What must never be out of date.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Grant(u64);

impl CacheEntity for Grant {
    type Key = u64;

    fn cache_key(&self) -> u64 {
        self.0
    }

    fn cache_prefix() -> &'static str {
        "grant"
    }

    fn may_be_stale() -> bool {
        false
    }
}

struct Grants(bool);

impl cache_kit::DataRepository<Grant> for Grants {
    async fn fetch_by_id(&self, id: &u64) -> Result<Option<Grant>> {
        if self.0 { Ok(Some(Grant(*id))) } else { Err(Error::source(SourceDown(*id))) }
    }
}

fn entities(policy: Policy) -> (CacheExpander<InMemoryBackend>, ManualClock) {
    let (time, memory) = memory();
    let expander = CacheExpander::new(memory).with_clock(time.clock());
    let policy = policy.with_ttl_jitter(0.0);
    let expander = expander.with_ttl_policy(TtlPolicy::Fixed(TTL)).with_policy(policy).unwrap();
    (expander, time)
}

#[tokio::test]
async fn an_entity_that_may_not_be_stale_never_is() {
    let (expander, time) = entities(if_error(MINUTE).with_stale_while_revalidate(MINUTE));
    let (refresh, config) = (CacheStrategy::Refresh, OperationConfig::default().with_stale_if_error(MINUTE));
    expander.get::<Grant, _>(&1, &Grants(true)).await.unwrap();
    time.advance(TTL + SECOND);
    for config in [OperationConfig::default(), config] {
        let down = Grants(false);
        assert!(expander.get_outcome::<Grant, _>(&1, &down, refresh, config).await.is_err());
        assert!(expander.get_owned_outcome::<Grant, _>(1, Arc::new(down), refresh, config).await.is_err());
        let many = expander.get_many_outcomes::<Grant, _>(&[1], &Grants(false), config).await.unwrap();
        assert!(many[0].is_err());
    }
    assert_eq!(expander.stats().stale_served, 0);
}

#[tokio::test]
async fn entities_are_served_stale_as_the_policy_of_their_expander_says() {
    let (expander, time) = entities(if_error(MINUTE).with_stale_while_revalidate(5 * SECOND));
    let (users, gate) = (Users::with(&[(1, "old")]), Gate::new());
    let (refresh, config) = (CacheStrategy::Refresh, OperationConfig::default());
    expander.get::<User, _>(&1, &users).await.unwrap();
    users.put(1, "new");
    time.advance(TTL + SECOND);
    let slow = Arc::new(users.behind(&gate));
    let behind = expander.get_owned_outcome::<User, _>(1, slow, refresh, config).await.unwrap();
    assert_eq!((behind.value.as_ref().unwrap().name.as_str(), behind.stale_for), ("old", Some(SECOND)));
    gate.open();
    settle().await;
    assert_eq!(expander.get::<User, _>(&1, &users).await.unwrap().unwrap().name, "new");
    // Past what may be served at once, and within what may be served on errors.
    time.advance(TTL + 6 * SECOND);
    users.fail(u64::MAX);
    let mut feeder = GenericFeeder::<User>::new(1);
    let outcome = expander.with_outcome(&mut feeder, &users, refresh, config).await.unwrap();
    assert_eq!((feeder.data.unwrap().name.as_str(), outcome.stale_for), ("new", Some(6 * SECOND)));
    assert!(outcome.is_hit() && outcome.is_degraded());
}

#[tokio::test]
async fn after_an_invalidation_nothing_stale_is_served() {
    let stage = stage(if_error(MINUTE).with_stale_while_revalidate(MINUTE)).await;
    stage.past_fresh(SECOND);
    let gate = Gate::new();
    assert!(stage.read_from(stage.users.behind(&gate), false).await.unwrap().is_stale());
    gate.reached().await;
    stage.cache.invalidate("user:1").await.unwrap();
    assert!(stage.read_failing(1, false).await.is_err(), "the stale value is gone");
    gate.open();
    settle().await;
    assert_eq!(stage.cache.get::<String>("user:1").await.unwrap(), None, "the load behind stored nothing");
    assert_eq!(stage.read(true).await.unwrap().source, Source::Load);
}

#[tokio::test]
async fn an_expired_entry_is_loaded_anew_and_stays_as_a_fallback() {
    let stage = stage(if_error(MINUTE)).await;
    stage.time.advance(SECOND);
    stage.cache.expire("user:1").await.unwrap();
    assert_eq!(stage.cache.get::<String>("user:1").await.unwrap(), None, "it is fresh no more");
    stage.time.advance(2 * SECOND);
    let outcome = stage.read_failing(1, false).await.unwrap();
    assert_eq!((outcome.value.as_str(), outcome.stale_for), ("old", Some(2 * SECOND)));
    stage.time.advance(SECOND);
    assert_eq!(stage.read(false).await.unwrap().value, "new");
    assert_eq!(stage.cache.get::<String>("user:1").await.unwrap().as_deref(), Some("new"));
    stage.cache.invalidate("user:1").await.unwrap();
    let gate = Gate::new();
    let (cache, slow) = (stage.cache.clone(), stage.users.behind(&gate));
    let loading = tokio::spawn(async move { cache.get_or_load("user:1", || slow.name(1)).await });
    gate.reached().await;
    stage.cache.expire("user:1").await.unwrap();
    gate.open();
    bounded(loading).await.unwrap().unwrap();
    assert_eq!(stage.cache.get::<String>("user:1").await.unwrap(), None, "loaded from before");
}

#[tokio::test]
async fn one_call_may_take_what_the_policy_of_the_cache_does_not() {
    let stage = stage(Policy::default()).await;
    let down = || async { Err::<String, _>(SourceDown(1)) };
    let up = || async { Ok::<_, SourceDown>("old".to_owned()) };
    let owned = LoadOptions::default();
    // An entry is kept for as long as the call that stored it said.
    let (on_error, behind) = (owned.with_stale_if_error(MINUTE), owned.with_stale_while_revalidate(MINUTE));
    stage.cache.get_or_load_with("kept", on_error, up).await.unwrap();
    stage.past_fresh(5 * SECOND);
    assert!(stage.cache.get_or_load_outcome("user:1", on_error, down).await.is_err(), "not kept");
    assert!(stage.cache.get_or_load_outcome("kept", owned, down).await.is_err(), "not asked for");
    let narrow = owned.with_stale_if_error(5 * SECOND);
    assert!(stage.cache.get_or_load_outcome("kept", narrow, down).await.is_err(), "too old for this call");
    let outcome = stage.cache.get_or_load_outcome("kept", on_error, down).await.unwrap();
    assert_eq!((outcome.value.as_str(), outcome.stale_for), ("old", Some(5 * SECOND)));
    stage.time.advance(SECOND);
    let inline = InlineOptions::default().with_stale_if_error(MINUTE);
    assert!(stage.cache.get_or_load_inline_outcome("kept", inline, down).await.unwrap().is_stale());
    stage.time.advance(SECOND);
    assert!(stage.cache.get_or_load_outcome("kept", behind, up).await.unwrap().is_stale());
    settle().await;
    assert!(stage.cache.get::<String>("kept").await.unwrap().is_some(), "loaded behind");
}

#[tokio::test]
async fn a_batch_whose_load_fails_is_served_what_is_stale_and_told_what_has_nothing() {
    let stage = stage(if_error(MINUTE)).await;
    let down = |_: Vec<String>| async { Err::<Vec<(String, String)>, _>(SourceDown(1)) };
    let options = LoadOptions::default();
    stage.cache.set("user:2", &"two".to_owned()).await.unwrap();
    stage.past_fresh(SECOND);
    stage.cache.set("user:3", &"three".to_owned()).await.unwrap();
    let keys = ["user:1", "user:2", "user:3"];
    let outcomes = stage.cache.get_many_or_load_outcomes(keys, options, down).await.unwrap();
    let outcomes: Vec<_> = outcomes.into_iter().map(Result::unwrap).collect();
    assert_eq!([0, 1, 2].map(|at| outcomes[at].value.as_deref().unwrap()), ["old", "two", "three"]);
    assert_eq!(
        [true, true, false],
        [0, 1, 2].map(|at| outcomes[at].is_stale() && outcomes[at].is_degraded())
    );
    let keys = ["user:1", "user:2", "user:4"];
    let outcomes = stage.cache.get_many_or_load_outcomes(keys, options, down).await.unwrap();
    assert!(outcomes[..2].iter().all(|outcome| outcome.as_ref().unwrap().is_stale()));
    assert_eq!(outcomes[2].as_ref().unwrap_err().kind(), ErrorKind::Source, "one of them has nothing");
    let error = stage.cache.get_many_or_load(keys, down).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Source, "all or nothing, for who asks for values");
    assert_eq!(stage.memory.stats().leases, 0);
}

#[tokio::test]
async fn batches_leave_a_failing_source_alone_too() {
    let stage = stage(if_error(MINUTE).with_retry_after_error(2 * SECOND)).await;
    stage.past_fresh(SECOND);
    for (wait, asked) in [(0, 1), (1, 0), (1, 1)] {
        stage.time.advance(wait * SECOND);
        let (users, before) = (stage.users.clone(), stage.users.asked());
        users.fail(1);
        let load = move |_| {
            let users = users.clone();
            async move { users.name(1).await.map(|name| vec![("user:1".to_owned(), name)]) }
        };
        let found = stage.cache.get_many_or_load(["user:1"], load).await.unwrap();
        assert_eq!((found[0].as_deref(), stage.users.asked() - before), (Some("old"), asked));
    }
}

#[tokio::test]
async fn who_reads_only_the_cache_is_told_nothing_stale() {
    let stage = stage(if_error(MINUTE).with_stale_while_revalidate(MINUTE)).await;
    stage.past_fresh(SECOND);
    assert_eq!(stage.cache.get::<String>("user:1").await.unwrap(), None);
    assert!(!stage.cache.get_outcome::<String>("user:1").await.unwrap().is_stale());
    let fresh = LoadOptions::default().with_strategy(CacheStrategy::Fresh);
    let users = stage.users.clone();
    let error = stage.cache.get_or_load_with("user:1", fresh, || users.name(1)).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert_eq!(stage.users.asked(), 1);
}
