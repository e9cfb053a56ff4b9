//! Why a read was answered as it was, in words.
//!
//! `cargo run -q --example explain`
#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use std::io::Error;
use std::time::Duration;

use cache_kit::backend::InMemoryBackend;
use cache_kit::{Cache, CacheStrategy, LoadOptions, ManualClock, Policy};

#[tokio::main]
async fn main() -> cache_kit::Result<()> {
    let time = ManualClock::new();
    let policy = Policy::default()
        .with_ttl(Duration::from_secs(60))
        .with_ttl_jitter(0.0)
        .with_stale_if_error(Duration::from_secs(600));
    let cache = Cache::builder()
        .policy(policy)
        .clock(time.clock())
        .build(InMemoryBackend::builder().clock(time.clock()).build()?)?;

    let options = LoadOptions::default();
    ask(&cache, "nothing is cached", options, Ok(1)).await?;
    time.advance(Duration::from_secs(20));
    ask(&cache, "it was loaded before", options, Ok(2)).await?;

    cache.set("answer", &"a text".to_owned()).await?;
    ask(&cache, "somebody stored another type under the key", options, Ok(3)).await?;

    time.advance(Duration::from_secs(90));
    ask(&cache, "it is past its life, and the source fails", options, Err("timed out")).await?;
    ask(&cache, "at once again", options, Ok(4)).await?;

    let invalidate = options.with_strategy(CacheStrategy::Invalidate);
    ask(&cache, "with the strategy Invalidate", invalidate, Ok(5)).await?;
    let bypass = options.with_strategy(CacheStrategy::Bypass);
    ask(&cache, "with the strategy Bypass", bypass, Ok(6)).await?;
    Ok(())
}

async fn ask(
    cache: &Cache,
    what: &str,
    options: LoadOptions<'_>,
    source: Result<u32, &'static str>,
) -> cache_kit::Result<()> {
    let load = move || async move { source.map_err(Error::other) };
    let outcome = cache.get_or_load_outcome("answer", options, load).await?;
    println!("{what}:\n    {}; {}", outcome.value, outcome.explain());
    Ok(())
}
