//! The least number of connections, whether or not anybody calls.

use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use super::{Connector, Pool};
use crate::breaker::Breaker;
use crate::permit::Sockets;

/// Keeps the least number of connections open, whether or not anybody calls.
pub(super) struct Keeper<C: Connector> {
    pub(super) pool: Weak<Pool<C>>,
    pub(super) sockets: Arc<Sockets>,
}

impl<C: Connector> Keeper<C> {
    pub(super) async fn run(self) {
        loop {
            let mut changed = std::pin::pin!(self.sockets.changed.notified());
            changed.as_mut().enable();
            let failed = {
                let Some(pool) = self.pool.upgrade() else { return };
                let dials = pool.lock_dials();
                let failed = dials.last_error.is_some();
                drop(dials);
                if pool.connections() >= pool.limits.least {
                    None
                } else {
                    pool.dial();
                    Some(failed)
                }
            };
            match failed {
                // The server is looked for as the breaker would, traffic or not.
                Some(true) => tokio::time::sleep(Breaker::pause()).await,
                // A dial that is under way ends with a change, and so does a connection.
                Some(false) | None => changed.await,
            }
        }
    }
}

impl<C: Connector> Drop for Keeper<C> {
    fn drop(&mut self) {
        // With its runtime: the next use starts another one.
        if let Some(pool) = self.pool.upgrade() {
            pool.is_kept.store(false, Ordering::Release);
        }
    }
}
