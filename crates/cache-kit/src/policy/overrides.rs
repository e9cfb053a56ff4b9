//! What a level changes of the policy above it.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::Policy;
use super::written::{Setting, Shown, Word, write_list};
use crate::error::{Error, Result};

/// What an entity or a call changes of the [`Policy`] above it. By default nothing.
///
/// ```
/// use cache_kit::{Policy, PolicyOverrides};
/// use std::time::Duration;
///
/// let prices = PolicyOverrides::default().with_ttl(Duration::from_secs(5)).never_stale();
/// assert_eq!(prices.to_string(), "ttl 5s, stale while revalidate 0s, stale if error 0s");
/// let policy = Policy::default().with_stale_if_error(Duration::from_secs(60)).with(&prices)?;
/// assert_eq!(policy.ttl, Some(Duration::from_secs(5)));
/// # Ok::<(), cache_kit::Error>(())
/// ```
///
/// Reads and writes with serde as [`Policy`] does; what is left out is as above.
#[derive(Clone, Copy, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "Written", into = "Written")]
pub struct PolicyOverrides {
    changes: Changes,
    /// Whether there are any: hits ask, and are counted in instructions.
    is_set: bool,
}

/// The fields of a policy, with the type each has there, its type as text, its name in print, and how it is shown.
macro_rules! fields {
    ($($field:ident: $type:ty as $written:ty, $name:literal $shown:ident;)*) => {
        /// What is changed.
        #[derive(Clone, Copy, Debug, Default, PartialEq)]
        struct Changes {
            $($field: Option<$type>,)*
        }

        impl Changes {
            const NONE: Self = Self { $($field: None,)* };

            fn all(policy: &Policy) -> Self {
                Self { $($field: Some(policy.$field),)* }
            }

            /// These, and below them the others.
            fn or(&self, others: &Self) -> Self {
                Self { $($field: self.$field.or(others.$field),)* }
            }

            fn apply_to(&self, policy: &mut Policy) {
                $(policy.$field = self.$field.unwrap_or(policy.$field);)*
            }

            fn shown(&self) -> impl Iterator<Item = (&'static str, Shown)> {
                let fields = [$(self.$field.map(|value| ($name, Shown::$shown(value)))),*];
                fields.into_iter().flatten()
            }
        }

        /// The same as text.
        #[derive(Default, Serialize, Deserialize)]
        #[serde(rename = "Policy", default, deny_unknown_fields)]
        struct Written {
            $(#[serde(skip_serializing_if = "Option::is_none")] $field: Option<$written>,)*
        }

        impl From<PolicyOverrides> for Written {
            fn from(overrides: PolicyOverrides) -> Self {
                Self { $($field: overrides.changes.$field.map(Setting::write),)* }
            }
        }

        impl TryFrom<Written> for PolicyOverrides {
            type Error = Error;

            fn try_from(written: Written) -> Result<Self> {
                let changes = Changes {
                    $($field: match written.$field {
                        Some(value) => Some(Setting::read(stringify!($field), value)?),
                        None => None,
                    },)*
                };
                Ok(Self { is_set: changes != Changes::NONE, changes })
            }
        }
    };
}

fields! {
    ttl: Option<Duration> as Word, "ttl" MaybeSpan;
    ttl_jitter: f64 as f64, "jitter" Share;
    absent_ttl: Duration as Word, "absent" Span;
    idle: Option<Duration> as Word, "idle" MaybeSpan;
    early_refresh_beta: f64 as f64, "early refresh" Factor;
    stale_while_revalidate: Duration as Word, "stale while revalidate" Span;
    stale_if_error: Duration as Word, "stale if error" Span;
    retry_after_error: Duration as Word, "retry after error" Span;
    soft_timeout: Option<Duration> as Word, "soft timeout" MaybeSpan;
    timeout: Option<Duration> as Word, "timeout" MaybeSpan;
    load_deadline: Duration as Word, "load deadline" Span;
    join_max_age: Duration as Word, "join max age" Span;
    lease_wait: Duration as Word, "lease wait" Span;
    tag_version_max_age: Duration as Word, "tag version max age" Span;
}

impl PolicyOverrides {
    /// Changes nothing.
    pub(crate) const NONE: Self = Self { changes: Changes::NONE, is_set: false };

    fn change(mut self, change: impl FnOnce(&mut Changes)) -> Self {
        change(&mut self.changes);
        self.is_set = true;
        self
    }

    /// Whether all is as above.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        !self.is_set
    }

    /// Keeps entries fresh for so long; see [`Policy::ttl`].
    #[must_use]
    pub fn with_ttl(self, ttl: Duration) -> Self {
        self.change(|to| to.ttl = Some(Some(ttl)))
    }

    /// Keeps entries fresh without end.
    #[must_use]
    pub fn without_ttl(self) -> Self {
        self.change(|to| to.ttl = Some(None))
    }

    /// Takes up to this share off the life of each entry, 0 is off; see [`Policy::ttl_jitter`].
    #[must_use]
    pub fn with_ttl_jitter(self, share: f64) -> Self {
        self.change(|to| to.ttl_jitter = Some(share))
    }

    /// Remembers for so long that the source does not have a row, zero is not at all; see [`Policy::absent_ttl`].
    #[must_use]
    pub fn with_absent_ttl(self, ttl: Duration) -> Self {
        self.change(|to| to.absent_ttl = Some(ttl))
    }

    /// Ends entries that nobody has read for so long; see [`Policy::idle`].
    #[must_use]
    pub fn with_idle(self, idle: Duration) -> Self {
        self.change(|to| to.idle = Some(Some(idle)))
    }

    /// Ends no entry for not being read.
    #[must_use]
    pub fn without_idle(self) -> Self {
        self.change(|to| to.idle = Some(None))
    }

    /// Loads anew before the end of a value's life, as eagerly as this says, 0 is off; see
    /// [`Policy::early_refresh_beta`].
    #[must_use]
    pub fn with_early_refresh_beta(self, beta: f64) -> Self {
        self.change(|to| to.early_refresh_beta = Some(beta))
    }

    /// Serves stale values for so long while a load runs behind the caller; see [`Policy::stale_while_revalidate`].
    #[must_use]
    pub fn with_stale_while_revalidate(self, window: Duration) -> Self {
        self.change(|to| to.stale_while_revalidate = Some(window))
    }

    /// Serves stale values for so long when they cannot be loaded anew; see [`Policy::stale_if_error`].
    #[must_use]
    pub fn with_stale_if_error(self, window: Duration) -> Self {
        self.change(|to| to.stale_if_error = Some(window))
    }

    /// Leaves the source alone for so long after it failed; see [`Policy::retry_after_error`].
    #[must_use]
    pub fn with_retry_after_error(self, pause: Duration) -> Self {
        self.change(|to| to.retry_after_error = Some(pause))
    }

    /// Serves a stale value after so long; see [`Policy::soft_timeout`].
    #[must_use]
    pub fn with_soft_timeout(self, timeout: Duration) -> Self {
        self.change(|to| to.soft_timeout = Some(Some(timeout)))
    }

    /// Waits for a load although there is a stale value.
    #[must_use]
    pub fn without_soft_timeout(self) -> Self {
        self.change(|to| to.soft_timeout = Some(None))
    }

    /// Keeps callers waiting no longer than this; see [`Policy::timeout`].
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Self {
        self.change(|to| to.timeout = Some(Some(timeout)))
    }

    /// Waits for as long as the load may take.
    #[must_use]
    pub fn without_timeout(self) -> Self {
        self.change(|to| to.timeout = Some(None))
    }

    /// Drops loads after so long; see [`Policy::load_deadline`].
    #[must_use]
    pub fn with_load_deadline(self, deadline: Duration) -> Self {
        self.change(|to| to.load_deadline = Some(deadline))
    }

    /// Joins loads of up to this age without asking the backend; see [`Policy::join_max_age`].
    #[must_use]
    pub fn with_join_max_age(self, age: Duration) -> Self {
        self.change(|to| to.join_max_age = Some(age))
    }

    /// Waits so long for another process that loads the same key; see [`Policy::lease_wait`].
    #[must_use]
    pub fn with_lease_wait(self, wait: Duration) -> Self {
        self.change(|to| to.lease_wait = Some(wait))
    }

    /// Trusts versions of tags and namespaces of up to this age; see [`Policy::tag_version_max_age`].
    #[must_use]
    pub fn with_tag_version_max_age(self, age: Duration) -> Self {
        self.change(|to| to.tag_version_max_age = Some(age))
    }

    /// Serves nothing stale, and takes back a soft timeout that was set here: for what must never be out of date, such as
    /// permissions.
    #[must_use]
    pub fn never_stale(self) -> Self {
        self.change(|to| {
            (to.stale_while_revalidate, to.stale_if_error) = (Some(Duration::ZERO), Some(Duration::ZERO));
            to.soft_timeout = None;
        })
    }

    /// The life that is set here; within, `None` is without end.
    pub(crate) fn ttl(&self) -> Option<Option<Duration>> {
        self.changes.ttl
    }

    /// These, and the others where these change nothing.
    pub(super) fn or(&self, others: &Self) -> Self {
        Self { changes: self.changes.or(&others.changes), is_set: self.is_set || others.is_set }
    }

    pub(super) fn shown(&self) -> impl Iterator<Item = (&'static str, Shown)> {
        self.changes.shown()
    }
}

