//! Many keys at once: each is looked up once and loaded once in all, whoever else wants it, and what happens to one of them
//! happens to no other. Gates, not sleeps.

#![cfg(all(feature = "redis", feature = "memcached"))]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::HashSet;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use cache_kit::backend::InMemoryBackend;
use cache_kit::testing::Gate;
use cache_kit::{
    Cache, Error, ErrorKind, Gauges, Limits, LoadOptions, Loaded, Outcome, Policy, Result, Source, Step,
    Stored,
};
use common::engine::{How, Load, Place, on_places, one, serve};
use common::other::Other;
use common::{SourceDown, bounded, drop_after, until};
use futures_util::future::join_all;
use tokio::task::JoinHandle;

/// Runs tests on all places, and those of other processes where there may be some.
macro_rules! everywhere {
    ({ $($test:ident)+ } { $($elsewhere:ident)+ }) => {
        on_places! {
            memory { $($test)+ }
            redis { $($test)+ $($elsewhere)+ }
            memcached { $($test)+ $($elsewhere)+ }
        }
    };
}

everywhere! {
    {
        answers_are_in_the_order_of_the_keys_and_each_is_asked_for_once
        a_key_that_another_loads_is_joined_whoever_that_is
        batches_that_overlap_and_begin_together_load_each_key_once
        a_key_whose_leader_goes_away_is_loaded_by_the_batch_that_waits_for_it
        who_waits_for_a_batch_that_goes_away_loads_the_key_alone
        each_key_fails_by_itself_and_the_cached_ones_do_not
        what_the_source_does_not_have_is_remembered_until_it_is_created
        what_is_overtaken_is_not_stored_and_the_rest_is
        what_another_cache_loads_is_waited_for_while_the_rest_is_loaded
    }
    { what_another_process_does_is_seen_as_what_another_cache_does }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the other process of the tests in this file, which start it"]
async fn another_process() {
    serve().await;
}

const LONG: Duration = Duration::from_secs(20);

type Batch = Vec<Outcome<Option<String>>>;

fn row(key: &str) -> String {
    format!("row of {key}")
}

/// A table with a row for each key, but those that begin with "no" have to be created first. It remembers what it is asked.
#[derive(Clone, Default)]
struct Table {
    asked: Arc<Mutex<Vec<Vec<String>>>>,
    created: Arc<Mutex<HashSet<String>>>,
    gate: Option<Gate>,
}

impl Table {
    /// The same table; who asks through this handle waits at the gate.
    fn behind(&self, gate: &Gate) -> Self {
        Self { gate: Some(gate.clone()), ..self.clone() }
    }

    async fn find(self, keys: Vec<String>) -> Result<Vec<(String, String)>, SourceDown> {
        self.asked.lock().unwrap().push(keys.clone());
        if let Some(gate) = &self.gate {
            gate.pass().await;
        }
        let created = self.created.lock().unwrap();
        let is_there = |key: &String| !key.starts_with("no") || created.contains(key);
        Ok(keys.into_iter().filter(is_there).map(|key| (key.clone(), row(&key))).collect())
    }

    async fn find_one(self, key: &'static str) -> Result<String, SourceDown> {
        Ok(self.find(vec![key.to_owned()]).await?.remove(0).1)
    }

    /// What it was asked since this was called last.
    fn asked(&self) -> Vec<Vec<String>> {
        std::mem::take(&mut *self.asked.lock().unwrap())
    }
}

async fn batch(cache: &Cache, keys: &[&str], table: &Table) -> Batch {
    let table = table.clone();
    let loader = move |missing| table.clone().find(missing);
    let answers = cache.get_many_or_load_outcomes(keys, LoadOptions::default(), loader);
    bounded(answers).await.unwrap().into_iter().map(Result::unwrap).collect()
}

/// A batch in a task of its own.
fn begin(cache: &Cache, keys: &'static [&'static str], table: &Table) -> JoinHandle<Batch> {
    let (cache, table) = (cache.clone(), table.clone());
    tokio::spawn(async move { batch(&cache, keys, &table).await })
}

