//! A client that sees the bytes as they come.

#![allow(dead_code, reason = "not every test needs everything")]
#![allow(clippy::allow_attributes, reason = "an expectation fails where everything is used")]
#![allow(clippy::unwrap_used, reason = "a failure is the test's")]
#![allow(unreachable_pub, reason = "a module of the tests")]

use std::io::{ErrorKind, Read, Write};
use std::net::TcpStream;
use std::time::{Duration, Instant};

/// For what must come.
pub const LIMIT: Duration = Duration::from_secs(10);
/// For what must not come.
pub const SHORT: Duration = Duration::from_millis(100);

pub struct Client(pub TcpStream);

impl Client {
    pub fn connect(addr: &str) -> Self {
        let stream = TcpStream::connect(addr).unwrap();
        stream.set_nodelay(true).unwrap();
        stream.set_read_timeout(Some(LIMIT)).unwrap();
        stream.set_write_timeout(Some(LIMIT)).unwrap();
        Self(stream)
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.0.write_all(bytes.as_ref()).unwrap();
    }

    pub fn read(&mut self, length: usize) -> String {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    pub fn expect(&mut self, text: &str) {
        assert_eq!(self.read(text.len()), text);
    }

    /// A round trip, after which the proxy knows the connection.
    pub fn ping(&mut self) {
        self.send("PING\r\n");
        self.expect("+PONG\r\n");
    }

    /// All that comes before the end of the stream, and the end.
    pub fn rest(&mut self) -> (String, Result<(), ErrorKind>) {
        let mut bytes = Vec::new();
        let end = self.0.read_to_end(&mut bytes).map(drop).map_err(|error| error.kind());
        (String::from_utf8_lossy(&bytes).into_owned(), end)
    }

    pub fn expect_silence(&mut self) {
        self.0.set_read_timeout(Some(SHORT)).unwrap();
        let error = self.0.read(&mut [0]).unwrap_err();
        assert!(matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut), "{error}");
        self.0.set_read_timeout(Some(LIMIT)).unwrap();
    }
}

/// The end of a stream that was closed orderly.
pub const FIN: Result<(), ErrorKind> = Ok(());
/// The end of a stream that was reset.
pub const RST: Result<(), ErrorKind> = Err(ErrorKind::ConnectionReset);

/// Waits until the condition holds, and fails when it does not.
pub fn wait_until(what: &str, mut condition: impl FnMut() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !condition() {
        assert!(Instant::now() < deadline, "still not: {what}");
        std::thread::sleep(Duration::from_millis(1));
    }
}
