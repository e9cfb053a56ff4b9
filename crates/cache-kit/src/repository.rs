//! The source of entities: what is asked when the cache does not know.

use std::collections::HashMap;
use std::fmt;

use crate::entity::CacheEntity;
use crate::error::{Error, ErrorKind, Result};
use crate::loaded::{Loaded, Previous};

/// The source of entities, such as a table behind a query.
///
/// Write plain `async fn`s; wrap an error of your own with [`Error::source`], and find it again with
/// [`Error::find_source`].
///
/// ```
/// # use cache_kit::{CacheEntity, DataRepository, Error, Result};
/// # #[derive(Clone, serde::Serialize, serde::Deserialize)]
/// # struct User { id: u64 }
/// # impl CacheEntity for User {
/// #     type Key = u64;
/// #     fn cache_key(&self) -> u64 { self.id }
/// #     fn cache_prefix() -> &'static str { "user" }
/// # }
/// # struct Pool;
/// # impl Pool { async fn find_user(&self, id: u64) -> std::io::Result<Option<User>> { Ok(Some(User { id })) } }
/// struct Users { pool: Pool }
///
/// impl DataRepository<User> for Users {
///     async fn fetch_by_id(&self, id: &u64) -> Result<Option<User>> {
///         self.pool.find_user(*id).await.map_err(Error::source)
///     }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a repository of `{T}`",
    note = "implement `DataRepository<{T}>` with `async fn fetch_by_id`"
)]
pub trait DataRepository<T: CacheEntity>: Send + Sync {
    /// Reads one entity; `Ok(None)` if the source does not have it.
    ///
    /// # Errors
    /// What kept the source from answering.
    fn fetch_by_id(&self, id: &T::Key) -> impl Future<Output = Result<Option<T>>> + Send;

    /// Reads many entities: one answer per id, in order. Override it with one query; the provided form asks
    /// one by one.
    ///
    /// # Errors
    /// What kept the source from answering.
    fn fetch_by_ids(&self, ids: &[T::Key]) -> impl Future<Output = Result<Vec<Option<T>>>> + Send {
        async move {
            let mut found = Vec::with_capacity(ids.len());
            for id in ids {
                found.push(self.fetch_by_id(id).await?);
            }
            Ok(found)
        }
    }

    /// Reads many entities whose answers can fail one by one. The provided form asks
    /// [`fetch_by_ids`](Self::fetch_by_ids), and all fail together.
    fn fetch_each(&self, ids: &[T::Key]) -> impl Future<Output = Vec<Result<Option<T>>>> + Send {
        async move {
            match self.fetch_by_ids(ids).await {
                Ok(found) => found.into_iter().map(Ok).collect(),
                Err(error) => ids.iter().map(|_| Err(error.clone())).collect(),
            }
        }
    }

    /// Reads one entity, knowing what the cache still has of it, and says how to keep it: for a source that can answer "not
    /// modified", or knows how long its answer is good for. The provided form asks [`fetch_by_id`](Self::fetch_by_id).
    ///
    /// # Errors
    /// What kept the source from answering.
    fn reload(&self, id: &T::Key, previous: Previous<T>) -> impl Future<Output = Result<Loaded<T>>> + Send {
        let _ = previous;
        async move { Ok(self.fetch_by_id(id).await?.into()) }
    }

    /// How many entities there are. Optional.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) unless overridden.
    fn count(&self) -> impl Future<Output = Result<u64>> + Send {
        async { Err(Error::new(ErrorKind::Unsupported, "this repository does not count its entities")) }
    }

    /// All entities. Optional.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) unless overridden.
    fn fetch_all(&self) -> impl Future<Output = Result<Vec<T>>> + Send {
        async { Err(Error::new(ErrorKind::Unsupported, "this repository does not list its entities")) }
    }
}

/// A repository in memory, for tests.
pub struct InMemoryRepository<T: CacheEntity> {
    entities: HashMap<String, T>,
}

impl<T: CacheEntity> InMemoryRepository<T> {
    /// An empty repository.
    #[must_use]
    pub fn new() -> Self {
        Self { entities: HashMap::new() }
    }

    /// Adds or replaces an entity.
    pub fn insert(&mut self, id: T::Key, entity: T) {
        self.entities.insert(id.to_string(), entity);
    }

    /// Removes an entity.
    pub fn remove(&mut self, id: &T::Key) -> Option<T> {
        self.entities.remove(&id.to_string())
    }

    /// Removes all entities.
    pub fn clear(&mut self) {
        self.entities.clear();
    }

    /// How many entities there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entities.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entities.is_empty()
    }
}

impl<T: CacheEntity> DataRepository<T> for InMemoryRepository<T> {
    async fn fetch_by_id(&self, id: &T::Key) -> Result<Option<T>> {
        Ok(self.entities.get(&id.to_string()).cloned())
    }

    async fn fetch_by_ids(&self, ids: &[T::Key]) -> Result<Vec<Option<T>>> {
        Ok(ids.iter().map(|id| self.entities.get(&id.to_string()).cloned()).collect())
    }

    async fn count(&self) -> Result<u64> {
        Ok(self.entities.len() as u64)
    }

    async fn fetch_all(&self) -> Result<Vec<T>> {
        Ok(self.entities.values().cloned().collect())
    }
}

impl<T: CacheEntity> Default for InMemoryRepository<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: CacheEntity> fmt::Debug for InMemoryRepository<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("InMemoryRepository").field("len", &self.len()).finish()
    }
}
