//! The lease of a load: taken before it, kept while it runs, and waited for where another process has it.

use std::pin::Pin;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, Either, select};

use super::answer::Answer;
use super::fill::Permit;
use super::flight::Leader;
use super::join::Lead;
use super::load::{Guards, Unchanged};
use super::lookup::{Missed, Usable, quarantined};
use super::{Engine, LEASE_LIFE, RENEW_EVERY, Request};
use crate::CacheStrategy;
use crate::backend::{Acquired, CacheBackend, Fence, Lease};
use crate::clock::{Tick, jittered};
use crate::entity::CacheValue;
use crate::error::{Error, ErrorKind, Result};
use crate::observe::Event;
use crate::steps::{Step, Steps};

/// A lease was asked for; this is how it went.
pub(super) enum Leased<T> {
    /// Load, and store as the permit says.
    Permit(Permit, Option<Error>),
    /// Somebody stored a usable value between the lookup and the lease.
    Found(Answer<T>),
    /// Somebody else loads it, and that is all that was to be known.
    Elsewhere,
}

/// Between two looks at a key that another process loads.
const FIRST_PAUSE: Duration = Duration::from_millis(5);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);

/// What is to be done while a loader runs.
pub(super) trait Upkeep: Send {
    /// Whether there is anything to be kept.
    fn has_leases(&self) -> bool;

    /// Waits until somebody wants it done now.
    fn asked(&self) -> BoxFuture<'static, ()>;

    /// Renews what is held. Not cancelled: on some backends the old lease is void once the new one is granted.
    fn renew(&mut self) -> BoxFuture<'_, ()>;
}

/// The lease of a leader, kept while its loader runs.
pub(super) struct Keeping<'a, B: CacheBackend> {
    pub(super) engine: &'a Engine<B>,
    pub(super) leader: &'a mut Leader,
    /// The versions that the load began with.
    pub(super) guards: Option<&'a Guards>,
    /// The last try failed: what the backend thinks of the lease is not known.
    pub(super) failed: Option<Error>,
    pub(super) steps: Steps,
}

impl<B: CacheBackend> Upkeep for Keeping<'_, B> {
    fn has_leases(&self) -> bool {
        self.leader.lease.is_some()
    }

    fn asked(&self) -> BoxFuture<'static, ()> {
        Box::pin(self.leader.asked())
    }

    fn renew(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(self.renew_one())
    }
}

impl<B: CacheBackend> Keeping<'_, B> {
    pub(super) async fn renew_one(&mut self) {
        if self.leader.is_detached() {
            // What it loads is not stored any more, and others may want to.
            let lease = self.leader.lease.take();
            self.engine.release_later(self.leader.key(), lease);
            return;
        }
        let Some(lease) = &self.leader.lease else { return };
        let asked_at = self.engine.settings.clock.now();
        // Until it has ended.
        self.failed = Some(Error::new(ErrorKind::Timeout, "the lease was not renewed in time"));
        match self.engine.backend().renew(self.leader.key(), lease, LEASE_LIFE).await {
            Ok(Some(lease)) => {
                self.engine.count(Event::LeaseRenewed);
                self.leader.lease = Some(lease);
                match self.are_unchanged().await {
                    Ok(Unchanged::All) => {
                        self.failed = None;
                        self.leader.vouch(asked_at);
                    }
                    Ok(Unchanged::ButAnyTag) => {
                        self.failed = None;
                        self.leader.cannot_vouch();
                    }
                    Ok(Unchanged::No) => {
                        let lease = self.leader.lease.take();
                        self.engine.release_later(self.leader.key(), lease);
                        self.is_lost();
                    }
                    Err(error) => {
                        self.failed = Some(error);
                        self.leader.cannot_vouch();
                    }
                }
            }
            Ok(None) => self.is_lost(),
            // It ends by itself, and the fill will tell.
            Err(error) if error.kind() == ErrorKind::Unsupported => self.failed = None,
            Err(error) => {
                self.failed = Some(error);
                self.leader.cannot_vouch();
            }
        }
    }
}

impl<B: CacheBackend> Keeping<'_, B> {
    /// By another process: what is loaded may be out of date, and nobody else is to have it.
    fn is_lost(&mut self) {
        self.failed = None;
        self.engine.count(Event::LeaseLost);
        self.steps.add(Step::LeaseLost);
        self.leader.lease = None;
        self.leader.detach();
    }

    /// Whether the backend still has the versions that the load began with.
    async fn are_unchanged(&self) -> Result<Unchanged> {
        match self.guards {
            Some(guards) => self.engine.are_unchanged(guards).await,
            None => Ok(Unchanged::All),
        }
    }
}

