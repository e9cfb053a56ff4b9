//! Versions of the namespace and of tags: what an invalidation of many entries changes, at constant cost.
//!
//! A version is a random number under a key of its own. An entry carries those that held when its load began, and is a miss
//! once one of them is another: whatever was read before the change cannot outlive it, so versions fence as well. To
//! invalidate is to remove the version. One that is missing, for whatever reason, is made anew, at random and by one
//! process: entries of the lost one do not come back.
//!
//! The version of the namespace is there once on each part of the backend ([`CacheBackend::shards`]), beside the keys that
//! it guards. What was read is remembered for [`Policy::tag_version_max_age`](crate::Policy::tag_version_max_age); what this
//! process changes is forgotten at once. No I/O in this file.
//!
//! [`CacheBackend::shards`]: crate::backend::CacheBackend::shards

mod fetch;
mod invalidate;
mod keep;

pub(super) use self::fetch::{Captured, View};

use std::collections::HashMap;
use std::hash::{BuildHasher as _, RandomState};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use xxhash_rust::xxh3::xxh3_64;

use crate::clock::Tick;

const STRIPES: usize = 64;
/// Tags that are remembered, at most.
const MAX_TAGS: usize = 64 * 1024;

/// What has a version.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Scope {
    /// The namespace, as far as it is on this part of the backend.
    Shard(usize),
    /// The entries with this tag.
    Tag(Box<str>),
    /// Changes with each invalidation of any tag, and guards no entry: who learns a tag only from what was loaded sees
    /// here whether it may have been invalidated meanwhile.
    AnyTag,
}

type Table = HashMap<Box<str>, Arc<Cell>>;

/// What this process knows of versions.
pub(crate) struct Versions {
    /// The namespace where all keys are in one place.
    whole: Arc<Cell>,
    /// The namespace on each part.
    parts: OnceLock<Box<[Arc<Cell>]>>,
    any_tag: Arc<Cell>,
    tags: Box<[Mutex<Table>]>,
    hasher: RandomState,
}

/// One version, as far as it is known.
#[derive(Default)]
pub(super) struct Cell {
    /// Zero if it is not known.
    version: AtomicU64,
    /// When it was asked for, in nanoseconds of the clock.
    asked_at: AtomicU64,
    /// The generation of its key when it was asked for.
    generation: AtomicU64,
    /// Where that is counted.
    slot: AtomicUsize,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Counts what this process has done to it; what was asked for before is not to be remembered.
    changes: u64,
    /// Invalidations under way.
    changing: u32,
    /// When the version itself expires on the backend, in milliseconds since 1970.
    expires_at: u64,
    /// When the answer was there.
    answered_at: Option<Tick>,
}

/// How old what is remembered may be.
#[derive(Clone, Copy)]
pub(super) enum Bound {
    /// Nobody outside of this process changes anything: as long as nobody in it has.
    Generation,
    /// Not asked for before this.
    Tick(Tick),
}

/// A version that was asked for, or is: the state of its cell before.
#[derive(Clone, Copy)]
struct Asked {
    changes: u64,
    /// Whether a change was under way already.
    is_changing: bool,
    at: Tick,
    slot: usize,
    generation: u64,
}

/// What became of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Learned {
    /// It is remembered, or something younger is.
    Known,
    /// It was asked for while a change was under way: good for who asked, and for nobody else.
    ForOnce,
    /// A change has begun or ended since: it may be of before, and so not be what holds now.
    Overtaken,
}

/// How versions are stored: the number, and when it expires.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Record {
    version: u64,
    /// In milliseconds since 1970; all ones is without end.
    expires_at: u64,
}

/// Counts the invalidations by version of all caches in this process, by the hashes of their keys: two of the caches may be
/// over one store in memory.
static GENERATIONS: [AtomicU64; SLOTS] = [const { AtomicU64::new(0) }; SLOTS];
const SLOTS: usize = 1024;

fn slot_of(key: &str) -> usize {
    #[expect(clippy::cast_possible_truncation, reason = "only the low bits are used")]
    let at = xxh3_64(key.as_bytes()) as usize % SLOTS;
    at
}

/// Tells all caches of this process that the version under a key is another.
fn bump(key: &str) {
    GENERATIONS[slot_of(key)].fetch_add(1, Ordering::SeqCst);
}

impl Versions {
    pub(super) fn new() -> Self {
        Self {
            whole: Arc::default(),
            parts: OnceLock::new(),
            any_tag: Arc::default(),
            tags: (0..STRIPES).map(|_| Mutex::default()).collect(),
            hasher: RandomState::new(),
        }
    }

    /// What is known of the namespace, of so many parts on this one.
    pub(super) fn shard(&self, shard: usize, shards: usize) -> &Arc<Cell> {
        if shards <= 1 {
            return &self.whole;
        }
        let parts = self.parts.get_or_init(|| (0..shards).map(|_| Arc::default()).collect());
        parts.get(shard).unwrap_or(&self.whole)
    }

