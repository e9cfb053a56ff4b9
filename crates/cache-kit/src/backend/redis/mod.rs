//! The Redis backend: one server, shared connections, a deadline on everything.

mod coalesce;
mod command;
mod config;
mod conn;
mod error;
mod fence;
mod pool;
mod stub;

use std::borrow::Cow;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use redis::{Cmd, Pipeline, Value, cmd};

pub use command::{RedisCommand, RedisPipeline, RedisValue};
pub use config::{RedisBuilder, RedisConfig};

use self::error::{convert, is_wrong_type};
use self::pool::Pool;
use super::{
    Acquired, CacheBackend, Capabilities, DataModel, Distribution, Eviction, Fence, Filled, Lease,
    Persistence, SetEntry, Tier, check_ttl,
};
use crate::config::ServiceUrl;
use crate::error::{Error, Result};

const NAME: &str = "redis";

/// How many keys a `SCAN` is asked for at a time.
const SCAN_COUNT: usize = 1_000;

/// A Redis server, or one that speaks its language.
///
/// Connections are shared: a few serve thousands of concurrent callers, and never more than
/// [`pool_size`](RedisConfig::pool_size) are open. Each operation ends within the
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
    pool: Pool,
    prefix: String,
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

    /// The backend that a URL names: `redis://user:password@host:6379/0`, with the parameters `pool_size`,
    /// `connection_timeout`, `operation_timeout` and `prefix`. User and password are percent-decoded. Does no I/O.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config), naming what is wrong, without repeating the URL.
    pub fn from_url(url: &str) -> Result<Self> {
        let url = ServiceUrl::parse(url)?;
        if url.scheme != "redis" {
            return Err(Error::config("the scheme of the URL is not redis").with_backend(NAME));
        }
        let mut params = url.params()?;
        let builder = RedisBuilder::from_url(&url, &mut params)?;
        params.finish(&[])?;
        builder.build()
    }

    /// Connects, and tells what is wrong if that fails: the address, the credentials, the database, or a permission.
    /// Not needed: the first operation connects by itself.
    ///
    /// # Errors
    /// [`Unavailable`](crate::ErrorKind::Unavailable) or [`Timeout`](crate::ErrorKind::Timeout) for the address,
    /// [`Auth`](crate::ErrorKind::Auth), [`Config`](crate::ErrorKind::Config) for the database,
    /// [`Permission`](crate::ErrorKind::Permission).
    pub async fn connect(&self) -> Result<()> {
        self.shared.pool.verify().await?;
        // A user may be let in and yet be allowed nothing.
        let mut get = cmd("GET");
        get.arg(self.shared.full("cache-kit:connect"));
        self.shared.ask("connect", &get).await?;
        Ok(())
    }

    /// How many connections are open.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.shared.pool.connections()
    }

    fn from_settings(settings: RedisBuilder) -> Self {
        let prefix = settings.prefix.clone();
        Self { shared: Arc::new(Shared { pool: Pool::new(settings), prefix }) }
    }
}

