//! What the tasks of a schedule share beside the flights: a source, a backend that grants leases, and the log of what
//! everyone saw, by which the promises are checked.
//!
//! Locked by std and never across a scheduling point: each of these steps is one.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::super::{Flight, Flights, Phase, lock};
use crate::ManualClock;
use crate::backend::Lease;
use crate::clock::Tick;

/// What is read and changed; each is behind a lock of its own.
pub(super) const KEYS: [&str; 2] = ["key", "other"];

pub(super) struct World {
    pub(super) flights: Arc<Flights>,
    time: ManualClock,
    log: Mutex<Log>,
    /// Every flight that somebody saw in the table.
    seen: Mutex<Vec<Arc<Flight>>>,
}

#[derive(Default)]
struct Log {
    /// Counts events.
    moment: u64,
    keys: HashMap<&'static str, Key>,
    granted: u128,
    /// How often each lease was used or given back.
    ended: HashMap<u128, u32>,
    leads: Vec<Run>,
}

#[derive(Default)]
struct Key {
    /// What the source has.
    version: u64,
    /// What it had when the last invalidation in this process was over.
    settled: u64,
    /// The lease that the backend would take.
    held: Option<u128>,
    is_looked_up: bool,
    /// The latest time that a leader had an answer about, or began.
    vouched: Option<Tick>,
    followers: usize,
}

/// One lead of a flight, from taking to giving it.
struct Run {
    key: &'static str,
    taken: u64,
    /// The last moment at which its flight was not detached.
    attached: u64,
    /// The first moment at which its flight was known to be detached.
    detached: Option<u64>,
    is_over: bool,
}

/// Who comes, and what it may be given.
#[derive(Clone, Copy)]
pub(super) struct Arrival {
    pub(super) now: Tick,
    moment: u64,
    /// The oldest version that is right, whoever changed the source.
    newest: u64,
    /// The oldest that is right if others may change it unnoticed.
    settled: u64,
}

/// What a load has brought.
#[derive(Clone, Copy)]
pub(super) struct Brought {
    pub(super) key: &'static str,
    pub(super) lead: usize,
    pub(super) version: u64,
}

impl Log {
    fn tick(&mut self) -> u64 {
        self.moment += 1;
        self.moment
    }

    fn key(&mut self, key: &'static str) -> &mut Key {
        self.keys.entry(key).or_default()
    }
}

impl World {
    pub(super) fn new() -> Arc<Self> {
        let log = Mutex::default();
        Arc::new(Self { flights: Flights::new(), time: ManualClock::new(), log, seen: Mutex::default() })
    }

    fn log(&self) -> MutexGuard<'_, Log> {
        // After a broken promise, what is dropped must not hide it.
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn now(&self) -> Tick {
        self.time.clock().now()
    }

    pub(super) fn moment(&self) -> u64 {
        self.log().tick()
    }

    pub(super) fn arrive(&self, key: &'static str, is_alone: bool) -> Arrival {
        let mut log = self.log();
        let (moment, now) = (log.tick(), self.now());
        let key = log.key(key);
        // Alone, it relies on the invalidations of this process, and on nothing before they are over.
        let newest = if is_alone { key.settled } else { key.version };
        Arrival { now, moment, newest, settled: key.settled }
    }

    // The source.

    pub(super) fn load(&self, key: &'static str) -> u64 {
        self.log().key(key).version
    }

    /// The source changes and the backend forgets the value and the lease; time goes on, so that what was vouched for
    /// before is not young any more.
    pub(super) fn change(&self, key: &'static str) -> u64 {
        let mut log = self.log();
        self.time.advance(std::time::Duration::from_secs(1));
        let key = log.key(key);
        key.version += 1;
        key.held = None;
        key.version
    }

    /// An invalidation in this process is over: who comes now gets this version or a later one.
    pub(super) fn settle(&self, key: &'static str, version: u64) {
        let mut log = self.log();
        let key = log.key(key);
        key.settled = key.settled.max(version);
    }

    // The backend.

    /// At most one reader of this process looks in a way that may bring a lease.
    pub(super) fn begin_look(&self, key: &'static str) -> bool {
        !std::mem::replace(&mut self.log().key(key).is_looked_up, true)
    }

    pub(super) fn end_look(&self, key: &'static str) {
        self.log().key(key).is_looked_up = false;
    }

    pub(super) fn acquire(&self, key: &'static str) -> Option<Lease> {
        let mut log = self.log();
        if log.key(key).held.is_some() {
            return None;
        }
        log.granted += 1;
        let granted = log.granted;
        log.key(key).held = Some(granted);
        Some(Lease::new(granted))
    }

