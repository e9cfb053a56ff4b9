//! Processes that load the same key: one of them does, and what becomes of its lease when it goes away, however it does.
//! Times are printed, and their bounds are those of the lease, with half a second for a busy machine.

#![cfg(all(feature = "redis", feature = "memcached"))]
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on fails, and one that goes on prints what it measured"
)]

mod common;

use std::time::{Duration, Instant};

use cache_kit::{Cache, Source, Stored};
use cache_kit_test_support::RedisSentinels;
use common::engine::{How, Load, Place, STALE, assert_not_stored, on_places, one, read, serve};
use common::other::Other;
use common::{bounded, until};
use futures_util::future::join_all;

on_places! {
    memory {
        the_lease_of_a_caller_who_goes_away_is_free_at_once
        the_lease_of_a_runtime_that_is_shut_down_ends_with_its_life
        a_late_fill_does_not_land_after_a_flush
    }
    redis {
        four_processes_with_ten_thousand_readers_load_a_key_once
        a_holder_that_is_killed_keeps_others_from_storing_for_the_life_of_its_lease
        the_lease_of_a_caller_who_goes_away_is_free_at_once
        the_lease_of_a_runtime_that_is_shut_down_ends_with_its_life
        a_late_fill_does_not_land_after_a_flush
        a_late_fill_does_not_land_after_a_restart
        a_load_that_is_longer_than_a_lease_keeps_it
        a_holder_that_stood_still_for_longer_than_its_lease_stores_nothing_when_it_goes_on
    }
    memcached {
        four_processes_with_ten_thousand_readers_load_a_key_once
        a_holder_that_is_killed_keeps_others_from_storing_for_the_life_of_its_lease
        the_lease_of_a_caller_who_goes_away_is_free_at_once
        the_lease_of_a_runtime_that_is_shut_down_ends_with_its_life
        a_late_fill_does_not_land_after_a_flush
        a_late_fill_does_not_land_after_a_restart
        a_load_that_is_longer_than_a_lease_keeps_it
        a_holder_that_stood_still_for_longer_than_its_lease_stores_nothing_when_it_goes_on
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the other process of the tests in this file, which start it"]
async fn another_process() {
    serve().await;
}

/// A lease that nobody renews is over.
const LEASE_OVER: Duration = Duration::from_millis(3500);
/// A reader has waited for the one that has the lease, and loaded.
const WAITED: Duration = Duration::from_millis(1500);

const PROCESSES: usize = 4;
const READERS: u64 = 2500;

async fn four_processes_with_ten_thousand_readers_load_a_key_once(place: Place) {
    let mut others: Vec<_> = (0..PROCESSES).map(|_| Other::start(&place.url())).collect();
    for other in &mut others {
        other.ask(&format!("crowd key {READERS}"));
    }
    for other in &others {
        assert_eq!(other.answer(), "ready");
    }
    let began = Instant::now();
    for other in &mut others {
        other.ask("go");
    }
    let (mut loads, mut right, mut took) = (0, 0, Vec::new());
    for other in &others {
        let said = other.answer();
        let said: Vec<u64> = said.split(' ').map(|number| number.parse().unwrap()).collect();
        loads += said[0];
        right += said[1];
        took.push(said[2]);
    }
    println!("{loads} load, {right} right answers in {:?}; by process, in ms: {took:?}", began.elapsed());
    assert_eq!((loads, right), (1, PROCESSES as u64 * READERS));
}

/// Reads until a value is stored; how long after `since` that was, how many reads there were before, and how long the
/// longest of all took.
async fn until_stored(cache: &Cache, key: &str, since: Instant) -> (Duration, usize, Duration) {
    let (mut reads, mut longest) = (0, Duration::ZERO);
    loop {
        let began = Instant::now();
        let now = bounded(read(cache, How::Owned, key, &one("new"))).await;
        longest = longest.max(began.elapsed());
        assert_eq!((now.value.as_str(), now.source), ("new", Source::Load), "{key}: {now:?}");
        match now.stored {
            Stored::Yes => return (since.elapsed(), reads, longest),
            Stored::LeftToOther => reads += 1,
            other => panic!("{key}: {other:?}"),
        }
        assert!(since.elapsed() < 3 * LEASE_OVER, "{key} is not stored");
    }
}

async fn a_holder_that_is_killed_keeps_others_from_storing_for_the_life_of_its_lease(place: Place) {
    let (cache, mut other) = (place.cache(), Other::start(&place.url()));
    // The reader's connection is there before the other process dies.
    assert_eq!(cache.get::<String>("another key").await.unwrap(), None);
    for how in How::ALL {
        assert_eq!(other.tell(&format!("load {how:?} {how:?} old")), "loading");
    }
    let killed = other.kill();
    let reads = How::ALL.map(async |how| (how, until_stored(&cache, &format!("{how:?}"), killed).await));
    for (how, (took, reads, longest)) in join_all(reads).await {
        println!("{how:?}: stored {took:?} after the kill; {reads} reads before, the longest {longest:?}");
        assert!(took < LEASE_OVER, "{how:?}: {took:?}");
        assert!(reads > 0 && longest < WAITED, "{how:?}: {reads} reads, {longest:?}");
        assert_not_stored(&cache, &format!("{how:?}"), "old", "a dead process stores nothing").await;
    }
}

async fn the_lease_of_a_caller_who_goes_away_is_free_at_once(place: Place) {
    let (here, elsewhere) = (place.cache(), place.cache());
    assert_eq!(elsewhere.get::<String>("another key").await.unwrap(), None);
    let load = Load::begin(&here, How::Inline, "user:1", &one("old")).await;
    load.abort().await;
    let gone = Instant::now();
    let (took, reads, _) = until_stored(&elsewhere, "user:1", gone).await;
    println!("stored {took:?} after the caller went away");
    assert_eq!(reads, 0);
    assert!(took < Duration::from_millis(500), "{took:?}");
}

async fn the_lease_of_a_runtime_that_is_shut_down_ends_with_its_life(place: Place) {
    let (here, elsewhere) = (place.cache(), place.cache());
    assert_eq!(elsewhere.get::<String>("another key").await.unwrap(), None);
    let holder = here.clone();
    let shut_down = std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap();
        let load = runtime.block_on(Load::begin(&holder, How::Owned, "user:1", &one("old")));
        runtime.shutdown_background();
        drop(load);
        Instant::now()
    });
    let shut_down = bounded(tokio::task::spawn_blocking(|| shut_down.join().unwrap())).await.unwrap();
    let (took, reads, longest) = until_stored(&elsewhere, "user:1", shut_down).await;
    println!(
        "stored {took:?} after the runtime was shut down; {reads} reads before, the longest {longest:?}"
    );
    assert!(took < LEASE_OVER, "{took:?}");
    assert!(longest < WAITED, "{longest:?}");
    // The cache itself goes on in another runtime.
    let found = bounded(read(&here, How::Owned, "user:1", &one("not asked"))).await;
    assert_eq!((found.value.as_str(), found.source), ("new", Source::Cache));
}

