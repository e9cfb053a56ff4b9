//! The replicas of one primary, to read from.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use redis::{Cmd, Value};
use tokio::runtime::Handle;

use super::super::node::{Common, Node, Place};
use super::super::settings::RedisReadFrom;
use super::Sentinels;
use super::turn::Turn;

/// Sentinels are asked for the replicas this often, while they are read from.
const ASK_AGAIN: Duration = Duration::from_secs(5);

/// The replicas of the primary; none unless they are to be read from.
pub(super) struct Replicas {
    common: Arc<Common>,
    list: Arc<ArcSwap<Vec<Arc<Node>>>>,
    next: AtomicUsize,
    sentinels: Option<Arc<Sentinels>>,
    asking: Arc<Turn>,
}

impl Replicas {
    pub(super) fn new(common: &Arc<Common>, primary: &Place) -> Self {
        let settings = &common.settings;
        let sentinels = match primary {
            Place::Sentinels(sentinels) if settings.read_from == RedisReadFrom::PreferReplica => {
                Some(Arc::clone(sentinels))
            }
            _ => None,
        };
        let node = |address: &cache_kit_net::Address| {
            Arc::new(Node::new(common, Place::At(address.clone()), true, settings.pool_size))
        };
        let list = settings.replicas.iter().map(node).collect();
        Self {
            common: Arc::clone(common),
            list: Arc::new(ArcSwap::from_pointee(list)),
            next: AtomicUsize::new(0),
            sentinels,
            asking: Arc::default(),
        }
    }

    pub(super) fn connections(&self) -> usize {
        self.list.load().iter().map(|node| node.connections()).sum()
    }

    pub(super) fn drop_all(&self) {
        for node in self.list.load().iter() {
            let _done = node.drop_all();
        }
    }

    /// Reads the value under a key from a replica; `None` if that is not to be had.
    pub(super) async fn read(&self, deadline: Instant, key: &str) -> Option<Value> {
        let node = self.pick()?;
        node.read(half_way(deadline), key).await.ok()?.ok()
    }

    /// Sends a command that reads to a replica; `None` if there is no answer to be had.
    pub(super) async fn send_for(
        &self,
        operation: &'static str,
        deadline: Instant,
        command: &Cmd,
        keys: usize,
    ) -> Option<Value> {
        let node = self.pick()?;
        node.send_for(operation, half_way(deadline), command, keys).await.ok()?.ok()
    }

    /// One after the other, of those that are not known to be down.
    fn pick(&self) -> Option<Arc<Node>> {
        if self.sentinels.is_some() {
            self.look();
        }
        let list = self.list.load();
        let up = || list.iter().filter(|node| !node.is_down());
        let at = self.next.fetch_add(1, Ordering::Relaxed).checked_rem(up().count())?;
        up().nth(at).cloned()
    }

    /// Asks the sentinels for the replicas, at most so often, in the background.
    fn look(&self) {
        let Some(sentinels) = self.sentinels.clone() else { return };
        if !self.asking.begin() {
            return;
        }
        let asking = Asking(Arc::clone(&self.asking));
        let (common, list) = (Arc::clone(&self.common), Arc::clone(&self.list));
        let Ok(runtime) = Handle::try_current() else { return };
        runtime.spawn(async move {
            let _asking = asking;
            // What they cannot tell stays as it was.
            if let Ok(found) = sentinels.replicas(&common.settings).await {
                let known = list.load_full();
                let node = |address| {
                    let same = known.iter().find(|node| node.address() == Some(&address));
                    same.cloned().unwrap_or_else(|| {
                        let most = common.settings.pool_size;
                        Arc::new(Node::new(&common, Place::At(address), true, most))
                    })
                };
                list.store(Arc::new(found.into_iter().map(node).collect()));
            }
            tokio::time::sleep(ASK_AGAIN).await;
        });
    }
}

/// Half of the time that is left: the primary may have to be asked as well.
pub(super) fn half_way(deadline: Instant) -> Instant {
    let now = Instant::now();
    now + deadline.saturating_duration_since(now) / 2
}

/// Somebody is asking. Ends with the runtime that it is done on.
struct Asking(Arc<Turn>);

impl Drop for Asking {
    fn drop(&mut self) {
        self.0.end();
    }
}
