//! How long entries live, how old an answer may be, and how long one may take.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use super::{DEFAULT_TTL, PolicyOverrides};
use crate::error::{Error, Result};

/// More would leave some entries hardly any life.
const MAX_JITTER: f64 = 0.5;

/// What is wrong, and what to do about it.
type Fault = (&'static str, &'static str);

/// How long entries live, how old an answer may be, and how long one may take. By default nothing stale is served.
///
/// ```
/// use cache_kit::{Cache, Policy, backend::InMemoryBackend};
/// use std::time::Duration;
///
/// let policy = Policy::default()
///     .with_ttl(Duration::from_secs(60))
///     .with_stale_while_revalidate(Duration::from_secs(30))
///     .with_stale_if_error(Duration::from_secs(3600))
///     .with_timeout(Duration::from_secs(2));
/// let cache = Cache::builder().policy(policy).build(InMemoryBackend::new())?;
/// # Ok::<(), cache_kit::Error>(())
/// ```
///
/// A policy has three levels: the defaults; the cache's, over which an entity says what is different for its kind
/// ([`CacheEntity::cache_policy`](crate::CacheEntity::cache_policy)); and the call's ([`PolicyOverrides`](crate::PolicyOverrides)).
/// Each is checked when it is made: what contradicts itself is an error that names both fields.
///
/// With serde, durations are text (`"5m"`, `"250ms"`, `"1h 30m"`; where there may be none, also `"none"`), what is left out
/// is the default, and what is unknown or contradicts itself is an error. In print it is one line.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(try_from = "PolicyOverrides", into = "PolicyOverrides")]
#[non_exhaustive]
pub struct Policy {
    /// For how long an entry is fresh. `None` is without end: entries leave only by invalidation or eviction. Zero is an
    /// error. Default: 5 minutes.
    pub ttl: Option<Duration>,
    /// Which share of its life is taken off an entry at most, drawn once when it is written, so that entries that are
    /// written together do not end together. No entry lives longer than asked. From 0, which is off, to 0.5. Default: 0.1,
    /// up to a tenth.
    pub ttl_jitter: f64,
    /// For how long it is remembered that the source does not have a row, but no longer than for [`ttl`](Self::ttl). Zero:
    /// not at all. Default: 10 s.
    pub absent_ttl: Duration,
    /// After how long without a read an entry ends, if that is before the end of its [`ttl`](Self::ttl). Zero is an error.
    /// Default: never.
    pub idle: Option<Duration>,
    /// How eagerly a value is loaded anew behind its readers before its life ends: the more a load costs, and the closer
    /// the end is, the likelier. 1 is the optimum of *Optimal Probabilistic Cache Stampede Prevention* (Vattani,
    /// Chierichetti, Lowenstein, VLDB 2015), more is earlier, and 0 is off. For loads that outlive their callers. Default:
    /// 1.
    pub early_refresh_beta: f64,
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
    /// How old a version of a tag or namespace may be that this process remembers: for so long it may go unnoticed that
    /// another process invalidated the tag or cleared the namespace. What this process does is seen at once. Zero asks with
    /// every hit. Default: 1 s.
    pub tag_version_max_age: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            ttl: Some(DEFAULT_TTL),
            ttl_jitter: 0.1,
            absent_ttl: Duration::from_secs(10),
            idle: None,
            early_refresh_beta: 1.0,
            stale_while_revalidate: Duration::ZERO,
            stale_if_error: Duration::ZERO,
            retry_after_error: Duration::from_secs(1),
            soft_timeout: None,
            timeout: None,
            load_deadline: Duration::from_secs(30),
            join_max_age: Duration::from_secs(1),
            lease_wait: Duration::from_secs(1),
            tag_version_max_age: Duration::from_secs(1),
        }
    }
}

impl Policy {
    /// Keeps entries fresh for so long.
    #[must_use]
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Keeps entries fresh without end.
    #[must_use]
    pub fn without_ttl(mut self) -> Self {
        self.ttl = None;
        self
    }

    /// Takes up to this share off the life of each entry; 0 is off.
    #[must_use]
    pub fn with_ttl_jitter(mut self, share: f64) -> Self {
        self.ttl_jitter = share;
        self
    }

    /// Remembers for so long that the source does not have a row; zero is not at all.
    #[must_use]
    pub fn with_absent_ttl(mut self, ttl: Duration) -> Self {
        self.absent_ttl = ttl;
        self
    }

    /// Ends entries that nobody has read for so long.
    #[must_use]
    pub fn with_idle(mut self, idle: Duration) -> Self {
        self.idle = Some(idle);
        self
    }

    /// Loads anew before the end of a value's life, as eagerly as this says; 0 is off.
    #[must_use]
    pub fn with_early_refresh_beta(mut self, beta: f64) -> Self {
        self.early_refresh_beta = beta;
        self
    }

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

