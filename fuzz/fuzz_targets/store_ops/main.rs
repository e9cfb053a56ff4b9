//! Any sequence of operations on the in-process backend, beside a model that is simple enough to be believed:
//! two maps and a number for the time.
//!
//! Without a bound the answers are exactly the model's. With one, entries may go at any time; but what is there
//! is what was written last, what is gone stays gone, leases hold as ever, and the bound is never passed.

#![no_main]

mod input;

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use cache_kit::backend::{Acquired, CacheBackend as _, Filled, InMemoryBackend, Lease, Peek, SetEntry};
use cache_kit::{ErrorKind, ManualClock};
use cache_kit_fuzz::ready;
use libfuzzer_sys::fuzz_target;

use self::input::{Bound, Few, Input, KEYS, Key, Life, Operation, Seen, Value};

/// Looking at everything costs more than an operation does.
const LOOK_EVERY: usize = 8;
const NEVER: u64 = u64::MAX;
const LATE: u64 = NEVER / 2;
/// What the documentation of the builder says that each entry costs beside key and value.
const OVERHEAD_BYTES: u64 = 96;

thread_local! {
    /// One store for each bound, cleared between runs: a store that has seen a lifetime has a thread, and starting
    /// one costs more than everything else here.
    static STORES: RefCell<HashMap<Bound, Test>> = RefCell::default();
}

fuzz_target!(|input: Input| {
    STORES.with_borrow_mut(|stores| {
        let test = stores.entry(input.bound).or_insert_with(|| Test::new(input.bound));
        for operations in input.operations.chunks(LOOK_EVERY) {
            operations.iter().for_each(|operation| test.run(operation));
            test.check();
        }
        test.run(&Operation::Clear);
        test.check();
        test.model.issued.clear();
        if test.model.now > LATE {
            // Nothing new would happen in what is left of time.
            stores.remove(&input.bound);
        }
    });
});

/// What must be there. Expired entries and leases stay until they are swept or replaced.
#[derive(Default)]
struct Model {
    now: u64,
    values: HashMap<&'static str, (Bytes, u64)>,
    leases: HashMap<&'static str, (Lease, u64)>,
    issued: Vec<(&'static str, Lease)>,
}

impl Model {
    fn end_of(&self, life: Duration) -> u64 {
        self.now.saturating_add(u64::try_from(life.as_nanos()).unwrap_or(NEVER))
    }

    fn is_live(&self, end: u64) -> bool {
        self.now < end
    }

    fn live(&self, name: &str) -> Option<Bytes> {
        let (value, end) = self.values.get(name)?;
        self.is_live(*end).then(|| value.clone())
    }

    fn write(&mut self, name: &'static str, value: Bytes, life: Option<Duration>) {
        self.leases.remove(name);
        let end = life.map_or(NEVER, |life| self.end_of(life));
        self.values.insert(name, (value, end));
    }

    fn remove(&mut self, name: &str) {
        self.leases.remove(name);
        self.values.remove(name);
    }
}

struct Test {
    backend: InMemoryBackend,
    time: ManualClock,
    max_entries: Option<usize>,
    max_bytes: Option<u64>,
    model: Model,
}

impl Test {
    fn new(bound: Bound) -> Self {
        let entries = |few| match few {
            Few::One => 1,
            Few::Two => 2,
            Few::Seven => 7,
        };
        let bytes = |few| entries(few) as u64 * 4_096;
        let (max_entries, max_bytes) = match bound {
            Bound::None => (None, None),
            Bound::Entries(n) => (Some(entries(n)), None),
            Bound::Bytes(n) => (None, Some(bytes(n))),
            Bound::Both(n, m) => (Some(entries(n)), Some(bytes(m))),
        };
        let time = ManualClock::new();
        // The thread that sweeps waits for an hour: only the operation `Sweep` does it here.
        let mut builder =
            InMemoryBackend::builder().clock(time.clock()).sweep_every(Duration::from_secs(3_600));
        if let Some(entries) = max_entries {
            builder = builder.max_entries(entries);
        }
        if let Some(bytes) = max_bytes {
            builder = builder.max_bytes(bytes);
        }
        let backend = builder.build().expect("the bounds are good");
        Self { backend, time, max_entries, max_bytes, model: Model::default() }
    }

    fn is_bounded(&self) -> bool {
        self.max_entries.is_some() || self.max_bytes.is_some()
    }

    fn get(&self, name: &str) -> Option<Bytes> {
        ready(self.backend.get(name)).expect("memory answers")
    }

