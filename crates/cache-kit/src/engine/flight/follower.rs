//! Those who wait for it.

use std::mem;
use std::time::Duration;

use super::super::sync::{Arc, Ordering};
use super::{Flight, Flights, Leader, Phase, Wait, lock, remove};
use crate::backend::Lease;
use crate::clock::Tick;

/// Waits for the result of a flight.
pub(in crate::engine) struct Follower {
    flights: Arc<Flights>,
    key: Box<str>,
    flight: Arc<Flight>,
    /// What this follower has offered, and must give back unless somebody took it.
    offered: Option<Lease>,
    /// Since when it waits for the leader to have the load vouched for.
    pub(super) doubts_since: Option<Tick>,
    over: bool,
}

impl Follower {
    /// One who has been counted.
    pub(super) fn new(flights: &Arc<Flights>, key: &str, flight: &Arc<Flight>) -> Self {
        let (flights, flight) = (Arc::clone(flights), Arc::clone(flight));
        Self { flights, key: key.into(), flight, offered: None, doubts_since: None, over: false }
    }

    pub(in crate::engine) fn key(&self) -> &str {
        &self.key
    }

    /// Whether it came when the load was no longer young, and nobody has vouched for it since.
    pub(in crate::engine) fn is_in_doubt(&self) -> bool {
        self.doubts_since.is_some()
    }

    /// Brings a lease that the leader may use.
    pub(in crate::engine) fn offer(&mut self, lease: Lease) {
        self.offered = Some(lease.clone());
        // One that is there already is void: the backend has granted a newer one.
        lock(&self.flight.state).offered = Some(lease);
    }

    /// Takes back what was offered, if nobody has taken it.
    pub(in crate::engine) fn reclaim(&mut self) -> Option<Lease> {
        let own = self.offered.take()?;
        lock(&self.flight.state).offered.take_if(|offered| *offered == own)
    }

    /// Waits for the end of the flight. Cancel-safe.
    pub(in crate::engine) async fn wait(&mut self) -> Wait {
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
        if self.doubts_since.is_some_and(|since| state.vouched_at >= since) {
            self.doubts_since = None;
            state.doubting -= 1;
        }
        let in_doubt = self.doubts_since.is_some();
        let is_lost = in_doubt && (state.detached || !state.can_vouch);
        let end = match &mut state.phase {
            Phase::Running if is_lost => Wait::Gone,
            Phase::Running => return None,
            Phase::Done(landed) if in_doubt && !landed.is_sure => Wait::Gone,
            Phase::Done(landed) => Wait::Landed(landed.clone()),
            Phase::Gone => Wait::Gone,
            Phase::Orphaned { lease } => {
                let lease = lease.take().or_else(|| state.offered.take());
                (state.phase, state.has_begun) = (Phase::Running, false);
                Wait::Lead(Leader::new(&self.flights, &self.key, &self.flight, lease))
            }
        };
        state.waiting -= 1;
        state.doubting -= usize::from(in_doubt);
        self.over = true;
        Some(end)
    }

    /// Lets the flight go if its leader has given no sign of life for so long; all who wait start over, with one of them
    /// in the lead.
    pub(in crate::engine) fn oust(&mut self, now: Tick, silence: Duration) -> bool {
        let mut table = self.flights.table(&self.key);
        let mut state = lock(&self.flight.state);
        if self.over || !matches!(state.phase, Phase::Running) || now.since(state.seen_at) < silence {
            return false;
        }
        remove(&mut table, &self.key, &self.flight);
        (state.phase, state.detached) = (Phase::Gone, true);
        self.flight.wake.notify_waiters();
        let turn = state.turn.take();
        drop((state, table));
        drop(turn);
        true
    }

    /// When the leader last gave a sign of life.
    pub(in crate::engine) fn leader_seen_at(&self) -> Tick {
        lock(&self.flight.state).seen_at
    }

    /// Stops waiting. The lease comes back if this was the last who could have taken an orphaned flight.
    pub(in crate::engine) fn leave(&mut self) -> Option<Lease> {
        if mem::replace(&mut self.over, true) {
            return None;
        }
        let mut table = self.flights.table(&self.key);
        let mut state = lock(&self.flight.state);
        state.waiting -= 1;
        state.doubting -= usize::from(self.doubts_since.is_some());
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
