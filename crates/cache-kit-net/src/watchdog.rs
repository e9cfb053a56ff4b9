//! Deadlines of calls, on one thread of their own: they hold whatever the runtimes do.
//!
//! A timer of the runtime for each call costs a tenth of a call. One for each connection would belong to the runtime
//! that the connection was made on, and a handler that blocks there would keep everybody else's deadlines from being
//! noticed. So one thread looks at all connections that have calls under way, every [`TICK`]; without calls it
//! sleeps, and without connections it ends.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

/// How much later than its deadline a call may end.
pub(crate) const TICK: Duration = Duration::from_millis(10);
/// After so many looks that found no call under way, the thread sleeps until there is one.
const IDLE_LOOKS: u32 = 100;

/// Something whose calls have deadlines.
pub(crate) trait Overdue: Send + Sync {
    /// Ends the calls whose deadline is not after `now`; whether there are calls under way.
    fn expire(&self, now: Instant) -> bool;
}

struct Watchdog {
    watched: Mutex<Watched>,
    changed: Condvar,
    asleep: AtomicBool,
}

struct Watched {
    connections: Vec<Weak<dyn Overdue>>,
    is_running: bool,
}

static WATCHDOG: Watchdog = Watchdog {
    watched: Mutex::new(Watched { connections: Vec::new(), is_running: false }),
    changed: Condvar::new(),
    asleep: AtomicBool::new(false),
};

/// Watches a connection until it is gone. Without a thread to be had there is an error.
pub(crate) fn watch(connection: Weak<dyn Overdue>) -> std::io::Result<()> {
    let mut watched = WATCHDOG.lock();
    if !watched.is_running {
        thread::Builder::new().name("cache-kit-deadlines".to_owned()).spawn(|| WATCHDOG.run())?;
        watched.is_running = true;
    }
    watched.connections.push(connection);
    drop(watched);
    nudge();
    Ok(())
}

/// To be called after a call was added where there was none: cheap while the thread is awake.
pub(crate) fn nudge() {
    if WATCHDOG.asleep.load(Ordering::SeqCst) {
        // Taken so that the thread is either before its last look or inside of its wait.
        let _watched = WATCHDOG.lock();
        WATCHDOG.changed.notify_all();
    }
}

impl Watchdog {
    fn lock(&self) -> MutexGuard<'_, Watched> {
        self.watched.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn run(&self) {
        let mut idle = 0;
        loop {
            let mut watched = self.lock();
            watched.connections.retain(|connection| connection.strong_count() > 0);
            if watched.connections.is_empty() {
                watched.is_running = false;
                return;
            }
            if idle >= IDLE_LOOKS {
                // Announced before the look, and the look takes each connection's lock: a call that this look misses
                // was added afterwards, and its caller sees the announcement.
                self.asleep.store(true, Ordering::SeqCst);
                let connections = watched.connections.clone();
                if !look(&connections) {
                    watched = self.changed.wait(watched).unwrap_or_else(PoisonError::into_inner);
                }
                self.asleep.store(false, Ordering::SeqCst);
                idle = 0;
            }
            let connections = watched.connections.clone();
            drop(watched);
            idle = if look(&connections) { 0 } else { idle + 1 };
            thread::sleep(TICK);
        }
    }
}

/// Whether any of the connections has calls under way.
fn look(connections: &[Weak<dyn Overdue>]) -> bool {
    let now = Instant::now();
    let mut busy = false;
    for connection in connections.iter().filter_map(Weak::upgrade) {
        busy |= connection.expire(now);
    }
    busy
}
