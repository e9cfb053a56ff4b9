//! The typed read pipeline, and the parts that it is made of.
//!
//! | file | subject |
//! |---|---|
//! | `read` | the steps of a read, in order |
//! | `lookup` | what the backend says about a key: fresh, unusable, absent, unknown |
//! | `load` | leading a load: lease, source, fill |
//! | `fill` | encoding a value and storing it, fenced |
//! | `batch` | many keys in one exchange |
//! | `write` | writing and invalidating |
//! | `flight` | one load per key at a time |
//! | `chain` | which loads the current task is inside of |
//!
//! The engine knows backends only by their trait and capabilities.

mod batch;
mod chain;
mod fill;
mod flight;
mod load;
mod looking;
mod lookup;
mod read;
mod write;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

pub(crate) use batch::LoadMany;
pub(crate) use load::{Load, OnceLoad};
pub(crate) use read::Answer;

use self::flight::Flights;
use self::looking::Looking;
use crate::backend::{CacheBackend, Capabilities, Fence};
use crate::clock::Clock;
use crate::entry::Codec;
use crate::key::Key;
use crate::observe::{Counters, Event, Observer, Stats, survived};
use crate::policy::TtlPolicy;
use crate::{CacheStrategy, Error};

/// How long a lease lives: a load that takes longer is answered but not stored.
const LEASE_LIFE: Duration = Duration::from_secs(30);

/// What the doors set.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) namespace: Option<Arc<str>>,
    pub(crate) ttl: TtlPolicy,
    pub(crate) codec: Codec,
    /// The version of the types behind closures.
    pub(crate) schema_version: u32,
    /// Largest entry in bytes, header included.
    pub(crate) max_value_bytes: usize,
    /// Whether each value is decoded again and compared before it is stored.
    pub(crate) verify_roundtrip: bool,
    pub(crate) clock: Clock,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            namespace: None,
            ttl: TtlPolicy::Default,
            codec: Codec::default(),
            schema_version: 0,
            max_value_bytes: 8 << 20,
            verify_roundtrip: cfg!(debug_assertions),
            clock: Clock::system(),
        }
    }
}

/// A backend with everything that reading through it needs. Cloned for a load that outlives its caller.
pub(crate) struct Engine<B> {
    core: Arc<Core<B>>,
    pub(crate) settings: Settings,
    pub(crate) observer: Observer,
}

/// What all clones share.
struct Core<B> {
    backend: B,
    capabilities: Capabilities,
    flights: Arc<Flights>,
    /// Lookups that may bring a lease.
    pub(super) looking: Arc<Looking>,
    counters: Counters,
    /// Counts invalidations, for fills of backends without a fence.
    invalidations: AtomicU64,
}

/// One read.
#[derive(Clone)]
pub(crate) struct Request<'a> {
    pub(crate) key: Key<'a>,
    /// The schema that the entry must have.
    pub(crate) schema: u64,
    /// What [`TtlPolicy::PerType`] is asked with.
    pub(crate) prefix: &'static str,
    /// The life that this call wants.
    pub(crate) ttl: Option<Duration>,
    pub(crate) strategy: CacheStrategy,
}

impl Request<'_> {
    pub(crate) fn into_owned(self) -> Request<'static> {
        Request { key: self.key.into_owned(), ..self }
    }
}

impl<B> Clone for Engine<B> {
    fn clone(&self) -> Self {
        Self {
            core: Arc::clone(&self.core),
            settings: self.settings.clone(),
            observer: self.observer.clone(),
        }
    }
}

impl<B: CacheBackend> Engine<B> {
    pub(crate) fn new(backend: B, settings: Settings) -> Self {
        let capabilities = backend.capabilities();
        let core = Core {
            backend,
            capabilities,
            flights: Flights::new(),
            looking: Looking::new(),
            counters: Counters::new(),
            invalidations: AtomicU64::new(0),
        };
        Self { core: Arc::new(core), settings, observer: Observer::default() }
    }

    pub(crate) fn backend(&self) -> &B {
        &self.core.backend
    }

    pub(crate) fn stats(&self) -> Stats {
        self.core.counters.snapshot()
    }

    /// How many loads others can join at this moment.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn loads_under_way(&self) -> usize {
        self.core.flights.len()
    }

    /// How many reads wait for a load at this moment.
    #[cfg(any(test, feature = "testing"))]
    pub(crate) fn readers_waiting(&self) -> usize {
        self.core.flights.waiting()
    }

    fn count(&self, event: Event) {
        self.core.counters.count(event);
    }

    fn is_fenced(&self) -> bool {
        self.core.capabilities.fence != Fence::None
    }

    /// A stamp that differs after any invalidation.
    fn invalidations(&self) -> u64 {
        self.core.invalidations.load(Ordering::SeqCst)
    }

    /// The backend failed in a way that the caller may survive.
    fn backend_failed(&self, key: &Key<'_>, what: &'static str, error: &Error) {
        self.count(Event::BackendError);
        self.observer.tell(|metrics| metrics.record_error(key.as_str(), &error.to_string()));
        survived(what, error);
    }
}
