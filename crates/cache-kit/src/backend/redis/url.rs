//! The settings in a URL.

use super::builder::{Named, RedisBuilder};
use super::config::RedisConfig;
use super::credentials::RedisCredentials;
use super::settings::RedisReadFrom;
use crate::config::{Params, ServiceUrl, percent_decode, text};
use crate::error::{Error, Result};

/// What a scheme says: whether there is TLS, and what the servers are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Scheme {
    tls: bool,
    kind: Kind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    One,
    Unix,
    Cluster,
    Sentinel,
}

impl Scheme {
    fn of(scheme: &str) -> Option<Self> {
        let (base, kind) = scheme.split_once('+').map_or((scheme, None), |(base, kind)| (base, Some(kind)));
        let tls = match base {
            "redis" | "valkey" => false,
            "rediss" | "valkeys" => true,
            _ => return None,
        };
        let kind = match kind {
            None => Kind::One,
            Some("unix") => Kind::Unix,
            Some("cluster") => Kind::Cluster,
            Some("sentinel") => Kind::Sentinel,
            Some(_) => return None,
        };
        Some(Self { tls, kind })
    }
}

/// Whether URLs of this scheme name this backend.
pub(crate) fn is_scheme(scheme: &str) -> bool {
    Scheme::of(scheme).is_some()
}

impl RedisBuilder {
    /// Reads a URL whose scheme is one of this backend's.
    pub(crate) fn from_url(url: &ServiceUrl<'_>, params: &mut Params<'_>) -> Result<Self> {
        let Some(scheme) = Scheme::of(url.scheme) else {
            return Err(Error::config("the scheme of the URL is not one of Redis").with_hint(
                "redis, rediss, valkey, valkeys, and with +cluster, +sentinel or +unix behind it",
            ));
        };
        let mut config = RedisConfig::default();
        (config.username, config.password) = userinfo(url.userinfo)?;
        let named = match scheme.kind {
            Kind::One => one(url, &mut config)?,
            Kind::Unix => unix(url, params, &mut config)?,
            Kind::Cluster => cluster(url)?,
            Kind::Sentinel => sentinels(url, &mut config)?,
        };
        const NUMBER: &str = "it is a whole number";
        if let Some(size) = params.take("pool_size", NUMBER, |value| value.parse().ok())? {
            config.pool_size = size;
        }
        if let Some(timeout) = params.take("connection_timeout", text::DURATION, text::duration)? {
            config.connection_timeout = timeout;
        }
        let mut builder = Self::new(config);
        builder.servers = named;
        if let Some(timeout) = params.take("operation_timeout", text::DURATION, text::duration)? {
            builder.operation_timeout = timeout;
        }
        if let Some(prefix) = params.take("prefix", "", |value| Some(value.to_owned()))? {
            builder.prefix = prefix;
        }
        let read_from = |value: &str| match value {
            "primary" => Some(RedisReadFrom::Primary),
            "prefer_replica" => Some(RedisReadFrom::PreferReplica),
            _ => None,
        };
        if let Some(from) = params.take("read_from", "it is primary or prefer_replica", read_from)? {
            builder.read_from = from;
        }
        if scheme.kind == Kind::One || scheme.kind == Kind::Unix {
            let list = |value: &str| Some(value.split(',').map(str::to_owned).collect());
            if let Some(replicas) = params.take("replicas", "", list)? {
                builder.replicas = replicas;
            }
        }
        if scheme.kind == Kind::Sentinel {
            builder.sentinel_credentials = sentinel_credentials(params)?;
        }
        let truth = |value: &str| value.parse().ok();
        if let Some(require) = params.take("require_tls", "it is true or false", truth)? {
            builder.require_tls = require;
        }
        if scheme.tls { builder.with_tls_from_url(params) } else { Ok(builder) }
    }

    #[cfg(feature = "tls")]
    fn with_tls_from_url(mut self, params: &mut Params<'_>) -> Result<Self> {
        self.tls = Some(crate::backend::tls::from_params(params)?);
        Ok(self)
    }

