//! What the backend says about a key. Four answers, not two: an error is not a miss.

use bytes::Bytes;
use futures_util::future::{Either, select};

use super::looking::Looker;
use super::stale::Fallback;
use super::{Engine, LEASE_LIFE, Request};
use crate::backend::{Acquired, CacheBackend, Lease, Peek};
use crate::clock::Tick;
use crate::entity::CacheValue;
use crate::entry::{self, Header, Reject};
use crate::error::{Error, ErrorKind, Result};
use crate::observe::{Event, rejected};
use crate::steps::{Step, Steps};

/// How far a writer's clock may be ahead before its entries are doubted.
const MAX_SKEW_MILLIS: u64 = 60_000;

/// A usable entry.
pub(super) struct Found<T> {
    pub(super) value: T,
    pub(super) written_at: u64,
}

/// An entry that is not used as it is.
pub(super) struct Unused<T> {
    pub(super) entry: Bytes,
    /// What it is still good for.
    pub(super) fallback: Option<Fallback<T>>,
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

/// A read that the cache did not answer.
pub(super) struct Miss<T> {
    pub(super) missed: Missed,
    /// A stale value that may be served instead of a load.
    pub(super) fallback: Option<Fallback<T>>,
    pub(super) steps: Steps,
    /// When the caller wants to have waited long enough; known once something took time.
    pub(super) deadline: Option<Tick>,
}

impl<T> Miss<T> {
    pub(super) fn new(missed: Missed, step: Step) -> Self {
        Self { missed, fallback: None, steps: Steps::default().with(step), deadline: None }
    }

    pub(super) fn unknown(error: Error) -> Self {
        Self::new(Missed::Unknown(error), Step::BackendFailed)
    }
}

impl<T> From<Unused<T>> for Miss<T> {
    fn from(Unused { entry, fallback }: Unused<T>) -> Self {
        let step = if fallback.is_some() { Step::FoundStale } else { Step::FoundUnusable };
        Self { fallback, ..Self::new(Missed::Unusable(entry), step) }
    }
}

impl Missed {
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
    ) -> Result<Found<T>, Box<Miss<T>>> {
        self.check_pending(request)?;
        let started = self.observer.start(&self.settings.clock);
        let key = request.key.as_str();
        let mut deadline = None;
        let fetched = match self.backend().peek(key) {
            Peek::Hit(entry) => Ok(Some(entry)),
            Peek::Miss => Ok(None),
            Peek::Unknown => {
                deadline = self.deadline(request);
                self.half_of(deadline, self.beside_the_epoch(self.backend().get(key))).await
            }
        };
        let answer = match fetched {
            Ok(Some(entry)) => self.judge(request, entry, accepts).map_err(Miss::from),
            Ok(None) => Err(Miss::new(Missed::Absent, Step::FoundNothing)),
            Err(error) => Err(Miss::unknown(error)),
        };
        self.told(request, started, answer.as_ref().err().map(|miss| &miss.missed));
        answer.map_err(|miss| Box::new(Miss { deadline, ..miss }))
    }

    /// Asks the backend and reads the entry, for a reader that will load what is not there. Where a lookup can take the
    /// lease of an absent key with it, it does.
    pub(super) async fn look_up_to_load<T: CacheValue>(
        &self,
        request: &Request<'_>,
        accepts: fn(&T) -> bool,
    ) -> Result<Found<T>, Box<Miss<T>>> {
        if !self.core.capabilities.lease_on_read {
            return self.look_up(request, accepts).await;
        }
        self.check_pending(request)?;
        let Some(looker) = self.core.looking.begin(request.key.hash()) else {
            return self.look_up(request, accepts).await;
        };
        let started = self.observer.start(&self.settings.clock);
        let deadline = self.deadline(request);
        let acquire = self.backend().acquire(request.key.as_str(), None, LEASE_LIFE);
        let answer = match self.half_of(deadline, self.beside_the_epoch(acquire)).await {
            Ok(Acquired::Present { value }) => self.judge(request, value, accepts).map_err(Miss::from),
            Ok(Acquired::Granted { lease, .. }) => {
                Err(Miss::new(Missed::Leased(lease, looker), Step::FoundNothing))
            }
            Ok(Acquired::Busy { .. } | Acquired::Unfenced) => {
                Err(Miss::new(Missed::Absent, Step::FoundNothing))
            }
            Err(error) => Err(Miss::unknown(error)),
        };
        self.told(request, started, answer.as_ref().err().map(|miss| &miss.missed));
        answer.map_err(|miss| Box::new(Miss { deadline, ..miss }))
    }

