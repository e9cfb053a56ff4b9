//! Invalidations that the backend has not confirmed. No I/O and no clock in here.
//!
//! For each key the newest one is kept. As long as a key is in here, this process does not believe what the backend has
//! under it. When there would be more than may be kept, they *collapse*: the queue is emptied, and everything that was
//! stored so far becomes invalid instead.

use std::collections::{BTreeMap, HashMap};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use tokio::sync::Notify;

use super::versions::Scope;
use crate::backend::pattern_matches;
use crate::clock::Tick;

/// Patterns are looked through for each read.
const MAX_PATTERNS: usize = 64;

/// What the backend is still to be told.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Owed {
    Key(Box<str>),
    Pattern(Box<str>),
    Tag(Box<str>),
    /// Everything on this part of the backend.
    Shard(usize),
    /// Everything, on however many parts it turns out to be.
    Space,
}

impl Owed {
    /// What is owed where a version is to change.
    pub(super) fn of(scope: &Scope) -> Option<Self> {
        match scope {
            Scope::Tag(tag) => Some(Self::Tag(tag.clone())),
            Scope::Shard(shard) => Some(Self::Shard(*shard)),
            Scope::AnyTag => None,
        }
    }

    /// Whether it is of the namespace.
    pub(super) fn is_space(&self) -> bool {
        matches!(self, Self::Shard(_) | Self::Space)
    }
}

/// Whether what was added is in the queue by itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Added {
    Queued,
    /// The queue was full: everything is invalid now.
    Collapsed,
}

/// The queue.
pub(crate) struct Pending {
    /// How many are in the queue, to be read without a lock.
    len: AtomicUsize,
    state: Mutex<State>,
    max: usize,
    /// Told whenever something has been confirmed.
    pub(super) confirmed: Notify,
}

#[derive(Default)]
struct State {
    /// By the number of their newest request.
    queue: BTreeMap<u64, (Owed, Tick)>,
    numbers: HashMap<Owed, u64>,
    patterns: Vec<Box<str>>,
    next: u64,
}

