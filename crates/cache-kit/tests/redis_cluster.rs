//! A Redis cluster: slots that move, nodes that die, links that are cut, all under load. Bounds in time are five times what
//! is aimed at, for machines that are busy with something else.

#![cfg(feature = "redis")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cache_kit::backend::redis::RedisReadFrom;
use cache_kit::backend::{CacheBackend, RedisBackend, RedisConfig, SetEntry};
use cache_kit::{Cache, ErrorKind};
use cache_kit_test_support::{RedisCluster, RedisServer};
use common::bounded;

const DEADLINE: Duration = Duration::from_millis(500);
/// After the new topology is there.
const RECOVERY: Duration = Duration::from_millis(500);

fn backend(cluster: &RedisCluster) -> RedisBackend {
    let builder = RedisBackend::builder_from_url(&cluster.url()).unwrap();
    builder.operation_timeout(DEADLINE).build().unwrap()
}

fn patient(cluster: &RedisCluster) -> RedisBackend {
    let builder = RedisBackend::builder_from_url(&cluster.url()).unwrap();
    builder.operation_timeout(Duration::from_secs(10)).build().unwrap()
}

fn key(n: u64) -> String {
    format!("key:{n}")
}

/// Some keys whose slots this node has.
fn keys_of(cluster: &RedisCluster, node: usize, count: usize) -> Vec<String> {
    (0..).map(key).filter(|key| cluster.primary_of(cluster.slot(key)) == node).take(count).collect()
}

/// Readers and writers that go on until they are stopped, each with keys of its own, and check every answer.
struct Load {
    stop: Arc<AtomicBool>,
    tasks: Vec<tokio::task::JoinHandle<(u64, u64, Duration)>>,
    wrong: Arc<AtomicU64>,
    /// The first one, to be read where there should be none.
    error: Arc<Mutex<Option<cache_kit::Error>>>,
}

impl Load {
    fn start(backend: &RedisBackend, tasks: u64) -> Self {
        let (stop, wrong) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let error = Arc::new(Mutex::new(None));
        let first = Arc::clone(&error);
        let tasks = (0..tasks)
            .map(|task| {
                let (backend, stop, wrong) = (backend.clone(), Arc::clone(&stop), Arc::clone(&wrong));
                let first = Arc::clone(&first);
                tokio::spawn(async move {
                    let (mut done, mut failed, mut longest) = (0_u64, 0_u64, Duration::ZERO);
                    while !stop.load(Ordering::Relaxed) {
                        let key = format!("load:{task}:{}", done % 50);
                        let began = Instant::now();
                        let set = backend.set(&key, Bytes::from(key.clone()), None).await;
                        longest = longest.max(began.elapsed());
                        let began = Instant::now();
                        let got = backend.get(&key).await;
                        longest = longest.max(began.elapsed());
                        if got.as_ref().is_ok_and(|got| got.as_ref().is_some_and(|value| *value != key)) {
                            wrong.fetch_add(1, Ordering::Relaxed);
                        }
                        for error in [set.err(), got.err()].into_iter().flatten() {
                            failed += 1;
                            first.lock().unwrap().get_or_insert(error);
                        }
                        done += 1;
                        tokio::task::yield_now().await;
                    }
                    (done, failed, longest)
                })
            })
            .collect();
        Self { stop, tasks, wrong, error }
    }

