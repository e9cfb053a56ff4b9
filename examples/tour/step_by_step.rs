//! Two minutes of a shop, once for each feature that is added: what is asked of the database, and what visitors see.
//!
//! `cargo run -q --example step_by_step`
#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use std::io::Error;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cache_kit::backend::InMemoryBackend;
use cache_kit::{Cache, LoadOptions, ManualClock, Policy};
use tokio::sync::Notify;
use tokio::task::JoinSet;

const SECONDS: u32 = 120;
const VISITORS: u32 = 20;
/// What a page shows. 7 and 8 were taken out of the shop; the page still asks for them.
const PAGE: [u32; 8] = [1, 2, 3, 4, 5, 6, 7, 8];

/// The database: prices in cents.
#[derive(Default)]
struct Shop {
    price_of_1: AtomicU32,
    is_down: Mutex<bool>,
    queries: AtomicU32,
    turn: Notify,
}

impl Shop {
    async fn find(&self, keys: Vec<String>) -> Result<Vec<(String, u32)>, Error> {
        self.queries.fetch_add(1, Ordering::SeqCst);
        self.turn.notified().await; // Until all visitors have asked for what they want.
        if *self.is_down.lock().unwrap_or_else(PoisonError::into_inner) {
            return Err(Error::other("the database is down"));
        }
        let price = self.price_of_1.load(Ordering::SeqCst);
        let exists = |key: &String| !matches!(key.as_str(), "price:7" | "price:8");
        Ok(keys.into_iter().filter(exists).map(|key| (key, price)).collect())
    }

    async fn find_one(&self, key: String) -> Result<u32, Error> {
        let mut found = self.find(vec![key]).await?;
        found.pop().map(|(_, price)| price).ok_or_else(|| Error::other("no such product"))
    }
}

/// How a page gets its prices.
#[derive(Clone, Copy, PartialEq)]
enum Reads {
    WithoutCache,
    OneByOne,
    InBatches,
}

struct Step {
    what: &'static str,
    reads: Reads,
    policy: Policy,
    invalidates: bool,
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> cache_kit::Result<()> {
    let (ten, hour) = (Duration::from_secs(10), Duration::from_secs(3600));
    let plain = Policy::default().with_ttl_jitter(0.0).with_ttl(ten).with_absent_ttl(Duration::ZERO);
    let negative = plain.with_absent_ttl(ten);
    let stale = negative.with_stale_if_error(hour);
    let long = stale.with_ttl(hour).with_absent_ttl(hour);
    let step = |what, reads, policy| Step { what, reads, policy, invalidates: false };
    let steps = [
        step("no cache", Reads::WithoutCache, plain),
        step("get_or_load, ttl 10 s", Reads::OneByOne, plain),
        step("get_many_or_load: one query a page", Reads::InBatches, plain),
        step("absent_ttl 10 s: what is not there", Reads::InBatches, negative),
        step("stale_if_error 1 h: an outage", Reads::InBatches, stale),
        Step { invalidates: true, ..step("ttl 1 h, and invalidate on change", Reads::InBatches, long) },
    ];
    println!("{:36} {:>8} {:>13} {:>15}", "", "queries", "pages failed", "pages outdated");
    for step in steps {
        let [queries, failed, outdated] = two_minutes(&step).await?;
        println!("{:36} {queries:>8} {failed:>13} {outdated:>15}", step.what);
    }
    Ok(())
}

/// 20 visitors a second. Prices change after 35 s and 95 s; the database is down from second 60 to 70.
async fn two_minutes(step: &Step) -> cache_kit::Result<[u32; 3]> {
    let time = ManualClock::new();
    let backend = InMemoryBackend::builder().clock(time.clock()).build()?;
    let cache = Cache::builder().policy(step.policy).clock(time.clock()).build(backend)?;
    let shop = Arc::new(Shop::default());
    let (mut failed, mut outdated) = (0, 0);
    for second in 0..SECONDS {
        *shop.is_down.lock().unwrap_or_else(PoisonError::into_inner) = (60..70).contains(&second);
        if second == 35 || second == 95 {
            shop.price_of_1.fetch_add(1, Ordering::SeqCst);
            if step.invalidates {
                cache.invalidate_many(PAGE.map(|id| format!("price:{id}"))).await?;
            }
        }
        let mut visitors = JoinSet::new();
        for _ in 0..VISITORS {
            visitors.spawn(visit(step.reads, cache.clone(), Arc::clone(&shop)));
        }
        while !visitors.is_empty() {
            // On one thread, whatever is ready runs before this goes on.
            tokio::task::yield_now().await;
            shop.turn.notify_waiters();
            while let Some(page) = visitors.try_join_next() {
                match page.map_err(cache_kit::Error::source)?? {
                    None => failed += 1,
                    Some(price) if price != shop.price_of_1.load(Ordering::SeqCst) => outdated += 1,
                    Some(_) => {}
                }
            }
        }
        time.advance(Duration::from_secs(1));
    }
    Ok([shop.queries.load(Ordering::SeqCst), failed, outdated])
}

/// The price of product 1 as the page shows it, or nothing if one of the six that exist is missing from the page.
async fn visit(reads: Reads, cache: Cache, shop: Arc<Shop>) -> cache_kit::Result<Option<u32>> {
    let keys = PAGE.map(|id| format!("price:{id}"));
    let mut prices = Vec::new();
    if reads == Reads::InBatches {
        let load = move |keys| {
            let shop = Arc::clone(&shop);
            async move { shop.find(keys).await }
        };
        let answers = cache.get_many_or_load_outcomes(keys, LoadOptions::default(), load).await?;
        prices.extend(answers.into_iter().map(|answer| answer.ok().and_then(|outcome| outcome.value)));
    } else {
        for key in keys {
            let (shop, id) = (Arc::clone(&shop), key.clone());
            let price = match reads {
                Reads::WithoutCache => shop.find_one(id).await.ok(),
                _ => cache.get_or_load(&key, move || async move { shop.find_one(id).await }).await.ok(),
            };
            prices.push(price);
        }
    }
    let is_whole = prices.iter().take(6).all(Option::is_some);
    Ok(prices[0].filter(|_| is_whole))
}
