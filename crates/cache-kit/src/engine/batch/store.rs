//! What became of the loads of a batch: stored in one exchange, and handed out.

use std::time::Duration;

use futures_util::future::{BoxFuture, join, join_all};

use super::Batch;
use super::lead::Ready;
use crate::backend::{CacheBackend, Fill, Filled, Lease};
use crate::engine::answer::Answer;
use crate::engine::fill::{Chosen, Permit, Sealed, Sealing};
use crate::engine::load::{Guards, Timed, Unchanged, land};
use crate::engine::stale::SourceFailure;
use crate::entity::CacheValue;
use crate::error::{Error, ErrorKind, Result};
use crate::loaded::Loaded;
use crate::observe::Event;
use crate::outcome::Stored;
use crate::steps::{Step, Steps};

/// One of a batch, and what its load came to.
struct Loading<'a, B: CacheBackend, T> {
    ready: Ready<'a, B>,
    loaded: Result<Loaded<T>>,
    stored: Stored,
    sealed: Option<Sealed>,
}

impl<'a, B: CacheBackend, T: CacheValue> Batch<'a, B, T> {
    /// All of a load have come to nothing.
    pub(super) fn fail_all(&self, ready: Vec<Ready<'a, B>>, error: &Error) {
        ready.into_iter().for_each(|ready| self.fail(ready, error.clone()));
    }

    fn fail(&self, ready: Ready<'a, B>, error: Error) {
        let engine = self.engine;
        let Ready { mut one, lead, .. } = ready;
        let request = &self.requests[one.at];
        let policy = engine.policy(request);
        // One that had no turn says nothing of the source.
        let was_asked = error.kind() != ErrorKind::Overloaded;
        if was_asked && engine.classify(&error) == SourceFailure::Transient && !policy.stale_life().is_zero()
        {
            let now = engine.settings.clock.now();
            engine.core.cooldown.begin(request.key.hash(), now, policy.retry_after_error);
        }
        let ending: Result<Answer<T>> = Err(error);
        land(lead, &ending);
        one.steps.add(Step::Loaded);
        self.settle(one, ending);
    }

    /// Stores what was loaded, and ends the flights.
    pub(super) async fn store_all(
        &self,
        ready: Vec<Ready<'a, B>>,
        timed: Timed<Vec<Result<Loaded<T>>>>,
        guards: &Guards,
    ) {
        let engine = self.engine;
        let Timed { loaded, cost } = timed;
        // What one of them would cost is not known; its share comes nearer than the whole.
        let cost = cost / u32::try_from(loaded.len().max(1)).unwrap_or(u32::MAX);
        let mut loads: Vec<Loading<'a, B, T>> = ready
            .into_iter()
            .zip(loaded)
            .map(|(ready, loaded)| Loading { ready, loaded, stored: Stored::NotAsked, sealed: None })
            .collect();
        self.seal_all(&mut loads, cost).await;
        let asked_at = engine.settings.clock.now();
        let kept = loads.iter().filter_map(|load| {
            let sealed = load.sealed.as_ref()?;
            let key = self.requests[load.ready.one.at].key.as_str();
            Some(engine.needs(key, &sealed.captured, sealed.longest))
        });
        let kept: Vec<_> = kept.flatten().collect();
        let (filled, ()) = join(self.fill_all(&loads), engine.keep_versions(kept.into_iter())).await;
        for (at, filled) in filled {
            let load = &mut loads[at];
            let request = &self.requests[load.ready.one.at];
            let lease = load.ready.lead.leader().lease.take();
            let room = load.sealed.as_mut().and_then(|sealed| sealed.room.take());
            engine.settle_absent(room, &filled);
            load.stored = match filled {
                Ok(filled) => engine.count_fill(filled),
                Err(error) => {
                    engine.store_failed(&request.key, &error);
                    engine.release_later(request.key.as_str(), lease);
                    load.ready.degraded.get_or_insert(error);
                    Stored::Failed
                }
            };
        }
        self.vouch_for(&mut loads, guards, asked_at).await;
        let mut gone = Vec::new();
        loads.into_iter().for_each(|load| self.end(load, &mut gone));
        if !gone.is_empty() {
            // Queued, if the backend does not confirm it.
            let _ = engine.invalidate_many(&gone).await;
        }
    }

