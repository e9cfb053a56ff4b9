//! Writing and invalidating. Both detach the loads of their keys, before and after.

use std::time::Duration;

use super::fill::{Began, Chosen, Sealed, Sealing};
use super::pending::Owed;
use super::{Engine, LEASE_LIFE, Request};
use crate::backend::{Acquired, CacheBackend, Filled};
use crate::clock::Tick;
use crate::entity::CacheValue;
use crate::entry;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::loaded::Loaded;
use crate::observe::Event;

/// Detaches the loads of keys when a change begins, and again when it ends, however it ends. An invalidation whose
/// caller goes away before the backend has answered is queued.
///
/// Before: so that nobody joins a load that the change outdates. After: a load that began in between may have
/// been answered by the old entry, which was still there.
struct Change<'a, B: CacheBackend> {
    engine: &'a Engine<B>,
    keys: Keys<'a>,
    /// Of the first request that this change does not settle.
    number: u64,
    is_owed: bool,
}

#[derive(Clone, Copy)]
enum Keys<'a> {
    These(&'a [&'a str]),
    Matching(&'a str),
}

impl<'a, B: CacheBackend> Change<'a, B> {
    fn begin(engine: &'a Engine<B>, keys: Keys<'a>, is_owed: bool) -> Self {
        let change = Self { engine, keys, number: engine.core.pending.number(), is_owed };
        change.detach();
        change
    }

    fn write(engine: &'a Engine<B>, keys: Keys<'a>) -> Self {
        Self::begin(engine, keys, false)
    }

    fn invalidation(engine: &'a Engine<B>, keys: Keys<'a>) -> Self {
        Self::begin(engine, keys, true)
    }

    fn detach(&self) {
        match self.keys {
            Keys::These(keys) => keys.iter().for_each(|key| self.engine.detach(key)),
            Keys::Matching(_) => self.engine.detach_all(),
        }
    }

    fn each_owed(&self, mut tell: impl FnMut(Owed)) {
        match self.keys {
            Keys::These(keys) => keys.iter().for_each(|key| tell(Owed::Key((*key).into()))),
            Keys::Matching(pattern) => tell(Owed::Pattern(pattern.into())),
        }
    }

    /// The backend has done it.
    fn confirmed(mut self) {
        self.is_owed = false;
        let pending = &self.engine.core.pending;
        if pending.len() != 0 {
            self.each_owed(|owed| pending.confirm(&owed, self.number));
        }
    }

    /// The backend has refused it, and would again.
    fn refused(mut self) {
        self.is_owed = false;
    }
}

/// Whether the backend will never hold what it was to remove.
pub(super) fn is_hopeless(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::InvalidInput | ErrorKind::TooLarge | ErrorKind::Unsupported)
}

impl<B: CacheBackend> Drop for Change<'_, B> {
    fn drop(&mut self) {
        if self.is_owed {
            self.each_owed(|owed| self.engine.owe(owed));
        }
        self.detach();
    }
}

impl<B: CacheBackend> Engine<B> {
    /// Lets nobody join the loads of a key any more.
    pub(super) fn detach(&self, key: &str) {
        for lease in self.core.flights.detach(key) {
            self.release_later(key, Some(lease));
        }
    }

    /// Lets nobody join any load any more.
    pub(super) fn detach_all(&self) {
        for (key, lease) in self.core.flights.detach_all() {
            self.release_later(&key, Some(lease));
        }
    }

    /// Stores a value, whatever is there.
    pub(crate) async fn write<T: CacheValue>(&self, request: &Request<'_>, value: &T) -> Result<()> {
        let key = request.key.as_str();
        let loaded = Loaded::value(value.clone());
        let started = self.observer.start(&self.settings.clock);
        let sealed = match self.capture(request).await {
            Ok(captured) => {
                let began = Began { at: self.settings.clock.now(), captured };
                self.seal(request, &began, &loaded, Duration::ZERO, &Chosen::default())
            }
            Err(error) => Err(error),
        };
        let written = match sealed {
            Ok(Sealing::NotAsked | Sealing::Overtaken) => Ok(()),
            Ok(Sealing::Sealed(Sealed { entry, life, longest, captured, .. })) => {
                let keys = [key];
                let change = Change::write(self, Keys::These(&keys));
                let set = self.backend().set(key, entry, life);
                let keep = self.keep_versions(self.needs(key, &captured, longest).into_iter());
                let (written, ()) = futures_util::future::join(set, keep).await;
                if written.is_ok() {
                    self.core.cooldown.end(request.key.hash());
                    change.confirmed();
                }
                written
            }
            Err(error) => Err(error),
        };
        match &written {
            Ok(()) => {
                self.count(Event::Stored);
                self.observer.timed(started, &self.settings.clock, |m, took| m.record_set(key, took));
            }
            Err(error) => {
                self.count(Event::StoreFailed);
                self.observer.tell(|metrics| metrics.record_error(key, &error.to_string()));
            }
        }
        written
    }

