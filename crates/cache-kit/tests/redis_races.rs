//! Late fills on Redis are refused, whoever invalidated and however: this process, another one, a plain `DEL`, a
//! flush, a restart, a failover; on every way that Redis is run. Gates, not sleeps.

#![cfg(feature = "redis")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::time::Duration;

use bytes::Bytes;
use cache_kit::backend::{Acquired, CacheBackend, Filled, RedisBackend};
use cache_kit::testing::Gate;
use cache_kit::{Cache, LoadOptions, Outcome, Policy, Source, Stored};
use common::sites::{Site, Way, on_sites};
use common::{Users, bounded};
use tokio::task::JoinHandle;

on_sites! {
    [plain unix tls least_rights sentinel cluster] {
        a_late_fill_is_refused_after_every_kind_of_invalidation
        a_foreign_write_is_not_overwritten_by_a_late_fill
        a_key_of_another_type_is_a_miss_and_heals
        scripts_are_sent_again_when_the_server_has_forgotten_them
        a_stale_value_keeps_its_life_while_it_is_leased
        values_are_stored_as_any_client_reads_them
    }
    // The others are not restarted but replaced.
    [plain unix tls least_rights] { a_late_fill_is_refused_after_a_restart }
    [sentinel cluster] { a_late_fill_is_refused_whether_it_was_invalidated_before_or_after_a_failover }
}

/// Long after a server is there again.
const PATIENCE: Duration = Duration::from_secs(10);

fn backend(site: &Site) -> RedisBackend {
    site.builder().operation_timeout(Duration::from_secs(5)).build().unwrap()
}

async fn read_at(cache: &Cache, key: &str, users: Users) -> Outcome<String> {
    cache.get_or_load_outcome(key, LoadOptions::default(), move || users.name(1)).await.unwrap()
}

async fn read(cache: &Cache, users: Users) -> Outcome<String> {
    read_at(cache, "user:1", users).await
}

/// A load that has read the old row, holds the lease, and stands at the gate.
struct Load {
    gate: Gate,
    outcome: JoinHandle<Outcome<String>>,
}

impl Load {
    async fn begin(cache: &Cache, key: &'static str, users: &Users) -> Self {
        let gate = Gate::new();
        let (reader, slow) = (cache.clone(), users.behind(&gate));
        let outcome = tokio::spawn(async move { read_at(&reader, key, slow).await });
        bounded(gate.reached()).await;
        Self { gate, outcome }
    }

    async fn end(self) -> Outcome<String> {
        self.gate.open();
        bounded(self.outcome).await.unwrap()
    }
}

/// Begins a load, and lets `invalidate` happen before it ends.
async fn late_fill(site: &Site, invalidate: impl AsyncFnOnce(&Cache)) -> (Cache, Users, Outcome<String>) {
    let (cache, users) = (Cache::new(backend(site)), Users::with(&[(1, "old")]));
    let load = Load::begin(&cache, "user:1", &users).await;
    users.put(1, "new");
    invalidate(&cache).await;
    let old = load.end().await;
    (cache, users, old)
}

/// Until the lost connection was noticed and replaced, a fill would fail for that reason alone.
async fn until_used_again(cache: &Cache, key: &str) {
    let used = async || cache.backend().get(key).await.is_ok();
    common::until("used again", PATIENCE, used).await;
}

async fn a_late_fill_is_refused_after_every_kind_of_invalidation(way: Way) {
    let site = way.turn().await;
    let foreign = |line: &str| site.command("user:1", line);
    for how in ["this cache", "another cache", "DEL", "UNLINK", "SET and DEL", "FLUSHALL", "EXPIRE", "RENAME"]
    {
        let (cache, users, old) = late_fill(&site, async |cache| match how {
            "this cache" => cache.invalidate("user:1").await.unwrap(),
            "another cache" => Cache::new(backend(&site)).invalidate("user:1").await.unwrap(),
            "SET and DEL" => {
                assert_eq!(foreign("SET <key> foreign"), "OK");
                assert_eq!(foreign("DEL <key>"), "1");
            }
            "EXPIRE" => assert_eq!(foreign("PEXPIRE <key> 0"), "1"),
            // To a key of the same slot.
            "RENAME" => assert_eq!(foreign("RENAME <key> {<key>}:elsewhere"), "OK"),
            "FLUSHALL" => assert_eq!(foreign("FLUSHALL"), "OK"),
            command => assert_eq!(foreign(&format!("{command} <key>")), "1", "the stub was there"),
        })
        .await;
        assert_eq!((old.value.as_str(), old.stored), ("old", Stored::FencedOff), "{how}");
        let now = bounded(read(&cache, users)).await;
        assert_eq!((now.value.as_str(), now.source, now.stored), ("new", Source::Load, Stored::Yes), "{how}");
        assert_eq!(foreign("DEL <key>"), "1", "{how}");
    }
}

async fn a_late_fill_is_refused_after_a_restart(way: Way) {
    let site = way.start();
    let (cache, users, old) = late_fill(&site, async |cache| {
        let server = site.kill("user:1");
        site.bring_back("user:1", server);
        until_used_again(cache, "user:1").await;
    })
    .await;
    assert_eq!((old.value.as_str(), old.stored), ("old", Stored::FencedOff));
    assert_eq!(bounded(read(&cache, users)).await.value, "new");
}

