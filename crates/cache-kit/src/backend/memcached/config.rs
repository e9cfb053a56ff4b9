//! The settings of the Memcached backend: the plain struct, the builder, the URL.

use std::sync::Arc;
use std::time::Duration;

use cache_kit_memcached::protocol::Credentials;
use cache_kit_memcached::ring::Distribution;
use cache_kit_memcached::{Client, Server};

use super::error::convert;
use super::{MemcachedBackend, NAME, Releases, Shared};
use crate::config::{Params, ServiceUrl, percent_decode, text};
use crate::error::{Error, Result};

/// Where the Memcached servers are, and how many connections to each to hold.
///
/// The three settings of the framework's contract; further ones are on [`MemcachedBuilder`] and in the URL of
/// [`MemcachedBackend::from_url`].
///
/// ```
/// use cache_kit::backend::{MemcachedBackend, MemcachedConfig};
///
/// let config = MemcachedConfig {
///     servers: vec!["cache-1:11211".to_string(), "cache-2:11211".to_string()],
///     ..Default::default()
/// };
/// let backend = MemcachedBackend::new(config)?; // No I/O yet.
/// # Ok::<(), cache_kit::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MemcachedConfig {
    /// The servers, all of which are used: `host:port`, `host` (port 11211), `[v6]:port`, or the path of a unix socket.
    /// Their order does not matter. Names are resolved anew for each connection. Required; the default is none.
    pub servers: Vec<String>,
    /// The most connections to each server that are ever open. Default: 16. A few are enough for thousands of
    /// concurrent callers, since connections are shared.
    pub max_connections: usize,
    /// The connections to each server that are kept open from its first use on, and opened again after a fault.
    /// Default: 4. They stand ready for when one is lost; traffic keeps to as few as serve it best.
    pub min_connections: usize,
}

impl Default for MemcachedConfig {
    fn default() -> Self {
        Self { servers: Vec::new(), max_connections: 16, min_connections: 4 }
    }
}

/// How keys are spread over the servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum MemcachedDistribution {
    /// libmemcached's weighted ketama, which most clients mean by "ketama". The default.
    #[default]
    WeightedKetama,
    /// libmemcached's plain ketama. Knows no weights.
    Ketama,
}

/// All settings of a [`MemcachedBackend`].
///
/// ```
/// use cache_kit::backend::{MemcachedBackend, MemcachedConfig};
/// use std::time::Duration;
///
/// let config = MemcachedConfig { servers: vec!["cache-1".to_string()], ..Default::default() };
/// let backend = MemcachedBackend::builder(config)
///     .operation_timeout(Duration::from_millis(200))
///     .prefix("shop:")
///     .build()?;
/// # Ok::<(), cache_kit::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct MemcachedBuilder {
    config: MemcachedConfig,
    connection_timeout: Duration,
    operation_timeout: Duration,
    prefix: String,
    distribution: MemcachedDistribution,
    weights: Vec<u32>,
    credentials: Option<(String, Secret)>,
    #[cfg(feature = "tls")]
    tls: Option<cache_kit_net::TlsBuilder>,
}

/// A password: never printed.
#[derive(Clone)]
struct Secret(String);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("<redacted>")
    }
}

impl MemcachedBuilder {
    pub(super) fn new(config: MemcachedConfig) -> Self {
        Self {
            config,
            connection_timeout: Duration::from_secs(5),
            operation_timeout: Duration::from_millis(500),
            prefix: String::new(),
            distribution: MemcachedDistribution::default(),
            weights: Vec::new(),
            credentials: None,
            #[cfg(feature = "tls")]
            tls: None,
        }
    }

    /// Bounds one attempt to connect, with TLS and authentication. Default: 5 s.
    pub fn connection_timeout(mut self, timeout: Duration) -> Self {
        self.connection_timeout = timeout;
        self
    }

    /// Bounds each operation, whatever it waits for: a connection, a reconnect, a reply; it may end up to 10 ms later.
    /// Default: 500 ms.
    pub fn operation_timeout(mut self, timeout: Duration) -> Self {
        self.operation_timeout = timeout;
        self
    }

    /// Stands in front of every key of this backend. Default: none. With one, `clear_all` is unsupported: Memcached
    /// cannot list keys.
    pub fn prefix(mut self, prefix: impl Into<String>) -> Self {
        self.prefix = prefix.into();
        self
    }

    /// How keys are spread over the servers. Default: weighted ketama.
    pub fn distribution(mut self, distribution: MemcachedDistribution) -> Self {
        self.distribution = distribution;
        self
    }

