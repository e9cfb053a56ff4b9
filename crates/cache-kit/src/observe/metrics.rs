//! The hook for metrics of the user's own.

use std::time::Duration;

/// Is told what the cache does, as it happens, in the task that does it.
///
/// The keys are whole and personal, and there is no end of them: **never use one as the value of a metric
/// label**, and think twice before logging one. Durations are measured only while a hook is installed.
/// [`stats`](crate::Cache::stats) counts without any hook.
///
/// A hook must not block. One that panics is ignored.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not told what the cache does",
    note = "implement `CacheMetrics`: all its methods have provided forms, so begin with `impl CacheMetrics for {Self} {{}}`"
)]
pub trait CacheMetrics: Send + Sync + 'static {
    /// A read was answered by the cache.
    fn record_hit(&self, key: &str, duration: Duration) {
        let _ = (key, duration);
    }

    /// The cache was asked and did not have the entry.
    fn record_miss(&self, key: &str, duration: Duration) {
        let _ = (key, duration);
    }

    /// An entry was stored.
    fn record_set(&self, key: &str, duration: Duration) {
        let _ = (key, duration);
    }

    /// An entry was invalidated.
    fn record_delete(&self, key: &str, duration: Duration) {
        let _ = (key, duration);
    }

    /// The backend or the source failed.
    fn record_error(&self, key: &str, error: &str) {
        let _ = (key, error);
    }
}

/// Ignores everything.
#[derive(Clone, Copy, Debug, Default)]
pub struct NoOpMetrics;

impl CacheMetrics for NoOpMetrics {}
