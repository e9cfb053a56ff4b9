//! Joining the load of a key, waiting for it, or getting to lead it.

use std::any::TypeId;
use std::time::Duration;

use futures_util::future::{Either, select};

use super::answer::Answer;
use super::chain;
use super::flight::{Follower, Joining, Landed, Leader, Role, Wait};
use super::looking::Looker;
use super::{Engine, Request};
use crate::backend::{CacheBackend, Distribution, Lease};
use crate::clock::Tick;
use crate::entity::CacheValue;
use crate::error::{Error, ErrorKind, Result};
use crate::observe::Event;
use crate::outcome::Source;
use crate::steps::{Step, Steps};

/// A leader that has given no sign of life for so long is not waited for any more.
const LEADER_SILENT: Duration = Duration::from_secs(3);

/// What joining the load of a key, or waiting for it, came to.
pub(super) enum Turn<'a, B: CacheBackend> {
    Landed(Landed),
    Lead(Lead<'a, B>),
    /// The flight ended without a result.
    Gone,
    /// The soft timeout has passed.
    Soft,
    /// The caller has waited long enough.
    TimedOut,
    /// As many wait already as may.
    Full,
    /// Somebody else leads, which was all that the caller wanted to know.
    Elsewhere,
}

/// What a caller makes of another's load.
#[derive(Clone, Copy)]
pub(super) struct Wants {
    /// There is no waiting for others.
    pub(super) only_lead: bool,
    /// Whether "the source does not have it" is an answer.
    pub(super) takes_absent: bool,
}

/// How long a caller waits.
#[derive(Clone, Copy)]
pub(super) struct Until {
    pub(super) soft: Option<Tick>,
    pub(super) hard: Option<Tick>,
    /// Whether a leader that gives no sign of life is given up.
    pub(super) may_oust: bool,
}

impl<B: CacheBackend> Engine<B> {
    pub(super) fn joining(&self, request: &Request<'_>) -> Joining {
        // Nobody else changes what is behind it, and nobody could say so.
        let is_alone =
            self.core.capabilities.distribution == Distribution::SingleProcess && !self.is_fenced();
        Joining {
            now: self.settings.clock.now(),
            max_age: (!is_alone).then_some(self.policy(request).join_max_age),
            max_followers: self.settings.limits.max_waiting_reads,
            is_nested: chain::is_within_any(),
            tags: request.tags.clone(),
            may_choose_tags: request.may_choose_tags,
        }
    }

    /// Joins the load of this key and waits for it, or gets to lead it; with the lease that the lookup may have
    /// brought.
    pub(super) async fn join<T>(
        &self,
        steps: &mut Steps,
        request: &Request<'_>,
        looked: Option<(Lease, Looker)>,
        until: Until,
        wants: Wants,
    ) -> Result<Turn<'_, B>>
    where
        T: CacheValue,
    {
        let Wants { only_lead, takes_absent } = wants;
        let (mut lease, mut looker) = looked.unzip();
        let (key, tag) = (request.key.as_str(), TypeId::of::<T>());
        if chain::contains(self.id(), key, tag) {
            self.release_later(key, lease);
            return Err(Error::new(ErrorKind::Reentrant, "a loader asked for the key that it is loading")
                .with_hint("inside a loader, read the source or another key"));
        }
        loop {
            let mut joining = self.joining(request);
            if only_lead {
                // Who does not wait needs no room.
                joining.max_followers = usize::MAX;
            }
            let turn = match self.core.flights.enter(key, tag, joining) {
                Role::Lead(mut leader) => {
                    if let Some(own) = lease.take() {
                        // Mostly void, but either may be the one that holds.
                        let other = leader.lease.replace(own);
                        self.release_later(key, other);
                    }
                    drop(looker.take());
                    Turn::Lead(Lead::new(self, leader))
                }
                Role::Full => {
                    self.release_later(key, lease.take());
                    Turn::Full
                }
                Role::Follow(follower) if only_lead => {
                    drop(Follow { engine: self, follower });
                    Turn::Elsewhere
                }
                Role::Follow(mut follower) => {
                    if let Some(lease) = lease.take() {
                        follower.offer(lease);
                    }
                    drop(looker.take());
                    steps.add(Step::Joined);
                    if follower.is_in_doubt() {
                        steps.add(Step::Doubted);
                    }
                    self.follow(Follow { engine: self, follower }, until, steps).await
                }
            };
            match turn {
                Turn::Gone => {}
                // Who cannot say so itself does not take it from another, and loads.
                Turn::Landed(landed) if !takes_absent && is_absent::<T>(&landed) => {}
                turn => return Ok(turn),
            }
        }
    }

