//! The shared behaviours, on every backend, boxed, and around every decorator.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cache_kit::backend::redis::RedisBuilder;
use cache_kit::backend::{
    CacheBackend, InMemoryBackend, MemcachedBackend, MemcachedConfig, RedisBackend, RedisConfig,
};
use cache_kit::testing::{FaultyBackend, Subject};
use cache_kit::{ManualClock, Result, backend_suite};
use cache_kit_test_support::{MemcachedServer, RedisCluster, RedisSentinels, RedisServer};

/// A fresh store, and the time that it lives by.
fn memory() -> Subject<InMemoryBackend> {
    let time = ManualClock::new();
    let backend = InMemoryBackend::builder().clock(time.clock()).build().unwrap();
    Subject::manual_time(backend, time)
}

fn bounded() -> Subject<InMemoryBackend> {
    let time = ManualClock::new();
    let builder = InMemoryBackend::builder().clock(time.clock());
    Subject::manual_time(builder.max_entries(10_000).max_bytes(64 << 20).build().unwrap(), time)
}

/// The least that a user's own backend must write; everything else is provided.
struct Minimal(InMemoryBackend);

#[async_trait]
impl CacheBackend for Minimal {
    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        self.0.get(key).await
    }

    async fn set(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<()> {
        self.0.set(key, value, ttl).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.0.delete(key).await
    }
}

backend_suite!(inmemory, async { memory() });
backend_suite!(inmemory_bounded, async { bounded() });
backend_suite!(inmemory_real_time, async { Subject::real_time(InMemoryBackend::new()) });
backend_suite!(boxed, async { memory().map(|backend| Box::new(backend) as Box<dyn CacheBackend>) });
backend_suite!(arced, async { memory().map(|backend| Arc::new(backend) as Arc<dyn CacheBackend>) });
backend_suite!(faulty_without_faults, async { memory().map(|backend| FaultyBackend::new(backend).0) });
backend_suite!(own_minimal, async { memory().map(Minimal) });
backend_suite!(own_minimal_boxed, async {
    memory().map(|backend| Box::new(Minimal(backend)) as Box<dyn CacheBackend>)
});

/// A backend with a prefix of its own on a server that all tests of this file share.
fn redis() -> Subject<RedisBackend> {
    static SERVER: LazyLock<RedisServer> = LazyLock::new(RedisServer::start);
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let builder = RedisBackend::builder(RedisConfig {
        host: "127.0.0.1".into(),
        port: SERVER.port(),
        ..Default::default()
    });
    let prefix = format!("t*{}:", NEXT.fetch_add(1, Ordering::Relaxed));
    Subject::real_time(patient(builder).prefix(prefix).build().unwrap())
}

/// Many tests share two cores: what is slow is not wrong here.
fn patient(builder: RedisBuilder) -> RedisBuilder {
    builder.operation_timeout(Duration::from_secs(10))
}

/// A backend without a prefix, on a server that it has to itself.
fn redis_alone() -> Subject<RedisBackend> {
    // Each lives as long as this process, whose end ends them all.
    static SERVERS: Mutex<Vec<RedisServer>> = Mutex::new(Vec::new());
    let server = RedisServer::start();
    let config =
        RedisConfig { host: "127.0.0.1".into(), port: server.port(), database: 3, ..Default::default() };
    SERVERS.lock().unwrap().push(server);
    Subject::real_time(patient(RedisBackend::builder(config)).build().unwrap())
}

backend_suite!(redis, async { redis() });
backend_suite!(redis_boxed, async { redis().map(|backend| Box::new(backend) as Box<dyn CacheBackend>) });
backend_suite!(redis_arced, async { redis().map(|backend| Arc::new(backend) as Arc<dyn CacheBackend>) });
backend_suite!(redis_faulty_without_faults, async { redis().map(|backend| FaultyBackend::new(backend).0) });
backend_suite!(redis_without_prefix, async { redis_alone() });

/// A backend with a prefix of its own on what this URL names.
fn redis_at(url: &str) -> Subject<RedisBackend> {
    static NEXT: AtomicU64 = AtomicU64::new(0);
    let prefix = format!("app:t{}:", NEXT.fetch_add(1, Ordering::Relaxed));
    Subject::real_time(patient(RedisBackend::builder_from_url(url).unwrap()).prefix(prefix).build().unwrap())
}

fn redis_over_tls() -> Subject<RedisBackend> {
    static SERVER: LazyLock<RedisServer> = LazyLock::new(|| RedisServer::builder().tls().start());
    redis_at(&format!("{}?tls_roots={}", SERVER.url(), SERVER.ca_certificate().display()))
}

fn redis_over_a_unix_socket() -> Subject<RedisBackend> {
    static SERVER: LazyLock<RedisServer> = LazyLock::new(|| RedisServer::builder().unix_socket().start());
    redis_at(&SERVER.url())
}

/// The rules are those of the documentation.
fn redis_with_the_least_rights() -> Subject<RedisBackend> {
    static SERVER: LazyLock<RedisServer> = LazyLock::new(|| {
        RedisServer::builder().acl_user("app", "secret", common::least_rights("app:")).start()
    });
    redis_at(&SERVER.url())
}

fn redis_behind_sentinels() -> Subject<RedisBackend> {
    static SENTINELS: LazyLock<RedisSentinels> = LazyLock::new(RedisSentinels::start);
    redis_at(&SENTINELS.url())
}

fn redis_cluster() -> Subject<RedisBackend> {
    static CLUSTER: LazyLock<RedisCluster> = LazyLock::new(RedisCluster::start);
    redis_at(&CLUSTER.url())
}

/// As the specification has it: a plain config that names a node of a cluster.
fn redis_cluster_by_config() -> Subject<RedisBackend> {
    static CLUSTER: LazyLock<RedisCluster> = LazyLock::new(|| RedisCluster::builder().replicas(0).start());
    redis_at(&format!("redis://{}", CLUSTER.addrs()[0]))
}

backend_suite!(redis_tls, async { redis_over_tls() });
backend_suite!(redis_unix, async { redis_over_a_unix_socket() });
backend_suite!(redis_least_rights, async { redis_with_the_least_rights() });
backend_suite!(redis_sentinel, async { redis_behind_sentinels() });
backend_suite!(redis_cluster, async { redis_cluster() });
backend_suite!(redis_cluster_by_config, async { redis_cluster_by_config() });

/// A backend on one or more servers that it has to itself: Memcached cannot clear a part.
fn memcached(servers: usize) -> Subject<MemcachedBackend> {
    // Each lives as long as this process, whose end ends them all.
    static SERVERS: Mutex<Vec<MemcachedServer>> = Mutex::new(Vec::new());
    let started: Vec<_> = (0..servers).map(|_| MemcachedServer::start()).collect();
    let config = MemcachedConfig {
        servers: started.iter().map(|server| server.addr()).collect(),
        max_connections: 2,
        min_connections: 1,
    };
    SERVERS.lock().unwrap().extend(started);
    let builder = MemcachedBackend::builder(config).operation_timeout(Duration::from_secs(10));
    Subject::real_time(builder.build().unwrap())
}

backend_suite!(memcached, async { memcached(1) });
backend_suite!(memcached_three_servers, async { memcached(3) });
backend_suite!(memcached_boxed, async {
    memcached(1).map(|backend| Box::new(backend) as Box<dyn CacheBackend>)
});
backend_suite!(memcached_arced, async {
    memcached(3).map(|backend| Arc::new(backend) as Arc<dyn CacheBackend>)
});
backend_suite!(memcached_faulty_without_faults, async {
    memcached(1).map(|backend| FaultyBackend::new(backend).0)
});
