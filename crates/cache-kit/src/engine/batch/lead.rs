//! The leases of what a batch leads, and its loads.

use std::any::TypeId;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::future::{BoxFuture, join, join_all, select_all};

use super::{Batch, Led, LoadMany, Missing};
use crate::backend::{Acquired, CacheBackend, Claim};
use crate::clock::Tick;
use crate::engine::answer::Answer;
use crate::engine::chain::{self, Link};
use crate::engine::fill::{Began, Permit};
use crate::engine::flight::Leader;
use crate::engine::join::Lead;
use crate::engine::lease::{Leased, Seen, Upkeep};
use crate::engine::load::{Guards, Unchanged, land};
use crate::engine::lookup::{Missed, Usable};
use crate::engine::turns::Turn;
use crate::engine::versions::Scope;
use crate::engine::{Engine, LEASE_LIFE, RENEW_EVERY};
use crate::entity::CacheValue;
use crate::error::{Error, ErrorKind, Result};
use crate::loaded::Loaded;
use crate::observe::Event;
use crate::steps::{Step, Steps};

/// The wait of a key for another process.
type Waiting<'w, 'a, B, T> = BoxFuture<'w, (Led<'a, B>, Leased<T>)>;

/// A key whose lease has been asked for.
pub(super) struct Ready<'a, B: CacheBackend> {
    pub(super) one: Missing<'a, B>,
    pub(super) lead: Lead<'a, B>,
    pub(super) permit: Permit,
    pub(super) degraded: Option<Error>,
    pub(super) began: Option<Began>,
    pub(super) had_entry: bool,
}

/// The leases of a load, kept while it runs.
struct KeepingMany<'k, 'a, B: CacheBackend> {
    engine: &'a Engine<B>,
    guards: &'k Guards,
    ready: &'k mut Vec<Ready<'a, B>>,
}

impl<'a, B: CacheBackend, T: CacheValue> Batch<'a, B, T> {
    /// Takes the leases, loads and stores; what others load is waited for meanwhile, and loaded after that. As many parts at
    /// a time as may be, and as there are turns for: a lease is taken when its load is about to begin.
    pub(super) async fn lead<'l, L: LoadMany<'l, T>>(
        &self,
        mut led: Vec<Led<'a, B>>,
        usable: Usable<T>,
        loader: &Mutex<L>,
    ) {
        let engine = self.engine;
        // In the order that they were asked for.
        led.sort_unstable_by_key(|(one, _)| one.at);
        let keys = led.iter().map(|(one, _)| self.requests[one.at].key.as_str());
        let link = chain::link_many(engine.id(), keys, TypeId::of::<T>());
        let deadline = led.first().map_or(Tick::NEVER, |(one, _)| {
            engine.settings.clock.now().after(engine.policy(&self.requests[one.at]).load_deadline)
        });
        while !led.is_empty() {
            let leaders: Vec<&Leader> = led.iter().map(|(_, lead)| lead.peek()).collect();
            let turns = self.turns(&leaders, led.len(), &link, deadline).await;
            drop(leaders);
            let (turns, steps) = match turns {
                Ok(turns) => turns,
                Err(error) => {
                    let ready = led.into_iter().map(|led| Ready::new(led, Permit::Unknown, None));
                    return self.fail_all(ready.collect(), &error);
                }
            };
            let room = turns.len().saturating_mul(engine.settings.limits.max_batch_keys);
            let rest = led.split_off(led.len().min(room));
            let mut part = std::mem::replace(&mut led, rest);
            part.iter_mut().for_each(|(one, _)| one.steps = one.steps.and(steps));
            let (ready, second) = self.lease_many(part, usable).await;
            let load = async {
                self.load_all(ready, &link, deadline, loader).await;
                // Others may load while this waits.
                drop(turns);
            };
            let began = engine.settings.clock.now();
            let ((), left) = join(load, self.wait_for_others(second, usable, deadline)).await;
            if !left.is_empty() {
                self.load_left(left, began, &link, deadline, loader).await;
            }
        }
    }

    /// Waits for a turn, and takes more without waiting, as far as there are keys for them.
    async fn turns(
        &self,
        leaders: &[&Leader],
        keys: usize,
        link: &Link,
        deadline: Tick,
    ) -> Result<(Vec<Option<Turn>>, Steps)> {
        let engine = self.engine;
        let mut steps = Steps::default();
        let mut turns = vec![engine.turn(leaders, link, deadline, &mut steps).await?];
        let limits = &engine.settings.limits;
        let parts = keys.div_ceil(limits.max_batch_keys).min(limits.max_batch_loads);
        while turns.len() < parts {
            match engine.core.turns.take() {
                Some(turn) => turns.push(Some(turn)),
                None if link.is_nested() => turns.push(None),
                None => break,
            }
        }
        Ok((turns, steps))
    }

