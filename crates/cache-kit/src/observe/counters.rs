//! Counters that many threads can bump without waiting for each other.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crate::entry::Reject;

/// What is counted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(usize)]
pub(crate) enum Event {
    Hit,
    Miss,
    Stale,
    Unknown,
    Load,
    LoadFailed,
    SharedLoad,
    Stored,
    FencedOff,
    StoreFailed,
    BackendError,
    Invalidation,
    StaleServed,
    StaleOnError,
    Throttled,
    SoftTimeout,
    TimedOut,
    Overloaded,
    LoadDropped,
    LeaseRenewed,
    LeaseLost,
    LeasedElsewhere,
    FilledElsewhere,
    TakenOver,
    Ousted,
    Quarantined,
    Unconfirmed,
    Replayed,
    Collapsed,
    TagInvalidation,
    Clear,
    EarlyRefresh,
    Touched,
    AbsentHit,
    AbsentStored,
    AbsentRefused,
    NotModified,
    // The rejects follow in the order of `Reject`.
    FirstReject,
}

const REJECTS: usize = Reject::Invalidated as usize + 1;
const EVENTS: usize = Event::FirstReject as usize + REJECTS;
/// As many threads count without sharing a cache line.
const STRIPES: usize = 16;

/// One thread's share, on cache lines of its own.
#[repr(align(128))]
struct Stripe([AtomicU64; EVENTS]);

impl Default for Stripe {
    fn default() -> Self {
        Self(std::array::from_fn(|_| AtomicU64::new(0)))
    }
}

/// All counters of one cache.
pub(crate) struct Counters(Box<[Stripe]>);

impl Counters {
    pub(crate) fn new() -> Self {
        Self((0..STRIPES).map(|_| Stripe::default()).collect())
    }

    pub(crate) fn count(&self, event: Event) {
        self.bump(event as usize);
    }

    pub(crate) fn count_reject(&self, reject: Reject) {
        self.bump(Event::FirstReject as usize + reject as usize);
    }

    fn bump(&self, at: usize) {
        self.0[stripe()].0[at].fetch_add(1, Ordering::Relaxed);
    }

    fn sum(&self, at: usize) -> u64 {
        self.0.iter().map(|stripe| stripe.0[at].load(Ordering::Relaxed)).sum()
    }

    pub(crate) fn snapshot(&self) -> Stats {
        let of = |event: Event| self.sum(event as usize);
        let rejected = |reject: Reject| self.sum(Event::FirstReject as usize + reject as usize);
        Stats {
            hits: of(Event::Hit),
            misses: of(Event::Miss),
            stale: of(Event::Stale),
            unknown: of(Event::Unknown),
            loads: of(Event::Load),
            load_failures: of(Event::LoadFailed),
            shared_loads: of(Event::SharedLoad),
            stored: of(Event::Stored),
            fenced_off: of(Event::FencedOff),
            store_failures: of(Event::StoreFailed),
            backend_errors: of(Event::BackendError),
            invalidations: of(Event::Invalidation),
            stale_served: of(Event::StaleServed),
            stale_on_error: of(Event::StaleOnError),
            throttled: of(Event::Throttled),
            soft_timeouts: of(Event::SoftTimeout),
            timeouts: of(Event::TimedOut),
            overloaded: of(Event::Overloaded),
            loads_dropped: of(Event::LoadDropped),
            leases_renewed: of(Event::LeaseRenewed),
            leases_lost: of(Event::LeaseLost),
            leased_elsewhere: of(Event::LeasedElsewhere),
            filled_elsewhere: of(Event::FilledElsewhere),
            taken_over: of(Event::TakenOver),
            ousted: of(Event::Ousted),
            quarantined: of(Event::Quarantined),
            unconfirmed: of(Event::Unconfirmed),
            replayed: of(Event::Replayed),
            collapsed: of(Event::Collapsed),
            tag_invalidations: of(Event::TagInvalidation),
            clears: of(Event::Clear),
            early_refreshes: of(Event::EarlyRefresh),
            touched: of(Event::Touched),
            absent_hits: of(Event::AbsentHit),
            absent_stored: of(Event::AbsentStored),
            absent_refused: of(Event::AbsentRefused),
            not_modified: of(Event::NotModified),
            rejected: RejectedStats {
                foreign: rejected(Reject::Foreign),
                unknown_format: rejected(Reject::UnknownFormat),
                truncated: rejected(Reject::Truncated),
                corrupt: rejected(Reject::Corrupt),
                wrong_key: rejected(Reject::WrongKey),
                wrong_schema: rejected(Reject::WrongSchema),
                too_large: rejected(Reject::TooLarge),
                undecodable: rejected(Reject::Undecodable),
                invalidated: rejected(Reject::Invalidated),
            },
        }
    }
}

/// The stripe of this thread.
fn stripe() -> usize {
    static NEXT: AtomicUsize = AtomicUsize::new(0);
    thread_local! {
        static MINE: Cell<usize> = const { Cell::new(usize::MAX) };
    }
    MINE.try_with(|mine| {
        if mine.get() == usize::MAX {
            mine.set(NEXT.fetch_add(1, Ordering::Relaxed) % STRIPES);
        }
        mine.get()
    })
    // A thread that is ending still counts somewhere.
    .unwrap_or(0)
}

