//! One load per key at a time: who leads it, who follows, and what happens when the leader goes away.
//!
//! No I/O and no clock in here. A flight is in one of these states:
//!
//! ```text
//!            complete                      followers take the result
//! Running ─────────────▶ Done
//!    │ leader dropped, followers wait
//!    ├─────────────────▶ Orphaned ── a follower, or the next to come, leads ──▶ Running
//!    │ leader dropped, nobody waits (or detached)
//!    └─────────────────▶ Gone       followers, if any, start over
//! ```
//!
//! An invalidation *detaches* a running flight: it leaves the table, so whoever comes later starts a new one,
//! while those who waited already still get its result.

use std::any::{Any, TypeId};
use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::mem;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use crate::backend::Lease;

/// What a flight ends with. The type is known to whoever asked for the flight by its tag.
pub(super) type Landed = Arc<dyn Any + Send + Sync>;

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
    wake: Notify,
}

struct State {
    phase: Phase,
    /// Followers that have not taken the result or gone away.
    waiting: usize,
    detached: bool,
    /// A lease that came with a follower's own look at the backend, for a leader that has none yet.
    offered: Option<Lease>,
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
    pub(super) fn enter(self: &Arc<Self>, key: &str, tag: TypeId) -> Role {
        let mut table = self.table(key);
        if let Some(flight) = table.get(key).and_then(|flights| flights.iter().find(|f| f.tag == tag)) {
            let mut state = lock(&flight.state);
            match &mut state.phase {
                Phase::Running => {
                    state.waiting += 1;
                    return Role::Follow(Follower::new(self, key, flight));
                }
                Phase::Orphaned { lease } => {
                    let lease = lease.take().or_else(|| state.offered.take());
                    state.phase = Phase::Running;
                    return Role::Lead(Leader::new(self, key, flight, lease));
                }
                // Out of the table before it gets here; were it not, a new flight takes its place.
                Phase::Done(_) | Phase::Gone => {}
            }
        }
        let flight = Arc::new(Flight {
            tag,
            state: Mutex::new(State { phase: Phase::Running, waiting: 0, detached: false, offered: None }),
            wake: Notify::new(),
        });
        let flights = table.entry(key.into()).or_default();
        flights.retain(|other| other.tag != tag);
        flights.push(Arc::clone(&flight));
        Role::Lead(Leader::new(self, key, &flight, None))
    }

    /// Lets no one join the flights of this key any more.
    pub(crate) fn detach(&self, key: &str) {
        let mut table = self.table(key);
        // Mostly nothing is under way.
        if table.is_empty() {
            return;
        }
        for flight in table.remove(key).into_iter().flatten() {
            flight.detach();
        }
    }

    /// Lets no one join any of the flights any more.
    pub(crate) fn detach_all(&self) {
        for stripe in &self.stripes {
            for flight in mem::take(&mut *lock(stripe)).into_values().flatten() {
                flight.detach();
            }
        }
    }

    /// How many flights can be joined.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn len(&self) -> usize {
        self.stripes.iter().map(|stripe| lock(stripe).values().map(Vec::len).sum::<usize>()).sum()
    }

    /// How many wait for a flight, joinable or detached.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn waiting(&self) -> usize {
        self.followers.load(Ordering::SeqCst)
    }

    fn table(&self, key: &str) -> MutexGuard<'_, Table> {
        #[expect(clippy::cast_possible_truncation, reason = "only the low bits are used")]
        lock(&self.stripes[self.hasher.hash_one(key) as usize % STRIPES])
    }
}