/// The old row is loaded behind a gate, the server loses everything, and the new row is stored before the old one is late.
async fn late_after(place: &Place, lose: impl AsyncFn(&Place, &[&Cache]), ends: &[Stored]) {
    for how in How::ALL {
        for is_stored in [false, true] {
            let (here, elsewhere, key) = (place.cache(), place.cache(), format!("user:{how:?}:{is_stored}"));
            let (users, what) = (one("old"), format!("{how:?}, new row stored: {is_stored}"));
            let load = Load::begin(&here, how, &key, &users).await;
            users.put(1, "new");
            lose(place, &[&here, &elsewhere]).await;
            let began = Instant::now();
            if is_stored {
                let now = bounded(read(&elsewhere, how, &key, &users)).await;
                assert_eq!((now.value.as_str(), now.stored), ("new", Stored::Yes), "{what}: {now:?}");
            }
            let (_, late) = load.end().await;
            let took = began.elapsed();
            assert!(ends.contains(&late), "{what}: {late:?}");
            assert!(took < WAITED, "{what}: {took:?}");
            let there = elsewhere.get::<String>(&key).await.unwrap();
            assert_eq!(there.as_deref(), is_stored.then_some("new"), "{what}");
            let now = bounded(read(&here, how, &key, &users)).await;
            assert_eq!(now.value, "new", "{what}");
        }
    }
}

async fn a_late_fill_does_not_land_after_a_flush(place: Place) {
    late_after(&place, async |place, _| place.flush().await, &[Stored::FencedOff]).await;
}

