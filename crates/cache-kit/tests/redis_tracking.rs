//! Invalidations made by others are told, and what may have been missed is told as well.

#![cfg(feature = "redis")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::HashMap;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cache_kit::backend::redis::{
    RedisGap, RedisInvalidation, RedisInvalidations, RedisTracked, RedisTracker,
};
use cache_kit::backend::{Acquired, CacheBackend, Filled, RedisBackend};
use cache_kit::{Cache, ErrorKind};
use cache_kit_test_support::{Direction, Fault, FaultProxy, RedisCluster, RedisSentinels, RedisServer};
use common::bounded;

/// Five times what is aimed at, for machines that are busy with something else.
const TOLD: Duration = Duration::from_millis(5 * 50);

fn backend(url: &str) -> RedisBackend {
    let builder = RedisBackend::builder_from_url(url).unwrap();
    builder.operation_timeout(Duration::from_secs(5)).build().unwrap()
}

fn keys(backend: &RedisBackend) -> (RedisTracker, RedisInvalidations) {
    backend.track(RedisTracked::KeysRead).unwrap()
}

async fn next(invalidations: &mut RedisInvalidations) -> RedisInvalidation {
    bounded(invalidations.next()).await
}

/// Nothing is told: what was done before would have been told before this.
async fn quiet(
    what: &str,
    server: &RedisServer,
    tracker: &RedisTracker,
    invalidations: &mut RedisInvalidations,
) {
    server.command("SET last v");
    assert!(tracker.get("last").await.unwrap().is_some());
    server.command("DEL last");
    assert_eq!(next(invalidations).await, RedisInvalidation::Keys(vec!["last".to_owned()]), "{what}");
}

