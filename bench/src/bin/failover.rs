//! What faults of the topology cost who uses a Redis backend meanwhile.
//!
//! `cargo run --release --manifest-path bench/Cargo.toml --bin failover -- [rounds] [part of a name]`
//!
//! Eight tasks write and read keys of their own through all of each fault, and check what they read. Recovery is from the
//! moment that the new topology is there, as the servers themselves say, until the first write of a key that was
//! concerned is on the server that has it now, among those writes that began after that moment. What an old primary
//! still takes does not count, except for how long no write got through: that is what callers see.
//!
//! Fails when a value is wrong, when a call or a recovery takes for ever, when a slot that moves makes a call fail, and
//! when something could not be measured. The half-open link needs root and `ip` of iproute2.

use std::collections::BTreeMap;
use std::future::Future;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use cache_kit::backend::{CacheBackend, RedisBackend};
use cache_kit_bench::dead_link::Link;
use cache_kit_test_support::{RedisCluster, RedisSentinels, RedisServer};
use tokio::task::JoinHandle;
use tokio::time::{sleep, timeout};

const DEADLINE: Duration = Duration::from_millis(500);
/// A call may take so much longer than its deadline.
const MARGIN: Duration = Duration::from_millis(50);
/// No call may take so long.
const STUCK: Duration = Duration::from_secs(5);
/// What a recovery, or a topology, is waited for at most.
const LIMIT: Duration = Duration::from_secs(30);
/// A call that fails so soon was not sent anywhere.
const FAST: Duration = Duration::from_millis(5);
/// Of load before a fault and after it: what is late counts too.
const AROUND: Duration = Duration::from_millis(300);
/// How long a link is dead.
const DEAD: Duration = Duration::from_secs(4);
const TASKS: usize = 8;
const KEYS: usize = 50;
/// That move in one round.
const SLOTS: usize = 20;
/// Nodes vote once in two of their timeouts, of a second each, for the replicas of one primary.
const VOTE: Duration = Duration::from_secs(2);

/// Whether the server that has the keys now has this one.
type Has = Arc<dyn Fn(&str) -> bool + Send + Sync>;
/// When the new topology was there.
type Moment = (Instant, Has);

fn key(task: usize, n: usize) -> String {
    format!("load:{}:{}", task % TASKS, n % KEYS)
}

fn backend(url: &str) -> RedisBackend {
    let builder = RedisBackend::builder_from_url(url).expect("a URL");
    builder.operation_timeout(DEADLINE).build().expect("a backend")
}

/// Every key can be written, so that a round begins with all well.
async fn settle(backend: &RedisBackend) {
    let began = Instant::now();
    for key in (0..TASKS * KEYS).map(|n| key(n / KEYS, n)) {
        while backend.set(&key, Bytes::from(key.clone()), None).await.is_err() {
            assert!(began.elapsed() < LIMIT, "a backend that works");
            sleep(Duration::from_millis(5)).await;
        }
    }
}

