//! How one connection is made: TCP or a unix socket, TLS, authentication, and what the server says of itself.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bytes::BytesMut;
use cache_kit_net::{
    Address, CallError, Connection, Connector, DialError, Lost, Permit, Pipe, PipeLimits, Protocol, Stream,
    dial,
};
use futures_util::future::join;

use crate::error::{Error, ErrorKind, Result};
use crate::key::WireKey;
use crate::protocol::{DeleteOptions, Expect, Limits, Refusal, Reply, StatsTopic, decode, request};
use crate::settings::Dialing;

/// What memcached takes by default, header and key included (`-I`).
const ITEM_SIZE_MAX: usize = 1 << 20;

/// The protocol, for the driver of a connection.
pub(crate) struct Memcached;

/// What a request expects, and the key on which it may leave a stub behind.
pub(crate) struct Awaited {
    expect: Expect,
    vivified: Option<Box<[u8]>>,
}

impl Awaited {
    /// The answer to a `mg` that makes a stub where there is nothing.
    pub(crate) fn vivifying(expect: Expect, key: &[u8]) -> Self {
        Self { expect, vivified: Some(key.into()) }
    }
}

impl From<Expect> for Awaited {
    fn from(expect: Expect) -> Self {
        Self { expect, vivified: None }
    }
}

impl Protocol for Memcached {
    type Expect = Awaited;
    type Reply = Reply;

    fn decode(&mut self, awaited: &mut Awaited, input: &mut BytesMut) -> Result<Option<Reply>, &'static str> {
        decode(&mut awaited.expect, input).map_err(|violation| violation.as_str())
    }

    /// A caller that has won and is not there to fill would keep everybody else waiting until its stub expires.
    fn abandoned(awaited: Awaited, reply: Reply) -> Option<(Vec<u8>, Awaited)> {
        let (Some(key), Reply::Meta(reply)) = (awaited.vivified, reply) else { return None };
        let is_stub = reply.value.as_ref().is_none_or(bytes::Bytes::is_empty) && reply.client_flags == 0;
        if !reply.won || reply.stale || !is_stub {
            return None;
        }
        // Without a number to compare with it could be somebody's value by now.
        let options = DeleteOptions { compare_cas: Some(reply.cas?), ..DeleteOptions::default() };
        let mut out = Vec::new();
        request::md(&mut out, &WireKey::new(&key), &options);
        Some((out, Expect::delete(None).into()))
    }

    fn ping(out: &mut Vec<u8>) -> Option<Awaited> {
        request::mn(out);
        Some(Expect::no_op().into())
    }

    fn ends(&self, reply: &Reply) -> bool {
        matches!(reply, Reply::Refused(refusal) if !refusal.keeps_connection())
    }
}

/// A connection to one server.
#[derive(Debug)]
pub(crate) struct Conn {
    pub(crate) pipe: Pipe<Memcached>,
    /// The largest item that the server takes, header and key included.
    pub(crate) item_size_max: usize,
}

impl Conn {
    /// The limits of the replies that this server can send.
    pub(crate) fn limits(&self) -> Limits {
        Limits::new(self.item_size_max)
    }
}

impl Connection for Conn {
    fn in_flight(&self) -> usize {
        self.pipe.in_flight()
    }

    fn is_closed(&self) -> bool {
        self.pipe.is_closed()
    }

    fn close(&self) {
        self.pipe.close();
    }

    fn silent(&self) -> bool {
        self.pipe.silent()
    }

    fn was_heard(&self) -> bool {
        self.pipe.was_heard()
    }

    async fn ping(&self) -> bool {
        self.pipe.ping().await
    }
}

/// Makes the connections to one server.
pub(crate) struct Dialer {
    pub(crate) address: Address,
    pub(crate) settings: Arc<Dialing>,
    pub(crate) missed: Missed,
}