    #[cfg(not(feature = "tls"))]
    fn with_tls_from_url(self, _: &mut Params<'_>) -> Result<Self> {
        Err(Error::config("this build has no TLS").with_hint("enable the feature `tls`"))
    }
}

/// `redis://host:port/database`
fn one(url: &ServiceUrl<'_>, config: &mut RedisConfig) -> Result<Named> {
    if url.hosts.contains(',') {
        return Err(Error::config("a redis:// URL names one server")
            .with_hint("write redis+cluster:// or redis+sentinel:// for several"));
    }
    (config.host, config.port) = host_and_port(url.hosts, config.port)?;
    config.database = database(url.path)?;
    Ok(Named::Config)
}

/// `redis+unix:///run/redis.sock?database=0`
fn unix(url: &ServiceUrl<'_>, params: &mut Params<'_>, config: &mut RedisConfig) -> Result<Named> {
    if !url.hosts.is_empty() || url.path.is_empty() {
        return Err(Error::config("a redis+unix:// URL names the path of a socket, and no host")
            .with_hint("write redis+unix:///run/redis.sock"));
    }
    let Some(path) = percent_decode(url.path) else {
        return Err(Error::config("the path of the URL is not valid percent-encoding"));
    };
    if let Some(database) = params.take("database", "it is a whole number", |value| value.parse().ok())? {
        config.database = database;
    }
    Ok(Named::Unix(format!("/{path}").into()))
}

/// `redis+cluster://node,node:port`
fn cluster(url: &ServiceUrl<'_>) -> Result<Named> {
    if !matches!(url.path, "" | "0") {
        return Err(Error::config("a cluster has no databases").with_hint("leave the path out"));
    }
    Ok(Named::Cluster(hosts(url)?))
}

/// `redis+sentinel://sentinel,sentinel:port/name/database`
fn sentinels(url: &ServiceUrl<'_>, config: &mut RedisConfig) -> Result<Named> {
    let (name, path) = url.path.split_once('/').unwrap_or((url.path, ""));
    let Some(name) = percent_decode(name).filter(|name| !name.is_empty()) else {
        return Err(Error::config("the URL does not say the name that the sentinels know the primary by")
            .with_hint("write redis+sentinel://sentinel-1,sentinel-2/mymaster"));
    };
    config.database = database(path)?;
    Ok(Named::Sentinels(hosts(url)?, name))
}

fn hosts(url: &ServiceUrl<'_>) -> Result<Vec<String>> {
    if url.hosts.is_empty() {
        return Err(Error::config("the URL names no server"));
    }
    Ok(url.hosts.split(',').map(str::to_owned).collect())
}

fn database(path: &str) -> Result<u32> {
    if path.is_empty() {
        return Ok(0);
    }
    path.parse().map_err(|_| {
        Error::config("the path of the URL is not a database number").with_hint("write redis://host:6379/0")
    })
}

fn sentinel_credentials(params: &mut Params<'_>) -> Result<Option<RedisCredentials>> {
    let text = |value: &str| Some(value.to_owned());
    let username = params.take("sentinel_username", "", text)?;
    let password = params.take("sentinel_password", "", text)?;
    match (username, password) {
        (username, Some(password)) => Ok(Some(RedisCredentials { username, password })),
        (Some(_), None) => Err(Error::config("sentinel_username without sentinel_password")),
        (None, None) => Ok(None),
    }
}

