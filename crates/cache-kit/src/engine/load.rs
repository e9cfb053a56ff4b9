//! Leading a load: its turn, the lease, the source, the fill.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use futures_util::FutureExt as _;
use futures_util::future::{BoxFuture, select};

use super::answer::Answer;
use super::chain::{self, Link};
use super::fill::{Began, Permit};
use super::flight::{Landed, Leader, Pulse};
use super::join::Lead;
use super::lease::{Keeping, Leased, Seen, Upkeep};
use super::lookup::{Missed, Usable};
use super::pending::Owed;
use super::stale::SourceFailure;
use super::turns::Turn;
use super::versions::Scope;
use super::{Engine, RENEW_EVERY, Request};
use crate::backend::CacheBackend;
use crate::clock::{Clock, Tick};
use crate::entity::CacheValue;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::loaded::{Loaded, Previous};
use crate::observe::Event;
use crate::outcome::Stored;
use crate::steps::{Step, Steps};

/// After so long who waits for its turn looks by itself: a wake-up may have gone to somebody who is not polled.
const LOOK_AGAIN: Duration = Duration::from_millis(100);
/// So often a leader gives a sign of life.
const BEAT_EVERY: Duration = Duration::from_secs(1);

/// The source of a value, asked once for each load.
pub(crate) trait Load<T>: Send {
    /// Whether it can say that the source does not have something, and so take that for an answer.
    const KNOWS_ABSENCE: bool;
    /// Whether it makes anything of what the cache still has.
    const WANTS_PREVIOUS: bool;

    /// Whether a value from the cache may be used; one that may not is a miss.
    fn accepts(value: &T) -> bool {
        let _ = value;
        true
    }

    fn load(&mut self, previous: Previous<T>) -> impl Future<Output = Result<Loaded<T>>> + Send;
}

/// A loader made of a function that is called at most once.
pub(crate) struct OnceLoad<F>(Option<F>);

impl<F> OnceLoad<F> {
    pub(crate) fn new(load: F) -> Self {
        Self(Some(load))
    }

    fn take(&mut self) -> F {
        match self.0.take() {
            Some(load) => load,
            None => unreachable!("a read leads at most one load"),
        }
    }
}

impl<T, E, F, Fut> Load<T> for OnceLoad<F>
where
    T: Send,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
    F: FnOnce() -> Fut + Send,
    Fut: Future<Output = Result<T, E>> + Send,
{
    const KNOWS_ABSENCE: bool = false;
    const WANTS_PREVIOUS: bool = false;

    async fn load(&mut self, _previous: Previous<T>) -> Result<Loaded<T>> {
        let load = self.take();
        load().await.map(Loaded::value).map_err(Error::source)
    }
}

/// One that is shown what the cache still has, and says how to keep what it has found.
pub(crate) struct EntryLoad<F>(OnceLoad<F>);

impl<F> EntryLoad<F> {
    pub(crate) fn new(load: F) -> Self {
        Self(OnceLoad::new(load))
    }
}

impl<T, E, F, Fut> Load<T> for EntryLoad<F>
where
    T: Send,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
    F: FnOnce(Previous<T>) -> Fut + Send,
    Fut: Future<Output = Result<Loaded<T>, E>> + Send,
{
    const KNOWS_ABSENCE: bool = true;
    const WANTS_PREVIOUS: bool = true;

    async fn load(&mut self, previous: Previous<T>) -> Result<Loaded<T>> {
        let load = self.0.take();
        load(previous).await.map_err(Error::source)
    }
}

/// The versions that a load began with.
pub(super) struct Guards {
    pub(super) versions: Vec<(Scope, u64)>,
    /// Of the entry that the load stores.
    pub(super) life: Option<Duration>,
}

/// Whether versions are still what they were.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unchanged {
    All,
    /// Some tag was invalidated, which may turn out to be one that the load names.
    ButAnyTag,
    No,
}

