//! For how long entries live: less than asked by chance, and longer if they are read.

#![expect(
    clippy::unwrap_used,
    clippy::future_not_send,
    reason = "a test that cannot go on fails, and each has its own thread"
)]

mod common;
#[path = "common/lives.rs"]
mod lives;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cache_kit::backend::{self, Acquired, CacheBackend, Capabilities, Filled, Lease};
use cache_kit::testing::{Gate, Operation};
use cache_kit::{Cache, Loaded, ManualClock, Policy, Result};
use common::bounded;
use common::engine::{Place, on_places};
use lives::*;

#[tokio::test]
async fn entries_that_are_written_together_end_apart_and_none_later_than_asked() {
    const ENTRIES: usize = 10_000;
    const BINS: usize = 20;
    let stage = stage(Policy::default().with_ttl(TTL));
    let keys: Vec<String> = (0..ENTRIES).map(|at| format!("key:{at}")).collect();
    stage.cache.get_many_or_load(&keys, many).await.unwrap();
    stage.time.advance(TTL - TTL / 10);
    for key in &keys {
        assert_eq!(stage.cache.get::<u64>(key).await.unwrap(), Some(1), "before nine tenths of its life");
    }
    let (mut alive, mut peak) = (ENTRIES, 0);
    for _ in 0..BINS {
        stage.time.advance(TTL / 10 / BINS as u32);
        let left = stage.alive(&keys).await;
        peak = peak.max(alive - left);
        alive = left;
    }
    for key in &keys {
        assert_eq!(stage.cache.get::<u64>(key).await.unwrap(), None, "later than asked");
    }
    assert!(alive == 0 && peak * BINS * 2 <= ENTRIES * 3, "{peak} end together, of {ENTRIES} in {BINS} bins");
}

#[tokio::test]
async fn a_life_is_drawn_once_and_reading_does_not_change_it() {
    let stage = stage(Policy::default().with_ttl(TTL));
    stage.cache.get_or_load("key", one).await.unwrap();
    let (entry, writes) = (stage.memory.get("key").await.unwrap(), stage.writes());
    for _ in 0..1_000 {
        stage.time.advance(80 * MILLI);
        assert!(stage.cache.get_or_load_outcome("key", OWNED(), down).await.unwrap().is_hit());
    }
    stage.idle().await;
    assert_eq!((stage.memory.get("key").await.unwrap(), stage.writes()), (entry, writes));
}

/// Of the binomial distribution of 300 entries, less than a fifth or more than four fifths comes up less often than once
/// in 10^22 times.
#[tokio::test]
async fn whoever_writes_it_a_life_is_jittered_or_exact_as_the_policy_says() {
    const ENTRIES: u64 = 300;
    for door in ["set", "owned", "inline", "batch", "said", "entity", "entities"] {
        for (policy, is_exact) in [(Policy::default().with_ttl(TTL), false), (exact(), true)] {
            let stage = stage(policy);
            let keys: Vec<String> = (0..ENTRIES).map(|id| format!("note:{id}")).collect();
            let notes = Notes::of(Note::new("team"));
            for (id, key) in (0..ENTRIES).zip(&keys) {
                match door {
                    "set" => stage.cache.set(key, &1_u64).await.unwrap(),
                    "owned" => _ = stage.cache.get_or_load(key, one).await.unwrap(),
                    "inline" => _ = stage.cache.get_or_load_inline(key, one).await.unwrap(),
                    "said" => {
                        let said = Loaded::value(1).with_ttl(TTL);
                        _ = stage.load(Door::Owned, key, said).await.unwrap();
                    }
                    "entity" => _ = stage.expander.get::<Note, _>(&id, &notes).await.unwrap(),
                    _ => {}
                }
            }
            match door {
                "batch" => _ = stage.cache.get_many_or_load(&keys, many).await.unwrap(),
                "entities" => {
                    let ids: Vec<u64> = (0..ENTRIES).collect();
                    _ = stage.expander.get_many::<Note, _>(&ids, &notes).await.unwrap();
                }
                _ => {}
            }
            let mut alive = Vec::new();
            for wait in [90_000, 5_000, 4_999, 1] {
                stage.time.advance(wait * MILLI);
                alive.push(stage.alive(&keys).await);
            }
            match is_exact {
                true => assert_eq!(alive, [300, 300, 300, 0], "{door}"),
                false => assert!(
                    alive[0] == 300 && (60..240).contains(&alive[1]) && alive[3] == 0,
                    "{door}: {alive:?}"
                ),
            }
        }
    }
}

