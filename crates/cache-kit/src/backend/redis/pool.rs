//! Commands over the connections that the supervisor holds: deadlines, and what their ends mean.

use std::sync::Arc;
use std::time::Instant;

use cache_kit_net::{Connector, DialFailure, Limits, Permit, Report, Unavailable};
use redis::{Cmd, Pipeline, RedisError, Value};
use tokio::time::timeout_at;

use super::NAME;
use super::config::RedisBuilder;
use super::conn::Conn;
use super::error::{Blame, blame, convert, is_out_of_service};
use super::fence::Mode;
use crate::error::{Error, ErrorKind, Result};

/// One connection batches better than two up to here, as `bench/src/bin/redis.rs` measures; beyond, its one task
/// has all it can do. In keys and commands under way.
const SECOND_FROM: usize = 512;
/// And one more for each so many. More than two gain nothing where measured, so it comes late.
const ONE_MORE_PER: usize = 16_384;

pub(super) struct Pool {
    connections: Arc<cache_kit_net::Pool<Server>>,
}

/// What the server said to a command: a value, or an error that leaves the connection sound.
pub(super) type Answer<T> = Result<T, RedisError>;

/// The server that connections are made to.
struct Server {
    settings: RedisBuilder,
    mode: Mode,
}

impl Connector for Server {
    type Conn = Conn;
    type Error = Error;

    async fn dial(&self, permit: Permit) -> Result<Conn> {
        let conn = Conn::dial(&self.settings.config, permit).await?;
        if !conn.may_run_scripts() {
            self.mode.use_tombstones();
        }
        Ok(conn)
    }
}

impl Pool {
    pub(super) fn new(settings: RedisBuilder) -> Self {
        let limits = Limits {
            most: settings.config.pool_size as usize,
            least: 0,
            dial: settings.config.connection_timeout,
            second_from: SECOND_FROM,
            one_more_per: ONE_MORE_PER,
        };
        let server = Server { settings, mode: Mode::default() };
        Self { connections: Arc::new(cache_kit_net::Pool::new(server, limits)) }
    }

    pub(super) fn settings(&self) -> &RedisBuilder {
        &self.connections.connector().settings
    }

    /// What the server was found to be able to do.
    pub(super) fn mode(&self) -> &Mode {
        &self.connections.connector().mode
    }

    /// How many connections are open.
    pub(super) fn connections(&self) -> usize {
        self.connections.connections()
    }

    /// Drops every connection, at most once a second.
    pub(super) fn drop_all(&self) {
        self.connections.drop_all();
    }

    /// Sends one command and waits for its answer, both within the deadline of an operation.
    pub(super) async fn send(&self, operation: &'static str, command: &Cmd) -> Result<Answer<Value>> {
        self.send_for(operation, command, 1).await
    }

    /// Sends one command on so many keys.
    pub(super) async fn send_for(
        &self,
        operation: &'static str,
        command: &Cmd,
        keys: usize,
    ) -> Result<Answer<Value>> {
        self.within(operation, async |conn| conn.send_for(command, keys).await).await
    }

    /// Reads the value under a key of the server, alone or together with others that are asked for now.
    pub(super) async fn read(&self, key: &str) -> Result<Answer<Value>> {
        let bound = self.settings().operation_timeout;
        self.within("get", async |conn| conn.read(key, bound).await).await
    }

    /// Sends many commands in one exchange.
    pub(super) async fn send_all(
        &self,
        operation: &'static str,
        pipeline: &Pipeline,
        offset: usize,
        count: usize,
    ) -> Result<Answer<Vec<Value>>> {
        self.within(operation, async |conn| conn.send_all(pipeline, offset, count).await).await
    }

    /// Does something with a connection, both the wait for the connection and the thing within the deadline of an
    /// operation, and draws the conclusions.
    async fn within<T>(
        &self,
        operation: &'static str,
        send: impl AsyncFnOnce(&Arc<Conn>) -> Result<T, RedisError>,
    ) -> Result<Answer<T>> {
        let deadline = Instant::now() + self.settings().operation_timeout;
        let conn = self.connections.connection(deadline).await;
        let conn = conn.map_err(|why| self.unavailable(operation, why))?;
        let answer = timeout_at(deadline.into(), send(&conn)).await.ok();
        let report = match &answer {
            Some(Ok(_)) => Report::Answered,
            Some(Err(error)) if is_out_of_service(error) => Report::OutOfService,
            Some(Err(error)) if blame(error) == Blame::Server => Report::Answered,
            Some(Err(_)) => Report::Lost,
            None => Report::Silent,
        };
        self.connections.report(&conn, report);
        match (answer, report) {
            (Some(Err(error)), Report::Lost) => Err(convert(operation, error)),
            (Some(answer), _) => Ok(answer),
            (None, _) => Err(self.too_late(operation, "no answer")),
        }
    }

    fn too_late(&self, operation: &'static str, what: &str) -> Error {
        let timeout = self.settings().operation_timeout;
        Error::new(ErrorKind::Timeout, format!("{what} within {timeout:?}"))
            .with_backend(NAME)
            .with_operation(operation)
    }

    fn unavailable(&self, operation: &'static str, why: Unavailable<Error>) -> Error {
        let down = |message: &'static str, hint: &'static str| {
            Error::new(ErrorKind::Unavailable, message)
                .with_backend(NAME)
                .with_operation(operation)
                .with_hint(hint)
        };
        match why {
            Unavailable::NoRuntime => down(
                "there is no tokio runtime here",
                "call it from within a tokio runtime with I/O and time enabled",
            ),
            Unavailable::Down(cause) => {
                let error =
                    down("the server was not there a moment ago", "it is looked for several times a second");
                match cause {
                    Some(cause) => error.with_source(dial_failed(cause)),
                    None => error,
                }
            }
            Unavailable::Dial(cause) => dial_failed(cause).with_operation(operation),
            Unavailable::TooLate => self.too_late(operation, "no connection"),
        }
    }

    /// Connects once more, outside of the breaker, and tells what is wrong.
    pub(super) async fn verify(&self) -> Result<()> {
        match self.connections.verify().await {
            Ok(_) => Ok(()),
            Err(why) => Err(self.unavailable("connect", why)),
        }
    }
}

fn dial_failed(cause: DialFailure<Error>) -> Error {
    match cause {
        DialFailure::Failed(error) => error,
        DialFailure::TooSlow(bound) => {
            Error::new(ErrorKind::Timeout, format!("no connection within {bound:?}"))
                .with_backend(NAME)
                .with_operation("connect")
                .with_hint("is the server reachable, and does it answer? The bound is connection_timeout")
        }
        DialFailure::RuntimeGone => {
            Error::new(ErrorKind::Unavailable, "the runtime to connect on was shut down")
                .with_backend(NAME)
                .with_operation("connect")
        }
    }
}
