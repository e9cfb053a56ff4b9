//! Removing what is out of date, and the end of a cache.

use std::time::Duration;

use super::CacheExpander;
use crate::backend::CacheBackend;
use crate::engine::Hold;
use crate::entity::CacheEntity;
use crate::error::Result;

impl<B: CacheBackend> CacheExpander<B> {
    /// Removes an entity. `Ok` is the backend's word for it: no older value comes back, a load that had begun stores
    /// nothing, and a read that begins now does not join it. Call it after the change is committed, or use
    /// [`hold`](Self::hold).
    ///
    /// # Errors
    /// As [`Cache::invalidate`](crate::Cache::invalidate): what is not confirmed is queued.
    pub async fn invalidate<T: CacheEntity>(&self, id: &T::Key) -> Result<()> {
        self.engine.invalidate(&self.key::<T>(id)?).await
    }

    /// Removes many entities, each as [`invalidate`](Self::invalidate) does.
    ///
    /// # Errors
    /// As `invalidate`, for any of them.
    pub async fn invalidate_many<T: CacheEntity>(&self, ids: &[T::Key]) -> Result<()> {
        let keys = self.stored_keys::<T>(ids)?;
        self.engine.invalidate_many(&keys.iter().map(|key| &**key).collect::<Vec<_>>()).await
    }

    /// Ends the fresh life of an entity and keeps it as a fallback; see [`Cache::expire`](crate::Cache::expire).
    ///
    /// # Errors
    /// As [`invalidate`](Self::invalidate).
    pub async fn expire<T: CacheEntity>(&self, id: &T::Key) -> Result<()> {
        self.engine.expire(&self.key::<T>(id)?).await
    }

    /// Removes entities and sees to it that nothing is stored for them until the hold ends; see
    /// [`Cache::hold`](crate::Cache::hold).
    ///
    /// # Errors
    /// As `Cache::hold`.
    pub async fn hold<T: CacheEntity>(&self, ids: &[T::Key]) -> Result<Hold<B>> {
        let keys = self.stored_keys::<T>(ids)?;
        Ok(self.engine.hold(keys).await)
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
        let tags = crate::tags::checked(tags)?;
        self.engine.invalidate_tags(&tags).await
    }

    /// Makes everything in this cache invalid; see [`Cache::clear`](crate::Cache::clear).
    ///
    /// # Errors
    /// As `Cache::clear`.
    pub async fn clear(&self) -> Result<()> {
        self.engine.clear().await
    }

    /// Sends what is queued until it is confirmed; see [`Cache::flush_pending`](crate::Cache::flush_pending).
    ///
    /// # Errors
    /// As `Cache::flush_pending`.
    pub async fn flush_pending(&self, timeout: Duration) -> Result<()> {
        self.engine.flush_pending(timeout).await
    }

    /// Ends the work behind callers; see [`Cache::shutdown`](crate::Cache::shutdown).
    ///
    /// # Errors
    /// As `Cache::shutdown`.
    pub async fn shutdown(&self, timeout: Duration) -> Result<()> {
        self.engine.shutdown(timeout).await
    }

    fn stored_keys<T: CacheEntity>(&self, ids: &[T::Key]) -> Result<Vec<Box<str>>> {
        ids.iter().map(|id| Ok(self.key::<T>(id)?.as_str().into())).collect()
    }
}