    fn cell(&self, scope: &Scope, shards: usize) -> Arc<Cell> {
        match scope {
            Scope::Shard(shard) => Arc::clone(self.shard(*shard, shards)),
            Scope::Tag(tag) => self.tag(tag),
            Scope::AnyTag => Arc::clone(&self.any_tag),
        }
    }

    /// The version of a tag, if it is known and no older than that.
    pub(super) fn known_tag(&self, tag: &str, bound: Bound) -> Option<u64> {
        self.stripe(tag).get(tag)?.known(bound)
    }

    /// The version of a tag, if it was asked for before a load began: whatever happened to the tag since has made it another.
    pub(super) fn tag_before(&self, tag: &str, began: Tick) -> Option<u64> {
        self.stripe(tag).get(tag)?.before(began)
    }

    fn tag(&self, tag: &str) -> Arc<Cell> {
        let mut stripe = self.stripe(tag);
        if let Some(cell) = stripe.get(tag) {
            return Arc::clone(cell);
        }
        if stripe.len() >= MAX_TAGS / STRIPES {
            // What somebody is about to change, or to learn, has to stay.
            stripe.retain(|_, cell| Arc::strong_count(cell) > 1);
        }
        let cell = Arc::<Cell>::default();
        stripe.insert(tag.into(), Arc::clone(&cell));
        cell
    }

    fn stripe(&self, tag: &str) -> MutexGuard<'_, Table> {
        #[expect(clippy::cast_possible_truncation, reason = "only the low bits are used")]
        let at = self.hasher.hash_one(tag) as usize % STRIPES;
        lock(&self.tags[at])
    }
}

impl Cell {
    /// The version, if it is known and no older than that.
    pub(super) fn known(&self, bound: Bound) -> Option<u64> {
        // Looked at before the version, and written after it: a version is never taken for younger than it is.
        let is_young = match bound {
            Bound::Generation => {
                let slot = self.slot.load(Ordering::Acquire);
                self.generation.load(Ordering::Acquire) == GENERATIONS[slot].load(Ordering::SeqCst)
            }
            Bound::Tick(oldest) => self.asked_at.load(Ordering::Acquire) >= oldest.to_bits(),
        };
        let version = self.version.load(Ordering::Acquire);
        (is_young && version != 0).then_some(version)
    }

    /// The version, if the backend had answered with it before this.
    fn before(&self, tick: Tick) -> Option<u64> {
        // Both of one answer.
        let state = lock(&self.state);
        let version = self.version.load(Ordering::Acquire);
        let is_older = state.answered_at.is_some_and(|answered_at| answered_at < tick);
        (is_older && version != 0).then_some(version)
    }

    fn ask(&self, at: Tick, key: &str) -> Asked {
        let slot = slot_of(key);
        let generation = GENERATIONS[slot].load(Ordering::SeqCst);
        let state = lock(&self.state);
        Asked { changes: state.changes, is_changing: state.changing > 0, at, slot, generation }
    }

    /// Remembers what the backend has answered, unless this process has changed it meanwhile, or asked again.
    fn learn(&self, asked: Asked, record: Record, answered_at: Tick) -> Learned {
        let mut state = lock(&self.state);
        if asked.changes != state.changes {
            return Learned::Overtaken;
        }
        if asked.is_changing {
            return Learned::ForOnce;
        }
        let has_younger = self.version.load(Ordering::Relaxed) != 0
            && self.asked_at.load(Ordering::Relaxed) > asked.at.to_bits();
        if !has_younger {
            state.expires_at = record.expires_at;
            if self.version.swap(record.version, Ordering::AcqRel) != record.version {
                // One that was known before is known since then.
                state.answered_at = Some(answered_at);
            }
            self.asked_at.store(asked.at.to_bits(), Ordering::Release);
            self.slot.store(asked.slot, Ordering::Release);
            self.generation.store(asked.generation, Ordering::Release);
        }
        Learned::Known
    }

    fn forget(&self, state: &mut State) {
        state.changes += 1;
        self.version.store(0, Ordering::SeqCst);
    }

    fn begin_change(&self) {
        let mut state = lock(&self.state);
        state.changing += 1;
        self.forget(&mut state);
    }

    fn end_change(&self) {
        let mut state = lock(&self.state);
        state.changing -= 1;
        self.forget(&mut state);
    }

    /// What is on the backend, if it would expire before this, in milliseconds since 1970.
    fn expires_before(&self, version: u64, end: u64) -> Option<Record> {
        let state = lock(&self.state);
        let is_current = self.version.load(Ordering::Relaxed) == version;
        (is_current && state.expires_at < end).then_some(Record { version, expires_at: state.expires_at })
    }
}

impl Record {
    const LEN: usize = 16;
    const NEVER: u64 = u64::MAX;

    /// A new version, not zero, which stands for one that is not known.
    fn draw(now: u64, life: Option<Duration>) -> Self {
        Self { version: fastrand::u64(1..), expires_at: Self::end(now, life) }
    }

    /// When something that lives so long ends.
    fn end(now: u64, life: Option<Duration>) -> u64 {
        let millis = life.map(|life| u64::try_from(life.as_millis()).unwrap_or(Self::NEVER));
        millis.map_or(Self::NEVER, |millis| now.saturating_add(millis))
    }

