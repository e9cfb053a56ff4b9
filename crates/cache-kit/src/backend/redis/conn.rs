//! One connection: how it is made, and how it ends.

use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};

use cache_kit_net::{Address, Connection, DialError, Permit, Stream, dial};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, Pipeline, RedisConnectionInfo, RedisError, RedisResult, Value, cmd};
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use super::NAME;
use super::coalesce::Batch;
use super::credentials::RedisCredentials;
use super::error::{Blame, blame, convert};
use super::greeting::{Greeting, Role, ServerMode};
use super::lively::Lively;
use super::node::Tracking;
use super::settings::Settings;
use super::topology::Witness;
use super::tracking::Gap;
use crate::error::{Error, ErrorKind, Result};

/// After so many deadlines in a row without any answer, a connection is taken to be dead.
const MAX_SILENCES: u32 = 2;

/// A connection that many callers write into; their answers come back in order.
pub(super) struct Conn {
    handle: MultiplexedConnection,
    driver: Driver,
    in_flight: AtomicUsize,
    silences: AtomicU32,
    closed: Arc<Closed>,
    greeting: Greeting,
    /// By whose word the server is the primary.
    witness: Option<Witness>,
    /// Whoever listens is told that it has ended.
    gap: Arc<OnceLock<Gap>>,
    /// The other side has sent or taken bytes since this was last looked at.
    alive: Arc<AtomicBool>,
    batch: Batch,
}

/// Tells that the task which drives a connection has ended, whatever ended it, and its socket with it.
struct Ended {
    closed: Arc<Closed>,
    gap: Arc<OnceLock<Gap>>,
    _permit: Arc<Permit>,
}

/// Whether a connection has ended.
#[derive(Default)]
struct Closed {
    is: AtomicBool,
    now: Notify,
}

impl Closed {
    fn close(&self) {
        self.is.store(true, Ordering::Release);
        self.now.notify_waiters();
    }

    fn is_closed(&self) -> bool {
        self.is.load(Ordering::Acquire)
    }

    async fn wait(&self) {
        let mut now = std::pin::pin!(self.now.notified());
        now.as_mut().enable();
        if !self.is_closed() {
            now.await;
        }
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.closed.close();
        if let Some(gap) = self.gap.get() {
            gap.tell();
        }
    }
}

/// What a connection is for, beyond commands.
#[derive(Clone, Debug, Default)]
pub(super) struct Purpose {
    /// The node of a cluster is told that what it has of others is good enough.
    pub(super) reads_only: bool,
    /// The server tells of changes over it.
    pub(super) tracking: Option<Tracking>,
}

impl Conn {
    /// Connects and greets. The caller bounds the time.
    pub(super) async fn dial(
        address: &Address,
        settings: &Settings,
        purpose: &Purpose,
        permit: Arc<Permit>,
    ) -> Result<Self> {
        let credentials = settings.credentials.get().await?;
        let mut info = connection_info(credentials).set_db(i64::from(settings.database));
        let (stream, late) = connect(address, settings).await?;
        let (stream, alive) = Lively::new(stream);
        let failed = |error| greeting_failed(address, settings.database, &late, error);
        // Deadlines are ours: they cover the wait for a connection too.
        let config = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let config = match &purpose.tracking {
            None => config,
            Some(tracking) => {
                info = info.set_protocol(redis::ProtocolVersion::RESP3);
                config.set_push_sender(tracking.hear())
            }
        };
        let made = MultiplexedConnection::new_with_config(&info, stream, config).await;
        let (mut handle, driver) = made.map_err(failed)?;
        // From when it tells of changes on.
        let gap = Arc::new(OnceLock::new());
        let closed = Arc::new(Closed::default());
        let ended = Ended { closed: Arc::clone(&closed), gap: Arc::clone(&gap), _permit: permit };
        let driver = tokio::spawn(async move {
            // Dropped after the driver, which has the socket.
            let _ended = ended;
            driver.await;
        })
        .abort_handle();
        // From here on whoever drops this ends the connection, be it the bound on the dial.
        let driver = Driver(driver);
        let answers = handle.send_packed_commands(&Greeting::questions(), 0, 3).await;
        let greeting = answers.and_then(|answers| Greeting::read(&answers)).map_err(failed)?;
        // Not to a primary: once it is one no more, scripts would run on it.
        if purpose.reads_only && greeting.mode == ServerMode::Cluster && greeting.role == Role::Replica {
            let answer = handle.send_packed_command(&cmd("READONLY")).await.map_err(failed)?;
            if let Value::ServerError(error) = answer {
                return Err(failed(error.into()));
            }
        }
        if let Some(tracking) = &purpose.tracking {
            match handle.send_packed_command(&tracking.command()).await.map_err(failed)? {
                Value::ServerError(error) => return Err(failed(error.into())),
                _ => drop(gap.get_or_init(|| tracking.armed())),
            }
        }
        Ok(Self {
            handle,
            driver,
            in_flight: AtomicUsize::new(0),
            silences: AtomicU32::new(0),
            closed,
            greeting,
            witness: None,
            gap,
            alive,
            batch: Batch::default(),
        })
    }

