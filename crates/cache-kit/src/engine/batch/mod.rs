//! Many keys: one read of the backend, one call of the loader for what nobody else loads, one exchange to store.
//!
//! | file | subject |
//! |---|---|
//! | `mod` | the rounds of a batch: what is led, what is joined |
//! | `look` | what the backend has |
//! | `lead` | the leases of what is led, and its loads |
//! | `store` | what became of the loads: stored, handed out |
//!
//! Each key that is missing has a flight, as that of a single read: whoever asks for it meanwhile joins it, be it a batch or
//! not, and what others load already is joined. A flight whose leader went away comes back to who waits for it, and is loaded
//! in another round.

mod lead;
mod look;
mod store;

use std::any::TypeId;
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::{Mutex, MutexGuard, PoisonError};

use futures_util::StreamExt as _;
use futures_util::future::{BoxFuture, select};
use futures_util::stream::FuturesUnordered;

use super::answer::Answer;
use super::chain;
use super::flight::Role;
use super::join::{Follow, Lead, Turn, Until};
use super::load::beating;
use super::lookup::{Missed, Usable};
use super::stale::{Fallback, SourceFailure};
use super::{Engine, Request};
use crate::backend::CacheBackend;
use crate::clock::Tick;
use crate::entity::CacheValue;
use crate::error::{Error, ErrorKind, Result};
use crate::loaded::Loaded;
use crate::observe::Event;
use crate::steps::{Step, Steps};

/// A loader for a list of positions, which can be asked more than once.
pub(crate) trait LoadMany<'a, T>: Send {
    /// Whether a value from the cache may be used; one that may not is a miss.
    fn accepts(value: &T) -> bool {
        let _ = value;
        true
    }

    /// One answer for each position, in order.
    fn start(&mut self, missing: Vec<usize>) -> BoxFuture<'a, Vec<Result<Loaded<T>>>>;
}

/// A key that the cache cannot answer.
struct Missing<'a, B: CacheBackend> {
    at: usize,
    missed: Missed,
    steps: Steps,
    /// A flight that was joined, and has lost its leader.
    lead: Option<Lead<'a, B>>,
}

/// A key that is led.
type Led<'a, B> = (Missing<'a, B>, Lead<'a, B>);
/// Work on a batch: the load of what is led, or the wait for one that is joined, which comes back if it has to begin again.
type Work<'w, 'a, B> = FuturesUnordered<BoxFuture<'w, Option<Missing<'a, B>>>>;

/// What is the same for all keys of a batch.
struct Batch<'a, B: CacheBackend, T> {
    engine: &'a Engine<B>,
    requests: &'a [Request<'a>],
    /// When the caller will have waited long enough.
    deadline: Option<Tick>,
    slots: Mutex<Vec<Slot<T>>>,
}

/// What there is for a key.
enum Slot<T> {
    /// Nothing yet; or a stale value, if there will be nothing better.
    Open(Option<Fallback<T>>),
    Done(Result<Answer<T>>),
}

impl<B: CacheBackend> Engine<B> {
    /// Reads many keys: one answer per request, in order; a key that is asked for twice is read once.
    pub(crate) async fn read_many<'l, T, L>(
        &self,
        requests: &[Request<'_>],
        loader: L,
    ) -> Vec<Result<Answer<T>>>
    where
        T: CacheValue,
        L: LoadMany<'l, T>,
    {
        let mut first: HashMap<u128, usize, ByHash> =
            HashMap::with_capacity_and_hasher(requests.len(), ByHash::default());
        let mut wanted = Vec::with_capacity(requests.len());
        for (at, request) in requests.iter().enumerate() {
            if let Entry::Vacant(vacant) = first.entry(request.key.hash()) {
                vacant.insert(at);
                wanted.push(at);
            }
        }
        let deadline = requests.first().and_then(|request| self.deadline(request));
        let slots = Mutex::new(requests.iter().map(|_| Slot::Open(None)).collect());
        let batch = Batch { engine: self, requests, deadline, slots };
        let usable = Usable { accepts: L::accepts, takes_absent: true, may_refresh: false };
        let missing = batch.look_up(&wanted, usable).await;
        if !missing.is_empty() {
            let work = Box::pin(batch.work(missing, usable, Mutex::new(loader)));
            // Dropped at the deadline, what was led goes to those who wait for it.
            select(work, self.settings.clock.sleep_until(deadline.unwrap_or(Tick::NEVER))).await;
        }
        let mut slots = batch.into_slots(&wanted);
        let has_duplicates = wanted.len() < requests.len();
        let answer_of = |at: usize| {
            let from = if has_duplicates { first[&requests[at].key.hash()] } else { at };
            match &mut slots[from] {
                Slot::Done(answer) if has_duplicates => answer.clone(),
                Slot::Done(answer) => std::mem::replace(answer, Ok(Answer::nowhere())),
                Slot::Open(_) => unreachable!("closed just before"),
            }
        };
        (0..requests.len()).map(answer_of).collect()
    }
}

/// For what is a hash already.
type ByHash = BuildHasherDefault<Hashed>;

#[derive(Default)]
struct Hashed(u64);

impl Hasher for Hashed {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    #[expect(clippy::cast_possible_truncation, reason = "any half of a good hash is one")]
    fn write_u128(&mut self, hash: u128) {
        self.0 = hash as u64;
    }
}