#[tokio::test]
async fn an_entry_that_is_read_lives_on_and_another_ends_and_none_outlives_its_ttl() {
    for door in ["get", "owned", "inline", "batch"] {
        let stage = stage(sliding());
        let keys = ["read".to_owned(), "unread".to_owned()];
        stage.cache.get_many_or_load(&keys, many).await.unwrap();
        for half in 1..20 {
            stage.time.advance(IDLE / 2);
            let read = match door {
                "get" => stage.cache.get::<u64>("read").await.unwrap(),
                "owned" => Some(stage.cache.get_or_load("read", down).await.unwrap()),
                "inline" => Some(stage.cache.get_or_load_inline("read", down).await.unwrap()),
                _ => stage.cache.get_many_or_load(["read"], many).await.unwrap()[0],
            };
            stage.idle().await;
            assert!(read == Some(1) && stage.cache.stats().loads == 1, "{door}");
            assert_eq!(stage.alive(&keys).await, if half < 2 { 2 } else { 1 }, "{door}: {half} halves");
        }
        assert_eq!(stage.cache.stats().touched, 18, "{door}: the last one gains nothing");
        stage.lives("read", IDLE / 2, door).await;
    }
}

#[tokio::test]
async fn an_entry_that_is_read_lives_on_whenever_it_was_written() {
    let stage = stage(sliding());
    stage.cache.set("early", &1_u64).await.unwrap();
    stage.time.advance(50 * SECOND);
    stage.cache.set("late", &1_u64).await.unwrap();
    for read in 1..=19 {
        stage.time.advance(5 * SECOND);
        assert_eq!(stage.cache.get::<u64>("late").await.unwrap(), Some(1), "{} s old", 5 * read);
        stage.idle().await;
    }
}

#[tokio::test]
async fn reads_within_a_tenth_of_the_idle_time_write_nothing_and_one_after_it_does() {
    let stage = stage(sliding());
    stage.cache.get_or_load("key", one).await.unwrap();
    let writes = stage.writes();
    for _ in 0..10_000 {
        stage.time.advance(IDLE / 10 / 10_000);
        assert!(stage.cache.get::<u64>("key").await.unwrap().is_some());
    }
    stage.idle().await;
    assert_eq!((stage.writes(), stage.cache.stats().touched), (writes, 0));
    stage.time.advance(MILLI);
    for _ in 0..1_000 {
        assert!(stage.cache.get::<u64>("key").await.unwrap().is_some());
    }
    stage.idle().await;
    assert_eq!((stage.writes() - writes, stage.cache.stats().touched), (2, 1), "a lease and a fill");
    stage.lives("key", IDLE, "from the read on").await;
}

on_places! {
    memory { a_touch_brings_nothing_back_that_is_gone }
    redis { a_touch_brings_nothing_back_that_is_gone a_server_keeps_what_is_read_until_its_ttl }
    memcached { a_touch_brings_nothing_back_that_is_gone a_server_keeps_what_is_read_until_its_ttl }
}

/// Stops where a life is written again that goes on.
struct Held<B> {
    inner: B,
    at: Operation,
    gate: Arc<Mutex<Option<Gate>>>,
}

impl<B> Held<B> {
    async fn pass(&self, at: Operation, key: &str) {
        let gate = self.gate.lock().unwrap().clone().filter(|_| at == self.at && key == "key");
        if let Some(gate) = gate {
            gate.pass().await;
        }
    }
}