/// One that stands at a gate, behind which nothing is stored yet.
async fn at_gate(cache: &Cache, keys: &'static [&'static str], table: &Table) -> (Gate, JoinHandle<Batch>) {
    let gate = Gate::new();
    let loading = begin(cache, keys, &table.behind(&gate));
    bounded(gate.reached()).await;
    (gate, loading)
}

/// One key by itself.
fn begin_one(cache: &Cache, key: &'static str, table: &Table) -> JoinHandle<String> {
    let (cache, table) = (cache.clone(), table.clone());
    tokio::spawn(
        async move { bounded(cache.get_or_load_inline(key, move || table.find_one(key))).await.unwrap() },
    )
}

async fn end<T>(task: JoinHandle<T>) -> T {
    bounded(task).await.unwrap()
}

async fn abort<T: std::fmt::Debug>(task: JoinHandle<T>) {
    task.abort();
    assert!(bounded(task).await.unwrap_err().is_cancelled());
}

async fn waiting(cache: &Cache, readers: usize) {
    until("others wait", LONG, async || cache.gauges().waiting == readers).await;
}

fn values(batch: &Batch) -> Vec<Option<&str>> {
    batch.iter().map(|outcome| outcome.value.as_deref()).collect()
}

fn sources(batch: &Batch) -> Vec<Source> {
    batch.iter().map(|outcome| outcome.source).collect()
}

fn stored(batch: &Batch) -> Vec<Stored> {
    batch.iter().map(|outcome| outcome.stored).collect()
}

fn assert_rows(batch: &Batch, keys: &[&str]) {
    let rows: Vec<String> = keys.iter().map(|key| row(key)).collect();
    assert_eq!(values(batch), rows.iter().map(|row| Some(&**row)).collect::<Vec<_>>(), "{keys:?}");
}

/// Nothing is left of what was loaded, nor of who waited.
fn assert_idle(cache: &Cache, place: &Place) {
    let Gauges { loads, tasks, waiting, .. } = cache.gauges();
    assert_eq!((loads, tasks, waiting), (0, 0, 0));
    if let Place::Memory(memory) = place {
        assert_eq!(memory.stats().leases, 0);
    }
}

async fn answers_are_in_the_order_of_the_keys_and_each_is_asked_for_once(place: Place) {
    let (cache, table) = (place.cache(), Table::default());
    let keys = ["3", "1", "3", "no", "2", "no"];
    let first = batch(&cache, &keys, &table).await;
    let expected = [Some("row of 3"), Some("row of 1"), Some("row of 3"), None, Some("row of 2"), None];
    assert_eq!((values(&first), stored(&first)), (expected.to_vec(), vec![Stored::Yes; 6]));
    assert_eq!(table.asked(), [["3", "1", "no", "2"]]);
    assert!(first.iter().all(|outcome| outcome.steps.contains(Step::Loaded) && !outcome.is_hit()));
    let again = batch(&cache, &keys, &table).await;
    assert_eq!((values(&again), sources(&again)), (expected.to_vec(), vec![Source::Cache; 6]));
    assert_rows(&batch(&cache, &["4", "2", "5", "4"], &table).await, &["4", "2", "5", "4"]);
    assert_eq!(table.asked(), [["4", "5"]]);
    assert_idle(&cache, &place);
}

async fn a_key_that_another_loads_is_joined_whoever_that_is(place: Place) {
    let (cache, table, gate) = (place.cache(), Table::default(), Gate::new());
    let alone = begin_one(&cache, "1", &table.behind(&gate));
    bounded(gate.reached()).await;
    let (first_gate, first) = at_gate(&cache, &["1", "2", "3"], &table).await;
    let (second_gate, second) = at_gate(&cache, &["3", "4", "2"], &table).await;
    waiting(&cache, 3).await;
    let late = [begin_one(&cache, "2", &table), begin_one(&cache, "4", &table)];
    waiting(&cache, 5).await;
    [gate, first_gate, second_gate].iter().for_each(Gate::open);
    assert_eq!(end(alone).await, row("1"));
    let (first, second) = (end(first).await, end(second).await);
    assert_rows(&first, &["1", "2", "3"]);
    assert_rows(&second, &["3", "4", "2"]);
    assert_eq!(sources(&first), [Source::SharedLoad, Source::Load, Source::Load]);
    assert_eq!(sources(&second), [Source::SharedLoad, Source::Load, Source::SharedLoad]);
    assert_eq!(join_all(late.map(end)).await, [row("2"), row("4")]);
    assert_eq!(table.asked(), [vec!["1"], vec!["2", "3"], vec!["4"]]);
    assert_idle(&cache, &place);
}

