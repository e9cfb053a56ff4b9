//! Names of things and the keys they are stored under: different names never share a key, the same name always
//! has one key, and every key is short and harmless to a server.

#![no_main]

use std::fmt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use arbitrary::Arbitrary;
use async_trait::async_trait;
use bytes::Bytes;
use cache_kit::backend::{CacheBackend, InMemoryBackend};
use cache_kit::{Cache, CacheEntity, CacheExpander, ErrorKind, Result, TtlPolicy};
use cache_kit_fuzz::ready;
use libfuzzer_sys::fuzz_target;
use serde::{Deserialize, Serialize};

const MAX_KEY_BYTES: usize = 200;
/// The longest that is allowed, one that is the beginning of another, and one that could be a prefix.
const NAMESPACES: [&str; 6] = ["a", "a.b", "user", "-", "_", LONGEST];
const LONGEST: &str = "nnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnnn";

#[derive(Arbitrary, Debug)]
struct Input {
    first: Name,
    second: Second,
    /// Neither has to be one.
    namespace: String,
}

#[derive(Arbitrary, Debug)]
struct Name {
    namespace: Option<u8>,
    of: Of,
}

#[derive(Arbitrary, Debug)]
enum Of {
    Text(Vec<Piece>),
    Entity { prefix: u8, shown: bool, id: Vec<Piece> },
}

/// Two names that have nothing to do with each other rarely meet, however keys are made. So the second one is
/// mostly made of the first, as somebody would who wants them to meet.
#[derive(Arbitrary, Debug)]
enum Second {
    Any(Name),
    Alike { namespace: Option<u8>, stored: bool, whole: bool, entity: Option<(u8, bool)> },
}

/// Texts of a fuzzer rarely become long or look like a digest by themselves.
#[derive(Arbitrary, Debug)]
enum Piece {
    Any(String),
    Repeated { letter: u8, times: u8 },
    Separator(u8),
    Mark,
    Digest,
}

impl Piece {
    fn text(pieces: &[Self]) -> String {
        let mut text = String::new();
        for piece in pieces {
            match piece {
                Self::Any(any) => text.push_str(any),
                Self::Repeated { letter, times } => {
                    text.extend(std::iter::repeat_n(char::from(*letter), usize::from(*times)));
                }
                Self::Separator(which) => text.push(char::from(b":/%#2F"[usize::from(*which) % 6])),
                Self::Mark => text.push_str("%#"),
                Self::Digest => text.push_str(&"0123456789abcdef".repeat(4)),
            }
        }
        text
    }
}

macro_rules! entities {
    ($($name:ident $shown:ident $prefix:expr;)+) => {
        $(
            #[derive(Clone, Serialize, Deserialize)]
            struct $name;

            impl CacheEntity for $name {
                type Key = String;
                fn cache_key(&self) -> String { unreachable!("only ids are asked for") }
                fn cache_prefix() -> &'static str { $prefix }
            }

            /// The same prefix, with ids that are written by their `Display`.
            #[derive(Clone, Serialize, Deserialize)]
            struct $shown;

            impl CacheEntity for $shown {
                type Key = Shown;
                fn cache_key(&self) -> Shown { unreachable!("only ids are asked for") }
                fn cache_prefix() -> &'static str { $prefix }
            }
        )+

        const PREFIXES: &[&str] = &[$($prefix),+];

        fn invalidate(expander: &CacheExpander<Recorder>, prefix: &str, shown: bool, id: &str) {
            let invalidated = match (prefix, shown) {
                $(
                    (prefix, false) if prefix == $prefix => ready(expander.invalidate::<$name>(&id.to_owned())),
                    (prefix, true) if prefix == $prefix => ready(expander.invalidate::<$shown>(&Shown(id.to_owned()))),
                )+
                _ => unreachable!("the prefixes are those of the list"),
            };
            invalidated.expect("an id that displays has a key");
        }
    };
}

