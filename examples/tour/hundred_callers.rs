//! A hundred tasks ask for one cold key at the same time: the source is asked once.
//!
//! `cargo run -q --example hundred_callers`
#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cache_kit::Cache;
use tokio::task::JoinSet;

#[tokio::main]
async fn main() -> cache_kit::Result<()> {
    let asked = Arc::new(AtomicU64::new(0));
    println!("without a cache: {}", crowd(None, &asked).await?);

    asked.store(0, Ordering::SeqCst);
    let cache = Cache::from_url("memory://")?;
    println!("with one:        {}", crowd(Some(cache.clone()), &asked).await?);

    let stats = cache.stats();
    println!("{} load, {} readers shared it", stats.loads, stats.shared_loads);
    Ok(())
}

/// A report that takes the database 300 ms.
async fn report(asked: Arc<AtomicU64>) -> std::io::Result<String> {
    asked.fetch_add(1, Ordering::SeqCst);
    tokio::time::sleep(Duration::from_millis(300)).await;
    Ok("sales of today".to_owned())
}

async fn crowd(cache: Option<Cache>, asked: &Arc<AtomicU64>) -> cache_kit::Result<String> {
    let mut tasks = JoinSet::new();
    for _ in 0..100 {
        let (cache, asked) = (cache.clone(), Arc::clone(asked));
        tasks.spawn(async move {
            match cache {
                Some(cache) => cache.get_or_load("report:today", || report(asked)).await,
                None => report(asked).await.map_err(cache_kit::Error::source),
            }
        });
    }
    let answers = tasks.join_all().await.into_iter().collect::<cache_kit::Result<Vec<_>>>()?;
    let asked = asked.load(Ordering::SeqCst);
    Ok(format!("{} answers, the source was asked {asked} times", answers.len()))
}
