//! Keys over three real servers: all of them used, one lost and found again, the list in another order or shorter.

#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test that cannot go on fails")]

use std::time::{Duration, Instant};

use cache_kit_memcached::protocol::SetOptions;
use cache_kit_memcached::{Client, ErrorKind};
use cache_kit_test_support::MemcachedServer;

const KEYS: usize = 30_000;

fn client(servers: &[String]) -> Client {
    let builder = Client::builder().servers(servers).unwrap().max_connections(4).min_connections(2);
    builder.operation_timeout(Duration::from_secs(5)).build().unwrap()
}

fn key(n: usize) -> String {
    format!("key:{n}")
}

/// How many of all keys are found.
async fn found(client: &Client) -> usize {
    let keys: Vec<String> = (0..KEYS).map(key).collect();
    let keys: Vec<&[u8]> = keys.iter().map(String::as_bytes).collect();
    let found = client.get_many(&keys).await;
    found
        .into_iter()
        .zip(&keys)
        .filter(|(found, key)| matches!(found, Ok(Some(value)) if value.data == **key))
        .count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn keys_are_spread_over_all_servers_and_a_lost_one_costs_its_own() {
    let servers = [(); 3].map(|()| MemcachedServer::start());
    let addresses: Vec<String> = servers.iter().map(MemcachedServer::addr).collect();
    let all = client(&addresses);
    for from in (0..KEYS).step_by(500) {
        let stored = (from..from + 500).map(|n| {
            let (all, key) = (all.clone(), key(n));
            async move { all.set(key.as_bytes(), key.as_bytes(), SetOptions::default()).await.unwrap() }
        });
        assert!(futures_util::future::join_all(stored).await.into_iter().all(|stored| stored));
    }
    let items = servers.each_ref().map(|server| server.stat("curr_items"));
    println!("{items:?} of {KEYS}");
    assert_eq!(items.iter().sum::<u64>(), KEYS as u64);
    assert!(items.iter().all(|&items| items > 6_000 && items < 14_000), "{items:?}");
    assert_eq!(found(&all).await, KEYS);

    // In another order nothing moves; without one server only its keys do.
    let reversed: Vec<String> = addresses.iter().rev().cloned().collect();
    assert_eq!(found(&client(&reversed)).await, KEYS);
    assert_eq!(found(&client(&addresses[..2])).await as u64, items[0] + items[1]);

    // One dies: its keys fail fast, the others never notice.
    servers[2].kill();
    let (mut lost, mut slowest, mut fast) = (0, Duration::ZERO, Vec::new());
    for n in 0..KEYS {
        let (key, began) = (key(n), Instant::now());
        let found = all.get(key.as_bytes()).await;
        if all.server_of(key.as_bytes()) == 2 {
            let error = found.unwrap_err();
            assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout), "{error:?}");
            fast.push(began.elapsed());
            lost += 1;
        } else {
            assert_eq!(found.unwrap().unwrap().data, key.as_bytes());
            slowest = slowest.max(began.elapsed());
        }
    }
    fast.sort_unstable();
    println!(
        "a key of the dead server costs {:?} (median), {:?} at most; of another one {slowest:?} at most",
        fast[fast.len() / 2],
        fast[fast.len() - 1]
    );
    assert_eq!(lost, items[2]);
    assert!(fast[fast.len() / 2] < Duration::from_millis(1));
    assert_eq!(found(&all).await as u64, items[0] + items[1], "a batch loses the dead server's keys only");
    assert_eq!(servers[0].stat("curr_items") + servers[1].stat("curr_items"), items[0] + items[1]);

    servers[2].restart();
    let (began, of_it) =
        (Instant::now(), (0..).map(key).find(|key| all.server_of(key.as_bytes()) == 2).unwrap());
    while all.get(of_it.as_bytes()).await.is_err() {
        assert!(began.elapsed() < Duration::from_secs(5), "not used again");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    println!("back, and used again after {:?}", began.elapsed());
}
