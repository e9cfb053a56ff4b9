//! A read tells in words what it did, and as steps that can be asked for.

mod common;

use std::time::Duration;

use cache_kit::backend::InMemoryBackend;
use cache_kit::testing::{FaultyBackend, Gate, Operation};
use cache_kit::{
    Cache, CacheStrategy, InlineOptions, LoadOptions, ManualClock, Outcome, Policy, Step, Steps,
};
use common::{SourceDown, Users, bounded, settle};

const TTL: Duration = Duration::from_secs(10);
const SECOND: Duration = Duration::from_secs(1);

fn memory(time: &ManualClock) -> InMemoryBackend {
    InMemoryBackend::builder().clock(time.clock()).build().expect("a clock alone is no contradiction")
}

fn cache(time: &ManualClock, backend: impl cache_kit::backend::CacheBackend, policy: Policy) -> Cache {
    // Lives are exact here.
    let builder = Cache::builder().clock(time.clock()).ttl(TTL).policy(policy.with_ttl_jitter(0.0));
    builder.build(backend).expect("the policy contradicts nothing")
}

fn words<T>(outcome: &Outcome<T>) -> String {
    outcome.explain().to_string()
}

fn took(steps: Steps) -> Vec<Step> {
    steps.iter().collect()
}

async fn one() -> Result<u32, SourceDown> {
    Ok(1)
}

async fn down() -> Result<u32, SourceDown> {
    Err(SourceDown(7))
}

#[tokio::test]
async fn a_load_and_a_hit() {
    let time = ManualClock::new();
    let cache = cache(&time, memory(&time), Policy::default());
    for inline in [false, true] {
        let key = format!("key:{inline}");
        let read = async || match inline {
            true => cache.get_or_load_inline_outcome(&key, InlineOptions::default(), one).await.unwrap(),
            false => cache.get_or_load_outcome(&key, LoadOptions::default(), one).await.unwrap(),
        };
        let loaded = read().await;
        assert_eq!(words(&loaded), "load: found nothing, took the lease, asked the source, stored it");
        assert_eq!(took(loaded.steps), [Step::FoundNothing, Step::Leased, Step::Loaded]);
        time.advance(7 * SECOND);
        let hit = read().await;
        assert_eq!(words(&hit), "cache: found a fresh value, 7 s old");
        assert_eq!(took(hit.steps), [Step::FoundFresh]);
    }
    let absent = cache.get_outcome::<u32>("absent").await.unwrap();
    assert_eq!(words(&absent), "nowhere: found nothing");
}

#[tokio::test]
async fn a_stale_value_while_a_load_runs_behind() {
    let time = ManualClock::new();
    let policy = Policy::default().with_stale_while_revalidate(60 * SECOND);
    let cache = cache(&time, memory(&time), policy);
    cache.set("key", &1_u32).await.unwrap();
    time.advance(TTL + Duration::from_millis(250));
    let outcome = cache.get_or_load_outcome("key", LoadOptions::default(), one).await.unwrap();
    assert_eq!(
        words(&outcome),
        "cache: found a stale value, left a load running behind, answered with the stale value, 10 s old, stale \
         for 250 ms"
    );
    assert_eq!(took(outcome.steps), [Step::FoundStale, Step::RefreshingBehind, Step::ServedStale]);
}

#[tokio::test]
async fn a_stale_value_instead_of_an_error_and_then_instead_of_asking_again() {
    let time = ManualClock::new();
    let cache = cache(&time, memory(&time), Policy::default().with_stale_if_error(60 * SECOND));
    cache.set("key", &1_u32).await.unwrap();
    time.advance(TTL + 5 * SECOND);
    let outcome = cache.get_or_load_outcome("key", LoadOptions::default(), down).await.unwrap();
    assert_eq!(
        words(&outcome),
        "cache: found a stale value, got an error from the source, answered with the stale value, 15 s old, stale \
         for 5 s; the source failed"
    );
    assert_eq!(took(outcome.steps), [Step::FoundStale, Step::LoadFailed, Step::ServedStale]);
    let throttled = cache.get_or_load_outcome("key", LoadOptions::default(), down).await.unwrap();
    assert_eq!(
        words(&throttled),
        "cache: found a stale value, left the source alone, which had just failed, answered with the stale value, \
         15 s old, stale for 5 s"
    );
    assert_eq!(took(throttled.steps), [Step::FoundStale, Step::Throttled, Step::ServedStale]);
}

#[tokio::test]
async fn the_load_of_another_reader_joined_and_taken_over() {
    let time = ManualClock::new();
    let cache = cache(&time, memory(&time), Policy::default());
    let (users, gate) = (Users::with(&[(1, "one")]), Gate::new());
    let read = |users: Users| {
        let cache = cache.clone();
        tokio::spawn(async move {
            let options = InlineOptions::default();
            cache.get_or_load_inline_outcome("key", options, || users.name(1)).await.unwrap()
        })
    };
    let leader = read(users.behind(&gate));
    gate.reached().await;
    let follower = read(users.clone());
    settle().await;
    gate.open();
    bounded(leader).await.unwrap();
    let joined = bounded(follower).await.unwrap();
    assert_eq!(
        words(&joined),
        "shared load: found nothing, joined the load of another reader, took the lease, asked the source, stored it"
    );
    assert_eq!(took(joined.steps), [Step::FoundNothing, Step::Joined, Step::Leased, Step::Loaded]);

    cache.invalidate("key").await.unwrap();
    let gate = Gate::new();
    let leader = read(users.behind(&gate));
    gate.reached().await;
    let follower = read(users.clone());
    settle().await;
    leader.abort();
    let took_over = bounded(follower).await.unwrap();
    assert_eq!(
        words(&took_over),
        "load: found nothing, joined the load of another reader, took over from a reader that went away, took the \
         lease, asked the source, stored it"
    );
}

