use std::future::Future as _;
use std::task::{Context, Poll, Waker};

use super::*;

fn tag() -> TypeId {
    TypeId::of::<u32>()
}

/// So many seconds after the beginning.
fn at(seconds: u64) -> Tick {
    let time = crate::ManualClock::new();
    time.advance(Duration::from_secs(seconds));
    time.clock().now()
}

fn joining() -> Joining {
    Joining {
        now: at(0),
        max_age: Some(Duration::from_secs(1)),
        max_followers: 100,
        is_nested: false,
        tags: Tags::default(),
        may_choose_tags: false,
    }
}

fn lead_as(flights: &Arc<Flights>, joining: Joining) -> Leader {
    match flights.enter("key", tag(), joining) {
        Role::Lead(leader) => leader,
        Role::Follow(_) | Role::Full => panic!("somebody leads already"),
    }
}

fn follow_as(flights: &Arc<Flights>, joining: Joining) -> Follower {
    match flights.enter("key", tag(), joining) {
        Role::Follow(follower) => follower,
        Role::Lead(_) | Role::Full => panic!("nobody leads"),
    }
}

fn lead(flights: &Arc<Flights>) -> Leader {
    lead_as(flights, joining())
}

fn follow(flights: &Arc<Flights>) -> Follower {
    follow_as(flights, joining())
}

fn ending(value: u32) -> Landed {
    Landed { ending: Arc::new(value), is_sure: true }
}

/// What a follower gets now; `None` if it still waits.
fn poll(follower: &mut Follower) -> Option<Wait> {
    let mut wait = std::pin::pin!(follower.wait());
    match wait.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(end) => Some(end),
        Poll::Pending => None,
    }
}

fn landed(wait: Option<Wait>) -> u32 {
    match wait {
        Some(Wait::Landed(landed)) => *landed.ending.downcast_ref().unwrap(),
        Some(Wait::Lead(_)) => panic!("got the lead"),
        Some(Wait::Gone) => panic!("gone"),
        None => panic!("waits"),
    }
}

#[test]
fn all_who_wait_get_what_landed_and_later_ones_start_afresh() {
    let flights = Flights::new();
    let leader = lead(&flights);
    let (mut first, mut second) = (follow(&flights), follow(&flights));
    assert!(poll(&mut first).is_none());
    leader.complete(|| ending(7));
    assert_eq!((landed(poll(&mut first)), landed(poll(&mut second))), (7, 7));
    assert_eq!(flights.len(), 0);
    drop(lead(&flights));
}

#[test]
fn nothing_is_made_for_nobody() {
    let flights = Flights::new();
    lead(&flights).complete(|| panic!("nobody waits"));
    assert_eq!(flights.len(), 0);
    let leader = lead(&flights);
    drop(follow(&flights));
    leader.complete(|| panic!("nobody waits any more"));
}

#[test]
fn a_dropped_leader_hands_lead_and_lease_to_one_follower() {
    let flights = Flights::new();
    let mut leader = lead(&flights);
    leader.lease = Some(Lease::new(5));
    let (mut first, mut second) = (follow(&flights), follow(&flights));
    assert!(poll(&mut first).is_none() && poll(&mut second).is_none());
    drop(leader);
    let Some(Wait::Lead(next)) = poll(&mut first) else { panic!("no lead") };
    assert_eq!(next.lease, Some(Lease::new(5)));
    assert!(poll(&mut second).is_none(), "exactly one");
    next.complete(|| ending(1));
    assert_eq!(landed(poll(&mut second)), 1);
}

#[test]
fn whoever_comes_to_an_orphaned_flight_leads_it() {
    let flights = Flights::new();
    let mut leader = lead(&flights);
    leader.lease = Some(Lease::new(5));
    let mut waiting = follow(&flights);
    drop(leader);
    let newcomer = lead(&flights);
    assert_eq!(newcomer.lease, Some(Lease::new(5)));
    assert!(poll(&mut waiting).is_none());
    newcomer.complete(|| ending(2));
    assert_eq!(landed(poll(&mut waiting)), 2);
}

