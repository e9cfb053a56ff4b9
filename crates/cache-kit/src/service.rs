//! An expander to be shared.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::backend::CacheBackend;
use crate::engine::{Gauges, Hold};
use crate::entity::CacheEntity;
use crate::error::Result;
use crate::expander::CacheExpander;
use crate::feed::CacheFeed;
use crate::observe::{CacheMetrics, Stats};
use crate::outcome::Outcome;
use crate::policy::OperationConfig;
use crate::repository::DataRepository;
use crate::strategy::CacheStrategy;

/// A [`CacheExpander`] that is cheap to clone: for the state of a web service. All clones are one cache.
pub struct CacheService<B = Box<dyn CacheBackend>> {
    expander: Arc<CacheExpander<B>>,
}

impl<B: CacheBackend> CacheService<B> {
    /// A service over a backend, with default settings.
    #[must_use]
    pub fn new(backend: B) -> Self {
        Self::from_expander(CacheExpander::new(backend))
    }

    /// A service that tells a metrics hook what it does.
    #[must_use]
    pub fn with_metrics(backend: B, metrics: Box<dyn CacheMetrics>) -> Self {
        Self::from_expander(CacheExpander::new(backend).with_metrics(metrics))
    }

    /// A service over an expander with settings of its own.
    #[must_use]
    pub fn from_expander(expander: CacheExpander<B>) -> Self {
        Self { expander: Arc::new(expander) }
    }

    /// Reads the entity that the feeder asks for, and feeds it; see [`CacheExpander::with`].
    ///
    /// # Errors
    /// As `CacheExpander::with`.
    pub async fn execute<T, F, R>(
        &self,
        feeder: &mut F,
        repository: &R,
        strategy: CacheStrategy,
    ) -> Result<()>
    where
        T: CacheEntity,
        F: CacheFeed<T>,
        R: DataRepository<T>,
    {
        self.expander.with(feeder, repository, strategy).await
    }

    /// [`execute`](Self::execute) with options for this call.
    ///
    /// # Errors
    /// As [`CacheExpander::with_config`].
    pub async fn execute_with_config<T, F, R>(
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
        self.expander.with_config(feeder, repository, strategy, config).await
    }

    /// The entity with this id; see [`CacheExpander::get`].
    ///
    /// # Errors
    /// As `CacheExpander::get`.
    pub async fn get<T, R>(&self, id: &T::Key, repository: &R) -> Result<Option<T>>
    where
        T: CacheEntity,
        R: DataRepository<T>,
    {
        self.expander.get(id, repository).await
    }

