//! Reads that the server remembers.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cache_kit_net::Address;
use futures_util::future::join_all;
use redis::{Cmd, Value, cmd};
use tokio::runtime::Handle;
use tokio::time::sleep;

use super::super::error::{convert, is_no_script, is_wrong_type};
use super::super::fence::Mode;
use super::super::node::{Answer, Node, Tracking};
use super::super::script::Script;
use super::super::stub::STUB_MARK;
use super::super::topology::{MAX_REDIRECTIONS, let_them_agree, lost_in_redirections};
use super::super::{NAME, RedisBackend, found};
use super::{RedisGap, RedisInvalidation, refused};
use crate::error::{ErrorKind, Result};

const OPERATION: &str = "track";

/// The primaries are looked at this often: those that are new are listened to, by prefix.
const LOOK: Duration = Duration::from_millis(250);

/// Reads a value so that the server remembers it, and nothing else: what reads without being remembered tells whether there
/// is one.
///
/// ARGV: stub mark.
static READ: LazyLock<Script> = LazyLock::new(|| {
    Script::plain(
        r"
local held = redis.pcall('GETEX', KEYS[1])
if not held then return false end
if type(held) == 'string' and #held == 49 and string.sub(held, 1, 16) == ARGV[1] and string.sub(held, 49) == '0' then
  return false
end
return redis.call('GET', KEYS[1])
",
    )
});

/// Reads values that are watched from then on; see [`RedisBackend::track`]. Cheap to clone.
#[derive(Clone)]
pub struct RedisTracker(Arc<Inner>);

struct Inner {
    backend: RedisBackend,
    tracking: Tracking,
    /// The connection to each primary.
    links: Mutex<HashMap<Option<Address>, Arc<Node>>>,
    /// A task looks at the servers again and again.
    is_looked_after: AtomicBool,
    /// The owners of slots that were last seen.
    slots_version: AtomicU64,
}

impl RedisTracker {
    pub(super) fn new(backend: RedisBackend, tracking: Tracking) -> Self {
        let slots_version = AtomicU64::new(backend.shared.topology.slots_version());
        let is_looked_after = AtomicBool::new(false);
        let tracker = Self(Arc::new(Inner {
            backend,
            tracking,
            links: Mutex::default(),
            is_looked_after,
            slots_version,
        }));
        tracker.look_after();
        tracker
    }

    /// Sees to it that the servers are looked at, by a task of this runtime if there is none.
    pub(super) fn look_after(&self) {
        let running = &self.0.is_looked_after;
        if running.load(Ordering::Relaxed) || running.swap(true, Ordering::AcqRel) {
            return;
        }
        let looking = Looking(Arc::downgrade(&self.0));
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(looking.run());
        }
    }

    /// Nobody listens any more.
    pub(super) fn close(&self) {
        let links: Vec<_> = self.0.lock_links().drain().map(|(_, link)| link).collect();
        links.iter().for_each(|link| link.close_all());
    }

    /// The value under a key, which is watched from now on if there is one. Goes to the primary, and is no lease.
    ///
    /// **Cancel-safe**: the key may be watched.
    ///
    /// # Errors
    /// As [`CacheBackend::get`](crate::backend::CacheBackend::get); nothing is watched then. By prefix,
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a key that begins with none of them.
    pub async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        let inner = &*self.0;
        if inner.tracking.queue.is_closed() {
            return Err(refused(ErrorKind::InvalidInput, "nobody listens for invalidations".to_owned())
                .with_hint("keep the RedisInvalidations, or read from the backend itself"));
        }
        self.look_after();
        let shared = &inner.backend.shared;
        let (full, topology) = (shared.full(key), &shared.topology);
        let prefixes = &inner.tracking.prefixes;
        if !prefixes.is_empty() && !prefixes.iter().any(|prefix| full.starts_with(prefix)) {
            return Err(refused(ErrorKind::InvalidInput, "the key has none of the prefixes".to_owned())
                .with_hint("track its prefix too, or read from the backend itself"));
        }
        let deadline = topology.deadline();
        let (mut node, mut asking) = (topology.owner(OPERATION, deadline, full.as_bytes()).await?, false);
        for hop in 0..=MAX_REDIRECTIONS {
            let answer = inner.link(&node).read_tracked(&full, topology.mode(), asking, deadline).await;
            let answer = answer.inspect_err(|_| topology.suspect())?;
            if let Err(error) = &answer
                && let Some(next) = topology.redirected(error, &node)
                && let_them_agree(hop, deadline).await
            {
                (node, asking) = next;
                continue;
            }
            return read(answer);
        }
        Err(lost_in_redirections(OPERATION))
    }

    /// The values under keys, those that there are watched from now on; one exchange with each server for all of them.
    ///
    /// **Cancel-safe**, as [`get`](Self::get).
    ///
    /// # Errors
    /// As `get`, for each key.
    pub async fn mget(&self, keys: &[&str]) -> Vec<Result<Option<Bytes>>> {
        // One connection has them all in its queue before the first answer comes.
        join_all(keys.iter().map(|key| self.get(key))).await
    }

    /// How many connections are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.0.lock_links().values().map(|node| node.connections()).sum()
    }
}

