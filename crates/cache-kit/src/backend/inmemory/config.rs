//! The settings of the in-process backend.

use std::time::Duration;

use super::InMemoryBackend;
use super::store::Store;
use crate::clock::Clock;
use crate::config::{Params, text};
use crate::error::{Error, Result};

/// Settings of an [`InMemoryBackend`].
///
/// ```
/// use cache_kit::backend::InMemoryBackend;
///
/// let backend = InMemoryBackend::builder().max_entries(100_000).max_bytes(64 << 20).build()?;
/// # Ok::<(), cache_kit::Error>(())
/// ```
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct InMemoryBuilder {
    max_entries: Option<usize>,
    max_bytes: Option<u64>,
    sweep_every: Option<Duration>,
    clock: Clock,
}

const SWEEP_EVERY: Duration = Duration::from_secs(1);

impl InMemoryBuilder {
    /// Evicts entries to hold at most this many. Default: no bound. Zero is an error.
    pub fn max_entries(mut self, entries: usize) -> Self {
        self.max_entries = Some(entries);
        self
    }

    /// Evicts entries to hold at most this many bytes of keys and values, with 96 bytes of overhead counted
    /// for each entry. Default: no bound. Less than 4096 is an error.
    pub fn max_bytes(mut self, bytes: u64) -> Self {
        self.max_bytes = Some(bytes);
        self
    }

    /// How often expired entries are looked for. Default: one second; a sweep that takes long makes the next
    /// one wait longer, so that sweeping never uses more than a twentieth of a core. Zero is an error.
    pub fn sweep_every(mut self, interval: Duration) -> Self {
        self.sweep_every = Some(interval);
        self
    }

    /// Takes time from this clock. Default: the system's.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.clock = clock;
        self
    }

    /// Takes the settings from the parameters of a `memory://` URL.
    pub(crate) fn from_params(params: &mut Params<'_>) -> Result<Self> {
        Ok(Self {
            max_entries: params.take("max_entries", text::SIZE, |value| {
                text::size(value).and_then(|size| usize::try_from(size).ok())
            })?,
            max_bytes: params.take("max_bytes", text::SIZE, text::size)?,
            sweep_every: params.take("sweep_every", text::DURATION, text::duration)?,
            clock: Clock::system(),
        })
    }

    /// The backend.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config), naming the setting, if a bound or the interval is too small.
    pub fn build(self) -> Result<InMemoryBackend> {
        if self.max_entries == Some(0) {
            return Err(Error::config("max_entries is zero")
                .with_hint("leave it out for a store without a bound, or set at least 1"));
        }
        if self.max_bytes.is_some_and(|bytes| bytes < 4096) {
            return Err(Error::config("max_bytes is less than 4096")
                .with_hint("leave it out for a store without a bound, or set at least 4096"));
        }
        if self.sweep_every == Some(Duration::ZERO) {
            return Err(Error::config("sweep_every is zero").with_hint("one second is the default"));
        }
        let store = match (self.max_entries, self.max_bytes) {
            (None, None) => return Ok(self.unbounded()),
            (entries, bytes) => Store::bounded(entries, bytes),
        };
        Ok(InMemoryBackend::from_parts(store, self.clock, self.sweep_every.unwrap_or(SWEEP_EVERY)))
    }

    pub(super) fn unbounded(self) -> InMemoryBackend {
        InMemoryBackend::from_parts(Store::unbounded(), self.clock, self.sweep_every.unwrap_or(SWEEP_EVERY))
    }
}
