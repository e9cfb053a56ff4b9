//! Replies, read from the front of what has arrived.

mod meta;
mod single;
mod stats;
mod values;

use bytes::{Buf as _, Bytes, BytesMut};

use self::meta::{Command, MetaExpect};
use self::single::Single;
use self::stats::StatsExpect;
use self::values::ValuesExpect;
use super::line::CRLF;
use super::{KeyList, Reply, Violation};

/// Values below this length are copied, so that one that is kept for long keeps its own bytes and not the whole buffer
/// it arrived in (of a `get` of many keys, the values that arrived together share one copy). Longer ones are cut out of the buffer: they are worth most of it, and copying them is what costs.
const COPIED_BELOW: usize = 4_096;

/// The longest value that is believed: memcached measures lengths with 31 bits.
const MOST: usize = i32::MAX as usize;

/// What a reply may not exceed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// The longest value in bytes. A reply that announces a longer one is a [`Violation`], before anything is kept
    /// for it.
    pub max_value: usize,
}

impl Limits {
    /// Limits with this longest value.
    #[must_use]
    pub const fn new(max_value: usize) -> Self {
        Self { max_value }
    }
}

impl Default for Limits {
    /// 1 MiB: what memcached stores by default (`-I`).
    fn default() -> Self {
        Self::new(1 << 20)
    }
}

/// What one request still expects, with the state of a reply that has arrived in part. It is good for one reply.
#[derive(Clone, Debug)]
pub struct Expect(Kind);

#[derive(Clone, Debug)]
enum Kind {
    Meta(MetaExpect),
    Single(Single),
    // Rare and large: a connection keeps many of these in a queue.
    Values(Box<ValuesExpect>),
    Stats(StatsExpect),
}

impl Expect {
    /// The reply to `mg`, which carries the opaque of the request.
    #[must_use]
    pub fn get(opaque: Option<u32>, limits: Limits) -> Self {
        Self(Kind::Meta(MetaExpect::new(Command::Get, opaque, limits.max_value.min(MOST))))
    }

    /// The reply to `ms`.
    #[must_use]
    pub fn set(opaque: Option<u32>) -> Self {
        Self(Kind::Meta(MetaExpect::new(Command::Set, opaque, 0)))
    }

    /// The reply to `md`.
    #[must_use]
    pub fn delete(opaque: Option<u32>) -> Self {
        Self(Kind::Meta(MetaExpect::new(Command::Delete, opaque, 0)))
    }

    /// The reply to `ma`.
    #[must_use]
    pub fn arithmetic(opaque: Option<u32>) -> Self {
        Self(Kind::Meta(MetaExpect::new(Command::Arithmetic, opaque, meta::MAX_NUMBER_LEN)))
    }

    /// The reply to `mn`.
    #[must_use]
    pub fn no_op() -> Self {
        Self(Kind::Single(Single::NoOp))
    }

    /// The reply to `me`.
    #[must_use]
    pub fn debug() -> Self {
        Self(Kind::Single(Single::Debug))
    }

    /// The reply to `get` of these keys.
    #[must_use]
    pub fn values(keys: KeyList, limits: Limits) -> Self {
        Self(Kind::Values(Box::new(ValuesExpect::new(keys, limits.max_value.min(MOST)))))
    }

    /// The reply to `stats`.
    #[must_use]
    pub fn stats() -> Self {
        Self(Kind::Stats(StatsExpect::default()))
    }

    /// The reply to `version`.
    #[must_use]
    pub fn version() -> Self {
        Self(Kind::Single(Single::Version))
    }

    /// The reply to `flush_all`.
    #[must_use]
    pub fn flushed() -> Self {
        Self(Kind::Single(Single::Flushed))
    }

    /// The reply to the `set` that authenticates.
    #[must_use]
    pub fn authenticated() -> Self {
        Self(Kind::Single(Single::Authenticated))
    }

    /// How many more bytes than the `have` that have arrived are needed, as far as it is known: room to make before the
    /// next read, bounded by [`Limits`]. Zero when there is no value under way.
    #[must_use]
    pub fn missing(&self, have: usize) -> usize {
        let awaited = match &self.0 {
            Kind::Meta(meta) => meta.awaited(),
            Kind::Values(values) => values.awaited(),
            Kind::Single(_) | Kind::Stats(_) => 0,
        };
        awaited.saturating_sub(have)
    }
}

/// Reads one reply from the front of `input`, and consumes its bytes and no other. `None` when more bytes are needed;
/// call again with the same `expect` when there are some behind those that are left. The result does not depend on
/// how the bytes arrive.
///
/// # Errors
///
/// Bytes that are no answer to the request. They stay in `input`, and the connection is of no use any more. An error
/// that the server reports is a reply, [`Reply::Refused`].
pub fn decode(expect: &mut Expect, input: &mut BytesMut) -> Result<Option<Reply>, Violation> {
    match &mut expect.0 {
        Kind::Meta(meta) => meta.decode(input),
        Kind::Single(single) => single.decode(input),
        Kind::Values(values) => values.decode(input),
        Kind::Stats(stats) => stats.decode(input),
    }
}

/// Consumes a header and the value of `len` bytes behind it. `None` while the value and its line end have not arrived.
fn take_value(input: &mut BytesMut, header: usize, len: usize) -> Result<Option<Bytes>, Violation> {
    let Some(end) = input.get(header + len..whole(header, len)) else { return Ok(None) };
    if end != CRLF {
        return Err(Violation::ValueNotEnded);
    }
    input.advance(header);
    let value = if len < COPIED_BELOW {
        let copy = Bytes::copy_from_slice(&input[..len]);
        input.advance(len);
        copy
    } else {
        input.split_to(len).freeze()
    };
    input.advance(CRLF.len());
    Ok(Some(value))
}

/// The length of a header with its value and line end.
const fn whole(header: usize, len: usize) -> usize {
    header + len + CRLF.len()
}

#[cfg(test)]
mod arrival_tests;
#[cfg(test)]
mod tests;
