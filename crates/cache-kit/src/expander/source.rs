//! Repositories as loaders.

use std::sync::Arc;

use futures_util::future::BoxFuture;

use crate::engine::{Load, LoadMany};
use crate::entity::CacheEntity;
use crate::error::Result;
use crate::loaded::{Loaded, Previous};
use crate::policy;
use crate::repository::DataRepository;

/// A repository that is asked in the caller's task, again if it fails.
pub(super) struct FromRepository<'a, R, K> {
    pub(super) repository: &'a R,
    pub(super) id: &'a K,
    pub(super) retries: u32,
}

impl<T: CacheEntity, R: DataRepository<T>> Load<T> for FromRepository<'_, R, T::Key> {
    const KNOWS_ABSENCE: bool = true;
    const WANTS_PREVIOUS: bool = true;

    fn accepts(entity: &T) -> bool {
        entity.validate().is_ok()
    }

    async fn load(&mut self, previous: Previous<T>) -> Result<Loaded<T>> {
        let ask = || self.repository.reload(self.id, previous.clone());
        valid(retrying(self.retries, ask).await?.settle(previous.clone())?)
    }
}

/// A repository that outlives the caller.
pub(super) struct FromShared<R, K> {
    pub(super) repository: Arc<R>,
    pub(super) id: K,
    pub(super) retries: u32,
}

impl<T: CacheEntity, R: DataRepository<T>> Load<T> for FromShared<R, T::Key> {
    const KNOWS_ABSENCE: bool = true;
    const WANTS_PREVIOUS: bool = true;

    fn accepts(entity: &T) -> bool {
        entity.validate().is_ok()
    }

    async fn load(&mut self, previous: Previous<T>) -> Result<Loaded<T>> {
        let ask = || self.repository.reload(&self.id, previous.clone());
        valid(retrying(self.retries, ask).await?.settle(previous.clone())?)
    }
}

/// A repository that is asked for many entities, again for those that fail.
pub(super) struct ByIds<'a, R, K> {
    pub(super) ids: &'a [K],
    pub(super) repository: &'a R,
    pub(super) retries: u32,
}

impl<'a, T: CacheEntity, R: DataRepository<T>> LoadMany<'a, T> for ByIds<'a, R, T::Key> {
    fn accepts(entity: &T) -> bool {
        entity.validate().is_ok()
    }

    fn start(&mut self, missing: Vec<usize>) -> BoxFuture<'a, Vec<Result<Loaded<T>>>> {
        let ids: Vec<T::Key> = missing.iter().map(|&at| self.ids[at].clone()).collect();
        let (repository, retries) = (self.repository, self.retries);
        Box::pin(async move {
            let mut answers = repository.fetch_each(&ids).await;
            for retry in 1..=retries {
                if answers.len() != ids.len() {
                    break;
                }
                let failed: Vec<usize> = failed(&answers);
                if failed.is_empty() {
                    break;
                }
                policy::pause_before_retry(retry).await;
                let again: Vec<T::Key> = failed.iter().map(|&at| ids[at].clone()).collect();
                let found = repository.fetch_each(&again).await;
                if found.len() != again.len() {
                    // Nobody knows which answer is whose; those that failed stay failed.
                    break;
                }
                for (at, found) in failed.into_iter().zip(found) {
                    answers[at] = found;
                }
            }
            answers.into_iter().map(|found| valid(found?.into())).collect()
        })
    }
}

fn failed<T>(answers: &[Result<T>]) -> Vec<usize> {
    let failed = answers.iter().enumerate().filter(|(_, answer)| answer.is_err());
    failed.map(|(at, _)| at).collect()
}

/// Asks, and asks again up to so many times if that fails.
async fn retrying<T, Fut: Future<Output = Result<T>>>(retries: u32, ask: impl Fn() -> Fut) -> Result<T> {
    let mut tried = 0;
    loop {
        match ask().await {
            Err(_) if tried < retries => tried += 1,
            answer => return answer,
        }
        policy::pause_before_retry(tried).await;
    }
}

/// An entity from the source that says it must not be used is an error. What it says of its life and its tags counts where
/// the repository says nothing, and beside what the repository says.
fn valid<T: CacheEntity>(mut loaded: Loaded<T>) -> Result<Loaded<T>> {
    if let Some(entity) = loaded.found() {
        entity.validate()?;
        let (tags, ttl) = (entity.cache_tags(), entity.cache_ttl());
        loaded.ttl = loaded.ttl.or(ttl);
        loaded.tags.extend(tags);
    }
    Ok(loaded)
}
