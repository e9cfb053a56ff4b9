//! A loop of hits through one door, to count instructions:
//!
//! `valgrind --tool=callgrind --callgrind-out-file=/dev/null target/bench/release/hits cache.get 100000`
//!
//! Run it with two counts: the difference, divided, is what one hit costs.

use std::future::Future;
use std::pin::pin;
use std::task::{Context, Poll, Waker};

use cache_kit::{Cache, CacheExpander, CacheStrategy, GenericFeeder, InMemoryRepository};
use cache_kit_bench::Small;

/// A hit in memory is ready at once.
fn now<F: Future>(future: F) -> F::Output {
    match pin!(future).poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(output) => output,
        Poll::Pending => panic!("a hit waits"),
    }
}

fn main() {
    let mut args = std::env::args().skip(1);
    let door = args.next().unwrap_or_default();
    let count: u64 = args.next().and_then(|count| count.parse().ok()).unwrap_or(1);
    let id = "1234".to_owned();
    match door.as_str() {
        "cache.get" | "cache.get_or_load" | "cache.get, no expiry" => {
            let builder = match door.as_str() {
                "cache.get, no expiry" => Cache::builder().ttl_policy(cache_kit::TtlPolicy::Infinite),
                _ => Cache::builder(),
            };
            let cache = builder.build(cache_kit::backend::InMemoryBackend::new()).expect("a cache");
            now(cache.set("small:1234", &Small::new(1234))).expect("stored");
            for _ in 0..count {
                if door.starts_with("cache.get,") || door == "cache.get" {
                    std::hint::black_box(now(cache.get::<Small>("small:1234"))).expect("a hit");
                } else {
                    let load = || async { Err::<Small, _>(std::io::Error::other("not a hit")) };
                    std::hint::black_box(now(cache.get_or_load("small:1234", load))).expect("a hit");
                }
            }
        }
        "expander.get" | "expander.with" => {
            let expander = CacheExpander::new(cache_kit::backend::InMemoryBackend::new());
            let mut repository = InMemoryRepository::new();
            repository.insert(id.clone(), Small::new(1234));
            for _ in 0..count {
                if door == "expander.get" {
                    std::hint::black_box(now(expander.get::<Small, _>(&id, &repository))).expect("a hit");
                } else {
                    let mut feeder = GenericFeeder::<Small>::new(id.clone());
                    now(expander.with(&mut feeder, &repository, CacheStrategy::Refresh)).expect("a hit");
                    std::hint::black_box(feeder.data);
                }
            }
        }
        "published" => {
            use published::{backend::InMemoryBackend, feed::GenericFeeder, repository::InMemoryRepository};
            let expander = published::CacheExpander::new(InMemoryBackend::new());
            let mut repository = InMemoryRepository::new();
            repository.insert(id.clone(), Small::new(1234));
            for _ in 0..count {
                let mut feeder = GenericFeeder::<Small>::new(id.clone());
                let refresh = published::strategy::CacheStrategy::Refresh;
                now(expander.with(&mut feeder, &repository, refresh)).expect("a hit");
                std::hint::black_box(feeder.data);
            }
        }
        "backend.get" | "backend.peek" => {
            use cache_kit::backend::{CacheBackend, InMemoryBackend};
            let backend = InMemoryBackend::new();
            now(backend.set("small:1234", vec![7; 114].into(), None)).expect("stored");
            for _ in 0..count {
                if door == "backend.get" {
                    std::hint::black_box(now(backend.get("small:1234"))).expect("a hit");
                } else {
                    std::hint::black_box(backend.peek("small:1234"));
                }
            }
        }
        other => panic!(
            "no door named `{other}`: cache.get, cache.get_or_load, expander.get, expander.with, published"
        ),
    }
}
