//! What one call may change.

use std::time::Duration;

use super::{Policy, PolicyOverrides};
use crate::engine::Terms;
use crate::error::{Error, Result};
use crate::tags::Tags;

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

        /// Tags what this call stores: it is invalidated with each of these. A tag is up to 255 bytes long, and an entry has up to
        /// 64; more is an error of the call.
        #[must_use]
        pub fn with_tags(mut self, tags: &'a [&'a str]) -> Self {
            self.tags = tags;
            self
        }

        /// The tags of what this call stores.
        pub(crate) fn tags(&self) -> Result<Tags> {
            Tags::new(self.tags)
        }

        /// Changes this of the policy.
        #[must_use]
        pub fn with_policy(mut self, overrides: PolicyOverrides) -> Self {
            self.policy = overrides;
            self
        }

        /// The life of what this call stores, if it says one; within, `None` is without end.
        pub(crate) fn life(&self) -> Option<Option<Duration>> {
            self.ttl.map(Some).or(self.policy.ttl())
        }

        /// All that this call changes of the policy.
        fn overrides(&self) -> PolicyOverrides {
            let mut own = PolicyOverrides::NONE;
            if let Some(ttl) = self.ttl {
                own = own.with_ttl(ttl);
            }
            if let Some(timeout) = self.timeout {
                own = own.with_timeout(timeout);
            }
            if let Some(window) = self.stale_if_error {
                own = own.with_stale_if_error(window);
            }
            own.or(&self.policy)
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
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct OperationConfig<'a> {
    /// The life of an entry that this call stores. Default: the cache's.
    pub ttl: Option<Duration>,
    /// How often a failed read of the source is tried again, after 50 ms at most and then twice as long each time, up
    /// to a second, with jitter. Default: not at all. Waits on the timer of the tokio runtime; without a runtime
    /// it does not wait.
    pub retries: u32,
    /// Keeps this call waiting no longer than this. Default: the [`Policy`]'s.
    pub timeout: Option<Duration>,
    /// For how long after its fresh life a value may be served to this call when it cannot be loaded anew. No longer
    /// than the entry was kept for when it was stored. Default: the [`Policy`]'s.
    pub stale_if_error: Option<Duration>,
    /// What else this call changes of the [`Policy`]; the other fields here win over it. Default: nothing.
    pub policy: PolicyOverrides,
    /// What an entry that this call stores is invalidated with, beside the tags that its loader names. Default: none.
    pub tags: &'a [&'a str],
}

impl<'a> OperationConfig<'a> {
    /// Changes nothing.
    pub(crate) const PLAIN: Self = Self {
        ttl: None,
        retries: 0,
        timeout: None,
        stale_if_error: None,
        policy: PolicyOverrides::NONE,
        tags: &[],
    };

    shared_methods!();

    /// Tries a failed read of the source again, up to `count` times.
    #[must_use]
    pub fn with_retry(mut self, count: u32) -> Self {
        self.retries = count;
        self
    }

    /// The terms of this call, over the cache's policy.
    pub(crate) fn over(&self, base: &Policy) -> Result<Terms> {
        if self.timeout.is_none() && self.stale_if_error.is_none() && self.policy.is_empty() {
            return Ok(Terms::Cache);
        }
        changed(base, &self.overrides())
    }
}

/// What one call of [`Cache`](crate::Cache) changes where the load is detached from its caller.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct LoadOptions<'a> {
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
    /// What else this call changes of the [`Policy`]; the other fields here win over it. Default: nothing.
    pub policy: PolicyOverrides,
    /// What an entry that this call stores is invalidated with, beside the tags that its loader names. Default: none.
    pub tags: &'a [&'a str],
}

impl<'a> LoadOptions<'a> {
    /// Changes nothing.
    pub(crate) const PLAIN: Self = Self {
        ttl: None,
        strategy: crate::CacheStrategy::Refresh,
        timeout: None,
        stale_if_error: None,
        stale_while_revalidate: None,
        soft_timeout: None,
        policy: PolicyOverrides::NONE,
        tags: &[],
    };

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
            && self.policy.is_empty()
        {
            return Ok(Terms::Cache);
        }
        let mut own = PolicyOverrides::NONE;
        if let Some(window) = self.stale_while_revalidate {
            own = own.with_stale_while_revalidate(window);
        }
        if let Some(timeout) = self.soft_timeout {
            own = own.with_soft_timeout(timeout);
        }
        changed(base, &own.or(&self.overrides()))
    }
}

