//! One load per key, and loads that fail, panic, hang or lose their caller wedge nothing.

mod common;

use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cache_kit::backend::InMemoryBackend;
use cache_kit::testing::Gate;
use cache_kit::{Cache, CacheExpander, ErrorKind, LoadOptions, Source};
use common::{SourceDown, User, Users, bounded, settle};
use futures_util::future::join_all;

fn memory() -> (Cache, InMemoryBackend) {
    let backend = InMemoryBackend::new();
    (Cache::new(backend.clone()), backend)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_tasks_on_one_cold_key_make_one_load() {
    for inline in [false, true] {
        let (cache, _) = memory();
        let users = Users::with(&[(1, "one")]);
        let reads = (0..10_000).map(|_| {
            let (cache, users) = (cache.clone(), users.clone());
            tokio::spawn(async move {
                if inline {
                    cache.get_or_load_inline("user:1", || users.name(1)).await
                } else {
                    cache.get_or_load("user:1", || users.name(1)).await
                }
            })
        });
        for name in bounded(join_all(reads)).await {
            assert_eq!(name.unwrap().unwrap(), "one");
        }
        assert_eq!(users.asked(), 1, "inline: {inline}");
        assert_eq!(cache.stats().loads, 1);
        assert_eq!(cache.loads_under_way(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_readers_of_one_entity_make_one_load() {
    let expander = Arc::new(CacheExpander::new(InMemoryBackend::new()));
    let users = Users::with(&[(1, "one")]);
    let reads = (0..10_000).map(|_| {
        let (expander, users) = (Arc::clone(&expander), users.clone());
        tokio::spawn(async move { expander.get::<User, _>(&1, &users).await })
    });
    for user in bounded(join_all(reads)).await {
        assert_eq!(user.unwrap().unwrap().unwrap().name, "one");
    }
    assert_eq!(users.asked(), 1);
}

#[tokio::test]
async fn all_who_waited_get_the_same_error_once_and_it_is_not_cached() {
    let (cache, backend) = memory();
    let (users, gate) = (Users::with(&[(1, "one")]), Gate::new());
    users.fail(1);
    let reads: Vec<_> = (0..50)
        .map(|_| {
            let (cache, users) = (cache.clone(), users.behind(&gate));
            tokio::spawn(async move { cache.get_or_load("user:1", || users.name(1)).await })
        })
        .collect();
    gate.reached().await;
    settle().await;
    gate.open();
    for read in bounded(join_all(reads)).await {
        let error = read.unwrap().unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Source);
        assert_eq!(error.find_source::<SourceDown>(), Some(&SourceDown(1)), "all get the error of one load");
    }
    assert_eq!(users.asked(), 1);
    assert_eq!(backend.stats().leases, 0, "a failed load gives its lease back");
    let now = users.clone();
    assert_eq!(cache.get_or_load("user:1", || now.name(1)).await.unwrap(), "one");
    assert_eq!(users.asked(), 2);
    let stats = cache.stats();
    assert_eq!((stats.loads, stats.load_failures, stats.shared_loads, stats.hits), (2, 1, 49, 0));
}

fn out_of_order() -> Result<u32, SourceDown> {
    panic!("loader out of order")
}

#[tokio::test]
async fn a_panicking_loader_is_an_error_for_all_who_wait_and_wedges_nothing() {
    let (cache, backend) = memory();
    for inline in [false, true] {
        let gate = Gate::new();
        let reads: Vec<_> = (0..10)
            .map(|_| {
                let (cache, gate) = (cache.clone(), gate.clone());
                tokio::spawn(async move {
                    let loader = move || async move {
                        gate.pass().await;
                        out_of_order()
                    };
                    if inline {
                        cache.get_or_load_inline("key", loader).await
                    } else {
                        cache.get_or_load("key", loader).await
                    }
                })
            })
            .collect();
        settle().await;
        gate.open();
        for read in bounded(join_all(reads)).await {
            assert_eq!(read.unwrap().unwrap_err().kind(), ErrorKind::LoaderPanicked);
        }
        assert_eq!(cache.loads_under_way(), 0);
        assert_eq!(backend.stats().leases, 0);
        assert_eq!(cache.get_or_load("key", || async { Ok::<_, SourceDown>(7) }).await.unwrap(), 7);
        cache.invalidate("key").await.unwrap();
    }
}

#[tokio::test]
async fn an_owned_load_ends_without_its_caller() {
    let (cache, _) = memory();
    let (users, gate) = (Users::with(&[(1, "one")]), Gate::new());
    let (caller, slow) = (cache.clone(), users.behind(&gate));
    let reading = tokio::spawn(async move { caller.get_or_load("user:1", || slow.name(1)).await });
    gate.reached().await;
    reading.abort();
    assert!(reading.await.unwrap_err().is_cancelled());
    gate.open();
    settle().await;
    assert_eq!(cache.get::<String>("user:1").await.unwrap().as_deref(), Some("one"));
    assert_eq!(users.asked(), 1);
}

#[tokio::test]
async fn when_an_inline_leader_goes_away_one_follower_takes_over() {
    let (cache, backend) = memory();
    let (users, gate) = (Users::with(&[(1, "one")]), Gate::new());
    let read = |users: Users| {
        let cache = cache.clone();
        tokio::spawn(async move { cache.get_or_load_inline("user:1", || users.name(1)).await })
    };
    let leader = read(users.behind(&gate));
    gate.reached().await;
    let followers: Vec<_> = (0..100).map(|_| read(users.clone())).collect();
    settle().await;
    assert_eq!(users.asked(), 1, "the others wait");
    leader.abort();
    for follower in bounded(join_all(followers)).await {
        assert_eq!(follower.unwrap().unwrap(), "one");
    }
    assert_eq!(users.asked(), 2, "exactly one took over");
    assert_eq!(
        cache.get::<String>("user:1").await.unwrap().as_deref(),
        Some("one"),
        "and stored with the lease"
    );
    assert_eq!(backend.stats().leases, 0);
}

#[tokio::test]
async fn when_leader_and_followers_all_go_away_nothing_is_left() {
    let (cache, backend) = memory();
    let (users, gate) = (Users::with(&[(1, "one")]), Gate::new());
    let read = |users: Users| {
        let cache = cache.clone();
        tokio::spawn(async move { cache.get_or_load_inline("user:1", || users.name(1)).await })
    };
    let leader = read(users.behind(&gate));
    gate.reached().await;
    let followers: Vec<_> = (0..10).map(|_| read(users.behind(&gate))).collect();
    settle().await;
    for task in followers.iter().chain([&leader]) {
        task.abort();
    }
    let _ = bounded(join_all(followers)).await;
    let _ = leader.await;
    assert_eq!((cache.loads_under_way(), cache.readers_waiting()), (0, 0));
    assert_eq!(backend.stats().leases, 0, "no lease is left behind");
    let now = users.clone();
    assert_eq!(bounded(cache.get_or_load("user:1", || now.name(1))).await.unwrap(), "one");
}

#[tokio::test]
async fn a_loader_that_never_ends_does_not_keep_an_invalidated_key() {
    let (cache, _) = memory();
    let hung = cache.clone();
    let (started, gate) = (Gate::new(), Gate::new());
    let at = started.clone();
    let hanging = tokio::spawn(async move {
        hung.get_or_load("key", move || async move {
            tokio::join!(at.pass(), pending::<()>());
            Ok::<_, SourceDown>(0)
        })
        .await
    });
    started.reached().await;
    cache.invalidate("key").await.unwrap();
    gate.open();
    assert_eq!(bounded(cache.get_or_load("key", || async { Ok::<_, SourceDown>(1) })).await.unwrap(), 1);
    assert_eq!(cache.get::<i32>("key").await.unwrap(), Some(1));
    hanging.abort();
}

#[tokio::test]
async fn a_load_that_waits_for_itself_is_an_error_not_a_hang() {
    let (cache, _) = memory();
    let inner = cache.clone();
    let direct = cache.get_or_load("a", move || async move {
        inner.get_or_load("a", || async { Ok::<_, SourceDown>(1) }).await
    });
    assert_eq!(bounded(direct).await.unwrap_err().kind(), ErrorKind::Reentrant);

    // Through another key, and through tasks of their own.
    let (first, second) = (cache.clone(), cache.clone());
    let around = cache.get_or_load("a", move || async move {
        first
            .get_or_load("b", move || async move {
                second.get_or_load_inline("a", || async { Ok::<_, SourceDown>(1) }).await
            })
            .await
    });
    assert_eq!(bounded(around).await.unwrap_err().kind(), ErrorKind::Reentrant);

    // Another key inside a load is what loaders are for.
    let inner = cache.clone();
    let nested = cache.get_or_load("a", move || async move {
        inner.get_or_load("b", || async { Ok::<_, SourceDown>(2) }).await
    });
    assert_eq!(bounded(nested).await.unwrap(), 2);
}

#[test]
fn a_runtime_that_shuts_down_during_a_load_leaves_the_key_usable() {
    let (cache, _) = memory();
    let started = Gate::new();
    let first = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let (hung, at) = (cache.clone(), started.clone());
    first.spawn(async move {
        let _ = hung
            .get_or_load("key", move || async move {
                tokio::join!(at.pass(), pending::<()>());
                Ok::<_, SourceDown>(0)
            })
            .await;
    });
    first.block_on(started.reached());
    let second = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    second.block_on(async {
        let waiting = cache.clone();
        let read =
            tokio::spawn(
                async move { waiting.get_or_load("key", || async { Ok::<_, SourceDown>(1) }).await },
            );
        settle().await;
        first.shutdown_background();
        assert_eq!(bounded(read).await.unwrap().unwrap(), 1, "a follower takes over");
    });
    assert_eq!(second.block_on(cache.get::<i32>("key")).unwrap(), Some(1));
}

#[test]
fn a_cache_works_without_a_runtime() {
    let (cache, _) = memory();
    let value =
        futures_util::FutureExt::now_or_never(cache.get_or_load("k", || async { Ok::<_, SourceDown>(5) }));
    assert_eq!(value.unwrap().unwrap(), 5);
    assert_eq!(futures_util::FutureExt::now_or_never(cache.get::<i32>("k")).unwrap().unwrap(), Some(5));
}

#[tokio::test]
async fn readers_of_different_types_do_not_share_a_load() {
    let (cache, _) = memory();
    let gate = Gate::new();
    let (slow, at) = (cache.clone(), gate.clone());
    let number = tokio::spawn(async move {
        slow.get_or_load("key", move || async move {
            at.pass().await;
            Ok::<_, SourceDown>(7_u64)
        })
        .await
    });
    gate.reached().await;
    let text = bounded(cache.get_or_load("key", || async { Ok::<_, SourceDown>("seven".to_owned()) })).await;
    assert_eq!(text.unwrap(), "seven");
    gate.open();
    assert_eq!(bounded(number).await.unwrap().unwrap(), 7);
}

#[tokio::test]
async fn nothing_is_built_on_a_hit() {
    let (cache, _) = memory();
    let built = Arc::new(AtomicU64::new(0));
    for _ in 0..3 {
        let count = Arc::clone(&built);
        let outcome = cache
            .get_or_load_outcome("key", LoadOptions::default(), move || {
                count.fetch_add(1, Ordering::SeqCst);
                async { Ok::<_, SourceDown>(1) }
            })
            .await
            .unwrap();
        assert_eq!(outcome.is_hit(), outcome.source == Source::Cache);
    }
    assert_eq!(built.load(Ordering::SeqCst), 1);
}
