//! Many keys: one read of the backend, one call of the loader for what is missing, fenced fills.

use std::any::TypeId;
use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, join_all};

use super::chain;
use super::lease::Upkeep;
use super::load::{Load, Loaded};
use super::lookup::{Found, Missed, Unused, quarantined};
use super::read::Answer;
use super::stale::{Fallback, SourceFailure};
use super::{Engine, LEASE_LIFE, Request};
use crate::backend::{Acquired, CacheBackend, Filled, Lease};
use crate::clock::Tick;
use crate::entity::CacheValue;
use crate::error::{Error, ErrorKind, Result};
use crate::observe::Event;
use crate::outcome::Stored;
use crate::steps::{Step, Steps};

/// So many leases are asked for side by side.
const AT_A_TIME: usize = 128;

/// A key that the cache cannot answer, and what may be done with its value.
struct Missing<'a, B: CacheBackend, T> {
    at: usize,
    /// Whether the cache has something under it that is not used.
    had_entry: bool,
    fallback: Option<Fallback<T>>,
    held: Held<'a, B>,
    stored: Stored,
    degraded: Option<Error>,
}

/// A lease that is given back if nothing is stored under it.
struct Held<'a, B: CacheBackend> {
    engine: &'a Engine<B>,
    key: &'a str,
    lease: Option<Lease>,
}

impl<B: CacheBackend, T> Missing<'_, B, T> {
    fn may_be_served(&self, window: Duration) -> bool {
        self.fallback.as_ref().is_some_and(|fallback| fallback.stale_for < window)
    }
}

/// The leases of a batch, kept while its loader runs.
struct KeepingMany<'a, B: CacheBackend, T> {
    engine: &'a Engine<B>,
    missing: Vec<Missing<'a, B, T>>,
}

impl<B: CacheBackend, T: Send> Upkeep for KeepingMany<'_, B, T> {
    fn has_leases(&self) -> bool {
        self.missing.iter().any(|one| one.held.lease.is_some())
    }

    fn asked(&self) -> BoxFuture<'static, ()> {
        Box::pin(std::future::pending())
    }

    fn renew(&mut self) -> BoxFuture<'_, ()> {
        let engine = self.engine;
        let renewals = self.missing.iter_mut().map(|one| one.renew(engine));
        Box::pin(async move { join_all(renewals.collect::<Vec<_>>()).await.clear() })
    }
}

impl<B: CacheBackend, T> Missing<'_, B, T> {
    async fn renew(&mut self, engine: &Engine<B>) {
        let Some(lease) = self.held.lease.take() else { return };
        match engine.backend().renew(self.held.key, &lease, LEASE_LIFE).await {
            Ok(Some(lease)) => {
                engine.count(Event::LeaseRenewed);
                self.held.lease = Some(lease);
            }
            Ok(None) => {
                engine.count(Event::LeaseLost);
                self.stored = Stored::FencedOff;
            }
            // It ends by itself, and the fill will tell.
            Err(error) if error.kind() == ErrorKind::Unsupported => self.held.lease = Some(lease),
            Err(error) => {
                self.held.lease = Some(lease);
                (self.stored, self.degraded) = (Stored::BackendUnknown, Some(error));
            }
        }
    }
}

impl<B: CacheBackend> Drop for Held<'_, B> {
    fn drop(&mut self) {
        self.engine.release_later(self.key, self.lease.take());
    }
}

/// A loader for a list of positions.
pub(crate) trait LoadMany<T>: Send {
    /// Whether a value from the cache may be used; one that may not is a miss.
    fn accepts(value: &T) -> bool {
        let _ = value;
        true
    }

    /// One answer for each position, in order.
    fn load(self, missing: Vec<usize>) -> impl Future<Output = Result<Vec<Option<T>>>> + Send;
}

struct Once<L> {
    loader: Option<L>,
    missing: Vec<usize>,
}

