//! What runs behind the requests for the live page: a sample each second, and steady traffic if it is asked for.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde::Serialize;
use tokio::task::JoinSet;
use tokio::time::{MissedTickBehavior, interval, timeout};

use crate::error::log;
use crate::model::Product;
use crate::shop::Shop;
use crate::writes;

/// Reads a second, when traffic is on.
pub(crate) const RATE: u64 = 100;
/// Reads of the traffic that are under way at a time.
const AT_A_TIME: usize = 32;
/// One read in so many is followed by an update.
const UPDATE_EVERY: u64 = 4 * RATE;
/// Seconds that are kept.
pub(crate) const KEPT: usize = 60;
/// The rate of hits is that of so many seconds.
const RECENT: usize = 10;

/// One second.
#[derive(Clone, Copy, Debug, Default, Serialize)]
pub(crate) struct Second {
    /// Entities that were asked for.
    pub(crate) reads: u64,
    /// Queries to the database that read.
    pub(crate) queries: u64,
    pub(crate) cache_on: bool,
    #[serde(skip)]
    looked_up: u64,
    #[serde(skip)]
    hits: u64,
}

/// The last seconds.
#[derive(Default)]
pub(crate) struct Pulse {
    seconds: Mutex<(u64, VecDeque<Second>)>,
    unreachable: AtomicBool,
}

impl Pulse {
    /// The number of the latest second, and all that are kept.
    pub(crate) fn seconds(&self) -> (u64, Vec<Second>) {
        let seconds = self.seconds.lock().unwrap_or_else(PoisonError::into_inner);
        (seconds.0, seconds.1.iter().copied().collect())
    }

    /// The share of hits of the last seconds, if anything was looked up.
    #[expect(clippy::cast_precision_loss, reason = "a ratio needs no more than 52 bits")]
    pub(crate) fn hit_rate(&self) -> Option<f64> {
        let (_, seconds) = self.seconds();
        let recent = seconds.iter().rev().take(RECENT);
        let (hits, all) = recent.fold((0, 0), |(hits, all), s| (hits + s.hits, all + s.looked_up));
        (all > 0).then(|| hits as f64 / all as f64)
    }

    /// Whether the backend answered when it was last asked.
    pub(crate) fn is_reachable(&self) -> bool {
        !self.unreachable.load(Ordering::Relaxed)
    }

    /// Asks the backend, and remembers the answer.
    pub(crate) async fn ask(&self, shop: &Shop) -> bool {
        let answer = timeout(Duration::from_secs(1), shop.cache.backend().health_check()).await;
        let reachable = matches!(answer, Ok(Ok(true)));
        self.unreachable.store(!reachable, Ordering::Relaxed);
        reachable
    }
}

/// Takes a sample each second, for as long as it is polled.
pub(crate) async fn sample(shop: Arc<Shop>, pulse: Arc<Pulse>) {
    let mut tick = interval(Duration::from_secs(1));
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = totals(&shop);
    tick.tick().await;
    loop {
        tick.tick().await;
        let now = totals(&shop);
        let [reads, queries, looked_up, hits] = std::array::from_fn(|at| now[at] - before[at]);
        before = now;
        let second = Second { reads, queries, looked_up, hits, cache_on: shop.is_cache_on() };
        {
            let mut seconds = pulse.seconds.lock().unwrap_or_else(PoisonError::into_inner);
            seconds.0 += 1;
            if seconds.1.len() == KEPT {
                seconds.1.pop_front();
            }
            seconds.1.push_back(second);
        }
        pulse.ask(&shop).await;
    }
}

fn totals(shop: &Shop) -> [u64; 4] {
    let [looked_up, hits] = shop.observed.lookups();
    [shop.observed.reads(), shop.db.reads(), looked_up, hits]
}

/// Reads products while traffic is on, some much more often than others, and changes one now and then.
pub(crate) async fn traffic(shop: Arc<Shop>) {
    let mut tick = interval(Duration::from_millis(1000 / RATE));
    tick.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut running = JoinSet::new();
    let mut number = 0;
    loop {
        tick.tick().await;
        while running.try_join_next().is_some() {}
        if !shop.traffic_on.load(Ordering::Relaxed) || running.len() >= AT_A_TIME {
            continue;
        }
        number += 1;
        let (shop, update) = (Arc::clone(&shop), number % UPDATE_EVERY == 0);
        running.spawn(async move {
            let id = popular();
            let done = match update {
                true => writes::nudge_price(shop, id).await.map(drop),
                false => shop.read::<Product>(id).await.map(drop),
            };
            if let Err(error) = done {
                log(error);
            }
        });
    }
}

/// As many products as the traffic reads; none of them is the one that is flooded.
const POPULAR: i64 = 300;

/// The id of a product: low ones much more often than high ones.
pub(crate) fn popular() -> i64 {
    let below = fastrand::i64(0..POPULAR);
    fastrand::i64(0..=below) + 1
}
