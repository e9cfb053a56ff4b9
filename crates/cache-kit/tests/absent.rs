//! What the source does not have: remembered for a while, found as soon as it is there, and never at the cost of the rest.

// long: each promise is shown through six doors that share a stage.

#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on fails; what was measured, for `--nocapture`"
)]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cache_kit::backend::{CacheBackend, InMemoryBackend};
use cache_kit::testing::Gate;
use cache_kit::{
    Cache, CacheExpander, CacheFeed, CacheStrategy, DataRepository, Error, ErrorKind, InlineOptions, Limits,
    LoadOptions, Loaded, ManualClock, OperationConfig, Outcome, Policy, Previous, Result, Source,
    SourceFailure, Step, Stored,
};
use common::engine::{Place, on_places};
use common::{SourceDown, User, Users, bounded, until};

const MILLI: Duration = Duration::from_millis(1);
/// As long as absence is remembered by default.
const ABSENT: Duration = Duration::from_secs(10);
const REFRESH: CacheStrategy = CacheStrategy::Refresh;

/// A table without rows, and a cache in memory of what it has.
struct Stage {
    time: ManualClock,
    memory: InMemoryBackend,
    expander: Arc<CacheExpander<InMemoryBackend>>,
    cache: Cache,
    users: Users,
}

impl Stage {
    fn new(policy: Policy) -> Self {
        Self::within(policy, Limits::default())
    }

    fn within(policy: Policy, limits: Limits) -> Self {
        let time = ManualClock::new();
        let memory = InMemoryBackend::builder().clock(time.clock()).build().unwrap();
        let expander = CacheExpander::new(memory.clone()).with_clock(time.clock());
        let expander = expander.with_policy(policy).unwrap().with_limits(limits).unwrap();
        let cache = Cache::builder().clock(time.clock()).policy(policy).limits(limits);
        let cache = cache.build(memory.clone()).unwrap();
        Self { time, memory, expander: Arc::new(expander), cache, users: Users::default() }
    }

    async fn read(&self, door: Door) -> Result<Seen> {
        self.read_from(door, &self.users).await
    }

    /// Asks for one row through this door.
    async fn read_from(&self, door: Door, users: &Users) -> Result<Seen> {
        let (config, users) = (OperationConfig::default(), users.clone());
        Ok(match door {
            Door::Get => self.expander.get_outcome::<User, _>(&1, &users, REFRESH, config).await?.into(),
            Door::Owned => {
                let read = self.expander.get_owned_outcome::<User, _>(1, Arc::new(users), REFRESH, config);
                read.await?.into()
            }
            Door::Many => {
                let mut read = self.expander.get_many_outcomes::<User, _>(&[1], &users, config).await?;
                read.remove(0)?.into()
            }
            Door::Entry => entry(&self.cache, &users).await?.into(),
            Door::EntryInline => {
                let load = |_: Previous<User>| async { Ok::<_, SourceDown>(users.find(1).await?.into()) };
                self.cache
                    .get_or_load_entry_inline_outcome("user:1", InlineOptions::default(), load)
                    .await?
                    .into()
            }
            Door::Entries => {
                let load = move |keys: Vec<String>| {
                    let users = users.clone();
                    async move {
                        let row = users.find(1).await?.map(|user| (keys[0].clone(), Ok(Loaded::value(user))));
                        Ok::<_, SourceDown>(row)
                    }
                };
                let options = LoadOptions::default();
                let mut read = self.cache.get_many_or_load_entries(["user:1"], options, load).await?;
                read.remove(0)?.into()
            }
        })
    }

    fn absent_stored(&self) -> u64 {
        self.cache.stats().absent_stored + self.expander.stats().absent_stored
    }
}

async fn entry(cache: &Cache, users: &Users) -> Result<Outcome<Option<User>>> {
    let users = users.clone();
    let load = move |_: Previous<User>| async move { Ok::<_, SourceDown>(users.find(1).await?.into()) };
    cache.get_or_load_entry_outcome("user:1", LoadOptions::default(), load).await
}

/// Ways to ask a source that can say "absent".
#[derive(Clone, Copy, Debug)]
enum Door {
    Get,
    Owned,
    Many,
    Entry,
    EntryInline,
    Entries,
}

