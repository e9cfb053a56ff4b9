//! The state machine under a model checker, which chooses at each lock who goes next: `cargo xtask model`.
//!
//! What holds in every schedule is checked by the world that all tasks share, and by the tasks themselves. That nobody
//! waits for ever needs no check: a schedule in which no task can go on fails.

mod tasks;
mod world;

use shuttle::rand::{Rng as _, thread_rng};
use shuttle::scheduler::{DfsScheduler, PctScheduler, RandomScheduler};
use shuttle::{Config, FailurePersistence, Runner};

use self::tasks::{Lead, Patience, Reader, Upset, run};

/// The same schedules in every run; `SHUTTLE_RANDOM_SEED` chooses others.
const SEED: u64 = 0x5eed;
const RANDOM: usize = 20_000;
const PCT: usize = 5_000;
/// How many of the places where the scheduler of PCT changes its mind.
const DEPTH: usize = 3;
const DFS: usize = 20_000;

fn runner<S: shuttle::scheduler::Scheduler + 'static>(scheduler: S) -> Runner<S> {
    let mut config = Config::new();
    config.failure_persistence = FailurePersistence::Print;
    // That orderings are not modelled: the only atomic counts, under locks or for a bound that is about right.
    config.silence_warnings = true;
    // A schedule that takes longer goes round in circles.
    config.max_steps = shuttle::MaxSteps::FailAfter(20_000);
    Runner::new(scheduler, config)
}

fn explore(promise: &str, plan: fn()) {
    let random = runner(RandomScheduler::new_from_seed(SEED, RANDOM)).run(plan);
    let pct = runner(PctScheduler::new_from_seed(SEED, DEPTH, PCT)).run(plan);
    println!("{promise}: {random} random, {pct} pct");
}

/// Also in order, which is complete if it ends before the bound.
fn explore_small(promise: &str, plan: fn()) {
    explore(promise, plan);
    let dfs = runner(DfsScheduler::new(Some(DFS), false)).run(plan);
    println!("{promise}: {dfs} dfs, {}", if dfs < DFS { "which are all" } else { "the first ones" });
}

const READS: Reader = Reader {
    key: "key",
    looks: false,
    lead: Lead::Completes,
    patience: Patience::Endless,
    max_followers: 100,
    is_alone: false,
};
const LOOKS: Reader = Reader { looks: true, ..READS };
const DROPS: Reader = Reader { lead: Lead::Drops, ..LOOKS };
const LEAVES: Reader = Reader { patience: Patience::Leaves, ..LOOKS };

#[test]
fn two_who_read_at_once_both_get_a_value() {
    explore_small("two who read at once", || run(&[READS, READS], &[]));
}

#[test]
fn a_dropped_lead_goes_to_exactly_one_follower() {
    explore_small("a lead is dropped", || run(&[DROPS, READS], &[]));
    explore("a lead is dropped, two follow", || run(&[DROPS, LOOKS, LOOKS], &[]));
}

#[test]
fn a_follower_that_leaves_loses_neither_lead_nor_lease() {
    explore_small("a follower leaves", || run(&[DROPS, LEAVES], &[]));
    explore("a follower leaves, another stays", || run(&[DROPS, LEAVES, LOOKS], &[]));
    explore("all drop or leave", || run(&[DROPS, LEAVES, LEAVES], &[]));
}

#[test]
fn who_comes_after_an_invalidation_gets_nothing_from_before_it() {
    const ALONE: Reader = Reader { is_alone: true, ..LOOKS };
    explore_small("an invalidation, one reads", || run(&[LOOKS], &[Upset::Invalidates]));
    explore("an invalidation, nobody else changes the keys", || run(&[ALONE, ALONE], &[Upset::Invalidates]));
    explore("an invalidation, two read", || run(&[LOOKS, LOOKS], &[Upset::Invalidates]));
    explore("an invalidation, a lead is dropped", || run(&[DROPS, LOOKS, LOOKS], &[Upset::Invalidates]));
    explore("two invalidations", || run(&[DROPS, LOOKS], &[Upset::Invalidates, Upset::InvalidatesAll]));
}

#[test]
fn who_doubts_gets_only_what_was_vouched_for_or_is_sure() {
    const RENEWS: Reader = Reader { lead: Lead::Renews, ..LOOKS };
    explore("a change elsewhere", || run(&[RENEWS, RENEWS], &[Upset::Elsewhere]));
    explore("a change elsewhere, a lead is dropped", || run(&[RENEWS, DROPS, RENEWS], &[Upset::Elsewhere]));
    explore("changes here and elsewhere", || {
        run(&[RENEWS, RENEWS, LEAVES], &[Upset::Elsewhere, Upset::Invalidates]);
    });
}

#[test]
fn a_silent_leader_is_given_up_by_one_and_harms_no_later_flight() {
    const OUSTS: Reader = Reader { patience: Patience::Ousts, ..LOOKS };
    explore_small("a leader is given up", || run(&[READS, OUSTS], &[]));
    explore("two give up", || run(&[DROPS, OUSTS, OUSTS], &[]));
    explore("one gives up, another leaves", || run(&[LOOKS, OUSTS, LEAVES], &[Upset::Invalidates]));
}

#[test]
fn no_more_follow_a_key_than_may() {
    const FEW: Reader = Reader { max_followers: 1, ..LOOKS };
    explore("only one may follow", || run(&[FEW, FEW, FEW], &[]));
}

#[test]
fn keys_and_kinds_of_tasks_in_any_mixture_keep_every_promise() {
    explore("any three tasks and two upsets", || {
        let mut random = thread_rng();
        let readers = [(); 3].map(|()| Reader {
            key: ["key", "key", "other"][random.gen_range(0..3)],
            looks: random.gen_bool(0.5),
            lead: [Lead::Completes, Lead::Drops, Lead::Renews][random.gen_range(0..3)],
            patience: [Patience::Endless, Patience::Leaves, Patience::Ousts][random.gen_range(0..3)],
            ..READS
        });
        let upsets = [(); 2]
            .map(|()| [Upset::Invalidates, Upset::InvalidatesAll, Upset::Elsewhere][random.gen_range(0..3)]);
        run(&readers, &upsets[..random.gen_range(0..3)]);
    });
}
