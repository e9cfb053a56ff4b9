//! A late fill is refused when another process has invalidated the key, whichever of the two is late.
//!
//! The other process is this test program, started again to run [`another_process`] alone.

#![cfg(all(feature = "redis", feature = "memcached"))]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use cache_kit::testing::Gate;
use cache_kit::{Cache, LoadOptions, Outcome, Source, Stored};
use cache_kit_test_support::{MemcachedServer, RedisServer};
use common::other::{Other, SAYS, URL};
use common::{Users, bounded};

const KEY: &str = "user:1";

async fn read(cache: &Cache, users: Users) -> Outcome<String> {
    cache.get_or_load_outcome(KEY, LoadOptions::default(), move || users.name(1)).await.unwrap()
}

#[tokio::test]
#[ignore = "the other process of the tests in this file, which start it"]
async fn another_process() {
    let url = std::env::var(URL).expect("started by a test of this file");
    let cache = Cache::from_url(&url).unwrap();
    let (users, gate) = (Users::with(&[(1, "old")]), Gate::new());
    let mut load = None;
    let mut lines = std::io::stdin().lines();
    while let Some(line) = lines.next().transpose().unwrap() {
        let said = match line.as_str() {
            "load" => {
                let (cache, slow) = (cache.clone(), users.behind(&gate));
                load = Some(tokio::spawn(async move { read(&cache, slow).await }));
                gate.reached().await;
                "loading".to_owned()
            }
            "go on" => {
                gate.open();
                let outcome = load.take().expect("a load is under way").await.unwrap();
                format!("{} {:?}", outcome.value, outcome.stored)
            }
            "invalidate" => {
                cache.invalidate(KEY).await.unwrap();
                "invalidated".to_owned()
            }
            other => panic!("what is {other:?}?"),
        };
        println!("\n{SAYS}{said}");
    }
}

async fn late_fills_are_refused_in_both_processes(url: &str) {
    let (cache, users) = (Cache::from_url(url).unwrap(), Users::with(&[(1, "new")]));
    let mut other = Other::start(url);

    // The other one loads the old row, and is late.
    assert_eq!(other.tell("load"), "loading");
    cache.invalidate(KEY).await.unwrap();
    assert_eq!(other.tell("go on"), "old FencedOff");
    let now = bounded(read(&cache, users)).await;
    assert_eq!((now.value.as_str(), now.source, now.stored), ("new", Source::Load, Stored::Yes));

    // This one is late, and the other one invalidates.
    cache.invalidate(KEY).await.unwrap();
    let (users, gate) = (Users::with(&[(1, "old")]), Gate::new());
    let (reader, slow) = (cache.clone(), users.behind(&gate));
    let late = tokio::spawn(async move { read(&reader, slow).await });
    bounded(gate.reached()).await;
    assert_eq!(other.tell("invalidate"), "invalidated");
    gate.open();
    assert_eq!(bounded(late).await.unwrap().stored, Stored::FencedOff);
    users.put(1, "new");
    let now = bounded(read(&cache, users.clone())).await;
    assert_eq!((now.value.as_str(), now.source), ("new", Source::Load));
    assert_eq!(bounded(read(&cache, users)).await.source, Source::Cache);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_fill_over_redis_is_refused_in_both_processes() {
    let server = RedisServer::start();
    let url = format!("redis://127.0.0.1:{}?operation_timeout=5s", server.port());
    late_fills_are_refused_in_both_processes(&url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_fill_over_memcached_is_refused_in_both_processes() {
    let server = MemcachedServer::start();
    let url = format!("{}?operation_timeout=5s", server.url());
    late_fills_are_refused_in_both_processes(&url).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_late_fill_over_three_memcached_is_refused_in_both_processes() {
    let servers = [MemcachedServer::start(), MemcachedServer::start(), MemcachedServer::start()];
    let addrs = servers.each_ref().map(|server| server.addr()).join(",");
    late_fills_are_refused_in_both_processes(&format!("memcached://{addrs}?operation_timeout=5s")).await;
    assert_eq!(servers.iter().filter(|server| server.stat("cmd_set") > 0).count(), 1, "a key has one server");
}
