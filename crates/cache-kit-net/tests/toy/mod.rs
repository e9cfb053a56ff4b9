//! A protocol of lines, and a server for it that does what it is told.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::allow_attributes,
    reason = "each test file uses its own part of this"
)]

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use bytes::BytesMut;
use cache_kit_net::{
    Address, CallError, Connection, Connector, Permit, Pipe, PipeLimits, Protocol, Sockets, dial,
};

/// A request is `number text`, and so is its answer, with the same number.
pub struct Lines;

impl Protocol for Lines {
    type Expect = u32;
    type Reply = String;

    fn decode(&mut self, expect: &mut u32, input: &mut BytesMut) -> Result<Option<String>, &'static str> {
        let Some(end) = input.iter().position(|byte| *byte == b'\n') else { return Ok(None) };
        let line = input.split_to(end + 1);
        let line = std::str::from_utf8(&line[..end]).map_err(|_| "not UTF-8")?;
        let (number, text) = line.split_once(' ').ok_or("no number")?;
        if number.parse() != Ok(*expect) {
            return Err("another number");
        }
        Ok(Some(text.to_owned()))
    }

    /// What was lent to somebody who is not there goes back.
    fn abandoned(_: u32, reply: String) -> Option<(Vec<u8>, u32)> {
        let lent = reply.strip_prefix("lend ")?;
        Some((format!("0 back {lent}\n").into_bytes(), 0))
    }

    fn ends(&self, reply: &String) -> bool {
        reply == "the end"
    }
}

pub type Line = Pipe<Lines>;

pub fn encode(text: &str) -> impl FnOnce(u32, &mut Vec<u8>) -> u32 {
    move |number, out| {
        writeln!(out, "{number} {text}").unwrap();
        number
    }
}

pub async fn ask(pipe: &Line, text: &str) -> Result<String, CallError> {
    ask_within(pipe, text, Duration::from_secs(20)).await
}

pub async fn ask_within(pipe: &Line, text: &str, bound: Duration) -> Result<String, CallError> {
    pipe.call(Instant::now() + bound, encode(text)).await
}

/// What the server does with one connection.
pub type Behaviour =
    Arc<dyn Fn(&mut BufReader<TcpStream>, &mut TcpStream) -> std::io::Result<()> + Send + Sync>;

pub struct Server {
    address: std::net::SocketAddr,
    behaviour: Arc<Mutex<Behaviour>>,
    open: Arc<Mutex<Vec<TcpStream>>>,
    serving: Arc<AtomicUsize>,
    most: Arc<AtomicUsize>,
    total: Arc<AtomicUsize>,
}

impl Server {
    /// Gives every line back.
    pub fn echo() -> Self {
        Self::with(|from, to| {
            for line in from.lines() {
                to.write_all(format!("{}\n", line?).as_bytes())?;
            }
            Ok(())
        })
    }

    pub fn with(
        behaviour: impl Fn(&mut BufReader<TcpStream>, &mut TcpStream) -> std::io::Result<()>
        + Send
        + Sync
        + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let behaviour: Behaviour = Arc::new(behaviour);
        let server = Self {
            address: listener.local_addr().unwrap(),
            behaviour: Arc::new(Mutex::new(behaviour)),
            open: Arc::default(),
            serving: Arc::default(),
            most: Arc::default(),
            total: Arc::default(),
        };
        let (behaviour, open) = (Arc::clone(&server.behaviour), Arc::clone(&server.open));
        let (serving, most, total) =
            (Arc::clone(&server.serving), Arc::clone(&server.most), Arc::clone(&server.total));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                let behaviour = Arc::clone(&behaviour.lock().unwrap());
                open.lock().unwrap().push(stream.try_clone().unwrap());
                total.fetch_add(1, Ordering::SeqCst);
                most.fetch_max(serving.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                let serving = Arc::clone(&serving);
                thread::spawn(move || {
                    stream.set_nodelay(true).unwrap();
                    let mut to = stream.try_clone().unwrap();
                    let mut from = BufReader::new(stream);
                    drop(behaviour(&mut from, &mut to));
                    // Until the client has closed its side, the connection is there.
                    drop(to.shutdown(Shutdown::Write));
                    drop(from.read_to_end(&mut Vec::new()));
                    serving.fetch_sub(1, Ordering::SeqCst);
                });
            }
        });
        server
    }

    pub fn address(&self) -> Address {
        Address::Tcp { host: "127.0.0.1".to_owned(), port: self.address.port() }
    }

    /// Ends all connections that are open.
    pub fn cut(&self) {
        for stream in self.open.lock().unwrap().drain(..) {
            drop(stream.shutdown(Shutdown::Both));
        }
    }

    /// Connections that are open now, the most that ever were, and all that ever were.
    pub fn counts(&self) -> (usize, usize, usize) {
        (
            self.serving.load(Ordering::SeqCst),
            self.most.load(Ordering::SeqCst),
            self.total.load(Ordering::SeqCst),
        )
    }

    pub async fn connect(&self) -> Line {
        self.connect_with(PipeLimits::default()).await
    }

    pub async fn connect_with(&self, limits: PipeLimits) -> Line {
        let permit = Permit::take(&Arc::new(Sockets::default()), 1).unwrap();
        Pipe::new(dial(&self.address()).await.unwrap(), Lines, limits, permit).unwrap()
    }
}

/// Makes connections to a [`Server`].
pub struct ToServer(pub Address);

impl Connector for ToServer {
    type Conn = Line;
    type Error = String;

    async fn dial(&self, permit: Permit) -> Result<Line, String> {
        let stream = dial(&self.0).await.map_err(|error| error.to_string())?;
        let pipe =
            Pipe::new(stream, Lines, PipeLimits::default(), permit).map_err(|error| error.to_string())?;
        assert!(!pipe.is_closed());
        Ok(pipe)
    }
}

/// Waits for a condition, and not for ever.
pub async fn until(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < Duration::from_secs(20), "{what} did not come about");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}
