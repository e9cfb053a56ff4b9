//! The backend that a URL or the environment names.

use std::ffi::OsString;

use super::CacheBackend;
use crate::clock::Clock;
use crate::config::{Params, ServiceUrl};
use crate::error::{Error, Result};

/// The backend that a URL names.
///
/// | URL | backend |
/// |---|---|
/// | `memory://` | [`InMemoryBackend`](super::InMemoryBackend); parameters `max_entries`, `max_bytes`, `sweep_every` |
/// | `redis://user:password@host:6379/0` | `RedisBackend` (feature `redis`); parameters `pool_size`, `connection_timeout`, `operation_timeout`, `prefix`, `read_from` (`primary` or `prefer_replica`), `replicas`, `require_tls` |
/// | `redis+unix:///run/redis.sock` | the same over a unix socket, with the parameter `database` |
/// | `redis+cluster://user:password@host,host:6379` | the same for a cluster |
/// | `redis+sentinel://user:password@host,host:26379/name/0` | the same for a primary behind sentinels; parameters `sentinel_username`, `sentinel_password` |
/// | `rediss://…`, `rediss+cluster://…`, `rediss+sentinel://…` | the same over TLS (feature `tls`); with the paths of PEM files in `tls_roots` (else those of the system), `tls_certificate` and `tls_key`, and `tls_server_name` |
/// | `valkey` or `valkeys` for `redis` or `rediss` | the same |
/// | `memcached://user:password@host:11211,host` | `MemcachedBackend` (feature `memcached`); parameters `max_connections`, `min_connections`, `connection_timeout`, `operation_timeout`, `prefix`, `distribution` (`weighted_ketama` or `ketama`), `weights` (such as `2,1`) |
/// | `memcached+tls://…` | the same over TLS (feature `tls`); with the paths of PEM files in `tls_roots` (else those of the system), `tls_certificate` and `tls_key`, and `tls_server_name` |
/// | `memcached+unix:///run/memcached.sock` | the same over a unix socket |
///
/// Connects to nothing, but reads the certificates that the URL names. Settings of the cache above the backend (`ttl`, `namespace`, …) belong to
/// [`Cache::from_url`](crate::Cache::from_url).
///
/// ```
/// let backend = cache_kit::backend::from_url("memory://?max_entries=10k")?;
/// assert_eq!(backend.capabilities().name, "memory");
/// # Ok::<(), cache_kit::Error>(())
/// ```
///
/// # Errors
/// [`Config`](crate::ErrorKind::Config), naming the scheme or parameter and what would be right. The URL
/// itself, which may hold a password, is not repeated.
pub fn from_url(url: &str) -> Result<Box<dyn CacheBackend>> {
    let url = ServiceUrl::parse(url)?;
    let mut params = url.params()?;
    let backend = from_parts(&url, &mut params, &Clock::system())?;
    params.finish(&[
        ("ttl", "a setting of the cache, not of the backend: use Cache::from_url"),
        ("namespace", "a setting of the cache, not of the backend: use Cache::from_url"),
        ("codec", "a setting of the cache, not of the backend: use Cache::from_url"),
        ("max_value", "a setting of the cache, not of the backend: use Cache::from_url"),
    ])?;
    Ok(backend)
}

/// The backend that the environment names.
///
/// `CACHE_URL` wins over the rest and is read by [`from_url`]. Without it `CACHE_BACKEND` says which:
///
/// | `CACHE_BACKEND` | reads |
/// |---|---|
/// | unset, `memory` or `inmemory` | nothing more |
/// | `redis` | `REDIS_HOST`, `REDIS_PORT`, `REDIS_USERNAME`, `REDIS_PASSWORD`, `REDIS_DATABASE`, `REDIS_POOL_SIZE` |
/// | `memcached` | `MEMCACHED_SERVERS` (required): servers, separated by commas |
///
/// A variable that is empty counts as unset.
///
/// # Errors
/// [`Config`](crate::ErrorKind::Config), naming the variable.
pub fn from_env() -> Result<Box<dyn CacheBackend>> {
    Environment::read(|name| std::env::var_os(name))?.backend()
}

/// What the environment says, as far as it is asked.
pub(crate) enum Environment {
    /// A URL, and the variable that it comes from.
    Url(String),
    /// Nothing, or memory.
    Memory,
    /// The settings of a server.
    #[cfg(feature = "redis")]
    Redis(super::RedisConfig),
    #[cfg(feature = "memcached")]
    Memcached(super::MemcachedConfig),
}

