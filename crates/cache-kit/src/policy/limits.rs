//! How much of everything a cache holds at a time.

use crate::error::{Error, Result};

/// How many loads, waiting reads and unconfirmed invalidations a cache holds at a time.
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
}

impl Default for Limits {
    fn default() -> Self {
        Self { max_concurrent_loads: 256, max_waiting_reads: 16_384, max_pending_invalidations: 65_536 }
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

    pub(crate) fn check(&self) -> Result<()> {
        let Self { max_concurrent_loads, max_waiting_reads, max_pending_invalidations } = *self;
        for (field, value) in [
            ("max_concurrent_loads", max_concurrent_loads),
            ("max_waiting_reads", max_waiting_reads),
            ("max_pending_invalidations", max_pending_invalidations),
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
        ] {
            assert!(limits.check().unwrap_err().to_string().contains(field));
        }
    }
}
