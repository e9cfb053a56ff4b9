//! A TCP proxy that does to connections what networks do.

mod connection;
mod fault;
mod line;
mod pump;
mod script;

use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::Builder;
use std::time::Duration;

use connection::{Connection, reset_when_closed};
pub use fault::{Cut, Direction, Fault};
use pump::Pump;
use script::Script;

use crate::acceptor::Acceptor;
use crate::open::Open;

/// The name of all threads of all proxies.
const THREAD: &str = "fault-proxy";
/// Bytes that one read can give: with fewer, large values take twice the time. Memory that no read fills is not used.
const BUFFER: usize = 1024 * 1024;
/// For the threads of a connection that was ended to notice it.
const PATIENCE: Duration = Duration::from_secs(5);

#[derive(Debug)]
struct State {
    upstream: Mutex<SocketAddr>,
    script: Arc<Script>,
    open: Open<Connection>,
    total: AtomicU64,
}

/// A TCP proxy between a client and its server, which can be told at any time to do what networks do.
///
/// Without a fault it forwards, and passes the end of a connection on as what it was, orderly or a reset. Each
/// connection of a client gets one of its own to the server; when there is none to be had, the client's is reset.
/// Faults hold for open and for later connections, one at a time for each direction. A fault that is set holds for all
/// bytes that are sent afterwards.
///
/// It uses threads and no runtime. Dropping it closes its connections and waits for the threads.
#[derive(Debug)]
pub struct FaultProxy {
    acceptor: Acceptor,
    state: Arc<State>,
}

fn resolve(upstream: &str) -> SocketAddr {
    let resolved = upstream.to_socket_addrs().ok().and_then(|mut addresses| addresses.next());
    match resolved {
        Some(address) => address,
        None => panic!("{upstream:?} names no address, host:port does"),
    }
}

impl FaultProxy {
    /// Starts a proxy on a port of its own, in front of the server at `host:port`.
    ///
    /// # Panics
    ///
    /// When `upstream` names no address, or there is no port or no thread to be had.
    #[must_use]
    pub fn start(upstream: impl ToString) -> Self {
        let state = Arc::new(State {
            upstream: Mutex::new(resolve(&upstream.to_string())),
            script: Arc::default(),
            open: Open::default(),
            total: AtomicU64::new(0),
        });
        let served = Arc::clone(&state);
        match Acceptor::start(THREAD, move |client| served.serve(client)) {
            Ok(acceptor) => Self { acceptor, state },
            Err(problem) => panic!("no proxy: {problem}"),
        }
    }

    /// Leads new connections to another server, as a name does whose address has changed; those that are open stay.
    ///
    /// # Panics
    ///
    /// When `upstream` names no address.
    pub fn set_upstream(&self, upstream: impl ToString) {
        *self.state.lock_upstream() = resolve(&upstream.to_string());
    }

    /// The port that it listens on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.acceptor.port()
    }

    /// `127.0.0.1:port`, for the client to connect to.
    #[must_use]
    pub fn addr(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }

    /// Puts a fault in force in this direction, in place of the one before.
    ///
    /// What the one before held is sent first; what it delayed keeps its time, and later bytes stay behind it.
    pub fn set(&self, direction: Direction, fault: Fault) {
        let version = self.state.script.lane(direction).set(Some(fault));
        self.state.open.each(|connection| connection.line(direction).release(version, false));
    }

    /// Removes the faults of both directions; what was held or delayed is sent at once, in its order.
    pub fn clear(&self) {
        for direction in Direction::BOTH {
            let version = self.state.script.lane(direction).set(None);
            self.state.open.each(|connection| connection.line(direction).release(version, true));
        }
    }

    /// Ends all connections that are open now, on both sides, and returns when they are closed.
    ///
    /// # Panics
    ///
    /// When they are not closed within seconds.
    pub fn cut_all(&self, how: Cut) {
        self.state.open.each(|connection| connection.end(how));
        let closed = self.state.open.wait_until_none(PATIENCE, Connection::is_over);
        assert!(closed, "connections of the proxy on port {} are still there", self.port());
    }

    /// Connections that are open now. One that the server has closed stays open until the client closes it too.
    #[must_use]
    pub fn connections(&self) -> usize {
        self.state.open.count()
    }

    /// Connections that were ever accepted, those that were reset at once included.
    #[must_use]
    pub fn total_connections(&self) -> u64 {
        self.state.total.load(Ordering::SeqCst)
    }

    /// Bytes read from the sender of this direction, whatever became of them.
    #[must_use]
    pub fn received(&self, direction: Direction) -> u64 {
        self.state.script.lane(direction).received()
    }

    /// Bytes written to the receiver of this direction, injected and repeated ones included. Who has received a byte
    /// finds it counted.
    #[must_use]
    pub fn forwarded(&self, direction: Direction) -> u64 {
        self.state.script.lane(direction).forwarded()
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        let state = Arc::clone(&self.state);
        self.acceptor.stop(|| state.open.close(|connection| connection.end(Cut::Fin)));
    }
}

impl State {
    fn serve(&self, client: TcpStream) {
        self.total.fetch_add(1, Ordering::SeqCst);
        if self.refuses() {
            return reset_when_closed(&client);
        }
        let upstream = *self.lock_upstream();
        let Some(connection) = Connection::open(client, upstream, Arc::clone(&self.script)) else {
            return;
        };
        let connection = Arc::new(connection);
        if self.open.enter(&connection) {
            self.pump(&connection);
            self.open.leave(connection);
        }
    }

    fn lock_upstream(&self) -> MutexGuard<'_, SocketAddr> {
        self.upstream.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn refuses(&self) -> bool {
        Direction::BOTH.iter().any(|direction| {
            matches!(self.script.lane(*direction).current().1.as_deref(), Some(Fault::RefuseAccept))
        })
    }

    /// This thread carries the requests, another one the replies, and those of delay lines may join them.
    fn pump(&self, connection: &Connection) {
        std::thread::scope(|scope| {
            let replies = Pump::new(scope, connection, &self.script, Direction::ToClient);
            match Builder::new().name(THREAD.to_owned()).spawn_scoped(scope, move || replies.run()) {
                Ok(_) => Pump::new(scope, connection, &self.script, Direction::ToServer).run(),
                Err(_) => connection.end(Cut::Rst),
            }
        });
    }
}