    async fn renew_all(&self, ready: &mut Vec<Ready<'a, B>>) {
        let guards = Guards { versions: Vec::new(), life: None };
        KeepingMany { engine: self.engine, guards: &guards, ready }.renew().await;
    }

    /// Loads what others had the lease of since `began`, and did not store.
    async fn load_left<'l, L: LoadMany<'l, T>>(
        &self,
        mut left: Vec<Ready<'a, B>>,
        began: Tick,
        link: &Arc<Link>,
        deadline: Tick,
        loader: &Mutex<L>,
    ) {
        let leaders: Vec<&Leader> = left.iter().map(|one| one.lead.peek()).collect();
        let turn = self.engine.turn(&leaders, link, deadline, &mut Steps::default()).await;
        drop(leaders);
        let _turn = match turn {
            Ok(turn) => turn,
            Err(error) => return self.fail_all(left, &error),
        };
        if self.engine.settings.clock.now().since(began) >= RENEW_EVERY {
            // What was granted may have ended meanwhile.
            self.renew_all(&mut left).await;
        }
        self.load_all(left, link, deadline, loader).await;
    }

    /// Asks for all leases at once. What takes a second step comes back after what is ready.
    async fn lease_many(
        &self,
        led: Vec<Led<'a, B>>,
        usable: Usable<T>,
    ) -> (Vec<Ready<'a, B>>, Vec<Led<'a, B>>) {
        let engine = self.engine;
        let (mut ready, mut second) = (Vec::new(), Vec::new());
        let (mut asked, mut taken_over) = (Vec::new(), Vec::new());
        for (mut one, mut lead) in led {
            let unknown = match &one.missed {
                Missed::Unknown(error) => Some(error.clone()),
                _ => None,
            };
            if let Some(error) = unknown {
                // What is not known must not be written over.
                ready.push(Ready::new((one, lead), Permit::Unknown, Some(error)));
            } else if lead.leader().lease.is_some() {
                // From whoever led before; it may have been waiting for long.
                one.steps.add(Step::Leased);
                taken_over.push(Ready::new((one, lead), Permit::Lease, None));
            } else {
                asked.push((one, lead));
            }
        }
        if !taken_over.is_empty() {
            self.renew_all(&mut taken_over).await;
            ready.append(&mut taken_over);
        }
        if asked.is_empty() {
            return (ready, second);
        }
        let asked_at = engine.settings.clock.now();
        for (_, lead) in &asked {
            lead.peek().ask(asked_at, engine.is_fenced());
        }
        let acquired = {
            let claims: Vec<Claim<'_>> = asked
                .iter()
                .map(|(one, _)| {
                    let seen = match &one.missed {
                        Missed::Unusable(entry) => Some(entry),
                        _ => None,
                    };
                    Claim { key: self.requests[one.at].key.as_str(), seen }
                })
                .collect();
            engine.half_of(self.deadline, engine.backend().acquire_many(&claims, LEASE_LIFE)).await
        };
        let acquired = match acquired {
            Ok(acquired) if acquired.len() == asked.len() => acquired,
            Ok(_) => {
                let error = Error::new(ErrorKind::Unavailable, "acquire_many did not answer once per claim");
                asked.iter().map(|_| Err(error.clone())).collect()
            }
            Err(error) => asked.iter().map(|_| Err(error.clone())).collect(),
        };
        let mut is_told = false;
        let mut present = Vec::new();
        // All leases to their leads first: what is held is given back, whoever goes away.
        for ((mut one, mut lead), acquired) in asked.into_iter().zip(acquired) {
            let request = &self.requests[one.at];
            match acquired {
                Ok(Acquired::Granted { lease, .. }) => {
                    lead.leader().lease = Some(lease);
                    lead.leader().vouch(asked_at);
                    one.steps.add(Step::Leased);
                    ready.push(Ready::new((one, lead), Permit::Lease, None));
                }
                Ok(Acquired::Unfenced) => ready.push(Ready::new((one, lead), Permit::Unfenced, None)),
                Ok(Acquired::Present { value }) if !engine.core.pending.holds(request.key.as_str()) => {
                    present.push(((one, lead), value));
                }
                Ok(Acquired::Present { .. } | Acquired::Busy { .. }) => second.push((one, lead)),
                Err(error) => {
                    if !std::mem::replace(&mut is_told, true) {
                        engine.backend_failed(&request.key, "no lease could be taken", &error);
                    }
                    ready.push(Ready::new((one, lead), Permit::Unknown, Some(error)));
                }
            }
        }
        if !present.is_empty() {
            let (values, present): (Vec<_>, Vec<_>) =
                present.into_iter().map(|(led, value)| ((led.0.at, value), led)).unzip();
            let judged = self.judge_all(values, usable).await;
            for ((mut one, lead), judged) in present.into_iter().zip(judged) {
                let Some(found) = judged else {
                    second.push((one, lead));
                    continue;
                };
                lead.peek().vouch(asked_at);
                engine.count(Event::FilledElsewhere);
                one.steps.add(Step::FilledElsewhere);
                let ending = Ok(Answer::cached(found));
                land(lead, &ending);
                self.settle(one, ending);
            }
        }
        (ready, second)
    }

