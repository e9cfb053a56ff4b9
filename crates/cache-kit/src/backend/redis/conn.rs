//! One connection: how it is made, and how it ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicUsize, Ordering};

use cache_kit_net::{Address, Connection, DialError, Permit, Stream, dial};
use redis::aio::MultiplexedConnection;
use redis::{AsyncConnectionConfig, Cmd, Pipeline, RedisConnectionInfo, RedisError, RedisResult, Value};
use tokio::task::AbortHandle;

use super::NAME;
use super::coalesce::Batch;
use super::config::RedisConfig;
use super::error::{convert, is_no_permission};
use crate::error::{Error, ErrorKind, Result};

/// After so many deadlines in a row without any answer, a connection is taken to be dead.
const MAX_SILENCES: u32 = 2;

/// A connection that many callers write into; their answers come back in order.
pub(super) struct Conn {
    handle: MultiplexedConnection,
    driver: Driver,
    in_flight: AtomicUsize,
    silences: AtomicU32,
    closed: Arc<AtomicBool>,
    may_run_scripts: bool,
    batch: Batch,
}

/// Tells that the task which drives a connection has ended, whatever ended it, and its socket with it.
struct Ended {
    closed: Arc<AtomicBool>,
    _permit: Permit,
}

impl Drop for Ended {
    fn drop(&mut self) {
        self.closed.store(true, Ordering::Release);
    }
}

impl Conn {
    /// Connects and greets. The caller bounds the time.
    pub(super) async fn dial(config: &RedisConfig, permit: Permit) -> Result<Self> {
        let stream = connect(config).await?;
        let mut info = RedisConnectionInfo::default()
            .set_db(i64::from(config.database))
            .set_lib_name("cache-kit", env!("CARGO_PKG_VERSION"));
        if let Some(username) = &config.username {
            info = info.set_username(username);
        }
        if let Some(password) = &config.password {
            info = info.set_password(password);
        }
        // Deadlines are ours: they cover the wait for a connection too.
        let settings = AsyncConnectionConfig::new().set_connection_timeout(None).set_response_timeout(None);
        let made = MultiplexedConnection::new_with_config(&info, stream, settings).await;
        let (mut handle, driver) = made.map_err(|error| greeting_failed(config, error))?;
        let closed = Arc::new(AtomicBool::new(false));
        let ended = Ended { closed: Arc::clone(&closed), _permit: permit };
        let driver = tokio::spawn(async move {
            // Dropped after the driver, which has the socket.
            let _ended = ended;
            driver.await;
        })
        .abort_handle();
        // From here on whoever drops this ends the connection, be it the bound on the dial.
        let driver = Driver(driver);
        // A greeting without credentials or a database may have asked nothing, so health is asked for.
        let mut greeting = Pipeline::with_capacity(2);
        greeting.cmd("PING");
        greeting.cmd("EVAL").arg("return 1").arg(0);
        let answers = handle.send_packed_commands(&greeting, 0, 2).await;
        let may_run_scripts = match answers.as_deref() {
            Ok([Value::ServerError(error), _]) => Err(error.clone().into()),
            Ok([_, Value::ServerError(error)]) => Ok(!is_no_permission(&error.clone().into())),
            Ok(_) => Ok(true),
            Err(error) => Err(error.clone()),
        };
        let may_run_scripts = match may_run_scripts {
            Ok(may) => may,
            Err(error) => return Err(greeting_failed(config, error)),
        };
        let (in_flight, silences) = (AtomicUsize::new(0), AtomicU32::new(0));
        let batch = Batch::default();
        Ok(Self { handle, driver, in_flight, silences, closed, may_run_scripts, batch })
    }

    /// Whether the user may run scripts, as the server said when it was asked.
    pub(super) fn may_run_scripts(&self) -> bool {
        self.may_run_scripts
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
        self.closed.load(Ordering::Acquire)
    }

    fn close(&self) {
        self.closed.store(true, Ordering::Release);
        self.driver.0.abort();
    }

    fn silent(&self) -> bool {
        self.silences.fetch_add(1, Ordering::Relaxed) + 1 >= MAX_SILENCES
    }
}

/// The task that drives a connection, and has its socket. Ends with its owner: left alone it would wait for an
/// answer for ever.
struct Driver(AbortHandle);

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

async fn connect(config: &RedisConfig) -> Result<Stream> {
    let address = Address::Tcp { host: config.host.clone(), port: config.port };
    dial(&address).await.map_err(|error| {
        let hint = match error {
            DialError::Resolve(_) => "check `host`",
            DialError::Connect(_) => "is the server up, and are `host` and `port` right?",
        };
        Error::new(ErrorKind::Unavailable, error.to_string())
            .with_backend(NAME)
            .with_operation("connect")
            .with_hint(hint)
            .with_source(error)
    })
}

fn greeting_failed(config: &RedisConfig, error: RedisError) -> Error {
    let converted = convert("connect", error);
    if converted.kind() == ErrorKind::Unavailable && config.database != 0 {
        let wrong = std::error::Error::source(&converted)
            .is_some_and(|source| source.to_string().contains("DB index"));
        if wrong {
            return Error::config(format!("the server has no database {}", config.database))
                .with_backend(NAME)
                .with_operation("connect")
                .with_hint("most servers have 0 to 15, clusters only 0")
                .with_source(converted);
        }
    }
    converted
}
