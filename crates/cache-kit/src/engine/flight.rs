//! One load per key at a time: who leads it, who follows, and what happens when the leader goes away.
//!
//! No I/O and no clock in here: who calls says what time it is. A flight is in one of these states:
//!
//! ```text
//!            complete                      followers take the result
//! Running ─────────────▶ Done
//!    │ leader dropped, followers wait
//!    ├─────────────────▶ Orphaned ── a follower, or the next to come, leads ──▶ Running
//!    │ leader dropped, nobody waits (or detached)
//!    ├─────────────────▶ Gone       followers, if any, start over
//!    │ leader not seen for too long, a follower ousts it     ▲
//!    └───────────────────────────────────────────────────────┘
//! ```
//!
//! An invalidation *detaches* a running flight: it leaves the table, so whoever comes later starts a new one,
//! while those who waited already still get its result.
//!
//! An invalidation by another process does not reach the table. So a load is joined freely only while it is young; who
//! comes later *doubts*: it has the leader ask the backend whether its lease still holds, and takes the result only if
//! that was answered, or the result was stored, after it came.

mod follower;
mod leader;

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::hash::BuildHasher;
use std::mem;
use std::time::Duration;

use tokio::sync::Notify;

pub(super) use self::follower::Follower;
pub(super) use self::leader::{Leader, Pulse};
use super::sync::{Arc, AtomicUsize, Mutex, MutexGuard, Ordering, PoisonError, RandomState};
use super::turns::Turn;
use crate::backend::Lease;
use crate::clock::Tick;
use crate::tags::Tags;

/// What a flight ends with.
#[derive(Clone)]
pub(super) struct Landed {
    /// The type is known to whoever asked for the flight by its tag.
    pub(super) ending: Arc<dyn Any + Send + Sync>,
    /// Whether it is good for those in doubt as well, as an error is.
    pub(super) is_sure: bool,
}

const STRIPES: usize = 64;

type Table = HashMap<Box<str>, Vec<Arc<Flight>>>;

/// The flights that can be joined, by key and type of value.
pub(crate) struct Flights {
    stripes: Box<[Mutex<Table>]>,
    hasher: RandomState,
    /// Followers alive, of detached flights too.
    followers: AtomicUsize,
}

struct Flight {
    tag: TypeId,
    state: Mutex<State>,
    /// Wakes followers.
    wake: Notify,
    /// Wakes the leader, for somebody who doubts.
    asked: Notify,
}

struct State {
    phase: Phase,
    /// What its value is tagged with, as far as that is known before it is loaded; as those say who lead it or joined it.
    tags: Vec<Tags>,
    may_choose_tags: bool,
    /// Followers that have not taken the result or gone away.
    waiting: usize,
    detached: bool,
    /// Another flight has taken its place, though nothing is known to have happened to the key: it may still store.
    is_superseded: bool,
    /// A lease that came with a follower's own look at the backend, for a leader that has none yet.
    offered: Option<Lease>,
    /// Whether backend or source are being asked: before that, nothing can be out of date.
    has_begun: bool,
    /// Until when nothing had happened to the key: the beginning of the load, or the last time that the backend said that
    /// its lease holds.
    vouched_at: Tick,
    /// Whether there is a lease that the backend can be asked about.
    can_vouch: bool,
    /// Followers that wait for the next such answer.
    doubting: usize,
    /// When the leader last gave a sign of life.
    seen_at: Tick,
    /// Whether a load that has its turn already waits for this one.
    is_urgent: bool,
    /// What the leader needs to run, to be dropped outside of the lock.
    turn: Option<Turn>,
}

enum Phase {
    Running,
    Orphaned { lease: Option<Lease> },
    Done(Landed),
    Gone,
}

/// What [`Flights::enter`] makes of a caller.
pub(super) enum Role {
    Lead(Leader),
    Follow(Follower),
    /// As many follow already as may.
    Full,
}

/// Which loads a caller joins.
#[derive(Clone)]
pub(super) struct Joining {
    pub(super) now: Tick,
    /// No load that was vouched for longer ago than this; `None` where nobody but this process changes the keys.
    pub(super) max_age: Option<Duration>,
    /// No more followers than this, of all keys together.
    pub(super) max_followers: usize,
    /// The caller is inside of a load.
    pub(super) is_nested: bool,
    /// What the value will be tagged with, if the caller leads.
    pub(super) tags: Tags,
    /// Whether its loader may name tags.
    pub(super) may_choose_tags: bool,
}

/// How a follower's wait ends.
pub(super) enum Wait {
    Landed(Landed),
    /// The leader went away and this follower takes its place.
    Lead(Leader),
    /// The flight ended without a result: start over.
    Gone,
}

