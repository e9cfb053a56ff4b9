//! Entries that want something of whoever reads them: to be loaded anew before their life ends, or to live on.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use bytes::Bytes;
use tokio::runtime::Handle;

use super::{Engine, LEASE_LIFE, Request};
use crate::backend::{Acquired, CacheBackend, Filled};
use crate::entry::{self, Entry};
use crate::observe::Event;

/// So many entries are written again at a time; the others another time.
const MOST: usize = 1_024;

/// Entries that are being written again because they were read, by the hashes of their keys.
#[derive(Default)]
pub(crate) struct Touching(Mutex<HashSet<u128>>);

struct Touch {
    touching: Arc<Touching>,
    key: u128,
}

impl Touching {
    /// The right to write an entry again, unless somebody does.
    fn begin(self: &Arc<Self>, key: u128) -> Option<Touch> {
        let mut touching = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let begins = touching.len() < MOST && touching.insert(key);
        begins.then(|| Touch { touching: Arc::clone(self), key })
    }
}

impl Drop for Touch {
    fn drop(&mut self) {
        self.touching.0.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

/// Whether a value is to be loaded anew although it is good for so many milliseconds more.
///
/// XFetch (Vattani, Chierichetti, Lowenstein, "Optimal Probabilistic Cache Stampede Prevention", VLDB 2015): the chance
/// that a read does so rises as the end comes near, and begins the earlier the longer a load takes. `chance` is drawn from
/// the half-open interval (0, 1].
fn is_early(left_millis: u64, cost_micros: u32, beta: f64, chance: f64) -> bool {
    #[expect(clippy::cast_precision_loss, reason = "a life of 285,000 years is counted to the millisecond")]
    let left_micros = left_millis as f64 * 1_000.0;
    f64::from(cost_micros) * beta * -chance.ln() >= left_micros
}

impl<B: CacheBackend> Engine<B> {
    /// What a fresh entry wants: nothing, to live on (`false`), or to be loaded anew (`true`). Reads the clock only if it
    /// may want something.
    pub(super) fn chore(&self, request: &Request<'_>, entry: &Entry<'_>, may_refresh: bool) -> Option<bool> {
        let header = &entry.header;
        let beta = if may_refresh { self.policy(request).early_refresh_beta } else { 0.0 };
        let may_refresh = header.load_cost_micros != 0 && beta > 0.0;
        let sliding = entry.extras.sliding;
        if !may_refresh && sliding.is_none() {
            return None;
        }
        let now = self.settings.clock.unix_millis();
        let ends_at = sliding.map_or(header.fresh_until, |sliding| sliding.ends_at);
        // Without an end, nothing comes near.
        if may_refresh && ends_at != u64::MAX {
            let chance = 1.0 - fastrand::f64();
            if is_early(ends_at.saturating_sub(now), header.load_cost_micros, beta, chance) {
                return Some(true);
            }
        }
        sliding.filter(|sliding| sliding.is_due(header.fresh_until, now)).map(|_| false)
    }

    /// Lets an entry live on: behind the caller where there is a runtime, else before it gets its answer.
    pub(super) async fn touch(&self, request: &Request<'_>, bytes: Bytes) {
        let Some(touch) = self.core.touching.begin(request.key.hash()) else { return };
        let key: Box<str> = request.key.as_str().into();
        let engine = self.clone();
        let touched = async move {
            engine.write_touched(&key, bytes).await;
            drop(touch);
        };
        match Handle::try_current() {
            Ok(runtime) => {
                // In a cache that is shut down nothing is prolonged.
                let _started = self.core.tasks.spawn(&runtime, touched);
            }
            Err(_) => touched.await,
        }
    }

    /// Under a lease over exactly what was read, so that nothing comes back which is removed meanwhile.
    async fn write_touched(&self, key: &str, bytes: Bytes) {
        let Some((entry, life)) = entry::touched(&bytes, self.settings.clock.unix_millis()) else { return };
        let acquired = self.backend().acquire(key, Some(&bytes), LEASE_LIFE).await;
        match acquired {
            Ok(Acquired::Granted { lease, kept: Some(_) }) => {
                match self.backend().fill(key, &lease, entry, life).await {
                    Ok(Filled::Stored) => self.count(Event::Touched),
                    Ok(Filled::Refused) => {}
                    Err(_) => self.release_later(key, Some(lease)),
                }
            }
            Ok(Acquired::Granted { lease, kept: None }) => self.release_later(key, Some(lease)),
            // Nothing to compare with: what was removed meanwhile would come back, so it is not written.
            Ok(Acquired::Unfenced | Acquired::Busy { .. } | Acquired::Present { .. }) | Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_chance_to_be_early_is_that_of_the_paper() {
        const DRAWS: u32 = 200_000;
        let mut random = fastrand::Rng::with_seed(7);
        for (left_millis, cost_micros, beta) in
            [(100, 100_000, 1.0), (300, 100_000, 1.0), (200, 100_000, 2.0), (50, 100_000, 0.5)]
        {
            let early =
                (0..DRAWS).filter(|_| is_early(left_millis, cost_micros, beta, 1.0 - random.f64())).count();
            let share = f64::from(u32::try_from(early).unwrap()) / f64::from(DRAWS);
            // P(cost * beta * -ln(u) >= left) = exp(-left / (cost * beta))
            let theory = (-(left_millis as f64) * 1_000.0 / (f64::from(cost_micros) * beta)).exp();
            assert!((share - theory).abs() < 0.005, "{share} against {theory}");
        }
    }

    #[test]
    fn what_costs_nothing_or_is_not_to_be_refreshed_never_is() {
        assert!(!is_early(1, 0, 1.0, f64::MIN_POSITIVE));
        assert!(!is_early(1, 1_000, 0.0, f64::MIN_POSITIVE));
        assert!(is_early(0, 1, 1.0, 0.5));
    }
}
