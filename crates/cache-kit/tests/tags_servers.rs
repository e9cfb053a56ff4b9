//! Versions of tags and namespaces that are lost or out of reach: nothing comes back, nothing is stuck, a dead server costs
//! what is on it, and what was not confirmed is told and sent again. And what they cost: a constant number of commands, and
//! no memory that stays.

#![cfg(all(feature = "redis", feature = "memcached"))]
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::future_not_send,
    reason = "a test that cannot go on fails, one that goes on prints what it measured, and each has its own thread"
)]

mod common;
#[path = "common/tags_parts.rs"]
mod parts;
#[path = "common/tags.rs"]
mod tagged;
#[path = "common/tags_pending.rs"]
mod unconfirmed;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cache_kit::backend::{CacheBackend, InMemoryBackend};
use cache_kit::{Cache, ErrorKind, ManualClock, Policy, Source, Stored};
use cache_kit_test_support::{MemcachedServer, RedisServer};
use common::engine::{Place, on_places, one};
use common::{bounded, until};
use tagged::{By, How, Load, SECOND, exact, read, served, strict, unix_millis, watch};

on_places! {
    memory {
        what_carries_a_version_that_was_lost_never_comes_back_and_nothing_is_stuck
        what_is_lost_during_a_load_makes_it_a_miss_at_most
    }
    redis {
        what_carries_a_version_that_was_lost_never_comes_back_and_nothing_is_stuck
        what_is_lost_during_a_load_makes_it_a_miss_at_most
        an_outage_keeps_an_invalidation_and_what_it_concerns_waiting
        nothing_is_left_when_the_last_entry_has_expired
    }
    memcached {
        what_carries_a_version_that_was_lost_never_comes_back_and_nothing_is_stuck
        what_is_lost_during_a_load_makes_it_a_miss_at_most
        an_outage_keeps_an_invalidation_and_what_it_concerns_waiting
        nothing_is_left_when_the_last_entry_has_expired
    }
}

const LONG: Duration = Duration::from_secs(20);
const VERSIONS: [&str; 3] = ["%space", "%tags", "%tag:t"];
const OWNED: (How, By) = (How::Owned, By::CallTag);

