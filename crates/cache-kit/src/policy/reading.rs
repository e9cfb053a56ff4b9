//! How old an answer may be, and how long one may take.

use std::time::Duration;

use crate::error::{Error, Result};

/// How old an answer may be, and how long one may take. By default nothing stale is served.
///
/// ```
/// use cache_kit::{Cache, Policy, backend::InMemoryBackend};
/// use std::time::Duration;
///
/// let policy = Policy::default()
///     .with_stale_while_revalidate(Duration::from_secs(30))
///     .with_stale_if_error(Duration::from_secs(3600))
///     .with_timeout(Duration::from_secs(2));
/// let cache = Cache::builder().policy(policy).build(InMemoryBackend::new())?;
/// # Ok::<(), cache_kit::Error>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Policy {
    /// For how long after its fresh life a value is served at once while a load runs behind the caller. Loads that borrow
    /// cannot run behind anybody: their readers are served in this way only while another's load is under way. An entry
    /// is kept for as long as the longer of this and [`stale_if_error`](Self::stale_if_error). Default: zero, not at all.
    pub stale_while_revalidate: Duration,
    /// For how long after its fresh life a value is served when it cannot be loaded anew: the source fails in a way that
    /// may pass, a timeout passes, or too many loads are under way. Default: zero, not at all.
    pub stale_if_error: Duration,
    /// How long the source is left alone after a failed load of a key, while a stale value is there to be served instead.
    /// Default: 1 s.
    pub retry_after_error: Duration,
    /// After how long a caller gets the stale value, if there is one, and the load goes on behind. For loads that outlive
    /// their callers. Default: never.
    pub soft_timeout: Option<Duration>,
    /// After how long a caller gets an error of kind [`Timeout`](crate::ErrorKind::Timeout), or a stale value. A backend
    /// that does not answer gets half of it. A load that outlives its callers goes on. Default: never; the load's own
    /// deadline ends the wait.
    pub timeout: Option<Duration>,
    /// After how long a load is dropped and its key free again; everyone who waits gets an error of kind
    /// [`Timeout`](crate::ErrorKind::Timeout), or a stale value. Counts from the miss. An operation of the backend has a
    /// deadline of its own. Default: 30 s.
    pub load_deadline: Duration,
    /// How old a load may be for others to join it without asking the backend: what another process invalidated since it
    /// began can be answered to them all the same. Zero always asks. Default: 1 s.
    pub join_max_age: Duration,
    /// How long a load waits for another process that loads the same key, before it asks the source itself and stores
    /// nothing; no longer than half of [`timeout`](Self::timeout) and of the [`load_deadline`](Self::load_deadline), so that
    /// there is time left for the source. Default: 1 s.
    pub lease_wait: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            retry_after_error: Duration::from_secs(1),
            soft_timeout: None,
            timeout: None,
            load_deadline: Duration::from_secs(30),
            join_max_age: Duration::from_secs(1),
            lease_wait: Duration::from_secs(1),
        }
    }
}

impl Policy {
    /// Serves stale values for so long while a load runs behind the caller.
    #[must_use]
    pub fn with_stale_while_revalidate(mut self, window: Duration) -> Self {
        self.stale_while_revalidate = window;
        self
    }

    /// Serves stale values for so long when they cannot be loaded anew.
    #[must_use]
    pub fn with_stale_if_error(mut self, window: Duration) -> Self {
        self.stale_if_error = window;
        self
    }

    /// Leaves the source alone for so long after it failed, while there is a stale value.
    #[must_use]
    pub fn with_retry_after_error(mut self, pause: Duration) -> Self {
        self.retry_after_error = pause;
        self
    }

    /// Serves a stale value after so long, and lets the load go on behind.
    #[must_use]
    pub fn with_soft_timeout(mut self, timeout: Duration) -> Self {
        self.soft_timeout = Some(timeout);
        self
    }

    /// Keeps callers waiting no longer than this.
    #[must_use]
    pub fn with_timeout(mut self, timeout: Duration) -> Self {
        self.timeout = Some(timeout);
        self
    }

    /// Drops loads after so long.
    #[must_use]
    pub fn with_load_deadline(mut self, deadline: Duration) -> Self {
        self.load_deadline = deadline;
        self
    }

    /// Joins loads of up to this age without asking the backend.
    #[must_use]
    pub fn with_join_max_age(mut self, age: Duration) -> Self {
        self.join_max_age = age;
        self
    }

    /// Waits so long for another process that loads the same key.
    #[must_use]
    pub fn with_lease_wait(mut self, wait: Duration) -> Self {
        self.lease_wait = wait;
        self
    }

    /// The same without stale values: for what must never be out of date, such as permissions.
    #[must_use]
    pub fn never_stale(mut self) -> Self {
        (self.stale_while_revalidate, self.stale_if_error) = (Duration::ZERO, Duration::ZERO);
        self.soft_timeout = None;
        self
    }

    /// For how long an entry is kept after its fresh life.
    pub(crate) fn stale_life(&self) -> Duration {
        self.stale_while_revalidate.max(self.stale_if_error)
    }

    pub(crate) fn check(&self) -> Result<()> {
        for (field, value) in [
            ("soft_timeout", self.soft_timeout),
            ("timeout", self.timeout),
            ("load_deadline", Some(self.load_deadline)),
        ] {
            if value == Some(Duration::ZERO) {
                return Err(
                    Error::config(format!("{field} is zero")).with_hint("leave it out for the default")
                );
            }
        }
        if self.soft_timeout.is_some() && self.stale_life().is_zero() {
            return Err(Error::config("soft_timeout is set, and there is no stale value to serve after it")
                .with_hint("set stale_if_error as well, or timeout instead"));
        }
        if let (Some(soft), Some(hard)) = (self.soft_timeout, self.timeout)
            && soft >= hard
        {
            return Err(Error::config("soft_timeout is not shorter than timeout")
                .with_hint("after soft_timeout a stale value is served, after timeout an error"));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn what_contradicts_itself_is_refused_and_both_fields_are_named() {
        Policy::default().check().unwrap();
        let stale = Policy::default().with_stale_if_error(SECOND);
        stale.with_soft_timeout(SECOND).with_timeout(2 * SECOND).check().unwrap();
        for (policy, fields) in [
            (Policy::default().with_soft_timeout(SECOND), ["soft_timeout", "stale_if_error"]),
            (stale.with_soft_timeout(SECOND).with_timeout(SECOND), ["soft_timeout", "timeout"]),
            (stale.with_load_deadline(Duration::ZERO), ["load_deadline", "zero"]),
            (stale.with_timeout(Duration::ZERO), ["timeout", "zero"]),
        ] {
            let error = policy.check().unwrap_err().to_string();
            assert!(fields.iter().all(|field| error.contains(field)), "{error}");
        }
        assert_eq!(stale.with_soft_timeout(SECOND).never_stale().stale_life(), Duration::ZERO);
    }
}
