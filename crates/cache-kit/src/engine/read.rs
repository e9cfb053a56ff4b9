//! A read, step by step.

use std::any::TypeId;
use std::sync::Arc;
use std::time::Duration;

use tokio::runtime::Handle;

use super::chain;
use super::flight::{Follower, Landed, Leader, Role, Wait};
use super::load::Load;
use super::looking::Looker;
use super::lookup::{Found, Missed};
use super::{Engine, Request};
use crate::CacheStrategy;
use crate::backend::{CacheBackend, Lease};
use crate::entity::CacheValue;
use crate::error::{Error, ErrorKind, Result};
use crate::observe::Event;
use crate::outcome::{Outcome, Source, Stored};

/// What a read found; a public [`Outcome`] but for the age, which costs a look at the clock.
#[derive(Clone)]
pub(crate) struct Answer<T> {
    pub(crate) value: Option<T>,
    pub(crate) source: Source,
    pub(crate) written_at: Option<u64>,
    pub(crate) stored: Stored,
    pub(crate) degraded: Option<Error>,
}

/// Where a read stands once the cache was asked as far as its strategy allows.
enum Step<T> {
    Done(Answer<T>),
    Load(Missed),
    Bypass,
}

/// What joining the load of a key came to.
enum Turn<'a, B: CacheBackend, T> {
    Landed(Result<Answer<T>>),
    Lead(Lead<'a, B>),
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
        match self.ask_cache(request, L::accepts).await? {
            Step::Done(answer) => Ok(answer),
            Step::Bypass => Box::pin(self.read_source(request, loader)).await,
            Step::Load(missed) => Box::pin(self.load_inline(request, missed, loader)).await,
        }
    }

    /// Reads with a loader that runs in a task of its own, and so to its end even if the caller goes away.
    /// Without a tokio runtime it runs in the caller's task.
    pub(crate) async fn read_owned<T, L>(&self, request: &Request<'_>, mut loader: L) -> Result<Answer<T>>
    where
        T: CacheValue,
        L: Load<T> + 'static,
    {
        match self.ask_cache(request, L::accepts).await? {
            Step::Done(answer) => Ok(answer),
            Step::Bypass => Box::pin(self.read_source(request, &mut loader)).await,
            Step::Load(missed) => Box::pin(self.load_owned(request, missed, loader)).await,
        }
    }

    async fn load_inline<T, L>(
        &self,
        request: &Request<'_>,
        mut missed: Missed,
        loader: &mut L,
    ) -> Result<Answer<T>>
    where
        T: CacheValue,
        L: Load<T>,
    {
        match self.join(request, missed.take_lease()).await? {
            Turn::Landed(answer) => answer.map(|answer| answer.after(missed)),
            Turn::Lead(lead) => {
                let link = chain::link(self.id(), request.key.as_str(), TypeId::of::<T>());
                self.lead(lead, request, missed, link, loader).await
            }
        }
    }

    async fn load_owned<T, L>(
        &self,
        request: &Request<'_>,
        mut missed: Missed,
        mut loader: L,
    ) -> Result<Answer<T>>
    where
        T: CacheValue,
        L: Load<T> + 'static,
    {
        let lead = match self.join(request, missed.take_lease()).await? {
            Turn::Landed(answer) => return answer.map(|answer| answer.after(missed)),
            Turn::Lead(lead) => lead,
        };
        // Linked here: the task that is spawned does not know what this one is inside of.
        let link = chain::link(self.id(), request.key.as_str(), TypeId::of::<T>());
        let Ok(runtime) = Handle::try_current() else {
            return self.lead(lead, request, missed, link, &mut loader).await;
        };
        let (leader, follower) = lead.into_followed();
        let (engine, request) = (self.clone(), request.clone().into_owned());
        // Owned by its flight: it ends with the load, and if the runtime drops it, the lead goes on.
        let load = async move {
            let lead = Lead { engine: &engine, leader: Some(leader) };
            let _ = engine.lead::<T, L>(lead, &request, missed, link, &mut loader).await;
        };
        #[cfg(feature = "tracing")]
        let load = tracing::Instrument::in_current_span(load);
        runtime.spawn(load);
        match self.follow(follower).await {
            Wait::Landed(landed) => return answer_of(&landed),
            // The loader went with its task. The lead goes on to the next who waits.
            Wait::Lead(leader) => drop(Lead { engine: self, leader: Some(leader) }),
            Wait::Gone => {}
        }
        Err(Error::new(ErrorKind::LoadAborted, "the task of the load ended without an answer")
            .with_hint("was its runtime shut down?"))
    }

    /// Only the cache.
    pub(crate) async fn read_cached<T: CacheValue>(
        &self,
        request: &Request<'_>,
        accepts: fn(&T) -> bool,
    ) -> Result<Answer<T>> {
        match self.look_up(request, accepts).await {
            Ok(found) => Ok(Answer::cached(found)),
            Err(Missed::Unknown(error)) => Err(error),
            Err(_) => Ok(Answer::nowhere()),
        }
    }

    async fn ask_cache<T: CacheValue>(
        &self,
        request: &Request<'_>,
        accepts: fn(&T) -> bool,
    ) -> Result<Step<T>> {
        Ok(match request.strategy {
            CacheStrategy::Refresh => match self.look_up_to_load(request, accepts).await {
                Ok(found) => Step::Done(Answer::cached(found)),
                Err(missed) => Step::Load(missed),
            },
            CacheStrategy::Fresh => Step::Done(self.read_cached(request, accepts).await?),
            CacheStrategy::Bypass => Step::Bypass,
            CacheStrategy::Invalidate => Step::Load(match self.invalidate(&request.key).await {
                Ok(()) => Missed::Absent,
                // The value still comes; that the old one may be there too is what `degraded` will say.
                Err(error) => Missed::Unknown(error),
            }),
        })
    }

    /// Only the source.
    async fn read_source<T, L: Load<T>>(&self, request: &Request<'_>, loader: &mut L) -> Result<Answer<T>> {
        let link = chain::link(self.id(), request.key.as_str(), TypeId::of::<()>());
        let loaded = self.run_loader(&request.key, link, loader).await?;
        Ok(Answer::loaded(loaded.value, Stored::NotAsked, None))
    }

    /// Joins the load of this key and waits for it, or gets to lead it; with the lease that the lookup may have
    /// brought.
    async fn join<T: CacheValue>(
        &self,
        request: &Request<'_>,
        looked: Option<(Lease, Looker)>,
    ) -> Result<Turn<'_, B, T>> {
        let (mut lease, mut looker) = looked.unzip();
        let (key, tag) = (request.key.as_str(), TypeId::of::<T>());
        if chain::contains(self.id(), key, tag) {
            self.release_at_once(key, lease);
            return Err(Error::new(ErrorKind::Reentrant, "a loader asked for the key that it is loading")
                .with_hint("inside a loader, read the source or another key"));
        }
        loop {
            let leader = match self.core.flights.enter(key, tag) {
                Role::Lead(mut leader) => {
                    // The newest is the one that holds.
                    leader.lease = lease.take().or_else(|| leader.lease.take());
                    drop(looker.take());
                    leader
                }
                Role::Follow(mut follower) => {
                    if let Some(lease) = lease.take() {
                        follower.offer(lease);
                    }
                    drop(looker.take());
                    match self.follow(follower).await {
                        Wait::Landed(landed) => return Ok(Turn::Landed(self.share(&landed))),
                        Wait::Lead(leader) => leader,
                        Wait::Gone => continue,
                    }
                }
            };
            return Ok(Turn::Lead(Lead { engine: self, leader: Some(leader) }));
        }
    }

    async fn follow(&self, follower: Follower) -> Wait {
        let mut follow = Follow { engine: self, follower };
        follow.follower.wait().await
    }

    /// The answer of a load that somebody else began.
    fn share<T: CacheValue>(&self, landed: &Landed) -> Result<Answer<T>> {
        self.count(Event::SharedLoad);
        answer_of(landed).map(|answer: Answer<T>| match answer.source {
            Source::Load => Answer { source: Source::SharedLoad, ..answer },
            _ => answer,
        })
    }

    pub(crate) fn outcome<T>(&self, answer: Answer<T>) -> Outcome<Option<T>> {
        let Answer { value, source, written_at, stored, degraded } = answer;
        let age = written_at.map(|written_at| {
            Duration::from_millis(self.settings.clock.unix_millis().saturating_sub(written_at))
        });
        Outcome { value, source, age, stored, degraded }
    }

    /// Tells caches apart.
    pub(super) fn id(&self) -> usize {
        Arc::as_ptr(&self.core).addr()
    }
}