/// What a cache has done since it was made.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stats {
    /// Reads that the cache answered. What a load answered is never counted here.
    pub hits: u64,
    /// Reads that the cache could not answer: nothing there, or nothing usable.
    pub misses: u64,
    /// Entries that were found and past their fresh life.
    pub stale: u64,
    /// Reads that the cache could not answer because the backend failed; neither hits nor misses.
    pub unknown: u64,
    /// Reads of the source that were begun; one for each call of a batch's loader, whatever the number of keys.
    pub loads: u64,
    /// Those of the loads that failed or panicked.
    pub load_failures: u64,
    /// Reads that were answered by what another read had begun.
    pub shared_loads: u64,
    /// Values stored, and that the source does not have one.
    pub stored: u64,
    /// Loaded values that were not stored because the key was invalidated or written meanwhile, or because the lease
    /// could not be kept for as long as the load took.
    pub fenced_off: u64,
    /// Values, loaded or set, that could not be stored: not encodable, too large, refused by the backend.
    pub store_failures: u64,
    /// Operations of the backend that failed, other than storing.
    pub backend_errors: u64,
    /// Keys whose invalidation the backend has confirmed at once, and patterns; those that it has confirmed later are
    /// [`replayed`](Self::replayed).
    pub invalidations: u64,
    /// Reads that were answered with a value past its fresh life, for whatever reason.
    pub stale_served: u64,
    /// Those of them whose load failed, took too long, or could not be begun because there were too many.
    pub stale_on_error: u64,
    /// Those of them that left the source alone because it had just failed.
    pub throttled: u64,
    /// Reads that stopped waiting after the soft timeout.
    pub soft_timeouts: u64,
    /// Reads that stopped waiting after their timeout.
    pub timeouts: u64,
    /// Reads and refreshes that found too many loads or waiting reads.
    pub overloaded: u64,
    /// Loads that were dropped at their deadline.
    pub loads_dropped: u64,
    /// Leases that were renewed while their load went on.
    pub leases_renewed: u64,
    /// Leases that turned out to be void while their load went on.
    pub leases_lost: u64,
    /// Loads that found another process, or another cache, to have the lease.
    pub leased_elsewhere: u64,
    /// Those of them that were answered by what the other one stored.
    pub filled_elsewhere: u64,
    /// Loads that were begun anew by a reader who waited, because the one that had begun it went away.
    pub taken_over: u64,
    /// Loads that the readers who waited gave up on, because nobody ran them any more.
    pub ousted: u64,
    /// Reads that did not believe the backend, because an invalidation was not confirmed yet.
    pub quarantined: u64,
    /// Invalidations that the backend did not confirm at once, and that were queued.
    pub unconfirmed: u64,
    /// Those of them that it has confirmed since.
    pub replayed: u64,
    /// How often there were too many of them, and everything was made invalid instead.
    pub collapsed: u64,
    /// Tags whose invalidation the backend has confirmed.
    pub tag_invalidations: u64,
    /// Times that everything was made invalid, and the backend has confirmed it.
    pub clears: u64,
    /// Loads that were begun behind a reader before the value's life had ended.
    pub early_refreshes: u64,
    /// Entries whose life goes on because they were read.
    pub touched: u64,
    /// Those of the hits that say that the source does not have the value.
    pub absent_hits: u64,
    /// Times that it was stored that the source does not have a value.
    pub absent_stored: u64,
    /// Times that it was not, because there were as many already as may be.
    pub absent_refused: u64,
    /// Loads whose source said that the value is still good.
    pub not_modified: u64,
    /// Entries that were found and not used, by reason.
    pub rejected: RejectedStats,
}

/// Entries that were found and not used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RejectedStats {
    /// Not written by this crate.
    pub foreign: u64,
    /// Of a format, or in a codec, that this build does not know.
    pub unknown_format: u64,
    /// Cut short.
    pub truncated: u64,
    /// With a checksum that does not fit.
    pub corrupt: u64,
    /// Stored for another key: must stay zero, whatever the servers do.
    pub wrong_key: u64,
    /// Stored for another type, or another version of it.
    pub wrong_schema: u64,
    /// Larger than this cache accepts.
    pub too_large: u64,
    /// Whole, but refused by the codec or by the entity itself.
    pub undecodable: u64,
    /// Of a namespace, or with a tag, that was invalidated since.
    pub invalidated: u64,
}

impl Stats {
    /// The share of reads that the cache answered, from 0 to 1; 0 if there were none. A read that shared the load
    /// of another was no hit, though it cost the source nothing.
    #[must_use]
    #[expect(clippy::cast_precision_loss, reason = "a ratio needs no more than 52 bits")]
    pub fn hit_rate(&self) -> f64 {
        let reads = self.hits + self.misses;
        if reads == 0 { 0.0 } else { self.hits as f64 / reads as f64 }
    }
}