const DOORS: [Door; 6] = [Door::Get, Door::Owned, Door::Many, Door::Entry, Door::EntryInline, Door::Entries];

/// What a read came to.
#[derive(Debug)]
struct Seen {
    name: Option<String>,
    source: Source,
    stored: Stored,
    found_absent: bool,
}

impl From<Outcome<Option<User>>> for Seen {
    fn from(outcome: Outcome<Option<User>>) -> Self {
        assert!(!outcome.is_degraded() && !outcome.is_stale(), "{outcome:?}");
        let found_absent = outcome.steps.contains(Step::FoundAbsent);
        let Outcome { value, source, stored, .. } = outcome;
        Self { name: value.map(|user| user.name), source, stored, found_absent }
    }
}

impl Seen {
    /// Fails unless the source was asked and has nothing.
    fn is_asked(&self, stored: Stored) {
        assert_eq!((&self.name, self.source, self.stored), (&None, Source::Nowhere, stored));
        assert!(!self.found_absent);
    }

    /// Fails unless the cache knew that there is nothing.
    fn is_remembered(&self) {
        assert_eq!((&self.name, self.source, self.stored), (&None, Source::Cache, Stored::NotAsked));
        assert!(self.found_absent);
    }
}

fn exact() -> Policy {
    Policy::default().with_ttl_jitter(0.0)
}

on_places! {
    memory { a_row_that_is_created_is_found_once_the_key_is_invalidated }
    redis { a_row_that_is_created_is_found_once_the_key_is_invalidated }
    memcached { a_row_that_is_created_is_found_once_the_key_is_invalidated }
}

#[tokio::test]
async fn what_the_source_does_not_have_is_remembered_for_ten_seconds() {
    for door in DOORS {
        let stage = Stage::new(exact());
        stage.read(door).await.unwrap().is_asked(Stored::Yes);
        for wait in [Duration::ZERO, ABSENT - MILLI] {
            stage.time.advance(wait);
            stage.read(door).await.unwrap().is_remembered();
        }
        assert_eq!(stage.users.asked(), 1, "{door:?}");
        stage.time.advance(MILLI);
        stage.read(door).await.unwrap().is_asked(Stored::Yes);
        assert_eq!((stage.users.asked(), stage.absent_stored()), (2, 2), "{door:?}");
        let hits = stage.cache.stats().absent_hits + stage.expander.stats().absent_hits;
        assert_eq!((hits, stage.memory.stats().leases), (2, 0), "{door:?}");
    }
}

#[tokio::test]
async fn a_loader_that_may_find_nothing_is_asked_once_whatever_it_finds() {
    let stage = Stage::new(exact());
    let asked = Arc::new(AtomicU64::new(0));
    let ask = |found: Option<u64>| {
        let asked = Arc::clone(&asked);
        move || async move {
            asked.fetch_add(1, Ordering::Relaxed);
            Ok::<_, SourceDown>(found)
        }
    };
    for _ in 0..2 {
        assert_eq!(stage.cache.get_or_load_optional("some", ask(Some(7))).await.unwrap(), Some(7));
        assert_eq!(stage.cache.get_or_load_optional("none", ask(None)).await.unwrap(), None::<u64>);
    }
    assert_eq!((asked.load(Ordering::Relaxed), stage.cache.stats().absent_stored), (2, 1));
    assert_eq!(stage.cache.get::<u64>("some").await.unwrap(), Some(7), "stored as the value");
    let failing = || async { Err::<Option<u64>, _>(SourceDown(1)) };
    stage.cache.get_or_load_optional("fails", failing).await.unwrap_err();
    assert_eq!(stage.cache.get_or_load_optional("fails", ask(Some(8))).await.unwrap(), Some(8));
}