impl Environment {
    pub(crate) fn read(var: impl Fn(&str) -> Option<OsString>) -> Result<Self> {
        let var = |name: &'static str| match var(name).map(OsString::into_string) {
            None => Ok(None),
            Some(Ok(value)) if value.is_empty() => Ok(None),
            Some(Ok(value)) => Ok(Some(value)),
            Some(Err(_)) => Err(Error::config(format!("{name} is not UTF-8"))),
        };
        if let Some(url) = var("CACHE_URL")? {
            return Ok(Self::Url(url));
        }
        match var("CACHE_BACKEND")?.as_deref() {
            None | Some("memory" | "inmemory") => Ok(Self::Memory),
            #[cfg(feature = "redis")]
            Some("redis") => Ok(Self::Redis(redis_config(var)?)),
            #[cfg(feature = "memcached")]
            Some("memcached") => Ok(Self::Memcached(memcached_config(var)?)),
            Some(other) => {
                Err(Error::config(format!("CACHE_BACKEND names `{other}`, which this build does not have"))
                    .with_hint(KNOWN))
            }
        }
    }

    /// The URL to read further settings from, and the variable that it comes from.
    pub(crate) fn url(&self) -> Option<(&str, &'static str)> {
        match self {
            Self::Url(url) => Some((url, "CACHE_URL")),
            Self::Memory => Some(("memory://", "CACHE_BACKEND")),
            #[cfg(feature = "redis")]
            Self::Redis(_) => None,
            #[cfg(feature = "memcached")]
            Self::Memcached(_) => None,
        }
    }

    pub(crate) fn backend(self) -> Result<Box<dyn CacheBackend>> {
        match self {
            #[cfg(feature = "redis")]
            Self::Redis(config) => {
                Ok(Box::new(super::RedisBackend::new(config).map_err(|e| e.in_variable("REDIS_*"))?))
            }
            #[cfg(feature = "memcached")]
            Self::Memcached(config) => Ok(Box::new(
                super::MemcachedBackend::new(config).map_err(|e| e.in_variable("MEMCACHED_SERVERS"))?,
            )),
            other => match other.url() {
                Some((url, variable)) => from_url(url).map_err(|error| error.in_variable(variable)),
                None => unreachable!("only a server's settings have no URL"),
            },
        }
    }
}

