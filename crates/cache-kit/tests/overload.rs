//! More work than there is room for: it waits, or is told so, and whatever happens to those who wait, nothing hangs and
//! nothing is left.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Waker};
use std::time::Duration;

use cache_kit::backend::{Acquired, CacheBackend as _, InMemoryBackend};
use cache_kit::testing::Gate;
use cache_kit::{
    Cache, ErrorKind, InlineOptions, Limits, LoadOptions, ManualClock, Outcome, Policy, Result, Source, Step,
    Stored,
};
use common::{SourceDown, Users, bounded, drop_after, settle};
use futures_util::future::join_all;
use tokio::task::JoinHandle;

const TTL: Duration = Duration::from_secs(10);
const SECOND: Duration = Duration::from_secs(1);

struct Stage {
    time: ManualClock,
    memory: InMemoryBackend,
    cache: Cache,
}

fn stage(policy: Policy, limits: Limits) -> Stage {
    let time = ManualClock::new();
    let memory = InMemoryBackend::builder().clock(time.clock()).build().unwrap();
    let builder = Cache::builder().clock(time.clock()).ttl(TTL).policy(policy).limits(limits);
    Stage { time, memory: memory.clone(), cache: builder.build(memory).unwrap() }
}

fn at_a_time(loads: usize) -> Limits {
    Limits::default().with_max_concurrent_loads(loads)
}

impl Stage {
    fn read(&self, key: &str, users: Users, inline: bool) -> JoinHandle<Result<Outcome<String>>> {
        let (cache, key) = (self.cache.clone(), key.to_owned());
        tokio::spawn(async move {
            let loader = || users.name(1);
            match inline {
                true => cache.get_or_load_inline_outcome(key, InlineOptions::default(), loader).await,
                false => cache.get_or_load_outcome(key, LoadOptions::default(), loader).await,
            }
        })
    }