impl Shared {
    /// The key on the server.
    fn full<'a>(&self, key: &'a str) -> Cow<'a, str> {
        if self.prefix.is_empty() { Cow::Borrowed(key) } else { Cow::Owned(format!("{}{key}", self.prefix)) }
    }

    /// One command, whose error is an error.
    async fn ask(&self, operation: &'static str, command: &Cmd) -> Result<Value> {
        self.pool.send(operation, command).await?.map_err(|error| convert(operation, error))
    }

    /// Many commands in one exchange; the first error among the answers is the error.
    async fn ask_all(
        &self,
        operation: &'static str,
        pipeline: &Pipeline,
        count: usize,
    ) -> Result<Vec<Value>> {
        let answers = self.pool.send_all(operation, pipeline, 0, count).await?;
        answers.map_err(|error| convert(operation, error))?.into_iter().try_fold(
            Vec::with_capacity(count),
            |mut values, value| match value {
                Value::ServerError(error) => Err(convert(operation, error.into())),
                value => {
                    values.push(value);
                    Ok(values)
                }
            },
        )
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
        if self.pool.mode().uses_tombstones() {
            let mut command = cmd("SET");
            let tombstone = stub::stub(0, u64::MAX >> 1);
            command.arg(self.full(key)).arg(tombstone).arg("PX").arg(ttl_millis(fence::HOLD_OFF));
            return command;
        }
        let mut command = cmd("UNLINK");
        command.arg(self.full(key));
        command
    }

    /// Removes the keys that match a pattern of the server's own keys; how many of them held values.
    async fn unlink_matching(&self, operation: &'static str, pattern: &str) -> Result<u64> {
        let (mut cursor, mut removed) = (b"0".to_vec(), 0);
        loop {
            let mut scan = cmd("SCAN");
            scan.arg(&cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(SCAN_COUNT);
            let Value::Array(mut answer) = self.ask(operation, &scan).await? else {
                return Err(self.unexpected(operation));
            };
            let (Some(Value::Array(keys)), Some(next)) = (answer.pop(), answer.pop().and_then(bytes_of))
            else {
                return Err(self.unexpected(operation));
            };
            let keys: Vec<Bytes> = keys.into_iter().filter_map(bytes_of).collect();
            if !keys.is_empty() {
                removed += self.unlink(operation, &keys).await?;
            }
            if &next[..] == b"0" {
                return Ok(removed);
            }
            cursor = next.to_vec();
        }
    }

    /// Removes keys by their names on the server; how many of them held values, leases not counted.
    async fn unlink(&self, operation: &'static str, keys: &[Bytes]) -> Result<u64> {
        let mut pipeline = Pipeline::with_capacity(2 * keys.len());
        for key in keys {
            // Enough to tell a lease from a value; a key of another type has none.
            pipeline.cmd("GETRANGE").arg(&key[..]).arg(0).arg(stub::STUB_LEN - 1);
            pipeline.cmd("UNLINK").arg(&key[..]);
        }
        let answers = self.pool.send_all(operation, &pipeline, 0, 2 * keys.len()).await?;
        let answers = answers.map_err(|error| convert(operation, error))?;
        let mut removed = 0;
        for pair in answers.chunks(2) {
            if let [_, Value::ServerError(error)] = pair {
                return Err(convert(operation, error.clone().into()));
            }
            let is_lease = matches!(&pair[0], Value::BulkString(head) if stub::is_bare(head));
            removed += u64::from(pair[1] == Value::Int(1) && !is_lease);
        }
        Ok(removed)
    }

    fn unexpected(&self, operation: &'static str) -> Error {
        Error::new(crate::ErrorKind::Unavailable, "the server's answer is not what was asked for")
            .with_backend(NAME)
            .with_operation(operation)
    }
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
            fence: if self.shared.pool.mode().uses_tombstones() {
                Fence::Tombstones { hold_off: fence::HOLD_OFF }
            } else {
                Fence::Leases
            },
            // Rounded up to whole milliseconds.
            ttl_resolution: Duration::from_millis(1),
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
        self.shared.pool.drop_all();
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        match self.shared.pool.read(&self.shared.full(key)).await? {
            Ok(value) => Ok(bytes_of(value).and_then(|stored| stub::parse(stored).visible())),
            // A list or the like under our key is nothing of ours.
            Err(error) if is_wrong_type(&error) => Ok(None),
            Err(error) => Err(convert("get", error)),
        }
    }

    async fn set(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<()> {
        let command = self.shared.set_command(key, value, ttl)?;
        self.shared.ask("set", &command).await.map(|_| ())
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.shared.ask("delete", &self.shared.delete_command(key)).await.map(|_| ())
    }

    async fn exists(&self, key: &str) -> Result<bool> {
        // A lease is a key to the server.
        let mut pipeline = Pipeline::with_capacity(2);
        pipeline.cmd("EXISTS").arg(self.shared.full(key));
        pipeline.cmd("GETRANGE").arg(self.shared.full(key)).arg(0).arg(stub::STUB_LEN - 1);
        let answers = self.shared.pool.send_all("exists", &pipeline, 0, 2).await?;
        let answers = answers.map_err(|error| convert("exists", error))?;
        match &answers[..] {
            [Value::Int(1), Value::BulkString(head)] => Ok(!stub::is_bare(head)),
            [Value::Int(_), Value::ServerError(error)] if error.code() == "WRONGTYPE" => Ok(false),
            [Value::Int(_), Value::BulkString(_)] => Ok(false),
            [Value::ServerError(error), _] | [_, Value::ServerError(error)] => {
                Err(convert("exists", error.clone().into()))
            }
            _ => Err(self.shared.unexpected("exists")),
        }
    }

    async fn mget(&self, keys: &[&str]) -> Result<Vec<Option<Bytes>>> {
        if keys.is_empty() {
            return Ok(Vec::new());
        }
        let mut command = cmd("MGET");
        for key in keys {
            command.arg(self.shared.full(key));
        }
        let answer = self.shared.pool.send_for("mget", &command, keys.len()).await?;
        match answer.map_err(|error| convert("mget", error))? {
            Value::Array(values) if values.len() == keys.len() => Ok(values
                .into_iter()
                .map(|value| bytes_of(value).and_then(|stored| stub::parse(stored).visible()))
                .collect()),
            _ => Err(self.shared.unexpected("mget")),
        }
    }

    async fn mget_each(&self, keys: &[&str]) -> Result<Vec<Result<Option<Bytes>>>> {
        // One store answers for all of them.
        Ok(self.mget(keys).await?.into_iter().map(Ok).collect())
    }

    async fn mset(&self, entries: &[SetEntry<'_>]) -> Result<()> {
        if entries.is_empty() {
            return Ok(());
        }
        let mut pipeline = Pipeline::with_capacity(entries.len());
        for entry in entries {
            pipeline.add_command(self.shared.set_command(entry.key, entry.value.clone(), entry.ttl)?);
        }
        self.shared.ask_all("mset", &pipeline, entries.len()).await.map(|_| ())
    }

    async fn mdelete(&self, keys: &[&str]) -> Result<()> {
        if keys.is_empty() {
            return Ok(());
        }
        let mut pipeline = Pipeline::with_capacity(keys.len());
        for key in keys {
            pipeline.add_command(self.shared.delete_command(key));
        }
        self.shared.ask_all("mdelete", &pipeline, keys.len()).await.map(|_| ())
    }

    async fn delete_pattern(&self, pattern: &str) -> Result<u64> {
        let pattern = format!("{}{pattern}", escape_pattern(&self.shared.prefix));
        self.shared.unlink_matching("delete_pattern", &pattern).await
    }

    async fn health_check(&self) -> Result<bool> {
        self.shared.ask("health_check", &cmd("PING")).await.map(|_| true)
    }

    async fn clear_all(&self) -> Result<()> {
        if self.shared.prefix.is_empty() {
            return self.shared.ask("clear_all", &cmd("FLUSHDB")).await.map(|_| ());
        }
        let pattern = format!("{}*", escape_pattern(&self.shared.prefix));
        self.shared.unlink_matching("clear_all", &pattern).await.map(|_| ())
    }

    async fn acquire(&self, key: &str, seen: Option<&Bytes>, life: Duration) -> Result<Acquired> {
        self.shared.acquire(key, seen, life).await
    }

    async fn fill(&self, key: &str, lease: &Lease, value: Bytes, ttl: Option<Duration>) -> Result<Filled> {
        self.shared.fill(key, lease, value, ttl).await
    }

    async fn release(&self, key: &str, lease: &Lease) -> Result<()> {
        self.shared.release(key, lease).await
    }
}

impl fmt::Debug for RedisBackend {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisBackend")
            .field("settings", self.shared.pool.settings())
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

/// Whole milliseconds, rounded up; `None` for a life so long that the server could not count its end.
fn ttl_millis(ttl: Duration) -> Option<i64> {
    // The server adds the time of day, in milliseconds since 1970, in 63 bits.
    const LONGEST: i64 = i64::MAX / 2;
    let millis = i64::try_from(ttl.as_nanos().div_ceil(1_000_000)).ok()?;
    (millis <= LONGEST).then_some(millis)
}

/// Takes the meaning from a text that stands in a pattern.
fn escape_pattern(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if "*?[]^\\".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
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

    #[test]
    fn a_prefix_means_nothing_in_a_pattern() {
        assert_eq!(escape_pattern("a*b[c]?\\d"), "a\\*b\\[c\\]\\?\\\\d");
    }
}