async fn a_late_fill_does_not_land_after_a_restart(place: Place) {
    let lose = async |place: &Place, caches: &[&Cache]| {
        place.restart();
        for cache in caches {
            // Until the lost connection is noticed and replaced, a fill would fail for that reason alone.
            let is_back = async || cache.backend().get("another key").await.is_ok();
            until("used again", Duration::from_secs(10), is_back).await;
        }
    };
    // One that renewed its lease just when nobody was there does not even try.
    let ends = [Stored::FencedOff, Stored::BackendUnknown];
    late_after(&place, lose, &ends).await;
}

async fn a_load_that_is_longer_than_a_lease_keeps_it(place: Place) {
    let (cache, mut other) = (place.cache(), Other::start(&place.url()));
    let began = Instant::now();
    for how in How::ALL {
        assert_eq!(other.tell(&format!("load {how:?} {how:?} held")), "loading");
    }
    let mut reads = 0;
    while began.elapsed() < Duration::from_millis(4500) {
        let all = How::ALL.map(async |how| {
            let found = bounded(read(&cache, How::Owned, &format!("{how:?}"), &one("aside"))).await;
            assert_eq!(found.stored, Stored::LeftToOther, "{how:?} after {:?}", began.elapsed());
        });
        reads += join_all(all).await.len();
    }
    println!("{reads} reads in {:?} left storing to the other process", began.elapsed());
    for how in How::ALL {
        let said = other.tell(&format!("end {how:?}"));
        assert!(said.ends_with(" Yes"), "{how:?}: {said}");
        let found = bounded(read(&cache, How::Owned, &format!("{how:?}"), &one("not asked"))).await;
        assert_eq!((found.value.as_str(), found.source), ("held", Source::Cache), "{how:?}");
    }
}

async fn a_holder_that_stood_still_for_longer_than_its_lease_stores_nothing_when_it_goes_on(place: Place) {
    let (cache, mut other) = (place.cache(), Other::start(&place.url()));
    assert_eq!(cache.get::<String>("another key").await.unwrap(), None);
    for how in How::ALL {
        for key in [format!("{how:?}"), format!("{how:?}:left")] {
            assert_eq!(other.tell(&format!("load {how:?} {key} old")), "loading");
        }
    }
    let stopped = other.stop();
    let reads = How::ALL.map(async |how| (how, until_stored(&cache, &format!("{how:?}"), stopped).await));
    for (how, (took, reads, longest)) in join_all(reads).await {
        println!("{how:?}: stored {took:?} after the stop; {reads} reads before, the longest {longest:?}");
        assert!(took < LEASE_OVER && longest < WAITED, "{how:?}: {took:?}, {longest:?}");
    }
    // Well after the end of the leases that nobody has taken.
    tokio::time::sleep((LEASE_OVER + Duration::from_millis(500)).saturating_sub(stopped.elapsed())).await;
    other.go_on();
    for how in How::ALL {
        let served = if how == How::Behind { STALE } else { "old" };
        for (key, there) in [(format!("{how:?}"), Some("new")), (format!("{how:?}:left"), None)] {
            assert_eq!(other.tell(&format!("end {key}")), format!("{served} FencedOff"), "{key}");
            assert_not_stored(&cache, &key, "old", &key).await;
            assert_eq!(cache.get::<String>(&key).await.unwrap().as_deref(), there, "{key}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_holder_that_dies_with_the_primary_keeps_others_from_storing_no_longer_than_its_lease() {
    let place = Place::Sentinels(RedisSentinels::start());
    let Place::Sentinels(sentinels) = &place else { unreachable!("made just now") };
    let (cache, mut other) = (place.cache(), Other::start(&place.url()));
    assert_eq!(cache.get::<String>("another key").await.unwrap(), None);
    assert_eq!(other.tell("load Owned user:1 old"), "loading");
    let replica = &sentinels.servers()[1 - sentinels.primary()];
    until("the replica has the lease", WAITED, async || replica.command("EXISTS user:1") == "1").await;
    let primary = sentinels.kill_primary();
    let killed = other.kill();
    tokio::task::block_in_place(|| sentinels.wait_for_new_primary(primary));
    // Until the new primary is used, nothing is known, and the source answers.
    let is_used = async || cache.backend().delete("another key").await.is_ok();
    until("the new primary is used", Duration::from_secs(10), is_used).await;
    let used = killed.elapsed();
    let (took, reads, longest) = until_stored(&cache, "user:1", killed).await;
    println!("primary used {used:?}, stored {took:?} after the kill; {reads} reads before, {longest:?}");
    assert!(took < LEASE_OVER.max(used + WAITED), "{took:?}");
    assert!(longest < WAITED, "{longest:?}");
}
