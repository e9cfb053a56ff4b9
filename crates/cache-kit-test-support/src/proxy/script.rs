//! The faults in force, shared by the test and all connections, and what has passed so far.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::fault::{Direction, Fault};

/// What goes on in both directions.
#[derive(Debug, Default)]
pub(super) struct Script {
    lanes: [Lane; 2],
}

impl Script {
    pub(super) fn lane(&self, direction: Direction) -> &Lane {
        &self.lanes[direction as usize]
    }
}

/// What goes on in one direction.
#[derive(Debug, Default)]
pub(super) struct Lane {
    /// Grows with each change, so that a pump need not lock to see that nothing has changed.
    version: AtomicU64,
    fault: Mutex<Option<Arc<Fault>>>,
    changed: Condvar,
    received: AtomicU64,
    forwarded: AtomicU64,
}

impl Lane {
    /// Puts the fault, or none, in force; returns the number of this version.
    pub(super) fn set(&self, fault: Option<Fault>) -> u64 {
        let mut current = self.lock();
        *current = fault.map(Arc::new);
        let version = self.version.fetch_add(1, Ordering::SeqCst) + 1;
        drop(current);
        self.changed.notify_all();
        version
    }

    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The fault in force with its version.
    pub(super) fn current(&self) -> (u64, Option<Arc<Fault>>) {
        let current = self.lock();
        (self.version(), current.clone())
    }

    /// Takes a fault that happens once; false when another connection had it, or the test has set another.
    ///
    /// The version stays: the chunk that a swap holds belongs to it.
    pub(super) fn take(&self, version: u64) -> bool {
        let mut current = self.lock();
        self.version() == version && current.take().is_some()
    }

    /// Waits for another version, until `until` if given; returns at once when `over`, which [`wake`](Self::wake)
    /// makes it look at again.
    pub(super) fn wait(&self, version: u64, until: Option<Instant>, over: impl Fn() -> bool) {
        let mut current = self.lock();
        while self.version() == version && !over() {
            current = match until.map(|until| until.saturating_duration_since(Instant::now())) {
                None => self.changed.wait(current).unwrap_or_else(PoisonError::into_inner),
                Some(left) if left.is_zero() => return,
                Some(left) => {
                    self.changed.wait_timeout(current, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Wakes those who wait, after something changed that they ask for.
    pub(super) fn wake(&self) {
        // The lock lets nobody go to sleep between the question and this call.
        drop(self.lock());
        self.changed.notify_all();
    }

    pub(super) fn count_received(&self, bytes: usize) {
        self.received.fetch_add(bytes as u64, Ordering::SeqCst);
    }

    pub(super) fn count_forwarded(&self, bytes: usize) {
        self.forwarded.fetch_add(bytes as u64, Ordering::SeqCst);
    }

    pub(super) fn received(&self) -> u64 {
        self.received.load(Ordering::SeqCst)
    }

    pub(super) fn forwarded(&self) -> u64 {
        self.forwarded.load(Ordering::SeqCst)
    }

    fn lock(&self) -> MutexGuard<'_, Option<Arc<Fault>>> {
        self.fault.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
