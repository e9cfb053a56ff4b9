//! A dead cache fails no read that the source can answer, and nothing is stored on a guess.

mod common;

use std::sync::Arc;
use std::time::Duration;

use cache_kit::backend::{CacheBackend, InMemoryBackend};
use cache_kit::testing::{Faults, FaultyBackend, Operation};
use cache_kit::{
    Cache, CacheExpander, CacheStrategy, ErrorKind, LoadOptions, OperationConfig, Source, Stored,
};
use common::{SourceDown, User, Users, bounded};

fn faulty() -> (CacheExpander<FaultyBackend<InMemoryBackend>>, Arc<Faults>, InMemoryBackend) {
    let memory = InMemoryBackend::new();
    let (backend, faults) = FaultyBackend::new(memory.clone());
    (CacheExpander::new(backend), faults, memory)
}

#[tokio::test]
async fn with_the_cache_down_refresh_invalidate_and_bypass_answer_from_the_source() {
    let (expander, faults, _) = faulty();
    let users = Users::with(&[(1, "one")]);
    faults.fail_all();
    for strategy in [CacheStrategy::Refresh, CacheStrategy::Invalidate, CacheStrategy::Bypass] {
        let outcome =
            expander.get_outcome::<User, _>(&1, &users, strategy, OperationConfig::default()).await.unwrap();
        assert_eq!(outcome.value.unwrap().name, "one");
        assert_eq!(outcome.source, Source::Load);
        if strategy == CacheStrategy::Bypass {
            assert!(outcome.degraded.is_none(), "the cache was not needed");
        } else {
            let kind = match strategy {
                CacheStrategy::Invalidate => ErrorKind::Unconfirmed,
                _ => ErrorKind::Unavailable,
            };
            assert_eq!(outcome.degraded.unwrap().kind(), kind, "{strategy}");
            assert_eq!(outcome.stored, Stored::BackendUnknown, "{strategy}");
        }
    }
    let error = expander
        .get_outcome::<User, _>(&2, &users, CacheStrategy::Fresh, OperationConfig::default())
        .await
        .unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "an error is not a miss");
    assert_eq!(expander.stats().backend_errors, 3);
    assert_eq!(expander.stats().hits + expander.stats().misses, 0);
}

#[tokio::test]
async fn after_an_unknown_answer_nothing_is_stored() {
    let (expander, faults, memory) = faulty();
    let users = Users::with(&[(1, "one")]);
    // Reads fail, writes would work.
    faults.fail([Operation::Get]);
    assert!(expander.get::<User, _>(&1, &users).await.unwrap().is_some());
    assert_eq!(common::values_in(&memory), 0);
    faults.heal();
    assert!(expander.get::<User, _>(&1, &users).await.unwrap().is_some());
    assert_eq!(common::values_in(&memory), 1);
    assert_eq!(faults.calls(Operation::Fill), 2, "the versions, made in one, and the value");
}

#[tokio::test]
async fn a_lease_or_a_fill_that_fails_fails_no_read() {
    for operation in [Operation::Acquire, Operation::Fill] {
        let (expander, faults, memory) = faulty();
        let users = Users::with(&[(1, "one")]);
        faults.fail([operation]);
        let outcome = expander
            .get_outcome::<User, _>(&1, &users, CacheStrategy::Refresh, OperationConfig::default())
            .await
            .unwrap();
        assert_eq!(outcome.value.unwrap().name, "one", "{operation:?}");
        assert_eq!(outcome.degraded.unwrap().kind(), ErrorKind::Unavailable);
        assert_eq!(common::values_in(&memory), 0);
        assert_eq!(memory.stats().leases, 0, "{operation:?}: the lease is given back");
    }
}

#[tokio::test]
async fn an_invalidation_that_failed_is_an_error() {
    let (expander, faults, _) = faulty();
    let users = Users::with(&[(1, "one")]);
    expander.get::<User, _>(&1, &users).await.unwrap();
    faults.fail([Operation::Delete, Operation::Mdelete]);
    let error = expander.invalidate::<User>(&1).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unconfirmed);
    assert!(error.to_string().contains("queued"), "{error}");
    assert!(expander.invalidate_many::<User>(&[1, 2]).await.is_err());
    assert_eq!(expander.stats().invalidations, 0);
    faults.heal();
    expander.invalidate_many::<User>(&[1, 2]).await.unwrap();
    assert_eq!(expander.stats().invalidations, 2);
}

