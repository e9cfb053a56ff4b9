//! All settings of the Redis backend, and what makes no sense among them.

use std::future::Future;
use std::path::PathBuf;
use std::time::Duration;

use cache_kit_net::Address;

use super::config::RedisConfig;
use super::credentials::{Credentials, RedisCredentials};
use super::settings::{RedisReadFrom, SentinelSettings, Servers, Settings};
use super::{NAME, RedisBackend};
use crate::error::{Error, Result};

/// Redis' own port.
const PORT: u16 = 6_379;
/// Sentinel's own port.
const SENTINEL_PORT: u16 = 26_379;
/// Longer is a mistake, and more than can be added to the time of day.
const LONGEST: Duration = Duration::from_secs(86_400);
/// How long an operation may take.
const OPERATION_TIMEOUT: Duration = Duration::from_millis(500);

/// All settings of a [`RedisBackend`].
///
/// Without a word about servers, the one that [`RedisConfig`] names is used. If that is a node of a cluster, the cluster
/// is.
///
/// ```
/// use cache_kit::backend::{RedisBackend, RedisConfig};
/// use std::time::Duration;
///
/// let backend = RedisBackend::builder(RedisConfig::default())
///     .operation_timeout(Duration::from_millis(200))
///     .prefix("shop:")
///     .build()?;
///
/// let behind_sentinels = RedisBackend::builder(RedisConfig::default())
///     .sentinels(["sentinel-1", "sentinel-2", "sentinel-3:26380"], "mymaster")
///     .build()?;
/// # Ok::<(), cache_kit::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct RedisBuilder {
    pub(super) config: RedisConfig,
    pub(super) operation_timeout: Duration,
    pub(super) prefix: String,
    pub(super) servers: Named,
    pub(super) sentinel_credentials: Option<RedisCredentials>,
    pub(super) replicas: Vec<String>,
    pub(super) read_from: RedisReadFrom,
    pub(super) credentials: Option<Credentials>,
    pub(super) require_tls: bool,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<cache_kit_net::TlsBuilder>,
}

/// The servers as they were named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Named {
    /// By the host and port of the config.
    Config,
    Unix(PathBuf),
    Cluster(Vec<String>),
    Sentinels(Vec<String>, String),
}