    /// How many keys the servers get compared with each other, in the order of `servers`. Default: all the same.
    pub fn weights(mut self, weights: impl IntoIterator<Item = u32>) -> Self {
        self.weights = weights.into_iter().collect();
        self
    }

    /// User and password, for servers with an authentication file (`-Y`). They cross the network as they are, unless
    /// there is TLS. Never printed.
    pub fn credentials(mut self, user: impl Into<String>, password: impl Into<String>) -> Self {
        self.credentials = Some((user.into(), Secret(password.into())));
        self
    }

    /// The backend. Does no I/O and needs no runtime.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config), naming the field that makes no sense.
    pub fn build(self) -> Result<MemcachedBackend> {
        let refused = |error: cache_kit_memcached::Error| convert("build", error);
        if !self.weights.is_empty() && self.weights.len() != self.config.servers.len() {
            return Err(Error::config("weights are not as many as servers")
                .with_backend(NAME)
                .with_hint("give one for each server, in their order, or none"));
        }
        let mut builder = Client::builder()
            .max_connections(self.config.max_connections)
            .min_connections(self.config.min_connections)
            .connection_timeout(self.connection_timeout)
            .operation_timeout(self.operation_timeout)
            .distribution(match self.distribution {
                MemcachedDistribution::WeightedKetama => Distribution::KetamaWeighted,
                MemcachedDistribution::Ketama => Distribution::Ketama,
            });
        for (at, server) in self.config.servers.iter().enumerate() {
            let server = Server::parse(server).map_err(refused)?;
            builder = builder.server(server.with_weight(self.weights.get(at).copied().unwrap_or(1)));
        }
        if let Some((user, Secret(password))) = &self.credentials {
            let credentials = Credentials::new(user, password)
                .map_err(|error| Error::config(error.to_string()).with_backend(NAME))?;
            builder = builder.credentials(credentials);
        }
        #[cfg(feature = "tls")]
        if let Some(tls) = &self.tls {
            builder = builder.tls(cache_kit_memcached::Tls::with(tls.clone()).map_err(refused)?);
        }
        let client = builder.build().map_err(refused)?;
        let shared = Shared { client, prefix: self.prefix, releases: Releases::default() };
        Ok(MemcachedBackend { shared: Arc::new(shared) })
    }

    /// Reads a URL of one of the [schemes](is_scheme).
    pub(crate) fn from_url(url: &ServiceUrl<'_>, params: &mut Params<'_>) -> Result<Self> {
        let mut config = MemcachedConfig::default();
        if url.scheme == UNIX {
            if !url.hosts.is_empty() {
                return Err(Error::config("a memcached+unix:// URL has a path and no host")
                    .with_hint("write memcached+unix:///run/memcached.sock"));
            }
            let path = percent_decode(url.path)
                .ok_or_else(|| Error::config("the path of the URL is not valid percent-encoding"))?;
            config.servers.push(format!("/{path}"));
        } else {
            if !url.path.is_empty() {
                return Err(Error::config("a memcached:// URL has no path")
                    .with_hint("Memcached has no databases; a prefix is ?prefix=shop:"));
            }
            config.servers.extend(url.hosts.split(',').filter(|host| !host.is_empty()).map(str::to_owned));
            if config.servers.is_empty() {
                config.servers.push("localhost".to_owned());
            }
        }
        const NUMBER: &str = "it is a whole number";
        if let Some(connections) = params.take("max_connections", NUMBER, |value| value.parse().ok())? {
            config.max_connections = connections;
            // The default of one must not contradict what is said of the other.
            config.min_connections = config.min_connections.min(connections);
        }
        if let Some(connections) = params.take("min_connections", NUMBER, |value| value.parse().ok())? {
            config.min_connections = connections;
        }
        let mut builder = Self::new(config);
        if let Some(timeout) = params.take("connection_timeout", text::DURATION, text::duration)? {
            builder.connection_timeout = timeout;
        }
        if let Some(timeout) = params.take("operation_timeout", text::DURATION, text::duration)? {
            builder.operation_timeout = timeout;
        }
        if let Some(prefix) = params.take("prefix", "", |value| Some(value.to_owned()))? {
            builder.prefix = prefix;
        }
        let distribution = |value: &str| match value {
            "weighted_ketama" => Some(MemcachedDistribution::WeightedKetama),
            "ketama" => Some(MemcachedDistribution::Ketama),
            _ => None,
        };
        if let Some(of) = params.take("distribution", "it is weighted_ketama or ketama", distribution)? {
            builder.distribution = of;
        }
        let weights = |value: &str| value.split(',').map(|weight| weight.parse().ok()).collect();
        if let Some(weights) = params.take("weights", "whole numbers, such as 2,1,1", weights)? {
            builder.weights = weights;
        }
        if let Some(userinfo) = url.userinfo {
            let decode = |part: &str| {
                percent_decode(part).ok_or_else(|| {
                    Error::config("user or password of the URL is not valid percent-encoding")
                        .with_hint("write a `%` in a password as %25")
                })
            };
            let (user, password) = userinfo.split_once(':').unwrap_or((userinfo, ""));
            builder.credentials = Some((decode(user)?, Secret(decode(password)?)));
        }
        builder.with_tls_from_url(url, params)
    }

