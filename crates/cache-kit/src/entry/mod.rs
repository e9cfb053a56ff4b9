//! The envelope: what is stored under a key. Pure functions on bytes.
//!
//! A fixed header of 72 bytes stands in front of the payload, all numbers little-endian:
//!
//! | at | bytes | field |
//! |---:|---:|---|
//! | 0 | 4 | `CKIT` |
//! | 4 | 1 | format, 1 |
//! | 5 | 1 | flags, none so far; an unknown flag makes the entry a miss |
//! | 6 | 1 | codec: 1 postcard, 2 MessagePack, 3 JSON |
//! | 7 | 1 | length of the header, 72 |
//! | 8 | 8 | schema: hash of the type's name and version |
//! | 16 | 16 | key: hash of the full key |
//! | 32 | 8 | written at, in milliseconds since 1970 |
//! | 40 | 8 | fresh until, likewise; all ones is without end |
//! | 48 | 8 | expires at, likewise |
//! | 56 | 4 | what the load cost, in microseconds |
//! | 60 | 4 | length of the payload |
//! | 64 | 8 | checksum: XXH3-64 of the payload, xor that of the 64 bytes before, rotated left by one |
//! | 72 | | payload |

mod codec;
mod header;
mod shape;

use std::any::type_name;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Duration;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64_with_seed;

pub use codec::Codec;
pub(crate) use header::Header;

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
        }
    }
}

/// The schema of a type: a hash of its name, with the version as seed.
///
/// Renaming or moving a type, or raising the version, makes the old entries misses.
pub(crate) fn schema_of<T>(version: u32) -> u64 {
    xxh3_64_with_seed(type_name::<T>().as_bytes(), u64::from(version))
}

/// What goes into the header of a new entry beside the value itself.
#[derive(Clone, Copy)]
pub(crate) struct Stamp {
    pub(crate) schema: u64,
    pub(crate) key_hash: u128,
    pub(crate) written_at: u64,
    pub(crate) ttl: Option<Duration>,
    /// For how long it is kept after that.
    pub(crate) stale: Duration,
    pub(crate) load_cost: Duration,
}

/// Encodes a value behind a header.
///
/// With `verify` the value is decoded again and compared, which finds what a codec would silently misread.
pub(crate) fn seal<T: CacheValue>(
    value: &T,
    codec: Codec,
    stamp: &Stamp,
    verify: bool,
    max_bytes: usize,
) -> Result<Bytes> {
    // Serializers are somebody else's code.
    let encoded = catch_unwind(AssertUnwindSafe(|| codec.encode(value, vec![0; header::LEN])))
        .unwrap_or_else(|_| Err(Error::new(ErrorKind::Codec, "the serializer panicked")));
    let mut entry = encoded.map_err(|error| {
        error.with_hint(format!("`{}` cannot be written as {codec}; {}", type_name::<T>(), codec.remedy()))
    })?;
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
    if verify {
        check_roundtrip(value, codec, &entry[header::LEN..])?;
    }
    Header::new(codec.id(), stamp, entry.len()).write(&mut entry);
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
    let life = (header.expires_at != header::NEVER).then(|| Duration::from_millis(header.expires_at - now));
    let mut expired = entry.to_vec();
    header.write(&mut expired);
    Some((expired.into(), life))
}

/// Reads an entry, if it is one for this key and type, and whole.
pub(crate) fn open<T: CacheValue>(
    entry: &[u8],
    key_hash: u128,
    schema: u64,
    max_bytes: usize,
) -> Result<(T, Header), Reject> {
    if entry.len() > max_bytes {
        return Err(Reject::TooLarge);
    }
    let (header, payload) = Header::parse(entry)?;
    if header.key_hash != key_hash {
        return Err(Reject::WrongKey);
    }
    if header.schema != schema {
        return Err(Reject::WrongSchema);
    }
    let codec = Codec::from_id(header.codec).ok_or(Reject::UnknownFormat)?;
    let value = catch_unwind(AssertUnwindSafe(|| codec.decode(payload)));
    value.ok().flatten().map(|value| (value, header)).ok_or(Reject::Undecodable)
}

#[cfg(test)]
mod tests;