impl RedisBuilder {
    pub(super) fn new(config: RedisConfig) -> Self {
        Self {
            config,
            operation_timeout: OPERATION_TIMEOUT,
            prefix: String::new(),
            servers: Named::Config,
            sentinel_credentials: None,
            replicas: Vec::new(),
            read_from: RedisReadFrom::default(),
            credentials: None,
            require_tls: false,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// Bounds each operation, whatever it waits for: a connection, a reconnect, a reply, a redirection. Default: 500 ms.
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

    /// Connects to the unix socket with this absolute path, instead of host and port.
    pub fn unix_socket(mut self, path: impl Into<PathBuf>) -> Self {
        self.servers = Named::Unix(path.into());
        self
    }

    /// Uses the cluster that these nodes belong to (`host`, `host:port`), instead of host and port. Some are enough: each
    /// knows the others. They are asked again when none of the others can be reached.
    pub fn cluster<S: Into<String>>(mut self, nodes: impl IntoIterator<Item = S>) -> Self {
        self.servers = Named::Cluster(nodes.into_iter().map(Into::into).collect());
        self
    }

    /// Uses the primary of this name that most of these sentinels (`host`, `host:port`; port 26379 if none is given) name,
    /// instead of host and port, and follows it. For each connection to it they are asked twice a second whether it
    /// still is, over one connection to each sentinel that `pool_size` does not count.
    pub fn sentinels<S: Into<String>>(
        mut self,
        sentinels: impl IntoIterator<Item = S>,
        name: impl Into<String>,
    ) -> Self {
        let sentinels = sentinels.into_iter().map(Into::into).collect();
        self.servers = Named::Sentinels(sentinels, name.into());
        self
    }

    /// What the sentinels ask for, which get no other credentials. Default: nothing.
    pub fn sentinel_credentials(mut self, username: Option<String>, password: impl Into<String>) -> Self {
        self.sentinel_credentials = Some(RedisCredentials { username, password: password.into() });
        self
    }

    /// The replicas (`host`, `host:port`) of the server that [`RedisConfig`] names, to [read from](Self::read_from): the
    /// reader endpoint of a managed service, for example. Clusters and sentinels name theirs themselves. Each may be
    /// connected to as often as `pool_size` says.
    pub fn replicas<S: Into<String>>(mut self, replicas: impl IntoIterator<Item = S>) -> Self {
        self.replicas = replicas.into_iter().map(Into::into).collect();
        self
    }

    /// Where plain reads go. Default: to the primary, always. See [`RedisReadFrom`] for what reading from replicas costs.
    pub fn read_from(mut self, read_from: RedisReadFrom) -> Self {
        self.read_from = read_from;
        self
    }

    /// Asks for the credentials each time a connection is made, instead of those of the config: for passwords that change
    /// and tokens that expire. Bounded by the connection timeout; cancelled with the attempt to connect.
    ///
    /// ```
    /// # use cache_kit::backend::{RedisBackend, RedisConfig, redis::RedisCredentials};
    /// let backend = RedisBackend::builder(RedisConfig::default())
    ///     .credentials_provider(|| async {
    ///         let password = std::env::var("CACHE_PASSWORD").map_err(cache_kit::Error::source)?;
    ///         Ok(RedisCredentials { username: Some("app".to_owned()), password })
    ///     })
    ///     .build()?;
    /// # Ok::<(), cache_kit::Error>(())
    /// ```
    pub fn credentials_provider<F, Fut>(mut self, provider: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<RedisCredentials>> + Send + 'static,
    {
        self.credentials = Some(Credentials::provider(provider));
        self
    }

    /// Refuses to be built without TLS, whatever the URL says. With TLS, every connection is encrypted and every
    /// certificate verified, those of the nodes that a cluster or a sentinel names included. Default: false.
    pub fn require_tls(mut self, require: bool) -> Self {
        self.require_tls = require;
        self
    }

    /// The backend. Does no I/O and needs no runtime.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config), naming the field that makes no sense.
    pub fn build(self) -> Result<RedisBackend> {
        self.check()?;
        let credentials = self.credentials.clone().unwrap_or_else(|| Credentials::of(&self.config));
        let settings = Settings {
            servers: self.servers()?,
            replicas: addresses("replicas", &self.replicas, PORT)?,
            read_from: self.read_from,
            credentials,
            #[cfg(feature = "tls")]
            tls: self.tls.as_ref().map(read_tls).transpose()?,
            database: self.config.database,
            pool_size: self.config.pool_size as usize,
            connection_timeout: self.config.connection_timeout,
            operation_timeout: self.operation_timeout,
            prefix: self.prefix,
        };
        Ok(RedisBackend::from_settings(settings))
    }

    fn check(&self) -> Result<()> {
        let Self { config, .. } = self;
        let refuse = |problem: &'static str, hint: &'static str| Err(refusal(problem).with_hint(hint));
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
        if self.operation_timeout.is_zero() {
            return refuse("operation_timeout is zero", "500 ms is the default");
        }
        if config.connection_timeout > LONGEST {
            return refuse("connection_timeout is longer than a day", "5 s is the default");
        }
        if self.operation_timeout > LONGEST {
            return refuse("operation_timeout is longer than a day", "500 ms is the default");
        }
        if config.username.is_some() && config.password.is_none() {
            return refuse("username without a password", "set both, or neither");
        }
        if self.credentials.is_some() && config.password.is_some() {
            return refuse("password and credentials_provider", "say one of them");
        }
        if matches!(self.servers, Named::Cluster(_)) && config.database != 0 {
            return refuse("database of a cluster", "clusters have only database 0");
        }
        if !matches!(self.servers, Named::Sentinels(..)) && self.sentinel_credentials.is_some() {
            return refuse("sentinel_credentials without sentinels", "name the sentinels");
        }
        if !matches!(self.servers, Named::Config | Named::Unix(_)) && !self.replicas.is_empty() {
            return refuse("replicas of a cluster or of sentinels", "they name theirs themselves");
        }
        if !self.replicas.is_empty() && self.read_from == RedisReadFrom::Primary {
            return refuse("replicas that nothing is read from", "say read_from prefer_replica");
        }
        // A plain server may turn out to be a cluster's, which names its replicas; one on a socket has to be told.
        let has_none = matches!(self.servers, Named::Unix(_)) && self.replicas.is_empty();
        if self.read_from == RedisReadFrom::PreferReplica && has_none {
            return refuse("read_from prefer_replica without replicas", "name them");
        }
        if self.require_tls && !self.has_tls() {
            return refuse("require_tls without TLS", "use rediss://, or tls() of the builder");
        }
        if self.has_tls() && matches!(self.servers, Named::Unix(_)) {
            return refuse("TLS over a unix socket", "Redis speaks it over TCP only");
        }
        Ok(())
    }

    fn has_tls(&self) -> bool {
        #[cfg(feature = "tls")]
        return self.tls.is_some();
        #[cfg(not(feature = "tls"))]
        false
    }

    fn servers(&self) -> Result<Servers> {
        Ok(match &self.servers {
            Named::Config => {
                Servers::One(Address::Tcp { host: self.config.host.clone(), port: self.config.port })
            }
            Named::Unix(path) if path.is_absolute() => Servers::One(Address::Unix(path.clone())),
            Named::Unix(_) => return Err(refusal("the path of the unix socket is not absolute")),
            Named::Cluster(nodes) => match addresses("cluster", nodes, PORT)? {
                nodes if nodes.is_empty() => return Err(refusal("a cluster without nodes")),
                nodes => Servers::Cluster(nodes),
            },
            Named::Sentinels(sentinels, name) => {
                let sentinels = addresses("sentinels", sentinels, SENTINEL_PORT)?;
                if sentinels.is_empty() || name.is_empty() {
                    return Err(refusal("sentinels, or the name that they know the primary by, are missing")
                        .with_hint("write redis+sentinel://sentinel-1,sentinel-2/mymaster"));
                }
                let credentials = self.sentinel_credentials.clone();
                Servers::Sentinels(SentinelSettings { sentinels, name: name.clone(), credentials })
            }
        })
    }
}

#[cfg(feature = "tls")]
crate::backend::tls::tls_methods!(RedisBuilder);

#[cfg(feature = "tls")]
fn read_tls(tls: &cache_kit_net::TlsBuilder) -> Result<cache_kit_net::Tls> {
    tls.build().map_err(|error| {
        let hint = error.hint();
        let refused = refusal(error.to_string());
        let refused = if hint.is_empty() { refused } else { refused.with_hint(hint) };
        refused.with_source(error)
    })
}

fn refusal(problem: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::config(problem).with_backend(NAME)
}

fn addresses(field: &str, texts: &[String], port: u16) -> Result<Vec<Address>> {
    let read = |text: &String| match Address::parse(text, port) {
        Ok(address @ Address::Tcp { .. }) => Ok(address),
        Ok(Address::Unix(_)) => Err(refusal(format!("{field} names a unix socket"))),
        // Credentials may stand in front of an `@`, where somebody has pasted a URL.
        Err(hint) => {
            let shown = text.rsplit('@').next().unwrap_or_default();
            Err(refusal(format!("{field} names `{shown}`, which is no server")).with_hint(hint))
        }
    };
    texts.iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn builder() -> RedisBuilder {
        RedisBuilder::new(RedisConfig::default())
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        let refused = |change: fn(&mut RedisBuilder)| {
            let mut builder = builder();
            change(&mut builder);
            builder.build().unwrap_err().to_string()
        };
        assert!(refused(|b| b.config.host.clear()).contains("host"));
        assert!(refused(|b| b.config.host = "h/0".into()).contains("host"));
        assert!(refused(|b| b.config.port = 0).contains("port"));
        assert!(refused(|b| b.config.pool_size = 0).contains("pool_size"));
        assert!(refused(|b| b.config.connection_timeout = Duration::ZERO).contains("connection_timeout"));
        assert!(refused(|b| b.operation_timeout = Duration::ZERO).contains("operation_timeout"));
        assert!(refused(|b| b.operation_timeout = Duration::MAX).contains("operation_timeout"));
        assert!(refused(|b| b.config.connection_timeout = Duration::MAX).contains("connection_timeout"));
        assert!(refused(|b| b.config.username = Some("u".into())).contains("username"));
    }

    #[test]
    fn settings_that_contradict_each_other_are_refused_by_both_names() {
        for (builder, names) in [
            (builder().cluster(["a"]).replicas(["b"]), ["replicas", "cluster"]),
            (builder().replicas(["b"]), ["replicas", "read_from"]),
            (builder().unix_socket("/s").read_from(RedisReadFrom::PreferReplica), ["read_from", "replicas"]),
            (builder().sentinel_credentials(None, "s"), ["sentinel_credentials", "sentinels"]),
            (builder().require_tls(true), ["require_tls", "TLS"]),
            (builder().cluster(["a:x"]), ["cluster", "`a:x`"]),
            (builder().cluster(Vec::<String>::new()), ["cluster", "nodes"]),
            (builder().sentinels(["a"], ""), ["sentinels", "name"]),
            (builder().unix_socket("relative"), ["unix socket", "absolute"]),
        ] {
            let error = builder.clone().build().unwrap_err().to_string();
            assert!(names.iter().all(|name| error.contains(name)), "{builder:?}: {error}");
        }
        let cluster = RedisBuilder::new(RedisConfig { database: 1, ..Default::default() }).cluster(["a"]);
        assert!(cluster.build().unwrap_err().to_string().contains("database"));
    }

    #[test]
    fn no_secret_is_printed() {
        let mut builder =
            builder().sentinels(["s"], "main").sentinel_credentials(Some("watcher".to_owned()), "hunter2");
        builder.config.password = Some("hunter2".to_owned());
        let backend = builder.clone().build().unwrap();
        for text in [format!("{builder:?}"), format!("{:?}", builder.config), format!("{backend:?}")] {
            assert!(!text.contains("hunter2"), "{text}");
        }
        let error = addresses("cluster", &["me:hunter2@h:x".to_owned()], 1).unwrap_err();
        assert!(!error.to_string().contains("hunter2"), "{error}");
    }
}
