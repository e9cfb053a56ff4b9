//! How long a service takes to use its cache again, and what a read costs meanwhile.
//!
//! `cargo run --release --manifest-path bench/Cargo.toml --bin recovery -- [rounds]`
//!
//! Reads go through the cache, from a source that answers at once. Each round a server is killed and started again,
//! or stopped (`SIGSTOP`) and continued; a read follows the other all the time.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cache_kit::{Cache, Source};
use cache_kit_test_support::RedisServer;

/// For the reads of an outage to be many. Longer than three deadlines, which open the breaker.
const OUTAGE: Duration = Duration::from_millis(2_500);

struct Figures {
    name: &'static str,
    /// From the moment that the server answers, or is continued, until the cache answers a read.
    recovered: Vec<Duration>,
    /// What reads took that found the cache down.
    reads: Vec<Duration>,
}

impl Figures {
    fn print(mut self) {
        self.recovered.sort_unstable();
        self.reads.sort_unstable();
        let at = |of: &[Duration], share: f64| of[((of.len() - 1) as f64 * share) as usize];
        println!(
            "{:<24} used again after: median {:?}, p90 {:?}, longest {:?} ({} rounds); \
             a read meanwhile: median {:?}, p99 {:?}, longest {:?} ({} reads)",
            self.name,
            at(&self.recovered, 0.5),
            at(&self.recovered, 0.9),
            at(&self.recovered, 1.0),
            self.recovered.len(),
            at(&self.reads, 0.5),
            at(&self.reads, 0.99),
            at(&self.reads, 1.0),
            self.reads.len()
        );
    }
}

async fn rounds(
    name: &'static str,
    cache: &Cache,
    rounds: usize,
    down: impl Fn(),
    up: impl Fn() + Clone + Send + 'static,
) {
    let mut figures = Figures { name, recovered: Vec::new(), reads: Vec::new() };
    let used = |cache: &Cache| {
        let cache = cache.clone();
        async move { cache.backend().get("any").await.is_ok() }
    };
    for _ in 0..rounds {
        while !used(cache).await {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        down();
        let (began, back) = (Instant::now(), Arc::new(AtomicBool::new(false)));
        let mut starting = None;
        let mut since = None;
        loop {
            if began.elapsed() >= OUTAGE && starting.is_none() {
                let (up, back) = (up.clone(), Arc::clone(&back));
                starting = Some(std::thread::spawn(move || {
                    up();
                    back.store(true, Ordering::SeqCst);
                    Instant::now()
                }));
            }
            let start = Instant::now();
            let load = || async { Ok::<_, std::io::Error>(1_u64) };
            let outcome =
                cache.get_or_load_outcome("key", Default::default(), load).await.expect("the source answers");
            if outcome.is_degraded() {
                figures.reads.push(start.elapsed());
            } else if outcome.source == Source::Cache || starting.is_some() {
                since = starting.take().map(|thread| thread.join().expect("the server starts"));
            }
            if let Some(since) = since {
                figures.recovered.push(since.elapsed());
                break;
            }
            // About as often as a busy service would.
            tokio::time::sleep(Duration::from_micros(200)).await;
        }
    }
    figures.print();
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let count = std::env::args().nth(1).map_or(50, |arg| arg.parse().expect("a number of rounds"));
    let redis = Arc::new(RedisServer::start());
    let cache = Cache::from_url(&format!("redis://127.0.0.1:{}", redis.port())).expect("a cache");
    let (down, up) = (Arc::clone(&redis), Arc::clone(&redis));
    rounds("redis, kill -9", &cache, count, move || down.kill(), move || up.restart()).await;
    let (down, up) = (Arc::clone(&redis), Arc::clone(&redis));
    rounds("redis, SIGSTOP", &cache, count, move || down.pause(), move || up.resume()).await;
}
