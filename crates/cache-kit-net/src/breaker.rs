//! Whether asking a server is worth the wait: a dead one costs microseconds, not deadlines.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// So many failures in a row, and the server is taken to be down.
const THRESHOLD: u32 = 3;
/// A server that is down is looked for this often, jittered, and never less often: whoever waits for it to come
/// back waits no longer than that.
const PROBE_MILLIS: std::ops::RangeInclusive<u64> = 100..=400;

/// Counts failures in a row, and once there are enough lets one caller at a time look again, every 100 to 400 ms.
#[derive(Debug)]
pub struct Breaker {
    failures: AtomicU32,
    /// When to look next, in nanoseconds after `origin`; only of use while open.
    next_probe: AtomicU64,
    origin: Instant,
}

/// What the breaker says to a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// Ask the server.
    Closed,
    /// Fail at once.
    Open,
    /// Fail at once, but see to it that somebody looks whether the server is back.
    Probe,
}

impl Breaker {
    /// A closed one. `now` is the time that later ones are measured from.
    #[must_use]
    pub fn new(now: Instant) -> Self {
        Self { failures: AtomicU32::new(0), next_probe: AtomicU64::new(0), origin: now }
    }

    /// What to do with a call.
    pub fn check(&self, now: Instant) -> Verdict {
        if !self.is_open() {
            return Verdict::Closed;
        }
        let due = self.next_probe.load(Ordering::Acquire);
        if self.nanos(now) < due {
            return Verdict::Open;
        }
        let claimed =
            self.next_probe.compare_exchange(due, self.later(now), Ordering::AcqRel, Ordering::Acquire);
        if claimed.is_ok() { Verdict::Probe } else { Verdict::Open }
    }

    /// Whether calls fail at once.
    #[must_use]
    pub fn is_open(&self) -> bool {
        self.failures.load(Ordering::Acquire) >= THRESHOLD
    }

    /// The server has answered.
    pub fn succeeded(&self) {
        // Mostly it is zero already, and the cache line stays shared.
        if self.failures.load(Ordering::Relaxed) != 0 {
            self.failures.store(0, Ordering::Release);
        }
    }

    /// One more failure; true if this was the one that opened the breaker.
    pub fn failed(&self, now: Instant) -> bool {
        let before =
            self.failures.fetch_update(Ordering::AcqRel, Ordering::Acquire, |n| Some(n.saturating_add(1)));
        let opened = before == Ok(THRESHOLD - 1);
        if opened {
            self.next_probe.store(self.later(now), Ordering::Release);
        }
        opened
    }

    /// A failure that leaves no doubt, such as a refused connection.
    pub fn trip(&self, now: Instant) {
        if self.failures.swap(THRESHOLD, Ordering::AcqRel) < THRESHOLD {
            self.next_probe.store(self.later(now), Ordering::Release);
        }
    }

    /// A time after which to look again.
    pub(crate) fn pause() -> Duration {
        Duration::from_millis(fastrand::u64(PROBE_MILLIS))
    }

    fn later(&self, now: Instant) -> u64 {
        self.nanos(now + Self::pause())
    }

    fn nanos(&self, time: Instant) -> u64 {
        u64::try_from(time.saturating_duration_since(self.origin).as_nanos()).unwrap_or(u64::MAX)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_opens_after_three_failures_in_a_row_and_closes_with_a_success() {
        let now = Instant::now();
        let breaker = Breaker::new(now);
        assert!(!breaker.failed(now) && !breaker.failed(now));
        breaker.succeeded();
        assert!(!breaker.failed(now) && !breaker.failed(now));
        assert_eq!(breaker.check(now), Verdict::Closed);
        assert!(breaker.failed(now));
        assert_eq!(breaker.check(now), Verdict::Open);
        assert!(!breaker.failed(now), "opened once");
        breaker.succeeded();
        assert_eq!(breaker.check(now), Verdict::Closed);
    }

    #[test]
    fn one_caller_at_a_time_is_asked_to_look_and_never_less_often_than_every_400_ms() {
        let mut now = Instant::now();
        let breaker = Breaker::new(now);
        breaker.trip(now);
        for _ in 0..1_000 {
            let mut waited = 0;
            let mut verdict = breaker.check(now);
            while verdict == Verdict::Open {
                now += Duration::from_millis(1);
                waited += 1;
                verdict = breaker.check(now);
            }
            assert_eq!(verdict, Verdict::Probe);
            assert!((100..=400).contains(&waited), "{waited} ms");
            assert_eq!(breaker.check(now), Verdict::Open, "the others go on failing at once");
        }
    }
}
