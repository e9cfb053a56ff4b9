//! How a leased key looks on the server.
//!
//! A value is stored as it is, so that any client can read it. A key that is leased holds a *stub*: a mark, the
//! token, the end of the lease by the server's clock, and the value that is kept under it, if there is one. A
//! value that happens to begin with a mark is stored behind another one.
//!
//! | at | bytes | field |
//! |---:|---:|---|
//! | 0 | 16 | mark; its last byte tells stubs from escaped values |
//! | 16 | 16 | token |
//! | 32 | 16 | end of the lease in milliseconds since 1970, as hexadecimal digits |
//! | 48 | 1 | `1` if a value is kept, which follows |

use bytes::Bytes;

/// What no value begins with by chance: drawn once, at random.
const COMMON: [u8; 15] =
    [0x93, 0x1f, 0xc4, 0x0e, 0xb7, 0x5a, 0xd2, 0x68, 0x81, 0x3c, 0xf9, 0x26, 0xae, 0x47, 0xdb];
const STUB: u8 = b'L';
const ESCAPE: u8 = b'E';

/// Length of the mark.
pub(super) const MARK_LEN: usize = 16;
/// Length of a stub without a value.
pub(super) const STUB_LEN: usize = 49;

const fn mark(last: u8) -> [u8; MARK_LEN] {
    let mut mark = [last; MARK_LEN];
    let mut at = 0;
    while at < COMMON.len() {
        mark[at] = COMMON[at];
        at += 1;
    }
    mark
}

/// Begins a stub.
pub(super) const STUB_MARK: [u8; MARK_LEN] = mark(STUB);
/// Begins a value that would be taken for a stub or an escaped value otherwise.
pub(super) const ESCAPE_MARK: [u8; MARK_LEN] = mark(ESCAPE);

/// What a key holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Held {
    Value(Bytes),
    /// A lease, and what is kept under it.
    Leased(Option<Bytes>),
}

impl Held {
    /// What a read finds: a lease is a miss, what is kept under it is not.
    pub(super) fn visible(self) -> Option<Bytes> {
        match self {
            Self::Value(value) => Some(value),
            Self::Leased(kept) => kept,
        }
    }
}

/// Reads what a key holds.
pub(super) fn parse(stored: Bytes) -> Held {
    if stored.starts_with(&ESCAPE_MARK) {
        return Held::Value(stored.slice(MARK_LEN..));
    }
    if stored.len() >= STUB_LEN && stored.starts_with(&STUB_MARK) {
        let kept = (stored[STUB_LEN - 1] == b'1').then(|| stored.slice(STUB_LEN..));
        return Held::Leased(kept.map(|kept| match parse(kept) {
            // What is kept was stored, and may have been escaped.
            Held::Value(value) => value,
            Held::Leased(_) => Bytes::new(),
        }));
    }
    Held::Value(stored)
}

/// Whether the first [`STUB_LEN`] bytes under a key are those of a lease that keeps no value.
pub(super) fn is_bare(head: &[u8]) -> bool {
    head.len() == STUB_LEN && head.starts_with(&STUB_MARK) && head.ends_with(b"0")
}

/// How a value is stored.
pub(super) fn escape(value: Bytes) -> Bytes {
    if value.starts_with(&COMMON) {
        return [&ESCAPE_MARK[..], &value].concat().into();
    }
    value
}

/// The stub of an absent key.
pub(super) fn stub(token: u128, end_millis: u64) -> Vec<u8> {
    let mut stub = Vec::with_capacity(STUB_LEN);
    stub.extend_from_slice(&STUB_MARK);
    stub.extend_from_slice(&token.to_be_bytes());
    stub.extend_from_slice(format!("{end_millis:016x}").as_bytes());
    stub.push(b'0');
    stub
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_stored_as_they_are() {
        for value in [&b""[..], b"plain", b"CKIT\x01", &STUB_MARK[..15], b"\0\xff"] {
            let stored = escape(Bytes::copy_from_slice(value));
            assert_eq!(stored == value, !value.starts_with(&COMMON));
            assert_eq!(parse(stored).visible().unwrap(), value);
        }
    }

    #[test]
    fn a_value_that_looks_like_a_stub_stays_a_value() {
        for pretender in
            [stub(7, 9), [&ESCAPE_MARK[..], b"x"].concat(), [&ESCAPE_MARK[..], &stub(1, 2)].concat()]
        {
            let stored = escape(Bytes::from(pretender.clone()));
            assert_eq!(parse(stored).visible().unwrap(), pretender);
        }
    }

    #[test]
    fn a_stub_is_a_miss_and_what_it_keeps_is_not() {
        assert_eq!(stub(1, 2).len(), STUB_LEN);
        assert_eq!(parse(stub(1, 2).into()), Held::Leased(None));
        let mut keeping = stub(1, 2);
        keeping[STUB_LEN - 1] = b'1';
        keeping.extend_from_slice(b"stale");
        assert_eq!(parse(keeping.into()).visible().unwrap(), "stale");
    }
}
