//! The Memcached backend: many servers, keys spread as libmemcached does, a deadline on everything.

mod config;
mod error;
mod fence;
mod item;
mod many;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use async_trait::async_trait;
use bytes::Bytes;
use cache_kit_memcached::protocol::{GetOptions, SetOptions};
use cache_kit_memcached::ttl::exptime;
use cache_kit_memcached::{Client, Exptime};
use futures_util::future::join_all;

pub(crate) use config::is_scheme;
pub use config::{MemcachedBuilder, MemcachedConfig, MemcachedDistribution};

use self::error::convert;
use self::item::Item;
use super::releases::{Releases, Releasing};
use super::{
    Acquired, CacheBackend, Capabilities, Claim, DataModel, Distribution, Eviction, Fence, Fill, Filled,
    Lease, Persistence, SetEntry, Tier, check_ttl,
};
use crate::config::ServiceUrl;
use crate::error::{Error, ErrorKind, Result};

const NAME: &str = "memcached";

/// Memcached servers, from 1.6 on.
///
/// Keys are spread over all servers by consistent hashing, compatible with libmemcached, so that programs in other
/// languages find them. A server that is down costs its own keys a deadline or a refused connection a few times, then
/// microseconds; it is looked for several times a second and used again as soon as it is back. Its keys are stored
/// nowhere else meanwhile, and what it held before it was gone is not trusted: it may have missed an invalidation.
///
/// Connections are shared, and requests of many callers go together. Each operation ends within the
/// [operation timeout](MemcachedBuilder::operation_timeout), whatever it waits for. `clone` is another handle to the
/// same connections. A backend may be used on any tokio runtime, and goes on working when the one that it was first
/// used on is gone.
///
/// Memcached cannot delete by pattern and has no pub/sub; [`capabilities`](CacheBackend::capabilities) says so, and
/// `delete_pattern` is an [`Unsupported`](ErrorKind::Unsupported) error. An item that another client has marked stale
/// (`md` with `I`) is a miss to `get`, not to `mget`: the command for many keys does not tell. Its clock ticks in seconds: an entry lives up
/// to two seconds longer than asked for, never shorter.
///
/// ```no_run
/// use cache_kit::backend::{MemcachedBackend, MemcachedConfig};
/// use cache_kit::CacheExpander;
///
/// # async fn run() -> cache_kit::Result<()> {
/// let config = MemcachedConfig { servers: vec!["localhost:11211".to_string()], ..Default::default() };
/// let backend = MemcachedBackend::new(config)?; // No I/O: a service starts while its cache is down.
/// backend.connect().await?; // Optional: verifies that every server answers.
/// let expander = CacheExpander::new(backend);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct MemcachedBackend {
    shared: Arc<Shared>,
}

struct Shared {
    client: Client,
    prefix: String,
    releases: Releases,
}

impl MemcachedBackend {
    /// A backend with these settings. Does no I/O and needs no runtime.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config), naming the field that makes no sense.
    pub fn new(config: MemcachedConfig) -> Result<Self> {
        Self::builder(config).build()
    }

    /// A backend with further settings.
    pub fn builder(config: MemcachedConfig) -> MemcachedBuilder {
        MemcachedBuilder::new(config)
    }

    /// The backend that a URL names: `memcached://user:password@host:11211,host:11211`, with the parameters that
    /// [`from_url`](super::from_url) lists. User and password are percent-decoded. Does no I/O but for reading the
    /// certificates that it names.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config), naming what is wrong, without repeating the URL.
    pub fn from_url(url: &str) -> Result<Self> {
        let url = ServiceUrl::parse(url)?;
        if !is_scheme(url.scheme) {
            return Err(Error::config("the scheme of the URL is not memcached").with_backend(NAME));
        }
        let mut params = url.params()?;
        let builder = MemcachedBuilder::from_url(&url, &mut params)?;
        params.finish(&[])?;
        builder.build()
    }

    /// Connects to every server, and tells what is wrong with the first one that fails: the address, TLS, or the
    /// credentials. Not needed: the first operation connects by itself.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) or [`Timeout`](ErrorKind::Timeout) for the address,
    /// [`Auth`](ErrorKind::Auth).
    pub async fn connect(&self) -> Result<()> {
        self.shared.client.connect().await.map_err(|error| convert("connect", error))
    }