async fn batches_that_overlap_and_begin_together_load_each_key_once(place: Place) {
    let (cache, table) = (place.cache(), Table::default());
    let rounds = if matches!(place, Place::Memory(_)) { 5_000 } else { 300 };
    for round in 0..rounds {
        let keys = [1, 2, 3].map(|key| format!("{round}:{key}"));
        let orders = [[0, 1], [1, 0], [2, 0], [1, 2]].map(|order| order.map(|at| keys[at].clone()));
        let batches = orders.map(|keys| {
            let (cache, table) = (cache.clone(), table.clone());
            tokio::spawn(async move {
                let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
                assert_rows(&batch(&cache, &keys, &table).await, &keys);
            })
        });
        join_all(batches.map(end)).await;
        let mut asked = table.asked().concat();
        asked.sort_unstable();
        assert_eq!(asked, keys, "each once");
    }
    assert_idle(&cache, &place);
}

async fn a_key_whose_leader_goes_away_is_loaded_by_the_batch_that_waits_for_it(place: Place) {
    let (cache, table) = (place.cache(), Table::default());
    let (first, second, own) = (Gate::new(), Gate::new(), Gate::new());
    let gone = begin_one(&cache, "1", &table.behind(&first));
    bounded(first.reached()).await;
    let stays = begin_one(&cache, "2", &table.behind(&second));
    bounded(second.reached()).await;
    let waits = begin(&cache, &["1", "2", "3"], &table.behind(&own));
    bounded(own.reached()).await;
    own.let_one_pass();
    waiting(&cache, 2).await;
    abort(gone).await;
    // While the other one is still under way.
    bounded(own.reached()).await;
    own.open();
    second.open();
    assert_eq!(end(stays).await, row("2"));
    let waited = end(waits).await;
    assert_rows(&waited, &["1", "2", "3"]);
    assert_eq!(sources(&waited), [Source::Load, Source::SharedLoad, Source::Load]);
    assert_eq!(stored(&waited), [Stored::Yes; 3]);
    assert!(waited[0].steps.contains(Step::TookOver), "{:?}", waited[0].steps);
    assert_eq!(table.asked(), [["1"], ["2"], ["3"], ["1"]]);
    assert_idle(&cache, &place);
}