#[cfg(feature = "memcached")]
fn memcached_config(var: impl Fn(&'static str) -> Result<Option<String>>) -> Result<super::MemcachedConfig> {
    let servers = var("MEMCACHED_SERVERS")?.ok_or_else(|| {
        Error::config("MEMCACHED_SERVERS is not set")
            .with_hint("name the servers, as in cache-1:11211,cache-2:11211")
    })?;
    let servers = servers.split(',').map(|server| server.trim().to_owned()).collect();
    Ok(super::MemcachedConfig { servers, ..super::MemcachedConfig::default() })
}

#[cfg(feature = "redis")]
fn redis_config(var: impl Fn(&'static str) -> Result<Option<String>>) -> Result<super::RedisConfig> {
    fn number<N: std::str::FromStr>(name: &'static str, value: Option<String>, default: N) -> Result<N> {
        match value {
            None => Ok(default),
            Some(value) => {
                value.parse().map_err(|_| Error::config(format!("{name} is not a number that fits")))
            }
        }
    }
    let default = super::RedisConfig::default();
    Ok(super::RedisConfig {
        host: var("REDIS_HOST")?.unwrap_or(default.host),
        port: number("REDIS_PORT", var("REDIS_PORT")?, default.port)?,
        username: var("REDIS_USERNAME")?,
        password: var("REDIS_PASSWORD")?,
        database: number("REDIS_DATABASE", var("REDIS_DATABASE")?, default.database)?,
        pool_size: number("REDIS_POOL_SIZE", var("REDIS_POOL_SIZE")?, default.pool_size)?,
        ..default
    })
}

pub(crate) fn from_parts(
    url: &ServiceUrl<'_>,
    params: &mut Params<'_>,
    clock: &Clock,
) -> Result<Box<dyn CacheBackend>> {
    // That of a server is its own.
    let _ = clock;
    match url.scheme {
        #[cfg(feature = "inmemory")]
        "memory" => {
            if !url.hosts.is_empty() || !url.path.is_empty() || url.userinfo.is_some() {
                return Err(Error::config("a memory:// URL has no host, path or user")
                    .with_hint("write memory:// or memory://?max_entries=10k"));
            }
            Ok(Box::new(super::inmemory::InMemoryBuilder::from_params(params)?.clock(clock.clone()).build()?))
        }
        #[cfg(feature = "redis")]
        scheme if super::redis::is_scheme(scheme) => {
            Ok(Box::new(super::redis::RedisBuilder::from_url(url, params)?.build()?))
        }
        #[cfg(feature = "memcached")]
        scheme if super::memcached::is_scheme(scheme) => {
            Ok(Box::new(super::memcached::MemcachedBuilder::from_url(url, params)?.build()?))
        }
        scheme => {
            let _ = params;
            Err(Error::config(format!("this build has no backend for the scheme `{scheme}`"))
                .with_hint(KNOWN))
        }
    }
}

/// One line for each set of features would be too many: what is here, and what else there could be.
const KNOWN: &str = match (cfg!(feature = "inmemory"), cfg!(feature = "redis"), cfg!(feature = "memcached")) {
    (true, true, true) => "known here: memory, redis, memcached",
    (true, true, false) => "known here: memory, redis; memcached with the feature `memcached`",
    (true, false, true) => "known here: memory, memcached; redis with the feature `redis`",
    (true, false, false) => "known here: memory; others with the features `redis` and `memcached`",
    (false, true, true) => "known here: redis, memcached; memory with the feature `inmemory`",
    (false, true, false) => "known here: redis; others with the features `inmemory` and `memcached`",
    (false, false, true) => "known here: memcached; others with the features `inmemory` and `redis`",
    (false, false, false) => "no backend is compiled in: enable `inmemory`, `redis` or `memcached`",
};

#[cfg(all(test, feature = "inmemory"))]
mod tests {
    use super::*;

    fn read(vars: &[(&str, &str)]) -> Result<Environment> {
        Environment::read(|name| {
            vars.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).into())
        })
    }

    fn url_for(vars: &[(&str, &str)]) -> String {
        read(vars).ok().and_then(|read| read.url().map(|(url, _)| url.to_owned())).unwrap_or_default()
    }

    #[test]
    fn nothing_set_means_memory_and_cache_url_wins() {
        assert_eq!(url_for(&[]), "memory://");
        assert_eq!(url_for(&[("CACHE_BACKEND", "inmemory")]), "memory://");
        assert_eq!(
            url_for(&[("CACHE_BACKEND", "nonsense"), ("CACHE_URL", "memory://?max_entries=5")]),
            "memory://?max_entries=5"
        );
    }

    #[test]
    fn an_unknown_backend_is_refused_by_the_name_of_the_variable() {
        let Err(error) = read(&[("CACHE_BACKEND", "rocksdb")]) else { panic!("taken") };
        let error = error.to_string();
        assert!(error.contains("CACHE_BACKEND") && error.contains("rocksdb"), "{error}");
    }

    #[cfg(feature = "redis")]
    #[test]
    fn redis_is_read_from_its_variables_and_a_bad_one_is_named() {
        let all = [
            ("CACHE_BACKEND", "redis"),
            ("REDIS_HOST", "cache.example"),
            ("REDIS_PORT", "7000"),
            ("REDIS_USERNAME", "me"),
            ("REDIS_PASSWORD", "p@ss%"),
            ("REDIS_DATABASE", "3"),
            ("REDIS_POOL_SIZE", "4"),
        ];
        let Ok(Environment::Redis(config)) = read(&all) else { panic!("not redis") };
        assert_eq!(
            (config.host.as_str(), config.port, config.database, config.pool_size),
            ("cache.example", 7000, 3, 4)
        );
        assert_eq!((config.username.as_deref(), config.password.as_deref()), (Some("me"), Some("p@ss%")));
        let Ok(Environment::Redis(config)) = read(&[("CACHE_BACKEND", "redis")]) else { panic!("not redis") };
        assert_eq!(config, crate::backend::RedisConfig::default());
        for (name, value) in [("REDIS_PORT", "70000"), ("REDIS_DATABASE", "-1"), ("REDIS_POOL_SIZE", "many")]
        {
            let Err(error) = read(&[("CACHE_BACKEND", "redis"), (name, value)]) else {
                panic!("{name} was taken")
            };
            assert!(error.to_string().contains(name), "{error}");
        }
        assert!(read(&[("CACHE_BACKEND", "redis"), ("REDIS_POOL_SIZE", "0")]).unwrap().backend().is_err());
    }

    #[test]
    fn a_bad_url_is_refused_by_what_is_wrong_with_it() {
        for (url, names) in [
            ("mem", "scheme"),
            ("postgres://h", "`postgres`"),
            ("memory://host", "no host"),
            ("memory://?max_entries=0", "max_entries"),
            ("memory://?max_bytes=12", "max_bytes"),
            ("memory://?sweep_every=0s", "sweep_every"),
            ("memory://?ttl=5m", "Cache::from_url"),
            ("memory://?size=5", "`size`"),
        ] {
            let Err(error) = from_url(url) else { panic!("{url} was accepted") };
            assert!(error.to_string().contains(names), "{url}: {error}");
        }
    }
}
