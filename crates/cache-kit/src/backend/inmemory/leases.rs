//! The leases on keys, and the one place where a change of a key is ordered against them.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::backend::Lease;
use crate::clock::{Clock, Tick};

const STRIPES: usize = 64;

type Stripe = HashMap<Box<str>, Held>;

/// A lease that somebody holds.
pub(super) struct Held {
    token: u128,
    expires_at: Tick,
}

impl Held {
    pub(super) fn new(expires_at: Tick) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(1);
        // Unique in this process, and so for every store in it: leases do not outlive the process.
        Self { token: u128::from(NEXT.fetch_add(1, Ordering::Relaxed)), expires_at }
    }

    pub(super) fn token(&self) -> u128 {
        self.token
    }

    pub(super) fn is(&self, lease: &Lease) -> bool {
        self.token == lease.token()
    }

    pub(super) fn is_live(&self, clock: &Clock) -> bool {
        clock.now() < self.expires_at
    }

    /// It ends then, and not when it was to end.
    pub(super) fn renew(&mut self, expires_at: Tick) {
        self.expires_at = expires_at;
    }
}

/// Leases by key. Every change of a key goes through [`change`](Self::change), which is what makes "void as
/// soon as anything happens to the key" true: value and lease change under one lock.
pub(super) struct LeaseTable {
    stripes: Box<[Mutex<Stripe>]>,
    hasher: RandomState,
}

impl LeaseTable {
    pub(super) fn new() -> Self {
        Self { stripes: (0..STRIPES).map(|_| Mutex::default()).collect(), hasher: RandomState::new() }
    }

    /// Runs `change` with the lease of `key`, alone among all changes of this key.
    pub(super) fn change<R>(&self, key: &str, change: impl FnOnce(&mut Option<Held>) -> R) -> R {
        // The remainder is below STRIPES.
        #[expect(clippy::cast_possible_truncation, reason = "only the low bits are used")]
        let mut stripe = lock(&self.stripes[self.hasher.hash_one(key) as usize % STRIPES]);
        let mut held = stripe.remove(key);
        let result = change(&mut held);
        if let Some(held) = held {
            stripe.insert(key.into(), held);
        }
        result
    }

    /// Voids every lease and runs `clear` before any key can change again.
    pub(super) fn clear_with(&self, clear: impl FnOnce()) {
        // Always in this order, and nobody else takes two stripes.
        let mut stripes: Vec<_> = self.stripes.iter().map(lock).collect();
        for stripe in &mut stripes {
            stripe.clear();
        }
        clear();
    }

    pub(super) fn keys_that(&self, matches: impl Fn(&str) -> bool) -> Vec<Box<str>> {
        let mut keys = Vec::new();
        for stripe in &self.stripes {
            keys.extend(lock(stripe).keys().filter(|key| matches(key)).cloned());
        }
        keys
    }

    pub(super) fn sweep(&self, clock: &Clock) {
        for stripe in &self.stripes {
            let mut stripe = lock(stripe);
            if !stripe.is_empty() {
                stripe.retain(|_, held| held.is_live(clock));
            } else if stripe.capacity() > 0 {
                // A crowd that has gone leaves no table behind.
                stripe.shrink_to_fit();
            }
        }
    }

    pub(super) fn len(&self) -> usize {
        self.stripes.iter().map(|stripe| lock(stripe).len()).sum()
    }
}

/// A panic under the lock leaves the map whole: each change is one insert or remove.
fn lock(stripe: &Mutex<Stripe>) -> MutexGuard<'_, Stripe> {
    stripe.lock().unwrap_or_else(PoisonError::into_inner)
}
