//! How a lifetime goes onto the wire.
//!
//! memcached counts whole seconds, takes a number beyond 30 days for a point in time, and takes zero for ever. A
//! duration that is merely cut to seconds turns 500 ms into for ever, and 31 days into the year 1970.

use std::error::Error;
use std::fmt;
use std::time::Duration;

/// The largest number that memcached reads as seconds from now: 30 days.
const MAX_RELATIVE: u64 = 60 * 60 * 24 * 30;
/// The largest number that memcached reads at all. What is above it wraps, to a time that has passed.
const MAX_ABSOLUTE: u64 = i32::MAX as u64;

/// An expiry as memcached reads it: zero for never, seconds from now, or a point in time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Exptime(u32);

impl Exptime {
    /// Never expires. The server may still evict the item when it needs the room.
    pub const NEVER: Self = Self(0);

    /// The expiry at the latest after this time, in whole seconds rounded down but at least one: for an item that is
    /// stored again with the time that it has left, and must not live longer for it.
    #[must_use]
    pub fn within(time: Duration, unix_now_secs: u64) -> Self {
        Self::of(time.as_secs().max(1), unix_now_secs)
    }

    fn of(seconds: u64, unix_now_secs: u64) -> Self {
        if seconds <= MAX_RELATIVE {
            return u32::try_from(seconds).map_or(Self::NEVER, Self);
        }
        let end = seconds.saturating_add(unix_now_secs);
        // An end after January 2038 cannot be written. Nobody can tell an entry that outlives it from one that stays
        // for ever, and any other number would end it long before.
        u32::try_from(end).ok().filter(|_| end <= MAX_ABSOLUTE).map_or(Self::NEVER, Self)
    }

    /// The number that is written, at most 2,147,483,647.
    #[must_use]
    pub fn get(self) -> u32 {
        self.0
    }
}

/// A lifetime of zero was asked for, which memcached would take for an endless one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ZeroTtl;

impl fmt::Display for ZeroTtl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(
            "a ttl of zero stores nothing; give a longer one, or none for an entry that never expires",
        )
    }
}

impl Error for ZeroTtl {}

/// The expiry for a lifetime, of which `None` is for ever. `unix_now_secs` is the time in seconds since 1970; it
/// matters for lifetimes beyond 30 days only, and there an error of this clock against the server's is one of the
/// expiry.
///
/// Fractions are rounded up, and a second is added: the clock of memcached moves once a second, so an entry that it
/// is to keep for one second may be gone after 20 ms. An entry lives as long as asked for, and up to two seconds longer.
///
/// # Errors
///
/// A lifetime of zero.
///
/// ```
/// use std::time::Duration;
/// use cache_kit_memcached::ttl::exptime;
///
/// let now = 1_800_000_000;
/// assert_eq!(exptime(Some(Duration::from_millis(500)), now)?.get(), 2);
/// assert_eq!(exptime(Some(Duration::from_secs(31 * 86_400)), now)?.get(), 1_802_678_401);
/// assert_eq!(exptime(None, now)?.get(), 0);
/// assert!(exptime(Some(Duration::ZERO), now).is_err());
/// # Ok::<(), cache_kit_memcached::ttl::ZeroTtl>(())
/// ```
pub fn exptime(ttl: Option<Duration>, unix_now_secs: u64) -> Result<Exptime, ZeroTtl> {
    let Some(ttl) = ttl else { return Ok(Exptime::NEVER) };
    if ttl.is_zero() {
        return Err(ZeroTtl);
    }
    let rounded_up = ttl.as_secs().saturating_add(u64::from(ttl.subsec_nanos() > 0));
    Ok(Exptime::of(rounded_up.saturating_add(1), unix_now_secs))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const NOW: u64 = 1_800_000_000;
    const DAY: u64 = 86_400;

    #[test]
    fn what_is_stored_again_lives_no_longer_than_before() {
        for (left, written) in
            [(0, 1), (1, 1), (59, 59), (30 * DAY, 30 * DAY), (31 * DAY, NOW + 31 * DAY), (u64::MAX, 0)]
        {
            let exptime = Exptime::within(Duration::from_secs(left), NOW);
            assert_eq!(u64::from(exptime.get()), written, "{left}");
        }
        assert_eq!(Exptime::within(Duration::from_millis(1_999), NOW).get(), 1);
    }

    fn written(ttl: Duration) -> u64 {
        exptime(Some(ttl), NOW).unwrap().get().into()
    }

    #[test]
    fn no_ttl_is_for_ever_and_a_ttl_of_zero_is_refused() {
        assert_eq!(exptime(None, NOW), Ok(Exptime::NEVER));
        assert_eq!(exptime(Some(Duration::ZERO), NOW), Err(ZeroTtl));
    }

    #[test]
    fn fractions_are_rounded_up_and_one_second_is_added() {
        assert_eq!(written(Duration::from_nanos(1)), 2);
        assert_eq!(written(Duration::from_millis(999)), 2);
        assert_eq!(written(Duration::from_secs(1)), 2);
        assert_eq!(written(Duration::from_millis(1_001)), 3);
        assert_eq!(written(Duration::from_secs(60)), 61);
    }

    #[test]
    fn beyond_30_days_it_is_a_point_in_time() {
        assert_eq!(written(Duration::from_secs(30 * DAY - 1)), 2_592_000);
        assert_eq!(written(Duration::from_millis((30 * DAY - 1) * 1_000 + 1)), NOW + 2_592_001);
        assert_eq!(written(Duration::from_secs(30 * DAY)), NOW + 2_592_001);
        assert_eq!(written(Duration::from_secs(30 * DAY + 1)), NOW + 2_592_002);
    }

    #[test]
    fn what_ends_after_2038_never_ends() {
        let left = MAX_ABSOLUTE - NOW;
        assert_eq!(written(Duration::from_secs(left - 1)), MAX_ABSOLUTE);
        assert_eq!(written(Duration::from_secs(left)), 0);
        assert_eq!(written(Duration::MAX), 0);
        assert_eq!(exptime(Some(Duration::from_secs(31 * DAY)), u64::MAX), Ok(Exptime::NEVER));
        assert_eq!(exptime(Some(Duration::from_secs(1)), u64::MAX).unwrap().get(), 2);
    }

    proptest! {
        #[test]
        fn an_entry_lives_as_long_as_asked_for_and_no_more_than_two_seconds_longer(
            nanos in prop_oneof![1..5_000_000_000_u64, any::<u64>()],
            now in 0..MAX_ABSOLUTE,
        ) {
            let ttl = Duration::from_nanos(nanos);
            let number = u64::from(exptime(Some(ttl), now).unwrap().get());
            prop_assert!(number <= MAX_ABSOLUTE);
            let lifetime = if number > MAX_RELATIVE { number - now } else { number };
            if number == 0 {
                prop_assert!(now + ttl.as_secs() + 2 > MAX_ABSOLUTE);
            } else {
                let longer = Duration::from_secs(lifetime) - ttl;
                prop_assert!(longer >= Duration::from_secs(1) && longer < Duration::from_secs(2));
            }
        }
    }
}
