//! Backends of several servers, of which one is out of reach: what is on the others goes on, and a clear waits for it.

use std::collections::BTreeMap;
use std::time::Instant;

use cache_kit::backend::{CacheBackend, MemcachedBackend, MemcachedConfig, RedisBackend};
use cache_kit::{Cache, ErrorKind, LoadOptions, Loaded, Previous, Source, Stored};
use cache_kit_test_support::{MemcachedServer, RedisCluster};

use crate::common::engine::one;
use crate::common::{SourceDown, bounded, until};
use crate::tagged::{SECOND, exact, read, strict};
use crate::{LONG, OWNED, found, until_stored};

/// What is asked of a backend of several servers.
struct Servers {
    /// In the order of the parts that they are.
    keys: Vec<Vec<String>>,
    here: Cache,
    asking: Cache,
}

impl Servers {
    async fn new(backend: impl Fn() -> Box<dyn CacheBackend>, part_of: impl Fn(&str) -> usize) -> Self {
        let cache = |policy| Cache::builder().policy(policy).build(backend()).unwrap();
        let (here, asking) = (cache(exact()), cache(strict()));
        let mut keys = vec![Vec::new(); 3];
        for key in (0..).map(|n| format!("key:{n}")) {
            if keys.iter().all(|keys| keys.len() >= 5) {
                break;
            }
            here.set(&key, &"old".to_owned()).await.unwrap();
            keys[part_of(&key)].push(key);
        }
        Self { keys, here, asking }
    }

    fn living(&self, dead: usize) -> impl Iterator<Item = &String> {
        let living = self.keys.iter().enumerate().filter(move |(part, _)| *part != dead);
        living.flat_map(|(_, keys)| keys)
    }

    /// One server is out of reach: the others do not notice.
    async fn the_living_go_on(&self, dead: usize) {
        let (began, mut reads) = (Instant::now(), 0);
        // Longer than what is remembered may be used.
        while reads == 0 || began.elapsed() < 2 * SECOND {
            for key in self.living(dead) {
                for cache in [&self.here, &self.asking] {
                    let found = bounded(cache.get::<String>(key)).await.unwrap();
                    assert_eq!(found.as_deref(), Some("old"), "{key}");
                    reads += 1;
                }
            }
        }
        for key in &self.keys[dead] {
            assert!(bounded(self.asking.get::<String>(key)).await.is_err(), "{key}: that is no miss");
        }
        println!("{reads} hits on the living servers");
    }

    /// Everything is cleared, but for what is out of reach.
    async fn is_cleared_but_for(&self, dead: usize, parts: usize) {
        let error = bounded(self.here.clear()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Unconfirmed, "{error:?}");
        assert_eq!(self.here.gauges().pending_invalidations, parts, "{error:?}");
        for key in self.living(dead) {
            for cache in [&self.here, &self.asking] {
                assert_eq!(bounded(cache.get::<String>(key)).await.unwrap(), None, "{key}");
            }
            let now = read(&self.here, OWNED, key, "t", &one("new")).await;
            assert_eq!((now.value.as_str(), now.source), ("new", Source::Load), "{key}");
        }
        for key in &self.keys[dead] {
            assert!(bounded(self.here.get::<String>(key)).await.is_err(), "{key}");
        }
    }

    /// Stores "old" again until it stays: what was written in the second of a fault is not trusted, by whoever has seen it.
    async fn settle(&self) {
        let (mut since, old) = (Instant::now(), Some(Some("old".to_owned())));
        let stays = async || {
            for key in self.keys.iter().flatten() {
                for cache in [&self.here, &self.asking] {
                    if found(cache, key).await != old {
                        drop(self.here.set(key, &"old".to_owned()).await);
                        since = Instant::now();
                    }
                }
            }
            since.elapsed() > 2 * SECOND
        };
        until("it stays", LONG, stays).await;
    }

    async fn is_cleared_when_it_is_back(&self, dead: usize) {
        let began = Instant::now();
        bounded(self.here.flush_pending(LONG)).await.unwrap();
        println!("confirmed after {:?}", began.elapsed());
        assert_eq!(self.here.gauges().pending_invalidations, 0);
        for key in &self.keys[dead] {
            for cache in [&self.here, &self.asking] {
                let mut seen = None;
                let answers = async || {
                    seen = found(cache, key).await;
                    seen.is_some()
                };
                until("it answers", LONG, answers).await;
                assert_eq!(seen, Some(None), "{key}");
            }
            until_stored(&self.here, OWNED, key, key).await;
        }
    }
}

