//! Three ways to learn of invalidations made by others, beside each other: the keys that were read are tracked, all keys with
//! a prefix are, or whoever invalidates publishes.
//!
//! `cargo run --release --manifest-path bench/Cargo.toml --bin coherence -- [rounds]`
//!
//! Eight subscribers, each with a connection of its own, as eight processes would have. Messages are counted where they
//! arrive. A *miss* is what the backend does for one: a read in vain, a lease, a fill, and a read of what was filled, all by
//! the first subscriber. Server CPU is that of `INFO cpu`, all commands of the round included.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cache_kit::backend::redis::{RedisGap, RedisInvalidation, RedisTracked, RedisTracker};
use cache_kit::backend::{Acquired, CacheBackend, RedisBackend};
use cache_kit_test_support::RedisServer;
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, PushInfo, PushKind, cmd};
use tokio::sync::mpsc;

const SUBSCRIBERS: usize = 8;
const CHANNEL: &str = "invalidations";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    /// Of this library: a read registers only if there is a value.
    KeysRead,
    /// By a plain `GET` over a tracked connection.
    KeysReadByGet,
    Prefix,
    /// A `PUBLISH` with each invalidation.
    PubSub,
}

enum Read {
    Tracker(RedisTracker),
    Get(MultiplexedConnection),
    /// Reads are not watched.
    Backend(RedisBackend),
}

struct Subscriber {
    read: Read,
    messages: Arc<AtomicU64>,
    told: mpsc::UnboundedReceiver<Instant>,
}

impl Subscriber {
    async fn start(way: Way, server: &RedisServer, backend: &RedisBackend) -> Self {
        let (messages, (sender, told)) = (Arc::new(AtomicU64::new(0)), mpsc::unbounded_channel());
        let count = Arc::clone(&messages);
        let heard = move || {
            count.fetch_add(1, Ordering::SeqCst);
            let _nobody_waits = sender.send(Instant::now());
        };
        let read = match way {
            Way::KeysRead | Way::Prefix => {
                let what = match way {
                    Way::KeysRead => RedisTracked::KeysRead,
                    _ => RedisTracked::Prefixes(vec!["k".to_owned()]),
                };
                let (tracker, mut invalidations) = backend.track(what).expect("a tracker");
                if way == Way::Prefix {
                    let armed = RedisInvalidation::Gap(RedisGap::Armed);
                    assert_eq!(invalidations.next().await, armed);
                }
                tokio::spawn(async move {
                    loop {
                        invalidations.next().await;
                        heard();
                    }
                });
                match way {
                    Way::KeysRead => Read::Tracker(tracker),
                    _ => Read::Backend(backend.clone()),
                }
            }
            Way::KeysReadByGet | Way::PubSub => {
                let pushed = move |push: PushInfo| {
                    if matches!(push.kind, PushKind::Invalidate | PushKind::Message) {
                        heard();
                    }
                    Ok::<_, ()>(())
                };
                let url = format!("redis://{}/?protocol=resp3", server.addr());
                let client = redis::Client::open(url).expect("a client");
                let config = AsyncConnectionConfig::new().set_push_sender(pushed).set_response_timeout(None);
                let connected = client.get_multiplexed_async_connection_with_config(&config).await;
                let mut connection = connected.expect("a connection");
                if way == Way::PubSub {
                    connection.subscribe(CHANNEL).await.expect("subscribed");
                    // Ends with the connection.
                    std::mem::forget(connection.clone());
                    Read::Backend(backend.clone())
                } else {
                    let on: String = cmd("CLIENT")
                        .arg("TRACKING")
                        .arg("ON")
                        .query_async(&mut connection)
                        .await
                        .expect("tracking");
                    assert_eq!(on, "OK");
                    Read::Get(connection)
                }
            }
        };
        Self { read, messages, told }
    }

    async fn read(&self, key: &str) -> bool {
        match &self.read {
            Read::Tracker(tracker) => tracker.get(key).await.expect("an answer").is_some(),
            Read::Backend(backend) => backend.get(key).await.expect("an answer").is_some(),
            Read::Get(connection) => {
                let mut connection = connection.clone();
                let value: Option<Vec<u8>> =
                    cmd("GET").arg(key).query_async(&mut connection).await.expect("an answer");
                value.is_some_and(|value| value.len() != 49)
            }
        }
    }
}

async fn invalidate(way: Way, backend: &RedisBackend, key: &str) {
    if way == Way::PubSub {
        let delete = backend.command("UNLINK").key(key);
        let publish = backend.command("PUBLISH").arg(CHANNEL).arg(key);
        backend.pipeline().then(delete).then(publish).run().await.expect("invalidated");
    } else {
        backend.delete(key).await.expect("invalidated");
    }
}

async fn miss(backend: &RedisBackend, by: &Subscriber, key: &str) {
    assert!(!by.read(key).await);
    let life = Duration::from_secs(10);
    let Acquired::Granted { lease, .. } = backend.acquire(key, None, life).await.expect("an answer") else {
        panic!("not granted")
    };
    let filled = backend.fill(key, &lease, Bytes::from_static(b"value"), None).await.expect("an answer");
    assert_eq!(filled, cache_kit::backend::Filled::Stored);
    assert!(by.read(key).await);
}

