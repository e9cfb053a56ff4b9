//! A port where a connection attempt gets no answer at all.

use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use crate::ports::Port;

/// The kernel answers a connection on the loopback at once, and asks again only a second after an attempt that was
/// dropped: between the two.
const ANSWER: Duration = Duration::from_millis(200);
/// Connections that fill the queue; Linux takes one more than it is told.
const MOST: usize = 16;

/// A port where `connect` hangs until the client gives up, as with a host that is down or a firewall that drops.
///
/// It listens with the shortest queue, which is full of connections that nobody accepts; the kernel then drops further
/// attempts without a word. A client that waits without a limit gets an error after some minutes.
#[derive(Debug)]
pub struct UnansweredPort {
    port: Port,
    _listener: Socket,
    _queued: Vec<TcpStream>,
}

impl UnansweredPort {
    /// Takes a port of its own and fills its queue.
    ///
    /// # Panics
    ///
    /// When there is no port to be had, and on a system that answers however full the queue is; Linux does not.
    #[must_use]
    #[expect(clippy::new_without_default, reason = "it takes a port and can fail, which no default does")]
    pub fn new() -> Self {
        match Port::reserve().and_then(|port| Self::fill(port).map_err(|error| error.to_string())) {
            Ok(filled) => filled,
            Err(problem) => panic!("no unanswered port: {problem}"),
        }
    }

    fn fill(port: Port) -> io::Result<Self> {
        let addr = SocketAddr::from((Ipv4Addr::LOCALHOST, port.number()));
        let listener = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        listener.bind(&addr.into())?;
        listener.listen(0)?;
        let mut queued = Vec::new();
        while queued.len() < MOST {
            match TcpStream::connect_timeout(&addr, ANSWER) {
                Ok(stream) => queued.push(stream),
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    return Ok(Self { port, _listener: listener, _queued: queued });
                }
                Err(error) => return Err(error),
            }
        }
        Err(io::Error::other(format!("the system answers after {MOST} connections that nobody accepted")))
    }

    /// The port that nobody answers on.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// `127.0.0.1:port`.
    #[must_use]
    pub fn addr(&self) -> String {
        format!("127.0.0.1:{}", self.port())
    }
}