    /// The entity with this id, and how it was found; see [`CacheExpander::get_outcome`].
    ///
    /// # Errors
    /// As `CacheExpander::get_outcome`.
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
        self.expander.get_outcome(id, repository, strategy, config).await
    }

    /// The entity with this id, by a load that outlives the caller; see [`CacheExpander::get_owned`].
    ///
    /// # Errors
    /// As `CacheExpander::get_owned`.
    pub async fn get_owned<T, R>(&self, id: T::Key, repository: Arc<R>) -> Result<Option<T>>
    where
        T: CacheEntity,
        R: DataRepository<T> + 'static,
    {
        self.expander.get_owned(id, repository).await
    }

    /// The entities with these ids; see [`CacheExpander::get_many`].
    ///
    /// # Errors
    /// As `CacheExpander::get_many`.
    pub async fn get_many<T, R>(&self, ids: &[T::Key], repository: &R) -> Result<Vec<Option<T>>>
    where
        T: CacheEntity,
        R: DataRepository<T>,
    {
        self.expander.get_many(ids, repository).await
    }

    /// The entities with these ids, with options, and how each read went; see [`CacheExpander::get_many_outcomes`].
    ///
    /// # Errors
    /// As `CacheExpander::get_many_outcomes`.
    pub async fn get_many_outcomes<T, R>(
        &self,
        ids: &[T::Key],
        repository: &R,
        config: OperationConfig<'_>,
    ) -> Result<Vec<Result<Outcome<Option<T>>>>>
    where
        T: CacheEntity,
        R: DataRepository<T>,
    {
        self.expander.get_many_outcomes(ids, repository, config).await
    }

    /// Removes an entity; see [`CacheExpander::invalidate`].
    ///
    /// # Errors
    /// As `CacheExpander::invalidate`.
    pub async fn invalidate<T: CacheEntity>(&self, id: &T::Key) -> Result<()> {
        self.expander.invalidate::<T>(id).await
    }

    /// Makes every entry invalid that has this tag ([`CacheEntity::cache_tags`],
    /// [`OperationConfig::with_tags`](crate::OperationConfig::with_tags)); see
    /// [`Cache::invalidate_tag`](crate::Cache::invalidate_tag).
    ///
    /// # Errors
    /// As `Cache::invalidate_tag`.
    pub async fn invalidate_tag(&self, tag: impl AsRef<str>) -> Result<()> {
        self.invalidate_tags([tag.as_ref()]).await
    }

    /// [`invalidate_tag`](Self::invalidate_tag) for several tags: every entry with at least one of them.
    ///
    /// # Errors
    /// As `invalidate_tag`.
    pub async fn invalidate_tags(
        &self,
        tags: impl IntoIterator<Item = impl AsRef<str>> + Send,
    ) -> Result<()> {
        self.expander.invalidate_tags(tags).await
    }

    /// Makes everything in this cache invalid; see [`Cache::clear`](crate::Cache::clear).
    ///
    /// # Errors
    /// As `Cache::clear`.
    pub async fn clear(&self) -> Result<()> {
        self.expander.clear().await
    }

    /// Removes many entities; see [`CacheExpander::invalidate_many`].
    ///
    /// # Errors
    /// As `CacheExpander::invalidate_many`.
    pub async fn invalidate_many<T: CacheEntity>(&self, ids: &[T::Key]) -> Result<()> {
        self.expander.invalidate_many::<T>(ids).await
    }

    /// Sends what is queued until it is confirmed; see [`Cache::flush_pending`](crate::Cache::flush_pending).
    ///
    /// # Errors
    /// As `Cache::flush_pending`.
    pub async fn flush_pending(&self, timeout: Duration) -> Result<()> {
        self.expander.flush_pending(timeout).await
    }

    /// What this cache is busy with.
    #[must_use]
    pub fn gauges(&self) -> Gauges {
        self.expander.gauges()
    }

    /// Ends the fresh life of an entity and keeps it as a fallback; see [`CacheExpander::expire`].
    ///
    /// # Errors
    /// As `CacheExpander::expire`.
    pub async fn expire<T: CacheEntity>(&self, id: &T::Key) -> Result<()> {
        self.expander.expire::<T>(id).await
    }

    /// Removes entities and sees to it that nothing is stored for them until the hold ends; see [`CacheExpander::hold`].
    ///
    /// # Errors
    /// As `CacheExpander::hold`.
    pub async fn hold<T: CacheEntity>(&self, ids: &[T::Key]) -> Result<Hold<B>> {
        self.expander.hold::<T>(ids).await
    }

    /// Ends the work behind callers; see [`Cache::shutdown`](crate::Cache::shutdown).
    ///
    /// # Errors
    /// As `Cache::shutdown`.
    pub async fn shutdown(&self, timeout: Duration) -> Result<()> {
        self.expander.shutdown(timeout).await
    }

    /// What this cache has done so far.
    #[must_use]
    pub fn stats(&self) -> Stats {
        self.expander.stats()
    }

    /// The expander below.
    #[must_use]
    pub fn expander(&self) -> &CacheExpander<B> {
        &self.expander
    }
}

impl<B> Clone for CacheService<B> {
    fn clone(&self) -> Self {
        Self { expander: Arc::clone(&self.expander) }
    }
}

impl<B: CacheBackend> fmt::Debug for CacheService<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("CacheService").field(&self.expander).finish()
    }
}
