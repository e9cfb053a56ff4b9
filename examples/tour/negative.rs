//! What the source does not have is remembered for a moment; an error is not.
//!
//! `cargo run -q --example negative`
#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use std::time::Duration;

use cache_kit::backend::InMemoryBackend;
use cache_kit::{Cache, LoadOptions, Loaded, ManualClock};

/// The answer of a database in which user 7 is `name`.
async fn find_user(name: Option<&str>) -> std::io::Result<Loaded<String>> {
    println!("    (the source is asked)");
    Ok(name.map(str::to_owned).into())
}

#[tokio::main]
async fn main() -> cache_kit::Result<()> {
    let time = ManualClock::new();
    let cache = Cache::builder()
        .clock(time.clock())
        .build(InMemoryBackend::builder().clock(time.clock()).build()?)?;

    println!("nobody has the id 7");
    for _ in 0..3 {
        ask(&cache, None).await?;
    }
    time.advance(Duration::from_secs(10));
    println!("ten seconds later");
    ask(&cache, None).await?;

    println!("the row is created, and invalidated");
    cache.invalidate("user:7").await?;
    ask(&cache, Some("Ada")).await?;

    let stats = cache.stats();
    println!("{} loads, {} answers from what was remembered", stats.loads, stats.absent_hits);
    Ok(())
}

async fn ask(cache: &Cache, row: Option<&'static str>) -> cache_kit::Result<()> {
    let options = LoadOptions::default();
    let user: Option<String> = cache.get_or_load_entry("user:7", options, move |_| find_user(row)).await?;
    println!("    {user:?}");
    Ok(())
}
