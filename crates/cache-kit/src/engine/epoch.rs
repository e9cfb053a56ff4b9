//! The epoch of a cache: the way to make everything in it invalid at once.
//!
//! Entries carry the epoch that their load began in, mixed into their schema, and those of another are misses. It is zero
//! until more invalidations wait for their confirmation than may be remembered. Then this process draws a new one, and
//! believes nothing older from there on; the others learn it from a key of the cache, which each of them looks at once a
//! second, beside a read.
//!
//! An epoch is a counter above a random number, so that of two the higher is the later one, and no two processes draw the
//! same. It is published only over the one that it was drawn from: if another process was first, a new one is drawn that
//! is later than both.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use tokio::runtime::Handle;

use super::pending::Owed;
use super::{Engine, LEASE_LIFE, Request};
use crate::backend::{Acquired, CacheBackend, Distribution, Filled};
use crate::error::{Error, ErrorKind, Result};

/// How long a change of the epoch by another process may go unnoticed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

const KEY: &str = "cache-kit:epoch";
/// Bits of the random number.
const RANDOM: u32 = 32;

/// What is known of the epoch.
#[derive(Default)]
pub(crate) struct Epoch {
    value: AtomicU64,
    /// The one that was last seen on the backend.
    seen: AtomicU64,
    /// In nanoseconds of the clock.
    next_look: AtomicU64,
    /// Whether a look has succeeded.
    is_known: AtomicBool,
}

impl Epoch {
    /// Enters one that is later than those that are known; atomic and without waiting.
    fn draw(&self, above: u64) -> u64 {
        let random = fastrand::u64(..) >> RANDOM;
        let next = |known: u64| ((known.max(above) >> RANDOM) + 1) << RANDOM | random;
        match self.value.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |known| Some(next(known))) {
            Ok(before) | Err(before) => next(before),
        }
    }
}

impl<B: CacheBackend> Engine<B> {
    pub(super) fn epoch(&self) -> u64 {
        self.core.epoch.value.load(Ordering::SeqCst)
    }

    /// The schema that entries of this epoch have.
    pub(super) fn schema(&self, request: &Request<'_>) -> u64 {
        request.schema ^ self.core.epoch.value.load(Ordering::Relaxed)
    }

    fn epoch_key(&self) -> String {
        match &self.settings.namespace {
            Some(namespace) => format!("{namespace}/{KEY}"),
            None => KEY.to_owned(),
        }
    }

    fn epoch_is_shared(&self) -> bool {
        self.core.capabilities.distribution != Distribution::SingleProcess
    }

    /// Makes everything that was stored so far invalid. To be followed by [`begin_epoch`](Self::begin_epoch).
    pub(super) fn draw_epoch(&self) {
        self.core.epoch.draw(0);
    }

    /// What had begun in an earlier epoch is not to be joined.
    pub(super) fn begin_epoch(&self) {
        self.core.invalidations.fetch_add(1, Ordering::SeqCst);
        self.detach_all();
    }

    /// Tells the others.
    pub(super) async fn publish_epoch(&self) -> Result<()> {
        if !self.epoch_is_shared() {
            return Ok(());
        }
        let key = self.epoch_key();
        for _ in 0..4 {
            let stored = self.backend().get(&key).await?;
            let stored_epoch = stored.as_ref().map_or(0, parse);
            let mut epoch = self.epoch();
            if stored_epoch == epoch {
                return Ok(());
            }
            if stored_epoch != self.core.epoch.seen.load(Ordering::SeqCst) {
                // Another process was first, or the key was lost.
                epoch = self.core.epoch.draw(stored_epoch);
                self.begin_epoch();
            }
            self.core.epoch.seen.store(stored_epoch, Ordering::SeqCst);
            let bytes = Bytes::copy_from_slice(&epoch.to_le_bytes());
            match self.backend().acquire(&key, stored.as_ref(), LEASE_LIFE).await? {
                Acquired::Granted { lease, .. } => {
                    if self.backend().fill(&key, &lease, bytes, None).await? == Filled::Stored {
                        self.core.epoch.seen.store(epoch, Ordering::SeqCst);
                        return Ok(());
                    }
                }
                Acquired::Unfenced => return self.backend().set(&key, bytes, None).await,
                Acquired::Busy { .. } | Acquired::Present { .. } => {}
            }
        }
        // Sent again later.
        Err(Error::new(ErrorKind::Unavailable, "other processes change the epoch at the same time"))
    }

    /// Asks the backend for something, and sees to it that the epoch is looked at once a second: before the first answer,
    /// and behind the others.
    pub(super) async fn beside_the_epoch<R>(&self, asked: impl Future<Output = R>) -> R {
        if !self.epoch_is_due() {
            return asked.await;
        }
        match Handle::try_current() {
            Ok(runtime) if self.core.epoch.is_known.load(Ordering::Relaxed) => {
                // Ends with its one operation.
                let (core, settings) = (Arc::downgrade(&self.core), self.settings.clone());
                let observer = self.observer.clone();
                runtime.spawn(async move {
                    if let Some(core) = core.upgrade() {
                        Self { core, settings, observer }.look_at_epoch().await;
                    }
                });
                asked.await
            }
            _ => futures_util::future::join(Box::pin(self.look_at_epoch()), asked).await.1,
        }
    }

    /// Whether it is time to look, which is then the caller's task.
    fn epoch_is_due(&self) -> bool {
        if !self.epoch_is_shared() {
            return false;
        }
        let now = self.settings.clock.now();
        let next = self.core.epoch.next_look.load(Ordering::Relaxed);
        let later = now.after(LOOK_EVERY).to_bits();
        now.to_bits() >= next
            && self
                .core
                .epoch
                .next_look
                .compare_exchange(next, later, Ordering::Relaxed, Ordering::Relaxed)
                .is_ok()
    }

    async fn look_at_epoch(&self) {
        // An outage shows in the read beside this.
        let Ok(stored) = self.backend().get(&self.epoch_key()).await else { return };
        self.core.epoch.is_known.store(true, Ordering::Relaxed);
        if self.core.pending.owes(&Owed::Everything) {
            // Publishing it looks by itself.
            return;
        }
        match stored.as_ref().map(parse) {
            Some(stored) => {
                self.core.epoch.seen.store(stored, Ordering::SeqCst);
                // An earlier one, as of a replica that is behind, is none.
                if self.core.epoch.value.fetch_max(stored, Ordering::SeqCst) < stored {
                    self.begin_epoch();
                }
            }
            // Lost with its server, or evicted: what is older than the known one must not come back.
            None if self.epoch() != 0 => self.owe(Owed::Everything),
            None => {}
        }
    }
}

/// What was stored as an epoch; what is none is the first.
fn parse(stored: &Bytes) -> u64 {
    <[u8; 8]>::try_from(&stored[..]).map_or(0, u64::from_le_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_epoch_is_later_than_those_that_are_known() {
        let epoch = Epoch::default();
        let first = epoch.draw(0);
        assert!(first > 0 && epoch.draw(0) > first);
        let elsewhere = 9 << RANDOM | 7;
        assert!(epoch.draw(elsewhere) > elsewhere);
    }
}
