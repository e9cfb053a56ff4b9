//! A sign of life from each connection: the kernel takes a while to notice that a peer is gone, and more if nothing is sent.

use std::sync::Weak;
use std::time::Duration;

use tokio::time::timeout;

use super::{Connection as _, Connector, Pool};

/// Each connection is asked for a sign of life this often, whether or not there is traffic: a server that answers may be
/// one that the connection was not made to any more.
const PULSE: Duration = Duration::from_millis(500);
/// Looks after one connection until it ends. One whose other side has neither sent nor taken a byte for as long as the bound is dropped: a dead
/// link shows within that and half a second.
pub(super) async fn pulse<C: Connector>(pool: Weak<Pool<C>>, conn: Weak<C::Conn>, bound: Duration) {
    loop {
        tokio::time::sleep(PULSE).await;
        let Some(conn) = conn.upgrade() else { return };
        if conn.is_closed() {
            return;
        }
        // The answer may have to wait behind a large one that is still under way.
        let _before = conn.was_heard();
        let alive = match timeout(bound, conn.ping()).await {
            Ok(alive) => alive,
            Err(_) => {
                // Whoever drives the connection may not have had its turn yet.
                tokio::task::yield_now().await;
                conn.was_heard()
            }
        };
        if !alive {
            if let Some(pool) = pool.upgrade() {
                pool.suspect(&conn);
            }
            return;
        }
    }
}
