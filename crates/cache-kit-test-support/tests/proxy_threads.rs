//! No thread outlives its proxy. In a process of its own, where no other test has proxies.
#![cfg(target_os = "linux")]

mod client;

use std::time::Duration;

use cache_kit_test_support::{Direction, Fault, FaultProxy, RedisServer};
use client::{Client, wait_until};

/// Threads of this process that carry the name of the proxy's.
fn threads() -> usize {
    let tasks = std::fs::read_dir("/proc/self/task").expect("Linux has it").flatten();
    // A thread that ends meanwhile has no name to read.
    let names = tasks.filter_map(|task| std::fs::read_to_string(task.path().join("comm")).ok());
    names.filter(|name| name.trim() == "fault-proxy").count()
}

#[test]
fn threads_end_with_their_connection_and_all_with_the_proxy() {
    let redis = RedisServer::start();
    let proxy = FaultProxy::start(redis.addr());
    // A thread gets its name only once it runs.
    wait_until("one accepts", || threads() == 1);
    let mut clients: Vec<Client> = (0..4).map(|_| Client::connect(&proxy.addr())).collect();
    clients.iter_mut().for_each(Client::ping);
    assert_eq!(threads(), 1 + 4 * 2);

    clients.truncate(3);
    wait_until("those of a closed connection are gone", || threads() == 1 + 3 * 2);

    proxy.set(Direction::ToServer, Fault::Delay(Duration::from_secs(3_600)));
    clients[0].send("PING\r\n");
    wait_until("the delay line has its own", || threads() == 1 + 3 * 2 + 1);
    proxy.set(Direction::ToClient, Fault::Blackhole { keep_reading: false });

    drop(proxy);
    // The kernel says that a thread can be joined just before it takes it off the list.
    wait_until("all are gone", || threads() == 0);
}
