//! What a read may do with the cache and the source.

use std::fmt;

/// What a read may do with the cache and the source.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum CacheStrategy {
    /// The cache; on a miss the source, and the cache keeps what it said. The default.
    #[default]
    Refresh,
    /// Only the cache: a miss is an answer, and a backend that cannot tell is an error.
    Fresh,
    /// Removes the entry, reads the source, and stores what it said. A backend that does not confirm the removal fails
    /// no read: [`Outcome::invalidation`](crate::Outcome::invalidation) tells, and it is queued as that of
    /// [`Cache::invalidate`](crate::Cache::invalidate) is.
    Invalidate,
    /// Only the source: the cache is neither read nor written.
    Bypass,
}

impl fmt::Display for CacheStrategy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Refresh => "refresh",
            Self::Fresh => "fresh",
            Self::Invalidate => "invalidate",
            Self::Bypass => "bypass",
        })
    }
}
