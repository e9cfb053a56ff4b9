//! The map below: without a bound, or bounded with eviction.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use dashmap::DashMap;
use foldhash::quality::RandomState;
use quick_cache::sync::Cache as Bounded;
use quick_cache::{DefaultHashBuilder, Lifecycle, OptionsBuilder, Weighter};

use crate::clock::{Clock, Tick};
use crate::error::{Error, ErrorKind, Result};

/// A value and the end of its life.
#[derive(Clone)]
pub(super) struct Slot {
    pub(super) value: Bytes,
    pub(super) expires_at: Tick,
}

impl Slot {
    /// Reads the clock only for what can expire.
    pub(super) fn is_expired(&self, clock: &Clock) -> bool {
        self.expires_at != Tick::NEVER && clock.now() >= self.expires_at
    }
}

pub(super) enum Store {
    Unbounded(DashMap<Box<str>, Slot, RandomState>),
    Bounded {
        map: Bounded<Box<str>, Slot, Weigh, DefaultHashBuilder, CountEvicted>,
        limits: Limits,
        evicted: CountEvicted,
    },
}

/// What each entry costs beside its key and value, roughly.
const OVERHEAD_BYTES: u64 = 96;

/// Many small shards, so that a sweep holds each only for a moment.
const SHARDS: usize = 64;

#[derive(Clone, Copy)]
pub(super) struct Limits {
    max_entries: Option<usize>,
    max_bytes: Option<u64>,
    /// The largest entry that one shard of the map can hold.
    max_entry_bytes: Option<u64>,
}

impl Store {
    pub(super) fn unbounded() -> Self {
        Self::Unbounded(DashMap::with_hasher_and_shard_amount(RandomState::default(), SHARDS))
    }

    pub(super) fn bounded(max_entries: Option<usize>, max_bytes: Option<u64>) -> Self {
        // An estimate only sizes tables; a kilobyte an entry where nothing better is known.
        let entries = max_entries
            .unwrap_or_else(|| usize::try_from(max_bytes.unwrap_or(0) / 1024).unwrap_or(usize::MAX))
            .clamp(1, 1 << 24);
        // Each shard has its own share of the bound. Few enough that a share holds a large value.
        let by_entries = entries / 64;
        let by_bytes =
            max_bytes.map_or(usize::MAX, |bytes| usize::try_from(bytes / (8 << 20)).unwrap_or(usize::MAX));
        let shards = previous_power_of_two(by_entries.min(by_bytes).min(SHARDS));
        let weigh = Weigh::new(max_entries, max_bytes);
        // Rounded down to whole shards: the bound is never passed.
        let share = weigh.capacity / shards as u64;
        let evicted = CountEvicted::default();
        let options = OptionsBuilder::new()
            .shards(shards)
            .estimated_items_capacity(entries.max(32 * shards))
            .weight_capacity(share.max(1) * shards as u64)
            .build();
        let Ok(options) = options else {
            unreachable!("both capacities, which are all that the builder asks for, are set")
        };
        let map = Bounded::with_options(options, weigh, DefaultHashBuilder::default(), evicted.clone());
        // The map admits no entry above the hot part of its shard, which is 97 % of it.
        let max_entry_bytes = max_bytes.map(|bytes| bytes / shards as u64 / 100 * 95);
        Self::Bounded { map, limits: Limits { max_entries, max_bytes, max_entry_bytes }, evicted }
    }

    pub(super) fn is_bounded(&self) -> bool {
        matches!(self, Self::Bounded { .. })
    }

    /// How many entries fit at most; of a bound in bytes, as many as are a kilobyte each.
    pub(super) fn max_entries(&self) -> Option<usize> {
        let Self::Bounded { limits: Limits { max_entries, max_bytes, .. }, .. } = self else { return None };
        let by_bytes = max_bytes.map(|bytes| usize::try_from(bytes / 1024).unwrap_or(usize::MAX));
        max_entries.iter().chain(&by_bytes).min().copied()
    }

    pub(super) fn max_value_bytes(&self) -> Option<usize> {
        match self {
            Self::Unbounded(_) => None,
            Self::Bounded { limits, .. } => limits.max_entry_bytes.map(|bytes| {
                // Room for an ordinary key.
                usize::try_from(bytes.saturating_sub(OVERHEAD_BYTES + 256)).unwrap_or(usize::MAX)
            }),
        }
    }

    pub(super) fn check_size(&self, key: &str, slot: &Slot) -> Result<()> {
        let Self::Bounded { limits: Limits { max_entry_bytes: Some(limit), .. }, .. } = self else {
            return Ok(());
        };
        let bytes = entry_bytes(key, slot);
        if bytes > *limit {
            return Err(Error::new(
                ErrorKind::TooLarge,
                format!("an entry of {bytes} bytes is more than the {limit} that this store can hold"),
            )
            .with_backend(super::NAME)
            .with_hint("raise max_bytes, or do not cache values of this size"));
        }
        Ok(())
    }

    pub(super) fn get(&self, key: &str) -> Option<Slot> {
        match self {
            // Cloned out of the shard's guard at once.
            Self::Unbounded(map) => map.get(key).map(|slot| slot.value().clone()),
            Self::Bounded { map, .. } => map.get(key),
        }
    }

