//! Leading a load: the lease, the source, the fill.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;

use super::chain::{self, Link};
use super::fill::Permit;
use super::flight::Landed;
use super::lookup::Missed;
use super::read::{Answer, Lead};
use super::{Engine, LEASE_LIFE, Request};
use crate::CacheStrategy;
use crate::backend::{Acquired, CacheBackend};
use crate::entity::CacheValue;
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;
use crate::observe::Event;
use crate::outcome::Stored;

/// The source of a value, asked once for each load.
pub(crate) trait Load<T>: Send {
    /// Whether a value from the cache may be used; one that may not is a miss.
    fn accepts(value: &T) -> bool {
        let _ = value;
        true
    }

    /// `Ok(None)`: the source has no such value.
    fn load(&mut self) -> impl Future<Output = Result<Option<T>>> + Send;
}

/// A loader made of a function that is called at most once.
pub(crate) struct OnceLoad<F>(Option<F>);

impl<F> OnceLoad<F> {
    pub(crate) fn new(load: F) -> Self {
        Self(Some(load))
    }
}

impl<T, E, F, Fut> Load<T> for OnceLoad<F>
where
    T: Send,
    E: Into<Box<dyn std::error::Error + Send + Sync>>,
    F: FnOnce() -> Fut + Send,
    Fut: Future<Output = Result<T, E>> + Send,
{
    async fn load(&mut self) -> Result<Option<T>> {
        match self.0.take() {
            Some(load) => load().await.map(Some).map_err(Error::source),
            None => unreachable!("a read leads at most one load"),
        }
    }
}

/// What the source said, and what asking it cost.
pub(super) struct Loaded<T> {
    pub(super) value: Option<T>,
    pub(super) cost: Duration,
}

/// A lease was asked for; this is how it went.
enum Leased<T> {
    /// Load, and store as the permit says.
    Permit(Permit, Option<Error>),
    /// Somebody stored a usable value between the lookup and the lease.
    Found(Answer<T>),
}

impl<B: CacheBackend> Engine<B> {
    /// Runs the load that the lead is for and ends the flight.
    pub(super) async fn lead<T, L>(
        &self,
        mut lead: Lead<'_, B>,
        request: &Request<'_>,
        missed: Missed,
        link: Arc<Link>,
        loader: &mut L,
    ) -> Result<Answer<T>>
    where
        T: CacheValue,
        L: Load<T>,
    {
        let ending = self.load_and_store(&mut lead, request, missed, link, loader).await;
        lead.complete(|| {
            // `Clone` is somebody else's code, and everyone who waits hangs on it.
            catch_unwind(AssertUnwindSafe(|| Arc::new(ending.clone()) as Landed)).unwrap_or_else(|_| {
                let error = Error::new(ErrorKind::LoaderPanicked, "cloning the loaded value panicked");
                Arc::new(Err::<Answer<T>, _>(error))
            })
        });
        ending
    }

    async fn load_and_store<T, L>(
        &self,
        lead: &mut Lead<'_, B>,
        request: &Request<'_>,
        missed: Missed,
        link: Arc<Link>,
        loader: &mut L,
    ) -> Result<Answer<T>>
    where
        T: CacheValue,
        L: Load<T>,
    {
        let (permit, mut degraded) = match self.take_lease(lead, request, missed, L::accepts).await {
            Leased::Permit(permit, degraded) => (permit, degraded),
            Leased::Found(answer) => return Ok(answer),
        };
        let loaded = self.run_loader(&request.key, link, loader).await;
        let Ok(Loaded { value: Some(value), cost }) = loaded else {
            // Nothing to store: whoever comes next need not wait for the lease to end.
            if let Some(lease) = lead.leader().lease.take() {
                self.release(&request.key, &lease).await;
            }
            return loaded.map(|_| Answer::loaded(None, Stored::NotAsked, degraded));
        };
        let stored = self.fill(lead.leader(), request, permit, &value, cost).await;
        let stored = stored.unwrap_or_else(|error| {
            degraded.get_or_insert(error);
            Stored::Failed
        });
        Ok(Answer::loaded(Some(value), stored, degraded))
    }

