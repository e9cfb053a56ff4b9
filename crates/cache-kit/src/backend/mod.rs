//! Byte stores: the contract that every backend keeps, and the backends themselves.
//!
//! [`CacheBackend`] is the one trait. It is dyn-compatible, and `Box<dyn CacheBackend>` and
//! `Arc<dyn CacheBackend>` are backends too, so code that is generic over `B: CacheBackend` works with a
//! backend that was chosen at run time.
//!
//! Selection by one URL or by the environment: [`from_url`] and [`from_env`].
//!
#![doc = include_str!("comparison.md")]

mod capabilities;
mod fence;
mod forward;
#[cfg(feature = "inmemory")]
pub mod inmemory;
#[cfg(feature = "memcached")]
pub mod memcached;
mod pattern;
#[cfg(feature = "redis")]
pub mod redis;
#[cfg(any(feature = "redis", feature = "memcached"))]
mod releases;
mod select;
mod sizing;
#[cfg(all(feature = "tls", any(feature = "redis", feature = "memcached")))]
mod tls;

use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures_util::FutureExt as _;
use futures_util::future::join_all;

pub use capabilities::{Capabilities, DataModel, Distribution, Eviction, Fence, Persistence, Tier};
pub use fence::{Acquired, Claim, Fill, Filled, Lease};
#[cfg(feature = "inmemory")]
pub use inmemory::InMemoryBackend;
#[cfg(feature = "memcached")]
pub use memcached::{MemcachedBackend, MemcachedConfig};
pub(crate) use pattern::matches as pattern_matches;
#[cfg(feature = "redis")]
pub use redis::{RedisBackend, RedisConfig};
pub(crate) use select::{Environment, from_parts};
pub use select::{from_env, from_url};
pub use sizing::{pool_size_for, pool_size_here};

use crate::error::{Error, Result};

/// What a backend knows about a key without waiting; see [`CacheBackend::peek`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Peek {
    /// The key holds this value.
    Hit(Bytes),
    /// The key holds nothing.
    Miss,
    /// Not known without waiting: [`CacheBackend::get`] has to be asked.
    Unknown,
}

/// One entry of [`CacheBackend::mset`].
#[derive(Clone, Debug)]
pub struct SetEntry<'a> {
    /// Where to store it.
    pub key: &'a str,
    /// What to store.
    pub value: Bytes,
    /// For how long; `None` is without end, zero is an error.
    pub ttl: Option<Duration>,
}

