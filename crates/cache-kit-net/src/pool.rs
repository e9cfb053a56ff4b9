//! The supervisor of the connections to one server: opens them, shares them out, replaces them.
//!
//! Callers share a few connections: one or two batch better than many. More are used only when those that are in use
//! have a long queue, and never more are open than the pool may hold. Connections belong to the pool: a caller that
//! goes away takes none with it, nor the dial that it asked for.

mod keeper;
mod pulse;

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use tokio::runtime::Handle;
use tokio::time::{timeout, timeout_at};

use self::keeper::Keeper;
use self::pulse::pulse;
use crate::breaker::{Breaker, Verdict};
use crate::permit::{Permit, Sockets};

/// Dials under way at once, at most, when nothing is open: one may hang on a server that is gone while another finds
/// the new one.
const MAX_DIALS: usize = 2;
/// All connections are dropped at most this often: whoever can make one suspect shall not keep us busy with
/// reconnecting.
const DROP_PAUSE: Duration = Duration::from_secs(1);

/// A connection that a [`Pool`] holds.
pub trait Connection: Send + Sync + 'static {
    /// How many calls are under way.
    fn in_flight(&self) -> usize;
    /// Whether it can be used no more.
    fn is_closed(&self) -> bool;
    /// Ends it; what is under way fails.
    fn close(&self);
    /// A caller's deadline has passed without an answer; true if that makes the connection suspect.
    fn silent(&self) -> bool;
    /// Whether the other side has sent or taken bytes since this was last asked.
    fn was_heard(&self) -> bool;
    /// Asks the server for a sign of life; false if it is there and yet of no use any more. The pool bounds the time.
    fn ping(&self) -> impl Future<Output = bool> + Send;
}

/// How connections to one server are made.
pub trait Connector: Send + Sync + 'static {
    /// What is made.
    type Conn: Connection;
    /// Why it was not.
    type Error: Clone + Send + Sync + 'static;

    /// Connects and greets. The pool bounds the time. The permit is to be kept until the socket is closed.
    fn dial(&self, permit: Permit) -> impl Future<Output = Result<Self::Conn, Self::Error>> + Send;

    /// There is no connection left, and none to be had: what others have told the server meanwhile, nobody here knows.
    fn lost_touch(&self) {}
}

/// The bounds of a pool, and when it uses more connections than one.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Connections that are ever open.
    pub most: usize,
    /// Connections that are kept open from the first use on, and opened again after a fault.
    pub least: usize,
    /// Bounds one dial.
    pub dial: Duration,
    /// A second connection is used from so many calls under way on.
    pub second_from: usize,
    /// And one more for each further so many.
    pub one_more_per: usize,
    /// Bounds the wait for a sign of life, which each connection is asked for twice a second.
    pub sign_of_life: Duration,
}

/// Why there is no connection to use.
#[derive(Clone, Debug)]
pub enum Unavailable<E> {
    /// There is no tokio runtime here.
    NoRuntime,
    /// The server was not there a moment ago; why, if that is known.
    Down(Option<DialFailure<E>>),
    /// The dial that was waited for has failed.
    Dial(DialFailure<E>),
    /// There was none until the deadline.
    TooLate,
}

/// How a dial has failed.
#[derive(Clone, Debug)]
pub enum DialFailure<E> {
    /// With an error.
    Failed(E),
    /// It took longer than this.
    TooSlow(Duration),
    /// The runtime that it ran on is gone.
    RuntimeGone,
}

/// What became of a call.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Report {
    /// The server has answered.
    Answered,
    /// The server has answered that it cannot serve anybody now.
    OutOfService,
    /// The connection was lost, or cannot be trusted.
    Lost,
    /// There was no answer in time.
    Silent,
}

/// The connections to one server.
pub struct Pool<C: Connector> {
    /// Shared with the dials under way, which do not keep the pool.
    connector: Arc<C>,
    limits: Limits,
    /// The connections that are ever open: as the limits say, unless that was changed.
    most: AtomicUsize,
    open: ArcSwap<Vec<Arc<C::Conn>>>,
    sockets: Arc<Sockets>,
    /// Taken to change `open`.
    changing: Mutex<()>,
    breaker: Breaker,
    dials: Mutex<Dials<C::Error>>,
    /// When all connections were last dropped.
    dropped: Mutex<Option<Instant>>,
    /// A task keeps the least number of connections open.
    is_kept: AtomicBool,
}

struct Dials<E> {
    under_way: usize,
    /// Counts the dials that have failed, for who waits for one.
    failed: u64,
    last_error: Option<DialFailure<E>>,
}

impl<C: Connector> Pool<C> {
    /// A pool without connections. Does no I/O and needs no runtime.
    pub fn new(connector: C, limits: Limits) -> Self {
        Self {
            connector: Arc::new(connector),
            limits,
            most: AtomicUsize::new(limits.most),
            open: ArcSwap::default(),
            sockets: Arc::default(),
            changing: Mutex::new(()),
            breaker: Breaker::new(Instant::now()),
            dials: Mutex::new(Dials { under_way: 0, failed: 0, last_error: None }),
            dropped: Mutex::new(None),
            is_kept: AtomicBool::new(false),
        }
    }