/// How versions are lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Loss {
    /// This one is deleted by somebody who knows nothing of leases.
    Of(&'static str),
    /// Something else is written over this one.
    Overwritten(&'static str),
    /// All is gone.
    Flush,
    /// The server is killed, and is empty when it is back.
    Restart,
}

impl Loss {
    fn all() -> impl Iterator<Item = Self> {
        let each = VERSIONS.into_iter().flat_map(|key| [Self::Of(key), Self::Overwritten(key)]);
        each.chain([Self::Flush, Self::Restart])
    }

    async fn happen(self, place: &Place) {
        match (self, place) {
            (Self::Of(key), Place::Redis(server)) => assert_eq!(server.command(&format!("DEL {key}")), "1"),
            (Self::Of(key), Place::Memcached(server)) => {
                assert_eq!(server.command(&format!("delete {key}")), "DELETED");
            }
            (Self::Of(key), Place::Memory(backend)) => backend.delete(key).await.unwrap(),
            (Self::Overwritten(key), _) => {
                place.cache().backend().set(key, Bytes::from("somebody else's"), None).await.unwrap();
            }
            (Self::Restart, Place::Redis(_) | Place::Memcached(_)) => place.restart(),
            (Self::Flush | Self::Restart, _) => place.flush().await,
            (Self::Of(_), Place::Sentinels(_)) => panic!("of one server"),
        }
    }
}

/// Reads until it is stored: what was written in the second of a fault is not trusted everywhere.
async fn until_stored(cache: &Cache, way: (How, By), key: &str, what: &str) {
    let is_stored = async || {
        let got = read(cache, way, key, "t", &one("new")).await;
        assert_eq!(got.value, "new", "{what}");
        got.source == Source::Cache
    };
    until(what, LONG, is_stored).await;
}

async fn what_carries_a_version_that_was_lost_never_comes_back_and_nothing_is_stuck(place: Place) {
    for loss in Loss::all() {
        for way in [OWNED, (How::Batch, By::LoaderTag)] {
            let (what, key) = (format!("{loss:?}, {way:?}"), "user:1");
            let (here, asking) = (place.cache_by(exact()), place.cache_by(strict()));
            here.invalidate(key).await.unwrap();
            assert!(read(&here, way, key, "t", &one("old")).await.is_loaded("old", Stored::Yes), "{what}");
            // All three versions are there to be lost.
            let another = format!("of {loss:?}, {way:?}");
            read(&here, (How::Owned, By::LoaderTag), &another, "t", &one("row")).await;
            assert!(read(&asking, way, key, "t", &one("not asked")).await.is_hit("old"), "{what}");
            let entry = here.backend().get(key).await.unwrap().unwrap();
            loss.happen(&place).await;
            let lost_at = unix_millis();
            let another = place.cache_by(exact());
            let is_guarded = loss != Loss::Of("%tags") && loss != Loss::Overwritten("%tags");
            let asking = if matches!(place, Place::Memory(_)) { &another } else { &asking };
            for cache in [asking, &another] {
                let found = async || cache.get::<String>(key).await;
                let found = match loss {
                    Loss::Restart => {
                        let mut answer = None;
                        let answers = async || {
                            answer = found().await.ok();
                            answer.is_some()
                        };
                        until("the server answers", LONG, answers).await;
                        answer.unwrap()
                    }
                    _ => found().await.unwrap(),
                };
                assert_eq!(found.is_none(), is_guarded, "{what}");
            }
            if is_guarded {
                until_stored(&another, way, key, &what).await;
            }
            // Somebody has kept the old entry, and puts it back.
            let put_back = async || here.backend().set(key, entry.clone(), None).await.is_ok();
            until("it is put back", LONG, put_back).await;
            if is_guarded {
                assert_eq!(another.get::<String>(key).await.unwrap(), None, "{what}");
                // Who remembers the lost version does so for a second at most.
                if !matches!(place, Place::Memory(_)) && loss != Loss::Restart {
                    let (last, _) = watch(&here, key).await;
                    assert!(last.saturating_sub(lost_at) <= 1_000, "{what}");
                }
            }
            until_stored(&here, way, "user:2", &what).await;
            here.invalidate_tag("t").await.unwrap();
            assert_eq!(here.get::<String>("user:2").await.unwrap(), None, "{what}");
        }
    }
}

async fn what_is_lost_during_a_load_makes_it_a_miss_at_most(place: Place) {
    for loss in Loss::all().filter(|loss| *loss != Loss::Restart) {
        for way in How::ALL.into_iter().flat_map(|how| By::ALL.map(|by| (how, by))) {
            let (what, key) = (format!("{loss:?}, {way:?}"), "user:1");
            let (here, there) = (place.cache_by(strict()), place.cache_by(strict()));
            here.invalidate(key).await.unwrap();
            // All three are there to be lost.
            for by in [By::CallTag, By::LoaderTag] {
                read(&here, (How::Owned, by), &format!("of {by:?} {loss:?} {way:?}"), "t", &one("row")).await;
            }
            let load = Load::begin(&here, way, key, "t", &one("old")).await;
            loss.happen(&place).await;
            here.invalidate_tag("t").await.unwrap();
            here.clear().await.unwrap();
            assert_eq!(load.end().await, (served(way.0).to_owned(), Stored::FencedOff), "{what}");
            for cache in [&here, &there] {
                assert_eq!(
                    cache.get::<String>(key).await.unwrap().filter(|row| row == "old"),
                    None,
                    "{what}"
                );
            }
            until_stored(&there, way, key, &what).await;
            assert!(read(&here, way, key, "t", &one("not asked")).await.is_hit("new"), "{what}");
        }
    }
}

fn is_unconfirmed<T: std::fmt::Debug>(result: cache_kit::Result<T>) {
    assert_eq!(result.unwrap_err().kind(), ErrorKind::Unconfirmed);
}

/// Whether what is stored is served: `None` if that cannot be told.
async fn found(cache: &Cache, key: &str) -> Option<Option<String>> {
    bounded(cache.get::<String>(key)).await.ok()
}

async fn an_outage_keeps_an_invalidation_and_what_it_concerns_waiting(place: Place) {
    for by in By::ALL {
        for is_killed in [false, true] {
            let what = format!("{by:?}, killed: {is_killed}");
            let url = place.url().replace("20s", "500ms");
            let cache = |policy: Policy| Cache::builder().policy(policy).build_url(&url).unwrap();
            let (here, there) = (cache(exact()), cache(strict()));
            let (way, key) = ((How::Owned, by), "user:1");
            until("it is stored", LONG, async || {
                read(&here, way, key, "t", &one("old")).await.source == Source::Cache
            })
            .await;
            let old = Some(Some("old".to_owned()));
            until("another finds it", LONG, async || found(&there, key).await == old).await;
            match &place {
                Place::Redis(server) if is_killed => server.kill(),
                Place::Redis(server) => server.pause(),
                Place::Memcached(server) if is_killed => server.kill(),
                Place::Memcached(server) => server.pause(),
                _ => panic!("of one server"),
            }
            is_unconfirmed(bounded(by.invalidate(&here, "t")).await);
            assert_eq!(here.gauges().pending_invalidations, 1, "{what}");
            for _ in 0..3 {
                let got = read(&here, way, key, "t", &one("new")).await;
                assert_eq!((got.value.as_str(), got.source), ("new", Source::Load), "{what}");
                assert_ne!(got.stored, Stored::Yes, "{what}");
            }
            is_unconfirmed(here.flush_pending(Duration::from_millis(300)).await);
            match &place {
                Place::Redis(server) if is_killed => server.restart(),
                Place::Redis(server) => server.resume(),
                Place::Memcached(server) if is_killed => server.restart(),
                Place::Memcached(server) => server.resume(),
                _ => panic!("of one server"),
            }
            // As soon as it answers again, it is not the old value that it answers with.
            bounded(here.flush_pending(LONG)).await.unwrap();
            assert_eq!((here.gauges().pending_invalidations, here.stats().replayed), (0, 1), "{what}");
            for cache in [&here, &there] {
                let mut seen = None;
                let answers = async || {
                    seen = found(cache, key).await;
                    seen.is_some()
                };
                until("it answers", LONG, answers).await;
                assert_eq!(seen, Some(None), "{what}");
                until_stored(cache, way, key, &what).await;
                here.invalidate(key).await.unwrap();
            }
        }
    }
}

async fn nothing_is_left_when_the_last_entry_has_expired(place: Place) {
    for (ttl, stale) in [(SECOND, Duration::ZERO), (SECOND, SECOND), (2 * SECOND, Duration::ZERO)] {
        let policy = exact().with_ttl(ttl).with_stale_if_error(stale);
        let (here, there) = (place.cache_by(policy), place.cache_by(policy));
        let mut last = Instant::now();
        let began = Instant::now();
        let mut stored = Vec::new();
        // For longer than an entry lives, so that versions are kept for those that come later.
        while began.elapsed() < ttl + ttl / 2 {
            for way in
                [How::Owned, How::Inline, How::Batch].into_iter().flat_map(|how| By::ALL.map(|by| (how, by)))
            {
                let (key, tag) = (format!("key:{}", stored.len()), format!("tag-{}", stored.len() % 50));
                let got = read(&here, way, &key, &tag, &one("row")).await;
                last = Instant::now();
                assert_eq!(got.stored, Stored::Yes, "{way:?}");
                assert!(there.get::<String>(&key).await.unwrap().is_some(), "{way:?}");
                stored.push(key);
            }
            here.invalidate_tag(format!("tag-{}", stored.len() % 50)).await.unwrap();
        }
        // Versions are kept for a quarter of the life longer, but a second at least.
        let longest = ttl + stale + ((ttl + stale) / 4).max(SECOND);
        let names: Vec<String> = (0..50)
            .map(|n| format!("%tag:tag-{n}"))
            .chain(VERSIONS[..2].iter().map(|key| (*key).to_owned()))
            .collect();
        let left = || match &place {
            Place::Redis(server) => server.command("DBSIZE").parse::<usize>().unwrap(),
            Place::Memcached(server) => {
                let is_there = |key: &&String| server.command(&format!("mg {key}")).starts_with("HD");
                names.iter().chain(&stored).filter(is_there).count()
            }
            _ => panic!("a server"),
        };
        let most = left();
        assert!(most > 0, "there was something");
        let took = until("all of it is gone", LONG, async || left() == 0).await;
        println!(
            "{} entries, {most} keys at the end, gone {:?} after the last load",
            stored.len(),
            last.elapsed()
        );
        // Memcached counts in whole seconds, and a busy machine comes late.
        assert!(last.elapsed() < longest + 3 * SECOND / 2, "{took:?}, {:?}", last.elapsed());
    }
}

#[tokio::test]
async fn nothing_is_left_in_memory_when_the_last_entry_has_expired() {
    let time = ManualClock::new();
    let memory = InMemoryBackend::builder().clock(time.clock()).build().unwrap();
    let policy = exact().with_ttl(8 * SECOND);
    let cache = Cache::builder().clock(time.clock()).policy(policy).build(memory.clone()).unwrap();
    for round in 0..4 {
        for (at, by) in By::ALL.into_iter().enumerate() {
            let (key, tag) = (format!("key:{round}:{at}"), format!("tag-{at}"));
            assert!(
                read(&cache, (How::Owned, by), &key, &tag, &one("row")).await.is_loaded("row", Stored::Yes)
            );
        }
        time.advance(3 * SECOND);
        memory.sweep();
        assert_eq!(cache.get::<String>(format!("key:{round}:0")).await.unwrap().as_deref(), Some("row"));
    }
    time.advance(5 * SECOND);
    memory.sweep();
    assert_eq!(cache.get::<String>("key:3:0").await.unwrap(), None);
    let names: Vec<&str> = VERSIONS[..2].iter().copied().chain(["%tag:tag-0", "%tag:tag-1"]).collect();
    let left = memory.mget(&names).await.unwrap().iter().flatten().count();
    assert!(memory.stats().entries == left && left > 0, "versions, for a quarter of the life: {left}");
    time.advance(2 * SECOND + Duration::from_millis(1));
    memory.sweep();
    assert_eq!((memory.stats().entries, memory.stats().leases), (0, 0));
}

/// How often each command was sent since the last time.
fn commands(server: &RedisServer) -> BTreeMap<String, u64> {
    let stats = server.command("INFO commandstats");
    let counts = stats.lines().filter_map(|line| {
        let (name, rest) = line.trim().strip_prefix("cmdstat_")?.split_once(":calls=")?;
        Some((name.to_owned(), rest.split(',').next()?.parse().ok()?))
    });
    let own = ["info", "config", "ping", "client", "hello", "time", "command"];
    let counts = counts.filter(|(name, _): &(String, u64)| !own.iter().any(|own| name.starts_with(own)));
    let counts = counts.collect();
    assert_eq!(server.command("CONFIG RESETSTAT"), "OK");
    counts
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalidation_costs_as_much_for_many_entries_as_for_one() {
    let (redis, memcached) = (RedisServer::start(), MemcachedServer::start());
    let url =
        |url: String| Cache::builder().policy(exact()).build_url(&format!("{url}?operation_timeout=20s"));
    let (on_redis, on_memcached) = (url(redis.url()).unwrap(), url(memcached.url()).unwrap());
    let mut costs = Vec::new();
    for entries in [1, 300] {
        for cache in [&on_redis, &on_memcached] {
            for at in 0..entries {
                let key = format!("key:{at}");
                assert_eq!(read(cache, OWNED, &key, "t", &one("row")).await.stored, Stored::Yes);
            }
        }
        drop(commands(&redis));
        on_redis.invalidate_tag("t").await.unwrap();
        let of_tag = commands(&redis);
        on_redis.invalidate_tags(["t", "u", "v"]).await.unwrap();
        let of_tags = commands(&redis);
        on_redis.clear().await.unwrap();
        let of_clear = commands(&redis);
        let sent =
            || ["delete_hits", "delete_misses", "cmd_set", "cmd_meta"].map(|name| memcached.stat(name));
        let before = sent();
        on_memcached.invalidate_tag("t").await.unwrap();
        on_memcached.clear().await.unwrap();
        let after = sent();
        let on_memcached_sent: u64 = before.iter().zip(after).map(|(before, after)| after - before).sum();
        assert_eq!(memcached.stat("cmd_flush"), 0);
        for (what, cost, most) in [("tag", &of_tag, 2), ("tags", &of_tags, 4), ("clear", &of_clear, 1)] {
            println!("{entries} entries, {what}: {cost:?}");
            let unlink: u64 = cost
                .iter()
                .filter(|(name, _)| ["del", "unlink"].contains(&name.as_str()))
                .map(|(_, calls)| *calls)
                .sum();
            assert!(unlink <= most && cost.len() == usize::from(unlink > 0), "{what}: {cost:?}");
        }
        println!("{entries} entries on Memcached: {on_memcached_sent} commands");
        costs.push((of_tag, of_tags, of_clear, on_memcached_sent));
    }
    assert_eq!(costs[0], costs[1], "however many there are");
}
