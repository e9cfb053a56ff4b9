//! Three servers: all of them used, one lost and found again, the list in another order or shorter.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use cache_kit_memcached::protocol::SetOptions;
use cache_kit_memcached::{Client, ErrorKind};
use cache_kit_test_support::MemcachedServer;
use common::{patient, until};
use futures_util::future::join_all;

const DEADLINE: Duration = Duration::from_millis(400);

struct Bed {
    servers: [MemcachedServer; 3],
    addresses: Vec<String>,
    keys: Vec<String>,
}

impl Bed {
    /// Three servers with so many keys, whose values are the keys.
    async fn with(keys: usize) -> Self {
        let servers = [(); 3].map(|()| MemcachedServer::start());
        let addresses: Vec<String> = servers.iter().map(MemcachedServer::addr).collect();
        let keys: Vec<String> = (0..keys).map(|n| format!("user:{n}")).collect();
        let client = patient(&addresses).build().unwrap();
        for keys in keys.chunks(1_000) {
            let stored =
                keys.iter().map(|key| client.set(key.as_bytes(), key.as_bytes(), SetOptions::default()));
            assert!(join_all(stored).await.into_iter().all(Result::unwrap));
        }
        Self { servers, addresses, keys }
    }

    fn client(&self) -> Client {
        let builder = patient(&self.addresses).operation_timeout(DEADLINE).max_connections(4);
        builder.min_connections(2).build().unwrap()
    }

    /// The keys of one server, or those of the others.
    fn keys_of(&self, client: &Client, server: usize, own: bool) -> Vec<&str> {
        let keys = self.keys.iter().map(String::as_str);
        keys.filter(|key| (client.server_of(key.as_bytes()) == server) == own).collect()
    }

    fn items(&self) -> [u64; 3] {
        self.servers.each_ref().map(|server| server.stat("curr_items"))
    }
}

async fn get(client: &Client, key: &str) -> cache_kit_memcached::Result<Option<bytes::Bytes>> {
    Ok(client.get(key.as_bytes()).await?.map(|value| value.data))
}

