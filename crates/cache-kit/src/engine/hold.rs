//! Keys that nothing is stored under while the source is being changed.

use std::collections::HashMap;
use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::future::join_all;
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use super::pending::Owed;
use super::{Engine, LEASE_LIFE, RENEW_EVERY};
use crate::backend::{Acquired, CacheBackend, Fence, Lease};
use crate::error::{Error, ErrorKind, Result};

/// For how long leases are renewed for a hold that is neither confirmed nor dropped.
const LONGEST: Duration = Duration::from_secs(60);
/// So often a lease is tried for while other processes take it again and again.
const TRIES: usize = 8;
/// So many keys are asked for side by side.
const AT_A_TIME: usize = 64;

/// The keys that this cache holds.
#[derive(Default)]
pub(crate) struct Holds {
    len: AtomicUsize,
    keys: Mutex<HashMap<Box<str>, Held>>,
}

/// One of them.
#[derive(Default)]
struct Held {
    holds: usize,
    /// Taken after something here had removed the one before; for whoever keeps it.
    lease: Option<Lease>,
}

impl Holds {
    fn lock(&self) -> MutexGuard<'_, HashMap<Box<str>, Held>> {
        self.keys.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn contains(&self, key: &str) -> bool {
        self.len.load(Ordering::SeqCst) != 0 && self.lock().contains_key(key)
    }

    fn add(&self, key: &str) {
        let mut keys = self.lock();
        keys.entry(key.into()).or_default().holds += 1;
        self.len.store(keys.len(), Ordering::SeqCst);
    }

    fn remove(&self, key: &str) {
        let mut keys = self.lock();
        if let Some(held) = keys.get_mut(key) {
            held.holds -= 1;
            if held.holds == 0 {
                keys.remove(key);
            }
        }
        self.len.store(keys.len(), Ordering::SeqCst);
    }

    /// Leaves a lease for whoever keeps the key; it comes back if nobody does.
    fn leave(&self, key: &str, lease: Lease) -> Option<Lease> {
        match self.lock().get_mut(key) {
            // The one before is void.
            Some(held) => {
                held.lease = Some(lease);
                None
            }
            None => Some(lease),
        }
    }

    fn collect(&self, key: &str) -> Option<Lease> {
        self.lock().get_mut(key)?.lease.take()
    }

    fn is_held_by_others(&self, key: &str) -> bool {
        self.lock().get(key).is_some_and(|held| held.holds > 1)
    }
}

/// Keys that nothing is stored under until the hold ends; made by [`Cache::hold`](crate::Cache::hold).
///
/// For a change of the source that takes effect at one moment, such as the commit of a transaction:
///
/// ```
/// # async fn run(cache: cache_kit::Cache) -> cache_kit::Result<()> {
/// # struct Transaction; impl Transaction { async fn commit(self) -> cache_kit::Result<()> { Ok(()) } }
/// # let tx = Transaction;
/// let hold = cache.hold(["user:7"]).await?;
/// tx.commit().await?;
/// hold.confirm().await?;
/// # Ok(()) }
/// # tokio::runtime::Builder::new_current_thread().build().unwrap()
/// #     .block_on(run(cache_kit::Cache::new(cache_kit::backend::InMemoryBackend::new()))).unwrap();
/// ```
///
/// The old values are gone before the commit, and what is loaded meanwhile, which may be from before it, is returned but
/// stored by nobody. So a process that dies after the commit and before [`confirm`](Self::confirm) leaves nothing old
/// behind: its leases end by themselves, three seconds later at most.
///
/// Dropped without being confirmed, it invalidates: a transaction whose end is not known may have been committed. The
/// keys are then queued, as those of an invalidation that is not confirmed.
///
/// Leases are renewed from a task on the tokio runtime that made the hold, for up to a minute; without a runtime they last
/// three seconds. What is stored after that is removed by the end of the hold. If another *process* removes one of the
/// keys meanwhile, its lease is taken again within a second.
#[must_use = "dropped, it invalidates at once"]
pub struct Hold<B: CacheBackend = Box<dyn CacheBackend>> {
    engine: Engine<B>,
    keys: Vec<Box<str>>,
    keeper: Option<JoinHandle<()>>,
    failed: Option<Error>,
    is_over: bool,
}

impl<B: CacheBackend> Engine<B> {
    /// Invalidates keys and keeps their leases.
    pub(crate) async fn hold(&self, mut keys: Vec<Box<str>>) -> Hold<B> {
        // Held twice, a key would be taken from itself.
        keys.sort_unstable();
        keys.dedup();
        keys.iter().for_each(|key| self.core.holds.add(key));
        // From here on whatever happens ends in its drop.
        let mut hold = Hold { engine: self.clone(), keys, keeper: None, failed: None, is_over: false };
        let mut leases = Vec::with_capacity(hold.keys.len());
        for keys in hold.keys.chunks(AT_A_TIME) {
            for (key, taken) in keys.iter().zip(join_all(keys.iter().map(|key| self.take_hold(key))).await) {
                match taken {
                    Ok(Some(lease)) => leases.push((key.clone(), lease)),
                    Ok(None) => {}
                    Err(error) => {
                        hold.failed.get_or_insert(error);
                    }
                }
            }
        }
        if let (false, Ok(runtime)) = (leases.is_empty(), Handle::try_current()) {
            let keeper = runtime.spawn(self.clone().keep_hold(leases));
            hold.keeper = Some(keeper);
        }
        hold
    }

