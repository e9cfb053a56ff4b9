//! Reads from a Redis server on loopback, beside the peers, in one run.
//!
//! `cargo run --release --manifest-path bench/Cargo.toml --bin redis -- [seconds] [rounds] [title] [tasks]`
//!
//! A closed loop: so many tasks, each reading one random key of 2,000 and the next when the answer is there; every
//! answer is checked for its length. The clients take turns within each round; the figures are medians over the
//! rounds. Only the ratios travel. CPU is that of this process. `bench/results` keeps what runs have printed.

use std::sync::Arc;
use std::time::Duration;

use cache_kit::backend::{CacheBackend, RedisBackend, RedisConfig};
use cache_kit_bench::network::{Cell, KEYS, Peer, Plan, key, pipelining};
use cache_kit_test_support::{Direction, Fault, FaultProxy, RedisServer};
use redis::AsyncConnectionConfig;
use redis::aio::MultiplexedConnection;
use tokio::sync::{Mutex, Semaphore};

/// Keys in one multi-get.
const MANY: usize = 100;

fn own(port: u16) -> Arc<dyn CacheBackend> {
    let config = RedisConfig { host: "127.0.0.1".into(), port, ..Default::default() };
    Arc::new(RedisBackend::new(config).expect("a backend"))
}

async fn published(port: u16, pool_size: u32) -> published::backend::RedisBackend {
    let config =
        published::backend::RedisConfig { host: "127.0.0.1".into(), port, pool_size, ..Default::default() };
    published::backend::RedisBackend::new(config).await.expect("a backend")
}

/// A connection of the library that the backend is built on; `best` with all that makes it faster.
async fn bare(port: u16, best: bool) -> MultiplexedConnection {
    let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).expect("a client");
    let info = client.get_connection_info().clone();
    let info = info.set_tcp_settings(redis::io::tcp::TcpSettings::default().set_nodelay(true));
    let client = redis::Client::open(info).expect("a client");
    let config = match best {
        true => AsyncConnectionConfig::new().set_response_timeout(None).set_pipeline_buffer_size(4_096),
        false => AsyncConnectionConfig::new(),
    };
    client.get_multiplexed_async_connection_with_config(&config).await.expect("a connection")
}

const BARE: [(&str, usize, bool); 4] = [
    ("redis-rs x1", 1, false),
    ("redis-rs x1, tuned", 1, true),
    ("redis-rs x2, tuned", 2, true),
    ("redis-rs x4, tuned", 4, true),
];

async fn bare_connections(port: u16, count: usize, best: bool) -> Arc<Vec<MultiplexedConnection>> {
    let mut open = Vec::new();
    for _ in 0..count {
        open.push(bare(port, best).await);
    }
    Arc::new(open)
}

async fn fred_client(port: u16) -> fred::clients::Client {
    use fred::prelude::*;
    let config = Config::from_url(&format!("redis://127.0.0.1:{port}")).expect("a configuration");
    let mut builder = Builder::from_config(config);
    builder.with_connection_config(|connection| connection.tcp.nodelay = Some(true));
    let client = builder.build().expect("a client");
    client.init().await.expect("a connection");
    client
}

/// Readers of one key.
async fn readers(port: u16) -> Vec<Peer> {
    let mut clients = Vec::new();
    let own = own(port);
    clients.push(Peer::new("cache-kit (dyn)", move |n| {
        let own = Arc::clone(&own);
        async move { own.get(&key(n)).await.expect("an answer").map_or(0, |value| value.len()) }
    }));
    for pool_size in [10, 16, 64] {
        use published::backend::CacheBackend as _;
        let backend = published(port, pool_size).await;
        clients.push(Peer::new(format!("published, pool {pool_size}"), move |n| {
            let backend = backend.clone();
            async move { backend.get(&key(n)).await.expect("an answer").map_or(0, |value| value.len()) }
        }));
    }
    for (name, count, best) in BARE {
        let open = bare_connections(port, count, best).await;
        clients.push(Peer::new(name, move |n| {
            let mut connection = open[n % open.len()].clone();
            async move {
                let value: Vec<u8> =
                    redis::cmd("GET").arg(key(n)).query_async(&mut connection).await.expect("an answer");
                value.len()
            }
        }));
    }
    let client = fred_client(port).await;
    clients.push(Peer::new("fred", move |n| {
        use fred::prelude::*;
        let client = client.clone();
        async move {
            let value: Vec<u8> = client.get(key(n)).await.expect("an answer");
            value.len()
        }
    }));
    clients
}