/// What the source said, and what asking it cost.
pub(super) struct Timed<T> {
    pub(super) loaded: T,
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
        let ending = match beating(&self.settings.clock, vec![pulse], load).await.transpose() {
            Some(ending) => ending,
            // The lead goes on to the next who waits.
            None => {
                return Err(Error::new(ErrorKind::LoadAborted, "another process loads it already"));
            }
        };
        land(lead, &ending);
        ending
    }

    async fn load_and_store<T, L>(
        &self,
        lead: &mut Lead<'_, B>,
        request: &Request<'_>,
        (seen, deadline): (Seen, Tick),
        link: Arc<Link>,
        loader: &mut L,
    ) -> Result<Option<Answer<T>>>
    where
        T: CacheValue,
        L: Load<T>,
    {
        let mut steps = Steps::default();
        let had_entry = matches!(seen, Seen::Entry(_) | Seen::Early(_));
        let previous = match &seen {
            Seen::Entry(entry) | Seen::Early(entry) if L::WANTS_PREVIOUS => self.previous(request, entry),
            _ => Previous::default(),
        };
        // What the entity refuses is not to come back as "not modified".
        let previous = match &previous.value {
            Some(value) if !L::accepts(value) => Previous::default(),
            _ => previous,
        };
        let is_early = matches!(seen, Seen::Early(_));
        let failed = self.take_turn(lead.leader(), &link, deadline, &mut steps).await?;
        let seen = failed.map_or(seen, Seen::Unknown);
        let leased = self.take_lease(lead, request, seen, usable_by::<T, L>(), deadline, &mut steps).await;
        let (mut permit, mut degraded) = match leased {
            Leased::Permit(permit, degraded) => (permit, degraded),
            Leased::Found(answer) => return Ok(Some(answer)),
            Leased::Elsewhere => return Ok(None),
        };
        if steps.contains(Step::LeasedElsewhere) {
            // It was given back for the wait.
            if let Some(error) = self.take_turn(lead.leader(), &link, deadline, &mut steps).await? {
                (permit, degraded) = (Permit::Unknown, Some(error));
            }
        }
        // Before the source is asked: what is invalidated from here on has other versions.
        let captured = match permit {
            Permit::Lease | Permit::Unfenced => Some(self.capture(request).await),
            Permit::LeftToOther | Permit::Unknown | Permit::Refused => None,
        };
        let captured = match captured.transpose() {
            Ok(captured) => captured,
            Err(error) => {
                permit = Permit::after(&error);
                degraded.get_or_insert(error);
                None
            }
        };
        let at = self.settings.clock.now();
        let began = captured.map(|captured| Began { at, captured });
        lead.leader().begin(at);
        let guards = began.as_ref().map(|began| self.guards(request, began));
        let mut keeping =
            Keeping { engine: self, leader: lead.leader(), guards: guards.as_ref(), failed: None, steps };
        let ask = async { loader.load(previous.clone()).await?.settle(previous) };
        let loaded = self.run_loader(&request.key, link, ask, deadline, &mut keeping).await;
        let Keeping { failed, mut steps, .. } = keeping;
        steps.add(Step::Loaded);
        if loaded.as_ref().is_ok_and(|loaded| loaded.loaded.is_confirmed) {
            self.count(Event::NotModified);
            steps.add(Step::NotModified);
        }
        if let Some(error) = failed {
            // A backend that has failed this load once is not waited for again.
            degraded.get_or_insert(error);
            if !lead.leader().is_detached() {
                permit = Permit::Unknown;
            }
        }
        match loaded {
            Ok(Timed { loaded, cost }) => {
                self.core.cooldown.end(request.key.hash());
                let asked_at = self.settings.clock.now();
                let stored = self.fill(lead.leader(), request, (permit, began.as_ref()), &loaded, cost).await;
                let stored = stored.unwrap_or_else(|error| {
                    degraded.get_or_insert(error);
                    Stored::Failed
                });
                if stored == Stored::Yes && permit == Permit::Lease && lead.leader().is_doubted() {
                    // Which the backend would not have stored, if something had happened to the key; of versions it knows
                    // nothing.
                    if let Some(guards) = &guards
                        && matches!(self.are_unchanged(guards).await, Ok(Unchanged::All))
                    {
                        lead.leader().vouch(asked_at);
                    }
                }
                let value = loaded.into_value();
                if value.is_none() && stored != Stored::Yes && had_entry {
                    self.gone_at_the_source(&request.key, &mut degraded).await;
                }
                Ok(Some(Answer { steps, ..Answer::loaded(value, stored, degraded) }))
            }
            Err(error) => {
                match self.classify(&error) {
                    SourceFailure::Transient if is_early || !self.policy(request).stale_life().is_zero() => {
                        let (now, pause) =
                            (self.settings.clock.now(), self.policy(request).retry_after_error);
                        self.core.cooldown.begin(request.key.hash(), now, pause);
                    }
                    SourceFailure::NotFound if had_entry => {
                        self.gone_at_the_source(&request.key, &mut degraded).await;
                    }
                    _ => {}
                }
                // Nothing to store: whoever comes next need not wait for the lease to end.
                self.release_later(request.key.as_str(), lead.leader().lease.take());
                Err(error)
            }
        }
    }

    /// The versions that keep what is loaded from outliving an invalidation, as they are to be found again.
    pub(super) fn guards(&self, request: &Request<'_>, began: &Began) -> Guards {
        let captured = &began.captured;
        let space = (Scope::Shard(self.shard(request.key.as_str())), captured.space);
        let tags = captured.tags.iter().map(|(tag, version)| (Scope::Tag(tag.clone()), *version));
        let versions =
            std::iter::once(space).chain(tags).chain(captured.any_tag.map(|any| (Scope::AnyTag, any)));
        Guards { versions: versions.collect(), life: self.life_of_versions(request) }
    }

    /// Whether the backend still has these versions.
    pub(super) async fn are_unchanged(&self, guards: &Guards) -> Result<Unchanged> {
        // A load may take longer than they live.
        let needed = guards.versions.iter().map(|(scope, version)| (scope.clone(), *version, guards.life));
        Box::pin(self.keep_versions(needed)).await;
        let scopes: Vec<Scope> = guards.versions.iter().map(|(scope, _)| scope.clone()).collect();
        let versions = Box::pin(self.fetch_versions(&scopes, guards.life)).await;
        let mut unchanged = Unchanged::All;
        for (version, (scope, captured)) in versions.into_iter().zip(&guards.versions) {
            match (version? == *captured, scope) {
                (true, _) => {}
                (false, Scope::AnyTag) => unchanged = Unchanged::ButAnyTag,
                (false, _) => return Ok(Unchanged::No),
            }
        }
        Ok(unchanged)
    }

    /// What the source does not have any more is not to be served from the cache either. The entry goes, and the lease with
    /// it, whoever has it.
    pub(super) async fn gone_at_the_source(&self, key: &Key<'_>, degraded: &mut Option<Error>) {
        if degraded.is_some() {
            // A backend that has failed this load once is not waited for again.
            self.owe(Owed::Key(key.as_str().into()));
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
        let turn = self.turn(&[&*leader], link, deadline, steps).await?;
        leader.keep(turn);
        if leader.lease.is_none() || clock.now().since(began) < RENEW_EVERY {
            return Ok(None);
        }
        // It may have ended meanwhile.
        let mut keeping =
            Keeping { engine: self, leader, guards: None, failed: None, steps: Steps::default() };
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
        leaders: &[&Leader],
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
                let turn = self.wait_for_turn(leaders, deadline).await;
                turn.inspect_err(|_| self.count(Event::Overloaded))
            }
        }
    }

    async fn wait_for_turn(&self, leaders: &[&Leader], deadline: Tick) -> Result<Option<Turn>> {
        let (turns, clock) = (&self.core.turns, &self.settings.clock);
        // One who is followed by its own caller is counted already.
        let _waits = (!leaders.iter().any(|leader| leader.is_followed())).then(|| turns.wait());
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
            if leaders.iter().any(|leader| leader.is_urgent()) {
                return Ok(None);
            }
            if clock.now() >= deadline {
                return Err(Error::new(ErrorKind::Overloaded, "the load had no turn before its deadline")
                    .with_hint("Limits::max_concurrent_loads is the bound"));
            }
            // Of many leaders, it shows when they are looked at again.
            let asked: BoxFuture<'static, ()> = match leaders {
                [leader] => Box::pin(leader.asked()),
                _ => NoUpkeep::asked_by_nobody(),
            };
            let look_again = clock.sleep_until(clock.now().after(LOOK_AGAIN).min(deadline));
            select(freed, select(asked, look_again)).await;
        }
    }

    /// Asks the source, until `deadline`. A panic is an error, here and for everyone who waits.
    pub(super) async fn run_loader<R>(
        &self,
        key: &Key<'_>,
        link: Arc<Link>,
        ask: impl Future<Output = Result<R>>,
        deadline: Tick,
        upkeep: &mut impl Upkeep,
    ) -> Result<Timed<R>> {
        self.count(Event::Load);
        let started = self.settings.clock.now();
        let load = AssertUnwindSafe(chain::within(link, ask)).catch_unwind();
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
            Ok(loaded) => Ok(Timed { loaded, cost: self.settings.clock.now().since(started) }),
            Err(error) => {
                self.count(Event::LoadFailed);
                self.observer.tell(|metrics| metrics.record_error(key.as_str(), &error.to_string()));
                Err(error)
            }
        }
    }
}