#[tokio::test]
async fn absence_has_the_jitter_of_other_entries_and_no_longer_a_life() {
    let stage = Stage::new(Policy::default());
    let load = |_: Vec<String>| async { Ok::<_, SourceDown>(Vec::<(String, u64)>::new()) };
    let keys: Vec<String> = (0..500).map(|id| format!("id:{id}")).collect();
    stage.cache.get_many_or_load(&keys, load).await.unwrap();
    let mut alive = Vec::new();
    for wait in [9_000 - 1, 501, 500] {
        stage.time.advance(wait * MILLI);
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        alive.push(stage.memory.mget(&keys).await.unwrap().into_iter().flatten().count());
    }
    assert!(alive[0] == 500 && alive[2] == 0 && (100..400).contains(&alive[1]), "{alive:?}");
}

#[tokio::test]
async fn absence_lives_as_long_as_the_policy_says_and_no_longer_than_values() {
    let seconds = Duration::from_secs;
    for (policy, life) in [
        (exact().with_absent_ttl(seconds(3)), seconds(3)),
        (exact().with_absent_ttl(seconds(600)), seconds(300)),
        (exact().with_ttl(seconds(2)), seconds(2)),
        (exact().without_ttl(), ABSENT),
        (exact().with_stale_if_error(seconds(60)), ABSENT),
        (exact().with_idle(seconds(1)), ABSENT),
    ] {
        for door in DOORS {
            let stage = Stage::new(policy);
            stage.read(door).await.unwrap().is_asked(Stored::Yes);
            stage.time.advance(life - MILLI);
            stage.read(door).await.unwrap().is_remembered();
            stage.time.advance(MILLI);
            stage.read(door).await.unwrap().is_asked(Stored::Yes);
        }
    }
    // What the loader says counts, within what the policy allows.
    for (said, life) in [(seconds(4), seconds(4)), (seconds(40), ABSENT)] {
        let stage = Stage::new(exact());
        let load =
            move |_: Previous<User>| async move { Ok::<_, SourceDown>(Loaded::absent().with_ttl(said)) };
        stage.cache.get_or_load_entry("user:1", LoadOptions::default(), load).await.unwrap();
        for (wait, is_alive) in [(life - MILLI, true), (MILLI, false)] {
            stage.time.advance(wait);
            assert_eq!(stage.memory.exists("user:1").await.unwrap(), is_alive, "{said:?}");
        }
    }
}

#[tokio::test]
async fn absence_is_not_remembered_where_its_life_is_zero() {
    for door in DOORS {
        let stage = Stage::new(Policy::default().with_absent_ttl(Duration::ZERO));
        for asked in 1..=3 {
            stage.read(door).await.unwrap().is_asked(Stored::NotAsked);
            assert_eq!(stage.users.asked(), asked, "{door:?}");
        }
        assert!(!stage.memory.exists("user:1").await.unwrap(), "{door:?}");
        assert_eq!((stage.memory.stats().leases, stage.absent_stored()), (0, 0), "{door:?}");
        stage.users.put(1, "anna");
        assert_eq!(stage.read(door).await.unwrap().name.as_deref(), Some("anna"), "{door:?}");
    }
}

#[tokio::test]
async fn a_row_that_is_created_is_found_at_once_through_every_door() {
    for door in DOORS {
        let stage = Stage::new(Policy::default());
        stage.read(door).await.unwrap().is_asked(Stored::Yes);
        stage.users.put(1, "anna");
        stage.read(door).await.unwrap().is_remembered();
        stage.cache.invalidate("user:1").await.unwrap();
        let read = stage.read(door).await.unwrap();
        assert_eq!((read.name.as_deref(), read.source), (Some("anna"), Source::Load), "{door:?}");
        let read = stage.read(door).await.unwrap();
        assert_eq!((read.name.as_deref(), read.source), (Some("anna"), Source::Cache), "{door:?}");
    }
}

