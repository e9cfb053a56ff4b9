//! The in-process backend: no services, no configuration, and the same meaning as the others.

mod config;
mod leases;
mod store;
mod sweeper;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

pub use config::InMemoryBuilder;

use self::leases::LeaseTable;
use self::store::{Slot, Store};
use self::sweeper::Sweeper;
use super::{
    Acquired, CacheBackend, Capabilities, Claim, DataModel, Distribution, Eviction, Fence, Fill, Filled,
    Lease, Peek, Persistence, SetEntry, Tier, check_life, check_ttl, pattern,
};
use crate::clock::{Clock, Tick};
use crate::error::{ErrorKind, Result};

const NAME: &str = "memory";

/// A concurrent map in this process, with lifetimes and a real fence.
///
/// Unbounded by default: entries stay until they expire or are deleted; expired ones free their memory
/// within about a second without being read. [`builder`](Self::builder) sets a bound in entries or bytes,
/// with eviction. The map is sharded (DashMap: many small locks, never held while anything waits), or, with a
/// bound, `quick_cache`'s S3-FIFO.
///
/// `clone` is another handle to the same entries; each [`new`](Self::new) is a store of its own.
///
/// ```
/// use cache_kit::backend::{CacheBackend, InMemoryBackend};
///
/// # async fn run() -> cache_kit::Result<()> {
/// let backend = InMemoryBackend::new();
/// backend.set("greeting", "hello".into(), None).await?;
/// assert_eq!(backend.get("greeting").await?.as_deref(), Some(&b"hello"[..]));
/// # Ok(()) }
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run()).unwrap();
/// ```
#[derive(Clone)]
pub struct InMemoryBackend {
    shared: Arc<Shared>,
}

/// What an [`InMemoryBackend`] holds, and what left it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct InMemoryStats {
    /// Entries held, expired ones that were not swept yet included.
    pub entries: usize,
    /// Keys and values held, in bytes.
    pub bytes: u64,
    /// Leases that are held on keys.
    pub leases: usize,
    /// Entries evicted to stay within the bound, since the start.
    pub evicted: u64,
    /// Entries removed because they had expired, since the start.
    pub expired: u64,
}

pub(super) struct Shared {
    store: Store,
    leases: LeaseTable,
    clock: Clock,
    sweeper: Sweeper,
}

impl InMemoryBackend {
    /// An empty store without a bound.
    #[must_use]
    pub fn new() -> Self {
        InMemoryBuilder::default().unbounded()
    }

    /// Sets a bound, or the clock.
    pub fn builder() -> InMemoryBuilder {
        InMemoryBuilder::default()
    }

    fn from_parts(store: Store, clock: Clock, sweep_every: Duration) -> Self {
        let sweeper = Sweeper::new(sweep_every);
        Self { shared: Arc::new(Shared { store, leases: LeaseTable::new(), clock, sweeper }) }
    }

    /// What the store holds now. Walks all entries.
    #[must_use]
    pub fn stats(&self) -> InMemoryStats {
        let (entries, bytes) = self.shared.store.size();
        InMemoryStats {
            entries,
            bytes,
            leases: self.shared.leases.len(),
            evicted: self.shared.store.evicted(),
            expired: self.shared.sweeper.expired(),
        }
    }

    /// Removes expired entries and leases now and tells how many entries that were. A background thread does
    /// this about once a second while there are entries that expire; a test with a manual clock calls it.
    #[expect(clippy::must_use_candidate, reason = "called for what it does")]
    pub fn sweep(&self) -> u64 {
        self.shared.sweep()
    }
}

impl Shared {
    fn live(&self, key: &str) -> Option<Slot> {
        self.store.get(key).filter(|slot| !slot.is_expired(&self.clock))
    }