    /// Takes the lease, unless an earlier leader of this flight left one.
    async fn take_lease<T: CacheValue>(
        &self,
        lead: &mut Lead<'_, B>,
        request: &Request<'_>,
        missed: Missed,
        accepts: fn(&T) -> bool,
    ) -> Leased<T> {
        if lead.leader().lease.is_some() {
            // Whoever took it had looked, and the fill will tell whether it still holds.
            return Leased::Permit(Permit::Lease, missed.into_error());
        }
        let mut seen = match missed {
            // What is not known must not be written over.
            Missed::Unknown(error) => return Leased::Permit(Permit::Unknown, Some(error)),
            // Taken when the flight was joined.
            Missed::Absent | Missed::Leased(..) => None,
            Missed::Unusable(entry) => Some(entry),
        };
        // Once for what the lookup saw, and once more for what came since, if that is of no use either.
        for _ in 0..2 {
            let key = request.key.as_str();
            let entry = match self.backend().acquire(key, seen.as_ref(), LEASE_LIFE).await {
                Ok(Acquired::Granted { lease, .. }) => {
                    lead.leader().lease = Some(lease);
                    return Leased::Permit(Permit::Lease, None);
                }
                Ok(Acquired::Busy { .. }) => {
                    // The one that has it may be a reader of this cache who was here first and leads nothing.
                    let leader = lead.leader();
                    let offered = self.core.looking.wait(request.key.hash(), || leader.take_offered()).await;
                    let permit = if offered.is_some() { Permit::Lease } else { Permit::LeftToOther };
                    lead.leader().lease = offered;
                    return Leased::Permit(permit, None);
                }
                Ok(Acquired::Present { value }) => value,
                Ok(Acquired::Unfenced) => match self.second_look(request, seen.as_ref()).await {
                    Ok(Some(entry)) => entry,
                    Ok(None) => return Leased::Permit(Permit::Unfenced, None),
                    Err(error) => return Leased::Permit(Permit::Unknown, Some(error)),
                },
                Err(error) => {
                    self.backend_failed(&request.key, "no lease could be taken", &error);
                    return Leased::Permit(Permit::Unknown, Some(error));
                }
            };
            // The load of an invalidation is not answered from the cache.
            if request.strategy != CacheStrategy::Invalidate
                && let Ok(found) = self.judge(request, entry.clone(), accepts)
            {
                return Leased::Found(Answer::cached(found));
            }
            seen = Some(entry);
        }
        Leased::Permit(if self.is_fenced() { Permit::LeftToOther } else { Permit::Unfenced }, None)
    }

    /// Without a fence, a load that ended between the lookup and the lead shows only by looking again.
    async fn second_look(&self, request: &Request<'_>, seen: Option<&Bytes>) -> Result<Option<Bytes>> {
        match self.fetch(request.key.as_str()).await {
            Ok(entry) => Ok(entry.filter(|entry| Some(entry) != seen)),
            Err(error) => {
                self.backend_failed(&request.key, "the cache could not be read", &error);
                Err(error)
            }
        }
    }

    /// Asks the source. A panic is an error, here and for everyone who waits.
    pub(super) async fn run_loader<T, L: Load<T>>(
        &self,
        key: &Key<'_>,
        link: Arc<Link>,
        loader: &mut L,
    ) -> Result<Loaded<T>> {
        self.count(Event::Load);
        let started = self.settings.clock.now();
        let load = AssertUnwindSafe(chain::within(link, loader.load())).catch_unwind();
        #[cfg(feature = "tracing")]
        let load =
            tracing::Instrument::instrument(load, crate::observe::load_span(self.core.capabilities.name));
        let loaded = load.await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::LoaderPanicked, "nothing was stored; the next read loads afresh"))
        });
        match loaded {
            Ok(value) => Ok(Loaded { value, cost: self.settings.clock.now().since(started) }),
            Err(error) => {
                self.count(Event::LoadFailed);
                self.observer.tell(|metrics| metrics.record_error(key.as_str(), &error.to_string()));
                Err(error)
            }
        }
    }
}
