//! Many keys at once.

use std::collections::HashMap;

use futures_util::future::BoxFuture;

use super::{BoxError, Cache};
use crate::engine::{Answer, LoadMany, Request};
use crate::entity::CacheValue;
use crate::error::{Error, Result};
use crate::loaded::Loaded;
use crate::outcome::Outcome;
use crate::policy::{self, LoadOptions};

impl Cache {
    /// The values under many keys, one answer for each, in order: the cached ones from one read of the backend, the others
    /// from one call of `loader` with the keys that are missing and that nobody loads already. What the loader leaves out
    /// does not exist, which is remembered for a while ([`Policy::absent_ttl`](crate::Policy::absent_ttl)). A key that is
    /// asked for twice is looked up once.
    ///
    /// The loader may be called more than once: for more keys than
    /// [`Limits::max_batch_keys`](crate::Limits::max_batch_keys), and for keys whose load another reader has given up.
    ///
    /// **Cancel-safe.** A cancelled call stores nothing more, and who waits for a key of it loads that key.
    ///
    /// # Errors
    /// What the loader failed with, as in [`get_or_load`](Self::get_or_load), if any key needed it.
    /// [`get_many_or_load_outcomes`](Self::get_many_or_load_outcomes) answers key by key, and hands out what is cached
    /// whatever the loader says.
    ///
    /// ```
    /// # async fn run() -> cache_kit::Result<()> {
    /// # let cache = cache_kit::Cache::from_url("memory://")?;
    /// let squares = cache
    ///     .get_many_or_load(["4", "5"], |missing| async move {
    ///         let found = missing.into_iter().map(|key| (key.clone(), key.parse::<u64>().unwrap().pow(2)));
    ///         Ok::<_, std::io::Error>(found.collect::<Vec<_>>())
    ///     })
    ///     .await?;
    /// assert_eq!(squares, [Some(16), Some(25)]);
    /// # Ok(()) }
    /// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run()).unwrap();
    /// ```
    pub async fn get_many_or_load<T, E, F, Fut, I>(
        &self,
        keys: impl IntoIterator<Item = impl AsRef<str> + Send> + Send,
        loader: F,
    ) -> Result<Vec<Option<T>>>
    where
        T: CacheValue,
        E: Into<BoxError>,
        F: FnMut(Vec<String>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<I, E>> + Send + 'static,
        I: IntoIterator<Item = (String, T)>,
    {
        let answers = self.load_many(keys, LoadOptions::default(), Plain(loader)).await?;
        answers.into_iter().map(|answer| Ok(answer?.value)).collect()
    }

    /// [`get_many_or_load`](Self::get_many_or_load) with options for this call, telling for each key how its read went, or
    /// what it failed with. Of the strategies only `Refresh` is for many keys.
    ///
    /// # Errors
    /// [`InvalidInput`](crate::ErrorKind::InvalidInput) for options or keys that make no sense. What concerns single keys is
    /// with them.
    pub async fn get_many_or_load_outcomes<T, E, F, Fut, I>(
        &self,
        keys: impl IntoIterator<Item = impl AsRef<str> + Send> + Send,
        options: LoadOptions<'_>,
        loader: F,
    ) -> Result<Vec<Result<Outcome<Option<T>>>>>
    where
        T: CacheValue,
        E: Into<BoxError>,
        F: FnMut(Vec<String>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<I, E>> + Send + 'static,
        I: IntoIterator<Item = (String, T)>,
    {
        let answers = self.load_many(keys, options, Plain(loader)).await?;
        Ok(answers.into_iter().map(|answer| Ok(self.engine.outcome(answer?))).collect())
    }

    /// [`get_many_or_load_outcomes`](Self::get_many_or_load_outcomes) with a loader that says for each key how to keep what it
    /// has found ([`Loaded`]), or why it has found nothing out.
    ///
    /// # Errors
    /// As there.
    pub async fn get_many_or_load_entries<T, E, F, Fut, I>(
        &self,
        keys: impl IntoIterator<Item = impl AsRef<str> + Send> + Send,
        options: LoadOptions<'_>,
        loader: F,
    ) -> Result<Vec<Result<Outcome<Option<T>>>>>
    where
        T: CacheValue,
        E: Into<BoxError>,
        F: FnMut(Vec<String>) -> Fut + Send + 'static,
        Fut: Future<Output = Result<I, E>> + Send + 'static,
        I: IntoIterator<Item = (String, Result<Loaded<T>, E>)>,
    {
        let answers = self.load_many(keys, options, Entries(loader)).await?;
        Ok(answers.into_iter().map(|answer| Ok(self.engine.outcome(answer?))).collect())
    }

    async fn load_many<T, L>(
        &self,
        keys: impl IntoIterator<Item = impl AsRef<str> + Send> + Send,
        options: LoadOptions<'_>,
        load: L,
    ) -> Result<Vec<Result<Answer<T>>>>
    where
        T: CacheValue,
        L: LoadKeys<T>,
    {
        policy::check_batch_strategy(options.strategy)?;
        let keys: Vec<_> = keys.into_iter().map(|key| key.as_ref().to_owned()).collect();
        let terms = options.over(self.engine.settings.policy())?;
        let tags = options.tags()?;
        let requests = keys.iter().map(|key| {
            let request = self.request::<T>(key, options.life(), options.strategy, terms.clone())?;
            Ok(Request { tags: tags.clone(), may_choose_tags: L::MAY_CHOOSE_TAGS, ..request })
        });
        let requests: Vec<_> = requests.collect::<Result<_>>()?;
        Ok(self.engine.read_many(&requests, ByKey { keys: &keys, load }).await)
    }
}

/// A loader for keys.
trait LoadKeys<T>: Send {
    const MAY_CHOOSE_TAGS: bool;

    /// One answer for each key, in order.
    fn start(&mut self, keys: Vec<String>) -> BoxFuture<'static, Vec<Result<Loaded<T>>>>;
}

struct Plain<F>(F);
struct Entries<F>(F);

impl<T, E, F, Fut, I> LoadKeys<T> for Plain<F>
where
    T: CacheValue,
    E: Into<BoxError>,
    F: FnMut(Vec<String>) -> Fut + Send,
    Fut: Future<Output = Result<I, E>> + Send + 'static,
    I: IntoIterator<Item = (String, T)>,
{
    const MAY_CHOOSE_TAGS: bool = false;

    fn start(&mut self, keys: Vec<String>) -> BoxFuture<'static, Vec<Result<Loaded<T>>>> {
        let found = (self.0)(keys.clone());
        Box::pin(async move {
            match found.await {
                Ok(found) => {
                    let mut found: HashMap<String, T> = found.into_iter().collect();
                    keys.iter().map(|key| Ok(found.remove(key).into())).collect()
                }
                Err(error) => all_failed(&keys, Error::source(error)),
            }
        })
    }
}

impl<T, E, F, Fut, I> LoadKeys<T> for Entries<F>
where
    T: CacheValue,
    E: Into<BoxError>,
    F: FnMut(Vec<String>) -> Fut + Send,
    Fut: Future<Output = Result<I, E>> + Send + 'static,
    I: IntoIterator<Item = (String, Result<Loaded<T>, E>)>,
{
    const MAY_CHOOSE_TAGS: bool = true;

    fn start(&mut self, keys: Vec<String>) -> BoxFuture<'static, Vec<Result<Loaded<T>>>> {
        let found = (self.0)(keys.clone());
        Box::pin(async move {
            match found.await {
                Ok(found) => {
                    let mut found: HashMap<String, Result<Loaded<T>, E>> = found.into_iter().collect();
                    let of = |key| match found.remove(key) {
                        None => Ok(Loaded::absent()),
                        Some(Ok(loaded)) => loaded.settle(crate::loaded::Previous::default()),
                        Some(Err(error)) => Err(Error::source(error)),
                    };
                    keys.iter().map(of).collect()
                }
                Err(error) => all_failed(&keys, Error::source(error)),
            }
        })
    }
}

fn all_failed<T>(keys: &[String], error: Error) -> Vec<Result<Loaded<T>>> {
    keys.iter().map(|_| Err(error.clone())).collect()
}

struct ByKey<'a, L> {
    keys: &'a [String],
    load: L,
}

impl<T: CacheValue, L: LoadKeys<T>> LoadMany<'static, T> for ByKey<'_, L> {
    fn start(&mut self, missing: Vec<usize>) -> BoxFuture<'static, Vec<Result<Loaded<T>>>> {
        self.load.start(missing.into_iter().map(|at| self.keys[at].clone()).collect())
    }
}
