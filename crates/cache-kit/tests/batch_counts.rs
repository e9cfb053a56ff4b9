//! Many keys at once: how often the backend and the source are asked, how many at a time, and how long a batch may take.

#![cfg(all(feature = "redis", feature = "memcached"))]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cache_kit::backend::{CacheBackend, InMemoryBackend, MemcachedBackend, MemcachedConfig, RedisBackend};
use cache_kit::testing::{FaultyBackend, Gate, Operation};
use cache_kit::{
    Cache, CacheExpander, DataRepository, Error, ErrorKind, Limits, LoadOptions, ManualClock,
    OperationConfig, Outcome, Result, Source, Stored,
};
use cache_kit_test_support::{Direction, Fault, FaultProxy, MemcachedServer, RedisServer};
use common::engine::Place;
use common::{SourceDown, User, bounded, until};
use futures_util::FutureExt as _;
use futures_util::future::join_all;

const LONG: Duration = Duration::from_secs(20);
const SECOND: Duration = Duration::from_secs(1);

type Answers = Vec<Result<Outcome<Option<User>>>>;

fn user(id: u64) -> User {
    User { id, name: format!("user {id}") }
}

/// A table of all users but every twentieth, which remembers what it is asked.
#[derive(Clone, Default)]
struct Table {
    asked: Arc<Mutex<Vec<Vec<u64>>>>,
    under_way: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    gate: Option<Gate>,
    /// Forgets the last answer.
    is_short: bool,
}

impl Table {
    fn behind(&self, gate: &Gate) -> Self {
        Self { gate: Some(gate.clone()), ..self.clone() }
    }

    /// What it was asked since this was called last.
    fn asked(&self) -> Vec<Vec<u64>> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

impl DataRepository<User> for Table {
    async fn fetch_by_id(&self, id: &u64) -> Result<Option<User>> {
        Ok(self.fetch_by_ids(&[*id]).await?.remove(0))
    }

    async fn fetch_by_ids(&self, ids: &[u64]) -> Result<Vec<Option<User>>> {
        self.asked.lock().unwrap().push(ids.to_vec());
        let now = self.under_way.fetch_add(1, Ordering::SeqCst) + 1;
        self.most.fetch_max(now, Ordering::SeqCst);
        if let Some(gate) = &self.gate {
            gate.pass().await;
        }
        self.under_way.fetch_sub(1, Ordering::SeqCst);
        let ids = if self.is_short { &ids[1..] } else { ids };
        Ok(ids.iter().map(|id| (id % 20 != 19).then(|| user(*id))).collect())
    }
}

/// One whose answers fail one by one.
struct Failing(Table);

impl DataRepository<User> for Failing {
    async fn fetch_by_id(&self, id: &u64) -> Result<Option<User>> {
        self.0.fetch_by_id(id).await
    }

    async fn fetch_each(&self, ids: &[u64]) -> Vec<Result<Option<User>>> {
        let found = self.0.fetch_by_ids(ids).await.unwrap().into_iter();
        let fails = |id: &u64| id % 20 == 3;
        found
            .zip(ids)
            .map(|(found, id)| if fails(id) { Err(Error::source(SourceDown(*id))) } else { Ok(found) })
            .collect()
    }
}

/// Of a thousand ids 700 are cached, 200 are not, 50 are loaded by others, and 50 the table does not have.
const HIT: std::ops::Range<u64> = 0..14;
const ELSEWHERE: u64 = 18;
const UNKNOWN: u64 = 19;

fn ids(which: impl Fn(u64) -> bool) -> Vec<u64> {
    (0..1_000).filter(|id| which(id % 20)).collect()
}

/// A cache over some servers, whose time stands still: nothing is renewed, and nothing ends.
struct Stage<B: CacheBackend> {
    expander: Arc<CacheExpander<B>>,
    table: Table,
    others: Gate,
}

impl<B: CacheBackend> Stage<B> {
    async fn new(backend: B) -> Self {
        let expander = CacheExpander::new(backend).with_clock(ManualClock::new().clock());
        let stage = Self { expander: Arc::new(expander), table: Table::default(), others: Gate::new() };
        let hits = ids(|n| HIT.contains(&n));
        stage.expander.get_many::<User, _>(&hits, &stage.table).await.unwrap();
        stage
    }