    /// Waits for other processes, each key by itself, as a single read would.
    async fn wait_for_others(
        &self,
        second: Vec<Led<'a, B>>,
        usable: Usable<T>,
        deadline: Tick,
    ) -> Vec<Ready<'a, B>> {
        let mut waits: Vec<Waiting<'_, 'a, B, T>> = Vec::with_capacity(second.len());
        for (mut one, mut lead) in second {
            let request = &self.requests[one.at];
            let seen = match &one.missed {
                Missed::Unusable(entry) => Seen::Entry(entry.clone()),
                _ => Seen::Nothing,
            };
            waits.push(Box::pin(async move {
                let mut steps = one.steps;
                let leased =
                    self.engine.take_lease(&mut lead, request, seen, usable, deadline, &mut steps).await;
                one.steps = steps;
                ((one, lead), leased)
            }));
        }
        let mut ready = Vec::new();
        for ((one, lead), leased) in join_all(waits).await {
            match leased {
                Leased::Permit(permit, degraded) => ready.push(Ready::new((one, lead), permit, degraded)),
                Leased::Found(answer) => {
                    let ending = Ok(answer);
                    land(lead, &ending);
                    self.settle(one, ending);
                }
                // Only for what is still good.
                Leased::Elsewhere => ready.push(Ready::new((one, lead), Permit::LeftToOther, None)),
            }
        }
        ready
    }

    /// Loads all that is ready, in as many calls as it takes.
    async fn load_all<'l, L: LoadMany<'l, T>>(
        &self,
        mut ready: Vec<Ready<'a, B>>,
        link: &Arc<Link>,
        deadline: Tick,
        loader: &Mutex<L>,
    ) {
        // In the order that they were asked for.
        ready.sort_unstable_by_key(|one| one.one.at);
        let limits = &self.engine.settings.limits;
        while !ready.is_empty() {
            let mut side_by_side: Vec<BoxFuture<'_, ()>> = Vec::new();
            while !ready.is_empty() && side_by_side.len() < limits.max_batch_loads {
                let rest = ready.split_off(ready.len().min(limits.max_batch_keys));
                let chunk = std::mem::replace(&mut ready, rest);
                let positions = chunk.iter().map(|one| one.one.at).collect();
                // A loader is somebody else's code. All that runs under this lock is in this one task.
                let started = AssertUnwindSafe(|| {
                    loader.lock().unwrap_or_else(PoisonError::into_inner).start(positions)
                });
                let ask = catch_unwind(started).unwrap_or_else(|_| {
                    let panicked = Error::new(
                        ErrorKind::LoaderPanicked,
                        "nothing was stored; the next read loads afresh",
                    );
                    let answers = chunk.iter().map(|_| Err(panicked.clone())).collect();
                    Box::pin(std::future::ready(answers))
                });
                side_by_side.push(Box::pin(self.load_chunk(chunk, Arc::clone(link), deadline, ask)));
            }
            join_all(side_by_side).await;
        }
    }

    /// One call of the loader.
    async fn load_chunk<'l>(
        &self,
        mut ready: Vec<Ready<'a, B>>,
        link: Arc<Link>,
        deadline: Tick,
        ask: BoxFuture<'l, Vec<Result<Loaded<T>>>>,
    ) {
        let engine = self.engine;
        let guards = self.capture(&mut ready).await;
        let at = engine.settings.clock.now();
        ready.iter().for_each(|one| one.lead.peek().begin(at));
        let expected = ready.len();
        let first = &self.requests[ready[0].one.at].key;
        let ask = async {
            let loaded = ask.await;
            if loaded.len() != expected {
                let what = format!("the source gave {} answers for {expected} ids", loaded.len());
                return Err(Error::new(ErrorKind::Source, what).with_hint(
                    "fetch_by_ids answers once per id, in order, with None for what it does not have",
                ));
            }
            Ok(loaded)
        };
        let mut keeping = KeepingMany { engine, guards: &guards, ready: &mut ready };
        match engine.run_loader(first, link, ask, deadline, &mut keeping).await {
            Ok(timed) => self.store_all(ready, timed, &guards).await,
            Err(error) => self.fail_all(ready, &error),
        }
    }

    /// The versions that the loads begin with; what has none is not stored.
    async fn capture(&self, ready: &mut [Ready<'a, B>]) -> Guards {
        let engine = self.engine;
        let first = &self.requests[ready[0].one.at];
        let life = engine.life_of_versions(first);
        let may_store = |permit: Permit| matches!(permit, Permit::Lease | Permit::Unfenced);
        let mut view = engine.view(first);
        let mut due = Vec::new();
        for one in ready.iter().filter(|one| may_store(one.permit)) {
            engine.due_to_load(&self.requests[one.one.at], &mut view, &mut due);
        }
        let mut failed = None;
        if !due.is_empty() {
            // Those that a failure does not concern are stored.
            failed = view.take(&due, Box::pin(engine.fetch_versions(&due, life)).await);
        }
        let at = engine.settings.clock.now();
        let mut versions: Vec<(Scope, u64)> = Vec::new();
        for one in ready.iter_mut().filter(|one| may_store(one.permit)) {
            let request = &self.requests[one.one.at];
            match engine.captured(request, &view) {
                Ok(captured) => {
                    let began = Began { at, captured };
                    versions.extend(engine.guards(request, &began).versions);
                    one.began = Some(began);
                }
                Err(error) => {
                    let error = failed.clone().unwrap_or(error);
                    one.permit = Permit::after(&error);
                    one.degraded = Some(error);
                }
            }
        }
        versions.sort_unstable();
        versions.dedup();
        Guards { versions, life }
    }
}

