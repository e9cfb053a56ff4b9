//! The one who runs the load.

use std::mem;

use super::super::sync::{Arc, Ordering};
use super::{Flight, Flights, Follower, Landed, Phase, lock, remove};
use crate::backend::Lease;
use crate::clock::Tick;
use crate::engine::turns::Turn;

/// Runs the load. Dropped before [`complete`](Self::complete), it hands the lead to one follower.
pub(in crate::engine) struct Leader {
    flights: Arc<Flights>,
    key: Box<str>,
    flight: Arc<Flight>,
    /// The lease of the load, from the moment it is granted; goes with the lead.
    pub(in crate::engine) lease: Option<Lease>,
    over: bool,
}

impl Leader {
    pub(super) fn new(flights: &Arc<Flights>, key: &str, flight: &Arc<Flight>, lease: Option<Lease>) -> Self {
        Self { flights: Arc::clone(flights), key: key.into(), flight: Arc::clone(flight), lease, over: false }
    }

    pub(in crate::engine) fn key(&self) -> &str {
        &self.key
    }

    /// A follower of this flight, for who has its load run elsewhere.
    pub(in crate::engine) fn follow(&self) -> Follower {
        lock(&self.flight.state).waiting += 1;
        self.flights.followers.fetch_add(1, Ordering::Relaxed);
        Follower::new(&self.flights, &self.key, &self.flight)
    }

    /// The backend is asked from now on, for a lease or for what others have stored meanwhile: what it answers may be out of
    /// date for whoever comes later. With a lease, it can be asked again.
    pub(in crate::engine) fn ask(&self, now: Tick, for_lease: bool) {
        let mut state = lock(&self.flight.state);
        (state.has_begun, state.vouched_at, state.can_vouch) = (true, now, for_lease);
    }

    /// The load begins now; an earlier leader's does not count.
    pub(in crate::engine) fn begin(&self, now: Tick) {
        let mut state = lock(&self.flight.state);
        (state.has_begun, state.vouched_at, state.seen_at) = (true, now, now);
        state.can_vouch = self.lease.is_some();
        if state.doubting > 0 {
            self.flight.wake.notify_waiters();
        }
    }

    /// What gives signs of life, without which followers go their own way.
    pub(in crate::engine) fn pulse(&self) -> Pulse {
        Pulse(Arc::clone(&self.flight))
    }

    /// Whether somebody waits for this load who is inside of another.
    pub(in crate::engine) fn is_urgent(&self) -> bool {
        lock(&self.flight.state).is_urgent
    }

    /// The backend has said, asked not before `asked_at`, that the lease holds.
    pub(in crate::engine) fn vouch(&self, asked_at: Tick) {
        let mut state = lock(&self.flight.state);
        (state.vouched_at, state.can_vouch) = (asked_at, true);
        if state.doubting > 0 {
            self.flight.wake.notify_waiters();
        }
    }

    /// The backend could not say whether the lease holds.
    pub(in crate::engine) fn cannot_vouch(&self) {
        let mut state = lock(&self.flight.state);
        state.can_vouch = false;
        if state.doubting > 0 {
            self.flight.wake.notify_waiters();
        }
    }

    /// Whether somebody waits to hear that nothing has happened since the load began.
    pub(in crate::engine) fn is_doubted(&self) -> bool {
        lock(&self.flight.state).doubting > 0
    }

    /// Whether somebody waits for this load.
    pub(in crate::engine) fn is_followed(&self) -> bool {
        lock(&self.flight.state).waiting > 0
    }

    /// Something has happened to the key: nobody joins any more.
    pub(in crate::engine) fn detach(&self) {
        let mut table = self.flights.table(&self.key);
        remove(&mut table, &self.key, &self.flight);
        // It has its leader, and its leader the lease.
        let _ = self.flight.detach();
    }

    /// Waits until somebody doubts, or is in a hurry. Cancel-safe.
    pub(in crate::engine) fn asked(&self) -> impl Future<Output = ()> + Send + 'static {
        let flight = Arc::clone(&self.flight);
        async move { flight.asked.notified().await }
    }

    /// A lease that a follower brought. Good only for a load that has not begun: what happened to the key before the
    /// lease was granted, it does not tell.
    pub(in crate::engine) fn take_offered(&self) -> Option<Lease> {
        lock(&self.flight.state).offered.take()
    }

    /// Whether the key was invalidated since the flight began.
    pub(in crate::engine) fn is_detached(&self) -> bool {
        lock(&self.flight.state).detached
    }

    /// Whether others would join this flight.
    #[cfg(cache_kit_model)]
    pub(in crate::engine) fn is_joinable(&self) -> bool {
        let table = self.flights.table(&self.key);
        table
            .get(&*self.key)
            .is_some_and(|flights| flights.iter().any(|flight| Arc::ptr_eq(flight, &self.flight)))
    }

    /// Ends the flight: all who wait get `landed`, which is made only if somebody does; whoever comes now
    /// starts afresh.
    pub(in crate::engine) fn complete(mut self, landed: impl FnOnce() -> Landed) {
        self.over = true;
        remove(&mut self.flights.table(&self.key), &self.key, &self.flight);
        // Nobody can join any more, so this number can only fall.
        self.end_turn();
        let waiting = lock(&self.flight.state).waiting > 0;
        let end = if waiting { Phase::Done(landed()) } else { Phase::Gone };
        lock(&self.flight.state).phase = end;
        self.flight.wake.notify_waiters();
    }

    /// Keeps its turn with the flight.
    pub(in crate::engine) fn keep(&self, turn: Option<Turn>) {
        let _before = mem::replace(&mut lock(&self.flight.state).turn, turn);
    }

    /// Gives its turn back.
    pub(in crate::engine) fn end_turn(&self) {
        let _turn = lock(&self.flight.state).turn.take();
    }

    /// Hands the lead to a follower. The lease comes back if there is nobody to take it.
    pub(in crate::engine) fn abandon(&mut self) -> Option<Lease> {
        if mem::replace(&mut self.over, true) {
            return None;
        }
        self.end_turn();
        let mut table = self.flights.table(&self.key);
        let mut state = lock(&self.flight.state);
        let lease = self.lease.take();
        if state.waiting > 0 && !state.detached && !state.is_superseded {
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

/// The signs of life of a leader.
pub(in crate::engine) struct Pulse(Arc<Flight>);

impl Pulse {
    pub(in crate::engine) fn beat(&self, now: Tick) {
        lock(&self.0.state).seen_at = now;
    }
}
