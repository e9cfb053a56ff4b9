//! Operations that are dropped halfway: nobody gets another's answer, nothing is left behind, and connections stay
//! within their bounds, as the servers count them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::atomic::Ordering::SeqCst;
use std::time::{Duration, Instant};

use cache_kit_memcached::protocol::{Stat, StatsTopic, Status};
use cache_kit_memcached::{Client, ClientBuilder, Result};
use cache_kit_test_support::{Cut, FaultProxy, MemcachedServer};
use common::{Census, bounded, deleting, drop_after, getting, patient, seconds, seed, setting, until};
use futures_util::future::join_all;

const KEYS: u64 = 64;
const MOST: usize = 4;
const LEAST: usize = 2;
const TASKS: u64 = 100;
/// The most polls before an operation is dropped.
const POLLS: u32 = 6;

fn builder(servers: &[MemcachedServer]) -> ClientBuilder {
    let builder =
        patient(servers.iter().map(MemcachedServer::addr)).operation_timeout(Duration::from_secs(30));
    builder.max_connections(MOST).min_connections(LEAST)
}

/// A value that tells whose it is, of one of many lengths.
fn value(key: &str, version: u64) -> Vec<u8> {
    format!("{key} {version};").repeat(1 + version as usize % 7 * 40).into_bytes()
}

/// Whether a value is one that was stored under this key, in whole.
fn is_of(key: &str, data: &[u8]) -> bool {
    let text = std::str::from_utf8(data).unwrap();
    let version = text.strip_prefix(key).and_then(|rest| rest[1..].split(';').next()?.parse().ok());
    version.is_some_and(|version| value(key, version) == data)
}

/// One of the tasks that ask at the same time.
struct Asker {
    client: Client,
    random: fastrand::Rng,
    /// Connections are lost: operations may fail, and what they have left behind stays.
    lossy: bool,
    asked: u64,
    answered: u64,
    won: u64,
}

impl Asker {
    fn of(client: &Client, seed: u64, lossy: bool) -> Self {
        let random = fastrand::Rng::with_seed(seed);
        Self { client: client.clone(), random, lossy, asked: 0, answered: 0, won: 0 }
    }

    /// What was answered, if it was.
    fn answer<T>(&self, outcome: Option<Result<T>>) -> Option<T> {
        match outcome? {
            Ok(answer) => Some(answer),
            Err(error) => {
                assert!(self.lossy && error.is_transient(), "{error:?}");
                None
            }
        }
    }

    fn key(&mut self, kind: &str) -> String {
        format!("{kind}:{}", self.random.u64(..KEYS))
    }

    async fn ask(&mut self, times: u64) {
        for _ in 0..times {
            let polls = self.random.u32(..=POLLS);
            let answered = match self.random.u32(..16) {
                0..6 => self.get(polls).await,
                6..8 => self.get_many(polls).await,
                8..11 => self.set(polls).await,
                11..13 => self.delete(polls).await,
                _ => self.lease(polls).await,
            };
            self.asked += 1;
            self.answered += u64::from(answered);
        }
    }

    /// Of a key that is always there, and of one that may be.
    async fn get(&mut self, polls: u32) -> bool {
        let always = self.random.bool();
        let key = self.key(if always { "stable" } else { "fleeting" });
        let found = drop_after(self.client.get(key.as_bytes()), polls).await;
        let Some(found) = self.answer(found) else { return false };
        assert!(found.is_some() || !always, "{key} is lost");
        assert!(found.is_none_or(|value| is_of(&key, &value.data)), "another's value under {key}");
        true
    }

    async fn get_many(&mut self, polls: u32) -> bool {
        let keys: [String; 5] =
            ["stable", "fleeting", "missing", "in base 64", "stable"].map(|kind| self.key(kind));
        let bytes = keys.each_ref().map(|key| key.as_bytes());
        let Some(found) = drop_after(self.client.get_many(&bytes), polls).await else { return false };
        for (key, found) in keys.iter().zip(found) {
            let Some(found) = self.answer(Some(found)) else { continue };
            assert!(found.is_some() || !key.starts_with("stable"), "{key} is lost");
            assert!(found.is_none() || !key.starts_with("missing"), "something under {key}");
            assert!(found.is_none_or(|value| is_of(key, &value.data)), "another's value under {key}");
        }
        true
    }

    async fn set(&mut self, polls: u32) -> bool {
        let kind = ["stable", "fleeting", "in base 64"][self.random.usize(..3)];
        let (key, version) = (self.key(kind), self.random.u64(..1_000));
        let value = value(&key, version);
        let set = self.client.set(key.as_bytes(), &value, setting(|o| o.exptime = seconds(600)));
        let stored = drop_after(set, polls).await;
        self.answer(stored).inspect(|stored| assert!(stored)).is_some()
    }

