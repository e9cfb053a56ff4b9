//! The supervisor of the connections: opens them, shares them out, replaces them.
//!
//! Callers share a few connections: one or two batch better than many. More are opened only when those that are
//! open have a long queue, never more than the pool's size. Connections belong to the pool: a caller that goes
//! away takes none with it, nor the dial that it asked for.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use arc_swap::ArcSwap;
use redis::{Cmd, Pipeline, RedisError, Value};
use tokio::runtime::Handle;
use tokio::time::{Instant, timeout, timeout_at};

use super::NAME;
use super::breaker::{Breaker, Verdict};
use super::config::RedisBuilder;
use super::conn::{Conn, Permit, Sockets};
use super::error::{Blame, blame, convert, is_out_of_service};
use super::fence::Mode;
use crate::clock::Clock;
use crate::error::{Error, ErrorKind, Result};

/// One connection batches better than two up to here, as `bench/src/bin/redis.rs` measures; beyond, its one task
/// has all it can do.
const SECOND_FROM: usize = 512;
/// And one more for each so many commands under way.
const ONE_MORE_PER: usize = 2048;
/// Dials under way at once, at most: one may hang on a server that is gone while another finds the new one.
const MAX_DIALS: usize = 2;

pub(super) struct Pool {
    settings: RedisBuilder,
    open: ArcSwap<Vec<Arc<Conn>>>,
    sockets: Arc<Sockets>,
    /// Taken to change `open`.
    changing: Mutex<()>,
    breaker: Breaker,
    mode: Mode,
    dials: Mutex<Dials>,
    /// When all connections were last dropped because an answer was somebody else's.
    distrusted: Mutex<Option<Instant>>,
}

#[derive(Default)]
struct Dials {
    under_way: usize,
    /// Counts the dials that have failed, for who waits for one.
    failed: u64,
    last_error: Option<Error>,
}

impl Pool {
    pub(super) fn new(settings: RedisBuilder) -> Self {
        Self {
            settings,
            open: ArcSwap::default(),
            sockets: Arc::default(),
            changing: Mutex::new(()),
            breaker: Breaker::new(Clock::system()),
            mode: Mode::default(),
            dials: Mutex::default(),
            distrusted: Mutex::new(None),
        }
    }

    pub(super) fn settings(&self) -> &RedisBuilder {
        &self.settings
    }

    /// What the server was found to be able to do.
    pub(super) fn mode(&self) -> &Mode {
        &self.mode
    }

    /// How many connections are open.
    pub(super) fn connections(&self) -> usize {
        self.open.load().len()
    }

    /// Sends one command and waits for its answer, both within the deadline of an operation.
    pub(super) async fn send(
        self: &Arc<Self>,
        operation: &'static str,
        command: &Cmd,
    ) -> Result<Answer<Value>> {
        let deadline = self.deadline(operation)?;
        let conn = self.connection(operation, deadline).await?;
        let answer = timeout_at(deadline, conn.send(command)).await;
        self.judge(operation, &conn, answer.ok())
    }

    /// Reads the value under a key of the server, alone or together with others that are asked for now.
    pub(super) async fn read(self: &Arc<Self>, key: &str) -> Result<Answer<Value>> {
        const GET: &str = "get";
        let deadline = self.deadline(GET)?;
        let conn = self.connection(GET, deadline).await?;
        let answer = timeout_at(deadline, conn.read(key, self.settings.operation_timeout)).await;
        self.judge(GET, &conn, answer.ok())
    }

    /// Sends many commands in one exchange.
    pub(super) async fn send_all(
        self: &Arc<Self>,
        operation: &'static str,
        pipeline: &Pipeline,
        offset: usize,
        count: usize,
    ) -> Result<Answer<Vec<Value>>> {
        let deadline = self.deadline(operation)?;
        let conn = self.connection(operation, deadline).await?;
        let answer = timeout_at(deadline, conn.send_all(pipeline, offset, count)).await;
        self.judge(operation, &conn, answer.ok())
    }

    fn deadline(&self, operation: &'static str) -> Result<Instant> {
        if Handle::try_current().is_err() {
            return Err(Error::new(ErrorKind::Unavailable, "there is no tokio runtime here")
                .with_backend(NAME)
                .with_operation(operation)
                .with_hint("call it from within a tokio runtime with I/O and time enabled"));
        }
        Ok(Instant::now() + self.settings.operation_timeout)
    }