/// What one call of [`Cache`](crate::Cache) changes where the load runs in the caller's task.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
#[non_exhaustive]
pub struct InlineOptions<'a> {
    /// The life of an entry that this call stores. Default: the cache's.
    pub ttl: Option<Duration>,
    /// What the call may do with cache and source. Default: [`Refresh`](crate::CacheStrategy::Refresh).
    pub strategy: crate::CacheStrategy,
    /// Keeps this call waiting no longer than this. Default: the [`Policy`]'s.
    pub timeout: Option<Duration>,
    /// For how long after its fresh life a value may be served to this call when it cannot be loaded anew. No longer
    /// than the entry was kept for when it was stored. Default: the [`Policy`]'s.
    pub stale_if_error: Option<Duration>,
    /// What else this call changes of the [`Policy`]; the other fields here win over it. Default: nothing.
    pub policy: PolicyOverrides,
    /// What an entry that this call stores is invalidated with, beside the tags that its loader names. Default: none.
    pub tags: &'a [&'a str],
}

impl<'a> InlineOptions<'a> {
    /// Changes nothing.
    pub(crate) const PLAIN: Self = Self {
        ttl: None,
        strategy: crate::CacheStrategy::Refresh,
        timeout: None,
        stale_if_error: None,
        policy: PolicyOverrides::NONE,
        tags: &[],
    };

    shared_methods!();
    strategy_method!();

    /// The terms of this call, over the cache's policy.
    pub(crate) fn over(&self, base: &Policy) -> Result<Terms> {
        if self.timeout.is_none() && self.stale_if_error.is_none() && self.policy.is_empty() {
            return Ok(Terms::Cache);
        }
        changed(base, &self.overrides())
    }
}

/// A policy with what a call changes.
#[cold]
fn changed(base: &Policy, overrides: &PolicyOverrides) -> Result<Terms> {
    let policy = base.with(overrides).map_err(|error| {
        Error::invalid(error.message().to_owned()).with_hint(error.hint().unwrap_or_default().to_owned())
    })?;
    Ok(Terms::Call(Box::new(policy)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn options_that_change_nothing_are_the_defaults_and_go_by_the_policy_of_the_cache() {
        assert_eq!(LoadOptions::PLAIN, LoadOptions::default());
        assert_eq!(InlineOptions::PLAIN, InlineOptions::default());
        assert_eq!(OperationConfig::PLAIN, OperationConfig::default());
        let base = Policy::default();
        assert_eq!(LoadOptions::default().with_ttl(SECOND).over(&base).unwrap(), Terms::Cache);
        assert_eq!(InlineOptions::default().over(&base).unwrap(), Terms::Cache);
        assert_eq!(OperationConfig::default().with_retry(2).over(&base).unwrap(), Terms::Cache);
    }

    #[test]
    fn the_fields_of_a_call_win_over_its_overrides_and_those_over_the_policy() {
        let base =
            Policy::default().with_ttl(9 * SECOND).with_timeout(9 * SECOND).with_lease_wait(9 * SECOND);
        let overrides = PolicyOverrides::default().with_timeout(2 * SECOND).with_lease_wait(2 * SECOND);
        let options = LoadOptions::default().with_policy(overrides).with_timeout(SECOND);
        let expected = base.with_timeout(SECOND).with_lease_wait(2 * SECOND);
        assert_eq!(options.over(&base).unwrap(), Terms::Call(Box::new(expected)));
        assert_eq!(options.life(), None);
        let options = options.with_policy(overrides.without_ttl());
        assert_eq!((options.life(), options.with_ttl(SECOND).life()), (Some(None), Some(Some(SECOND))));
    }

    #[test]
    fn a_contradiction_within_a_call_is_an_error_whichever_of_its_fields_says_it() {
        let idle = PolicyOverrides::default().with_idle(SECOND);
        let soft = PolicyOverrides::default().with_soft_timeout(SECOND);
        let base = Policy::default().with_stale_if_error(SECOND);
        for (terms, fields) in [
            (InlineOptions::default().with_policy(idle).with_ttl(SECOND).over(&base), ["idle", "ttl"]),
            (
                OperationConfig::default().with_policy(soft).with_timeout(SECOND).over(&base),
                ["soft_timeout", "timeout"],
            ),
            (
                LoadOptions::default().with_soft_timeout(SECOND).over(&Policy::default()),
                ["soft_timeout", "stale_if_error"],
            ),
        ] {
            let error = terms.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(fields.iter().all(|field| error.to_string().contains(field)), "{error}");
        }
    }
}
