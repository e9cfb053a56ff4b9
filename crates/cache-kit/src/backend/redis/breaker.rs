//! Whether asking the server is worth the wait: a dead server costs microseconds, not deadlines.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use crate::clock::Clock;

/// So many failures in a row, and the server is taken to be down.
const THRESHOLD: u32 = 3;
/// A server that is down is looked for this often, jittered, and never less often: whoever waits for it to come
/// back waits no longer than that.
const PROBE_MILLIS: std::ops::RangeInclusive<u64> = 100..=400;

/// Counts failures in a row, and once there are enough lets one caller at a time look again.
pub(super) struct Breaker {
    failures: AtomicU32,
    /// When to look next, in ticks of the clock; only of use while open.
    next_probe: AtomicU64,
    clock: Clock,
}

/// What the breaker says to a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Ask the server.
    Closed,
    /// Fail at once.
    Open,
    /// Fail at once, but see to it that somebody looks whether the server is back.
    Probe,
}

impl Breaker {
    pub(super) fn new(clock: Clock) -> Self {
        Self { failures: AtomicU32::new(0), next_probe: AtomicU64::new(0), clock }
    }

    pub(super) fn check(&self) -> Verdict {
        if self.failures.load(Ordering::Acquire) < THRESHOLD {
            return Verdict::Closed;
        }
        let (now, due) = (self.clock.now(), self.next_probe.load(Ordering::Acquire));
        if now.to_bits() < due {
            return Verdict::Open;
        }
        let claimed =
            self.next_probe.compare_exchange(due, self.later(), Ordering::AcqRel, Ordering::Acquire);
        if claimed.is_ok() { Verdict::Probe } else { Verdict::Open }
    }

    pub(super) fn is_open(&self) -> bool {
        self.failures.load(Ordering::Acquire) >= THRESHOLD
    }

    pub(super) fn succeeded(&self) {
        // Mostly it is zero already, and the cache line stays shared.
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Release);
        }
    }

    /// One more failure; true if this was the one that opened the breaker.
    pub(super) fn failed(&self) -> bool {
        let before =
            self.failures.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| Some(n.saturating_add(1)));
        let opened = before == Ok(THRESHOLD - 1);
        if opened {
            self.next_probe.store(self.later(), Ordering::Release);
        }
        opened
    }

    /// A failure that leaves no doubt, such as a refused connection.
    pub(super) fn trip(&self) {
        if self.failures.swap(THRESHOLD, Ordering::AcqRel) < THRESHOLD {
            self.next_probe.store(self.later(), Ordering::Release);
        }
    }

    fn later(&self) -> u64 {
        self.clock.now().after(Duration::from_millis(fastrand::u64(PROBE_MILLIS))).to_bits()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ManualClock;

    #[test]
    fn it_opens_after_three_failures_in_a_row_and_closes_with_a_success() {
        let time = ManualClock::new();
        let breaker = Breaker::new(time.clock());
        assert!(!breaker.failed() && !breaker.failed());
        breaker.succeeded();
        assert!(!breaker.failed() && !breaker.failed());
        assert_eq!(breaker.check(), Verdict::Closed);
        assert!(breaker.failed());
        assert_eq!(breaker.check(), Verdict::Open);
        assert!(!breaker.failed(), "opened once");
        breaker.succeeded();
        assert_eq!(breaker.check(), Verdict::Closed);
    }

    #[test]
    fn one_caller_at_a_time_is_asked_to_look_and_never_less_often_than_every_400_ms() {
        let time = ManualClock::new();
        let breaker = Breaker::new(time.clock());
        breaker.trip();
        for _ in 0..1_000 {
            let mut waited = 0;
            let mut verdict = breaker.check();
            while verdict == Verdict::Open {
                time.advance(Duration::from_millis(1));
                waited += 1;
                verdict = breaker.check();
            }
            assert_eq!(verdict, Verdict::Probe);
            assert!((100..=400).contains(&waited), "{waited} ms");
            assert_eq!(breaker.check(), Verdict::Open, "the others go on failing at once");
        }
    }
}
