//! Whose turn it is to load: so many at a time.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// The turns that are free.
///
/// Not a queue: in one, a waiter that nobody polls would be handed a turn and keep it. Here it misses a wake-up, and the
/// others look again by themselves after a while.
#[derive(Debug)]
pub(crate) struct Turns {
    free: AtomicUsize,
    /// Loads that wait for one.
    waiting: AtomicUsize,
    pub(super) freed: Notify,
}

/// The right to load, until it is dropped.
#[derive(Debug)]
pub(super) struct Turn(Arc<Turns>);

/// One who waits for a turn.
pub(super) struct Waits<'a>(&'a Turns);

impl Turns {
    pub(super) fn new(turns: usize) -> Arc<Self> {
        Arc::new(Self { free: AtomicUsize::new(turns), waiting: AtomicUsize::new(0), freed: Notify::new() })
    }

    pub(super) fn take(self: &Arc<Self>) -> Option<Turn> {
        let taken = self.free.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |free| free.checked_sub(1));
        taken.is_ok().then(|| Turn(Arc::clone(self)))
    }

    pub(super) fn are_all_taken(&self) -> bool {
        self.free.load(Ordering::SeqCst) == 0
    }

    pub(super) fn waiting(&self) -> usize {
        self.waiting.load(Ordering::SeqCst)
    }

    pub(super) fn wait(&self) -> Waits<'_> {
        self.waiting.fetch_add(1, Ordering::SeqCst);
        Waits(self)
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.free.fetch_add(1, Ordering::SeqCst);
        self.0.freed.notify_one();
    }
}

impl Drop for Waits<'_> {
    fn drop(&mut self) {
        self.0.waiting.fetch_sub(1, Ordering::SeqCst);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_turn_is_free_again_when_it_is_dropped() {
        let turns = Turns::new(2);
        let (first, second) = (turns.take().unwrap(), turns.take());
        assert!(second.is_some() && turns.take().is_none() && turns.are_all_taken());
        drop(first);
        assert!(turns.take().is_some());
    }
}
