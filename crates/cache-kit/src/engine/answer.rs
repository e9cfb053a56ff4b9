//! What a read found.

use std::time::Duration;

use super::Engine;
use super::lookup::Found;
use crate::backend::CacheBackend;
use crate::error::Error;
use crate::outcome::{Invalidation, Outcome, Source, Stored};
use crate::steps::{Step, Steps};

/// What a read found; a public [`Outcome`] but for the age, which costs a look at the clock.
#[derive(Clone)]
pub(crate) struct Answer<T> {
    pub(crate) value: Option<T>,
    pub(crate) source: Source,
    pub(crate) written_at: Option<u64>,
    pub(crate) stale_for: Option<Duration>,
    pub(crate) stored: Stored,
    pub(crate) invalidation: Option<Invalidation>,
    pub(crate) degraded: Option<Error>,
    pub(crate) steps: Steps,
}

impl<B: CacheBackend> Engine<B> {
    pub(crate) fn outcome<T>(&self, answer: Answer<T>) -> Outcome<Option<T>> {
        let Answer { value, source, written_at, stale_for, stored, invalidation, degraded, steps } = answer;
        let age = written_at.map(|written_at| {
            Duration::from_millis(self.settings.clock.unix_millis().saturating_sub(written_at))
        });
        Outcome { value, source, age, stale_for, stored, invalidation, degraded, steps }
    }
}

impl<T> Answer<T> {
    pub(super) fn cached(found: Found<T>) -> Self {
        let steps = match found.value {
            Some(_) => Steps::FRESH,
            None => Steps::default().with(Step::FoundAbsent),
        };
        Self {
            value: found.value,
            source: Source::Cache,
            written_at: Some(found.written_at),
            stale_for: None,
            stored: Stored::NotAsked,
            invalidation: None,
            degraded: None,
            steps,
        }
    }

    pub(super) fn loaded(value: Option<T>, stored: Stored, degraded: Option<Error>) -> Self {
        let source = if value.is_some() { Source::Load } else { Source::Nowhere };
        Self {
            value,
            source,
            written_at: None,
            stale_for: None,
            stored,
            invalidation: None,
            degraded,
            steps: Steps::default(),
        }
    }

    pub(super) fn nowhere() -> Self {
        Self::loaded(None, Stored::NotAsked, None)
    }
}
