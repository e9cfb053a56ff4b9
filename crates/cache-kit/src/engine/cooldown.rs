//! Which keys the source has just failed for, so that it is left alone for a moment where there is a stale value.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Tick;

/// More are not remembered; then the source is asked a little more often than it would have to be.
const MAX: usize = 65_536;

/// The keys, by their hashes, until when the source is left alone.
pub(crate) struct Cooldown {
    len: AtomicUsize,
    until: Mutex<HashMap<u128, Tick>>,
}

impl Cooldown {
    pub(super) fn new() -> Self {
        Self { len: AtomicUsize::new(0), until: Mutex::default() }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<u128, Tick>> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The source has failed for this key.
    pub(super) fn begin(&self, key: u128, now: Tick, pause: Duration) {
        if pause.is_zero() {
            return;
        }
        let mut until = self.lock();
        if until.len() >= MAX {
            until.retain(|_, until| *until > now);
            if until.len() >= MAX {
                until.clear();
            }
        }
        until.insert(key, now.after(pause));
        self.len.store(until.len(), Ordering::Relaxed);
    }

    /// The source has answered, or is to be asked whatever was before.
    pub(super) fn end(&self, key: u128) {
        if self.len.load(Ordering::Relaxed) != 0 {
            let mut until = self.lock();
            until.remove(&key);
            self.len.store(until.len(), Ordering::Relaxed);
        }
    }

    /// Whether the source is to be left alone.
    pub(super) fn holds(&self, key: u128, now: Tick) -> bool {
        self.len.load(Ordering::Relaxed) != 0 && self.lock().get(&key).is_some_and(|until| now < *until)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn the_source_is_left_alone_for_as_long_as_was_said_and_no_longer() {
        let (cooldown, time) = (Cooldown::new(), ManualClock::new());
        let clock = time.clock();
        cooldown.begin(7, clock.now(), Duration::from_secs(1));
        assert!(cooldown.holds(7, clock.now()) && !cooldown.holds(8, clock.now()));
        time.advance(Duration::from_secs(1));
        assert!(!cooldown.holds(7, clock.now()));
        cooldown.begin(7, clock.now(), Duration::from_secs(1));
        cooldown.end(7);
        assert!(!cooldown.holds(7, clock.now()));
    }

    #[test]
    fn it_remembers_no_more_than_its_bound() {
        let (cooldown, clock) = (Cooldown::new(), ManualClock::new().clock());
        for key in 0..2 * MAX as u128 {
            cooldown.begin(key, clock.now(), Duration::from_secs(1));
        }
        assert!(cooldown.lock().len() <= MAX);
    }
}
