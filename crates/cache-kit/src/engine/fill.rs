//! Storing what was loaded, unless an invalidation came first.

use std::panic::catch_unwind;
use std::time::Duration;

use bytes::Bytes;

use super::flight::Leader;
use super::pending::Owed;
use super::{Engine, Request};
use crate::backend::{CacheBackend, Filled};
use crate::clock::Tick;
use crate::entity::CacheValue;
use crate::entry::{self, Stamp};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::observe::{Event, survived};
use crate::outcome::Stored;

/// What a load may do with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Permit {
    /// Fill under the lease that the leader holds.
    Lease,
    /// Write, as long as the key was not invalidated in this process: the backend has no fence.
    Unfenced,
    /// Leave it: somebody else holds the lease.
    LeftToOther,
    /// Leave it: what the backend holds is not known.
    Unknown,
}

/// A write that may have to be taken back, and is queued for that if it cannot be waited for.
struct Written<'a, B: CacheBackend, F: Fn() -> bool> {
    engine: &'a Engine<B>,
    key: &'a str,
    invalidated: &'a F,
    is_settled: bool,
}

impl<B: CacheBackend, F: Fn() -> bool> Drop for Written<'_, B, F> {
    fn drop(&mut self) {
        if !self.is_settled && (self.invalidated)() {
            self.engine.owe(Owed::Key(self.key.into()));
        }
    }
}

impl<B: CacheBackend> Engine<B> {
    /// Stores a loaded value as its permit allows.
    pub(super) async fn fill<T: CacheValue>(
        &self,
        leader: &mut Leader,
        request: &Request<'_>,
        (permit, epoch): (Permit, u64),
        value: &T,
        cost: Duration,
    ) -> Result<Stored> {
        match permit {
            Permit::LeftToOther => return Ok(Stored::LeftToOther),
            Permit::Unknown => {
                // A lease may be left of a backend that failed later.
                self.release_later(request.key.as_str(), leader.lease.take());
                return Ok(Stored::BackendUnknown);
            }
            Permit::Lease | Permit::Unfenced => {}
        }
        let is_held = self.core.holds.contains(request.key.as_str());
        if permit == Permit::Lease && (leader.lease.is_none() || leader.is_detached() || is_held) {
            // The lease is void, or will be: nothing need be asked.
            self.release_later(request.key.as_str(), leader.lease.take());
            return Ok(self.count_fill(Filled::Refused));
        }
        let filled = match self.seal(request, epoch, value, cost) {
            Ok((entry, ttl)) => {
                let started = self.observer.start(&self.settings.clock);
                let key = request.key.as_str();
                let filled = match &leader.lease {
                    Some(lease) => self.backend().fill(key, lease, entry, ttl).await,
                    None => {
                        let overtaken = || leader.is_detached() || self.core.holds.contains(key);
                        self.fill_unfenced(request, entry, ttl, overtaken).await
                    }
                };
                self.tell_fill(request, started, &filled);
                filled
            }
            Err(error) => Err(error),
        };
        let lease = leader.lease.take();
        match filled {
            Ok(filled) => Ok(self.count_fill(filled)),
            Err(error) => {
                self.store_failed(&request.key, &error);
                self.release_later(request.key.as_str(), lease);
                Err(error)
            }
        }
    }

    pub(super) fn tell_fill(&self, request: &Request<'_>, started: Option<Tick>, filled: &Result<Filled>) {
        if matches!(filled, Ok(Filled::Stored)) {
            let key = request.key.as_str();
            self.observer.timed(started, &self.settings.clock, |metrics, took| metrics.record_set(key, took));
        }
    }

    pub(super) fn store_failed(&self, key: &Key<'_>, error: &Error) {
        self.count(Event::StoreFailed);
        self.observer.tell(|metrics| metrics.record_error(key.as_str(), &error.to_string()));
        survived("a loaded value was not stored", error);
    }

    pub(super) fn count_fill(&self, filled: Filled) -> Stored {
        match filled {
            Filled::Stored => {
                self.count(Event::Stored);
                Stored::Yes
            }
            Filled::Refused => {
                self.count(Event::FencedOff);
                Stored::FencedOff
            }
        }
    }

    /// The entry of a value, and its life, stale or fresh. Of the epoch in which its load began: one that was overtaken by a
    /// new one is a miss.
    pub(super) fn seal<T: CacheValue>(
        &self,
        request: &Request<'_>,
        epoch: u64,
        value: &T,
        cost: Duration,
    ) -> Result<(Bytes, Option<Duration>)> {
        let settings = &self.settings;
        // A policy is somebody else's code.
        let ttl = match request.ttl {
            Some(ttl) => Some(ttl),
            None => catch_unwind(|| settings.ttl.ttl_for(request.prefix))
                .map_err(|_| Error::invalid("the TtlPolicy panicked"))?,
        };
        if ttl == Some(Duration::ZERO) {
            return Err(
                Error::invalid("ttl is zero, as the TtlPolicy says").with_hint("let it say at least 1 ms")
            );
        }
        let stamp = Stamp {
            schema: request.schema ^ epoch,
            key_hash: request.key.hash(),
            written_at: settings.clock.unix_millis(),
            ttl,
            stale: self.policy(request).stale_life(),
            load_cost: cost,
        };
        let limit =
            self.core.capabilities.max_value_bytes.unwrap_or(usize::MAX).min(settings.max_value_bytes);
        let entry = entry::seal(value, settings.codec, &stamp, settings.verify_roundtrip, limit)?;
        Ok((entry, ttl.map(|ttl| ttl.saturating_add(stamp.stale))))
    }

    /// Writes if nothing was invalidated since the load began, looks again afterwards, and takes the value
    /// away if something was. Between the write and the second look another reader may see it: that is what
    /// a backend without a fence cannot prevent.
    pub(super) async fn fill_unfenced(
        &self,
        request: &Request<'_>,
        entry: Bytes,
        ttl: Option<Duration>,
        invalidated: impl Fn() -> bool + Send + Sync,
    ) -> Result<Filled> {
        if invalidated() {
            return Ok(Filled::Refused);
        }
        let key = request.key.as_str();
        let mut written = Written { engine: self, key, invalidated: &invalidated, is_settled: false };
        self.backend().set(key, entry, ttl).await?;
        if invalidated() {
            self.backend().delete(key).await?;
            written.is_settled = true;
            return Ok(Filled::Refused);
        }
        written.is_settled = true;
        Ok(Filled::Stored)
    }
}
