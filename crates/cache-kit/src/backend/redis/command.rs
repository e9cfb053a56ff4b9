//! The rest of Redis: any command, pipeline or transaction over the backend's own connections.

use std::fmt;

use bytes::Bytes;
use redis::{Cmd, Pipeline, Value, cmd};

use super::error::convert;
use super::node::Answer;
use super::topology::{Keyed, Topology, unexpected};
use super::{NAME, RedisBackend};
use crate::error::{Error, ErrorKind, Result};

impl RedisBackend {
    /// Any command of the server.
    ///
    /// Say which arguments are keys: they get the backend's [prefix](super::RedisBuilder::prefix). The connections
    /// are shared, so commands that change the state of a connection (`SUBSCRIBE`, `MULTI`, `WATCH`, `SELECT`,
    /// `AUTH`, `CLIENT REPLY`, `READONLY`, blocking ones such as `BLPOP`, `WAIT` and `XREAD BLOCK`) are refused; [`transaction`](Self::transaction) makes
    /// many commands one. In a cluster a command goes to the node that has its first key, and one without keys to any of
    /// the primaries.
    ///
    /// ```no_run
    /// # async fn run(backend: cache_kit::backend::RedisBackend) -> cache_kit::Result<()> {
    /// backend.command("ZADD").key("scores").arg(17).arg("ada").run().await?;
    /// let best = backend.command("ZREVRANGE").key("scores").arg(0).arg(9).run().await?;
    /// # Ok(()) }
    /// ```
    pub fn command(&self, name: &str) -> RedisCommand {
        RedisCommand {
            backend: self.clone(),
            command: cmd(name),
            name: name.to_ascii_uppercase(),
            keys: Vec::new(),
            first: None,
            blocks: false,
        }
    }

    /// Many commands in one exchange; other callers' commands may come in between. In a cluster, one exchange with each
    /// node that has some of the keys: commands on different keys may then run in another order.
    pub fn pipeline(&self) -> RedisPipeline {
        RedisPipeline { backend: self.clone(), commands: Vec::new(), atomic: false, refused: None }
    }

    /// Many commands that the server runs as one (`MULTI` and `EXEC`): all of them or, if it refuses one, none. In a
    /// cluster their keys must be in one slot, which those with the same `{tag}` are.
    pub fn transaction(&self) -> RedisPipeline {
        RedisPipeline { atomic: true, ..self.pipeline() }
    }
}

/// Commands that would change the connection under everybody else, or hold it up.
const REFUSED: [&str; 27] = [
    "ASKING",
    "AUTH",
    "BLMOVE",
    "BLMPOP",
    "BLPOP",
    "BRPOP",
    "BRPOPLPUSH",
    "BZMPOP",
    "BZPOPMAX",
    "BZPOPMIN",
    "DISCARD",
    "EXEC",
    "HELLO",
    "MONITOR",
    "MULTI",
    "PSUBSCRIBE",
    "QUIT",
    "READONLY",
    "READWRITE",
    "RESET",
    "SELECT",
    "SSUBSCRIBE",
    "SUBSCRIBE",
    "UNWATCH",
    "WAIT",
    "WAITAOF",
    "WATCH",
];

/// Of `CLIENT`: what would keep answers back, or send others than were asked for.
const REFUSED_OF_CLIENT: [&str; 5] = ["CACHING", "NO-EVICT", "NO-TOUCH", "REPLY", "TRACKING"];

fn check(command: &RedisCommand) -> Result<()> {
    let RedisCommand { name, first, blocks, .. } = command;
    let first = first.as_deref().unwrap_or_default();
    let of_client = name == "CLIENT" && REFUSED_OF_CLIENT.contains(&first);
    if REFUSED.contains(&name.as_str()) || of_client || *blocks {
        return Err(Error::new(
            ErrorKind::InvalidInput,
            match of_client {
                true => format!("CLIENT {first} is not for a connection that is shared"),
                false => format!("{name} is not for a connection that is shared"),
            },
        )
        .with_backend(NAME)
        .with_operation("command")
        .with_hint("use transaction() for MULTI, a client of your own for the rest"));
    }
    Ok(())
}

