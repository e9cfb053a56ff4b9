//! Where time comes from: the system, or a test that moves it by hand.

mod timer;

use std::fmt;
use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

pub(crate) use timer::Sleep;

use self::timer::Timers;

/// A point of monotonic time, in nanoseconds since its clock began.
///
/// Only ticks of one clock can be compared.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(u64);

impl Tick {
    /// A tick that never comes: what has this as its expiry does not expire.
    pub const NEVER: Self = Self(u64::MAX);

    /// The tick `life` later; one too far away to be counted is [`NEVER`](Self::NEVER).
    #[must_use]
    pub fn after(self, life: Duration) -> Self {
        let nanos = u64::try_from(life.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_add(nanos))
    }

    /// The tick so much earlier, or the first one.
    #[must_use]
    pub(crate) fn before(self, life: Duration) -> Self {
        let nanos = u64::try_from(life.as_nanos()).unwrap_or(u64::MAX);
        Self(self.0.saturating_sub(nanos))
    }

    /// The time since `earlier`, or zero if it is not earlier.
    #[must_use]
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }

    pub(crate) fn to_bits(self) -> u64 {
        self.0
    }
}

/// A handle to time, cheaply cloned.
///
/// Waiting and expiry in this process go by the monotonic [`now`](Self::now). The wall clock only dates
/// what other processes read, and only ever shortens trust in it.
#[derive(Clone)]
pub struct Clock(Source);

#[derive(Clone)]
enum Source {
    System,
    Manual(Arc<Manual>),
}

/// Where the ticks of the system's clock begin.
static ORIGIN: LazyLock<Instant> = LazyLock::new(Instant::now);

struct Manual {
    nanos: AtomicU64,
    timers: Timers,
    /// Negative after a jump to before the time that has passed.
    unix_millis_at_origin: AtomicI64,
}

impl Clock {
    /// The clock of the system.
    #[must_use]
    pub fn system() -> Self {
        Self(Source::System)
    }

    /// Monotonic time.
    #[must_use]
    pub fn now(&self) -> Tick {
        match &self.0 {
            Source::System => {
                // 584 years fit.
                Tick(u64::try_from(ORIGIN.elapsed().as_nanos()).unwrap_or(u64::MAX - 1))
            }
            Source::Manual(manual) => Tick(manual.nanos.load(Ordering::SeqCst)),
        }
    }

    /// Wall-clock time in milliseconds since 1970; zero before.
    #[must_use]
    pub fn unix_millis(&self) -> u64 {
        match &self.0 {
            Source::System => SystemTime::now()
                .duration_since(UNIX_EPOCH)
                .map_or(0, |since| u64::try_from(since.as_millis()).unwrap_or(u64::MAX)),
            Source::Manual(manual) => {
                let elapsed = manual.nanos.load(Ordering::SeqCst) / 1_000_000;
                elapsed.saturating_add_signed(manual.unix_millis_at_origin.load(Ordering::SeqCst))
            }
        }
    }

    /// Waits for a tick, on no runtime's timer. Cancel-safe.
    pub(crate) fn sleep_until(&self, until: Tick) -> Sleep {
        Sleep::new(self.clone(), until)
    }

    /// Waits for as long as this from now on.
    pub(crate) fn sleep(&self, life: Duration) -> Sleep {
        self.sleep_until(self.now().after(life))
    }

    fn is_system(&self) -> bool {
        matches!(self.0, Source::System)
    }

    fn timers(&self) -> &Timers {
        match &self.0 {
            Source::System => &timer::SYSTEM,
            Source::Manual(manual) => &manual.timers,
        }
    }
}

/// A pause of which up to half is left to chance, so that not all who pause go on at once.
pub(crate) fn jittered(longest: Duration) -> Duration {
    longest.mul_f64(1.0 - fastrand::f64() / 2.0)
}

impl Default for Clock {
    fn default() -> Self {
        Self::system()
    }
}

impl fmt::Debug for Clock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.0 {
            Source::System => "Clock::System",
            Source::Manual(_) => "Clock::Manual",
        })
    }
}

/// Time that stands still until a test moves it.
///
/// ```
/// use cache_kit::{Clock, ManualClock};
/// use std::time::Duration;
///
/// let time = ManualClock::new();
/// let clock: Clock = time.clock();
/// let start = clock.now();
/// time.advance(Duration::from_secs(60));
/// assert_eq!(clock.now().since(start), Duration::from_secs(60));
/// ```
#[derive(Clone)]
pub struct ManualClock(Arc<Manual>);

impl ManualClock {
    /// A clock that stands at the first second of 2020.
    #[must_use]
    pub fn new() -> Self {
        Self(Arc::new(Manual {
            nanos: AtomicU64::new(0),
            timers: Timers::new(),
            unix_millis_at_origin: AtomicI64::new(1_577_836_800_000),
        }))
    }

    /// A handle to this time, for the code under test.
    #[must_use]
    pub fn clock(&self) -> Clock {
        Clock(Source::Manual(Arc::clone(&self.0)))
    }

    /// Moves monotonic and wall-clock time forward, and wakes whoever waited for it.
    pub fn advance(&self, by: Duration) {
        let nanos = u64::try_from(by.as_nanos()).unwrap_or(u64::MAX);
        let _ = self.0.nanos.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |now| {
            // One short of NEVER, so that even then nothing that never expires does.
            Some(now.saturating_add(nanos).min(u64::MAX - 1))
        });
        self.0.timers.fire(self.clock().now());
    }

    /// Makes the wall clock jump to `unix_millis`, as an administrator or a time service might; monotonic
    /// time does not move.
    pub fn set_unix_millis(&self, unix_millis: u64) {
        let elapsed = self.0.nanos.load(Ordering::SeqCst) / 1_000_000;
        // Nanoseconds in 64 bits are far fewer milliseconds than 63 bits hold.
        let origin = unix_millis.cast_signed().saturating_sub_unsigned(elapsed);
        self.0.unix_millis_at_origin.store(origin, Ordering::SeqCst);
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for ManualClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ManualClock")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_too_long_to_count_never_ends() {
        let clock = ManualClock::new();
        clock.advance(Duration::from_secs(5));
        assert_eq!(clock.clock().now().after(Duration::MAX), Tick::NEVER);
        clock.advance(Duration::MAX);
        assert!(clock.clock().now() < Tick::NEVER);
    }

    #[test]
    fn the_wall_clock_can_jump_without_moving_monotonic_time() {
        let time = ManualClock::new();
        let clock = time.clock();
        time.advance(Duration::from_secs(10));
        let before = clock.now();
        time.set_unix_millis(5_000);
        assert_eq!(clock.unix_millis(), 5_000);
        assert_eq!(clock.now(), before);
        time.advance(Duration::from_millis(7));
        assert_eq!(clock.unix_millis(), 5_007);
    }

    #[test]
    fn the_system_clock_moves_forward() {
        let clock = Clock::system();
        let first = clock.now();
        assert!(clock.now() >= first);
        assert!(clock.unix_millis() > 1_577_836_800_000);
    }
}
