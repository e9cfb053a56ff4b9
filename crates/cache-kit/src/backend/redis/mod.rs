//! The Redis backend: a server, a primary and its replicas, or a cluster; shared connections, a deadline on everything.
//!
#![doc = include_str!("guide.md")]

mod builder;
mod coalesce;
mod command;
mod config;
mod conn;
mod credentials;
mod error;
mod fence;
mod greeting;
mod line;
mod lively;
mod many;
mod node;
mod scan;
mod script;
mod settings;
mod shards;
mod stub;
mod topology;
mod tracking;
mod url;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use redis::{Cmd, Value, cmd};

pub use builder::RedisBuilder;
pub use command::{RedisCommand, RedisPipeline, RedisValue};
pub use config::RedisConfig;
pub use credentials::RedisCredentials;
pub use settings::RedisReadFrom;
pub use tracking::{RedisGap, RedisInvalidation, RedisInvalidations, RedisTracked, RedisTracker};
pub(crate) use url::is_scheme;

use self::error::{convert, is_wrong_type};
use self::node::Answer;
use self::scan::escape_pattern;
use self::settings::Settings;
use self::topology::{Keyed, Topology, unexpected};
use super::releases::{Releases, Releasing};
use super::{
    Acquired, CacheBackend, Capabilities, Claim, DataModel, Distribution, Eviction, Fence, Fill, Filled,
    Lease, Persistence, SetEntry, Tier, check_ttl,
};
use crate::config::ServiceUrl;
use crate::error::Result;

const NAME: &str = "redis";

/// Redis, or what speaks its language: one server, a primary behind sentinels, a cluster.
///
/// Connections are shared: a few serve thousands of concurrent callers, and no more than
/// [`pool_size`](RedisConfig::pool_size) are open to the servers that hold the data. Each operation ends within the
/// [operation timeout](RedisBuilder::operation_timeout), whatever it waits for. A server that is down costs a
/// deadline or a refused connection a few times, then microseconds; it is looked for several times a second and
/// used again as soon as it is back.
///
/// `clone` is another handle to the same connections. A backend may be used on any tokio runtime, and goes on
/// working when the one that it was first used on is gone.
///
/// ```no_run
/// use cache_kit::backend::{RedisBackend, RedisConfig};
/// use cache_kit::CacheExpander;
///
/// # async fn run() -> cache_kit::Result<()> {
/// let backend = RedisBackend::new(RedisConfig::default())?; // No I/O: a service starts while its cache is down.
/// backend.connect().await?; // Optional: verifies that the server answers.
/// let expander = CacheExpander::new(backend);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct RedisBackend {
    shared: Arc<Shared>,
}

struct Shared {
    topology: Topology,
    prefix: String,
    releases: Releases,
}

impl RedisBackend {
    /// A backend with these settings. Does no I/O and needs no runtime.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config), naming the field that makes no sense.
    pub fn new(config: RedisConfig) -> Result<Self> {
        Self::builder(config).build()
    }

    /// A backend with further settings.
    pub fn builder(config: RedisConfig) -> RedisBuilder {
        RedisBuilder::new(config)
    }

