//! The fixed header, read without allocating.

use std::time::Duration;

use xxhash_rust::xxh3::xxh3_64;

use super::{Reject, Stamp};

pub(super) const LEN: usize = 80;
const MAGIC: [u8; 4] = *b"CKIT";
const FORMAT: u8 = 2;
/// Where the checksum stands; it covers what is before it, and what is after.
const CHECKSUM_AT: usize = 72;

/// A time without end.
pub(super) const NEVER: u64 = u64::MAX;

/// The source does not have this; there is no payload.
pub(super) const ABSENT: u8 = 1;
/// Tags with their versions follow the header.
pub(super) const TAGGED: u8 = 2;
/// The entry ends sooner if it is not read; how soon, and when it ends at the latest, follows.
pub(super) const SLIDING: u8 = 4;
/// What the source calls this version of the value follows.
pub(super) const VALIDATED: u8 = 8;
const KNOWN_FLAGS: u8 = ABSENT | TAGGED | SLIDING | VALIDATED;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Header {
    pub(super) flags: u8,
    pub(crate) codec: u8,
    pub(crate) schema: u64,
    pub(crate) key_hash: u128,
    /// Milliseconds since 1970, as all times here.
    pub(crate) written_at: u64,
    pub(crate) fresh_until: u64,
    pub(crate) expires_at: u64,
    pub(crate) load_cost_micros: u32,
    body_len: u32,
    /// The version of the namespace.
    pub(crate) space: u64,
}

impl Header {
    pub(super) fn new(codec: u8, flags: u8, stamp: &Stamp<'_>, entry_len: usize) -> Self {
        let life = match (stamp.ttl, stamp.idle) {
            (Some(ttl), Some(idle)) => Some(ttl.min(idle)),
            (ttl, idle) => ttl.or(idle),
        };
        let fresh_until = life.map_or(NEVER, |life| after(stamp.written_at, life));
        Self {
            flags,
            codec,
            schema: stamp.schema.stored(),
            key_hash: stamp.key_hash,
            written_at: stamp.written_at,
            fresh_until,
            expires_at: after(fresh_until, stamp.stale),
            load_cost_micros: micros(stamp.load_cost),
            body_len: u32::try_from(entry_len - LEN).unwrap_or(u32::MAX),
            space: stamp.space,
        }
    }

    pub(super) fn has(&self, flag: u8) -> bool {
        self.flags & flag != 0
    }

    /// Writes itself into the first bytes of an entry whose body is in place.
    pub(super) fn write(&self, entry: &mut [u8]) {
        let (head, body) = entry.split_at_mut(LEN);
        head[..4].copy_from_slice(&MAGIC);
        head[4] = FORMAT;
        head[5] = self.flags;
        head[6] = self.codec;
        head[7] = LEN as u8;
        head[8..16].copy_from_slice(&self.schema.to_le_bytes());
        head[16..32].copy_from_slice(&self.key_hash.to_le_bytes());
        head[32..40].copy_from_slice(&self.written_at.to_le_bytes());
        head[40..48].copy_from_slice(&self.fresh_until.to_le_bytes());
        head[48..56].copy_from_slice(&self.expires_at.to_le_bytes());
        head[56..60].copy_from_slice(&self.load_cost_micros.to_le_bytes());
        head[60..64].copy_from_slice(&self.body_len.to_le_bytes());
        head[64..72].copy_from_slice(&self.space.to_le_bytes());
        let checksum = checksum(&head[..CHECKSUM_AT], body);
        head[CHECKSUM_AT..].copy_from_slice(&checksum.to_le_bytes());
    }

    /// The header of an entry and its body, if both are whole.
    pub(super) fn parse(entry: &[u8]) -> Result<(Self, &[u8]), Reject> {
        if !entry.starts_with(&MAGIC) {
            return Err(Reject::Foreign);
        }
        let Some([_, _, _, _, format, flags, codec, header_len]) = entry.first_chunk::<8>() else {
            return Err(Reject::Truncated);
        };
        // Before the length: headers of other formats have other lengths.
        if *format != FORMAT || flags & !KNOWN_FLAGS != 0 || usize::from(*header_len) != LEN {
            return Err(Reject::UnknownFormat);
        }
        let Some((head, body)) = entry.split_first_chunk::<LEN>() else {
            return Err(Reject::Truncated);
        };
        let header = Self {
            flags: *flags,
            codec: *codec,
            schema: u64::from_le_bytes(array(head, 8)),
            key_hash: u128::from_le_bytes(array(head, 16)),
            written_at: u64::from_le_bytes(array(head, 32)),
            fresh_until: u64::from_le_bytes(array(head, 40)),
            expires_at: u64::from_le_bytes(array(head, 48)),
            load_cost_micros: u32::from_le_bytes(array(head, 56)),
            body_len: u32::from_le_bytes(array(head, 60)),
            space: u64::from_le_bytes(array(head, 64)),
        };
        if body.len() < header.body_len as usize {
            return Err(Reject::Truncated);
        }
        let expected = u64::from_le_bytes(array(head, CHECKSUM_AT));
        if body.len() > header.body_len as usize || checksum(&head[..CHECKSUM_AT], body) != expected {
            return Err(Reject::Corrupt);
        }
        Ok((header, body))
    }
}

/// A time so much later, rounded up: an entry is never stale sooner than asked.
pub(super) fn after(start: u64, life: Duration) -> u64 {
    let millis = life.as_nanos().div_ceil(1_000_000);
    u64::try_from(millis).unwrap_or(NEVER).saturating_add(start)
}

/// `N` bytes of the header; the offsets are constants, so this never falls short.
fn array<const N: usize>(head: &[u8; LEN], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&head[at..at + N]);
    bytes
}

/// Two hashes in one go each: streaming both through one hasher costs more than a small entry itself.
fn checksum(head: &[u8], body: &[u8]) -> u64 {
    xxh3_64(body) ^ xxh3_64(head).rotate_left(1)
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}
