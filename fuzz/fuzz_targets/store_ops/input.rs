//! What the fuzzer chooses: a bound, operations, and their keys, values, lives and patterns.

use std::time::Duration;

use arbitrary::Arbitrary;
use bytes::Bytes;
use cache_kit::backend::{CacheBackend as _, InMemoryBackend};
use cache_kit_fuzz::ready;

/// Keys that patterns can tell apart, and mistake for patterns.
pub(crate) const KEYS: [&str; 8] = ["a", "ab", "a:b", "user:1", "user:2", "*", "[a]", "größe"];
#[derive(Arbitrary, Debug)]
pub(crate) struct Input {
    pub(crate) bound: Bound,
    pub(crate) operations: Vec<Operation>,
}

#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Bound {
    None,
    Entries(Few),
    Bytes(Few),
    Both(Few, Few),
}

#[derive(Arbitrary, Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(crate) enum Few {
    One,
    Two,
    Seven,
}

#[derive(Arbitrary, Debug)]
pub(crate) enum Operation {
    Set {
        key: Key,
        value: Value,
        life: Life,
    },
    SetMany(Vec<(Key, Value, Life)>),
    Delete(Key),
    DeleteMany(Vec<Key>),
    GetMany(Vec<Key>),
    Acquire {
        key: Key,
        seen: Seen,
        life: Life,
    },
    /// Under the key of the lease, unless another one is named.
    Fill {
        key: Option<Key>,
        lease: u8,
        value: Value,
        life: Life,
    },
    Release {
        key: Option<Key>,
        lease: u8,
    },
    Advance(Life),
    Sweep,
    Clear,
    DeletePattern(Pattern),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub(crate) struct Key(pub(crate) u8);

#[derive(Arbitrary, Clone, Copy, Debug)]
pub(crate) struct Value {
    byte: u8,
    size: u16,
}

#[derive(Arbitrary, Clone, Copy, Debug)]
pub(crate) enum Life {
    Endless,
    Zero,
    Nanos(u8),
    Millis(u8),
    Minutes(u8),
    Longest,
}

#[derive(Arbitrary, Debug)]
pub(crate) enum Seen {
    Nothing,
    Current,
    Other(Value),
}

/// Patterns whose matches need no matcher to be known, and any others.
#[derive(Arbitrary, Debug)]
pub(crate) enum Pattern {
    All,
    Exact(Key),
    StartsWith { key: Key, characters: u8 },
    EndsWith { key: Key, characters: u8 },
    Characters(u8),
    Any(String),
}

impl Key {
    pub(crate) fn name(self) -> &'static str {
        KEYS[usize::from(self.0) % KEYS.len()]
    }
}

impl Value {
    pub(crate) fn bytes(self) -> Bytes {
        // Mostly small, some too large for the smallest bounds.
        let size = if self.size < 60_000 { self.size % 40 } else { self.size % 9_000 };
        vec![self.byte; usize::from(size)].into()
    }
}

impl Life {
    pub(crate) fn duration(self) -> Option<Duration> {
        Some(match self {
            Self::Endless => return None,
            Self::Zero => Duration::ZERO,
            Self::Nanos(nanos) => Duration::from_nanos(nanos.into()),
            Self::Millis(millis) => Duration::from_millis(millis.into()),
            Self::Minutes(minutes) => Duration::from_secs(60 * u64::from(minutes)),
            Self::Longest => Duration::MAX,
        })
    }
}

impl Pattern {
    pub(crate) fn text(&self) -> String {
        let escaped = |text: String| text.chars().flat_map(|c| ['\\', c]).collect::<String>();
        match self {
            Self::All => "*".into(),
            Self::Exact(key) => escaped(key.name().into()),
            Self::StartsWith { key, characters } => {
                escaped(key.name().chars().take(usize::from(*characters)).collect()) + "*"
            }
            Self::EndsWith { key, characters } => {
                "*".to_owned() + &escaped(key.name().chars().skip(usize::from(*characters)).collect())
            }
            Self::Characters(characters) => "?".repeat(usize::from(characters % 8)),
            Self::Any(any) => any.clone(),
        }
    }

    pub(crate) fn matches(&self, name: &str) -> bool {
        match self {
            Self::All => true,
            Self::Exact(key) => key.name() == name,
            Self::StartsWith { key, characters } => {
                let start: String = key.name().chars().take(usize::from(*characters)).collect();
                name.starts_with(&start)
            }
            Self::EndsWith { key, characters } => {
                let end: String = key.name().chars().skip(usize::from(*characters)).collect();
                name.ends_with(&end)
            }
            Self::Characters(characters) => name.chars().count() == usize::from(characters % 8),
            // Whether a key matches depends on nothing else: a store with just that key tells.
            Self::Any(any) => {
                let alone = InMemoryBackend::new();
                ready(alone.set(name, Bytes::new(), None)).expect("memory stores");
                ready(alone.delete_pattern(any)).expect("memory deletes by pattern") == 1
            }
        }
    }
}
