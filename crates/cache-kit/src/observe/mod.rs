//! What happened, counted: statistics, the metrics hook, and trace events.

mod counters;
mod metrics;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

pub(crate) use counters::{Counters, Event};
pub use counters::{RejectedStats, Stats};
pub use metrics::{CacheMetrics, NoOpMetrics};

use crate::clock::{Clock, Tick};
use crate::entry::Reject;
use crate::error::Error;

/// The observers of one cache.
#[derive(Clone, Default)]
pub(crate) struct Observer {
    metrics: Option<Arc<dyn CacheMetrics>>,
}

impl Observer {
    pub(crate) fn new(metrics: Box<dyn CacheMetrics>) -> Self {
        Self { metrics: Some(Arc::from(metrics)) }
    }

    /// When something begins that metrics will want to know the duration of; reads no clock otherwise.
    pub(crate) fn start(&self, clock: &Clock) -> Option<Tick> {
        self.metrics.is_some().then(|| clock.now())
    }

    /// Tells the metrics hook, if there is one. A hook that panics is on its own.
    pub(crate) fn tell(&self, tell: impl FnOnce(&dyn CacheMetrics)) {
        if let Some(metrics) = &self.metrics {
            let _ = catch_unwind(AssertUnwindSafe(|| tell(&**metrics)));
        }
    }

    pub(crate) fn timed(
        &self,
        started: Option<Tick>,
        clock: &Clock,
        tell: impl FnOnce(&dyn CacheMetrics, Duration),
    ) {
        if let Some(started) = started {
            let took = clock.now().since(started);
            self.tell(|metrics| tell(metrics, took));
        }
    }
}

/// An entry that could not be used.
pub(crate) fn rejected(backend: &'static str, why: Reject) {
    #[cfg(feature = "tracing")]
    tracing::debug!(backend, why = why.as_str(), "entry not used");
    let _ = (backend, why);
}

/// Something failed that the caller's read survives.
pub(crate) fn survived(what: &'static str, error: &Error) {
    #[cfg(feature = "tracing")]
    tracing::warn!(%error, "{what}");
    let _ = (what, error);
}

/// The span of a load, named without the key: keys are personal and without number.
#[cfg(feature = "tracing")]
pub(crate) fn load_span(backend: &'static str) -> tracing::Span {
    tracing::debug_span!("cache.load", backend)
}