/// Messages at all subscribers since this was last asked, once none has come for a while.
async fn messages(subscribers: &mut [Subscriber]) -> (u64, u64) {
    tokio::time::sleep(Duration::from_millis(200)).await;
    for subscriber in &mut *subscribers {
        while subscriber.told.try_recv().is_ok() {}
    }
    let mut counts = subscribers.iter().map(|subscriber| subscriber.messages.swap(0, Ordering::SeqCst));
    let own = counts.next().unwrap_or_default();
    (own, counts.sum())
}

fn server_cpu(server: &RedisServer) -> f64 {
    let info = server.command("INFO cpu");
    let field = |name: &str| -> f64 {
        let line = info.lines().find_map(|line| line.strip_prefix(name)).expect("a field");
        line.trim().parse().expect("seconds")
    };
    field("used_cpu_sys:") + field("used_cpu_user:")
}

fn report(what: &str, (own, others): (u64, u64), rounds: usize, cpu: f64) {
    let per = |count: u64| count as f64 / rounds as f64;
    println!(
        "  {what:<44}{:>10.2} to itself {:>8.2} to the 7 others {:>8.1} us of the server",
        per(own),
        per(others),
        cpu / rounds as f64 * 1e6
    );
}

async fn measure(way: Way, rounds: usize) {
    let server = RedisServer::start();
    let backend = RedisBackend::from_url(&server.url()).expect("a backend");
    backend.connect().await.expect("a server");
    let mut subscribers = Vec::new();
    for _ in 0..SUBSCRIBERS {
        subscribers.push(Subscriber::start(way, &server, &backend).await);
    }
    println!("{way:?}: messages per event");
    messages(&mut subscribers).await;

    let before = server_cpu(&server);
    for n in 0..rounds {
        miss(&backend, &subscribers[0], &format!("k:a{n}")).await;
    }
    let cpu = server_cpu(&server) - before;
    report("a miss, others have not asked", messages(&mut subscribers).await, rounds, cpu);

    for n in 0..rounds {
        for subscriber in &subscribers[1..] {
            assert!(!subscriber.read(&format!("k:b{n}")).await);
        }
    }
    let before = server_cpu(&server);
    for n in 0..rounds {
        miss(&backend, &subscribers[0], &format!("k:b{n}")).await;
    }
    let cpu = server_cpu(&server) - before;
    report("a miss, others have asked in vain", messages(&mut subscribers).await, rounds, cpu);

    for n in 0..rounds {
        backend.set(&format!("k:c{n}"), Bytes::from_static(b"value"), None).await.expect("stored");
    }
    messages(&mut subscribers).await;
    let before = server_cpu(&server);
    for n in 0..rounds {
        invalidate(way, &backend, &format!("k:c{n}")).await;
    }
    let cpu = server_cpu(&server) - before;
    report("an invalidation of what nobody has", messages(&mut subscribers).await, rounds, cpu);

    let mut delays = Vec::new();
    for n in 0..rounds {
        let key = format!("k:d{n}");
        backend.set(&key, Bytes::from_static(b"value"), None).await.expect("stored");
        for subscriber in &subscribers {
            assert!(subscriber.read(&key).await);
        }
        if way == Way::Prefix {
            // What the write has told.
            for subscriber in &mut subscribers {
                subscriber.told.recv().await;
            }
        }
        let began = Instant::now();
        invalidate(way, &backend, &key).await;
        for subscriber in &mut subscribers {
            delays.push(subscriber.told.recv().await.expect("told") - began);
        }
    }
    delays.sort_unstable();
    println!(
        "  {:<44}{:>10.0} us p50 {:>10.0} us p99, from the call until told",
        "an invalidation of what all have",
        delays[delays.len() / 2].as_secs_f64() * 1e6,
        delays[delays.len() * 99 / 100].as_secs_f64() * 1e6
    );
    messages(&mut subscribers).await;

    server.command("SET k:e v");
    for subscriber in &subscribers {
        subscriber.read("k:e").await;
    }
    messages(&mut subscribers).await;
    server.command("DEL k:e");
    let (own, others) = messages(&mut subscribers).await;
    server.command("SET k:e v");
    for subscriber in &subscribers {
        subscriber.read("k:e").await;
    }
    messages(&mut subscribers).await;
    server.command("FLUSHALL");
    let flushed = messages(&mut subscribers).await;
    println!("  told of a foreign DEL: {} of 8; of FLUSHALL: {} of 8", own + others, flushed.0 + flushed.1);
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() {
    let rounds = std::env::args().nth(1).map_or(2_000, |arg| arg.parse().expect("a number of rounds"));
    for way in [Way::KeysRead, Way::KeysReadByGet, Way::Prefix, Way::PubSub] {
        measure(way, rounds).await;
    }
}
