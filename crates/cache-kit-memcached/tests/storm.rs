//! A million operations that are dropped halfway: nobody gets another's value, and connections stay within bounds.

#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test that cannot go on fails")]

use std::future::Future;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use cache_kit_memcached::Client;
use cache_kit_memcached::protocol::{GetOptions, SetOptions, Status};
use cache_kit_memcached::ttl::exptime;
use cache_kit_test_support::MemcachedServer;

const KEYS: u64 = 64;
const MOST: usize = 4;
const LEAST: usize = 2;
const TASKS: u64 = 100;
const EACH: u64 = 10_000;

fn key(n: u64) -> String {
    format!("key:{n}")
}

fn value(n: u64) -> Vec<u8> {
    format!("value of {n};").repeat(1 + (n as usize % 7) * 40).into_bytes()
}

/// Polls so often, and drops what is not done then.
async fn drop_after<F: Future>(future: F, polls: u32) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..polls {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return Some(output);
        }
        tokio::task::yield_now().await;
    }
    None
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_million_dropped_operations_give_nobody_anothers_value() {
    let seed =
        std::env::var("CACHE_KIT_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(fastrand::u64(..));
    println!("CACHE_KIT_SEED={seed}");
    let servers = Arc::new([MemcachedServer::start(), MemcachedServer::start()]);
    let client = Client::builder()
        .servers(servers.iter().map(MemcachedServer::addr))
        .unwrap()
        .max_connections(MOST)
        .min_connections(LEAST)
        .operation_timeout(Duration::from_secs(20))
        .build()
        .unwrap();
    for n in 0..KEYS {
        assert!(client.set(key(n).as_bytes(), &value(n), SetOptions::default()).await.unwrap());
    }
    let (stop, most) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let watcher = {
        let (servers, stop, most) = (Arc::clone(&servers), Arc::clone(&stop), Arc::clone(&most));
        std::thread::spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                for server in servers.iter() {
                    most.fetch_max(server.stat("curr_connections"), Ordering::SeqCst);
                }
                std::thread::sleep(Duration::from_millis(2));
            }
        })
    };
    let storm: Vec<_> = (0..TASKS)
        .map(|task| {
            let client = client.clone();
            tokio::spawn(async move {
                let mut random = fastrand::Rng::with_seed(seed.wrapping_add(task));
                let (mut answered, ttl) = (0_u64, exptime(Some(Duration::from_secs(600)), 0).unwrap());
                for _ in 0..EACH {
                    let (one, other, polls) = (random.u64(..KEYS), random.u64(..KEYS), random.u32(..6));
                    let (name, other_name) = (key(one), key(other));
                    match random.u32(..8) {
                        0..4 => {
                            if let Some(found) = drop_after(client.get(name.as_bytes()), polls).await {
                                assert_eq!(found.unwrap().unwrap().data, value(one), "under {name}");
                                answered += 1;
                            }
                        }
                        4 => {
                            let keys = [name.as_bytes(), b"missing", other_name.as_bytes()];
                            if let Some(found) = drop_after(client.get_many(&keys), polls).await {
                                let found: Vec<_> =
                                    found.into_iter().map(|f| f.unwrap().map(|value| value.data)).collect();
                                let expected = [Some(value(one).into()), None, Some(value(other).into())];
                                assert_eq!(found, expected);
                                answered += 1;
                            }
                        }
                        5 => {
                            let value = value(one);
                            let set = client.set(name.as_bytes(), &value, SetOptions::default());
                            answered += u64::from(drop_after(set, polls).await.is_some());
                        }
                        6 => {
                            let fleeting = format!("fleeting:{one}");
                            answered += u64::from(
                                drop_after(client.delete(fleeting.as_bytes()), polls).await.is_some(),
                            );
                        }
                        _ => {
                            let leased = format!("leased:{one}");
                            let mut options = GetOptions::default();
                            (options.value, options.cas, options.vivify) = (true, true, Some(ttl));
                            let got = drop_after(client.meta_get(leased.as_bytes(), options), polls).await;
                            if let Some(got) = got {
                                let reply = got.unwrap().reply;
                                assert_eq!((reply.status, reply.value.unwrap().len()), (Status::Value, 0));
                                answered += 1;
                            }
                        }
                    }
                }
                answered
            })
        })
        .collect();
    let mut answered = 0;
    for task in storm {
        answered += task.await.unwrap();
    }
    stop.store(true, Ordering::SeqCst);
    watcher.join().unwrap();
    let most = most.load(Ordering::SeqCst);
    println!(
        "{answered} of {} answered; at most {most} connections, the one that asked included",
        TASKS * EACH
    );
    // The server's own listener and the connection that asks are counted too.
    assert!(most <= MOST as u64 + 2, "{most}");
    for n in 0..KEYS {
        assert_eq!(client.get(key(n).as_bytes()).await.unwrap().unwrap().data, value(n));
    }
    for (at, server) in servers.iter().enumerate() {
        assert!((LEAST..=MOST).contains(&client.connections(at)), "{}", client.connections(at));
        println!("{} connections to a server in all", server.stat("total_connections"));
    }
}