    /// It is the primary by somebody's word, who is asked whether it still is.
    pub(super) fn with_witness(mut self, witness: Witness) -> Self {
        self.witness = Some(witness);
        self
    }

    /// What the server said of itself.
    pub(super) fn greeting(&self) -> Greeting {
        self.greeting
    }

    /// The reads that have not left yet.
    pub(super) fn batch(&self) -> &Batch {
        &self.batch
    }

    pub(super) async fn send(&self, command: &Cmd) -> RedisResult<Value> {
        self.send_for(command, 1).await
    }

    /// Sends a command on behalf of so many callers.
    pub(super) async fn send_for(&self, command: &Cmd, callers: usize) -> RedisResult<Value> {
        let _count = self.count(callers);
        let answer = self.handle.clone().send_packed_command(command).await;
        self.heard();
        match answer {
            Ok(Value::ServerError(error)) => Err(error.into()),
            answer => answer,
        }
    }

    pub(super) async fn send_all(
        &self,
        pipeline: &Pipeline,
        offset: usize,
        count: usize,
    ) -> RedisResult<Vec<Value>> {
        let _count = self.count(count);
        let answers = self.handle.clone().send_packed_commands(pipeline, offset, count).await;
        self.heard();
        answers
    }

    /// Returns when the connection has ended. A command that is handed over just then may be lost without a word.
    pub(super) async fn ended(&self) {
        self.closed.wait().await;
    }

    fn heard(&self) {
        if self.silences.load(Ordering::Relaxed) != 0 {
            self.silences.store(0, Ordering::Relaxed);
        }
    }

    fn count(&self, callers: usize) -> Count<'_> {
        self.in_flight.fetch_add(callers, Ordering::Relaxed);
        Count { in_flight: &self.in_flight, callers }
    }
}

impl Connection for Conn {
    fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Relaxed)
    }

    fn is_closed(&self) -> bool {
        self.closed.is_closed()
    }

    fn close(&self) {
        self.closed.close();
        if let Some(gap) = self.gap.get() {
            gap.tell();
        }
        self.driver.0.abort();
    }

    fn silent(&self) -> bool {
        self.silences.fetch_add(1, Ordering::Relaxed) + 1 >= MAX_SILENCES
    }

    fn was_heard(&self) -> bool {
        self.alive.swap(false, Ordering::Relaxed)
    }

    /// A server that has got another role is not the one that this connection was made to.
    async fn ping(&self) -> bool {
        let same = match self.handle.clone().send_packed_command(&cmd("HELLO")).await {
            Ok(answer) => Greeting::of_hello(&answer).role == self.greeting.role,
            Err(error) => blame(&error) == Blame::Server,
        };
        self.heard();
        match &self.witness {
            Some(witness) if same => witness.confirms().await,
            _ => same,
        }
    }
}