    /// Everything that can be seen, against the model.
    fn check(&mut self) {
        for name in KEYS {
            self.observe(name);
        }
        let stats = self.backend.stats();
        assert_eq!(stats.leases, self.model.leases.len());
        if self.is_bounded() {
            assert!(stats.entries <= self.max_entries.unwrap_or(usize::MAX), "{stats:?}");
            let bytes = stats.bytes + OVERHEAD_BYTES * stats.entries as u64;
            assert!(bytes <= self.max_bytes.unwrap_or(u64::MAX), "{stats:?}");
        } else {
            let bytes: usize =
                self.model.values.iter().map(|(name, (value, _))| name.len() + value.len()).sum();
            assert_eq!((stats.entries, stats.bytes), (self.model.values.len(), bytes as u64));
            assert_eq!(stats.evicted, 0, "without a bound");
        }
    }

    /// Compares one key in every way to read it. What a bound has pushed out leaves the model, for good.
    fn observe(&mut self, name: &'static str) {
        let read = self.get(name);
        let expected = self.model.live(name);
        if read.is_none() && self.is_bounded() {
            self.model.values.remove(name);
        } else {
            assert_eq!(read, expected, "{name}");
        }
        assert_eq!(ready(self.backend.exists(name)).expect("memory answers"), read.is_some());
        assert_eq!(self.backend.peek(name), read.map_or(Peek::Miss, Peek::Hit));
    }

    fn run(&mut self, operation: &Operation) {
        match operation {
            Operation::Set { key, value, life } => self.set(key.name(), value.bytes(), life.duration()),
            Operation::SetMany(entries) => self.set_many(entries),
            Operation::Delete(key) => {
                ready(self.backend.delete(key.name())).expect("memory deletes");
                self.model.remove(key.name());
            }
            Operation::DeleteMany(keys) => {
                let names: Vec<_> = keys.iter().map(|key| key.name()).collect();
                ready(self.backend.mdelete(&names)).expect("memory deletes");
                names.iter().for_each(|name| self.model.remove(name));
            }
            Operation::GetMany(keys) => {
                let names: Vec<_> = keys.iter().map(|key| key.name()).collect();
                let expected: Vec<_> = names.iter().map(|name| self.get(name)).collect();
                assert_eq!(ready(self.backend.mget(&names)).expect("memory answers"), expected);
            }
            Operation::Acquire { key, seen, life } => self.acquire(key.name(), seen, life.duration()),
            Operation::Fill { key, lease, value, life } => {
                if self.model.issued.is_empty() {
                    // Else most fills would be under a lease that nobody gave.
                    self.acquire(Key(*lease).name(), &Seen::Current, Some(Duration::from_millis(1)));
                }
                let (own, lease) = self.lease(*lease);
                self.fill(key.map_or(own, Key::name), &lease, value.bytes(), life.duration());
            }
            Operation::Release { key, lease } => {
                let (own, lease) = self.lease(*lease);
                let name = key.map_or(own, Key::name);
                ready(self.backend.release(name, &lease)).expect("memory releases");
                self.model.leases.retain(|of, (held, _)| *of != name || *held != lease);
            }
            Operation::Advance(life) => {
                let by = life.duration().unwrap_or_default();
                self.time.advance(by);
                // The clock stops one short of never.
                self.model.now = self.model.end_of(by).min(NEVER - 1);
            }
            Operation::Sweep => self.sweep(),
            Operation::Clear => {
                ready(self.backend.clear_all()).expect("memory clears");
                self.model.values.clear();
                self.model.leases.clear();
            }
            Operation::DeletePattern(pattern) => {
                KEYS.into_iter().for_each(|name| self.observe(name));
                let text = pattern.text();
                let matching: Vec<_> = KEYS.into_iter().filter(|name| pattern.matches(name)).collect();
                let live = matching.iter().filter(|name| self.model.live(name).is_some()).count();
                let removed = ready(self.backend.delete_pattern(&text)).expect("memory deletes by pattern");
                assert_eq!(removed, live as u64, "{text:?} matches {matching:?}");
                matching.iter().for_each(|name| self.model.remove(name));
            }
        }
    }

    fn set(&mut self, name: &'static str, value: Bytes, life: Option<Duration>) {
        let set = ready(self.backend.set(name, value.clone(), life));
        match set.map_err(|error| error.kind()) {
            Ok(()) => {
                assert_ne!(life, Some(Duration::ZERO), "a life of zero was taken");
                self.model.write(name, value, life);
            }
            Err(ErrorKind::InvalidInput) => assert_eq!(life, Some(Duration::ZERO)),
            Err(ErrorKind::TooLarge) => {
                self.is_too_large(name, &value);
                // An older value does not survive a newer one that was refused.
                self.model.remove(name);
                assert_eq!(self.get(name), None);
            }
            Err(other) => panic!("set failed with {other:?}"),
        }
    }

    fn is_too_large(&self, name: &str, value: &Bytes) {
        let limit = self.backend.capabilities().max_value_bytes.expect("only with a bound in bytes");
        assert!(value.len() > limit, "{} bytes under {name} are refused, {limit} are promised", value.len());
    }

