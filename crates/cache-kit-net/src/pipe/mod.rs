//! One connection that many callers write into at once.
//!
//! A call puts its request into a buffer and its place into a queue, under a short lock. The first call on an idle
//! connection writes its request itself, which saves the way through another task; while there are calls under way,
//! the driver writes all that has come together at once. When it has handed out answers, or is told of a request, it
//! lets the other tasks that can run go first, once, so that their requests leave in the same write.
//!
//! Answers come in the order of the requests. Bytes that nobody asked for, or that make no sense, end the connection,
//! and what is under way fails; no answer ever goes to the wrong call. A caller that goes away leaves its place in the
//! queue, and its answer is read and dropped.

mod driver;
mod queue;

use std::fmt;
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use bytes::BytesMut;
use tokio::sync::oneshot::{self, error::TryRecvError};
use tokio::task::AbortHandle;
use tokio::time::timeout_at;

use self::driver::Driver;
use self::queue::{Answer, Queue, Slot};
use crate::permit::Permit;
use crate::pool::Connection;
use crate::stream::Stream;
use crate::watchdog;

/// After so many deadlines in a row without any answer, a connection is taken to be dead.
const MAX_SILENCES: u32 = 2;

/// A protocol in which each request has one answer, and answers come in the order of the requests.
pub trait Protocol: Send + 'static {
    /// What one request still expects; holds the state of an answer of which a part has come.
    type Expect: Send + 'static;
    /// An answer.
    type Reply: Send + 'static;

    /// Takes an answer from the front of `input`; `None` if more bytes are needed.
    ///
    /// # Errors
    /// What is wrong with the bytes, without quoting them. The connection ends.
    fn decode(
        &mut self,
        expect: &mut Self::Expect,
        input: &mut BytesMut,
    ) -> Result<Option<Self::Reply>, &'static str>;

    /// What to send after an answer that nobody received, because its caller has gone or its deadline has passed: where
    /// it has left something on the server that somebody must clear up. The request, and what it expects.
    fn abandoned(expect: Self::Expect, reply: Self::Reply) -> Option<(Vec<u8>, Self::Expect)> {
        let _ = (expect, reply);
        None
    }

    /// Appends a request that has no effect, and says what it expects, if the protocol has one.
    fn ping(out: &mut Vec<u8>) -> Option<Self::Expect> {
        let _ = out;
        None
    }

    /// Whether the connection ends after this answer, because what follows may be out of step.
    fn ends(&self, reply: &Self::Reply) -> bool {
        let _ = reply;
        false
    }
}

/// Longer than whoever asks for a sign of life waits.
const PING: Duration = Duration::from_secs(60);

/// The bounds of one connection.
#[derive(Clone, Copy, Debug)]
pub struct PipeLimits {
    /// Calls under way, at most; more wait. Default: 8,192.
    pub calls: usize,
    /// Bytes that are queued and not written, beyond which calls wait. Default: 4 MiB. One request may be larger.
    pub bytes: usize,
}

impl Default for PipeLimits {
    fn default() -> Self {
        Self { calls: 8_192, bytes: 4 << 20 }
    }
}

/// Why a call has no answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CallError {
    /// The deadline passed. The request may have taken effect.
    TimedOut,
    /// The connection ended. The request may have taken effect.
    Lost(Lost),
}

/// How a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lost {
    /// The server closed it.
    Closed,
    /// Reading or writing failed.
    Io(io::ErrorKind),
    /// The server sent what makes no sense.
    Violation(&'static str),
    /// It was dropped on this side: the runtime that it was made on is gone, or somebody distrusted it.
    Dropped,
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Closed => f.write_str("the server closed the connection"),
            Self::Io(kind) => write!(f, "the connection was lost: {kind}"),
            Self::Violation(what) => write!(f, "the server's answer makes no sense: {what}"),
            Self::Dropped => f.write_str("the connection was dropped"),
        }
    }
}

