//! What is found and cannot be used is a miss with a counter of its own, and heals on the next load.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cache_kit::backend::{Acquired, CacheBackend, Capabilities, InMemoryBackend};
use cache_kit::testing::{FaultyBackend, Gate, Operation};
use cache_kit::{
    Cache, CacheStrategy, Codec, ErrorKind, LoadOptions, ManualClock, RejectedStats, Result, Source, Stored,
};
use common::{SourceDown, Users, bounded};
use serde::{Deserialize, Serialize};

/// A cache with the entry of `key` in place, and its bytes.
async fn with_entry() -> (Cache, InMemoryBackend, Bytes) {
    let backend = InMemoryBackend::new();
    let cache = Cache::new(backend.clone());
    cache.set("key", &"value".to_owned()).await.unwrap();
    let entry = backend.get("key").await.unwrap().unwrap();
    (cache, backend, entry)
}

async fn load(cache: &Cache) -> cache_kit::Outcome<String> {
    cache
        .get_or_load_outcome("key", LoadOptions::default(), || async {
            Ok::<_, SourceDown>("loaded".to_owned())
        })
        .await
        .unwrap()
}

#[tokio::test]
async fn an_entry_begins_with_ckit_and_the_value_follows_the_header() {
    let (_, _, entry) = with_entry().await;
    assert_eq!(&entry[..5], b"CKIT\x02");
    assert_eq!(&entry[80..], b"\x05value");
}

#[tokio::test]
async fn what_cannot_be_used_is_a_miss_with_its_own_counter_and_heals() {
    type Spoil = fn(&mut Vec<u8>);
    let rejected = RejectedStats::default;
    let cases: [(&str, Spoil, RejectedStats); 8] = [
        ("foreign", |e| *e = b"hello".to_vec(), set(rejected(), |r| r.foreign = 1)),
        ("empty", Vec::clear, set(rejected(), |r| r.foreign = 1)),
        ("format", |e| e[4] = 9, set(rejected(), |r| r.unknown_format = 1)),
        ("flags", |e| e[5] = 0x80, set(rejected(), |r| r.unknown_format = 1)),
        ("cut in the header", |e| e.truncate(40), set(rejected(), |r| r.truncated = 1)),
        ("cut in the payload", |e| e.truncate(75), set(rejected(), |r| r.truncated = 1)),
        ("flipped", |e| e[74] ^= 1, set(rejected(), |r| r.corrupt = 1)),
        ("longer", |e| e.push(0), set(rejected(), |r| r.corrupt = 1)),
    ];
    for (name, spoil, expected) in cases {
        let (cache, backend, entry) = with_entry().await;
        let mut spoiled = entry.to_vec();
        spoil(&mut spoiled);
        backend.set("key", spoiled.into(), None).await.unwrap();
        let outcome = load(&cache).await;
        assert_eq!((outcome.source, outcome.stored), (Source::Load, Stored::Yes), "{name}");
        assert_eq!(cache.stats().rejected, expected, "{name}");
        assert_eq!(cache.stats().misses, 1, "{name}");
        assert_eq!(load(&cache).await.source, Source::Cache, "{name}: healed");
    }
}

fn set(mut stats: RejectedStats, set: impl FnOnce(&mut RejectedStats)) -> RejectedStats {
    set(&mut stats);
    stats
}

#[tokio::test]
async fn the_entry_of_another_key_is_never_returned() {
    let (cache, backend, entry) = with_entry().await;
    backend.set("other", entry, None).await.unwrap();
    assert_eq!(cache.get::<String>("other").await.unwrap(), None);
    assert_eq!(cache.stats().rejected.wrong_key, 1);
    // Nor is that of another namespace.
    let shop = Cache::builder().namespace("shop").build(backend.clone()).unwrap();
    let entry = backend.get("key").await.unwrap().unwrap();
    backend.set("shop/key", entry, None).await.unwrap();
    assert_eq!(shop.get::<String>("key").await.unwrap(), None);
    assert_eq!(shop.stats().rejected.wrong_key, 1);
}

#[tokio::test]
async fn an_entry_of_another_type_is_a_miss() {
    let (cache, _, _) = with_entry().await;
    assert_eq!(cache.get::<Vec<u8>>("key").await.unwrap(), None);
    assert_eq!(cache.get::<Option<String>>("key").await.unwrap(), None);
    assert_eq!(cache.stats().rejected.wrong_schema, 2);
    assert_eq!(cache.get::<String>("key").await.unwrap().as_deref(), Some("value"));
}

#[tokio::test]
async fn an_entry_larger_than_allowed_is_a_miss() {
    let (_, backend, _) = with_entry().await;
    let cache = Cache::new(backend.clone());
    cache.set("key", &"x".repeat(1000)).await.unwrap();
    let small = Cache::builder().max_value_bytes(500).build(backend).unwrap();
    assert_eq!(small.get::<String>("key").await.unwrap(), None);
    assert_eq!(small.stats().rejected.too_large, 1);
    assert_eq!(small.set("key", &"x".repeat(1000)).await.unwrap_err().kind(), ErrorKind::TooLarge);
}