/// User and password, each percent-decoded. `:password` has no user.
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
    use std::time::Duration;

    use super::*;

    fn from_url(url: &str) -> Result<RedisBuilder> {
        let url = ServiceUrl::parse(url)?;
        let mut params = url.params()?;
        let builder = RedisBuilder::from_url(&url, &mut params)?;
        params.finish(&[])?;
        Ok(builder)
    }

    #[test]
    fn a_url_holds_every_setting() {
        let builder = from_url(
            "redis://me:p%40%3A%2F%23%25ss@db.example:7000/3?pool_size=4&connection_timeout=2s\
             &operation_timeout=100ms&prefix=shop:&read_from=prefer_replica&replicas=r1,r2:7&require_tls=false",
        )
        .unwrap();
        let config = &builder.config;
        assert_eq!((config.host.as_str(), config.port, config.database), ("db.example", 7000, 3));
        assert_eq!(config.username.as_deref(), Some("me"));
        assert_eq!(config.password.as_deref(), Some("p@:/#%ss"));
        assert_eq!((config.pool_size, config.connection_timeout), (4, Duration::from_secs(2)));
        assert_eq!(builder.operation_timeout, Duration::from_millis(100));
        assert_eq!(builder.prefix, "shop:");
        assert_eq!(builder.read_from, RedisReadFrom::PreferReplica);
        assert_eq!(builder.replicas, ["r1", "r2:7"]);
        assert_eq!(from_url("redis://").unwrap().config, RedisConfig::default());
        assert_eq!(from_url("valkey://").unwrap().config, RedisConfig::default());
        assert_eq!(from_url("redis://[::1]:7").unwrap().config.host, "::1");
        assert_eq!(from_url("redis://:secret@h").unwrap().config.password.as_deref(), Some("secret"));
    }

    #[test]
    fn a_url_names_every_topology() {
        let unix = from_url("redis+unix://:pw@/run/redis.sock?database=2").unwrap();
        assert_eq!(unix.servers, Named::Unix("/run/redis.sock".into()));
        assert_eq!((unix.config.database, unix.config.password.as_deref()), (2, Some("pw")));
        let cluster = from_url("redis+cluster://me:pw@a,b:7,[::1]:8").unwrap();
        assert_eq!(cluster.servers, Named::Cluster(["a", "b:7", "[::1]:8"].map(str::to_owned).into()));
        assert_eq!(cluster.config.username.as_deref(), Some("me"));
        let url = "valkey+sentinel://:pw@a,b/main/3?sentinel_username=w&sentinel_password=s";
        let sentinel = from_url(url).unwrap();
        let names = ["a", "b"].map(str::to_owned).into();
        assert_eq!(sentinel.servers, Named::Sentinels(names, "main".to_owned()));
        assert_eq!((sentinel.config.database, sentinel.config.password.as_deref()), (3, Some("pw")));
        assert_eq!(sentinel.sentinel_credentials.unwrap().password, "s");
    }

    #[cfg(feature = "tls")]
    #[test]
    fn tls_is_in_the_scheme_and_nothing_in_a_url_weakens_it() {
        for scheme in ["rediss", "valkeys", "rediss+cluster", "valkeys+sentinel"] {
            let builder = from_url(&format!("{scheme}://h/main?require_tls=true"));
            let builder = if scheme.ends_with("cluster") {
                from_url(&format!("{scheme}://h"))
            } else if scheme.ends_with("sentinel") {
                builder
            } else {
                from_url(&format!("{scheme}://h/0?require_tls=true"))
            };
            assert!(builder.unwrap().tls.is_some(), "{scheme}");
        }
        assert!(from_url("redis://h").unwrap().tls.is_none());
        for weakening in ["rediss://h?insecure=true", "rediss://h?danger=true", "rediss://h#insecure"] {
            assert!(from_url(weakening).is_err(), "{weakening}");
        }
        let error = from_url("rediss+unix:///s").unwrap().build().unwrap_err().to_string();
        assert!(error.contains("TLS") && error.contains("unix"), "{error}");
        let error = from_url("redis://h?require_tls=true").unwrap().build().unwrap_err().to_string();
        assert!(error.contains("require_tls") && error.contains("rediss://"), "{error}");
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
            ("redis://h?read_from=nearest", "read_from"),
            ("redis://a,b", "one server"),
            ("redis+ring://a,b", "scheme"),
            ("redis+cluster://a/1", "databases"),
            ("redis+cluster://a?replicas=b", "replicas"),
            ("redis+cluster://", "no server"),
            ("redis+sentinel://a", "name"),
            ("redis+sentinel://a/main?sentinel_username=u", "sentinel_password"),
            ("redis+unix://host/s", "socket"),
            ("redis+unix://", "socket"),
        ] {
            let error = from_url(url).unwrap_err().to_string();
            assert!(error.contains(names), "{url}: {error}");
        }
    }
}
