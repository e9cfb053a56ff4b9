//! Waking whoever waits for a tick.
//!
//! A load's deadlines hold whatever runtime its callers use, with or without a timer, and under a manual clock too. So
//! sleepers register here: those of the system's clock are woken by one thread, which runs while there are any; those
//! of a manual clock by whoever moves it.

use std::collections::BTreeMap;
use std::pin::Pin;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use super::{Clock, Tick};

/// The thread ends after it has had nobody to wake for so long.
const LINGER: Duration = Duration::from_secs(10);

/// Who waits, by tick and by number.
pub(super) struct Timers {
    waiting: Mutex<Waiting>,
    /// Told when somebody is to be woken sooner than everyone before.
    sooner: Condvar,
}

struct Waiting {
    sleepers: BTreeMap<(Tick, u64), Waker>,
    next: u64,
    is_running: bool,
    /// When the thread wakes by itself.
    armed: Tick,
}

/// The sleepers of the system's clock.
pub(super) static SYSTEM: Timers = Timers::new();

impl Timers {
    pub(super) const fn new() -> Self {
        let waiting = Waiting { sleepers: BTreeMap::new(), next: 0, is_running: false, armed: Tick::NEVER };
        Self { waiting: Mutex::new(waiting), sooner: Condvar::new() }
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Has `waker` woken at `until`: the number that takes it back, and whether the thread has to be told.
    fn add(&self, until: Tick, waker: &Waker) -> (u64, bool) {
        // Before the lock: a waker is somebody else's code.
        let waker = waker.clone();
        let mut waiting = self.lock();
        let id = waiting.next;
        waiting.next += 1;
        waiting.sleepers.insert((until, id), waker);
        (id, until < waiting.armed || !waiting.is_running)
    }

    fn remove(&self, until: Tick, id: u64) {
        // Dropped after the lock: a waker is somebody else's code.
        let _waker = self.lock().sleepers.remove(&(until, id));
    }

    /// Wakes all whose tick has come.
    pub(super) fn fire(&self, now: Tick) {
        let due = {
            let mut waiting = self.lock();
            let later = waiting.sleepers.split_off(&(now.after(Duration::from_nanos(1)), 0));
            std::mem::replace(&mut waiting.sleepers, later)
        };
        // After the lock: wakers are somebody else's code.
        for waker in due.into_values() {
            // Nor is one that panics to keep the others from being woken.
            let _ = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| waker.wake()));
        }
    }

    /// Sees to it that the thread of the system's clock knows of a sleeper who is the first.
    fn nudge(&'static self) {
        let mut waiting = self.lock();
        if !waiting.is_running {
            // Without a thread to be had the sleeper waits for the next one's try.
            waiting.is_running =
                thread::Builder::new().name("cache-kit-timer".to_owned()).spawn(|| self.run()).is_ok();
        }
        drop(waiting);
        self.sooner.notify_one();
    }

    fn run(&self) {
        let clock = Clock::system();
        loop {
            self.fire(clock.now());
            let mut waiting = self.lock();
            let first = waiting.sleepers.first_key_value().map(|((first, _), _)| *first);
            let now = clock.now();
            let pause = first.map_or(LINGER, |first| first.since(now));
            waiting.armed = now.after(pause);
            let timed_out;
            (waiting, timed_out) = self
                .sooner
                .wait_timeout(waiting, pause)
                .map(|(waiting, result)| (waiting, result.timed_out()))
                .unwrap_or_else(|poisoned| {
                    let (waiting, result) = poisoned.into_inner();
                    (waiting, result.timed_out())
                });
            if timed_out && first.is_none() && waiting.sleepers.is_empty() {
                (waiting.is_running, waiting.armed) = (false, Tick::NEVER);
                return;
            }
        }
    }
}

/// Waits for a tick; made by [`Clock::sleep_until`].
#[derive(Debug)]
#[must_use]
pub(crate) struct Sleep {
    clock: Clock,
    until: Tick,
    /// The number under which the last waker is registered.
    registered: Option<(u64, Waker)>,
}

impl Sleep {
    pub(super) fn new(clock: Clock, until: Tick) -> Self {
        Self { clock, until, registered: None }
    }

    fn take_back(&mut self) {
        if let Some((id, _)) = self.registered.take() {
            self.clock.timers().remove(self.until, id);
        }
    }
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.clock.now() >= self.until {
            self.take_back();
            return Poll::Ready(());
        }
        if self.until == Tick::NEVER
            || self.registered.as_ref().is_some_and(|(_, waker)| waker.will_wake(cx.waker()))
        {
            return Poll::Pending;
        }
        self.take_back();
        let (id, tell) = self.clock.timers().add(self.until, cx.waker());
        self.registered = Some((id, cx.waker().clone()));
        if tell && self.clock.is_system() {
            SYSTEM.nudge();
        }
        // A manual clock may have been moved between the look and the registration.
        if self.clock.now() >= self.until {
            self.take_back();
            return Poll::Ready(());
        }
        Poll::Pending
    }
}

impl Drop for Sleep {
    fn drop(&mut self) {
        self.take_back();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;

    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn a_sleeper_wakes_when_the_clock_is_moved_and_not_before() {
        let time = ManualClock::new();
        let mut sleep = time.clock().sleep(Duration::from_secs(3));
        let (waker, woken) = counting_waker();
        let mut cx = Context::from_waker(&waker);
        assert!(sleep.poll_unpin(&mut cx).is_pending());
        time.advance(Duration::from_millis(2_999));
        assert_eq!(woken(), 0);
        assert!(sleep.poll_unpin(&mut cx).is_pending());
        time.advance(Duration::from_millis(1));
        assert_eq!(woken(), 1);
        assert!(sleep.poll_unpin(&mut cx).is_ready());
    }

    #[test]
    fn a_dropped_sleeper_leaves_nothing_behind() {
        let time = ManualClock::new();
        let clock = time.clock();
        let mut cx = Context::from_waker(Waker::noop());
        for _ in 0..100 {
            let mut sleep = clock.sleep(Duration::from_secs(3));
            assert!(sleep.poll_unpin(&mut cx).is_pending());
        }
        assert!(clock.timers().lock().sleepers.is_empty());
    }

    #[test]
    fn the_systems_clock_wakes_in_order_from_any_thread() {
        let clock = Clock::system();
        let began = clock.now();
        let waits = [40, 10, 20].map(|millis| {
            let clock = clock.clone();
            thread::spawn(move || {
                tokio::runtime::Builder::new_current_thread()
                    .build()
                    .unwrap()
                    .block_on(clock.sleep(Duration::from_millis(millis)));
                clock.now().since(began) >= Duration::from_millis(millis)
            })
        });
        assert!(waits.into_iter().all(|wait| wait.join().unwrap()));
    }

    #[test]
    fn a_sleep_without_end_registers_nowhere() {
        let clock = ManualClock::new().clock();
        let mut sleep = clock.sleep(Duration::MAX);
        assert!(sleep.poll_unpin(&mut Context::from_waker(Waker::noop())).is_pending());
        assert!(clock.timers().lock().sleepers.is_empty());
    }

    fn counting_waker() -> (Waker, impl Fn() -> usize) {
        use std::sync::Arc;
        use std::sync::atomic::{AtomicUsize, Ordering};
        struct Count(AtomicUsize);
        impl std::task::Wake for Count {
            fn wake(self: Arc<Self>) {
                self.0.fetch_add(1, Ordering::SeqCst);
            }
        }
        let count = Arc::new(Count(AtomicUsize::new(0)));
        (Waker::from(Arc::clone(&count)), move || count.0.load(Ordering::SeqCst))
    }
}
