//! The fixed header, read without allocating.

use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use super::{Reject, Stamp};

pub(super) const LEN: usize = 72;
const MAGIC: [u8; 4] = *b"CKIT";
const FORMAT: u8 = 1;
/// Where the checksum stands; it covers what is before it, and the payload.
const CHECKSUM_AT: usize = 64;

/// A time without end.
pub(super) const NEVER: u64 = u64::MAX;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(crate) codec: u8,
    pub(crate) schema: u64,
    pub(crate) key_hash: u128,
    /// Milliseconds since 1970, as all times here.
    pub(crate) written_at: u64,
    pub(crate) fresh_until: u64,
    pub(crate) expires_at: u64,
    pub(crate) load_cost_micros: u32,
    payload_len: u32,
}

impl Header {
    pub(super) fn new(codec: u8, stamp: &Stamp, entry_len: usize) -> Self {
        let after = |start: u64, life: Duration| {
            // Rounded up: an entry is never stale sooner than asked.
            let millis = life.as_nanos().div_ceil(1_000_000);
            u64::try_from(millis).unwrap_or(NEVER).saturating_add(start)
        };
        let fresh_until = stamp.ttl.map_or(NEVER, |ttl| after(stamp.written_at, ttl));
        Self {
            codec,
            schema: stamp.schema,
            key_hash: stamp.key_hash,
            written_at: stamp.written_at,
            fresh_until,
            expires_at: after(fresh_until, stamp.stale),
            load_cost_micros: micros(stamp.load_cost),
            payload_len: u32::try_from(entry_len - LEN).unwrap_or(u32::MAX),
        }
    }

    /// Writes itself into the first bytes of an entry whose payload is in place.
    pub(super) fn write(&self, entry: &mut [u8]) {
        let (head, payload) = entry.split_at_mut(LEN);
        head[..4].copy_from_slice(&MAGIC);
        head[4] = FORMAT;
        head[5] = 0;
        head[6] = self.codec;
        head[7] = LEN as u8;
        head[8..16].copy_from_slice(&self.schema.to_le_bytes());
        head[16..32].copy_from_slice(&self.key_hash.to_le_bytes());
        head[32..40].copy_from_slice(&self.written_at.to_le_bytes());
        head[40..48].copy_from_slice(&self.fresh_until.to_le_bytes());
        head[48..56].copy_from_slice(&self.expires_at.to_le_bytes());
        head[56..60].copy_from_slice(&self.load_cost_micros.to_le_bytes());
        head[60..64].copy_from_slice(&self.payload_len.to_le_bytes());
        let checksum = checksum(&head[..CHECKSUM_AT], payload);
        head[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
    }

    /// The header of an entry and its payload, if both are whole.
    pub(super) fn parse(entry: &[u8]) -> Result<(Self, &[u8]), Reject> {
        if !entry.starts_with(&MAGIC) {
            return Err(Reject::Foreign);
        }
        let Some((head, payload)) = entry.split_first_chunk::<LEN>() else {
            return Err(Reject::Truncated);
        };
        let [_, _, _, _, format, flags, codec, header_len, ..] = *head;
        if format != FORMAT || flags != 0 || usize::from(header_len) != LEN {
            return Err(Reject::UnknownFormat);
        }
        let header = Self {
            codec,
            schema: u64::from_le_bytes(array(head, 8)),
            key_hash: u128::from_le_bytes(array(head, 16)),
            written_at: u64::from_le_bytes(array(head, 32)),
            fresh_until: u64::from_le_bytes(array(head, 40)),
            expires_at: u64::from_le_bytes(array(head, 48)),
            load_cost_micros: u32::from_le_bytes(array(head, 56)),
            payload_len: u32::from_le_bytes(array(head, 60)),
        };
        if payload.len() < header.payload_len as usize {
            return Err(Reject::Truncated);
        }
        let expected = u64::from_le_bytes(array(head, CHECKSUM_AT));
        if payload.len() > header.payload_len as usize || checksum(&head[..CHECKSUM_AT], payload) != expected
        {
            return Err(Reject::Corrupt);
        }
        Ok((header, payload))
    }
}

/// `N` bytes of the header; the offsets are constants, so this never falls short.
fn array<const N: usize>(head: &[u8; LEN], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&head[at..at + N]);
    bytes
}

/// Two hashes in one go each: streaming both through one hasher costs more than a small entry itself.
fn checksum(head: &[u8], payload: &[u8]) -> u64 {
    xxh3_64(payload) ^ xxh3_64(head).rotate_left(1)
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}