fn answer_of<T: CacheValue>(landed: &Landed) -> Result<Answer<T>> {
    match landed.downcast_ref::<Result<Answer<T>>>() {
        Some(ending) => ending.clone(),
        None => unreachable!("flights are joined by the type of their values"),
    }
}

impl<T> Answer<T> {
    pub(super) fn cached(found: Found<T>) -> Self {
        Self {
            value: Some(found.value),
            source: Source::Cache,
            written_at: Some(found.written_at),
            stored: Stored::NotAsked,
            degraded: None,
        }
    }

    pub(super) fn loaded(value: Option<T>, stored: Stored, degraded: Option<Error>) -> Self {
        let source = if value.is_some() { Source::Load } else { Source::Nowhere };
        Self { value, source, written_at: None, stored, degraded }
    }

    /// The answer of another's load, for a reader whose own look at the cache went like this.
    fn after(mut self, missed: Missed) -> Self {
        if self.degraded.is_none() {
            self.degraded = missed.into_error();
        }
        self
    }

    pub(super) fn nowhere() -> Self {
        Self::loaded(None, Stored::NotAsked, None)
    }
}

/// The lead of a load. Dropped with nobody to take it, it gives the lease back.
pub(super) struct Lead<'a, B: CacheBackend> {
    engine: &'a Engine<B>,
    /// Taken only by what consumes the lead.
    leader: Option<Leader>,
}

impl<B: CacheBackend> Lead<'_, B> {
    pub(super) fn leader(&mut self) -> &mut Leader {
        match &mut self.leader {
            Some(leader) => leader,
            None => unreachable!("taken only by what consumes the lead"),
        }
    }

    /// Ends the flight with this answer for everyone who waits.
    pub(super) fn complete(mut self, landed: impl FnOnce() -> Landed) {
        if let Some(leader) = self.leader.take() {
            leader.complete(landed);
        }
    }

    fn into_followed(mut self) -> (Leader, Follower) {
        let follower = self.leader().follow();
        match self.leader.take() {
            Some(leader) => (leader, follower),
            None => unreachable!("taken only by what consumes the lead"),
        }
    }
}

impl<B: CacheBackend> Drop for Lead<'_, B> {
    fn drop(&mut self) {
        if let Some(leader) = &mut self.leader {
            let lease = leader.abandon();
            self.engine.release_at_once(leader.key(), lease);
        }
    }
}

struct Follow<'a, B: CacheBackend> {
    engine: &'a Engine<B>,
    follower: Follower,
}

impl<B: CacheBackend> Drop for Follow<'_, B> {
    fn drop(&mut self) {
        let left = self.follower.leave();
        self.engine.release_at_once(self.follower.key(), left);
        let unused = self.follower.reclaim();
        self.engine.release_at_once(self.follower.key(), unused);
    }
}
