//! Leases that are given back from where nobody can wait: outside of a runtime, within one, by one that ends at once, and
//! while the server answers nothing.

#![cfg(all(feature = "redis", feature = "memcached"))]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::future_not_send, reason = "a test looks at its servers from the thread that it runs on")]

mod common;

use std::thread;
use std::time::{Duration, Instant};

use cache_kit::backend::{Acquired, CacheBackend, Lease, MemcachedBackend, MemcachedConfig, RedisBackend};
use cache_kit_test_support::MemcachedServer;
use common::sites::{Site, Way, on_sites};
use common::until;
use tokio::runtime::{Builder, Runtime};

on_sites! {
    [plain unix tls least_rights sentinel cluster] {
        redis_from_a_thread_without_a_runtime
        redis_from_within_a_runtime
        redis_from_a_runtime_that_is_shut_down
    }
    [plain tls] { redis_while_the_server_answers_nothing }
}

/// Far longer than any test.
const LIFE: Duration = Duration::from_secs(600);
const PATIENCE: Duration = Duration::from_secs(10);

async fn lease(backend: &impl CacheBackend, key: &str) -> Lease {
    match backend.acquire(key, None, LIFE).await.unwrap() {
        Acquired::Granted { lease, .. } => lease,
        other => panic!("no lease on {key}: {other:?}"),
    }
}

/// Waits until the server holds nothing under a key.
async fn free(key: &str, is_held: impl Fn(&str) -> bool) {
    until(&format!("{key} is free"), PATIENCE, async || !is_held(key)).await;
}

async fn from_a_thread_without_a_runtime<B: CacheBackend + Clone>(
    backend: B,
    is_held: impl Fn(&str) -> bool,
) {
    let held = lease(&backend, "key").await;
    let outside = backend.clone();
    thread::spawn(move || outside.release_later("key", held)).join().unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(is_held("key"), "sent from nowhere");
    lease(&backend, "another").await;
    free("key", is_held).await;
}

async fn from_within_a_runtime<B: CacheBackend + Clone>(backend: B, is_held: impl Fn(&str) -> bool) {
    // More than are sent at a time; and one after the task has ended.
    for keys in [0..40, 40..41] {
        let mut held = Vec::new();
        for key in keys.map(|number| format!("key:{number}")) {
            held.push((lease(&backend, &key).await, key));
        }
        for (lease, key) in &held {
            backend.release_later(key, lease.clone());
        }
        for (_, key) in &held {
            free(key, &is_held).await;
        }
    }
}

async fn from_a_runtime_that_is_shut_down<B: CacheBackend + Clone>(
    backend: B,
    is_held: impl Fn(&str) -> bool,
) {
    let current_thread = || Builder::new_current_thread().enable_all().build().unwrap();
    let one_worker = || Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    for (round, make) in
        [current_thread as fn() -> Runtime, one_worker].into_iter().cycle().take(20).enumerate()
    {
        let (last, later) = (format!("last:{round}"), format!("later:{round}"));
        let held = lease(&backend, &last).await;
        let runtime = make();
        {
            let _entered = runtime.enter();
            backend.release_later(&last, held);
        }
        runtime.shutdown_background();
        // Where it was by then nobody knows. What comes after it may go the same way, but no further than to the next
        // operation.
        let held = lease(&backend, &later).await;
        backend.release_later(&later, held);
        let released = async || {
            backend.acquire("another", None, LIFE).await.unwrap();
            !is_held(&later)
        };
        until(&format!("{later} is free"), PATIENCE, released).await;
    }
}

async fn while_the_server_answers_nothing<B: CacheBackend + Clone>(
    backend: B,
    is_held: impl Fn(&str) -> bool,
    pause: impl FnOnce(),
    resume: impl FnOnce(),
) {
    let held = lease(&backend, "key").await;
    pause();
    let began = Instant::now();
    for number in 0..5_000 {
        backend.release_later(&format!("key:{number}"), held.clone());
    }
    assert!(
        began.elapsed() < Duration::from_secs(1),
        "{:?} for calls that wait for nothing",
        began.elapsed()
    );
    // Meanwhile they are tried, and given up.
    tokio::time::sleep(Duration::from_millis(500)).await;
    resume();
    until("used again", PATIENCE, async || backend.get("key").await.is_ok()).await;
    let held = lease(&backend, "after").await;
    backend.release_later("after", held);
    free("after", is_held).await;
}

fn redis(site: &Site) -> RedisBackend {
    site.builder().operation_timeout(Duration::from_secs(5)).build().unwrap()
}

/// Whether this key is anything to the server that has it.
fn on(site: &Site) -> impl Fn(&str) -> bool {
    |key| site.command(key, "EXISTS <key>") != "0"
}

async fn redis_from_a_thread_without_a_runtime(way: Way) {
    let site = way.turn().await;
    from_a_thread_without_a_runtime(redis(&site), on(&site)).await;
}

async fn redis_from_within_a_runtime(way: Way) {
    let site = way.turn().await;
    from_within_a_runtime(redis(&site), on(&site)).await;
}

async fn redis_from_a_runtime_that_is_shut_down(way: Way) {
    let site = way.turn().await;
    from_a_runtime_that_is_shut_down(redis(&site), on(&site)).await;
}

async fn redis_while_the_server_answers_nothing(way: Way) {
    let site = way.start();
    let backend = site.builder().operation_timeout(Duration::from_millis(200)).build().unwrap();
    let server = &site.servers()[0];
    while_the_server_answers_nothing(backend, on(&site), || server.pause(), || server.resume()).await;
}

mod memcached {
    use super::*;

    fn backend(server: &MemcachedServer, timeout: Duration) -> MemcachedBackend {
        let config = MemcachedConfig { servers: vec![server.addr()], max_connections: 2, min_connections: 1 };
        MemcachedBackend::builder(config).operation_timeout(timeout).build().unwrap()
    }

    fn on(server: &MemcachedServer) -> impl Fn(&str) -> bool {
        |key| server.command(&format!("mg {key}")).starts_with("HD")
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn from_a_thread_without_a_runtime() {
        let server = MemcachedServer::start();
        super::from_a_thread_without_a_runtime(backend(&server, PATIENCE), on(&server)).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn from_within_a_runtime() {
        let server = MemcachedServer::start();
        super::from_within_a_runtime(backend(&server, PATIENCE), on(&server)).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn from_a_runtime_that_is_shut_down() {
        let server = MemcachedServer::start();
        super::from_a_runtime_that_is_shut_down(backend(&server, PATIENCE), on(&server)).await;
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn while_the_server_answers_nothing() {
        let server = MemcachedServer::start();
        let backend = backend(&server, Duration::from_millis(200));
        let (pause, resume) = (|| server.pause(), || server.resume());
        super::while_the_server_answers_nothing(backend, on(&server), pause, resume).await;
    }
}
