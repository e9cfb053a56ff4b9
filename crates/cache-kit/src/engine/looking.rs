//! Which keys a reader of this cache is looking up in a way that may bring a lease.
//!
//! Between the moment that a backend grants a lease and the moment that its reader can say so, a leader of the same key
//! would take the lease for a stranger's, load, and store nothing. Here it learns that the reader is one of its own, and
//! waits until that one has offered what it has. At most one reader of a key looks in this way at a time.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

const STRIPES: usize = 64;

/// The keys, by their hashes.
pub(crate) struct Looking {
    stripes: Box<[Mutex<HashSet<u128>>]>,
    done: Notify,
}

/// A reader that is looking. Dropped when it has told what it found, or has gone.
pub(super) struct Looker {
    looking: Arc<Looking>,
    key: u128,
}

impl Looking {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self { stripes: (0..STRIPES).map(|_| Mutex::default()).collect(), done: Notify::new() })
    }

    fn stripe(&self, key: u128) -> MutexGuard<'_, HashSet<u128>> {
        self.stripes[key as usize % STRIPES].lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The right to look, unless somebody does already.
    pub(super) fn begin(self: &Arc<Self>, key: u128) -> Option<Looker> {
        let begins = self.stripe(key).insert(key);
        begins.then(|| Looker { looking: Arc::clone(self), key })
    }

    /// Waits until nobody looks for this key, or `found` has what was looked for. Cancel-safe.
    pub(super) async fn wait<T>(&self, key: u128, mut found: impl FnMut() -> Option<T>) -> Option<T> {
        loop {
            let mut done = std::pin::pin!(self.done.notified());
            // Listens before it looks, so that nothing falls in between.
            done.as_mut().enable();
            let is_looked_for = self.stripe(key).contains(&key);
            // In this order: who has gone from the table has offered before.
            if let Some(found) = found() {
                return Some(found);
            }
            if !is_looked_for {
                return None;
            }
            done.await;
        }
    }
}

impl Drop for Looker {
    fn drop(&mut self) {
        self.looking.stripe(self.key).remove(&self.key);
        self.looking.done.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use std::future::Future as _;
    use std::task::{Context, Poll, Waker};

    use super::*;

    #[test]
    fn one_looks_at_a_time_and_a_leader_waits_for_what_it_brings() {
        let looking = Looking::new();
        let first = looking.begin(7).unwrap();
        assert!(looking.begin(7).is_none());
        assert!(looking.begin(8).is_some());

        let offered = Mutex::new(None);
        let mut wait = Box::pin(looking.wait(7, || offered.lock().unwrap().take()));
        let mut poll = || wait.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(poll(), Poll::Pending);
        *offered.lock().unwrap() = Some("lease");
        drop(first);
        assert_eq!(poll(), Poll::Ready(Some("lease")));
    }

    #[test]
    fn a_leader_does_not_wait_for_one_who_brings_nothing() {
        let looking = Looking::new();
        let first = looking.begin(7);
        let mut wait = Box::pin(looking.wait(7, || None::<()>));
        let mut poll = || wait.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(poll(), Poll::Pending);
        drop(first);
        assert_eq!(poll(), Poll::Ready(None));
        assert!(looking.begin(7).is_some());
    }
}