impl<T: Send, L: LoadMany<T>> Load<Vec<Option<T>>> for Once<L> {
    async fn load(&mut self) -> Result<Option<Vec<Option<T>>>> {
        let missing = std::mem::take(&mut self.missing);
        let expected = missing.len();
        let Some(loader) = self.loader.take() else { unreachable!("a batch loads once") };
        let values = loader.load(missing).await?;
        if values.len() != expected {
            return Err(Error::new(
                ErrorKind::Source,
                format!("the source gave {} answers for {expected} ids", values.len()),
            )
            .with_hint("fetch_by_ids answers once per id, in order, with None for what it does not have"));
        }
        Ok(Some(values))
    }
}

impl<B: CacheBackend> Engine<B> {
    /// Reads many keys; one answer for each, in order. Keys asked for twice are read once.
    ///
    /// Requests have one strategy between them: `Refresh`.
    pub(crate) async fn read_many<T, L>(&self, requests: &[Request<'_>], loader: L) -> Result<Vec<Answer<T>>>
    where
        T: CacheValue,
        L: LoadMany<T>,
    {
        // Positions of the keys, each once.
        let mut first: HashMap<&str, usize> = HashMap::with_capacity(requests.len());
        let mut unique = Vec::with_capacity(requests.len());
        for (at, request) in requests.iter().enumerate() {
            first.entry(request.key.as_str()).or_insert_with(|| {
                unique.push(at);
                at
            });
        }
        let began = (self.invalidations(), self.epoch());
        let started = self.observer.start(&self.settings.clock);
        let Some(one) = requests.first() else { return Ok(Vec::new()) };
        let (policy, deadline, now) = (self.policy(one), self.deadline(one), self.settings.clock.now());
        let mut answers: Vec<Option<Answer<T>>> = requests.iter().map(|_| None).collect();
        let (mut missing, mut unleased) = (Vec::new(), Vec::new());
        for (&at, read) in unique.iter().zip(self.look_at(requests, &unique, deadline).await) {
            let request = &requests[at];
            let judged = match read {
                Ok(Some(entry)) => self.judge(request, entry, L::accepts).map_err(Some),
                Ok(None) => Err(None),
                Err(error) => {
                    self.count(Event::Unknown);
                    let held = Held { engine: self, key: request.key.as_str(), lease: None };
                    let (stored, degraded) = (Stored::BackendUnknown, Some(error));
                    missing.push(Missing { at, had_entry: false, fallback: None, held, stored, degraded });
                    continue;
                }
            };
            self.count(if judged.is_ok() { Event::Hit } else { Event::Miss });
            self.tell_lookup(request, started, judged.as_ref().err().map(|_| &Missed::Absent));
            match judged {
                Ok(found) => answers[at] = Some(Answer::cached(found)),
                Err(Some(Unused { fallback: Some(fallback), .. }))
                    if fallback.stale_for < policy.stale_life()
                        && self.core.cooldown.holds(request.key.hash(), now) =>
                {
                    self.count(Event::Throttled);
                    let steps = Steps::default().with(Step::FoundStale).with(Step::Throttled);
                    answers[at] = Some(self.serve_stale(fallback, steps, None));
                }
                Err(unused) => unleased.push((at, unused)),
            }
        }
        self.lease_many(requests, unleased, L::accepts, &mut answers, &mut missing).await;
        if !missing.is_empty() {
            self.load_missing(requests, missing, (began, deadline), loader, &mut answers).await?;
        }
        let answers = (0..requests.len()).map(|at| {
            let at = first.get(requests[at].key.as_str()).copied().unwrap_or(at);
            answers[at].clone().unwrap_or_else(Answer::nowhere)
        });
        Ok(answers.collect())
    }

    /// What the backend has under each key. That it fails is told once, however many keys it concerns.
    async fn look_at(
        &self,
        requests: &[Request<'_>],
        positions: &[usize],
        deadline: Option<Tick>,
    ) -> Vec<Result<Option<Bytes>>> {
        let keys: Vec<&str> = positions.iter().map(|&at| requests[at].key.as_str()).collect();
        let mut read =
            match self.half_of(deadline, self.beside_the_epoch(self.backend().mget_each(&keys))).await {
                Ok(read) if read.len() == keys.len() => read,
                Ok(read) => {
                    let what = format!("mget gave {} answers for {} keys", read.len(), keys.len());
                    let error = Error::new(ErrorKind::Unavailable, what);
                    keys.iter().map(|_| Err(error.clone())).collect()
                }
                Err(error) => keys.iter().map(|_| Err(error.clone())).collect(),
            };
        let failed = positions.iter().zip(&read).find_map(|(at, read)| Some((*at, read.as_ref().err()?)));
        if let Some((at, error)) = failed {
            self.backend_failed(&requests[at].key, "the cache could not be read", error);
        }
        for (key, read) in keys.iter().zip(&mut read) {
            if self.core.pending.holds(key) {
                self.count(Event::Quarantined);
                self.replay_soon();
                *read = Err(quarantined());
            }
        }
        read
    }

    /// Takes the leases of keys, side by side; after one that fails, the backend is not asked for more.
    async fn lease_many<'a, T: CacheValue>(
        &'a self,
        requests: &'a [Request<'_>],
        mut unleased: Vec<(usize, Option<Unused<T>>)>,
        accepts: fn(&T) -> bool,
        answers: &mut [Option<Answer<T>>],
        missing: &mut Vec<Missing<'a, B, T>>,
    ) {
        let mut failed: Option<Error> = None;
        while !unleased.is_empty() {
            let rest = unleased.split_off(unleased.len().min(AT_A_TIME));
            let mut asked = Vec::with_capacity(unleased.len());
            for (at, unused) in std::mem::replace(&mut unleased, rest) {
                let request = &requests[at];
                if let Some(error) = &failed {
                    let held = Held { engine: self, key: request.key.as_str(), lease: None };
                    let (had_entry, fallback) = (unused.is_some(), unused.and_then(|unused| unused.fallback));
                    let (stored, degraded) = (Stored::BackendUnknown, Some(error.clone()));
                    missing.push(Missing { at, had_entry, fallback, held, stored, degraded });
                } else {
                    asked.push(self.lease_for(request, at, unused, accepts));
                }
            }
            for leased in join_all(asked).await {
                match leased {
                    Ok((at, found)) => answers[at] = Some(Answer::cached(found)),
                    Err(one) => {
                        if one.stored == Stored::BackendUnknown {
                            failed = failed.or_else(|| one.degraded.clone());
                        }
                        missing.push(one);
                    }
                }
            }
        }
        missing.sort_unstable_by_key(|one| one.at);
    }

    /// Takes the lease of one key, or finds that it was filled meanwhile.
    async fn lease_for<'a, T: CacheValue>(
        &'a self,
        request: &'a Request<'_>,
        at: usize,
        unused: Option<Unused<T>>,
        accepts: fn(&T) -> bool,
    ) -> Result<(usize, Found<T>), Missing<'a, B, T>> {
        let key = request.key.as_str();
        let mut held = Held { engine: self, key, lease: None };
        let had_entry = unused.is_some();
        let (seen, fallback) = unused.map(|unused| (unused.entry, unused.fallback)).unzip();
        let (stored, degraded) = match self.backend().acquire(key, seen.as_ref(), LEASE_LIFE).await {
            Ok(Acquired::Granted { lease, .. }) => {
                held.lease = Some(lease);
                (Stored::NotAsked, None)
            }
            Ok(Acquired::Unfenced) => (Stored::NotAsked, None),
            Ok(Acquired::Busy { .. }) => (Stored::LeftToOther, None),
            Ok(Acquired::Present { .. }) if self.core.pending.holds(key) => {
                (Stored::BackendUnknown, Some(quarantined()))
            }
            Ok(Acquired::Present { value }) => match self.judge(request, value, accepts) {
                Ok(found) => return Ok((at, found)),
                Err(_) => (Stored::LeftToOther, None),
            },
            Err(error) => {
                self.backend_failed(&request.key, "no lease could be taken", &error);
                (Stored::BackendUnknown, Some(error))
            }
        };
        Err(Missing { at, had_entry, fallback: fallback.flatten(), held, stored, degraded })
    }

    async fn load_missing<T, L>(
        &self,
        requests: &[Request<'_>],
        missing: Vec<Missing<'_, B, T>>,
        (began, deadline): ((u64, u64), Option<Tick>),
        loader: L,
        answers: &mut [Option<Answer<T>>],
    ) -> Result<()>
    where
        T: CacheValue,
        L: LoadMany<T>,
    {
        let positions = missing.iter().map(|one| one.at).collect();
        let first = &requests[missing[0].at].key;
        let link = chain::link(self.id(), "", TypeId::of::<Vec<T>>());
        let mut once = Once { loader: Some(loader), missing: positions };
        let policy = self.policy(&requests[missing[0].at]);
        let load_deadline = self.settings.clock.now().after(policy.load_deadline);
        let deadline = deadline.unwrap_or(load_deadline).min(load_deadline);
        let _turn = self.turn(None, &link, deadline, &mut Steps::default()).await?;
        // Dropped without a fill, each lease is given back.
        let mut keeping = KeepingMany { engine: self, missing };
        let loaded = self.run_loader(first, link, &mut once, deadline, &mut keeping).await;
        let missing = keeping.missing;
        if let Err(error) = &loaded
            && self.classify(error) == SourceFailure::Transient
            && !policy.stale_life().is_zero()
        {
            let now = self.settings.clock.now();
            for one in &missing {
                self.core.cooldown.begin(requests[one.at].key.hash(), now, policy.retry_after_error);
            }
        }
        let Loaded { value, cost } = match loaded {
            Ok(loaded) => loaded,
            // All or nothing: what has a stale value is served only if the others have one too.
            Err(error)
                if self.classify(&error) == SourceFailure::Transient
                    && missing.iter().all(|one| one.may_be_served(policy.stale_if_error)) =>
            {
                for Missing { at, fallback, .. } in missing {
                    self.count(Event::StaleOnError);
                    let steps = Steps::default().with(Step::FoundStale).with(Step::LoadFailed);
                    answers[at] =
                        fallback.map(|fallback| self.serve_stale(fallback, steps, Some(error.clone())));
                }
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        let (mut gone, mut failed) = (Vec::new(), None::<Error>);
        for (mut one, value) in missing.into_iter().zip(value.into_iter().flatten()) {
            self.core.cooldown.end(requests[one.at].key.hash());
            let Some(value) = value else {
                if one.had_entry {
                    gone.push(requests[one.at].key.as_str());
                }
                answers[one.at] = Some(Answer::loaded(None, Stored::NotAsked, one.degraded.take()));
                continue;
            };
            if let (Stored::NotAsked, Some(error)) = (one.stored, &failed) {
                // A backend that has failed once is not waited for again.
                self.count(Event::StoreFailed);
                (one.stored, one.degraded) = (Stored::Failed, Some(error.clone()));
            }
            if one.stored == Stored::NotAsked {
                one.stored = match self.fill_one(&requests[one.at], &mut one.held, began, &value, cost).await
                {
                    Ok(filled) => self.count_fill(filled),
                    Err(error) => {
                        self.store_failed(&requests[one.at].key, &error);
                        if error.is_transient() {
                            failed = Some(error.clone());
                        }
                        one.degraded = Some(error);
                        Stored::Failed
                    }
                };
            }
            let steps = Steps::default().with(Step::Loaded);
            let answer = Answer::loaded(Some(value), one.stored, one.degraded.take());
            answers[one.at] = Some(Answer { steps, ..answer });
        }
        if !gone.is_empty() {
            // Queued, if the backend does not confirm it.
            let _ = self.invalidate_many(&gone).await;
        }
        Ok(())
    }

    async fn fill_one<T: CacheValue>(
        &self,
        request: &Request<'_>,
        held: &mut Held<'_, B>,
        (began, epoch): (u64, u64),
        value: &T,
        cost: Duration,
    ) -> Result<Filled> {
        if self.core.holds.contains(held.key) {
            return Ok(Filled::Refused);
        }
        let (entry, ttl) = self.seal(request, epoch, value, cost)?;
        let started = self.observer.start(&self.settings.clock);
        let filled = match &held.lease {
            Some(lease) => {
                let filled = self.backend().fill(request.key.as_str(), lease, entry, ttl).await?;
                held.lease = None;
                Ok(filled)
            }
            // Any invalidation at all: coarse, but nothing has to be tracked key by key.
            None => {
                self.fill_unfenced(request, entry, ttl, || {
                    self.invalidations() != began || self.core.holds.contains(held.key)
                })
                .await
            }
        };
        self.tell_fill(request, started, &filled);
        filled
    }
}
