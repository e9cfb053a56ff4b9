//! The typed read pipeline, and the parts that it is made of.
//!
//! | file | subject |
//! |---|---|
//! | `read`, `answer` | the steps of a read, in order, and what it found |
//! | `lookup` | what the backend says about a key: fresh, stale, unusable, absent, unknown |
//! | `looking` | which lookups may bring a lease |
//! | `stale` | when a stale value is served, and what the source's errors say about it |
//! | `cooldown` | which keys the source has just failed for |
//! | `join` | joining a load, waiting for it, getting to lead it |
//! | `flight` | the state machine of that: one load per key at a time |
//! | `load` | leading a load: its turn, the source, the fill |
//! | `lease` | the lease of a load: taken, kept, waited for |
//! | `fill` | encoding a value and storing it, fenced |
//! | `batch` | many keys in one exchange |
//! | `early` | entries that are loaded anew before their end, or live on because they are read |
//! | `absent` | how often it is remembered that the source does not have something |
//! | `write` | writing, invalidating, expiring |
//! | `hold` | keys that nothing is stored under while the source is changed |
//! | `pending`, `replay` | invalidations that are not confirmed yet, and sending them again |
//! | `versions` | invalidating everything with a tag, or everything |
//! | `turns` | how many loads run at a time |
//! | `tasks` | the loads that run behind their callers |
//! | `chain` | which loads the current task is inside of |
//! | `sync` | what `flight` is locked with: std's, or the model checker's |
//!
//! The engine knows backends only by their trait and capabilities.

mod absent;
mod answer;
mod batch;
mod chain;
mod cooldown;
mod early;
mod fill;
mod flight;
mod hold;
mod join;
mod lease;
mod load;
mod looking;
mod lookup;
mod pending;
mod read;
mod replay;
mod stale;
mod sync;
mod tasks;
mod turns;
mod versions;
mod write;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::time::Duration;

pub(crate) use answer::Answer;
pub(crate) use batch::LoadMany;
pub use hold::Hold;
pub(crate) use load::{EntryLoad, Load, OnceLoad};
pub(crate) use lookup::Usable;

pub use stale::SourceFailure;

use self::absent::Absent;
use self::cooldown::Cooldown;
use self::early::Touching;
use self::flight::Flights;
use self::hold::Holds;
use self::looking::Looking;
use self::pending::Pending;
use self::tasks::Tasks;
use self::turns::Turns;
use self::versions::Versions;
use crate::backend::{CacheBackend, Capabilities, Fence};
use crate::clock::Clock;
use crate::entry::{Codec, Schema};
use crate::key::Key;
use crate::observe::{Counters, Event, Observer, Stats, survived};
use crate::policy::{Limits, Policy, TtlPolicy};
use crate::tags::Tags;
use crate::{CacheStrategy, Error, ErrorKind, Result};

/// How long a lease lives without being renewed: for so long at most a process that died keeps others from storing.
const LEASE_LIFE: Duration = Duration::from_secs(3);
/// How often it is renewed while its load is polled.
const RENEW_EVERY: Duration = Duration::from_secs(1);

/// What the doors set.
#[derive(Clone)]
pub(crate) struct Settings {
    pub(crate) namespace: Option<Arc<str>>,
    ttl: TtlPolicy,
    pub(crate) codec: Codec,
    /// The version of the types behind closures.
    pub(crate) schema_version: u32,
    /// Largest entry in bytes, header included.
    pub(crate) max_value_bytes: usize,
    /// Whether each value is decoded again and compared before it is stored.
    pub(crate) verify_roundtrip: bool,
    pub(crate) clock: Clock,
    /// As it was given.
    given: Policy,
    /// The same with the life that `ttl` says.
    policy: Policy,
    /// The same without stale values.
    never_stale: Policy,
    /// Those that the shared parts were made with.
    pub(crate) limits: Limits,
    /// What errors of the source say, where they do not say it themselves.
    pub(crate) classify: Option<fn(&Error) -> SourceFailure>,
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
            given: Policy::default(),
            policy: Policy::default(),
            never_stale: Policy::default().never_stale(),
            limits: Limits::default(),
            classify: None,
        }
    }
}

impl Settings {
    pub(crate) fn set_policy(&mut self, policy: Policy) {
        self.given = policy;
        self.settle();
    }

    pub(crate) fn set_ttl(&mut self, ttl: TtlPolicy) {
        self.ttl = ttl;
        self.settle();
    }

    /// Whichever of the two was set first, the life that `ttl` says wins.
    fn settle(&mut self) {
        self.policy = self.ttl.over(self.given);
        self.never_stale = self.policy.never_stale();
    }