    /// How many rounds were made, how many operations have failed, and the longest.
    async fn stop(self) -> (u64, u64, Duration) {
        self.stop.store(true, Ordering::Relaxed);
        let mut sum = (0, 0, Duration::ZERO);
        for task in self.tasks {
            let (done, failed, longest) = bounded(task).await.unwrap();
            sum = (sum.0 + done, sum.1 + failed, sum.2.max(longest));
        }
        assert_eq!(self.wrong.load(Ordering::Relaxed), 0, "a value of another key");
        sum
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plain_config_that_names_a_node_of_a_cluster_is_all_it_takes() {
    let cluster = RedisCluster::builder().replicas(0).start();
    let config =
        RedisConfig { host: "localhost".into(), port: cluster.nodes()[1].port(), ..RedisConfig::default() };
    let backend = RedisBackend::new(config).unwrap();
    for n in 0..300 {
        backend.set(&key(n), Bytes::from(key(n)), None).await.unwrap();
    }
    let sizes: Vec<u64> =
        cluster.nodes().iter().map(|node| node.command("DBSIZE").parse().unwrap()).collect();
    println!("300 keys: {sizes:?}");
    assert!(sizes.iter().all(|size| *size > 50) && sizes.iter().sum::<u64>() == 300, "{sizes:?}");
    // The first callers may be many, and nobody knows yet what the server is.
    let fresh = RedisBackend::builder_from_url(&format!("redis://{}", cluster.addrs()[0])).unwrap();
    let fresh = fresh.operation_timeout(Duration::from_secs(10)).build().unwrap();
    let reads = (0..300).map(|n| {
        let fresh = fresh.clone();
        tokio::spawn(async move { fresh.get(&key(n)).await.unwrap().unwrap() == key(n) })
    });
    for read in futures_util::future::join_all(reads).await {
        assert!(read.unwrap());
    }
    fresh.connect().await.unwrap();
    assert!(fresh.health_check().await.unwrap());
}

#[tokio::test]
async fn connections_to_all_nodes_together_are_bounded_by_the_pool_size() {
    let cluster = RedisCluster::start();
    let config = RedisConfig {
        host: "localhost".into(),
        port: cluster.nodes()[0].port(),
        pool_size: 3,
        ..RedisConfig::default()
    };
    let builder = RedisBackend::builder(config).operation_timeout(Duration::from_secs(10));
    let backend = builder.build().unwrap();
    let calls = (0..4_000).map(|n| {
        let backend = backend.clone();
        tokio::spawn(async move { backend.set(&key(n), Bytes::new(), None).await.unwrap() })
    });
    for call in futures_util::future::join_all(calls).await {
        call.unwrap();
    }
    let clients = |node: &RedisServer| {
        let list = node.command("CLIENT LIST TYPE normal");
        list.lines()
            .filter(|line| line.contains("lib-name=cache-kit") || !line.contains("cmd=client"))
            .count()
    };
    let counts: Vec<usize> = cluster.nodes().iter().map(clients).collect();
    println!("connections by node: {counts:?}, by the backend's own count {}", backend.connections());
    assert!(backend.connections() <= 3 && counts.iter().sum::<usize>() <= 3, "{counts:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_on_many_keys_answer_for_each_in_the_order_of_the_keys() {
    let cluster = RedisCluster::builder().replicas(0).start();
    let backend = patient(&cluster);
    let keys: Vec<String> = (0..500).map(key).collect();
    let entries: Vec<SetEntry<'_>> =
        keys.iter().map(|key| SetEntry { key, value: Bytes::from(key.clone()), ttl: None }).collect();
    backend.mset(&entries).await.unwrap();
    let names: Vec<&str> = keys.iter().rev().map(String::as_str).collect();
    let values = backend.mget(&names).await.unwrap();
    assert!(values.iter().zip(&names).all(|(value, name)| value.as_ref().unwrap() == name));
    backend.mdelete(&names[..250]).await.unwrap();
    let values = backend.mget(&names).await.unwrap();
    assert!(values.iter().enumerate().all(|(at, value)| value.is_none() == (at < 250)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn patterns_and_clearing_reach_every_primary() {
    let cluster = RedisCluster::builder().replicas(0).start();
    let builder = RedisBackend::builder_from_url(&cluster.url()).unwrap();
    let backend = builder.prefix("mine:").operation_timeout(Duration::from_secs(10)).build().unwrap();
    let other = patient(&cluster);
    for n in 0..300 {
        backend.set(&key(n), Bytes::new(), None).await.unwrap();
        other.set(&key(n), Bytes::new(), None).await.unwrap();
    }
    assert_eq!(backend.delete_pattern("key:1*").await.unwrap(), 111);
    backend.clear_all().await.unwrap();
    let left = |cluster: &RedisCluster| -> u64 {
        cluster.nodes().iter().map(|node| node.command("DBSIZE").parse::<u64>().unwrap()).sum()
    };
    assert_eq!(left(&cluster), 300, "those of others stay");
    other.clear_all().await.unwrap();
    assert_eq!(left(&cluster), 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_whose_slot_is_being_moved_is_found_where_it_is_and_the_fence_holds() {
    let cluster = RedisCluster::builder().replicas(0).start();
    let (backend, cache) = (patient(&cluster), Cache::new(patient(&cluster)));
    for braces in ["user:1", "{user}:1", "a{user}b{c}", "odd}{user"] {
        let slot = cluster.slot(braces);
        let from = cluster.primary_of(slot);
        let to = (from + 1) % 3;
        backend.set(braces, Bytes::from_static(b"old"), None).await.unwrap();
        cluster.begin_move(slot, to);
        // There, and then not there any more: asked for where it is going.
        assert_eq!(backend.get(braces).await.unwrap().unwrap(), "old", "{braces}");
        backend.delete(braces).await.unwrap();
        assert_eq!(backend.get(braces).await.unwrap(), None, "{braces}");
        let loaded = cache.get_or_load(braces, async || Ok::<_, cache_kit::Error>("new".to_owned()));
        assert_eq!(bounded(loaded).await.unwrap(), "new", "{braces}");
        cluster.move_keys(slot, to);
        assert!(backend.exists(braces).await.unwrap(), "{braces}");
        let keys = [braces, "another", "third"];
        assert!(backend.mget(&keys).await.unwrap()[0].is_some(), "{braces}");
        // A late fill of a lease that was taken before the move.
        cache.invalidate(braces).await.unwrap();
        cluster.end_move(slot, to);
        assert_eq!(backend.get(braces).await.unwrap(), None, "{braces}");
        let loaded = cache.get_or_load(braces, async || Ok::<_, cache_kit::Error>("newer".to_owned()));
        assert_eq!(bounded(loaded).await.unwrap(), "newer", "{braces}");
        assert!(backend.exists(braces).await.unwrap(), "stored after the move: {braces}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_that_are_on_two_nodes_are_asked_for_again_and_in_the_end_the_error_says_why() {
    let cluster = RedisCluster::builder().replicas(0).start();
    let backend = patient(&cluster);
    backend.set("{two}a", Bytes::from_static(b"v"), None).await.unwrap();
    let slot = cluster.slot("{two}a");
    let from = cluster.primary_of(slot);
    let to = (from + 1) % 3;
    let both = || backend.command("MGET").key("{two}a").key("{two}b").run();
    cluster.begin_move(slot, to);
    // One is here, and one might be there.
    let error = both().await.unwrap_err();
    assert!(error.is_transient(), "{error:?}");
    let stats = cluster.nodes()[from].command("INFO errorstats");
    let told = stats.lines().find_map(|line| line.strip_prefix("errorstat_TRYAGAIN:count=")).unwrap();
    assert!(told.trim().parse::<u32>().unwrap() > 5, "asked {told} times");
    cluster.move_keys(slot, to);
    cluster.end_move(slot, to);
    both().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resharding_under_load_fails_nothing() {
    let cluster = Arc::new(RedisCluster::builder().replicas(0).start());
    let backend = patient(&cluster);
    let load = Load::start(&backend, 16);
    let slots: HashSet<u16> = (0..16)
        .flat_map(|task| (0..50).map(move |n| format!("load:{task}:{n}")))
        .map(|key| cluster.slot(&key))
        .collect();
    let moving = Arc::clone(&cluster);
    let moved = tokio::task::spawn_blocking(move || {
        for slot in slots.iter().take(50) {
            moving.move_slot(*slot, (moving.primary_of(*slot) + 1) % 3);
        }
    });
    bounded(moved).await.unwrap();
    let error = Arc::clone(&load.error);
    let (done, failed, longest) = load.stop().await;
    println!("50 slots moved under {done} rounds: {failed} failed, longest {longest:?}");
    assert_eq!(failed, 0, "{:?}", error.lock().unwrap());
    assert!(done > 100);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn when_a_primary_dies_the_others_serve_on_and_its_replica_is_used_when_it_has_taken_over() {
    let cluster = Arc::new(RedisCluster::builder().partial_coverage().start());
    let backend = backend(&cluster);
    let (theirs, others) = (keys_of(&cluster, 0, 1), keys_of(&cluster, 1, 20));
    backend.set(&theirs[0], Bytes::from_static(b"v"), None).await.unwrap();
    for key in &others {
        backend.set(key, Bytes::from_static(b"v"), None).await.unwrap();
    }
    let slot = cluster.slot(&theirs[0]);
    let load = Load::start(&backend, 4);
    cluster.kill(0);
    let promoted = {
        let cluster = Arc::clone(&cluster);
        tokio::task::spawn_blocking(move || {
            cluster.wait_for_new_primary(slot, 0);
            Instant::now()
        })
    };
    let mut longest = Duration::ZERO;
    while !promoted.is_finished() {
        for key in &others {
            let began = Instant::now();
            assert!(backend.get(key).await.is_ok(), "another node's key");
            longest = longest.max(began.elapsed());
        }
    }
    let promoted = bounded(promoted).await.unwrap();
    let set = async || backend.set(&theirs[0], Bytes::from_static(b"w"), None).await.is_ok();
    common::until("the promoted replica", Duration::from_secs(10), set).await;
    let recovered = promoted.elapsed();
    let (done, failed, slowest) = load.stop().await;
    println!(
        "a primary died: others' keys within {longest:?}; its own again {recovered:?} after the promotion; \
         {failed} of {} calls failed, none later than {slowest:?}",
        2 * done
    );
    assert!(recovered < 5 * RECOVERY, "{recovered:?}");
    assert!(slowest < DEADLINE + 5 * Duration::from_millis(50), "{slowest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_about_no_key_reaches_the_primaries_of_now_though_nothing_has_told_of_them() {
    let cluster = Arc::new(RedisCluster::start());
    let backend = backend(&cluster);
    let theirs = keys_of(&cluster, 0, 1);
    backend.set(&theirs[0], Bytes::new(), None).await.unwrap();
    assert!(backend.health_check().await.unwrap());
    let slot = cluster.slot(&theirs[0]);
    let failing = Arc::clone(&cluster);
    let replica = cluster.replica_of(slot).unwrap();
    bounded(tokio::task::spawn_blocking(move || failing.fail_over_to(replica))).await.unwrap();
    // No operation on a key in between. The old primary is a replica, and takes no flush.
    backend.clear_all().await.unwrap();
    let left: u64 = cluster.nodes().iter().map(|node| node.command("DBSIZE").parse::<u64>().unwrap()).sum();
    assert_eq!(left, 0);
    cluster.wait_until_ok();
    cluster.kill(replica);
    let failing = Arc::clone(&cluster);
    let promoted = tokio::task::spawn_blocking(move || failing.wait_for_new_primary(slot, replica));
    bounded(promoted).await.unwrap();
    let well = async || backend.health_check().await.is_ok_and(|well| well);
    common::until("health, asked for by nobody but the check", 5 * RECOVERY, well).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planned_failover_is_followed_within_the_deadline() {
    let cluster = Arc::new(RedisCluster::start());
    let backend = patient(&cluster);
    let theirs = keys_of(&cluster, 0, 1);
    let replica = cluster.replica_of(cluster.slot(&theirs[0])).unwrap();
    let load = Load::start(&backend, 8);
    let moving = Arc::clone(&cluster);
    bounded(tokio::task::spawn_blocking(move || moving.fail_over_to(replica))).await.unwrap();
    backend.set(&theirs[0], Bytes::from_static(b"w"), None).await.unwrap();
    let (done, failed, longest) = load.stop().await;
    println!("planned failover: {failed} of {} calls failed, longest {longest:?}", 2 * done);
    assert!(done > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn all_links_cut_at_once_are_made_anew() {
    let cluster = RedisCluster::start();
    let backend = backend(&cluster);
    for round in 0..20 {
        for n in 0..100 {
            let set = async || backend.set(&key(n), Bytes::new(), None).await.is_ok();
            common::until("a node", 5 * RECOVERY, set).await;
        }
        for node in cluster.nodes() {
            node.command("CLIENT KILL TYPE normal SKIPME yes");
        }
        let began = Instant::now();
        let all = async || {
            let gets = (0..100).map(|n| {
                let backend = backend.clone();
                async move { backend.get(&key(n)).await }
            });
            futures_util::future::join_all(gets).await.iter().all(Result::is_ok)
        };
        let took = common::until("all nodes", 5 * RECOVERY, all).await;
        if round == 0 {
            println!("all links cut: all nodes again after {took:?}");
        }
        assert!(began.elapsed() < 5 * RECOVERY);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cluster_that_was_restarted_as_a_whole_is_used_again() {
    let cluster = RedisCluster::builder().replicas(0).start();
    let backend = backend(&cluster);
    backend.set("k", Bytes::new(), None).await.unwrap();
    for node in 0..3 {
        cluster.kill(node);
    }
    let error = backend.get("k").await.unwrap_err();
    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout), "{error:?}");
    for node in 0..3 {
        cluster.restart(node);
    }
    cluster.wait_until_ok();
    let began = Instant::now();
    for n in 0..100 {
        let set = async || backend.set(&key(n), Bytes::new(), None).await.is_ok();
        common::until("a restarted node", 5 * RECOVERY, set).await;
    }
    println!("restarted: used again after {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_that_prefer_replicas_go_there_and_to_the_primary_when_those_are_gone() {
    let cluster = RedisCluster::start();
    let builder = RedisBackend::builder_from_url(&cluster.url()).unwrap();
    let builder = builder.read_from(RedisReadFrom::PreferReplica).operation_timeout(Duration::from_secs(2));
    let backend = builder.build().unwrap();
    let keys: Vec<String> = (0..60).map(key).collect();
    for key in &keys {
        backend.set(key, Bytes::from(key.clone()), None).await.unwrap();
    }
    let gets = |node: &RedisServer| -> u64 {
        let stats = node.command("INFO commandstats");
        let line = stats.lines().find_map(|line| line.strip_prefix("cmdstat_get:calls="));
        line.and_then(|rest| rest.split(',').next()?.parse().ok()).unwrap_or(0)
    };
    // A replica is not named by the others before it has taken over something from its primary.
    let used = async || {
        let names: Vec<&str> = keys.iter().map(String::as_str).collect();
        assert!(backend.mget(&names).await.unwrap().iter().all(Option::is_some));
        cluster.nodes()[3..].iter().all(|node| gets(node) > 0)
    };
    common::until("the replicas", Duration::from_secs(20), used).await;
    for node in cluster.nodes() {
        node.command("CONFIG RESETSTAT");
    }
    for key in &keys {
        assert_eq!(backend.get(key).await.unwrap().unwrap(), *key);
    }
    let counts: Vec<u64> = cluster.nodes().iter().map(gets).collect();
    println!("60 reads by node: {counts:?}");
    assert_eq!(counts[..3].iter().sum::<u64>(), 0, "{counts:?}");
    assert_eq!(counts[3..].iter().sum::<u64>(), 60, "{counts:?}");
    // A write is seen by the primary at once, whatever the replicas know.
    backend.delete(&keys[0]).await.unwrap();
    for node in 3..6 {
        cluster.kill(node);
    }
    for key in &keys[1..] {
        assert_eq!(backend.get(key).await.unwrap().unwrap(), *key);
    }
    assert_eq!(backend.get(&keys[0]).await.unwrap(), None);
}

#[tokio::test]
async fn a_server_alone_is_no_cluster_and_the_error_says_so() {
    let server = RedisServer::start();
    let backend = RedisBackend::from_url(&format!("redis+cluster://{}", server.addr())).unwrap();
    let error = backend.connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
    assert!(error.hint().unwrap().contains("redis://"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn commands_pipelines_and_transactions_go_where_their_keys_are() {
    let cluster = RedisCluster::builder().replicas(0).start();
    let backend = patient(&cluster);
    let mut pipeline = backend.pipeline();
    for n in 0..50 {
        pipeline = pipeline.then(backend.command("INCRBY").key(key(n)).arg(n));
    }
    let answers = pipeline.run().await.unwrap();
    assert!(answers.iter().zip(0..).all(|(answer, n)| answer.as_int() == Some(n)));
    let push = |n: u64| backend.command("RPUSH").key("{list}:a").arg(n);
    let both = backend.transaction().then(push(1)).then(push(2));
    let both = both.then(backend.command("LRANGE").key("{list}:a").arg(0).arg(-1)).run().await.unwrap();
    assert_eq!(both.len(), 3);
    let slot = cluster.slot("{list}:a");
    cluster.move_slot(slot, (cluster.primary_of(slot) + 1) % 3);
    let moved = backend.transaction().then(push(3)).run().await.unwrap();
    assert_eq!(moved[0].as_int(), Some(3));
    let apart = backend.transaction().then(push(1)).then(backend.command("INCR").key("elsewhere"));
    let error = apart.run().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
    assert!(error.hint().unwrap().contains("{tag}"), "{error}");
}