#[async_trait]
impl<B: CacheBackend> CacheBackend for Held<B> {
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
        if seen.is_some() {
            self.pass(Operation::Acquire, key).await;
        }
        self.inner.acquire(key, seen, life).await
    }

    async fn fill(&self, key: &str, lease: &Lease, value: Bytes, ttl: Option<Duration>) -> Result<Filled> {
        self.pass(Operation::Fill, key).await;
        self.inner.fill(key, lease, value, ttl).await
    }
}

fn backend_of(place: &Place) -> Box<dyn CacheBackend> {
    match place {
        Place::Memory(backend) => Box::new(backend.clone()),
        _ => backend::from_url(&place.url()).unwrap(),
    }
}

/// So slow that no server's clock comes to it.
fn slow() -> Policy {
    exact().with_ttl(10_000 * SECOND).with_idle(1_000 * SECOND)
}

async fn a_touch_brings_nothing_back_that_is_gone(place: Place) {
    let options = OWNED().with_tags(&["team"]);
    for at in [Operation::Acquire, Operation::Fill] {
        for how in ["key", "tag", "clear", "set", "elsewhere", "nothing"] {
            let (time, gate, held) = (ManualClock::new(), Gate::new(), Arc::default());
            let backend = Held { inner: backend_of(&place), at, gate: Arc::clone(&held) };
            let builder = || Cache::builder().clock(time.clock()).policy(slow());
            let cache = builder().build(backend).unwrap();
            cache.get_or_load_with("key", options, one).await.unwrap();
            time.advance(500 * SECOND);
            *held.lock().unwrap() = Some(gate.clone());
            assert_eq!(bounded(cache.get::<u64>("key")).await.unwrap(), Some(1), "nobody waits for it");
            bounded(gate.reached()).await;
            match how {
                "key" => cache.invalidate("key").await.unwrap(),
                "tag" => cache.invalidate_tag("team").await.unwrap(),
                "clear" => cache.clear().await.unwrap(),
                "set" => cache.set("key", &2_u64).await.unwrap(),
                "elsewhere" => {
                    let other = builder().build(backend_of(&place)).unwrap();
                    other.invalidate("key").await.unwrap();
                }
                _ => {}
            }
            gate.open();
            idle(&cache).await;
            let left = match how {
                "set" => Some(2),
                "nothing" => Some(1),
                _ => None,
            };
            assert_eq!(cache.get::<u64>("key").await.unwrap(), left, "{how}, before {at:?}");
            let touched = u64::from(matches!(how, "nothing" | "tag" | "clear"));
            assert_eq!(cache.stats().touched, touched, "{how}, before {at:?}");
            place.flush().await;
        }
    }
}

async fn a_server_keeps_what_is_read_until_its_ttl(place: Place) {
    let (time, mut now) = (ManualClock::new(), 0);
    let cache = Cache::builder().clock(time.clock()).policy(slow()).build_url(&place.url()).unwrap();
    // As if so much time had passed for the server too.
    let ages = |left: u64| match &place {
        Place::Redis(server) => assert_eq!(server.command(&format!("EXPIRE key {left}")), "1"),
        Place::Memcached(server) => assert_eq!(server.command(&format!("touch key {left}")), "TOUCHED"),
        _ => panic!("no server"),
    };
    let left = || -> u64 {
        match &place {
            Place::Redis(server) => server.command("TTL key").parse().unwrap(),
            Place::Memcached(server) => server.command("mg key t")[4..].parse().unwrap(),
            _ => panic!("no server"),
        }
    };
    cache.get_or_load("key", one).await.unwrap();
    while now < 9_500 {
        now += 500;
        time.advance(500 * SECOND);
        ages(500);
        let read = match now % 1_000 {
            0 => bounded(cache.get::<u64>("key")).await.unwrap(),
            _ => bounded(cache.get_many_or_load(["key"], many)).await.unwrap()[0],
        };
        assert_eq!(read, Some(1));
        idle(&cache).await;
        let most = (10_000 - now).min(1_000);
        // A server that counts in seconds may keep it for one more.
        assert!((most - 20..=most + 1).contains(&left()), "{} s left of {most}, {now} s old", left());
    }
    assert_eq!((cache.stats().touched, cache.stats().loads), (18, 1));
}
