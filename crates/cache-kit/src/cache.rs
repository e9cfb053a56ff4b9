//! The front door: values under keys, loaded by closures.

mod batch;
mod builder;
mod entry;
mod invalidation;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

pub use builder::CacheBuilder;

use crate::backend::CacheBackend;
use crate::engine::{Answer, Engine, Gauges, OnceLoad, Request, Terms, Usable};
use crate::entity::CacheValue;
use crate::entry::Schema;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::observe::Stats;
use crate::outcome::Outcome;
use crate::policy::{InlineOptions, LoadOptions};
use crate::tags::Tags;
use crate::{CacheExpander, CacheService, CacheStrategy, policy};

type BoxError = Box<dyn std::error::Error + Send + Sync>;

/// A cache over any backend, read with closures. Cheap to clone; all clones are one cache.
///
/// ```
/// use cache_kit::Cache;
///
/// # async fn slow_square(n: u64) -> std::io::Result<u64> { Ok(n * n) }
/// # async fn run() -> cache_kit::Result<()> {
/// let cache = Cache::from_url("memory://")?;
/// let square = cache.get_or_load("square:12", || slow_square(12)).await?;
/// assert_eq!(square, 144);
/// # Ok(()) }
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run()).unwrap();
/// ```
///
/// A load is started once per key, however many ask; an [`invalidate`](Self::invalidate) always beats a load
/// that is under way. A value is stored for a type: reading a key as another type is a miss.
#[derive(Clone)]
pub struct Cache {
    engine: Arc<Engine<Box<dyn CacheBackend>>>,
}

impl Cache {
    /// A cache with default settings: entries live five minutes, in postcard, without a namespace.
    #[must_use]
    pub fn new(backend: impl CacheBackend) -> Self {
        CacheBuilder::default().over(Box::new(backend))
    }