async fn who_waits_for_a_batch_that_goes_away_loads_the_key_alone(place: Place) {
    let (cache, table) = (place.cache(), Table::default());
    let (_gate, gone) = at_gate(&cache, &["1", "2", "3", "4"], &table).await;
    let alone = [begin_one(&cache, "1", &table), begin_one(&cache, "2", &table)];
    let other = begin(&cache, &["4", "1", "3"], &table);
    waiting(&cache, 5).await;
    table.asked();
    abort(gone).await;
    assert_eq!(join_all(alone.map(end)).await, [row("1"), row("2")]);
    let other = end(other).await;
    assert_rows(&other, &["4", "1", "3"]);
    assert_eq!(stored(&other)[0], Stored::Yes, "with the lease that was there");
    let mut asked = table.asked().concat();
    asked.sort_unstable();
    assert_eq!(asked, ["1", "2", "3", "4"]);
    assert_idle(&cache, &place);
    let found = batch(&place.cache(), &["1", "2", "3", "4"], &table).await;
    assert_eq!(sources(&found), [Source::Cache; 4]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_thousand_dropped_batches_leave_nothing_behind() {
    let seed = std::env::var("CACHE_KIT_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    println!("CACHE_KIT_SEED={seed}");
    let memory = InMemoryBackend::new();
    let cache = Cache::new(memory.clone());
    let (begun, dropped) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let tasks = (0..40).map(|task| {
        let (cache, begun, dropped) = (cache.clone(), Arc::clone(&begun), Arc::clone(&dropped));
        tokio::spawn(async move {
            let mut random = fastrand::Rng::with_seed(seed.wrapping_add(task));
            for round in 0..500 {
                // Few keys at a time, and always others: most batches meet.
                let keys: Vec<String> =
                    (0..random.usize(1..6)).map(|_| format!("{round}:{}", random.u64(..8))).collect();
                let (polls, fails, begun) = (random.u32(..5), random.u32(..10) == 0, Arc::clone(&begun));
                let loader = move |missing: Vec<String>| {
                    begun.fetch_add(1, Ordering::SeqCst);
                    async move {
                        for _ in 0..polls {
                            tokio::task::yield_now().await;
                        }
                        let rows = missing.into_iter().map(|key| (key.clone(), row(&key)));
                        if fails { Err(SourceDown(1)) } else { Ok(rows.collect::<Vec<_>>()) }
                    }
                };
                match drop_after(cache.get_many_or_load(&keys, loader), random.u32(..10)).await {
                    Some(Ok(found)) => {
                        let rows: Vec<_> = keys.iter().map(|key| Some(row(key))).collect();
                        assert_eq!(found, rows, "in order");
                    }
                    Some(Err(error)) => assert_eq!(error.kind(), ErrorKind::Source),
                    None => _ = dropped.fetch_add(1, Ordering::SeqCst),
                }
            }
        })
    });
    join_all(tasks.map(end)).await;
    let (begun, dropped) = (begun.load(Ordering::SeqCst), dropped.load(Ordering::SeqCst));
    println!("{dropped} dropped, {begun} loads");
    assert!(dropped > 1_000 && begun > 1_000, "{dropped} dropped, {begun} loads");
    assert_idle(&cache, &Place::Memory(memory));
    assert_rows(
        &batch(&cache, &["0:0", "250:1", "499:7"], &Table::default()).await,
        &["0:0", "250:1", "499:7"],
    );
}

async fn each_key_fails_by_itself_and_the_cached_ones_do_not(place: Place) {
    let (cache, table) = (place.cache(), Table::default());
    batch(&cache, &["1"], &table).await;
    let keys = ["1", "bad", "2", "no", "kept"];
    let loader = |missing: Vec<String>| async move {
        assert_eq!(missing, ["bad", "2", "no", "kept"]);
        let (two, kept) = (Loaded::value(row("2")), Loaded::value(row("kept")).do_not_store());
        let found = [("2", Ok(two)), ("bad", Err(SourceDown(7))), ("kept", Ok(kept))];
        Ok::<_, SourceDown>(found.map(|(key, found)| (key.to_owned(), found)))
    };
    let loaded = cache.get_many_or_load_entries(keys, LoadOptions::default(), loader);
    let mut loaded = bounded(loaded).await.unwrap();
    let bad = loaded.remove(1).unwrap_err();
    assert_eq!(bad.find_source(), Some(&SourceDown(7)));
    let loaded: Batch = loaded.into_iter().map(Result::unwrap).collect();
    assert_eq!(values(&loaded), [Some("row of 1"), Some("row of 2"), None, Some("row of kept")]);
    assert_eq!(stored(&loaded), [Stored::NotAsked, Stored::Yes, Stored::Yes, Stored::NotAsked]);

    // All of them: what is cached is the answer still, and nothing else is taken for known.
    table.asked();
    let broken = |_: Vec<String>| async { Err::<Vec<(String, String)>, _>(SourceDown(8)) };
    let failed = cache.get_many_or_load_outcomes(keys, LoadOptions::default(), broken);
    for (key, answer) in keys.iter().zip(bounded(failed).await.unwrap()) {
        let error = answer.map(|outcome| assert!(outcome.is_hit(), "{key}")).err();
        let expected = ["bad", "kept"].contains(key).then_some(&SourceDown(8));
        assert_eq!(error.as_ref().and_then(Error::find_source), expected, "{key}");
    }
    assert!(bounded(cache.get_many_or_load(keys, broken)).await.is_err());
    let found = bounded(cache.get_many_or_load(["1", "no"], broken)).await.unwrap();
    assert_eq!(found, [Some(row("1")), None], "none of these needs the source");
    let now = batch(&cache, &keys, &table).await;
    assert_eq!(values(&now)[1], Some("row of bad"), "an error is not an absence");
    assert_eq!(table.asked(), [["bad", "kept"]]);
    assert_idle(&cache, &place);
}

async fn what_the_source_does_not_have_is_remembered_until_it_is_created(place: Place) {
    let (cache, table) = (place.cache(), Table::default());
    for expected in [[Source::Nowhere, Source::Load, Source::Nowhere], [Source::Cache; 3]] {
        let found = batch(&cache, &["no:1", "1", "no:2"], &table).await;
        assert_eq!(values(&found), [None, Some("row of 1"), None]);
        assert_eq!(sources(&found), expected);
    }
    assert_eq!(table.asked(), [["no:1", "1", "no:2"]]);
    table.created.lock().unwrap().insert("no:1".to_owned());
    cache.invalidate("no:1").await.unwrap();
    let found = batch(&cache, &["no:1", "1", "no:2"], &table).await;
    assert_eq!(values(&found), [Some("row of no:1"), Some("row of 1"), None]);
    assert_eq!(table.asked(), [["no:1"]]);
}

async fn what_is_overtaken_is_not_stored_and_the_rest_is(place: Place) {
    let (here, elsewhere, table) = (place.cache(), place.cache(), Table::default());
    for (overtaker, is_hold) in [(&here, false), (&elsewhere, false), (&here, true), (&elsewhere, true)] {
        let (gate, loading) = at_gate(&here, &["1", "2", "3"], &table).await;
        let hold = if is_hold { Some(bounded(overtaker.hold(["2"])).await.unwrap()) } else { None };
        if hold.is_none() {
            overtaker.invalidate("2").await.unwrap();
        }
        gate.open();
        let loaded = end(loading).await;
        assert_rows(&loaded, &["1", "2", "3"]);
        assert_eq!(stored(&loaded), [Stored::Yes, Stored::FencedOff, Stored::Yes]);
        if let Some(hold) = hold {
            // Nor is what is loaded from now on, until the hold ends.
            let during = batch(&here, &["2", "3"], &table).await;
            assert_rows(&during, &["2", "3"]);
            assert_eq!(stored(&during), [Stored::LeftToOther, Stored::NotAsked]);
            hold.confirm().await.unwrap();
        }
        table.asked();
        let now = batch(&elsewhere, &["1", "2", "3"], &table).await;
        assert_eq!(sources(&now), [Source::Cache, Source::Load, Source::Cache]);
        assert_eq!(table.asked(), [["2"]]);
        assert_idle(&here, &place);
        here.invalidate_many(["1", "2", "3"]).await.unwrap();
    }
}

async fn what_another_cache_loads_is_waited_for_while_the_rest_is_loaded(place: Place) {
    let patient = place.cache_by(Policy::default().with_lease_wait(LONG));
    let (elsewhere, table) = (place.cache(), Table::default());
    let load = Load::begin(&elsewhere, How::Owned, "2", &one("of the other")).await;
    let (gate, loading) = at_gate(&patient, &["1", "2", "3"], &table).await;
    assert_eq!(load.end().await.1, Stored::Yes);
    gate.open();
    let loaded = end(loading).await;
    assert_eq!(values(&loaded), [Some("row of 1"), Some("of the other"), Some("row of 3")]);
    assert!(loaded[1].steps.contains(Step::FilledElsewhere), "{:?}", loaded[1].steps);
    // One who never ends is not waited for without end, and keeps the lease.
    let load = Load::begin(&elsewhere, How::Owned, "4", &one("of the other")).await;
    let hasty = place.cache_by(Policy::default().with_lease_wait(Duration::from_millis(50)));
    let loaded = batch(&hasty, &["1", "4", "5"], &table).await;
    assert_eq!(values(&loaded), [Some("row of 1"), Some("row of 4"), Some("row of 5")]);
    assert_eq!(stored(&loaded), [Stored::NotAsked, Stored::LeftToOther, Stored::Yes]);
    assert_eq!(load.end().await, ("of the other".to_owned(), Stored::Yes));
    assert_eq!(table.asked().concat().len(), 4, "each once");
    assert_idle(&hasty, &place);
}

async fn what_another_process_does_is_seen_as_what_another_cache_does(place: Place) {
    let patient = place.cache_by(Policy::default().with_lease_wait(LONG));
    let (mut other, table) = (Other::start(&place.url()), Table::default());
    for (overtaking, and_then) in [("invalidate 2", "expire 4"), ("hold 2", "confirm")] {
        let (gate, loading) = at_gate(&patient, &["1", "2", "3"], &table).await;
        other.tell(overtaking);
        gate.open();
        assert_eq!(stored(&end(loading).await), [Stored::Yes, Stored::FencedOff, Stored::Yes]);
        assert_eq!(other.tell(and_then), "done");
        let now = batch(&patient, &["1", "2", "3"], &table).await;
        assert_eq!(sources(&now), [Source::Cache, Source::Load, Source::Cache], "{overtaking}");
        patient.invalidate_many(["1", "2", "3"]).await.unwrap();
    }
    table.asked();
    assert_eq!(other.tell("load Owned 2 old"), "loading");
    let (gate, loading) = at_gate(&patient, &["1", "2", "3"], &table).await;
    gate.open();
    assert_eq!(other.tell("end 2"), "old Yes");
    assert_eq!(values(&end(loading).await), [Some("row of 1"), Some("old"), Some("row of 3")]);
    assert_eq!(table.asked(), [["1", "3"]]);
}

#[tokio::test]
async fn a_loader_may_ask_for_other_keys_and_is_told_when_it_asks_for_its_own() {
    // A load within a load has its turn at once.
    let limits = Limits::default().with_max_concurrent_loads(1);
    let cache = Cache::builder().limits(limits).build(InMemoryBackend::new()).unwrap();
    let load = |inner: &'static [&'static str], alone: bool| {
        let within = cache.clone();
        move |missing: Vec<String>| {
            let cache = within.clone();
            async move {
                let table = Table::default();
                if alone {
                    cache.get_or_load_inline(inner[0], move || table.find_one(inner[0])).await?;
                } else {
                    let found = cache.get_many_or_load(inner, move |keys| table.clone().find(keys)).await?;
                    assert!(found.iter().all(Option::is_some));
                }
                Ok::<_, Error>(missing.into_iter().map(|key| (key.clone(), row(&key))).collect::<Vec<_>>())
            }
        }
    };
    for alone in [true, false] {
        let own = bounded(cache.get_many_or_load(["1", "2"], load(&["2", "3"], alone))).await;
        assert_eq!(own.unwrap_err().kind(), ErrorKind::Reentrant);
        let other = bounded(cache.get_many_or_load(["1", "2"], load(&["4", "5"], alone))).await.unwrap();
        assert_eq!(other, [Some(row("1")), Some(row("2"))]);
        // Within the load of one key.
        let (within, inner) = (cache.clone(), load(&["6", "7"], alone));
        let outer = async move || within.get_many_or_load(["8", "9"], inner).await.map(|rows| rows.len());
        assert_eq!(bounded(cache.get_or_load_inline("0", outer)).await.unwrap(), 2);
        cache.invalidate_many(["0", "1", "2", "3", "4", "5", "6", "7", "8", "9"]).await.unwrap();
    }
    assert_eq!((cache.gauges().loads, cache.gauges().waiting), (0, 0));
}

#[tokio::test]
async fn a_batch_within_the_only_load_that_may_run_is_not_kept_waiting_by_batches_that_wait_for_it() {
    for max_batch_keys in [2, 1] {
        let limits = Limits::default().with_max_concurrent_loads(1).with_max_batch_keys(max_batch_keys);
        let limits = limits.with_max_batch_loads(1);
        let cache = Cache::builder().limits(limits).build(InMemoryBackend::new()).unwrap();
        let (gate, table, within) = (Gate::new(), Table::default(), cache.clone());
        let (at, rows) = (gate.clone(), table.clone());
        let loader = move || async move {
            at.pass().await;
            within.get_many_or_load(["2"], move |missing| rows.clone().find(missing)).await
        };
        let reader = cache.clone();
        let outer = tokio::spawn(async move { bounded(reader.get_or_load_inline("outer", loader)).await });
        bounded(gate.reached()).await;
        let waits = begin(&cache, &["1", "2"], &table);
        waiting(&cache, 1).await;
        gate.open();
        assert_eq!(outer.await.unwrap().unwrap(), [Some(row("2"))], "parts of {max_batch_keys}");
        assert_rows(&end(waits).await, &["1", "2"]);
    }
}
