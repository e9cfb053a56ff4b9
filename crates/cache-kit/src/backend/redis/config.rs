//! The settings of the Redis backend: the plain struct, the builder, the URL.

use std::fmt;
use std::time::Duration;

use super::RedisBackend;
use crate::config::{Params, ServiceUrl, percent_decode, text};
use crate::error::{Error, Result};

/// Where a Redis server is, and how many connections to hold.
///
/// The seven settings of the framework's contract; further ones are on [`RedisBuilder`] and in the URL of
/// [`RedisBackend::from_url`].
///
/// ```
/// use cache_kit::backend::{RedisBackend, RedisConfig};
///
/// let config = RedisConfig { host: "localhost".to_string(), pool_size: 8, ..Default::default() };
/// let backend = RedisBackend::new(config)?; // No I/O yet.
/// # Ok::<(), cache_kit::Error>(())
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct RedisConfig {
    /// Host name or IP address. Default: `localhost`. Resolved anew for each connection.
    pub host: String,
    /// Default: 6379.
    pub port: u16,
    /// ACL user, for servers from Redis 6 on. Default: none.
    pub username: Option<String>,
    /// Any bytes; never printed. Default: none.
    pub password: Option<String>,
    /// Number of the database. Default: 0.
    pub database: u32,
    /// The most connections that are ever open. Default: 16. A few are enough for thousands of concurrent
    /// callers, since connections are shared; more are opened only under load.
    pub pool_size: u32,
    /// Bounds one attempt to connect, the greeting included. Default: 5 s.
    pub connection_timeout: Duration,
}

impl Default for RedisConfig {
    fn default() -> Self {
        Self {
            host: "localhost".to_owned(),
            port: 6379,
            username: None,
            password: None,
            database: 0,
            pool_size: 16,
            connection_timeout: Duration::from_secs(5),
        }
    }
}

impl fmt::Debug for RedisConfig {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisConfig")
            .field("host", &self.host)
            .field("port", &self.port)
            .field("username", &self.username)
            .field("password", &self.password.as_ref().map(|_| "<redacted>"))
            .field("database", &self.database)
            .field("pool_size", &self.pool_size)
            .field("connection_timeout", &self.connection_timeout)
            .finish()
    }
}

/// All settings of a [`RedisBackend`].
///
/// ```
/// use cache_kit::backend::{RedisBackend, RedisConfig};
/// use std::time::Duration;
///
/// let backend = RedisBackend::builder(RedisConfig::default())
///     .operation_timeout(Duration::from_millis(200))
///     .prefix("shop:")
///     .build()?;
/// # Ok::<(), cache_kit::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct RedisBuilder {
    pub(super) config: RedisConfig,
    pub(super) operation_timeout: Duration,
    pub(super) prefix: String,
}

/// How long an operation may take.
const OPERATION_TIMEOUT: Duration = Duration::from_millis(500);

impl RedisBuilder {
    pub(super) fn new(config: RedisConfig) -> Self {
        Self { config, operation_timeout: OPERATION_TIMEOUT, prefix: String::new() }
    }

    /// Bounds each operation, whatever it waits for: a connection, a reconnect, a reply. Default: 500 ms.
    pub fn operation_timeout(mut self, timeout: Duration) -> Self {
        self.operation_timeout = timeout;
        self
    }

    /// Stands in front of every key of this backend, which then also bounds what `clear_all` and
    /// `delete_pattern` reach. Default: none.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// The backend. Does no I/O and needs no runtime.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config), naming the field that makes no sense.
    pub fn build(self) -> Result<RedisBackend> {
        let Self { config, operation_timeout, .. } = &self;
        let refuse = |problem: &'static str, hint: &'static str| {
            Err(Error::config(problem).with_backend(super::NAME).with_hint(hint))
        };
        if config.host.is_empty() {
            return refuse("host is empty", "name the server, or leave it out for localhost");
        }
        if config.host.chars().any(|c| c.is_whitespace() || c.is_control() || "/@?#".contains(c)) {
            return refuse(
                "host is not a host name or address",
                "port, user and database have fields of their own",
            );
        }
        if config.port == 0 {
            return refuse("port is zero", "6379 is the usual one");
        }
        if config.pool_size == 0 {
            return refuse("pool_size is zero", "16 is the default, 1 the least");
        }
        if config.connection_timeout.is_zero() {
            return refuse("connection_timeout is zero", "5 s is the default");
        }
        if operation_timeout.is_zero() {
            return refuse("operation_timeout is zero", "500 ms is the default");
        }
        if config.username.is_some() && config.password.is_none() {
            return refuse("username without a password", "set both, or neither");
        }
        Ok(RedisBackend::from_settings(self))
    }

    /// Reads a `redis://` URL.
    pub(crate) fn from_url(url: &ServiceUrl<'_>, params: &mut Params<'_>) -> Result<Self> {
        let mut config = RedisConfig::default();
        (config.username, config.password) = userinfo(url.userinfo)?;
        if url.hosts.contains(',') {
            return Err(Error::config("a redis:// URL names one server"));
        }
        (config.host, config.port) = host_and_port(url.hosts, config.port)?;
        if !url.path.is_empty() {
            config.database = url.path.parse().map_err(|_| {
                Error::config("the path of a redis:// URL is not a database number")
                    .with_hint("write redis://host:6379/0")
            })?;
        }
        const NUMBER: &str = "it is a whole number";
        if let Some(size) = params.take("pool_size", NUMBER, |value| value.parse().ok())? {
            config.pool_size = size;
        }
        if let Some(timeout) = params.take("connection_timeout", text::DURATION, text::duration)? {
            config.connection_timeout = timeout;
        }
        let mut builder = Self::new(config);
        if let Some(timeout) = params.take("operation_timeout", text::DURATION, text::duration)? {
            builder.operation_timeout = timeout;
        }
        if let Some(prefix) = params.take("prefix", "", |value| Some(value.to_owned()))? {
            builder.prefix = prefix;
        }
        Ok(builder)
    }
}

