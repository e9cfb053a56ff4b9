//! A hit in memory: through the doors of this crate, beside the published crate of the same name and beside
//! bare in-process caches.
//!
//! `cargo bench --manifest-path bench/Cargo.toml --bench memory_hit`
//!
//! A thousand keys, read in an order that depends on nothing but a counter, on one thread, in one run: only
//! the ratios travel. The bare caches hand out an `Arc` and decode nothing; the others decode an owned value.

use std::sync::Arc;

use cache_kit::{Cache, CacheExpander, CacheStrategy, GenericFeeder, InMemoryRepository};
use cache_kit_bench::{Large, Small};
use criterion::{BenchmarkGroup, Criterion, criterion_group, criterion_main, measurement::WallTime};
use tokio::runtime::Runtime;

const KEYS: u64 = 1000;

/// The next of a thousand keys.
struct Next(u64);

impl Next {
    fn at(&mut self) -> usize {
        self.0 = (self.0 + 7) % KEYS;
        usize::try_from(self.0).expect("small")
    }
}

fn hits<T>(criterion: &mut Criterion, name: &str, make: fn(u64) -> T)
where
    T: cache_kit::CacheEntity<Key = String>
        + published::CacheEntity<Key = String>
        + PartialEq
        + std::fmt::Debug,
{
    let runtime = Runtime::new().expect("a runtime");
    let ids: Vec<String> = (0..KEYS).map(|n| n.to_string()).collect();
    let prefix = <T as cache_kit::CacheEntity>::cache_prefix();
    let keys: Vec<String> = ids.iter().map(|id| format!("{prefix}:{id}")).collect();
    let mut group = criterion.benchmark_group(format!("hit/{name}"));

    through_published(&mut group, &runtime, &ids, make);
    through_expander(&mut group, &runtime, &ids, make);
    through_cache(&mut group, &runtime, &keys, make);
    bare(&mut group, &runtime, &keys, make);
    group.finish();
}

fn through_published<T>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    runtime: &Runtime,
    ids: &[String],
    make: fn(u64) -> T,
) where
    T: cache_kit::CacheEntity<Key = String> + published::CacheEntity<Key = String>,
{
    use published::{
        CacheExpander, backend::InMemoryBackend, feed::GenericFeeder, repository::InMemoryRepository,
    };
    let expander = CacheExpander::new(InMemoryBackend::new());
    let mut repository = InMemoryRepository::new();
    for (n, id) in (0..).zip(ids) {
        repository.insert(id.clone(), make(n));
    }
    let mut next = Next(0);
    group.bench_function("published 0.9.1 expander.with", |bencher| {
        bencher.iter(|| {
            let mut feeder = GenericFeeder::<T>::new(ids[next.at()].clone());
            let read = expander.with(&mut feeder, &repository, published::strategy::CacheStrategy::Refresh);
            runtime.block_on(read).expect("a hit");
            feeder.data
        });
    });
}

fn through_expander<T>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    runtime: &Runtime,
    ids: &[String],
    make: fn(u64) -> T,
) where
    T: cache_kit::CacheEntity<Key = String>,
{
    let expander = CacheExpander::new(cache_kit::backend::InMemoryBackend::new());
    let boxed = CacheExpander::new(cache_kit::backend::from_url("memory://").expect("a backend"));
    let mut repository = InMemoryRepository::new();
    for (n, id) in (0..).zip(ids) {
        repository.insert(id.clone(), make(n));
    }
    let mut next = Next(0);
    group.bench_function("expander.with", |bencher| {
        bencher.iter(|| {
            let mut feeder = GenericFeeder::<T>::new(ids[next.at()].clone());
            let read = expander.with(&mut feeder, &repository, CacheStrategy::Refresh);
            runtime.block_on(read).expect("a hit");
            feeder.data
        });
    });
    group.bench_function("expander.get", |bencher| {
        bencher.iter(|| runtime.block_on(expander.get::<T, _>(&ids[next.at()], &repository)).expect("a hit"));
    });
    group.bench_function("expander.get, boxed backend", |bencher| {
        bencher.iter(|| runtime.block_on(boxed.get::<T, _>(&ids[next.at()], &repository)).expect("a hit"));
    });
    assert!(expander.stats().loads <= KEYS, "what was measured were not hits");
}

fn through_cache<T>(
    group: &mut BenchmarkGroup<'_, WallTime>,
    runtime: &Runtime,
    keys: &[String],
    make: fn(u64) -> T,
) where
    T: cache_kit::CacheValue,
{
    let cache = Cache::new(cache_kit::backend::InMemoryBackend::new());
    let mut next = Next(0);
    group.bench_function("cache.get_or_load", |bencher| {
        bencher.iter(|| {
            let at = next.at();
            let load = move || async move { Ok::<_, std::io::Error>(make(at as u64)) };
            runtime.block_on(cache.get_or_load(&keys[at], load)).expect("a hit")
        });
    });
    group.bench_function("cache.get", |bencher| {
        bencher.iter(|| runtime.block_on(cache.get::<T>(&keys[next.at()])).expect("a hit"));
    });
}

fn bare<T>(group: &mut BenchmarkGroup<'_, WallTime>, runtime: &Runtime, keys: &[String], make: fn(u64) -> T)
where
    T: cache_kit::CacheValue,
{
    let moka = moka::future::Cache::<String, Arc<T>>::new(KEYS * 2);
    let quick = quick_cache::sync::Cache::<String, Arc<T>>::new(2 * keys.len());
    for (n, key) in (0..).zip(keys) {
        runtime.block_on(moka.insert(key.clone(), Arc::new(make(n))));
        quick.insert(key.clone(), Arc::new(make(n)));
    }
    let mut next = Next(0);
    group.bench_function("bare moka::future, Arc", |bencher| {
        bencher.iter(|| runtime.block_on(moka.get(&keys[next.at()])).expect("a hit"));
    });
    group.bench_function("bare quick_cache, Arc", |bencher| {
        bencher.iter(|| runtime.block_on(async { quick.get(&keys[next.at()]) }).expect("a hit"));
    });
}

fn memory_hit(criterion: &mut Criterion) {
    hits::<Small>(criterion, "small", Small::new);
    hits::<Large>(criterion, "large", Large::new);
}

criterion_group!(benches, memory_hit);
criterion_main!(benches);
