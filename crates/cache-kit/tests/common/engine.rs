//! The places that the engine is tested on, loads that stop half way, and other processes that do the same.

#![allow(unused_macros, unused_imports, reason = "for the tests that run on every one of them")]

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use cache_kit::backend::InMemoryBackend;
use cache_kit::testing::Gate;
use cache_kit::{Cache, InlineOptions, LoadOptions, Outcome, Policy, Stored};
use cache_kit_test_support::{MemcachedServer, RedisSentinels, RedisServer};
use tokio::sync::Semaphore;
use tokio::task::JoinHandle;

use super::other::{SAYS, URL};
use super::{Users, bounded, until};

/// Makes tests of functions that take a [`Place`]: `redis { this }` is `redis::this`.
macro_rules! on_places {
    ($($place:ident { $($test:ident)+ })+) => {$(
        mod $place {
            $(
                // What a test asks of a server blocks its own thread, and what it tests goes on on these.
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $test() {
                    super::$test($crate::common::engine::Place::$place()).await;
                }
            )+
        }
    )+};
}
pub(crate) use on_places;

/// Where several caches share their entries. Each cache has connections of its own, as one in another process has.
pub enum Place {
    Memory(InMemoryBackend),
    Redis(RedisServer),
    Memcached(MemcachedServer),
    /// A primary and a replica.
    Sentinels(RedisSentinels),
}

impl Place {
    pub fn memory() -> Self {
        Self::Memory(InMemoryBackend::new())
    }

    pub fn redis() -> Self {
        Self::Redis(RedisServer::start())
    }

    pub fn memcached() -> Self {
        Self::Memcached(MemcachedServer::start())
    }

    pub fn cache(&self) -> Cache {
        self.cache_by(Policy::default())
    }

    pub fn cache_by(&self, policy: Policy) -> Cache {
        let builder = Cache::builder().policy(policy);
        match self {
            Self::Memory(backend) => builder.build(backend.clone()),
            _ => builder.build_url(&self.url()),
        }
        .unwrap()
    }

    /// With deadlines that a busy machine does not reach.
    pub fn url(&self) -> String {
        match self {
            Self::Memory(_) => panic!("the memory of one process is not that of another"),
            Self::Redis(server) => format!("{}?operation_timeout=20s", server.url()),
            Self::Memcached(server) => format!("{}?operation_timeout=20s", server.url()),
            // A deadline is what tells that a server is gone.
            Self::Sentinels(sentinels) => format!("{}?operation_timeout=1s", sentinels.url()),
        }
    }

    /// Removes everything, as somebody does who knows nothing of leases.
    pub async fn flush(&self) {
        match self {
            Self::Memory(backend) => cache_kit::backend::CacheBackend::clear_all(backend).await.unwrap(),
            Self::Redis(server) => assert_eq!(server.command("FLUSHALL"), "OK"),
            Self::Memcached(server) => assert_eq!(server.command("flush_all"), "OK"),
            Self::Sentinels(_) => panic!("of one server"),
        }
    }

    /// Kills the server and starts it again, with nothing in it.
    pub fn restart(&self) {
        match self {
            Self::Memory(_) | Self::Sentinels(_) => panic!("not one server"),
            Self::Redis(server) => {
                server.kill();
                server.restart();
            }
            Self::Memcached(server) => {
                server.kill();
                server.restart();
            }
        }
    }
}

/// How a load is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    /// In a task of the cache.
    Owned,
    /// In the caller's task.
    Inline,
    /// Behind a caller who has got a stale value: the entry is there, and the lease is over it.
    Behind,
}

impl How {
    pub const ALL: [Self; 3] = [Self::Owned, Self::Inline, Self::Behind];

    fn named(name: &str) -> Self {
        Self::ALL.into_iter().find(|how| format!("{how:?}") == name).unwrap()
    }
}

/// What is served stale in front of a load behind.
pub const STALE: &str = "stale";

/// Reads the row of [`one`] and takes nothing stale.
pub async fn read(cache: &Cache, how: How, key: &str, users: &Users) -> Outcome<String> {
    let users = users.clone();
    match how {
        How::Inline => {
            cache.get_or_load_inline_outcome(key, InlineOptions::default(), move || users.name(1)).await
        }
        How::Owned | How::Behind => {
            cache.get_or_load_outcome(key, LoadOptions::default(), move || users.name(1)).await
        }
    }
    .unwrap()
}

/// A table of one row.
pub fn one(row: &str) -> Users {
    Users::with(&[(1, row)])
}

/// A load that has read the row, holds the lease, and stands at the gate.
pub struct Load {
    how: How,
    cache: Cache,
    gate: Gate,
    reading: JoinHandle<Outcome<String>>,
}

impl Load {
    pub async fn begin(cache: &Cache, how: How, key: &str, users: &Users) -> Self {
        let (gate, reader, key) = (Gate::new(), cache.clone(), key.to_owned());
        let slow = users.behind(&gate);
        if how == How::Behind {
            let options = LoadOptions::default().with_stale_while_revalidate(Duration::from_secs(3600));
            cache.set_with(&key, options, &STALE.to_owned()).await.unwrap();
            cache.expire(&key).await.unwrap();
            let served =
                bounded(cache.get_or_load_outcome(&key, options, move || slow.name(1))).await.unwrap();
            assert!(served.is_stale() && served.value == STALE, "{served:?}");
            let reading = tokio::spawn(async move { served });
            bounded(gate.reached()).await;
            return Self { how, cache: reader, gate, reading };
        }
        let reading = tokio::spawn(async move { read(&reader, how, &key, &slow).await });
        bounded(gate.reached()).await;
        Self { how, cache: cache.clone(), gate, reading }
    }