#[tokio::test]
async fn with_the_source_down_a_cached_value_is_still_served() {
    let (expander, _, _) = faulty();
    let users = Users::with(&[(1, "one")]);
    expander.get::<User, _>(&1, &users).await.unwrap();
    users.fail(u64::MAX);
    assert_eq!(expander.get::<User, _>(&1, &users).await.unwrap().unwrap().name, "one");
    let error = expander.get::<User, _>(&2, &users).await.unwrap_err();
    assert_eq!(error.find_source::<SourceDown>(), Some(&SourceDown(2)));
}

#[tokio::test]
async fn a_batch_with_the_cache_down_is_one_load_and_stores_nothing() {
    let (expander, faults, memory) = faulty();
    let users = Users::with(&[(1, "one"), (2, "two")]);
    faults.fail([Operation::Mget]);
    let found = expander.get_many::<User, _>(&[1, 2, 3], &users).await.unwrap();
    assert_eq!(found.iter().flatten().count(), 2);
    assert_eq!((users.asked(), common::values_in(&memory)), (1, 0));
}

#[tokio::test]
async fn a_backend_that_hangs_in_a_load_keeps_nobody_who_comes_after_an_invalidation() {
    let memory = InMemoryBackend::new();
    let (backend, faults) = FaultyBackend::new(memory);
    let cache = Cache::new(backend);
    faults.hang([Operation::Fill]);
    let hung = cache.clone();
    let task = tokio::spawn(async move { hung.get_or_load("k", || async { Ok::<_, SourceDown>(1) }).await });
    common::settle().await;
    faults.heal();
    cache.invalidate("k").await.unwrap();
    assert_eq!(bounded(cache.get_or_load("k", || async { Ok::<_, SourceDown>(2) })).await.unwrap(), 2);
    task.abort();
}

#[tokio::test]
async fn a_value_the_backend_refuses_is_returned_and_counted() {
    let backend = InMemoryBackend::builder().max_bytes(4096).build().unwrap();
    let limit = backend.capabilities().max_value_bytes.unwrap();
    let cache = Cache::new(backend);
    let large = "x".repeat(limit + 1);
    let loaded = large.clone();
    let outcome = cache
        .get_or_load_outcome("k", LoadOptions::default(), || async move { Ok::<_, SourceDown>(loaded) })
        .await
        .unwrap();
    assert_eq!((outcome.value.len(), outcome.stored), (limit + 1, Stored::Failed));
    assert_eq!(outcome.degraded.unwrap().kind(), ErrorKind::TooLarge);
    assert_eq!(cache.stats().store_failures, 1);
    assert_eq!(cache.set("k", &large).await.unwrap_err().kind(), ErrorKind::TooLarge);
}

#[tokio::test]
async fn a_hold_keeps_fills_away_though_the_backend_was_down_when_it_began() {
    let memory = InMemoryBackend::new();
    let (backend, faults) = FaultyBackend::new(memory.clone());
    let cache = Cache::new(backend);
    faults.fail_all();
    let hold = cache.hold(["a", "b"]).await.unwrap();
    assert!(hold.degraded().is_some());
    faults.heal();
    cache.flush_pending(Duration::from_secs(60)).await.unwrap();
    // The hold has no leases that would last.
    memory.clear_all().await.unwrap();
    let read = || cache.get_or_load_outcome("a", LoadOptions::default(), || async { Ok::<_, SourceDown>(1) });
    assert_ne!(read().await.unwrap().stored, Stored::Yes);
    let load = |missing: Vec<String>| async { Ok::<_, SourceDown>(missing.into_iter().map(|key| (key, 1))) };
    assert_eq!(cache.get_many_or_load(["b"], load).await.unwrap(), [Some(1)]);
    assert_eq!(common::values_in(&memory), 0);
    hold.confirm().await.unwrap();
    assert_eq!(read().await.unwrap().stored, Stored::Yes);
}
