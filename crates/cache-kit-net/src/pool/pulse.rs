//! A sign of life from each connection: the kernel takes a while to notice that a peer is gone, and more if nothing is sent.

use std::sync::Weak;
use std::time::Duration;

use tokio::time::timeout;

use super::{Connection as _, Connector, Pool};

/// Each connection is asked for a sign of life this often, whether or not there is traffic: a server that answers may be
/// one that the connection was not made to any more.
const PULSE: Duration = Duration::from_millis(500);
/// And is dropped when none comes within this time. A dead link shows within the sum of the two and half of the first.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);

/// Looks after one connection until it ends.
pub(super) async fn pulse<C: Connector>(pool: Weak<Pool<C>>, conn: Weak<C::Conn>) {
    loop {
        tokio::time::sleep(PULSE).await;
        let Some(conn) = conn.upgrade() else { return };
        if conn.is_closed() {
            return;
        }
        // A server that is busy with what others have asked for may answer them and not this one yet.
        let _before = conn.was_heard();
        let alive = timeout(SIGN_OF_LIFE, conn.ping()).await.unwrap_or_else(|_| conn.was_heard());
        if !alive {
            if let Some(pool) = pool.upgrade() {
                pool.suspect(&conn);
            }
            return;
        }
    }
}
