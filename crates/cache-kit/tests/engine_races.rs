//! Whatever overtakes a load, and from wherever: what the load read before is not stored, and who comes after does not get
//! it. For each way that a load is run, in memory and on servers. Gates, not sleeps.

#![cfg(all(feature = "redis", feature = "memcached"))]
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    reason = "a test that cannot go on fails, and one that goes on prints what it measured"
)]

mod common;

use std::time::{Duration, Instant};

use cache_kit::{Cache, Hold, Outcome, Policy, Source, Step, Stored};
use common::engine::{How, Load, Place, STALE, assert_not_stored, on_places, one, read, serve};
use common::other::Other;
use common::{bounded, until};

on_places! {
    memory {
        what_a_load_read_before_it_was_overtaken_is_not_stored
        what_is_loaded_during_a_hold_is_returned_and_not_stored
        a_hold_outlives_the_lease_it_began_with
        the_end_of_one_hold_does_not_end_another_one_of_the_key
        an_invalidation_does_not_end_a_hold_of_this_cache
        a_reader_joins_a_young_load
        a_reader_that_comes_later_than_it_may_join_does_not_get_what_another_cache_invalidated
        a_reader_that_comes_later_than_it_may_join_joins_if_nothing_has_happened
    }
    redis {
        what_a_load_read_before_it_was_overtaken_is_not_stored
        what_is_loaded_during_a_hold_is_returned_and_not_stored
        a_hold_outlives_the_lease_it_began_with
        the_end_of_one_hold_does_not_end_another_one_of_the_key
        an_invalidation_does_not_end_a_hold_of_this_cache
        a_reader_joins_a_young_load
        a_reader_that_comes_later_than_it_may_join_does_not_get_what_another_cache_invalidated
        a_reader_that_comes_later_than_it_may_join_joins_if_nothing_has_happened
        what_a_load_read_before_another_process_overtook_it_is_not_stored
    }
    memcached {
        what_a_load_read_before_it_was_overtaken_is_not_stored
        what_is_loaded_during_a_hold_is_returned_and_not_stored
        a_hold_outlives_the_lease_it_began_with
        the_end_of_one_hold_does_not_end_another_one_of_the_key
        an_invalidation_does_not_end_a_hold_of_this_cache
        a_reader_joins_a_young_load
        a_reader_that_comes_later_than_it_may_join_does_not_get_what_another_cache_invalidated
        a_reader_that_comes_later_than_it_may_join_joins_if_nothing_has_happened
        what_a_load_read_before_another_process_overtook_it_is_not_stored
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the other process of the tests in this file, which start it"]
async fn another_process() {
    serve().await;
}

const LONG: Duration = Duration::from_secs(20);

/// What happens to a key while it is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Overtaking {
    Invalidation,
    Expiry,
    Hold,
    DroppedHold,
}

impl Overtaking {
    const ALL: [Self; 4] = [Self::Invalidation, Self::Expiry, Self::Hold, Self::DroppedHold];

    /// From its beginning to its end; the row changes in between.
    async fn happen(self, cache: &Cache, key: &str, change: impl FnOnce()) {
        match self {
            Self::Invalidation => {
                change();
                cache.invalidate(key).await.unwrap();
            }
            Self::Expiry => {
                change();
                cache.expire(key).await.unwrap();
            }
            Self::Hold => {
                let hold = held(cache, key).await;
                change();
                hold.confirm().await.unwrap();
            }
            Self::DroppedHold => {
                let hold = held(cache, key).await;
                change();
                drop(hold);
            }
        }
    }
}

async fn held(cache: &Cache, key: &str) -> Hold {
    let hold = bounded(cache.hold([key])).await.unwrap();
    assert!(hold.degraded().is_none(), "{hold:?}");
    hold
}

fn is_new(outcome: &Outcome<String>, stored: Stored) -> bool {
    (outcome.value.as_str(), outcome.source, outcome.stored) == ("new", Source::Load, stored)
}

/// When a load that was overtaken ends, beside the next load.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ends {
    /// Nothing is there, or what had expired.
    Before,
    /// The lease of the key is somebody else's.
    During,
    /// The new row is there already.
    After,
}

