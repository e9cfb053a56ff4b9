//! What the tests against real servers share: bounds, seeds, and the server's own count of connections.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::allow_attributes,
    reason = "each test file uses its own part of this"
)]

use std::io::{Read, Write};
use std::net::TcpStream;
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use cache_kit_memcached::protocol::{ArithmeticOptions, DeleteOptions, GetOptions, SetOptions};
use cache_kit_memcached::ttl::Exptime;
use cache_kit_memcached::{Client, ClientBuilder, Error};
use cache_kit_test_support::MemcachedServer;

/// A client of these servers that waits long enough for a machine that is busy with something else.
pub fn patient<A: AsRef<str>>(servers: impl IntoIterator<Item = A>) -> ClientBuilder {
    Client::builder().servers(servers).unwrap().operation_timeout(Duration::from_secs(10))
}

/// Options as they are by default, but for what `change` does.
pub fn getting(change: impl FnOnce(&mut GetOptions)) -> GetOptions {
    let mut options = GetOptions::default();
    change(&mut options);
    options
}

/// As [`getting`].
pub fn setting(change: impl FnOnce(&mut SetOptions)) -> SetOptions {
    let mut options = SetOptions::default();
    change(&mut options);
    options
}

/// As [`getting`].
pub fn deleting(change: impl FnOnce(&mut DeleteOptions)) -> DeleteOptions {
    let mut options = DeleteOptions::default();
    change(&mut options);
    options
}

/// As [`getting`].
pub fn counting(change: impl FnOnce(&mut ArithmeticOptions)) -> ArithmeticOptions {
    let mut options = ArithmeticOptions::default();
    change(&mut options);
    options
}

pub fn seconds(seconds: u64) -> Exptime {
    Exptime::within(Duration::from_secs(seconds), 0)
}

/// All that an error tells anybody, its causes included.
pub fn told(error: &Error) -> String {
    let mut text = format!("{error} {error:?} {error:#?} {} {}", error.message(), error.hint());
    let mut cause = std::error::Error::source(error);
    while let Some(error) = cause {
        text += &format!(" {error} {error:?}");
        cause = error.source();
    }
    text
}

/// The seed of this run; `CACHE_KIT_SEED` repeats one.
pub fn seed() -> u64 {
    let wanted = std::env::var("CACHE_KIT_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = wanted.unwrap_or_else(|| fastrand::u64(..));
    println!("CACHE_KIT_SEED={seed}");
    seed
}

/// Ends a test that hangs.
pub async fn bounded<F: Future>(test: F) -> F::Output {
    match tokio::time::timeout(Duration::from_secs(50), test).await {
        Ok(output) => output,
        Err(_) => panic!("hangs"),
    }
}

/// Asks until it holds, and tells how long that took.
pub async fn until(what: &str, bound: Duration, mut holds: impl AsyncFnMut() -> bool) -> Duration {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < bound, "{what}: not within {bound:?}");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    began.elapsed()
}

/// Polls a future up to `polls` times, yielding in between, and drops it.
pub async fn drop_after<F: Future>(future: F, polls: u32) -> Option<F::Output> {
    let mut future = pin!(future);
    for _ in 0..polls {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return Some(output);
        }
        tokio::task::yield_now().await;
    }
    None
}

/// Counts the clients of a server, as the server itself does, over a connection that stays and is not counted.
pub struct Census(TcpStream);

impl Census {
    /// To be made before the clients.
    pub fn of(server: &MemcachedServer) -> Self {
        let mut census = Self::of_busy(server);
        let began = Instant::now();
        // The server forgets a connection of the test bed a moment after the bed has seen its end.
        while census.clients() > 0 {
            assert!(began.elapsed() < Duration::from_secs(10), "a server that was never without clients");
        }
        census
    }

    /// Of a server that has clients; for a moment those of the test bed are counted as well.
    pub fn of_busy(server: &MemcachedServer) -> Self {
        let stream = TcpStream::connect(server.addr()).unwrap();
        stream.set_read_timeout(Some(Duration::from_secs(10))).unwrap();
        Self(stream)
    }

    pub fn clients(&mut self) -> usize {
        self.0.write_all(b"stats\r\n").unwrap();
        let (mut reply, mut buffer) = (Vec::new(), [0; 4_096]);
        while !reply.ends_with(b"END\r\n") {
            let length = self.0.read(&mut buffer).unwrap();
            assert!(length > 0, "the server has gone");
            reply.extend_from_slice(&buffer[..length]);
        }
        let reply = String::from_utf8_lossy(&reply).into_owned();
        let line = reply.lines().find_map(|line| line.strip_prefix("STAT curr_connections ")).unwrap();
        // This connection is among them; where the server listens is not.
        line.parse::<usize>().unwrap() - 1
    }

    /// Counts again and again until `stop`; the most and how often it counted. The census comes back.
    pub fn watch(mut self, stop: &Arc<AtomicBool>) -> std::thread::JoinHandle<(Self, usize, usize)> {
        let stop = Arc::clone(stop);
        std::thread::spawn(move || {
            let (mut most, mut looks) = (0, 0);
            while !stop.load(Ordering::SeqCst) {
                most = most.max(self.clients());
                looks += 1;
                std::thread::sleep(Duration::from_millis(1));
            }
            (self, most, looks)
        })
    }
}
