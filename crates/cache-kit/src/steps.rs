//! The steps that a read took, as a set that costs nothing to keep.

use std::fmt;

/// A step of a read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u32)]
pub enum Step {
    /// The cache was not asked, as the strategy says.
    Bypassed,
    /// The entry was invalidated first, as the strategy says, and the backend confirmed it.
    InvalidationConfirmed,
    /// The entry was invalidated first, as the strategy says; the backend did not confirm it, and it is queued.
    InvalidationQueued,
    /// The cache had a fresh value.
    FoundFresh,
    /// The cache had a value past its fresh life.
    FoundStale,
    /// The cache knew that the source does not have it.
    FoundAbsent,
    /// The cache had nothing.
    FoundNothing,
    /// The cache had something that is of no use: of another type or version, damaged, refused by the entity.
    FoundUnusable,
    /// The backend could not tell.
    BackendFailed,
    /// An earlier invalidation is not confirmed, so the backend was not believed.
    Quarantined,
    /// The load of another reader was joined.
    Joined,
    /// That load was no longer young, and the backend was asked whether anything had happened to the key since.
    Doubted,
    /// The reader that led the load went away, and this one took its place.
    TookOver,
    /// Nobody ran the load that was joined any more, and it was given up.
    GaveUpOnLeader,
    /// The source had just failed, and was left alone.
    Throttled,
    /// As many loads as may were under way, and the read waited for its turn.
    WaitedForTurn,
    /// Too many loads were under way, or too many reads waiting.
    Overloaded,
    /// The lease of the key was taken.
    Leased,
    /// Somebody else had the lease of the key.
    LeasedElsewhere,
    /// What somebody else stored meanwhile was the answer.
    FilledElsewhere,
    /// The source was asked.
    Loaded,
    /// The source said that the value is still good.
    NotModified,
    /// The source failed.
    LoadFailed,
    /// Something happened to the key while the source was asked.
    LeaseLost,
    /// The load took longer than the soft timeout.
    SoftTimeout,
    /// The load took longer than the timeout.
    TimedOut,
    /// A load was begun, or was under way, behind the caller.
    RefreshingBehind,
    /// The stale value was the answer.
    ServedStale,
}

impl Step {
    const ALL: [Self; 28] = [
        Self::Bypassed,
        Self::InvalidationConfirmed,
        Self::InvalidationQueued,
        Self::FoundFresh,
        Self::FoundStale,
        Self::FoundAbsent,
        Self::FoundNothing,
        Self::FoundUnusable,
        Self::BackendFailed,
        Self::Quarantined,
        Self::Joined,
        Self::Doubted,
        Self::TookOver,
        Self::GaveUpOnLeader,
        Self::Throttled,
        Self::WaitedForTurn,
        Self::Overloaded,
        Self::Leased,
        Self::LeasedElsewhere,
        Self::FilledElsewhere,
        Self::Loaded,
        Self::NotModified,
        Self::LoadFailed,
        Self::LeaseLost,
        Self::SoftTimeout,
        Self::TimedOut,
        Self::RefreshingBehind,
        Self::ServedStale,
    ];

    fn as_str(self) -> &'static str {
        match self {
            Self::Bypassed => "did not ask the cache",
            Self::InvalidationConfirmed => "invalidated the entry",
            Self::InvalidationQueued => "invalidated the entry, which the backend has not confirmed",
            Self::FoundFresh => "found a fresh value",
            Self::FoundStale => "found a stale value",
            Self::FoundAbsent => "found that the source does not have it",
            Self::FoundNothing => "found nothing",
            Self::FoundUnusable => "found an entry that is of no use",
            Self::BackendFailed => "got no answer from the backend",
            Self::Quarantined => "did not believe the backend, which has not confirmed an invalidation",
            Self::Joined => "joined the load of another reader",
            Self::Doubted => "had the backend asked whether that load is still good",
            Self::TookOver => "took over from a reader that went away",
            Self::GaveUpOnLeader => "gave up on a load that nobody ran any more",
            Self::Throttled => "left the source alone, which had just failed",
            Self::WaitedForTurn => "waited for its turn to load",
            Self::Overloaded => "found too many loads under way",
            Self::Leased => "took the lease",
            Self::LeasedElsewhere => "found the lease with somebody else",
            Self::FilledElsewhere => "got what somebody else stored",
            Self::Loaded => "asked the source",
            Self::NotModified => "was told that the value is still good",
            Self::LoadFailed => "got an error from the source",
            Self::LeaseLost => "lost the lease on the way",
            Self::SoftTimeout => "waited as long as the soft timeout",
            Self::TimedOut => "waited as long as the timeout",
            Self::RefreshingBehind => "left a load running behind",
            Self::ServedStale => "answered with the stale value",
        }
    }

    const fn bit(self) -> u32 {
        1 << self as u32
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The steps that a read took.
#[derive(Clone, Copy, Default, PartialEq, Eq, Hash)]
pub struct Steps(u32);

impl Steps {
    pub(crate) const FRESH: Self = Self(Step::FoundFresh.bit());

    pub(crate) const fn with(self, step: Step) -> Self {
        Self(self.0 | step.bit())
    }

    pub(crate) fn add(&mut self, step: Step) {
        *self = self.with(step);
    }

    pub(crate) const fn and(self, others: Self) -> Self {
        Self(self.0 | others.0)
    }

    /// Whether this step was taken.
    #[must_use]
    pub const fn contains(self, step: Step) -> bool {
        self.0 & step.bit() != 0
    }

    /// The steps, in the order in which a read takes them.
    pub fn iter(self) -> impl Iterator<Item = Step> {
        Step::ALL.into_iter().filter(move |step| self.contains(*step))
    }
}

impl fmt::Debug for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.iter()).finish()
    }
}

impl fmt::Display for Steps {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, step) in self.iter().enumerate() {
            if at > 0 {
                f.write_str(", ")?;
            }
            fmt::Display::fmt(&step, f)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_step_has_a_bit_and_a_place_of_its_own() {
        let mut all = Steps::default();
        for (at, step) in Step::ALL.into_iter().enumerate() {
            assert_eq!(step as usize, at);
            assert!(!all.contains(step));
            all.add(step);
        }
        assert!(all.iter().eq(Step::ALL));
        assert_eq!(Steps::FRESH.to_string(), "found a fresh value");
    }
}