/// A connection that many callers share. Dropping it ends it.
pub struct Pipe<P: Protocol> {
    queue: Arc<Queue<P>>,
    driver: AbortHandle,
    id: u64,
}

impl<P: Protocol> Pipe<P> {
    /// Drives a connection by a task on the current runtime. The permit is given back when the socket is closed.
    ///
    /// # Errors
    /// When there is no thread for the deadlines to be had.
    ///
    /// # Panics
    /// Outside of a tokio runtime.
    pub fn new(stream: Stream, protocol: P, limits: PipeLimits, permit: Permit) -> io::Result<Self> {
        /// Never used twice in a process.
        static NEXT_ID: AtomicU64 = AtomicU64::new(1);
        let (io, direct) = stream.into_parts();
        // A socket that callers can write into, they can also shut down, so that its permit need not wait for the driver,
        // whose runtime may stand still. What is around a socket closes with the driver alone.
        let (with_queue, with_driver) =
            if direct.is_some() { (Some(permit), None) } else { (None, Some(permit)) };
        let queue = Arc::new(Queue::new(limits, direct, with_queue));
        let weak = Arc::downgrade(&queue);
        watchdog::watch(weak)?;
        let driver = tokio::spawn(Driver::new(io, protocol, Arc::clone(&queue), with_driver)).abort_handle();
        Ok(Self { queue, driver, id: NEXT_ID.fetch_add(1, Ordering::Relaxed) })
    }

    /// A number that no other connection of this process has or will have.
    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Sends a request and waits for its answer, until the deadline (and up to 10 ms longer).
    ///
    /// `encode` appends the request to the bytes that it is given, and says what it expects. The number that it gets
    /// is another one for each call (until it wraps), for protocols that can echo one. It runs under a lock.
    ///
    /// Cancel-safe: the request may take effect, and its answer goes to nobody else.
    ///
    /// # Errors
    /// [`CallError`].
    pub async fn call(
        &self,
        deadline: Instant,
        encode: impl FnOnce(u32, &mut Vec<u8>) -> P::Expect,
    ) -> Result<P::Reply, CallError> {
        if !self.queue.has_room() {
            self.wait_for_room(deadline).await?;
        }
        let (answer, answered) = oneshot::channel();
        let slot = |expect| Slot { expect, answer: Some(answer), deadline };
        self.queue.push(|opaque, out| slot(encode(opaque, out)))?;
        let mut awaiting = Awaiting::new(&self.queue, answered);
        awaiting.arrive().await;
        awaiting.take()
    }

    /// Sends many requests together and waits for all of their answers, which come in the order of the requests. They
    /// leave in one write, up to a thousand of them and as far as the bounds on what is queued allow; those beyond follow
    /// as soon as there is room.
    ///
    /// `encode` is that of [`call`](Self::call), and is called for each number below `count`, in order. Each call has an
    /// answer or an error of its own.
    ///
    /// Cancel-safe as `call` is: an answer that had come already is taken for one that nobody received.
    pub async fn call_many(
        &self,
        deadline: Instant,
        count: usize,
        mut encode: impl FnMut(usize, u32, &mut Vec<u8>) -> P::Expect,
    ) -> Vec<Result<P::Reply, CallError>> {
        let mut awaiting = Vec::with_capacity(count);
        let mut unsent = None;
        while awaiting.len() < count {
            let mut sent = Ok(());
            if !self.queue.has_room() {
                sent = self.wait_for_room(deadline).await;
            }
            let sent = sent.and_then(|()| {
                self.queue.push_all(|opaque, out| {
                    let index = awaiting.len();
                    if index == count {
                        return None;
                    }
                    let (answer, answered) = oneshot::channel();
                    awaiting.push(Awaiting::new(&self.queue, answered));
                    Some(Slot { expect: encode(index, opaque, out), answer: Some(answer), deadline })
                })
            });
            if let Err(error) = sent {
                unsent = Some(error);
                break;
            }
        }
        // With the last answer those before have come, so that one wake-up does for all.
        for awaiting in awaiting.iter_mut().rev() {
            awaiting.arrive().await;
        }
        let mut answers: Vec<_> = awaiting.into_iter().map(Awaiting::take).collect();
        if let Some(error) = unsent {
            answers.resize_with(count, || Err(error));
        }
        answers
    }

