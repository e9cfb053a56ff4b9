//! How long entries live, how old an answer may be, how long one may take, and what one call may change.

mod limits;
mod options;
mod overrides;
mod reading;
mod written;

use std::time::Duration;

pub use limits::Limits;
pub use options::{InlineOptions, LoadOptions, OperationConfig};
pub use overrides::PolicyOverrides;
pub use reading::Policy;

use crate::clock::jittered;

/// The life of entries where nothing else is said.
pub(crate) const DEFAULT_TTL: Duration = Duration::from_secs(300);

/// How long entries live, as a cache or expander is told. Wins over [`Policy::ttl`]; what an entity or a call says
/// ([`PolicyOverrides`]) wins over this.
#[derive(Clone, Copy, Debug, Default)]
#[non_exhaustive]
pub enum TtlPolicy {
    /// As [`Policy::ttl`] says: five minutes, unless that was set.
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
    /// The life of entries under this prefix, if it is for this to say; within, `None` is without end.
    #[must_use]
    pub fn ttl_for(&self, prefix: &str) -> Option<Option<Duration>> {
        match self {
            Self::Default => None,
            Self::Fixed(ttl) => Some(Some(*ttl)),
            Self::Infinite => Some(None),
            Self::PerType(ttl) => Some(Some(ttl(prefix))),
        }
    }

    /// The policy with the life that its fields are checked against.
    pub(crate) fn over(&self, policy: Policy) -> Policy {
        match self {
            Self::Default => policy,
            // Refused by who can; else when the entry is written.
            Self::Fixed(Duration::ZERO) => policy,
            Self::Fixed(ttl) => policy.with_ttl(*ttl),
            // What the function says is not known before an entry is written: nothing contradicts it.
            Self::Infinite | Self::PerType(_) => policy.without_ttl(),
        }
    }
}

/// Refuses a lifetime of zero where a call asks for it.
pub(crate) fn check_call_ttl(ttl: Option<Option<Duration>>) -> crate::Result<()> {
    if ttl == Some(Some(Duration::ZERO)) {
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