/// What the server may have missed.
#[derive(Debug, Default)]
pub(crate) struct Missed {
    /// When the server was last away, or a change was last feared not to have reached it; seconds since 1970, zero for
    /// never.
    at: AtomicU64,
    /// It was found down, and is not back yet.
    is_away: AtomicBool,
}

impl Missed {
    pub(crate) fn at(&self) -> u64 {
        self.at.load(Ordering::Relaxed)
    }

    /// Something did not reach the server, or may not have.
    pub(crate) fn now(&self) {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        self.at.fetch_max(now, Ordering::Relaxed);
    }

    /// The server was found down. What others ask of it meanwhile does not reach it either.
    pub(crate) fn away(&self) {
        self.is_away.store(true, Ordering::Relaxed);
        self.now();
    }

    /// The server is there.
    pub(crate) fn back(&self) {
        // Nearly always it was all the time, and the cache line stays shared.
        if self.is_away.load(Ordering::Relaxed) && self.is_away.swap(false, Ordering::Relaxed) {
            self.now();
        }
    }
}

impl Connector for Dialer {
    type Conn = Conn;
    type Error = Error;

    async fn dial(&self, permit: Permit) -> Result<Conn> {
        let stream = dial(&self.address).await.map_err(|error| dial_failed(error).at(&self.address))?;
        let stream = self.secured(stream).await.map_err(|error| error.at(&self.address))?;
        let conn = self.greet(stream, permit).await.map_err(|error| error.at(&self.address))?;
        // Before anybody can read over it.
        self.missed.back();
        Ok(conn)
    }

    fn lost_touch(&self) {
        self.missed.away();
    }
}

impl Dialer {
    #[cfg(feature = "tls")]
    async fn secured(&self, stream: Stream) -> Result<Stream> {
        match &self.settings.tls {
            Some(tls) => {
                // Shorter than the whole, so that what it was that took so long can be said.
                tls.connect(&self.address, stream, self.settings.connection_timeout.mul_f64(0.8)).await
            }
            None => Ok(stream),
        }
    }

    #[cfg(not(feature = "tls"))]
    async fn secured(&self, stream: Stream) -> Result<Stream> {
        Ok(stream)
    }

    /// Our error for a greeting without an answer.
    fn lost_early(&self, error: CallError) -> Error {
        if !matches!(error, CallError::Lost(Lost::Io(_) | Lost::Closed)) {
            return lost(error);
        }
        let (message, hint) = match self.has_tls() {
            // In TLS 1.3 a server refuses a certificate, or the lack of one, only after the client takes it to be done.
            true => (
                "the server ended the TLS connection at once",
                "does it ask for a client certificate, and trust the one that it got?",
            ),
            false => (
                "the server ended the connection at once",
                "does it speak TLS (-Z), or take no more connections?",
            ),
        };
        Error::new(ErrorKind::Unavailable, message).with_hint(hint).with_source(lost(error))
    }

    #[cfg(feature = "tls")]
    fn has_tls(&self) -> bool {
        self.settings.tls.is_some()
    }

    #[cfg(not(feature = "tls"))]
    fn has_tls(&self) -> bool {
        false
    }