#[tokio::test]
async fn healing_does_not_touch_what_a_newer_writer_put_there() {
    // The reader finds rubbish; before it can take a lease, somebody stores a good value.
    let memory = InMemoryBackend::new();
    let (backend, faults) = FaultyBackend::new(memory.clone());
    let cache = Cache::new(backend);
    memory.set("key", "rubbish".into(), None).await.unwrap();
    faults.fail([Operation::HealthCheck]); // Makes every read go through `get`.
    let (users, gate) = (Users::with(&[(1, "from the source")]), Gate::new());
    let (reader, slow) = (cache.clone(), users.behind(&gate));
    let healing = tokio::spawn(async move {
        reader.get_or_load_outcome("key", LoadOptions::default(), || slow.name(1)).await.unwrap()
    });
    gate.reached().await;
    Cache::new(memory.clone()).set("key", &"newer".to_owned()).await.unwrap();
    gate.open();
    let healed = bounded(healing).await.unwrap();
    assert_eq!(healed.stored, Stored::FencedOff);
    assert_eq!(cache.get::<String>("key").await.unwrap().as_deref(), Some("newer"));
}

/// A store into which somebody writes between a reader's lookup and its lease.
struct Overtaken {
    inner: InMemoryBackend,
    entry: Bytes,
}

#[async_trait]
impl CacheBackend for Overtaken {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        self.inner.get(key).await
    }

    async fn set(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<()> {
        self.inner.set(key, value, ttl).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.inner.delete(key).await
    }

    async fn acquire(&self, key: &str, seen: Option<&Bytes>, life: Duration) -> Result<Acquired> {
        self.inner.set(key, self.entry.clone(), None).await?;
        self.inner.acquire(key, seen, life).await
    }
}

#[tokio::test]
async fn a_reader_that_was_overtaken_takes_what_is_there_and_loads_nothing() {
    let (_, inner, entry) = with_entry().await;
    inner.delete("key").await.unwrap();
    let cache = Cache::new(Overtaken { inner, entry });
    let outcome = load(&cache).await;
    assert_eq!((outcome.value.as_str(), outcome.source), ("value", Source::Cache));
    assert_eq!(cache.stats().loads, 0);
}

#[tokio::test]
async fn the_strategy_invalidate_asks_the_source_even_if_it_was_overtaken() {
    let (_, _, entry) = with_entry().await;
    let cache = Cache::new(Overtaken { inner: InMemoryBackend::new(), entry });
    let options = LoadOptions::default().with_strategy(CacheStrategy::Invalidate);
    let load = || async { Ok::<_, SourceDown>("loaded".to_owned()) };
    let outcome = cache.get_or_load_outcome("key", options, load).await.unwrap();
    assert_eq!((outcome.value.as_str(), outcome.source), ("loaded", Source::Load));
}

