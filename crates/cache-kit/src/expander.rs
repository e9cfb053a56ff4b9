//! The entity door: feeders, repositories, strategies.

mod batch;
mod invalidation;
mod request;
mod source;

use std::fmt;
use std::sync::Arc;

use self::source::{FromRepository, FromShared};
use crate::backend::CacheBackend;
use crate::engine::{Answer, Engine, Gauges, Settings, SourceFailure};
use crate::entity::CacheEntity;
use crate::error::{Error, Result};
use crate::feed::CacheFeed;
use crate::observe::{CacheMetrics, Observer, Stats};
use crate::outcome::{Outcome, Source};
use crate::policy::{Limits, OperationConfig, Policy, TtlPolicy};
use crate::repository::DataRepository;
use crate::strategy::CacheStrategy;

/// Reads entities through a backend.
///
/// Takes any backend by value, `Box<dyn CacheBackend>` and `Arc<dyn CacheBackend>` included.
///
/// ```
/// use cache_kit::backend::InMemoryBackend;
/// use cache_kit::{CacheEntity, CacheExpander, CacheStrategy, GenericFeeder, InMemoryRepository};
/// # #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
/// # struct User { id: u64, name: String }
/// # impl CacheEntity for User {
/// #     type Key = u64;
/// #     fn cache_key(&self) -> u64 { self.id }
/// #     fn cache_prefix() -> &'static str { "user" }
/// # }
/// # async fn run() -> cache_kit::Result<()> {
/// let mut users = InMemoryRepository::new();
/// users.insert(7, User { id: 7, name: "Ada".into() });
/// let expander = CacheExpander::new(InMemoryBackend::new());
///
/// let mut feeder = GenericFeeder::<User>::new(7);
/// expander.with(&mut feeder, &users, CacheStrategy::Refresh).await?;
/// assert_eq!(feeder.data.unwrap().name, "Ada");
///
/// // The same without a feeder.
/// assert_eq!(expander.get(&7, &users).await?.unwrap().name, "Ada");
/// # Ok(()) }
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run()).unwrap();
/// ```
pub struct CacheExpander<B = Box<dyn CacheBackend>> {
    engine: Engine<B>,
}

impl<B: CacheBackend> CacheExpander<B> {
    /// Default settings: entries live five minutes, in postcard, under `prefix:id`.
    #[must_use]
    pub fn new(backend: B) -> Self {
        Self { engine: Engine::new(backend, Settings::default()) }
    }

    /// Another door to a cache that is there.
    pub(crate) fn over(engine: Engine<B>) -> Self {
        Self { engine }
    }

    /// Is told what the cache does.
    #[must_use]
    pub fn with_metrics(mut self, metrics: Box<dyn CacheMetrics>) -> Self {
        self.engine.observer = Observer::new(metrics);
        self
    }

    /// How long entries live, whatever [`Policy::ttl`] says. Default: [`TtlPolicy::Default`], as that says.
    #[must_use]
    pub fn with_ttl_policy(mut self, policy: TtlPolicy) -> Self {
        self.engine.settings.set_ttl(policy);
        self
    }

    /// Puts all keys under `namespace/`.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) unless it is 1 to 64 letters, digits, `.`, `_` or `-`.
    pub fn with_namespace(mut self, namespace: impl Into<Arc<str>>) -> Result<Self> {
        let namespace = namespace.into();
        crate::key::check_namespace(&namespace)?;
        self.engine.settings.namespace = Some(namespace);
        Ok(self)
    }

    /// The format that values are stored in. Default: [`Codec::Postcard`](crate::Codec::Postcard).
    #[must_use]
    pub fn with_codec(mut self, codec: crate::Codec) -> Self {
        self.engine.settings.codec = codec;
        self
    }

    /// Takes time from this clock. Default: the system's.
    #[must_use]
    pub fn with_clock(mut self, clock: crate::Clock) -> Self {
        self.engine.settings.clock = clock;
        self
    }

    /// How long entries live, how old answers may be, and how long they may take. Of the life,
    /// [`with_ttl_policy`](Self::with_ttl_policy) has the last word, whichever is called first. Entities can say what is
    /// different for them ([`CacheEntity::cache_policy`]) and opt out of stale answers ([`CacheEntity::may_be_stale`]).
    /// Default: five minutes, nothing stale is served, and loads end after 30 s.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) for what contradicts itself.
    pub fn with_policy(mut self, policy: Policy) -> Result<Self> {
        self.engine.settings.set_policy(policy);
        self.engine.settings.policy().check()?;
        Ok(self)
    }

    /// How many loads, waiting reads and unconfirmed invalidations there may be.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config) for a limit of zero, or if the expander is in use already.
    pub fn with_limits(mut self, limits: Limits) -> Result<Self> {
        self.engine.set_limits(limits)?;
        Ok(self)
    }

    /// What an error of a repository says about the entity; see
    /// [`CacheBuilder::classify_errors`](crate::CacheBuilder::classify_errors).
    #[must_use]
    pub fn with_classify_errors(mut self, classify: fn(&Error) -> SourceFailure) -> Self {
        self.engine.settings.classify = Some(classify);
        self
    }

    /// Whether each value is decoded again and compared before it is stored. Default: in debug builds.
    #[must_use]
    pub fn with_verify_roundtrip(mut self, verify: bool) -> Self {
        self.engine.settings.verify_roundtrip = verify;
        self
    }

