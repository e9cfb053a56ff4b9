//! Other people's code that panics, and stores that keep time badly: no read breaks, nothing is wedged.

mod common;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cache_kit::backend::{CacheBackend, InMemoryBackend};
use cache_kit::testing::{FaultyBackend, Gate, Operation};
use cache_kit::{
    Cache, CacheEntity, CacheExpander, CacheStrategy, ErrorKind, LoadOptions, ManualClock, OperationConfig,
    Policy, Result, Source, Stored, TtlPolicy,
};
use common::{SourceDown, User, Users, bounded, settle};
use serde::{Deserialize, Serialize};

/// A value that cannot be cloned when it is armed.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
struct Uncloneable(bool);

impl Clone for Uncloneable {
    fn clone(&self) -> Self {
        assert!(!self.0, "clone out of order");
        Self(self.0)
    }
}

#[tokio::test]
async fn a_value_whose_clone_panics_hangs_nobody() {
    let cache = Cache::from_url("memory://").unwrap();
    let gate = Gate::new();
    let reads: Vec<_> = (0..3)
        .map(|_| {
            let (cache, gate) = (cache.clone(), gate.clone());
            tokio::spawn(async move {
                let load = move || async move {
                    gate.pass().await;
                    Ok::<_, SourceDown>(Uncloneable(true))
                };
                cache.get_or_load("key", load).await
            })
        })
        .collect();
    settle().await;
    gate.open();
    for read in reads {
        assert_eq!(bounded(read).await.unwrap().unwrap_err().kind(), ErrorKind::LoaderPanicked);
    }
    assert_eq!((cache.loads_under_way(), cache.readers_waiting()), (0, 0));
}

#[tokio::test]
async fn a_ttl_policy_that_panics_breaks_no_read() {
    fn out_of_order(_: &str) -> Duration {
        panic!("policy out of order")
    }
    let backend = InMemoryBackend::new();
    let expander = CacheExpander::new(backend.clone()).with_ttl_policy(TtlPolicy::PerType(out_of_order));
    let users = Users::with(&[(1, "one")]);
    let (refresh, config) = (CacheStrategy::Refresh, OperationConfig::default());
    let outcome = expander.get_outcome::<User, _>(&1, &users, refresh, config).await.unwrap();
    assert_eq!((outcome.value.unwrap().name.as_str(), outcome.stored), ("one", Stored::Failed));
    let outcome = expander.get_owned_outcome::<User, _>(1, Arc::new(users), refresh, config).await.unwrap();
    assert!(outcome.degraded.unwrap().to_string().contains("TtlPolicy panicked"));
    assert_eq!(backend.stats().leases, 0);
}

#[tokio::test]
async fn an_id_whose_display_panics_is_an_error_at_the_door() {
    #[derive(Clone)]
    struct BadId;
    impl fmt::Display for BadId {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            panic!("no display for you")
        }
    }
    #[derive(Clone, Serialize, Deserialize)]
    struct Thing;
    impl CacheEntity for Thing {
        type Key = BadId;
        fn cache_key(&self) -> BadId {
            BadId
        }
        fn cache_prefix() -> &'static str {
            "thing"
        }
    }
    let expander = CacheExpander::new(InMemoryBackend::new());
    let error = expander.invalidate::<Thing>(&BadId).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput);
    assert!(error.to_string().contains("`thing` panicked"), "{error}");
}

#[tokio::test]
async fn a_lease_that_is_handed_to_a_reader_whose_own_lookup_failed_is_used() {
    let memory = InMemoryBackend::new();
    let (backend, faults) = FaultyBackend::new(memory.clone());
    let cache = Cache::new(backend);
    let (users, gate) = (Users::with(&[(1, "one")]), Gate::new());
    let read = |users: Users| {
        let cache = cache.clone();
        tokio::spawn(async move {
            let options = cache_kit::InlineOptions::default();
            cache.get_or_load_inline_outcome("user:1", options, || users.name(1)).await.unwrap()
        })
    };
    let leader = read(users.behind(&gate));
    gate.reached().await; // It has the lease.
    faults.fail([Operation::Get]);
    let follower = read(users.clone());
    settle().await;
    faults.heal();
    leader.abort();
    let outcome = bounded(follower).await.unwrap();
    assert_eq!((outcome.value.as_str(), outcome.stored), ("one", Stored::Yes));
    assert_eq!(
        outcome.degraded.unwrap().kind(),
        ErrorKind::Unavailable,
        "and it says that its lookup failed"
    );
    assert_eq!(memory.stats().leases, 0);
}

#[tokio::test]
async fn a_batch_gives_back_the_leases_of_what_it_cannot_store() {
    let memory = InMemoryBackend::new();
    let (backend, faults) = FaultyBackend::new(memory.clone());
    let expander = CacheExpander::new(backend);
    let users = Users::with(&[(1, "one"), (2, "two")]);
    // The version of the namespace is there, and only values fail.
    expander.get::<User, _>(&9, &users).await.unwrap();
    faults.fail([Operation::Fill]);
    let outcomes =
        expander.get_many_outcomes::<User, _>(&[1, 2], &users, OperationConfig::default()).await.unwrap();
    for outcome in outcomes {
        let outcome = outcome.unwrap();
        assert!(outcome.value.is_some());
        assert_eq!((outcome.source, outcome.stored), (Source::Load, Stored::Failed));
        assert_eq!(outcome.degraded.unwrap().kind(), ErrorKind::Unavailable);
    }
    assert_eq!(memory.stats().leases, 0);
    assert_eq!(expander.stats().store_failures, 2);
}

