//! Leases and fills of many keys on Redis: how many commands they take, and that what is wrong with one key or one server
//! is wrong with nothing else.

#![cfg(feature = "redis")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::HashSet;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cache_kit::ErrorKind;
use cache_kit::backend::{
    Acquired, CacheBackend, Claim, Fence, Fill, Filled, Lease, RedisBackend, RedisConfig,
};
use cache_kit_test_support::{RedisCluster, RedisServer};
use common::bounded;

const LIFE: Duration = Duration::from_secs(30);
/// Many tests share two cores: what is slow is not wrong here.
const PATIENCE: Duration = Duration::from_secs(10);
/// Some keys in each part of anything.
const MANY: usize = 300;

fn backend(url: &str) -> RedisBackend {
    RedisBackend::builder_from_url(url).unwrap().operation_timeout(PATIENCE).build().unwrap()
}

fn as_user(server: &RedisServer, rights: &str) -> RedisBackend {
    assert_eq!(server.command(&format!("ACL SETUSER app on >pw {rights}")), "OK");
    backend(&format!("redis://app:pw@{}", server.addr()))
}

fn keys(count: usize) -> Vec<String> {
    (0..count).map(|n| format!("key:{n}")).collect()
}

fn claims(keys: &[String]) -> Vec<Claim<'_>> {
    keys.iter().map(|key| Claim { key, seen: None }).collect()
}

async fn acquire(backend: &RedisBackend, keys: &[String]) -> Vec<cache_kit::Result<Acquired>> {
    bounded(backend.acquire_many(&claims(keys), LIFE)).await.unwrap()
}

/// Leases of keys that are absent.
async fn leases(backend: &RedisBackend, keys: &[String]) -> Vec<Lease> {
    let granted = acquire(backend, keys).await.into_iter().map(|acquired| match acquired.unwrap() {
        Acquired::Granted { lease, kept: None } => lease,
        other => panic!("{other:?}"),
    });
    granted.collect()
}

/// Each key is filled with its own name.
async fn fill(backend: &RedisBackend, keys: &[String], leases: &[Lease]) -> Vec<cache_kit::Result<Filled>> {
    let fills: Vec<_> = keys
        .iter()
        .zip(leases)
        .map(|(key, lease)| Fill { key, lease, value: Bytes::from(key.clone()), ttl: Some(LIFE) })
        .collect();
    bounded(backend.fill_many(&fills)).await.unwrap()
}

async fn assert_filled(backend: &RedisBackend, keys: &[String]) {
    for key in keys {
        assert_eq!(backend.get(key).await.unwrap().unwrap(), *key);
    }
}

fn all_are(filled: Vec<cache_kit::Result<Filled>>, expected: Filled) {
    for filled in filled {
        assert_eq!(filled.unwrap(), expected);
    }
}

