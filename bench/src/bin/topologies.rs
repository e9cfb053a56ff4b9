//! What TLS, a unix socket, Sentinel and a cluster cost, beside a plain server, in one run.
//!
//! `cargo run --release --manifest-path bench/Cargo.toml --bin topologies -- [seconds] [rounds] [title] [tasks]`
//!
//! The same backend, the same closed loop as in `redis`: so many tasks, each reading one random key of 2,000. All servers
//! share the machine with the client; a cluster has three processes where the others have one.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use cache_kit::backend::{CacheBackend, RedisBackend, SetEntry};
use cache_kit_bench::network::{Cell, KEYS, Peer, Plan, key};
use cache_kit_test_support::{RedisCluster, RedisSentinels, RedisServer};

/// Keys in one multi-get.
const MANY: usize = 100;

async fn backend(url: &str, size: usize) -> Arc<dyn CacheBackend> {
    let builder = RedisBackend::builder_from_url(url).expect("a URL");
    let backend = builder.operation_timeout(Duration::from_secs(5)).build().expect("a backend");
    backend.connect().await.expect("a server");
    for n in 0..KEYS {
        let entry = [SetEntry { key: &key(n), value: Bytes::from(vec![7; size]), ttl: None }];
        backend.mset(&entry).await.expect("stored");
    }
    Arc::new(backend)
}

fn one(name: &str, backend: &Arc<dyn CacheBackend>) -> Peer {
    let backend = Arc::clone(backend);
    Peer::new(name, move |n| {
        let backend = Arc::clone(&backend);
        async move { backend.get(&key(n)).await.expect("an answer").map_or(0, |value| value.len()) }
    })
}

fn many(name: &str, backend: &Arc<dyn CacheBackend>) -> Peer {
    let backend = Arc::clone(backend);
    Peer::new(name, move |n| {
        let backend = Arc::clone(&backend);
        async move {
            let names: Vec<String> = (0..MANY).map(|more| key((n + more) % KEYS)).collect();
            let names: Vec<&str> = names.iter().map(String::as_str).collect();
            let values = backend.mget(&names).await.expect("an answer");
            values.iter().flatten().map(|value| value.len()).sum()
        }
    })
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let plan = Plan::from_args();
    let plain = RedisServer::start();
    let unix = RedisServer::builder().unix_socket().start();
    let tls = RedisServer::builder().tls().start();
    let sentinels = RedisSentinels::start();
    let cluster = RedisCluster::builder().replicas(0).start();
    let tls_url = format!("{}?tls_roots={}", tls.url(), tls.ca_certificate().display());
    let size = 100;
    let mut backends = Vec::new();
    for (name, url) in [
        ("plain", plain.url()),
        ("unix socket", unix.url()),
        ("TLS", tls_url),
        ("Sentinel", sentinels.url()),
        ("cluster of three", cluster.url()),
    ] {
        backends.push((name, backend(&url, size).await));
    }
    let none = None::<fn(usize, Duration) -> std::future::Ready<Cell>>;
    if plan.wants("GET of 100 B") {
        let peers: Vec<Peer> = backends.iter().map(|(name, backend)| one(name, backend)).collect();
        plan.table("GET of 100 B", &peers, size, none).await;
    }
    if plan.wants("MGET of 100 x 100 B") {
        let peers: Vec<Peer> = backends.iter().map(|(name, backend)| many(name, backend)).collect();
        plan.table("MGET of 100 x 100 B", &peers, MANY * size, none).await;
    }
}
