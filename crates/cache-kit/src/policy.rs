//! How long entries live, how old an answer may be, how long one may take, and what one call may change.

mod limits;
mod options;
mod reading;

use std::time::Duration;

pub use limits::Limits;
pub use options::{InlineOptions, LoadOptions, OperationConfig};
pub use reading::Policy;

use crate::clock::jittered;

/// The life of entries where nothing else is said.
pub(crate) const DEFAULT_TTL: Duration = Duration::from_secs(300);

/// How long entries live.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub enum TtlPolicy {
    /// Five minutes.
    #[default]
    Default,
    /// This long. Zero is refused when the entry is written.
    Fixed(Duration),
    /// Without end: entries leave only by invalidation or eviction.
    Infinite,
    /// As the function says for the entity's prefix ([`CacheEntity::cache_prefix`](crate::CacheEntity)).
    PerType(fn(&str) -> Duration),
}

impl TtlPolicy {
    /// The life of entries under this prefix; `None` is without end.
    #[must_use]
    pub fn ttl_for(&self, prefix: &str) -> Option<Duration> {
        match self {
            Self::Default => Some(DEFAULT_TTL),
            Self::Fixed(ttl) => Some(*ttl),
            Self::Infinite => None,
            Self::PerType(ttl) => Some(ttl(prefix)),
        }
    }
}

/// Refuses a lifetime of zero where a call asks for it.
pub(crate) fn check_call_ttl(ttl: Option<Duration>) -> crate::Result<()> {
    if ttl == Some(Duration::ZERO) {
        return Err(crate::Error::invalid("ttl is zero")
            .with_hint("leave it out for the cache's own, or use CacheStrategy::Bypass to store nothing"));
    }
    Ok(())
}

/// Waits before the source is asked again for the `retry`-th time: 50 ms, twice as long each time up to a
/// second, of which up to half is left to chance.
pub(crate) async fn pause_before_retry(retry: u32) {
    let longest = Duration::from_millis(50u64 << (retry - 1).min(5)).min(Duration::from_secs(1));
    // Without a runtime there is no timer to wait on.
    if tokio::runtime::Handle::try_current().is_ok() {
        tokio::time::sleep(jittered(longest)).await;
    }
}

/// Refuses a strategy that is not for many keys at once.
pub(crate) fn check_batch_strategy(strategy: crate::CacheStrategy) -> crate::Result<()> {
    if strategy != crate::CacheStrategy::Refresh {
        return Err(crate::Error::invalid(format!("the strategy {strategy} is not for many keys at once"))
            .with_hint("read one by one, or invalidate_many first"));
    }
    Ok(())
}