    fn nothing_is_left(&self, what: &str) {
        let gauges = self.cache.gauges();
        assert_eq!((gauges.loads, gauges.tasks, gauges.waiting), (0, 0, 0), "{what}");
        // What has ended by itself is no lease, though it is in the table until it is swept.
        self.memory.sweep();
        assert_eq!(self.memory.stats().leases, 0, "{what}: no lease is left");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_more_loads_run_at_a_time_than_may_and_all_who_wait_are_answered() {
    let stage = stage(Policy::default(), at_a_time(3));
    let (running, most) = (Arc::new(AtomicU64::new(0)), Arc::new(AtomicU64::new(0)));
    let reads = (0..300_u64).map(|at| {
        let (cache, running, most) = (stage.cache.clone(), Arc::clone(&running), Arc::clone(&most));
        let loader = move || async move {
            most.fetch_max(running.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
            // Long enough for the others to come.
            for _ in 0..20 {
                tokio::task::yield_now().await;
            }
            running.fetch_sub(1, Ordering::SeqCst);
            Ok::<_, SourceDown>(at)
        };
        tokio::spawn(async move {
            let key = format!("key:{at}");
            match at % 2 {
                0 => cache.get_or_load_outcome(key, LoadOptions::default(), loader).await,
                _ => cache.get_or_load_inline_outcome(key, InlineOptions::default(), loader).await,
            }
        })
    });
    let mut waited = 0;
    for (at, read) in bounded(join_all(reads)).await.into_iter().enumerate() {
        let outcome = read.unwrap().unwrap();
        assert_eq!(outcome.value, at as u64);
        waited += u64::from(outcome.steps.contains(Step::WaitedForTurn));
    }
    assert_eq!(most.load(Ordering::SeqCst), 3);
    assert!(waited > 0);
    stage.nothing_is_left("after all of them");
}

#[tokio::test]
async fn a_load_that_waits_for_its_turn_shows_in_the_gauges_and_leaves_when_its_caller_does() {
    let stage = stage(Policy::default(), at_a_time(1));
    let (users, gate) = (Users::with(&[(1, "one")]), Gate::new());
    let first = stage.read("first", users.behind(&gate), true);
    gate.reached().await;
    let second = stage.read("second", users.clone(), true);
    settle().await;
    let gauges = stage.cache.gauges();
    assert_eq!((gauges.loads, gauges.waiting, users.asked()), (2, 1, 1));
    assert_eq!(stage.memory.stats().leases, 1, "who waits for a turn keeps no lease from others");
    second.abort();
    assert!(second.await.unwrap_err().is_cancelled());
    assert_eq!(stage.cache.gauges().waiting, 0);
    gate.open();
    bounded(first).await.unwrap().unwrap();
    assert_eq!(bounded(stage.read("third", users, true)).await.unwrap().unwrap().value, "one");
    stage.nothing_is_left("after a waiter that went away");
}

#[tokio::test]
async fn a_turn_that_does_not_come_is_an_error_at_the_deadline() {
    let stage = stage(Policy::default().with_load_deadline(5 * SECOND), at_a_time(1));
    let (users, gate) = (Users::with(&[(1, "one")]), Gate::new());
    let first = stage.read("first", users.behind(&gate), true);
    gate.reached().await;
    stage.time.advance(SECOND);
    let second = stage.read("second", users.clone(), false);
    settle().await;
    stage.time.advance(4 * SECOND);
    assert_eq!(bounded(first).await.unwrap().unwrap_err().kind(), ErrorKind::Timeout);
    assert_eq!(bounded(second).await.unwrap().unwrap().value, "one", "in time for the next");
    let first = stage.read("third", users.behind(&gate), true);
    gate.reached().await;
    let long = InlineOptions::default();
    let (cache, own) = (stage.cache.clone(), users.clone());
    let waiting =
        tokio::spawn(async move { cache.get_or_load_inline_with("fourth", long, || own.name(1)).await });
    settle().await;
    stage.time.advance(5 * SECOND);
    // Both deadlines have passed; the turn that becomes free at this moment may still be taken.
    assert_eq!(bounded(first).await.unwrap().unwrap_err().kind(), ErrorKind::Timeout);
    if let Err(error) = bounded(waiting).await.unwrap() {
        assert!(matches!(error.kind(), ErrorKind::Overloaded | ErrorKind::Timeout), "{error}");
    }
    stage.nothing_is_left("after a turn that did not come");
}

#[tokio::test]
async fn more_waiting_reads_than_may_are_told_so_or_served_stale() {
    let policy = Policy::default().with_stale_if_error(60 * SECOND);
    let stage = stage(policy, Limits::default().with_max_waiting_reads(2));
    stage.cache.set("stale", &"old".to_owned()).await.unwrap();
    stage.time.advance(TTL + SECOND);
    let (users, gate) = (Users::with(&[(1, "one")]), Gate::new());
    let mut reads = vec![];
    for key in ["key", "stale"] {
        reads.push(stage.read(key, users.behind(&gate), true));
        gate.reached().await;
    }
    reads.extend((0..2).map(|_| stage.read("key", users.clone(), true)));
    settle().await;
    assert_eq!(stage.cache.gauges().waiting, 2);
    let refused = bounded(stage.read("key", users.clone(), true)).await.unwrap().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Overloaded);
    assert!(refused.to_string().contains("max_waiting_reads"), "{refused}");
    for inline in [true, false] {
        let outcome = bounded(stage.read("stale", users.clone(), inline)).await.unwrap().unwrap();
        assert_eq!((outcome.value.as_str(), outcome.is_stale()), ("old", true));
        assert!(outcome.steps.contains(Step::Overloaded));
        assert_eq!(outcome.degraded.unwrap().kind(), ErrorKind::Overloaded);
    }
    assert_eq!(stage.cache.stats().overloaded, 3);
    // A key that nobody loads is loaded all the same.
    assert_eq!(bounded(stage.read("other", users.clone(), true)).await.unwrap().unwrap().value, "one");
    gate.open();
    for read in reads {
        assert_eq!(bounded(read).await.unwrap().unwrap().value, "one");
    }
    stage.nothing_is_left("after the crowd");
}

#[tokio::test]
async fn who_is_served_the_stale_value_meanwhile_needs_no_room_to_wait() {
    let policy = Policy::default().with_stale_while_revalidate(60 * SECOND);
    let stage = stage(policy, Limits::default().with_max_waiting_reads(1));
    stage.cache.set("stale", &"old".to_owned()).await.unwrap();
    stage.time.advance(TTL + SECOND);
    let (users, gate) = (Users::with(&[(1, "one")]), Gate::new());
    let mut reads = vec![];
    for key in ["key", "stale"] {
        reads.push(stage.read(key, users.behind(&gate), true));
        gate.reached().await;
    }
    reads.push(stage.read("key", users.clone(), true));
    settle().await;
    assert_eq!(stage.cache.gauges().waiting, 1, "as many as may");
    let outcome = bounded(stage.read("stale", users.clone(), true)).await.unwrap().unwrap();
    assert_eq!((outcome.value.as_str(), outcome.is_stale()), ("old", true));
    gate.open();
    for read in reads {
        bounded(read).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn loads_that_would_wait_for_their_turn_beyond_the_bound_are_told_so() {
    let stage = stage(Policy::default(), at_a_time(1).with_max_waiting_reads(2));
    let (users, gate) = (Users::with(&[(1, "one")]), Gate::new());
    let first = stage.read("first", users.behind(&gate), true);
    gate.reached().await;
    let waiting = ["second", "third"].map(|key| stage.read(key, users.clone(), true));
    settle().await;
    let refused = bounded(stage.read("fourth", users.clone(), true)).await.unwrap().unwrap_err();
    assert_eq!(refused.kind(), ErrorKind::Overloaded);
    assert_eq!((users.asked(), stage.cache.gauges().waiting), (1, 2));
    gate.open();
    for read in waiting.into_iter().chain([first]) {
        assert_eq!(bounded(read).await.unwrap().unwrap().value, "one");
    }
    stage.nothing_is_left("after a refusal");
}

#[tokio::test]
async fn loads_inside_of_loads_need_no_turn_of_their_own() {
    for inline in [false, true] {
        let stage = stage(Policy::default(), at_a_time(1));
        let (first, second) = (stage.cache.clone(), stage.cache.clone());
        let outer = stage.cache.get_or_load("a", move || async move {
            let inner = async move {
                second.get_or_load("c", || async { Ok::<_, SourceDown>(1) }).await.map(|value| value + 1)
            };
            match inline {
                true => first.get_or_load_inline("b", || inner).await,
                false => first.get_or_load("b", || inner).await,
            }
        });
        assert_eq!(bounded(outer).await.unwrap(), 2, "inline: {inline}");
        stage.nothing_is_left("after nested loads");
    }
}

#[tokio::test]
async fn a_load_that_another_load_waits_for_does_not_wait_for_its_turn_any_longer() {
    for (inline, nested_inline) in [(false, false), (false, true), (true, false), (true, true)] {
        let stage = stage(Policy::default(), at_a_time(1));
        let (users, gate) = (Users::with(&[(1, "one")]), Gate::new());
        let (outer, inner, at, own) = (stage.cache.clone(), stage.cache.clone(), gate.clone(), users.clone());
        // Holds the only turn, and will ask for a key whose load waits for one.
        let loader = move || async move {
            at.pass().await;
            match nested_inline {
                true => inner.get_or_load_inline("inner", || own.name(1)).await,
                false => inner.get_or_load("inner", move || own.name(1)).await,
            }
        };
        let outer = tokio::spawn(async move { outer.get_or_load("outer", loader).await.unwrap() });
        gate.reached().await;
        let waiting = stage.read("inner", users.clone(), inline);
        settle().await;
        assert_eq!(users.asked(), 0, "it waits");
        gate.open();
        assert_eq!(bounded(outer).await.unwrap(), "one", "inline: {inline}, nested: {nested_inline}");
        assert_eq!(bounded(waiting).await.unwrap().unwrap().value, "one");
        assert_eq!(users.asked(), 1, "and is the one that answers both");
        stage.nothing_is_left("after a hurried load");
    }
}

#[tokio::test]
async fn no_load_is_begun_behind_anybody_while_all_turns_are_taken() {
    let policy = Policy::default().with_stale_while_revalidate(60 * SECOND);
    let stage = stage(policy, at_a_time(1));
    stage.cache.set("stale", &"old".to_owned()).await.unwrap();
    stage.time.advance(TTL + SECOND);
    let (users, gate) = (Users::with(&[(1, "new")]), Gate::new());
    let busy = stage.read("busy", users.behind(&gate), true);
    gate.reached().await;
    for _ in 0..2 {
        let outcome = bounded(stage.read("stale", users.clone(), false)).await.unwrap().unwrap();
        assert_eq!((outcome.value.as_str(), outcome.is_stale()), ("old", true));
        assert!(outcome.steps.contains(Step::Overloaded) && !outcome.steps.contains(Step::RefreshingBehind));
    }
    settle().await;
    assert_eq!((users.asked(), stage.cache.stats().overloaded), (1, 2));
    assert_eq!((stage.cache.gauges().tasks, stage.cache.gauges().loads), (0, 1));
    gate.open();
    bounded(busy).await.unwrap().unwrap();
    let outcome = bounded(stage.read("stale", users.clone(), false)).await.unwrap().unwrap();
    assert!(outcome.steps.contains(Step::RefreshingBehind));
    settle().await;
    assert_eq!(bounded(stage.read("stale", users, false)).await.unwrap().unwrap().value, "new");
}

#[tokio::test]
async fn a_load_that_waits_for_itself_is_an_error_also_where_there_is_one_turn() {
    for (outer_inline, inner_inline) in [(false, false), (false, true), (true, false), (true, true)] {
        for through_another in [false, true] {
            let stage = stage(Policy::default(), at_a_time(1));
            let (first, second) = (stage.cache.clone(), stage.cache.clone());
            let again = async move {
                match inner_inline {
                    true => second.get_or_load_inline("a", || async { Ok::<_, SourceDown>(1) }).await,
                    false => second.get_or_load("a", || async { Ok::<_, SourceDown>(1) }).await,
                }
            };
            let loader = move || async move {
                match through_another {
                    true => first.get_or_load("b", || again).await,
                    false => again.await,
                }
            };
            let read = async {
                match outer_inline {
                    true => stage.cache.get_or_load_inline("a", loader).await,
                    false => stage.cache.get_or_load("a", loader).await,
                }
            };
            let error = bounded(read).await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::Reentrant, "{outer_inline} {inner_inline} {through_another}");
            stage.nothing_is_left("after a load that waited for itself");
            let after = stage.cache.get_or_load("a", || async { Ok::<_, SourceDown>(2) }).await;
            assert_eq!(after.unwrap(), 2);
        }
    }
}

#[tokio::test]
async fn a_leader_that_nobody_polls_does_not_keep_its_turn_from_those_who_gave_it_up() {
    let stage = stage(Policy::default(), at_a_time(1));
    let (users, gate) = (Users::with(&[(1, "one")]), Gate::new());
    let slow = users.behind(&gate);
    let options = InlineOptions::default();
    let mut old = Box::pin(stage.cache.get_or_load_inline_outcome("key", options, || slow.name(1)));
    assert!(old.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    let follower = stage.read("key", users.clone(), true);
    for _ in 0..16 {
        settle().await;
        stage.time.advance(Duration::from_millis(250));
    }
    settle().await;
    assert!(follower.is_finished(), "it has given up on the leader, and needs a turn of its own");
    assert_eq!(follower.await.unwrap().unwrap().value, "one");
}

/// The value that belongs to a key, and to no other.
fn value_of(key: u64) -> String {
    format!("value of {key}")
}

async fn load(key: u64, polls: u32, under_way: Arc<AtomicU64>) -> Result<String, SourceDown> {
    struct Count(Arc<AtomicU64>);
    impl Drop for Count {
        fn drop(&mut self) {
            self.0.fetch_sub(1, Ordering::SeqCst);
        }
    }
    under_way.fetch_add(1, Ordering::SeqCst);
    let _count = Count(under_way);
    // One in seven never ends by itself.
    if polls == 6 {
        std::future::pending::<()>().await;
    }
    for _ in 0..polls {
        tokio::task::yield_now().await;
    }
    if polls == 3 { Err(SourceDown(key)) } else { Ok(value_of(key)) }
}

/// One read of few keys, or one change of them, that is dropped after a few polls.
async fn operate(stage: &Stage, under_way: &Arc<AtomicU64>, random: &mut fastrand::Rng) {
    let (key, polls, load_polls) = (random.u64(..16), random.u32(..12), random.u32(..7));
    let name = format!("key:{key}");
    let counter = Arc::clone(under_way);
    let loader = move || load(key, load_polls, counter);
    let timeout = Duration::from_millis(random.u64(1..2_000));
    let owned = match random.u32(..4) {
        0 => LoadOptions::default().with_timeout(timeout),
        1 => LoadOptions::default().with_soft_timeout(timeout),
        2 => LoadOptions::default().with_stale_while_revalidate(Duration::ZERO),
        _ => LoadOptions::default(),
    };
    let read = match random.u32(..20) {
        0..9 => drop_after(stage.cache.get_or_load_outcome(&name, owned, loader), polls).await,
        9..16 => {
            let inline = match random.bool() {
                true => InlineOptions::default().with_timeout(timeout),
                false => InlineOptions::default(),
            };
            drop_after(stage.cache.get_or_load_inline_outcome(&name, inline, loader), polls).await
        }
        16 => return drop(drop_after(stage.cache.invalidate(&name), polls).await),
        17 => return drop(drop_after(stage.cache.expire(&name), polls).await),
        18 => return drop(drop_after(stage.cache.hold([&name]), polls).await),
        _ => return stage.time.advance(Duration::from_millis(random.u64(..400))),
    };
    if let Some(Ok(outcome)) = read {
        assert_eq!(outcome.value, value_of(key), "a value under another's key");
    }
}

#[tokio::test]
async fn who_waits_for_another_process_lets_others_load_meanwhile() {
    let stage = stage(Policy::default(), at_a_time(1));
    let life = Duration::from_secs(3);
    assert!(matches!(stage.memory.acquire("elsewhere", None, life).await, Ok(Acquired::Granted { .. })));
    let users = Users::with(&[(1, "one")]);
    let waits = stage.read("elsewhere", users.clone(), false);
    while stage.cache.stats().leased_elsewhere == 0 {
        tokio::task::yield_now().await;
    }
    // Time stands still: nothing ends that wait.
    let read = bounded(stage.read("key", users.clone(), false)).await.unwrap().unwrap();
    assert_eq!((read.value.as_str(), read.stored), ("one", Stored::Yes));
    stage.time.advance(2 * SECOND);
    assert_eq!(bounded(waits).await.unwrap().unwrap().stored, Stored::LeftToOther);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_readers_dropped_at_any_moment_leave_nothing_behind() {
    let seed =
        std::env::var("CACHE_KIT_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(fastrand::u64(..));
    println!("CACHE_KIT_SEED={seed}");
    let policy = Policy::default()
        .with_stale_while_revalidate(2 * SECOND)
        .with_stale_if_error(20 * SECOND)
        .with_soft_timeout(SECOND)
        .with_timeout(4 * SECOND)
        .with_load_deadline(6 * SECOND);
    let stage = Arc::new(stage(policy, at_a_time(8).with_max_waiting_reads(40)));
    let under_way = Arc::new(AtomicU64::new(0));
    let tasks = (0..100).map(|task| {
        let (stage, under_way) = (Arc::clone(&stage), Arc::clone(&under_way));
        tokio::spawn(async move {
            let mut random = fastrand::Rng::with_seed(seed.wrapping_add(task));
            for _ in 0..1_000 {
                operate(&stage, &under_way, &mut random).await;
            }
        })
    });
    for task in bounded(join_all(tasks)).await {
        task.unwrap();
    }
    // What nobody waits for ends at its deadline.
    let ended = AtomicBool::new(false);
    bounded(async {
        while !ended.load(Ordering::SeqCst) {
            stage.time.advance(Duration::from_millis(500));
            settle().await;
            let gauges = stage.cache.gauges();
            let busy = gauges.loads + gauges.tasks + gauges.waiting + gauges.pending_invalidations;
            ended.store(busy == 0 && under_way.load(Ordering::SeqCst) == 0, Ordering::SeqCst);
        }
    })
    .await;
    stage.nothing_is_left("after the storm");
    let stats = stage.cache.stats();
    println!("{stats:?}");
    assert_eq!(stats.rejected.total(), 0);
    assert!(stats.stale_served > 0 && stats.taken_over > 0 && stats.overloaded > 0, "it was a storm");
    // What is fresh is served, and everything else can be loaded.
    stage.time.advance(60 * SECOND);
    for key in 0..16 {
        let counter = Arc::clone(&under_way);
        let read = stage
            .cache
            .get_or_load_outcome(format!("key:{key}"), LoadOptions::default(), move || load(key, 0, counter));
        let outcome = bounded(read).await.unwrap();
        assert_eq!((outcome.value, outcome.source), (value_of(key), Source::Load), "every key still serves");
    }
}
