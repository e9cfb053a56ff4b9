//! How much of everything a cache holds at a time.

use crate::error::{Error, Result};

/// How many loads, waiting reads, unconfirmed invalidations and absent values a cache holds at a time, and how large
/// batches are.
///
/// ```
/// use cache_kit::Limits;
///
/// let limits = Limits::default().with_max_concurrent_loads(32);
/// # let _ = cache_kit::Cache::builder().limits(limits);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits {
    /// How many loads run at a time; what is beyond waits for one of them to end. A load that another load asked for is
    /// not counted, since that one waits for it. Default: 256.
    pub max_concurrent_loads: usize,
    /// How many reads wait at a time, for a load or for their turn to load. What is beyond gets a stale value if it may,
    /// else an error of kind [`Overloaded`](crate::ErrorKind::Overloaded). Default: 16,384.
    pub max_waiting_reads: usize,
    /// How many keys are remembered whose invalidation the backend has not confirmed. What is beyond makes everything in
    /// the cache invalid. Default: 65,536, about 10 MB.
    pub max_pending_invalidations: usize,
    /// How many entries that say "the source does not have it" may be alive of those that this cache has stored. What is
    /// beyond is not stored, so that random ids cannot drive out the rest. Default: 10,000, and no more than a tenth of
    /// what the backend holds, where that is bounded ([`Capabilities::max_entries`](crate::backend::Capabilities)).
    pub max_absent: usize,
    /// How many keys one call of a batch's loader is asked for at most; a larger batch calls it more than once. Default:
    /// 1,000.
    pub max_batch_keys: usize,
    /// How many such calls of one batch run at a time. Default: 4.
    pub max_batch_loads: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_concurrent_loads: 256,
            max_waiting_reads: 16_384,
            max_pending_invalidations: 65_536,
            max_absent: 10_000,
            max_batch_keys: 1_000,
            max_batch_loads: 4,
        }
    }
}

impl Limits {
    /// Runs at most so many loads at a time.
    #[must_use]
    pub fn with_max_concurrent_loads(mut self, loads: usize) -> Self {
        self.max_concurrent_loads = loads;
        self
    }

    /// Lets at most so many reads wait at a time.
    #[must_use]
    pub fn with_max_waiting_reads(mut self, reads: usize) -> Self {
        self.max_waiting_reads = reads;
        self
    }

    /// Remembers at most so many keys whose invalidation is not confirmed.
    #[must_use]
    pub fn with_max_pending_invalidations(mut self, keys: usize) -> Self {
        self.max_pending_invalidations = keys;
        self
    }

    /// Lets at most so many entries say "the source does not have it".
    #[must_use]
    pub fn with_max_absent(mut self, entries: usize) -> Self {
        self.max_absent = entries;
        self
    }

    /// Asks a batch's loader for at most so many keys at once.
    #[must_use]
    pub fn with_max_batch_keys(mut self, keys: usize) -> Self {
        self.max_batch_keys = keys;
        self
    }

    /// Runs at most so many loads of one batch at a time.
    #[must_use]
    pub fn with_max_batch_loads(mut self, loads: usize) -> Self {
        self.max_batch_loads = loads;
        self
    }

    pub(crate) fn check(&self) -> Result<()> {
        let Self { max_concurrent_loads, max_waiting_reads, max_pending_invalidations, .. } = *self;
        for (field, value) in [
            ("max_concurrent_loads", max_concurrent_loads),
            ("max_waiting_reads", max_waiting_reads),
            ("max_pending_invalidations", max_pending_invalidations),
            ("max_absent", self.max_absent),
            ("max_batch_keys", self.max_batch_keys),
            ("max_batch_loads", self.max_batch_loads),
        ] {
            if value == 0 {
                return Err(Error::config(format!("{field} is zero")).with_hint("let it be at least 1"));
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_limit_of_zero_is_refused_by_its_name() {
        Limits::default().check().unwrap();
        for (limits, field) in [
            (Limits::default().with_max_concurrent_loads(0), "max_concurrent_loads"),
            (Limits::default().with_max_waiting_reads(0), "max_waiting_reads"),
            (Limits::default().with_max_pending_invalidations(0), "max_pending_invalidations"),
            (Limits::default().with_max_absent(0), "max_absent"),
            (Limits::default().with_max_batch_keys(0), "max_batch_keys"),
            (Limits::default().with_max_batch_loads(0), "max_batch_loads"),
        ] {
            assert!(limits.check().unwrap_err().to_string().contains(field));
        }
    }
}
