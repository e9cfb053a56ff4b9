//! What is stored under a key: a value, or a lease that may keep one.
//!
//! The client flags of an item, 32 bits that the server keeps beside it, tell which. Their low eight bits are left to
//! the types that clients in other languages note there, and are zero:
//!
//! | bits | meaning |
//! |---|---|
//! | 8 | the value stands behind a head, for as long as somebody holds a lease over it |
//! | 9–31 | when it was written, in seconds since 1970, modulo 2^23 − 1 (97 days), plus one |
//!
//! So the flags of what is ours are never zero, and an item of no bytes whose flags are is the *stub* that `mg` makes:
//! a lease.
//!
//! A lease that was renewed cannot be an item of no bytes any more, which would be an empty value of another client. It
//! is a head alone, and what it says is that nothing is kept:
//!
//! | head | value | meaning |
//! |---|---|---|
//! | any flags but those below, any end | what follows | leased until that end, and readable |
//! | flags `0xffff_ffff`, an end of zero | none | leased until the server drops the item, and nothing to read |
//!
//! The head is the time when the lease ends (milliseconds since 1970, eight bytes), the flags of the value (four), and
//! a checksum of both (four), all big-endian. Without the right checksum it is no head, and the value another client's.

use bytes::{Buf as _, Bytes};
use xxhash_rust::xxh3::xxh3_64;

use super::unix_time;

const KEPT: u32 = 1 << 8;
const TIME_SHIFT: u32 = 9;
/// Times of writing repeat after so many seconds.
const CIRCLE: u64 = (1 << 23) - 1;
/// A clock that is ahead of ours by less than this is taken to be ahead, and not half a circle behind.
const MAX_SKEW: u64 = 86_400;
const HEAD: usize = TERMS + 4;
/// The time and the flags.
const TERMS: usize = 12;

/// Stands for the flags of the value where there is none. Those of ours have zeroes at their low end.
const NOTHING: u32 = u32::MAX;

/// An item as the server holds it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Item {
    pub(super) flags: u32,
    data: Bytes,
    /// When the lease over it ends, in milliseconds since 1970.
    pub(super) leased_until: Option<u64>,
}

/// The flags of a value that is written now.
pub(super) fn flags_now() -> u32 {
    flags_at(unix_time().as_secs())
}

fn flags_at(unix_secs: u64) -> u32 {
    u32::try_from(unix_secs % CIRCLE + 1).unwrap_or(1) << TIME_SHIFT
}

/// A lease that keeps nothing, as it is stored when it is renewed: flags and data.
pub(super) fn renewed() -> (u32, Vec<u8>) {
    Item { flags: NOTHING, data: Bytes::new(), leased_until: None }.leased(0)
}

fn checksum(terms: &[u8]) -> [u8; HEAD - TERMS] {
    let [.., a, b, c, d] = xxh3_64(terms).to_be_bytes();
    [a, b, c, d]
}

impl Item {
    pub(super) fn new(flags: u32, mut data: Bytes) -> Self {
        if flags & KEPT != 0
            && flags >> TIME_SHIFT != 0
            && let Some((head, _)) = data.split_first_chunk::<HEAD>()
            && head[TERMS..] == checksum(&head[..TERMS])
        {
            let (until, flags) = (data.get_u64(), data.get_u32());
            data.advance(HEAD - TERMS);
            return Self { flags, data, leased_until: Some(until) };
        }
        Self { flags, data, leased_until: None }
    }

    /// Whether it is a lease that keeps nothing, as `mg` makes it.
    pub(super) fn is_stub(&self) -> bool {
        self.flags == 0 && self.data.is_empty() && self.leased_until.is_none()
    }

    /// Whether it is a lease that keeps nothing, and was renewed. By no clock of ours: the server drops it at its end.
    pub(super) fn is_renewed(&self) -> bool {
        self.flags == NOTHING && self.data.is_empty() && self.leased_until == Some(0)
    }

    /// What a reader sees, of a server that was last known to have missed something at this second (zero for never).
    pub(super) fn visible(self, missed_at: u64) -> Option<Bytes> {
        let keeps_nothing = self.is_stub() || self.is_renewed();
        if keeps_nothing || (missed_at != 0 && !self.is_written_after(missed_at, unix_time().as_secs())) {
            return None;
        }
        Some(self.data)
    }

    /// What it is when nobody knows whether to trust it.
    pub(super) fn data(&self) -> &Bytes {
        &self.data
    }