    /// Removes an entry. When this returns `Ok`, no older value comes back: loads that had begun store
    /// nothing, and nobody joins them.
    pub(crate) async fn invalidate(&self, key: &Key<'_>) -> Result<()> {
        let started = self.observer.start(&self.settings.clock);
        let keys = [key.as_str()];
        let change = Change::invalidation(self, Keys::These(&keys));
        let deleted = self.backend().delete(key.as_str()).await;
        self.hold_on(&keys).await;
        self.invalidated(change, &keys, started, deleted)
    }

    /// Removes many entries, each as [`invalidate`](Self::invalidate) does.
    pub(crate) async fn invalidate_many(&self, keys: &[&str]) -> Result<()> {
        let removed = self.remove(keys).await;
        self.hold_on(keys).await;
        removed
    }

    /// Removes many entries, and the leases that this cache may hold of them.
    pub(super) async fn remove(&self, keys: &[&str]) -> Result<()> {
        let started = self.observer.start(&self.settings.clock);
        let change = Change::invalidation(self, Keys::These(keys));
        let deleted = self.backend().mdelete(keys).await;
        self.invalidated(change, keys, started, deleted)
    }

    /// Removes the entries whose keys match a pattern, and tells how many values that was.
    pub(crate) async fn invalidate_matching(&self, pattern: &str) -> Result<u64> {
        let change = Change::invalidation(self, Keys::Matching(pattern));
        match self.backend().delete_pattern(pattern).await {
            Ok(removed) => {
                change.confirmed();
                self.count(Event::Invalidation);
                Ok(removed)
            }
            Err(error) => Err(self.unconfirmed(change, error)),
        }
    }

    /// Ends the fresh life of an entry, which stays to be served where a stale value may be; removed if somebody loads it.
    pub(crate) async fn expire(&self, key: &Key<'_>) -> Result<()> {
        if self.core.pending.holds(key.as_str()) {
            // What is to be removed is no fallback.
            return self.invalidate(key).await;
        }
        let started = self.observer.start(&self.settings.clock);
        let keys = [key.as_str()];
        let change = Change::invalidation(self, Keys::These(&keys));
        let expired = self.expire_entry(key).await;
        self.invalidated(change, &keys, started, expired)
    }

    async fn expire_entry(&self, key: &Key<'_>) -> Result<()> {
        let (backend, stored) = (self.backend(), key.as_str());
        let Some(mut entry) = backend.get(stored).await? else { return backend.delete(stored).await };
        // What changes all the time is not worth keeping.
        for _ in 0..3 {
            let now = self.settings.clock.unix_millis();
            let Some((expired, life)) = entry::expired(&entry, key.hash(), now) else { break };
            match backend.acquire(stored, Some(&entry), LEASE_LIFE).await? {
                Acquired::Granted { lease, kept: Some(_) } => {
                    if backend.fill(stored, &lease, expired, life).await? == Filled::Stored {
                        return Ok(());
                    }
                    break;
                }
                // Removed meanwhile: it must not come back.
                Acquired::Granted { lease, kept: None } => {
                    backend.release_later(stored, lease);
                    return Ok(());
                }
                Acquired::Present { value } => entry = value,
                // Whoever loads it began before this, and is not to store what was read then.
                Acquired::Busy { .. } => break,
                Acquired::Unfenced => return backend.set(stored, expired, life).await,
            }
        }
        backend.delete(stored).await
    }

    fn invalidated(
        &self,
        change: Change<'_, B>,
        keys: &[&str],
        started: Option<Tick>,
        deleted: Result<()>,
    ) -> Result<()> {
        match deleted {
            Ok(()) => {
                change.confirmed();
                for key in keys {
                    self.count(Event::Invalidation);
                    self.observer.timed(started, &self.settings.clock, |m, took| m.record_delete(key, took));
                }
                Ok(())
            }
            Err(error) => Err(self.unconfirmed(change, error)),
        }
    }

    /// What the caller of an invalidation that failed is told. It is queued, unless it would be refused for ever.
    fn unconfirmed(&self, change: Change<'_, B>, error: Error) -> Error {
        self.count(Event::BackendError);
        crate::observe::survived("an invalidation is not confirmed", &error);
        let is_one = match change.keys {
            Keys::These(keys) => keys.len() == 1,
            Keys::Matching(_) => true,
        };
        if is_one && is_hopeless(&error) {
            change.refused();
            return error;
        }
        change.each_owed(|owed| {
            let (Owed::Key(key) | Owed::Pattern(key)) = owed else { return };
            self.observer.tell(|metrics| metrics.record_error(&key, &error.to_string()));
        });
        drop(change);
        Error::new(ErrorKind::Unconfirmed, "the backend may still hold the old value")
            .with_source(error)
            .with_hint("it is queued and sent again until it is confirmed; flush_pending waits for that")
    }
}
