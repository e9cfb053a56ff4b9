//! Leading a load: its turn, the lease, the source, the fill.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, select};

use super::chain::{self, Link};
use super::fill::Permit;
use super::flight::{Landed, Leader, Pulse};
use super::join::Lead;
use super::lease::{Keeping, Leased, Seen, Upkeep};
use super::lookup::Missed;
use super::pending::Owed;
use super::read::Answer;
use super::stale::SourceFailure;
use super::turns::Turn;
use super::{Engine, RENEW_EVERY, Request};
use crate::backend::CacheBackend;
use crate::clock::{Clock, Tick};
use crate::entity::CacheValue;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::observe::Event;
use crate::outcome::Stored;
use crate::steps::{Step, Steps};

/// After so long who waits for its turn looks by itself: a wake-up may have gone to somebody who is not polled.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// So often a leader gives a sign of life.
const BEAT_EVERY: Duration = Duration::from_secs(1);

/// The source of a value, asked once for each load.
pub(crate) trait Load<T>: Send {
    /// Whether a value from the cache may be used; one that may not is a miss.
    fn accepts(value: &T) -> bool {
        let _ = value;
        true
    }

    /// `Ok(None)`: the source has no such value.
    fn load(&mut self) -> impl Future<Output = Result<Option<T>>> + Send;
}

/// A loader made of a function that is called at most once.
pub(crate) struct OnceLoad<F>(Option<F>);

impl<F> OnceLoad<F> {
    pub(crate) fn new(load: F) -> Self {
        Self(Some(load))
    }
}

impl<T, E, F, Fut> Load<T> for OnceLoad<F>
where
    T: Send,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
    F: FnOnce() -> Fut + Send,
    Fut: Future<Output = Result<T, E>> + Send,
{
    async fn load(&mut self) -> Result<Option<T>> {
        match self.0.take() {
            Some(load) => load().await.map(Some).map_err(Error::source),
            None => unreachable!("a read leads at most one load"),
        }
    }
}

/// What the source said, and what asking it cost.
pub(super) struct Loaded<T> {
    pub(super) value: Option<T>,
    pub(super) cost: Duration,
}

/// A loader without leases.
pub(super) struct NoUpkeep;

impl NoUpkeep {
    fn asked_by_nobody() -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }
}

impl Upkeep for NoUpkeep {
    fn has_leases(&self) -> bool {
        false
    }

    fn asked(&self) -> BoxFuture<'static, ()> {
        Self::asked_by_nobody()
    }

    fn renew(&mut self) -> BoxFuture<'_, ()> {
        Box::pin(std::future::ready(()))
    }
}

impl<B: CacheBackend> Engine<B> {
    /// Runs the load that the lead is for and ends the flight.
    pub(super) async fn lead<T, L>(
        &self,
        mut lead: Lead<'_, B>,
        request: &Request<'_>,
        missed: Missed,
        link: Arc<Link>,
        loader: &mut L,
    ) -> Result<Answer<T>>
    where
        T: CacheValue,
        L: Load<T>,
    {
        let (pulse, now) = (lead.leader().pulse(), self.settings.clock.now());
        pulse.beat(now);
        let deadline = now.after(self.policy(request).load_deadline);
        let load = self.load_and_store(&mut lead, request, (missed.into(), deadline), link, loader);
        let ending = beating(&self.settings.clock, pulse, load).await;
        lead.complete(|| {
            // `Clone` is somebody else's code, and everyone who waits hangs on it.
            let ending = catch_unwind(AssertUnwindSafe(|| ending.clone())).unwrap_or_else(|_| {
                Err(Error::new(ErrorKind::LoaderPanicked, "cloning the loaded value panicked"))
            });
            Landed { is_sure: ending.is_err(), ending: Arc::new(ending) }
        });
        ending
    }

