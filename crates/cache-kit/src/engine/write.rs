//! Writing and invalidating. Both detach the loads of their keys, before and after.

use std::sync::atomic::Ordering;
use std::time::Duration;

use super::{Engine, Request};
use crate::backend::CacheBackend;
use crate::entity::CacheValue;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::observe::Event;

/// Detaches the loads of keys when a change begins, and again when it ends, however it ends.
///
/// Before: so that nobody joins a load that the change outdates. After: a load that began in between may have
/// been answered by the old entry, which was still there.
struct Change<'a, B: CacheBackend> {
    engine: &'a Engine<B>,
    keys: Keys<'a>,
}

#[derive(Clone, Copy)]
enum Keys<'a> {
    These(&'a [&'a str]),
    All,
}

impl<'a, B: CacheBackend> Change<'a, B> {
    fn begin(engine: &'a Engine<B>, keys: Keys<'a>) -> Self {
        let change = Self { engine, keys };
        change.detach();
        change
    }

    fn detach(&self) {
        self.engine.core.invalidations.fetch_add(1, Ordering::SeqCst);
        match self.keys {
            Keys::These(keys) => keys.iter().for_each(|key| self.engine.core.flights.detach(key)),
            Keys::All => self.engine.core.flights.detach_all(),
        }
    }
}

impl<B: CacheBackend> Drop for Change<'_, B> {
    fn drop(&mut self) {
        self.detach();
    }
}

impl<B: CacheBackend> Engine<B> {
    /// Stores a value, whatever is there.
    pub(crate) async fn write<T: CacheValue>(&self, request: &Request<'_>, value: &T) -> Result<()> {
        let key = request.key.as_str();
        let started = self.observer.start(&self.settings.clock);
        let written = match self.seal(request, value, Duration::ZERO) {
            Ok((entry, ttl)) => {
                let keys = [key];
                let _change = Change::begin(self, Keys::These(&keys));
                self.backend().set(key, entry, ttl).await
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
        let _change = Change::begin(self, Keys::These(&keys));
        let deleted = self.backend().delete(key.as_str()).await;
        self.invalidated(&[key], started, deleted)
    }

    /// Removes many entries, each as [`invalidate`](Self::invalidate) does.
    pub(crate) async fn invalidate_many(&self, keys: &[Key<'_>]) -> Result<()> {
        let started = self.observer.start(&self.settings.clock);
        let stored: Vec<&str> = keys.iter().map(Key::as_str).collect();
        let _change = Change::begin(self, Keys::These(&stored));
        let deleted = self.backend().mdelete(&stored).await;
        self.invalidated(&keys.iter().collect::<Vec<_>>(), started, deleted)
    }

    fn invalidated(
        &self,
        keys: &[&Key<'_>],
        started: Option<crate::clock::Tick>,
        deleted: Result<()>,
    ) -> Result<()> {
        for key in keys {
            match &deleted {
                Ok(()) => {
                    self.count(Event::Invalidation);
                    let key = key.as_str();
                    self.observer.timed(started, &self.settings.clock, |m, took| m.record_delete(key, took));
                }
                Err(error) => self.backend_failed(key, "an invalidation is not confirmed", error),
            }
        }
        deleted.map_err(|error| match error.hint() {
            None => error.with_hint("the old value may still be served: invalidate again"),
            Some(_) => error,
        })
    }

    /// Removes all entries of this cache's namespace.
    pub(crate) async fn clear(&self) -> Result<u64> {
        let Some(namespace) = &self.settings.namespace else {
            return Err(Error::new(ErrorKind::Unsupported, "a cache without a namespace cannot be cleared")
                .with_hint("give it one with Cache::builder().namespace(..), or `namespace=` in the URL"));
        };
        let _change = Change::begin(self, Keys::All);
        // Namespaces are plain names: nothing in one has a meaning in a pattern.
        self.backend().delete_pattern(&format!("{namespace}/*")).await
    }
}
