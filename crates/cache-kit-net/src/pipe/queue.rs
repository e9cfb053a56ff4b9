//! The calls of one connection: what is to be written, and who waits for which answer.

use std::collections::VecDeque;
use std::mem;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Instant;

use tokio::sync::{Notify, oneshot};

use super::{CallError, Lost, PipeLimits, Protocol};
use crate::permit::Permit;
use crate::stream::Direct;
use crate::watchdog::{self, Overdue};

/// So many calls are added under one lock, at most: others wait for it.
const TOGETHER: usize = 1_024;

/// What a caller gets: its answer, and what it had expected, for whom it finds no more.
pub(super) type Answer<P> = Result<(<P as Protocol>::Reply, <P as Protocol>::Expect), CallError>;

/// One call under way. Its place is kept when its caller has gone, until its answer has come.
pub(super) struct Slot<P: Protocol> {
    pub(super) expect: P::Expect,
    pub(super) answer: Option<oneshot::Sender<Answer<P>>>,
    pub(super) deadline: Instant,
}

impl<P: Protocol> Slot<P> {
    /// Hands the answer to the caller; gives it back where nobody is there any more.
    pub(super) fn answer(self, reply: P::Reply) -> Option<(P::Reply, P::Expect)> {
        let Some(sender) = self.answer else { return Some((reply, self.expect)) };
        sender.send(Ok((reply, self.expect))).err().and_then(Result::ok)
    }

    fn lose(self, lost: Lost) {
        if let Some(sender) = self.answer {
            // Nobody may be there any more.
            drop(sender.send(Err(CallError::Lost(lost))));
        }
    }
}

pub(super) struct Queue<P: Protocol> {
    state: Mutex<State<P>>,
    limits: PipeLimits,
    /// How many slots there are, to be read without the lock.
    calls: AtomicUsize,
    /// How many bytes are queued, likewise.
    bytes: AtomicUsize,
    closed: AtomicBool,
    silences: AtomicU32,
    /// Bytes came or went since this was last looked at.
    heard: AtomicBool,
    /// Told when calls have ended or bytes were written, for those who wait for room.
    pub(super) room: Notify,
}

struct State<P: Protocol> {
    out: Vec<u8>,
    slots: VecDeque<Slot<P>>,
    next_opaque: u32,
    direct: Option<Direct>,
    /// The right to the socket, for as long as `direct` keeps it open.
    permit: Option<Permit>,
    /// The driver, if it sleeps; otherwise it looks at `out` by itself before it does.
    sleeping: Option<Waker>,
    lost: Option<Lost>,
}