impl Flights {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self {
            stripes: (0..STRIPES).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
            followers: AtomicUsize::new(0),
        })
    }

    /// Joins the flight of this key and type, or starts one.
    pub(super) fn enter(self: &Arc<Self>, key: &str, tag: TypeId, joining: Joining) -> Role {
        let Joining { now, max_age, max_followers, is_nested, tags, may_choose_tags } = joining;
        let tagged = (!tags.names().is_empty()).then_some(tags);
        let mut table = self.table(key);
        if let Some(flight) = table.get(key).and_then(|flights| flights.iter().find(|f| f.tag == tag)) {
            let mut state = lock(&flight.state);
            let is_young =
                !state.has_begun || max_age.is_none_or(|max_age| now.since(state.vouched_at) <= max_age);
            let may_join = is_young || state.can_vouch;
            match &mut state.phase {
                Phase::Running if may_join => {
                    if self.followers.fetch_add(1, Ordering::Relaxed) >= max_followers {
                        self.followers.fetch_sub(1, Ordering::Relaxed);
                        return Role::Full;
                    }
                    state.waiting += 1;
                    let mut follower = Follower::new(self, key, flight);
                    if !is_young {
                        follower.doubts_since = Some(now);
                        state.doubting += 1;
                    }
                    state.is_urgent |= is_nested;
                    state.is_tagged(tagged, may_choose_tags);
                    if !is_young || is_nested {
                        flight.asked.notify_one();
                    }
                    return Role::Follow(follower);
                }
                // Nobody can tell what happened to the key since: another load takes its place in the table.
                Phase::Running => state.is_superseded = true,
                Phase::Orphaned { lease } => {
                    let lease = lease.take().or_else(|| state.offered.take());
                    (state.phase, state.has_begun) = (Phase::Running, false);
                    state.is_tagged(tagged, may_choose_tags);
                    return Role::Lead(Leader::new(self, key, flight, lease));
                }
                // Out of the table before it gets here; were it not, a new flight takes its place.
                Phase::Done(_) | Phase::Gone => {}
            }
        }
        let flight = Arc::new(Flight {
            tag,
            state: Mutex::new(State {
                phase: Phase::Running,
                tags: Vec::from_iter(tagged),
                may_choose_tags,
                waiting: 0,
                detached: false,
                is_superseded: false,
                offered: None,
                has_begun: false,
                vouched_at: now,
                can_vouch: false,
                doubting: 0,
                seen_at: now,
                is_urgent: is_nested,
                turn: None,
            }),
            wake: Notify::new(),
            asked: Notify::new(),
        });
        let flights = table.entry(key.into()).or_default();
        flights.retain(|other| other.tag != tag);
        flights.push(Arc::clone(&flight));
        Role::Lead(Leader::new(self, key, &flight, None))
    }

    /// Lets no one join the flights of this key any more. The leases of those that had lost their leader come back: one may
    /// have been taken after whatever happened to the key.
    pub(super) fn detach(&self, key: &str) -> Vec<Lease> {
        let mut table = self.table(key);
        // Mostly nothing is under way.
        if table.is_empty() {
            return Vec::new();
        }
        table.remove(key).into_iter().flatten().filter_map(|flight| flight.detach()).collect()
    }

    /// Lets no one join any of the flights any more; likewise.
    pub(super) fn detach_all(&self) -> Vec<(Box<str>, Lease)> {
        let mut leases = Vec::new();
        for stripe in &self.stripes {
            for (key, flights) in mem::take(&mut *lock(stripe)) {
                leases.extend(flights.iter().filter_map(|flight| Some((key.clone(), flight.detach()?))));
            }
        }
        leases
    }

    /// Lets no one join those whose value has one of these tags, which are sorted, or may have; likewise. Those that may
    /// have are not void: whether they are stored, versions decide.
    pub(super) fn detach_tagged(&self, tags: &[&str]) -> Vec<(Box<str>, Lease)> {
        let mut leases = Vec::new();
        for stripe in &self.stripes {
            let mut table = lock(stripe);
            table.retain(|key, flights| {
                flights.retain(|flight| {
                    let mut state = lock(&flight.state);
                    let mut names = state.tags.iter().flat_map(Tags::names);
                    let is_tagged = names.any(|tag| tags.binary_search(&&**tag).is_ok());
                    let may_be = state.may_choose_tags;
                    if !is_tagged && may_be && matches!(state.phase, Phase::Running) {
                        state.is_superseded = true;
                        return false;
                    }
                    drop(state);
                    if is_tagged || may_be {
                        leases.extend(flight.detach().map(|lease| (key.clone(), lease)));
                    }
                    !is_tagged && !may_be
                });
                !flights.is_empty()
            });
        }
        leases
    }

    /// How many flights can be joined.
    pub(crate) fn len(&self) -> usize {
        self.stripes.iter().map(|stripe| lock(stripe).values().map(Vec::len).sum::<usize>()).sum()
    }

    /// How many wait for a flight, joinable or detached.
    pub(crate) fn waiting(&self) -> usize {
        self.followers.load(Ordering::SeqCst)
    }

    fn table(&self, key: &str) -> MutexGuard<'_, Table> {
        #[expect(clippy::cast_possible_truncation, reason = "only the low bits are used")]
        lock(&self.stripes[self.hasher.hash_one(key) as usize % STRIPES])
    }
}

impl State {
    fn is_tagged(&mut self, tags: Option<Tags>, may_choose_tags: bool) {
        self.may_choose_tags |= may_choose_tags;
        if let Some(tags) = tags.filter(|tags| !self.tags.contains(tags)) {
            self.tags.push(tags);
        }
    }
}

impl Flight {
    fn detach(&self) -> Option<Lease> {
        let mut state = lock(&self.state);
        state.detached = true;
        if let Phase::Orphaned { lease } = &mut state.phase {
            // The next leader would load after the invalidation, but its lease may be void: better a new flight.
            let lease = lease.take();
            state.phase = Phase::Gone;
            self.wake.notify_waiters();
            return lease;
        }
        if state.doubting > 0 {
            self.wake.notify_waiters();
        }
        // For the leader to give its lease back: whoever comes later need not wait for it.
        self.asked.notify_one();
        None
    }
}

fn remove(table: &mut Table, key: &str, flight: &Arc<Flight>) {
    if let Some(flights) = table.get_mut(key) {
        flights.retain(|other| !Arc::ptr_eq(other, flight));
        if flights.is_empty() {
            table.remove(key);
        }
    }
    if table.is_empty() && table.capacity() > 64 {
        // A crowd that has gone leaves no table behind.
        table.shrink_to_fit();
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
#[cfg(cache_kit_model)]
mod model;
#[cfg(test)]
#[cfg(not(cache_kit_model))]
mod tests;
