//! Reads from a Memcached server on loopback, beside the peers, in one run.
//!
//! `cargo run --release --manifest-path bench/Cargo.toml --bin memcached -- [seconds] [rounds] [title] [tasks]`
//!
//! As `redis.rs`: a closed loop, every answer checked for its length, clients that take turns, medians over the rounds.
//! `bench/results` keeps what runs have printed.

use std::sync::Arc;
use std::time::Duration;

use async_memcached::AsciiProtocol as _;
use cache_kit::backend::{CacheBackend, MemcachedBackend, MemcachedConfig};
use cache_kit_bench::network::{Cell, KEYS, Peer, Plan, key, pipelining};
use cache_kit_memcached::Client;
use cache_kit_test_support::{Direction, Fault, FaultProxy, MemcachedServer};
use tokio::sync::{Mutex, Semaphore};

/// Keys in one multi-get.
const MANY: usize = 100;

fn own(port: u16) -> Arc<dyn CacheBackend> {
    let config = MemcachedConfig { servers: vec![format!("127.0.0.1:{port}")], ..Default::default() };
    Arc::new(MemcachedBackend::new(config).expect("a backend"))
}

async fn published(port: u16, pool_size: u32) -> published::backend::MemcachedBackend {
    let config = published::backend::MemcachedConfig {
        servers: vec![format!("localhost:{port}")],
        pool_size,
        ..Default::default()
    };
    published::backend::MemcachedBackend::new(config).await.expect("a backend")
}

/// Exclusive connections, as a pool hands them out.
struct Exclusive {
    permits: Semaphore,
    idle: Mutex<Vec<async_memcached::Client>>,
}

impl Exclusive {
    async fn new(port: u16, size: usize) -> Arc<Self> {
        let mut idle = Vec::new();
        for _ in 0..size {
            idle.push(async_memcached::Client::new(format!("tcp://127.0.0.1:{port}")).await.expect("a connection"));
        }
        Arc::new(Self { permits: Semaphore::new(size), idle: Mutex::new(idle) })
    }

    async fn with<T>(&self, ask: impl AsyncFnOnce(&mut async_memcached::Client) -> T) -> T {
        let _permit = self.permits.acquire().await.expect("the pool is open");
        let mut client = self.idle.lock().await.pop().expect("one for each permit");
        let answer = ask(&mut client).await;
        self.idle.lock().await.push(client);
        answer
    }
}

/// Readers of one key.
async fn readers(port: u16) -> Vec<Peer> {
    let mut clients = Vec::new();
    let backend = own(port);
    clients.push(Peer::new("cache-kit (dyn)", move |n| {
        let backend = Arc::clone(&backend);
        async move { backend.get(&key(n)).await.expect("an answer").map_or(0, |value| value.len()) }
    }));
    let client = Client::builder().servers([format!("127.0.0.1:{port}")]).and_then(|b| b.build()).expect("a client");
    clients.push(Peer::new("cache-kit-memcached", move |n| {
        let client = client.clone();
        async move { client.get(key(n).as_bytes()).await.expect("an answer").map_or(0, |value| value.data.len()) }
    }));
    {
        use published::backend::CacheBackend as _;
        let backend = published(port, 16).await;
        clients.push(Peer::new("published, pool 16", move |n| {
            let backend = backend.clone();
            async move { backend.get(&key(n)).await.expect("an answer").map_or(0, |value| value.len()) }
        }));
    }
    for size in [16, 64] {
        let pool = Exclusive::new(port, size).await;
        clients.push(Peer::new(format!("async-memcached, pool {size}"), move |n| {
            let pool = Arc::clone(&pool);
            async move {
                let value = pool.with(async |client| client.get(key(n)).await).await.expect("an answer");
                value.and_then(|value| value.data).map_or(0, |data| data.len())
            }
        }));
    }
    clients
}

