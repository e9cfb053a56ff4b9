//! One server: commands over the connections that the supervisor holds, within a deadline, and what their ends mean.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use cache_kit_net::{Address, Connector, DialFailure, Limits, Permit, Report, Unavailable};
use redis::{Cmd, Pipeline, RedisError, Value, cmd};
use tokio::time::timeout_at;

use super::NAME;
use super::conn::{Conn, Purpose};
use super::error::{Blame, blame, convert, is_out_of_service};
use super::fence::Mode;
use super::greeting::ServerMode;
use super::settings::Settings;
use super::topology::{Sentinels, Shape, unexpected};
use super::tracking::Queue;
use crate::error::{Error, ErrorKind, Result};

/// Bounds the wait for a sign of life, unless operations may take longer.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);
/// Most answers are there by then.
const SOON: Duration = Duration::from_millis(20);
/// One connection batches better than two up to here, as `bench/src/bin/redis.rs` measures; beyond, its one task
/// has all it can do. In keys and commands under way.
const SECOND_FROM: usize = 512;
/// And one more for each so many. More than two gain nothing where measured, so it comes late.
const ONE_MORE_PER: usize = 16_384;

/// A server, and the connections to it.
pub(super) struct Node {
    connections: Arc<cache_kit_net::Pool<Server>>,
}

/// What the server said to a command: a value, or an error that leaves the connection sound.
pub(super) type Answer<T> = Result<T, RedisError>;

/// What all the nodes of a backend share.
#[derive(Debug)]
pub(super) struct Common {
    pub(super) settings: Settings,
    /// What the servers were found to be able to do.
    pub(super) mode: Mode,
    /// What the servers were found to be to each other.
    pub(super) shape: Shape,
}

/// Where the server is.
#[derive(Clone)]
pub(super) enum Place {
    /// Here, and it tells whether it is one of a cluster.
    First(Address),
    /// Here.
    At(Address),
    /// Where the sentinels say that the primary is.
    Sentinels(Arc<Sentinels>),
}

/// The server that connections are made to.
struct Server {
    place: Place,
    purpose: Purpose,
    common: Arc<Common>,
}

/// What a server is asked to tell, and whom it is told.
#[derive(Clone, Debug)]
pub(super) struct Tracking {
    pub(super) queue: Arc<Queue>,
    /// On the server; none are for the keys that are read.
    pub(super) prefixes: Vec<String>,
}

impl Tracking {
    pub(super) fn command(&self) -> Cmd {
        let mut command = cmd("CLIENT");
        command.arg("TRACKING").arg("ON");
        if !self.prefixes.is_empty() {
            command.arg("BCAST");
        }
        for prefix in &self.prefixes {
            command.arg("PREFIX").arg(prefix);
        }
        command
    }
}

impl Connector for Server {
    type Conn = Conn;
    type Error = Error;

    async fn dial(&self, permit: Permit) -> Result<Conn> {
        let Common { settings, mode, shape } = &*self.common;
        let conn = match &self.place {
            Place::First(address) | Place::At(address) => {
                Conn::dial(address, settings, &self.purpose, Arc::new(permit)).await?
            }
            Place::Sentinels(sentinels) => {
                sentinels.dial_primary(&self.common, &self.purpose, Arc::new(permit)).await?
            }
        };
        let greeting = conn.greeting();
        if greeting.mode == ServerMode::Sentinel {
            return Err(Error::config("this is a Sentinel, not a server that holds data")
                .with_backend(NAME)
                .with_operation("connect")
                .with_hint(match &self.place {
                    Place::First(address) | Place::At(address) => {
                        format!("write redis+sentinel://{address}/NAME, where NAME is the primary's")
                    }
                    Place::Sentinels(_) => "a sentinel names another one as the primary".to_owned(),
                }));
        }
        if let Place::First(_) = self.place {
            shape.learn(greeting.mode);
        }
        if !greeting.may_run_scripts {
            mode.use_tombstones();
        }
        Ok(conn)
    }
}

impl Node {
    pub(super) fn new(common: &Arc<Common>, place: Place, reads_only: bool, most: usize) -> Self {
        Self::with(common, place, Purpose { reads_only, tracking: None }, most)
    }

    /// The same server, over one connection of its own that tells of changes.
    pub(super) fn tracked(&self, tracking: Tracking) -> Self {
        let Server { place, common, .. } = self.connections.connector();
        let purpose = Purpose { reads_only: false, tracking: Some(tracking) };
        Self::with(common, place.clone(), purpose, 1)
    }

    fn with(common: &Arc<Common>, place: Place, purpose: Purpose, most: usize) -> Self {
        let limits = Limits {
            most,
            least: 0,
            dial: common.settings.connection_timeout,
            second_from: SECOND_FROM,
            one_more_per: ONE_MORE_PER,
            // Over a tracked connection all depends on what comes unasked, so that one is given less time.
            sign_of_life: match purpose.tracking {
                Some(_) => SIGN_OF_LIFE,
                None => SIGN_OF_LIFE.max(common.settings.operation_timeout),
            },
        };
        let server = Server { place, purpose, common: Arc::clone(common) };
        Self { connections: Arc::new(cache_kit_net::Pool::new(server, limits)) }
    }

    fn settings(&self) -> &Settings {
        &self.connections.connector().common.settings
    }

