//! Removing what is out of date, and the end of a cache.

use std::time::Duration;

use super::Cache;
#[cfg(doc)]
use crate::Policy;
#[cfg(doc)]
use crate::backend::CacheBackend;
use crate::engine::Hold;
#[cfg(doc)]
use crate::error::ErrorKind;
use crate::error::{Error, Result};

impl Cache {
    /// Removes the value under `key`. `Ok` is the backend's word for it: no older value comes back, a load that had begun
    /// stores nothing, and a read that begins now does not join it. Of a load that *another* process has begun, readers
    /// of that process may get the old value for as long as [`Policy::join_max_age`](crate::Policy::join_max_age).
    ///
    /// Call it after the change of the source is committed, or use [`hold`](Self::hold).
    ///
    /// # Errors
    /// [`Unconfirmed`](ErrorKind::Unconfirmed) if the backend may still hold the old value. The invalidation is queued then,
    /// and sent again until the backend confirms it. Meanwhile this process does not believe the entry: its reads are
    /// answered by the source, and store nothing. Other processes may serve the old value until it is confirmed; if this
    /// one ends before that ([`flush_pending`](Self::flush_pending)), until it expires.
    ///
    /// A caller that goes away leaves the invalidation queued.
    pub async fn invalidate(&self, key: impl AsRef<str>) -> Result<()> {
        self.engine.invalidate(&self.key(key.as_ref())?).await
    }

    /// Removes the values under many keys, each as [`invalidate`](Self::invalidate) does.
    ///
    /// # Errors
    /// As `invalidate`, for any of them; then all of them are queued.
    pub async fn invalidate_many(
        &self,
        keys: impl IntoIterator<Item = impl AsRef<str> + Send> + Send,
    ) -> Result<()> {
        let keys = self.stored_keys(keys)?;
        self.engine.invalidate_many(&keys.iter().map(|key| &**key).collect::<Vec<_>>()).await
    }

    /// Removes the values whose keys match a pattern, as [`CacheBackend::delete_pattern`] has it, within this cache's
    /// namespace; tells how many values that was.
    ///
    /// # Errors
    /// [`Unsupported`](ErrorKind::Unsupported) if the backend cannot delete by pattern; else as
    /// [`invalidate`](Self::invalidate), for every key that matches.
    pub async fn invalidate_matching(&self, pattern: impl AsRef<str>) -> Result<u64> {
        let pattern = pattern.as_ref();
        if pattern.is_empty() {
            return Err(Error::invalid("the pattern is empty").with_hint("`*` matches every key"));
        }
        match &self.engine.settings.namespace {
            Some(namespace) => self.engine.invalidate_matching(&format!("{namespace}/{pattern}")).await,
            None => self.engine.invalidate_matching(pattern).await,
        }
    }

    /// Ends the fresh life of the value under `key` and keeps it as a fallback: it is loaded anew by the next read, and
    /// served as stale where the [`Policy`](crate::Policy) allows that, for as long as it would have been kept. While
    /// somebody loads it, it is removed instead. Takes three round trips, where [`invalidate`](Self::invalidate) takes one.
    ///
    /// # Errors
    /// As `invalidate`; then the value is removed once the backend answers.
    pub async fn expire(&self, key: impl AsRef<str>) -> Result<()> {
        self.engine.expire(&self.key(key.as_ref())?).await
    }

    /// Removes the values under `keys` and sees to it that nothing is stored under them until the [`Hold`] is confirmed or
    /// dropped: for the commit of a transaction. Keep it short: a read of a held key in another process waits for the lease, for
    /// [`Policy::lease_wait`](crate::Policy::lease_wait), before it asks the source itself.
    ///
    /// **Cancel-safe**: it invalidates, as a hold that is dropped does.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a key that is none. A backend that fails is no error, so that the
    /// transaction need not wait for it: [`Hold::degraded`] tells, and [`Hold::confirm`] answers for the end.
    pub async fn hold(&self, keys: impl IntoIterator<Item = impl AsRef<str> + Send> + Send) -> Result<Hold> {
        let keys = self.stored_keys(keys)?;
        Ok(self.engine.hold(keys).await)
    }

    /// Sends the invalidations that are queued until the backend has confirmed all of them, for no longer than `timeout`.
    /// For the end of a process, or a test.
    ///
    /// # Errors
    /// [`Unconfirmed`](ErrorKind::Unconfirmed), telling how many are left.
    pub async fn flush_pending(&self, timeout: Duration) -> Result<()> {
        self.engine.flush_pending(timeout).await
    }

    /// Ends the work behind callers: starts no more owned loads, waits for those that run, stops those that have not ended
    /// in time, and flushes what is [pending](Self::flush_pending); all of it within `timeout`. Hits are answered as
    /// before; a read that would have to load is an error of kind [`LoadAborted`](ErrorKind::LoadAborted).
    ///
    /// # Errors
    /// [`Timeout`](ErrorKind::Timeout) if loads were stopped, [`Unconfirmed`](ErrorKind::Unconfirmed) if invalidations are
    /// left.
    pub async fn shutdown(&self, timeout: Duration) -> Result<()> {
        self.engine.shutdown(timeout).await
    }

    /// Makes every entry invalid that has this tag ([`LoadOptions::with_tags`](crate::LoadOptions),
    /// [`Loaded::with_tags`](crate::Loaded::with_tags), [`CacheEntity::cache_tags`](crate::CacheEntity::cache_tags)), at the cost
    /// of two operations however many they are. This cache sees it at once, others within their
    /// [`Policy::tag_version_max_age`](crate::Policy::tag_version_max_age). The memory of the entries comes back as they expire.
    ///
    /// What a load that is under way stores of such an entry is never served, here or in other processes.
    ///
    /// # Errors
    /// As [`invalidate`](Self::invalidate); [`InvalidInput`](ErrorKind::InvalidInput) for what cannot be a tag.
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

    /// Makes everything in this cache invalid, and nothing of other namespaces, at the cost of one operation for each part
    /// that the backend's keys are spread over. `Ok` when each part has answered. This cache sees it at once, others within
    /// their [`Policy::tag_version_max_age`](crate::Policy::tag_version_max_age). The memory of the entries comes back as
    /// they expire; [`invalidate_matching`](Self::invalidate_matching) removes them, where the backend can.
    ///
    /// # Errors
    /// As [`invalidate`](Self::invalidate): what has not answered is queued.
    pub async fn clear(&self) -> Result<()> {
        self.engine.clear().await
    }

    fn stored_keys(
        &self,
        keys: impl IntoIterator<Item = impl AsRef<str> + Send> + Send,
    ) -> Result<Vec<Box<str>>> {
        keys.into_iter().map(|key| Ok(self.key(key.as_ref())?.as_str().into())).collect()
    }
}
