//! What the backend has under the keys of a batch.

use bytes::Bytes;
use futures_util::future::join;

use super::{Batch, Missing, Slot};
use crate::backend::CacheBackend;
use crate::engine::lookup::{Found, Judged, Miss, Missed, Unused, Usable, quarantined};
use crate::engine::versions::{Scope, View};
use crate::entity::CacheValue;
use crate::error::{Error, ErrorKind, Result};
use crate::observe::Event;
use crate::steps::Step;

impl<'a, B: CacheBackend, T: CacheValue> Batch<'a, B, T> {
    /// Asks the backend once, and answers what can be answered with that.
    pub(super) async fn look_up(&self, wanted: &[usize], usable: Usable<T>) -> Vec<Missing<'a, B>> {
        let Some(first) = wanted.first() else { return Vec::new() };
        let engine = self.engine;
        let started = engine.observer.start(&engine.settings.clock);
        let mut view = engine.view(&self.requests[*first]);
        let read = self.look_at(wanted, &mut view).await;
        let mut judged = Vec::with_capacity(wanted.len());
        let mut unsure: Vec<Scope> = Vec::new();
        for (&at, read) in wanted.iter().zip(read) {
            judged.push(match read {
                Ok(Some(entry)) => {
                    let judged = engine.judge(&self.requests[at], entry, usable, &view);
                    if let Judged::Unsure(_, scopes) = &judged {
                        unsure.extend_from_slice(scopes);
                    }
                    Ok(Some(judged))
                }
                Ok(None) => Ok(None),
                Err(error) => Err(error),
            });
        }
        let failed = self.ask_for(&mut unsure, &mut view).await;
        let mut missing = Vec::new();
        for (&at, judged) in wanted.iter().zip(judged) {
            let request = &self.requests[at];
            let judged = match judged {
                Ok(Some(Judged::Unsure(entry, _))) => {
                    match (engine.judge(request, entry, usable, &view), &failed) {
                        // It is one of those that are not known.
                        (Judged::Unsure(..), Some(error)) => Err(error.clone()),
                        (judged, _) => Ok(Some(judged)),
                    }
                }
                judged => judged,
            };
            let miss = match judged {
                Ok(Some(Judged::Found(found))) => {
                    engine.count(Event::Hit);
                    engine.tell_lookup(request, started, None);
                    // A batch has no loader that outlives it: nothing is loaded behind it.
                    let answer = engine.found(request, found).await.0;
                    self.lock()[at] = Slot::Done(Ok(answer));
                    continue;
                }
                Ok(Some(Judged::Unused(unused))) => Miss::from(unused),
                Ok(Some(Judged::Unsure(entry, _))) => Unused { entry, fallback: None }.into(),
                Ok(None) => Miss::new(Missed::Absent, Step::FoundNothing),
                Err(error) => Miss::unknown(error),
            };
            self.count(&miss.missed);
            engine.tell_lookup(request, started, Some(&miss.missed));
            if let Some(miss) = self.throttled(at, miss) {
                let Miss { missed, fallback, steps, .. } = miss;
                self.lock()[at] = Slot::Open(fallback);
                missing.push(Missing { at, missed, steps, lead: None });
            }
        }
        missing
    }

    fn count(&self, missed: &Missed) {
        match missed {
            Missed::Unknown(error) => {
                self.engine.count(Event::Unknown);
                if error.kind() == ErrorKind::Unconfirmed {
                    self.engine.count(Event::Quarantined);
                }
            }
            _ => self.engine.count(Event::Miss),
        }
    }

    /// Serves a stale value where the source has just failed for its key.
    fn throttled(&self, at: usize, mut miss: Miss<T>) -> Option<Miss<T>> {
        let engine = self.engine;
        let request = &self.requests[at];
        let life = engine.policy(request).stale_life();
        let is_within = miss.fallback.as_ref().is_some_and(|fallback| fallback.stale_for < life);
        if !is_within || !engine.core.cooldown.holds(request.key.hash(), engine.settings.clock.now()) {
            return Some(miss);
        }
        let fallback = miss.fallback.take()?;
        engine.count(Event::Throttled);
        let answer = engine.serve_stale(fallback, miss.steps.with(Step::Throttled), None);
        self.lock()[at] = Slot::Done(Ok(answer));
        None
    }

    /// What the backend has under each key. That it fails is told once, however many keys it concerns.
    async fn look_at(&self, wanted: &[usize], view: &mut View) -> Vec<Result<Option<Bytes>>> {
        let engine = self.engine;
        let keys: Vec<&str> = wanted.iter().map(|&at| self.requests[at].key.as_str()).collect();
        // Before and after: what is confirmed in between was not when this was asked.
        let held: Vec<bool> = keys.iter().map(|key| engine.core.pending.holds(key)).collect();
        let mut due = Vec::new();
        if engine.is_shared() {
            wanted.iter().for_each(|&at| engine.due(&self.requests[at], view, &mut due));
        }
        let life = engine.life_of_versions(&self.requests[wanted[0]]);
        let fetch = async {
            match due.is_empty() {
                true => Vec::new(),
                false => Box::pin(engine.fetch_versions(&due, life)).await,
            }
        };
        let both = async { Ok(join(fetch, engine.backend().mget_each(&keys)).await) };
        let (versions, read) = match engine.half_of(self.deadline, both).await {
            Ok(both) => both,
            Err(error) => (Vec::new(), Err(error)),
        };
        // What is not known is asked for again where it is needed.
        let _failed = view.take(&due, versions);
        let mut read = match read {
            Ok(read) if read.len() == keys.len() => read,
            Ok(read) => {
                let what = format!("mget gave {} answers for {} keys", read.len(), keys.len());
                let error = Error::new(ErrorKind::Unavailable, what);
                keys.iter().map(|_| Err(error.clone())).collect()
            }
            Err(error) => keys.iter().map(|_| Err(error.clone())).collect(),
        };
        let failed = wanted.iter().zip(&read).find_map(|(at, read)| Some((*at, read.as_ref().err()?)));
        if let Some((at, error)) = failed {
            engine.backend_failed(&self.requests[at].key, "the cache could not be read", error);
        }
        for ((key, was_held), read) in keys.iter().zip(held).zip(&mut read) {
            if was_held || engine.core.pending.holds(key) {
                engine.replay_soon();
                *read = Err(quarantined());
            }
        }
        read
    }

    /// Asks for the versions that entries have to be held against; why some of them are not known.
    async fn ask_for(&self, unsure: &mut Vec<Scope>, view: &mut View) -> Option<Error> {
        if unsure.is_empty() {
            return None;
        }
        unsure.sort_unstable();
        unsure.dedup();
        let life = self.requests.first().and_then(|request| self.engine.life_of_versions(request));
        let fetch = async { Ok(Box::pin(self.engine.fetch_versions(unsure, life)).await) };
        match self.engine.half_of(self.deadline, fetch).await {
            Ok(versions) => view.take(unsure, versions),
            Err(error) => Some(error),
        }
    }

    /// Reads entries that others have stored meanwhile; `None` for what is of no use.
    pub(super) async fn judge_all(
        &self,
        entries: Vec<(usize, Bytes)>,
        usable: Usable<T>,
    ) -> Vec<Option<Found<T>>> {
        let engine = self.engine;
        let Some((first, _)) = entries.first() else { return Vec::new() };
        let mut view = engine.view(&self.requests[*first]);
        let mut unsure = Vec::new();
        let mut judged = Vec::with_capacity(entries.len());
        for (at, entry) in entries {
            let one = engine.judge(&self.requests[at], entry, usable, &view);
            if let Judged::Unsure(_, scopes) = &one {
                unsure.extend_from_slice(scopes);
            }
            judged.push((at, one));
        }
        let _failed = self.ask_for(&mut unsure, &mut view).await;
        let found = judged.into_iter().map(|(at, judged)| {
            let judged = match judged {
                Judged::Unsure(entry, _) => engine.judge(&self.requests[at], entry, usable, &view),
                judged => judged,
            };
            match judged {
                Judged::Found(found) => Some(found),
                Judged::Unused(_) | Judged::Unsure(..) => None,
            }
        });
        found.collect()
    }
}