/// Blocks until something is so. The main thread drives no task, so that it may.
fn until(what: &str, so: impl Fn() -> bool) -> Instant {
    let began = Instant::now();
    while !so() {
        assert!(began.elapsed() < LIMIT, "not in {LIMIT:?}: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
    Instant::now()
}

fn holds(server: &RedisServer, key: &str) -> bool {
    server.try_command(&format!("EXISTS {key}"), STUCK).is_ok_and(|reply| reply == "1")
}

fn is_primary(server: &RedisServer) -> bool {
    server.try_command("ROLE", STUCK).is_ok_and(|role| role.starts_with("master"))
}

/// What the tasks of one round have seen so far.
#[derive(Default)]
struct Seen {
    calls: u64,
    wrong: u64,
    /// Reads that did not find what had just been stored.
    missing: u64,
    longest: Duration,
    /// How many calls have failed in which way.
    failed: BTreeMap<String, u64>,
    failed_fast: Option<Instant>,
    /// The last write of a key that is concerned, and the longest time without one.
    written: Option<Instant>,
    gap: Duration,
    /// In braces, so that what is written to find the recovery goes where the concerned keys are.
    tag: String,
    has: Option<Has>,
    recovered: Option<Instant>,
}

/// What the tasks of one round share.
#[derive(Default)]
struct Shared {
    stop: AtomicBool,
    seen: Mutex<Seen>,
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What a call gives, unless it fails.
    async fn call<T>(&self, call: impl Future<Output = cache_kit::Result<T>>) -> Option<T> {
        let began = Instant::now();
        let answer = timeout(STUCK, call).await;
        let (took, mut seen) = (began.elapsed(), self.lock());
        seen.calls += 1;
        seen.longest = seen.longest.max(took);
        let how = match answer {
            Ok(Ok(value)) => return Some(value),
            Ok(Err(error)) => error.kind().to_string(),
            Err(_) => "stuck".to_owned(),
        };
        *seen.failed.entry(how).or_default() += 1;
        if took < FAST {
            seen.failed_fast.get_or_insert(began + took);
        }
        None
    }

    async fn work(&self, backend: &RedisBackend, task: usize) {
        for n in 0.. {
            if self.stop.load(Ordering::Relaxed) {
                return;
            }
            let key = key(task, n);
            let stored = self.call(backend.set(&key, Bytes::from(key.clone()), None)).await;
            match self.call(backend.get(&key)).await {
                Some(Some(value)) => self.lock().wrong += u64::from(value != key),
                Some(None) => self.lock().missing += u64::from(stored.is_some()),
                None => {}
            }
            self.probe(backend, task, n).await;
            sleep(Duration::from_micros(200)).await;
        }
    }

    /// Writes a key that is concerned: the same again and again, or one that nobody has yet while a recovery is waited
    /// for.
    async fn probe(&self, backend: &RedisBackend, task: usize, n: usize) {
        let (key, has) = {
            let seen = self.lock();
            let has = seen.has.clone().filter(|_| seen.recovered.is_none());
            let what = if has.is_some() { n.to_string() } else { "same".to_owned() };
            (format!("{{{}}}:{task}:{what}", seen.tag), has)
        };
        let ttl = Some(Duration::from_secs(10));
        if self.call(backend.set(&key, Bytes::from(key.clone()), ttl)).await.is_none() {
            return;
        }
        let at = Instant::now();
        let arrived = has.is_some_and(|has| tokio::task::block_in_place(|| has(&key)));
        let mut seen = self.lock();
        let last = seen.written.unwrap_or(at);
        seen.gap = seen.gap.max(at.saturating_duration_since(last));
        seen.written = Some(at.max(last));
        if arrived {
            seen.recovered = Some(seen.recovered.map_or(at, |other| other.min(at)));
        }
    }
}

struct Load {
    shared: Arc<Shared>,
    tasks: Vec<JoinHandle<()>>,
}

impl Load {
    fn start(backend: &RedisBackend, tag: &str) -> Self {
        let shared = Arc::new(Shared::default());
        shared.lock().tag = tag.to_owned();
        let task = |task| {
            let (shared, backend) = (Arc::clone(&shared), backend.clone());
            tokio::spawn(async move { shared.work(&backend, task).await })
        };
        let tasks = (0..TASKS).map(task).collect();
        Self { shared, tasks }
    }

    /// How long after the moment a write came through; `None` if none did.
    async fn recovery(&self, tag: &str, (since, has): Moment) -> Option<Duration> {
        {
            let mut seen = self.shared.lock();
            (seen.tag, seen.has, seen.recovered) = (tag.to_owned(), Some(has), None);
        }
        while since.elapsed() < LIMIT {
            if let Some(at) = self.shared.lock().recovered {
                return Some(at.saturating_duration_since(since));
            }
            sleep(Duration::from_millis(1)).await;
        }
        None
    }

    async fn stop(self) -> Seen {
        self.shared.stop.store(true, Ordering::Relaxed);
        for task in self.tasks {
            let ended = timeout(3 * STUCK, task).await;
            if ended.is_err() {
                *self.shared.lock().failed.entry("stuck".to_owned()).or_default() += 1;
            }
        }
        std::mem::take(&mut *self.shared.lock())
    }
}

#[derive(Default)]
struct Figures {
    name: &'static str,
    recovered: Vec<Option<Duration>>,
    noticed: Vec<Option<Duration>>,
    rounds: Vec<Seen>,
}

fn spread(mut times: Vec<Duration>) -> String {
    times.sort_unstable();
    let at = |share: f64| times[((times.len() - 1) as f64 * share).ceil() as usize];
    format!("median {:.1?}, p90 {:.1?}, p99 {:.1?}, longest {:.1?}", at(0.5), at(0.9), at(0.99), at(1.0))
}

impl Figures {
    /// One line; whether all was as it has to be.
    fn print(self, may_fail: bool) -> bool {
        let Self { name, recovered, noticed, rounds } = self;
        let sum = |what: fn(&Seen) -> u64| rounds.iter().map(what).sum::<u64>();
        let wrong = sum(|seen| seen.wrong);
        let stuck = sum(|seen| seen.failed.get("stuck").copied().unwrap_or(0));
        let mut failed: Vec<u64> = rounds.iter().map(|seen| seen.failed.values().sum()).collect();
        failed.sort_unstable();
        let (median, most) = (failed[failed.len() / 2], failed[failed.len() - 1]);
        let mut ways = BTreeMap::<_, u64>::new();
        for (way, count) in rounds.iter().flat_map(|seen| &seen.failed) {
            *ways.entry(way).or_default() += count;
        }
        let longest = rounds.iter().map(|seen| seen.longest).max().unwrap_or_default();
        let late = longest.saturating_sub(DEADLINE);
        let verdict = if late > MARGIN { "OVER the bound" } else { "within the bound" };
        let noticed = match noticed.len() {
            0 => String::new(),
            _ => {
                format!("noticed: {}; ", spread(noticed.iter().map(|after| after.unwrap_or(DEAD)).collect()))
            }
        };
        let sound =
            wrong == 0 && stuck == 0 && recovered.iter().all(Option::is_some) && (may_fail || most == 0);
        println!(
            "{name:<36} {noticed}recovery: {}; no write for: {}; longest call {longest:.1?}, {late:.1?} after its \
             deadline, {verdict}; failed calls: median {median}, most {most} a round of {} calls on average {ways:?}; \
             {} not found, {wrong} wrong, {stuck} stuck; {} rounds{}",
            spread(recovered.iter().map(|after| after.unwrap_or(LIMIT)).collect()),
            spread(rounds.iter().map(|seen| seen.gap).collect()),
            sum(|seen| seen.calls) / rounds.len() as u64,
            sum(|seen| seen.missing),
            rounds.len(),
            if sound { "" } else { " -- FAILED" }
        );
        sound
    }
}

struct Plan {
    rounds: usize,
    only: String,
}

impl Plan {
    fn figures(&self, name: &'static str) -> Option<Figures> {
        name.contains(&self.only).then(|| Figures { name, ..Figures::default() })
    }

    /// Makes a fault in each round, and mends what it broke.
    async fn run(
        &self,
        mut figures: Figures,
        url: &str,
        fault: impl Fn(&str) -> Moment,
        mend: impl Fn(),
    ) -> bool {
        let backend = backend(url);
        for round in 0..self.rounds {
            settle(&backend).await;
            // Another one each time, and so another node.
            let tag = key(0, round);
            let load = Load::start(&backend, &tag);
            sleep(AROUND).await;
            figures.recovered.push(load.recovery(&tag, fault(&tag)).await);
            sleep(AROUND).await;
            figures.rounds.push(load.stop().await);
            mend();
        }
        figures.print(true)
    }

    async fn role_change(&self) -> bool {
        let Some(figures) = self.figures("READONLY after a role change") else { return true };
        let server = Arc::new(RedisServer::start());
        let other = RedisServer::builder().arg("--repl-diskless-sync-delay").arg("0").start();
        let fault = |_: &str| -> Moment {
            server.command(&format!("REPLICAOF 127.0.0.1 {}", other.port()));
            std::thread::sleep(Duration::from_secs(1));
            server.command("REPLICAOF NO ONE");
            let (since, server) = (Instant::now(), Arc::clone(&server));
            (since, Arc::new(move |key| holds(&server, key)))
        };
        self.run(figures, &server.url(), fault, || {}).await
    }

    async fn half_open(&self, name: &'static str, idle: bool) -> bool {
        let Some(mut figures) = self.figures(name) else { return true };
        let link = match Link::new() {
            Ok(link) => link,
            Err(why) => {
                println!("{name:<36} not measured: {why}");
                return false;
            }
        };
        let (backend, tag) = (backend(&link.url()), key(0, 0));
        for _ in 0..self.rounds {
            settle(&backend).await;
            let load = (!idle).then(|| Load::start(&backend, &tag));
            sleep(AROUND).await;
            link.set("down");
            let (down, mut noticed) = (Instant::now(), None);
            while down.elapsed() < DEAD {
                let failed_fast = load.as_ref().and_then(|load| load.shared.lock().failed_fast);
                if noticed.is_none() && (backend.connections() == 0 || failed_fast.is_some()) {
                    noticed = Some(down.elapsed());
                }
                sleep(Duration::from_millis(1)).await;
            }
            figures.noticed.push(noticed);
            link.set("up");
            let up = Instant::now();
            let load = load.unwrap_or_else(|| Load::start(&backend, &tag));
            figures.recovered.push(load.recovery(&tag, (up, Arc::new(|_| true))).await);
            sleep(AROUND).await;
            figures.rounds.push(load.stop().await);
        }
        figures.print(true)
    }

    async fn slot_migration(&self) -> bool {
        let Some(mut figures) = self.figures("slot migration") else { return true };
        let cluster = Arc::new(RedisCluster::builder().replicas(0).start());
        let backend = backend(&cluster.url());
        for round in 0..self.rounds {
            settle(&backend).await;
            let load = Load::start(&backend, &key(0, 0));
            sleep(AROUND).await;
            for n in (round * SLOTS..).take(SLOTS) {
                let tag = key(n, n / TASKS);
                let slot = cluster.slot(&tag);
                let to = (cluster.primary_of(slot) + 1) % 3;
                cluster.move_slot(slot, to);
                let (since, cluster) = (Instant::now(), Arc::clone(&cluster));
                let has = Arc::new(move |key: &str| holds(&cluster.nodes()[to], key));
                figures.recovered.push(load.recovery(&tag, (since, has)).await);
            }
            figures.rounds.push(load.stop().await);
        }
        figures.print(false)
    }

    async fn cluster(&self, name: &'static str, fault: fn(&RedisCluster, u16) -> (Instant, usize)) -> bool {
        let Some(figures) = self.figures(name) else { return true };
        let cluster = Arc::new(RedisCluster::builder().partial_coverage().start());
        let fault = |tag: &str| -> Moment {
            let ((since, new), cluster) = (fault(&cluster, cluster.slot(tag)), Arc::clone(&cluster));
            (since, Arc::new(move |key| holds(&cluster.nodes()[new], key)))
        };
        let mend = || {
            let dead = (0..cluster.nodes().len()).filter(|node| !cluster.nodes()[*node].is_alive());
            dead.for_each(|node| cluster.restart(node));
            cluster.wait_until_ok();
            std::thread::sleep(VOTE);
        };
        self.run(figures, &cluster.url(), fault, mend).await
    }

    async fn sentinels(&self, name: &'static str, fault: fn(&RedisSentinels, &RedisServer)) -> bool {
        let Some(figures) = self.figures(name) else { return true };
        let sentinels = Arc::new(RedisSentinels::start());
        let fault = |_: &str| -> Moment {
            let old = sentinels.primary();
            fault(&sentinels, &sentinels.servers()[old]);
            let new = &sentinels.servers()[1 - old];
            let since = until("the replica takes over", || sentinels.primary() != old && is_primary(new));
            let sentinels = Arc::clone(&sentinels);
            (since, Arc::new(move |key| holds(&sentinels.servers()[1 - old], key)))
        };
        let mend = || {
            for server in sentinels.servers() {
                if server.is_alive() { server.resume() } else { server.restart() }
            }
            sentinels.wait_until_ok();
        };
        self.run(figures, &sentinels.url(), fault, mend).await
    }
}

fn kill(cluster: &RedisCluster, slot: u16) -> (Instant, usize) {
    let new = cluster.replica_of(slot).expect("a replica");
    cluster.kill(cluster.primary_of(slot));
    (until("the replica takes over", || is_primary(&cluster.nodes()[new])), new)
}

fn hand_over(cluster: &RedisCluster, slot: u16) -> (Instant, usize) {
    let (old, new) = (cluster.primary_of(slot), cluster.replica_of(slot).expect("a replica"));
    let [from, to] = [old, new].map(|node| &cluster.nodes()[node]);
    assert_eq!(to.command("CLUSTER FAILOVER"), "OK");
    // The old one keeps its clients waiting until it has heard.
    (until("the replica takes over", || is_primary(to) && !is_primary(from)), new)
}

fn cut(cluster: &RedisCluster, slot: u16) -> (Instant, usize) {
    let node = cluster.primary_of(slot);
    // The one that has the slot last: from then on there is nothing left to be cut.
    for node in (0..cluster.nodes().len()).filter(|other| *other != node).chain([node]) {
        cluster.nodes()[node].command("CLIENT KILL TYPE normal SKIPME yes");
    }
    (Instant::now(), node)
}

fn replace(sentinels: &RedisSentinels, _: &RedisServer) {
    let order = format!("SENTINEL FAILOVER {}", sentinels.name());
    assert_eq!(sentinels.sentinels()[0].command(&order), "OK");
}

#[tokio::main(flavor = "multi_thread", worker_threads = 2)]
async fn main() -> ExitCode {
    let rounds = std::env::args().nth(1).map_or(10, |arg| arg.parse().expect("a number of rounds"));
    assert!(rounds > 0, "no rounds");
    let plan = Plan { rounds, only: std::env::args().nth(2).unwrap_or_default() };
    let sound = [
        plan.role_change().await,
        plan.half_open("half-open", false).await,
        plan.half_open("half-open, idle", true).await,
        plan.slot_migration().await,
        plan.cluster("cluster failover, primary killed", kill).await,
        plan.cluster("cluster failover, planned", hand_over).await,
        plan.cluster("all links cut at once", cut).await,
        plan.sentinels("sentinel failover, primary killed", |_, old| old.kill()).await,
        plan.sentinels("sentinel failover, primary stopped", |_, old| old.pause()).await,
        plan.sentinels("sentinel failover, planned", replace).await,
    ];
    if sound.iter().all(|sound| *sound) { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
