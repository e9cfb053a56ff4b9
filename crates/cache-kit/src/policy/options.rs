//! What one call may change.

use std::time::Duration;

use super::Policy;
use crate::engine::Terms;
use crate::error::{Error, Result};

/// What all options have.
macro_rules! shared_methods {
    () => {
        /// Stores for this long.
        #[must_use]
        pub fn with_ttl(mut self, ttl: Duration) -> Self {
            self.ttl = Some(ttl);
            self
        }

        /// Waits no longer than this.
        #[must_use]
        pub fn with_timeout(mut self, timeout: Duration) -> Self {
            self.timeout = Some(timeout);
            self
        }

        /// Takes a stale value of up to this age past its fresh life when it cannot be loaded anew.
        #[must_use]
        pub fn with_stale_if_error(mut self, window: Duration) -> Self {
            self.stale_if_error = Some(window);
            self
        }
    };
}

/// What the options of [`Cache`](crate::Cache) have beside that.
macro_rules! strategy_method {
    () => {
        /// Reads by this strategy.
        #[must_use]
        pub fn with_strategy(mut self, strategy: crate::CacheStrategy) -> Self {
            self.strategy = strategy;
            self
        }
    };
}

/// What one call changes, where the load runs in the caller's own task.
///
/// ```
/// use cache_kit::OperationConfig;
/// use std::time::Duration;
///
/// let config = OperationConfig::default().with_ttl(Duration::from_secs(60)).with_retry(2);
/// ```
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct OperationConfig {
    /// The life of an entry that this call stores. Default: the cache's.
    pub ttl: Option<Duration>,
    /// How often a failed read of the source is tried again, after 50 ms and then twice as long each time, up
    /// to a second, with jitter. Default: not at all. Waits on the timer of the tokio runtime; without a runtime
    /// it does not wait.
    pub retries: u32,
    /// Keeps this call waiting no longer than this. Default: the [`Policy`]'s.
    pub timeout: Option<Duration>,
    /// For how long after its fresh life a value may be served to this call when it cannot be loaded anew. No longer
    /// than the entry was kept for when it was stored. Default: the [`Policy`]'s.
    pub stale_if_error: Option<Duration>,
}

impl OperationConfig {
    shared_methods!();

    /// Tries a failed read of the source again, up to `count` times.
    #[must_use]
    pub fn with_retry(mut self, count: u32) -> Self {
        self.retries = count;
        self
    }

    /// The terms of this call, over the cache's policy.
    pub(crate) fn over(&self, base: &Policy) -> Result<Terms> {
        if self.timeout.is_none() && self.stale_if_error.is_none() {
            return Ok(Terms::Cache);
        }
        changed(base, [self.timeout, self.stale_if_error, None, None])
    }
}

/// What one call of [`Cache`](crate::Cache) changes where the load is detached from its caller.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct LoadOptions {
    /// The life of an entry that this call stores. Default: the cache's.
    pub ttl: Option<Duration>,
    /// What the call may do with cache and source. Default: [`Refresh`](crate::CacheStrategy::Refresh).
    pub strategy: crate::CacheStrategy,
    /// Keeps this call waiting no longer than this. Default: the [`Policy`]'s.
    pub timeout: Option<Duration>,
    /// For how long after its fresh life a value may be served to this call when it cannot be loaded anew. No longer
    /// than the entry was kept for when it was stored. Default: the [`Policy`]'s.
    pub stale_if_error: Option<Duration>,
    /// For how long after its fresh life a value may be served to this call while a load runs behind. Default: the
    /// [`Policy`]'s.
    pub stale_while_revalidate: Option<Duration>,
    /// After how long this call gets the stale value, if there is one. Default: the [`Policy`]'s.
    pub soft_timeout: Option<Duration>,
}

impl LoadOptions {
    shared_methods!();
    strategy_method!();

    /// Takes a stale value of up to this age past its fresh life while a load runs behind.
    #[must_use]
    pub fn with_stale_while_revalidate(mut self, window: Duration) -> Self {
        self.stale_while_revalidate = Some(window);
        self
    }

    /// Takes a stale value after so long.
    #[must_use]
    pub fn with_soft_timeout(mut self, timeout: Duration) -> Self {
        self.soft_timeout = Some(timeout);
        self
    }

    /// The terms of this call, over the cache's policy.
    pub(crate) fn over(&self, base: &Policy) -> Result<Terms> {
        if self.timeout.is_none()
            && self.stale_if_error.is_none()
            && self.stale_while_revalidate.is_none()
            && self.soft_timeout.is_none()
        {
            return Ok(Terms::Cache);
        }
        changed(base, [self.timeout, self.stale_if_error, self.stale_while_revalidate, self.soft_timeout])
    }
}

/// What one call of [`Cache`](crate::Cache) changes where the load runs in the caller's task.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct InlineOptions {
    /// The life of an entry that this call stores. Default: the cache's.
    pub ttl: Option<Duration>,
    /// What the call may do with cache and source. Default: [`Refresh`](crate::CacheStrategy::Refresh).
    pub strategy: crate::CacheStrategy,
    /// Keeps this call waiting no longer than this. Default: the [`Policy`]'s.
    pub timeout: Option<Duration>,
    /// For how long after its fresh life a value may be served to this call when it cannot be loaded anew. No longer
    /// than the entry was kept for when it was stored. Default: the [`Policy`]'s.
    pub stale_if_error: Option<Duration>,
}

impl InlineOptions {
    shared_methods!();
    strategy_method!();

    /// The terms of this call, over the cache's policy.
    pub(crate) fn over(&self, base: &Policy) -> Result<Terms> {
        if self.timeout.is_none() && self.stale_if_error.is_none() {
            return Ok(Terms::Cache);
        }
        changed(base, [self.timeout, self.stale_if_error, None, None])
    }
}

/// A policy with what a call changes: timeout, the two windows, soft timeout.
#[cold]
fn changed(base: &Policy, changes: [Option<Duration>; 4]) -> Result<Terms> {
    let [timeout, if_error, while_revalidate, soft_timeout] = changes;
    let mut policy = *base;
    policy.timeout = timeout.or(base.timeout);
    policy.soft_timeout = soft_timeout.or(base.soft_timeout);
    policy.stale_if_error = if_error.unwrap_or(base.stale_if_error);
    policy.stale_while_revalidate = while_revalidate.unwrap_or(base.stale_while_revalidate);
    // A soft timeout of the cache's own has nothing to do in a call that takes nothing stale.
    if soft_timeout.is_none()
        && (policy.stale_life().is_zero()
            || policy.timeout.is_some_and(|hard| policy.soft_timeout >= Some(hard)))
    {
        policy.soft_timeout = None;
    }
    policy.check().map_err(|error| {
        Error::invalid(error.message().to_owned()).with_hint(error.hint().unwrap_or_default().to_owned())
    })?;
    Ok(Terms::Call(Box::new(policy)))
}
