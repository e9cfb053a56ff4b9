//! The source is down, and what the cache still has is served for an hour.
//!
//! `cargo run -q --example stale_on_error`
#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use std::io::Error;
use std::time::Duration;

use cache_kit::backend::InMemoryBackend;
use cache_kit::{Cache, LoadOptions, ManualClock, Policy};

#[tokio::main]
async fn main() -> cache_kit::Result<()> {
    let time = ManualClock::new(); // Moved by hand, so that nobody has to wait for it.
    let policy = Policy::default()
        .with_ttl(Duration::from_secs(60))
        .with_ttl_jitter(0.0)
        .with_stale_if_error(Duration::from_secs(3600));
    let cache = Cache::builder()
        .policy(policy)
        .clock(time.clock())
        .build(InMemoryBackend::builder().clock(time.clock()).build()?)?;

    ask(&cache, true).await;
    time.advance(Duration::from_secs(30));
    ask(&cache, false).await;
    time.advance(Duration::from_secs(60));
    ask(&cache, false).await;
    ask(&cache, false).await;
    time.advance(Duration::from_secs(2));
    ask(&cache, true).await;
    time.advance(Duration::from_secs(60 + 3600));
    ask(&cache, false).await;
    Ok(())
}

async fn ask(cache: &Cache, is_up: bool) {
    let load = move || async move {
        if is_up { Ok(4200) } else { Err(Error::other("connection refused by the database")) }
    };
    println!("the source is {}", if is_up { "up" } else { "down" });
    match cache.get_or_load_outcome("price:7", LoadOptions::default(), load).await {
        Ok(outcome) => println!("    {} cents; {}", outcome.value, outcome.explain()),
        Err(error) => println!("    {error:#}"),
    }
}
