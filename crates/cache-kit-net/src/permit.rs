//! The right to hold a socket.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

/// The right to hold one socket. Given back when the socket is closed, not when somebody decides to close it, so
/// that the server never sees more of them than there are rights.
#[derive(Debug)]
pub struct Permit(Arc<Sockets>);

/// The sockets that are open, being opened or being closed.
#[derive(Debug, Default)]
pub struct Sockets {
    taken: AtomicUsize,
    /// Wakes who waits for a connection: one was made, or failed to be, or there is room for one more.
    pub(crate) changed: Notify,
}

impl Permit {
    /// One of so many, unless all are taken.
    #[must_use]
    pub fn take(sockets: &Arc<Sockets>, most: usize) -> Option<Self> {
        let one_more = |taken| (taken < most).then_some(taken + 1);
        sockets.taken.fetch_update(Ordering::AcqRel, Ordering::Acquire, one_more).ok()?;
        Some(Self(Arc::clone(sockets)))
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.taken.fetch_sub(1, Ordering::AcqRel);
        self.0.changed.notify_waiters();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_are_never_more_permits_than_allowed() {
        let sockets = Arc::default();
        let first = Permit::take(&sockets, 2);
        let second = Permit::take(&sockets, 2);
        assert!(first.is_some() && second.is_some() && Permit::take(&sockets, 2).is_none());
        drop(first);
        assert!(Permit::take(&sockets, 2).is_some());
    }
}
