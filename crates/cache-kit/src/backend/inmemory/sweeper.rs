//! Frees what has expired, without anybody reading it.
//!
//! A thread rather than a task: a backend needs no runtime, and outlives the one that it was first used on.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::Shared;
use super::store::Store;
use crate::clock::{Clock, Tick};

/// Sweeping gets at most this share of a core.
const DUTY: u32 = 20;

pub(super) struct Sweeper {
    every: Duration,
    /// Before this tick nothing expires; `NEVER` if nothing does.
    earliest: AtomicU64,
    expired: AtomicU64,
    started: AtomicBool,
    signal: Arc<Signal>,
}

#[derive(Default)]
struct Signal {
    state: Mutex<State>,
    stop: Condvar,
}

#[derive(Default, PartialEq, Eq)]
enum State {
    #[default]
    Idle,
    Running,
    Stopped,
}

impl Sweeper {
    pub(super) fn new(every: Duration) -> Self {
        Self {
            every,
            earliest: AtomicU64::new(Tick::NEVER.to_bits()),
            expired: AtomicU64::new(0),
            started: AtomicBool::new(false),
            signal: Arc::default(),
        }
    }

    pub(super) fn expired(&self) -> u64 {
        self.expired.load(Ordering::Relaxed)
    }

    /// Something expires at `tick`: makes sure that it will be swept.
    pub(super) fn watch(&self, tick: Tick, shared: &Arc<Shared>) {
        let tick = tick.to_bits();
        // Mostly something expires earlier already, and nothing is written.
        if tick >= self.earliest.load(Ordering::Acquire) {
            return;
        }
        self.earliest.fetch_min(tick, Ordering::AcqRel);
        self.start(shared);
    }

    /// Makes sure that the thread runs.
    pub(super) fn start(&self, shared: &Arc<Shared>) {
        if self.started.load(Ordering::Relaxed) {
            return;
        }
        let mut state = self.signal.state.lock().unwrap_or_else(PoisonError::into_inner);
        if *state != State::Idle {
            return;
        }
        let (shared, signal, every) = (Arc::downgrade(shared), Arc::clone(&self.signal), self.every);
        let thread = thread::Builder::new().name("cache-kit-sweep".into());
        // Without a thread to be had, the next write that expires tries again.
        if thread.spawn(move || run(&shared, &signal, every)).is_ok() {
            *state = State::Running;
            self.started.store(true, Ordering::Relaxed);
        }
    }

    /// One pass; how many entries it removed.
    pub(super) fn run(&self, store: &Store, clock: &Clock) -> u64 {
        let now = clock.now();
        if now.to_bits() < self.earliest.load(Ordering::Acquire) {
            return 0;
        }
        // What is written during the pass lowers this again by itself.
        self.earliest.store(Tick::NEVER.to_bits(), Ordering::Release);
        let (removed, next) = (AtomicU64::new(0), AtomicU64::new(Tick::NEVER.to_bits()));
        store.retain(|slot| {
            if now >= slot.expires_at && slot.expires_at != Tick::NEVER {
                removed.fetch_add(1, Ordering::Relaxed);
                return false;
            }
            next.fetch_min(slot.expires_at.to_bits(), Ordering::Relaxed);
            true
        });
        self.earliest.fetch_min(next.into_inner(), Ordering::AcqRel);
        let removed = removed.into_inner();
        self.expired.fetch_add(removed, Ordering::Relaxed);
        removed
    }
}

fn run(shared: &Weak<Shared>, signal: &Signal, every: Duration) {
    let mut pause = every;
    loop {
        let state = signal.state.lock().unwrap_or_else(PoisonError::into_inner);
        let (state, _) = signal
            .stop
            .wait_timeout_while(state, pause, |state| *state != State::Stopped)
            .unwrap_or_else(PoisonError::into_inner);
        if *state == State::Stopped {
            return;
        }
        drop(state);
        let Some(shared) = shared.upgrade() else { return };
        let started = Instant::now();
        // Values are dropped in there, and a `Drop` may be anybody's.
        let _ = catch_unwind(AssertUnwindSafe(|| shared.sweep()));
        pause = every.max(started.elapsed() * DUTY);
    }
}

impl Drop for Sweeper {
    fn drop(&mut self) {
        // Not joined: the last handle may be dropped by the sweeping thread itself.
        *self.signal.state.lock().unwrap_or_else(PoisonError::into_inner) = State::Stopped;
        self.signal.stop.notify_all();
    }
}