/// A command being put together.
#[must_use = "a command does nothing until it runs"]
pub struct RedisCommand {
    backend: RedisBackend,
    command: Cmd,
    name: String,
    /// As they are on the server.
    keys: Vec<String>,
    /// The first argument that is no key, in capitals.
    first: Option<String>,
    /// It waits for something to happen.
    blocks: bool,
}

impl RedisCommand {
    /// An argument that is a key.
    pub fn key(mut self, key: impl AsRef<str>) -> Self {
        let key = self.backend.shared.full(key.as_ref()).into_owned();
        self.command.arg(&key);
        self.keys.push(key);
        self
    }

    /// An argument that is no key, as its text.
    pub fn arg(mut self, arg: impl fmt::Display) -> Self {
        let arg = arg.to_string();
        self.look_at(arg.as_bytes());
        self.command.arg(arg);
        self
    }

    /// An argument that is no key, as bytes.
    pub fn bytes(mut self, arg: impl AsRef<[u8]>) -> Self {
        self.look_at(arg.as_ref());
        self.command.arg(arg.as_ref());
        self
    }

    fn look_at(&mut self, arg: &[u8]) {
        let is_stream = matches!(self.name.as_str(), "XREAD" | "XREADGROUP");
        self.blocks |= is_stream && arg.eq_ignore_ascii_case(b"BLOCK");
        self.first.get_or_insert_with(|| String::from_utf8_lossy(arg).to_ascii_uppercase());
    }

    /// Sends the command and waits for the answer, within the deadline of an operation. **Cancel-safe**: the command
    /// may take effect, but its answer goes to nobody else.
    ///
    /// # Errors
    /// The server's, and those of every operation; [`InvalidInput`](ErrorKind::InvalidInput) for a command that
    /// is not for a connection that is shared.
    pub async fn run(self) -> Result<RedisValue> {
        check(&self)?;
        let topology = &self.backend.shared.topology;
        let answer = match self.keys.first() {
            Some(key) => topology.send("command", key, &self.command).await?,
            None => topology.send_anywhere("command", &self.command).await?,
        };
        answer.map(RedisValue::from).map_err(|error| convert("command", error))
    }
}

impl fmt::Debug for RedisCommand {
    // Arguments may be values.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisCommand").field("name", &self.name).finish_non_exhaustive()
    }
}

/// Commands to be sent together.
#[must_use = "a pipeline does nothing until it runs"]
pub struct RedisPipeline {
    backend: RedisBackend,
    commands: Vec<RedisCommand>,
    atomic: bool,
    refused: Option<Error>,
}

impl RedisPipeline {
    /// Adds a command.
    pub fn then(mut self, command: RedisCommand) -> Self {
        if let Err(error) = check(&command) {
            self.refused.get_or_insert(error);
        }
        self.commands.push(command);
        self
    }

    /// Sends all commands and waits for the answers, one for each, within the deadline of an operation.
    /// **Cancel-safe** as [`RedisCommand::run`].
    ///
    /// # Errors
    /// As `RedisCommand::run`; the first error among the answers is the error.
    pub async fn run(self) -> Result<Vec<RedisValue>> {
        if let Some(refused) = self.refused {
            return Err(refused);
        }
        if self.commands.is_empty() {
            return Ok(Vec::new());
        }
        let topology = &self.backend.shared.topology;
        if self.atomic {
            return Self::run_as_one(self.commands, topology).await;
        }
        let keyed = |command: RedisCommand| {
            Keyed::new(command.keys.into_iter().next().unwrap_or_default(), command.command)
        };
        let commands = self.commands.into_iter().map(keyed).collect();
        let answers = topology.send_each("pipeline", commands).await?;
        let each = |answer: Result<Answer<Value>>| {
            answer?.map(RedisValue::from).map_err(|error| convert("pipeline", error))
        };
        answers.into_iter().map(each).collect()
    }