    /// Where it is, unless sentinels are asked for that.
    pub(super) fn address(&self) -> Option<&Address> {
        match &self.connections.connector().place {
            Place::First(address) | Place::At(address) => Some(address),
            Place::Sentinels(_) => None,
        }
    }

    /// How many connections are open.
    pub(super) fn connections(&self) -> usize {
        self.connections.connections()
    }

    /// Bounds the connections that are opened from now on.
    pub(super) fn set_most(&self, most: usize) {
        self.connections.set_most(most);
    }

    /// Whether it is taken to be down.
    pub(super) fn is_down(&self) -> bool {
        self.connections.is_down()
    }

    /// Drops every connection, at most once a second; says whether it did.
    pub(super) fn drop_all(&self) -> bool {
        self.connections.drop_all()
    }

    /// Drops every connection.
    pub(super) fn close_all(&self) {
        self.connections.close_all();
    }

    /// Sees to it that there is a connection.
    pub(super) async fn reach(&self, operation: &'static str, deadline: Instant) -> Result<()> {
        let conn = self.connections.connection(deadline).await;
        conn.map(|_| ()).map_err(|why| self.unavailable(operation, why))
    }

    /// Sends one command and waits for its answer, both until the deadline.
    pub(super) async fn send(
        &self,
        operation: &'static str,
        deadline: Instant,
        command: &Cmd,
    ) -> Result<Answer<Value>> {
        self.send_for(operation, deadline, command, 1).await
    }

    /// Sends one command on so many keys.
    pub(super) async fn send_for(
        &self,
        operation: &'static str,
        deadline: Instant,
        command: &Cmd,
        keys: usize,
    ) -> Result<Answer<Value>> {
        self.within(operation, deadline, async |conn| conn.send_for(command, keys).await).await
    }

    /// Reads the value under a key of the server, alone or together with others that are asked for now.
    pub(super) async fn read(&self, deadline: Instant, key: &str) -> Result<Answer<Value>> {
        let bound = self.settings().operation_timeout;
        self.within("get", deadline, async |conn| conn.read(key, bound).await).await
    }

    /// Sends many commands in one exchange.
    pub(super) async fn send_all(
        &self,
        operation: &'static str,
        deadline: Instant,
        pipeline: &Pipeline,
        offset: usize,
        count: usize,
    ) -> Result<Answer<Vec<Value>>> {
        self.within(operation, deadline, async |conn| conn.send_all(pipeline, offset, count).await).await
    }

    /// Sends one command that is meant for a slot which is being moved here.
    pub(super) async fn send_asking(
        &self,
        operation: &'static str,
        deadline: Instant,
        command: &Cmd,
    ) -> Result<Answer<Value>> {
        let answers = self.send_group(operation, deadline, [(command, true)]).await?;
        answers.into_iter().next().ok_or_else(|| unexpected(operation))
    }

    /// Sends commands in one exchange, each of which may be meant for a slot that is being moved here; an answer for each.
    pub(super) async fn send_group<'a>(
        &self,
        operation: &'static str,
        deadline: Instant,
        commands: impl IntoIterator<Item = (&'a Cmd, bool)>,
    ) -> Result<Vec<Answer<Value>>> {
        let (mut pipeline, mut wanted, mut count) = (Pipeline::new(), Vec::new(), 0);
        for (command, asking) in commands {
            if asking {
                pipeline.cmd("ASKING");
                count += 1;
            }
            pipeline.add_command(command.clone());
            wanted.push(count);
            count += 1;
        }
        let answers = self.send_all(operation, deadline, &pipeline, 0, count).await?;
        let mut answers = answers.map_err(|error| convert(operation, error))?;
        if answers.len() != count {
            return Err(unexpected(operation));
        }
        let answer = |at: usize| match std::mem::replace(&mut answers[at], Value::Nil) {
            Value::ServerError(error) => Err(error.into()),
            value => Ok(value),
        };
        Ok(wanted.into_iter().map(answer).collect())
    }

    /// Does something with a connection, both the wait for the connection and the thing until the deadline, and draws the
    /// conclusions.
    async fn within<T>(
        &self,
        operation: &'static str,
        deadline: Instant,
        send: impl AsyncFnOnce(&Arc<Conn>) -> Result<T, RedisError>,
    ) -> Result<Answer<T>> {
        let conn = self.connections.connection(deadline).await;
        let conn = conn.map_err(|why| self.unavailable(operation, why))?;
        let answer = answered(&conn, deadline, pin!(send(&conn))).await;
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

/// The answer, if it comes until the deadline. The end of the connection is an answer too; since nearly all answers come
/// before, it is looked for only where one takes longer.
async fn answered<T>(
    conn: &Conn,
    deadline: Instant,
    mut sending: Pin<&mut impl Future<Output = Result<T, RedisError>>>,
) -> Option<Result<T, RedisError>> {
    let soon = deadline.min(Instant::now() + SOON);
    if let Ok(answer) = timeout_at(soon.into(), sending.as_mut()).await {
        return Some(answer);
    }
    let mut ended = pin!(conn.ended());
    let either = poll_fn(|cx| {
        if let Poll::Ready(answer) = sending.as_mut().poll(cx) {
            return Poll::Ready(answer);
        }
        ended.as_mut().poll(cx).map(|()| Err(io::Error::from(io::ErrorKind::ConnectionReset).into()))
    });
    timeout_at(deadline.into(), either).await.ok()
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
