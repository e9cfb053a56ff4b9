//! The backend that a URL or the environment names.

use super::CacheBackend;
use crate::config::{Params, ServiceUrl};
use crate::error::{Error, Result};

/// The backend that a URL names.
///
/// | URL | backend |
/// |---|---|
/// | `memory://` | [`InMemoryBackend`](super::InMemoryBackend); parameters `max_entries`, `max_bytes`, `sweep_every` |
///
/// Does no I/O. Settings of the cache above the backend (`ttl`, `namespace`, …) belong to
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
    let backend = from_parts(&url, &mut params)?;
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
/// `memory` (also `inmemory`), which is what nothing set means as well.
///
/// # Errors
/// [`Config`](crate::ErrorKind::Config), naming the variable.
pub fn from_env() -> Result<Box<dyn CacheBackend>> {
    let (url, variable) = env_url(|name| std::env::var_os(name))?;
    from_url(&url).map_err(|error| error.in_variable(variable))
}

/// The URL that the environment amounts to, and the variable that says so.
pub(crate) fn env_url(var: impl Fn(&str) -> Option<std::ffi::OsString>) -> Result<(String, &'static str)> {
    let var = |name: &'static str| match var(name).map(std::ffi::OsString::into_string) {
        None => Ok(None),
        Some(Ok(value)) if value.is_empty() => Ok(None),
        Some(Ok(value)) => Ok(Some(value)),
        Some(Err(_)) => Err(Error::config(format!("{name} is not UTF-8"))),
    };
    if let Some(url) = var("CACHE_URL")? {
        return Ok((url, "CACHE_URL"));
    }
    match var("CACHE_BACKEND")?.as_deref() {
        None | Some("memory" | "inmemory") => Ok(("memory://".to_owned(), "CACHE_BACKEND")),
        Some(other) => {
            Err(Error::config(format!("CACHE_BACKEND names `{other}`, which this build does not have"))
                .with_hint(KNOWN))
        }
    }
}

pub(crate) fn from_parts(url: &ServiceUrl<'_>, params: &mut Params<'_>) -> Result<Box<dyn CacheBackend>> {
    match url.scheme {
        #[cfg(feature = "inmemory")]
        "memory" => {
            if !url.hosts.is_empty() || !url.path.is_empty() || url.userinfo.is_some() {
                return Err(Error::config("a memory:// URL has no host, path or user")
                    .with_hint("write memory:// or memory://?max_entries=10k"));
            }
            Ok(Box::new(super::inmemory::InMemoryBuilder::from_params(params)?.build()?))
        }
        #[cfg(feature = "redis")]
        "redis" => Ok(Box::new(super::redis::RedisBuilder::from_url(url, params)?.build()?)),
        scheme => {
            let _ = params;
            Err(Error::config(format!("this build has no backend for the scheme `{scheme}`"))
                .with_hint(KNOWN))
        }
    }
}

#[cfg(feature = "inmemory")]
const KNOWN: &str = "known here: memory";
#[cfg(not(feature = "inmemory"))]
const KNOWN: &str = "no backend is compiled in: enable the feature `inmemory`";

#[cfg(all(test, feature = "inmemory"))]
mod tests {
    use super::*;

    fn url_for(vars: &[(&str, &str)]) -> Result<String> {
        let url =
            env_url(|name| vars.iter().find(|(other, _)| *other == name).map(|(_, value)| (*value).into()));
        url.map(|(url, _)| url)
    }

    #[test]
    fn nothing_set_means_memory_and_cache_url_wins() {
        assert_eq!(url_for(&[]).unwrap(), "memory://");
        assert_eq!(url_for(&[("CACHE_BACKEND", "inmemory")]).unwrap(), "memory://");
        assert_eq!(
            url_for(&[("CACHE_BACKEND", "nonsense"), ("CACHE_URL", "memory://?max_entries=5")]).unwrap(),
            "memory://?max_entries=5"
        );
    }

    #[test]
    fn an_unknown_backend_is_refused_by_the_name_of_the_variable() {
        let error = url_for(&[("CACHE_BACKEND", "rocksdb")]).unwrap_err().to_string();
        assert!(error.contains("CACHE_BACKEND") && error.contains("rocksdb"), "{error}");
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
