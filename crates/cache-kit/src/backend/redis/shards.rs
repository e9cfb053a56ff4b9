//! The parts of a cluster: groups of slots that lie together, the same for everybody, whichever nodes have them.

use super::Shared;
use super::topology::SLOTS;

/// Groups of slots. More would have more to be kept for each of them, fewer would be lost with more nodes than one.
const SHARDS: u16 = 64;

/// A key in a given group takes as many tries as there are groups, on average. Where a hash tag in the prefix or the name
/// pins the slot, no number of them would do.
const TRIES: usize = 10_000;

impl Shared {
    pub(super) fn shards(&self) -> usize {
        if self.topology.keys_may_move() { usize::from(SHARDS) } else { 1 }
    }

    pub(super) fn shard_of(&self, key: &str) -> usize {
        let slot = self.topology.slot(self.full(key).as_bytes());
        slot.map_or(0, |slot| usize::from(slot / (SLOTS / SHARDS)))
    }

    /// The name with the first number that fits. Where none does, since the slot is pinned by a hash tag, a key of its
    /// own all the same, of the one shard that there are keys of.
    pub(super) fn shard_key(&self, shard: usize, name: &str) -> String {
        if !self.topology.keys_may_move() {
            return name.to_owned();
        }
        let numbered = |number: usize| format!("{name}~{number}");
        let fitting = (0..TRIES).map(numbered).find(|key| self.shard_of(key) == shard);
        fitting.unwrap_or_else(|| numbered(TRIES + shard))
    }
}
