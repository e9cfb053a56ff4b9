//! The snippets of the specification that concern memory and switching, as written; and what follows from
//! them. Each test is named after the number of the demand that it proves.
//!
//! The snippets that name `RedisBackend`, `RedisConfig`, `MemcachedBackend` or `MemcachedConfig` join with
//! those backends:
//!
//! - Redis: "Configuration", the three "Configuration Examples", the three "Managed Redis Services",
//!   "Pool Configuration"
//! - Memcached: "Configuration", "Multiple Memcached Servers"
//! - both: the two snippets of "Switching Backends" (their in-memory arms are below)

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(unused_qualifications, reason = "paths stand as the specification writes them")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use cache_kit::backend::CacheBackend;
use cache_kit::{CacheService, CacheStrategy, GenericFeeder};
use common::{User, Users};

#[test]
fn a1_the_version_is_0_9() {
    assert!(env!("CARGO_PKG_VERSION").starts_with("0.9."));
}

#[tokio::test]
async fn a6_the_in_memory_configuration_compiles_as_written() {
    use cache_kit::CacheExpander;
    use cache_kit::backend::InMemoryBackend;

    let backend = InMemoryBackend::new();
    let expander = CacheExpander::new(backend);

    reads_through(&expander).await;
    let _ = CacheExpander::new(InMemoryBackend::default());
}

#[tokio::test]
async fn a7_any_backend_goes_in_by_value_boxed_and_shared() {
    use cache_kit::CacheExpander;
    use cache_kit::backend::InMemoryBackend;

    let boxed: Box<dyn cache_kit::backend::CacheBackend> = Box::new(InMemoryBackend::new());
    let shared: Arc<dyn CacheBackend> = Arc::new(InMemoryBackend::new());
    reads_through(&CacheExpander::new(InMemoryBackend::new())).await;
    reads_through(&CacheExpander::new(boxed)).await;
    reads_through(&CacheExpander::new(shared)).await;
}

/// Code of a user, generic over the backend.
async fn reads_through<B: CacheBackend>(expander: &cache_kit::CacheExpander<B>) {
    let users = Users::with(&[(1, "one")]);
    for _ in 0..2 {
        let mut feeder = GenericFeeder::<User>::new(1);
        expander.with(&mut feeder, &users, CacheStrategy::Refresh).await.unwrap();
        assert_eq!(feeder.data.unwrap().name, "one");
    }
    assert_eq!(users.asked(), 1);
    assert!(expander.backend().exists("user:1").await.unwrap());
}

#[test]
fn a7_futures_are_send_for_every_backend() {
    fn assert_send<T: Send>(_: &T) {}
    fn check<B: CacheBackend>(expander: &cache_kit::CacheExpander<B>, users: &Users) {
        assert_send(&expander.get::<User, _>(&1, users));
        assert_send(&expander.get_many::<User, _>(&[1], users));
        assert_send(&expander.invalidate::<User>(&1));
    }
    let users = Users::default();
    check(&cache_kit::CacheExpander::new(cache_kit::backend::InMemoryBackend::new()), &users);
    check(&cache_kit::CacheExpander::new(cache_kit::backend::from_url("memory://").unwrap()), &users);
}

#[tokio::test]
async fn a8_switching_at_compile_time_changes_no_application_code() {
    use cache_kit::CacheExpander;
    use cache_kit::backend::InMemoryBackend;

    // Development (InMemory)
    #[cfg(debug_assertions)]
    let backend = InMemoryBackend::new();
    #[cfg(not(debug_assertions))]
    let backend = InMemoryBackend::builder().max_entries(1000).build().unwrap();

    // Same expander interface
    let expander = CacheExpander::new(backend);
    reads_through(&expander).await;
}

#[tokio::test]
async fn e2_selection_by_environment_gives_a_boxed_backend() {
    use cache_kit::backend::InMemoryBackend;

    fn create_backend() -> Box<dyn cache_kit::backend::CacheBackend> {
        match std::env::var("CACHE_BACKEND").as_deref() {
            Ok("inmemory") => cache_kit::backend::from_env().unwrap(),
            _ => Box::new(InMemoryBackend::new()),
        }
    }
    reads_through(&cache_kit::CacheExpander::new(create_backend())).await;
}

#[test]
fn e6_the_metrics_of_the_specification_compile_as_written() {
    struct CacheMetrics {
        hits: AtomicU64,
        misses: AtomicU64,
        errors: AtomicU64,
    }

    #[expect(clippy::cast_precision_loss, reason = "as written in the specification")]
    impl CacheMetrics {
        fn hit_rate(&self) -> f64 {
            let hits = self.hits.load(Ordering::Relaxed);
            let misses = self.misses.load(Ordering::Relaxed);
            if hits + misses == 0 {
                return 0.0;
            }
            hits as f64 / (hits + misses) as f64
        }
    }

    let metrics = CacheMetrics { hits: 3.into(), misses: 1.into(), errors: 0.into() };
    assert!((metrics.hit_rate() - 0.75).abs() < f64::EPSILON);
    assert_eq!(metrics.errors.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn e6_metrics_are_ready_made() {
    let service = CacheService::new(cache_kit::backend::InMemoryBackend::new());
    let users = Users::with(&[(1, "one")]);
    for _ in 0..4 {
        service.get::<User, _>(&1, &users).await.unwrap();
    }
    let stats = service.stats();
    assert_eq!((stats.hits, stats.misses, stats.backend_errors), (3, 1, 0));
    assert!((stats.hit_rate() - 0.75).abs() < f64::EPSILON);
}