/// The task that drives a connection, and has its socket. Ends with its owner: left alone it would wait for an
/// answer for ever.
pub(super) struct Driver(pub(super) AbortHandle);

impl Drop for Driver {
    fn drop(&mut self) {
        self.0.abort();
    }
}

struct Count<'a> {
    in_flight: &'a AtomicUsize,
    callers: usize,
}

impl Drop for Count<'_> {
    fn drop(&mut self) {
        self.in_flight.fetch_sub(self.callers, Ordering::Relaxed);
    }
}

pub(super) fn connection_info(credentials: Option<RedisCredentials>) -> RedisConnectionInfo {
    let mut info = RedisConnectionInfo::default().set_lib_name("cache-kit", env!("CARGO_PKG_VERSION"));
    if let Some(RedisCredentials { username, password }) = credentials {
        info = info.set_password(password);
        if let Some(username) = username {
            info = info.set_username(username);
        }
    }
    info
}

/// The connection, and what tells of a refusal that comes after the handshake.
pub(super) async fn connect(address: &Address, settings: &Settings) -> Result<(Stream, Late)> {
    let stream = dial(address).await.map_err(|error| {
        let hint = match error {
            DialError::Resolve(_) => "check `host`",
            DialError::Connect(_) => "is the server up, and are `host` and `port` right?",
        };
        unavailable(format!("{error} ({address})")).with_hint(hint).with_source(error)
    })?;
    secured(address, settings, stream).await
}

fn unavailable(message: String) -> Error {
    Error::new(ErrorKind::Unavailable, message).with_backend(NAME).with_operation("connect")
}

#[cfg(feature = "tls")]
pub(super) type Late = Option<cache_kit_net::LateFailure>;

#[cfg(not(feature = "tls"))]
pub(super) type Late = ();

#[cfg(feature = "tls")]
async fn secured(address: &Address, settings: &Settings, stream: Stream) -> Result<(Stream, Late)> {
    let Some(tls) = &settings.tls else { return Ok((stream, None)) };
    // Shorter than the whole, so that what it was that took so long can be said.
    match tls.connect(address, stream, settings.connection_timeout.mul_f64(0.8)).await {
        Ok((stream, late)) => Ok((stream, Some(late))),
        Err(error) => Err(refused_by_tls(address, error.failure()).with_source(error)),
    }
}

#[cfg(feature = "tls")]
fn refused_by_tls(address: &Address, failure: cache_kit_net::TlsFailure) -> Error {
    use cache_kit_net::TlsFailure::{Ended, Other, Silent};
    unavailable(format!("{} ({address})", failure.message()))
        .with_hint(failure.hint())
        // What a certificate says does not change by itself.
        .with_transient(matches!(failure, Ended | Other | Silent))
}

#[cfg(not(feature = "tls"))]
async fn secured(_: &Address, _: &Settings, stream: Stream) -> Result<(Stream, Late)> {
    Ok((stream, ()))
}

#[cfg(feature = "tls")]
fn late_refusal(address: &Address, late: &Late, error: &Error) -> Option<Error> {
    let failure = late.as_ref()?.get()?;
    Some(refused_by_tls(address, failure).with_source(error.clone()))
}

#[cfg(not(feature = "tls"))]
fn late_refusal(_: &Address, (): &Late, _: &Error) -> Option<Error> {
    None
}

pub(super) fn greeting_failed(address: &Address, database: u32, late: &Late, error: RedisError) -> Error {
    let converted = convert("connect", error);
    if let Some(refusal) = late_refusal(address, late, &converted) {
        return refusal;
    }
    if converted.kind() == ErrorKind::Unavailable && database != 0 {
        let wrong = std::error::Error::source(&converted)
            .is_some_and(|source| source.to_string().contains("DB index"));
        if wrong {
            return Error::config(format!("the server has no database {database}"))
                .with_backend(NAME)
                .with_operation("connect")
                .with_hint("most servers have 0 to 15, clusters only 0")
                .with_source(converted);
        }
    }
    converted
}