    async fn greet(&self, stream: Stream, permit: Permit) -> Result<Conn> {
        let pipe = Pipe::new(stream, Memcached, PipeLimits::default(), permit).map_err(|error| {
            Error::new(ErrorKind::Unavailable, "no thread for deadlines").with_source(error)
        })?;
        let deadline = Instant::now() + self.settings.connection_timeout;
        // A server with authentication answers nothing else before, and drops what stands behind.
        if let Some(credentials) = &self.settings.credentials {
            let sent = pipe.call(deadline, |_, out| {
                request::auth(out, credentials);
                Expect::authenticated().into()
            });
            match sent.await.map_err(|error| self.lost_early(error))? {
                Reply::Done => {}
                Reply::Refused(refusal) => return Err(refused(refusal)),
                _ => return Err(unexpected()),
            }
        }
        // The meta protocol itself is asked for something: an older server calls it an error.
        let no_op = pipe.call(deadline, |_, out| {
            request::mn(out);
            Expect::no_op().into()
        });
        let settings = pipe.call(deadline, |_, out| {
            request::stats(out, StatsTopic::Settings);
            Expect::stats().into()
        });
        // In one round trip: a call sends nothing before it is polled.
        let (no_op, settings) = join(no_op, settings).await;
        match no_op.map_err(|error| self.lost_early(error))? {
            Reply::NoOp => {}
            Reply::Refused(Refusal::Client(_)) => {
                return Err(Error::new(ErrorKind::Server, "the server does not speak the meta protocol")
                    .with_hint("memcached 1.6 and later does"));
            }
            Reply::Refused(refusal) => return Err(refused(refusal)),
            _ => return Err(unexpected()),
        }
        let item_size_max = match settings.map_err(lost)? {
            Reply::Stats(stats) => stats
                .iter()
                .find(|stat| &*stat.name == "item_size_max")
                .and_then(|stat| stat.value.parse().ok())
                .unwrap_or(ITEM_SIZE_MAX),
            // A proxy may know no settings. A refusal of this kind leaves the connection as it is.
            Reply::Refused(refusal) if refusal.keeps_connection() => ITEM_SIZE_MAX,
            Reply::Refused(refusal) => return Err(refused(refusal)),
            _ => return Err(unexpected()),
        };
        Ok(Conn { pipe, item_size_max })
    }
}

fn dial_failed(error: DialError) -> Error {
    let hint = match error {
        DialError::Resolve(_) => "check the name",
        DialError::Connect(_) => "is the server up, and are host and port right?",
    };
    Error::new(ErrorKind::Unavailable, error.to_string()).with_hint(hint).with_source(error)
}

/// Our error for a call without an answer.
pub(crate) fn lost(error: CallError) -> Error {
    match error {
        CallError::TimedOut => Error::new(ErrorKind::Timeout, "no answer in time"),
        CallError::Lost(Lost::Violation(what)) => {
            Error::new(ErrorKind::Unavailable, format!("the answer makes no sense: {what}"))
                .with_hint("is it a memcached server, without TLS?")
        }
        CallError::Lost(how) => Error::new(ErrorKind::Unavailable, how.to_string()),
    }
}

/// Our error for one that the server reports. Its text may quote what was sent, so it is left out.
pub(crate) fn refused(refusal: Refusal) -> Error {
    match refusal {
        Refusal::OutOfMemory => Error::new(ErrorKind::OutOfMemory, "the server is out of memory")
            .with_hint("give it more (-m), or let it evict (no -M)"),
        Refusal::TooLarge => Error::new(ErrorKind::TooLarge, "the value is larger than the server takes")
            .with_hint("store less, or raise the server's -I"),
        Refusal::NotNumeric => Error::new(ErrorKind::InvalidInput, "the value is no number"),
        Refusal::Unauthenticated => {
            Error::new(ErrorKind::Auth, "the server asks for credentials").with_hint("set user and password")
        }
        Refusal::WrongCredentials => Error::new(ErrorKind::Auth, "the server refuses the credentials")
            .with_hint("check user and password"),
        Refusal::TooManyConnections => {
            Error::new(ErrorKind::Unavailable, "the server has as many connections as it takes")
                .with_hint("raise its -c, or lower max_connections")
        }
        Refusal::Server(_) => Error::new(ErrorKind::Server, "the server answered with an error"),
        Refusal::Client(_) => Error::new(ErrorKind::Server, "the server did not understand the request"),
        #[expect(unreachable_patterns, reason = "more may come")]
        _ => Error::new(ErrorKind::Server, "the server answered with an error"),
    }
}

pub(crate) fn unexpected() -> Error {
    Error::new(ErrorKind::Server, "the server's answer is not what was asked for")
}
