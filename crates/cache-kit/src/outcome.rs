//! What a read did, beside the value.

use std::fmt;
use std::time::Duration;

use crate::error::Error;
use crate::steps::{Step, Steps};

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
    /// How long ago its fresh life ended, for a stale value; by the same clocks as the age.
    pub stale_for: Option<Duration>,
    /// What became of storing it; for a value from the source.
    pub stored: Stored,
    /// Whether the backend has confirmed the invalidation that
    /// [`CacheStrategy::Invalidate`](crate::CacheStrategy::Invalidate) asked for.
    pub invalidation: Option<Invalidation>,
    /// What failed without failing the read: the backend could not be asked, or the value not be stored.
    pub degraded: Option<Error>,
    /// What this read did on the way, and the load that answered it. Of a load that failed, where a stale value is the answer
    /// instead, only that it failed.
    pub steps: Steps,
}

impl<T> Outcome<T> {
    /// Whether the value came from the cache.
    #[must_use]
    pub fn is_hit(&self) -> bool {
        self.source == Source::Cache
    }

    /// Whether the value is past its fresh life.
    #[must_use]
    pub fn is_stale(&self) -> bool {
        self.stale_for.is_some()
    }

    /// Why the answer is what it is, in words.
    ///
    /// ```
    /// # use cache_kit::{Cache, LoadOptions, backend::InMemoryBackend};
    /// # async fn run() -> cache_kit::Result<()> {
    /// # let cache = Cache::new(InMemoryBackend::new());
    /// # async fn find() -> std::io::Result<u32> { Ok(1) }
    /// let outcome = cache.get_or_load_outcome("answer", LoadOptions::default(), find).await?;
    /// assert_eq!(outcome.explain().to_string(), "load: found nothing, took the lease, asked the source, stored it");
    /// # Ok(()) }
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run()).unwrap();
    /// ```
    #[must_use]
    pub fn explain(&self) -> impl fmt::Display + use<'_, T> {
        Explanation(self)
    }

    /// Whether something failed on the way.
    #[must_use]
    pub fn is_degraded(&self) -> bool {
        self.degraded.is_some()
    }

    pub(crate) fn map<U>(self, map: impl FnOnce(T) -> U) -> Outcome<U> {
        let Self { value, source, age, stale_for, stored, invalidation, degraded, steps } = self;
        Outcome { value: map(value), source, age, stale_for, stored, invalidation, degraded, steps }
    }
}

/// An outcome in words.
struct Explanation<'a, T>(&'a Outcome<T>);

impl<T> fmt::Display for Explanation<'_, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Outcome { source, age, stale_for, stored, degraded, steps, .. } = self.0;
        write!(f, "{source}: {steps}")?;
        if let Some(age) = age {
            write!(f, ", {} old", Rounded(*age))?;
        }
        if let Some(stale_for) = stale_for {
            write!(f, ", stale for {}", Rounded(*stale_for))?;
        }
        if steps.contains(Step::Loaded) && *stored != Stored::NotAsked {
            write!(f, ", {stored}")?;
        }
        if let Some(error) = degraded {
            write!(f, "; {error}")?;
        }
        Ok(())
    }
}

/// A duration as one reads it.
struct Rounded(Duration);

impl fmt::Display for Rounded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.0.as_secs() {
            0 => write!(f, "{} ms", self.0.as_millis()),
            seconds => write!(f, "{seconds} s"),
        }
    }
}

/// Whether an invalidation was confirmed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Invalidation {
    /// The backend has confirmed it: no older value comes back.
    Confirmed,
    /// The backend has not confirmed it yet. It is queued, and this process does not believe the entry meanwhile.
    Queued,
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

impl fmt::Display for Stored {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Yes => "stored it",
            Self::NotAsked => "had nothing to store",
            Self::FencedOff => "did not store it, since something happened to the key meanwhile",
            Self::LeftToOther => "left storing it to whoever has the lease",
            Self::BackendUnknown => "did not store it, since it is not known what is there",
            Self::Failed => "could not store it",
        })
    }
}