    /// For how long it is stored.
    fn ttl(self, now: u64) -> Option<Duration> {
        (self.expires_at != Self::NEVER)
            .then(|| Duration::from_millis(self.expires_at.saturating_sub(now).max(1)))
    }

    fn to_bytes(self) -> Bytes {
        let mut bytes = Vec::with_capacity(Self::LEN);
        bytes.extend_from_slice(&self.version.to_le_bytes());
        bytes.extend_from_slice(&self.expires_at.to_le_bytes());
        bytes.into()
    }

    /// `None` for what is no version.
    fn parse(bytes: &[u8]) -> Option<Self> {
        let bytes: [u8; Self::LEN] = bytes.try_into().ok()?;
        let (version, expires_at) = bytes.split_at(8);
        let number = |bytes: &[u8]| bytes.try_into().map(u64::from_le_bytes).ok();
        let record = Self { version: number(version)?, expires_at: number(expires_at)? };
        (record.version != 0).then_some(record)
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    const ONE: Record = Record { version: 1, expires_at: Record::NEVER };
    const TWO: Record = Record { version: 2, expires_at: Record::NEVER };

    #[test]
    fn what_is_remembered_is_no_older_than_asked() {
        let time = ManualClock::new();
        let now = || time.clock().now();
        let cell = Cell::default();
        cell.learn(cell.ask(now(), "key"), ONE, now());
        let asked_at = now();
        time.advance(Duration::from_secs(1));
        assert_eq!(cell.known(Bound::Tick(asked_at)), Some(1));
        assert_eq!(cell.known(Bound::Tick(now())), None);
        assert_eq!(cell.before(now()), Some(1));
    }

    #[test]
    fn what_was_answered_after_a_load_began_was_not_known_before_it() {
        let time = ManualClock::new();
        let now = || time.clock().now();
        let cell = Cell::default();
        let asked = cell.ask(now(), "key");
        time.advance(Duration::from_millis(1));
        let began = now();
        assert_eq!(cell.learn(asked, ONE, began), Learned::Known);
        assert_eq!(cell.before(began), None, "asked for before, and answered at the same time");
        time.advance(Duration::from_millis(1));
        assert_eq!(cell.before(now()), Some(1));
        cell.learn(cell.ask(now(), "key"), ONE, now());
        assert_eq!(cell.before(now()), Some(1), "the same as before is known since then");
    }

    #[test]
    fn within_a_process_a_version_is_known_until_its_own_key_changes() {
        let now = ManualClock::new().clock().now();
        let cell = Cell::default();
        cell.learn(cell.ask(now, "a key"), ONE, now);
        assert_eq!(cell.known(Bound::Generation), Some(1));
        assert_ne!(slot_of("a key"), slot_of("another"));
        bump("another");
        assert_eq!(cell.known(Bound::Generation), Some(1));
        bump("a key");
        assert_eq!(cell.known(Bound::Generation), None);
    }

    #[test]
    fn an_answer_that_a_change_overtook_is_not_remembered() {
        let now = ManualClock::new().clock().now();
        let cell = Cell::default();
        let asked = cell.ask(now, "key");
        cell.begin_change();
        assert_eq!(cell.learn(asked, ONE, now), Learned::Overtaken);
        assert_eq!(cell.known(Bound::Tick(now)), None);
        let during = cell.ask(now, "key");
        assert_eq!(cell.learn(during, ONE, now), Learned::ForOnce);
        cell.end_change();
        assert_eq!(cell.learn(during, ONE, now), Learned::Overtaken);
        assert_eq!(cell.known(Bound::Tick(now)), None);
        cell.learn(cell.ask(now, "key"), TWO, now);
        assert_eq!(cell.known(Bound::Tick(now)), Some(2));
    }

    #[test]
    fn an_older_answer_does_not_replace_a_younger_one() {
        let time = ManualClock::new();
        let cell = Cell::default();
        let early = cell.ask(time.clock().now(), "key");
        time.advance(Duration::from_millis(1));
        let late = time.clock().now();
        cell.learn(cell.ask(late, "key"), TWO, late);
        cell.learn(early, ONE, late);
        assert_eq!(cell.known(Bound::Tick(late)), Some(2));
    }

    #[test]
    fn versions_are_drawn_at_random_and_read_back() {
        let record = Record::draw(1_000, Some(Duration::from_secs(1)));
        assert_eq!(record.expires_at, 2_000);
        assert_eq!(Record::parse(&record.to_bytes()), Some(record));
        assert_ne!(record.version, Record::draw(1_000, None).version);
        for none in [&b""[..], b"0123456789abcde", &[0; 16], b"somebody else's value"] {
            assert_eq!(Record::parse(none), None);
        }
    }

    #[test]
    fn no_more_tags_are_remembered_than_there_is_room_for() {
        let versions = Versions::new();
        for at in 0..MAX_TAGS * 2 {
            let _cell = versions.tag(&at.to_string());
        }
        let remembered: usize = versions.tags.iter().map(|stripe| lock(stripe).len()).sum();
        assert!(remembered <= MAX_TAGS, "{remembered}");
    }
}
