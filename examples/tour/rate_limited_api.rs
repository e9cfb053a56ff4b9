//! An API of somebody else's that allows three calls an hour, and says how long its answers are good for.
//!
//! `cargo run -q --example rate_limited_api`
#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use std::io::Error;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use cache_kit::backend::InMemoryBackend;
use cache_kit::{Cache, LoadOptions, Loaded, ManualClock, Policy};

const MINUTE: Duration = Duration::from_secs(60);

/// What is left of the quota of this hour.
#[derive(Default)]
struct Api {
    calls_left: AtomicU32,
}

impl Api {
    /// The rate of the dollar; the answer carries a `max-age` of ten minutes.
    async fn rate(&self) -> Result<Loaded<u32>, Error> {
        let took =
            self.calls_left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        match took {
            Ok(left) => Ok(Loaded::value(90 + left).with_ttl(10 * MINUTE)),
            Err(_) => Err(Error::other("429 Too Many Requests")),
        }
    }
}

#[tokio::main]
async fn main() -> cache_kit::Result<()> {
    let time = ManualClock::new();
    let policy = Policy::default()
        .with_ttl_jitter(0.0)
        .with_stale_if_error(6 * 60 * MINUTE)
        .with_retry_after_error(15 * MINUTE);
    let cache = Cache::builder()
        .policy(policy)
        .clock(time.clock())
        .build(InMemoryBackend::builder().clock(time.clock()).build()?)?;

    let api = Arc::new(Api::default());
    for minute in 0..120 {
        if minute % 60 == 0 {
            api.calls_left.store(3, Ordering::SeqCst);
            println!("hour {}: the quota is 3 calls", minute / 60 + 1);
        }
        let (before, source) = (cache.stats(), Arc::clone(&api));
        let load = move |_| async move { source.rate().await };
        let options = LoadOptions::default();
        let outcome = cache.get_or_load_entry_outcome("rate:usd", options, load).await?;
        if cache.stats().since(&before).loads > 0 {
            let cents = outcome.value.unwrap_or_default();
            println!("    minute {:2}: {cents} cents, {}", minute % 60, outcome.explain());
        }
        time.advance(MINUTE);
    }
    let stats = cache.stats();
    println!(
        "120 reads: {} calls of the API, {} of them refused, no read failed",
        stats.loads, stats.load_failures
    );
    Ok(())
}