    /// Begins the loads of others, half of them in a batch. They stand at a gate until it is opened.
    async fn begin_others(&self) -> Vec<tokio::task::JoinHandle<()>> {
        let mut ids = ids(|n| n == ELSEWHERE);
        let alone = ids.split_off(25);
        let each: Vec<Vec<u64>> = alone.iter().map(|id| vec![*id]).chain([ids]).collect();
        let tasks = each.into_iter().map(|ids| {
            let (expander, table) = (Arc::clone(&self.expander), self.table.behind(&self.others));
            tokio::spawn(async move {
                let found = match ids[..] {
                    [id] => vec![expander.get(&id, &table).await.unwrap()],
                    _ => expander.get_many(&ids, &table).await.unwrap(),
                };
                assert!(found.iter().zip(&ids).all(|(found, id)| *found == Some(user(*id))));
            })
        });
        let tasks: Vec<_> = tasks.collect();
        for _ in &tasks {
            bounded(self.others.reached()).await;
        }
        self.table.asked();
        tasks
    }

    /// The thousand ids in a task of its own.
    fn begin(&self, table: &Table) -> tokio::task::JoinHandle<Answers> {
        let (expander, table) = (Arc::clone(&self.expander), table.clone());
        tokio::spawn(async move {
            let all = ids(|_| true);
            bounded(expander.get_many_outcomes(&all, &table, OperationConfig::default())).await.unwrap()
        })
    }

