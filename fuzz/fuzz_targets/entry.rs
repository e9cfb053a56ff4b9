//! Bytes that nobody can vouch for, under a key: a read never panics, and returns a value only for an entry that
//! was sealed for this key and this type.
//!
//! The seal is a checksum, not a signature. What the fuzzer forges with a checksum that fits is a value that
//! somebody with write access to the server could have stored; then the value must be what the payload says.

#![no_main]

use std::collections::BTreeMap;
use std::fmt::Debug;

use arbitrary::Arbitrary;
use bytes::Bytes;
use cache_kit::backend::{CacheBackend as _, InMemoryBackend};
use cache_kit::{Cache, Codec, TtlPolicy};
use cache_kit_fuzz::ready;
use libfuzzer_sys::fuzz_target;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use xxhash_rust::xxh3::xxh3_64;

/// Stored as they are, so that the target can find the entries in the backend.
const KEYS: [&str; 3] = ["k", "user:42", "user:43"];
const HEADER: usize = 80;
const CHECKSUM_AT: usize = 72;
/// Absent, tagged, sliding, validated.
const FLAGS: u8 = 15;

#[derive(Arbitrary, Clone, Debug, Serialize, Deserialize)]
struct Record {
    id: u64,
    name: String,
    note: Option<String>,
    tags: Vec<String>,
    ratio: f32,
    state: State,
    counts: BTreeMap<String, i16>,
}

#[derive(Arbitrary, Clone, Debug, Serialize, Deserialize)]
enum State {
    New,
    Moved(i64),
    Pair(u8, bool),
    Named { letter: char, inner: Option<Box<State>> },
}

#[derive(Arbitrary, Clone, Debug)]
enum Value {
    Number(u64),
    Text(String),
    Blob(Vec<u8>),
    Record(Record),
    State(State),
}

#[derive(Arbitrary, Clone, Copy, Debug)]
enum Format {
    Postcard,
    MessagePack,
    Json,
}

#[derive(Arbitrary, Debug)]
struct Input {
    value: Value,
    format: Format,
    key: u8,
    read_as: u8,
    bytes: Shape,
}

/// What is put under the key.
#[derive(Arbitrary, Debug)]
enum Shape {
    Raw(Vec<u8>),
    /// Behind the beginning of a header of the current format.
    Headed {
        codec: u8,
        rest: Vec<u8>,
    },
    /// A real entry with some bytes changed, the end cut off, something appended.
    Patched {
        patches: Vec<(u16, u8)>,
        cut: Option<u16>,
        tail: Vec<u8>,
    },
    /// The header of a real entry, with any payload, codec and times, and a checksum that fits: what reaches
    /// the decoders.
    Sealed {
        codec: u8,
        flags: u8,
        times: Option<[u64; 3]>,
        payload: Vec<u8>,
    },
    /// A real entry as it is, read under a key and as a type of the fuzzer's choice.
    Untouched,
}

fuzz_target!(|input: Input| {
    let key = KEYS[usize::from(input.key) % KEYS.len()];
    match &input.value {
        Value::Number(value) => attack(key, value, &input),
        Value::Text(value) => attack(key, value, &input),
        Value::Blob(value) => attack(key, value, &input),
        Value::Record(value) => attack(key, value, &input),
        Value::State(value) => attack(key, value, &input),
    }
});

fn attack<T: Serialize + DeserializeOwned + Clone + Debug + Send + Sync + 'static>(
    key: &str,
    value: &T,
    input: &Input,
) {
    let store = Store::new(input.format);
    let Some(genuine) = store.seal(key, value) else { return };
    let bytes = input.bytes.apply(&genuine);
    for other in KEYS {
        store.read_as::<T>(other, value, &bytes);
    }
    match input.read_as % 4 {
        0 => store.read_as::<u64>(key, &7, &bytes),
        1 => store.read_as::<String>(key, &"seven".into(), &bytes),
        2 => store.read_as::<State>(key, &State::New, &bytes),
        // As wide as a text and decoded alike: only the schema tells them apart.
        _ => store.read_as::<Vec<u8>>(key, &vec![7], &bytes),
    }
}

struct Store {
    backend: InMemoryBackend,
    cache: Cache,
}

impl Store {
    fn new(format: Format) -> Self {
        let backend = InMemoryBackend::new();
        let codec = match format {
            Format::Postcard => Codec::Postcard,
            Format::MessagePack => Codec::MessagePack,
            Format::Json => Codec::Json,
        };
        // Without end, so that no backend starts a thread for its sweeps.
        let builder = Cache::builder().codec(codec).ttl_policy(TtlPolicy::Infinite);
        let cache = builder.build(backend.clone()).expect("the settings are good");
        Self { backend, cache }
    }

