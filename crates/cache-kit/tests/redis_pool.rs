//! Connections: few, shared, never more than the pool's size, and lost by nobody.

#![cfg(feature = "redis")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use cache_kit::backend::redis::RedisValue;
use cache_kit::backend::{CacheBackend, RedisBackend, RedisConfig, SetEntry};
use cache_kit::{Cache, ErrorKind, backend};
use cache_kit_test_support::{Direction, Fault, FaultProxy, RedisServer};
use common::{bounded, drop_after, network};
use futures_util::future::join_all;

fn config(port: u16, pool_size: u32) -> RedisConfig {
    RedisConfig { host: "127.0.0.1".into(), port, pool_size, ..RedisConfig::default() }
}

fn patient(port: u16, pool_size: u32) -> RedisBackend {
    RedisBackend::builder(config(port, pool_size)).operation_timeout(Duration::from_secs(10)).build().unwrap()
}

/// How many connections of this library the server counts; none if the one that asks is killed meanwhile.
fn clients(server: &RedisServer) -> usize {
    let list = server.try_command("CLIENT LIST", Duration::from_secs(10)).unwrap_or_default();
    // Not those of the test bed, which run CLIENT.
    list.lines().filter(|line| !line.contains("cmd=client") && line.contains("id=")).count()
}