    /// Draws the conclusions from an answer, or from there being none.
    fn judge<T>(
        self: &Arc<Self>,
        operation: &'static str,
        conn: &Arc<Conn>,
        answer: Option<Result<T, RedisError>>,
    ) -> Result<Answer<T>> {
        match answer {
            Some(Ok(value)) => {
                self.breaker.succeeded();
                Ok(Ok(value))
            }
            Some(Err(error)) if blame(&error) == Blame::Server => {
                if is_out_of_service(&error) {
                    self.breaker.failed();
                } else {
                    self.breaker.succeeded();
                }
                Ok(Err(error))
            }
            Some(Err(error)) => {
                self.remove(conn);
                self.breaker.failed();
                Err(convert(operation, error))
            }
            None => {
                if conn.silent() {
                    self.remove(conn);
                }
                self.breaker.failed();
                Err(self.too_late(operation, "no answer"))
            }
        }
    }

    fn too_late(&self, operation: &'static str, what: &str) -> Error {
        let timeout = self.settings.operation_timeout;
        Error::new(ErrorKind::Timeout, format!("{what} within {timeout:?}"))
            .with_backend(NAME)
            .with_operation(operation)
    }

    /// A connection to write into: the one with the shortest queue, or a new one if there is none.
    async fn connection(self: &Arc<Self>, operation: &'static str, deadline: Instant) -> Result<Arc<Conn>> {
        let verdict = self.breaker.check();
        if verdict != Verdict::Closed {
            if verdict == Verdict::Probe {
                self.dial();
            }
            // Failing at once is no reason for a task that tries again and again to keep others, such as the dial,
            // from running.
            tokio::task::coop::consume_budget().await;
            return Err(self.down(operation));
        }
        if let Some(conn) = self.shortest_queue() {
            return Ok(conn);
        }
        match timeout_at(deadline, self.wait_for(|| self.shortest_queue())).await {
            Ok(conn) => conn.map_err(|error| error.with_operation(operation)),
            Err(_) => {
                self.breaker.failed();
                Err(self.too_late(operation, "no connection"))
            }
        }
    }

    fn down(&self, operation: &'static str) -> Error {
        let error = Error::new(ErrorKind::Unavailable, "the server was not there a moment ago")
            .with_backend(NAME)
            .with_operation(operation)
            .with_hint("it is looked for several times a second");
        match self.lock_dials().last_error.clone() {
            Some(cause) => error.with_source(cause),
            None => error,
        }
    }

    fn shortest_queue(self: &Arc<Self>) -> Option<Arc<Conn>> {
        let open = self.open.load();
        let (mut total, mut best): (usize, Option<(usize, &Arc<Conn>)>) = (0, None);
        for conn in open.iter() {
            if conn.is_closed() {
                continue;
            }
            let queue = conn.in_flight();
            total += queue;
            if best.is_none_or(|(shortest, _)| queue < shortest) {
                best = Some((queue, conn));
            }
        }
        let (_, best) = best?;
        let wanted = 1 + usize::from(total >= SECOND_FROM) + total / ONE_MORE_PER;
        if open.len() < wanted.min(self.settings.config.pool_size as usize) {
            self.dial();
        }
        Some(Arc::clone(best))
    }

    /// Waits until `ready` has a connection, dialing unless somebody does already; the error of a dial that fails
    /// meanwhile ends the wait.
    async fn wait_for(self: &Arc<Self>, ready: impl Fn() -> Option<Arc<Conn>>) -> Result<Arc<Conn>> {
        let before = self.lock_dials().failed;
        loop {
            let mut changed = std::pin::pin!(self.sockets.changed.notified());
            changed.as_mut().enable();
            if let Some(conn) = ready() {
                return Ok(conn);
            }
            {
                let dials = self.lock_dials();
                if let Some(error) = dials.last_error.clone().filter(|_| dials.failed != before) {
                    return Err(error);
                }
            }
            self.dial();
            changed.await;
        }
    }

