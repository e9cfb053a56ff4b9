//! The settings of a cache.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use super::Cache;
use crate::backend::{self, CacheBackend};
use crate::clock::Clock;
use crate::config::{Params, ServiceUrl, text};
use crate::engine::{Engine, Settings, SourceFailure};
use crate::entry::Codec;
use crate::error::{Error, Result};
use crate::key::check_namespace;
use crate::observe::{CacheMetrics, Observer};
use crate::policy::{Limits, Policy, TtlPolicy};

/// Settings of a [`Cache`].
///
/// ```
/// use cache_kit::{Cache, backend::InMemoryBackend};
/// use std::time::Duration;
///
/// let cache = Cache::builder()
///     .namespace("shop")
///     .ttl(Duration::from_secs(60))
///     .build(InMemoryBackend::new())?;
/// # Ok::<(), cache_kit::Error>(())
/// ```
#[must_use]
#[derive(Default)]
pub struct CacheBuilder {
    settings: Settings,
    metrics: Option<Box<dyn CacheMetrics>>,
}

impl CacheBuilder {
    /// Puts all keys under `namespace/`, so that caches can share a server and [`Cache::clear`] clears just this
    /// one. 1 to 64 letters, digits, `.`, `_` or `-`. Default: none.
    pub fn namespace(mut self, namespace: impl Into<Arc<str>>) -> Self {
        self.settings.namespace = Some(namespace.into());
        self
    }

    /// How long entries live, whatever [`Policy::ttl`] says. Default: as that says, five minutes. Zero is an error.
    pub fn ttl(mut self, ttl: Duration) -> Self {
        self.settings.set_ttl(TtlPolicy::Fixed(ttl));
        self
    }

    /// How long entries live, by policy. Default: [`TtlPolicy::Default`], as [`Policy::ttl`] says.
    pub fn ttl_policy(mut self, policy: TtlPolicy) -> Self {
        self.settings.set_ttl(policy);
        self
    }

    /// The format that values are stored in. Default: [`Codec::Postcard`]. Entries in other formats stay
    /// readable.
    pub fn codec(mut self, codec: Codec) -> Self {
        self.settings.codec = codec;
        self
    }

    /// The version of the stored types: raise it when the fields of a cached type change, and the entries of
    /// other versions are misses. Default: 0. Entities have their own,
    /// [`cache_version`](crate::CacheEntity::cache_version).
    pub fn schema_version(mut self, version: u32) -> Self {
        self.settings.schema_version = version;
        self
    }

    /// The largest entry in bytes, 80 or more of them its header; larger values are returned but not stored, and larger
    /// entries are misses. Default: 8 MiB, or less where the backend takes less. Less than 128 is an error.
    pub fn max_value_bytes(mut self, bytes: usize) -> Self {
        self.settings.max_value_bytes = bytes;
        self
    }

    /// Whether each value is decoded again and compared before it is stored, which finds types that the codec
    /// silently misreads. Default: in debug builds.
    pub fn verify_roundtrip(mut self, verify: bool) -> Self {
        self.settings.verify_roundtrip = verify;
        self
    }

    /// How long entries live, how old answers may be, and how long they may take. Of the life, [`ttl`](Self::ttl) and
    /// [`ttl_policy`](Self::ttl_policy) have the last word, whichever is called first. Default: five minutes, nothing stale
    /// is served, and loads end after 30 s. What contradicts itself is an error.
    pub fn policy(mut self, policy: Policy) -> Self {
        self.settings.set_policy(policy);
        self
    }

    /// How many loads, waiting reads and unconfirmed invalidations there may be. Zero is an error.
    pub fn limits(mut self, limits: Limits) -> Self {
        self.settings.limits = limits;
        self
    }

    /// What an error of a loader says about the value, which decides whether a stale one is served instead. It is handed
    /// errors of kind [`Source`](crate::ErrorKind::Source), and finds the loader's own with
    /// [`Error::find_source`]. Default: all of these may pass, but for those that say otherwise
    /// ([`Error::with_transient`]).
    pub fn classify_errors(mut self, classify: fn(&Error) -> SourceFailure) -> Self {
        self.settings.classify = Some(classify);
        self
    }

    /// Is told what the cache does. Default: nobody; [`Cache::stats`] counts anyway.
    pub fn metrics(mut self, metrics: impl CacheMetrics) -> Self {
        self.metrics = Some(Box::new(metrics));
        self
    }