impl Node {
    async fn read_tracked(
        &self,
        key: &str,
        mode: &Mode,
        asking: bool,
        deadline: Instant,
    ) -> Result<Answer<Value>> {
        let send = async |command: Cmd| match asking {
            true => self.send_asking(OPERATION, deadline, &command).await,
            false => self.send(OPERATION, deadline, &command).await,
        };
        if mode.uses_tombstones() {
            let mut get = cmd("GET");
            get.arg(key);
            return send(get).await;
        }
        let by = |how: &str, script: &str| {
            let mut command = cmd(how);
            command.arg(script).arg(1).arg(key).arg(&STUB_MARK[..]);
            command
        };
        match send(by("EVALSHA", &READ.sha1)).await? {
            Err(error) if is_no_script(&error) => send(by("EVAL", &READ.source)).await,
            answer => Ok(answer),
        }
    }
}

impl Inner {
    /// The tracked connection to the server of this node.
    fn link(&self, node: &Node) -> Arc<Node> {
        let mut links = self.lock_links();
        let new = || Arc::new(node.tracked(self.tracking.clone()));
        Arc::clone(links.entry(node.address().cloned()).or_insert_with(new))
    }

    fn lock_links(&self) -> MutexGuard<'_, HashMap<Option<Address>, Arc<Node>>> {
        self.links.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Sees to it that every primary is listened to, where that is wanted, and no other server.
    async fn look(&self) {
        let topology = &self.backend.shared.topology;
        let Ok(primaries) = topology.primaries(OPERATION, topology.deadline()).await else { return };
        let left: Vec<Arc<Node>> = {
            let mut links = self.lock_links();
            let gone =
                |address: &Option<Address>| !primaries.iter().any(|node| node.address() == address.as_ref());
            let gone: Vec<_> = links.keys().filter(|address| gone(address)).cloned().collect();
            gone.iter().filter_map(|address| links.remove(address)).collect()
        };
        for link in left {
            link.close_all();
        }
        if !self.tracking.prefixes.is_empty() {
            let links: Vec<_> = primaries.iter().map(|node| self.link(node)).collect();
            // Who cannot be reached now is looked for again.
            let _reached =
                join_all(links.iter().map(|link| link.reach(OPERATION, topology.deadline()))).await;
        }
    }
}

/// Looks at the servers again and again, as long as there is somebody to tell. Ends with its runtime; the next that reads or
/// listens begins anew.
struct Looking(Weak<Inner>);

impl Looking {
    async fn run(self) {
        loop {
            {
                let Some(tracker) = self.0.upgrade() else { return };
                if tracker.tracking.queue.is_closed() {
                    return;
                }
                let topology = &tracker.backend.shared.topology;
                if topology.keys_may_move() || !tracker.tracking.prefixes.is_empty() {
                    tracker.look().await;
                    let now = topology.slots_version();
                    if tracker.slots_version.swap(now, Ordering::AcqRel) != now {
                        tracker.tracking.queue.tell(RedisInvalidation::Gap(RedisGap::Moved));
                    }
                }
            }
            sleep(LOOK).await;
        }
    }
}

impl Drop for Looking {
    fn drop(&mut self) {
        if let Some(tracker) = self.0.upgrade() {
            tracker.is_looked_after.store(false, Ordering::Release);
        }
    }
}

fn read(answer: Answer<Value>) -> Result<Option<Bytes>> {
    match answer {
        Ok(value) => Ok(found(value)),
        // A list or the like under our key is nothing of ours.
        Err(error) if is_wrong_type(&error) => Ok(None),
        Err(error) => Err(convert(OPERATION, error)),
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        self.tracking.queue.end();
    }
}

impl fmt::Debug for RedisTracker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisTracker").field("backend", &NAME).finish_non_exhaustive()
    }
}