    /// Trusts versions of tags and namespaces of up to this age; zero asks with every hit.
    #[must_use]
    pub fn with_tag_version_max_age(mut self, age: Duration) -> Self {
        self.tag_version_max_age = age;
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

    /// Whether the soft timeout comes after what ends the wait anyway, or has nothing to serve.
    pub(super) fn soft_timeout_fault(&self) -> Option<Fault> {
        let soft = self.soft_timeout?;
        if self.stale_life().is_zero() {
            return Some((
                "soft_timeout is set, and there is no stale value to serve after it",
                "set stale_if_error or stale_while_revalidate as well, or timeout instead",
            ));
        }
        if self.timeout.is_some_and(|hard| soft >= hard) {
            return Some((
                "soft_timeout is not shorter than timeout",
                "after soft_timeout a stale value is served, after timeout an error",
            ));
        }
        (soft >= self.load_deadline).then_some((
            "soft_timeout is not shorter than load_deadline",
            "after soft_timeout a stale value is served while the load goes on; load_deadline ends the load",
        ))
    }

    /// Whether `idle` ends nothing that `ttl` does not end anyway.
    pub(super) fn idle_fault(&self) -> Option<Fault> {
        (self.idle? >= self.ttl?).then_some((
            "idle is not shorter than ttl",
            "idle ends an entry before its ttl when nobody reads it; leave it out, or set a longer ttl or none",
        ))
    }

    fn fault(&self) -> Option<Fault> {
        if !(0.0..=MAX_JITTER).contains(&self.ttl_jitter) {
            return Some((
                "ttl_jitter is not between 0 and 0.5",
                "it is the share of a life that chance may take off: 0 is off, 0.1 the default",
            ));
        }
        if !(self.early_refresh_beta.is_finite() && self.early_refresh_beta >= 0.0) {
            return Some((
                "early_refresh_beta is negative or not a number",
                "1 is the default, more is earlier, 0 is off",
            ));
        }
        self.soft_timeout_fault().or_else(|| self.idle_fault())
    }

    pub(crate) fn check(&self) -> Result<()> {
        for (field, value, hint) in [
            ("ttl", self.ttl, "set a longer one, or none (`without_ttl`) for entries without end"),
            ("idle", self.idle, "leave it out, and entries live for their ttl"),
            ("soft_timeout", self.soft_timeout, "leave it out for the default"),
            ("timeout", self.timeout, "leave it out for the default"),
            ("load_deadline", Some(self.load_deadline), "leave it out for the default"),
        ] {
            if value == Some(Duration::ZERO) {
                return Err(Error::config(format!("{field} is zero")).with_hint(hint));
            }
        }
        match self.fault() {
            Some((what, hint)) => Err(Error::config(what).with_hint(hint)),
            None => Ok(()),
        }
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
            (stale.with_soft_timeout(SECOND).with_load_deadline(SECOND), ["soft_timeout", "load_deadline"]),
            (Policy::default().with_ttl(SECOND).with_idle(SECOND), ["idle", "ttl"]),
            (Policy::default().with_ttl(Duration::ZERO), ["ttl", "zero"]),
            (Policy::default().with_idle(Duration::ZERO), ["idle", "zero"]),
            (stale.with_load_deadline(Duration::ZERO), ["load_deadline", "zero"]),
            (stale.with_timeout(Duration::ZERO), ["timeout", "zero"]),
        ] {
            let error = policy.check().unwrap_err().to_string();
            assert!(fields.iter().all(|field| error.contains(field)), "{error}");
        }
        assert_eq!(stale.with_soft_timeout(SECOND).never_stale().stale_life(), Duration::ZERO);
        Policy::default().with_idle(SECOND).check().unwrap();
        Policy::default().without_ttl().with_idle(Duration::MAX).check().unwrap();
    }

    #[test]
    fn numbers_that_are_none_or_out_of_range_are_refused() {
        for share in [-0.1, 0.51, f64::NAN, f64::INFINITY] {
            let error = Policy::default().with_ttl_jitter(share).check().unwrap_err().to_string();
            assert!(error.contains("ttl_jitter") && error.contains("0.5"), "{share}: {error}");
        }
        for beta in [-0.1, f64::NAN, f64::INFINITY] {
            let error = Policy::default().with_early_refresh_beta(beta).check().unwrap_err().to_string();
            assert!(error.contains("early_refresh_beta"), "{beta}: {error}");
        }
        for (share, beta) in [(0.0, 0.0), (0.5, 1e9)] {
            Policy::default().with_ttl_jitter(share).with_early_refresh_beta(beta).check().unwrap();
        }
    }
}