/// How often a server has been sent a command that was not refused.
fn calls(server: &RedisServer, command: &str) -> usize {
    let stats = server.command("INFO commandstats");
    let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:")));
    let number = |name: &str| {
        let field = line?.split(',').find_map(|field| field.strip_prefix(&format!("{name}=")))?;
        field.parse::<usize>().ok()
    };
    number("calls").unwrap_or(0) - number("failed_calls").unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_leases_are_one_command_and_so_are_many_fills() {
    let server = RedisServer::start();
    let backend = backend(&server.url());
    let warm = leases(&backend, &["warm".to_owned()]).await;
    all_are(fill(&backend, &["warm".to_owned()], &warm).await, Filled::Stored);
    for (count, commands, forgotten) in [(1, 1, false), (MANY, 1, false), (MANY, 1, true), (2_500, 3, false)]
    {
        server.command("FLUSHALL");
        // A server that has forgotten the scripts is sent each once.
        if forgotten {
            server.command("SCRIPT FLUSH");
        }
        server.command("CONFIG RESETSTAT");
        let how = if forgotten { "eval" } else { "evalsha" };
        let keys = keys(count);
        let held = leases(&backend, &keys).await;
        assert_eq!(calls(&server, how), commands, "leases of {count}");
        all_are(fill(&backend, &keys, &held).await, Filled::Stored);
        assert_eq!(calls(&server, how), 2 * commands, "fills of {count}");
        assert_filled(&backend, &keys).await;
        let left: Duration = Duration::from_millis(server.command("PTTL key:0").parse().unwrap());
        assert!(left <= LIFE && left > LIFE / 2, "{left:?}");
    }
}

#[tokio::test]
async fn large_values_go_in_calls_that_the_server_is_not_held_up_by() {
    let server = RedisServer::start();
    let backend = backend(&server.url());
    let keys = keys(10);
    let value = Bytes::from(vec![b'v'; 1 << 20]);
    let held = leases(&backend, &keys).await;
    let stored = keys.iter().zip(&held);
    let stored: Vec<_> =
        stored.map(|(key, lease)| Fill { key, lease, value: value.clone(), ttl: None }).collect();
    all_are(backend.fill_many(&stored).await.unwrap(), Filled::Stored);
    server.command("CONFIG RESETSTAT");
    // What was seen comes back, and is bounded as well.
    let seen: Vec<_> = keys.iter().map(|key| Claim { key, seen: Some(&value) }).collect();
    for acquired in backend.acquire_many(&seen, LIFE).await.unwrap() {
        let Acquired::Granted { kept: Some(kept), .. } = acquired.unwrap() else { panic!("not granted") };
        assert!(kept == value);
    }
    let commands = calls(&server, "evalsha");
    assert!((3..=4).contains(&commands), "{commands}");
}

#[tokio::test]
async fn what_is_wrong_with_one_key_is_wrong_with_no_other() {
    let server = RedisServer::start();
    let owner = backend(&server.url());
    // A key of another type is nothing of ours, and is replaced.
    assert_eq!(server.command("LPUSH key:1 element"), "1");
    let keys = keys(3);
    let held = leases(&owner, &keys).await;
    assert_eq!(server.command("DEL key:2"), "1");
    assert_eq!(server.command("LPUSH key:2 element"), "1");
    let filled: Vec<_> = fill(&owner, &keys, &held).await.into_iter().map(Result::unwrap).collect();
    assert_eq!(filled, [Filled::Stored, Filled::Stored, Filled::Refused]);
    assert_eq!(server.command("TYPE key:2"), "list");

    // A user who may not write one of them.
    let app = as_user(&server, "~open:* +@all");
    let open = ["open:1".to_owned(), "open:2".to_owned()];
    let held = leases(&app, &open).await;
    let lease = Lease::new(1);
    let fills = [(&open[0], &held[0]), (&"shut:1".to_owned(), &lease), (&open[1], &held[1])];
    let fills = fills.map(|(key, lease)| Fill { key, lease, value: Bytes::from("v"), ttl: None });
    let filled = app.fill_many(&fills).await.unwrap();
    assert_eq!(*filled[0].as_ref().unwrap(), Filled::Stored);
    assert_eq!(*filled[2].as_ref().unwrap(), Filled::Stored);
    let refused = filled[1].as_ref().unwrap_err();
    assert_eq!((refused.kind(), refused.operation()), (ErrorKind::Permission, Some("fill")));
}

#[tokio::test]
async fn a_server_that_cannot_is_one_error_that_says_why() {
    let server = RedisServer::start();
    let builder = RedisBackend::builder_from_url(&server.url()).unwrap();
    let backend = builder.operation_timeout(Duration::from_millis(300)).build().unwrap();
    let keys = keys(MANY);
    let held = leases(&backend, &keys[..10]).await;
    assert_eq!(server.command("CONFIG SET maxmemory-policy noeviction"), "OK");
    assert_eq!(server.command("CONFIG SET maxmemory 1"), "OK");
    for acquired in acquire(&backend, &keys[10..]).await {
        let error = acquired.unwrap_err();
        assert_eq!((error.kind(), error.operation()), (ErrorKind::Full, Some("acquire")));
    }
    for filled in fill(&backend, &keys, &held).await {
        let error = filled.unwrap_err();
        assert_eq!((error.kind(), error.operation()), (ErrorKind::Full, Some("fill")));
    }
    assert_eq!(server.command("CONFIG SET maxmemory 0"), "OK");
    all_are(fill(&backend, &keys, &held).await, Filled::Stored);
    // Without a word from the only server there is nothing to say of any key.
    server.pause();
    let began = Instant::now();
    let error = backend.acquire_many(&claims(&keys), LIFE).await.unwrap_err();
    assert_eq!((error.kind(), error.operation()), (ErrorKind::Timeout, Some("acquire")), "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(3), "{:?}", began.elapsed());
    server.resume();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_scripts_many_leases_are_kept_by_tombstones() {
    let server = RedisServer::start();
    for revoked in [false, true] {
        server.command("FLUSHALL");
        let app = as_user(&server, if revoked { "~* +@all" } else { "~* +@all -@scripting" });
        if revoked {
            // Found out by the call itself, since the connection was made before.
            leases(&app, &["warm".to_owned()]).await;
            assert_eq!(server.command("ACL SETUSER app -@scripting"), "OK");
        }
        server.command("CONFIG RESETSTAT");
        let keys = keys(MANY);
        let mut held = leases(&app, &keys).await;
        assert!(matches!(app.capabilities().fence, Fence::Tombstones { .. }));
        app.delete(&keys[7]).await.unwrap();
        let mut filled = fill(&app, &keys, &held).await;
        assert_eq!(filled.remove(7).unwrap(), Filled::Refused);
        all_are(filled, Filled::Stored);
        held.truncate(1);
        all_are(fill(&app, &keys[..1], &held).await, Filled::Refused);
        assert_filled(&app, &keys[8..]).await;
        assert_eq!(calls(&server, "evalsha"), 0);
    }
}

/// The number of keys that each node is to have.
fn shares(cluster: &RedisCluster, keys: &[String]) -> Vec<usize> {
    let mut shares = vec![0; cluster.nodes().len()];
    for key in keys {
        shares[cluster.primary_of(cluster.slot(key))] += 1;
    }
    shares
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_all_over_a_cluster_are_leased_and_filled_at_once() {
    let cluster = RedisCluster::builder().replicas(0).start();
    let backend = backend(&cluster.url());
    let warm = keys(60);
    let held = leases(&backend, &warm).await;
    all_are(fill(&backend, &warm, &held).await, Filled::Stored);
    for node in cluster.nodes() {
        node.command("FLUSHALL");
        node.command("CONFIG RESETSTAT");
    }
    // Some of them in one slot.
    let mut keys = keys(MANY);
    keys.extend((0..20).map(|n| format!("{{tag}}:{n}")));
    let shares = shares(&cluster, &keys);
    assert!(shares.iter().all(|share| *share > 50), "{shares:?}");
    let held = leases(&backend, &keys).await;
    for (node, share) in cluster.nodes().iter().zip(&shares) {
        assert_eq!(
            (calls(node, "set"), calls(node, "evalsha")),
            (*share, 0),
            "without a script where none is needed"
        );
    }
    all_are(fill(&backend, &keys, &held).await, Filled::Stored);
    for (node, share) in cluster.nodes().iter().zip(&shares) {
        assert_eq!(calls(node, "evalsha"), *share);
        assert_eq!(calls(node, "eval"), 0);
        assert_eq!(node.command("DBSIZE"), share.to_string());
    }
    assert_filled(&backend, &keys).await;
    // Nodes that have forgotten the scripts, keys of another type, and a node that was given a slot.
    for node in cluster.nodes() {
        node.command("FLUSHALL");
        node.command("SCRIPT FLUSH");
    }
    for key in &keys[..10] {
        let node = &cluster.nodes()[cluster.primary_of(cluster.slot(key))];
        assert_eq!(node.command(&format!("LPUSH {key} element")), "1");
    }
    let slot = cluster.slot("{tag}");
    cluster.move_slot(slot, (cluster.primary_of(slot) + 1) % 3);
    let held = leases(&backend, &keys).await;
    all_are(fill(&backend, &keys, &held).await, Filled::Stored);
    assert_filled(&backend, &keys).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_of_a_slot_that_is_being_moved_are_leased_and_filled_wherever_they_are() {
    let cluster = RedisCluster::builder().replicas(0).start();
    let backend = backend(&cluster.url());
    let keys: Vec<String> = (0..30).map(|n| format!("{{tag}}:{n}")).collect();
    let old = Bytes::from("old");
    for key in &keys[..15] {
        backend.set(key, old.clone(), None).await.unwrap();
    }
    let slot = cluster.slot("{tag}");
    cluster.begin_move(slot, (cluster.primary_of(slot) + 1) % 3);
    // Half of them are here and half of them, which are absent, are to be made there.
    let claim = |(at, key)| Claim { key: String::as_str(key), seen: (at < 15).then_some(&old) };
    let claims: Vec<_> = keys.iter().enumerate().map(claim).collect();
    let began = Instant::now();
    let held = bounded(backend.acquire_many(&claims, LIFE)).await.unwrap().into_iter();
    let held: Vec<_> = held
        .map(|acquired| match acquired.unwrap() {
            Acquired::Granted { lease, .. } => lease,
            other => panic!("{other:?}"),
        })
        .collect();
    all_are(fill(&backend, &keys, &held).await, Filled::Stored);
    println!("30 keys of a slot that is being moved: leased and filled within {:?}", began.elapsed());
    assert_filled(&backend, &keys).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_that_is_down_fails_its_own_keys_and_no_others() {
    let cluster = RedisCluster::builder().replicas(0).partial_coverage().start();
    let builder = RedisBackend::builder_from_url(&cluster.url()).unwrap();
    let backend = builder.operation_timeout(Duration::from_secs(2)).build().unwrap();
    let keys = keys(MANY);
    let lost: Vec<bool> = keys.iter().map(|key| cluster.primary_of(cluster.slot(key)) == 0).collect();
    let held = leases(&backend, &keys).await;
    cluster.kill(0);
    for filled in [fill(&backend, &keys, &held).await, fill(&backend, &keys, &held).await] {
        for (filled, lost) in filled.into_iter().zip(&lost) {
            match filled {
                Ok(_) => assert!(!lost),
                Err(error) => assert!(*lost && error.is_transient(), "{error:?}"),
            }
        }
    }
    for ((key, acquired), lost) in keys.iter().zip(acquire(&backend, &keys).await).zip(&lost) {
        match acquired {
            Ok(acquired) => {
                assert!(!lost && acquired == Acquired::Present { value: Bytes::from(key.clone()) })
            }
            Err(error) => assert!(*lost && error.operation() == Some("acquire"), "{error:?}"),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_parts_of_a_cluster_are_groups_of_slots() {
    let cluster = RedisCluster::builder().replicas(0).start();
    let with_prefix = |prefix: &str| {
        let config = RedisConfig {
            host: "localhost".into(),
            port: cluster.nodes()[0].port(),
            ..RedisConfig::default()
        };
        RedisBackend::builder(config).operation_timeout(PATIENCE).prefix(prefix).build().unwrap()
    };
    let backend = with_prefix("app:");
    assert_eq!(
        (backend.shards(), backend.shard_of("key"), backend.shard_key(0, "epoch").as_str()),
        (1, 0, "epoch")
    );
    backend.connect().await.unwrap();
    assert_eq!(backend.shards(), 64);
    let shard = |key: &str| usize::from(cluster.slot(&format!("app:{key}"))) / 256;
    for key in keys(100) {
        assert_eq!(backend.shard_of(&key), shard(&key));
    }
    let began = Instant::now();
    let made: Vec<String> = (0..64).map(|shard| backend.shard_key(shard, "epoch")).collect();
    println!("64 keys for 64 parts took {:?}", began.elapsed());
    for (at, key) in made.iter().enumerate() {
        assert!(key.starts_with("epoch~") && shard(key) == at, "{key}");
    }
    // Another process, which came in elsewhere.
    let other = RedisBackend::builder_from_url(&cluster.url()).unwrap().prefix("app:").build().unwrap();
    assert!(made.iter().enumerate().all(|(at, key)| other.shard_key(at, "epoch") == *key));

    // A tag pins the slot: the keys are still as many as there are parts.
    let pinned = with_prefix("{app}:");
    pinned.connect().await.unwrap();
    let began = Instant::now();
    let made: HashSet<String> = (0..64).map(|shard| pinned.shard_key(shard, "epoch")).collect();
    println!("64 keys for a prefix with a tag took {:?}", began.elapsed());
    assert_eq!(made.len(), 64);
    let slot = usize::from(cluster.slot("{app}")) / 256;
    assert!(made.iter().all(|key| key.starts_with("epoch~") && pinned.shard_of(key) == slot));

    let server = RedisServer::start();
    let alone = self::backend(&server.url());
    alone.connect().await.unwrap();
    assert_eq!(
        (alone.shards(), alone.shard_of("key"), alone.shard_key(0, "epoch").as_str()),
        (1, 0, "epoch")
    );
}
