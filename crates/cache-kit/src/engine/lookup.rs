//! What the backend says about a key. Four answers, not two: an error is not a miss.

use bytes::Bytes;

use super::looking::Looker;
use super::{Engine, LEASE_LIFE, Request};
use crate::backend::{Acquired, CacheBackend, Lease, Peek};
use crate::clock::Tick;
use crate::entity::CacheValue;
use crate::entry::{self, Header, Reject};
use crate::error::{Error, Result};
use crate::observe::{Event, rejected};

/// How far a writer's clock may be ahead before its entries are doubted.
const MAX_SKEW_MILLIS: u64 = 60_000;

/// A usable entry.
pub(super) struct Found<T> {
    pub(super) value: T,
    pub(super) written_at: u64,
}

/// Why there is no usable entry.
pub(super) enum Missed {
    /// The key holds nothing.
    Absent,
    /// The key holds nothing, and the lookup has brought the lease of it.
    Leased(Lease, Looker),
    /// The key holds this, which is stale or cannot be read.
    Unusable(Bytes),
    /// The backend could not tell.
    Unknown(Error),
}

impl Missed {
    pub(super) fn into_error(self) -> Option<Error> {
        match self {
            Self::Unknown(error) => Some(error),
            Self::Absent | Self::Leased(..) | Self::Unusable(_) => None,
        }
    }

    /// The lease that the lookup has brought, to be taken care of.
    pub(super) fn take_lease(&mut self) -> Option<(Lease, Looker)> {
        match std::mem::replace(self, Self::Absent) {
            Self::Leased(lease, looker) => Some((lease, looker)),
            other => {
                *self = other;
                None
            }
        }
    }
}

impl<B: CacheBackend> Engine<B> {
    /// Asks the backend, without a boxed future if it can answer at once.
    pub(super) async fn fetch(&self, key: &str) -> Result<Option<Bytes>> {
        match self.backend().peek(key) {
            Peek::Hit(entry) => Ok(Some(entry)),
            Peek::Miss => Ok(None),
            Peek::Unknown => self.backend().get(key).await,
        }
    }

    /// Asks the backend and reads the entry.
    pub(super) async fn look_up<T: CacheValue>(
        &self,
        request: &Request<'_>,
        accepts: fn(&T) -> bool,
    ) -> Result<Found<T>, Missed> {
        let started = self.observer.start(&self.settings.clock);
        let answer = match self.fetch(request.key.as_str()).await {
            Ok(Some(entry)) => self.judge(request, entry, accepts),
            Ok(None) => Err(Missed::Absent),
            Err(error) => Err(Missed::Unknown(error)),
        };
        self.count_lookup(request, answer.as_ref().err());
        self.tell_lookup(request, started, answer.as_ref().err());
        answer
    }

    /// Asks the backend and reads the entry, for a reader that will load what is not there. Where a lookup can take the
    /// lease of an absent key with it, it does.
    pub(super) async fn look_up_to_load<T: CacheValue>(
        &self,
        request: &Request<'_>,
        accepts: fn(&T) -> bool,
    ) -> Result<Found<T>, Missed> {
        if !self.core.capabilities.lease_on_read {
            return self.look_up(request, accepts).await;
        }
        let Some(looker) = self.core.looking.begin(request.key.hash()) else {
            return self.look_up(request, accepts).await;
        };
        let started = self.observer.start(&self.settings.clock);
        let answer = match self.backend().acquire(request.key.as_str(), None, LEASE_LIFE).await {
            Ok(Acquired::Present { value }) => self.judge(request, value, accepts),
            Ok(Acquired::Granted { lease, .. }) => Err(Missed::Leased(lease, looker)),
            Ok(Acquired::Busy { .. } | Acquired::Unfenced) => Err(Missed::Absent),
            Err(error) => Err(Missed::Unknown(error)),
        };
        self.count_lookup(request, answer.as_ref().err());
        self.tell_lookup(request, started, answer.as_ref().err());
        answer
    }

    pub(super) fn tell_lookup(&self, request: &Request<'_>, started: Option<Tick>, missed: Option<&Missed>) {
        let key = request.key.as_str();
        self.observer.timed(started, &self.settings.clock, |metrics, took| match missed {
            None => metrics.record_hit(key, took),
            Some(Missed::Unknown(_)) => {}
            Some(_) => metrics.record_miss(key, took),
        });
    }

    pub(super) fn count_lookup(&self, request: &Request<'_>, missed: Option<&Missed>) {
        match missed {
            None => self.count(Event::Hit),
            Some(Missed::Unknown(error)) => {
                self.count(Event::Unknown);
                self.backend_failed(&request.key, "the cache could not be read", error);
            }
            Some(_) => self.count(Event::Miss),
        }
    }

    /// Reads an entry and decides whether it can be used.
    pub(super) fn judge<T: CacheValue>(
        &self,
        request: &Request<'_>,
        entry: Bytes,
        accepts: fn(&T) -> bool,
    ) -> Result<Found<T>, Missed> {
        let limit = self.settings.max_value_bytes;
        let opened = entry::open::<T>(&entry, request.key.hash(), request.schema, limit);
        match opened.and_then(
            |(value, header)| {
                if accepts(&value) { Ok((value, header)) } else { Err(Reject::Undecodable) }
            },
        ) {
            Ok((value, header)) if self.is_fresh(&header) => {
                Ok(Found { value, written_at: header.written_at })
            }
            Ok(_) => {
                self.count(Event::Stale);
                Err(Missed::Unusable(entry))
            }
            Err(reject) => {
                self.core.counters.count_reject(reject);
                if reject == Reject::WrongKey {
                    self.backend().distrust();
                }
                rejected(self.core.capabilities.name, reject);
                Err(Missed::Unusable(entry))
            }
        }
    }

    /// Whether an entry may be used without asking the source. Reads the wall clock only where the backend's
    /// own expiry does not say it all.
    fn is_fresh(&self, header: &Header) -> bool {
        let backend_is_exact = self.core.capabilities.ttl_resolution.is_zero();
        if backend_is_exact && header.fresh_until == header.expires_at {
            return true;
        }
        let now = self.settings.clock.unix_millis();
        // Written in the future: a clock was set back, and nothing the entry says about time can be trusted.
        now < header.fresh_until && header.written_at <= now.saturating_add(MAX_SKEW_MILLIS)
    }
}