async fn what_a_load_read_before_it_was_overtaken_is_not_stored(place: Place) {
    let (mut cases, mut key) = (0, 0);
    for how in How::ALL {
        for overtaking in Overtaking::ALL {
            for is_elsewhere in [false, true] {
                for ends in [Ends::Before, Ends::During, Ends::After] {
                    let (here, elsewhere, users) = (place.cache(), place.cache(), one("old"));
                    let what = format!("{how:?}, {overtaking:?}, elsewhere: {is_elsewhere}, ends {ends:?}");
                    key += 1;
                    let key = &format!("user:{key}");
                    let load = Load::begin(&here, how, key, &users).await;
                    let overtaker = if is_elsewhere { &elsewhere } else { &here };
                    overtaking.happen(overtaker, key, || users.put(1, "new")).await;
                    if overtaking == Overtaking::DroppedHold {
                        // What the source says is the answer at once; until the end of the hold is confirmed, it is not
                        // stored.
                        assert_eq!(bounded(read(overtaker, how, key, &users)).await.value, "new", "{what}");
                        overtaker.flush_pending(LONG).await.unwrap();
                        overtaker.invalidate(key).await.unwrap();
                    }
                    let (value, stored) = match ends {
                        Ends::Before => {
                            let ended = load.end().await;
                            assert_not_stored(&here, key, "old", &what).await;
                            let now = bounded(read(&here, how, key, &users)).await;
                            assert!(is_new(&now, Stored::Yes), "{what}: {now:?}");
                            ended
                        }
                        Ends::During => {
                            let next = Load::begin(overtaker, How::Inline, key, &users).await;
                            let ended = load.end().await;
                            assert_not_stored(&here, key, "old", &what).await;
                            assert_eq!(next.end().await, ("new".to_owned(), Stored::Yes), "{what}");
                            ended
                        }
                        Ends::After => {
                            let now = bounded(read(overtaker, how, key, &users)).await;
                            assert!(is_new(&now, Stored::Yes), "{what}: {now:?}");
                            load.end().await
                        }
                    };
                    let served = if how == How::Behind { STALE } else { "old" };
                    assert_eq!((value.as_str(), stored), (served, Stored::FencedOff), "{what}");
                    assert_not_stored(&here, key, "old", &what).await;
                    for cache in [&here, &elsewhere] {
                        let found = bounded(read(cache, how, key, &one("not asked"))).await;
                        assert_eq!((found.value.as_str(), found.source), ("new", Source::Cache), "{what}");
                    }
                    cases += 1;
                }
            }
        }
    }
    println!("{cases} races, none of them won by the old row");
}

async fn what_is_loaded_during_a_hold_is_returned_and_not_stored(place: Place) {
    for how in [How::Owned, How::Inline] {
        let (here, elsewhere, key) = (place.cache(), place.cache(), format!("user:{how:?}"));
        let wait = Policy::default().lease_wait;
        let hold = held(&here, &key).await;
        let began = Instant::now();
        let found = bounded(read(&here, how, &key, &one("old"))).await;
        let here_took = began.elapsed();
        assert_eq!((found.value.as_str(), found.stored), ("old", Stored::LeftToOther), "{how:?}");
        assert!(here_took < wait / 2, "waits for what it keeps away itself: {here_took:?}");
        let began = Instant::now();
        let found = bounded(read(&elsewhere, how, &key, &one("old"))).await;
        let elsewhere_took = began.elapsed();
        assert_eq!((found.value.as_str(), found.stored), ("old", Stored::LeftToOther), "{how:?}");
        assert!(elsewhere_took < 2 * wait, "{elsewhere_took:?}");
        println!("{how:?}: with the hold {here_took:?}, elsewhere {elsewhere_took:?}");
        assert_eq!(here.get::<String>(&key).await.unwrap(), None);
        hold.confirm().await.unwrap();
        let now = bounded(read(&elsewhere, how, &key, &one("new"))).await;
        assert!(is_new(&now, Stored::Yes), "{how:?}: {now:?}");
        let found = bounded(read(&here, how, &key, &one("not asked"))).await;
        assert_eq!((found.value.as_str(), found.source), ("new", Source::Cache), "{how:?}");
    }
}