    #[cfg(feature = "tls")]
    fn with_tls_from_url(mut self, url: &ServiceUrl<'_>, params: &mut Params<'_>) -> Result<Self> {
        if url.scheme == TLS {
            self.tls = Some(crate::backend::tls::from_params(params)?);
        }
        Ok(self)
    }

    #[cfg(not(feature = "tls"))]
    fn with_tls_from_url(self, url: &ServiceUrl<'_>, _: &mut Params<'_>) -> Result<Self> {
        if url.scheme == TLS {
            return Err(Error::config("this build has no TLS").with_hint("enable the feature `tls`"));
        }
        Ok(self)
    }
}

const TLS: &str = "memcached+tls";
const UNIX: &str = "memcached+unix";

/// Whether URLs of this scheme name this backend.
pub(crate) fn is_scheme(scheme: &str) -> bool {
    [NAME, TLS, UNIX].contains(&scheme)
}

#[cfg(feature = "tls")]
crate::backend::tls::tls_methods!(MemcachedBuilder);

#[cfg(test)]
mod tests {
    use super::*;

    fn from_url(url: &str) -> Result<MemcachedBuilder> {
        let url = ServiceUrl::parse(url)?;
        let mut params = url.params()?;
        let builder = MemcachedBuilder::from_url(&url, &mut params)?;
        params.finish(&[])?;
        Ok(builder)
    }

    #[test]
    fn the_defaults_are_those_of_the_specification() {
        let MemcachedConfig { servers, max_connections, min_connections } = MemcachedConfig::default();
        assert_eq!((servers.len(), max_connections, min_connections), (0, 16, 4));
    }

    #[test]
    fn a_url_holds_every_setting() {
        let builder = from_url(
            "memcached://me:p%40ss@a:1,b?max_connections=8&min_connections=1&connection_timeout=2s\
             &operation_timeout=100ms&prefix=shop:&distribution=weighted_ketama&weights=2,1",
        )
        .unwrap();
        assert_eq!(builder.config.servers, ["a:1", "b"]);
        assert_eq!((builder.config.max_connections, builder.config.min_connections), (8, 1));
        assert_eq!(builder.connection_timeout, Duration::from_secs(2));
        assert_eq!(builder.operation_timeout, Duration::from_millis(100));
        assert_eq!((builder.prefix.as_str(), &builder.weights[..]), ("shop:", &[2, 1][..]));
        assert!(!format!("{builder:?}").contains("p@ss"));
        assert_eq!(builder.credentials.as_ref().unwrap().1.0, "p@ss");
        builder.build().unwrap();
        assert_eq!(from_url("memcached://").unwrap().config.servers, ["localhost"]);
        assert_eq!(from_url("memcached://?max_connections=2").unwrap().config.min_connections, 2);
        assert_eq!(from_url("memcached+unix:///run/m.sock").unwrap().config.servers, ["/run/m.sock"]);
    }

    #[test]
    fn what_makes_no_sense_is_refused_by_name() {
        for (url, names) in [
            ("memcached://h/0", "path"),
            ("memcached://h:x", "port"),
            ("memcached://h,h", "same"),
            ("memcached://h?max_connections=0", "max_connections"),
            ("memcached://h?max_connections=2&min_connections=3", "min_connections"),
            ("memcached://h?operation_timeout=0s", "operation_timeout"),
            ("memcached://h?distribution=modula", "distribution"),
            ("memcached://h?weights=1,1", "weights"),
            ("memcached://h?weights=0", "weight"),
            ("memcached://h?pool_size=1", "pool_size"),
            ("memcached://u:a%20b@h", "password"),
            ("memcached+unix://h/x", "path"),
        ] {
            let error = match from_url(url).and_then(MemcachedBuilder::build) {
                Ok(_) => panic!("{url} was taken"),
                Err(error) => error.to_string(),
            };
            assert!(error.contains(names), "{url}: {error}");
        }
        let error = MemcachedBackend::new(MemcachedConfig::default()).unwrap_err().to_string();
        assert!(error.contains("servers"), "{error}");
    }
}
