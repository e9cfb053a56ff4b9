//! One client with its connection to the server.

use std::io::{self, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use socket2::SockRef;

use super::fault::{Cut, Direction};
use super::line::Line;
use super::script::Script;

/// For the server to take the connection; a server that is paused with a full queue does not.
const CONNECT: Duration = Duration::from_secs(2);
/// How often a write to a receiver that does not read looks whether the connection is over.
const LOOK: Duration = Duration::from_millis(50);

/// Both sockets. Whoever ends the connection only shuts them down; they are closed, and a reset is sent, when the last
/// of its threads has ended.
#[derive(Debug)]
pub(super) struct Connection {
    client: TcpStream,
    server: TcpStream,
    script: Arc<Script>,
    lines: [Line; 2],
    over: AtomicBool,
    client_closed: AtomicBool,
}

impl Connection {
    /// Connects to the server; resets the client when that fails.
    pub(super) fn open(client: TcpStream, upstream: SocketAddr, script: Arc<Script>) -> Option<Self> {
        match Self::connect(&client, upstream) {
            Ok(server) => Some(Self {
                client,
                server,
                script,
                lines: [Line::default(), Line::default()],
                over: AtomicBool::new(false),
                client_closed: AtomicBool::new(false),
            }),
            Err(_) => {
                reset_when_closed(&client);
                None
            }
        }
    }

    fn connect(client: &TcpStream, upstream: SocketAddr) -> io::Result<TcpStream> {
        let server = TcpStream::connect_timeout(&upstream, CONNECT)?;
        for stream in [client, &server] {
            stream.set_nodelay(true)?;
            stream.set_write_timeout(Some(LOOK))?;
        }
        Ok(server)
    }

    /// Where the bytes of this direction come from.
    pub(super) fn source(&self, direction: Direction) -> &TcpStream {
        match direction {
            Direction::ToServer => &self.client,
            Direction::ToClient => &self.server,
        }
    }

    /// Where the bytes of this direction go to.
    pub(super) fn target(&self, direction: Direction) -> &TcpStream {
        match direction {
            Direction::ToServer => &self.server,
            Direction::ToClient => &self.client,
        }
    }

    pub(super) fn line(&self, direction: Direction) -> &Line {
        &self.lines[direction as usize]
    }

    /// Writes everything; false when the connection is over, then or because of that.
    pub(super) fn write(&self, direction: Direction, mut bytes: &[u8]) -> bool {
        // Before the write: who has received the bytes finds them counted.
        self.script.lane(direction).count_forwarded(bytes.len());
        while !bytes.is_empty() && !self.is_over() {
            match self.target(direction).write(bytes) {
                Ok(0) => self.end(Cut::Rst),
                Ok(written) => bytes = &bytes[written..],
                Err(error) if is_only_late(&error) => {}
                Err(_) => self.end(Cut::Rst),
            }
        }
        bytes.is_empty()
    }

    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::SeqCst)
    }

    pub(super) fn has_client_closed(&self) -> bool {
        self.client_closed.load(Ordering::SeqCst)
    }

    /// Remembers that the client has closed, for those who keep replies from it.
    pub(super) fn client_has_closed(&self) {
        self.client_closed.store(true, Ordering::SeqCst);
        self.script.lane(Direction::ToClient).wake();
    }

    /// Ends the connection on both sides and wakes all of its threads. The first call says how.
    pub(super) fn end(&self, how: Cut) {
        if self.over.swap(true, Ordering::SeqCst) {
            return;
        }
        for stream in [&self.client, &self.server] {
            // An error means that the other end was faster, and the socket is as good as closed.
            let _ = match how {
                Cut::Fin => stream.shutdown(Shutdown::Both),
                Cut::Rst => {
                    reset_when_closed(stream);
                    // Wakes the reader and sends nothing; to shut down writing would send an orderly end.
                    stream.shutdown(Shutdown::Read)
                }
            };
        }
        for direction in Direction::BOTH {
            self.line(direction).close();
            self.script.lane(direction).wake();
        }
    }
}

/// With a linger time of 0 the close of the socket is a reset.
pub(super) fn reset_when_closed(stream: &TcpStream) {
    // An error means that there is no connection left to reset.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

fn is_only_late(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}