entities! {
    User ShownUser "user";
    A ShownA "a";
    WithColon ShownWithColon "a:b";
    WithSlash ShownWithSlash "a/user";
    Escaped ShownEscaped "a%2Fuser";
    Empty ShownEmpty "";
    Spaced ShownSpaced "sp ace";
    Marked ShownMarked "%#";
    Long ShownLong "pppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppppp";
    Slashes ShownSlashes "////////////////////////////////";
}

#[derive(Clone)]
struct Shown(String);

impl fmt::Display for Shown {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // In two writes, as a real one would.
        let half = self.0.len() / 2;
        let half = (0..=half).rev().find(|&at| self.0.is_char_boundary(at)).unwrap_or(0);
        f.write_str(&self.0[..half])?;
        f.write_str(&self.0[half..])
    }
}

/// Remembers the keys that it is asked to delete.
#[derive(Clone, Default)]
struct Recorder(Arc<Mutex<Vec<String>>>);

impl Recorder {
    fn take(&self) -> String {
        let mut keys = self.0.lock().expect("nothing panics under the lock");
        assert_eq!(keys.len(), 1, "one name, one key");
        keys.remove(0)
    }
}

#[async_trait]
impl CacheBackend for Recorder {
    async fn get(&self, _: &str) -> Result<Option<Bytes>> {
        Ok(None)
    }

    async fn set(&self, _: &str, _: Bytes, _: Option<Duration>) -> Result<()> {
        Ok(())
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.0.lock().expect("nothing panics under the lock").push(key.to_owned());
        Ok(())
    }
}

