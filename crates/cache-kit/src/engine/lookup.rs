//! What the backend says about a key. Four answers, not two: an error is not a miss.

use bytes::Bytes;
use futures_util::future::{Either, select};

use super::looking::Looker;
use super::stale::Fallback;
use super::versions::{Scope, View};
use super::{Engine, LEASE_LIFE, Request};
use crate::backend::{Acquired, CacheBackend, Lease, Peek};
use crate::clock::Tick;
use crate::entity::CacheValue;
use crate::entry::{Entry, Header, Reject};
use crate::error::{Error, ErrorKind, Result};
use crate::observe::{Event, rejected};
use crate::steps::{Step, Steps};

/// How far a writer's clock may be ahead before its entries are doubted.
const MAX_SKEW_MILLIS: u64 = 60_000;

/// A usable entry.
pub(super) struct Found<T> {
    /// `None`: the source does not have it.
    pub(super) value: Option<T>,
    pub(super) written_at: u64,
    /// What there is to do about the entry, beside answering with it.
    pub(super) chore: Option<Chore>,
}

/// Work that an entry gives to whoever reads it.
pub(super) enum Chore {
    /// Its life is to go on, since it was read.
    Touch(Bytes),
    /// It is to be loaded anew before its life ends.
    Refresh(Bytes),
}

/// What a reader can use of an entry.
pub(crate) struct Usable<T> {
    /// Whether a value may be used; one that may not is a miss.
    pub(super) accepts: fn(&T) -> bool,
    /// Whether "the source does not have it" is an answer.
    pub(super) takes_absent: bool,
    /// Whether it can load anew behind its caller.
    pub(super) may_refresh: bool,
}

/// An entry that is not used as it is.
pub(super) struct Unused<T> {
    pub(super) entry: Bytes,
    /// What it is still good for.
    pub(super) fallback: Option<Fallback<T>>,
}

/// What an entry comes to.
pub(super) enum Judged<T> {
    Found(Found<T>),
    Unused(Unused<T>),
    /// These versions have to be asked for first.
    Unsure(Bytes, Vec<Scope>),
}

/// Why there is no usable entry.
pub(super) enum Missed {
    /// The key holds nothing.
    Absent,
    /// The key holds nothing, and the lookup has brought the lease of it.
    Leased(Lease, Looker),
    /// The key holds this, which is stale or cannot be read.
    Unusable(Bytes),
    /// The key holds this, which is good, and is to be loaded anew all the same.
    Early(Bytes),
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

// Derived, they would ask the same of `T`.
impl<T> Copy for Usable<T> {}

impl<T> Clone for Usable<T> {
    fn clone(&self) -> Self {
        *self
    }
}

impl<T> Usable<T> {
    /// For a reader that takes whatever there is.
    pub(crate) fn any() -> Self {
        Self { accepts: |_| true, takes_absent: true, may_refresh: false }
    }
}

impl<T> Miss<T> {
    pub(super) fn new(missed: Missed, step: Step) -> Self {
        Self { missed, fallback: None, steps: Steps::default().with(step), deadline: None }
    }