    async fn delete(&mut self, polls: u32) -> bool {
        let kind = ["fleeting", "in base 64", "leased"][self.random.usize(..3)];
        let key = self.key(kind);
        let deleted = drop_after(self.client.delete(key.as_bytes()), polls).await;
        self.answer(deleted).is_some()
    }

    /// Takes the lease of an absent key. Who learns that it has won fills, and is not dropped meanwhile.
    async fn lease(&mut self, polls: u32) -> bool {
        let key = self.key("leased");
        let take = getting(|o| {
            (o.value, o.client_flags, o.cas, o.vivify) = (true, true, true, Some(seconds(600)));
        });
        let taken = drop_after(self.client.meta_get(key.as_bytes(), take), polls).await;
        let Some(taken) = self.answer(taken) else { return false };
        let (reply, data) = (&taken.reply, taken.reply.value.as_ref().unwrap());
        assert_eq!(reply.status, Status::Value);
        assert!(data.is_empty() || is_of(&key, data), "another's value under {key}");
        if reply.won {
            self.won += 1;
            let (value, fill) =
                (value(&key, self.random.u64(..1_000)), setting(|o| o.compare_cas = reply.cas));
            let filled = self.client.meta_set_over(taken.connection, key.as_bytes(), &value, fill).await;
            let filled = self.answer(Some(filled));
            assert!(self.lossy || filled.flatten().is_some(), "no connection was lost");
        }
        true
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_million_dropped_operations_give_nobody_anothers_answer_and_leave_nothing_behind() {
    let operations: u64 = std::env::var("CACHE_KIT_OPERATIONS")
        .ok()
        .and_then(|operations| operations.parse().ok())
        .unwrap_or(1_000_000);
    let (seed, servers) = (seed(), [MemcachedServer::start(), MemcachedServer::start()]);
    let census = servers.each_ref().map(Census::of);
    let client = builder(&servers).build().unwrap();
    for n in 0..KEYS {
        let key = format!("stable:{n}");
        assert!(client.set(key.as_bytes(), &value(&key, n), setting(|_| {})).await.unwrap());
    }
    let stop = Arc::new(AtomicBool::new(false));
    let watchers = census.map(|census| census.watch(&stop));

    let began = Instant::now();
    let storm = (0..TASKS).map(|task| {
        let mut asker = Asker::of(&client, seed.wrapping_add(task), false);
        tokio::spawn(async move {
            asker.ask(operations / TASKS).await;
            (asker.asked, asker.answered, asker.won)
        })
    });
    let storm: Vec<_> = storm.collect();
    let (mut asked, mut answered, mut won) = (0, 0, 0);
    for task in storm {
        let of_it = task.await.unwrap();
        (asked, answered, won) = (asked + of_it.0, answered + of_it.1, won + of_it.2);
    }
    println!("{answered} of {asked} operations were answered, {won} leases won, in {:?}", began.elapsed());

    stop.store(true, SeqCst);
    for (watcher, server) in watchers.into_iter().zip(&servers) {
        let (mut census, most, looks) = watcher.join().unwrap();
        let after = census.clients();
        println!(
            "at most {most} connections in {looks} looks, {after} afterwards; {} in all",
            server.stat("total_connections")
        );
        assert!(looks > 10 && (LEAST..=MOST).contains(&most), "{most} connections");
        assert!((LEAST..=MOST).contains(&after), "{after} connections afterwards");
    }
    for n in 0..KEYS {
        let key = format!("stable:{n}");
        let found = bounded(client.get(key.as_bytes())).await.unwrap().unwrap();
        assert!(is_of(&key, &found.data), "{key}");
    }
    // A lease that was won by somebody who has gone was given back: no key is left that nobody may fill.
    let leased: Vec<String> = (0..KEYS).map(|n| format!("leased:{n}")).collect();
    until("the last leases", Duration::from_secs(5), async || {
        let keys: Vec<&[u8]> = leased.iter().map(String::as_bytes).collect();
        let found = client.get_many(&keys).await;
        found.into_iter().all(|found| found.unwrap().is_none_or(|value| !value.data.is_empty()))
    })
    .await;
    assert!(asked == operations / TASKS * TASKS && answered > asked / 10 && answered < asked && won > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn operations_dropped_while_connections_are_lost_give_nobody_anothers_answer() {
    let (seed, server) = (seed(), MemcachedServer::start());
    let (census, proxy) = (Census::of(&server), FaultProxy::start(server.addr()));
    let direct = patient([server.addr()]).max_connections(1).min_connections(0).build().unwrap();
    for n in 0..KEYS {
        let key = format!("stable:{n}");
        assert!(direct.set(key.as_bytes(), &value(&key, n), setting(|_| {})).await.unwrap());
    }
    let client = patient([proxy.addr()]).max_connections(MOST).min_connections(LEAST).build().unwrap();
    let stop = Arc::new(AtomicBool::new(false));
    let watcher = census.watch(&stop);
    let storm = (0..TASKS / 4).map(|task| {
        let (mut asker, stop) = (Asker::of(&client, seed.wrapping_add(task), true), Arc::clone(&stop));
        tokio::spawn(async move {
            while !stop.load(SeqCst) {
                asker.ask(20).await;
                // A server that is taken to be down answers at once, and that is no reason to keep others from running.
                tokio::task::yield_now().await;
            }
            (asker.asked, asker.answered)
        })
    });
    let storm: Vec<_> = storm.collect();
    let began = Instant::now();
    let mut lost = 0;
    while began.elapsed() < Duration::from_secs(3) {
        // As soon as some of it has been answered over what there is.
        let before = direct.stats(StatsTopic::General).await.remove(0).unwrap();
        let gets = |stats: &[Stat]| stats.iter().find(|stat| &*stat.name == "cmd_get").unwrap().value.clone();
        until("the next answer", Duration::from_secs(5), async || {
            gets(&direct.stats(StatsTopic::General).await.remove(0).unwrap()) != gets(&before)
        })
        .await;
        lost += proxy.connections();
        tokio::task::block_in_place(|| proxy.cut_all(if lost % 2 == 0 { Cut::Fin } else { Cut::Rst }));
    }
    stop.store(true, SeqCst);
    let (mut asked, mut answered) = (0, 0);
    for task in storm {
        let of_it = task.await.unwrap();
        (asked, answered) = (asked + of_it.0, answered + of_it.1);
    }
    let (_, most, _) = watcher.join().unwrap();
    println!(
        "{answered} of {asked} were answered while {lost} connections were lost; at most {most} at once"
    );
    // One is the direct client's; and the proxy's to the server end a moment later than ours to the proxy.
    assert!(most <= 2 * MOST + 1, "{most}");
    assert!(lost > 3 && answered > 100);
    until("the connections", Duration::from_secs(5), async || {
        client.get(b"stable:0").await.is_ok() && (LEAST..=MOST).contains(&proxy.connections())
    })
    .await;
    for n in 0..KEYS {
        let key = format!("stable:{n}");
        let found = bounded(client.get(key.as_bytes())).await.unwrap().unwrap();
        assert!(is_of(&key, &found.data), "{key}");
    }
}

#[tokio::test]
async fn a_lease_whose_winner_is_gone_is_given_back_however_late_it_went() {
    let servers = [MemcachedServer::start()];
    let client = builder(&servers).build().unwrap();
    client.connect().await.unwrap();
    let take = getting(|o| (o.value, o.cas, o.vivify) = (true, true, Some(seconds(600))));
    let mut given_back = 0;
    for polls in 0..12 {
        for round in 0..20 {
            let key = format!("a key {polls} {round}");
            if drop_after(client.meta_get(key.as_bytes(), take), polls).await.is_none() {
                let again = until("the lease", Duration::from_secs(5), async || {
                    let found = client.meta_get(key.as_bytes(), getting(|_| {})).await.unwrap();
                    found.reply.status == Status::Miss
                });
                again.await;
                given_back += 1;
            }
            // And a value that somebody has stored meanwhile is not what is given back.
            let key = format!("filled {polls} {round}");
            let taken = drop_after(client.meta_get(key.as_bytes(), take), polls).await;
            client.set(key.as_bytes(), b"value", setting(|_| {})).await.unwrap();
            client.meta_get(b"so that all before was answered", getting(|_| {})).await.unwrap();
            let found = client.get(key.as_bytes()).await.unwrap();
            assert_eq!(found.unwrap().data, "value", "{}", taken.is_none());
        }
    }
    println!("{given_back} were given back; {:?} deletions", servers[0].stat("delete_hits"));
    assert!(given_back > 0);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_connects_first_and_goes_away_leaves_its_connection_to_the_others() {
    let servers = [MemcachedServer::start()];
    for polls in 0..8 {
        let client = builder(&servers).max_connections(1).min_connections(0).build().unwrap();
        assert!(drop_after(client.get(b"key"), polls).await.is_none_or(|found| found.is_ok()));
        let others = (0..10).map(|_| client.meta_delete(b"key", deleting(|_| {})));
        bounded(join_all(others)).await.into_iter().for_each(|answer| drop(answer.unwrap()));
        assert_eq!(client.connections(0), 1);
    }
}