/// Watches the server's own count while something runs; the most that was seen.
async fn watching<F: Future>(server: Arc<RedisServer>, work: F) -> (usize, F::Output) {
    let (stop, most) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicUsize::new(0)));
    let (watch_stop, watch_most) = (Arc::clone(&stop), Arc::clone(&most));
    let watcher = std::thread::spawn(move || {
        while !watch_stop.load(Ordering::SeqCst) {
            watch_most.fetch_max(clients(&server), Ordering::SeqCst);
        }
    });
    let output = work.await;
    stop.store(true, Ordering::SeqCst);
    watcher.join().unwrap();
    (most.load(Ordering::SeqCst), output)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_callers_share_a_few_connections_without_error() {
    let server = Arc::new(RedisServer::start());
    for pool_size in [1, 2, 16] {
        let backend = patient(server.port(), pool_size);
        let calls = join_all((0..4_000_u32).map(|n| {
            let backend = backend.clone();
            tokio::spawn(async move {
                let key = format!("key:{n}");
                backend.set(&key, Bytes::from(key.clone()), None).await.unwrap();
                assert_eq!(backend.get(&key).await.unwrap().unwrap(), key);
            })
        }));
        let (most, results) = watching(Arc::clone(&server), calls).await;
        results.into_iter().for_each(|result| result.unwrap());
        println!("pool_size {pool_size}: at most {most} connections");
        assert!(most <= pool_size as usize, "{most} of {pool_size}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_replaced_are_never_more_than_the_pool_holds() {
    let server = Arc::new(RedisServer::start());
    let backend = patient(server.port(), 2);
    // One that stays, and is not counted: it runs nothing but CLIENT. A new one for each kill would be counted
    // before it has said what it runs.
    let admin = patient(server.port(), 1);
    admin.command("CLIENT").arg("ID").run().await.unwrap();
    let churn = async {
        for _ in 0..12 {
            // Used again, and so open, before it is killed again.
            while backend.get("key").await.is_err() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
            let calls = (0..50).map(|_| backend.get("key"));
            let kill = admin.command("CLIENT").arg("KILL").arg("TYPE").arg("normal").arg("SKIPME").arg("yes");
            let (_, killed) = tokio::join!(join_all(calls), kill.run());
            killed.unwrap();
        }
    };
    let (most, ()) = watching(Arc::clone(&server), bounded(churn)).await;
    assert!((1..=2).contains(&most), "{most}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_dropped_operations_give_nobody_anothers_value() {
    let seed =
        std::env::var("CACHE_KIT_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(fastrand::u64(..));
    println!("CACHE_KIT_SEED={seed}");
    let server = Arc::new(RedisServer::start());
    let backend = patient(server.port(), 4);
    let value = |key: u64| Bytes::from(format!("value of {key}").repeat(1 + (key as usize % 7) * 40));
    for key in 0..64 {
        backend.set(&format!("key:{key}"), value(key), None).await.unwrap();
    }
    let storm = join_all((0..100).map(|task| {
        let backend = backend.clone();
        tokio::spawn(async move {
            let mut random = fastrand::Rng::with_seed(seed.wrapping_add(task));
            let mut answered = 0_u32;
            for _ in 0..1_000 {
                let (key, other, polls) = (random.u64(..64), random.u64(..64), random.u32(..12));
                let (name, other_name) = (format!("key:{key}"), format!("key:{other}"));
                match random.u32(..4) {
                    0 | 1 => {
                        if let Some(found) = drop_after(backend.get(&name), polls).await {
                            assert_eq!(found.unwrap(), Some(value(key)), "under {name}");
                            answered += 1;
                        }
                    }
                    2 => {
                        let keys = [name.as_str(), "missing", other_name.as_str()];
                        if let Some(found) = drop_after(backend.mget(&keys), polls).await {
                            assert_eq!(found.unwrap(), [Some(value(key)), None, Some(value(other))]);
                            answered += 1;
                        }
                    }
                    _ => {
                        let set = backend.set(&name, value(key), None);
                        let _ = drop_after(set, polls).await;
                    }
                }
            }
            answered
        })
    }));
    let (most, answered) = watching(Arc::clone(&server), bounded(storm)).await;
    let answered: u32 = answered.into_iter().map(|task| task.unwrap()).sum();
    println!("{answered} of 100000 answered, at most {most} connections");
    assert!(most <= 4, "{most}");
    for key in 0..64 {
        assert_eq!(bounded(backend.get(&format!("key:{key}"))).await.unwrap(), Some(value(key)));
    }
    let dials: u64 = server
        .command("INFO stats")
        .lines()
        .find_map(|line| line.strip_prefix("total_connections_received:")?.trim().parse().ok())
        .unwrap();
    println!("{dials} connections in all, the ones that asked this included");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_network_does_no_value_is_wrong_and_nothing_hangs() {
    let server = RedisServer::start();
    let proxy = FaultProxy::start(server.addr());
    let deadline = Duration::from_millis(200);
    let backend = RedisBackend::builder(RedisConfig {
        connection_timeout: Duration::from_millis(300),
        ..config(proxy.port(), 2)
    })
    .operation_timeout(deadline)
    .build()
    .unwrap();
    // Through the engine, whose entries tell whose they are.
    let (cache, direct) = (Cache::new(backend), Cache::new(patient(server.port(), 2)));
    let injected: [&[u8]; 2] = [b"+OK\r\n", b"$5\r\nwrong\r\n"];
    let is_well = async || matches!(cache.get::<u64>("key:3").await, Ok(Some(3)));
    network::no_value_is_wrong_and_nothing_hangs(&proxy, (&cache, deadline), &direct, &injected, is_well)
        .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_whose_answers_are_out_of_step_is_dropped() {
    let server = RedisServer::start();
    let proxy = FaultProxy::start(server.addr());
    let builder = RedisBackend::builder(config(proxy.port(), 1)).operation_timeout(Duration::from_secs(5));
    let backend = builder.build().unwrap();
    let cache = Cache::new(backend.clone());
    for key in 0..4_u64 {
        cache.set(format!("key:{key}"), &key).await.unwrap();
    }
    // A busy connection stays out of step after one reply too many: it is never idle, so nothing shows but the
    // entries, which tell whose they are.
    let stop = Arc::new(AtomicBool::new(false));
    let readers = (0..8_u64).map(|reader| {
        let (cache, stop) = (cache.clone(), Arc::clone(&stop));
        tokio::spawn(async move {
            while !stop.load(Ordering::SeqCst) {
                let key = reader % 4;
                if let Ok(Some(value)) = cache.get::<u64>(format!("key:{key}")).await {
                    assert_eq!(value, key);
                }
                tokio::task::yield_now().await;
            }
        })
    });
    let readers: Vec<_> = readers.collect();
    let before = proxy.total_connections();
    bounded(async {
        while cache.stats().rejected.wrong_key == 0 || proxy.total_connections() == before {
            // Once is not enough if nothing happens to be under way: then it is seen to be one too many.
            proxy.set(Direction::ToClient, Fault::DuplicateReply);
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    proxy.clear();
    // In step again: hits, and no more answers for others.
    tokio::time::sleep(Duration::from_millis(50)).await;
    let then = cache.stats();
    bounded(async {
        while cache.stats().since(&then).hits < 1_000 {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    })
    .await;
    assert_eq!(cache.stats().since(&then).rejected.wrong_key, 0);
    stop.store(true, Ordering::SeqCst);
    join_all(readers).await.into_iter().for_each(|reader| reader.unwrap());
}

/// How often the server has run a command.
fn calls(server: &RedisServer, command: &str) -> u64 {
    let stats = server.command("INFO commandstats");
    let line = stats.lines().find_map(|line| line.strip_prefix(&format!("cmdstat_{command}:calls=")));
    line.and_then(|line| line.split(',').next()?.parse().ok()).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reads_at_the_same_time_go_together_and_each_gets_its_own_value() {
    let server = RedisServer::start();
    let backend = patient(server.port(), 1);
    for key in (0..200).filter(|key| key % 3 != 0) {
        backend.set(&format!("key:{key}"), Bytes::from(format!("value of {key}")), None).await.unwrap();
    }
    server.command("LPUSH key:0 element");
    let before = calls(&server, "get") + calls(&server, "mget");
    let reads = (0..2_000).map(|n| {
        let backend = backend.clone();
        tokio::spawn(async move {
            let key = n % 200;
            let expected = (key % 3 != 0).then(|| Bytes::from(format!("value of {key}")));
            assert_eq!(backend.get(&format!("key:{key}")).await.unwrap(), expected, "key:{key}");
        })
    });
    join_all(reads).await.into_iter().for_each(|read| read.unwrap());
    let commands = calls(&server, "get") + calls(&server, "mget") - before;
    println!("2000 reads took {commands} commands");
    assert!(commands < 1_000, "{commands}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_may_not_read_one_key_still_reads_the_others_at_the_same_time() {
    let server = RedisServer::start();
    server.command("MSET open:1 value shut:1 value");
    assert_eq!(server.command("ACL SETUSER narrow on >pw ~open:* +get +mget +ping +client"), "OK");
    assert_eq!(server.command("ACL SETUSER single on >pw ~* +get +ping +client"), "OK");
    for (user, shut) in [("narrow", true), ("single", false)] {
        let config = RedisConfig {
            username: Some(user.into()),
            password: Some("pw".into()),
            ..config(server.port(), 1)
        };
        let backend = RedisBackend::new(config).unwrap();
        for _ in 0..20 {
            let reads = (0..50).map(|n| {
                let backend = backend.clone();
                tokio::spawn(async move {
                    if n % 5 != 0 {
                        assert_eq!(backend.get("open:1").await.unwrap().unwrap(), "value");
                    } else if shut {
                        let error = backend.get("shut:1").await.unwrap_err();
                        assert_eq!(error.kind(), ErrorKind::Permission);
                    }
                })
            });
            join_all(reads).await.into_iter().for_each(|read| read.unwrap());
        }
    }
}

#[test]
fn reads_are_not_lost_with_the_runtime_that_was_to_send_them() {
    let server = RedisServer::start();
    let backend = patient(server.port(), 1);
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    // Has the connection, and goes on.
    let driver = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    driver.block_on(backend.set("key", Bytes::from("value"), None)).unwrap();
    let busy: Vec<_> = (0..8)
        .map(|_| {
            let backend = backend.clone();
            driver.spawn(async move {
                for _ in 0..2_000 {
                    assert_eq!(backend.get("key").await.unwrap().unwrap(), "value");
                }
            })
        })
        .collect();
    while busy.iter().any(|task| !task.is_finished()) {
        // Its first poll joins a batch, or starts one that this runtime never sends.
        let lost = runtime();
        lost.block_on(async { drop_after(backend.get("key"), 1).await });
        drop(lost);
    }
    driver.block_on(bounded(join_all(busy))).into_iter().for_each(|task| task.unwrap());
}

#[tokio::test]
async fn the_rest_of_redis_is_reachable_over_the_same_connections_and_under_the_same_prefix() {
    let server = RedisServer::start();
    let builder = RedisBackend::builder(config(server.port(), 2)).prefix("shop:");
    let backend = builder.build().unwrap();
    backend.command("ZADD").key("scores").arg(17).arg("ada").arg(9).arg("bob").run().await.unwrap();
    assert_eq!(server.command("EXISTS shop:scores"), "1");
    let best = backend.command("ZREVRANGE").key("scores").arg(0).arg(0).run().await.unwrap();
    let RedisValue::Array(best) = best else { panic!("{best:?}") };
    assert_eq!(best[0].as_str(), Some("ada"));
    backend.command("SET").key("bytes").bytes([0, 255]).run().await.unwrap();
    let bytes = backend.command("GET").key("bytes").run().await.unwrap();
    assert_eq!(bytes.as_bytes(), Some(&[0, 255][..]));

    let incr = || backend.command("INCR").key("n");
    let counted = backend.pipeline().then(incr()).then(incr()).run().await.unwrap();
    assert_eq!(counted.iter().map(RedisValue::as_int).collect::<Vec<_>>(), [Some(1), Some(2)]);
    let counted = backend.transaction().then(incr()).then(incr()).run().await.unwrap();
    assert_eq!(counted.iter().map(RedisValue::as_int).collect::<Vec<_>>(), [Some(3), Some(4)]);
    assert!(backend.pipeline().run().await.unwrap().is_empty());

    // All of a transaction or nothing: the server refuses a command that it cannot read.
    let refused = backend.transaction().then(incr()).then(backend.command("INCR")).run().await;
    assert!(refused.is_err());
    assert_eq!(server.command("GET shop:n"), "4");
    for name in ["SUBSCRIBE", "multi", "BLPOP", "SELECT", "AUTH"] {
        let error = backend.command(name).arg("x").run().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{name}");
        assert!(backend.pipeline().then(backend.command(name)).run().await.is_err());
    }
    // What the server refuses is an error that quotes neither key nor value.
    let error = backend.command("INCR").key("scores").run().await.unwrap_err();
    assert_eq!(error.backend(), Some("redis"));
}

#[tokio::test]
async fn a_prefix_bounds_what_is_cleared_and_a_database_is_cleared_whole_without_one() {
    let server = RedisServer::start();
    let with = |prefix: &str| RedisBackend::builder(config(server.port(), 2)).prefix(prefix).build().unwrap();
    let (mine, other, whole) = (with("a*:"), with("ab:"), with(""));
    for backend in [&mine, &other] {
        let entries: Vec<_> =
            ["1", "2"].map(|key| SetEntry { key, value: Bytes::from("v"), ttl: None }).into();
        backend.mset(&entries).await.unwrap();
    }
    assert_eq!(mine.delete_pattern("*").await.unwrap(), 2, "the prefix is no pattern");
    assert!(other.exists("1").await.unwrap());
    mine.set("1", Bytes::from("v"), None).await.unwrap();
    mine.clear_all().await.unwrap();
    assert!(!mine.exists("1").await.unwrap() && other.exists("1").await.unwrap());
    whole.clear_all().await.unwrap();
    assert_eq!(server.command("DBSIZE"), "0");
}

#[tokio::test]
async fn many_keys_are_one_round_trip() {
    let server = RedisServer::start();
    let backend = patient(server.port(), 1);
    backend.health_check().await.unwrap();
    let keys: Vec<String> = (0..100).map(|n| format!("key:{n}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let proxy = FaultProxy::start(server.addr());
    let far = patient(proxy.port(), 1);
    far.health_check().await.unwrap();
    proxy.set(Direction::ToClient, Fault::Delay(Duration::from_millis(100)));
    let began = std::time::Instant::now();
    let entries: Vec<_> = keys
        .iter()
        .map(|key| SetEntry { key, value: Bytes::from("v"), ttl: Some(Duration::from_secs(9)) })
        .collect();
    far.mset(&entries).await.unwrap();
    assert_eq!(far.mget(&keys).await.unwrap().iter().flatten().count(), 100);
    far.mdelete(&keys).await.unwrap();
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(300), "{took:?}");
    assert!(took < Duration::from_secs(5), "one round trip each, not a hundred: {took:?}");
}

#[tokio::test]
async fn a_url_selects_redis_for_backend_and_cache() {
    let server = RedisServer::start();
    let chosen = backend::from_url(&server.url()).unwrap();
    assert_eq!(chosen.capabilities().name, "redis");
    let cache = Cache::from_url(&format!("{}/2?ttl=1m&namespace=shop&pool_size=2", server.url())).unwrap();
    cache.set("user:1", &1_u8).await.unwrap();
    assert_eq!(cache.get::<u8>("user:1").await.unwrap(), Some(1));
    cache.clear().await.unwrap();
    assert_eq!(cache.get::<u8>("user:1").await.unwrap(), None);
    assert!(
        backend::from_url("redis://h?ttl=1m")
            .is_err_and(|error| error.to_string().contains("Cache::from_url"))
    );
}

#[test]
fn without_a_runtime_an_operation_is_an_error_and_not_a_panic() {
    use futures_util::FutureExt as _;
    let backend = RedisBackend::new(config(1, 1)).unwrap();
    let error = backend.get("k").now_or_never().unwrap().unwrap_err();
    assert!(error.to_string().contains("tokio runtime"), "{error}");
    assert!(backend.connect().now_or_never().unwrap().is_err());
}

#[tokio::test]
async fn a_place_in_the_pool_that_becomes_free_is_used_at_once() {
    let server = RedisServer::start();
    let backend = patient(server.port(), 1);
    backend.set("k", Bytes::from("v"), None).await.unwrap();
    // Its socket is closed by another task, which has not run yet when the next operation wants to dial.
    backend.distrust();
    let began = std::time::Instant::now();
    assert_eq!(backend.get("k").await.unwrap().unwrap(), "v");
    assert!(began.elapsed() < Duration::from_secs(5), "waited for its deadline: {:?}", began.elapsed());
}
