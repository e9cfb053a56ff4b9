//! A read, step by step.

use std::any::TypeId;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{Either, select};
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use super::answer::Answer;
use super::chain;
use super::flight::Role;
use super::join::{Follow, Lead, Turn, Until, Wants, ending_of};
use super::load::{Load, usable_by};
use super::lookup::{Chore, Found, Miss, Missed, Usable};
use super::stale::{Fallback, SourceFailure};
use super::{Engine, Request};
use crate::CacheStrategy;
use crate::backend::CacheBackend;
use crate::clock::Tick;
use crate::entity::CacheValue;
use crate::error::{Error, ErrorKind, Result};
use crate::loaded::Previous;
use crate::observe::Event;
use crate::outcome::{Invalidation, Stored};
use crate::policy::Policy;
use crate::steps::{Step, Steps};

/// Where a read stands once the cache was asked as far as its strategy allows.
enum Asked<T> {
    Done(Answer<T>),
    /// Answered, by what is to be loaded anew before its life ends.
    Early(Answer<T>, Bytes),
    Load(Box<Miss<T>>),
    Bypass,
}

/// A reader on its way from a miss to an answer.
pub(super) struct Reader<'a, B: CacheBackend, T> {
    engine: &'a Engine<B>,
    request: &'a Request<'a>,
    fallback: Option<Fallback<T>>,
    steps: Steps,
    deadline: Option<Tick>,
    /// What kept the lookup from an answer.
    unknown: Option<Error>,
}

