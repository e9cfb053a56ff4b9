//! How long entries live, as the cache, the entity and the call say it: the nearest has the last word, and the order in
//! which a cache is told does not matter.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::time::Duration;

use cache_kit::backend::InMemoryBackend;
use cache_kit::{
    Cache, CacheBuilder, CacheEntity, CacheExpander, CacheStrategy, ErrorKind, InMemoryRepository,
    InlineOptions, LoadOptions, ManualClock, OperationConfig, Policy, PolicyOverrides, TtlPolicy,
};
use common::SourceDown;
use serde::{Deserialize, Serialize};

const SECOND: Duration = Duration::from_secs(1);
const FOREVER: Duration = Duration::from_secs(1 << 30);

fn memory() -> (ManualClock, InMemoryBackend) {
    let time = ManualClock::new();
    let memory = InMemoryBackend::builder().clock(time.clock()).build().unwrap();
    (time, memory)
}

/// Whether what was stored just now is there for this long and no longer.
async fn lives_for(cache: &Cache, time: &ManualClock, life: Duration) -> bool {
    time.advance(life - SECOND / 1_000);
    let before = cache.get::<u32>("key").await.unwrap();
    time.advance(SECOND / 1_000);
    before == Some(1) && cache.get::<u32>("key").await.unwrap().is_none()
}

async fn built_to_live(builder: CacheBuilder, life: Duration) {
    let (time, memory) = memory();
    let what = format!("{builder:?}");
    let cache = builder.clock(time.clock()).build(memory).unwrap();
    cache.set("key", &1_u32).await.unwrap();
    assert!(lives_for(&cache, &time, life).await, "{what}: {life:?}");
}

/// Without chance: a life is as long as it says.
fn exact() -> Policy {
    Policy::default().with_ttl_jitter(0.0)
}

#[tokio::test]
async fn the_ttl_of_a_cache_wins_over_that_of_its_policy_whichever_is_set_first() {
    let policy = exact().with_ttl(7 * SECOND);
    built_to_live(Cache::builder().policy(exact()), 300 * SECOND).await;
    built_to_live(Cache::builder().policy(policy), 7 * SECOND).await;
    built_to_live(Cache::builder().ttl(3 * SECOND).policy(policy), 3 * SECOND).await;
    built_to_live(Cache::builder().policy(policy).ttl(3 * SECOND), 3 * SECOND).await;
    let per_type = TtlPolicy::PerType(|_| 4 * SECOND);
    built_to_live(Cache::builder().ttl_policy(per_type).policy(policy), 4 * SECOND).await;
    built_to_live(Cache::builder().policy(policy).ttl_policy(per_type), 4 * SECOND).await;
    let back = Cache::builder().ttl(3 * SECOND).policy(policy).ttl_policy(TtlPolicy::Default);
    built_to_live(back, 7 * SECOND).await;
    for endless in [
        Cache::builder().policy(exact().without_ttl()),
        Cache::builder().policy(policy).ttl_policy(TtlPolicy::Infinite),
        Cache::builder().ttl_policy(TtlPolicy::Infinite).policy(policy),
    ] {
        let (time, memory) = memory();
        let cache = endless.clock(time.clock()).build(memory).unwrap();
        cache.set("key", &1_u32).await.unwrap();
        time.advance(FOREVER);
        assert_eq!(cache.get::<u32>("key").await.unwrap(), Some(1));
    }
}

#[test]
fn what_is_checked_is_the_ttl_that_counts() {
    let idle = Policy::default().with_idle(600 * SECOND);
    for builder in [
        Cache::builder().policy(idle),
        Cache::builder().policy(idle.with_ttl(900 * SECOND)).ttl(600 * SECOND),
        Cache::builder().ttl(600 * SECOND).policy(idle.with_ttl(900 * SECOND)),
    ] {
        let error = builder.build(InMemoryBackend::new()).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Config);
        assert!(error.to_string().contains("idle is not shorter than ttl"), "{error}");
    }
    for builder in [
        Cache::builder().policy(idle).ttl(601 * SECOND),
        Cache::builder().ttl(601 * SECOND).policy(idle),
        Cache::builder().ttl_policy(TtlPolicy::PerType(|_| SECOND)).policy(idle),
    ] {
        builder.build(InMemoryBackend::new()).unwrap();
    }
    let zero = Cache::builder().policy(Policy::default().with_ttl(Duration::ZERO));
    assert!(zero.build(InMemoryBackend::new()).unwrap_err().to_string().contains("ttl is zero"));
}

#[tokio::test]
async fn a_call_has_the_last_word_on_what_it_stores() {
    let overrides = PolicyOverrides::default().with_ttl(2 * SECOND);
    for (options, life) in [
        (LoadOptions::default().with_policy(overrides), 2 * SECOND),
        (LoadOptions::default().with_policy(overrides).with_ttl(SECOND), SECOND),
        (LoadOptions::default().with_policy(PolicyOverrides::default().with_lease_wait(SECOND)), 9 * SECOND),
    ] {
        for builder in [
            Cache::builder().ttl(9 * SECOND),
            Cache::builder().ttl_policy(TtlPolicy::PerType(|_| 9 * SECOND)),
        ] {
            let (time, memory) = memory();
            let cache = builder.policy(exact()).clock(time.clock()).build(memory).unwrap();
            cache.set_with("key", options, &1_u32).await.unwrap();
            assert!(lives_for(&cache, &time, life).await, "set: {options:?}");
            let load = || async { Ok::<_, SourceDown>(1_u32) };
            cache.get_or_load_with("key", options, load).await.unwrap();
            assert!(lives_for(&cache, &time, life).await, "owned: {options:?}");
            let load = |_| async { Ok::<_, SourceDown>([("key".to_owned(), 1_u32)]) };
            cache.get_many_or_load_outcomes(["key"], options, load).await.unwrap();
            assert!(lives_for(&cache, &time, life).await, "many: {options:?}");
        }
    }
    let (time, memory) = memory();
    let cache = Cache::builder().policy(exact()).clock(time.clock()).build(memory).unwrap();
    let (options, load) =
        (InlineOptions::default().with_policy(overrides), || async { Ok::<_, SourceDown>(1_u32) });
    cache.get_or_load_inline_with("key", options, load).await.unwrap();
    assert!(lives_for(&cache, &time, 2 * SECOND).await, "inline");
}