    /// A cache over the backend that a URL names, with settings as parameters: `ttl=5m` (or `ttl=none`),
    /// `namespace=shop`, `codec=postcard`, `max_value=1mb`; the others are the backend's
    /// ([`backend::from_url`](crate::backend::from_url)).
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config), naming what is wrong. Connects to nothing, but reads the certificates that
    /// the URL names.
    pub fn from_url(url: &str) -> Result<Self> {
        Self::builder().build_url(url)
    }

    /// A cache over the backend that the environment names: `CACHE_URL`, which may carry the settings of
    /// [`from_url`](Self::from_url), or else what [`backend::from_env`](crate::backend::from_env) reads. Nothing set means memory.
    ///
    /// # Errors
    /// [`Config`](ErrorKind::Config), naming the variable or parameter. Connects to nothing.
    pub fn from_env() -> Result<Self> {
        Self::builder().build_env()
    }

    /// Sets what is not to be as [`new`](Self::new) has it.
    pub fn builder() -> CacheBuilder {
        CacheBuilder::default()
    }

    /// The value under `key`: the cached one, or else what `loader` returns, which is stored.
    ///
    /// The load is detached from the caller: it runs to its end in a task of its own even if the caller goes
    /// away, and everyone who asks for the key meanwhile waits for it. A failed load is an error for all who
    /// waited, once; it is not cached.
    ///
    /// Without a tokio runtime the load runs in the caller's task. **Cancel-safe.**
    ///
    /// # Errors
    /// What the loader failed with is the source of an error of kind [`Source`](ErrorKind::Source)
    /// ([`Error::find_source`]). A backend that fails is no error: the loader answers.
    pub async fn get_or_load<T, E, F, Fut>(&self, key: impl AsRef<str>, loader: F) -> Result<T>
    where
        T: CacheValue,
        E: Into<BoxError>,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
    {
        let request = self.owned_request::<T>(key.as_ref(), &LoadOptions::PLAIN)?;
        value_of(self.engine.read_owned(&request, OnceLoad::new(loader)).await?)
    }

    /// [`get_or_load`](Self::get_or_load) with options for this call.
    ///
    /// # Errors
    /// As `get_or_load`; also [`InvalidInput`](ErrorKind::InvalidInput) for options that make no sense.
    pub async fn get_or_load_with<T, E, F, Fut>(
        &self,
        key: impl AsRef<str>,
        options: LoadOptions<'_>,
        loader: F,
    ) -> Result<T>
    where
        T: CacheValue,
        E: Into<BoxError>,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
    {
        let request = self.owned_request::<T>(key.as_ref(), &options)?;
        value_of(self.engine.read_owned(&request, OnceLoad::new(loader)).await?)
    }

    /// [`get_or_load_with`](Self::get_or_load_with), telling also where the value came from, how old it is,
    /// and what went wrong on the way.
    ///
    /// # Errors
    /// As `get_or_load_with`.
    pub async fn get_or_load_outcome<T, E, F, Fut>(
        &self,
        key: impl AsRef<str>,
        options: LoadOptions<'_>,
        loader: F,
    ) -> Result<Outcome<T>>
    where
        T: CacheValue,
        E: Into<BoxError>,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<T, E>> + Send + 'static,
    {
        let request = self.owned_request::<T>(key.as_ref(), &options)?;
        let answer = self.engine.read_owned(&request, OnceLoad::new(loader)).await?;
        outcome_of(self.engine.outcome(answer))
    }

    /// As [`get_or_load`](Self::get_or_load), with a loader that may borrow: it runs in the caller's task, and
    /// if the caller goes away, one of those who wait runs its own loader instead.
    ///
    /// **Cancel-safe.**
    ///
    /// # Errors
    /// As `get_or_load`.
    pub async fn get_or_load_inline<T, E, F, Fut>(&self, key: impl AsRef<str>, loader: F) -> Result<T>
    where
        T: CacheValue,
        E: Into<BoxError>,
        F: FnOnce() -> Fut + Send,
        Fut: Future<Output = Result<T, E>> + Send,
    {
        let request = self.inline_request::<T>(key.as_ref(), &InlineOptions::PLAIN)?;
        value_of(self.engine.read_inline(&request, &mut OnceLoad::new(loader)).await?)
    }

    /// [`get_or_load_inline`](Self::get_or_load_inline) with options for this call.
    ///
    /// # Errors
    /// As `get_or_load_with`.
    pub async fn get_or_load_inline_with<T, E, F, Fut>(
        &self,
        key: impl AsRef<str>,
        options: InlineOptions<'_>,
        loader: F,
    ) -> Result<T>
    where
        T: CacheValue,
        E: Into<BoxError>,
        F: FnOnce() -> Fut + Send,
        Fut: Future<Output = Result<T, E>> + Send,
    {
        let request = self.inline_request::<T>(key.as_ref(), &options)?;
        value_of(self.engine.read_inline(&request, &mut OnceLoad::new(loader)).await?)
    }

    /// [`get_or_load_inline_with`](Self::get_or_load_inline_with), telling also how it went.
    ///
    /// # Errors
    /// As `get_or_load_with`.
    pub async fn get_or_load_inline_outcome<T, E, F, Fut>(
        &self,
        key: impl AsRef<str>,
        options: InlineOptions<'_>,
        loader: F,
    ) -> Result<Outcome<T>>
    where
        T: CacheValue,
        E: Into<BoxError>,
        F: FnOnce() -> Fut + Send,
        Fut: Future<Output = Result<T, E>> + Send,
    {
        let request = self.inline_request::<T>(key.as_ref(), &options)?;
        let answer = self.engine.read_inline(&request, &mut OnceLoad::new(loader)).await?;
        outcome_of(self.engine.outcome(answer))
    }

    /// The cached value, or `None`.
    ///
    /// # Errors
    /// When the backend cannot tell: that is not a miss.
    pub async fn get<T: CacheValue>(&self, key: impl AsRef<str>) -> Result<Option<T>> {
        let request = self.request::<T>(key.as_ref(), None, CacheStrategy::Fresh, Terms::Cache)?;
        Ok(self.engine.read_cached(&request, Usable::any()).await?.value)
    }

    /// [`get`](Self::get), telling also how old the value is.
    ///
    /// # Errors
    /// As `get`.
    pub async fn get_outcome<T: CacheValue>(&self, key: impl AsRef<str>) -> Result<Outcome<Option<T>>> {
        let request = self.request::<T>(key.as_ref(), None, CacheStrategy::Fresh, Terms::Cache)?;
        Ok(self.engine.outcome(self.engine.read_cached(&request, Usable::any()).await?))
    }

    /// Stores a value, whatever is there. A load of this key that is under way stores nothing.
    ///
    /// # Errors
    /// When the value cannot be encoded or is too large, which leaves what was there; or when it may not have
    /// been stored.
    pub async fn set<T: CacheValue>(&self, key: impl AsRef<str>, value: &T) -> Result<()> {
        self.set_with(key, LoadOptions::default(), value).await
    }

    /// [`set`](Self::set) with options for this call: those apply that say how an entry is kept, which are its life, its tags,
    /// and what the policy says about both.
    ///
    /// # Errors
    /// As `set`.
    pub async fn set_with<T: CacheValue>(
        &self,
        key: impl AsRef<str>,
        options: LoadOptions<'_>,
        value: &T,
    ) -> Result<()> {
        let request = self.owned_request::<T>(key.as_ref(), &options)?;
        self.engine.write(&request, value).await
    }

    /// The door of entities to this cache: the same entries, loads, tags, statistics, queue of invalidations and end, so that a
    /// service that needs both doors has one cache. It copies the
    /// settings and allocates once: keep it where it is needed often.
    ///
    /// ```
    /// use cache_kit::{Cache, InMemoryRepository};
    /// # use cache_kit::CacheEntity;
    /// # #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
    /// # struct User { id: u64, name: String }
    /// # impl CacheEntity for User {
    /// #     type Key = u64;
    /// #     fn cache_key(&self) -> u64 { self.id }
    /// #     fn cache_prefix() -> &'static str { "user" }
    /// # }
    /// # async fn run() -> cache_kit::Result<()> {
    /// # let mut users = InMemoryRepository::new();
    /// # users.insert(7, User { id: 7, name: "Ada".into() });
    /// let cache = Cache::from_env()?;
    /// let ada: Option<User> = cache.entities().get(&7, &users).await?;
    /// cache.invalidate("user:7").await?;
    /// # assert_eq!(ada.unwrap().name, "Ada");
    /// # Ok(()) }
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run()).unwrap();
    /// ```
    #[must_use]
    pub fn entities(&self) -> CacheService {
        CacheService::from_expander(CacheExpander::over(Engine::clone(&self.engine)))
    }

    /// What this cache is busy with.
    #[must_use]
    pub fn gauges(&self) -> Gauges {
        self.engine.gauges()
    }

    /// What this cache has done so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.engine.stats()
    }

    /// The backend below.
    #[must_use]
    pub fn backend(&self) -> &dyn CacheBackend {
        &**self.engine.backend()
    }

    /// How many loads are under way that others would join.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn loads_under_way(&self) -> usize {
        self.engine.loads_under_way()
    }

    /// How many reads wait for a load, be it one that others would join or not.
    #[cfg(feature = "testing")]
    #[must_use]
    pub fn readers_waiting(&self) -> usize {
        self.engine.readers_waiting()
    }

    fn key<'a>(&self, key: &'a str) -> Result<Key<'a>> {
        Key::from_text(self.engine.settings.namespace.as_deref(), key)
    }

    fn owned_request<'a, T>(&self, key: &'a str, options: &LoadOptions<'_>) -> Result<Request<'a>> {
        let terms = options.over(self.engine.settings.policy())?;
        let request = self.request::<T>(key, options.life(), options.strategy, terms)?;
        Ok(Request { tags: options.tags()?, ..request })
    }

    fn inline_request<'a, T>(&self, key: &'a str, options: &InlineOptions<'_>) -> Result<Request<'a>> {
        let terms = options.over(self.engine.settings.policy())?;
        let request = self.request::<T>(key, options.life(), options.strategy, terms)?;
        Ok(Request { tags: options.tags()?, ..request })
    }

    fn request<'a, T>(
        &self,
        key: &'a str,
        ttl: Option<Option<Duration>>,
        strategy: CacheStrategy,
        terms: Terms,
    ) -> Result<Request<'a>> {
        policy::check_call_ttl(ttl)?;
        Ok(Request {
            key: self.key(key)?,
            schema: Schema::of::<T>(self.engine.settings.schema_version, 0),
            codec: None,
            prefix: "",
            ttl,
            strategy,
            terms,
            tags: Tags::default(),
            may_choose_tags: false,
        })
    }
}

/// What a loader that cannot say "no such value" has loaded. Only the strategy `Fresh` finds nothing.
fn value_of<T>(answer: Answer<T>) -> Result<T> {
    answer.value.ok_or_else(nothing_cached)
}

fn outcome_of<T>(outcome: Outcome<Option<T>>) -> Result<Outcome<T>> {
    if outcome.value.is_none() {
        return Err(nothing_cached());
    }
    Ok(outcome.map(|value| match value {
        Some(value) => value,
        None => unreachable!("looked at just before"),
    }))
}

fn nothing_cached() -> Error {
    Error::new(ErrorKind::InvalidInput, "the strategy Fresh found nothing cached, and may not load")
        .with_hint("use Cache::get, whose answer can be None, or another strategy")
}

impl fmt::Debug for Cache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Cache")
            .field("backend", &self.backend().capabilities().name)
            .field("namespace", &self.engine.settings.namespace)
            .finish_non_exhaustive()
    }
}