    pub(super) fn holds(&self, key: &'static str, lease: &Lease) -> bool {
        self.log().key(key).held == Some(lease.token())
    }

    /// Ends a lease, by storing or by giving it back; whether it was still good.
    pub(super) fn end(&self, key: &'static str, lease: &Lease) -> bool {
        let mut log = self.log();
        let ended = log.ended.entry(lease.token()).or_default();
        *ended += 1;
        assert_eq!(*ended, 1, "a lease was in two hands");
        log.key(key).held.take_if(|held| *held == lease.token()).is_some()
    }

    // Leads.

    pub(super) fn take_lead(&self, key: &'static str) -> usize {
        let mut log = self.log();
        let taken = log.tick();
        log.leads.push(Run { key, taken, attached: taken, detached: None, is_over: false });
        log.leads.len() - 1
    }

    /// Its flight was not detached at this moment, which was taken before looking.
    pub(super) fn is_attached(&self, lead: usize, at: u64) {
        let mut log = self.log();
        log.leads[lead].attached = at;
        let (this, others) = (&log.leads[lead], &log.leads);
        let mut others = others.iter().enumerate().filter(|(i, other)| *i != lead && other.key == this.key);
        // What is over is no lead, and an attached flight has been so since it was led.
        let overlap = |other: &Run| other.taken <= this.attached && this.taken <= other.attached;
        assert!(!others.any(|(_, other)| overlap(other)), "two lead a key");
    }

    pub(super) fn is_detached(&self, lead: usize) {
        let mut log = self.log();
        let now = log.tick();
        log.leads[lead].detached.get_or_insert(now);
    }

    pub(super) fn give_lead(&self, lead: usize) {
        let was_over = std::mem::replace(&mut self.log().leads[lead].is_over, true);
        assert!(!was_over, "a lead ended twice");
    }

    /// A leader has this to say about the key. Said to the log first: who sees it, sees this too.
    pub(super) fn vouch(&self, key: &'static str, asked_at: Tick) {
        let mut log = self.log();
        let key = log.key(key);
        key.vouched = key.vouched.max(Some(asked_at));
    }

    // Followers.

    pub(super) fn joined(&self, key: &'static str, most: usize) {
        let mut log = self.log();
        let key = log.key(key);
        key.followers += 1;
        assert!(key.followers <= most, "more follow than may");
    }

    /// Before the follower goes: the bound is then true of fewer than there are.
    pub(super) fn left(&self, key: &'static str) {
        self.log().key(key).followers -= 1;
    }

    /// A follower that came so, and doubted or not, was given this.
    pub(super) fn given(&self, key: &'static str, arrival: Arrival, doubted: bool, brought: Brought) {
        let mut log = self.log();
        assert_eq!(brought.key, key, "the result of another key");
        let detached = log.leads[brought.lead].detached;
        assert!(
            detached.is_none_or(|at| at > arrival.moment),
            "the result of a flight that nobody could join"
        );
        assert!(brought.version >= arrival.settled, "from before an invalidation");
        assert!(brought.version >= arrival.newest, "from before a change that was to be asked about");
        if doubted {
            assert!(log.key(key).vouched >= Some(arrival.now), "nobody vouched for it");
        }
    }

    /// Remembers the flights that can be joined.
    pub(super) fn note(&self, key: &'static str) {
        let flights = self.flights.table(key).get(key).cloned().unwrap_or_default();
        let mut seen = self.seen.lock().unwrap();
        for flight in flights {
            if !seen.iter().any(|other| Arc::ptr_eq(other, &flight)) {
                seen.push(flight);
            }
        }
    }

    /// Nothing is left when all have gone.
    pub(super) fn check_end(&self) {
        assert_eq!(self.flights.waiting(), 0);
        assert!(KEYS.iter().all(|key| self.flights.table(key).is_empty()), "a flight stayed in the table");
        for flight in self.seen.lock().unwrap().iter() {
            let state = lock(&flight.state);
            assert_eq!((state.waiting, state.doubting), (0, 0));
            assert!(state.offered.is_none(), "a lease was left behind");
            assert!(matches!(state.phase, Phase::Done(_) | Phase::Gone), "a flight never ended");
        }
        let log = self.log();
        assert!(log.keys.values().all(|key| key.held.is_none()), "a lease that is good was lost");
        assert!(log.leads.iter().all(|lead| lead.is_over));
    }
}