async fn a_hold_outlives_the_lease_it_began_with(place: Place) {
    let (here, elsewhere, key) = (place.cache(), place.cache(), "user:1");
    let (hold, began) = (held(&here, key).await, Instant::now());
    let mut reads = 0;
    while began.elapsed() < Duration::from_millis(3500) {
        let found = bounded(read(&elsewhere, How::Owned, key, &one("old"))).await;
        assert_eq!(found.stored, Stored::LeftToOther, "{:?} after the hold began", began.elapsed());
        reads += 1;
    }
    hold.confirm().await.unwrap();
    let now = bounded(read(&elsewhere, How::Owned, key, &one("new"))).await;
    assert!(is_new(&now, Stored::Yes), "{now:?}");
    println!("{reads} reads elsewhere during a hold of {:?}", began.elapsed());
}

/// While a hold is out, whoever reads gets what the source says and stores nothing; after it, the new row is stored.
async fn is_still_held(hold: Hold, readers: &[&Cache], key: &str, what: &str) {
    for reader in readers {
        let found = bounded(read(reader, How::Owned, key, &one("old"))).await;
        assert!(found.source == Source::Load && found.stored != Stored::Yes, "{what}: {}", found.explain());
        assert_not_stored(reader, key, "old", what).await;
    }
    hold.confirm().await.unwrap();
    let now = bounded(read(readers[0], How::Owned, key, &one("new"))).await;
    assert!(is_new(&now, Stored::Yes), "{what}: {now:?}");
}

async fn the_end_of_one_hold_does_not_end_another_one_of_the_key(place: Place) {
    let (here, elsewhere) = (place.cache(), place.cache());
    for is_first in [true, false] {
        for is_confirmed in [true, false] {
            let key = &format!("user:{is_first}:{is_confirmed}");
            let what = format!("of two holds, the first ends: {is_first}, confirmed: {is_confirmed}");
            let (first, second) = (held(&here, key).await, held(&here, key).await);
            let (ends, stays) = if is_first { (first, second) } else { (second, first) };
            if is_confirmed {
                ends.confirm().await.unwrap();
            } else {
                drop(ends);
                here.flush_pending(LONG).await.unwrap();
            }
            is_still_held(stays, &[&here, &elsewhere], key, &what).await;
        }
    }
}

async fn an_invalidation_does_not_end_a_hold_of_this_cache(place: Place) {
    let (here, elsewhere, key) = (place.cache(), place.cache(), "user:1");
    let hold = held(&here, key).await;
    here.invalidate(key).await.unwrap();
    is_still_held(hold, &[&here, &elsewhere], key, "invalidated meanwhile").await;
}

/// A reader that has joined a load.
async fn join(cache: &Cache, how: How, key: &str, row: &str) -> tokio::task::JoinHandle<Outcome<String>> {
    let (waiting, reader, key, users) = (cache.readers_waiting(), cache.clone(), key.to_owned(), one(row));
    let joined = tokio::spawn(async move { read(&reader, how, &key, &users).await });
    until("it joins", LONG, async || cache.readers_waiting() > waiting).await;
    joined
}

async fn a_reader_joins_a_young_load(place: Place) {
    for how in How::ALL {
        let (here, elsewhere, key) = (place.cache(), place.cache(), format!("user:{how:?}"));
        let load = Load::begin(&here, how, &key, &one("old")).await;
        let joined = join(&here, how, &key, "not asked").await;
        // What another one invalidates is answered all the same to whoever waits, for so long.
        elsewhere.invalidate(&key).await.unwrap();
        assert_eq!(load.end().await.1, Stored::FencedOff, "{how:?}");
        let joined = bounded(joined).await.unwrap();
        assert_eq!((joined.value.as_str(), joined.source), ("old", Source::SharedLoad), "{how:?}");
        assert!(!joined.steps.contains(Step::Doubted), "{how:?}");
        let now = bounded(read(&here, how, &key, &one("new"))).await;
        assert!(is_new(&now, Stored::Yes), "{how:?}: {now:?}");
    }
}