#[tokio::test]
async fn entries_live_as_long_as_the_cache_says() {
    let time = ManualClock::new();
    let backend = InMemoryBackend::builder().clock(time.clock()).build().unwrap();
    let cache =
        Cache::builder().clock(time.clock()).ttl(Duration::from_secs(60)).build(backend.clone()).unwrap();
    cache.set("key", &1).await.unwrap();
    cache.set_with("short", LoadOptions::default().with_ttl(Duration::from_secs(5)), &2).await.unwrap();
    time.advance(Duration::from_secs(5));
    assert_eq!(cache.get_outcome::<i32>("key").await.unwrap().age, Some(Duration::from_secs(5)));
    assert_eq!(cache.get::<i32>("short").await.unwrap(), None);
    time.advance(Duration::from_secs(55));
    assert_eq!(cache.get::<i32>("key").await.unwrap(), None);
    let endless = Cache::builder().clock(time.clock()).ttl_policy(cache_kit::TtlPolicy::Infinite);
    let endless = endless.build(backend).unwrap();
    endless.set("key", &3).await.unwrap();
    time.advance(Duration::from_secs(1_000_000_000));
    assert_eq!(endless.get::<i32>("key").await.unwrap(), Some(3));
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Everything {
    none: Option<u8>,
    some: Option<String>,
    floats: (f32, f64),
    map: HashMap<String, i64>,
    ordered: BTreeMap<u32, Vec<bool>>,
    set: HashSet<char>,
    big: u128,
    unit: (),
    choice: Choice,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
enum Choice {
    Plain,
    Tuple(u8, i16),
    Named { text: String },
}

fn everything() -> Everything {
    Everything {
        none: None,
        some: Some("ü".into()),
        floats: (1.5, -0.1),
        map: (0..20).map(|n| (n.to_string(), n)).collect(),
        ordered: BTreeMap::from([(7, vec![true, false])]),
        set: "hello".chars().collect(),
        big: u128::from(u64::MAX),
        unit: (),
        choice: Choice::Named { text: String::new() },
    }
}

#[tokio::test]
async fn every_codec_keeps_values_and_reads_the_others_entries() {
    let backend = InMemoryBackend::new();
    for codec in [Codec::Postcard, Codec::MessagePack, Codec::Json] {
        let cache = Cache::builder().codec(codec).verify_roundtrip(true).build(backend.clone()).unwrap();
        for choice in [Choice::Plain, Choice::Tuple(1, -2), Choice::Named { text: "x".into() }] {
            let value = Everything { choice, ..everything() };
            cache.set("key", &value).await.unwrap();
            // A cache with the default codec.
            assert_eq!(
                Cache::new(backend.clone()).get::<Everything>("key").await.unwrap(),
                Some(value),
                "{codec}"
            );
        }
    }
}

/// The serde attributes that postcard encodes and then misreads.
mod misread {
    use super::*;

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub(super) struct Skipped {
        #[serde(skip_serializing_if = "Option::is_none")]
        pub(super) first: Option<u8>,
        pub(super) second: u8,
        pub(super) third: Vec<u8>,
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub(super) struct Flat {
        #[serde(flatten)]
        pub(super) inner: HashMap<String, u8>,
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(untagged)]
    pub(super) enum Untagged {
        Number(u8),
        Text(String),
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "kind")]
    pub(super) enum Tagged {
        A { n: u8 },
        B,
    }

    #[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
    pub(super) enum SkippedVariant {
        #[serde(skip)]
        Internal,
        First,
        Second,
        Third,
    }
}

async fn refused_by_postcard<T: cache_kit::CacheValue + PartialEq + std::fmt::Debug>(value: T) {
    let name = std::any::type_name::<T>();
    let backend = InMemoryBackend::new();
    let cache = Cache::builder().verify_roundtrip(true).build(backend.clone()).unwrap();
    let error = cache.set("key", &value).await.expect_err(name);
    assert_eq!(error.kind(), ErrorKind::Codec, "{name}");
    assert!(error.to_string().contains("Codec::MessagePack"), "says what to do: {error}");
    assert!(error.to_string().contains(name), "names the type: {error}");
    // A read survives it, and says so.
    let loaded = value.clone();
    let read =
        cache.get_or_load_outcome("key", LoadOptions::default(), || async { Ok::<_, SourceDown>(loaded) });
    let outcome = read.await.unwrap();
    assert_eq!((&outcome.value, outcome.stored), (&value, Stored::Failed));
    assert_eq!(outcome.degraded.unwrap().kind(), ErrorKind::Codec);
    assert_eq!(common::values_in(&backend), 0);
    assert_eq!(backend.stats().leases, 0);
    // With the remedy it works.
    let cache = Cache::builder().codec(Codec::MessagePack).verify_roundtrip(true).build(backend).unwrap();
    cache.set("key", &value).await.unwrap();
    assert_eq!(cache.get::<T>("key").await.unwrap(), Some(value));
}

#[tokio::test]
async fn types_that_postcard_misreads_are_found_before_they_are_stored() {
    use misread::*;
    // This one decodes without an error, to first: Some(2), second: 0, third: [].
    refused_by_postcard(Skipped { first: None, second: 1, third: vec![0, 0] }).await;
    refused_by_postcard(Flat { inner: HashMap::from([("a".into(), 1)]) }).await;
    refused_by_postcard(Untagged::Number(7)).await;
    refused_by_postcard(Untagged::Text("t".into())).await;
    refused_by_postcard(Tagged::A { n: 1 }).await;
    refused_by_postcard(Tagged::B).await;
    refused_by_postcard(SkippedVariant::First).await;
    let _ = (SkippedVariant::Internal, SkippedVariant::Second, SkippedVariant::Third);
}

/// A value whose serializer does not work.
#[derive(Clone, Debug, PartialEq)]
struct Unwritable(bool);

impl Serialize for Unwritable {
    fn serialize<S: serde::Serializer>(&self, _: S) -> Result<S::Ok, S::Error> {
        assert!(self.0, "serializer out of order");
        Err(serde::ser::Error::custom("not today"))
    }
}

impl<'de> Deserialize<'de> for Unwritable {
    fn deserialize<D: serde::Deserializer<'de>>(_: D) -> Result<Self, D::Error> {
        panic!("deserializer out of order")
    }
}

#[tokio::test]
async fn a_serializer_that_fails_or_panics_breaks_no_read() {
    for value in [Unwritable(true), Unwritable(false)] {
        let cache = Cache::from_url("memory://").unwrap();
        assert_eq!(cache.set("key", &value).await.unwrap_err().kind(), ErrorKind::Codec);
        let loaded = value.clone();
        let read = cache.get_or_load("key", || async { Ok::<_, SourceDown>(loaded) }).await;
        assert_eq!(read.unwrap(), value);
        assert_eq!(cache.stats().store_failures, 2);
    }
}
