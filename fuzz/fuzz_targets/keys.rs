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
    second: Name,
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

impl Name {
    fn namespace(&self) -> Option<&'static str> {
        self.namespace.map(|which| NAMESPACES[usize::from(which) % NAMESPACES.len()])
    }

    fn cache(&self, backend: impl CacheBackend) -> Cache {
        // Without end, so that no backend starts a thread for its sweeps.
        let builder = Cache::builder().ttl_policy(TtlPolicy::Infinite);
        let builder = match self.namespace() {
            Some(namespace) => builder.namespace(namespace),
            None => builder,
        };
        builder.build(backend).expect("the namespaces are good")
    }

    /// The identity and the key; `None` for the empty text, which has no key.
    fn stored(&self) -> Option<(Identity, String)> {
        let recorder = Recorder::default();
        match &self.of {
            Of::Text(pieces) => {
                let text = Piece::text(pieces);
                let invalidated = ready(self.cache(recorder.clone()).invalidate(&text));
                if text.is_empty() {
                    let refused = invalidated.expect_err("the empty text has a key");
                    assert_eq!(refused.kind(), ErrorKind::InvalidInput);
                    return None;
                }
                invalidated.expect("any other text has a key");
                let (prefix, id) = match text.split_once(':') {
                    Some((prefix, id)) => (prefix.to_owned(), Some(id.to_owned())),
                    None => (text, None),
                };
                Some(((self.namespace(), prefix, id), recorder.take()))
            }
            Of::Entity { prefix, shown, id } => {
                let (prefix, id) = (PREFIXES[usize::from(*prefix) % PREFIXES.len()], Piece::text(id));
                let mut expander = CacheExpander::new(recorder.clone());
                if let Some(namespace) = self.namespace() {
                    expander = expander.with_namespace(namespace).expect("the namespaces are good");
                }
                invalidate(&expander, prefix, *shown, &id);
                Some(((self.namespace(), prefix.to_owned(), Some(id)), recorder.take()))
            }
        }
    }
}

fuzz_target!(|input: Input| {
    any_namespace(&input.namespace);
    let (first, second) = (input.first.stored(), input.second.stored());
    for (identity, key) in first.iter().chain(&second) {
        assert!(key.len() <= MAX_KEY_BYTES, "{} bytes for {identity:?}", key.len());
        assert!(!key.is_empty());
        assert!(!key.bytes().any(|byte| byte <= b' ' || byte == 0x7f), "{key:?} for {identity:?}");
        if let Some(namespace) = identity.0 {
            assert!(key.strip_prefix(namespace).is_some_and(|rest| rest.starts_with('/')), "{key:?}");
        }
    }
    if let (Some((one, key)), Some((other, other_key))) = (&first, &second) {
        assert_eq!(one == other, key == other_key, "{one:?} and {other:?}: {key:?} and {other_key:?}");
    }
    if let (Of::Text(one), Of::Text(other)) = (&input.first.of, &input.second.of) {
        values_do_not_cross(&input, &Piece::text(one), &Piece::text(other));
    }
});

/// Both names over one store: each reads its own value, and clearing one namespace leaves the other.
fn values_do_not_cross(input: &Input, one: &str, other: &str) {
    if one.is_empty() || other.is_empty() {
        return;
    }
    let backend = InMemoryBackend::new();
    let (first, second) = (input.first.cache(backend.clone()), input.second.cache(backend));
    let same = one == other && input.first.namespace() == input.second.namespace();
    ready(first.set(one, &1_u8)).expect("memory stores");
    ready(second.set(other, &2_u8)).expect("memory stores");
    let read = |cache: &Cache, key: &str| ready(cache.get::<u8>(key)).expect("memory answers");
    assert_eq!(read(&first, one), Some(if same { 2 } else { 1 }), "{one:?} and {other:?}");
    assert_eq!(read(&second, other), Some(2));
    match input.first.namespace() {
        None => {
            assert_eq!(ready(first.clear()).expect_err("nothing to clear").kind(), ErrorKind::Unsupported)
        }
        namespace => {
            let shared = namespace == input.second.namespace();
            assert_eq!(ready(first.clear()).expect("memory clears"), if shared && !same { 2 } else { 1 });
            assert_eq!(read(&first, one), None);
            assert_eq!(read(&second, other), (!shared).then_some(2), "cleared with {namespace:?}");
        }
    }
}

/// A namespace is a plain name, or refused.
fn any_namespace(namespace: &str) {
    let plain = (1..=64).contains(&namespace.len())
        && namespace.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"._-".contains(&byte));
    let built = Cache::builder().namespace(namespace).build(Recorder::default());
    assert_eq!(built.is_ok(), plain, "{namespace:?}");
    assert_eq!(CacheExpander::new(Recorder::default()).with_namespace(namespace).is_ok(), plain);
}