/// User and password, each percent-decoded. `:password` and `password@` forms have no user.
fn userinfo(userinfo: Option<&str>) -> Result<(Option<String>, Option<String>)> {
    let Some(userinfo) = userinfo else { return Ok((None, None)) };
    let decode = |part: &str| {
        percent_decode(part).ok_or_else(|| {
            Error::config("user or password of the URL is not valid percent-encoding")
                .with_hint("write a `%` in a password as %25")
        })
    };
    let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
    let (user, password) = (decode(user)?, decode(password)?);
    let some = |text: String| (!text.is_empty()).then_some(text);
    Ok((some(user), some(password)))
}

/// `host`, `host:port`, `[::1]` or `[::1]:port`; an empty host is `localhost`.
fn host_and_port(authority: &str, default_port: u16) -> Result<(String, u16)> {
    let (host, port) = if let Some(rest) = authority.strip_prefix('[') {
        match rest.split_once(']') {
            Some((host, "")) => (host, None),
            Some((host, port)) if port.starts_with(':') => (host, Some(&port[1..])),
            _ => return Err(Error::config("the URL has an address in brackets that does not end")),
        }
    } else {
        match authority.rsplit_once(':') {
            Some((host, port)) => (host, Some(port)),
            None => (authority, None),
        }
    };
    let port = match port {
        None => default_port,
        Some(port) => {
            port.parse().map_err(|_| Error::config("the port of the URL is not a number up to 65535"))?
        }
    };
    Ok((if host.is_empty() { "localhost" } else { host }.to_owned(), port))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn from_url(url: &str) -> Result<RedisBuilder> {
        let url = ServiceUrl::parse(url)?;
        let mut params = url.params()?;
        let builder = RedisBuilder::from_url(&url, &mut params)?;
        params.finish(&[])?;
        Ok(builder)
    }

    #[test]
    fn the_defaults_are_those_of_the_specification() {
        let RedisConfig { host, port, username, password, database, pool_size, connection_timeout } =
            RedisConfig::default();
        assert_eq!((host.as_str(), port, database, pool_size), ("localhost", 6379, 0, 16));
        assert_eq!((username, password, connection_timeout), (None, None, Duration::from_secs(5)));
    }

    #[test]
    fn a_url_holds_every_setting() {
        let builder = from_url(
            "redis://me:p%40%3A%2F%23%25ss@db.example:7000/3?pool_size=4&connection_timeout=2s\
             &operation_timeout=100ms&prefix=shop:",
        )
        .unwrap();
        let config = &builder.config;
        assert_eq!((config.host.as_str(), config.port, config.database), ("db.example", 7000, 3));
        assert_eq!(config.username.as_deref(), Some("me"));
        assert_eq!(config.password.as_deref(), Some("p@:/#%ss"));
        assert_eq!((config.pool_size, config.connection_timeout), (4, Duration::from_secs(2)));
        assert_eq!(builder.operation_timeout, Duration::from_millis(100));
        assert_eq!(builder.prefix, "shop:");
        assert_eq!(from_url("redis://").unwrap().config, RedisConfig::default());
        assert_eq!(from_url("redis://[::1]:7").unwrap().config.host, "::1");
        assert_eq!(from_url("redis://:secret@h").unwrap().config.password.as_deref(), Some("secret"));
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (url, names) in [
            ("redis://h/zero", "database"),
            ("redis://h:70000", "port"),
            ("redis://h:x", "port"),
            ("redis://[::1", "brackets"),
            ("redis://u:%zz@h", "percent"),
            ("redis://h?pool_size=-1", "pool_size"),
            ("redis://h?timeout=1s", "timeout"),
            ("redis://a,b", "one server"),
        ] {
            let error = from_url(url).unwrap_err().to_string();
            assert!(error.contains(names), "{url}: {error}");
        }
        let refused = |change: fn(&mut RedisBuilder)| {
            let mut builder = RedisBuilder::new(RedisConfig::default());
            change(&mut builder);
            builder.build().unwrap_err().to_string()
        };
        assert!(refused(|b| b.config.host.clear()).contains("host"));
        assert!(refused(|b| b.config.host = "h/0".into()).contains("host"));
        assert!(refused(|b| b.config.port = 0).contains("port"));
        assert!(refused(|b| b.config.pool_size = 0).contains("pool_size"));
        assert!(refused(|b| b.config.connection_timeout = Duration::ZERO).contains("connection_timeout"));
        assert!(refused(|b| b.operation_timeout = Duration::ZERO).contains("operation_timeout"));
        assert!(refused(|b| b.config.username = Some("u".into())).contains("username"));
    }

    #[test]
    fn a_password_is_never_printed() {
        let builder = from_url("redis://me:hunter2@h").unwrap();
        let backend = builder.clone().build().unwrap();
        for text in [format!("{builder:?}"), format!("{:?}", builder.config), format!("{backend:?}")] {
            assert!(!text.contains("hunter2"), "{text}");
        }
    }
}