/// The cache that invalidates may be the one that asks, or another one.
async fn a_row_that_is_created_is_found_once_the_key_is_invalidated(place: Place) {
    let caches = [place.cache(), place.cache()];
    for creates in [0, 1] {
        let (users, gate) = (Users::default(), Gate::new());
        let gone = Seen::from(entry(&caches[0], &users).await.unwrap());
        gone.is_asked(Stored::Yes);
        Seen::from(entry(&caches[1], &users).await.unwrap()).is_remembered();
        caches[creates].invalidate("user:1").await.unwrap();
        // The row comes while another load has not found it.
        let (reader, slow) = (caches[0].clone(), users.behind(&gate));
        let reading = tokio::spawn(async move { Seen::from(entry(&reader, &slow).await.unwrap()) });
        bounded(gate.reached()).await;
        users.put(1, "anna");
        caches[creates].invalidate("user:1").await.unwrap();
        gate.open();
        bounded(reading).await.unwrap().is_asked(Stored::FencedOff);
        for (cache, source) in [(&caches[1 - creates], Source::Load), (&caches[creates], Source::Cache)] {
            let read = Seen::from(bounded(entry(cache, &users)).await.unwrap());
            assert_eq!((read.name.as_deref(), read.source), (Some("anna"), source), "created by {creates}");
        }
        caches[0].invalidate("user:1").await.unwrap();
        // A value that is set is there, whatever was absent.
        let nobody = Users::default();
        Seen::from(entry(&caches[0], &nobody).await.unwrap()).is_asked(Stored::Yes);
        let user = User { id: 1, name: "berta".to_owned() };
        caches[creates].set("user:1", &user).await.unwrap();
        let read = Seen::from(entry(&caches[0], &nobody).await.unwrap());
        assert_eq!((read.name.as_deref(), read.source), (Some("berta"), Source::Cache));
        caches[0].invalidate("user:1").await.unwrap();
    }
}

#[tokio::test]
async fn an_absence_that_an_invalidation_has_overtaken_is_neither_stored_nor_counted() {
    for door in DOORS {
        let stage = Arc::new(Stage::new(Policy::default()));
        let gate = Gate::new();
        let (reader, slow) = (Arc::clone(&stage), stage.users.behind(&gate));
        let reading = tokio::spawn(async move { reader.read_from(door, &slow).await.unwrap() });
        gate.reached().await;
        stage.users.put(1, "anna");
        // As another process does it.
        stage.memory.delete("user:1").await.unwrap();
        gate.open();
        bounded(reading).await.unwrap().is_asked(Stored::FencedOff);
        assert!(!stage.memory.exists("user:1").await.unwrap(), "{door:?}");
        assert_eq!(stage.read(door).await.unwrap().name.as_deref(), Some("anna"), "{door:?}");
        assert_eq!(stage.absent_stored(), 0, "nothing was stored: {door:?}");
    }
}

/// A table that is out of order.
struct Down;

impl DataRepository<User> for Down {
    async fn fetch_by_id(&self, id: &u64) -> Result<Option<User>> {
        Err(Error::source(SourceDown(*id)))
    }
}

#[tokio::test]
async fn an_error_is_not_taken_for_absence_whatever_it_says() {
    let answers: [fn(&Error) -> SourceFailure; 3] =
        [|_| SourceFailure::Transient, |_| SourceFailure::Fatal, |_| SourceFailure::NotFound];
    for answer in answers {
        for door in DOORS {
            let Stage { time, memory, users, .. } = Stage::new(Policy::default());
            let expander = CacheExpander::new(memory.clone()).with_clock(time.clock());
            let expander = Arc::new(expander.with_classify_errors(answer));
            let builder = Cache::builder().clock(time.clock()).classify_errors(answer);
            let cache = builder.build(memory.clone()).unwrap();
            let stage = Stage { time, memory, expander, cache, users };
            for asked in 1..=2 {
                stage.users.fail(1);
                let failed = match door {
                    Door::Many => stage.expander.get_many::<User, _>(&[1], &Down).await.map(|_| ()),
                    _ => stage.read(door).await.map(|_| ()),
                };
                assert_eq!(failed.unwrap_err().kind(), ErrorKind::Source, "{door:?}");
                assert!(stage.users.asked() == asked || matches!(door, Door::Many), "asked each time");
            }
            assert!(!stage.memory.exists("user:1").await.unwrap(), "{door:?}");
            assert_eq!((stage.memory.stats().leases, stage.absent_stored()), (0, 0), "{door:?}");
            stage.users.fail(0);
            stage.users.put(1, "anna");
            assert_eq!(stage.read(door).await.unwrap().name.as_deref(), Some("anna"), "{door:?}");
        }
    }
}

