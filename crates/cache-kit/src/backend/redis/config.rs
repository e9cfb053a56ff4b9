//! The settings of the framework's contract: the plain struct.

use std::fmt;
use std::time::Duration;

/// Where a Redis server is, and how many connections to hold.
///
/// The seven settings of the framework's contract; further ones are on [`RedisBuilder`](super::RedisBuilder) and in the
/// URL of [`RedisBackend::from_url`](super::RedisBackend::from_url). A server that is a node of a cluster is recognised:
/// its slots are followed.
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
    /// callers, since connections are shared; more are opened only under load. In a cluster each node gets an equal
    /// share, and at least one. Not counted are one connection for each
    /// [subscription](super::RedisBackend::track) and primary, one to each sentinel, and those to replicas, each of which
    /// may have as many.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_defaults_are_those_of_the_specification() {
        let RedisConfig { host, port, username, password, database, pool_size, connection_timeout } =
            RedisConfig::default();
        assert_eq!((host.as_str(), port, database, pool_size), ("localhost", 6379, 0, 16));
        assert_eq!((username, password, connection_timeout), (None, None, Duration::from_secs(5)));
    }
}