impl<'a, B: CacheBackend> Ready<'a, B> {
    fn new((one, lead): Led<'a, B>, permit: Permit, degraded: Option<Error>) -> Self {
        let had_entry = matches!(one.missed, Missed::Unusable(_));
        Self { one, lead, permit, degraded, began: None, had_entry }
    }

    async fn renew(&mut self, engine: &Engine<B>, (asked_at, are_unchanged): (Tick, &Result<Unchanged>)) {
        let leader = self.lead.leader();
        if leader.is_detached() {
            let lease = leader.lease.take();
            engine.release_later(leader.key(), lease);
            return;
        }
        let Some(lease) = leader.lease.clone() else { return };
        match (engine.backend().renew(leader.key(), &lease, LEASE_LIFE).await, are_unchanged) {
            (Ok(Some(lease)), Ok(Unchanged::All)) => {
                engine.count(Event::LeaseRenewed);
                leader.lease = Some(lease);
                leader.vouch(asked_at);
            }
            (Ok(Some(lease)), Ok(Unchanged::ButAnyTag)) => {
                engine.count(Event::LeaseRenewed);
                leader.lease = Some(lease);
                leader.cannot_vouch();
            }
            (Ok(lease), Ok(_)) => {
                leader.lease = None;
                engine.release_later(leader.key(), lease);
                engine.count(Event::LeaseLost);
                self.one.steps.add(Step::LeaseLost);
                leader.detach();
            }
            // It ends by itself, and the fill will tell.
            (Err(error), _) if error.kind() == ErrorKind::Unsupported => {}
            (Err(error), _) => self.is_unknown(error),
            (Ok(lease), Err(error)) => {
                leader.lease = lease;
                self.is_unknown(error.clone());
            }
        }
    }

    fn is_unknown(&mut self, error: Error) {
        self.lead.leader().cannot_vouch();
        (self.permit, self.degraded) = (Permit::Unknown, Some(error));
    }
}

impl<B: CacheBackend> Upkeep for KeepingMany<'_, '_, B> {
    fn has_leases(&self) -> bool {
        self.ready.iter().any(|one| one.lead.peek().lease.is_some())
    }

    fn asked(&self) -> BoxFuture<'static, ()> {
        let asked: Vec<BoxFuture<'static, ()>> = self
            .ready
            .iter()
            .map(|one| Box::pin(one.lead.peek().asked()) as BoxFuture<'static, ()>)
            .collect();
        Box::pin(async move {
            select_all(asked).await;
        })
    }

    fn renew(&mut self) -> BoxFuture<'_, ()> {
        let (engine, guards) = (self.engine, self.guards);
        Box::pin(async move {
            // Before either is asked for.
            let asked_at = engine.settings.clock.now();
            let are_unchanged = engine.are_unchanged(guards).await;
            let mut renewals: Vec<BoxFuture<'_, ()>> = Vec::with_capacity(self.ready.len());
            for one in self.ready.iter_mut() {
                renewals.push(Box::pin(one.renew(engine, (asked_at, &are_unchanged))));
            }
            join_all(renewals).await.clear();
        })
    }
}