impl<B: CacheBackend> Engine<B> {
    /// Reads with a loader that runs in the caller's task. If the caller goes away, another reader takes over
    /// with its own loader.
    pub(crate) async fn read_inline<T, L>(&self, request: &Request<'_>, loader: &mut L) -> Result<Answer<T>>
    where
        T: CacheValue,
        L: Load<T>,
    {
        // What comes after a miss is boxed: a hit pays nothing for it, not even in the size of its future.
        match self.ask_cache(request, usable_by::<T, L>()).await? {
            Asked::Done(answer) | Asked::Early(answer, _) => Ok(answer),
            Asked::Bypass => Box::pin(self.read_source(request, loader)).await,
            Asked::Load(miss) => Box::pin(self.load_inline(request, miss, loader)).await,
        }
    }

    /// Reads with a loader that runs in a task of its own, and so to its end even if the caller goes away.
    /// Without a tokio runtime it runs in the caller's task.
    pub(crate) async fn read_owned<T, L>(&self, request: &Request<'_>, mut loader: L) -> Result<Answer<T>>
    where
        T: CacheValue,
        L: Load<T> + 'static,
    {
        let usable = Usable { may_refresh: true, ..usable_by::<T, L>() };
        match self.ask_cache(request, usable).await? {
            Asked::Done(answer) => Ok(answer),
            Asked::Early(answer, entry) => Ok(self.refresh_early(request, answer, entry, loader)),
            Asked::Bypass => Box::pin(self.read_source(request, &mut loader)).await,
            Asked::Load(miss) => match Handle::try_current() {
                Ok(runtime) => Box::pin(self.load_owned(request, miss, loader, runtime)).await,
                Err(_) => Box::pin(self.load_inline(request, miss, &mut loader)).await,
            },
        }
    }

    async fn load_inline<T, L>(
        &self,
        request: &Request<'_>,
        miss: Box<Miss<T>>,
        loader: &mut L,
    ) -> Result<Answer<T>>
    where
        T: CacheValue,
        L: Load<T>,
    {
        let (mut reader, mut missed) = Reader::new(self, request, *miss);
        if reader.is_throttled() {
            return Ok(reader.stale(Step::Throttled, None));
        }
        let until = Until { soft: None, hard: reader.deadline, may_oust: true };
        // Nothing runs behind a caller here; another's load does anyway.
        let only_lead = reader.is_within(self.policy(request).stale_while_revalidate);
        let wants = Wants { only_lead, takes_absent: L::KNOWS_ABSENCE };
        let lead = match self.join::<T>(&mut reader.steps, request, missed.take_lease(), until, wants).await?
        {
            Turn::Lead(lead) => lead,
            other => return reader.turned(other),
        };
        let link = chain::link(self.id(), request.key.as_str(), TypeId::of::<T>());
        let load = self.lead(lead, request, missed, link, loader);
        let clock = &self.settings.clock;
        let deadline = reader.deadline.unwrap_or(Tick::NEVER);
        match select(std::pin::pin!(load), clock.sleep_until(deadline)).await {
            Either::Left((ending, _)) => reader.settle(ending),
            // Dropped here, the lead goes on to the next who waits.
            Either::Right(_) => reader.turned(Turn::TimedOut),
        }
    }

    async fn load_owned<T, L>(
        &self,
        request: &Request<'_>,
        miss: Box<Miss<T>>,
        loader: L,
        runtime: Handle,
    ) -> Result<Answer<T>>
    where
        T: CacheValue,
        L: Load<T> + 'static,
    {
        let (mut reader, mut missed) = Reader::new(self, request, *miss);
        if reader.is_throttled() {
            return Ok(reader.stale(Step::Throttled, None));
        }
        if reader.is_within(self.policy(request).stale_while_revalidate) {
            let refreshing = self.refresh_behind(request, missed, loader, &runtime);
            return Ok(reader.stale(refreshing, None));
        }
        let soft = reader.soft_deadline();
        let until = Until { soft, hard: reader.deadline, may_oust: true };
        let wants = Wants { only_lead: false, takes_absent: L::KNOWS_ABSENCE };
        let lead = match self.join::<T>(&mut reader.steps, request, missed.take_lease(), until, wants).await?
        {
            Turn::Lead(lead) => lead,
            other => return reader.turned(other),
        };
        let (lead, follow) = lead.into_followed();
        // Linked here: the task that is spawned does not know what this one is inside of.
        let link = chain::link(self.id(), request.key.as_str(), TypeId::of::<T>());
        let (ended, ending) = oneshot::channel();
        if !self.spawn_load(lead, request, (missed, link), loader, &runtime, Some(ended)) {
            return reader.settle(Err(shut_down()));
        }
        // The loader is in that task: nobody else can run it, so there is nobody to be ousted for.
        let give_up =
            self.settings.clock.now().after(self.policy(request).load_deadline.saturating_add(GRACE));
        let hard = reader.deadline.map_or(give_up, |deadline| deadline.min(give_up));
        let until = Until { soft, hard: Some(hard), may_oust: false };
        let turn = match self.follow(follow, until, &mut reader.steps).await {
            // The loader went with its task. The lead goes on to the next who waits.
            Turn::Lead(lead) => {
                drop(lead);
                Turn::Gone
            }
            turn => turn,
        };
        match turn {
            Turn::Landed(landed) => reader.settle(ending_of(&landed)),
            // Others may have lost patience with the task, which may go on all the same.
            Turn::Gone => self.outlast(reader, ending, until).await,
            other => reader.turned(other),
        }
    }

    /// Waits for a task whose flight is gone.
    async fn outlast<T: CacheValue>(
        &self,
        reader: Reader<'_, B, T>,
        ending: oneshot::Receiver<Result<Answer<T>>>,
        until: Until,
    ) -> Result<Answer<T>> {
        let (soft, hard) = (until.soft.unwrap_or(Tick::NEVER), until.hard.unwrap_or(Tick::NEVER));
        match select(ending, self.settings.clock.sleep_until(soft.min(hard))).await {
            Either::Left((Ok(ending), _)) => reader.settle(ending),
            Either::Left((Err(_), _)) if self.core.tasks.is_closed() => reader.settle(Err(shut_down())),
            Either::Left((Err(_), _)) => {
                let error =
                    Error::new(ErrorKind::LoadAborted, "the task of the load ended without an answer")
                        .with_hint("was its runtime shut down?");
                reader.settle(Err(error))
            }
            Either::Right(_) if soft < hard => reader.turned(Turn::Soft),
            Either::Right(_) => reader.turned(Turn::TimedOut),
        }
    }

    /// Starts a load of what the caller has got already.
    #[cold]
    fn refresh_early<T, L>(
        &self,
        request: &Request<'_>,
        mut answer: Answer<T>,
        entry: Bytes,
        loader: L,
    ) -> Answer<T>
    where
        T: CacheValue,
        L: Load<T> + 'static,
    {
        if self.core.cooldown.holds(request.key.hash(), self.settings.clock.now()) {
            // It has just failed, and there is time left.
            return answer;
        }
        // Behind a caller only; without a runtime the value is loaded when its life has ended.
        if let Ok(runtime) = Handle::try_current() {
            let step = self.refresh_behind(request, Missed::Early(entry), loader, &runtime);
            step.into_iter().for_each(|step| answer.steps.add(step));
        }
        answer
    }

    /// Starts a load behind the caller, unless one is under way or there are too many; not in a cache that is shut down.
    fn refresh_behind<T, L>(
        &self,
        request: &Request<'_>,
        missed: Missed,
        loader: L,
        runtime: &Handle,
    ) -> Option<Step>
    where
        T: CacheValue,
        L: Load<T> + 'static,
    {
        let tag = TypeId::of::<T>();
        if chain::contains(self.id(), request.key.as_str(), tag) {
            return Some(Step::RefreshingBehind);
        }
        let lead = match self.core.flights.enter(request.key.as_str(), tag, self.joining(request)) {
            Role::Lead(leader) => Lead::new(self, leader),
            Role::Follow(follower) => {
                drop(Follow::new(self, follower));
                return Some(Step::RefreshingBehind);
            }
            Role::Full => return Some(Step::RefreshingBehind),
        };
        if self.core.turns.are_all_taken() {
            self.count(Event::Overloaded);
            return Some(Step::Overloaded);
        }
        // Nobody waits for it: it is inside of no load.
        let link = chain::root(self.id(), request.key.as_str(), tag);
        let is_running = self.spawn_load::<T, L>(lead, request, (missed, link), loader, runtime, None);
        is_running.then_some(Step::RefreshingBehind)
    }

    /// Runs a load in a task of its own; false if the cache is shut down.
    fn spawn_load<T, L>(
        &self,
        mut lead: Lead<'_, B>,
        request: &Request<'_>,
        (missed, link): (Missed, Arc<chain::Link>),
        mut loader: L,
        runtime: &Handle,
        ended: Option<oneshot::Sender<Result<Answer<T>>>>,
    ) -> bool
    where
        T: CacheValue,
        L: Load<T> + 'static,
    {
        let (mut lead, request) = (lead.hand_over(), request.clone().into_owned());
        // Owned by the cache's list of tasks: it ends with the load, at its deadline, or when the cache is shut down; and
        // if the runtime drops it, the lead goes on.
        let load = async move {
            let (engine, lead) = lead.split();
            let ending = engine.lead::<T, L>(lead, &request, missed, link, &mut loader).await;
            if let Some(ended) = ended {
                let _nobody_waits = ended.send(ending);
            }
        };
        #[cfg(feature = "tracing")]
        let load = tracing::Instrument::in_current_span(load);
        self.core.tasks.spawn(runtime, load)
    }

    /// Only the cache.
    pub(crate) async fn read_cached<T: CacheValue>(
        &self,
        request: &Request<'_>,
        usable: Usable<T>,
    ) -> Result<Answer<T>> {
        match self.look_up(request, usable).await {
            Ok(found) if found.chore.is_none() => Ok(Answer::cached(found)),
            Ok(found) => Ok(Box::pin(self.found(request, found)).await.0),
            Err(miss) => match *miss {
                Miss { missed: Missed::Unknown(error), .. } => Err(error),
                Miss { steps, .. } => Ok(Answer { steps, ..Answer::nowhere() }),
            },
        }
    }

    async fn ask_cache<T: CacheValue>(&self, request: &Request<'_>, usable: Usable<T>) -> Result<Asked<T>> {
        Ok(match request.strategy {
            CacheStrategy::Refresh => match self.look_up_to_load(request, usable).await {
                Ok(found) if found.chore.is_none() => Asked::Done(Answer::cached(found)),
                Ok(found) => match Box::pin(self.found(request, found)).await {
                    (answer, None) => Asked::Done(answer),
                    (answer, Some(entry)) => Asked::Early(answer, entry),
                },
                Err(miss) => Asked::Load(miss),
            },
            CacheStrategy::Fresh => Asked::Done(self.read_cached(request, usable).await?),
            CacheStrategy::Bypass => Asked::Bypass,
            CacheStrategy::Invalidate => {
                let deadline = self.deadline(request);
                // One whose answer takes too long is queued.
                let invalidation = Box::pin(self.half_of(deadline, self.invalidate(&request.key)));
                let miss = match invalidation.await {
                    Ok(()) => Miss::new(Missed::Absent, Step::InvalidationConfirmed),
                    // The value still comes; that the old one may be there too is what the outcome will say.
                    Err(error) => Miss::new(Missed::Unknown(error), Step::InvalidationQueued),
                };
                Asked::Load(Box::new(Miss { deadline, ..miss }))
            }
        })
    }

    /// The answer with an entry, and the entry if it is to be loaded anew.
    pub(super) async fn found<T>(
        &self,
        request: &Request<'_>,
        mut found: Found<T>,
    ) -> (Answer<T>, Option<Bytes>) {
        let early = match found.chore.take() {
            None => None,
            Some(Chore::Refresh(entry)) => Some(entry),
            Some(Chore::Touch(entry)) => {
                Box::pin(self.touch(request, entry)).await;
                None
            }
        };
        (Answer::cached(found), early)
    }

    /// Only the source.
    async fn read_source<T: CacheValue, L: Load<T>>(
        &self,
        request: &Request<'_>,
        loader: &mut L,
    ) -> Result<Answer<T>> {
        let link = chain::link(self.id(), request.key.as_str(), TypeId::of::<()>());
        let policy = self.policy(request);
        let longest = policy.timeout.unwrap_or(policy.load_deadline).min(policy.load_deadline);
        let deadline = self.settings.clock.now().after(longest);
        let _turn = self.turn(&[], &link, deadline, &mut Steps::default()).await?;
        let ask = async { loader.load(Previous::default()).await?.settle(Previous::default()) };
        let timed = self.run_loader(&request.key, link, ask, deadline, &mut super::load::NoUpkeep).await?;
        let steps = Steps::default().with(Step::Bypassed).with(Step::Loaded);
        Ok(Answer { steps, ..Answer::loaded(timed.loaded.into_value(), Stored::NotAsked, None) })
    }

    /// Tells caches apart.
    pub(super) fn id(&self) -> usize {
        Arc::as_ptr(&self.core).addr()
    }
}

/// How much longer than its load's deadline a caller waits for the task to say so.
const GRACE: Duration = Duration::from_secs(2);

fn shut_down() -> Error {
    Error::new(ErrorKind::LoadAborted, "the cache is shut down").with_hint("it starts no more loads")
}

impl<'a, B: CacheBackend, T> Reader<'a, B, T> {
    fn new(engine: &'a Engine<B>, request: &'a Request<'a>, miss: Miss<T>) -> (Self, Missed) {
        let Miss { missed, fallback, steps, deadline } = miss;
        let deadline = deadline.or_else(|| engine.deadline(request));
        let unknown = match &missed {
            Missed::Unknown(error) => Some(error.clone()),
            _ => None,
        };
        (Self { engine, request, fallback, steps, deadline, unknown }, missed)
    }

    fn policy(&self) -> &'a Policy {
        self.engine.policy(self.request)
    }

    /// Whether there is a stale value that has been so for less than `window`.
    fn is_within(&self, window: Duration) -> bool {
        self.fallback.as_ref().is_some_and(|fallback| fallback.stale_for < window)
    }

    /// Whether the stale value is to be served because the source has just failed.
    fn is_throttled(&self) -> bool {
        let engine = self.engine;
        let throttled = self.is_within(self.policy().stale_life())
            && engine.core.cooldown.holds(self.request.key.hash(), engine.settings.clock.now());
        if throttled {
            engine.count(Event::Throttled);
        }
        throttled
    }

    fn soft_deadline(&self) -> Option<Tick> {
        self.fallback.as_ref()?;
        Some(self.engine.settings.clock.now().after(self.policy().soft_timeout?))
    }

    /// The stale value, and why.
    fn stale(self, why: impl Into<Option<Step>>, degraded: Option<Error>) -> Answer<T> {
        let steps = why.into().map_or(self.steps, |why| self.steps.with(why));
        match self.fallback {
            Some(fallback) => self.engine.serve_stale(fallback, steps, degraded),
            None => unreachable!("asked for only where there is one"),
        }
    }

    /// What the load came to, or the stale value if it came to nothing.
    fn settle(self, ending: Result<Answer<T>>) -> Result<Answer<T>> {
        match ending {
            Ok(mut answer) => {
                if answer.degraded.is_none() {
                    answer.degraded = self.unknown;
                }
                answer.steps = answer.steps.and(self.steps);
                answer.invalidation = match self.request.strategy {
                    CacheStrategy::Invalidate if self.steps.contains(Step::InvalidationConfirmed) => {
                        Some(Invalidation::Confirmed)
                    }
                    CacheStrategy::Invalidate => Some(Invalidation::Queued),
                    _ => None,
                };
                Ok(answer)
            }
            Err(error)
                if self.is_within(self.policy().stale_if_error)
                    && self.engine.classify(&error) == SourceFailure::Transient =>
            {
                self.engine.count(Event::StaleOnError);
                Ok(self.stale(Step::LoadFailed, Some(error)))
            }
            Err(error) => Err(error),
        }
    }

    /// What became of waiting for a load.
    fn turned(mut self, turn: Turn<'_, B>) -> Result<Answer<T>>
    where
        T: CacheValue,
    {
        match turn {
            Turn::Landed(landed) => {
                let ending = self.engine.share(&landed);
                self.settle(ending)
            }
            Turn::Soft => {
                self.engine.count(Event::SoftTimeout);
                Ok(self.stale(Step::SoftTimeout, None))
            }
            Turn::TimedOut => {
                self.engine.count(Event::TimedOut);
                self.steps.add(Step::TimedOut);
                let timeout = self.policy().timeout.unwrap_or(self.policy().load_deadline);
                let error = Error::new(ErrorKind::Timeout, format!("no value within {timeout:?}"))
                    .with_hint("an owned load goes on behind and may answer the next read");
                self.settle(Err(error))
            }
            Turn::Full => {
                self.engine.count(Event::Overloaded);
                self.steps.add(Step::Overloaded);
                let error = Error::new(ErrorKind::Overloaded, "too many reads wait for a load")
                    .with_hint("Limits::max_waiting_reads is the bound");
                self.settle(Err(error))
            }
            Turn::Elsewhere => Ok(self.stale(Step::Joined, None)),
            Turn::Lead(_) | Turn::Gone => unreachable!("dealt with by who waits"),
        }
    }
}