impl<B: CacheBackend> Engine<B> {
    /// Takes the lease, unless an earlier leader of this flight left one.
    pub(super) async fn take_lease<T: CacheValue>(
        &self,
        lead: &mut Lead<'_, B>,
        request: &Request<'_>,
        seen: Seen,
        usable: Usable<T>,
        deadline: Tick,
        steps: &mut Steps,
    ) -> Leased<T> {
        if lead.leader().lease.is_some() {
            // Whoever took it had looked, and the fill will tell whether it still holds.
            steps.add(Step::Leased);
            return Leased::Permit(Permit::Lease, None);
        }
        let mut seen = match seen {
            // What is not known must not be written over.
            Seen::Unknown(error) => return Leased::Permit(Permit::Unknown, Some(error)),
            Seen::Nothing => None,
            Seen::Entry(entry) => Some(entry),
            Seen::Early(entry) => return self.take_early(lead, request, &entry, steps).await,
        };
        let mut tries = 0;
        let mut wait = Wait::default();
        loop {
            let (key, asked_at) = (request.key.as_str(), self.settings.clock.now());
            lead.leader().ask(asked_at, self.is_fenced());
            let entry = match self.backend().acquire(key, seen.as_ref(), LEASE_LIFE).await {
                Ok(Acquired::Granted { lease, .. }) => {
                    lead.leader().lease = Some(lease);
                    lead.leader().vouch(asked_at);
                    steps.add(Step::Leased);
                    return Leased::Permit(Permit::Lease, None);
                }
                Ok(Acquired::Busy { .. }) => {
                    // The one that has it may be a reader of this cache who was here first and leads nothing.
                    let leader = lead.leader();
                    let offered = self.core.looking.wait(request.key.hash(), || leader.take_offered());
                    // Not for one that nobody polls.
                    let patience = self.settings.clock.sleep(RENEW_EVERY);
                    let offered = match select(std::pin::pin!(offered), patience).await {
                        Either::Left((offered, _)) => offered,
                        Either::Right(_) => None,
                    };
                    if offered.is_some() {
                        lead.leader().lease = offered;
                        lead.leader().vouch(asked_at);
                        steps.add(Step::Leased);
                        return Leased::Permit(Permit::Lease, None);
                    }
                    if !steps.contains(Step::LeasedElsewhere) {
                        self.count(Event::LeasedElsewhere);
                        steps.add(Step::LeasedElsewhere);
                    }
                    if self.waits_for_other(request) {
                        // Others may load meanwhile.
                        lead.leader().end_turn();
                        if wait.pause(self, self.longest_wait(request, deadline)).await {
                            continue;
                        }
                    }
                    return Leased::Permit(Permit::LeftToOther, None);
                }
                Ok(Acquired::Present { value }) => value,
                Ok(Acquired::Unfenced) => match self.second_look(request, seen.as_ref()).await {
                    Ok(Some(entry)) => entry,
                    Ok(None) => return Leased::Permit(Permit::Unfenced, None),
                    Err(error) => return Leased::Permit(Permit::Unknown, Some(error)),
                },
                Err(error) => {
                    self.backend_failed(&request.key, "no lease could be taken", &error);
                    return Leased::Permit(Permit::Unknown, Some(error));
                }
            };
            if self.core.pending.holds(key) {
                return Leased::Permit(Permit::Unknown, Some(quarantined()));
            }
            // The load of an invalidation is not answered from the cache.
            if request.strategy != CacheStrategy::Invalidate
                && let Ok(found) = self.judge_anew(request, entry.clone(), usable).await
            {
                lead.leader().vouch(asked_at);
                steps.add(Step::FilledElsewhere);
                self.count(Event::FilledElsewhere);
                return Leased::Found(Answer { steps: *steps, ..Answer::cached(found) });
            }
            seen = Some(entry);
            tries += 1;
            // Once for what the lookup saw, and once more for what came since, if that is of no use either.
            if tries == 2 {
                let permit = if self.is_fenced() { Permit::LeftToOther } else { Permit::Unfenced };
                return Leased::Permit(permit, None);
            }
        }
    }

    /// Takes the lease over a value that is still good, or leaves it to whoever has it.
    async fn take_early<T: CacheValue>(
        &self,
        lead: &mut Lead<'_, B>,
        request: &Request<'_>,
        entry: &Bytes,
        steps: &mut Steps,
    ) -> Leased<T> {
        let asked_at = self.settings.clock.now();
        lead.leader().ask(asked_at, self.is_fenced());
        match self.backend().acquire(request.key.as_str(), Some(entry), LEASE_LIFE).await {
            Ok(Acquired::Granted { lease, kept: Some(_) }) => {
                self.count(Event::EarlyRefresh);
                lead.leader().lease = Some(lease);
                lead.leader().vouch(asked_at);
                steps.add(Step::Leased);
                Leased::Permit(Permit::Lease, None)
            }
            Ok(Acquired::Unfenced) => {
                self.count(Event::EarlyRefresh);
                Leased::Permit(Permit::Unfenced, None)
            }
            // Removed, or loaded anew, since it was read.
            Ok(Acquired::Granted { lease, kept: None }) => {
                self.release_later(request.key.as_str(), Some(lease));
                Leased::Elsewhere
            }
            Ok(Acquired::Busy { .. } | Acquired::Present { .. }) => Leased::Elsewhere,
            Err(error) => {
                self.backend_failed(&request.key, "no lease could be taken", &error);
                Leased::Elsewhere
            }
        }
    }