impl<P: Protocol> Queue<P> {
    pub(super) fn new(limits: PipeLimits, direct: Option<Direct>, permit: Option<Permit>) -> Self {
        Self {
            state: Mutex::new(State {
                out: Vec::new(),
                slots: VecDeque::new(),
                next_opaque: 0,
                direct,
                permit,
                sleeping: None,
                lost: None,
            }),
            limits,
            calls: AtomicUsize::new(0),
            bytes: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            silences: AtomicU32::new(0),
            heard: AtomicBool::new(true),
            room: Notify::new(),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State<P>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn in_flight(&self) -> usize {
        self.calls.load(Ordering::Relaxed)
    }

    /// Whether there is something to be written, as far as can be seen without the lock.
    pub(super) fn has_output(&self) -> bool {
        self.bytes.load(Ordering::Relaxed) != 0
    }

    pub(super) fn is_closed(&self) -> bool {
        self.closed.load(Ordering::Acquire)
    }

    /// Whether one more call need not wait. Approximate: callers that look at the same time may all go on.
    pub(super) fn has_room(&self) -> bool {
        (self.in_flight() < self.limits.calls && self.bytes.load(Ordering::Relaxed) < self.limits.bytes)
            || self.is_closed()
    }

    /// Adds a call. On an idle connection its request is written here and now.
    pub(super) fn push(&self, make: impl FnOnce(u32, &mut Vec<u8>) -> Slot<P>) -> Result<(), CallError> {
        let mut make = Some(make);
        self.push_all(|opaque, out| Some(make.take()?(opaque, out)))
    }

    /// Adds calls until there is no other, or no more room, or [`TOGETHER`] are added; the first in any case. On an idle
    /// connection their requests are written here and now, together.
    pub(super) fn push_all(
        &self,
        mut make: impl FnMut(u32, &mut Vec<u8>) -> Option<Slot<P>>,
    ) -> Result<(), CallError> {
        let mut state = self.lock();
        if let Some(lost) = state.lost {
            return Err(CallError::Lost(lost));
        }
        let State { out, slots, next_opaque, direct, sleeping, .. } = &mut *state;
        let was_idle = slots.is_empty();
        let may_write = was_idle && out.is_empty() && sleeping.is_some();
        for _ in 0..TOGETHER {
            let Some(slot) = make(*next_opaque, out) else { break };
            *next_opaque = next_opaque.wrapping_add(1);
            slots.push_back(slot);
            if slots.len() >= self.limits.calls || out.len() >= self.limits.bytes {
                break;
            }
        }
        self.calls.store(slots.len(), Ordering::Relaxed);
        if may_write && let Some(direct) = direct {
            // An error of the socket is the driver's to notice.
            let written = direct.try_write(out).unwrap_or(0);
            out.drain(..written);
        }
        self.bytes.store(out.len(), Ordering::Relaxed);
        let wake = if out.is_empty() { None } else { sleeping.take() };
        drop(state);
        if let Some(driver) = wake {
            driver.wake();
        }
        if was_idle {
            watchdog::nudge();
        }
        Ok(())
    }

    /// Sees to what an answer has left behind that nobody received.
    pub(super) fn abandon(&self, expect: P::Expect, reply: P::Reply) {
        let Some((request, expect)) = P::abandoned(expect, reply) else { return };
        let mut state = self.lock();
        if state.lost.is_some() {
            return;
        }
        state.out.extend_from_slice(&request);
        self.bytes.store(state.out.len(), Ordering::Relaxed);
        state.slots.push_back(Slot { expect, answer: None, deadline: Instant::now() });
        self.calls.store(state.slots.len(), Ordering::Relaxed);
        let driver = state.sleeping.take();
        drop(state);
        if let Some(driver) = driver {
            driver.wake();
        }
    }

    /// Gives the oldest calls to the driver, at most so many. It is awake: callers leave it to it to write.
    pub(super) fn claim(&self, into: &mut VecDeque<Slot<P>>, most: usize) {
        let mut state = self.lock();
        state.sleeping = None;
        let count = most.min(state.slots.len());
        into.extend(state.slots.drain(..count));
    }

    /// Takes back calls whose answers have not come yet.
    pub(super) fn put_back(&self, claimed: &mut VecDeque<Slot<P>>) {
        let mut state = self.lock();
        // It may have ended meanwhile, and these were not there to be told.
        if let Some(lost) = state.lost {
            drop(state);
            claimed.drain(..).for_each(|slot| slot.lose(lost));
            return;
        }
        while let Some(slot) = claimed.pop_back() {
            state.slots.push_front(slot);
        }
        self.calls.store(state.slots.len(), Ordering::Relaxed);
    }

    /// Whether bytes came, or went that had to wait, since this was last asked.
    pub(super) fn was_heard(&self) -> bool {
        self.heard.swap(false, Ordering::Relaxed)
    }

    /// Bytes came, or went that had to wait.
    pub(super) fn moved(&self) {
        if !self.heard.load(Ordering::Relaxed) {
            self.heard.store(true, Ordering::Relaxed);
        }
    }

    /// Answers were handed out.
    pub(super) fn heard(&self) {
        if self.silences.load(Ordering::Relaxed) != 0 {
            self.silences.store(0, Ordering::Relaxed);
        }
        self.room.notify_waiters();
    }

    /// A deadline has passed; how many in a row without any answer.
    pub(super) fn silent(&self) -> u32 {
        self.silences.fetch_add(1, Ordering::Relaxed) + 1
    }

    /// Swaps what is to be written into `out`, which is empty; if that is nothing, the driver sleeps from here on.
    pub(super) fn take_output(&self, out: &mut Vec<u8>, driver: &Waker) -> bool {
        let mut state = self.lock();
        if state.out.is_empty() {
            state.sleeping = Some(driver.clone());
            return false;
        }
        state.sleeping = None;
        mem::swap(&mut state.out, out);
        self.bytes.store(0, Ordering::Relaxed);
        drop(state);
        self.room.notify_waiters();
        true
    }

    /// No more calls; those that are under way fail. The first reason counts.
    pub(super) fn end(&self, why: Lost) {
        self.closed.store(true, Ordering::Release);
        let mut state = self.lock();
        let lost = *state.lost.get_or_insert(why);
        let slots = mem::take(&mut state.slots);
        // Shuts the socket down: the server hears of the end now, whenever the driver drops its half.
        state.direct = None;
        let permit = state.permit.take();
        let driver = state.sleeping.take();
        self.calls.store(0, Ordering::Relaxed);
        drop(state);
        drop(permit);
        slots.into_iter().for_each(|slot| slot.lose(lost));
        self.room.notify_waiters();
        if let Some(driver) = driver {
            driver.wake();
        }
    }
}

impl<P: Protocol> Overdue for Queue<P> {
    fn expire(&self, now: Instant) -> bool {
        let mut state = self.lock();
        let mut overdue = Vec::new();
        for slot in &mut state.slots {
            if slot.deadline <= now && slot.answer.is_some() {
                overdue.push(slot.answer.take());
            }
        }
        let busy = !state.slots.is_empty();
        drop(state);
        for answer in overdue.into_iter().flatten() {
            drop(answer.send(Err(CallError::TimedOut)));
        }
        busy
    }
}

#[cfg(test)]
mod tests {
    use bytes::BytesMut;

    use super::*;

    struct Digits;

    impl Protocol for Digits {
        type Expect = ();
        type Reply = ();

        fn decode(&mut self, (): &mut (), _: &mut BytesMut) -> Result<Option<()>, &'static str> {
            Ok(None)
        }
    }

    /// Adds as many calls of one byte, and tells how many of them there was room for.
    fn add(queue: &Queue<Digits>, count: usize) -> usize {
        let mut added = 0;
        let pushed = queue.push_all(|_, out| {
            if added == count {
                return None;
            }
            added += 1;
            out.push(b'1');
            Some(Slot { expect: (), answer: None, deadline: Instant::now() })
        });
        assert_eq!(pushed, Ok(()));
        added
    }

    #[test]
    fn calls_that_go_together_are_written_together_as_far_as_there_is_room() {
        let limits = PipeLimits { calls: 500, bytes: 400 };
        let queue = Queue::new(limits, None, None);
        assert_eq!(add(&queue, 300), 300);
        let mut written = Vec::new();
        assert!(queue.take_output(&mut written, Waker::noop()));
        assert_eq!(written.len(), 300, "all at once");
        assert!(!queue.take_output(&mut Vec::new(), Waker::noop()));

        assert_eq!(add(&queue, 300), 200, "as many calls as are allowed");
        assert!(!queue.has_room());
        assert_eq!(add(&queue, 300), 1, "one in any case");

        let queue = Queue::new(limits, None, None);
        assert_eq!(add(&queue, 1_000), 400, "as many bytes as are allowed");
        let queue = Queue::new(PipeLimits::default(), None, None);
        assert_eq!(add(&queue, 5_000), TOGETHER, "others have their turn");
    }
}
