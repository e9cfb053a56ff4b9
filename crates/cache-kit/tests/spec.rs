//! The snippets of the specification that concern backends and switching, as written; and what follows from them. Each
//! test is named after the number of the demand that it proves.

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
fn e3_the_sizing_rule_is_a_function() {
    use cache_kit::backend::{pool_size_for, pool_size_here};

    assert_eq!([4, 8, 16, 32].map(pool_size_for), [9, 17, 33, 65]);
    let cores = std::thread::available_parallelism().unwrap().get();
    assert_eq!(pool_size_here(), u32::try_from(cores).unwrap() * 2 + 1);
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

#[cfg(feature = "redis")]
mod redis {
    use cache_kit::CacheExpander;
    use cache_kit::backend::{InMemoryBackend, RedisBackend, RedisConfig};
    use std::time::Duration;

    #[test]
    fn a3_the_configuration_names_seven_fields_and_does_no_io() -> cache_kit::Result<()> {
        let config = RedisConfig {
            host: "localhost".to_string(),
            port: 6379,
            pool_size: 10,
            connection_timeout: Duration::from_secs(5),
            username: None,
            password: None,
            database: 0,
        };

        let backend = RedisBackend::new(config)?;
        let expander = CacheExpander::new(backend);
        let _ = expander;
        Ok(())
    }

    #[test]
    fn a3_the_configuration_examples_compile_as_written() {
        // Basic configuration
        let config = RedisConfig { host: "localhost".to_string(), port: 6379, ..Default::default() };
        assert_eq!((config.pool_size, config.connection_timeout), (16, Duration::from_secs(5)));

        // With authentication
        let config = RedisConfig {
            host: "example.com".to_string(),
            port: 6379,
            password: Some("secret".to_string()),
            database: 1,
            ..Default::default()
        };
        assert!(!format!("{config:?}").contains("secret"), "b1: a password never appears in Debug");

        // With custom pool size
        let config = RedisConfig {
            host: "localhost".to_string(),
            port: 6379,
            pool_size: 32,
            connection_timeout: Duration::from_secs(10),
            ..Default::default()
        };
        assert!(RedisBackend::new(config).is_ok());
    }

    #[test]
    fn a5_managed_services_and_pools_are_configured_as_written_without_any_io() {
        let elasticache = RedisConfig {
            host: "my-cluster.cache.amazonaws.com".to_string(),
            port: 6379,
            pool_size: 20,
            ..Default::default()
        };
        let digital_ocean = RedisConfig {
            host: "my-redis-cluster".to_string(),
            port: 25061,
            pool_size: 15,
            // Note: For TLS, you may need additional configuration
            ..Default::default()
        };
        let redis_cloud = RedisConfig {
            host: "redis-12345.cloud.redislabs.com".to_string(),
            port: 12345,
            password: Some("your-password".to_string()),
            ..Default::default()
        };
        let pool = RedisConfig {
            host: "localhost".to_string(),
            port: 6379,
            pool_size: 16, // Optimized default (8 cores × 2 + 1 ≈ 16)
            connection_timeout: Duration::from_secs(10),
            username: None,
            password: None,
            database: 0,
        };
        for config in [elasticache, digital_ocean, redis_cloud, pool] {
            assert!(RedisBackend::new(config).is_ok());
        }
    }

    #[test]
    fn a5_a_bad_configuration_is_refused_at_once_by_field() {
        let refused = |config: RedisConfig| RedisBackend::new(config).unwrap_err().to_string();
        assert!(refused(RedisConfig { host: String::new(), ..Default::default() }).contains("host"));
        assert!(refused(RedisConfig { pool_size: 0, ..Default::default() }).contains("pool_size"));
    }

    #[test]
    fn e2_switching_backends_compiles_as_written() -> cache_kit::Result<()> {
        // Development (InMemory)
        #[cfg(debug_assertions)]
        let backend = InMemoryBackend::new();

        // Production (Redis)
        #[cfg(not(debug_assertions))]
        let backend = RedisBackend::new(RedisConfig {
            host: std::env::var("REDIS_HOST").unwrap_or_else(|_| "localhost".to_string()),
            port: std::env::var("REDIS_PORT").ok().and_then(|p| p.parse().ok()).unwrap_or(6379),
            ..Default::default()
        })?;

        // Same expander interface
        let expander = CacheExpander::new(backend);
        let _ = expander;

        Ok(())
    }
}

#[cfg(feature = "memcached")]
mod memcached {
    use cache_kit::CacheExpander;
    use cache_kit::backend::{MemcachedBackend, MemcachedConfig};

    #[test]
    fn a4_the_configuration_names_three_fields_and_does_no_io() -> cache_kit::Result<()> {
        let config = MemcachedConfig {
            servers: vec!["localhost:11211".to_string()],
            max_connections: 10,
            min_connections: 2,
        };

        let backend = MemcachedBackend::new(config)?;
        let expander = CacheExpander::new(backend);
        let _ = expander;
        Ok(())
    }

    #[test]
    fn c1_multiple_servers_are_configured_as_written() -> cache_kit::Result<()> {
        let config = MemcachedConfig {
            servers: vec![
                "memcached-01:11211".to_string(),
                "memcached-02:11211".to_string(),
                "memcached-03:11211".to_string(),
            ],
            max_connections: 20,
            min_connections: 5,
        };

        let backend = MemcachedBackend::new(config)?;
        let text = format!("{backend:?}");
        for server in ["memcached-01:11211", "memcached-02:11211", "memcached-03:11211"] {
            assert!(text.contains(server), "{text}");
        }
        Ok(())
    }

    #[test]
    fn f_the_defaults_are_those_of_the_pooling_section() {
        // "cache-kit uses `max_connections: 16` and `min_connections: 4` as optimized defaults"
        let config = MemcachedConfig::default();
        assert_eq!((config.max_connections, config.min_connections), (16, 4));
        assert!(config.servers.is_empty(), "required");
    }

    #[test]
    fn a5_a_bad_configuration_is_refused_at_once_by_field() {
        let server = |name: &str| MemcachedConfig { servers: vec![name.to_owned()], ..Default::default() };
        for (config, names) in [
            (MemcachedConfig::default(), "servers"),
            (MemcachedConfig { max_connections: 0, ..server("h") }, "max_connections"),
            (MemcachedConfig { max_connections: 2, min_connections: 3, ..server("h") }, "min_connections"),
            (server(""), "server"),
            (server("h:port"), "port"),
            (server("h:70000"), "port"),
        ] {
            let error = MemcachedBackend::new(config).unwrap_err();
            assert_eq!(error.kind(), cache_kit::ErrorKind::Config, "{error:?}");
            assert!(error.to_string().contains(names), "{names}: {error}");
        }
        // "a missing port means the protocol's own"
        assert!(format!("{:?}", MemcachedBackend::new(server("h")).unwrap()).contains("h:11211"));
    }

    #[tokio::test]
    async fn c1_all_servers_are_used() {
        use cache_kit_test_support::MemcachedServer;

        let servers = [MemcachedServer::start(), MemcachedServer::start(), MemcachedServer::start()];
        let config = MemcachedConfig {
            servers: servers.iter().map(|server| server.addr()).collect(),
            ..Default::default()
        };
        let expander = CacheExpander::new(MemcachedBackend::new(config).unwrap());
        super::reads_through(&expander).await;
        let users = super::Users::default();
        for id in 0..100 {
            users.put(id, "somebody");
            expander.get::<super::User, _>(&id, &users).await.unwrap();
        }
        let has = |server: &MemcachedServer, id| server.command(&format!("mg user:{id}")) != "EN";
        let items = servers.each_ref().map(|server| (0..100).filter(|id| has(server, *id)).count());
        assert!(items.iter().all(|items| *items > 0) && items.iter().sum::<usize>() == 100, "{items:?}");
    }
}

#[cfg(all(feature = "redis", feature = "memcached"))]
mod switching {
    use std::process::Command;

    use cache_kit::CacheExpander;
    use cache_kit::backend::{
        CacheBackend as _, InMemoryBackend, MemcachedBackend, MemcachedConfig, RedisBackend, RedisConfig,
    };
    use cache_kit_test_support::{MemcachedServer, RedisServer};

    const CHILD: &str = "CACHE_KIT_TEST_CHILD";

    fn create_backend() -> Box<dyn cache_kit::backend::CacheBackend> {
        match std::env::var("CACHE_BACKEND").as_deref() {
            Ok("redis") => {
                let host = std::env::var("REDIS_HOST").unwrap_or_else(|_| "localhost".to_string());
                let port = std::env::var("REDIS_PORT").ok().and_then(|p| p.parse().ok()).unwrap_or(6379);
                Box::new(
                    RedisBackend::new(RedisConfig { host, port, ..Default::default() })
                        .expect("Failed to connect to Redis"),
                )
            }
            Ok("memcached") => {
                let servers = std::env::var("MEMCACHED_SERVERS")
                    .expect("MEMCACHED_SERVERS required")
                    .split(',')
                    .map(String::from)
                    .collect();
                Box::new(
                    MemcachedBackend::new(MemcachedConfig { servers, ..Default::default() })
                        .expect("Failed to connect to Memcached"),
                )
            }
            _ => Box::new(InMemoryBackend::new()),
        }
    }

    /// The application; run by the test below in processes with environments of their own.
    #[tokio::test]
    async fn child_that_reads_through_what_the_environment_selects() {
        if std::env::var_os(CHILD).is_none() {
            return;
        }
        let expander = CacheExpander::new(create_backend());
        super::reads_through(&expander).await;
        println!("[{}]", expander.backend().capabilities().name);
    }

    #[test]
    fn e2_the_environment_switches_backends_and_no_application_code_changes() {
        let (redis, memcached) = (RedisServer::start(), [MemcachedServer::start(), MemcachedServer::start()]);
        let port = redis.port().to_string();
        let servers = memcached.each_ref().map(|server| server.addr()).join(",");
        let on_redis = [("CACHE_BACKEND", "redis"), ("REDIS_HOST", "127.0.0.1"), ("REDIS_PORT", &port)];
        let on_memcached = [("CACHE_BACKEND", "memcached"), ("MEMCACHED_SERVERS", &servers)];
        for (environment, selected) in
            [(&[][..], "[memory]"), (&on_redis[..], "[redis]"), (&on_memcached[..], "[memcached]")]
        {
            let mut child = Command::new(std::env::current_exe().unwrap());
            let test = "switching::child_that_reads_through_what_the_environment_selects";
            child.args(["--exact", test, "--nocapture"]).env_remove("CACHE_BACKEND").env(CHILD, "1");
            let output = child.envs(environment.iter().copied()).output().unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success() && text.contains(selected), "{selected}: {text}");
        }
        // A key is on one of them.
        let has_it = |server: &&MemcachedServer| server.command("mg user:1") != "EN";
        assert_eq!(memcached.iter().filter(has_it).count(), 1);
        assert_eq!(redis.command("EXISTS user:1"), "1");
    }
}