    /// What makes the connections.
    pub fn connector(&self) -> &C {
        &self.connector
    }

    /// How many connections are open.
    pub fn connections(&self) -> usize {
        self.open.load().iter().filter(|conn| !conn.is_closed()).count()
    }

    /// Bounds the connections that are opened from now on.
    pub fn set_most(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    fn most(&self) -> usize {
        self.most.load(Ordering::Relaxed)
    }

    /// The open connection that is wanted, if there is one.
    pub fn find(&self, wanted: impl Fn(&C::Conn) -> bool) -> Option<Arc<C::Conn>> {
        self.open.load().iter().find(|conn| !conn.is_closed() && wanted(conn)).cloned()
    }

    /// Whether the server is taken to be down.
    pub fn is_down(&self) -> bool {
        self.breaker.is_open()
    }

    /// A connection to write into: one that is open, or a new one until `deadline`.
    ///
    /// # Errors
    /// [`Unavailable`]; at once where the breaker is open.
    pub async fn connection(
        self: &Arc<Self>,
        deadline: Instant,
    ) -> Result<Arc<C::Conn>, Unavailable<C::Error>> {
        if self.breaker.is_open() {
            return Err(self.down().await);
        }
        if let Some(conn) = self.best() {
            return Ok(conn);
        }
        if Handle::try_current().is_err() {
            return Err(Unavailable::NoRuntime);
        }
        self.keep();
        match timeout_at(deadline.into(), self.wait_for(|| self.best())).await {
            Ok(conn) => conn.map_err(Unavailable::Dial),
            Err(_) => {
                self.breaker.failed(Instant::now());
                Err(Unavailable::TooLate)
            }
        }
    }

    /// The answer while the breaker is open; sees to it that the server is looked for.
    async fn down(self: &Arc<Self>) -> Unavailable<C::Error> {
        if Handle::try_current().is_err() {
            return Unavailable::NoRuntime;
        }
        if self.breaker.check(Instant::now()) == Verdict::Probe {
            self.dial();
            self.keep();
        }
        // Failing at once is no reason for a task that tries again and again to keep others, such as the dial,
        // from running.
        tokio::task::coop::consume_budget().await;
        Unavailable::Down(self.lock_dials().last_error.clone())
    }

    /// Draws the conclusions from what became of a call.
    pub fn report(&self, conn: &Arc<C::Conn>, report: Report) {
        match report {
            Report::Answered => self.breaker.succeeded(),
            Report::OutOfService => {
                self.breaker.failed(Instant::now());
            }
            // However many calls were lost with it: whether the server is there, the next dial tells.
            Report::Lost => self.remove(conn),
            Report::Silent => {
                if conn.silent() {
                    self.remove(conn);
                }
                self.breaker.failed(Instant::now());
            }
        }
    }

    /// The first connection whose queue is short enough, so that those that are in use are few and batch; the one
    /// with the shortest queue if none is.
    fn best(self: &Arc<Self>) -> Option<Arc<C::Conn>> {
        let open = self.open.load();
        // Most of the time there is one, and it is the one.
        let total: usize = open.iter().map(|conn| conn.in_flight()).sum();
        let wanted = 1 + usize::from(total >= self.limits.second_from) + total / self.limits.one_more_per;
        let mut usable = open.iter().filter(|conn| !conn.is_closed());
        let best = usable.by_ref().take(wanted).min_by_key(|conn| conn.in_flight())?;
        if open.len() < wanted.min(self.most()) {
            self.dial();
        }
        Some(Arc::clone(best))
    }

    /// Waits until `ready` has a connection, dialing unless somebody does already; the error of a dial that fails
    /// meanwhile ends the wait.
    async fn wait_for(
        self: &Arc<Self>,
        ready: impl Fn() -> Option<Arc<C::Conn>>,
    ) -> Result<Arc<C::Conn>, DialFailure<C::Error>> {
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
        let at_once = if self.connections() == 0 { MAX_DIALS } else { 1 };
        let permit = {
            let mut dials = self.lock_dials();
            if dials.under_way >= at_once {
                return;
            }
            let Some(permit) = Permit::take(&self.sockets, self.most()) else {
                return;
            };
            dials.under_way += 1;
            permit
        };
        let dialing = Dialing {
            pool: Arc::downgrade(self),
            connector: Arc::clone(&self.connector),
            bound: self.limits.dial,
            permit: Some(permit),
            outcome: None,
        };
        // Without a runtime the guard reports the failure at once.
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(dialing.run());
        }
    }

    /// Keeps the least number of connections open, by a task that ends with the pool or its runtime.
    fn keep(self: &Arc<Self>) {
        if self.limits.least == 0 || self.is_kept.swap(true, Ordering::AcqRel) {
            return;
        }
        let keeper = Keeper { pool: Arc::downgrade(self), sockets: Arc::clone(&self.sockets) };
        if let Ok(runtime) = Handle::try_current() {
            runtime.spawn(keeper.run());
        }
    }

