//! What the engine adds to the backend's own calls: fence, flight, envelope; beside the same calls without them.
//!
//! `cargo run --release --manifest-path bench/Cargo.toml --bin costs -- [rounds]`
//!
//! Both read 100 bytes through the same backend, one after the other, taking turns within each round. *Bare* is what one
//! writes by hand: `get`, and on a miss the loader and `set`. Round trips are counted by time: a proxy holds each way of
//! the wire up for five milliseconds, beside which everything else is small. Commands are those that the server counts.

use std::time::{Duration, Instant};

use bytes::Bytes;
use cache_kit::Cache;
use cache_kit::backend::{CacheBackend, InMemoryBackend, MemcachedBackend, RedisBackend};
use cache_kit_bench::network::median;
use cache_kit_test_support::{Direction, Fault, FaultProxy, MemcachedServer, RedisServer};

const ONE_WAY: Duration = Duration::from_millis(5);
const CALLS: u32 = 2_000;
const SLOW_CALLS: u32 = 40;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Call {
    Hit,
    Miss,
}

/// A value of 100 bytes.
fn value() -> String {
    "v".repeat(100)
}

async fn by_engine(cache: &Cache, key: &str) {
    let load = || async { Ok::<_, std::io::Error>(value()) };
    let found: String = cache.get_or_load_inline(key, load).await.expect("a value");
    assert_eq!(found.len(), 100);
}

async fn bare(backend: &dyn CacheBackend, key: &str) {
    let found = match backend.get(key).await.expect("an answer") {
        Some(found) => found,
        None => {
            let loaded = Bytes::from(value());
            backend.set(key, loaded.clone(), Some(Duration::from_secs(300))).await.expect("stored");
            loaded
        }
    };
    assert!(found.len() >= 100);
}

/// Microseconds for one call of the engine and one bare one.
async fn round(cache: &Cache, backend: &dyn CacheBackend, call: Call, calls: u32, round: u32) -> (f64, f64) {
    let key = |which: &str, at: u32| match call {
        Call::Hit => format!("{which}:hit"),
        Call::Miss => format!("{which}:{calls}:{round}:{at}"),
    };
    // So that the first call opens no connection, and the hit is one.
    by_engine(cache, &key("engine", 0)).await;
    bare(backend, &key("bare", 0)).await;
    let began = Instant::now();
    for at in 1..=calls {
        by_engine(cache, &key("engine", at)).await;
    }
    let engine = began.elapsed();
    let began = Instant::now();
    for at in 1..=calls {
        bare(backend, &key("bare", at)).await;
    }
    let each = |took: Duration| took.as_secs_f64() * 1e6 / f64::from(calls);
    (each(engine), each(began.elapsed()))
}

async fn compare(name: &str, backend: impl CacheBackend + Clone, calls: u32, rounds: u32) {
    let cache = Cache::new(backend.clone());
    for call in [Call::Hit, Call::Miss] {
        let mut measured = Vec::new();
        for at in 0..rounds {
            measured.push(round(&cache, &backend, call, calls, at).await);
        }
        let engine = median(measured.iter().map(|(engine, _)| *engine).collect());
        let bare = median(measured.iter().map(|(_, bare)| *bare).collect());
        let ratio = median(measured.iter().map(|(engine, bare)| engine / bare).collect());
        let call = if call == Call::Hit { "hit" } else { "miss" };
        let trips = if calls == SLOW_CALLS {
            let trip = 2.0 * ONE_WAY.as_secs_f64() * 1e6;
            format!("  round trips {:.2} / {:.2}", engine / trip, bare / trip)
        } else {
            String::new()
        };
        println!(
            "{name:<28} {call:<5} engine {engine:>10.2} us  bare {bare:>10.2} us  ratio {ratio:.2}{trips}"
        );
    }
}

fn slow(proxy: &FaultProxy) {
    proxy.set(Direction::ToServer, Fault::Delay(ONE_WAY));
    proxy.set(Direction::ToClient, Fault::Delay(ONE_WAY));
}

#[tokio::main]
async fn main() {
    let rounds = std::env::args().nth(1).and_then(|rounds| rounds.parse().ok()).unwrap_or(7);
    let (redis, memcached) = (RedisServer::start(), MemcachedServer::start());
    let redis_at = |addr: String| RedisBackend::from_url(&format!("redis://{addr}?operation_timeout=5s"));
    let memcached_at =
        |addr: String| MemcachedBackend::from_url(&format!("memcached://{addr}?operation_timeout=5s"));
    compare("memory", InMemoryBackend::new(), CALLS, rounds).await;
    compare("redis", redis_at(redis.addr()).expect("a url"), CALLS, rounds).await;
    compare("memcached", memcached_at(memcached.addr()).expect("a url"), CALLS, rounds).await;
    let (proxy, other) = (FaultProxy::start(redis.addr()), FaultProxy::start(memcached.addr()));
    slow(&proxy);
    slow(&other);
    compare("redis, 10 ms away", redis_at(proxy.addr()).expect("a url"), SLOW_CALLS, rounds).await;
    compare("memcached, 10 ms away", memcached_at(other.addr()).expect("a url"), SLOW_CALLS, rounds).await;
}
