//! Reads from a Redis server on loopback, beside the peers, in one run.
//!
//! `cargo run --release --manifest-path bench/Cargo.toml --bin redis -- [seconds per cell] [rounds]`
//!
//! A closed loop: so many tasks, each reading one random key of 2,000 and the next when the answer is there; every
//! answer is checked for its length. The clients take turns within each round; the figures are medians over the
//! rounds. Only the ratios travel. CPU is that of this process, user and system.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cache_kit::backend::CacheBackend;
use cache_kit_test_support::{Direction, Fault, FaultProxy, RedisServer};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const KEYS: usize = 2_000;

type Read = Arc<dyn Fn(usize) -> Pin<Box<dyn Future<Output = usize> + Send>> + Send + Sync>;

/// A client, read through one function.
struct Peer {
    name: String,
    read: Read,
}

impl Peer {
    fn new<F, Fut>(name: impl Into<String>, read: F) -> Self
    where
        F: Fn(usize) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = usize> + Send + 'static,
    {
        Self { name: name.into(), read: Arc::new(move |key| Box::pin(read(key))) }
    }
}

/// What a client did in one cell.
#[derive(Clone, Copy, Default)]
struct Cell {
    per_second: f64,
    p50: f64,
    p99: f64,
    cpu: f64,
}

fn cpu() -> Duration {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or("").split_whitespace().collect();
    let ticks: u64 = fields.get(11..13).map_or(0, |times| times.iter().filter_map(|t| t.parse::<u64>().ok()).sum());
    Duration::from_millis(ticks * 10)
}

async fn measure(client: &Peer, tasks: usize, time: Duration, size: usize) -> Cell {
    let (began, before) = (Instant::now(), cpu());
    let end = began + time;
    let handles: Vec<_> = (0..tasks)
        .map(|task| {
            let read = Arc::clone(&client.read);
            tokio::spawn(async move {
                let (mut random, mut took) = (fastrand::Rng::with_seed(task as u64), Vec::new());
                while Instant::now() < end {
                    let start = Instant::now();
                    assert_eq!(read(random.usize(..KEYS)).await, size, "a wrong value");
                    took.push(start.elapsed().as_nanos() as u32);
                }
                took
            })
        })
        .collect();
    let mut took = Vec::new();
    for handle in handles {
        took.extend(handle.await.expect("a reader ends"));
    }
    let (wall, cpu) = (began.elapsed().as_secs_f64(), (cpu() - before).as_secs_f64());
    took.sort_unstable();
    let at = |share: f64| f64::from(took[((took.len() - 1) as f64 * share) as usize]) / 1e3;
    let count = took.len() as f64;
    Cell { per_second: count / wall, p50: at(0.5), p99: at(0.99), cpu: cpu / count * 1e6 }
}

fn key(n: usize) -> String {
    format!("key:{n}")
}

async fn clients(port: u16) -> Vec<Peer> {
    let mut clients = Vec::new();

    let config = cache_kit::backend::RedisConfig { host: "127.0.0.1".into(), port, ..Default::default() };
    let own: Arc<dyn CacheBackend> = Arc::new(cache_kit::backend::RedisBackend::new(config).expect("a backend"));
    clients.push(Peer::new("cache-kit (dyn)", move |n| {
        let own = Arc::clone(&own);
        async move { own.get(&key(n)).await.expect("an answer").map_or(0, |value| value.len()) }
    }));

    for pool_size in [10, 16, 64] {
        use published::backend::{CacheBackend as _, RedisBackend, RedisConfig};
        let config = RedisConfig { host: "127.0.0.1".into(), port, pool_size, ..Default::default() };
        let backend = RedisBackend::new(config).await.expect("a backend");
        clients.push(Peer::new(format!("published, pool {pool_size}"), move |n| {
            let backend = backend.clone();
            async move { backend.get(&key(n)).await.expect("an answer").map_or(0, |value| value.len()) }
        }));
    }

    for connections in [1, 2] {
        let mut open = Vec::new();
        for _ in 0..connections {
            let client = redis::Client::open(format!("redis://127.0.0.1:{port}")).expect("a client");
            let info = client.get_connection_info().clone();
            let info = info.set_tcp_settings(redis::io::tcp::TcpSettings::default().set_nodelay(true));
            let client = redis::Client::open(info).expect("a client");
            open.push(client.get_multiplexed_async_connection().await.expect("a connection"));
        }
        let open = Arc::new(open);
        clients.push(Peer::new(format!("bare redis-rs x{connections}"), move |n| {
            let mut connection = open[n % open.len()].clone();
            async move {
                let value: Vec<u8> = redis::cmd("GET").arg(key(n)).query_async(&mut connection).await.expect("an answer");
                value.len()
            }
        }));
    }

    {
        use fred::prelude::*;
        let config = Config::from_url(&format!("redis://127.0.0.1:{port}")).expect("a configuration");
        let mut builder = Builder::from_config(config);
        builder.with_connection_config(|connection| connection.tcp.nodelay = Some(true));
        let client = builder.build().expect("a client");
        client.init().await.expect("a connection");
        clients.push(Peer::new("fred", move |n| {
            let client = client.clone();
            async move {
                let value: Vec<u8> = client.get(key(n)).await.expect("an answer");
                value.len()
            }
        }));
    }
    clients
}