impl Pending {
    pub(super) fn new(max: usize) -> Self {
        Self { len: AtomicUsize::new(0), state: Mutex::default(), max, confirmed: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many are in the queue.
    pub(super) fn len(&self) -> usize {
        self.len.load(Ordering::SeqCst)
    }

    /// Since when the oldest one waits.
    pub(super) fn oldest(&self) -> Option<Tick> {
        self.lock().queue.values().map(|(_, since)| *since).min()
    }

    /// A number that is higher than those of all requests so far.
    pub(super) fn number(&self) -> u64 {
        self.lock().next
    }

    /// Whether what the backend has under this key is not to be believed.
    pub(super) fn holds(&self, key: &str) -> bool {
        self.len.load(Ordering::SeqCst) != 0 && self.lock().holds(key)
    }

    /// Whether exactly this is in the queue.
    pub(super) fn owes(&self, owed: &Owed) -> bool {
        self.len() != 0 && self.lock().numbers.contains_key(owed)
    }

    /// Adds a request, in place of an older one of the same key. If there is no room, `collapse` makes everything invalid
    /// before the queue is emptied.
    pub(super) fn add(&self, owed: Owed, now: Tick, collapse: impl FnOnce()) -> Added {
        let mut state = self.lock();
        let is_new = !state.numbers.contains_key(&owed);
        let is_full = match owed {
            Owed::Key(_) | Owed::Tag(_) => state.queue.len() >= self.max,
            Owed::Pattern(_) => state.queue.len() >= self.max || state.patterns.len() >= MAX_PATTERNS,
            // As few as there are parts.
            Owed::Shard(_) | Owed::Space => false,
        };
        let added = if is_new && is_full {
            collapse();
            let next = state.next;
            *state = State { next, ..State::default() };
            state.insert(Owed::Space, now);
            Added::Collapsed
        } else {
            state.insert(owed, now);
            Added::Queued
        };
        self.len.store(state.queue.len(), Ordering::SeqCst);
        added
    }

    /// The first ones of the queue from a number on, with their numbers.
    pub(super) fn from(&self, number: u64, count: usize) -> Vec<(u64, Owed)> {
        let state = self.lock();
        state.queue.range(number..).take(count).map(|(number, (owed, _))| (*number, owed.clone())).collect()
    }

    /// The backend has confirmed a request that was made before the number `before`; a newer one stays.
    pub(super) fn confirm(&self, owed: &Owed, before: u64) {
        self.confirm_counted(owed, before, || ());
    }

    /// The same, counted before anybody can see that it is gone: who waits for the queue to be empty reads the statistics next.
    pub(super) fn confirm_counted(&self, owed: &Owed, before: u64, count: impl FnOnce()) {
        if self.len() == 0 {
            return;
        }
        let mut state = self.lock();
        if state.numbers.get(owed).is_some_and(|number| *number < before) {
            count();
            state.remove(owed);
            self.len.store(state.queue.len(), Ordering::SeqCst);
            drop(state);
            self.confirmed.notify_waiters();
        }
    }
}

impl State {
    fn holds(&self, key: &str) -> bool {
        // The owned form is what the map can be asked for; only while something is pending.
        self.numbers.contains_key(&Owed::Key(key.into()))
            || self.patterns.iter().any(|pattern| pattern_matches(pattern, key))
    }

    fn insert(&mut self, owed: Owed, now: Tick) {
        // The oldest request tells how long this has been waiting.
        let since = self.remove(&owed).unwrap_or(now);
        if let Owed::Pattern(pattern) = &owed {
            self.patterns.push(pattern.clone());
        }
        self.numbers.insert(owed.clone(), self.next);
        self.queue.insert(self.next, (owed, since));
        self.next += 1;
    }

    fn remove(&mut self, owed: &Owed) -> Option<Tick> {
        let number = self.numbers.remove(owed)?;
        if let Owed::Pattern(pattern) = owed {
            self.patterns.retain(|other| other != pattern);
        }
        self.queue.remove(&number).map(|(_, since)| since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    fn now() -> Tick {
        ManualClock::new().clock().now()
    }

    fn key(key: &str) -> Owed {
        Owed::Key(key.into())
    }

    #[test]
    fn a_key_is_held_until_its_newest_request_is_confirmed() {
        let pending = Pending::new(10);
        assert!(!pending.holds("a"));
        assert_eq!(pending.add(key("a"), now(), || ()), Added::Queued);
        let sent = pending.from(0, 10);
        assert_eq!(pending.add(key("a"), now(), || ()), Added::Queued);
        assert_eq!(pending.len(), 1);
        pending.confirm(&sent[0].1, sent[0].0 + 1);
        assert!(pending.holds("a"), "a newer request is not confirmed by the answer to an older one");
        let [(number, owed)] = &pending.from(0, 10)[..] else { panic!("one key") };
        pending.confirm(owed, number + 1);
        assert!(!pending.holds("a"));
        assert_eq!((pending.len(), pending.oldest()), (0, None));
    }

    #[test]
    fn what_is_confirmed_is_counted_before_anybody_sees_that_it_is_gone() {
        let pending = Pending::new(10);
        pending.add(key("a"), now(), || ());
        let mut waiting = None;
        pending.confirm_counted(&key("a"), 0, || panic!("a newer request stays, and is not counted"));
        pending.confirm_counted(&key("a"), pending.number(), || waiting = Some(pending.len()));
        assert_eq!((waiting, pending.len()), (Some(1), 0));
        pending.confirm_counted(&key("a"), pending.number(), || panic!("counted once"));
    }

    #[test]
    fn a_pattern_holds_every_key_that_it_matches() {
        let pending = Pending::new(10);
        pending.add(Owed::Pattern("user:*".into()), now(), || ());
        assert!(pending.holds("user:7") && !pending.holds("order:7"));
        pending.confirm(&Owed::Pattern("user:*".into()), pending.number());
        assert!(!pending.holds("user:7"));
    }

    #[test]
    fn a_full_queue_collapses_and_loses_nothing() {
        let pending = Pending::new(2);
        pending.add(key("a"), now(), || ());
        pending.add(key("b"), now(), || ());
        assert_eq!(
            pending.add(key("a"), now(), || ()),
            Added::Queued,
            "a key that is there takes no more room"
        );
        assert_eq!(pending.add(key("c"), now(), || ()), Added::Collapsed);
        assert_eq!(pending.from(0, 10).into_iter().map(|(_, owed)| owed).collect::<Vec<_>>(), [Owed::Space]);
        assert_eq!(pending.add(key("d"), now(), || ()), Added::Queued);
        assert_eq!(pending.len(), 2);
    }

    #[test]
    fn too_many_patterns_collapse() {
        let pending = Pending::new(1000);
        for at in 0..MAX_PATTERNS {
            assert_eq!(pending.add(Owed::Pattern(format!("{at}:*").into()), now(), || ()), Added::Queued);
        }
        assert_eq!(pending.add(Owed::Pattern("one more".into()), now(), || ()), Added::Collapsed);
    }
}
