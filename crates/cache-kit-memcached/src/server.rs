//! One server: its connections, and calls over them within a deadline.

use std::sync::Arc;
use std::time::Instant;

use cache_kit_net::{CallError, DialFailure, Limits, Pool, Report, Unavailable};

use crate::address::Server;
use crate::conn::{Awaited, Conn, Dialer, Missed, lost, refused};
use crate::error::{Error, ErrorKind, Result};
use crate::protocol::Reply;
use crate::settings::Dialing;

/// A server that the client spreads its keys over.
pub(crate) struct Upstream {
    pool: Arc<Pool<Dialer>>,
    server: Server,
}

/// What a call that fails leaves behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Effect {
    /// Nothing.
    Reads,
    /// A server that may still hold what was to be changed.
    Changes,
}

impl Upstream {
    pub(crate) fn new(server: Server, settings: Arc<Dialing>, limits: Limits) -> Self {
        let dialer = Dialer { address: server.address().clone(), settings, missed: Missed::default() };
        Self { pool: Arc::new(Pool::new(dialer, limits)), server }
    }

    pub(crate) fn server(&self) -> &Server {
        &self.server
    }

    pub(crate) fn connections(&self) -> usize {
        self.pool.connections()
    }

    pub(crate) fn is_down(&self) -> bool {
        self.pool.is_down()
    }

    pub(crate) fn drop_connections(&self) {
        // Soon after it was done, it is not done again.
        let _done = self.pool.drop_all();
    }

    pub(crate) fn missed_at(&self) -> u64 {
        self.missed().at()
    }

    fn missed(&self) -> &Missed {
        &self.pool.connector().missed
    }

    fn deadline(&self) -> Instant {
        Instant::now() + self.pool.connector().settings.operation_timeout
    }

    /// Any of its connections that is fit for one more call, and until when the call may take.
    pub(crate) async fn connection(&self) -> Result<(Arc<Conn>, Instant)> {
        let deadline = self.deadline();
        match self.pool.connection(deadline).await {
            Ok(conn) => Ok((conn, deadline)),
            Err(why) => {
                self.missed().away();
                Err(self.unavailable(why))
            }
        }
    }

    /// The connection with this number, if it is still open.
    pub(crate) fn connection_with_id(&self, id: u64) -> Option<(Arc<Conn>, Instant)> {
        Some((self.pool.find(|conn| conn.pipe.id() == id)?, self.deadline()))
    }

    /// One call; a refusal by the server is an error.
    pub(crate) async fn call(
        &self,
        (conn, deadline): &(Arc<Conn>, Instant),
        effect: Effect,
        encode: impl FnOnce(u32, &mut Vec<u8>) -> Awaited,
    ) -> Result<Reply> {
        let answer = conn.pipe.call(*deadline, encode).await;
        match answer {
            Ok(_) => self.answered(conn),
            Err(error) => self.unanswered(conn, effect, error),
        }
        self.reply(answer)
    }

    /// Many calls in one exchange, each with an answer or an error of its own.
    pub(crate) async fn call_many(
        &self,
        (conn, deadline): &(Arc<Conn>, Instant),
        effect: Effect,
        count: usize,
        encode: impl FnMut(usize, u32, &mut Vec<u8>) -> Awaited,
    ) -> Vec<Result<Reply>> {
        let answers = conn.pipe.call_many(*deadline, count, encode).await;
        if answers.iter().any(Result::is_ok) {
            self.answered(conn);
        }
        // Once, however many they are: it is one deadline that has passed.
        if let Some(error) = answers.iter().rev().find_map(|answer| answer.as_ref().err()) {
            self.unanswered(conn, effect, *error);
        }
        answers.into_iter().map(|answer| self.reply(answer)).collect()
    }

    fn reply(&self, answer: Result<Reply, CallError>) -> Result<Reply> {
        match answer {
            Ok(Reply::Refused(refusal)) => Err(refused(refusal).at(&self.server)),
            Ok(reply) => Ok(reply),
            Err(error) => Err(lost(error).at(&self.server)),
        }
    }

    fn unanswered(&self, conn: &Arc<Conn>, effect: Effect, error: CallError) {
        let report = match error {
            CallError::TimedOut => Report::Silent,
            CallError::Lost(_) => Report::Lost,
        };
        self.pool.report(conn, report);
        if self.pool.is_down() {
            self.missed().away();
        } else if effect == Effect::Changes {
            self.missed().now();
        }
    }

    fn answered(&self, conn: &Arc<Conn>) {
        // Before the caller sees the answer, which may be a value from before.
        self.missed().back();
        self.pool.report(conn, Report::Answered);
    }

    /// Connects unless that was done, and says what is wrong.
    pub(crate) async fn verify(&self) -> Result<()> {
        match self.pool.verify().await {
            Ok(_) => Ok(()),
            Err(why) => Err(self.unavailable(why)),
        }
    }

    fn unavailable(&self, why: Unavailable<Error>) -> Error {
        let down = |message: &'static str, hint: &'static str| {
            Error::new(ErrorKind::Unavailable, message).with_hint(hint).at(&self.server)
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
                    Some(cause) => error.with_source(self.dial_failed(cause)),
                    None => error,
                }
            }
            Unavailable::Dial(cause) => self.dial_failed(cause),
            Unavailable::TooLate => Error::new(ErrorKind::Timeout, "no connection in time").at(&self.server),
        }
    }

    fn dial_failed(&self, cause: DialFailure<Error>) -> Error {
        match cause {
            DialFailure::Failed(error) => error,
            DialFailure::TooSlow(bound) => {
                Error::new(ErrorKind::Timeout, format!("no connection within {bound:?}"))
                    .with_hint("is it reachable, and does it answer? The bound is connection_timeout")
                    .at(&self.server)
            }
            DialFailure::RuntimeGone => {
                Error::new(ErrorKind::Unavailable, "the runtime to connect on was shut down").at(&self.server)
            }
        }
    }
}