    /// Makes entries of what may be stored.
    async fn seal_all(&self, loads: &mut [Loading<'a, B, T>], cost: Duration) {
        let engine = self.engine;
        let may_store = |load: &Loading<'a, B, T>| match load.ready.permit {
            Permit::Lease => load.ready.lead.peek().lease.is_some(),
            Permit::Unfenced => true,
            Permit::LeftToOther | Permit::Unknown | Permit::Refused => false,
        };
        let chosen = {
            let begun = loads
                .iter()
                .filter(|load| may_store(load))
                .filter_map(|load| Some((load.ready.began.as_ref()?, load.loaded.as_ref().ok()?)));
            let begun: Vec<_> = begun.collect();
            match self.requests.first() {
                Some(request) => engine.learn_chosen(request, begun.into_iter()).await,
                None => Chosen::default(),
            }
        };
        for load in loads {
            let request = &self.requests[load.ready.one.at];
            let Ok(loaded) = &load.loaded else { continue };
            engine.core.cooldown.end(request.key.hash());
            let key = request.key.as_str();
            let is_overtaken = load.ready.lead.peek().is_detached() || engine.core.holds.contains(key);
            let sealing = match (load.ready.permit, &load.ready.began) {
                (Permit::LeftToOther, _) => {
                    load.stored = Stored::LeftToOther;
                    continue;
                }
                (Permit::Refused, _) => {
                    engine.count(Event::StoreFailed);
                    load.stored = Stored::Failed;
                    continue;
                }
                (Permit::Unknown, _) | (_, None) => {
                    load.stored = Stored::BackendUnknown;
                    continue;
                }
                (Permit::Lease, _) if is_overtaken || load.ready.lead.peek().lease.is_none() => {
                    Ok(Sealing::Overtaken)
                }
                (Permit::Unfenced, _) if is_overtaken => Ok(Sealing::Overtaken),
                (Permit::Lease | Permit::Unfenced, Some(began)) => {
                    engine.seal(request, began, loaded, cost, &chosen)
                }
            };
            match sealing {
                Ok(Sealing::Sealed(sealed)) => load.sealed = Some(sealed),
                Ok(Sealing::NotAsked) => {}
                Ok(Sealing::Overtaken) => load.stored = engine.count_fill(Filled::Refused),
                Err(error) => {
                    engine.store_failed(&request.key, &error);
                    load.ready.degraded.get_or_insert(error);
                    load.stored = Stored::Failed;
                }
            }
        }
    }

    /// Stores what is sealed, in one exchange where there are leases.
    async fn fill_all(&self, loads: &[Loading<'a, B, T>]) -> Vec<(usize, Result<Filled>)> {
        let engine = self.engine;
        let started = engine.observer.start(&engine.settings.clock);
        let mut fills: Vec<(usize, Fill<'_>)> = Vec::new();
        let mut unfenced: Vec<BoxFuture<'_, (usize, Result<Filled>)>> = Vec::new();
        for (at, load) in loads.iter().enumerate() {
            let Some(Sealed { entry, life, .. }) = &load.sealed else { continue };
            let request = &self.requests[load.ready.one.at];
            let key = request.key.as_str();
            let leader = load.ready.lead.peek();
            let lease: Option<&Lease> = leader.lease.as_ref();
            match lease {
                Some(lease) => {
                    fills.push((at, Fill { key, lease, value: entry.clone(), ttl: *life }));
                }
                None => unfenced.push(Box::pin(async move {
                    let overtaken = || leader.is_detached() || engine.core.holds.contains(key);
                    (at, engine.fill_unfenced(request, entry.clone(), *life, overtaken).await)
                })),
            }
        }
        let mut filled = join_all(unfenced).await;
        if !fills.is_empty() {
            let (positions, fills): (Vec<usize>, Vec<Fill<'_>>) = fills.into_iter().unzip();
            let answers = match engine.backend().fill_many(&fills).await {
                Ok(answers) => answers,
                Err(error) => fills.iter().map(|_| Err(error.clone())).collect(),
            };
            filled.extend(positions.into_iter().zip(answers));
        }
        for (at, filled) in &filled {
            engine.tell_fill(&self.requests[loads[*at].ready.one.at], started, filled);
        }
        filled
    }

    /// Tells those who doubt that nothing has happened since the loads began, if that is so.
    async fn vouch_for(
        &self,
        loads: &mut [Loading<'a, B, T>],
        guards: &Guards,
        asked_at: crate::clock::Tick,
    ) {
        let is_doubted = |load: &Loading<'a, B, T>| {
            load.stored == Stored::Yes
                && load.ready.permit == Permit::Lease
                && load.ready.lead.peek().is_doubted()
        };
        if loads.iter().any(is_doubted)
            && matches!(self.engine.are_unchanged(guards).await, Ok(Unchanged::All))
        {
            loads.iter().filter(|load| is_doubted(load)).for_each(|load| {
                load.ready.lead.peek().vouch(asked_at);
            });
        }
    }

    /// Ends a flight, and makes its answer.
    fn end(&self, load: Loading<'a, B, T>, gone: &mut Vec<&'a str>) {
        let engine = self.engine;
        let Loading { ready, loaded, stored, .. } = load;
        let key = self.requests[ready.one.at].key.as_str();
        let loaded = match loaded {
            Ok(loaded) => loaded,
            Err(error) => {
                engine.count(Event::LoadFailed);
                if engine.classify(&error) == SourceFailure::NotFound && ready.had_entry {
                    gone.push(key);
                }
                return self.fail(ready, error);
            }
        };
        let Ready { one, lead, degraded, had_entry, .. } = ready;
        let value = loaded.into_value();
        if value.is_none() && stored != Stored::Yes && had_entry {
            gone.push(key);
        }
        let steps = Steps::default().with(Step::Loaded);
        let ending = Ok(Answer { steps, ..Answer::loaded(value, stored, degraded) });
        land(lead, &ending);
        self.settle(one, ending);
    }
}