    /// Takes time from this clock. Default: the system's. A backend has a clock of its own: [`build_url`](Self::build_url)
    /// gives it to one in memory, and [`InMemoryBackend::builder`](crate::backend::InMemoryBackend::builder) takes it.
    pub fn clock(mut self, clock: Clock) -> Self {
        self.settings.clock = clock;
        self
    }

    /// The cache.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config), naming the setting that makes no sense. Does no I/O.
    pub fn build(self, backend: impl CacheBackend) -> Result<Cache> {
        self.build_boxed(Box::new(backend))
    }

    /// The cache over the backend that a URL names; what the URL sets wins over what was set here. See
    /// [`Cache::from_url`].
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config), naming the setting or parameter. Connects to nothing.
    ///
    /// ```
    /// let cache = cache_kit::Cache::builder().namespace("shop").build_url("memory://?ttl=10m")?;
    /// # Ok::<(), cache_kit::Error>(())
    /// ```
    pub fn build_url(self, url: &str) -> Result<Cache> {
        let url = ServiceUrl::parse(url)?;
        let mut params = url.params()?;
        let builder = self.with_params(&mut params)?;
        let backend = backend::from_parts(&url, &mut params, &builder.settings.clock)?;
        params.finish(&[])?;
        builder.build_boxed(backend)
    }

    /// The cache over the backend that the environment names, as [`Cache::from_env`] has it; the settings that a `CACHE_URL`
    /// carries win over those made here.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config), naming the variable or parameter. Connects to nothing.
    ///
    /// ```
    /// let cache = cache_kit::Cache::builder().namespace("shop").build_env()?;
    /// # Ok::<(), cache_kit::Error>(())
    /// ```
    pub fn build_env(self) -> Result<Cache> {
        let environment = backend::Environment::read(|name| std::env::var_os(name))?;
        match environment.url() {
            Some((url, variable)) => self.build_url(url).map_err(|error| error.in_variable(variable)),
            None => self.build_boxed(environment.backend()?),
        }
    }

    pub(super) fn build_boxed(self, backend: Box<dyn CacheBackend>) -> Result<Cache> {
        if let Some(namespace) = &self.settings.namespace {
            check_namespace(namespace)?;
        }
        if matches!(self.settings.ttl(), TtlPolicy::Fixed(Duration::ZERO)) {
            return Err(Error::config("ttl is zero")
                .with_hint("set a longer one, or TtlPolicy::Infinite (`ttl=none`) for entries without end"));
        }
        if self.settings.max_value_bytes < 128 {
            return Err(Error::config("max_value_bytes (max_value in a URL) is less than 128")
                .with_hint("8 MiB is the default"));
        }
        self.settings.policy().check()?;
        self.settings.limits.check()?;
        Ok(self.over(backend))
    }

    pub(super) fn over(self, backend: Box<dyn CacheBackend>) -> Cache {
        let mut engine = Engine::new(backend, self.settings);
        if let Some(metrics) = self.metrics {
            engine.observer = Observer::new(metrics);
        }
        Cache { engine: Arc::new(engine) }
    }

    /// Takes the settings that the parameters of a URL name.
    fn with_params(mut self, params: &mut Params<'_>) -> Result<Self> {
        let ttl =
            params.take(
                "ttl",
                "a ttl looks like 250ms, 5m or 1h 30m, or is `none`",
                |value| match value {
                    "none" => Some(TtlPolicy::Infinite),
                    value => text::duration(value).map(TtlPolicy::Fixed),
                },
            )?;
        if let Some(ttl) = ttl {
            self.settings.set_ttl(ttl);
        }
        if let Some(namespace) = params.take("namespace", "", |value| Some(value.into()))? {
            self.settings.namespace = Some(namespace);
        }
        if let Some(codec) = params.take("codec", CODECS, Codec::from_name)? {
            self.settings.codec = codec;
        }
        let max = params
            .take("max_value", text::SIZE, |value| text::size(value).and_then(|size| size.try_into().ok()))?;
        if let Some(max) = max {
            self.settings.max_value_bytes = max;
        }
        Ok(self)
    }
}

const CODECS: &str = "codecs are postcard, and msgpack and json with the features of these names";

impl fmt::Debug for CacheBuilder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheBuilder")
            .field("namespace", &self.settings.namespace)
            .field("ttl", self.settings.ttl())
            .field("codec", &self.settings.codec)
            .finish_non_exhaustive()
    }
}