    pub(super) fn unknown(error: Error) -> Self {
        let step = match error.kind() {
            ErrorKind::Unconfirmed => Step::Quarantined,
            _ => Step::BackendFailed,
        };
        Self::new(Missed::Unknown(error), step)
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

/// What a lookup that may bring a lease was answered, while it waits for what is asked beside. Dropped, it gives the lease
/// back.
struct Taken<'a, B: CacheBackend> {
    engine: &'a Engine<B>,
    key: &'a str,
    acquired: Option<Acquired>,
}

impl<B: CacheBackend> Taken<'_, B> {
    fn take(mut self) -> Acquired {
        match self.acquired.take() {
            Some(acquired) => acquired,
            None => unreachable!("taken only here, by what consumes it"),
        }
    }
}

impl<B: CacheBackend> Drop for Taken<'_, B> {
    fn drop(&mut self) {
        if let Some(Acquired::Granted { lease, .. }) = self.acquired.take() {
            self.engine.release_later(self.key, Some(lease));
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
        usable: Usable<T>,
    ) -> Result<Found<T>, Box<Miss<T>>> {
        self.check_pending(request)?;
        let started = self.observer.start(&self.settings.clock);
        let key = request.key.as_str();
        let mut deadline = None;
        let mut view = self.view(request);
        let fetched = match self.backend().peek(key) {
            Peek::Hit(entry) => Ok(Some(entry)),
            Peek::Miss => Ok(None),
            Peek::Unknown => {
                deadline = self.deadline(request);
                let get = self.beside_versions(request, &mut view, self.backend().get(key));
                self.half_of(deadline, get).await
            }
        };
        let answer = match fetched {
            Ok(Some(entry)) => match self.judge(request, entry, usable, &view) {
                Judged::Found(found) => Ok(found),
                Judged::Unused(unused) => Err(Box::new(unused.into())),
                Judged::Unsure(entry, scopes) => {
                    Box::pin(self.judge_surely(request, (entry, scopes), usable, view, deadline)).await
                }
            },
            Ok(None) => Err(Box::new(Miss::new(Missed::Absent, Step::FoundNothing))),
            Err(error) => Err(Box::new(Miss::unknown(error))),
        };
        self.told(request, started, deadline, answer)
    }

    /// Asks the backend and reads the entry, for a reader that will load what is not there. Where a lookup can take the
    /// lease of an absent key with it, it does.
    pub(super) async fn look_up_to_load<T: CacheValue>(
        &self,
        request: &Request<'_>,
        usable: Usable<T>,
    ) -> Result<Found<T>, Box<Miss<T>>> {
        if !self.core.capabilities.lease_on_read {
            return self.look_up(request, usable).await;
        }
        self.check_pending(request)?;
        let Some(looker) = self.core.looking.begin(request.key.hash()) else {
            return self.look_up(request, usable).await;
        };
        let started = self.observer.start(&self.settings.clock);
        let deadline = self.deadline(request);
        let mut view = self.view(request);
        let key = request.key.as_str();
        let acquire = async {
            let acquired = self.backend().acquire(key, None, LEASE_LIFE).await?;
            Ok(Taken { engine: self, key, acquired: Some(acquired) })
        };
        let acquire = self.beside_versions(request, &mut view, acquire);
        let answer = match self.half_of(deadline, acquire).await.map(Taken::take) {
            Ok(Acquired::Present { value }) => match self.judge(request, value, usable, &view) {
                Judged::Found(found) => Ok(found),
                Judged::Unused(unused) => Err(Box::new(unused.into())),
                Judged::Unsure(entry, scopes) => {
                    Box::pin(self.judge_surely(request, (entry, scopes), usable, view, deadline)).await
                }
            },
            Ok(Acquired::Granted { lease, .. }) => {
                Err(Box::new(Miss::new(Missed::Leased(lease, looker), Step::FoundNothing)))
            }
            Ok(Acquired::Busy { .. } | Acquired::Unfenced) => {
                Err(Box::new(Miss::new(Missed::Absent, Step::FoundNothing)))
            }
            Err(error) => Err(Box::new(Miss::unknown(error))),
        };
        self.told(request, started, deadline, answer)
    }

    /// Counts and tells how a lookup went.
    fn told<T>(
        &self,
        request: &Request<'_>,
        started: Option<Tick>,
        deadline: Option<Tick>,
        answer: Result<Found<T>, Box<Miss<T>>>,
    ) -> Result<Found<T>, Box<Miss<T>>> {
        let missed = answer.as_ref().err().map(|miss| &miss.missed);
        self.count_lookup(request, missed);
        self.tell_lookup(request, started, missed);
        answer.map_err(|mut miss| {
            miss.deadline = deadline;
            miss
        })
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
                match error.kind() {
                    ErrorKind::Unconfirmed => self.count(Event::Quarantined),
                    _ => self.backend_failed(&request.key, "the cache could not be read", error),
                }
            }
            Some(_) => self.count(Event::Miss),
        }
    }

    /// Reads an entry and decides whether it can be used, by the versions that are known.
    pub(super) fn judge<T: CacheValue>(
        &self,
        request: &Request<'_>,
        bytes: Bytes,
        usable: Usable<T>,
        view: &View,
    ) -> Judged<T> {
        let limit = self.settings.max_value_bytes;
        let read = Entry::read(&bytes, request.key.hash(), request.schema, limit);
        let entry = match read {
            Ok(entry) => entry,
            Err(reject) => return self.reject(bytes, reject),
        };
        match self.check_versions(request, &entry, view) {
            Ok(true) => {}
            Ok(false) => return self.reject(bytes, Reject::Invalidated),
            Err(unsure) => return Judged::Unsure(bytes, unsure),
        }
        let value = match entry.value::<T>() {
            Ok(None) if !usable.takes_absent => {
                return Judged::Unused(Unused { entry: bytes, fallback: None });
            }
            Ok(Some(value)) if !(usable.accepts)(&value) => {
                return self.reject(bytes, Reject::Undecodable);
            }
            Ok(value) => value,
            Err(reject) => return self.reject(bytes, reject),
        };
        let header = entry.header;
        if !self.is_fresh(&header) {
            self.count(Event::Stale);
            // That something was absent once is no fallback.
            let fallback = value.and_then(|value| self.fallback(request, value, &header));
            return Judged::Unused(Unused { entry: bytes, fallback });
        }
        if value.is_none() {
            self.count(Event::AbsentHit);
        }
        let chore = self.chore(request, &entry, usable.may_refresh);
        let chore = match chore {
            None => None,
            Some(false) => Some(Chore::Touch(bytes)),
            Some(true) => Some(Chore::Refresh(bytes)),
        };
        Judged::Found(Found { value, written_at: header.written_at, chore })
    }

    /// Reads an entry by versions that have to be asked for first.
    pub(super) async fn judge_surely<T: CacheValue>(
        &self,
        request: &Request<'_>,
        (entry, scopes): (Bytes, Vec<Scope>),
        usable: Usable<T>,
        mut view: View,
        deadline: Option<Tick>,
    ) -> Result<Found<T>, Box<Miss<T>>> {
        let fetch = self.fetch_into(&mut view, &scopes, self.life_of_versions(request));
        self.half_of(deadline, fetch).await.map_err(|error| Box::new(Miss::unknown(error)))?;
        let unused = match self.judge(request, entry, usable, &view) {
            Judged::Found(found) => return Ok(found),
            Judged::Unused(unused) => unused,
            // All that it carries has been asked for.
            Judged::Unsure(entry, _) => Unused { entry, fallback: None },
        };
        Err(Box::new(unused.into()))
    }

    /// Reads an entry, and asks for versions if it takes that.
    pub(super) async fn judge_anew<T: CacheValue>(
        &self,
        request: &Request<'_>,
        entry: Bytes,
        usable: Usable<T>,
    ) -> Result<Found<T>, Box<Miss<T>>> {
        let view = self.view(request);
        match self.judge(request, entry, usable, &view) {
            Judged::Found(found) => Ok(found),
            Judged::Unused(unused) => Err(Box::new(unused.into())),
            Judged::Unsure(entry, scopes) => {
                Box::pin(self.judge_surely(request, (entry, scopes), usable, view, None)).await
            }
        }
    }

    /// Whether nothing that an entry belongs to was invalidated since it was loaded; or what has to be asked for to say so.
    fn check_versions(
        &self,
        request: &Request<'_>,
        entry: &Entry<'_>,
        view: &View,
    ) -> Result<bool, Vec<Scope>> {
        let mut unsure = Vec::new();
        let shard = self.shard(request.key.as_str());
        match self.space_version(shard, view) {
            Some((version, _)) if version == entry.header.space => {}
            // What is remembered may be older than the entry.
            Some((_, true)) => return Ok(false),
            Some((_, false)) | None => unsure.push(Scope::Shard(shard)),
        }
        for (tag, carried) in entry.extras.tags() {
            match self.tag_version(tag, view) {
                Some((version, _)) if version == carried => {}
                Some((_, true)) => return Ok(false),
                Some((_, false)) | None => unsure.push(Scope::Tag(tag.into())),
            }
        }
        if unsure.is_empty() { Ok(true) } else { Err(unsure) }
    }

    fn reject<T>(&self, entry: Bytes, reject: Reject) -> Judged<T> {
        self.core.counters.count_reject(reject);
        if reject == Reject::WrongKey {
            self.backend().distrust();
        }
        rejected(self.core.capabilities.name, reject);
        Judged::Unused(Unused { entry, fallback: None })
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