impl Stats {
    /// What was done since an earlier look at the same cache.
    #[must_use]
    pub fn since(&self, earlier: &Self) -> Self {
        let of = |field: fn(&Self) -> u64| field(self).saturating_sub(field(earlier));
        let rejected =
            |field: fn(&RejectedStats) -> u64| field(&self.rejected).saturating_sub(field(&earlier.rejected));
        Self {
            hits: of(|s| s.hits),
            misses: of(|s| s.misses),
            stale: of(|s| s.stale),
            unknown: of(|s| s.unknown),
            loads: of(|s| s.loads),
            load_failures: of(|s| s.load_failures),
            shared_loads: of(|s| s.shared_loads),
            stored: of(|s| s.stored),
            fenced_off: of(|s| s.fenced_off),
            store_failures: of(|s| s.store_failures),
            backend_errors: of(|s| s.backend_errors),
            invalidations: of(|s| s.invalidations),
            stale_served: of(|s| s.stale_served),
            stale_on_error: of(|s| s.stale_on_error),
            throttled: of(|s| s.throttled),
            soft_timeouts: of(|s| s.soft_timeouts),
            timeouts: of(|s| s.timeouts),
            overloaded: of(|s| s.overloaded),
            loads_dropped: of(|s| s.loads_dropped),
            leases_renewed: of(|s| s.leases_renewed),
            leases_lost: of(|s| s.leases_lost),
            leased_elsewhere: of(|s| s.leased_elsewhere),
            filled_elsewhere: of(|s| s.filled_elsewhere),
            taken_over: of(|s| s.taken_over),
            ousted: of(|s| s.ousted),
            quarantined: of(|s| s.quarantined),
            unconfirmed: of(|s| s.unconfirmed),
            replayed: of(|s| s.replayed),
            collapsed: of(|s| s.collapsed),
            tag_invalidations: of(|s| s.tag_invalidations),
            clears: of(|s| s.clears),
            early_refreshes: of(|s| s.early_refreshes),
            touched: of(|s| s.touched),
            absent_hits: of(|s| s.absent_hits),
            absent_stored: of(|s| s.absent_stored),
            absent_refused: of(|s| s.absent_refused),
            not_modified: of(|s| s.not_modified),
            rejected: RejectedStats {
                foreign: rejected(|r| r.foreign),
                unknown_format: rejected(|r| r.unknown_format),
                truncated: rejected(|r| r.truncated),
                corrupt: rejected(|r| r.corrupt),
                wrong_key: rejected(|r| r.wrong_key),
                wrong_schema: rejected(|r| r.wrong_schema),
                too_large: rejected(|r| r.too_large),
                undecodable: rejected(|r| r.undecodable),
                invalidated: rejected(|r| r.invalidated),
            },
        }
    }
}

impl RejectedStats {
    /// All of them.
    #[must_use]
    pub fn total(&self) -> u64 {
        let Self {
            foreign,
            unknown_format,
            truncated,
            corrupt,
            wrong_key,
            wrong_schema,
            too_large,
            undecodable,
            invalidated,
        } = *self;
        foreign
            + unknown_format
            + truncated
            + corrupt
            + wrong_key
            + wrong_schema
            + too_large
            + undecodable
            + invalidated
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_event_and_reject_has_a_counter_of_its_own() {
        let counters = Counters::new();
        counters.count(Event::Hit);
        counters.count(Event::Invalidation);
        counters.count(Event::Invalidation);
        counters.count_reject(Reject::Foreign);
        counters.count_reject(Reject::Undecodable);
        let stats = counters.snapshot();
        assert_eq!(
            stats,
            Stats {
                hits: 1,
                invalidations: 2,
                rejected: RejectedStats { foreign: 1, undecodable: 1, ..Default::default() },
                ..Default::default()
            }
        );
        assert_eq!(stats.rejected.total(), 2);
    }

    #[test]
    fn the_hit_rate_of_nothing_is_zero() {
        assert_eq!(Stats::default().hit_rate(), 0.0);
        assert_eq!(Stats { hits: 3, misses: 1, ..Default::default() }.hit_rate(), 0.75);
    }

    #[test]
    fn the_difference_of_two_looks_is_what_was_done_in_between() {
        let counters = Counters::new();
        counters.count(Event::Hit);
        counters.count_reject(Reject::Corrupt);
        let earlier = counters.snapshot();
        counters.count(Event::Hit);
        counters.count(Event::Miss);
        counters.count_reject(Reject::Corrupt);
        let expected = Stats {
            hits: 1,
            misses: 1,
            rejected: RejectedStats { corrupt: 1, ..Default::default() },
            ..Default::default()
        };
        assert_eq!(counters.snapshot().since(&earlier), expected);
    }

    #[test]
    fn nothing_is_lost_between_threads() {
        let counters = Counters::new();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..10_000).for_each(|_| counters.count(Event::Hit)));
            }
        });
        assert_eq!(counters.snapshot().hits, 80_000);
    }
}