fn memcached(servers: &[MemcachedServer]) -> MemcachedBackend {
    let servers = servers.iter().map(MemcachedServer::addr).collect();
    let config = MemcachedConfig { servers, max_connections: 2, min_connections: 1 };
    MemcachedBackend::builder(config).operation_timeout(2 * SECOND).build().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_memcached_costs_what_is_on_it_and_is_told_of_a_clear_when_it_is_back() {
    for is_killed in [true, false] {
        let servers = [(); 3].map(|()| MemcachedServer::start());
        let backend = memcached(&servers);
        let stage = Servers::new(|| Box::new(memcached(&servers)), |key| backend.shard_of(key)).await;
        for (server, keys) in servers.iter().zip(&stage.keys) {
            assert!(server.command(&format!("mg {}", keys[0])).starts_with("HD"), "part and server");
        }
        // Whichever it is, and wherever the versions of tags are.
        for (dead, server) in servers.iter().enumerate() {
            if is_killed {
                server.kill()
            } else {
                server.pause()
            }
            stage.the_living_go_on(dead).await;
            stage.is_cleared_but_for(dead, 1).await;
            if is_killed {
                server.restart()
            } else {
                server.resume()
            }
            stage.is_cleared_when_it_is_back(dead).await;
            stage.settle().await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whichever_memcached_is_dead_what_is_loaded_is_stored_on_the_others() {
    let servers = [(); 3].map(|()| MemcachedServer::start());
    let backend = memcached(&servers);
    let stage = Servers::new(|| Box::new(memcached(&servers)), |key| backend.shard_of(key)).await;
    let mut stored = BTreeMap::new();
    for (dead, server) in servers.iter().enumerate() {
        server.kill();
        for key in stage.living(dead) {
            let key = &format!("{key}:{dead}");
            if backend.shard_of(key) == dead {
                continue;
            }
            let row = || async { Ok::<_, SourceDown>("row".to_owned()) };
            let plain = stage.here.get_or_load_outcome(key, LoadOptions::default(), row).await.unwrap();
            stage.here.invalidate(key).await.unwrap();
            // One that could name tags, and names none.
            let row = |_: Previous<String>| async { Ok::<_, SourceDown>(Loaded::value("row".to_owned())) };
            let options = LoadOptions::default();
            let entry = stage.here.get_or_load_entry_outcome(key, options, row).await.unwrap();
            stored.entry(dead).or_insert_with(Vec::new).push((plain.stored, entry.stored));
        }
        server.restart();
        let answers = async || found(&stage.here, &stage.keys[dead][0]).await.is_some();
        until("it is used again", LONG, answers).await;
    }
    for (dead, stored) in stored {
        let all = vec![(Stored::Yes, Stored::Yes); stored.len()];
        assert_eq!(stored, all, "server {dead} is dead, and these keys are on others");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_node_of_a_cluster_costs_what_is_on_it_and_is_told_of_a_clear_when_it_is_back() {
    let cluster = RedisCluster::builder().replicas(0).partial_coverage().start();
    let backend = || {
        let builder = RedisBackend::builder_from_url(&cluster.url()).unwrap();
        Box::new(builder.operation_timeout(2 * SECOND).build().unwrap())
    };
    let one = backend();
    one.connect().await.unwrap();
    let owner = |key: &str| cluster.primary_of(cluster.slot(key));
    let parts: Vec<usize> = (0..one.shards()).map(|part| owner(&one.shard_key(part, "%space"))).collect();
    // A group of slots may be on two nodes.
    let stage = Servers::new(|| backend(), |key| owner(key)).await;
    let stage = Servers {
        keys: stage
            .keys
            .into_iter()
            .map(|keys| keys.into_iter().filter(|key| parts[one.shard_of(key)] == owner(key)).collect())
            .collect(),
        ..stage
    };
    cluster.kill(0);
    stage.the_living_go_on(0).await;
    stage.is_cleared_but_for(0, parts.iter().filter(|node| **node == 0).count()).await;
    cluster.restart(0);
    cluster.wait_until_ok();
    stage.is_cleared_when_it_is_back(0).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_first_call_of_a_process_may_be_a_clear_of_a_cluster_that_it_knows_one_node_of() {
    let cluster = RedisCluster::builder().replicas(0).start();
    let cache = |url: &str| {
        let url = format!("{url}?operation_timeout=10s");
        Cache::builder().policy(strict()).build_url(&url).unwrap()
    };
    let there = cache(&cluster.url());
    let keys: Vec<String> = (0..50).map(|n| format!("key:{n}")).collect();
    for key in &keys {
        there.set(key, &"old".to_owned()).await.unwrap();
    }
    let here = cache(&format!("redis://{}", cluster.addrs()[0]));
    bounded(here.clear()).await.unwrap();
    for key in &keys {
        assert_eq!(there.get::<String>(key).await.unwrap(), None, "{key}: it was confirmed");
    }
}