    /// Removes what is there and takes the lease; `None` if the backend has none to give.
    async fn take_hold(&self, key: &str) -> Result<Option<Lease>> {
        for _ in 0..TRIES {
            self.remove(&[key]).await?;
            if matches!(self.backend().capabilities().fence, Fence::Tombstones { .. }) {
                // What the invalidation left keeps fills away by itself, for as long as it stands.
                return Ok(None);
            }
            match self.backend().acquire(key, None, LEASE_LIFE).await? {
                Acquired::Granted { lease, .. } => return Ok(Some(lease)),
                Acquired::Unfenced => return Ok(None),
                // Of a load that began before the hold, or a write.
                Acquired::Busy { .. } | Acquired::Present { .. } => {}
            }
        }
        Err(Error::new(ErrorKind::Unavailable, "the lease of a key was taken by others again and again")
            .with_operation("hold"))
    }

    /// Takes the leases of keys again that have just been removed, as far as this cache holds them.
    pub(super) async fn hold_on(&self, keys: &[&str]) {
        for key in keys.iter().filter(|key| self.core.holds.contains(key)) {
            // What fails here, the keeper tries again.
            if let Ok(Acquired::Granted { lease, .. }) = self.backend().acquire(key, None, LEASE_LIFE).await {
                let unused = self.core.holds.leave(key, lease);
                self.release_later(key, unused);
            }
        }
    }

    async fn keep_hold(self, mut leases: Vec<(Box<str>, Lease)>) {
        let clock = self.settings.clock.clone();
        let end = clock.now().after(LONGEST);
        while clock.now() < end {
            clock.sleep(RENEW_EVERY).await;
            for some in leases.chunks_mut(AT_A_TIME) {
                let mut kept = Vec::with_capacity(some.len());
                for (key, lease) in some {
                    kept.push(self.keep_one(key, lease));
                }
                join_all(kept).await;
            }
        }
    }

    async fn keep_one(&self, key: &str, lease: &mut Lease) {
        if let Some(newer) = self.core.holds.collect(key) {
            *lease = newer;
        }
        match self.backend().renew(key, lease, LEASE_LIFE).await {
            Ok(Some(renewed)) => *lease = renewed,
            // Somebody removed it; nobody is to store under it all the same. Another hold of this cache may have it.
            Ok(None) if !self.core.holds.is_held_by_others(key) => {
                if let Ok(Some(taken)) = self.take_hold(key).await {
                    *lease = taken;
                    if !self.core.holds.contains(key) {
                        // The hold has ended meanwhile.
                        self.backend().release_later(key, lease.clone());
                    }
                }
            }
            Ok(None) => self.hold_on(&[key]).await,
            Err(_) => {}
        }
    }
}

impl<B: CacheBackend> Hold<B> {
    /// What kept the backend from holding all of the keys. The change of the source need not wait for it: this process stores
    /// nothing under them, does not believe those that could not be removed, and queues the end of the hold where it is not
    /// confirmed.
    #[must_use]
    pub fn degraded(&self) -> Option<&Error> {
        self.failed.as_ref()
    }

    /// The change of the source is done: what is loaded from here on is stored again.
    ///
    /// Not cancel-safe in one way: a caller that goes away leaves the invalidation queued.
    ///
    /// # Errors
    /// As [`Cache::invalidate`](crate::Cache::invalidate).
    pub async fn confirm(mut self) -> Result<()> {
        let (keys, keeper) = self.end();
        let keys: Vec<&str> = keys.iter().map(|key| &**key).collect();
        if let Some(keeper) = keeper {
            // One that is just about to renew would take for another's what is removed below, and remove it once more,
            // with the lease of whoever loads by then.
            let _ended = keeper.await;
        }
        self.engine.invalidate_many(&keys).await
    }

    /// The keys, which are not held any more, and what kept their leases, which has been told to stop.
    fn end(&mut self) -> (Vec<Box<str>>, Option<JoinHandle<()>>) {
        self.is_over = true;
        let keeper = self.keeper.take();
        if let Some(keeper) = &keeper {
            keeper.abort();
        }
        let keys = std::mem::take(&mut self.keys);
        keys.iter().for_each(|key| self.engine.core.holds.remove(key));
        (keys, keeper)
    }
}

impl<B: CacheBackend> Drop for Hold<B> {
    fn drop(&mut self) {
        if !self.is_over {
            // For those without a fence, whose loads may have begun meanwhile.
            for key in self.end().0 {
                self.engine.detach(&key);
                self.engine.owe(Owed::Key(key));
            }
        }
    }
}

impl<B: CacheBackend> fmt::Debug for Hold<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Hold")
            .field("keys", &self.keys.len())
            .field("failed", &self.failed)
            .finish_non_exhaustive()
    }
}
