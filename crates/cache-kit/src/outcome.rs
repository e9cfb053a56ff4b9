//! What a read did, beside the value.

use std::fmt;
use std::time::Duration;

use crate::error::Error;

/// A value with where it came from, how old it is, and what went wrong on the way.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct Outcome<T> {
    /// The value.
    pub value: T,
    /// Where it came from.
    pub source: Source,
    /// How long ago it was stored, in whole milliseconds by the wall clocks of writer and reader; for a value
    /// from the cache.
    pub age: Option<Duration>,
    /// What became of storing it; for a value from the source.
    pub stored: Stored,
    /// What failed without failing the read: the backend could not be asked, or the value not be stored.
    pub degraded: Option<Error>,
}

impl<T> Outcome<T> {
    /// Whether the value came from the cache.
    #[must_use]
    pub fn is_hit(&self) -> bool {
        self.source == Source::Cache
    }

    /// Whether something failed on the way.
    #[must_use]
    pub fn is_degraded(&self) -> bool {
        self.degraded.is_some()
    }

    pub(crate) fn map<U>(self, map: impl FnOnce(T) -> U) -> Outcome<U> {
        let Self { value, source, age, stored, degraded } = self;
        Outcome { value: map(value), source, age, stored, degraded }
    }
}

/// Where a value came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Source {
    /// The cache.
    Cache,
    /// The source, read by this call.
    Load,
    /// The source, read by a load that another call had begun.
    SharedLoad,
    /// Nowhere: there is no value.
    Nowhere,
}

impl fmt::Display for Source {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cache => "cache",
            Self::Load => "load",
            Self::SharedLoad => "shared load",
            Self::Nowhere => "nowhere",
        })
    }
}

/// What became of storing a loaded value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Stored {
    /// It is in the cache.
    Yes,
    /// There was nothing to store, or the call asked not to.
    NotAsked,
    /// The key was invalidated or written after the load began, so the value may be outdated already.
    FencedOff,
    /// Somebody else is loading this key and will store what they find.
    LeftToOther,
    /// The backend could not be read, so it is not known what a write would overwrite.
    BackendUnknown,
    /// It could not be stored; [`Outcome::degraded`] says why.
    Failed,
}
