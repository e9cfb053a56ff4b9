//! A cache on a clock that is moved by hand, the doors that write into it, and an entity with much to say.

#![allow(
    dead_code,
    clippy::unwrap_used,
    clippy::allow_attributes,
    reason = "each test file uses its own part of this"
)]

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use super::common::{SourceDown, until};
use cache_kit::backend::{CacheBackend, InMemoryBackend};
use cache_kit::testing::{Faults, FaultyBackend, Operation};
use cache_kit::{
    Cache, CacheEntity, CacheExpander, CacheStrategy, DataRepository, Error, InlineOptions, LoadOptions,
    Loaded, ManualClock, OperationConfig, Outcome, Policy, Previous, Result,
};
use serde::{Deserialize, Serialize};

pub(crate) const TTL: Duration = Duration::from_secs(100);
pub(crate) const IDLE: Duration = Duration::from_secs(10);
pub(crate) const SECOND: Duration = Duration::from_secs(1);
pub(crate) const MILLI: Duration = Duration::from_millis(1);
pub(crate) const REFRESH: CacheStrategy = CacheStrategy::Refresh;
pub(crate) const CONFIG: fn() -> OperationConfig<'static> = OperationConfig::default;
pub(crate) const OWNED: fn() -> LoadOptions<'static> = LoadOptions::default;

/// A cache in memory, both by one clock.
pub(crate) struct Stage {
    pub time: ManualClock,
    pub memory: InMemoryBackend,
    pub faults: Arc<Faults>,
    pub cache: Cache,
    pub expander: CacheExpander<InMemoryBackend>,
    /// What the loader was shown last.
    pub shown: Arc<Mutex<Previous<u64>>>,
}

pub(crate) fn stage(policy: Policy) -> Stage {
    let time = ManualClock::new();
    let memory = InMemoryBackend::builder().clock(time.clock()).build().unwrap();
    let (backend, faults) = FaultyBackend::new(memory.clone());
    let cache = Cache::builder().clock(time.clock()).policy(policy).build(backend).unwrap();
    let expander = CacheExpander::new(memory.clone()).with_clock(time.clock()).with_policy(policy).unwrap();
    Stage { time, memory, faults, cache, expander, shown: Arc::default() }
}

/// Entries live for [`TTL`].
pub(crate) fn exact() -> Policy {
    Policy::default().with_ttl(TTL).with_ttl_jitter(0.0)
}

pub(crate) fn sliding() -> Policy {
    exact().with_idle(IDLE)
}

impl Stage {
    /// How many of these are there.
    pub(crate) async fn alive(&self, keys: &[String]) -> usize {
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        self.memory.mget(&keys).await.unwrap().into_iter().flatten().count()
    }

    pub(crate) async fn is_alive(&self, key: &str) -> bool {
        self.memory.exists(key).await.unwrap()
    }

    /// Fails unless the entry lives exactly so long from now on.
    pub(crate) async fn lives(&self, key: &str, life: Duration, what: &str) {
        self.time.advance(life - MILLI);
        assert!(self.is_alive(key).await, "{what}: does not live for {life:?}");
        self.time.advance(MILLI);
        assert!(!self.is_alive(key).await, "{what}: lives longer than {life:?}");
    }

    pub(crate) fn writes(&self) -> u64 {
        [Operation::Set, Operation::Fill, Operation::Acquire].map(|one| self.faults.calls(one)).iter().sum()
    }

    pub(crate) async fn idle(&self) {
        idle(&self.cache).await;
    }

    pub(crate) async fn load(
        &self,
        door: Door,
        key: &str,
        loaded: Loaded<u64>,
    ) -> Result<Outcome<Option<u64>>> {
        let (shown, call) = (Arc::clone(&self.shown), 60 * SECOND);
        let load = move |previous: Previous<u64>| async move {
            *shown.lock().unwrap() = previous;
            Ok::<_, SourceDown>(loaded)
        };
        match door {
            Door::Owned => {
                let options = OWNED().with_ttl(call).with_tags(&["call"]);
                self.cache.get_or_load_entry_outcome(key, options, load).await
            }
            Door::Inline => {
                let options = InlineOptions::default().with_ttl(call).with_tags(&["call"]);
                self.cache.get_or_load_entry_inline_outcome(key, options, load).await
            }
            Door::Batch => {
                let mut load = Some(load);
                let many = move |keys: Vec<String>| {
                    let loaded = (load.take().unwrap())(Previous::default());
                    async move { Ok::<_, SourceDown>([(keys[0].clone(), loaded.await)]) }
                };
                let options = OWNED().with_ttl(call).with_tags(&["call"]);
                let mut read = self.cache.get_many_or_load_entries([key], options, many).await?;
                read.remove(0)
            }
        }
    }
}