/// Readers of a hundred keys at once.
async fn many_readers(port: u16) -> Vec<Peer> {
    let keys = |n: usize| (0..MANY).map(|i| key((n + i * 7) % KEYS)).collect::<Vec<String>>();
    let total = |values: Vec<Option<Vec<u8>>>| values.iter().flatten().map(Vec::len).sum::<usize>();
    let mut clients = Vec::new();
    let own = own(port);
    clients.push(Peer::new("cache-kit (dyn)", move |n| {
        let own = Arc::clone(&own);
        async move {
            let keys = keys(n);
            let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
            own.mget(&keys).await.expect("an answer").iter().flatten().map(|value| value.len()).sum()
        }
    }));
    for pool_size in [10, 16, 64] {
        use published::backend::CacheBackend as _;
        let backend = published(port, pool_size).await;
        clients.push(Peer::new(format!("published, pool {pool_size}"), move |n| {
            let backend = backend.clone();
            async move {
                let keys = keys(n);
                let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
                total(backend.mget(&keys).await.expect("an answer"))
            }
        }));
    }
    for (name, count, best) in BARE {
        let open = bare_connections(port, count, best).await;
        clients.push(Peer::new(name, move |n| {
            let mut connection = open[n % open.len()].clone();
            async move {
                total(redis::cmd("MGET").arg(keys(n)).query_async(&mut connection).await.expect("an answer"))
            }
        }));
    }
    let client = fred_client(port).await;
    clients.push(Peer::new("fred", move |n| {
        use fred::prelude::*;
        let client = client.clone();
        async move { total(client.mget(keys(n)).await.expect("an answer")) }
    }));
    clients
}

/// Exclusive connections, as a pool hands them out: one caller at a time on each, who waits for its answer.
async fn exclusive(port: u16) -> Vec<Peer> {
    let mut clients = Vec::new();
    let own = own(port);
    clients.push(Peer::new("cache-kit (dyn)", move |n| {
        let own = Arc::clone(&own);
        async move { own.get(&key(n)).await.expect("an answer").map_or(0, |value| value.len()) }
    }));
    for size in [10, 16] {
        let mut idle = Vec::new();
        for _ in 0..size {
            idle.push(bare(port, true).await);
        }
        let pool = Arc::new((Semaphore::new(size), Mutex::new(idle)));
        clients.push(Peer::new(format!("{size} exclusive connections"), move |n| {
            let pool = Arc::clone(&pool);
            async move {
                let _permit = pool.0.acquire().await.expect("the pool is open");
                let mut connection = pool.1.lock().await.pop().expect("one for each permit");
                let value: Vec<u8> =
                    redis::cmd("GET").arg(key(n)).query_async(&mut connection).await.expect("an answer");
                pool.1.lock().await.push(connection);
                value.len()
            }
        }));
    }
    clients
}

/// A socket that sends so many requests, reads as many answers, and counts: what the wire and the server allow.
async fn bare_socket(port: u16, in_flight: usize, many: bool, time: Duration, size: usize) -> Cell {
    let mut request = Vec::new();
    for n in 0..in_flight {
        let keys: Vec<String> = match many {
            true => (0..MANY).map(|i| key((n + i * 7) % KEYS)).collect(),
            false => vec![key(n * 7 % KEYS)],
        };
        let (name, count) = if many { ("MGET", keys.len() + 1) } else { ("GET", 2) };
        request.extend_from_slice(format!("*{count}\r\n${}\r\n{name}\r\n", name.len()).as_bytes());
        for key in keys {
            request.extend_from_slice(format!("${}\r\n{key}\r\n", key.len()).as_bytes());
        }
    }
    let answer = match many {
        true => format!("*{MANY}\r\n").len() + MANY * (format!("${}\r\n", size / MANY).len() + size / MANY + 2),
        false => format!("${size}\r\n").len() + size + 2,
    };
    pipelining(port, &request, answer * in_flight, in_flight, time).await
}

async fn store(server: &RedisServer, size: usize) {
    let setup = own(server.port());
    for n in 0..KEYS {
        setup.set(&key(n), vec![b'v'; size].into(), None).await.expect("stored");
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let plan = Plan::from_args();
    let server = RedisServer::start();
    let proxy = FaultProxy::start(server.addr());
    // About half a millisecond there and back, with what the proxy takes itself.
    proxy.set(Direction::ToServer, Fault::Delay(Duration::from_micros(220)));
    proxy.set(Direction::ToClient, Fault::Delay(Duration::from_micros(220)));
    println!(
        "{}",
        server.command("INFO server").lines().find(|line| line.contains("redis_version")).unwrap_or("")
    );
    let ports = [("", server.port()), (", half a millisecond away", proxy.port())];
    for (size, name) in [(100, "100 B"), (1_000, "1 kB"), (10_000, "10 kB")] {
        store(&server, size).await;
        for (away, port) in ports {
            let title = format!("GET of {name}{away}");
            if plan.wants(&title) {
                let limit = |tasks, time| bare_socket(port, tasks, false, time, size);
                plan.table(&title, &readers(port).await, size, Some(limit)).await;
            }
            let title = format!("MGET of {MANY} times {name}{away}");
            if size == 100 && plan.wants(&title) {
                let limit = |tasks, time| bare_socket(port, tasks, true, time, size * MANY);
                plan.table(&title, &many_readers(port).await, size * MANY, Some(limit)).await;
            }
            let title = format!("GET of {name} over exclusive connections{away}");
            if size == 1_000 && plan.wants(&title) {
                let none = None::<fn(usize, Duration) -> std::future::Ready<Cell>>;
                plan.table(&title, &exclusive(port).await, size, none).await;
            }
        }
    }
}