    /// How many connections are open, to all servers together.
    #[must_use]
    pub fn connections(&self) -> usize {
        let client = &self.shared.client;
        (0..client.servers()).map(|server| client.connections(server)).sum()
    }
}

impl Shared {
    /// The key on the server.
    fn full<'a>(&self, key: &'a str) -> Cow<'a, str> {
        if self.prefix.is_empty() { Cow::Borrowed(key) } else { Cow::Owned(format!("{}{key}", self.prefix)) }
    }

    /// What an item shows to a reader. One that may have missed a change is nothing: its server was away.
    fn visible(&self, key: &[u8], item: Item) -> Option<Bytes> {
        let missed_at = self.client.missed_at(self.client.server_of(key));
        item.visible(missed_at)
    }

    async fn set(
        &self,
        operation: &'static str,
        key: &str,
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<()> {
        let full = self.full(key);
        let mut options = SetOptions::default();
        (options.client_flags, options.exptime) = (item::flags_now(), expiry(ttl)?);
        match self.client.set(full.as_bytes(), value, options).await {
            Ok(true) => Ok(()),
            Ok(false) => Err(unexpected(operation)),
            Err(error) => {
                // What does not fit replaces the old value all the same: it must not go on being read.
                if error.kind() == cache_kit_memcached::ErrorKind::TooLarge {
                    self.delete(operation, key).await?;
                }
                Err(convert(operation, error))
            }
        }
    }

    async fn delete(&self, operation: &'static str, key: &str) -> Result<()> {
        let deleted = self.client.delete(self.full(key).as_bytes()).await;
        deleted.map(|_| ()).map_err(|error| convert(operation, error))
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl CacheBackend for MemcachedBackend {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            name: NAME,
            tier: Tier::Production,
            persistence: Persistence::No,
            distribution: Distribution::MultiServer,
            data_model: DataModel::KeyValue,
            eviction: Eviction::Lru,
            pattern_delete: false,
            pub_sub: false,
            transactions: false,
            fence: Fence::Leases,
            lease_on_read: true,
            // Its clock ticks in seconds; a life is rounded up, and one second is added.
            ttl_resolution: Duration::from_secs(2),
            // A server may take more or less (-I), which is looked at before sending.
            max_value_bytes: None,
            ..Capabilities::minimal(NAME)
        }
    }

    fn peek(&self, key: &str) -> super::Peek {
        let _ = key;
        super::Peek::Unknown
    }

    fn distrust(&self) {
        self.shared.client.drop_connections();
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        let full = self.shared.full(key);
        let mut options = GetOptions::default();
        (options.value, options.client_flags) = (true, true);
        let answer = self.shared.client.meta_get(full.as_bytes(), options).await;
        let reply = answer.map_err(|error| convert("get", error))?.reply;
        // Marked by somebody who wants it loaded anew.
        if reply.stale {
            return Ok(None);
        }
        Ok(reply
            .value
            .and_then(|data| self.shared.visible(full.as_bytes(), Item::new(reply.client_flags, data))))
    }

    async fn set(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<()> {
        check_ttl(ttl)?;
        self.shared.set("set", key, &value, ttl).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.shared.delete("delete", key).await
    }

    async fn exists(&self, key: &str) -> Result<bool> {
        // What is there may be a lease, or not be trusted, which only its content tells.
        self.get(key).await.map(|found| found.is_some())
    }

    async fn mget(&self, keys: &[&str]) -> Result<Vec<Option<Bytes>>> {
        self.mget_each(keys).await?.into_iter().collect()
    }

    async fn mget_each(&self, keys: &[&str]) -> Result<Vec<Result<Option<Bytes>>>> {
        let full: Vec<Cow<'_, str>> = keys.iter().map(|key| self.shared.full(key)).collect();
        let bytes: Vec<&[u8]> = full.iter().map(|key| key.as_bytes()).collect();
        let found = self.shared.client.get_many(&bytes).await;
        let visible = found.into_iter().zip(&bytes).map(|(found, key)| {
            let value = found.map_err(|error| convert("mget", error))?;
            Ok(value.and_then(|value| self.shared.visible(key, Item::new(value.client_flags, value.data))))
        });
        Ok(visible.collect())
    }

    async fn mset(&self, entries: &[SetEntry<'_>]) -> Result<()> {
        entries.iter().try_for_each(|entry| check_ttl(entry.ttl))?;
        // Sent side by side they can overtake each other, so that of one key only the last is sent.
        let last: HashMap<&str, &SetEntry<'_>> = entries.iter().map(|entry| (entry.key, entry)).collect();
        // All of them, whatever becomes of one.
        let stored =
            join_all(last.values().map(|entry| self.shared.set("mset", entry.key, &entry.value, entry.ttl)));
        stored.await.into_iter().collect()
    }

    async fn mdelete(&self, keys: &[&str]) -> Result<()> {
        let deleted = join_all(keys.iter().map(|key| self.shared.delete("mdelete", key)));
        deleted.await.into_iter().collect()
    }

    async fn delete_pattern(&self, pattern: &str) -> Result<u64> {
        let _ = pattern;
        Err(Error::new(ErrorKind::Unsupported, "memcached cannot delete by pattern")
            .with_backend(NAME)
            .with_operation("delete_pattern")
            .with_hint("delete the keys one by one, or use Redis; capabilities() tells beforehand"))
    }

    async fn health_check(&self) -> Result<bool> {
        let versions = self.shared.client.versions().await;
        versions
            .into_iter()
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| convert("health_check", error))?;
        Ok(true)
    }

    async fn clear_all(&self) -> Result<()> {
        if !self.shared.prefix.is_empty() {
            return Err(Error::new(ErrorKind::Unsupported, "memcached cannot list the keys under a prefix")
                .with_backend(NAME)
                .with_operation("clear_all")
                .with_hint("clear without a prefix drops every item of every server"));
        }
        self.shared.client.flush_all().await.map_err(|error| convert("clear_all", error))
    }

    async fn acquire(&self, key: &str, seen: Option<&Bytes>, life: Duration) -> Result<Acquired> {
        Releases::resume(&self.shared);
        self.shared.acquire(key, seen, life).await
    }

    async fn fill(&self, key: &str, lease: &Lease, value: Bytes, ttl: Option<Duration>) -> Result<Filled> {
        check_ttl(ttl)?;
        self.shared.fill(key, lease, &value, ttl).await
    }

    async fn acquire_many(&self, claims: &[Claim<'_>], life: Duration) -> Result<Vec<Result<Acquired>>> {
        Releases::resume(&self.shared);
        Ok(self.shared.acquire_many(claims, life).await)
    }

    async fn fill_many(&self, fills: &[Fill<'_>]) -> Result<Vec<Result<Filled>>> {
        Ok(self.shared.fill_many(fills).await)
    }

    fn shards(&self) -> usize {
        self.shared.client.servers()
    }

    fn shard_of(&self, key: &str) -> usize {
        self.shared.server_of(key)
    }

    /// As [`CacheBackend::shard_key`] says, but for a server whose weight is too small for any key (below a fortieth of
    /// the average): nothing is ever asked of it, and the key belongs to another.
    fn shard_key(&self, shard: usize, name: &str) -> String {
        self.shared.key_of_server(shard, name)
    }

    async fn renew(&self, key: &str, lease: &Lease, life: Duration) -> Result<Option<Lease>> {
        self.shared.renew(key, lease, life).await
    }

    async fn release(&self, key: &str, lease: &Lease) -> Result<()> {
        self.shared.release(key, lease).await
    }

    fn release_later(&self, key: &str, lease: Lease) {
        Releases::put(&self.shared, key, lease);
    }
}

impl Releasing for Shared {
    fn releases(&self) -> &Releases {
        &self.releases
    }

    async fn give_back(&self, key: &str, lease: &Lease) {
        // In one try; what was not given back ends with its life.
        let _ = self.release(key, lease).await;
    }
}

impl fmt::Debug for MemcachedBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MemcachedBackend")
            .field("prefix", &self.shared.prefix)
            .field("connections", &self.shared.client)
            .finish_non_exhaustive()
    }
}

fn unix_time() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default()
}

/// When an item with this life ends, as the server reads it.
fn expiry(ttl: Option<Duration>) -> Result<Exptime> {
    exptime(ttl, unix_time().as_secs()).map_err(|error| Error::invalid(error.to_string()))
}

fn unexpected(operation: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, "the server's answer is not what was asked for")
        .with_backend(NAME)
        .with_operation(operation)
}