    /// The entry of a value; `None` for one that the codec cannot write, such as a NaN in JSON.
    fn seal<T: Serialize + DeserializeOwned + Clone + Debug + Send + Sync + 'static>(
        &self,
        key: &str,
        value: &T,
    ) -> Option<Bytes> {
        ready(self.cache.set(key, value)).ok()?;
        let entry = ready(self.backend.get(key)).expect("memory answers");
        let read: Option<T> = ready(self.cache.get(key)).expect("memory answers");
        assert_eq!(format!("{read:?}"), format!("{:?}", Some(value)), "a stored value is not read back");
        Some(entry.expect("the entry is stored under its key"))
    }

    /// Reads `bytes` under `key` as a `T`, and judges the answer by an entry that was really sealed for both.
    fn read_as<T: Serialize + DeserializeOwned + Clone + Debug + Send + Sync + 'static>(
        &self,
        key: &str,
        sample: &T,
        bytes: &Bytes,
    ) {
        let Some(genuine) = self.seal(key, sample) else { return };
        ready(self.backend.set(key, bytes.clone(), None)).expect("memory takes anything");
        let read: Option<T> = ready(self.cache.get(key)).expect("what cannot be read is a miss");
        let Some(read) = read else {
            assert_ne!(*bytes, genuine, "a real entry is a miss");
            return;
        };
        assert_eq!(bytes[..4], genuine[..4], "not an entry");
        assert_eq!(bytes[4], 2, "another format");
        assert_eq!(bytes[5] & !FLAGS, 0, "flags that nobody knows");
        assert_eq!(bytes[8..16], genuine[8..16], "stored for another type");
        assert_eq!(bytes[16..32], genuine[16..32], "stored for another key");
        assert_eq!(bytes[64..72], genuine[64..72], "of a namespace that was cleared");
        assert_eq!(bytes[CHECKSUM_AT..HEADER], checksum(bytes), "the checksum does not fit");
        let said = u32::from_le_bytes(bytes[60..64].try_into().expect("four bytes"));
        assert_eq!(said as usize, bytes.len() - HEADER, "cut short, or continued");
        if bytes[5] != 0 {
            // The payload stands behind what the flags announce.
            return;
        }
        let decoded = decode::<T>(bytes[6], &bytes[HEADER..]);
        assert_eq!(format!("{:?}", Some(read)), format!("{decoded:?}"), "not what the payload says");
    }
}

impl Shape {
    fn apply(&self, genuine: &[u8]) -> Bytes {
        let mut entry = genuine.to_vec();
        match self {
            Self::Raw(bytes) => entry.clone_from(bytes),
            Self::Headed { codec, rest } => {
                entry = b"CKIT\x02\x00".to_vec();
                entry.extend([*codec, 0x50]);
                entry.extend(rest);
            }
            Self::Patched { patches, cut, tail } => {
                for (at, change) in patches {
                    let at = usize::from(*at) % entry.len();
                    entry[at] ^= change;
                }
                if let Some(cut) = cut {
                    entry.truncate(usize::from(*cut) % (entry.len() + 1));
                }
                entry.extend(tail);
            }
            Self::Sealed { codec, flags, times, payload } => {
                entry.truncate(HEADER);
                // Mostly none, so that payloads are reached at once.
                entry[5] = if *flags < 128 { 0 } else { *flags & FLAGS };
                // Mostly a codec that exists.
                entry[6] = if *codec < 128 { codec % 3 + 1 } else { *codec };
                for (at, time) in times.iter().flatten().enumerate() {
                    entry[32 + 8 * at..40 + 8 * at].copy_from_slice(&time.to_le_bytes());
                }
                entry[60..64].copy_from_slice(&(payload.len() as u32).to_le_bytes());
                entry.extend(payload);
                let checksum = checksum(&entry);
                entry[CHECKSUM_AT..HEADER].copy_from_slice(&checksum);
            }
            Self::Untouched => {}
        }
        entry.into()
    }
}

/// Computed here once more, from the description of the format and not with the library's code.
fn checksum(entry: &[u8]) -> [u8; 8] {
    (xxh3_64(&entry[HEADER..]) ^ xxh3_64(&entry[..CHECKSUM_AT]).rotate_left(1)).to_le_bytes()
}

fn decode<T: DeserializeOwned>(codec: u8, payload: &[u8]) -> Option<T> {
    match codec {
        1 => postcard::take_from_bytes(payload)
            .ok()
            .filter(|(_, rest)| rest.is_empty())
            .map(|(value, _)| value),
        2 => rmp_serde::from_slice(payload).ok(),
        3 => serde_json::from_slice(payload).ok(),
        _ => None,
    }
}