/// What sets a name apart: namespace, prefix, and the id if it has one. A text is read at its first colon.
type Identity = (Option<&'static str>, String, Option<String>);

/// A name with nothing left to choose.
#[derive(Clone, Debug)]
struct Resolved {
    namespace: Option<&'static str>,
    of: What,
}

#[derive(Clone, Debug)]
enum What {
    Text(String),
    Entity { prefix: &'static str, shown: bool, id: String },
}

fn namespace_of(which: Option<u8>) -> Option<&'static str> {
    which.map(|which| NAMESPACES[usize::from(which) % NAMESPACES.len()])
}

impl Name {
    fn resolve(&self) -> Resolved {
        let of = match &self.of {
            Of::Text(pieces) => What::Text(Piece::text(pieces)),
            Of::Entity { prefix, shown, id } => What::Entity {
                prefix: PREFIXES[usize::from(*prefix) % PREFIXES.len()],
                shown: *shown,
                id: Piece::text(id),
            },
        };
        Resolved { namespace: namespace_of(self.namespace), of }
    }
}

impl Second {
    fn resolve(&self, first: &Resolved, key: Option<&str>) -> Resolved {
        let (namespace, stored, whole, entity) = match self {
            Self::Any(name) => return name.resolve(),
            Self::Alike { namespace, stored, whole, entity } => (*namespace, *stored, *whole, *entity),
        };
        // What is stored for the first one, or what would be without any care; with its namespace or without.
        let text = match (key.filter(|_| stored), first.namespace) {
            (Some(key), Some(namespace)) if !whole => key[namespace.len() + 1..].to_owned(),
            (Some(key), _) => key.to_owned(),
            (None, Some(namespace)) if whole => format!("{namespace}/{}", first.naive()),
            (None, _) => first.naive(),
        };
        let namespace = namespace_of(namespace);
        if let Some((which, shown)) = entity {
            let fits = |prefix: &'static str| Some((prefix, text.strip_prefix(prefix)?.strip_prefix(':')?));
            let fitting: Vec<_> = PREFIXES.iter().filter_map(|prefix| fits(prefix)).collect();
            if let Some((prefix, id)) = fitting.get(usize::from(which) % fitting.len().max(1)) {
                return Resolved { namespace, of: What::Entity { prefix, shown, id: (*id).to_owned() } };
            }
        }
        Resolved { namespace, of: What::Text(text) }
    }
}

impl Resolved {
    /// Put together without any care.
    fn naive(&self) -> String {
        match &self.of {
            What::Text(text) => text.clone(),
            What::Entity { prefix, id, .. } => format!("{prefix}:{id}"),
        }
    }

    fn cache(&self, backend: impl CacheBackend) -> Cache {
        // Without end, so that no backend starts a thread for its sweeps.
        let builder = Cache::builder().ttl_policy(TtlPolicy::Infinite);
        let builder = match self.namespace {
            Some(namespace) => builder.namespace(namespace),
            None => builder,
        };
        builder.build(backend).expect("the namespaces are good")
    }

    /// The identity and the key; `None` for the empty text, which has no key.
    fn stored(&self) -> Option<(Identity, String)> {
        let recorder = Recorder::default();
        match &self.of {
            What::Text(text) => {
                let invalidated = ready(self.cache(recorder.clone()).invalidate(text));
                if text.is_empty() {
                    let refused = invalidated.expect_err("the empty text has a key");
                    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
                    return None;
                }
                invalidated.expect("any other text has a key");
                let (prefix, id) = match text.split_once(':') {
                    Some((prefix, id)) => (prefix, Some(id.to_owned())),
                    None => (text.as_str(), None),
                };
                Some(((self.namespace, prefix.to_owned(), id), recorder.take()))
            }
            What::Entity { prefix, shown, id } => {
                let mut expander = CacheExpander::new(recorder.clone());
                if let Some(namespace) = self.namespace {
                    expander = expander.with_namespace(namespace).expect("the namespaces are good");
                }
                invalidate(&expander, prefix, *shown, id);
                Some(((self.namespace, (*prefix).to_owned(), Some(id.clone())), recorder.take()))
            }
        }
    }
}

fuzz_target!(|input: Input| {
    any_namespace(&input.namespace);
    let one = input.first.resolve();
    let first = one.stored();
    let other = input.second.resolve(&one, first.as_ref().map(|(_, key)| key.as_str()));
    let second = other.stored();
    for (identity, key) in first.iter().chain(&second) {
        assert!(key.len() <= MAX_KEY_BYTES, "{} bytes for {identity:?}", key.len());
        assert!(!key.is_empty());
        assert!(!key.bytes().any(|byte| byte <= b' ' || byte == 0x7f), "{key:?} for {identity:?}");
        if let Some(namespace) = identity.0 {
            assert!(key.strip_prefix(namespace).is_some_and(|rest| rest.starts_with('/')), "{key:?}");
        }
    }
    if let (Some((identity, key)), Some((other_identity, other_key))) = (&first, &second) {
        assert_eq!(
            identity == other_identity,
            key == other_key,
            "{one:?} and {other:?}: {key} and {other_key}"
        );
        values_do_not_cross(&one, &other);
    }
});

/// Both names over one store, where they are texts: each reads its own value, and clearing one namespace leaves
/// the other.
fn values_do_not_cross(one: &Resolved, other: &Resolved) {
    let (What::Text(text), What::Text(other_text)) = (&one.of, &other.of) else { return };
    let backend = InMemoryBackend::new();
    let (first, second) = (one.cache(backend.clone()), other.cache(backend));
    let same = text == other_text && one.namespace == other.namespace;
    ready(first.set(text, &1_u8)).expect("memory stores");
    ready(second.set(other_text, &2_u8)).expect("memory stores");
    let read = |cache: &Cache, key: &str| ready(cache.get::<u8>(key)).expect("memory answers");
    assert_eq!(read(&first, text), Some(if same { 2 } else { 1 }), "{one:?} and {other:?}");
    assert_eq!(read(&second, other_text), Some(2));
    let shared = one.namespace == other.namespace;
    ready(first.clear()).expect("memory clears");
    assert_eq!(read(&first, text), None);
    assert_eq!(read(&second, other_text), (!shared).then_some(2), "cleared with {:?}", one.namespace);
}

/// A namespace is a plain name, or refused.
fn any_namespace(namespace: &str) {
    let plain = (1..=64).contains(&namespace.len())
        && namespace.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    let built = Cache::builder().namespace(namespace).build(Recorder::default());
    assert_eq!(built.is_ok(), plain, "{namespace:?}");
    assert_eq!(CacheExpander::new(Recorder::default()).with_namespace(namespace).is_ok(), plain);
}
