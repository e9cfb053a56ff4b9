//! How many times it is remembered at once that the source does not have something: whoever asks for random ids must not
//! drive out what others need.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::clock::Tick;

/// When the entries end that this cache has stored and that say "absent".
#[derive(Default)]
pub(crate) struct Absent(Mutex<Ends>);

#[derive(Default)]
struct Ends {
    /// How many end at each tick.
    ends: BTreeMap<Tick, usize>,
    len: usize,
}

/// Room for an entry that says "absent", given back unless it is stored.
pub(super) struct Room {
    absent: Arc<Absent>,
    end: Option<Tick>,
}

impl Absent {
    fn lock(&self) -> MutexGuard<'_, Ends> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Room for one more that lives so long, if fewer than `most` are alive.
    pub(super) fn admit(self: &Arc<Self>, now: Tick, life: Duration, most: usize) -> Option<Room> {
        let mut state = self.lock();
        while let Some(first) = state.ends.first_entry().filter(|first| *first.key() <= now) {
            let ended = first.remove();
            state.len -= ended;
        }
        if state.len >= most {
            return None;
        }
        let end = now.after(life);
        *state.ends.entry(end).or_default() += 1;
        state.len += 1;
        Some(Room { absent: Arc::clone(self), end: Some(end) })
    }
}

impl Room {
    /// The entry is there, until it ends.
    pub(super) fn keep(mut self) {
        self.end = None;
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        let Some(end) = self.end else { return };
        let mut state = self.absent.lock();
        if let Some(count) = state.ends.get_mut(&end) {
            *count -= 1;
            if *count == 0 {
                state.ends.remove(&end);
            }
            state.len -= 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn no_more_are_admitted_than_may_be_alive_and_those_that_have_ended_make_room() {
        let time = ManualClock::new();
        let absent = Arc::<Absent>::default();
        let admit = |seconds| {
            let room = absent.admit(time.clock().now(), Duration::from_secs(seconds), 2);
            room.map(Room::keep).is_some()
        };
        assert!(admit(10) && admit(5));
        assert!(!admit(1), "two are alive");
        time.advance(Duration::from_secs(5));
        assert!(admit(10));
        assert!(!admit(10));
    }

    #[test]
    fn what_is_not_stored_after_all_gives_its_room_back() {
        let now = ManualClock::new().clock().now();
        let absent = Arc::<Absent>::default();
        let life = Duration::from_secs(10);
        let first = absent.admit(now, life, 1);
        assert!(first.is_some() && absent.admit(now, life, 1).is_none());
        drop(first);
        assert!(absent.admit(now, life, 1).is_some());
    }
}