    async fn run_as_one(commands: Vec<RedisCommand>, topology: &Topology) -> Result<Vec<RedisValue>> {
        let (mut pipeline, mut keys, count) = (Pipeline::new(), Vec::new(), commands.len());
        pipeline.atomic();
        for command in commands {
            pipeline.add_command(command.command);
            keys.extend(command.keys);
        }
        match topology.transaction("transaction", &keys, &pipeline, count).await? {
            Value::Array(values) => values
                .into_iter()
                .map(|value| match value {
                    Value::ServerError(error) => Err(convert("transaction", error.into())),
                    value => Ok(RedisValue::from(value)),
                })
                .collect(),
            Value::ServerError(error) => Err(convert("transaction", error.into())),
            _ => Err(unexpected("transaction")),
        }
    }
}

impl fmt::Debug for RedisPipeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisPipeline").field("commands", &self.commands.len()).finish_non_exhaustive()
    }
}

/// An answer of the server.
#[derive(Clone, Debug, PartialEq)]
#[non_exhaustive]
pub enum RedisValue {
    /// Nothing.
    Nil,
    /// A whole number.
    Int(i64),
    /// A floating-point number.
    Double(f64),
    /// A truth value.
    Bool(bool),
    /// Bytes, or text.
    Bytes(Bytes),
    /// Many answers; of a map, keys and values in turn.
    Array(Vec<Self>),
}

impl RedisValue {
    /// The bytes, if it is any.
    #[must_use]
    pub fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            Self::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    /// The text, if it is any.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        std::str::from_utf8(self.as_bytes()?).ok()
    }

    /// The whole number, if it is one.
    #[must_use]
    pub fn as_int(&self) -> Option<i64> {
        match self {
            Self::Int(number) => Some(*number),
            _ => None,
        }
    }
}

impl From<Value> for RedisValue {
    fn from(value: Value) -> Self {
        let all = |values: Vec<Value>| Self::Array(values.into_iter().map(Self::from).collect());
        match value {
            Value::Int(number) => Self::Int(number),
            Value::Double(number) => Self::Double(number),
            Value::Boolean(truth) => Self::Bool(truth),
            Value::BulkString(bytes) => Self::Bytes(bytes.into()),
            Value::SimpleString(text) | Value::VerbatimString { text, .. } => Self::Bytes(text.into()),
            Value::Okay => Self::Bytes(Bytes::from_static(b"OK")),
            Value::Array(values) | Value::Set(values) | Value::Push { data: values, .. } => all(values),
            Value::Map(pairs) => all(pairs.into_iter().flat_map(|(key, value)| [key, value]).collect()),
            Value::Attribute { data, .. } => Self::from(*data),
            // Big numbers, whose type depends on a feature that others may switch on, are not in the protocol that
            // our connections speak.
            _ => Self::Nil,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::RedisConfig;

    #[tokio::test]
    async fn what_would_mix_up_answers_or_hold_them_up_is_refused_before_anything_is_sent() {
        // Nobody is there: what is not refused is an error of another kind.
        let config = RedisConfig { host: "127.0.0.1".into(), port: 1, ..RedisConfig::default() };
        let backend = RedisBackend::new(config).unwrap();
        for words in [
            "CLIENT REPLY SKIP",
            "client tracking on",
            "CLIENT NO-EVICT on",
            "READONLY",
            "ASKING",
            "WAIT 1 0",
            "BLPOP k 0",
            "XREAD BLOCK 0 STREAMS s $",
            "XREADGROUP GROUP g c block 0 STREAMS s >",
        ] {
            let mut words = words.split(' ');
            let command = backend.command(words.next().unwrap());
            let command = words.fold(command, RedisCommand::arg);
            let error = command.run().await.unwrap_err();
            assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error}");
        }
        for words in ["CLIENT ID", "XREAD COUNT 1 STREAMS s 0", "GET k"] {
            let mut words = words.split(' ');
            let command = backend.command(words.next().unwrap());
            let error = words.fold(command, RedisCommand::arg).run().await.unwrap_err();
            assert_ne!(error.kind(), ErrorKind::InvalidInput, "{error}");
        }
    }
}
