//! Everything of one tenant made invalid by one call, however many entries that is.
//!
//! `cargo run -q --example tags`
#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use std::io::Error;

use cache_kit::{Cache, LoadOptions};

#[tokio::main]
async fn main() -> cache_kit::Result<()> {
    let cache = Cache::from_url("memory://")?;
    println!("two tenants, two pages each: {} loads", read_all(&cache).await?);
    println!("the same again:              {} loads", read_all(&cache).await?);

    cache.invalidate_tag("tenant:acme").await?;
    println!("after invalidate_tag(\"tenant:acme\"): {} loads", read_all(&cache).await?);

    cache.invalidate_tag("page:start").await?;
    println!("after invalidate_tag(\"page:start\"):  {} loads", read_all(&cache).await?);

    cache.clear().await?;
    println!("after clear():                       {} loads", read_all(&cache).await?);
    Ok(())
}

/// Reads the pages of all tenants, and tells how many had to be loaded.
async fn read_all(cache: &Cache) -> cache_kit::Result<u64> {
    let before = cache.stats();
    for tenant in ["acme", "globex"] {
        for page in ["start", "prices"] {
            let (key, tags) =
                (format!("{tenant}:{page}"), [format!("tenant:{tenant}"), format!("page:{page}")]);
            let tags = tags.each_ref().map(String::as_str);
            let options = LoadOptions::default().with_tags(&tags);
            let render = move || async move { Ok::<_, Error>(format!("<h1>{page} of {tenant}</h1>")) };
            cache.get_or_load_with(&key, options, render).await?;
        }
    }
    Ok(cache.stats().since(&before).loads)
}