    /// Dials in a task of its own, if there is room for one more connection.
    fn dial(self: &Arc<Self>) {
        let at_once = if self.open.load().iter().all(|conn| conn.is_closed()) { MAX_DIALS } else { 1 };
        let permit = {
            let mut dials = self.lock_dials();
            if dials.under_way >= at_once {
                return;
            }
            let Some(permit) = Permit::take(&self.sockets, self.settings.config.pool_size as usize) else {
                return;
            };
            dials.under_way += 1;
            permit
        };
        let dialing = Dialing { pool: Arc::clone(self), permit: Some(permit), outcome: None };
        // Without a runtime the guard reports the failure at once.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(dialing.run());
        }
    }

    fn add(&self, conn: Conn) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut open: Vec<_> = self.open.load().iter().filter(|conn| !conn.is_closed()).cloned().collect();
        open.push(Arc::new(conn));
        self.open.store(Arc::new(open));
    }

    fn remove(&self, conn: &Arc<Conn>) {
        conn.close();
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let open: Vec<_> = self.open.load().iter().filter(|conn| !conn.is_closed()).cloned().collect();
        self.open.store(Arc::new(open));
    }

    /// Drops every connection, at most once a second: whoever can write misplaced entries to the server shall not
    /// keep us busy with reconnecting.
    pub(super) fn drop_all(&self) {
        const PAUSE: Duration = Duration::from_secs(1);
        let now = Instant::now();
        let mut dropped = self.distrusted.lock().unwrap_or_else(PoisonError::into_inner);
        if dropped.is_some_and(|last| now.duration_since(last) < PAUSE) {
            return;
        }
        *dropped = Some(now);
        drop(dropped);
        for conn in self.open.load().iter() {
            self.remove(conn);
        }
    }

    fn lock_dials(&self) -> std::sync::MutexGuard<'_, Dials> {
        self.dials.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects once more, outside of the breaker, and tells what is wrong.
    pub(super) async fn verify(self: &Arc<Self>) -> Result<()> {
        self.deadline("connect")?;
        let bound = self.settings.config.connection_timeout + Duration::from_millis(100);
        let closed = || (!self.breaker.is_open()).then(|| self.shortest_queue()).flatten();
        match timeout(bound, self.wait_for(closed)).await {
            Ok(result) => result.map(|_| ()),
            Err(_) => Err(Error::new(ErrorKind::Timeout, "no connection within connection_timeout")
                .with_backend(NAME)
                .with_operation("connect")),
        }
    }
}

/// What the server said to a command: a value, or an error that leaves the connection sound.
pub(super) type Answer<T> = Result<T, RedisError>;

/// A dial under way. However it ends, and be it with its runtime, the pool learns of it.
struct Dialing {
    pool: Arc<Pool>,
    permit: Option<Permit>,
    outcome: Option<Result<Conn>>,
}

impl Dialing {
    async fn run(mut self) {
        let config = &self.pool.settings.config;
        let bound = config.connection_timeout;
        let Some(permit) = self.permit.take() else { return };
        self.outcome = Some(timeout(bound, Conn::dial(config, permit)).await.unwrap_or_else(|_| {
            Err(Error::new(ErrorKind::Timeout, format!("no connection within {bound:?}"))
                .with_backend(NAME)
                .with_operation("connect")
                .with_hint("is the server reachable, and does it answer? The bound is connection_timeout"))
        }));
    }
}

impl Drop for Dialing {
    fn drop(&mut self) {
        let outcome = self.outcome.take().unwrap_or_else(|| {
            Err(Error::new(
                ErrorKind::Unavailable,
                "there is no tokio runtime to connect on, or it was shut down",
            )
            .with_backend(NAME)
            .with_operation("connect"))
        });
        match outcome {
            Ok(conn) => {
                if !conn.may_run_scripts() {
                    self.pool.mode.use_tombstones();
                }
                self.pool.add(conn);
                self.pool.breaker.succeeded();
                let mut dials = self.pool.lock_dials();
                dials.under_way -= 1;
                dials.last_error = None;
            }
            Err(error) => {
                // With nothing open, a failed dial leaves no doubt.
                if self.pool.connections() == 0 {
                    self.pool.breaker.trip();
                }
                let mut dials = self.pool.lock_dials();
                dials.under_way -= 1;
                dials.failed += 1;
                dials.last_error = Some(error);
            }
        }
        self.pool.sockets.changed.notify_waiters();
    }
}