    /// The backend that a URL names. Connects to nothing; reads the files that the URL names.
    ///
    /// | URL | servers |
    /// |---|---|
    /// | `redis://user:password@host:6379/0` | one, with the number of a database; or a node of a cluster |
    /// | `redis+unix://user:password@/run/redis.sock?database=0` | one, by the path of its socket |
    /// | `redis+cluster://user:password@host,host:6379` | a cluster, by some of its nodes |
    /// | `redis+sentinel://user:password@sentinel,sentinel:26379/name/0` | the primary of this name, and its database |
    ///
    /// `rediss` instead of `redis` is TLS, and `valkey` and `valkeys` are the same two. User and password are
    /// percent-decoded. The parameters, each a setting of [`RedisBuilder`]:
    ///
    /// | parameter | where | default |
    /// |---|---|---|
    /// | `pool_size`, `connection_timeout`, `operation_timeout`, `prefix` | everywhere | 16, `5s`, `500ms`, none |
    /// | `read_from` (`primary` or `prefer_replica`) | everywhere | `primary` |
    /// | `replicas` (`host,host:port`) | one server | none |
    /// | `sentinel_username`, `sentinel_password` | sentinels | none |
    /// | `tls_roots`, `tls_certificate`, `tls_key` (paths of PEM files), `tls_server_name` | TLS | the system's roots |
    /// | `require_tls` (`true` or `false`) | everywhere | `false` |
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config), naming what is wrong, without repeating the URL.
    pub fn from_url(url: &str) -> Result<Self> {
        Self::builder_from_url(url)?.build()
    }

    /// The settings that a URL names, as those of [`from_url`](Self::from_url), to which further ones can be added.
    ///
    /// ```
    /// use cache_kit::backend::RedisBackend;
    ///
    /// let url = "redis+cluster://node-1,node-2?prefix=shop:";
    /// let backend = RedisBackend::builder_from_url(url)?.require_tls(false).build()?;
    /// # Ok::<(), cache_kit::Error>(())
    /// ```
    ///
    /// # Errors
    /// As `from_url`.
    pub fn builder_from_url(url: &str) -> Result<RedisBuilder> {
        let url = ServiceUrl::parse(url)?;
        let mut params = url.params()?;
        let builder = RedisBuilder::from_url(&url, &mut params)?;
        params.finish(&[])?;
        Ok(builder)
    }

    /// Connects, and tells what is wrong if that fails: the address, the credentials, the database, or a permission.
    /// Not needed: the first operation connects by itself. In a cluster, connects to every primary.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) or [`Timeout`](crate::ErrorKind::Timeout) for the address and for
    /// TLS, [`Auth`](crate::ErrorKind::Auth), [`Config`](crate::ErrorKind::Config) for the database,
    /// [`Permission`](crate::ErrorKind::Permission).
    pub async fn connect(&self) -> Result<()> {
        self.shared.topology.verify().await?;
        // A user may be let in and yet be allowed nothing.
        let key = self.shared.full("cache-kit:connect");
        let mut get = cmd("GET");
        get.arg(&*key);
        let answer = self.shared.topology.send("connect", &key, &get).await?;
        answer.map(|_| ()).map_err(|error| convert("connect", error))
    }

    /// How many connections are open, to all servers together.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.topology.connections()
    }

    fn from_settings(settings: Settings) -> Self {
        let prefix = settings.prefix.clone();
        let topology = Topology::new(settings);
        Self { shared: Arc::new(Shared { topology, prefix, releases: Releases::default() }) }
    }
}

impl Shared {
    /// The key on the server.
    fn full<'a>(&self, key: &'a str) -> Cow<'a, str> {
        if self.prefix.is_empty() { Cow::Borrowed(key) } else { Cow::Owned(format!("{}{key}", self.prefix)) }
    }

    /// One command on a key, whose error is an error.
    async fn ask(&self, operation: &'static str, key: &str, command: &Cmd) -> Result<Value> {
        let answer = self.topology.send(operation, &self.full(key), command).await?;
        answer.map_err(|error| convert(operation, error))
    }

    /// Many commands; all of them are sent, and the first error among the answers is the error.
    async fn ask_all(&self, operation: &'static str, commands: Vec<Keyed>) -> Result<()> {
        let answers = self.topology.send_each(operation, commands).await?;
        answers.into_iter().try_for_each(|answer| match answer? {
            Ok(_) => Ok(()),
            Err(error) => Err(convert(operation, error)),
        })
    }

    fn set_command(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<Cmd> {
        check_ttl(ttl)?;
        let mut command = cmd("SET");
        command.arg(self.full(key)).arg(&stub::escape(value)[..]);
        if let Some(millis) = ttl.and_then(ttl_millis) {
            command.arg("PX").arg(millis);
        }
        Ok(command)
    }

    /// Removes a key; without scripts, leaves a tombstone that keeps late fills away.
    fn delete_command(&self, key: &str) -> Cmd {
        if self.topology.mode().uses_tombstones() {
            let mut command = cmd("SET");
            let tombstone = stub::stub(0, u64::MAX >> 1);
            command.arg(self.full(key)).arg(tombstone).arg("PX").arg(ttl_millis(fence::HOLD_OFF));
            return command;
        }
        let mut command = cmd("UNLINK");
        command.arg(self.full(key));
        command
    }
}

