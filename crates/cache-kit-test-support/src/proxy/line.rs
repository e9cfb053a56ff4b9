//! A line where chunks wait for their time while others enter behind them.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

/// The chunks of one direction of one connection that were read and are not to be written yet.
///
/// The reading pump can't also wait for the time of the next write, so the line has a thread of its own, which is
/// started with the first chunk: connections without such faults have none.
#[derive(Debug, Default)]
pub(super) struct Line {
    queue: Mutex<Queue>,
    changed: Condvar,
}

#[derive(Debug, Default)]
struct Queue {
    chunks: VecDeque<Chunk>,
    /// Chunks without a time go when their version is below this one: they were held by a fault that is gone.
    released: u64,
    /// Chunks go whatever their time when their version is below this one.
    cleared: u64,
    /// The thread has taken a chunk and is writing it.
    writing: bool,
    closed: bool,
}

#[derive(Debug)]
pub(super) struct Chunk {
    pub(super) bytes: Vec<u8>,
    /// The version of the lane that sent it here. A chunk may enter just after its version went out of force.
    pub(super) version: u64,
    /// When it is to be written; without a time, when another fault is in force.
    pub(super) due: Option<Instant>,
}

impl Queue {
    fn is_released(&self, chunk: &Chunk) -> bool {
        chunk.version < self.cleared || (chunk.due.is_none() && chunk.version < self.released)
    }
}

impl Line {
    pub(super) fn push(&self, chunk: Chunk) {
        let mut queue = self.lock();
        queue.chunks.push_back(chunk);
        // Behind another chunk it changes nothing for those who wait.
        if queue.chunks.len() == 1 {
            self.changed.notify_all();
        }
    }

    /// Lets go of the chunks without a time that older versions hold, and with `all` of those with a time.
    pub(super) fn release(&self, version: u64, all: bool) {
        let mut queue = self.lock();
        queue.released = queue.released.max(version);
        if all {
            queue.cleared = queue.cleared.max(version);
        }
        self.changed.notify_all();
    }

    /// Takes the chunk without a time back, if it is still held.
    pub(super) fn take_back(&self) -> Option<Vec<u8>> {
        let mut queue = self.lock();
        let held = queue.chunks.back().is_some_and(|chunk| chunk.due.is_none() && !queue.is_released(chunk));
        if held { queue.chunks.pop_back().map(|chunk| chunk.bytes) } else { None }
    }

    /// Waits until each chunk is written, or the line is closed.
    pub(super) fn drain(&self) {
        let waiting = |queue: &mut Queue| (queue.writing || !queue.chunks.is_empty()) && !queue.closed;
        drop(self.changed.wait_while(self.lock(), waiting).unwrap_or_else(PoisonError::into_inner));
    }

    /// Ends the thread of the line and those who wait for it; what is in it is lost.
    pub(super) fn close(&self) {
        self.lock().closed = true;
        self.changed.notify_all();
    }

    /// Gives each chunk to `write` when its time has come, until the line is closed or `write` returns false.
    pub(super) fn run(&self, mut write: impl FnMut(&[u8]) -> bool) {
        wake_on_time();
        while let Some(chunk) = self.next() {
            let alive = write(&chunk.bytes);
            self.lock().writing = false;
            self.changed.notify_all();
            if !alive {
                return self.close();
            }
        }
    }

    /// The next chunk, when its time has come; nothing when the line is closed.
    fn next(&self) -> Option<Chunk> {
        let mut queue = self.lock();
        while !queue.closed {
            let left = match queue.chunks.front() {
                None => None,
                Some(chunk) if queue.is_released(chunk) => return queue.take(),
                Some(chunk) => chunk.due.map(|due| due.saturating_duration_since(Instant::now())),
            };
            queue = match left {
                None => self.changed.wait(queue).unwrap_or_else(PoisonError::into_inner),
                Some(left) if left.is_zero() => return queue.take(),
                Some(left) => {
                    self.changed.wait_timeout(queue, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
        None
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Queue {
    fn take(&mut self) -> Option<Chunk> {
        self.writing = true;
        self.chunks.pop_front()
    }
}

/// Linux lets timers of ordinary threads be 50 µs late, a fifth of the shortest delays that tests ask for.
fn wake_on_time() {
    if let Ok(link) = std::fs::read_link("/proc/thread-self")
        && let Some(id) = link.file_name()
    {
        // Where it can't be written, the delay is that much longer.
        let _ = std::fs::write(Path::new("/proc").join(id).join("timerslack_ns"), "1");
    }
}