/// Readers of a hundred keys at once.
async fn many_readers(port: u16) -> Vec<Peer> {
    let keys = |n: usize| (0..MANY).map(|i| key((n + i * 7) % KEYS)).collect::<Vec<String>>();
    let mut clients = Vec::new();
    let backend = own(port);
    clients.push(Peer::new("cache-kit (dyn)", move |n| {
        let backend = Arc::clone(&backend);
        async move {
            let keys = keys(n);
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            backend.mget(&keys).await.expect("an answer").iter().flatten().map(|value| value.len()).sum()
        }
    }));
    {
        use published::backend::CacheBackend as _;
        let backend = published(port, 16).await;
        clients.push(Peer::new("published, pool 16", move |n| {
            let backend = backend.clone();
            async move {
                let keys = keys(n);
                let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
                backend.mget(&keys).await.expect("an answer").iter().flatten().map(Vec::len).sum()
            }
        }));
    }
    for size in [16, 64] {
        let pool = Exclusive::new(port, size).await;
        clients.push(Peer::new(format!("async-memcached, pool {size}"), move |n| {
            let pool = Arc::clone(&pool);
            async move {
                let values = pool.with(async |client| client.get_multi(keys(n)).await).await.expect("an answer");
                values.iter().filter_map(|value| value.data.as_ref()).map(Vec::len).sum()
            }
        }));
    }
    clients
}

/// What the wire and the server allow: `mg` with an opaque, or `get` of many.
async fn bare_socket(port: u16, in_flight: usize, many: bool, flags: u32, time: Duration, size: usize) -> Cell {
    let (mut requests, mut answers) = (Vec::new(), 0);
    for n in 0..in_flight {
        if many {
            let keys: Vec<String> = (0..MANY).map(|i| key((n + i * 7) % KEYS)).collect();
            requests.extend_from_slice(format!("get {}\r\n", keys.join(" ")).as_bytes());
            let size = size / MANY;
            let values = keys.iter().map(|key| format!("VALUE {key} {flags} {size}\r\n").len() + size + 2);
            answers += values.sum::<usize>() + "END\r\n".len();
        } else {
            let opaque = 1_000_000 + n;
            requests.extend_from_slice(format!("mg {} O{opaque} v f\r\n", key(n * 7 % KEYS)).as_bytes());
            answers += format!("VA {size} O{opaque} f{flags}\r\n").len() + size + 2;
        }
    }
    pipelining(port, &requests, answers, in_flight, time).await
}

/// Stores the values, and gives the client flags that they have.
async fn store(server: &MemcachedServer, size: usize) -> u32 {
    let client = Client::builder().servers([server.addr()]).and_then(|b| b.build()).expect("a client");
    let backend = own(server.port());
    backend.set("flags", "x".into(), None).await.expect("stored");
    let flags = client.get(b"flags").await.expect("an answer").expect("a value").client_flags;
    // One time of writing for all, so that all answers are equally long.
    for n in 0..KEYS {
        let mut options = cache_kit_memcached::protocol::SetOptions::default();
        options.client_flags = flags;
        assert!(client.set(key(n).as_bytes(), &vec![b'v'; size], options).await.expect("stored"));
    }
    flags
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let plan = Plan::from_args();
    let server = MemcachedServer::builder().arg("-t").arg("1").start();
    let proxy = FaultProxy::start(server.addr());
    // About half a millisecond there and back, with what the proxy takes itself.
    proxy.set(Direction::ToServer, Fault::Delay(Duration::from_micros(220)));
    proxy.set(Direction::ToClient, Fault::Delay(Duration::from_micros(220)));
    println!("memcached {}, one thread", server.command("version"));
    let ports = [("", server.port()), (", half a millisecond away", proxy.port())];
    for (size, name) in [(100, "100 B"), (1_000, "1 kB"), (10_000, "10 kB")] {
        let flags = store(&server, size).await;
        for (away, port) in ports {
            let title = format!("GET of {name}{away}");
            if plan.wants(&title) {
                let limit = |tasks, time| bare_socket(port, tasks, false, flags, time, size);
                plan.table(&title, &readers(port).await, size, Some(limit)).await;
            }
            let title = format!("multi-get of {MANY} times {name}{away}");
            if size == 100 && plan.wants(&title) {
                let limit = |tasks, time| bare_socket(port, tasks, true, flags, time, size * MANY);
                plan.table(&title, &many_readers(port).await, size * MANY, Some(limit)).await;
            }
        }
    }
}
