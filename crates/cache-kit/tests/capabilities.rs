//! Tiers and comparison are data, and the documented table says the same.

use cache_kit::backend::{
    CacheBackend, Capabilities, DataModel, Distribution, Eviction, Fence, InMemoryBackend, Persistence, Tier,
};

/// The column of a backend in the documented table, by feature.
fn documented(backend: &str) -> Vec<(String, String)> {
    let table = include_str!("../src/backend/comparison.md");
    let rows: Vec<Vec<String>> = table
        .lines()
        .filter(|line| line.starts_with('|') && !line.starts_with("|---"))
        .map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect())
        .collect();
    let column = rows[0].iter().position(|name| name == backend).expect("a column for the backend");
    rows[1..].iter().map(|row| (row[0].clone(), row[column].clone())).collect()
}

fn yes(able: bool) -> String {
    if able { "Yes".into() } else { "No".into() }
}

fn rows(able: &Capabilities, memory: &str) -> Vec<(String, String)> {
    let row = |name: &str, value: String| (name.to_owned(), value);
    vec![
        row("Tier", able.tier.to_string()),
        row("Production ready", yes(able.tier == Tier::Production)),
        row("Persistence", able.persistence.to_string()),
        row("Distribution", able.distribution.to_string()),
        row("Data structures", able.data_model.to_string()),
        row("Memory management", memory.to_owned()),
        row("Pattern delete", yes(able.pattern_delete)),
        row("Pub/Sub", yes(able.pub_sub)),
        row("Transactions", yes(able.transactions)),
        row("Fenced fills", yes(able.fence != Fence::None)),
        row("TTL resolution", format!("{} ms", able.ttl_resolution.as_millis())),
    ]
}

#[test]
fn the_documented_table_says_what_capabilities_say() {
    let (unbounded, bounded) =
        (InMemoryBackend::new(), InMemoryBackend::builder().max_entries(10).build().unwrap());
    assert_eq!(unbounded.capabilities().eviction, Eviction::Manual);
    assert_eq!(bounded.capabilities().eviction, Eviction::Bounded);
    let memory = "Manual, or bounded with eviction";
    assert_eq!(rows(&unbounded.capabilities(), memory), documented("InMemory"));
    assert_eq!(rows(&bounded.capabilities(), memory), documented("InMemory"));
}

#[cfg(feature = "redis")]
#[test]
fn redis_is_what_the_table_and_the_specification_say() {
    let able = cache_kit::backend::RedisBackend::new(cache_kit::backend::RedisConfig::default())
        .unwrap()
        .capabilities();
    assert_eq!(able.eviction, Eviction::ServerPolicy);
    assert_eq!(rows(&able, "Eviction policies of the server"), documented("Redis"));
    assert_eq!((able.name, able.tier, able.persistence), ("redis", Tier::Production, Persistence::Optional));
}

#[cfg(feature = "memcached")]
mod memcached {
    use std::time::Duration;

    use cache_kit::backend::{MemcachedBackend, MemcachedConfig};
    use cache_kit::{Cache, ErrorKind};

    use super::*;

    /// Over a server that nobody asks for anything.
    fn config() -> MemcachedConfig {
        MemcachedConfig { servers: vec!["localhost".to_owned()], ..Default::default() }
    }

    #[test]
    fn memcached_is_what_the_table_and_the_specification_say() {
        let able = MemcachedBackend::new(config()).unwrap().capabilities();
        assert_eq!(able.eviction, Eviction::Lru);
        assert_eq!(rows(&able, "LRU"), documented("Memcached"));
        assert_eq!(
            (able.name, able.tier, able.persistence, able.distribution, able.data_model),
            ("memcached", Tier::Production, Persistence::No, Distribution::MultiServer, DataModel::KeyValue)
        );
        assert!(!able.pattern_delete && !able.pub_sub && !able.transactions);
        assert_eq!((able.fence, able.ttl_resolution), (Fence::Leases, Duration::from_secs(2)));
    }

    #[tokio::test]
    async fn what_memcached_cannot_do_is_a_typed_error_that_names_it() {
        let plain = MemcachedBackend::new(config()).unwrap();
        let prefixed = MemcachedBackend::builder(config()).prefix("shop:").build().unwrap();
        let boxed: Box<dyn CacheBackend> = Box::new(plain.clone());
        let cache = Cache::builder().namespace("shop").build(plain.clone()).unwrap();
        for (operation, error) in [
            ("delete_pattern", plain.delete_pattern("user:*").await.unwrap_err()),
            ("delete_pattern", boxed.delete_pattern("user:*").await.unwrap_err()),
            ("delete_pattern", cache.invalidate_matching("user:*").await.unwrap_err()),
            ("clear_all", prefixed.clear_all().await.unwrap_err()),
        ] {
            assert_eq!(error.kind(), ErrorKind::Unsupported, "{error:?}");
            assert_eq!((error.backend(), error.operation()), (Some("memcached"), Some(operation)));
            assert!(error.hint().is_some() && !error.is_transient(), "{error:?}");
            assert!(!error.to_string().contains("user:"), "{error}");
        }
    }
}

#[test]
fn memory_is_what_the_specification_says() {
    let able = InMemoryBackend::new().capabilities();
    assert_eq!(
        (able.name, able.tier, able.persistence, able.distribution, able.data_model),
        ("memory", Tier::DevTest, Persistence::No, Distribution::SingleProcess, DataModel::KeyValue)
    );
    assert!(!able.pub_sub && !able.transactions);
}

#[test]
fn a_backend_that_says_nothing_claims_nothing() {
    let able = Capabilities::minimal("mine");
    assert_eq!((able.fence, able.pattern_delete, able.pub_sub), (Fence::None, false, false));
}