    /// Waits for a load.
    pub(super) async fn follow<'a>(
        &'a self,
        mut follow: Follow<'a, B>,
        until: Until,
        steps: &mut Steps,
    ) -> Turn<'a, B> {
        let clock = &self.settings.clock;
        let (soft, hard) = (until.soft.unwrap_or(Tick::NEVER), until.hard.unwrap_or(Tick::NEVER));
        loop {
            let silent = match until.may_oust {
                true => follow.follower.leader_seen_at().after(LEADER_SILENT),
                false => Tick::NEVER,
            };
            let sleep = clock.sleep_until(silent.min(soft).min(hard));
            let waited = {
                let wait = std::pin::pin!(follow.follower.wait());
                match select(wait, sleep).await {
                    Either::Left((end, _)) => Some(end),
                    Either::Right(_) => None,
                }
            };
            match waited {
                Some(Wait::Landed(landed)) => return Turn::Landed(landed),
                Some(Wait::Lead(leader)) => {
                    self.count(Event::TakenOver);
                    steps.add(Step::TookOver);
                    return Turn::Lead(Lead::new(self, leader));
                }
                Some(Wait::Gone) => return Turn::Gone,
                None => {}
            }
            let now = clock.now();
            if now >= hard {
                return Turn::TimedOut;
            }
            if now >= soft {
                return Turn::Soft;
            }
            if until.may_oust && follow.follower.oust(now, LEADER_SILENT) {
                self.count(Event::Ousted);
                steps.add(Step::GaveUpOnLeader);
            }
        }
    }

    /// The answer of a load that somebody else began.
    pub(super) fn share<T: CacheValue>(&self, landed: &Landed) -> Result<Answer<T>> {
        self.count(Event::SharedLoad);
        let mut answer = ending_of::<T>(landed)?;
        if answer.source == Source::Load {
            answer.source = Source::SharedLoad;
        }
        Ok(answer)
    }
}

fn is_absent<T: CacheValue>(landed: &Landed) -> bool {
    matches!(landed.ending.downcast_ref::<Result<Answer<T>>>(), Some(Ok(answer)) if answer.value.is_none())
}

pub(super) fn ending_of<T: CacheValue>(landed: &Landed) -> Result<Answer<T>> {
    match landed.ending.downcast_ref::<Result<Answer<T>>>() {
        Some(ending) => ending.clone(),
        None => unreachable!("flights are joined by the type of their values"),
    }
}

/// The lead of a load. Dropped with nobody to take it, it gives the lease back.
pub(super) struct Lead<'a, B: CacheBackend> {
    engine: &'a Engine<B>,
    /// Taken only by what consumes the lead.
    leader: Option<Leader>,
}

impl<'a, B: CacheBackend> Lead<'a, B> {
    pub(super) fn new(engine: &'a Engine<B>, leader: Leader) -> Self {
        Self { engine, leader: Some(leader) }
    }

    pub(super) fn leader(&mut self) -> &mut Leader {
        match &mut self.leader {
            Some(leader) => leader,
            None => unreachable!("taken only by what consumes the lead"),
        }
    }

    pub(super) fn peek(&self) -> &Leader {
        match &self.leader {
            Some(leader) => leader,
            None => unreachable!("taken only by what consumes the lead"),
        }
    }

    /// Ends the flight with this answer for everyone who waits.
    pub(super) fn complete(mut self, landed: impl FnOnce() -> Landed) {
        if let Some(mut leader) = self.leader.take() {
            let unused = leader.lease.take();
            self.engine.release_later(leader.key(), unused);
            leader.complete(landed);
        }
    }

    fn take(&mut self) -> Leader {
        match self.leader.take() {
            Some(leader) => leader,
            None => unreachable!("taken only by what consumes the lead"),
        }
    }

    /// The same lead in a task of its own.
    pub(super) fn hand_over(&mut self) -> OwnedLead<B> {
        OwnedLead { engine: self.engine.clone(), leader: Some(self.take()) }
    }

    /// The lead, to be run elsewhere, and one who waits for it.
    pub(super) fn into_followed(mut self) -> (Self, Follow<'a, B>) {
        let follower = self.leader().follow();
        let follow = Follow { engine: self.engine, follower };
        (self, follow)
    }
}

impl<B: CacheBackend> Drop for Lead<'_, B> {
    fn drop(&mut self) {
        if let Some(leader) = &mut self.leader {
            let lease = leader.abandon();
            self.engine.release_later(leader.key(), lease);
        }
    }
}

/// A lead that is on its way to a task. Dropped there, it ends as any other.
pub(super) struct OwnedLead<B: CacheBackend> {
    engine: Engine<B>,
    leader: Option<Leader>,
}

impl<B: CacheBackend> OwnedLead<B> {
    pub(super) fn split(&mut self) -> (&Engine<B>, Lead<'_, B>) {
        (&self.engine, Lead { engine: &self.engine, leader: self.leader.take() })
    }
}

impl<B: CacheBackend> Drop for OwnedLead<B> {
    fn drop(&mut self) {
        drop(Lead { engine: &self.engine, leader: self.leader.take() });
    }
}

/// One who waits. Dropped, it gives back what nobody else is left to take.
pub(super) struct Follow<'a, B: CacheBackend> {
    engine: &'a Engine<B>,
    follower: Follower,
}

impl<'a, B: CacheBackend> Follow<'a, B> {
    pub(super) fn new(engine: &'a Engine<B>, follower: Follower) -> Self {
        Self { engine, follower }
    }
}

impl<B: CacheBackend> Drop for Follow<'_, B> {
    fn drop(&mut self) {
        let left = self.follower.leave();
        self.engine.release_later(self.follower.key(), left);
        let unused = self.follower.reclaim();
        self.engine.release_later(self.follower.key(), unused);
    }
}