/// Ends a flight with this for all who wait.
pub(super) fn land<T: CacheValue, B: CacheBackend>(lead: Lead<'_, B>, ending: &Result<Answer<T>>) {
    lead.complete(|| {
        // `Clone` is somebody else's code, and everyone who waits hangs on it.
        let ending = catch_unwind(AssertUnwindSafe(|| ending.clone())).unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::LoaderPanicked, "cloning the loaded value panicked"))
        });
        Landed { is_sure: ending.is_err(), ending: Arc::new(ending) }
    });
}

/// What a reader with this loader can use of an entry.
pub(super) fn usable_by<T, L: Load<T>>() -> Usable<T> {
    Usable { accepts: L::accepts, takes_absent: L::KNOWS_ABSENCE, may_refresh: false }
}

/// Runs a lead and gives signs of life for as long as somebody polls it.
pub(super) async fn beating<F: Future>(clock: &Clock, pulses: Vec<Pulse>, lead: F) -> F::Output {
    let mut lead = std::pin::pin!(lead);
    let mut next = std::pin::pin!(clock.sleep(BEAT_EVERY));
    std::future::poll_fn(|cx| {
        if let Poll::Ready(ending) = lead.as_mut().poll(cx) {
            return Poll::Ready(ending);
        }
        while next.as_mut().poll(cx).is_ready() {
            let now = clock.now();
            pulses.iter().for_each(|pulse| pulse.beat(now));
            next.set(clock.sleep(BEAT_EVERY));
        }
        Poll::Pending
    })
    .await
}
