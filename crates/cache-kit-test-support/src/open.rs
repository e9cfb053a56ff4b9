//! The connections that are open now.

use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The open connections of a listener.
#[derive(Debug)]
pub(crate) struct Open<T> {
    list: Mutex<List<T>>,
    left: Condvar,
}

#[derive(Debug)]
struct List<T> {
    open: Vec<Arc<T>>,
    closed: bool,
}

impl<T> Default for Open<T> {
    fn default() -> Self {
        Self { list: Mutex::new(List { open: Vec::new(), closed: false }), left: Condvar::new() }
    }
}

impl<T> Open<T> {
    /// Says whether the connection may be served; not after [`close`](Self::close), when nobody would end it.
    pub(crate) fn enter(&self, connection: &Arc<T>) -> bool {
        let mut list = self.lock();
        if !list.closed {
            list.open.push(Arc::clone(connection));
        }
        !list.closed
    }

    /// Drops the connection, which closes its sockets, before anybody can see that it has left.
    pub(crate) fn leave(&self, connection: Arc<T>) {
        let mut list = self.lock();
        list.open.retain(|other| !Arc::ptr_eq(other, &connection));
        drop(connection);
        self.left.notify_all();
    }

    pub(crate) fn count(&self) -> usize {
        self.lock().open.len()
    }

    /// Runs `act` on each; none can leave meanwhile.
    pub(crate) fn each(&self, act: impl Fn(&T)) {
        self.lock().open.iter().for_each(|connection| act(connection));
    }

    /// [`each`](Self::each), and no connection enters from now on.
    pub(crate) fn close(&self, act: impl Fn(&T)) {
        self.lock().closed = true;
        self.each(act);
    }

    /// Waits until no connection is left to which `pending` applies; says whether that came about within `limit`.
    pub(crate) fn wait_until_none(&self, limit: Duration, pending: impl Fn(&T) -> bool) -> bool {
        let any = |list: &mut List<T>| list.open.iter().any(|connection| pending(connection));
        let waited = self.left.wait_timeout_while(self.lock(), limit, any);
        !waited.unwrap_or_else(PoisonError::into_inner).1.timed_out()
    }

    fn lock(&self) -> MutexGuard<'_, List<T>> {
        self.list.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