#[tokio::test]
async fn a_contradiction_of_a_call_is_an_error_before_anything_is_asked() {
    let cache = Cache::new(InMemoryBackend::new());
    let soft = PolicyOverrides::default().with_soft_timeout(SECOND);
    let load = || async { Ok::<_, SourceDown>(1_u32) };
    let error =
        cache.get_or_load_with("key", LoadOptions::default().with_policy(soft), load).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(
        error.to_string().contains("soft_timeout") && error.to_string().contains("stale_if_error"),
        "{error}"
    );
    assert_eq!(cache.stats().loads, 0);
}

macro_rules! entity {
    ($name:ident, $prefix:literal, $policy:expr) => {
        #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
        struct $name(u64);

        impl CacheEntity for $name {
            type Key = u64;

            fn cache_key(&self) -> u64 {
                self.0
            }

            fn cache_prefix() -> &'static str {
                $prefix
            }

            fn cache_policy() -> PolicyOverrides {
                $policy
            }
        }
    };
}

entity!(Plain, "plain", PolicyOverrides::default());
entity!(Price, "price", PolicyOverrides::default().with_ttl(2 * SECOND).with_ttl_jitter(0.0));
entity!(Torn, "torn", PolicyOverrides::default().with_timeout(SECOND).with_soft_timeout(SECOND));

type Entities = CacheExpander<InMemoryBackend>;

/// Whether the entity that a read by this config has stored lives for this long.
async fn entity_lives_for<T: CacheEntity<Key = u64>>(
    (expander, time): (Entities, ManualClock),
    (one, config): (T, OperationConfig<'_>),
    life: Duration,
) -> bool {
    let expander = expander.with_clock(time.clock());
    let mut full = InMemoryRepository::new();
    full.insert(1, one);
    let refresh = CacheStrategy::Refresh;
    expander.get_outcome::<T, _>(&1, &full, refresh, config).await.unwrap();
    let cached = async || {
        let fresh = CacheStrategy::Fresh;
        let read = expander.get_outcome::<T, _>(&1, &full, fresh, OperationConfig::default());
        read.await.unwrap().value.is_some()
    };
    time.advance(life - SECOND / 1_000);
    let before = cached().await;
    time.advance(SECOND / 1_000);
    before && !cached().await
}

fn entities(set: impl FnOnce(Entities) -> Entities) -> (Entities, ManualClock) {
    let (time, memory) = memory();
    (set(CacheExpander::new(memory)), time)
}

#[tokio::test]
async fn an_entity_wins_over_its_cache_and_a_call_over_the_entity() {
    let policy = exact().with_ttl(7 * SECOND);
    let plain = OperationConfig::default();
    let call = plain.with_policy(PolicyOverrides::default().with_ttl(SECOND));
    let per_type = TtlPolicy::PerType(|prefix| if prefix == "plain" { 4 * SECOND } else { 5 * SECOND });
    let by_policy = || entities(|new| new.with_policy(policy).unwrap());
    let first = || entities(|new| new.with_ttl_policy(per_type).with_policy(policy).unwrap());
    let last = || entities(|new| new.with_policy(policy).unwrap().with_ttl_policy(per_type));
    assert!(entity_lives_for(by_policy(), (Plain(1), plain), 7 * SECOND).await);
    assert!(entity_lives_for(first(), (Plain(1), plain), 4 * SECOND).await);
    assert!(entity_lives_for(last(), (Plain(1), plain), 4 * SECOND).await);
    for expander in [by_policy(), first(), last()] {
        assert!(entity_lives_for(expander, (Price(1), plain), 2 * SECOND).await);
    }
    for expander in [by_policy(), first(), last()] {
        assert!(entity_lives_for(expander, (Price(1), call), SECOND).await);
    }
    assert!(entity_lives_for(last(), (Plain(1), call), SECOND).await);
}

#[tokio::test]
async fn an_entity_that_contradicts_itself_is_an_error_of_every_read() {
    let expander = CacheExpander::new(InMemoryBackend::new());
    let expander = expander.with_policy(Policy::default().with_stale_if_error(SECOND)).unwrap();
    let mut torn = InMemoryRepository::new();
    torn.insert(1, Torn(1));
    for error in [
        expander.get::<Torn, _>(&1, &torn).await.unwrap_err(),
        expander.get_many::<Torn, _>(&[1], &torn).await.unwrap_err(),
    ] {
        assert_eq!(error.kind(), ErrorKind::Config);
        for word in ["\"torn\"", "soft_timeout", "timeout"] {
            assert!(error.to_string().contains(word), "{error}");
        }
    }
}