    async fn load_and_store<T, L>(
        &self,
        lead: &mut Lead<'_, B>,
        request: &Request<'_>,
        (seen, deadline): (Seen, Tick),
        link: Arc<Link>,
        loader: &mut L,
    ) -> Result<Answer<T>>
    where
        T: CacheValue,
        L: Load<T>,
    {
        let mut steps = Steps::default();
        let had_entry = matches!(seen, Seen::Entry(_));
        let failed = self.take_turn(lead.leader(), &link, deadline, &mut steps).await?;
        let seen = failed.map_or(seen, Seen::Unknown);
        let leased = self.take_lease(lead, request, seen, L::accepts, deadline, &mut steps).await;
        let (mut permit, mut degraded) = match leased {
            Leased::Permit(permit, degraded) => (permit, degraded),
            Leased::Found(answer) => return Ok(answer),
        };
        if steps.contains(Step::LeasedElsewhere) {
            // It was given back for the wait.
            if let Some(error) = self.take_turn(lead.leader(), &link, deadline, &mut steps).await? {
                (permit, degraded) = (Permit::Unknown, Some(error));
            }
        }
        let epoch = self.epoch();
        lead.leader().begin(self.settings.clock.now());
        let mut keeping = Keeping { engine: self, leader: lead.leader(), failed: None, steps };
        let loaded = self.run_loader(&request.key, link, loader, deadline, &mut keeping).await;
        let Keeping { failed, mut steps, .. } = keeping;
        steps.add(Step::Loaded);
        if let Some(error) = failed {
            // A backend that has failed this load once is not waited for again.
            degraded.get_or_insert(error);
            if !lead.leader().is_detached() {
                permit = Permit::Unknown;
            }
        }
        match loaded {
            Ok(Loaded { value: Some(value), cost }) => {
                self.core.cooldown.end(request.key.hash());
                let asked_at = self.settings.clock.now();
                let stored = self.fill(lead.leader(), request, (permit, epoch), &value, cost).await;
                if let Ok(Stored::Yes) = stored
                    && permit == Permit::Lease
                {
                    // Which the backend would not have, if something had happened to the key.
                    lead.leader().vouch(asked_at);
                }
                let stored = stored.unwrap_or_else(|error| {
                    degraded.get_or_insert(error);
                    Stored::Failed
                });
                Ok(Answer { steps, ..Answer::loaded(Some(value), stored, degraded) })
            }
            Ok(Loaded { value: None, .. }) => {
                self.core.cooldown.end(request.key.hash());
                self.gone_at_the_source(lead.leader(), &request.key, had_entry, &mut degraded).await;
                Ok(Answer { steps, ..Answer::loaded(None, Stored::NotAsked, degraded) })
            }
            Err(error) => {
                match self.classify(&error) {
                    SourceFailure::Transient if !self.policy(request).stale_life().is_zero() => {
                        let (now, pause) =
                            (self.settings.clock.now(), self.policy(request).retry_after_error);
                        self.core.cooldown.begin(request.key.hash(), now, pause);
                    }
                    SourceFailure::NotFound => {
                        self.gone_at_the_source(lead.leader(), &request.key, had_entry, &mut degraded).await;
                    }
                    _ => {}
                }
                // Nothing to store: whoever comes next need not wait for the lease to end.
                self.release_later(request.key.as_str(), lead.leader().lease.take());
                Err(error)
            }
        }
    }

    /// What the source does not have any more is not to be served from the cache either.
    async fn gone_at_the_source(
        &self,
        leader: &mut Leader,
        key: &Key<'_>,
        had_entry: bool,
        degraded: &mut Option<Error>,
    ) {
        let lease = leader.lease.take();
        if !had_entry {
            self.release_later(key.as_str(), lease);
        } else if degraded.is_some() {
            // A backend that has failed this load once is not waited for again.
            self.owe(Owed::Key(key.as_str().into()));
        // The entry goes, and the lease with it, whoever has it.
        } else if let Err(error) = Box::pin(self.invalidate(key)).await {
            degraded.get_or_insert(error);
        }
    }

    /// Has the flight wait for its turn, and keep it: a leader that nobody polls does not. If the backend could not say what
    /// became of the lease meanwhile, there is an error in the answer.
    async fn take_turn(
        &self,
        leader: &mut Leader,
        link: &Link,
        deadline: Tick,
        steps: &mut Steps,
    ) -> Result<Option<Error>> {
        let clock = &self.settings.clock;
        let began = clock.now();
        let turn = self.turn(Some(leader), link, deadline, steps).await?;
        leader.keep(turn);
        if leader.lease.is_none() || clock.now().since(began) < RENEW_EVERY {
            return Ok(None);
        }
        // It may have ended meanwhile.
        let mut keeping = Keeping { engine: self, leader, failed: None, steps: Steps::default() };
        keeping.renew_one().await;
        let failed = keeping.failed;
        if failed.is_some() {
            self.release_later(leader.key(), leader.lease.clone());
            leader.lease = None;
        }
        Ok(failed)
    }