/// A store of bytes under keys, with lifetimes and a fence.
///
/// Implement it with `#[async_trait]`: three methods are required, the others have provided forms that a
/// real backend overrides to answer in one round trip. Run
/// [`backend_suite!`](crate::backend_suite) on your implementation: each point under *Behaviour* below is a
/// test there.
///
/// All methods are **cancel-safe**: a caller that goes away leaves either the state before or the state
/// after, and never an answer for somebody else.
///
/// A backend knows nothing of entities, codecs or loaders; keys and values are opaque to it. Keys may be any
/// string but the empty one.
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a cache backend",
    label = "not a `CacheBackend`",
    note = "a backend is `InMemoryBackend`, `Box<dyn CacheBackend>`, `Arc<dyn CacheBackend>`, or your own type \
            with `#[async_trait] impl CacheBackend`"
)]
#[async_trait]
pub trait CacheBackend: Send + Sync + 'static {
    /// Reads the value of a key.
    ///
    /// # Behaviour
    /// - A missing key is `Ok(None)`.
    /// - Values come back byte for byte, empty and binary ones included.
    /// - An expired, deleted or cleared key is `Ok(None)`.
    /// - A key that is only leased ([`acquire`](Self::acquire)) is `Ok(None)`.
    ///
    /// # Errors
    /// When the backend cannot tell. An error is not a miss.
    async fn get(&self, key: &str) -> Result<Option<Bytes>>;

    /// Writes a value, whatever was there.
    ///
    /// # Behaviour
    /// - A later `set` replaces value and lifetime.
    /// - `ttl` of `None`: without end. Otherwise the value lives at least `ttl` and at most
    ///   [`Capabilities::ttl_resolution`] longer; [`Duration::MAX`] is allowed.
    /// - A `ttl` of zero is an [`InvalidInput`](crate::ErrorKind::InvalidInput) error and changes nothing.
    /// - A lease on the key is void.
    ///
    /// # Errors
    /// When the value was not stored, or when that is not known. A value that is too large
    /// ([`TooLarge`](crate::ErrorKind::TooLarge)) may have removed the one before.
    async fn set(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<()>;

    /// Removes a key.
    ///
    /// # Behaviour
    /// - An absent key is fine.
    /// - A lease on the key is void, whether the key held a value or not.
    ///
    /// # Errors
    /// When the key may still be there.
    async fn delete(&self, key: &str) -> Result<()>;

    /// What this backend is and can do. Constant for the life of the backend.
    ///
    /// The provided form claims as little as possible, and no fence.
    fn capabilities(&self) -> Capabilities {
        Capabilities::minimal("custom")
    }

    /// Answers without waiting if that is possible, so that a hit in memory costs no boxed future.
    ///
    /// # Behaviour
    /// - [`Peek::Hit`] and [`Peek::Miss`] are what [`get`](Self::get) would have answered;
    ///   [`Peek::Unknown`] makes the caller ask `get`.
    fn peek(&self, key: &str) -> Peek {
        let _ = key;
        Peek::Unknown
    }

    /// Whether a key holds a value.
    ///
    /// # Behaviour
    /// - True exactly if [`get`](Self::get) would return a value.
    ///
    /// # Errors
    /// As [`get`](Self::get).
    async fn exists(&self, key: &str) -> Result<bool> {
        Ok(self.get(key).await?.is_some())
    }

    /// Reads many keys.
    ///
    /// # Behaviour
    /// - One answer per key, in order; a key asked for twice is answered twice.
    /// - An empty list is an empty answer.
    ///
    /// # Errors
    /// When any answer is not known.
    async fn mget(&self, keys: &[&str]) -> Result<Vec<Option<Bytes>>> {
        let mut values = Vec::with_capacity(keys.len());
        for key in keys {
            values.push(self.get(key).await?);
        }
        Ok(values)
    }

    /// Reads many keys whose answers can fail one by one: of keys that are spread over servers, those of a server that is
    /// down are not known, and the others are.
    ///
    /// The provided form asks [`mget`](Self::mget), and all fail together.
    ///
    /// # Behaviour
    /// - As [`mget`](Self::mget), key by key.
    ///
    /// # Errors
    /// When no answer at all is known; else with the key whose answer is not.
    async fn mget_each(&self, keys: &[&str]) -> Result<Vec<Result<Option<Bytes>>>> {
        Ok(self.mget(keys).await?.into_iter().map(Ok).collect())
    }

    /// Writes many entries, each as [`set`](Self::set) would; the last of two with one key stays.
    ///
    /// # Errors
    /// When any entry was refused or may not have been stored; the others may have been.
    async fn mset(&self, entries: &[SetEntry<'_>]) -> Result<()> {
        for entry in entries {
            self.set(entry.key, entry.value.clone(), entry.ttl).await?;
        }
        Ok(())
    }

    /// Removes many keys, each as [`delete`](Self::delete) would.
    ///
    /// # Errors
    /// When any of them may still be there; the others may be gone.
    async fn mdelete(&self, keys: &[&str]) -> Result<()> {
        for key in keys {
            self.delete(key).await?;
        }
        Ok(())
    }

    /// Removes the keys that match a pattern and tells how many values that removed.
    ///
    /// The pattern is Redis's: `*` any text, `?` one byte, `[ab]`, `[a-z]`, `[^a]` a choice, `\` makes the next byte
    /// an ordinary one.
    ///
    /// # Behaviour
    /// - Keys that do not match stay.
    /// - Leases on matching keys are void and not counted.
    /// - A backend that cannot do it answers [`Unsupported`](crate::ErrorKind::Unsupported), naming itself;
    ///   [`Capabilities::pattern_delete`] says so beforehand.
    ///
    /// # Errors
    /// `Unsupported`, or when matching keys may still be there.
    async fn delete_pattern(&self, pattern: &str) -> Result<u64> {
        let _ = pattern;
        Err(Error::unsupported(self.capabilities().name, "delete_pattern"))
    }

    /// Whether the backend answers.
    ///
    /// # Errors
    /// What keeps it from answering, if that is known; `Ok(false)` otherwise.
    async fn health_check(&self) -> Result<bool> {
        Ok(true)
    }

    /// Removes everything that this backend may hold: the keys under its prefix if it has one, else the
    /// **whole** database, or every listed server.
    ///
    /// # Behaviour
    /// - No value is left, and every lease is void.
    /// - Where it is not supported, everything is left as it was. That is the provided form.
    ///
    /// # Errors
    /// `Unsupported`, or when something may be left.
    async fn clear_all(&self) -> Result<()> {
        Err(Error::unsupported(self.capabilities().name, "clear_all"))
    }

    /// Takes the right to fill a key: the fence between a load and the invalidations that overtake it.
    ///
    /// A lease is void as soon as anything happens to its key: a delete, an overwrite, a clear, the end of
    /// its `life`. So a value that was loaded before an invalidation can never be stored after it.
    ///
    /// `seen` is what the caller has read under this key and will not use: stale, or not readable. Such a
    /// value stays where it is until the fill replaces it. With `None` only an absent key is leased.
    ///
    /// # Behaviour
    /// - An absent key, or one that holds exactly `seen`, is leased to one caller:
    ///   [`Acquired::Granted`]; everyone else is told [`Acquired::Busy`] until the lease ends.
    /// - A lease ends no later than its `life`. Where the clock is coarse ([`Capabilities::ttl_resolution`]) it may end
    ///   up to a second sooner, and a `life` shorter than the resolution may be taken for one as long as that.
    /// - A key that holds something else is not leased; the answer brings it: [`Acquired::Present`].
    /// - A lease is invisible to every read, and to the count of [`delete_pattern`](Self::delete_pattern).
    /// - A backend without a fence answers [`Acquired::Unfenced`] ([`Capabilities::fence`] says so).
    ///
    /// # Errors
    /// When it is not known whether the lease was taken; it then ends with its `life`.
    async fn acquire(&self, key: &str, seen: Option<&Bytes>, life: Duration) -> Result<Acquired> {
        let _ = (key, seen, life);
        Ok(Acquired::Unfenced)
    }

    /// Stores a value if `lease` still holds, and ends the lease.
    ///
    /// # Behaviour
    /// - [`Filled::Stored`] if the lease held; then as [`set`](Self::set).
    /// - [`Filled::Refused`] if it did not; nothing is changed.
    ///
    /// # Errors
    /// As [`set`](Self::set); `Unsupported` without a fence.
    async fn fill(&self, key: &str, lease: &Lease, value: Bytes, ttl: Option<Duration>) -> Result<Filled> {
        let _ = (key, lease, value, ttl);
        Err(Error::unsupported(self.capabilities().name, "fill"))
    }

    /// Takes the leases of many keys, each as [`acquire`](Self::acquire) would, in one exchange per server where that is
    /// possible. The provided form asks side by side.
    ///
    /// # Behaviour
    /// - One answer per claim, in order, each as that of [`acquire`](Self::acquire); of two claims of one key at most one is
    ///   granted.
    /// - An empty list is an empty answer.
    ///
    /// # Errors
    /// When no answer at all is known; else with the claim whose answer is not. A lease that may have been taken ends with
    /// its `life`.
    async fn acquire_many(&self, claims: &[Claim<'_>], life: Duration) -> Result<Vec<Result<Acquired>>> {
        Ok(join_all(claims.iter().map(|claim| self.acquire(claim.key, claim.seen, life))).await)
    }

    /// Stores many values, each under its lease as [`fill`](Self::fill) would, in one exchange per server where that is
    /// possible. The provided form asks side by side.
    ///
    /// # Behaviour
    /// - One answer per fill, in order, each as that of [`fill`](Self::fill).
    /// - An empty list is an empty answer.
    ///
    /// # Errors
    /// When no answer at all is known; else with the fill whose answer is not.
    async fn fill_many(&self, fills: &[Fill<'_>]) -> Result<Vec<Result<Filled>>> {
        let fills = fills.iter().map(|fill| self.fill(fill.key, fill.lease, fill.value.clone(), fill.ttl));
        Ok(join_all(fills).await)
    }

    /// In how many parts the keys are spread that can be lost or out of reach one by one, such as the servers of a list.
    /// One where all keys are in one place, as in the provided form. May change once: when a connection shows what the
    /// server is.
    fn shards(&self) -> usize {
        1
    }

    /// The part that a key belongs to.
    ///
    /// # Behaviour
    /// - Less than [`shards`](Self::shards), and always the same for a key.
    fn shard_of(&self, key: &str) -> usize {
        let _ = key;
        0
    }

    /// A key that belongs to this part, made from `name`: the same in every process.
    ///
    /// # Behaviour
    /// - [`shard_of`](Self::shard_of) of it is `shard`.
    /// - Different names, or different parts, have different keys.
    /// - It begins with `name`.
    fn shard_key(&self, shard: usize, name: &str) -> String {
        let _ = shard;
        name.to_owned()
    }

    /// Lets a lease that still holds live for `life` from now on, however much of its first life is left. The answer is
    /// the lease to hold from here on; the old one is void if the two differ.
    ///
    /// # Behaviour
    /// - What the key holds stays as it is, with its lifetime: the lease alone is still invisible, and what is kept under
    ///   it still readable. Everyone else is told [`Acquired::Busy`] as before.
    /// - Whatever voids a lease voids a renewed one.
    /// - A lease that is void, for whatever reason, stays void: `Ok(None)`, and nothing is changed.
    /// - A `life` of zero is an [`InvalidInput`](crate::ErrorKind::InvalidInput) error and changes nothing.
    /// - A caller that goes away meanwhile may leave a renewed lease that nobody holds; it ends with its `life`.
    ///
    /// # Errors
    /// When it is not known whether the lease was renewed, which then ends with the longer of its two lives;
    /// `Unsupported` where leases cannot be renewed, as in the provided form.
    async fn renew(&self, key: &str, lease: &Lease, life: Duration) -> Result<Option<Lease>> {
        let _ = (key, lease, life);
        Err(Error::unsupported(self.capabilities().name, "renew"))
    }

    /// Is told that a value came back which was stored under another key: answers may have got out of step with
    /// their questions. A backend with connections drops them. The provided form does nothing.
    fn distrust(&self) {}

    /// Gives a lease back, so that the next reader need not wait for its end. A lease that is void already
    /// is fine; a value kept under it stays.
    ///
    /// # Errors
    /// When the lease may still be there; it then ends with its life.
    async fn release(&self, key: &str, lease: &Lease) -> Result<()> {
        let _ = (key, lease);
        Ok(())
    }

    /// Gives a lease back from where nobody can wait, such as a `Drop`; outside of any runtime too.
    ///
    /// Best effort, without an answer: what is not given back ends with its life. A backend with connections remembers
    /// some of them and gives them back from a task of its own, each in one try. Without a runtime at hand, or when the
    /// one at hand is shut down, they wait for the next [`acquire`](Self::acquire). The provided form polls
    /// [`release`](Self::release) once.
    ///
    /// # Behaviour
    /// - As [`release`](Self::release), soon.
    /// - It neither waits nor fails.
    fn release_later(&self, key: &str, lease: Lease) {
        let _ = self.release(key, &lease).now_or_never();
    }
}

/// Refuses a lifetime of zero, which one server takes for "gone at once" and another for "for ever".
#[cfg_attr(
    not(any(feature = "inmemory", feature = "redis", feature = "memcached")),
    expect(dead_code, reason = "only backends of ours need it")
)]
pub(crate) fn check_ttl(ttl: Option<Duration>) -> Result<()> {
    if ttl == Some(Duration::ZERO) {
        return Err(Error::invalid("ttl is zero")
            .with_hint("use a longer ttl, None for no expiry, or delete to remove the key"));
    }
    Ok(())
}

/// Refuses a lease that would end before it began.
#[cfg_attr(
    not(any(feature = "inmemory", feature = "redis", feature = "memcached")),
    expect(dead_code, reason = "only backends of ours need it")
)]
pub(crate) fn check_life(life: Duration) -> Result<()> {
    if life.is_zero() {
        return Err(Error::invalid("the life of a lease is zero"));
    }
    Ok(())
}
