//! Whatever the network between us and Memcached does: never a wrong value, never a hang, and well again afterwards.

#![cfg(feature = "memcached")]

mod common;

use std::time::{Duration, Instant};

use cache_kit::Cache;
use cache_kit::backend::{MemcachedBackend, MemcachedConfig};
use cache_kit_test_support::{Cut, Direction, Fault, FaultProxy, MemcachedServer};
use common::bounded;
use futures_util::future::join_all;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_network_does_no_value_is_wrong_and_nothing_hangs() {
    let server = MemcachedServer::start();
    let proxy = FaultProxy::start(server.addr());
    let deadline = Duration::from_millis(200);
    let config = MemcachedConfig { servers: vec![proxy.addr()], max_connections: 2, min_connections: 0 };
    let backend = MemcachedBackend::builder(config)
        .operation_timeout(deadline)
        .connection_timeout(Duration::from_millis(300))
        .build()
        .unwrap();
    // Through the engine, whose entries tell whose they are. Stored beside the proxy, so that they are never doubted for
    // an outage that this backend saw: it could not tell a wrong value from a miss then.
    let config = MemcachedConfig { servers: vec![server.addr()], max_connections: 2, min_connections: 0 };
    let (cache, direct) = (Cache::new(backend), Cache::new(MemcachedBackend::new(config).unwrap()));
    let faults = || {
        [
            Fault::Delay(Duration::from_millis(20)),
            Fault::Throttle { bytes_per_second: 20_000 },
            Fault::Slice { bytes: 1 },
            Fault::CutAfter { bytes: 100, how: Cut::Fin },
            Fault::CutAfter { bytes: 101, how: Cut::Rst },
            Fault::Blackhole { keep_reading: true },
            Fault::Blackhole { keep_reading: false },
            Fault::Stall,
            Fault::DuplicateReply,
            Fault::SwapReplies,
            Fault::Inject(b"EN\r\n".to_vec()),
            Fault::Inject(b"VA 5 f256\r\nwrong\r\n".to_vec()),
            Fault::Inject(b"VALUE key:1 256 5\r\nwrong\r\nEND\r\n".to_vec()),
            Fault::FlipBit { at: 3 },
            Fault::FlipBit { at: 700 },
            Fault::RefuseAccept,
        ]
    };
    let (mut right, mut misses, mut failed) = (0, 0, 0);
    for direction in [Direction::ToClient, Direction::ToServer] {
        for fault in faults() {
            let what = format!("{direction:?} {fault:?}");
            for key in 0..16_u64 {
                direct.set(format!("key:{key}"), &key).await.unwrap();
            }
            proxy.set(direction, fault);
            let reads = (0..16_u64).map(|key| {
                let (cache, what) = (cache.clone(), &what);
                async move {
                    let began = Instant::now();
                    let found = cache.get::<u64>(format!("key:{key}")).await;
                    assert!(began.elapsed() < 10 * deadline, "{what}: hung for {:?}", began.elapsed());
                    (key, found)
                }
            });
            for (key, found) in join_all(reads).await {
                match found {
                    Ok(Some(value)) => {
                        assert_eq!(value, key, "{what}: a wrong value");
                        right += 1;
                    }
                    Ok(None) => misses += 1,
                    Err(_) => failed += 1,
                }
            }
            proxy.clear();
            proxy.cut_all(Cut::Rst);
            // When the network is well again, so is the cache: what is written now is found.
            let well = async {
                loop {
                    if cache.set("well", &1_u64).await.is_ok()
                        && matches!(cache.get::<u64>("well").await, Ok(Some(1)))
                    {
                        return;
                    }
                    tokio::time::sleep(Duration::from_millis(5)).await;
                }
            };
            bounded(well).await;
        }
    }
    println!("{right} right, {misses} misses, {failed} failed; found out: {:?}", cache.stats().rejected);
    assert!(right > 0 && failed > 0);
}