/// A socket that sends so many requests, reads as many answers, and counts: what the wire and the server allow.
async fn bare_socket(port: u16, in_flight: usize, time: Duration, size: usize) -> Cell {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await.expect("a connection");
    socket.set_nodelay(true).expect("no delay");
    let mut request = Vec::new();
    for n in 0..in_flight {
        let key = key(n * 7 % KEYS);
        request.extend_from_slice(format!("*2\r\n$3\r\nGET\r\n${}\r\n{key}\r\n", key.len()).as_bytes());
    }
    let answer = format!("${size}\r\n").len() + size + 2;
    let mut answers = vec![0; answer * in_flight];
    let (began, before, mut count) = (Instant::now(), cpu(), 0_u64);
    while began.elapsed() < time {
        socket.write_all(&request).await.expect("written");
        socket.read_exact(&mut answers).await.expect("answered");
        count += in_flight as u64;
    }
    let (wall, cpu) = (began.elapsed().as_secs_f64(), (cpu() - before).as_secs_f64());
    Cell { per_second: count as f64 / wall, p50: 0.0, p99: 0.0, cpu: cpu / count as f64 * 1e6 }
}

fn median(mut cells: Vec<Cell>) -> Cell {
    cells.sort_by(|a, b| a.per_second.total_cmp(&b.per_second));
    cells[cells.len() / 2]
}

async fn table(what: &str, server: &RedisServer, port: u16, size: usize, time: Duration, rounds: usize) {
    let config = cache_kit::backend::RedisConfig { host: "127.0.0.1".into(), port: server.port(), ..Default::default() };
    let setup = cache_kit::backend::RedisBackend::new(config).expect("a backend");
    for n in 0..KEYS {
        setup.set(&key(n), vec![b'v'; size].into(), None).await.expect("stored");
    }
    let clients = clients(port).await;
    for tasks in [1, 16, 64, 256, 1024] {
        let mut cells = vec![Vec::new(); clients.len()];
        let mut limit = Vec::new();
        for _ in 0..rounds {
            for (client, cells) in clients.iter().zip(&mut cells) {
                cells.push(measure(client, tasks, time, size).await);
            }
            limit.push(bare_socket(port, tasks, time, size).await);
        }
        println!("\n{what}, {tasks} tasks");
        println!("  {:<22}{:>12}{:>12}{:>12}{:>12}{:>10}", "", "ops/s", "p50 us", "p99 us", "cpu us/op", "of ours");
        let ours = median(cells[0].clone()).per_second;
        let rows = clients.iter().map(|client| client.name.as_str()).zip(cells).chain([("bare socket", limit)]);
        for (name, cells) in rows {
            let cell = median(cells);
            println!(
                "  {name:<22}{:>12.0}{:>12.1}{:>12.1}{:>12.2}{:>10.2}",
                cell.per_second,
                cell.p50,
                cell.p99,
                cell.cpu,
                cell.per_second / ours
            );
        }
    }
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let mut args = std::env::args().skip(1).map(|arg| arg.parse::<f64>().expect("a number"));
    let time = Duration::from_secs_f64(args.next().unwrap_or(0.5));
    let rounds = args.next().unwrap_or(3.0) as usize;
    let server = RedisServer::start();
    table("GET of 100 B", &server, server.port(), 100, time, rounds).await;
    table("GET of 1 kB", &server, server.port(), 1_000, time, rounds).await;
    let proxy = FaultProxy::start(server.addr());
    proxy.set(Direction::ToServer, Fault::Delay(Duration::from_micros(220)));
    proxy.set(Direction::ToClient, Fault::Delay(Duration::from_micros(220)));
    table("GET of 100 B, half a millisecond away", &server, proxy.port(), 100, time, rounds).await;
}
