//! Connections to a server: as many as asked for, never more, and lost with no runtime.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::print_stdout, reason = "what was measured, for `--nocapture`")]

mod common;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use cache_kit_memcached::protocol::SetOptions;
use cache_kit_memcached::{Client, ErrorKind};
use cache_kit_test_support::{FaultProxy, MemcachedServer, SilentServer};
use common::{Census, bounded, getting, patient, until};
use tokio::runtime::{Builder, Runtime};

const DEADLINE: Duration = Duration::from_millis(200);

fn quick(server: &MemcachedServer, most: usize, least: usize) -> Client {
    let builder = patient([server.addr()]).operation_timeout(DEADLINE);
    builder.max_connections(most).min_connections(least).build().unwrap()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_least_connections_are_open_after_the_first_use_and_again_without_any_use_after_a_restart() {
    let server = MemcachedServer::start();
    let mut census = Census::of(&server);
    let client = quick(&server, 5, 3);
    assert_eq!((client.connections(0), census.clients()), (0, 0), "none before the first use");
    client.get(b"key").await.unwrap();
    let took = until("three connections", Duration::from_secs(5), async || census.clients() == 3).await;
    println!("three connections {took:?} after the first use");
    for _ in 0..3 {
        server.kill();
        server.restart();
        let mut census = Census::of_busy(&server);
        let all = async || (census.clients(), client.connections(0)) == (3, 3);
        let took = until("three connections", Duration::from_secs(5), all).await;
        println!("three connections {took:?} after the restart, without traffic");
        assert!(!client.is_down(0));
        client.get(b"key").await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_callers_never_open_more_connections_than_the_most() {
    let server = MemcachedServer::start();
    for most in [1, 2, 16] {
        let (census, stop) = (Census::of(&server), Arc::new(AtomicBool::new(false)));
        let watcher = census.watch(&stop);
        let client = patient([server.addr()]).max_connections(most).min_connections(1).build().unwrap();
        let began = Instant::now();
        let callers: Vec<_> = (0..2_000_u32)
            .map(|n| {
                let client = client.clone();
                tokio::spawn(async move {
                    let key = format!("key:{n}");
                    let value = key.repeat(1_000 / key.len() + 1);
                    for _ in 0..3 {
                        client.set(key.as_bytes(), value.as_bytes(), SetOptions::default()).await.unwrap();
                        let found = client.get(key.as_bytes()).await.unwrap().unwrap();
                        assert_eq!(found.data, value.as_bytes());
                    }
                })
            })
            .collect();
        for caller in callers {
            bounded(caller).await.unwrap();
        }
        let took = began.elapsed();
        stop.store(true, SeqCst);
        let (_, seen, looks) = watcher.join().unwrap();
        println!("max_connections {most}: at most {seen} in {looks} looks; 12000 operations took {took:?}");
        assert!((1..=most).contains(&seen), "{seen} of {most}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_are_replaced_are_never_more_than_the_most() {
    let server = MemcachedServer::start();
    let (census, stop) = (Census::of(&server), Arc::new(AtomicBool::new(false)));
    let watcher = census.watch(&stop);
    let client = patient([server.addr()]).max_connections(2).min_connections(2).build().unwrap();
    for _ in 0..4 {
        // At most once a second.
        client.drop_connections();
        let until = Instant::now() + Duration::from_millis(1_050);
        while Instant::now() < until {
            // An operation that was under way may fail with its connection.
            if client.get(b"key").await.is_err() {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }
    let found = until("both connections", Duration::from_secs(5), async || client.connections(0) == 2);
    found.await;
    stop.store(true, SeqCst);
    let (_, seen, looks) = watcher.join().unwrap();
    println!("at most {seen} in {looks} looks, {} in all", server.stat("total_connections"));
    // The server hears of the end of a connection a moment after its socket was closed here.
    assert!((1..=3).contains(&seen), "{seen}");
}

// A dial that kept its pool would let the keeper of the pool start another one, and so on without a bound.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_is_gone_looks_for_its_server_no_more() {
    let silent = SilentServer::start();
    let mut dials = (0, 0);
    for _ in 0..3 {
        let proxy = FaultProxy::start(silent.addr());
        let builder = patient([proxy.addr()]).min_connections(1).connection_timeout(2 * DEADLINE);
        let client = builder.build().unwrap();
        // It has failed once, and is looked for again.
        client.connect().await.unwrap_err();
        until("the next dial", Duration::from_secs(5), async || proxy.connections() > 0).await;
        drop(client);
        // One that was begun may still arrive.
        tokio::time::sleep(DEADLINE / 10).await;
        let then = proxy.total_connections();
        let took = until("the last dial", 10 * DEADLINE, async || proxy.connections() == 0).await;
        println!("the last dial ended {took:?} after the client, the bound on one is {:?}", 2 * DEADLINE);
        dials = (dials.0 + then, dials.1 + proxy.total_connections() - then);
    }
    assert_eq!(dials.1, 0, "dials without a client, beside {} with one", dials.0);
}

fn runtime() -> Runtime {
    Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap()
}

#[test]
fn a_client_works_on_the_next_runtime_when_the_first_is_gone() {
    let server = MemcachedServer::start();
    let client = quick(&server, 4, 2);
    for round in 0..5 {
        let runtime = runtime();
        let took = runtime.block_on(async {
            let again =
                until("the next runtime", Duration::from_secs(5), async || client.get(b"key").await.is_ok());
            let took = again.await;
            let value = format!("round {round}");
            client.set(b"key", value.as_bytes(), SetOptions::default()).await.unwrap();
            assert_eq!(client.get(b"key").await.unwrap().unwrap().data, value.as_bytes());
            until("both connections", Duration::from_secs(5), async || client.connections(0) >= 2).await;
            took
        });
        println!("runtime {round}: worked after {took:?}");
        if round % 2 == 0 {
            drop(runtime);
        } else {
            runtime.shutdown_background();
        }
    }
}

/// What becomes of calls while the runtime that has the connections is alive and nobody drives it.
fn beside_a_runtime_that_stands_still(most: usize, least: usize) {
    let server = MemcachedServer::start();
    let client = quick(&server, most, least);
    // It runs only inside of `block_on`.
    let first = Builder::new_current_thread().enable_all().build().unwrap();
    first.block_on(async {
        client.set(b"key", b"value", SetOptions::default()).await.unwrap();
        let open = least.max(1);
        until("the connections", Duration::from_secs(5), async || client.connections(0) >= open).await;
    });
    let second = runtime();
    second.block_on(async {
        let (began, mut failed) = (Instant::now(), 0);
        loop {
            let call = Instant::now();
            let answer = client.meta_get(b"key", getting(|o| o.value = true)).await;
            let took = call.elapsed();
            assert!(took < 5 * DEADLINE, "a call took {took:?}");
            let error = match answer {
                Ok(answer) => break assert_eq!(answer.reply.value.unwrap(), "value"),
                Err(error) => error,
            };
            assert!(error.is_transient(), "{error:?}");
            if failed == 0 {
                assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
                assert!(took >= DEADLINE, "{took:?}");
            }
            failed += 1;
            let bound = Duration::from_secs(5);
            assert!(began.elapsed() < bound, "{failed} calls have failed and none succeeded: {error:?}");
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
        println!("connections {least} to {most}: {failed} calls failed, works after {:?}", began.elapsed());
        for _ in 0..100 {
            let answer = client.meta_get(b"key", getting(|o| o.value = true)).await;
            if let Err(error) = answer {
                // What is left of the first runtime's, each found out in its turn.
                assert!(error.is_transient(), "{error:?}");
            }
        }
        let again = until("the second runtime", Duration::from_secs(15), async || {
            let began = Instant::now();
            let answers = futures_util::future::join_all((0..50).map(|_| client.get(b"key"))).await;
            began.elapsed() < DEADLINE && answers.into_iter().all(|answer| answer.is_ok())
        });
        println!("nothing is left of the first runtime's connections after {:?} more", again.await);
    });
    drop(first);
    second.block_on(async { client.get(b"key").await.unwrap() });
}

#[test]
fn while_the_first_runtime_stands_still_calls_end_at_their_deadline_and_then_succeed() {
    beside_a_runtime_that_stands_still(16, 4);
}

// The task of the suspect connection belongs to the first runtime, and only there could it give its permit back.
#[test]
fn while_the_first_runtime_stands_still_the_only_connection_is_replaced_too() {
    beside_a_runtime_that_stands_still(1, 0);
}
