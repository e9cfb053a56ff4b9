use std::future::Future as _;
use std::task::{Context, Poll, Waker};

use super::*;

fn tag() -> TypeId {
    TypeId::of::<u32>()
}

fn lead(flights: &Arc<Flights>) -> Leader {
    match flights.enter("key", tag()) {
        Role::Lead(leader) => leader,
        Role::Follow(_) => panic!("somebody leads already"),
    }
}

fn follow(flights: &Arc<Flights>) -> Follower {
    match flights.enter("key", tag()) {
        Role::Follow(follower) => follower,
        Role::Lead(_) => panic!("nobody leads"),
    }
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
        Some(Wait::Landed(value)) => *value.downcast_ref().unwrap(),
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
    leader.complete(|| Arc::new(7_u32));
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
    next.complete(|| Arc::new(1_u32));
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
    newcomer.complete(|| Arc::new(2_u32));
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
    old.complete(|| Arc::new(1_u32));
    assert_eq!(landed(poll(&mut waited)), 1);
    assert!(poll(&mut joined).is_none(), "the old flight did not end the new one");
    assert_eq!(flights.len(), 1);
    new.complete(|| Arc::new(2_u32));
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
    let Role::Lead(text) = flights.enter("key", TypeId::of::<String>()) else {
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