#[tokio::test]
async fn a_lease_that_somebody_else_has() {
    let time = ManualClock::new();
    let memory = memory(&time);
    let (here, there) =
        (cache(&time, memory.clone(), Policy::default()), cache(&time, memory, Policy::default()));
    let (users, gate) = (Users::with(&[(1, "one")]), Gate::new());
    let read = |cache: &Cache, key: &'static str, users: Users| {
        let cache = cache.clone();
        tokio::spawn(async move {
            cache.get_or_load_outcome(key, LoadOptions::default(), || users.name(1)).await.unwrap()
        })
    };
    let slow = read(&there, "key", users.behind(&gate));
    gate.reached().await;
    let impatient = read(&here, "key", users.clone());
    for _ in 0..60 {
        settle().await;
        time.advance(Duration::from_millis(20));
    }
    let impatient = bounded(impatient).await.unwrap();
    assert_eq!(
        words(&impatient),
        "load: found nothing, found the lease with somebody else, asked the source, left storing it to whoever has \
         the lease"
    );
    assert_eq!(took(impatient.steps), [Step::FoundNothing, Step::LeasedElsewhere, Step::Loaded]);
    gate.open();
    bounded(slow).await.unwrap();

    let gate = Gate::new();
    let slow = read(&there, "other", users.behind(&gate));
    gate.reached().await;
    let patient = read(&here, "other", users.clone());
    settle().await;
    gate.open();
    bounded(slow).await.unwrap();
    time.advance(Duration::from_millis(50));
    let patient = bounded(patient).await.unwrap();
    assert_eq!(
        words(&patient),
        "cache: found nothing, found the lease with somebody else, got what somebody else stored, 50 ms old"
    );
    assert_eq!(took(patient.steps), [Step::FoundNothing, Step::LeasedElsewhere, Step::FilledElsewhere]);
    assert_eq!((here.stats().leased_elsewhere, here.stats().filled_elsewhere), (2, 1));
}

#[tokio::test]
async fn a_key_that_is_not_believed_and_an_invalidation_that_is_asked_for() {
    let time = ManualClock::new();
    let (backend, faults) = FaultyBackend::new(memory(&time));
    let cache = cache(&time, backend, Policy::default());
    let invalidate = LoadOptions::default().with_strategy(CacheStrategy::Invalidate);
    let confirmed = cache.get_or_load_outcome("key", invalidate, one).await.unwrap();
    assert_eq!(words(&confirmed), "load: invalidated the entry, took the lease, asked the source, stored it");
    assert_eq!(took(confirmed.steps), [Step::InvalidationConfirmed, Step::Leased, Step::Loaded]);

    faults.fail([Operation::Delete]);
    let queued = cache.get_or_load_outcome("key", invalidate, one).await.unwrap();
    let expected = "load: invalidated the entry, which the backend has not confirmed, asked the source, did not \
                    store it, since it is not known what is there; invalidation not confirmed";
    assert!(words(&queued).starts_with(expected), "{}", words(&queued));
    assert_eq!(took(queued.steps), [Step::InvalidationQueued, Step::Loaded]);

    let quarantined = cache.get_or_load_outcome("key", LoadOptions::default(), one).await.unwrap();
    let expected = "load: did not believe the backend, which has not confirmed an invalidation, asked the source, \
                    did not store it, since it is not known what is there; invalidation not confirmed";
    assert!(words(&quarantined).starts_with(expected), "{}", words(&quarantined));
    assert_eq!(took(quarantined.steps), [Step::Quarantined, Step::Loaded]);
}

#[tokio::test]
async fn a_backend_without_an_answer_and_one_that_is_not_asked() {
    let time = ManualClock::new();
    let (backend, faults) = FaultyBackend::new(memory(&time));
    let cache = cache(&time, backend, Policy::default());
    faults.fail_all();
    let unknown = cache.get_or_load_outcome("key", LoadOptions::default(), one).await.unwrap();
    assert_eq!(
        words(&unknown),
        "load: got no answer from the backend, asked the source, did not store it, since it is not known what is \
         there; backend unavailable: made to fail (on faulty)"
    );
    assert_eq!(took(unknown.steps), [Step::BackendFailed, Step::Loaded]);
    let bypass = LoadOptions::default().with_strategy(CacheStrategy::Bypass);
    let bypassed = cache.get_or_load_outcome("key", bypass, one).await.unwrap();
    assert_eq!(words(&bypassed), "load: did not ask the cache, asked the source");
    assert_eq!(took(bypassed.steps), [Step::Bypassed, Step::Loaded]);
}

#[tokio::test]
async fn the_steps_of_a_hit_are_a_number_that_is_copied() {
    // What is only a number has nothing to allocate.
    const fn is_copied<T: Copy>() {}
    is_copied::<Steps>();
    assert_eq!(size_of::<Steps>(), size_of::<u32>());
    assert!(!std::mem::needs_drop::<Steps>());
}