fn one(key: &str) -> RedisInvalidation {
    RedisInvalidation::Keys(vec![key.to_owned()])
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_another_client_does_to_a_key_that_was_read_is_told_in_time() {
    let server = RedisServer::start();
    let backend = backend(&server.url());
    let (tracker, mut invalidations) = keys(&backend);
    let mut longest = Duration::ZERO;
    for how in [
        "SET k new",
        "DEL k",
        "UNLINK k",
        "APPEND k x",
        "EXPIRE k 100",
        "PEXPIRE k 1",
        "RENAME k other",
        "EVAL \"return redis.call('set',KEYS[1],'x')\" 1 k",
        "COPY other2 k REPLACE",
    ] {
        server.command("SET k v");
        server.command("SET other2 v");
        assert_eq!(tracker.get("k").await.unwrap().unwrap(), "v");
        let began = Instant::now();
        server.command(how);
        assert_eq!(next(&mut invalidations).await, one("k"), "{how}");
        longest = longest.max(began.elapsed());
    }
    println!("told within {longest:?}, the command included");
    assert!(longest < TOLD, "{longest:?}");
    server.command("SET k v");
    server.command("SET l v");
    tracker.get("k").await.unwrap();
    tracker.get("l").await.unwrap();
    server.command("MSET k 1 l 2");
    let mut told = Vec::new();
    while told.len() < 2 {
        let RedisInvalidation::Keys(keys) = next(&mut invalidations).await else { panic!("not keys") };
        told.extend(keys);
    }
    told.sort_unstable();
    assert_eq!(told, ["k", "l"]);
    for flush in ["FLUSHALL", "FLUSHDB"] {
        server.command("SET k v");
        tracker.get("k").await.unwrap();
        server.command(flush);
        assert_eq!(next(&mut invalidations).await, RedisInvalidation::Everything, "{flush}");
    }
    assert_eq!(tracker.connections(), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_and_fills_cost_who_does_not_have_the_value_nothing() {
    let server = RedisServer::start();
    let backend = backend(&server.url());
    let mut others: Vec<_> = (0..3).map(|_| keys(&backend)).collect();
    for (tracker, _) in &others {
        // Asked for in vain, under nothing and under a lease.
        assert_eq!(tracker.get("k").await.unwrap(), None);
    }
    let acquired = backend.acquire("k", None, Duration::from_secs(10)).await.unwrap();
    let Acquired::Granted { lease, .. } = acquired else { panic!("{acquired:?}") };
    for (tracker, _) in &others {
        assert_eq!(tracker.get("k").await.unwrap(), None);
    }
    let filled = backend.fill("k", &lease, Bytes::from_static(b"v"), None).await.unwrap();
    assert_eq!(filled, Filled::Stored);
    // Who has filled reads what is there, and has it watched from then on.
    assert_eq!(others[0].0.get("k").await.unwrap().unwrap(), "v");
    for (tracker, invalidations) in &mut others {
        quiet("a miss of somebody", &server, tracker, invalidations).await;
    }
    server.command("DEL k");
    assert_eq!(next(&mut others[0].1).await, one("k"), "its own fill did not throw it out, this did");
    for (tracker, invalidations) in &mut others {
        quiet("what others have", &server, tracker, invalidations).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_over_a_value_that_is_kept_is_told_for_it_may_soon_be_another() {
    let server = RedisServer::start();
    let backend = backend(&server.url());
    let (tracker, mut invalidations) = keys(&backend);
    backend.set("k", Bytes::from_static(b"stale"), None).await.unwrap();
    let seen = tracker.get("k").await.unwrap().unwrap();
    let acquired = backend.acquire("k", Some(&seen), Duration::from_secs(10)).await.unwrap();
    assert!(matches!(acquired, Acquired::Granted { .. }), "{acquired:?}");
    assert_eq!(next(&mut invalidations).await, one("k"));
    // What is kept under the lease can be read, and is watched.
    assert_eq!(tracker.get("k").await.unwrap().unwrap(), "stale");
    backend.delete("k").await.unwrap();
    assert_eq!(next(&mut invalidations).await, one("k"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_prefix_is_not_told_and_bounds_what_is() {
    let server = RedisServer::start();
    let builder = RedisBackend::builder_from_url(&server.url()).unwrap().prefix("mine:");
    let backend = builder.operation_timeout(Duration::from_secs(5)).build().unwrap();
    let (tracker, mut invalidations) = keys(&backend);
    backend.set("k", Bytes::new(), None).await.unwrap();
    tracker.get("k").await.unwrap();
    server.command("SET k foreign");
    server.command("DEL mine:k");
    assert_eq!(next(&mut invalidations).await, one("k"));
    let tracked = RedisTracked::Prefixes(vec!["user:".to_owned(), "product:".to_owned()]);
    let (tracker, mut invalidations) = backend.track(tracked).unwrap();
    assert_eq!(next(&mut invalidations).await, RedisInvalidation::Gap(RedisGap::Armed));
    let error = tracker.get("order:1").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "nothing would be told of it: {error}");
    server.command("MSET mine:user:1 a user:1 b mine:other:1 c mine:product:1 d mine:user:2 e");
    let mut told = Vec::new();
    while told.len() < 3 {
        let RedisInvalidation::Keys(keys) = next(&mut invalidations).await else { panic!("not keys") };
        told.extend(keys);
    }
    told.sort_unstable();
    assert_eq!(told, ["product:1", "user:1", "user:2"]);
    server.command("FLUSHALL");
    assert_eq!(next(&mut invalidations).await, RedisInvalidation::Everything);
}

/// Kills the connection over which the server tells, and nothing else.
fn kill_tracking(server: &RedisServer) -> bool {
    let list = server.command("CLIENT LIST");
    // `t` in the flags is tracking.
    let tracking = list.lines().find(|line| {
        let flags = line.split(" flags=").nth(1).and_then(|rest| rest.split(' ').next());
        flags.is_some_and(|flags| flags.contains('t'))
    });
    let id = tracking.and_then(|line| line.strip_prefix("id=")?.split(' ').next());
    id.is_some_and(|id| server.command(&format!("CLIENT KILL ID {id}")) == "1")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_is_lost_is_a_gap_every_time_and_reading_arms_anew() {
    let server = RedisServer::start();
    let backend = backend(&server.url());
    let (tracker, mut invalidations) = keys(&backend);
    let mut times = Vec::new();
    for round in 0..1_000 {
        server.command("SET k v");
        let read = async || matches!(tracker.get("k").await, Ok(Some(_)));
        common::until("the tracker", Duration::from_secs(5), read).await;
        let began = Instant::now();
        assert!(kill_tracking(&server), "round {round}");
        assert_eq!(next(&mut invalidations).await, RedisInvalidation::Gap(RedisGap::Lost), "round {round}");
        times.push(began.elapsed());
        assert_eq!(invalidations.try_next(), None, "once, round {round}");
        if round % 100 == 0 {
            common::until("the tracker", Duration::from_secs(5), read).await;
            server.command("DEL k");
            assert_eq!(next(&mut invalidations).await, one("k"), "armed again, round {round}");
        }
    }
    times.sort_unstable();
    println!("1,000 connections killed: told after {:?} (median), {:?} (longest)", times[500], times[999]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_of_the_backend_may_be_lost_without_anything_being_missed() {
    let server = RedisServer::start();
    let backend = backend(&server.url());
    let (tracker, mut invalidations) = keys(&backend);
    for round in 0..200 {
        server.command("SET k v");
        tracker.get("k").await.unwrap();
        // All but the one that tells.
        for line in server.command("CLIENT LIST").lines().filter(|line| !line.contains(" flags=t")) {
            let id = line.strip_prefix("id=").and_then(|rest| rest.split(' ').next()).unwrap_or_default();
            server.command(&format!("CLIENT KILL ID {id} SKIPME yes"));
        }
        server.command("DEL k");
        assert_eq!(next(&mut invalidations).await, one("k"), "round {round}");
        let _may_be_lost = backend.get("k").await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn by_prefix_a_lost_connection_is_a_gap_and_armed_again_without_anybody_reading() {
    let server = RedisServer::start();
    let backend = backend(&server.url());
    let tracked = RedisTracked::Prefixes(vec!["user:".to_owned()]);
    let (_tracker, mut invalidations) = backend.track(tracked).unwrap();
    for round in 0..10 {
        assert_eq!(next(&mut invalidations).await, RedisInvalidation::Gap(RedisGap::Armed), "round {round}");
        server.command("SET user:1 v");
        assert_eq!(next(&mut invalidations).await, one("user:1"), "round {round}");
        assert!(kill_tracking(&server));
        assert_eq!(next(&mut invalidations).await, RedisInvalidation::Gap(RedisGap::Lost), "round {round}");
    }
    assert_eq!(next(&mut invalidations).await, RedisInvalidation::Gap(RedisGap::Armed));
    server.restart();
    assert_eq!(next(&mut invalidations).await, RedisInvalidation::Gap(RedisGap::Lost));
    assert_eq!(next(&mut invalidations).await, RedisInvalidation::Gap(RedisGap::Armed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_link_is_a_gap_within_two_seconds_whether_or_not_anybody_reads() {
    let server = RedisServer::start();
    let proxy = FaultProxy::start(server.addr());
    let backend = backend(&format!("redis://{}", proxy.addr()));
    let (tracker, mut invalidations) = keys(&backend);
    server.command("SET k v");
    tracker.get("k").await.unwrap();
    let began = Instant::now();
    proxy.set(Direction::ToClient, Fault::Stall);
    server.command("SET k w");
    assert_eq!(next(&mut invalidations).await, RedisInvalidation::Gap(RedisGap::Lost));
    let took = began.elapsed();
    println!("dead link: told after {took:?}");
    assert!(took < Duration::from_secs(5 * 2), "{took:?}");
    proxy.clear();
    let read = async || matches!(tracker.get("k").await, Ok(Some(value)) if value == "w");
    common::until("the tracker", Duration::from_secs(5), read).await;
}

/// A cache in front of the backend that keeps to the contract, and nothing more.
#[derive(Default)]
struct Near {
    entries: HashMap<String, Bytes>,
    generations: HashMap<String, u64>,
    epoch: u64,
}

impl Near {
    fn handle(&mut self, event: RedisInvalidation) {
        match event {
            RedisInvalidation::Keys(keys) => {
                for key in keys {
                    self.entries.remove(&key);
                    *self.generations.entry(key).or_default() += 1;
                }
            }
            _ => {
                self.entries.clear();
                self.epoch += 1;
            }
        }
    }

    fn generation(&self, key: &str) -> (u64, u64) {
        (self.epoch, self.generations.get(key).copied().unwrap_or_default())
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_cache_that_keeps_to_the_contract_is_never_left_with_an_old_value() {
    let server = RedisServer::start();
    let backend = backend(&server.url());
    let (tracker, mut invalidations) = keys(&backend);
    let near = Arc::new(Mutex::new(Near::default()));
    let handling = {
        let near = Arc::clone(&near);
        tokio::spawn(async move {
            loop {
                let event = invalidations.next().await;
                near.lock().unwrap().handle(event);
            }
        })
    };
    const KEYS: u64 = 8;
    for round in 0..60 {
        let readers: Vec<_> = (0..6)
            .map(|_| {
                let (near, tracker) = (Arc::clone(&near), tracker.clone());
                tokio::spawn(async move {
                    for n in 0..60 {
                        let key = format!("k{}", n % KEYS);
                        let before = near.lock().unwrap().generation(&key);
                        if let Ok(Some(value)) = tracker.get(&key).await {
                            let mut near = near.lock().unwrap();
                            if near.generation(&key) == before {
                                near.entries.insert(key, value);
                            }
                        }
                    }
                })
            })
            .collect();
        for n in 0..40 {
            let key = format!("k{}", n % KEYS);
            backend.set(&key, Bytes::from(format!("{round}:{n}")), None).await.unwrap();
            if n == 20 && round % 10 == 0 {
                kill_tracking(&server);
            }
        }
        for reader in readers {
            bounded(reader).await.unwrap();
        }
        // All that was done is told by now, or in a moment; what is kept then is what the server has.
        let same = async || {
            for n in 0..KEYS {
                let key = format!("k{n}");
                let kept = near.lock().unwrap().entries.get(&key).cloned();
                let stored = backend.get(&key).await.unwrap();
                if kept.is_some() && kept != stored {
                    return false;
                }
            }
            true
        };
        common::until("the cache in front", Duration::from_secs(2), same).await;
    }
    handling.abort();
    assert!(!near.lock().unwrap().entries.is_empty(), "something was kept");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn in_a_cluster_keys_of_all_nodes_are_told_and_moves_and_failovers_too() {
    let cluster = Arc::new(RedisCluster::start());
    let backend = backend(&cluster.url());
    let (tracker, mut invalidations) = keys(&backend);
    let names: Vec<String> = (0..30).map(|n| format!("k{n}")).collect();
    for name in &names {
        backend.set(name, Bytes::from_static(b"v"), None).await.unwrap();
        assert!(tracker.get(name).await.unwrap().is_some());
    }
    assert_eq!(tracker.connections(), 3);
    for name in &names {
        backend.delete(name).await.unwrap();
        assert_eq!(next(&mut invalidations).await, one(name));
    }
    // A key that moves to another node leaves the one that remembers it.
    backend.set("mover", Bytes::from_static(b"v"), None).await.unwrap();
    tracker.get("mover").await.unwrap();
    let slot = cluster.slot("mover");
    let to = (cluster.primary_of(slot) + 1) % 3;
    cluster.move_slot(slot, to);
    let first = next(&mut invalidations).await;
    assert!(first == one("mover") || first == RedisInvalidation::Gap(RedisGap::Moved), "{first:?}");
    let read = async || matches!(tracker.get("mover").await, Ok(Some(_)));
    common::until("the new owner", Duration::from_secs(5), read).await;
    while invalidations.try_next().is_some() {}
    let write = async || backend.set("mover", Bytes::from_static(b"w"), None).await.is_ok();
    common::until("the new owner", Duration::from_secs(5), write).await;
    let mut told = next(&mut invalidations).await;
    while told == RedisInvalidation::Gap(RedisGap::Moved) {
        told = next(&mut invalidations).await;
    }
    assert_eq!(told, one("mover"));
    // The node that remembers it is no primary any more.
    common::until("the new owner", Duration::from_secs(5), read).await;
    let failing = Arc::clone(&cluster);
    let moved = tokio::task::spawn_blocking(move || {
        failing.fail_over_to(failing.replica_of(slot).unwrap());
    });
    bounded(moved).await.unwrap();
    let began = Instant::now();
    loop {
        if let RedisInvalidation::Gap(_) = next(&mut invalidations).await {
            break;
        }
    }
    println!("failover: a gap after {:?}", began.elapsed());
    assert!(began.elapsed() < Duration::from_secs(10));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_behind_sentinels_is_a_gap_and_the_new_primary_tells() {
    let sentinels = Arc::new(RedisSentinels::start());
    let backend = backend(&sentinels.url());
    let (tracker, mut invalidations) = keys(&backend);
    backend.set("k", Bytes::from_static(b"v"), None).await.unwrap();
    tracker.get("k").await.unwrap();
    let failing = Arc::clone(&sentinels);
    bounded(tokio::task::spawn_blocking(move || failing.fail_over())).await.unwrap();
    assert_eq!(next(&mut invalidations).await, RedisInvalidation::Gap(RedisGap::Lost));
    let again = async || {
        let _set = backend.set("k", Bytes::from_static(b"w"), None).await;
        matches!(tracker.get("k").await, Ok(Some(_)))
    };
    common::until("the new primary", Duration::from_secs(5), again).await;
    while invalidations.try_next().is_some() {}
    common::until("the new primary", Duration::from_secs(5), again).await;
    sentinels.servers()[sentinels.primary()].command("DEL k");
    assert_eq!(next(&mut invalidations).await, one("k"));
}

#[test]
fn a_subscription_goes_on_when_the_runtime_that_it_was_made_on_is_gone() {
    let server = RedisServer::start();
    let runtime =
        || tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let backend = backend(&server.url());
    let first = runtime();
    let (_tracker, mut invalidations) = first.block_on(async {
        let tracked = RedisTracked::Prefixes(vec!["user:".to_owned()]);
        let (tracker, mut invalidations) = backend.track(tracked).unwrap();
        assert_eq!(next(&mut invalidations).await, RedisInvalidation::Gap(RedisGap::Armed));
        (tracker, invalidations)
    });
    drop(first);
    runtime().block_on(async {
        assert_eq!(next(&mut invalidations).await, RedisInvalidation::Gap(RedisGap::Lost));
        assert_eq!(next(&mut invalidations).await, RedisInvalidation::Gap(RedisGap::Armed));
        server.command("SET user:1 v");
        assert_eq!(next(&mut invalidations).await, one("user:1"));
    });
}

#[tokio::test]
async fn without_a_listener_nothing_is_read_and_without_a_right_the_error_says_so() {
    let server = RedisServer::builder().acl_user("app", "secret", common::least_rights("app:")).start();
    let admin = RedisServer::start();
    let (tracker, invalidations) = keys(&backend(&admin.url()));
    drop(invalidations);
    let error = tracker.get("k").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
    let builder = RedisBackend::builder_from_url(&server.url()).unwrap().prefix("app:");
    let (tracker, _invalidations) = keys(&builder.build().unwrap());
    let error = tracker.get("k").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Permission, "{error:?}");
    // What it takes beyond the least rights.
    let rights = format!("{} +getex +client|tracking", common::least_rights("app:"));
    let server = RedisServer::builder().acl_user("app", "secret", rights).start();
    let builder = RedisBackend::builder_from_url(&server.url()).unwrap().prefix("app:");
    let backend = builder.operation_timeout(Duration::from_secs(5)).build().unwrap();
    let (tracker, mut invalidations) = keys(&backend);
    let cache = Cache::new(backend.clone());
    cache.get_or_load("user:1", async || Ok::<_, cache_kit::Error>("v".to_owned())).await.unwrap();
    let key = "user:1";
    assert!(tracker.get(key).await.unwrap().is_some());
    cache.invalidate(key).await.unwrap();
    assert_eq!(next(&mut invalidations).await, one(key));
}