/// Every field as the policy has it.
impl From<Policy> for PolicyOverrides {
    fn from(policy: Policy) -> Self {
        Self { changes: Changes::all(&policy), is_set: true }
    }
}

/// Over the defaults.
impl TryFrom<PolicyOverrides> for Policy {
    type Error = Error;

    fn try_from(overrides: PolicyOverrides) -> Result<Self> {
        Self::default().with(&overrides)
    }
}

/// What is set, in one line.
impl fmt::Display for PolicyOverrides {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.is_set { write_list(f, self.shown()) } else { f.write_str("as above") }
    }
}

impl Policy {
    /// This policy with what a level below changes. A soft timeout or an idle time of this one that has nothing left to do
    /// is dropped.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) for what contradicts itself, naming both fields.
    pub fn with(&self, overrides: &PolicyOverrides) -> Result<Self> {
        let mut policy = *self;
        overrides.changes.apply_to(&mut policy);
        if overrides.changes.soft_timeout.is_none() && policy.soft_timeout_fault().is_some() {
            policy.soft_timeout = None;
        }
        if overrides.changes.idle.is_none() && policy.idle_fault().is_some() {
            policy.idle = None;
        }
        policy.check()?;
        Ok(policy)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ErrorKind;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn overrides_change_what_they_set_and_nothing_else() {
        let above = Policy::default().with_ttl(7 * SECOND).with_stale_if_error(SECOND);
        assert_eq!(above.with(&PolicyOverrides::default()).unwrap(), above);
        let overrides = PolicyOverrides::default().with_lease_wait(Duration::ZERO).without_ttl();
        assert_eq!(
            above.with(&overrides).unwrap(),
            above.with_lease_wait(Duration::ZERO).without_ttl(),
            "none is a value too"
        );
        assert!(PolicyOverrides::default().is_empty() && !overrides.is_empty());
        assert_eq!(Policy::default().with(&above.into()).unwrap(), above, "all of them");
    }

    #[test]
    fn every_method_sets_the_field_of_its_name() {
        let policy = Policy::default()
            .with_ttl(90 * SECOND)
            .with_ttl_jitter(0.2)
            .with_absent_ttl(2 * SECOND)
            .with_idle(3 * SECOND)
            .with_early_refresh_beta(4.0)
            .with_stale_while_revalidate(5 * SECOND)
            .with_stale_if_error(6 * SECOND)
            .with_retry_after_error(7 * SECOND)
            .with_soft_timeout(8 * SECOND)
            .with_timeout(9 * SECOND)
            .with_load_deadline(10 * SECOND)
            .with_join_max_age(11 * SECOND)
            .with_lease_wait(12 * SECOND)
            .with_tag_version_max_age(13 * SECOND);
        let overrides = PolicyOverrides::default()
            .with_ttl(90 * SECOND)
            .with_ttl_jitter(0.2)
            .with_absent_ttl(2 * SECOND)
            .with_idle(3 * SECOND)
            .with_early_refresh_beta(4.0)
            .with_stale_while_revalidate(5 * SECOND)
            .with_stale_if_error(6 * SECOND)
            .with_retry_after_error(7 * SECOND)
            .with_soft_timeout(8 * SECOND)
            .with_timeout(9 * SECOND)
            .with_load_deadline(10 * SECOND)
            .with_join_max_age(11 * SECOND)
            .with_lease_wait(12 * SECOND)
            .with_tag_version_max_age(13 * SECOND);
        assert_eq!(overrides, policy.into());
        let off = overrides.without_idle().without_soft_timeout().without_timeout();
        let off = Policy::default().with(&off).unwrap();
        assert_eq!((off.idle, off.soft_timeout, off.timeout), (None, None, None));
    }

    #[test]
    fn an_inherited_soft_timeout_without_use_is_dropped_and_one_of_the_same_level_is_an_error() {
        let above = Policy::default().with_stale_if_error(SECOND).with_soft_timeout(2 * SECOND);
        let none = PolicyOverrides::default();
        for overrides in [none.never_stale(), none.with_timeout(SECOND), none.with_load_deadline(SECOND)] {
            assert_eq!(above.with(&overrides).unwrap().soft_timeout, None, "{overrides}");
        }
        assert_eq!(above.with(&none.with_timeout(3 * SECOND)).unwrap().soft_timeout, Some(2 * SECOND));
        let soft = none.with_soft_timeout(2 * SECOND);
        for (overrides, other) in [
            (soft.with_stale_if_error(Duration::ZERO), "stale_if_error"),
            (soft.with_timeout(SECOND), "timeout"),
            (soft.with_load_deadline(SECOND), "load_deadline"),
        ] {
            let error = above.with(&overrides).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Config);
            assert!(
                error.to_string().contains("soft_timeout") && error.to_string().contains(other),
                "{error}"
            );
        }
        assert_eq!(soft.never_stale(), none.never_stale(), "taken back");
    }

    #[test]
    fn an_inherited_idle_time_without_use_is_dropped_and_one_of_the_same_level_is_an_error() {
        let above = Policy::default().with_idle(60 * SECOND);
        let short = PolicyOverrides::default().with_ttl(60 * SECOND);
        assert_eq!(above.with(&short).unwrap().idle, None);
        assert_eq!(above.with(&short.with_ttl(61 * SECOND)).unwrap().idle, Some(60 * SECOND));
        for overrides in [short.with_idle(60 * SECOND), PolicyOverrides::default().with_idle(300 * SECOND)] {
            let error = above.with(&overrides).unwrap_err().to_string();
            assert!(error.contains("idle") && error.contains("ttl"), "{error}");
        }
    }

    #[test]
    fn what_is_set_comes_before_what_is_merged_in() {
        let none = PolicyOverrides::default();
        let merged = none.with_ttl(SECOND).or(&none.with_ttl(2 * SECOND).with_lease_wait(SECOND));
        assert_eq!(merged, none.with_ttl(SECOND).with_lease_wait(SECOND));
        assert_eq!(none.or(&none), PolicyOverrides::NONE);
        assert_eq!(merged.ttl(), Some(Some(SECOND)));
    }
}
