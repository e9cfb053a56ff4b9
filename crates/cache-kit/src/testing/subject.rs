//! A backend under test, with the way time passes for it.

use std::fmt;
use std::time::Duration;

use crate::ManualClock;
use crate::backend::CacheBackend;

/// A backend under test: empty, used by nobody else, with the way time passes for it.
pub struct Subject<B> {
    backend: B,
    time: Option<ManualClock>,
}

impl<B: CacheBackend> Subject<B> {
    /// A backend for which time passes as it does for everyone: the suite sleeps.
    pub fn real_time(backend: B) -> Self {
        Self { backend, time: None }
    }

    /// A backend that takes its time from this clock: the suite moves it.
    pub fn manual_time(backend: B, clock: ManualClock) -> Self {
        Self { backend, time: Some(clock) }
    }

    /// The same, with the backend wrapped or boxed.
    pub fn map<C: CacheBackend>(self, wrap: impl FnOnce(B) -> C) -> Subject<C> {
        Subject { backend: wrap(self.backend), time: self.time }
    }

    /// The backend.
    pub fn backend(&self) -> &B {
        &self.backend
    }

    /// Lets time pass.
    pub async fn pass(&self, time: Duration) {
        match &self.time {
            Some(clock) => clock.advance(time),
            None => tokio::time::sleep(time).await,
        }
    }

    /// Whether waiting costs real time, so that long lives cannot be waited for.
    pub fn is_real_time(&self) -> bool {
        self.time.is_none()
    }
}

impl<B> fmt::Debug for Subject<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subject").field("time", &self.time).finish_non_exhaustive()
    }
}
