//! Callers that go away at any moment: no value under another's key, nothing left behind.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cache_kit::backend::InMemoryBackend;
use cache_kit::{Cache, CacheExpander, Result};
use common::{SourceDown, User, Users, bounded, drop_after};
use futures_util::future::join_all;

/// The value that belongs to a key, and to no other.
fn value_of(key: u64) -> String {
    format!("value of {key}")
}

/// A load that takes a few polls, and counts how many are under way.
async fn load(key: u64, polls: u32, under_way: Arc<AtomicU64>) -> Result<String, SourceDown> {
    struct Count(Arc<AtomicU64>);
    impl Drop for Count {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
    under_way.fetch_add(1, Ordering::SeqCst);
    let _count = Count(under_way);
    for _ in 0..polls {
        tokio::task::yield_now().await;
    }
    if polls == 3 { Err(SourceDown(key)) } else { Ok(value_of(key)) }
}

/// One operation of a storm on few keys; what it returns must belong to its key.
async fn operate(cache: &Cache, under_way: &Arc<AtomicU64>, random: &mut fastrand::Rng) {
    let (key, polls, load_polls) = (random.u64(..16), random.u32(..8), random.u32(..5));
    let name = format!("key:{key}");
    let counter = Arc::clone(under_way);
    let check = |value: Option<Result<String>>| {
        if let Some(Ok(value)) = value {
            assert_eq!(value, value_of(key), "a value under another's key");
        }
    };
    match random.u32(..10) {
        0..4 => {
            check(drop_after(cache.get_or_load(&name, move || load(key, load_polls, counter)), polls).await)
        }
        4..7 => {
            check(
                drop_after(cache.get_or_load_inline(&name, move || load(key, load_polls, counter)), polls)
                    .await,
            );
        }
        7 => {
            let _ = drop_after(cache.invalidate(&name), polls).await;
        }
        8 => {
            let read = drop_after(cache.get::<String>(&name), polls).await;
            check(read.and_then(Result::transpose));
        }
        _ => {
            let other = format!("key:{}", (key + 1) % 16);
            let batch = cache.get_many_or_load([name, other], move |missing| {
                let counter = Arc::clone(&counter);
                async move {
                    let _guard = load(key, load_polls, counter).await;
                    let number = |key: &String| key[4..].parse().unwrap();
                    Ok::<_, SourceDown>(
                        missing.into_iter().map(|k| (k.clone(), value_of(number(&k)))).collect::<Vec<_>>(),
                    )
                }
            });
            if let Some(Ok(values)) = drop_after(batch, polls).await {
                assert_eq!(values, [Some(value_of(key)), Some(value_of((key + 1) % 16))]);
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_dropped_operations_leave_nothing_behind() {
    let seed =
        std::env::var("CACHE_KIT_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(fastrand::u64(..));
    println!("CACHE_KIT_SEED={seed}");
    let backend = InMemoryBackend::new();
    let cache = Cache::new(backend.clone());
    let under_way = Arc::new(AtomicU64::new(0));
    let tasks = (0..100).map(|task| {
        let (cache, under_way) = (cache.clone(), Arc::clone(&under_way));
        tokio::spawn(async move {
            let mut random = fastrand::Rng::with_seed(seed.wrapping_add(task));
            for _ in 0..1_000 {
                operate(&cache, &under_way, &mut random).await;
            }
        })
    });
    for task in bounded(join_all(tasks)).await {
        task.unwrap();
    }
    // Detached loads end by themselves; they are bounded by what their loaders do.
    bounded(async {
        while under_way.load(Ordering::SeqCst) > 0 || cache.loads_under_way() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(backend.stats().leases, 0, "no lease is left behind");
    assert_eq!(cache.readers_waiting(), 0, "no waiter is left behind");
    for key in 0..16 {
        let counter = Arc::clone(&under_way);
        let value = bounded(cache.get_or_load(format!("key:{key}"), move || load(key, 0, counter))).await;
        assert_eq!(value.unwrap(), value_of(key), "every key still serves");
    }
    let stats = cache.stats();
    assert_eq!(stats.rejected.wrong_key, 0);
    println!("{stats:?}");
}

#[tokio::test]
async fn an_entity_read_dropped_after_each_number_of_polls_leaves_the_key_usable() {
    for polls in 0..12 {
        let backend = InMemoryBackend::new();
        let expander = CacheExpander::new(backend.clone());
        let users = Users::with(&[(1, "one")]);
        let slow = async {
            tokio::task::yield_now().await;
            expander.get::<User, _>(&1, &users).await
        };
        let _ = drop_after(slow, polls).await;
        assert_eq!(backend.stats().leases, 0, "after {polls} polls");
        assert_eq!(expander.loads_under_way(), 0);
        assert!(bounded(expander.get::<User, _>(&1, &users)).await.unwrap().is_some());
    }
}