    /// Waits until a load may run. One that another load waits for has its turn at once: it takes part in the other's.
    pub(super) async fn turn(
        &self,
        leader: Option<&mut Leader>,
        link: &Link,
        deadline: Tick,
        steps: &mut Steps,
    ) -> Result<Option<Turn>> {
        if link.is_nested() {
            return Ok(None);
        }
        match self.core.turns.take() {
            Some(turn) => Ok(Some(turn)),
            None => {
                steps.add(Step::WaitedForTurn);
                let turn = self.wait_for_turn(leader.map(|leader| &*leader), deadline).await;
                turn.inspect_err(|_| self.count(Event::Overloaded))
            }
        }
    }

    async fn wait_for_turn(&self, leader: Option<&Leader>, deadline: Tick) -> Result<Option<Turn>> {
        let (turns, clock) = (&self.core.turns, &self.settings.clock);
        // One who is followed by its own caller is counted already.
        let _waits = (!leader.is_some_and(Leader::is_followed)).then(|| turns.wait());
        if self.core.flights.waiting() + turns.waiting() > self.settings.limits.max_waiting_reads {
            return Err(Error::new(ErrorKind::Overloaded, "too many loads are under way and waiting")
                .with_hint("Limits::max_concurrent_loads and max_waiting_reads are the bounds"));
        }
        loop {
            let mut freed = std::pin::pin!(turns.freed.notified());
            // Listens before it looks, so that nothing falls in between.
            freed.as_mut().enable();
            if let Some(turn) = turns.take() {
                return Ok(Some(turn));
            }
            if leader.is_some_and(Leader::is_urgent) {
                return Ok(None);
            }
            if clock.now() >= deadline {
                return Err(Error::new(ErrorKind::Overloaded, "the load had no turn before its deadline")
                    .with_hint("Limits::max_concurrent_loads is the bound"));
            }
            let asked = leader.map_or_else(NoUpkeep::asked_by_nobody, |leader| Box::pin(leader.asked()));
            let look_again = clock.sleep_until(clock.now().after(LOOK_AGAIN).min(deadline));
            select(freed, select(asked, look_again)).await;
        }
    }

    /// Asks the source, until `deadline`. A panic is an error, here and for everyone who waits.
    pub(super) async fn run_loader<T, L: Load<T>>(
        &self,
        key: &Key<'_>,
        link: Arc<Link>,
        loader: &mut L,
        deadline: Tick,
        upkeep: &mut impl Upkeep,
    ) -> Result<Loaded<T>> {
        self.count(Event::Load);
        let started = self.settings.clock.now();
        let load = AssertUnwindSafe(chain::within(link, loader.load())).catch_unwind();
        #[cfg(feature = "tracing")]
        let load =
            tracing::Instrument::instrument(load, crate::observe::load_span(self.core.capabilities.name));
        let loaded = match self.keep_up(std::pin::pin!(load), deadline, upkeep).await {
            Some(Ok(loaded)) => loaded,
            Some(Err(_)) => {
                Err(Error::new(ErrorKind::LoaderPanicked, "nothing was stored; the next read loads afresh"))
            }
            None => {
                self.count(Event::LoadDropped);
                let took = deadline.since(started);
                Err(Error::new(ErrorKind::Timeout, format!("the source did not answer within {took:?}"))
                    .with_hint("the load was dropped; Policy::load_deadline is the bound"))
            }
        };
        match loaded {
            Ok(value) => Ok(Loaded { value, cost: self.settings.clock.now().since(started) }),
            Err(error) => {
                self.count(Event::LoadFailed);
                self.observer.tell(|metrics| metrics.record_error(key.as_str(), &error.to_string()));
                Err(error)
            }
        }
    }
}

/// Runs a lead and gives signs of life for as long as somebody polls it.
async fn beating<F: Future>(clock: &Clock, pulse: Pulse, lead: F) -> F::Output {
    let mut lead = std::pin::pin!(lead);
    let mut next = std::pin::pin!(clock.sleep(BEAT_EVERY));
    std::future::poll_fn(|cx| {
        if let Poll::Ready(ending) = lead.as_mut().poll(cx) {
            return Poll::Ready(ending);
        }
        while next.as_mut().poll(cx).is_ready() {
            pulse.beat(clock.now());
            next.set(clock.sleep(BEAT_EVERY));
        }
        Poll::Pending
    })
    .await
}