/// How a loader is run that says how to keep what it has found; each call asks for a minute, and has a tag.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Door {
    Owned,
    Inline,
    Batch,
}

pub(crate) const DOORS: [Door; 3] = [Door::Owned, Door::Inline, Door::Batch];

/// Waits for what runs behind.
pub(crate) async fn idle(cache: &Cache) {
    let is_idle = async || cache.gauges().tasks == 0;
    until("what runs behind ends", Duration::from_secs(20), is_idle).await;
}

pub(crate) async fn many(keys: Vec<String>) -> Result<Vec<(String, u64)>, SourceDown> {
    Ok(keys.into_iter().map(|key| (key, 1)).collect())
}

pub(crate) async fn one() -> Result<u64, SourceDown> {
    Ok(1)
}

pub(crate) async fn down() -> Result<u64, SourceDown> {
    Err(SourceDown(0))
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Note {
    pub team: String,
    pub seconds: Option<u64>,
}

/// Whether notes of the team "refused" are.
pub(crate) static REFUSES: AtomicBool = AtomicBool::new(false);

impl Note {
    pub(crate) fn new(team: &str) -> Self {
        Self { team: team.to_owned(), seconds: None }
    }

    pub(crate) fn living(seconds: u64) -> Self {
        Self { seconds: Some(seconds), ..Self::new("team") }
    }
}

impl CacheEntity for Note {
    type Key = u64;

    fn cache_key(&self) -> u64 {
        1
    }

    fn cache_prefix() -> &'static str {
        "note"
    }

    fn cache_tags(&self) -> Vec<String> {
        vec![self.team.clone()]
    }

    fn cache_ttl(&self) -> Option<Duration> {
        self.seconds.map(Duration::from_secs)
    }

    fn validate(&self) -> Result<()> {
        let is_refused = self.team == "refused" && REFUSES.load(Ordering::SeqCst);
        if is_refused { Err(Error::source(SourceDown(1))) } else { Ok(()) }
    }
}

/// A table of one row, which may have more to say of it, and remembers what it was shown.
pub(crate) struct Notes {
    pub row: Note,
    pub said: Mutex<Option<Loaded<Note>>>,
    pub shown: Mutex<Vec<Previous<Note>>>,
}

impl Notes {
    pub(crate) fn of(row: Note) -> Self {
        Self { row, said: Mutex::default(), shown: Mutex::default() }
    }

    pub(crate) fn say(&self, said: Loaded<Note>) {
        *self.said.lock().unwrap() = Some(said);
    }
}

impl DataRepository<Note> for Notes {
    async fn fetch_by_id(&self, _: &u64) -> Result<Option<Note>> {
        Ok(Some(self.row.clone()))
    }

    async fn reload(&self, _: &u64, previous: Previous<Note>) -> Result<Loaded<Note>> {
        self.shown.lock().unwrap().push(previous);
        let said = self.said.lock().unwrap().clone();
        Ok(said.unwrap_or_else(|| Loaded::value(self.row.clone())))
    }
}

impl Stage {
    /// Reads the note as its expander does.
    pub(crate) async fn note(&self, notes: &Arc<Notes>, door: &str) -> Result<Outcome<Option<Note>>> {
        let config = CONFIG().with_ttl(60 * SECOND);
        match door {
            "owned" => self.expander.get_owned_outcome(1, Arc::clone(notes), REFRESH, config).await,
            "inline" => self.expander.get_outcome(&1, &**notes, REFRESH, config).await,
            _ => self.expander.get_many_outcomes(&[1], &**notes, config).await?.remove(0),
        }
    }

    pub(crate) async fn is_cached(&self) -> bool {
        // Who only looks loads nothing.
        let read = self.expander.get_outcome::<Note, _>(&1, &Down, CacheStrategy::Fresh, CONFIG());
        read.await.unwrap().value.is_some()
    }
}

pub(crate) struct Down;

impl DataRepository<Note> for Down {
    async fn fetch_by_id(&self, id: &u64) -> Result<Option<Note>> {
        Err(Error::source(SourceDown(*id)))
    }
}