    /// Lets it go on; what its caller got, and what became of storing what it read.
    pub async fn end(self) -> (String, Stored) {
        let before = self.cache.stats();
        self.gate.open();
        let outcome = bounded(self.reading).await.unwrap();
        if self.how != How::Behind {
            return (outcome.value, outcome.stored);
        }
        // Nobody is told what became of a load behind, but it is counted, unless it did not even try.
        let cache = self.cache;
        let is_over = async || {
            let now = cache.stats().since(&before);
            now.stored + now.fenced_off > 0 || cache.gauges().tasks == 0
        };
        until("the load behind ends", Duration::from_secs(20), is_over).await;
        let now = cache.stats().since(&before);
        let stored = match (now.stored, now.fenced_off) {
            (1, 0) => Stored::Yes,
            (0, 1) => Stored::FencedOff,
            (0, 0) if now.leased_elsewhere > 0 => Stored::LeftToOther,
            (0, 0) => Stored::BackendUnknown,
            _ => panic!("more than one load ended: {now:?}"),
        };
        (outcome.value, stored)
    }

    /// Its caller goes away.
    pub async fn abort(self) {
        self.reading.abort();
        assert!(bounded(self.reading).await.unwrap_err().is_cancelled());
    }
}

/// Fails if what the backend has under a key has these letters in it.
pub async fn assert_not_stored(cache: &Cache, key: &str, row: &str, what: &str) {
    let entry = cache.backend().get(key).await.unwrap();
    let is_there = |entry: &[u8]| entry.windows(row.len()).any(|part| part == row.as_bytes());
    assert!(!entry.is_some_and(|entry| is_there(&entry)), "{row:?} is stored: {what}");
}

/// What another process does; the body of a test `another_process` in each program that starts some.
pub async fn serve() {
    let url = std::env::var(URL).expect("started by a test of this file");
    // Whether one load serves a crowd is not to depend on how busy the machine is.
    let policy = Policy::default().with_lease_wait(Duration::from_secs(20));
    let (cache, patient) =
        (Cache::from_url(&url).unwrap(), Cache::builder().policy(policy).build_url(&url).unwrap());
    let (mut loads, mut hold, mut crowd) = (HashMap::new(), None, None);
    let mut lines = std::io::stdin().lines();
    while let Some(line) = lines.next().transpose().unwrap() {
        let words: Vec<&str> = line.split(' ').collect();
        let said = match words[..] {
            ["load", how, key, row] => {
                loads.insert(key.to_owned(), Load::begin(&cache, How::named(how), key, &one(row)).await);
                "loading".to_owned()
            }
            ["end", key] => {
                let (value, stored) = loads.remove(key).expect("a load is under way").end().await;
                format!("{value} {stored:?}")
            }
            ["read", key, row] => {
                let outcome = bounded(read(&cache, How::Owned, key, &one(row))).await;
                format!("{} {:?} {:?}", outcome.value, outcome.source, outcome.stored)
            }
            ["invalidate", key] => {
                cache.invalidate(key).await.unwrap();
                "done".to_owned()
            }
            ["expire", key] => {
                cache.expire(key).await.unwrap();
                "done".to_owned()
            }
            ["hold", key] => {
                hold = Some(cache.hold([key]).await.unwrap());
                "holding".to_owned()
            }
            ["confirm"] => {
                hold.take().expect("a hold").confirm().await.unwrap();
                "done".to_owned()
            }
            ["drop"] => {
                drop(hold.take().expect("a hold"));
                cache.flush_pending(Duration::from_secs(20)).await.unwrap();
                "done".to_owned()
            }
            ["crowd", key, readers] => {
                crowd = Some(Crowd::gather(&patient, key, readers.parse().unwrap()).await);
                "ready".to_owned()
            }
            ["go"] => crowd.take().expect("a crowd").go().await,
            _ => panic!("what is {line:?}?"),
        };
        println!("\n{SAYS}{said}");
    }
}

/// Tasks that all ask for one key when they are told to.
struct Crowd {
    start: Arc<Semaphore>,
    loads: Arc<AtomicU64>,
    readers: Vec<JoinHandle<u64>>,
}

impl Crowd {
    async fn gather(cache: &Cache, key: &str, readers: usize) -> Self {
        // The connection is there before the start.
        assert_eq!(cache.get::<u64>("another key").await.unwrap(), None);
        let (start, loads) = (Arc::new(Semaphore::new(0)), Arc::new(AtomicU64::new(0)));
        let reader = || {
            let (cache, key) = (cache.clone(), key.to_owned());
            let (start, loads) = (Arc::clone(&start), Arc::clone(&loads));
            tokio::spawn(async move {
                assert!(start.acquire().await.is_err(), "closed at the start");
                let load = move || async move {
                    loads.fetch_add(1, Ordering::SeqCst);
                    tokio::time::sleep(LOAD).await;
                    Ok::<_, std::io::Error>(ROW)
                };
                cache.get_or_load(&key, load).await.unwrap()
            })
        };
        let readers = (0..readers).map(|_| reader()).collect();
        Self { start, loads, readers }
    }

    /// How many loads there were, how many right answers, and how many milliseconds it took.
    async fn go(self) -> String {
        let began = Instant::now();
        self.start.close();
        let mut right = 0;
        for reader in self.readers {
            right += u64::from(reader.await.unwrap() == ROW);
        }
        format!("{} {right} {}", self.loads.load(Ordering::SeqCst), began.elapsed().as_millis())
    }
}

/// How long a crowd's load takes.
const LOAD: Duration = Duration::from_millis(300);
const ROW: u64 = 4711;
