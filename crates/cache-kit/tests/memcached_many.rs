//! Leases and fills of many keys on Memcached: in one exchange with each server, and each with its own answer.

#![cfg(feature = "memcached")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::{BTreeMap, HashSet};
use std::time::Duration;

use bytes::Bytes;
use cache_kit::ErrorKind;
use cache_kit::backend::memcached::MemcachedDistribution;
use cache_kit::backend::{
    Acquired, CacheBackend, Claim, Fill, Filled, Lease, MemcachedBackend, MemcachedConfig,
};
use cache_kit_test_support::{Direction, Fault, FaultProxy, MemcachedServer};
use common::{bounded, drop_after, until};

const LIFE: Duration = Duration::from_secs(600);
const LIMIT: Duration = Duration::from_secs(15);

fn config(servers: Vec<String>) -> MemcachedConfig {
    MemcachedConfig { servers, max_connections: 2, min_connections: 0 }
}

fn backend(servers: Vec<String>) -> MemcachedBackend {
    let builder = MemcachedBackend::builder(config(servers)).prefix("many:");
    builder.operation_timeout(Duration::from_secs(10)).build().unwrap()
}

fn servers(count: usize) -> Vec<MemcachedServer> {
    (0..count).map(|_| MemcachedServer::start()).collect()
}

fn addrs(servers: &[MemcachedServer]) -> Vec<String> {
    servers.iter().map(MemcachedServer::addr).collect()
}

fn keys(count: usize) -> Vec<String> {
    (0..count).map(|n| if n % 50 == 7 { format!("a key {n}") } else { format!("key:{n}") }).collect()
}

fn claims(keys: &[String]) -> Vec<Claim<'_>> {
    keys.iter().map(|key| Claim { key, seen: None }).collect()
}