#[tokio::test]
async fn no_more_absences_are_stored_than_may_be_alive() {
    let stage = Stage::within(exact(), Limits::default().with_max_absent(3));
    let nobody = |_: Previous<u64>| async { Ok::<_, SourceDown>(Loaded::absent()) };
    let read = async |id: u64| {
        let key = format!("id:{id}");
        stage.cache.get_or_load_entry_outcome(&key, LoadOptions::default(), nobody).await.unwrap()
    };
    for id in 0..3 {
        assert_eq!(read(id).await.stored, Stored::Yes);
    }
    for id in 3..5 {
        let outcome = read(id).await;
        assert_eq!((outcome.value, outcome.stored), (None, Stored::NotAsked));
        assert!(!outcome.is_degraded() && !stage.memory.exists(&format!("id:{id}")).await.unwrap());
    }
    assert_eq!((stage.cache.stats().absent_stored, stage.cache.stats().absent_refused), (3, 2));
    assert!(read(0).await.is_hit(), "those that are there stay");
    let many = |_: Vec<String>| async { Ok::<_, SourceDown>(Vec::<(String, u64)>::new()) };
    let keys = ["id:5", "id:6"];
    let many = stage.cache.get_many_or_load_outcomes(keys, LoadOptions::default(), many).await.unwrap();
    assert!(many.into_iter().all(|outcome| outcome.unwrap().stored == Stored::NotAsked));
    assert_eq!((stage.cache.stats().absent_refused, stage.memory.stats().leases), (4, 0));
    stage.time.advance(ABSENT);
    assert_eq!(read(3).await.stored, Stored::Yes, "those that have ended make room");
    // One that is no more because of an early end makes room too, at the latest when it would have ended.
    stage.cache.invalidate("id:3").await.unwrap();
    stage.time.advance(ABSENT);
    for id in 0..3 {
        assert_eq!(read(id).await.stored, Stored::Yes);
    }
    assert_eq!(read(3).await.stored, Stored::NotAsked);
}

/// The share of the reads of 500 rows that the cache of 1,000 entries answers, while 200,000 ids are asked for in between
/// that nobody has, 10,000 of them a second.
async fn hit_rate_among_random_ids(limits: Limits, most: usize) {
    const HOT: u64 = 500;
    const UNKNOWN: u64 = 200_000;
    let time = ManualClock::new();
    let memory = InMemoryBackend::builder().clock(time.clock()).max_entries(1_000).build().unwrap();
    let cache = Cache::builder().clock(time.clock()).limits(limits).build(memory.clone()).unwrap();
    let mut random = fastrand::Rng::with_seed(11);
    let mut hits = 0;
    for at in 0..UNKNOWN {
        let hot = random.u64(..HOT);
        let row = |_: Previous<u64>| async { Ok::<_, SourceDown>(Loaded::value(hot)) };
        let key = format!("row:{hot}");
        let read = cache.get_or_load_entry_inline_outcome(&key, InlineOptions::default(), row).await.unwrap();
        assert_eq!(read.value, Some(hot));
        hits += u64::from(read.is_hit());
        let unknown = format!("id:{}", random.u64(..));
        let nobody = |_: Previous<u64>| async { Ok::<_, SourceDown>(Loaded::absent()) };
        let none =
            cache.get_or_load_entry_inline_outcome(&unknown, InlineOptions::default(), nobody).await.unwrap();
        assert_eq!(none.value, None);
        time.advance(Duration::from_micros(100));
        if at % 20_000 == 0 {
            // What has ended is swept by and by, while this clock stands still.
            let swept = async || memory.stats().entries <= HOT as usize + most + 10;
            until("no more than may be are alive", Duration::from_secs(20), swept).await;
        }
    }
    let (rate, stats) = (hits as f64 / UNKNOWN as f64, cache.stats());
    println!("{most} absences of 1,000 entries: {:.2} % of the reads of the hot rows are hits", rate * 100.0);
    assert!(rate > 0.95, "{rate}");
    // Twenty seconds are two or three lives of an absence, of which a tenth is left to chance.
    let stored = stats.absent_stored as usize;
    assert!((most..=4 * most).contains(&stored), "{stored} stored");
    assert_eq!(stats.absent_stored + stats.absent_refused, UNKNOWN);
}

