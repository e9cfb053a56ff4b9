//! One at a time, unless the one that has the turn stands still.

use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// Whoever has the turn for so long is on a runtime that nobody drives.
const LOST: Duration = Duration::from_secs(20);

/// The turn to do something in the background.
#[derive(Debug, Default)]
pub(super) struct Turn(Mutex<Option<Instant>>);

impl Turn {
    /// Takes the turn, unless somebody has it.
    pub(super) fn begin(&self) -> bool {
        self.begin_at(Instant::now())
    }

    fn begin_at(&self, now: Instant) -> bool {
        let mut begun = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if begun.is_some_and(|begun| now.duration_since(begun) < LOST) {
            return false;
        }
        *begun = Some(now);
        true
    }

    pub(super) fn end(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn there_is_one_turn_and_it_is_not_lost_with_who_has_it() {
        let (turn, now) = (Turn::default(), Instant::now());
        assert!(turn.begin_at(now) && !turn.begin_at(now));
        turn.end();
        assert!(turn.begin_at(now) && !turn.begin_at(now + LOST / 2));
        assert!(turn.begin_at(now + LOST));
    }
}
