//! A Memcached server that was away has missed what changed meanwhile: what it held before is a miss when it is back.

#![cfg(feature = "memcached")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::print_stdout, reason = "what was measured, for `--nocapture`")]

mod common;

use std::time::{Duration, Instant};

use cache_kit::backend::{CacheBackend, MemcachedBackend, MemcachedConfig};
use cache_kit::{Cache, ErrorKind, LoadOptions, Outcome, Source, Stored};
use cache_kit_test_support::{Cut, Direction, Fault, FaultProxy, MemcachedServer};
use common::Users;
use futures_util::future::join_all;

const DEADLINE: Duration = Duration::from_millis(400);
/// Times of writing are kept in whole seconds, and what was written in the second of a fault is not trusted.
const SECOND: Duration = Duration::from_secs(1);

fn config(addr: String) -> MemcachedConfig {
    MemcachedConfig { servers: vec![addr], max_connections: 2, min_connections: 1 }
}

fn backend(addr: String) -> MemcachedBackend {
    MemcachedBackend::builder(config(addr)).operation_timeout(DEADLINE).build().unwrap()
}

/// Asks until the cache answers, and tells how long that took.
async fn until_used_again(backend: &dyn CacheBackend, what: &str) -> Duration {
    let began = Instant::now();
    loop {
        if backend.get("any").await.is_ok() {
            let took = began.elapsed();
            println!("{what}: used again after {took:?}");
            return took;
        }
        assert!(began.elapsed() < Duration::from_secs(15), "{what}: not used again");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Asks until it is known that nobody is there.
async fn until_down(backend: &dyn CacheBackend) {
    let began = Instant::now();
    while backend.get("any").await.map_err(|error| error.kind()) != Err(ErrorKind::Unavailable) {
        assert!(began.elapsed() < Duration::from_secs(15), "not noticed");
    }
}

async fn read(cache: &Cache, users: &Users) -> Outcome<String> {
    let users = users.clone();
    cache.get_or_load_outcome("user:1", LoadOptions::default(), move || users.name(1)).await.unwrap()
}

/// Reads until the cache answers by itself; all answers must be this one.
async fn until_served(cache: &Cache, users: &Users, value: &str) -> Duration {
    let began = Instant::now();
    loop {
        let read = read(cache, users).await;
        assert_eq!(read.value, value);
        if read.source == Source::Cache {
            return began.elapsed();
        }
        assert_eq!(read.stored, Stored::Yes);
        assert!(began.elapsed() < 5 * SECOND, "not served");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_an_outage_an_invalidation_that_failed_is_made_up_for_by_not_trusting_what_was_there() {
    let server = MemcachedServer::start();
    let (mine, other) = (Cache::new(backend(server.addr())), Cache::new(backend(server.addr())));
    let users = Users::with(&[(1, "old")]);
    assert_eq!(read(&mine, &users).await.stored, Stored::Yes);
    assert_eq!(other.get::<String>("user:1").await.unwrap().as_deref(), Some("old"));
    server.pause();
    // So that the invalidation is not sent: on its way it would take effect when the server moves again.
    until_down(mine.backend()).await;
    users.put(1, "new");
    // Of the backend itself: the cache would send it again until it is confirmed.
    let error = mine.backend().delete("user:1").await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    // Another process, as it were, that asks for something else meanwhile.
    until_down(other.backend()).await;
    server.resume();
    until_used_again(mine.backend(), "the one that invalidated").await;
    until_used_again(other.backend(), "the one that looked on").await;
    assert!(server.command("get user:1").contains("old"), "the server has the old value");
    for (cache, which) in [(&mine, "the one that invalidated"), (&other, "the one that looked on")] {
        assert_eq!(cache.get::<String>("user:1").await.unwrap(), None, "{which}");
        assert!(!cache.backend().exists("user:1").await.unwrap(), "{which}");
        assert_eq!(cache.backend().mget(&["user:1"]).await.unwrap(), [None], "{which}");
    }
    let first = read(&other, &users).await;
    assert_eq!((first.value.as_str(), first.source, first.stored), ("new", Source::Load, Stored::Yes));
    let (mine, other) = (until_served(&mine, &users, "new").await, until_served(&other, &users, "new").await);
    println!("what was written after the outage is served after {mine:?} and {other:?}");
    assert!(!server.command("get user:1").contains("old"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_invalidation_that_may_not_have_arrived_is_made_up_for_as_well() {
    let server = MemcachedServer::start();
    let proxy = FaultProxy::start(server.addr());
    let (cache, users) = (Cache::new(backend(proxy.addr())), Users::with(&[(1, "old")]));
    assert_eq!(read(&cache, &users).await.stored, Stored::Yes);
    proxy.set(Direction::ToServer, Fault::Blackhole { keep_reading: true });
    users.put(1, "new");
    // Once: the server is not even taken to be down.
    assert_eq!(cache.backend().delete("user:1").await.unwrap_err().kind(), ErrorKind::Timeout);
    proxy.clear();
    proxy.cut_all(Cut::Rst);
    until_used_again(cache.backend(), "the network is well again").await;
    assert!(server.command("get user:1").contains("old"), "the invalidation was lost");
    assert_eq!(cache.get::<String>("user:1").await.unwrap(), None);
    let took = until_served(&cache, &users, "new").await;
    println!("what was written after a lost invalidation is served after {took:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_found_down_is_not_trusted_though_nobody_asked_again_until_it_was_back() {
    const KEPT: usize = 4;
    let server = MemcachedServer::start();
    let config = MemcachedConfig { max_connections: KEPT, min_connections: KEPT, ..config(server.addr()) };
    let onlooker = MemcachedBackend::builder(config).operation_timeout(DEADLINE).build().unwrap();
    let (mine, other) = (Cache::new(backend(server.addr())), Cache::new(onlooker.clone()));
    let users = Users::with(&[(1, "old")]);
    assert_eq!(read(&mine, &users).await.stored, Stored::Yes);
    assert_eq!(other.get::<String>("user:1").await.unwrap().as_deref(), Some("old"));
    let all_open = async || {
        let began = Instant::now();
        while onlooker.connections() < KEPT {
            assert!(began.elapsed() < Duration::from_secs(15), "connections are missing");
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    all_open().await;
    server.pause();
    until_down(mine.backend()).await;
    users.put(1, "new");
    assert!(mine.invalidate("user:1").await.is_err());
    // Three times, or one second without a sign of life, and the server is taken to be down. Then nobody asks any more.
    for _ in 0..3 {
        let kind = onlooker.get("any").await.unwrap_err().kind();
        assert!(matches!(kind, ErrorKind::Timeout | ErrorKind::Unavailable), "{kind:?}");
    }
    assert!(onlooker.connections() < KEPT);
    server.resume();
    // Found again by the task that keeps them open, and by nobody else.
    all_open().await;
    until_used_again(mine.backend(), "the one that invalidated").await;
    assert!(server.command("get user:1").contains("old"), "the server has the old value");
    let found = other.get::<String>("user:1").await;
    assert_ne!(found.ok().flatten().as_deref(), Some("old"), "found down, and trusted all the same");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_after_an_outage_stays_trusted_when_a_connection_is_replaced() {
    for outage in ["found down", "a moment too long"] {
        let server = MemcachedServer::start();
        let proxy = FaultProxy::start(server.addr());
        let backend = backend(proxy.addr());
        let (cache, users) = (Cache::new(backend.clone()), Users::with(&[(1, "one")]));
        // Enough at once that there are two connections.
        let began = Instant::now();
        while backend.connections() < 2 {
            join_all((0..20).map(|_| backend.get("any"))).await;
            assert!(began.elapsed() < Duration::from_secs(15), "one connection");
        }
        assert_eq!(read(&cache, &users).await.stored, Stored::Yes);
        server.pause();
        if outage == "found down" {
            until_down(&backend).await;
            server.resume();
        } else {
            // Those over the first connection end at their deadline, the server is taken to be down; and one that was
            // made later, over the second, is answered.
            let early = async {
                let ended = join_all((0..8).map(|_| backend.get("any"))).await;
                server.resume();
                ended.iter().all(Result::is_err)
            };
            let late = async {
                tokio::time::sleep(DEADLINE / 2).await;
                backend.get("any").await.is_ok()
            };
            assert_eq!(
                tokio::join!(early, late),
                (true, true),
                "a machine that is slow by {:?}",
                DEADLINE / 2
            );
        }
        until_used_again(&backend, outage).await;
        let took = until_served(&cache, &users, "one").await;
        println!("{outage}: served after {took:?}");
        let asked = users.asked();
        // The server is there all the time.
        proxy.cut_all(Cut::Rst);
        until_used_again(&backend, "another connection").await;
        assert_eq!(read(&cache, &users).await.source, Source::Cache, "{outage}");
        assert_eq!(users.asked(), asked, "{outage}");
    }
}
