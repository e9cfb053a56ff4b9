//! Many keys at once: one read of the cache, and one query for what is missing.
//!
//! `cargo run -q --example batch`
#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use cache_kit::Cache;

/// `select … where id in (…)`; there are the ids 1 to 9.
async fn find_products(keys: Vec<String>) -> std::io::Result<Vec<(String, String)>> {
    println!("    (one query for {})", keys.join(", "));
    let exists = |key: &String| key.len() == "product:1".len() && !key.ends_with('0');
    Ok(keys.into_iter().filter(exists).map(|key| (key.clone(), key.replace(':', " "))).collect())
}

#[tokio::main]
async fn main() -> cache_kit::Result<()> {
    let cache = Cache::from_url("memory://")?;
    for page in [[1, 2, 3, 4], [3, 4, 5, 10], [10, 5, 4, 3]] {
        println!("the page of {page:?}");
        let keys = page.map(|id| format!("product:{id}"));
        let products = cache.get_many_or_load(keys, find_products).await?;
        for product in products {
            println!("    {}", product.as_deref().unwrap_or("does not exist"));
        }
    }
    Ok(())
}