#[test]
fn a_lease_comes_back_when_nobody_is_left_to_take_it() {
    let flights = Flights::new();
    let mut leader = lead(&flights);
    leader.lease = Some(Lease::new(5));
    assert_eq!(leader.abandon(), Some(Lease::new(5)));
    assert_eq!(leader.abandon(), None, "once");
    assert_eq!(flights.len(), 0);

    let mut leader = lead(&flights);
    leader.lease = Some(Lease::new(6));
    let (mut first, mut second) = (follow(&flights), follow(&flights));
    assert_eq!(leader.abandon(), None);
    assert_eq!(first.leave(), None);
    assert_eq!(second.leave(), Some(Lease::new(6)), "the last one out");
    assert_eq!(flights.len(), 0);
}

#[test]
fn a_follower_that_goes_away_as_it_is_woken_wakes_the_next() {
    let flights = Flights::new();
    let leader = lead(&flights);
    let (mut first, mut second) = (follow(&flights), follow(&flights));
    // Waits for real: a future that was woken and is dropped without having looked.
    let mut waiting = Box::pin(async { first.wait().await });
    assert!(waiting.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    drop(leader);
    drop(waiting);
    drop(first);
    assert!(matches!(poll(&mut second), Some(Wait::Lead(_))));
}

#[test]
fn a_detached_flight_ends_for_its_own_and_is_joined_by_nobody() {
    let flights = Flights::new();
    let old = lead(&flights);
    let mut waited = follow(&flights);
    flights.detach("key");
    assert!(old.is_detached());
    let new = lead(&flights);
    assert!(!new.is_detached());
    let mut joined = follow(&flights);
    old.complete(|| ending(1));
    assert_eq!(landed(poll(&mut waited)), 1);
    assert!(poll(&mut joined).is_none(), "the old flight did not end the new one");
    assert_eq!(flights.len(), 1);
    new.complete(|| ending(2));
    assert_eq!(landed(poll(&mut joined)), 2);
}

#[test]
fn the_followers_of_a_detached_leader_that_goes_away_start_over() {
    let flights = Flights::new();
    let mut leader = lead(&flights);
    leader.lease = Some(Lease::new(5));
    let mut waited = follow(&flights);
    flights.detach("key");
    assert_eq!(leader.abandon(), Some(Lease::new(5)));
    assert!(matches!(poll(&mut waited), Some(Wait::Gone)));

    // The other way round: the leader goes first, then comes the invalidation.
    let leader = lead(&flights);
    let mut waited = follow(&flights);
    drop(leader);
    flights.detach_all();
    assert!(matches!(poll(&mut waited), Some(Wait::Gone)));
    assert_eq!(flights.len(), 0);
}

#[test]
fn types_fly_apart_and_are_detached_together() {
    let flights = Flights::new();
    let number = lead(&flights);
    let Role::Lead(text) = flights.enter("key", TypeId::of::<String>(), joining()) else {
        panic!("joined another type")
    };
    assert_eq!(flights.len(), 2);
    flights.detach("key");
    assert!(number.is_detached() && text.is_detached());
    assert_eq!(flights.len(), 0);
}

#[test]
fn a_lease_that_a_follower_brings_is_the_leaders_or_goes_back() {
    let flights = Flights::new();
    let leader = lead(&flights);
    let (mut first, mut second) = (follow(&flights), follow(&flights));
    first.offer(Lease::new(1));
    assert_eq!(leader.take_offered(), Some(Lease::new(1)));
    assert_eq!(first.reclaim(), None, "it was taken");
    second.offer(Lease::new(2));
    assert_eq!(second.reclaim(), Some(Lease::new(2)));
    assert_eq!((leader.take_offered(), second.reclaim()), (None, None));

    // A newer one takes the place of an older one, which is void.
    first.offer(Lease::new(3));
    second.offer(Lease::new(4));
    assert_eq!(first.reclaim(), None);
    // And goes with the lead.
    assert!(poll(&mut first).is_none());
    drop(leader);
    let Some(Wait::Lead(next)) = poll(&mut first) else { panic!("no lead") };
    assert_eq!(next.lease, Some(Lease::new(4)));
    assert_eq!(second.reclaim(), None);
}

#[test]
fn a_load_that_is_no_longer_young_is_joined_only_if_the_backend_can_be_asked() {
    let flights = Flights::new();
    let first = lead(&flights);
    drop(follow_as(&flights, Joining { now: at(9), ..joining() }));
    first.begin(at(0));
    let late = Joining { now: at(2), ..joining() };
    // Nobody can vouch for it: the late one loads itself, and those who come after join that one.
    let second = lead_as(&flights, late);
    assert!(!first.is_detached() && !second.is_detached(), "who is overtaken may still store");
    first.complete(|| panic!("nobody waits"));
    second.begin(at(2));
    second.vouch(at(2));
    let mut follower = follow_as(&flights, Joining { now: at(3), ..joining() });
    assert!(!follower.is_in_doubt() && poll(&mut follower).is_none());
    second.complete(|| ending(2));
    assert_eq!(landed(poll(&mut follower)), 2);
}

#[test]
fn a_doubter_has_the_leader_asked_and_is_content_with_its_word() {
    let flights = Flights::new();
    let leader = lead(&flights);
    leader.begin(at(0));
    leader.vouch(at(0));
    let mut asked = Box::pin(leader.asked());
    let mut cx = Context::from_waker(Waker::noop());
    assert!(asked.as_mut().poll(&mut cx).is_pending());
    let mut doubter = follow_as(&flights, Joining { now: at(2), ..joining() });
    assert!(asked.as_mut().poll(&mut cx).is_ready());
    assert!(doubter.is_in_doubt() && poll(&mut doubter).is_none());
    leader.vouch(at(2));
    assert!(poll(&mut doubter).is_none() && !doubter.is_in_doubt());
    leader.complete(|| Landed { is_sure: false, ..ending(7) });
    assert_eq!(landed(poll(&mut doubter)), 7);
}

#[test]
fn a_doubter_does_not_take_a_result_that_nobody_vouches_for() {
    let flights = Flights::new();
    let leader = lead(&flights);
    leader.begin(at(0));
    leader.vouch(at(0));
    let mut early = follow(&flights);
    let mut doubter = follow_as(&flights, Joining { now: at(2), ..joining() });
    leader.complete(|| Landed { is_sure: false, ..ending(7) });
    assert_eq!(landed(poll(&mut early)), 7);
    assert!(matches!(poll(&mut doubter), Some(Wait::Gone)));
    assert_eq!(flights.waiting(), 2, "until they are dropped");
}

#[test]
fn a_doubter_starts_over_when_something_has_happened_to_the_key() {
    let flights = Flights::new();
    let leader = lead(&flights);
    leader.begin(at(0));
    leader.vouch(at(0));
    let mut early = follow(&flights);
    let mut doubter = follow_as(&flights, Joining { now: at(2), ..joining() });
    assert!(poll(&mut doubter).is_none());
    leader.detach();
    assert!(matches!(poll(&mut doubter), Some(Wait::Gone)));
    leader.complete(|| ending(7));
    assert_eq!(landed(poll(&mut early)), 7, "who waited already gets the value");
}

#[test]
fn a_leader_that_shows_no_sign_of_life_is_given_up_and_one_takes_its_place() {
    let flights = Flights::new();
    let silence = Duration::from_secs(3);
    let silent = lead(&flights);
    let (mut first, mut second) = (follow(&flights), follow(&flights));
    silent.pulse().beat(at(1));
    assert!(!first.oust(at(3), silence));
    assert!(first.oust(at(4), silence));
    assert!(!second.oust(at(4), silence), "it is gone already");
    assert!(matches!(poll(&mut first), Some(Wait::Gone)));
    assert!(matches!(poll(&mut second), Some(Wait::Gone)));
    let next = lead_as(&flights, Joining { now: at(4), ..joining() });
    assert!(silent.is_detached());
    // Back again, it ends its own flight and not the next.
    silent.complete(|| panic!("nobody waits"));
    assert!(!next.is_detached());
    assert_eq!(flights.len(), 1);
}

#[test]
fn no_more_follow_than_may() {
    let flights = Flights::new();
    let few = Joining { max_followers: 2, ..joining() };
    let leader = lead_as(&flights, few.clone());
    let (_first, second) = (follow_as(&flights, few.clone()), follow_as(&flights, few.clone()));
    assert!(matches!(flights.enter("key", tag(), few.clone()), Role::Full));
    drop(second);
    drop(follow_as(&flights, few));
    drop(leader);
}

#[test]
fn who_is_inside_of_a_load_makes_the_one_that_it_waits_for_urgent() {
    let flights = Flights::new();
    let leader = lead(&flights);
    assert!(!leader.is_urgent());
    let _nested = follow_as(&flights, Joining { is_nested: true, ..joining() });
    assert!(leader.is_urgent());
}
