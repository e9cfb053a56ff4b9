//! Many entities at once.

use super::CacheExpander;
use super::source::ByIds;
use crate::backend::CacheBackend;
use crate::engine::Answer;
use crate::entity::CacheEntity;
use crate::error::Result;
use crate::outcome::Outcome;
use crate::policy::OperationConfig;
use crate::repository::DataRepository;
use crate::strategy::CacheStrategy;

impl<B: CacheBackend> CacheExpander<B> {
    /// The entities with these ids, one answer for each, in order: the cached ones from one read of the backend, the others
    /// from one [`fetch_by_ids`](DataRepository::fetch_by_ids) with those that nobody loads already. `None` for what the
    /// repository does not have, which is remembered for a while ([`Policy::absent_ttl`](crate::Policy::absent_ttl)). An id that
    /// is asked for twice is looked up once.
    ///
    /// More ids than [`Limits::max_batch_keys`](crate::Limits::max_batch_keys) are fetched in more than one call.
    /// **Cancel-safe**: who waits for an entity of a call that goes away asks their own repository.
    ///
    /// # Errors
    /// As [`get`](Self::get), if any id needed a source that failed. [`get_many_outcomes`](Self::get_many_outcomes) answers id
    /// by id, and hands out what is cached whatever the source says.
    pub async fn get_many<T, R>(&self, ids: &[T::Key], repository: &R) -> Result<Vec<Option<T>>>
    where
        T: CacheEntity,
        R: DataRepository<T>,
    {
        let answers = self.read_many(ids, repository, &OperationConfig::PLAIN).await?;
        answers.into_iter().map(|answer| Ok(answer?.value)).collect()
    }

    /// [`get_many`](Self::get_many) with options, telling for each id how its read went, or what it failed with.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for options or ids that make no sense. What concerns single ids is with
    /// them.
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
        let answers = self.read_many(ids, repository, &config).await?;
        Ok(answers.into_iter().map(|answer| Ok(self.engine.outcome(answer?))).collect())
    }

    async fn read_many<T, R>(
        &self,
        ids: &[T::Key],
        repository: &R,
        config: &OperationConfig<'_>,
    ) -> Result<Vec<Result<Answer<T>>>>
    where
        T: CacheEntity,
        R: DataRepository<T>,
    {
        let retries = config.retries;
        let requests: Result<Vec<_>> =
            ids.iter().map(|id| self.request::<T>(id, config, CacheStrategy::Refresh)).collect();
        Ok(self.engine.read_many(&requests?, ByIds { ids, repository, retries }).await)
    }
}