async fn acquire(backend: &MemcachedBackend, claims: &[Claim<'_>]) -> Vec<cache_kit::Result<Acquired>> {
    bounded(backend.acquire_many(claims, LIFE)).await.unwrap()
}

fn granted(acquired: &cache_kit::Result<Acquired>) -> Lease {
    match acquired {
        Ok(Acquired::Granted { lease, .. }) => lease.clone(),
        other => panic!("not granted: {other:?}"),
    }
}

async fn leases(backend: &MemcachedBackend, keys: &[String]) -> Vec<Lease> {
    acquire(backend, &claims(keys)).await.iter().map(granted).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_claim_has_its_own_answer() {
    for count in [1, 3] {
        let servers = servers(count);
        let (backend, other) = (backend(addrs(&servers)), backend(addrs(&servers)));
        let (keys, old, new) = (keys(600), Bytes::from("old"), Bytes::from("new"));
        // In turn: absent, held by another, holding a value, holding what was seen, and what was seen leased by another.
        for (n, key) in keys.iter().enumerate() {
            match n % 5 {
                0 => continue,
                1 => drop(other.acquire(key, None, LIFE).await.unwrap()),
                2 => other.set(key, new.clone(), None).await.unwrap(),
                _ => other.set(key, old.clone(), None).await.unwrap(),
            }
            if n % 5 == 4 {
                let acquired = other.acquire(key, Some(&old), LIFE).await.unwrap();
                assert!(matches!(acquired, Acquired::Granted { kept: Some(_), .. }));
            }
        }
        let claims: Vec<Claim<'_>> = (keys.iter().enumerate())
            .map(|(n, key)| Claim { key, seen: (n % 5 >= 2 || n % 10 == 0).then_some(&old) })
            .collect();
        let answers = acquire(&backend, &claims).await;
        assert_eq!(answers.len(), keys.len());
        for (n, answer) in answers.iter().enumerate() {
            let answer = answer.as_ref().unwrap();
            match n % 5 {
                0 => assert!(matches!(answer, Acquired::Granted { kept: None, .. }), "{n}: {answer:?}"),
                1 => assert_eq!(*answer, Acquired::Busy { kept: None }, "{n}"),
                2 => assert_eq!(*answer, Acquired::Present { value: new.clone() }, "{n}"),
                3 => assert!(
                    matches!(answer, Acquired::Granted { kept: Some(kept), .. } if *kept == old),
                    "{n}: {answer:?}"
                ),
                _ => assert_eq!(*answer, Acquired::Busy { kept: Some(old.clone()) }, "{n}"),
            }
        }
        // What is granted holds, and what was kept is readable until it is replaced.
        for (n, (key, answer)) in keys.iter().zip(&answers).enumerate() {
            if n % 5 == 0 || n % 5 == 3 {
                let kept = (n % 5 == 3).then(|| old.clone());
                assert_eq!(backend.get(key).await.unwrap(), kept);
                let filled = backend.fill(key, &granted(answer), new.clone(), None).await.unwrap();
                assert_eq!(filled, Filled::Stored, "{n}");
                assert_eq!(other.get(key).await.unwrap(), Some(new.clone()));
            }
        }
        assert_eq!(acquire(&backend, &[]).await.len(), 0);
        assert_eq!(bounded(backend.fill_many(&[])).await.unwrap().len(), 0);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_claims_of_one_key_one_is_granted_at_most() {
    let servers = servers(3);
    let backend = backend(addrs(&servers));
    let (keys, old) = (keys(100), Bytes::from("old"));
    for key in keys.iter().step_by(2) {
        backend.set(key, old.clone(), None).await.unwrap();
    }
    let twice = keys.iter().chain(&keys);
    let claims: Vec<Claim<'_>> = twice.map(|key| Claim { key, seen: Some(&old) }).collect();
    let answers = acquire(&backend, &claims).await;
    for n in 0..keys.len() {
        let both = [answers[n].as_ref().unwrap(), answers[n + keys.len()].as_ref().unwrap()];
        let granted = both.iter().filter(|answer| matches!(answer, Acquired::Granted { .. })).count();
        let busy = both.iter().filter(|answer| matches!(answer, Acquired::Busy { .. })).count();
        assert_eq!((granted, busy), (1, 1), "{both:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_another_client_has_marked_stale_is_leased_all_the_same() {
    let server = MemcachedServer::start();
    let (backend, old) = (backend(vec![server.addr()]), Bytes::from("old"));
    let keys: Vec<String> = (0..40).map(|n| format!("key:{n}")).collect();
    for (n, key) in keys.iter().enumerate() {
        // A value, or the stub of a lease.
        if n % 2 == 0 {
            backend.set(key, old.clone(), None).await.unwrap();
        } else {
            drop(backend.acquire(key, None, LIFE).await.unwrap());
        }
        assert_eq!(server.command(&format!("md many:{key} I T60")), "HD");
    }
    for answer in acquire(&backend, &claims(&keys)).await {
        assert!(matches!(answer, Ok(Acquired::Granted { kept: None, .. })), "{answer:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_fill_has_its_own_life_and_its_own_answer() {
    for count in [1, 3] {
        let servers = servers(count);
        let backend = backend(addrs(&servers));
        let keys: Vec<String> = (0..600).map(|n| format!("key:{n}")).collect();
        let leases = leases(&backend, &keys).await;
        // The first is void, the second has no life, and the third does not fit.
        backend.set(&keys[0], Bytes::from("newer"), None).await.unwrap();
        let fills: Vec<Fill<'_>> = (keys.iter().zip(&leases).enumerate())
            .map(|(n, (key, lease))| {
                let value = if n == 2 { vec![0; 2 << 20].into() } else { Bytes::from(format!("value {n}")) };
                let ttl = match n {
                    1 => Some(Duration::ZERO),
                    _ => (n % 2 == 0).then(|| Duration::from_secs(1_000 + n as u64)),
                };
                Fill { key, lease, value, ttl }
            })
            .collect();
        let answers = bounded(backend.fill_many(&fills)).await.unwrap();
        assert_eq!(answers.len(), fills.len());
        assert_eq!(*answers[0].as_ref().unwrap(), Filled::Refused);
        assert_eq!(answers[1].as_ref().unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(answers[2].as_ref().unwrap_err().kind(), ErrorKind::TooLarge);
        assert_eq!(backend.get(&keys[0]).await.unwrap(), Some(Bytes::from("newer")));
        for (n, fill) in fills.iter().enumerate().skip(3) {
            assert_eq!(*answers[n].as_ref().unwrap(), Filled::Stored, "{n}");
            assert_eq!(backend.get(fill.key).await.unwrap(), Some(fill.value.clone()));
            let server = &servers[backend.shard_of(fill.key)];
            let left: i64 = server.command(&format!("mg many:{} t", fill.key))[4..].parse().unwrap();
            // Of one that lives without end, and of others with the second that the server's clock may lack.
            let expected = fill.ttl.map_or(-1..=-1, |ttl| {
                let ttl = i64::try_from(ttl.as_secs()).unwrap();
                ttl - 60..=ttl + 2
            });
            assert!(expected.contains(&left), "{n}: {left}");
        }
        // A lease is good for one.
        let again = bounded(backend.fill_many(&fills[3..])).await.unwrap();
        assert!(again.iter().all(|answer| matches!(answer, Ok(Filled::Refused))));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_server_fails_its_own_keys_only() {
    let servers = servers(3);
    let (backend, keys) = (backend(addrs(&servers)), keys(600));
    let (held, free) = keys.split_at(300);
    let leases = leases(&backend, held).await;
    servers[1].kill();
    let answers = acquire(&backend, &claims(free)).await;
    for (key, answer) in free.iter().zip(&answers) {
        match backend.shard_of(key) {
            1 => assert_eq!(answer.as_ref().unwrap_err().kind(), ErrorKind::Unavailable),
            _ => drop(granted(answer)),
        }
    }
    let fills = held.iter().zip(&leases);
    let fills: Vec<Fill<'_>> =
        fills.map(|(key, lease)| Fill { key, lease, value: Bytes::from("x"), ttl: None }).collect();
    for (key, answer) in held.iter().zip(bounded(backend.fill_many(&fills)).await.unwrap()) {
        assert_eq!(matches!(answer, Ok(Filled::Stored)), backend.shard_of(key) != 1, "{answer:?}");
    }
    let dead = held.iter().chain(free).filter(|key| backend.shard_of(key) == 1).count();
    assert!((50..400).contains(&dead), "{dead}");
}

/// Answers are held back until the servers have carried out all that is to arrive in one exchange: by then it was sent
/// without waiting for any of them.
async fn in_one_exchange<T: Send>(
    proxies: &[FaultProxy],
    call: impl Future<Output = T> + Send,
    has_arrived: impl Fn() -> bool + Sync,
) -> T {
    proxies.iter().for_each(|proxy| proxy.set(Direction::ToClient, Fault::Stall));
    let arrival = async {
        until("all of it arrives", LIMIT, async || has_arrived()).await;
        proxies.iter().for_each(FaultProxy::clear);
    };
    bounded(futures_util::future::join(call, arrival)).await.0
}

#[tokio::test]
async fn all_keys_of_a_server_go_in_one_exchange_over_one_connection() {
    for count in [1, 3] {
        let servers = servers(count);
        let proxies: Vec<_> = servers.iter().map(|server| FaultProxy::start(server.addr())).collect();
        let backend = backend(proxies.iter().map(FaultProxy::addr).collect());
        backend.connect().await.unwrap();
        let keys = keys(300);
        let stat = |name: &str| servers.iter().map(|server| server.stat(name)).sum::<u64>();

        let (looks, claims) = (stat("cmd_get"), claims(&keys));
        let call = backend.acquire_many(&claims, LIFE);
        let acquired = in_one_exchange(&proxies, call, || stat("cmd_get") - looks == 300).await.unwrap();
        let leases: Vec<Lease> = acquired.iter().map(granted).collect();

        let changes = stat("cmd_set");
        let fills = keys.iter().zip(&leases);
        let fills: Vec<Fill<'_>> =
            fills.map(|(key, lease)| Fill { key, lease, value: Bytes::from("old"), ttl: None }).collect();
        let call = backend.fill_many(&fills);
        let filled = in_one_exchange(&proxies, call, || stat("cmd_set") - changes == 300).await.unwrap();
        assert!(filled.iter().all(|answer| matches!(answer, Ok(Filled::Stored))));

        // What was seen is leased by a second one, with as many requests as it takes and no more.
        let (old, looks, changes) = (Bytes::from("old"), stat("cmd_get"), stat("cmd_set"));
        let seen: Vec<Claim<'_>> = keys.iter().map(|key| Claim { key, seen: Some(&old) }).collect();
        let call = backend.acquire_many(&seen, LIFE);
        let acquired = in_one_exchange(&proxies, call, || stat("cmd_get") - looks == 300).await.unwrap();
        assert_eq!(acquired.iter().map(granted).count(), 300);
        assert_eq!((stat("cmd_get") - looks, stat("cmd_set") - changes), (300, 300));

        // Eight calls at once would have made a second connection.
        assert_eq!(proxies.iter().map(FaultProxy::total_connections).sum::<u64>(), count as u64);
        assert_eq!(backend.connections(), count);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn leases_of_a_caller_that_goes_away_are_given_back() {
    let servers = servers(2);
    let proxies: Vec<_> = servers.iter().map(|server| FaultProxy::start(server.addr())).collect();
    let backend = backend(proxies.iter().map(FaultProxy::addr).collect());
    backend.connect().await.unwrap();
    let free = async |keys: &[String]| {
        let is_free = async || {
            let answers = acquire(&backend, &claims(keys)).await;
            let mut are_free = true;
            for (key, answer) in keys.iter().zip(&answers) {
                match answer.as_ref().unwrap() {
                    Acquired::Granted { lease, .. } => backend.release(key, lease).await.unwrap(),
                    _ => are_free = false,
                }
            }
            are_free
        };
        until("given back", LIMIT, is_free).await;
    };
    // One server has answered, and the other has not.
    let keys = keys(300);
    let looks: Vec<u64> = servers.iter().map(|server| server.stat("cmd_get")).collect();
    proxies[1].set(Direction::ToClient, Fault::Stall);
    {
        let wanted = claims(&keys);
        let call = backend.acquire_many(&wanted, LIFE);
        let of_server = |at| keys.iter().filter(|key| backend.shard_of(key) == at).count() as u64;
        let have_looked = async || {
            let all = |at: usize| servers[at].stat("cmd_get") - looks[at] == of_server(at);
            all(0) && all(1)
        };
        tokio::select! {
            _ = call => panic!("answered without a server"),
            _ = async {
                until("asked", LIMIT, have_looked).await;
                tokio::time::sleep(Duration::from_millis(50)).await;
            } => {}
        }
    }
    proxies[1].clear();
    free(&keys).await;
    // Wherever the answers are by then.
    for round in 0..60 {
        let keys: Vec<String> = (0..30).map(|n| format!("key:{round}:{n}")).collect();
        let gone = drop_after(backend.acquire_many(&claims(&keys), LIFE), round % 6).await;
        match gone {
            None => free(&keys).await,
            Some(answers) => assert_eq!(answers.unwrap().iter().map(granted).count(), keys.len()),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_key_of_a_shard_lives_on_its_server_whatever_the_order_of_the_list() {
    let servers = servers(3);
    for distribution in [MemcachedDistribution::WeightedKetama, MemcachedDistribution::Ketama] {
        let with = |order: [usize; 3]| {
            let builder = MemcachedBackend::builder(config(order.map(|at| servers[at].addr()).into()));
            let backend = builder.prefix("many:").distribution(distribution).build().unwrap();
            // By server, and not by its place in the list.
            let key_of = |name: &str| -> BTreeMap<usize, String> {
                (0..3).map(|place| (order[place], backend.shard_key(place, name))).collect()
            };
            let all = (key_of("stamp"), key_of("stamp~1"), key_of(""));
            (backend, all)
        };
        let (backend, all) = with([0, 1, 2]);
        assert_eq!(with([2, 0, 1]).1, all);
        assert_eq!(with([1, 0, 2]).1, all);
        let mut keys = HashSet::new();
        for (name, of_name) in [("stamp", &all.0), ("stamp~1", &all.1), ("", &all.2)] {
            for (at, key) in of_name {
                assert!(key.starts_with(name) && keys.insert(key.clone()), "{key}");
                assert_eq!(backend.shard_of(key), *at);
                backend.set(key, Bytes::from("here"), None).await.unwrap();
                for (other, server) in servers.iter().enumerate() {
                    let found = server.command(&format!("get many:{key}")).starts_with("VALUE");
                    assert_eq!(found, other == *at, "{key}");
                }
                backend.delete(key).await.unwrap();
            }
        }
        assert_eq!(backend.shards(), 3);
    }
}

#[test]
fn a_server_without_keys_has_a_key_of_its_own_all_the_same() {
    let with = |servers: [&str; 3], weights: [u32; 3]| {
        let builder = MemcachedBackend::builder(config(servers.map(str::to_owned).into()));
        builder.weights(weights).build().unwrap()
    };
    let one = with(["a:1", "b:1", "c:1"], [1_000, 1, 1_000]);
    let other = with(["b:1", "c:1", "a:1"], [1, 1_000, 1_000]);
    let keys: HashSet<String> = (0..3).map(|shard| one.shard_key(shard, "stamp")).collect();
    assert_eq!(keys.len(), 3);
    assert_eq!(one.shard_key(1, "stamp"), other.shard_key(0, "stamp"));
    assert_ne!(one.shard_of(&one.shard_key(1, "stamp")), 1);
    assert_eq!(one.shard_of(&one.shard_key(2, "stamp")), 2);

    let single = MemcachedBackend::new(config(vec!["a:1".to_owned()])).unwrap();
    assert_eq!((single.shards(), single.shard_of("x")), (1, 0));
    assert!(single.shard_key(0, "stamp").starts_with("stamp"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_changes_between_the_exchanges_is_looked_at_again() {
    let server = MemcachedServer::start();
    let proxy = [FaultProxy::start(server.addr())];
    let (backend, other) = (backend(vec![proxy[0].addr()]), backend(vec![server.addr()]));
    let keys: Vec<String> = (0..60).map(|n| format!("key:{n}")).collect();
    let (old, new) = (Bytes::from("old"), Bytes::from("new"));
    for key in &keys {
        other.set(key, old.clone(), None).await.unwrap();
    }
    backend.connect().await.unwrap();
    let looks = server.stat("cmd_get");
    proxy[0].set(Direction::ToClient, Fault::Stall);
    let claims: Vec<Claim<'_>> = keys.iter().map(|key| Claim { key, seen: Some(&old) }).collect();
    let change = async {
        until("all of them are seen", LIMIT, async || server.stat("cmd_get") - looks == 60).await;
        for (n, key) in keys.iter().enumerate() {
            match n % 4 {
                0 => other.set(key, new.clone(), None).await.unwrap(),
                1 => other.delete(key).await.unwrap(),
                2 => drop(other.acquire(key, Some(&old), LIFE).await.unwrap()),
                _ => {}
            }
        }
        proxy[0].clear();
    };
    let (answers, ()) = bounded(futures_util::future::join(acquire(&backend, &claims), change)).await;
    for (n, answer) in answers.iter().enumerate() {
        let answer = answer.as_ref().unwrap();
        match n % 4 {
            0 => assert_eq!(*answer, Acquired::Present { value: new.clone() }),
            1 => assert!(matches!(answer, Acquired::Granted { kept: None, .. }), "{n}: {answer:?}"),
            2 => assert_eq!(*answer, Acquired::Busy { kept: Some(old.clone()) }),
            _ => assert!(matches!(answer, Acquired::Granted { kept: Some(_), .. }), "{n}: {answer:?}"),
        }
    }
}