/// Whether each of the keys is found; what is found is its own value.
async fn which_are_found(client: &Client, keys: &[String]) -> Vec<bool> {
    let mut found = Vec::new();
    for keys in keys.chunks(2_000) {
        let bytes: Vec<&[u8]> = keys.iter().map(String::as_bytes).collect();
        for (key, value) in bytes.iter().zip(client.get_many(&bytes).await) {
            let value = value.unwrap();
            assert!(value.as_ref().is_none_or(|value| value.data == **key));
            found.push(value.is_some());
        }
    }
    found
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_server_gets_its_part_of_the_keys_and_any_order_of_the_list_finds_them() {
    let bed = Bed::with(30_000).await;
    let client = patient(&bed.addresses).build().unwrap();
    let mut expected = [0; 3];
    bed.keys.iter().for_each(|key| expected[client.server_of(key.as_bytes())] += 1);
    println!("keys of each server: {:?}", bed.items());
    assert_eq!(bed.items(), expected);
    for part in expected {
        let percent = part as f64 * 100.0 / bed.keys.len() as f64;
        assert!((20.0..47.0).contains(&percent), "{percent} %");
    }
    for order in [[0, 1, 2], [2, 1, 0], [1, 2, 0]] {
        let other = patient(order.map(|at| &bed.addresses[at])).build().unwrap();
        assert!(which_are_found(&other, &bed.keys).await.into_iter().all(|found| found), "{order:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_of_two_of_three_servers_misses_the_keys_of_the_third_only() {
    let bed = Bed::with(10_000).await;
    let whole = patient(&bed.addresses).build().unwrap();
    for removed in 0..3 {
        let rest = (0..3).filter(|at| *at != removed).map(|at| &bed.addresses[at]);
        let shorter = patient(rest).build().unwrap();
        let found = which_are_found(&shorter, &bed.keys).await;
        let of_removed = bed.keys.iter().map(|key| whole.server_of(key.as_bytes()) == removed);
        let missing = found.iter().filter(|found| !**found).count();
        println!("without server {removed}: {missing} of {} are missing", found.len());
        assert!(of_removed.zip(found).all(|(of_removed, found)| of_removed != found));
    }
}

/// Reads keys until told to stop: none of them may fail. How many and the longest.
fn reads(
    client: &Client,
    keys: Vec<String>,
    stop: &Arc<AtomicBool>,
) -> tokio::task::JoinHandle<(u64, Duration)> {
    let (client, stop) = (client.clone(), Arc::clone(stop));
    tokio::spawn(async move {
        let (mut count, mut longest) = (0, Duration::ZERO);
        for key in keys.iter().cycle() {
            if stop.load(Ordering::SeqCst) {
                break;
            }
            let began = Instant::now();
            assert_eq!(get(&client, key).await.unwrap().unwrap(), *key);
            longest = longest.max(began.elapsed());
            count += 1;
            tokio::task::yield_now().await;
        }
        (count, longest)
    })
}

fn owned(keys: &[&str]) -> Vec<String> {
    keys.iter().map(|key| (*key).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_server_costs_its_own_keys_microseconds_and_the_others_nothing_and_is_used_when_it_is_back() {
    let bed = Bed::with(3_000).await;
    let client = bed.client();
    let (own, others) = (bed.keys_of(&client, 1, true), bed.keys_of(&client, 1, false));
    assert!(which_are_found(&client, &bed.keys).await.into_iter().all(|found| found));
    let before = bed.items();
    let stop = Arc::default();
    let unconcerned = reads(&client, owned(&others), &stop);

    bed.servers[1].kill();
    let mut took = Vec::new();
    for key in &own {
        let began = Instant::now();
        let error = get(&client, key).await.unwrap_err();
        took.push(began.elapsed());
        assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout), "{error:?}");
        assert_eq!(error.server(), Some(bed.addresses[1].as_str()));
        assert!(error.is_transient());
    }
    assert!(client.is_down(1) && !client.is_down(0) && !client.is_down(2));
    let first = took[..5].to_vec();
    took.sort_unstable();
    let (median, longest) = (took[took.len() / 2], took[took.len() - 1]);
    println!(
        "killed: a key of it costs {median:?} (median of {}), at most {longest:?}; first {first:?}",
        took.len()
    );
    assert!(median < Duration::from_millis(1), "{median:?}");
    assert!(longest < 5 * DEADLINE, "{longest:?}");

    // One call for all keys: those of the others are there.
    let bytes: Vec<&[u8]> = bed.keys.iter().map(String::as_bytes).collect();
    for (key, found) in bytes.iter().zip(client.get_many(&bytes).await) {
        match client.server_of(key) {
            1 => assert!(found.unwrap_err().is_transient()),
            _ => assert_eq!(found.unwrap().unwrap().data, **key),
        }
    }
    // Nothing of it is stored elsewhere.
    for key in &own[..100] {
        assert!(client.set(key.as_bytes(), b"elsewhere", SetOptions::default()).await.is_err());
        assert!(client.delete(key.as_bytes()).await.is_err());
    }
    assert!(client.missed_at(1) > 0 && client.missed_at(0) == 0 && client.missed_at(2) == 0);
    let items = [0, 2].map(|at| bed.servers[at].stat("curr_items"));
    assert_eq!(items, [before[0], before[2]]);

    bed.servers[1].restart();
    let again =
        until("the restarted server", Duration::from_secs(5), async || get(&client, own[0]).await.is_ok());
    println!("restarted: used again after {:?}", again.await);
    assert!(!client.is_down(1));
    for key in &own[..100] {
        assert_eq!(get(&client, key).await.unwrap(), None, "it came back empty");
        assert!(client.set(key.as_bytes(), key.as_bytes(), SetOptions::default()).await.unwrap());
        assert_eq!(get(&client, key).await.unwrap().unwrap(), **key);
    }
    stop.store(true, Ordering::SeqCst);
    let (count, longest) = unconcerned.await.unwrap();
    println!("meanwhile {count} reads of the other servers' keys, none failed, the longest took {longest:?}");
    assert!(longest < DEADLINE, "{longest:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stands_still_is_an_error_at_the_deadline_and_used_when_it_moves() {
    let bed = Bed::with(3_000).await;
    let client = bed.client();
    let (own, others) = (bed.keys_of(&client, 2, true), bed.keys_of(&client, 2, false));
    assert!(which_are_found(&client, &bed.keys).await.into_iter().all(|found| found));
    let stop = Arc::default();
    let unconcerned = reads(&client, owned(&others), &stop);

    bed.servers[2].pause();
    let began = Instant::now();
    let error = get(&client, own[0]).await.unwrap_err();
    let took = began.elapsed();
    println!("standing still: {:?} after {took:?}, deadline {DEADLINE:?}", error.kind());
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(took >= DEADLINE && took < 5 * DEADLINE, "{took:?}");
    // Those that wait at the same time wait no longer, and then the rest does not wait at all.
    let began = Instant::now();
    let bytes: Vec<&[u8]> = bed.keys.iter().map(String::as_bytes).collect();
    for (key, found) in bytes.iter().zip(client.get_many(&bytes).await) {
        match client.server_of(key) {
            2 => assert!(found.unwrap_err().is_transient()),
            _ => assert_eq!(found.unwrap().unwrap().data, **key),
        }
    }
    assert!(began.elapsed() < 5 * DEADLINE, "{:?}", began.elapsed());
    let began = Instant::now();
    until("the breaker", 10 * DEADLINE, async || {
        assert!(get(&client, own[0]).await.is_err());
        client.is_down(2)
    })
    .await;
    println!("taken to be down after {:?} more", began.elapsed());
    let mut took: Vec<Duration> = Vec::new();
    for key in &own {
        let began = Instant::now();
        assert!(get(&client, key).await.is_err());
        took.push(began.elapsed());
    }
    took.sort_unstable();
    println!(
        "then a key of it costs {:?} (median), at most {:?}",
        took[took.len() / 2],
        took[took.len() - 1]
    );
    assert!(took[took.len() / 2] < Duration::from_millis(1) && took[took.len() - 1] < 5 * DEADLINE);

    bed.servers[2].resume();
    let again =
        until("the resumed server", Duration::from_secs(5), async || get(&client, own[0]).await.is_ok());
    println!("moving again: used after {:?}", again.await);
    for key in &own {
        assert_eq!(get(&client, key).await.unwrap().unwrap(), **key, "it has kept everything");
    }
    stop.store(true, Ordering::SeqCst);
    let (count, longest) = unconcerned.await.unwrap();
    println!("meanwhile {count} reads of the other servers' keys, none failed, the longest took {longest:?}");
    assert!(longest < DEADLINE, "{longest:?}");
}
