//! What a batch costs beside the bare multi-get, and what tags cost.
//!
//! `cargo run --release --manifest-path bench/Cargo.toml --bin batches -- [rounds] [entries]`
//!
//! First: 100 ids that are all there, read through `Cache::get_many_or_load` and by the backend's own `mget` (which decodes
//! and checks nothing), taking turns within each round. Then: so many entries (a million unless said otherwise) on Redis,
//! without tags and under ten thousand, two each: time and memory for each entry, what it costs to invalidate one tag, and
//! what is left when all have expired.

use std::time::{Duration, Instant};

use cache_kit::backend::{CacheBackend, InMemoryBackend, MemcachedBackend, RedisBackend};
use cache_kit::{Cache, LoadOptions, Policy};
use cache_kit_bench::network::median;
use cache_kit_test_support::{MemcachedServer, RedisServer};

const IDS: usize = 100;
const CALLS: u32 = 500;
const TAGS: usize = 10_000;
const LIFE: Duration = Duration::from_secs(90);
const TASKS: usize = 64;

fn value(at: usize) -> String {
    format!("{at:0100}")
}

fn keys(count: usize) -> Vec<String> {
    (0..count).map(|at| format!("item:{at}")).collect()
}

/// Microseconds for one batch of the engine and one bare multi-get.
async fn round(cache: &Cache, keys: &[String]) -> (f64, f64) {
    let backend = cache.backend();
    let bare: Vec<&str> = keys.iter().map(String::as_str).collect();
    let began = Instant::now();
    for _ in 0..CALLS {
        let load = |_| async { Err::<Vec<(String, String)>, _>(std::io::Error::other("all are there")) };
        let found = cache.get_many_or_load::<String, _, _, _, _>(keys, load).await.expect("hits");
        assert!(found.iter().all(Option::is_some));
    }
    let engine = began.elapsed();
    let began = Instant::now();
    for _ in 0..CALLS {
        let found = backend.mget(&bare).await.expect("an answer");
        assert!(found.iter().all(Option::is_some));
    }
    let micros = |took: Duration| took.as_secs_f64() * 1e6 / f64::from(CALLS);
    (micros(engine), micros(began.elapsed()))
}

async fn batches(rounds: u32) {
    let redis = RedisServer::start();
    let memcached = MemcachedServer::start();
    let places: [(&str, Box<dyn CacheBackend>); 3] = [
        ("memory", Box::new(InMemoryBackend::new())),
        ("redis", Box::new(RedisBackend::from_url(&redis.url()).expect("a backend"))),
        (
            "memcached",
            Box::new(
                MemcachedBackend::from_url(&format!("memcached://{}", memcached.addr())).expect("a backend"),
            ),
        ),
    ];
    println!("{IDS} ids, all there; medians of {rounds} rounds, microseconds");
    for (name, backend) in places {
        let cache = Cache::new(backend);
        let keys = keys(IDS);
        for (at, key) in keys.iter().enumerate() {
            cache.set(key, &value(at)).await.expect("stored");
        }
        round(&cache, &keys).await;
        let (mut engine, mut bare, mut ratios) = (Vec::new(), Vec::new(), Vec::new());
        for _ in 0..rounds {
            let (one, other) = round(&cache, &keys).await;
            engine.push(one);
            bare.push(other);
            ratios.push(one / other);
        }
        println!(
            "  {name:9} engine {:7.1}  bare mget {:7.1}  ratio {:.2}",
            median(engine),
            median(bare),
            median(ratios)
        );
    }
}

fn info(server: &RedisServer, field: &str) -> u64 {
    let info = server.command("INFO");
    let line = info.lines().find_map(|line| line.strip_prefix(&format!("{field}:"))).expect("a field of INFO");
    line.trim().parse().expect("a number")
}

fn dbsize(server: &RedisServer) -> u64 {
    let size = server.command("DBSIZE");
    size.trim().trim_start_matches("(integer)").trim().parse().expect("a number")
}

/// Stores so many entries, each with two of the tags if there are any.
async fn store(cache: &Cache, entries: usize, tags: &'static [String]) -> Duration {
    let began = Instant::now();
    let mut tasks = Vec::new();
    for task in 0..TASKS {
        let cache = cache.clone();
        tasks.push(tokio::spawn(async move {
            for at in (task..entries).step_by(TASKS) {
                let key = format!("item:{at}");
                if tags.is_empty() {
                    cache.set(&key, &value(at)).await.expect("stored");
                } else {
                    let tags = [&*tags[at % TAGS], &*tags[(at / TAGS + at) % TAGS]];
                    let options = LoadOptions::default().with_tags(&tags);
                    cache.set_with(&key, options, &value(at)).await.expect("stored");
                }
            }
        }));
    }
    for task in tasks {
        task.await.expect("a task that ends");
    }
    began.elapsed()
}

async fn tags(entries: usize) {
    let names: &'static [String] = Vec::leak((0..TAGS).map(|at| format!("tag:{at}")).collect());
    println!("{entries} entries of 100 bytes that live {LIFE:?}, on Redis");
    for (what, tags) in [("without tags", &names[..0]), ("two of ten thousand tags each", names)] {
        let server = RedisServer::start();
        let policy = Policy::default().with_ttl(LIFE);
        let cache = Cache::builder()
            .policy(policy)
            .build(RedisBackend::from_url(&server.url()).expect("a backend"))
            .expect("a cache");
        let before = info(&server, "used_memory");
        let took = store(&cache, entries, tags).await;
        let each = |total: f64| total / entries as f64;
        println!(
            "  {what}: {:.1} us and {:.0} bytes an entry, {} keys in all",
            each(took.as_secs_f64() * 1e6),
            each((info(&server, "used_memory") - before) as f64),
            dbsize(&server)
        );
        if let Some(tag) = tags.first() {
            let commands = info(&server, "total_commands_processed");
            let began = Instant::now();
            cache.invalidate_tag(tag).await.expect("confirmed");
            // The two questions are commands themselves.
            let commands = info(&server, "total_commands_processed") - commands - 1;
            println!("    one tag invalidated in {:?} with {commands} commands", began.elapsed());
            assert_eq!(cache.get::<String>("item:0").await.expect("an answer"), None);
        }
        let ended = Instant::now();
        let mut left = dbsize(&server);
        while left > 0 && ended.elapsed() < 3 * LIFE {
            tokio::time::sleep(Duration::from_secs(1)).await;
            left = dbsize(&server);
        }
        println!("    {left} keys left {:.0} s after the last was stored", ended.elapsed().as_secs_f64());
    }
}

#[tokio::main]
async fn main() {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse().expect("a number"));
    let rounds: usize = args.next().unwrap_or(9);
    let entries: usize = args.next().unwrap_or(1_000_000);
    batches(u32::try_from(rounds).expect("few")).await;
    tags(entries).await;
}
