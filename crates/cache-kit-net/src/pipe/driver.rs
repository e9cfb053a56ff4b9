//! The task that reads and writes one connection, and has its socket.

use std::collections::VecDeque;
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::BytesMut;
use tokio::io::AsyncReadExt;

use super::queue::{Queue, Slot};
use super::{Lost, Protocol};
use crate::permit::Permit;
use crate::stream::Io;

/// How much is read at a time.
const READ: usize = 64 * 1024;
/// So many answers are handed out between two looks at the queue.
const CLAIM: usize = 64;
/// A buffer that one large request has grown is given back.
const KEEP: usize = 1 << 20;

pub(super) struct Driver<P: Protocol> {
    queue: Arc<Queue<P>>,
    protocol: P,
    input: BytesMut,
    claimed: VecDeque<Slot<P>>,
    output: Vec<u8>,
    written: usize,
    must_flush: bool,
    /// What is to be written had to wait.
    waited: bool,
    /// The tasks that can run have had their turn, and have left their requests.
    has_yielded: bool,
    // The socket is closed before its permit is given back: fields are dropped in this order.
    io: Io,
    _permit: Option<Permit>,
}

impl<P: Protocol> Driver<P> {
    pub(super) fn new(io: Io, protocol: P, queue: Arc<Queue<P>>, permit: Option<Permit>) -> Self {
        Self {
            queue,
            protocol,
            input: BytesMut::new(),
            claimed: VecDeque::new(),
            output: Vec::new(),
            written: 0,
            must_flush: false,
            waited: false,
            has_yielded: false,
            io,
            _permit: permit,
        }
    }

    /// Reads what is there and hands the answers out; how many.
    fn read(&mut self, cx: &mut Context<'_>) -> Result<usize, Lost> {
        let mut answered = 0;
        loop {
            match self.fill_input(cx) {
                Poll::Ready(Ok(0)) => return Err(Lost::Closed),
                Poll::Ready(Ok(_)) => {
                    self.queue.moved();
                    answered += self.hand_out()?;
                }
                Poll::Ready(Err(error)) => return Err(Lost::Io(error.kind())),
                Poll::Pending => return Ok(answered),
            }
        }
    }

    fn fill_input(&mut self, cx: &mut Context<'_>) -> Poll<std::io::Result<usize>> {
        if self.input.capacity() - self.input.len() < READ / 4 {
            self.input.reserve(READ);
        }
        // Holds nothing between polls, so a new one each time is as good as one that is kept.
        pin!(self.io.read_buf(&mut self.input)).poll(cx)
    }

    fn hand_out(&mut self) -> Result<usize, Lost> {
        let (mut answered, mut unclaimed) = (0, Vec::new());
        let result = loop {
            if self.input.is_empty() {
                break Ok(answered);
            }
            if self.claimed.is_empty() {
                self.queue.claim(&mut self.claimed, CLAIM);
            }
            let Some(mut slot) = self.claimed.pop_front() else {
                break Err(Lost::Violation("bytes that nobody asked for"));
            };
            match self.protocol.decode(&mut slot.expect, &mut self.input) {
                Ok(Some(reply)) => {
                    let ends = self.protocol.ends(&reply);
                    unclaimed.extend(slot.answer(reply));
                    answered += 1;
                    if ends {
                        break Err(Lost::Violation("an answer after which the next may be out of step"));
                    }
                }
                Ok(None) => {
                    self.claimed.push_front(slot);
                    break Ok(answered);
                }
                Err(what) => {
                    self.claimed.push_front(slot);
                    break Err(Lost::Violation(what));
                }
            }
        };
        self.queue.put_back(&mut self.claimed);
        for (reply, expect) in unclaimed {
            self.queue.abandon(expect, reply);
        }
        if answered > 0 {
            self.queue.heard();
        }
        result
    }

    /// Writes what there is, and goes to sleep when that is nothing.
    fn write(&mut self, cx: &mut Context<'_>) -> Result<(), Lost> {
        loop {
            if self.written == self.output.len() {
                self.output.clear();
                self.written = 0;
                if self.output.capacity() > KEEP {
                    self.output = Vec::new();
                }
                if self.must_flush {
                    match self.io.poll_flush(cx) {
                        Poll::Ready(Ok(())) => self.must_flush = false,
                        Poll::Ready(Err(error)) => return Err(Lost::Io(error.kind())),
                        // Not asleep: callers leave their requests, and the driver takes them when this is done.
                        Poll::Pending => return Ok(()),
                    }
                }
                if !self.queue.take_output(&mut self.output, cx.waker()) {
                    return Ok(());
                }
            }
            match self.io.poll_write(cx, &self.output[self.written..]) {
                Poll::Ready(Ok(0)) => return Err(Lost::Closed),
                Poll::Ready(Ok(count)) => {
                    // The other side has taken what had filled the way.
                    if std::mem::take(&mut self.waited) {
                        self.queue.moved();
                    }
                    self.written += count;
                    self.must_flush = true;
                }
                Poll::Ready(Err(error)) => return Err(Lost::Io(error.kind())),
                Poll::Pending => {
                    self.waited = true;
                    return Ok(());
                }
            }
        }
    }

    fn drive(&mut self, cx: &mut Context<'_>) -> Result<(), Lost> {
        let answered = self.read(cx)?;
        // Those who were answered are about to ask again, and who has left a request is seldom alone. One answer to one
        // caller is followed by nothing.
        let others = answered > 1 || self.queue.has_output();
        if others && !self.has_yielded {
            self.has_yielded = true;
            cx.waker().wake_by_ref();
            return Ok(());
        }
        self.has_yielded = false;
        self.write(cx)
    }
}

impl<P: Protocol> Future for Driver<P> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let driver = self.get_mut();
        if driver.queue.is_closed() {
            return Poll::Ready(());
        }
        match driver.drive(cx) {
            Ok(()) => Poll::Pending,
            Err(lost) => {
                driver.queue.end(lost);
                Poll::Ready(())
            }
        }
    }
}

// Nothing of it is pinned.
impl<P: Protocol> Unpin for Driver<P> {}

impl<P: Protocol> Drop for Driver<P> {
    fn drop(&mut self) {
        // With its runtime, or aborted.
        self.queue.end(Lost::Dropped);
    }
}
