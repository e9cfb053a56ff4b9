//! The state of the application, and every read through the cache.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cache_kit::{Cache, CacheEntity, CacheStrategy, DataRepository, LoadOptions, OperationConfig, Outcome};

use crate::db::Db;
use crate::error::{AppError, log};
use crate::model::{Category, summary_tag};
use crate::observe::Observed;
use crate::repository::Rows;

/// All that the handlers share.
pub(crate) struct Shop {
    pub(crate) db: Arc<Db>,
    pub(crate) rows: Rows,
    /// What is computed from rows is read with closures; users and products through `entities()`, the other door of the same
    /// cache.
    pub(crate) cache: Cache,
    pub(crate) observed: Observed,
    /// The live page can turn the cache off.
    pub(crate) cache_on: AtomicBool,
    /// The live page can have something read all the time.
    pub(crate) traffic_on: AtomicBool,
}

impl Shop {
    pub(crate) fn new(db: Db, cache: Cache, live: bool) -> Self {
        let db = Arc::new(db);
        Self {
            rows: Rows::new(Arc::clone(&db)),
            db,
            cache,
            observed: Observed::new(live),
            cache_on: AtomicBool::new(true),
            traffic_on: AtomicBool::new(false),
        }
    }

    pub(crate) fn is_cache_on(&self) -> bool {
        self.cache_on.load(Ordering::Relaxed)
    }

    pub(crate) fn strategy(&self) -> CacheStrategy {
        if self.is_cache_on() { CacheStrategy::Refresh } else { CacheStrategy::Bypass }
    }

    /// One entity, and how it was found.
    pub(crate) async fn read<T>(&self, id: i64) -> Result<Outcome<Option<T>>, AppError>
    where
        T: CacheEntity<Key = i64>,
        Rows: DataRepository<T>,
    {
        let asked = Instant::now();
        let entities = self.cache.entities();
        let read = entities.get_outcome(&id, &self.rows, self.strategy(), OperationConfig::default());
        let outcome = read.await?;
        self.observed.one(T::cache_prefix(), id, &outcome, asked.elapsed());
        Ok(outcome)
    }

    /// Many entities by their ids: one exchange with the cache, and one query for all that it does not have. What was
    /// deleted meanwhile is left out.
    pub(crate) async fn read_many<T>(&self, ids: &[i64]) -> Result<Vec<T>, AppError>
    where
        T: CacheEntity<Key = i64>,
        Rows: DataRepository<T>,
    {
        let asked = Instant::now();
        if !self.is_cache_on() {
            // A batch has no strategy `Bypass`.
            let found: Vec<Option<T>> = self.rows.fetch_by_ids(ids).await?;
            self.observed.straight(T::cache_prefix(), ids.len(), asked.elapsed());
            return Ok(found.into_iter().flatten().collect());
        }
        let entities = self.cache.entities();
        let outcomes = entities.get_many_outcomes(ids, &self.rows, OperationConfig::default()).await?;
        let outcomes = outcomes.into_iter().collect::<Result<Vec<_>, _>>()?;
        self.observed.many(T::cache_prefix(), &outcomes, asked.elapsed());
        Ok(outcomes.into_iter().filter_map(|outcome| outcome.value).collect())
    }

    /// The names of all categories.
    pub(crate) async fn categories(&self) -> Result<Vec<String>, AppError> {
        let rows = self.rows.clone();
        let options = LoadOptions::default().with_strategy(self.strategy());
        let load = move || async move { rows.categories().await };
        Ok(self.cache.get_or_load_with(CATEGORIES, options, load).await?)
    }

    /// A category in figures. That there is none is remembered for a moment too.
    pub(crate) async fn category(&self, name: &str) -> Result<Option<Category>, AppError> {
        let (rows, owned) = (self.rows.clone(), name.to_owned());
        let (key, tag) = (format!("category:{name}"), summary_tag(name));
        let tags = [tag.as_str()];
        let options = LoadOptions::default().with_strategy(self.strategy()).with_tags(&tags);
        let load = move |_| async move { rows.category(&owned).await.map(Into::into) };
        Ok(self.cache.get_or_load_entry(key, options, load).await?)
    }

    /// Ends what runs behind the requests; those have ended by now.
    pub(crate) async fn close(&self, patience: Duration) {
        if let Err(error) = self.cache.shutdown(patience).await {
            log(format_args!("{error:#}"));
        }
        self.db.close().await;
    }
}

/// The key of the names of all categories.
pub(crate) const CATEGORIES: &str = "categories";
