//! Invalidations made by others, told by the server: what caches in front of Redis live by.
//!
//! The server remembers which keys were read over a connection, and tells that connection when one of them is changed or
//! removed, by anybody and however (`CLIENT TRACKING`, RESP3). Reads and pushes go over the same connection, so that a push
//! can never be overtaken by the value that it is about, and one cannot be lost without the other.

mod queue;
mod tracker;

use std::sync::Arc;

pub(super) use self::queue::{Gap, Queue};
pub use self::tracker::RedisTracker;
use super::RedisBackend;
use super::node::Tracking;
use crate::error::{Error, ErrorKind, Result};

/// What to be told of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum RedisTracked {
    /// The keys that were read by [`RedisTracker::get`]. The default: it costs the server a little memory for each key and
    /// process, and nobody hears of what nobody has.
    #[default]
    KeysRead,
    /// All keys that begin with one of these, read or not; none may be the beginning of another one. Costs the server no
    /// memory, and **every process a message for every write**: two for each miss, when it is leased and when it is filled.
    Prefixes(Vec<String>),
}

/// What a [`RedisBackend::track`] tells.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RedisInvalidation {
    /// These keys were changed or removed, or have expired.
    Keys(Vec<String>),
    /// The server was flushed.
    Everything,
    /// Something may have been missed: whatever was read before is to be taken for invalidated.
    Gap(RedisGap),
}

/// Why something may have been missed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RedisGap {
    /// A connection was lost, or has given no sign of life: told at the moment of suspicion.
    Lost,
    /// By prefix only: a connection stands, the first time or again. From here on nothing is missed.
    Armed,
    /// In a cluster: slots have another owner.
    Moved,
    /// Whoever listens was too slow: 65,536 keys were waiting.
    Overrun,
}

/// Tells of invalidations, in the order in which they were made as far as one server is concerned.
#[derive(Debug)]
pub struct RedisInvalidations {
    queue: Arc<Queue>,
    /// Tells as long as somebody listens, whether or not anybody reads.
    tracker: RedisTracker,
}

impl RedisInvalidations {
    /// The next one, as soon as there is one. **Cancel-safe**: nothing is lost.
    pub async fn next(&mut self) -> RedisInvalidation {
        self.tracker.look_after();
        match self.queue.next().await {
            Some(event) => event,
            // Ends with the tracker, which is held here.
            None => std::future::pending().await,
        }
    }

    /// The next one, if there is one now.
    pub fn try_next(&mut self) -> Option<RedisInvalidation> {
        self.queue.try_next()
    }
}

impl Drop for RedisInvalidations {
    fn drop(&mut self) {
        self.queue.close();
        self.tracker.close();
    }
}