    /// Whether what another one stores would be an answer; nobody stores under a hold of this cache, or while a tombstone
    /// stands.
    fn waits_for_other(&self, request: &Request<'_>) -> bool {
        request.strategy != CacheStrategy::Invalidate
            && !self.core.holds.contains(request.key.as_str())
            && self.backend().capabilities().fence == Fence::Leases
    }

    /// How long another one is waited for, so that there is time left for the source.
    fn longest_wait(&self, request: &Request<'_>, deadline: Tick) -> Duration {
        let policy = self.policy(request);
        let left = deadline.since(self.settings.clock.now());
        policy.lease_wait.min(policy.timeout.unwrap_or(left) / 2).min(left / 2)
    }

    /// Without a fence, a load that ended between the lookup and the lead shows only by looking again.
    async fn second_look(&self, request: &Request<'_>, seen: Option<&Bytes>) -> Result<Option<Bytes>> {
        match self.fetch(request.key.as_str()).await {
            Ok(entry) => Ok(entry.filter(|entry| Some(entry) != seen)),
            Err(error) => {
                self.backend_failed(&request.key, "the cache could not be read", &error);
                Err(error)
            }
        }
    }

    /// Runs a loader and keeps its leases meanwhile; `None` if it has not ended by `deadline`.
    pub(super) async fn keep_up<F: Future, U: Upkeep>(
        &self,
        mut load: Pin<&mut F>,
        deadline: Tick,
        upkeep: &mut U,
    ) -> Option<F::Output> {
        // Many loads are done at once, and need nothing kept.
        let at_once = std::future::poll_fn(|cx| match load.as_mut().poll(cx) {
            Poll::Ready(loaded) => Poll::Ready(Some(loaded)),
            Poll::Pending => Poll::Ready(None),
        });
        if let Some(loaded) = at_once.await {
            return Some(loaded);
        }
        let clock = &self.settings.clock;
        let mut end = std::pin::pin!(clock.sleep_until(deadline));
        loop {
            let due = if upkeep.has_leases() { clock.now().after(RENEW_EVERY) } else { Tick::NEVER };
            let mut due = std::pin::pin!(clock.sleep_until(due));
            let mut asked = upkeep.asked();
            let ended = std::future::poll_fn(|cx| {
                if let Poll::Ready(loaded) = load.as_mut().poll(cx) {
                    return Poll::Ready(Some(Some(loaded)));
                }
                if end.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(Some(None));
                }
                if due.as_mut().poll(cx).is_ready() || asked.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(None);
                }
                Poll::Pending
            });
            if let Some(ended) = ended.await {
                return ended;
            }
            let mut renewal = upkeep.renew();
            let mut loaded = None;
            let mut patience = std::pin::pin!(clock.sleep_until(Tick::NEVER));
            let is_over = std::future::poll_fn(|cx| {
                if loaded.is_none()
                    && let Poll::Ready(value) = load.as_mut().poll(cx)
                {
                    loaded = Some(value);
                    patience.set(clock.sleep(RENEW_EVERY));
                }
                if renewal.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(loaded.is_some());
                }
                // A backend without a deadline of its own keeps nobody waiting.
                if end.as_mut().poll(cx).is_ready() || patience.as_mut().poll(cx).is_ready() {
                    return Poll::Ready(true);
                }
                Poll::Pending
            });
            if is_over.await {
                return loaded;
            }
        }
    }
}

/// What the leader's own lookup saw under the key.
pub(super) enum Seen {
    Nothing,
    Entry(Bytes),
    /// One that is still good.
    Early(Bytes),
    Unknown(Error),
}

impl From<Missed> for Seen {
    fn from(missed: Missed) -> Self {
        match missed {
            // A lease that came with it was taken when the flight was joined.
            Missed::Absent | Missed::Leased(..) => Self::Nothing,
            Missed::Unusable(entry) => Self::Entry(entry),
            Missed::Early(entry) => Self::Early(entry),
            Missed::Unknown(error) => Self::Unknown(error),
        }
    }
}

/// The wait for another process: pauses that grow, and are left to chance so that not all come at once.
#[derive(Default)]
struct Wait {
    until: Option<Tick>,
    pauses: u32,
}

impl Wait {
    /// Waits a moment; false if that is enough.
    async fn pause<B: CacheBackend>(&mut self, engine: &Engine<B>, longest: Duration) -> bool {
        let clock = &engine.settings.clock;
        let now = clock.now();
        let until = *self.until.get_or_insert_with(|| now.after(longest));
        if now >= until {
            return false;
        }
        let pause = (FIRST_PAUSE * (1 << self.pauses.min(4))).min(LONGEST_PAUSE);
        self.pauses += 1;
        let pause = jittered(pause).min(until.since(now));
        clock.sleep(pause).await;
        true
    }
}

impl<B: CacheBackend> Engine<B> {
    /// Gives a lease back from where nobody can wait.
    pub(super) fn release_later(&self, key: &str, lease: Option<Lease>) {
        if let Some(lease) = lease {
            self.backend().release_later(key, lease);
        }
    }
}