impl<'a, B: CacheBackend, T: CacheValue> Batch<'a, B, T> {
    fn lock(&self) -> MutexGuard<'_, Vec<Slot<T>>> {
        self.slots.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Leads what nobody leads and waits for the rest; what has lost its leader is led, as soon as that shows.
    async fn work<'l, L: LoadMany<'l, T>>(
        &self,
        missing: Vec<Missing<'a, B>>,
        usable: Usable<T>,
        loader: Mutex<L>,
    ) {
        let work = Work::new();
        self.enter(missing, usable, &loader, &work);
        let mut work = work;
        while let Some(again) = work.next().await {
            if let Some(one) = again {
                self.enter(vec![one], usable, &loader, &work);
            }
        }
    }

    /// Joins the flight of each key, or gets to lead it.
    fn enter<'w, 'l: 'w, L: LoadMany<'l, T> + 'w>(
        &'w self,
        missing: Vec<Missing<'a, B>>,
        usable: Usable<T>,
        loader: &'w Mutex<L>,
        work: &Work<'w, 'a, B>,
    ) {
        let engine = self.engine;
        let tag = TypeId::of::<T>();
        let mut led = Vec::new();
        for mut one in missing {
            if let Some(lead) = one.lead.take() {
                led.push((one, lead));
                continue;
            }
            let request = &self.requests[one.at];
            let key = request.key.as_str();
            if chain::contains(engine.id(), key, tag) {
                let error = Error::new(ErrorKind::Reentrant, "a loader asked for a key that it is loading")
                    .with_hint("inside a loader, read the source or another key");
                self.settle(one, Err(error));
                continue;
            }
            match engine.core.flights.enter(key, tag, engine.joining(request)) {
                Role::Lead(leader) => led.push((one, Lead::new(engine, leader))),
                Role::Follow(follower) => {
                    one.steps.add(Step::Joined);
                    if follower.is_in_doubt() {
                        one.steps.add(Step::Doubted);
                    }
                    let follow = Follow::new(engine, follower);
                    work.push(Box::pin(async move { self.follow(one, follow).await }));
                }
                Role::Full => {
                    engine.count(Event::Overloaded);
                    one.steps.add(Step::Overloaded);
                    let error = Error::new(ErrorKind::Overloaded, "too many reads wait for a load")
                        .with_hint("Limits::max_waiting_reads is the bound");
                    self.settle(one, Err(error));
                }
            }
        }
        if !led.is_empty() {
            work.push(Box::pin(async move {
                let pulses = led.iter().map(|(_, lead)| lead.peek().pulse()).collect();
                beating(&self.engine.settings.clock, pulses, self.lead(led, usable, loader)).await;
                None
            }));
        }
    }

    /// Waits for what another loads; it comes back if that one has gone.
    async fn follow(&self, mut one: Missing<'a, B>, follow: Follow<'a, B>) -> Option<Missing<'a, B>> {
        let until = Until { soft: None, hard: None, may_oust: true };
        match self.engine.follow(follow, until, &mut one.steps).await {
            Turn::Landed(landed) => {
                self.settle(one, self.engine.share(&landed));
                None
            }
            Turn::Lead(lead) => Some(Missing { lead: Some(lead), ..one }),
            Turn::Gone | Turn::Soft | Turn::TimedOut | Turn::Full | Turn::Elsewhere => Some(one),
        }
    }

    /// What a load came to, or the stale value if it came to nothing.
    fn settle(&self, one: Missing<'a, B>, ending: Result<Answer<T>>) {
        let Missing { at, missed, steps, .. } = one;
        let ending = ending.map(|mut answer| {
            if let (None, Missed::Unknown(error)) = (&answer.degraded, missed) {
                answer.degraded = Some(error);
            }
            answer.steps = answer.steps.and(steps);
            answer
        });
        let mut slots = self.lock();
        self.close(at, &mut slots[at], steps, ending);
    }

    fn close(&self, at: usize, slot: &mut Slot<T>, steps: Steps, ending: Result<Answer<T>>) {
        let engine = self.engine;
        let policy = engine.policy(&self.requests[at]);
        let Slot::Open(fallback) = slot else { return };
        let ending = match (ending, fallback.take()) {
            (Err(error), Some(fallback))
                if fallback.stale_for < policy.stale_if_error
                    && engine.classify(&error) == SourceFailure::Transient =>
            {
                engine.count(Event::StaleOnError);
                Ok(engine.serve_stale(fallback, steps.with(Step::LoadFailed), Some(error)))
            }
            (ending, _) => ending,
        };
        *slot = Slot::Done(ending);
    }

    /// The answers. What has none by now was waited for long enough.
    fn into_slots(self, wanted: &[usize]) -> Vec<Slot<T>> {
        let mut slots = std::mem::take(&mut *self.lock());
        for &at in wanted {
            if matches!(slots[at], Slot::Open(_)) {
                self.engine.count(Event::TimedOut);
                let error = Error::new(ErrorKind::Timeout, "no value within the caller's timeout");
                let steps = Steps::default().with(Step::TimedOut);
                self.close(at, &mut slots[at], steps, Err(error));
            }
        }
        slots
    }
}