    /// Reads the entity that the feeder asks for, and feeds it.
    ///
    /// The repository runs in the caller's task. **Cancel-safe**: if the caller goes away during a load, one of
    /// those who wait for the same entity asks its own repository.
    ///
    /// # Errors
    /// What the feeder's hooks, the entity's `validate`, or the source say; with
    /// [`CacheStrategy::Fresh`] also a backend that fails.
    pub async fn with<T, F, R>(&self, feeder: &mut F, repository: &R, strategy: CacheStrategy) -> Result<()>
    where
        T: CacheEntity,
        F: CacheFeed<T>,
        R: DataRepository<T>,
    {
        self.feed(feeder, repository, strategy, &OperationConfig::PLAIN).await.map(|_| ())
    }

    /// [`with`](Self::with) with options for this call.
    ///
    /// # Errors
    /// As `with`; also [`InvalidInput`](crate::ErrorKind::InvalidInput) for a lifetime of zero.
    pub async fn with_config<T, F, R>(
        &self,
        feeder: &mut F,
        repository: &R,
        strategy: CacheStrategy,
        config: OperationConfig<'_>,
    ) -> Result<()>
    where
        T: CacheEntity,
        F: CacheFeed<T>,
        R: DataRepository<T>,
    {
        self.feed(feeder, repository, strategy, &config).await.map(|_| ())
    }

    /// [`with_config`](Self::with_config), telling also where the entity came from, how old it is, and what
    /// went wrong on the way. The entity itself went to the feeder.
    ///
    /// # Errors
    /// As `with_config`.
    pub async fn with_outcome<T, F, R>(
        &self,
        feeder: &mut F,
        repository: &R,
        strategy: CacheStrategy,
        config: OperationConfig<'_>,
    ) -> Result<Outcome<()>>
    where
        T: CacheEntity,
        F: CacheFeed<T>,
        R: DataRepository<T>,
    {
        let answer = self.feed(feeder, repository, strategy, &config).await?;
        Ok(self.engine.outcome(answer).map(|_| ()))
    }

    /// Reads and feeds; what is left is the answer without its value.
    async fn feed<T, F, R>(
        &self,
        feeder: &mut F,
        repository: &R,
        strategy: CacheStrategy,
        config: &OperationConfig<'_>,
    ) -> Result<Answer<T>>
    where
        T: CacheEntity,
        F: CacheFeed<T>,
        R: DataRepository<T>,
    {
        feeder.validate()?;
        let id = feeder.entity_id();
        let request = self.request::<T>(&id, config, strategy)?;
        let mut source = FromRepository { repository, id: &id, retries: config.retries };
        let mut answer = self.engine.read_inline(&request, &mut source).await?;
        let key = request.key.as_str();
        match answer.source {
            Source::Cache => feeder.on_hit(key)?,
            _ if strategy == CacheStrategy::Bypass => {}
            _ => feeder.on_miss(key)?,
        }
        if let Some(entity) = &answer.value {
            feeder.on_loaded(entity)?;
        }
        feeder.feed(answer.value.take());
        Ok(answer)
    }

    /// The entity with this id: the cached one, or else the repository's, which is stored. `None` if the
    /// repository does not have it, which is remembered for a while ([`Policy::absent_ttl`]).
    ///
    /// # Errors
    /// As [`with`](Self::with).
    pub async fn get<T, R>(&self, id: &T::Key, repository: &R) -> Result<Option<T>>
    where
        T: CacheEntity,
        R: DataRepository<T>,
    {
        let request = self.request::<T>(id, &OperationConfig::PLAIN, CacheStrategy::Refresh)?;
        let mut source = FromRepository { repository, id, retries: 0 };
        Ok(self.engine.read_inline(&request, &mut source).await?.value)
    }

    /// [`get`](Self::get) by strategy and with options, telling also how it went.
    ///
    /// # Errors
    /// As [`with_config`](Self::with_config).
    pub async fn get_outcome<T, R>(
        &self,
        id: &T::Key,
        repository: &R,
        strategy: CacheStrategy,
        config: OperationConfig<'_>,
    ) -> Result<Outcome<Option<T>>>
    where
        T: CacheEntity,
        R: DataRepository<T>,
    {
        let request = self.request::<T>(id, &config, strategy)?;
        let mut source = FromRepository { repository, id, retries: config.retries };
        let answer = self.engine.read_inline(&request, &mut source).await?;
        Ok(self.engine.outcome(answer))
    }

    /// [`get`](Self::get) with a load that is detached from the caller: it runs to its end in a task of its
    /// own even if the caller goes away.
    ///
    /// # Errors
    /// As `get`.
    pub async fn get_owned<T, R>(&self, id: T::Key, repository: Arc<R>) -> Result<Option<T>>
    where
        T: CacheEntity,
        R: DataRepository<T> + 'static,
    {
        let outcome =
            self.get_owned_outcome(id, repository, CacheStrategy::Refresh, OperationConfig::default());
        Ok(outcome.await?.value)
    }

    /// [`get_owned`](Self::get_owned) by strategy and with options, telling also how it went.
    ///
    /// # Errors
    /// As [`with_config`](Self::with_config).
    pub async fn get_owned_outcome<T, R>(
        &self,
        id: T::Key,
        repository: Arc<R>,
        strategy: CacheStrategy,
        config: OperationConfig<'_>,
    ) -> Result<Outcome<Option<T>>>
    where
        T: CacheEntity,
        R: DataRepository<T> + 'static,
    {
        let request = self.request::<T>(&id, &config, strategy)?;
        let source = FromShared { repository, id, retries: config.retries };
        Ok(self.engine.outcome(self.engine.read_owned(&request, source).await?))
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
    pub fn backend(&self) -> &B {
        self.engine.backend()
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
}

impl<B: CacheBackend> fmt::Debug for CacheExpander<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("CacheExpander")
            .field("backend", &self.backend().capabilities().name)
            .finish_non_exhaustive()
    }
}