    /// What the batch answers when the others' loads end, and when it is asked for once more.
    async fn check(&self, batch: tokio::task::JoinHandle<Answers>, others: Vec<tokio::task::JoinHandle<()>>) {
        assert_eq!(self.table.asked(), [ids(|n| !HIT.contains(&n) && n != ELSEWHERE)], "one call");
        self.others.open();
        let first = bounded(batch).await.unwrap();
        bounded(join_all(others)).await.into_iter().for_each(|other| other.unwrap());
        for (id, answer) in first.iter().enumerate() {
            let (id, answer) = (id as u64, answer.as_ref().unwrap());
            let (source, stored) = match id % 20 {
                n if HIT.contains(&n) => (Source::Cache, Stored::NotAsked),
                ELSEWHERE => (Source::SharedLoad, Stored::Yes),
                UNKNOWN => (Source::Nowhere, Stored::Yes),
                _ => (Source::Load, Stored::Yes),
            };
            assert_eq!((answer.source, answer.stored), (source, stored), "{id}: {answer:?}");
        }
        let again = bounded(self.begin(&self.table)).await.unwrap();
        assert!(again.iter().all(|answer| answer.as_ref().unwrap().source == Source::Cache));
        for answers in [&first, &again] {
            assert_eq!(answers.len(), 1_000);
            for (id, answer) in answers.iter().enumerate() {
                let id = id as u64;
                assert_eq!(answer.as_ref().unwrap().value, (id % 20 != UNKNOWN).then(|| user(id)));
            }
        }
        assert_eq!(self.table.asked(), Vec::<Vec<u64>>::new(), "all is known");
        assert_eq!((self.expander.gauges().loads, self.expander.gauges().waiting), (0, 0));
    }
}

/// How often a server was sent each command, or a script of it called it.
fn commands(server: &RedisServer) -> BTreeMap<String, u64> {
    let stats = server.command("INFO commandstats");
    let lines = stats.lines().filter_map(|line| {
        let (command, numbers) = line.strip_prefix("cmdstat_")?.split_once(":calls=")?;
        let calls = numbers.split(',').next()?.parse().ok()?;
        Some((command.to_owned(), calls))
    });
    lines.filter(|(command, _)| !["info", "config|resetstat"].contains(&&**command)).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_ids_take_one_read_one_lease_and_one_fill_command_on_redis() {
    let server = RedisServer::start();
    let backend = RedisBackend::builder_from_url(&server.url()).unwrap().operation_timeout(LONG);
    let stage = Stage::new(backend.build().unwrap()).await;
    let others = stage.begin_others().await;
    assert_eq!(server.command("CONFIG RESETSTAT"), "OK");
    let before = stage.expander.stats();
    let batch = stage.begin(&stage.table);
    until("it is stored", LONG, async || stage.expander.stats().since(&before).stored == 250).await;
    let counts = commands(&server);
    println!("{counts:?}");
    stage.check(batch, others).await;
    // The rest is what the two scripts do for their keys, in the server.
    let rest: Vec<_> = counts.iter().map(|(command, calls)| (&**command, *calls)).collect();
    assert_eq!(rest, [("evalsha", 2), ("get", 500), ("mget", 1), ("set", 500), ("time", 2)]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_thousand_ids_take_one_exchange_to_read_one_to_lease_and_one_to_fill_on_each_memcached() {
    for count in [1, 3] {
        let servers: Vec<_> = (0..count).map(|_| MemcachedServer::start()).collect();
        let proxies: Vec<_> = servers.iter().map(|server| FaultProxy::start(server.addr())).collect();
        let addrs = proxies.iter().map(FaultProxy::addr).collect();
        let config = MemcachedConfig { servers: addrs, max_connections: 2, min_connections: 0 };
        let backend = MemcachedBackend::builder(config).operation_timeout(LONG).build().unwrap();
        let stage = Stage::new(backend).await;
        let others = stage.begin_others().await;
        let stat = |name: &str| servers.iter().map(|server| server.stat(name)).sum::<u64>();
        let connections = || proxies.iter().map(FaultProxy::total_connections).sum::<u64>();
        // What the servers answer is held back until all of an exchange has arrived there; then it is let through, and
        // what they answer to the next one is held back.
        let hold_back = || proxies.iter().for_each(|proxy| proxy.set(Direction::ToClient, Fault::Stall));
        let (gets, sets, gate) = (stat("cmd_get"), stat("cmd_set"), Gate::new());
        let connected = connections();
        let now = || (stat("cmd_get") - gets, stat("cmd_set") - sets);
        hold_back();
        let batch = stage.begin(&stage.table.behind(&gate));
        until("all keys are asked for", LONG, async || now().0 >= 1_000).await;
        assert_eq!(now(), (1_000, 0), "and nothing else");
        hold_back();
        until("all leases are asked for", LONG, async || now().0 >= 1_250).await;
        let leased = now();
        hold_back();
        bounded(gate.reached()).await;
        assert_eq!(now(), leased, "the source is asked after one exchange");
        gate.open();
        until("all is stored", LONG, async || now().1 >= leased.1 + 250).await;
        assert_eq!(now(), (leased.0, leased.1 + 250));
        proxies.iter().for_each(FaultProxy::clear);
        println!("{count} servers: (gets, sets) {leased:?} with the leases, {:?} in all", now());
        assert_eq!((leased, connections() - connected), ((1_250, 0), 0), "no more than it takes");
        stage.check(batch, others).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_dead_server_does_not_say_is_not_known_and_is_not_taken_for_missing() {
    let servers: Vec<_> = (0..3).map(|_| MemcachedServer::start()).collect();
    let addrs = servers.iter().map(MemcachedServer::addr).collect();
    let config = MemcachedConfig { servers: addrs, max_connections: 2, min_connections: 0 };
    let backend = MemcachedBackend::builder(config).build().unwrap();
    let (expander, table) = (CacheExpander::new(backend), Table::default());
    let all: Vec<u64> = (0..300).collect();
    let is_dead = |id: &u64| expander.backend().shard_of(&format!("user:{id}")) == 1;
    let cached = &all[..100];
    bounded(expander.get_many::<User, _>(cached, &table)).await.unwrap();
    table.asked();
    servers[1].kill();
    for is_again in [false, true] {
        let config = OperationConfig::default();
        let answers = bounded(expander.get_many_outcomes::<User, _>(&all, &table, config)).await.unwrap();
        for (id, answer) in all.iter().zip(&answers) {
            let answer = answer.as_ref().unwrap();
            assert_eq!(answer.value, (id % 20 != UNKNOWN).then(|| user(*id)), "{id}");
            let (is_hit, stored) = match (is_dead(id), is_again || cached.contains(id)) {
                (true, _) => (false, Stored::BackendUnknown),
                (false, true) => (true, Stored::NotAsked),
                (false, false) => (false, Stored::Yes),
            };
            assert_eq!((answer.is_hit(), answer.stored), (is_hit, stored), "{id}: {answer:?}");
            assert_eq!(answer.is_degraded(), is_dead(id), "{id}: {answer:?}");
        }
        let mut asked = table.asked();
        asked.iter_mut().for_each(|ids| ids.sort_unstable());
        let expected = |id: &&u64| is_dead(id) || !(is_again || cached.contains(id));
        assert_eq!(asked, [all.iter().filter(expected).copied().collect::<Vec<_>>()]);
    }
    let dead = all.iter().filter(|id| is_dead(id)).count();
    assert!((30..270).contains(&dead), "{dead}");
    servers[1].restart();
    let is_back = async || expander.backend().health_check().await.is_ok_and(|is_well| is_well);
    until("it is there again", LONG, is_back).await;
    for id in all.iter().filter(|id| is_dead(id)) {
        assert_eq!(expander.backend().get(&format!("user:{id}")).await.unwrap(), None, "{id}");
    }
}

#[tokio::test]
async fn a_backend_that_cannot_be_read_is_not_written_to_and_no_absence_is_remembered() {
    for is_lease in [false, true] {
        let (backend, faults) = FaultyBackend::new(InMemoryBackend::new());
        let (expander, table) = (CacheExpander::new(backend), Table::default());
        // Its versions are known.
        expander.get_many::<User, _>(&[1], &table).await.unwrap();
        faults.fail([if is_lease { Operation::Acquire } else { Operation::Mget }]);
        let config = OperationConfig::default();
        let answers = expander.get_many_outcomes::<User, _>(&[1, 2, 19], &table, config).await.unwrap();
        let expected = [Some(user(1)), Some(user(2)), None];
        for (at, answer) in answers.into_iter().enumerate() {
            let answer = answer.unwrap();
            assert_eq!(answer.value, expected[at]);
            if is_lease && at == 0 {
                assert!(answer.is_hit());
            } else {
                assert_eq!((answer.is_hit(), answer.stored), (false, Stored::BackendUnknown));
                assert_eq!(answer.degraded.unwrap().kind(), ErrorKind::Unavailable);
            }
        }
        faults.heal();
        for key in ["user:2", "user:19"] {
            assert_eq!(expander.backend().get(key).await.unwrap(), None, "{key}");
        }
        table.asked();
        assert_eq!(expander.get_many(&[1, 2, 19], &table).await.unwrap(), expected);
        assert_eq!(table.asked(), [[2, 19]]);
    }
}

#[tokio::test]
async fn each_entity_that_a_repository_fails_with_fails_by_itself() {
    let (expander, table) = (CacheExpander::new(InMemoryBackend::new()), Table::default());
    for is_again in [false, true] {
        let repository = Failing(table.clone());
        let config = OperationConfig::default();
        let found = expander.get_many_outcomes::<User, _>(&[1, 3, 19, 4], &repository, config).await.unwrap();
        for (at, value) in [(0, Some(user(1))), (2, None), (3, Some(user(4)))] {
            let outcome = found[at].as_ref().unwrap();
            assert_eq!((&outcome.value, outcome.is_hit()), (&value, is_again));
        }
        assert_eq!(found[1].as_ref().unwrap_err().find_source(), Some(&SourceDown(3)));
        assert_eq!(table.asked(), [if is_again { vec![3] } else { vec![1, 3, 19, 4] }]);
        assert!(expander.get_many::<User, _>(&[1, 3], &repository).await.is_err());
        assert_eq!(table.asked(), [[3]]);
    }
}

fn timed(limits: Limits) -> (ManualClock, InMemoryBackend, CacheExpander<InMemoryBackend>) {
    let time = ManualClock::new();
    let memory = InMemoryBackend::builder().clock(time.clock()).build().unwrap();
    let expander = CacheExpander::new(memory.clone()).with_clock(time.clock()).with_limits(limits).unwrap();
    (time, memory, expander)
}

#[tokio::test]
async fn a_large_batch_is_loaded_in_parts_of_which_only_so_many_at_a_time() {
    let limits = Limits::default().with_max_batch_keys(1_000).with_max_batch_loads(2);
    let expander = CacheExpander::new(InMemoryBackend::new()).with_limits(limits).unwrap();
    let (table, gate) = (Table::default(), Gate::new());
    let (slow, wanted) = (table.behind(&gate), (0..2_500).rev().collect::<Vec<u64>>());
    let test = async {
        bounded(gate.reached()).await;
        bounded(gate.reached()).await;
        common::settle().await;
        assert_eq!(table.asked(), [&wanted[..1_000], &wanted[1_000..2_000]], "two, in order");
        gate.open();
    };
    let (found, ()) = bounded(futures_util::future::join(expander.get_many(&wanted, &slow), test)).await;
    let expected: Vec<_> = wanted.iter().map(|id| (id % 20 != UNKNOWN).then(|| user(*id))).collect();
    assert!(found.unwrap() == expected, "in order");
    assert_eq!((table.asked(), table.most.load(Ordering::SeqCst)), (vec![wanted[2_000..].to_vec()], 2));
    assert!(bounded(expander.get_many(&wanted, &table)).await.unwrap() == expected);
    assert_eq!(table.asked(), Vec::<Vec<u64>>::new());
}

#[tokio::test]
async fn what_waits_behind_other_parts_of_its_batch_is_stored_however_long_they_take() {
    let (time, memory, expander) = timed(Limits::default().with_max_batch_keys(1).with_max_batch_loads(1));
    let (table, gate) = (Table::default(), Gate::new());
    let (slow, config) = (table.behind(&gate), OperationConfig::default());
    let mut batch = std::pin::pin!(expander.get_many_outcomes::<User, _>(&[1, 2], &slow, config));
    for _ in 0..10 {
        assert!(batch.as_mut().now_or_never().is_none());
        time.advance(SECOND / 2);
    }
    gate.open();
    let answers = bounded(batch).await.unwrap();
    assert!(answers.iter().all(|answer| answer.as_ref().unwrap().stored == Stored::Yes), "{answers:?}");
    assert_eq!((table.asked(), memory.stats().leases), (vec![vec![1], vec![2]], 0));
}

#[tokio::test]
async fn a_source_that_hangs_is_given_up_at_the_timeout_of_the_call_or_its_own_deadline() {
    let (time, memory, expander) = timed(Limits::default());
    let (table, patience) = (Table::default(), OperationConfig::default());
    expander.get_many::<User, _>(&[1], &table).await.unwrap();
    for (config, half_seconds) in [(patience.with_timeout(2 * SECOND), 4), (patience, 60)] {
        let slow = table.behind(&Gate::new());
        let mut batch = std::pin::pin!(expander.get_many_outcomes::<User, _>(&[2, 1, 3], &slow, config));
        for _ in 0..half_seconds {
            assert!(batch.as_mut().now_or_never().is_none());
            time.advance(SECOND / 2);
        }
        let answers = bounded(batch).await.unwrap();
        assert!(answers[1].as_ref().unwrap().is_hit());
        assert_eq!(answers[0].as_ref().unwrap_err().kind(), ErrorKind::Timeout);
        assert_eq!(answers[2].as_ref().unwrap_err().kind(), ErrorKind::Timeout);
        assert_eq!((memory.stats().leases, expander.gauges().loads, expander.gauges().waiting), (0, 0, 0));
    }
    let found = expander.get_many(&[2, 1, 3], &table).await.unwrap();
    assert_eq!(found, [2, 1, 3].map(|id| Some(user(id))));
}

#[tokio::test]
async fn a_loader_that_panics_is_an_error_of_each_key_it_was_asked_for_and_of_nothing_else() {
    let cache = Cache::new(InMemoryBackend::new());
    cache.set("1", &1).await.unwrap();
    // When it is called, or later.
    for at_once in [true, false] {
        let loader = move |_: Vec<String>| {
            assert!(!at_once, "out of order");
            async { panic!("out of order") as Result<Vec<(String, i32)>, SourceDown> }
        };
        let answers = cache.get_many_or_load_outcomes(["1", "2", "3"], LoadOptions::default(), loader);
        let mut answers = bounded(answers).await.unwrap().into_iter();
        assert!(answers.next().unwrap().unwrap().is_hit());
        assert!(answers.all(|answer| answer.unwrap_err().kind() == ErrorKind::LoaderPanicked));
    }
    let loader = |_| async { Ok::<_, SourceDown>([("3".to_owned(), 3), ("2".to_owned(), 2)]) };
    let found = cache.get_many_or_load(["1", "2", "3"], loader).await.unwrap();
    assert_eq!(found, [Some(1), Some(2), Some(3)]);
}

#[tokio::test]
async fn who_joined_a_batch_does_not_fail_with_its_timeout() {
    let (time, memory, expander) = timed(Limits::default());
    let (table, config) = (Table::default(), OperationConfig::default().with_timeout(SECOND / 2));
    let slow = table.behind(&Gate::new());
    let mut hasty = std::pin::pin!(expander.get_many_outcomes::<User, _>(&[1, 2], &slow, config));
    assert!(hasty.as_mut().now_or_never().is_none());
    let mut patient = std::pin::pin!(expander.get::<User, _>(&1, &table));
    assert!(patient.as_mut().now_or_never().is_none());
    time.advance(SECOND / 2);
    assert!(bounded(hasty).await.unwrap().iter().all(Result::is_err));
    assert_eq!(bounded(patient).await.unwrap(), Some(user(1)), "loads it alone");
    assert_eq!((table.asked(), memory.stats().leases), (vec![vec![1, 2], vec![1]], 0));
}

#[tokio::test]
async fn a_backend_that_hangs_keeps_no_batch_past_its_timeout() {
    let mut hanging = Vec::new();
    for operation in [Operation::Mget, Operation::Acquire, Operation::Fill, Operation::Get] {
        let (backend, faults) = FaultyBackend::new(InMemoryBackend::new());
        let (expander, table) = (CacheExpander::new(backend), Table::default());
        faults.hang([operation]);
        let config = OperationConfig::default().with_timeout(SECOND / 5);
        let batch = expander.get_many_outcomes::<User, _>(&[1, 2], &table, config);
        if tokio::time::timeout(LONG / 4, batch).await.is_err() {
            hanging.push(operation);
        }
    }
    assert_eq!(hanging, []);
}

#[tokio::test]
async fn too_few_answers_are_an_error_that_says_so() {
    let expander = CacheExpander::new(InMemoryBackend::new());
    let table = Table { is_short: true, ..Table::default() };
    for retries in [0, 1] {
        let config = OperationConfig::default().with_retry(retries);
        for answer in expander.get_many_outcomes::<User, _>(&[1, 2, 3], &table, config).await.unwrap() {
            let error = answer.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Source);
            assert!(error.to_string().contains("2 answers for 3 ids"), "{error}");
        }
    }
    let found = expander.get_many(&[1, 2, 3], &Table::default()).await.unwrap();
    assert_eq!(found, [1, 2, 3].map(|id| Some(user(id))), "nothing was stored");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_keys_one_key_and_ten_thousand() {
    let (backend, faults) = FaultyBackend::new(InMemoryBackend::new());
    let (expander, table) = (CacheExpander::new(backend), Table::default());
    assert_eq!(expander.get_many::<User, _>(&[], &table).await.unwrap(), []);
    let asked =
        [Operation::Mget, Operation::Get, Operation::Acquire].map(|operation| faults.calls(operation));
    assert_eq!((asked, table.asked().len()), ([0; 3], 0));
    assert_eq!(expander.get_many(&[7], &table).await.unwrap(), [Some(user(7))]);
    assert_eq!(expander.get(&7, &table).await.unwrap(), Some(user(7)));
    assert_eq!(table.asked(), [[7]]);
    for place in [Place::memory(), Place::redis(), Place::memcached()] {
        let (cache, keys) = (place.cache(), (0..10_000).map(|n| n.to_string()).collect::<Vec<_>>());
        let calls = Arc::new(Mutex::new(Vec::new()));
        for expected in [vec![1_000; 10], vec![]] {
            let asked = Arc::clone(&calls);
            let loader = move |missing: Vec<String>| {
                asked.lock().unwrap().push(missing.len());
                async move {
                    let rows = missing.into_iter().map(|key| (key.clone(), format!("row of {key}")));
                    Ok::<_, SourceDown>(rows.collect::<Vec<_>>())
                }
            };
            let found = bounded(cache.get_many_or_load(&keys, loader)).await.unwrap();
            assert!(found.iter().zip(&keys).all(|(found, key)| *found == Some(format!("row of {key}"))));
            assert_eq!((found.len(), std::mem::take(&mut *calls.lock().unwrap())), (10_000, expected));
        }
    }
}