async fn a_late_fill_is_refused_whether_it_was_invalidated_before_or_after_a_failover(way: Way) {
    let site = way.start();
    let (cache, users) = (Cache::new(backend(&site)), Users::with(&[(1, "old")]));
    // On one server, and so are the leases.
    let (before, after) = ("{user}:before", "{user}:after");
    let load_before = Load::begin(&cache, before, &users).await;
    let load_after = Load::begin(&cache, after, &users).await;
    users.put(1, "new");
    cache.invalidate(before).await.unwrap();
    // What a server has not passed on when it dies is lost, and an invalidation may be, too.
    site.replicated(before).await;
    let old = site.kill(before);
    site.bring_back(before, old);
    until_used_again(&cache, after).await;
    cache.invalidate(after).await.unwrap();
    for (key, load) in [(before, load_before), (after, load_after)] {
        let old = load.end().await;
        assert_eq!((old.value.as_str(), old.stored), ("old", Stored::FencedOff), "{key}");
        let now = bounded(read_at(&cache, key, users.clone())).await;
        assert_eq!((now.value.as_str(), now.source, now.stored), ("new", Source::Load, Stored::Yes), "{key}");
    }
}

async fn a_foreign_write_is_not_overwritten_by_a_late_fill(way: Way) {
    let site = way.turn().await;
    let (cache, _, old) = late_fill(&site, async |_| {
        assert_eq!(site.command("user:1", "SET <key> foreign"), "OK");
    })
    .await;
    assert_eq!(old.stored, Stored::FencedOff);
    assert_eq!(site.command("user:1", "GET <key>"), "foreign");
    assert_eq!(cache.get::<String>("user:1").await.unwrap(), None);
    assert_eq!(cache.stats().rejected.foreign, 1);
}

async fn a_key_of_another_type_is_a_miss_and_heals(way: Way) {
    let site = way.turn().await;
    assert_eq!(site.command("user:1", "LPUSH <key> element"), "1");
    let (cache, users) = (Cache::new(backend(&site)), Users::with(&[(1, "row")]));
    assert_eq!(cache.get::<String>("user:1").await.unwrap(), None);
    assert!(!cache.backend().exists("user:1").await.unwrap());
    assert_eq!(read(&cache, users.clone()).await.stored, Stored::Yes);
    assert_eq!(read(&cache, users).await.source, Source::Cache);
}

async fn scripts_are_sent_again_when_the_server_has_forgotten_them(way: Way) {
    let site = way.turn().await;
    let (cache, users) = (Cache::new(backend(&site)), Users::with(&[(1, "row")]));
    for _ in 0..3 {
        assert_eq!(site.command("user:1", "SCRIPT FLUSH"), "OK");
        assert_eq!(read(&cache, users.clone()).await.stored, Stored::Yes);
        cache.invalidate("user:1").await.unwrap();
    }
}

async fn a_stale_value_keeps_its_life_while_it_is_leased(way: Way) {
    let site = way.turn().await;
    let left = || site.command("key", "PTTL <key>").parse::<i64>().unwrap();
    let backend = backend(&site);
    backend.set("key", Bytes::from("stale"), Some(Duration::from_secs(100))).await.unwrap();
    let seen = Bytes::from("stale");
    let acquired = backend.acquire("key", Some(&seen), Duration::from_secs(5)).await.unwrap();
    let Acquired::Granted { lease, kept: Some(_) } = acquired else { panic!("{acquired:?}") };
    assert!((90_000..=100_000).contains(&left()), "{}", left());
    assert_eq!(backend.get("key").await.unwrap(), Some(seen.clone()));
    backend.release("key", &lease).await.unwrap();
    assert!((90_000..=100_000).contains(&left()), "{}", left());
    assert_eq!(site.command("key", "GET <key>"), "stale", "as any client reads it");
    // A lease over a value ends by the server's clock.
    let life = Duration::from_millis(300);
    let acquired = backend.acquire("key", Some(&seen), life).await.unwrap();
    let Acquired::Granted { lease, .. } = acquired else { panic!("{acquired:?}") };
    tokio::time::sleep(life + Duration::from_millis(100)).await;
    assert_eq!(backend.fill("key", &lease, Bytes::from("late"), None).await.unwrap(), Filled::Refused);
    let again = backend.acquire("key", Some(&seen), life).await.unwrap();
    assert!(matches!(again, Acquired::Granted { .. }), "{again:?}");
}

async fn values_are_stored_as_any_client_reads_them(way: Way) {
    let site = way.turn().await;
    let backend = backend(&site);
    backend.set("key", Bytes::from("plain"), None).await.unwrap();
    assert_eq!(site.command("key", "GET <key>"), "plain");
    let exact = Policy::default().with_ttl_jitter(0.0);
    let cache = Cache::builder().policy(exact).build(backend).unwrap();
    cache.set("user:1", &"Ada".to_owned()).await.unwrap();
    assert!(site.command("user:1", "GETRANGE <key> 0 3").starts_with("CKIT"));
    let ttl: i64 = site.command("user:1", "PTTL <key>").parse().unwrap();
    assert!((290_000..=300_000).contains(&ttl), "five minutes by default, in milliseconds: {ttl}");
}
