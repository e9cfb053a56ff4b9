//! Loaders that say how to keep what they have found, and are shown what the cache still has.

use super::{BoxError, Cache};
use crate::engine::{EntryLoad, Request};
use crate::entity::CacheValue;
use crate::error::Result;
use crate::loaded::{Loaded, Previous};
use crate::outcome::Outcome;
use crate::policy::{InlineOptions, LoadOptions};

impl Cache {
    /// As [`get_or_load`](Self::get_or_load), with a loader that may find nothing, as a query for one row does. That there is
    /// nothing is remembered for a moment ([`Policy::absent_ttl`](crate::Policy::absent_ttl)), never after an error.
    ///
    /// **Cancel-safe.**
    ///
    /// # Errors
    /// As `get_or_load`.
    ///
    /// ```
    /// # async fn find_user(id: u64) -> std::io::Result<Option<String>> { Ok((id == 7).then(|| "Ada".into())) }
    /// # async fn run() -> cache_kit::Result<()> {
    /// # let cache = cache_kit::Cache::from_url("memory://")?;
    /// let user = cache.get_or_load_optional("user:7", || find_user(7)).await?;
    /// assert_eq!(user.as_deref(), Some("Ada"));
    /// # Ok(()) }
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run()).unwrap();
    /// ```
    pub async fn get_or_load_optional<T, E, F, Fut>(
        &self,
        key: impl AsRef<str>,
        loader: F,
    ) -> Result<Option<T>>
    where
        T: CacheValue,
        E: Into<BoxError>,
        F: FnOnce() -> Fut + Send + 'static,
        Fut: Future<Output = Result<Option<T>, E>> + Send + 'static,
    {
        let loader = |_: Previous<T>| async move { loader().await.map(Loaded::from) };
        self.get_or_load_entry(key, LoadOptions::default(), loader).await
    }

    /// As [`get_or_load`](Self::get_or_load), with a loader that also says how to keep what it has found: for how long, with
    /// which tags, or not at all; that the source does not have it; or that what the cache still has is good for longer.
    ///
    /// # Errors
    /// As [`get_or_load_with`](Self::get_or_load_with).
    ///
    /// ```
    /// use cache_kit::{LoadOptions, Loaded, Previous};
    /// use std::time::Duration;
    ///
    /// # struct Response { etag: String, max_age: u64, body: String }
    /// # async fn fetch(etag: Option<&str>) -> std::io::Result<Option<Response>> {
    /// #     Ok(etag.is_none().then(|| Response { etag: "1".into(), max_age: 60, body: "hello".into() })) }
    /// # async fn run() -> cache_kit::Result<()> {
    /// # let cache = cache_kit::Cache::from_url("memory://")?;
    /// let page = cache
    ///     .get_or_load_entry("page:7", LoadOptions::default(), |previous: Previous<String>| async move {
    ///         // The source says "not modified" to who knows the latest version.
    ///         let Some(page) = fetch(previous.version.as_deref()).await? else { return Ok(Loaded::not_modified()) };
    ///         Ok::<_, std::io::Error>(
    ///             Loaded::value(page.body).with_version(page.etag).with_ttl(Duration::from_secs(page.max_age)),
    ///         )
    ///     })
    ///     .await?;
    /// assert_eq!(page.as_deref(), Some("hello"));
    /// # Ok(()) }
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run()).unwrap();
    /// ```
    pub async fn get_or_load_entry<T, E, F, Fut>(
        &self,
        key: impl AsRef<str>,
        options: LoadOptions<'_>,
        loader: F,
    ) -> Result<Option<T>>
    where
        T: CacheValue,
        E: Into<BoxError>,
        F: FnOnce(Previous<T>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Loaded<T>, E>> + Send + 'static,
    {
        Ok(self.get_or_load_entry_outcome(key, options, loader).await?.value)
    }

    /// [`get_or_load_entry`](Self::get_or_load_entry), telling also how it went.
    ///
    /// # Errors
    /// As `get_or_load_entry`.
    pub async fn get_or_load_entry_outcome<T, E, F, Fut>(
        &self,
        key: impl AsRef<str>,
        options: LoadOptions<'_>,
        loader: F,
    ) -> Result<Outcome<Option<T>>>
    where
        T: CacheValue,
        E: Into<BoxError>,
        F: FnOnce(Previous<T>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<Loaded<T>, E>> + Send + 'static,
    {
        let request = self.owned_request::<T>(key.as_ref(), &options)?;
        let request = Request { may_choose_tags: true, ..request };
        Ok(self.engine.outcome(self.engine.read_owned(&request, EntryLoad::new(loader)).await?))
    }

    /// [`get_or_load_entry`](Self::get_or_load_entry) with a loader that may borrow, as that of
    /// [`get_or_load_inline`](Self::get_or_load_inline).
    ///
    /// # Errors
    /// As `get_or_load_entry`.
    pub async fn get_or_load_entry_inline<T, E, F, Fut>(
        &self,
        key: impl AsRef<str>,
        options: InlineOptions<'_>,
        loader: F,
    ) -> Result<Option<T>>
    where
        T: CacheValue,
        E: Into<BoxError>,
        F: FnOnce(Previous<T>) -> Fut + Send,
        Fut: Future<Output = Result<Loaded<T>, E>> + Send,
    {
        Ok(self.get_or_load_entry_inline_outcome(key, options, loader).await?.value)
    }

    /// [`get_or_load_entry_inline`](Self::get_or_load_entry_inline), telling also how it went.
    ///
    /// # Errors
    /// As `get_or_load_entry`.
    pub async fn get_or_load_entry_inline_outcome<T, E, F, Fut>(
        &self,
        key: impl AsRef<str>,
        options: InlineOptions<'_>,
        loader: F,
    ) -> Result<Outcome<Option<T>>>
    where
        T: CacheValue,
        E: Into<BoxError>,
        F: FnOnce(Previous<T>) -> Fut + Send,
        Fut: Future<Output = Result<Loaded<T>, E>> + Send,
    {
        let request = self.inline_request::<T>(key.as_ref(), &options)?;
        let request = Request { may_choose_tags: true, ..request };
        Ok(self.engine.outcome(self.engine.read_inline(&request, &mut EntryLoad::new(loader)).await?))
    }
}