#[tokio::test]
async fn an_invalidation_that_failed_shows_in_the_answer_of_a_load_that_was_joined() {
    let (backend, faults) = FaultyBackend::new(InMemoryBackend::new());
    let cache = Cache::new(backend);
    faults.fail([Operation::Delete]);
    let (users, gate) = (Users::with(&[(1, "one")]), Gate::new());
    let read = |options: LoadOptions<'static>| {
        let (cache, users) = (cache.clone(), users.behind(&gate));
        tokio::spawn(
            async move { cache.get_or_load_outcome("user:1", options, || users.name(1)).await.unwrap() },
        )
    };
    let invalidating = LoadOptions::default().with_strategy(CacheStrategy::Invalidate);
    let first = read(invalidating);
    gate.reached().await;
    // Detaches, fails to delete, and then leads a load of its own.
    let second = read(invalidating);
    gate.reached().await;
    gate.open();
    for read in [first, second] {
        assert_eq!(bounded(read).await.unwrap().degraded.unwrap().kind(), ErrorKind::Unconfirmed);
    }
}

/// A store that keeps things longer than asked.
struct Late(InMemoryBackend);

#[async_trait]
impl CacheBackend for Late {
    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        self.0.get(key).await
    }

    async fn set(&self, key: &str, value: Bytes, _: Option<Duration>) -> Result<()> {
        self.0.set(key, value, None).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.0.delete(key).await
    }
}

#[tokio::test]
async fn an_entry_that_its_store_keeps_too_long_is_stale_and_heals() {
    let time = ManualClock::new();
    let memory = InMemoryBackend::new();
    let exact = Policy::default().with_ttl_jitter(0.0);
    let cache = Cache::builder().clock(time.clock()).ttl(Duration::from_millis(1500)).policy(exact);
    let cache = cache.build(Late(memory.clone())).unwrap();
    let load = |name: &'static str| {
        let cache = cache.clone();
        async move { cache.get_or_load("key", move || async move { Ok::<_, SourceDown>(name.to_owned()) }).await }
    };
    assert_eq!(load("first").await.unwrap(), "first");
    time.advance(Duration::from_millis(1499));
    assert_eq!(load("second").await.unwrap(), "first", "exact to the millisecond");
    time.advance(Duration::from_millis(1));
    assert_eq!(cache.get::<String>("key").await.unwrap(), None);
    assert_eq!(load("second").await.unwrap(), "second");
    assert_eq!(cache.stats().stale, 2);
    // A clock that was set back by more than a minute makes the entry's times worthless.
    time.set_unix_millis(1_000_000_000_000);
    assert_eq!(load("third").await.unwrap(), "third");
}

#[tokio::test]
async fn raising_the_version_of_a_type_makes_its_entries_misses() {
    let backend = InMemoryBackend::new();
    let version = |version| Cache::builder().schema_version(version).build(backend.clone()).unwrap();
    let (old, new) = (version(1), version(2));
    old.set("key", &1_u32).await.unwrap();
    assert_eq!(new.get::<u32>("key").await.unwrap(), None);
    assert_eq!(new.stats().rejected.wrong_schema, 1);
    assert_eq!(old.get::<u32>("key").await.unwrap(), Some(1), "a look by the new code removes nothing");
}

#[tokio::test]
async fn hits_misses_and_unknown_add_up_to_the_reads() {
    let (backend, faults) = FaultyBackend::new(InMemoryBackend::new());
    let cache = Cache::new(backend);
    for round in 0..30 {
        if round % 10 == 9 {
            faults.fail([Operation::Get, Operation::Mget]);
        }
        let key = format!("key:{}", round % 4);
        cache.get_or_load(&key, || async { Ok::<_, SourceDown>(1) }).await.unwrap();
        let load = |missing: Vec<String>| async move {
            Ok::<_, SourceDown>(missing.into_iter().map(|key| (key, 1)).collect::<Vec<_>>())
        };
        let outcomes =
            cache.get_many_or_load_outcomes([&key, "other"], LoadOptions::default(), load).await.unwrap();
        assert_eq!(outcomes.len(), 2);
        faults.heal();
    }
    let stats = cache.stats();
    assert_eq!(stats.hits + stats.misses + stats.unknown, 30 * 3, "{stats:?}");
    assert_eq!((stats.unknown, stats.backend_errors), (9, 6), "one failed exchange is one error");
}

#[tokio::test]
async fn a_batch_has_one_strategy() {
    let cache = Cache::from_url("memory://").unwrap();
    let load = |_| async { Ok::<Vec<(String, u8)>, SourceDown>(vec![]) };
    let fresh = LoadOptions::default().with_strategy(CacheStrategy::Fresh);
    let error = cache.get_many_or_load_outcomes(["a"], fresh, load).await.unwrap_err();
    assert!(error.kind() == ErrorKind::InvalidInput && error.to_string().contains("fresh"), "{error}");
}