    /// Counts and tells how a lookup went.
    fn told(&self, request: &Request<'_>, started: Option<Tick>, missed: Option<&Missed>) {
        self.count_lookup(request, missed);
        self.tell_lookup(request, started, missed);
    }

    /// A key whose invalidation is not confirmed is not looked up.
    fn check_pending<T>(&self, request: &Request<'_>) -> Result<(), Box<Miss<T>>> {
        if self.core.pending.holds(request.key.as_str()) { Err(self.hold_back()) } else { Ok(()) }
    }

    #[cold]
    fn hold_back<T>(&self) -> Box<Miss<T>> {
        self.count(Event::Quarantined);
        self.count(Event::Unknown);
        self.replay_soon();
        Box::new(Miss::new(Missed::Unknown(quarantined()), Step::Quarantined))
    }

    /// When this caller will have waited long enough.
    pub(super) fn deadline(&self, request: &Request<'_>) -> Option<Tick> {
        self.policy(request).timeout.map(|timeout| self.settings.clock.now().after(timeout))
    }

    /// Waits for the backend until half of the caller's time is over, so that there is some left for the source.
    pub(super) async fn half_of<R>(
        &self,
        deadline: Option<Tick>,
        asked: impl Future<Output = Result<R>>,
    ) -> Result<R> {
        let Some(deadline) = deadline else { return asked.await };
        let clock = &self.settings.clock;
        let half = deadline.since(clock.now()) / 2;
        match select(std::pin::pin!(asked), clock.sleep(half)).await {
            Either::Left((answer, _)) => answer,
            Either::Right(_) => {
                Err(Error::new(ErrorKind::Timeout, "no answer within half of the caller's timeout")
                    .with_backend(self.core.capabilities.name))
            }
        }
    }

    pub(super) fn tell_lookup(&self, request: &Request<'_>, started: Option<Tick>, missed: Option<&Missed>) {
        let key = request.key.as_str();
        self.observer.timed(started, &self.settings.clock, |metrics, took| match missed {
            None => metrics.record_hit(key, took),
            Some(Missed::Unknown(_)) => {}
            Some(_) => metrics.record_miss(key, took),
        });
    }

    fn count_lookup(&self, request: &Request<'_>, missed: Option<&Missed>) {
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
    ) -> Result<Found<T>, Unused<T>> {
        let limit = self.settings.max_value_bytes;
        let opened = entry::open::<T>(&entry, request.key.hash(), self.schema(request), limit);
        match opened.and_then(
            |(value, header)| {
                if accepts(&value) { Ok((value, header)) } else { Err(Reject::Undecodable) }
            },
        ) {
            Ok((value, header)) if self.is_fresh(&header) => {
                Ok(Found { value, written_at: header.written_at })
            }
            Ok((value, header)) => {
                self.count(Event::Stale);
                Err(Unused { entry, fallback: self.fallback(request, value, &header) })
            }
            Err(reject) => {
                self.core.counters.count_reject(reject);
                if reject == Reject::WrongKey {
                    self.backend().distrust();
                }
                rejected(self.core.capabilities.name, reject);
                Err(Unused { entry, fallback: None })
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
        now < header.fresh_until && !is_ahead(header, now)
    }
}

/// Written in the future: a clock was set back, and nothing the entry says about time can be trusted.
pub(super) fn is_ahead(header: &Header, now: u64) -> bool {
    header.written_at > now.saturating_add(MAX_SKEW_MILLIS)
}

/// Why a key that is waiting for its invalidation is not looked up.
pub(super) fn quarantined() -> Error {
    Error::new(ErrorKind::Unconfirmed, "an earlier invalidation of this key is still queued")
        .with_hint("its entry is not believed until the backend has confirmed it")
}