impl RedisBackend {
    /// Subscribes to invalidations, of whoever makes them: other processes, other clients, this one.
    ///
    /// Opens one connection more than [`pool_size`](super::RedisConfig::pool_size) counts, to each primary that is read
    /// from, when it is first needed. Needs Redis 6.0 or Valkey, and a user who may `CLIENT TRACKING`.
    ///
    /// # The contract
    ///
    /// - What [`get`](RedisTracker::get) returned is *watched*, from before it was read, until an event names it, or
    ///   is `Everything` or a `Gap`. Any change to it in between is told: writes, deletions, expiry, eviction, a
    ///   flush, by anybody. Then it is watched no more, until it is read again.
    /// - Of the keys that are read, nothing is told of those that `get` did not return a value for: a lease or a fill by
    ///   anybody costs whoever has not got that value nothing, not even a message. (A user who may not run scripts is
    ///   told of those as well.)
    /// - Whoever keeps what was read must not keep it if an event that concerns it was handled **since the read
    ///   began**: the event may be handled before the read's own answer is. Count the events, or have a generation for each
    ///   key, and compare.
    /// - An event is told within a round trip of the change; an expiry, when the server removes the key. A connection that
    ///   is lost is a `Gap` at once, and one that is dead and does not say so within two seconds. A server that is cut
    ///   off from the others and still believes that it is the primary tells nothing of what they change: behind
    ///   sentinels that is a `Gap` within two seconds, in a cluster when the map of slots is next asked for, every five
    ///   seconds. What is kept may be stale for as long.
    /// - Whoever waits for an event, or reads, keeps the subscription going, on whichever runtime.
    /// - Two trackers know nothing of each other: each is told of what was read through itself.
    ///
    /// ```no_run
    /// use cache_kit::backend::RedisBackend;
    /// use cache_kit::backend::redis::{RedisInvalidation, RedisTracked};
    ///
    /// # async fn run(backend: RedisBackend) -> cache_kit::Result<()> {
    /// let (tracker, mut invalidations) = backend.track(RedisTracked::KeysRead)?;
    /// let value = tracker.get("user:1").await?;
    /// match invalidations.next().await {
    ///     RedisInvalidation::Keys(keys) => println!("changed: {keys:?}"),
    ///     other => println!("forget everything: {other:?}"),
    /// }
    /// # Ok(()) }
    /// ```
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) where a prefix is the beginning of another one or there is none;
    /// [`Unavailable`](ErrorKind::Unavailable) outside of a tokio runtime.
    pub fn track(&self, what: RedisTracked) -> Result<(RedisTracker, RedisInvalidations)> {
        let prefixes = match what {
            RedisTracked::KeysRead => Vec::new(),
            RedisTracked::Prefixes(prefixes) => check(prefixes)?,
        };
        if tokio::runtime::Handle::try_current().is_err() {
            return Err(refused(ErrorKind::Unavailable, "there is no tokio runtime here".to_owned())
                .with_hint("call it from within a tokio runtime with I/O and time enabled"));
        }
        let queue = Arc::new(Queue::new(self.shared.prefix.clone()));
        let full = prefixes.iter().map(|prefix| self.shared.full(prefix).into_owned()).collect();
        let tracking = Tracking { queue: Arc::clone(&queue), prefixes: full };
        let tracker = RedisTracker::new(self.clone(), tracking);
        Ok((tracker.clone(), RedisInvalidations { queue, tracker }))
    }
}

fn check(prefixes: Vec<String>) -> Result<Vec<String>> {
    if prefixes.is_empty() {
        return Err(refused(ErrorKind::InvalidInput, "no prefix to track".to_owned())
            .with_hint("name one, or track the keys that are read"));
    }
    for (at, prefix) in prefixes.iter().enumerate() {
        let covers = |other: &&String| prefix.starts_with(other.as_str()) || other.starts_with(prefix);
        if let Some(other) = prefixes[at + 1..].iter().find(covers) {
            return Err(refused(
                ErrorKind::InvalidInput,
                format!("prefixes `{prefix}` and `{other}` overlap"),
            )
            .with_hint("the shorter one alone covers both"));
        }
    }
    Ok(prefixes)
}

fn refused(kind: ErrorKind, message: String) -> Error {
    Error::new(kind, message).with_backend(super::NAME).with_operation("track")
}

impl Tracking {
    /// A connection stands; what tells when it stands no more.
    pub(super) fn armed(&self) -> Gap {
        if !self.prefixes.is_empty() {
            self.queue.tell(RedisInvalidation::Gap(RedisGap::Armed));
        }
        Gap::new(Arc::clone(&self.queue))
    }

    /// Hears what the server pushes.
    pub(super) fn hear(
        &self,
    ) -> impl Fn(redis::PushInfo) -> std::result::Result<(), ()> + Send + Sync + 'static {
        let queue = Arc::clone(&self.queue);
        move |push| {
            queue.pushed(&push);
            Ok(())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_that_overlap_are_refused_by_name() {
        let check = |prefixes: &[&str]| check(prefixes.iter().map(|&prefix| prefix.to_owned()).collect());
        for overlapping in [&["user:", "user:1:"][..], &["a", "b", "a"], &["", "x"]] {
            let error = check(overlapping).unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput);
            assert!(error.to_string().contains("overlap"), "{error}");
        }
        assert!(check(&[]).is_err());
        assert_eq!(check(&["user:", "product:"]).unwrap().len(), 2);
    }
}