    /// The same value behind a head, as it is stored while it is leased; and the flags to store it with.
    pub(super) fn leased(&self, until: u64) -> (u32, Vec<u8>) {
        let mut data = Vec::with_capacity(HEAD + self.data.len());
        data.extend_from_slice(&until.to_be_bytes());
        data.extend_from_slice(&self.flags.to_be_bytes());
        let sum = checksum(&data);
        data.extend_from_slice(&sum);
        data.extend_from_slice(&self.data);
        ((flags_now() & !0xff) | KEPT, data)
    }

    /// Whether it says that it was written after this second. What others wrote says nothing.
    fn is_written_after(&self, second: u64, now: u64) -> bool {
        let written = u64::from(self.flags >> TIME_SHIFT);
        if written == 0 {
            return false;
        }
        // Ages, since the times go in a circle.
        let age = (now % CIRCLE + 1 + CIRCLE - written) % CIRCLE;
        let age = if age > CIRCLE - MAX_SKEW { 0 } else { age };
        age < now.saturating_sub(second)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: u64 = 1_800_000_000;

    #[test]
    fn flags_leave_the_low_bits_to_others_and_are_never_zero() {
        for secs in [0, 1, NOW, u64::MAX] {
            assert_eq!(flags_at(secs) & 0xff, 0);
            assert_ne!(flags_at(secs), 0);
            assert_eq!(flags_at(secs) & KEPT, 0);
        }
    }

    #[test]
    fn a_stub_is_nothing_and_an_empty_value_is_a_value() {
        assert!(Item::new(0, Bytes::new()).is_stub());
        assert_eq!(Item::new(0, Bytes::new()).visible(0), None);
        assert_eq!(Item::new(flags_at(NOW), Bytes::new()).visible(0), Some(Bytes::new()));
        assert_eq!(Item::new(0, Bytes::from("x")).visible(0), Some(Bytes::from("x")), "of another client");
    }

    #[test]
    fn a_value_that_is_leased_comes_back_as_it_was() {
        for flags in [flags_at(NOW), 0, 16] {
            let item = Item::new(flags, Bytes::from("value"));
            let (head_flags, data) = item.leased(77);
            let leased = Item::new(head_flags, data.into());
            assert_eq!((leased.flags, leased.leased_until), (flags, Some(77)));
            assert_eq!(leased.clone().visible(0), Some(Bytes::from("value")));
            assert!(!leased.is_stub());
        }
        // Of another client that happens to use the same bit.
        let foreign = Item::new(flags_at(NOW) | KEPT, Bytes::from("a value as long as a head"));
        assert_eq!(foreign.leased_until, None);
        assert_eq!(foreign.visible(0), Some(Bytes::from("a value as long as a head")));
        // Too short to be one of ours.
        let short = Item::new(flags_at(NOW) | KEPT, Bytes::from("short"));
        assert_eq!(short.leased_until, None);
    }

    #[test]
    fn a_renewed_lease_that_keeps_nothing_is_a_miss() {
        let (flags, data) = renewed();
        assert_eq!(data.len(), HEAD);
        let item = Item::new(flags, data.into());
        assert!(item.is_renewed() && !item.is_stub());
        assert_eq!(item.visible(0), None);
        // An empty value that is leased, whatever its flags.
        for flags in [flags_at(NOW), 0, NOTHING] {
            let (head_flags, data) = Item::new(flags, Bytes::new()).leased(77);
            let leased = Item::new(head_flags, data.into());
            assert!(!leased.is_renewed());
            assert_eq!(leased.visible(0), Some(Bytes::new()));
        }
    }

    #[test]
    fn what_was_written_before_the_server_was_away_is_not_trusted() {
        let written = |ago: u64| Item::new(flags_at(NOW - ago), Bytes::from("x"));
        for (ago, missed, trusted) in [
            (100, 50, false),
            (50, 50, false),
            (49, 50, true),
            (0, 50, true),
            (0, 0, false),
            (3_600, 86_400, true),
            (90 * 86_400, 86_400, false),
        ] {
            assert_eq!(written(ago).is_written_after(NOW - missed, NOW), trusted, "{ago} {missed}");
        }
        assert!(!Item::new(0, Bytes::from("x")).is_written_after(NOW - 50, NOW), "says nothing of its time");
        let ahead = Item::new(flags_at(NOW + 60), Bytes::from("x"));
        assert!(ahead.is_written_after(NOW - 50, NOW), "a clock that is ahead of ours");
    }
}
