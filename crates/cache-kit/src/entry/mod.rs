//! The envelope: what is stored under a key. Pure functions on bytes.
//!
//! A fixed header of 80 bytes stands in front of the body, all numbers little-endian:
//!
//! | at | bytes | field |
//! |---:|---:|---|
//! | 0 | 4 | `CKIT` |
//! | 4 | 1 | format, 2 |
//! | 5 | 1 | flags: 1 absent, 2 tagged, 4 sliding, 8 validated; an unknown flag makes the entry a miss |
//! | 6 | 1 | codec: 1 postcard, 2 MessagePack, 3 JSON |
//! | 7 | 1 | length of the header, 80 |
//! | 8 | 8 | schema: hash of the type's name and version; where it is known, of its shape too (`schema.rs`) |
//! | 16 | 16 | key: hash of the full key |
//! | 32 | 8 | written at, in milliseconds since 1970 |
//! | 40 | 8 | fresh until, likewise; all ones is without end |
//! | 48 | 8 | expires at, likewise |
//! | 56 | 4 | what the load cost, in microseconds |
//! | 60 | 4 | length of the body |
//! | 64 | 8 | version of the namespace that the load began in |
//! | 72 | 8 | checksum: XXH3-64 of the body, xor that of the 72 bytes before, rotated left by one |
//! | 80 | | body |
//!
//! The body is, in this order:
//!
//! | flag | bytes | |
//! |---|---:|---|
//! | tagged | 1 | number of tags, then for each: one byte of length, the name, 8 bytes of version |
//! | sliding | 16 | milliseconds without a read after which it ends; when it ends at the latest |
//! | validated | 1 | length, then what the source calls this version of the value |
//! | | | payload; none where the flag says that the source does not have it |

mod codec;
mod extras;
mod header;
mod schema;
mod shape;

use std::any::type_name;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bytes::Bytes;
pub use codec::Codec;
pub(crate) use extras::{Extras, MAX_NAME_BYTES, MAX_TAGS};
pub(crate) use header::Header;
pub(crate) use schema::Schema;

use crate::entity::CacheValue;
use crate::error::{Error, ErrorKind, Result};

/// Why what a backend returned is not used. Each is a miss with a counter of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Reject {
    /// Not an entry of this crate.
    Foreign,
    /// An entry of a format, with flags, or of a codec that this build does not know.
    UnknownFormat,
    /// Cut short.
    Truncated,
    /// The checksum does not fit.
    Corrupt,
    /// Stored for another key.
    WrongKey,
    /// Stored for another type, or another version of it.
    WrongSchema,
    /// Larger than this cache accepts.
    TooLarge,
    /// Whole, but the payload cannot be decoded.
    Undecodable,
    /// Its namespace, or a tag of it, was invalidated since it was loaded.
    Invalidated,
}

impl Reject {
    #[cfg(feature = "tracing")]
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Foreign => "not an entry of this cache",
            Self::UnknownFormat => "unknown format",
            Self::Truncated => "truncated",
            Self::Corrupt => "corrupt",
            Self::WrongKey => "stored for another key",
            Self::WrongSchema => "another type or version",
            Self::TooLarge => "too large",
            Self::Undecodable => "cannot be decoded",
            Self::Invalidated => "its namespace or a tag was invalidated",
        }
    }
}

/// What goes into a new entry beside the value itself.
#[derive(Clone, Copy)]
pub(crate) struct Stamp<'a> {
    pub(crate) schema: Schema,
    pub(crate) key_hash: u128,
    pub(crate) written_at: u64,
    pub(crate) ttl: Option<Duration>,
    /// After how long without a read it ends.
    pub(crate) idle: Option<Duration>,
    /// For how long it is kept after that.
    pub(crate) stale: Duration,
    pub(crate) load_cost: Duration,
    /// The version of the namespace.
    pub(crate) space: u64,
    /// Tags and their versions.
    pub(crate) tags: &'a [(Box<str>, u64)],
    /// What the source calls this version of the value.
    pub(crate) validator: Option<&'a str>,
}

