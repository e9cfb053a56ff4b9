//! A value read through the cache, three times; then invalidated.
//!
//! `cargo run -q --example five_lines`
#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use cache_kit::Cache;

async fn find_user(id: u64) -> std::io::Result<String> {
    println!("    (the source is asked for {id})");
    Ok("Ada".to_owned())
}

#[tokio::main]
async fn main() -> cache_kit::Result<()> {
    let cache = Cache::from_url("memory://")?;
    for _ in 0..3 {
        let name = cache.get_or_load("user:7", || find_user(7)).await?;
        println!("user 7 is {name}");
    }
    cache.invalidate("user:7").await?;
    println!("invalidated");
    let name = cache.get_or_load("user:7", || find_user(7)).await?;
    println!("user 7 is {name}");
    Ok(())
}