#[tokio::test]
async fn random_ids_do_not_drive_out_what_others_need() {
    hit_rate_among_random_ids(Limits::default().with_max_absent(20), 20).await;
}

#[tokio::test]
async fn by_default_a_tenth_of_a_bounded_memory_may_be_absences() {
    hit_rate_among_random_ids(Limits::default(), 100).await;
}

#[tokio::test]
async fn a_loader_that_cannot_say_absent_loads_where_absence_is_remembered() {
    let stage = Stage::new(Policy::default());
    stage.read(Door::Entry).await.unwrap().is_asked(Stored::Yes);
    let found = stage.cache.get_outcome::<User>("user:1").await.unwrap();
    assert!(found.value.is_none() && found.is_hit() && found.steps.contains(Step::FoundAbsent));
    assert_eq!(stage.cache.get::<User>("user:1").await.unwrap(), None);
    let fresh = LoadOptions::default().with_strategy(CacheStrategy::Fresh);
    let user = || async { Ok::<_, SourceDown>(User { id: 1, name: "anna".to_owned() }) };
    let nothing = stage.cache.get_or_load_with("user:1", fresh, user).await.unwrap_err();
    assert_eq!(nothing.kind(), ErrorKind::InvalidInput);
    let loaded = stage.cache.get_or_load_outcome("user:1", LoadOptions::default(), user).await.unwrap();
    assert_eq!((loaded.source, loaded.stored), (Source::Load, Stored::Yes));
    let read = stage.read(Door::Entry).await.unwrap();
    assert_eq!((read.name.as_deref(), read.source), (Some("anna"), Source::Cache));
    stage.cache.invalidate("user:1").await.unwrap();
    stage.read(Door::EntryInline).await.unwrap().is_asked(Stored::Yes);
    let inline = stage.cache.get_or_load_inline("user:1", user).await.unwrap();
    assert_eq!(inline.name, "anna");
    stage.cache.invalidate("user:1").await.unwrap();
    let (gate, reader, late) = (Gate::new(), stage.cache.clone(), stage.cache.clone());
    let slow = stage.users.behind(&gate);
    let finds_nothing = tokio::spawn(async move { Seen::from(entry(&reader, &slow).await.unwrap()) });
    gate.reached().await;
    let joins = tokio::spawn(async move { late.get_or_load("user:1", user).await.unwrap() });
    common::settle().await;
    gate.open();
    bounded(finds_nothing).await.unwrap().is_asked(Stored::Yes);
    assert_eq!(bounded(joins).await.unwrap().name, "anna", "what it has joined has no answer for it");
}

/// Writes down what it is told.
#[derive(Default)]
struct Witness(Vec<String>);

impl CacheFeed<User> for Witness {
    fn entity_id(&mut self) -> u64 {
        1
    }

    fn feed(&mut self, entity: Option<User>) {
        self.0.push(format!("fed {:?}", entity.map(|user| user.name)));
    }

    fn on_hit(&mut self, key: &str) -> Result<()> {
        self.0.push(format!("hit {key}"));
        Ok(())
    }

    fn on_miss(&mut self, key: &str) -> Result<()> {
        self.0.push(format!("miss {key}"));
        Ok(())
    }

    fn on_loaded(&mut self, entity: &User) -> Result<()> {
        self.0.push(format!("loaded {}", entity.name));
        Ok(())
    }
}

#[tokio::test]
async fn feeders_are_fed_nothing_and_told_that_it_was_a_hit() {
    let stage = Stage::new(Policy::default());
    let feed = async || {
        let mut witness = Witness::default();
        stage.expander.with(&mut witness, &stage.users, REFRESH).await.unwrap();
        witness.0
    };
    assert_eq!(feed().await, ["miss user:1", "fed None"]);
    assert_eq!(feed().await, ["hit user:1", "fed None"]);
    assert_eq!(stage.users.asked(), 1);
    stage.users.put(1, "anna");
    stage.cache.invalidate("user:1").await.unwrap();
    assert_eq!(feed().await, ["miss user:1", "loaded anna", "fed Some(\"anna\")"]);
    assert_eq!(feed().await, ["hit user:1", "loaded anna", "fed Some(\"anna\")"]);
}