/// Encodes a value behind a header; `None` says that the source does not have it.
///
/// With `verify` the value is decoded again and compared, which finds what a codec would silently misread.
pub(crate) fn seal<T: CacheValue>(
    value: Option<&T>,
    codec: Codec,
    stamp: &Stamp<'_>,
    verify: bool,
    max_bytes: usize,
) -> Result<Bytes> {
    let mut head = vec![0; header::LEN];
    extras::write(stamp, &mut head);
    let payload_at = head.len();
    let mut entry = match value {
        Some(value) => {
            // Serializers are somebody else's code.
            let encoded = catch_unwind(AssertUnwindSafe(|| codec.encode(value, head)))
                .unwrap_or_else(|_| Err(Error::new(ErrorKind::Codec, "the serializer panicked")));
            encoded.map_err(|error| {
                let remedy = codec.remedy();
                error.with_hint(format!("`{}` cannot be written as {codec}; {remedy}", type_name::<T>()))
            })?
        }
        None => head,
    };
    // The header counts in 32 bits.
    let max_bytes = max_bytes.min(u32::MAX as usize);
    if entry.len() > max_bytes {
        return Err(Error::new(
            ErrorKind::TooLarge,
            format!("an entry of {} bytes is more than the {max_bytes} that are allowed", entry.len()),
        )
        .with_hint(
            "raise max_value_bytes (and the server's own limit), or do not cache values of this size",
        ));
    }
    if let Some(value) = value
        && verify
    {
        check_roundtrip(value, codec, &entry[payload_at..])?;
    }
    let flags = extras::flags(stamp, value.is_none());
    Header::new(codec.id(), flags, stamp, entry.len()).write(&mut entry);
    Ok(entry.into())
}

fn check_roundtrip<T: CacheValue>(value: &T, codec: Codec, payload: &[u8]) -> Result<()> {
    let same = || {
        let decoded = codec.decode::<T>(payload)?;
        Some(shape::digest(value)? == shape::digest(&decoded)?)
    };
    if catch_unwind(AssertUnwindSafe(same)).ok().flatten() == Some(true) {
        return Ok(());
    }
    Err(Error::new(
        ErrorKind::Codec,
        format!("`{}` written as {codec} does not read back as it was", type_name::<T>()),
    )
    .with_hint(codec.remedy()))
}

/// An entry with its fresh life ended at `now`, and how long it is still to be kept; `None` if it is none for this key, or
/// is not kept any longer.
pub(crate) fn expired(entry: &[u8], key_hash: u128, now: u64) -> Option<(Bytes, Option<Duration>)> {
    let (mut header, _) = Header::parse(entry).ok().filter(|(header, _)| header.key_hash == key_hash)?;
    if header.expires_at <= now {
        return None;
    }
    header.fresh_until = header.fresh_until.min(now);
    Some(rewritten(header, entry, now))
}

/// An entry whose life goes on from `now`, since it was read, and how long it is to be kept; `None` if there is nothing to
/// be gained.
pub(crate) fn touched(entry: &[u8], now: u64) -> Option<(Bytes, Option<Duration>)> {
    let (mut header, body) = Header::parse(entry).ok()?;
    let sliding = extras::parse(&header, body).ok()?.0.sliding?;
    if now >= header.fresh_until || !sliding.is_due(header.fresh_until, now) {
        return None;
    }
    let stale = header.expires_at.saturating_sub(header.fresh_until);
    header.fresh_until = sliding.fresh_until(now);
    header.expires_at = header.fresh_until.saturating_add(stale);
    Some(rewritten(header, entry, now))
}

fn rewritten(header: Header, entry: &[u8], now: u64) -> (Bytes, Option<Duration>) {
    let left = header.expires_at.saturating_sub(now);
    let life = (header.expires_at != header::NEVER).then(|| Duration::from_millis(left));
    let mut changed = entry.to_vec();
    header.write(&mut changed);
    (changed.into(), life)
}

/// An entry that is one for this key and type, and whole.
#[derive(Debug)]
pub(crate) struct Entry<'a> {
    pub(crate) header: Header,
    pub(crate) extras: Extras<'a>,
    payload: &'a [u8],
}

impl<'a> Entry<'a> {
    /// Reads an entry up to its payload.
    pub(crate) fn read(
        entry: &'a [u8],
        key_hash: u128,
        schema: Schema,
        max_bytes: usize,
    ) -> Result<Self, Reject> {
        if entry.len() > max_bytes {
            return Err(Reject::TooLarge);
        }
        let (header, body) = Header::parse(entry)?;
        if header.key_hash != key_hash {
            return Err(Reject::WrongKey);
        }
        if !schema.fits(header.schema) {
            return Err(Reject::WrongSchema);
        }
        let (extras, payload) = extras::parse(&header, body)?;
        Ok(Self { header, extras, payload })
    }

    /// The value, or that there is none at the source.
    pub(crate) fn value<T: CacheValue>(&self) -> Result<Option<T>, Reject> {
        if self.header.has(header::ABSENT) {
            return if self.payload.is_empty() { Ok(None) } else { Err(Reject::Corrupt) };
        }
        let codec = Codec::from_id(self.header.codec).ok_or(Reject::UnknownFormat)?;
        let value = catch_unwind(AssertUnwindSafe(|| codec.decode(self.payload)));
        value.ok().flatten().map(Some).ok_or(Reject::Undecodable)
    }
}

#[cfg(test)]
mod tests;