async fn a_reader_that_comes_later_than_it_may_join_does_not_get_what_another_cache_invalidated(
    place: Place,
) {
    for how in How::ALL {
        let here = place.cache_by(Policy::default().with_join_max_age(Duration::ZERO));
        let (elsewhere, key, users) = (place.cache(), format!("user:{how:?}"), one("old"));
        let load = Load::begin(&here, how, &key, &users).await;
        users.put(1, "new");
        elsewhere.invalidate(&key).await.unwrap();
        // While the load stands where it stands.
        let now = bounded(read(&here, how, &key, &users)).await;
        assert!(is_new(&now, Stored::Yes), "{how:?}: {now:?}");
        assert!(now.steps.contains(Step::Doubted), "{how:?}: {}", now.explain());
        assert_eq!(load.end().await.1, Stored::FencedOff, "{how:?}");
        assert_not_stored(&here, &key, "old", &format!("{how:?}")).await;
        let found = bounded(read(&here, how, &key, &one("not asked"))).await;
        assert_eq!((found.value.as_str(), found.source), ("new", Source::Cache), "{how:?}");
    }
}

async fn a_reader_that_comes_later_than_it_may_join_joins_if_nothing_has_happened(place: Place) {
    for how in How::ALL {
        let here = place.cache_by(Policy::default().with_join_max_age(Duration::ZERO));
        let key = format!("user:{how:?}");
        let load = Load::begin(&here, how, &key, &one("row")).await;
        let joined = join(&here, how, &key, "not asked").await;
        until("the backend is asked", LONG, async || here.stats().leases_renewed > 0).await;
        assert_eq!(load.end().await.1, Stored::Yes, "{how:?}");
        let joined = bounded(joined).await.unwrap();
        assert_eq!((joined.value.as_str(), joined.source), ("row", Source::SharedLoad), "{how:?}");
        assert!(joined.steps.contains(Step::Doubted), "{how:?}: {}", joined.explain());
    }
}

async fn what_a_load_read_before_another_process_overtook_it_is_not_stored(place: Place) {
    let (here, mut other, mut cases) = (place.cache(), Other::start(&place.url()), 0);
    for how in How::ALL {
        for overtaking in Overtaking::ALL {
            let key = &format!("{how:?}:{overtaking:?}");
            // The load is here, and the other process overtakes it.
            let (load, what) = (Load::begin(&here, how, key, &one("old")).await, format!("{key} here"));
            tell_of(&mut other, overtaking, key);
            assert_eq!(load.end().await.1, Stored::FencedOff, "{what}");
            assert_not_stored(&here, key, "old", &what).await;
            assert_eq!(other.tell(&format!("read {key} new")), "new Load Yes", "{what}");
            let found = bounded(read(&here, how, key, &one("not asked"))).await;
            assert_eq!((found.value.as_str(), found.source), ("new", Source::Cache), "{what}");

            // The other way round.
            here.invalidate(key).await.unwrap();
            let what = format!("{key} in another process");
            assert_eq!(other.tell(&format!("load {how:?} {key} old")), "loading");
            overtaking.happen(&here, key, || {}).await;
            here.flush_pending(LONG).await.unwrap();
            let served = if how == How::Behind { STALE } else { "old" };
            assert_eq!(other.tell(&format!("end {key}")), format!("{served} FencedOff"), "{what}");
            assert_not_stored(&here, key, "old", &what).await;
            let now = bounded(read(&here, how, key, &one("new"))).await;
            assert!(is_new(&now, Stored::Yes), "{what}: {now:?}");
            assert_eq!(other.tell(&format!("read {key} not-asked")), "new Cache NotAsked", "{what}");
            cases += 2;
        }
    }
    println!("{cases} races between processes, none of them won by the old row");
}

/// Lets another process do it.
fn tell_of(other: &mut Other, overtaking: Overtaking, key: &str) {
    let lines: &[String] = match overtaking {
        Overtaking::Invalidation => &[format!("invalidate {key}")],
        Overtaking::Expiry => &[format!("expire {key}")],
        Overtaking::Hold => &[format!("hold {key}"), "confirm".to_owned()],
        Overtaking::DroppedHold => &[format!("hold {key}"), "drop".to_owned()],
    };
    for line in lines {
        let said = other.tell(line);
        assert!(said == "done" || said == "holding", "{line}: {said}");
    }
}
