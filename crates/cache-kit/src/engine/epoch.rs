//! The epoch of a cache: the way to make everything in it invalid at once.
//!
//! Entries carry the epoch that they were stored in, mixed into their schema, and those of another are misses. It is
//! zero until more invalidations wait for their confirmation than may be remembered. Then this process draws a new one at
//! random, and believes nothing older from there on; the others learn it from a key of the cache, which each of them looks
//! at once a second, beside a read.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;

use super::pending::Owed;
use super::{Engine, Request};
use crate::backend::{CacheBackend, Distribution};
use crate::error::Result;
use crate::observe::Event;

/// How long a change of the epoch by another process may go unnoticed.
const LOOK_EVERY: Duration = Duration::from_secs(1);

const KEY: &str = "cache-kit:epoch";

/// What is known of the epoch.
#[derive(Default)]
pub(crate) struct Epoch {
    value: AtomicU64,
    /// In nanoseconds of the clock.
    next_look: AtomicU64,
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

    /// Makes everything that was stored so far invalid.
    pub(super) fn collapse(&self) {
        self.count(Event::Collapsed);
        // Never zero, which is the first.
        self.enter_epoch(fastrand::u64(1..));
    }

    fn enter_epoch(&self, epoch: u64) {
        self.core.epoch.value.store(epoch, Ordering::SeqCst);
        // What had begun before must not be stored in this one.
        self.core.invalidations.fetch_add(1, Ordering::SeqCst);
        self.detach_all();
    }

    /// Tells the others.
    pub(super) async fn publish_epoch(&self) -> Result<()> {
        if !self.epoch_is_shared() {
            return Ok(());
        }
        let epoch = Bytes::copy_from_slice(&self.epoch().to_le_bytes());
        self.backend().set(&self.epoch_key(), epoch, None).await
    }

    /// Asks the backend for something, and for the epoch beside it, if it is time for that.
    pub(super) async fn beside_the_epoch<R>(&self, asked: impl Future<Output = R>) -> R {
        if !self.epoch_is_due() {
            return asked.await;
        }
        futures_util::future::join(asked, Box::pin(self.look_at_epoch())).await.0
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
        let known = self.epoch();
        match self.backend().get(&self.epoch_key()).await {
            Ok(Some(stored)) => {
                let Ok(stored) = <[u8; 8]>::try_from(&stored[..]).map(u64::from_le_bytes) else { return };
                // One of our own that is not published yet is the newer one.
                if stored != known && !self.core.pending.owes(&Owed::Everything) && self.epoch() == known {
                    self.enter_epoch(stored);
                }
            }
            // Lost with its server, or evicted: what is older than the known one must not come back.
            Ok(None) if known != 0 && !self.core.pending.owes(&Owed::Everything) => {
                self.owe(Owed::Everything)
            }
            // An outage shows in the read beside this.
            Ok(None) | Err(_) => {}
        }
    }
}
