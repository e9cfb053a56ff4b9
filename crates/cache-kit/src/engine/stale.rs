//! Values past their fresh life: when one is served instead of a load, and what that says of the source's errors.

use std::time::Duration;

use super::answer::Answer;
use super::lookup::is_ahead;
use super::{Engine, Request};
use crate::backend::CacheBackend;
use crate::entry::Header;
use crate::error::{Error, ErrorKind};
use crate::observe::Event;
use crate::outcome::{Source, Stored};
use crate::steps::{Step, Steps};

/// What an error of the source says about the value, for [`CacheBuilder::classify_errors`](crate::CacheBuilder).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum SourceFailure {
    /// The source may answer another time: a stale value may be served instead.
    Transient,
    /// The source answered that there is no such value any more: what the cache has of it is removed.
    NotFound,
    /// Nothing that passes, such as a lack of rights: the error is the answer, and no stale value.
    Fatal,
}

/// A stale value that may still be served.
#[derive(Clone)]
pub(super) struct Fallback<T> {
    value: T,
    written_at: u64,
    pub(super) stale_for: Duration,
}

impl<B: CacheBackend> Engine<B> {
    /// What a stale entry is still good for, by its own terms and this request's.
    pub(super) fn fallback<T>(
        &self,
        request: &Request<'_>,
        value: T,
        header: &Header,
    ) -> Option<Fallback<T>> {
        let now = self.settings.clock.unix_millis();
        let stale_for = Duration::from_millis(now.saturating_sub(header.fresh_until));
        let may_be_served = now < header.expires_at
            && stale_for < self.policy(request).stale_life()
            && !is_ahead(header, now);
        may_be_served.then_some(Fallback { value, written_at: header.written_at, stale_for })
    }

    /// Answers with a stale value.
    pub(super) fn serve_stale<T>(
        &self,
        fallback: Fallback<T>,
        steps: Steps,
        degraded: Option<Error>,
    ) -> Answer<T> {
        self.count(Event::StaleServed);
        Answer {
            value: Some(fallback.value),
            source: Source::Cache,
            written_at: Some(fallback.written_at),
            stale_for: Some(fallback.stale_for),
            stored: Stored::NotAsked,
            invalidation: None,
            degraded,
            steps: steps.with(Step::ServedStale),
        }
    }

    /// What an error of a load says about the value.
    pub(super) fn classify(&self, error: &Error) -> SourceFailure {
        match error.kind() {
            ErrorKind::Source => match self.settings.classify {
                Some(classify) => {
                    // Somebody else's code.
                    std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| classify(error)))
                        .unwrap_or(SourceFailure::Fatal)
                }
                None if error.is_permanent() => SourceFailure::Fatal,
                None => SourceFailure::Transient,
            },
            ErrorKind::LoaderPanicked
            | ErrorKind::LoadAborted
            | ErrorKind::Overloaded
            | ErrorKind::Timeout
            | ErrorKind::Unavailable => SourceFailure::Transient,
            _ => SourceFailure::Fatal,
        }
    }
}
