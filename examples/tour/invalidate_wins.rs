//! A load that is under way loses against an invalidation: what it read before is not stored.
//!
//! `cargo run -q --example invalidate_wins`
#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use std::io::Error;
use std::sync::{Arc, Mutex};

use cache_kit::testing::Gate;
use cache_kit::{Cache, LoadOptions};

#[tokio::main]
async fn main() -> cache_kit::Result<()> {
    let cache = Cache::from_url("memory://")?;
    let row = Arc::new(Mutex::new("Ada".to_owned()));
    let network = Gate::new(); // Holds the first answer of the database up.

    println!("reader 1   finds nothing in the cache and asks the database");
    let (reader, table, slow) = (cache.clone(), Arc::clone(&row), network.clone());
    let first = tokio::spawn(async move {
        let load = move || async move {
            let name = read(&table);
            slow.pass().await;
            Ok::<_, Error>(name)
        };
        reader.get_or_load_outcome("user:7", LoadOptions::default(), load).await
    });
    network.reached().await;
    println!("database   has read {:?}; the answer is on its way", read(&row));

    *row.lock().unwrap_or_else(|row| row.into_inner()) = "Grace".to_owned();
    println!("writer     renames the user to {:?} and commits", read(&row));
    cache.invalidate("user:7").await?;
    println!("writer     invalidates user:7, and the backend confirms it");

    let table = Arc::clone(&row);
    let second = cache.get_or_load("user:7", move || async move { Ok::<_, Error>(read(&table)) }).await?;
    println!("reader 2   comes now, does not join the old load, and gets {second:?}");

    network.open();
    let outcome = first.await.map_err(cache_kit::Error::source)??;
    println!("reader 1   gets {:?}, which it asked for before; stored: {:?}", outcome.value, outcome.stored);
    println!("           {}", outcome.explain());
    println!("cache      has {:?}", cache.get::<String>("user:7").await?);
    Ok(())
}

fn read(row: &Mutex<String>) -> String {
    row.lock().unwrap_or_else(|row| row.into_inner()).clone()
}
