//! What the source does not have is remembered for a moment; an error is not.
//!
//! `cargo run -q --example negative`
#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use std::time::Duration;

use cache_kit::{Cache, ManualClock};

/// The answer of a database in which user 7 is `name`.
async fn find_user(name: Option<&str>) -> std::io::Result<Option<String>> {
    println!("    (the source is asked)");
    Ok(name.map(str::to_owned))
}

#[tokio::main]
async fn main() -> cache_kit::Result<()> {
    let time = ManualClock::new();
    let cache = Cache::builder().clock(time.clock()).build_url("memory://")?;

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
    let user = cache.get_or_load_optional("user:7", move || find_user(row)).await?;
    println!("    {user:?}");
    Ok(())
}