    fn add(&self, conn: &Arc<C::Conn>) {
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let mut open: Vec<_> = self.open.load().iter().filter(|conn| !conn.is_closed()).cloned().collect();
        open.push(Arc::clone(conn));
        self.open.store(Arc::new(open));
    }

    fn remove(&self, conn: &Arc<C::Conn>) {
        conn.close();
        let _changing = self.changing.lock().unwrap_or_else(PoisonError::into_inner);
        let open: Vec<_> = self.open.load().iter().filter(|conn| !conn.is_closed()).cloned().collect();
        self.open.store(Arc::new(open));
    }

    /// A connection gives no sign of life: another one takes its place, whether or not anybody calls.
    fn suspect(self: &Arc<Self>, conn: &Arc<C::Conn>) {
        let is_last = !self.open.load().iter().any(|other| !Arc::ptr_eq(other, conn) && !other.is_closed());
        if is_last {
            // Before the calls over it fail: one that is told so may find the server again before this goes on.
            self.connector.lost_touch();
        }
        self.remove(conn);
        if self.connections() == 0 {
            self.breaker.trip(Instant::now());
            self.dial();
        }
    }

    /// Drops every connection, at most once a second; says whether it did.
    pub fn drop_all(&self) -> bool {
        let now = Instant::now();
        let mut dropped = self.dropped.lock().unwrap_or_else(PoisonError::into_inner);
        if dropped.is_some_and(|last| now.duration_since(last) < DROP_PAUSE) {
            return false;
        }
        *dropped = Some(now);
        drop(dropped);
        self.close_all();
        true
    }

    /// Drops every connection.
    pub fn close_all(&self) {
        for conn in self.open.load().iter() {
            self.remove(conn);
        }
    }

    fn lock_dials(&self) -> MutexGuard<'_, Dials<C::Error>> {
        self.dials.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Connects unless that was done, whatever the breaker says, and tells what is wrong. Bounded by the bound on a
    /// dial.
    ///
    /// # Errors
    /// [`Unavailable`].
    pub async fn verify(self: &Arc<Self>) -> Result<Arc<C::Conn>, Unavailable<C::Error>> {
        if Handle::try_current().is_err() {
            return Err(Unavailable::NoRuntime);
        }
        self.keep();
        let bound = self.limits.dial + Duration::from_millis(100);
        let closed = || (!self.breaker.is_open()).then(|| self.best()).flatten();
        match timeout(bound, self.wait_for(closed)).await {
            Ok(result) => result.map_err(Unavailable::Dial),
            Err(_) => Err(Unavailable::Dial(DialFailure::TooSlow(self.limits.dial))),
        }
    }
}

impl<C: Connector> Drop for Pool<C> {
    fn drop(&mut self) {
        for conn in self.open.load().iter() {
            conn.close();
        }
        // For the keeper to notice.
        self.sockets.changed.notify_waiters();
    }
}

impl<C: Connector> std::fmt::Debug for Pool<C> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Pool")
            .field("limits", &self.limits)
            .field("connections", &self.connections())
            .field("is_down", &self.is_down())
            .finish_non_exhaustive()
    }
}

/// A dial under way. However it ends, and be it with its runtime, the pool learns of it, if it is still there.
struct Dialing<C: Connector> {
    pool: Weak<Pool<C>>,
    connector: Arc<C>,
    bound: Duration,
    permit: Option<Permit>,
    outcome: Option<Result<C::Conn, DialFailure<C::Error>>>,
}

impl<C: Connector> Dialing<C> {
    async fn run(mut self) {
        let Some(permit) = self.permit.take() else { return };
        self.outcome = Some(match timeout(self.bound, self.connector.dial(permit)).await {
            Ok(dialed) => dialed.map_err(DialFailure::Failed),
            Err(_) => Err(DialFailure::TooSlow(self.bound)),
        });
    }
}

impl<C: Connector> Drop for Dialing<C> {
    fn drop(&mut self) {
        let outcome = self.outcome.take().unwrap_or(Err(DialFailure::RuntimeGone));
        // Nobody is left to use a connection: it closes here.
        let Some(pool) = self.pool.upgrade() else { return };
        match outcome {
            Ok(conn) => {
                let conn = Arc::new(conn);
                pool.add(&conn);
                // Ends with this runtime, as the connection does that was made on it.
                if let Ok(runtime) = Handle::try_current() {
                    let bound = pool.limits.sign_of_life;
                    runtime.spawn(pulse(Weak::clone(&self.pool), Arc::downgrade(&conn), bound));
                }
                pool.breaker.succeeded();
                let mut dials = pool.lock_dials();
                dials.under_way -= 1;
                dials.last_error = None;
            }
            Err(error) => {
                // With nothing open, a failed dial leaves no doubt. One that ended with its runtime says nothing of the
                // server.
                if pool.connections() == 0 && !matches!(error, DialFailure::RuntimeGone) {
                    pool.breaker.trip(Instant::now());
                    pool.connector.lost_touch();
                }
                let mut dials = pool.lock_dials();
                dials.under_way -= 1;
                dials.failed += 1;
                dials.last_error = Some(error);
            }
        }
        pool.sockets.changed.notify_waiters();
    }
}