    fn slot(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<Slot> {
        check_ttl(ttl)?;
        let expires_at = ttl.map_or(Tick::NEVER, |ttl| self.clock.now().after(ttl));
        let slot = Slot { value, expires_at };
        self.store.check_size(key, &slot)?;
        Ok(slot)
    }

    fn watch_expiry(self: &Arc<Self>, expires_at: Tick) {
        if expires_at != Tick::NEVER {
            self.sweeper.watch(expires_at, self);
        }
    }

    fn set(self: &Arc<Self>, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<()> {
        let slot = match self.slot(key, value, ttl) {
            Ok(slot) => slot,
            Err(error) => {
                // Like the servers: what was refused for its size does not leave an older value behind.
                if error.kind() == ErrorKind::TooLarge {
                    self.delete(key);
                }
                return Err(error);
            }
        };
        let expires_at = slot.expires_at;
        let replaced = self.leases.change(key, |lease| {
            *lease = None;
            self.store.insert(key, slot)
        });
        drop(replaced);
        self.watch_expiry(expires_at);
        Ok(())
    }

    /// Removes value and lease; true if there was a live value.
    fn delete(&self, key: &str) -> bool {
        let removed = self.leases.change(key, |lease| {
            *lease = None;
            self.store.remove(key)
        });
        removed.is_some_and(|slot| !slot.is_expired(&self.clock))
    }

    fn acquire(self: &Arc<Self>, key: &str, seen: Option<&Bytes>, life: Duration) -> Result<Acquired> {
        check_life(life)?;
        let expires_at = self.clock.now().after(life);
        let answer = self.leases.change(key, |lease| {
            let held = self.live(key).map(|slot| slot.value);
            if let Some(value) = held.as_ref().filter(|value| Some(*value) != seen) {
                return Acquired::Present { value: value.clone() };
            }
            if lease.as_ref().is_some_and(|lease| lease.is_live(&self.clock)) {
                return Acquired::Busy { kept: held };
            }
            let granted = leases::Held::new(expires_at);
            let token = Lease::new(granted.token());
            *lease = Some(granted);
            Acquired::Granted { lease: token, kept: held }
        });
        if matches!(answer, Acquired::Granted { .. }) {
            self.sweeper.start(self);
        }
        Ok(answer)
    }

    fn fill(
        self: &Arc<Self>,
        key: &str,
        lease: &Lease,
        value: Bytes,
        ttl: Option<Duration>,
    ) -> Result<Filled> {
        let slot = self.slot(key, value, ttl)?;
        let expires_at = slot.expires_at;
        let (filled, replaced) = self.leases.change(key, |held| {
            if !held.as_ref().is_some_and(|held| held.is(lease) && held.is_live(&self.clock)) {
                return (Filled::Refused, None);
            }
            *held = None;
            (Filled::Stored, self.store.insert(key, slot))
        });
        drop(replaced);
        if filled == Filled::Stored {
            self.watch_expiry(expires_at);
        }
        Ok(filled)
    }

    fn renew(&self, key: &str, lease: &Lease, life: Duration) -> Result<Option<Lease>> {
        check_life(life)?;
        let expires_at = self.clock.now().after(life);
        let renewed = self.leases.change(key, |held| {
            let held = held.as_mut().filter(|held| held.is(lease) && held.is_live(&self.clock));
            held.map(|held| held.renew(expires_at))
        });
        Ok(renewed.map(|()| lease.clone()))
    }

    fn release(&self, key: &str, lease: &Lease) {
        self.leases.change(key, |held| {
            if held.as_ref().is_some_and(|held| held.is(lease)) {
                *held = None;
            }
        });
    }

    fn sweep(&self) -> u64 {
        self.leases.sweep(&self.clock);
        self.sweeper.run(&self.store, &self.clock)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl CacheBackend for InMemoryBackend {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            name: NAME,
            tier: Tier::DevTest,
            persistence: Persistence::No,
            distribution: Distribution::SingleProcess,
            data_model: DataModel::KeyValue,
            eviction: if self.shared.store.is_bounded() { Eviction::Bounded } else { Eviction::Manual },
            pattern_delete: true,
            fence: Fence::Leases,
            ttl_resolution: Duration::ZERO,
            max_entries: self.shared.store.max_entries(),
            max_value_bytes: self.shared.store.max_value_bytes(),
            ..Capabilities::minimal(NAME)
        }
    }

    fn peek(&self, key: &str) -> Peek {
        match self.shared.live(key) {
            Some(slot) => Peek::Hit(slot.value),
            None => Peek::Miss,
        }
    }

    fn distrust(&self) {
        // There are no answers that could get out of step.
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        Ok(self.shared.live(key).map(|slot| slot.value))
    }

    async fn set(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<()> {
        self.shared.set(key, value, ttl)
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.shared.delete(key);
        Ok(())
    }

    async fn exists(&self, key: &str) -> Result<bool> {
        Ok(self.shared.live(key).is_some())
    }

    async fn mget(&self, keys: &[&str]) -> Result<Vec<Option<Bytes>>> {
        Ok(keys.iter().map(|key| self.shared.live(key).map(|slot| slot.value)).collect())
    }

    async fn mget_each(&self, keys: &[&str]) -> Result<Vec<Result<Option<Bytes>>>> {
        // One store answers for all of them.
        Ok(self.mget(keys).await?.into_iter().map(Ok).collect())
    }

    async fn mset(&self, entries: &[SetEntry<'_>]) -> Result<()> {
        for entry in entries {
            self.shared.set(entry.key, entry.value.clone(), entry.ttl)?;
        }
        Ok(())
    }

    async fn mdelete(&self, keys: &[&str]) -> Result<()> {
        for key in keys {
            self.shared.delete(key);
        }
        Ok(())
    }

    async fn delete_pattern(&self, pattern: &str) -> Result<u64> {
        let matches = |key: &str| pattern::matches(pattern, key);
        let mut removed = 0;
        // Leases first: what is being loaded has, mostly, no value, and a fill that comes between two lists
        // must not be on neither. Each key has its own short lock: a pattern over a million stalls nobody.
        for key in self.shared.leases.keys_that(matches) {
            removed += u64::from(self.shared.delete(&key));
        }
        for key in self.shared.store.keys_that(matches) {
            removed += u64::from(self.shared.delete(&key));
        }
        Ok(removed)
    }

    async fn health_check(&self) -> Result<bool> {
        Ok(true)
    }

    async fn clear_all(&self) -> Result<()> {
        self.shared.leases.clear_with(|| self.shared.store.clear());
        Ok(())
    }

    async fn acquire(&self, key: &str, seen: Option<&Bytes>, life: Duration) -> Result<Acquired> {
        self.shared.acquire(key, seen, life)
    }

    async fn fill(&self, key: &str, lease: &Lease, value: Bytes, ttl: Option<Duration>) -> Result<Filled> {
        self.shared.fill(key, lease, value, ttl)
    }

    async fn acquire_many(&self, claims: &[Claim<'_>], life: Duration) -> Result<Vec<Result<Acquired>>> {
        Ok(claims.iter().map(|claim| self.shared.acquire(claim.key, claim.seen, life)).collect())
    }

    async fn fill_many(&self, fills: &[Fill<'_>]) -> Result<Vec<Result<Filled>>> {
        let fills = fills.iter();
        Ok(fills.map(|fill| self.shared.fill(fill.key, fill.lease, fill.value.clone(), fill.ttl)).collect())
    }

    fn shards(&self) -> usize {
        1
    }

    fn shard_of(&self, _key: &str) -> usize {
        0
    }

    fn shard_key(&self, _shard: usize, name: &str) -> String {
        name.to_owned()
    }

    async fn renew(&self, key: &str, lease: &Lease, life: Duration) -> Result<Option<Lease>> {
        self.shared.renew(key, lease, life)
    }

    async fn release(&self, key: &str, lease: &Lease) -> Result<()> {
        self.shared.release(key, lease);
        Ok(())
    }

    fn release_later(&self, key: &str, lease: Lease) {
        self.shared.release(key, &lease);
    }
}

impl Default for InMemoryBackend {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for InMemoryBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InMemoryBackend").field("store", &self.shared.store).finish_non_exhaustive()
    }
}