/// Reads as much of a key on the server as tells a lease from a value.
fn head_of(key: impl AsRef<[u8]>) -> Keyed {
    let mut head = cmd("GETRANGE");
    head.arg(key.as_ref()).arg(0).arg(stub::STUB_LEN - 1);
    Keyed::new(key, head)
}

/// What a read finds.
fn found(value: Value) -> Option<Bytes> {
    bytes_of(value).and_then(|stored| stub::parse(stored).visible())
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl CacheBackend for RedisBackend {
    fn capabilities(&self) -> Capabilities {
        Capabilities {
            name: NAME,
            tier: Tier::Production,
            persistence: Persistence::Optional,
            distribution: Distribution::Clustering,
            data_model: DataModel::Rich,
            eviction: Eviction::ServerPolicy,
            pattern_delete: true,
            pub_sub: true,
            transactions: true,
            fence: if self.shared.topology.mode().uses_tombstones() {
                Fence::Tombstones { hold_off: fence::HOLD_OFF }
            } else {
                Fence::Leases
            },
            // Rounded up to whole milliseconds.
            ttl_resolution: Duration::from_millis(1),
            reads_may_lag: self.shared.topology.reads_from_replicas(),
            // The server's own limit, proto-max-bulk-len.
            max_value_bytes: Some(512 << 20),
            ..Capabilities::minimal(NAME)
        }
    }

    fn peek(&self, key: &str) -> super::Peek {
        let _ = key;
        super::Peek::Unknown
    }

    fn distrust(&self) {
        self.shared.topology.drop_all();
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        match self.shared.topology.read(&self.shared.full(key)).await? {
            Ok(value) => Ok(found(value)),
            // A list or the like under our key is nothing of ours.
            Err(error) if is_wrong_type(&error) => Ok(None),
            Err(error) => Err(convert("get", error)),
        }
    }

    async fn set(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<()> {
        let command = self.shared.set_command(key, value, ttl)?;
        self.shared.ask("set", key, &command).await.map(|_| ())
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.shared.ask("delete", key, &self.shared.delete_command(key)).await.map(|_| ())
    }

    async fn exists(&self, key: &str) -> Result<bool> {
        // A lease is a key to the server.
        let full = self.shared.full(key);
        let mut exists = cmd("EXISTS");
        exists.arg(&*full);
        let commands = vec![Keyed::new(full.as_bytes(), exists), head_of(full.as_bytes())];
        let mut answers = self.shared.topology.send_each("exists", commands).await?.into_iter();
        let (Some(exists), Some(head)) = (answers.next(), answers.next()) else {
            return Err(unexpected("exists"));
        };
        match (exists?, head?) {
            (Ok(Value::Int(1)), Ok(Value::BulkString(head))) => Ok(!stub::is_bare(&head)),
            (Ok(Value::Int(_)), Ok(Value::BulkString(_))) => Ok(false),
            (Ok(Value::Int(_)), Err(error)) if is_wrong_type(&error) => Ok(false),
            (Err(error), _) | (_, Err(error)) => Err(convert("exists", error)),
            _ => Err(unexpected("exists")),
        }
    }

    async fn mget(&self, keys: &[&str]) -> Result<Vec<Option<Bytes>>> {
        self.mget_each(keys).await?.into_iter().collect()
    }

    async fn mget_each(&self, keys: &[&str]) -> Result<Vec<Result<Option<Bytes>>>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let full = keys.iter().map(|key| self.shared.full(key).into_owned().into_bytes()).collect();
        let values = self.shared.topology.values("mget", full).await?;
        let each = |answer: Result<Answer<Value>>| match answer? {
            Ok(value) => Ok(found(value)),
            // As `MGET` has it.
            Err(error) if is_wrong_type(&error) => Ok(None),
            Err(error) => Err(convert("mget", error)),
        };
        Ok(values.into_iter().map(each).collect())
    }

    async fn mset(&self, entries: &[SetEntry<'_>]) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut commands = Vec::with_capacity(entries.len());
        for entry in entries {
            let command = self.shared.set_command(entry.key, entry.value.clone(), entry.ttl)?;
            commands.push(Keyed::new(self.shared.full(entry.key).as_bytes(), command));
        }
        self.shared.ask_all("mset", commands).await
    }

    async fn mdelete(&self, keys: &[&str]) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        let delete =
            |key: &&str| Keyed::new(self.shared.full(key).as_bytes(), self.shared.delete_command(key));
        self.shared.ask_all("mdelete", keys.iter().map(delete).collect()).await
    }

    async fn delete_pattern(&self, pattern: &str) -> Result<u64> {
        let pattern = format!("{}{pattern}", escape_pattern(&self.shared.prefix));
        self.shared.unlink_matching("delete_pattern", &pattern).await
    }

    async fn health_check(&self) -> Result<bool> {
        self.shared.topology.send_everywhere("health_check", &cmd("PING")).await.map(|()| true)
    }

    async fn clear_all(&self) -> Result<()> {
        if self.shared.prefix.is_empty() {
            return self.shared.topology.send_everywhere("clear_all", &cmd("FLUSHDB")).await;
        }
        let pattern = format!("{}*", escape_pattern(&self.shared.prefix));
        self.shared.unlink_matching("clear_all", &pattern).await.map(|_| ())
    }

    async fn acquire(&self, key: &str, seen: Option<&Bytes>, life: Duration) -> Result<Acquired> {
        Releases::resume(&self.shared);
        self.shared.acquire(key, seen, life).await
    }

    async fn fill(&self, key: &str, lease: &Lease, value: Bytes, ttl: Option<Duration>) -> Result<Filled> {
        self.shared.fill(key, lease, value, ttl).await
    }

    async fn acquire_many(&self, claims: &[Claim<'_>], life: Duration) -> Result<Vec<Result<Acquired>>> {
        Releases::resume(&self.shared);
        self.shared.acquire_many(claims, life).await
    }

    async fn fill_many(&self, fills: &[Fill<'_>]) -> Result<Vec<Result<Filled>>> {
        self.shared.fill_many(fills).await
    }

    fn shards(&self) -> usize {
        self.shared.shards()
    }

    fn shard_of(&self, key: &str) -> usize {
        self.shared.shard_of(key)
    }

    fn shard_key(&self, shard: usize, name: &str) -> String {
        self.shared.shard_key(shard, name)
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

impl fmt::Debug for RedisBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBackend")
            .field("settings", self.shared.topology.settings())
            .field("connections", &self.connections())
            .finish_non_exhaustive()
    }
}

/// The bytes of an answer, if it has any.
fn bytes_of(value: Value) -> Option<Bytes> {
    match value {
        Value::BulkString(bytes) => Some(bytes.into()),
        Value::SimpleString(text) => Some(text.into()),
        _ => None,
    }
}

/// The longest life: the server adds the time of day, in milliseconds since 1970, in 63 bits.
const LONGEST_MILLIS: i64 = i64::MAX / 2;

/// Whole milliseconds, rounded up; `None` for a life so long that the server could not count its end.
fn ttl_millis(ttl: Duration) -> Option<i64> {
    let millis = i64::try_from(ttl.as_nanos().div_ceil(1_000_000)).ok()?;
    (millis <= LONGEST_MILLIS).then_some(millis)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lives_become_whole_milliseconds_and_never_fewer() {
        for (ttl, millis) in [
            (Duration::from_nanos(1), Some(1)),
            (Duration::from_micros(999), Some(1)),
            (Duration::from_millis(900), Some(900)),
            (Duration::from_micros(1_001), Some(2)),
            (Duration::from_secs(40 * 86_400), Some(3_456_000_000)),
            (Duration::from_secs(u64::MAX), None),
            (Duration::MAX, None),
        ] {
            assert_eq!(ttl_millis(ttl), millis, "{ttl:?}");
        }
    }
}