    fn set_many(&mut self, entries: &[(Key, Value, Life)]) {
        // One that is refused leaves open what became of the others.
        let entries = entries.iter().map(|(key, value, life)| (key.name(), value.bytes(), life.duration()));
        let limit = self.backend.capabilities().max_value_bytes.unwrap_or(usize::MAX);
        let fits = |(_, value, life): &(_, Bytes, _)| *life != Some(Duration::ZERO) && value.len() <= limit;
        let entries: Vec<_> = entries.filter(fits).collect();
        let asked: Vec<_> = entries
            .iter()
            .map(|(key, value, ttl)| SetEntry { key, value: value.clone(), ttl: *ttl })
            .collect();
        ready(self.backend.mset(&asked)).expect("memory stores");
        for (name, value, life) in entries {
            self.model.write(name, value, life);
        }
    }

    fn acquire(&mut self, name: &'static str, seen: &Seen, life: Option<Duration>) {
        self.observe(name);
        let held = self.model.live(name);
        let seen = match seen {
            Seen::Nothing => None,
            // By content, not by place in memory.
            Seen::Current => held.as_ref().map(|value| Bytes::copy_from_slice(value)),
            Seen::Other(value) => Some(value.bytes()),
        };
        let life = life.unwrap_or(Duration::from_secs(30));
        let acquired = ready(self.backend.acquire(name, seen.as_ref(), life));
        if life.is_zero() {
            assert_eq!(acquired.expect_err("a lease without a life").kind(), ErrorKind::InvalidInput);
            return;
        }
        let busy = self.model.leases.get(name).is_some_and(|(_, end)| self.model.is_live(*end));
        match acquired.expect("memory leases") {
            Acquired::Granted { lease, kept } => {
                assert!(!busy, "leased twice");
                assert_eq!(kept, held);
                assert!(held.is_none() || held == seen, "leased over what was not seen");
                assert!(
                    self.model.issued.iter().all(|(_, other)| *other != lease),
                    "a token was given twice"
                );
                self.model.issued.push((name, lease.clone()));
                self.model.leases.insert(name, (lease, self.model.end_of(life)));
            }
            Acquired::Busy { kept } => {
                assert!(busy, "busy without a lease");
                assert_eq!(kept, held);
                assert!(held.is_none() || held == seen);
            }
            Acquired::Present { value } => {
                assert_eq!(Some(&value), held.as_ref());
                assert_ne!(Some(value), seen);
            }
            other => panic!("{other:?}"),
        }
    }

    /// A lease that was given to somebody once, with its key; or, now and then, one that never was.
    fn lease(&self, which: u8) -> (&'static str, Lease) {
        let issued = &self.model.issued;
        // The last ones are those that may still hold.
        let recent = issued.len().min(8) + usize::from(which > 250 || issued.is_empty());
        let made_up = || (KEYS[0], Lease::new(u128::MAX));
        issued.iter().rev().nth(usize::from(which) % recent).cloned().unwrap_or_else(made_up)
    }

    fn fill(&mut self, name: &'static str, lease: &Lease, value: Bytes, life: Option<Duration>) {
        let held = self.model.leases.get(name);
        let holds = held.is_some_and(|(own, end)| own == lease && self.model.is_live(*end));
        let filled = ready(self.backend.fill(name, lease, value.clone(), life));
        match filled.map_err(|error| error.kind()) {
            Ok(Filled::Stored) => {
                assert!(holds, "filled under a lease that is void");
                assert_ne!(life, Some(Duration::ZERO), "a life of zero was taken");
                self.model.write(name, value, life);
            }
            Ok(Filled::Refused) => assert!(!holds, "refused under a lease that holds"),
            Err(ErrorKind::InvalidInput) => assert_eq!(life, Some(Duration::ZERO)),
            // Nothing is changed: the lease still holds, and so does a value that was kept.
            Err(ErrorKind::TooLarge) => self.is_too_large(name, &value),
            other => panic!("{other:?}"),
        }
    }

    fn sweep(&mut self) {
        let before = self.backend.stats();
        let Model { now, values, leases, .. } = &mut self.model;
        let (now, held) = (*now, values.len());
        values.retain(|_, (_, end)| now < *end);
        leases.retain(|_, (_, end)| now < *end);
        let expired = (held - values.len()) as u64;
        let swept = self.backend.sweep();
        let after = self.backend.stats();
        assert_eq!(after.expired, before.expired + swept);
        assert_eq!(after.entries as u64, before.entries as u64 - swept);
        if self.is_bounded() {
            // What went on its own account, in the check before, is no longer in the model.
            assert!(after.entries <= self.model.values.len(), "expired entries are left");
        } else {
            assert_eq!(swept, expired);
        }
    }
}