    async fn wait_for_room(&self, deadline: Instant) -> Result<(), CallError> {
        let room = async {
            loop {
                let mut freed = std::pin::pin!(self.queue.room.notified());
                freed.as_mut().enable();
                if self.queue.has_room() {
                    return;
                }
                freed.await;
            }
        };
        timeout_at(deadline.into(), room).await.map_err(|_| CallError::TimedOut)
    }

    /// How much longer than its deadline a call may take.
    #[must_use]
    pub const fn precision() -> Duration {
        watchdog::TICK
    }
}

/// A caller that waits for its answer. Dropped with an answer that has come and was not looked at, it sees to what the
/// answer has left behind.
struct Awaiting<'a, P: Protocol> {
    queue: &'a Queue<P>,
    answered: oneshot::Receiver<Answer<P>>,
    /// What has come, while answers of other calls are waited for.
    arrived: Option<Answer<P>>,
}

impl<'a, P: Protocol> Awaiting<'a, P> {
    fn new(queue: &'a Queue<P>, answered: oneshot::Receiver<Answer<P>>) -> Self {
        Self { queue, answered, arrived: None }
    }

    /// Waits until the answer is there to be taken.
    async fn arrive(&mut self) {
        // Of what is there already the runtime need not know: it would interrupt whoever looks at hundreds.
        self.arrived = match self.answered.try_recv() {
            Ok(answer) => Some(answer),
            Err(TryRecvError::Empty) => (&mut self.answered).await.ok(),
            Err(TryRecvError::Closed) => None,
        };
    }

    fn take(mut self) -> Result<P::Reply, CallError> {
        match self.arrived.take() {
            Some(answer) => answer.map(|(reply, _)| reply),
            None => Err(CallError::Lost(Lost::Dropped)),
        }
    }
}

impl<P: Protocol> Drop for Awaiting<'_, P> {
    fn drop(&mut self) {
        // From here on the driver finds nobody; what it sent before is here.
        self.answered.close();
        let arrived = self.arrived.take().or_else(|| self.answered.try_recv().ok());
        if let Some(Ok((reply, expect))) = arrived {
            self.queue.abandon(expect, reply);
        }
    }
}

impl<P: Protocol> Connection for Pipe<P> {
    fn in_flight(&self) -> usize {
        self.queue.in_flight()
    }

    fn is_closed(&self) -> bool {
        self.queue.is_closed()
    }

    fn close(&self) {
        // What is under way fails here and now, whether or not the runtime of the driver runs.
        self.queue.end(Lost::Dropped);
        self.driver.abort();
    }

    fn silent(&self) -> bool {
        self.queue.silent() >= MAX_SILENCES
    }

    fn was_heard(&self) -> bool {
        self.queue.was_heard()
    }

    /// True at once where the protocol has nothing to ask.
    async fn ping(&self) -> bool {
        let (mut request, deadline) = (Vec::new(), Instant::now() + PING);
        let Some(expect) = P::ping(&mut request) else { return true };
        let answer = self.call(deadline, |_, out| {
            out.extend_from_slice(&request);
            expect
        });
        answer.await.is_ok()
    }
}

impl<P: Protocol> Drop for Pipe<P> {
    fn drop(&mut self) {
        self.close();
    }
}

impl<P: Protocol> fmt::Debug for Pipe<P> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pipe")
            .field("id", &self.id)
            .field("in_flight", &self.in_flight())
            .field("is_closed", &self.is_closed())
            .finish_non_exhaustive()
    }
}