    pub(crate) fn ttl(&self) -> &TtlPolicy {
        &self.ttl
    }

    /// What calls and entities change.
    pub(crate) fn policy(&self) -> &Policy {
        &self.policy
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
    /// The loads that may run.
    turns: Arc<Turns>,
    tasks: Arc<Tasks>,
    cooldown: Cooldown,
    pending: Pending,
    /// Whether a task sends what is pending.
    replaying: AtomicBool,
    holds: Holds,
    versions: Versions,
    absent: Arc<Absent>,
    touching: Arc<Touching>,
}

/// What a cache is busy with at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gauges {
    /// Loads that others would join.
    pub loads: usize,
    /// Loads that run in tasks of their own.
    pub tasks: usize,
    /// Reads that wait for a load, and loads that wait for their turn.
    pub waiting: usize,
    /// Invalidations that the backend has not confirmed.
    pub pending_invalidations: usize,
    /// For how long the oldest of them has been waiting.
    pub oldest_pending: Option<Duration>,
}

/// One read.
#[derive(Clone)]
pub(crate) struct Request<'a> {
    pub(crate) key: Key<'a>,
    /// The schema that the entry must have.
    pub(crate) schema: Schema,
    /// The format that an entry is stored in, if it is not the cache's.
    pub(crate) codec: Option<Codec>,
    /// What [`TtlPolicy::PerType`] is asked with.
    pub(crate) prefix: &'static str,
    /// The life that this call or its entity wants, whatever else says otherwise; within, `None` is without end.
    pub(crate) ttl: Option<Option<Duration>>,
    pub(crate) strategy: CacheStrategy,
    pub(crate) terms: Terms,
    /// What an entry that this stores is tagged with.
    pub(crate) tags: Tags,
    /// Whether the loader may name more.
    pub(crate) may_choose_tags: bool,
}

/// By which policy a read goes.
#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Terms {
    /// The cache's.
    Cache,
    /// The cache's, without stale values.
    NeverStale,
    /// One of the call's or the entity's own.
    Call(Box<Policy>),
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
            turns: Turns::new(settings.limits.max_concurrent_loads),
            tasks: Tasks::new(),
            cooldown: Cooldown::new(),
            pending: Pending::new(settings.limits.max_pending_invalidations),
            replaying: AtomicBool::new(false),
            holds: Holds::default(),
            versions: Versions::new(),
            absent: Arc::default(),
            touching: Arc::default(),
        };
        Self { core: Arc::new(core), settings, observer: Observer::default() }
    }

    /// Sets the limits of an engine that is not in use yet.
    pub(crate) fn set_limits(&mut self, limits: Limits) -> Result<()> {
        limits.check()?;
        let Some(core) = Arc::get_mut(&mut self.core) else {
            return Err(Error::config("limits are set on a cache that is in use")
                .with_hint("set them before the first read"));
        };
        core.turns = Turns::new(limits.max_concurrent_loads);
        core.pending = Pending::new(limits.max_pending_invalidations);
        self.settings.limits = limits;
        Ok(())
    }

    /// The policy that a read goes by.
    fn policy<'a>(&'a self, request: &'a Request<'_>) -> &'a Policy {
        match &request.terms {
            Terms::Cache => &self.settings.policy,
            Terms::NeverStale => &self.settings.never_stale,
            Terms::Call(policy) => policy,
        }
    }

    pub(crate) fn gauges(&self) -> Gauges {
        let core = &self.core;
        let now = self.settings.clock.now();
        Gauges {
            loads: core.flights.len(),
            tasks: core.tasks.len(),
            waiting: core.flights.waiting() + core.turns.waiting(),
            pending_invalidations: core.pending.len(),
            oldest_pending: core.pending.oldest().map(|since| now.since(since)),
        }
    }

    /// Starts no more loads behind callers, waits for those that run, and then for what is pending, for no longer than
    /// `timeout` altogether.
    pub(crate) async fn shutdown(&self, timeout: Duration) -> Result<()> {
        let clock = &self.settings.clock;
        let end = clock.now().after(timeout);
        let stopped = self.core.tasks.close(clock, timeout).await;
        self.flush_pending(end.since(clock.now())).await?;
        if stopped > 0 {
            return Err(Error::new(
                ErrorKind::Timeout,
                format!("{stopped} loads were stopped after {timeout:?}"),
            ));
        }
        Ok(())
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

    /// The backend failed in a way that the caller may survive.
    fn backend_failed(&self, key: &Key<'_>, what: &'static str, error: &Error) {
        self.count(Event::BackendError);
        self.observer.tell(|metrics| metrics.record_error(key.as_str(), &error.to_string()));
        survived(what, error);
    }
}