    /// Stores and hands out what was there, to be dropped outside of any lock.
    pub(super) fn insert(&self, key: &str, slot: Slot) -> Option<Slot> {
        match self {
            Self::Unbounded(map) => map.insert(key.into(), slot),
            Self::Bounded { map, .. } => {
                let mut left = Left { inserting: Some(key.into()), slots: Vec::new() };
                map.insert_with_lifecycle(key.into(), slot, &mut left);
                left.slots.pop()
            }
        }
    }

    pub(super) fn remove(&self, key: &str) -> Option<Slot> {
        match self {
            Self::Unbounded(map) => map.remove(key).map(|(_, slot)| slot),
            Self::Bounded { map, .. } => map.remove(key).map(|(_, slot)| slot),
        }
    }

    /// Keeps what `keep` says.
    pub(super) fn retain(&self, keep: impl Fn(&Slot) -> bool) {
        match self {
            Self::Unbounded(map) => map.retain(|_, slot| keep(slot)),
            Self::Bounded { map, .. } => map.retain(|_, slot| keep(slot)),
        }
    }

    pub(super) fn keys_that(&self, matches: impl Fn(&str) -> bool) -> Vec<Box<str>> {
        match self {
            Self::Unbounded(map) => {
                map.iter().filter(|entry| matches(entry.key())).map(|entry| entry.key().clone()).collect()
            }
            Self::Bounded { map, .. } => map.iter().map(|(key, _)| key).filter(|key| matches(key)).collect(),
        }
    }

    pub(super) fn clear(&self) {
        match self {
            Self::Unbounded(map) => {
                map.clear();
                map.shrink_to_fit();
            }
            Self::Bounded { map, .. } => map.clear(),
        }
    }

    /// Entries, and bytes of keys and values.
    pub(super) fn size(&self) -> (usize, u64) {
        let sum =
            |(entries, bytes), (key, value): (usize, usize)| (entries + 1, bytes + (key + value) as u64);
        match self {
            Self::Unbounded(map) => {
                map.iter().map(|entry| (entry.key().len(), entry.value().value.len())).fold((0, 0), sum)
            }
            Self::Bounded { map, .. } => {
                map.iter().map(|(key, slot)| (key.len(), slot.value.len())).fold((0, 0), sum)
            }
        }
    }

    pub(super) fn evicted(&self) -> u64 {
        match self {
            Self::Unbounded(_) => 0,
            Self::Bounded { evicted, .. } => evicted.0.load(Ordering::Relaxed),
        }
    }
}

fn entry_bytes(key: &str, slot: &Slot) -> u64 {
    (key.len() + slot.value.len()) as u64 + OVERHEAD_BYTES
}

fn previous_power_of_two(n: usize) -> usize {
    if n == 0 { 1 } else { 1 << n.ilog2() }
}

/// One weight for both bounds: the larger of the shares of either that an entry takes. If the weights fit,
/// so do both sums.
#[derive(Clone, Copy)]
pub(super) struct Weigh {
    capacity: u64,
    per_entry: u64,
    max_bytes: Option<u64>,
}

impl Weigh {
    fn new(max_entries: Option<usize>, max_bytes: Option<u64>) -> Self {
        match (max_entries, max_bytes) {
            (Some(entries), None) => Self { capacity: entries as u64, per_entry: 1, max_bytes: None },
            (None, bytes) => Self { capacity: bytes.unwrap_or(u64::MAX), per_entry: 0, max_bytes: None },
            (Some(entries), Some(bytes)) => {
                // Fine enough to tell single bytes of a terabyte apart.
                let capacity = 1 << 44;
                let per_entry = u64::div_ceil(capacity, (entries as u64).min(capacity));
                Self { capacity, per_entry, max_bytes: Some(bytes) }
            }
        }
    }
}

impl Weighter<Box<str>, Slot> for Weigh {
    fn weight(&self, key: &Box<str>, slot: &Slot) -> u64 {
        let bytes = entry_bytes(key, slot);
        match (self.per_entry, self.max_bytes) {
            (0, _) => bytes,
            (per_entry, None) => per_entry,
            (per_entry, Some(max_bytes)) => {
                let share = (u128::from(bytes) * u128::from(self.capacity)).div_ceil(u128::from(max_bytes));
                per_entry.max(u64::try_from(share).unwrap_or(u64::MAX))
            }
        }
    }
}

/// Counts evictions.
#[derive(Clone, Default)]
pub(super) struct CountEvicted(Arc<AtomicU64>);

/// What left the map in one operation, to be dropped after the shard's lock.
#[derive(Default)]
pub(super) struct Left {
    /// The key that is being written: its old value is replaced, not evicted.
    inserting: Option<Box<str>>,
    slots: Vec<Slot>,
}

impl Lifecycle<Box<str>, Slot> for CountEvicted {
    type RequestState = Left;

    fn on_evict(&self, left: &mut Left, key: Box<str>, slot: Slot) {
        if left.inserting.as_ref() != Some(&key) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
        left.slots.push(slot);
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unbounded(map) => f.debug_struct("Unbounded").field("entries", &map.len()).finish(),
            Self::Bounded { map, limits, .. } => f
                .debug_struct("Bounded")
                .field("entries", &map.len())
                .field("max_entries", &limits.max_entries)
                .field("max_bytes", &limits.max_bytes)
                .finish(),
        }
    }
}