impl Flight {
    fn detach(&self) {
        let mut state = lock(&self.state);
        state.detached = true;
        if matches!(state.phase, Phase::Orphaned { .. }) {
            // The next leader would load after the invalidation, but its lease is void: better a new flight.
            state.phase = Phase::Gone;
            self.wake.notify_waiters();
        }
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

/// Runs the load. Dropped before [`complete`](Self::complete), it hands the lead to one follower.
pub(super) struct Leader {
    flights: Arc<Flights>,
    key: Box<str>,
    flight: Arc<Flight>,
    /// The lease of the load, from the moment it is granted; goes with the lead.
    pub(super) lease: Option<Lease>,
    over: bool,
}

impl Leader {
    fn new(flights: &Arc<Flights>, key: &str, flight: &Arc<Flight>, lease: Option<Lease>) -> Self {
        Self { flights: Arc::clone(flights), key: key.into(), flight: Arc::clone(flight), lease, over: false }
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// A follower of this flight, for who has its load run elsewhere.
    pub(super) fn follow(&self) -> Follower {
        lock(&self.flight.state).waiting += 1;
        Follower::new(&self.flights, &self.key, &self.flight)
    }

    /// A lease that a follower brought. Good only for a load that has not begun: what happened to the key before the
    /// lease was granted, it does not tell.
    pub(super) fn take_offered(&self) -> Option<Lease> {
        lock(&self.flight.state).offered.take()
    }

    /// Whether the key was invalidated since the flight began.
    pub(super) fn is_detached(&self) -> bool {
        lock(&self.flight.state).detached
    }

    /// Ends the flight: all who wait get `landed`, which is made only if somebody does; whoever comes now
    /// starts afresh.
    pub(super) fn complete(mut self, landed: impl FnOnce() -> Landed) {
        self.over = true;
        remove(&mut self.flights.table(&self.key), &self.key, &self.flight);
        // Nobody can join any more, so this number can only fall.
        let waiting = lock(&self.flight.state).waiting > 0;
        let end = if waiting { Phase::Done(landed()) } else { Phase::Gone };
        lock(&self.flight.state).phase = end;
        self.flight.wake.notify_waiters();
    }

    /// Hands the lead to a follower. The lease comes back if there is nobody to take it.
    pub(super) fn abandon(&mut self) -> Option<Lease> {
        if mem::replace(&mut self.over, true) {
            return None;
        }
        let mut table = self.flights.table(&self.key);
        let mut state = lock(&self.flight.state);
        let lease = self.lease.take();
        if state.waiting > 0 && !state.detached {
            state.phase = Phase::Orphaned { lease };
            self.flight.wake.notify_one();
            return None;
        }
        remove(&mut table, &self.key, &self.flight);
        state.phase = Phase::Gone;
        self.flight.wake.notify_waiters();
        lease
    }
}

impl Drop for Leader {
    fn drop(&mut self) {
        self.abandon();
    }
}

/// Waits for the result of a flight.
pub(super) struct Follower {
    flights: Arc<Flights>,
    key: Box<str>,
    flight: Arc<Flight>,
    /// What this follower has offered, and must give back unless somebody took it.
    offered: Option<Lease>,
    over: bool,
}

impl Follower {
    fn new(flights: &Arc<Flights>, key: &str, flight: &Arc<Flight>) -> Self {
        flights.followers.fetch_add(1, Ordering::Relaxed);
        let (flights, flight) = (Arc::clone(flights), Arc::clone(flight));
        Self { flights, key: key.into(), flight, offered: None, over: false }
    }

    pub(super) fn key(&self) -> &str {
        &self.key
    }

    /// Brings a lease that the leader may use.
    pub(super) fn offer(&mut self, lease: Lease) {
        self.offered = Some(lease.clone());
        // One that is there already is void: the backend has granted a newer one.
        lock(&self.flight.state).offered = Some(lease);
    }

    /// Takes back what was offered, if nobody has taken it.
    pub(super) fn reclaim(&mut self) -> Option<Lease> {
        let own = self.offered.take()?;
        lock(&self.flight.state).offered.take_if(|offered| *offered == own)
    }

    /// Waits for the end of the flight. Cancel-safe.
    pub(super) async fn wait(&mut self) -> Wait {
        let flight = Arc::clone(&self.flight);
        loop {
            let mut woken = std::pin::pin!(flight.wake.notified());
            // Listens before it looks, so that no wake-up falls in between.
            woken.as_mut().enable();
            if let Some(end) = self.look() {
                return end;
            }
            woken.await;
        }
    }

    fn look(&mut self) -> Option<Wait> {
        let mut state = lock(&self.flight.state);
        let end = match &mut state.phase {
            Phase::Running => return None,
            Phase::Done(landed) => Wait::Landed(Arc::clone(landed)),
            Phase::Gone => Wait::Gone,
            Phase::Orphaned { lease } => {
                let lease = lease.take().or_else(|| state.offered.take());
                state.phase = Phase::Running;
                Wait::Lead(Leader::new(&self.flights, &self.key, &self.flight, lease))
            }
        };
        state.waiting -= 1;
        self.over = true;
        Some(end)
    }

    /// Stops waiting. The lease comes back if this was the last who could have taken an orphaned flight.
    pub(super) fn leave(&mut self) -> Option<Lease> {
        if mem::replace(&mut self.over, true) {
            return None;
        }
        let mut table = self.flights.table(&self.key);
        let mut state = lock(&self.flight.state);
        state.waiting -= 1;
        if !matches!(state.phase, Phase::Orphaned { .. }) {
            return None;
        }
        if state.waiting > 0 {
            // If the wake-up was this follower's, dropping its wait has passed it on.
            return None;
        }
        let Phase::Orphaned { lease } = mem::replace(&mut state.phase, Phase::Gone) else { return None };
        remove(&mut table, &self.key, &self.flight);
        lease
    }
}

impl Drop for Follower {
    fn drop(&mut self) {
        self.flights.followers.fetch_sub(1, Ordering::Relaxed);
        self.leave();
    }
}

#[cfg(test)]
#[path = "flight_tests.rs"]
mod tests;
