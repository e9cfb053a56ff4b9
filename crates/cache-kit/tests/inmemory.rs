//! What is particular to the backend in memory: isolation, sweeping, bounds.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::time::{Duration, Instant};

use bytes::Bytes;
use cache_kit::backend::{Acquired, CacheBackend, Eviction, InMemoryBackend, SetEntry};
use cache_kit::{ErrorKind, ManualClock};

async fn fill(backend: &InMemoryBackend, range: std::ops::Range<usize>, bytes: usize, ttl: Option<Duration>) {
    for n in range {
        backend.set(&format!("key:{n}"), Bytes::from(vec![7; bytes]), ttl).await.unwrap();
    }
}

#[tokio::test]
async fn a_fresh_instance_is_isolated_and_a_clone_is_not() {
    let (one, other) = (InMemoryBackend::new(), InMemoryBackend::default());
    one.set("key", "value".into(), None).await.unwrap();
    assert!(!other.exists("key").await.unwrap());
    assert!(one.clone().exists("key").await.unwrap());
}

#[tokio::test]
async fn expired_entries_and_leases_free_their_memory_without_being_read() {
    for builder in [InMemoryBackend::builder(), InMemoryBackend::builder().max_entries(10_000)] {
        let time = ManualClock::new();
        let backend = builder.clock(time.clock()).build().unwrap();
        fill(&backend, 0..1000, 10, Some(Duration::from_secs(10))).await;
        fill(&backend, 1000..1500, 10, None).await;
        let lease = backend.acquire("leased", None, Duration::from_secs(10)).await.unwrap();
        assert!(matches!(lease, Acquired::Granted { .. }));
        assert_eq!((backend.sweep(), backend.stats().leases), (0, 1));
        time.advance(Duration::from_secs(10));
        assert_eq!(backend.sweep(), 1000);
        let stats = backend.stats();
        assert_eq!((stats.entries, stats.expired, stats.leases), (500, 1000, 0));
        // What is written later is swept later.
        fill(&backend, 0..10, 10, Some(Duration::from_secs(5))).await;
        time.advance(Duration::from_secs(5));
        assert_eq!(backend.sweep(), 10);
    }
}

#[tokio::test]
async fn a_thread_sweeps_by_itself_and_ends_with_the_backend() {
    fn threads() -> usize {
        let tasks = std::fs::read_dir("/proc/self/task").unwrap();
        let names =
            tasks.flatten().map(|task| std::fs::read_to_string(task.path().join("comm")).unwrap_or_default());
        names.filter(|name| name.trim() == "cache-kit-sweep").count()
    }
    fn wait_until(what: &str, done: impl Fn() -> bool) {
        let began = Instant::now();
        while !done() {
            assert!(began.elapsed() < Duration::from_secs(20), "{what}");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
    let backend = InMemoryBackend::builder().sweep_every(Duration::from_millis(10)).build().unwrap();
    fill(&backend, 0..100, 10, Some(Duration::from_millis(5))).await;
    wait_until("expired entries stay", || backend.stats().entries == 0);
    if cfg!(target_os = "linux") {
        // Other tests of this process have theirs.
        let before = threads();
        assert!(before >= 1);
        drop(backend);
        wait_until("the thread outlives its backend", || threads() < before);
    }
}

#[tokio::test]
async fn the_bound_in_entries_is_never_passed() {
    for max in [1, 2, 100, 101, 5_000] {
        let backend = InMemoryBackend::builder().max_entries(max).build().unwrap();
        for from in (0..3 * max).step_by(50.max(max / 4)) {
            fill(&backend, from..from + 50.max(max / 4), 10, None).await;
            assert!(backend.stats().entries <= max, "{} of {max}", backend.stats().entries);
        }
        let stats = backend.stats();
        assert!(stats.evicted > 0);
        assert!(stats.entries * 10 >= max * 8, "{} of {max}: the bound is used", stats.entries);
        assert_eq!(backend.capabilities().eviction, Eviction::Bounded);
    }
}

#[tokio::test]
async fn the_bound_in_bytes_is_never_passed() {
    let backend = InMemoryBackend::builder().max_bytes(1 << 20).build().unwrap();
    for size in [10, 1_000, 50_000, 200_000] {
        fill(&backend, 0..200, size, None).await;
        let stats = backend.stats();
        assert!(stats.bytes + 96 * stats.entries as u64 <= 1 << 20, "{stats:?}");
    }
}

#[tokio::test]
async fn both_bounds_hold_together() {
    let backend = InMemoryBackend::builder().max_entries(500).max_bytes(1 << 20).build().unwrap();
    fill(&backend, 0..2000, 10, None).await;
    assert!((400..=500).contains(&backend.stats().entries), "{:?}", backend.stats());
    fill(&backend, 0..500, 20_000, None).await;
    let stats = backend.stats();
    assert!(stats.bytes <= 1 << 20 && stats.entries <= 500, "{stats:?}");
}

#[tokio::test]
async fn a_value_beyond_the_bound_is_refused_and_leaves_no_older_one() {
    let backend = InMemoryBackend::builder().max_bytes(100_000).build().unwrap();
    let limit = backend.capabilities().max_value_bytes.unwrap();
    backend.set("key", Bytes::from(vec![0; limit]), None).await.unwrap();
    assert!(backend.exists("key").await.unwrap());
    let error = backend.set("key", Bytes::from(vec![0; 100_001]), None).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    assert!(error.to_string().contains("max_bytes"), "{error}");
    assert!(!backend.exists("key").await.unwrap());
}

#[tokio::test]
async fn the_unbounded_store_evicts_nothing() {
    let backend = InMemoryBackend::new();
    fill(&backend, 0..50_000, 1, None).await;
    let stats = backend.stats();
    assert_eq!((stats.entries, stats.evicted), (50_000, 0));
    assert_eq!(backend.capabilities().eviction, Eviction::Manual);
}

#[test]
fn a_bound_that_makes_no_sense_is_refused_by_name() {
    let builders = [
        (InMemoryBackend::builder().max_entries(0), "max_entries"),
        (InMemoryBackend::builder().max_bytes(0), "max_bytes"),
        (InMemoryBackend::builder().sweep_every(Duration::ZERO), "sweep_every"),
    ];
    for (builder, field) in builders {
        let error = builder.build().unwrap_err();
        assert!(error.kind() == ErrorKind::Config && error.to_string().contains(field), "{error}");
    }
}

#[tokio::test]
async fn debug_shows_no_keys_and_no_values() {
    let backend = InMemoryBackend::new();
    let entry = SetEntry { key: "secret-key", value: "secret-value".into(), ttl: None };
    backend.mset(&[entry]).await.unwrap();
    assert!(!format!("{backend:?}").contains("secret"), "{backend:?}");
}
