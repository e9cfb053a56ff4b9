//! Which server a command goes to: the one that there is, the primary that sentinels name, or the node of a cluster that
//! has the key's slot.

mod cluster;
mod first;
mod members;
mod redirect;
mod replicas;
mod sentinels;
mod slots;
mod turn;

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::time::Instant;

use futures_util::future::join_all;
use redis::{Cmd, Pipeline, RedisError, Value, cmd};

use self::cluster::Cluster;
pub(super) use self::cluster::{MAX_REDIRECTIONS, let_them_agree, lost_in_redirections};
use self::replicas::Replicas;
pub(super) use self::sentinels::{Sentinels, Witness};
pub(super) use self::slots::SLOTS;
use self::slots::slot_of;
use super::error::{convert, is_read_only};
use super::fence::Mode;
use super::greeting::ServerMode;
use super::node::{Answer, Common, Node, Place};
use super::settings::{RedisReadFrom, Servers, Settings};
use crate::error::{Error, ErrorKind, Result};

/// What the servers were found to be to each other.
#[derive(Debug, Default)]
pub(super) struct Shape(AtomicU8);

impl Shape {
    const UNKNOWN: u8 = 0;
    const ONE: u8 = 1;
    const CLUSTER: u8 = 2;

    fn of(servers: &Servers) -> Self {
        Self(AtomicU8::new(match servers {
            Servers::One(_) => Self::UNKNOWN,
            Servers::Cluster(_) => Self::CLUSTER,
            Servers::Sentinels(_) => Self::ONE,
        }))
    }

    /// What a server says of itself, whose address is all that is known.
    pub(super) fn learn(&self, mode: ServerMode) {
        let shape = if mode == ServerMode::Cluster { Self::CLUSTER } else { Self::ONE };
        self.0.store(shape, Ordering::Release);
    }

    fn get(&self) -> u8 {
        self.0.load(Ordering::Acquire)
    }
}

/// A command, and the key on the server that it is about.
#[derive(Clone, Debug)]
pub(super) struct Keyed {
    pub(super) key: Vec<u8>,
    pub(super) command: Cmd,
}

impl Keyed {
    pub(super) fn new(key: impl AsRef<[u8]>, command: Cmd) -> Self {
        Self { key: key.as_ref().to_vec(), command }
    }
}

/// The servers of a backend.
pub(super) struct Topology {
    common: Arc<Common>,
    /// The server, the primary, or the first node of a cluster.
    primary: Arc<Node>,
    replicas: Replicas,
    cluster: Cluster,
}

impl Topology {
    /// Whether plain reads go to replicas.
    pub(super) fn reads_from_replicas(&self) -> bool {
        self.common.settings.read_from == RedisReadFrom::PreferReplica
    }

    pub(super) fn new(settings: Settings) -> Self {
        let shape = Shape::of(&settings.servers);
        let common = Arc::new(Common { settings, mode: Mode::default(), shape });
        let most = common.settings.pool_size;
        let (place, seeds) = match &common.settings.servers {
            Servers::One(address) => (Place::First(address.clone()), vec![address.clone()]),
            Servers::Cluster(seeds) => (Place::At(seeds[0].clone()), seeds.clone()),
            Servers::Sentinels(sentinels) => {
                (Place::Sentinels(Arc::new(Sentinels::new(sentinels.clone()))), Vec::new())
            }
        };
        let replicas = Replicas::new(&common, &place);
        let reads_only = common.settings.read_from == RedisReadFrom::PreferReplica;
        let primary = Arc::new(Node::new(&common, place, reads_only, most));
        let cluster = Cluster::new(Arc::clone(&common), seeds, Arc::clone(&primary));
        Self { common, primary, replicas, cluster }
    }

    pub(super) fn settings(&self) -> &Settings {
        &self.common.settings
    }

    /// What the servers were found to be able to do.
    pub(super) fn mode(&self) -> &Mode {
        &self.common.mode
    }

    /// How many connections are open.
    pub(super) fn connections(&self) -> usize {
        match self.common.shape.get() {
            Shape::CLUSTER => self.cluster.members.connections(),
            _ => self.primary.connections() + self.replicas.connections(),
        }
    }

    /// Drops every connection, at most once a second.
    pub(super) fn drop_all(&self) {
        // Soon after it was done, it is not done again.
        let _done = self.primary.drop_all();
        self.cluster.members.drop_all();
        self.replicas.drop_all();
    }

    /// Until when an operation that begins now may take.
    pub(super) fn deadline(&self) -> Instant {
        Instant::now() + self.common.settings.operation_timeout
    }

    /// Whether the servers are a cluster; who does not know yet has to connect.
    pub(super) async fn is_cluster(&self, operation: &'static str, deadline: Instant) -> Result<bool> {
        if self.common.shape.get() == Shape::UNKNOWN {
            self.primary.reach(operation, deadline).await?;
        }
        Ok(self.common.shape.get() == Shape::CLUSTER)
    }

    /// Reads the value under a key, alone or together with others that are asked for now.
    pub(super) async fn read(&self, key: &str) -> Result<Answer<Value>> {
        let deadline = self.deadline();
        if self.is_cluster("get", deadline).await? {
            return self.cluster.read(deadline, key).await;
        }
        if let Some(value) = self.replicas.read(deadline, key).await {
            return Ok(Ok(value));
        }
        self.primary.read(deadline, key).await
    }

    /// The primary that has a key.
    pub(super) async fn owner(
        &self,
        operation: &'static str,
        deadline: Instant,
        key: &[u8],
    ) -> Result<Arc<Node>> {
        if self.is_cluster(operation, deadline).await? {
            return self.cluster.owner(operation, deadline, key).await;
        }
        Ok(Arc::clone(&self.primary))
    }

    /// The primary that an error of this one says to ask instead, and whether it takes an `ASKING`.
    pub(super) fn redirected(&self, error: &RedisError, node: &Arc<Node>) -> Option<(Arc<Node>, bool)> {
        // Of a server alone, no error is a reason to ask about slots.
        self.keys_may_move().then(|| self.cluster.redirected(error, node)).flatten()
    }

    /// Something has failed that may be due to a server that is one of the cluster no more.
    pub(super) fn suspect(&self) {
        if self.keys_may_move() {
            self.cluster.members.refresh_soon();
        }
    }

    /// Another number whenever slots have got another owner, which is looked for now and then.
    pub(super) fn slots_version(&self) -> u64 {
        if self.keys_may_move() {
            self.cluster.members.refresh_if_old();
        }
        self.cluster.members.slots_version()
    }

    /// Sends one command on a key and waits for its answer.
    pub(super) async fn send(
        &self,
        operation: &'static str,
        key: &str,
        command: &Cmd,
    ) -> Result<Answer<Value>> {
        let deadline = self.deadline();
        if self.is_cluster(operation, deadline).await? {
            return self.cluster.send(operation, deadline, key.as_bytes(), command).await;
        }
        self.send_to_primary(operation, deadline, command, 1).await
    }

    /// Sends one command on so many keys to the primary that has them all.
    async fn send_to_primary(
        &self,
        operation: &'static str,
        deadline: Instant,
        command: &Cmd,
        keys: usize,
    ) -> Result<Answer<Value>> {
        let answer = self.primary.send_for(operation, deadline, command, keys).await?;
        match &answer {
            // It has become a replica and has done nothing: whoever is found now in its place may be the primary.
            Err(error) if is_read_only(error) && self.primary.drop_all() => {
                self.primary.send_for(operation, deadline, command, keys).await
            }
            _ => Ok(answer),
        }
    }

    /// Sends commands side by side, each with the number of keys that it is on; in a cluster, those for one node in one
    /// exchange.
    ///
    /// # Errors
    /// When not even one could be sent. An error of one server is the error of its own commands alone.
    pub(super) async fn send_side_by_side(
        &self,
        operation: &'static str,
        deadline: Instant,
        calls: Vec<(Keyed, usize)>,
    ) -> Result<Vec<Result<Answer<Value>>>> {
        if self.is_cluster(operation, deadline).await? {
            let commands = calls.into_iter().map(|(keyed, _)| keyed).collect();
            return self.cluster.send_each(operation, deadline, commands, false).await;
        }
        let sent =
            calls.iter().map(|(call, keys)| self.send_to_primary(operation, deadline, &call.command, *keys));
        Ok(join_all(sent).await)
    }

    /// The slot of a key on the server, where the servers are known to be a cluster.
    pub(super) fn slot(&self, key: &[u8]) -> Option<u16> {
        self.keys_may_move().then(|| slot_of(key))
    }

    /// Sends a command that is about no key, to any primary.
    pub(super) async fn send_anywhere(
        &self,
        operation: &'static str,
        command: &Cmd,
    ) -> Result<Answer<Value>> {
        let deadline = self.deadline();
        let primaries = self.primaries(operation, deadline).await?;
        let up: Vec<_> = primaries.iter().filter(|node| !node.is_down()).collect();
        let node = if up.is_empty() { &primaries[0] } else { up[fastrand::usize(..up.len())] };
        node.send(operation, deadline, command).await.inspect_err(|_| self.suspect())
    }

    /// Sends a command that is about no key to every primary; the first error is the error, and all were asked.
    pub(super) async fn send_everywhere(&self, operation: &'static str, command: &Cmd) -> Result<()> {
        let deadline = self.deadline();
        let primaries = self.all_primaries(operation, deadline).await?;
        let sent = join_all(primaries.iter().map(|node| node.send(operation, deadline, command))).await;
        for (node, answer) in primaries.iter().zip(sent) {
            let answer = answer.inspect_err(|_| self.suspect())?;
            if let Err(error) = answer {
                self.suspect();
                if is_read_only(&error) {
                    // Whoever comes next finds the primary.
                    let _done = node.drop_all();
                }
                return Err(convert(operation, error));
            }
        }
        Ok(())
    }

    /// Sends many commands, those for one server in one exchange, in their order.
    ///
    /// # Errors
    /// When not even one could be sent. An error of one server is the error of its own commands alone.
    pub(super) async fn send_each(
        &self,
        operation: &'static str,
        commands: Vec<Keyed>,
    ) -> Result<Vec<Result<Answer<Value>>>> {
        let deadline = self.deadline();
        if self.is_cluster(operation, deadline).await? {
            return self.cluster.send_each(operation, deadline, commands, false).await;
        }
        let count = commands.len();
        let mut pipeline = Pipeline::with_capacity(count);
        for keyed in commands {
            pipeline.add_command(keyed.command);
        }
        let answers = self.primary.send_all(operation, deadline, &pipeline, 0, count).await?;
        Ok(apart(answers.map_err(|error| convert(operation, error))?, &self.primary))
    }

    /// The values under keys, with as few commands as the servers allow.
    pub(super) async fn values(
        &self,
        operation: &'static str,
        keys: Vec<Vec<u8>>,
    ) -> Result<Vec<Result<Answer<Value>>>> {
        let deadline = self.deadline();
        if self.is_cluster(operation, deadline).await? {
            let get = |key: Vec<u8>| {
                let mut command = cmd("GET");
                command.arg(&key);
                Keyed { key, command }
            };
            let commands = keys.into_iter().map(get).collect();
            return self.cluster.send_each(operation, deadline, commands, true).await;
        }
        let mut command = cmd("MGET");
        command.arg(&keys);
        let answer = match self.replicas.send_for(operation, deadline, &command, keys.len()).await {
            Some(value) => Ok(value),
            None => self.primary.send_for(operation, deadline, &command, keys.len()).await?,
        };
        match answer.map_err(|error| convert(operation, error))? {
            Value::Array(values) if values.len() == keys.len() => {
                Ok(values.into_iter().map(|value| Ok(Ok(value))).collect())
            }
            _ => Err(unexpected(operation)),
        }
    }

    /// Sends `MULTI`, commands on keys of one server, and `EXEC`; what `EXEC` answers.
    pub(super) async fn transaction(
        &self,
        operation: &'static str,
        keys: &[String],
        pipeline: &Pipeline,
        count: usize,
    ) -> Result<Value> {
        let deadline = self.deadline();
        if self.is_cluster(operation, deadline).await? {
            return self.cluster.transaction(operation, deadline, keys, pipeline, count).await;
        }
        // MULTI, a `QUEUED` for each command, and the answers in the one of EXEC.
        let answers = self.primary.send_all(operation, deadline, pipeline, count + 1, 1).await?;
        let answers = answers.map_err(|error| convert(operation, error))?;
        answers.into_iter().next().ok_or_else(|| unexpected(operation))
    }

    /// The servers that hold the keys, each once; one at least.
    pub(super) async fn primaries(
        &self,
        operation: &'static str,
        deadline: Instant,
    ) -> Result<Vec<Arc<Node>>> {
        if self.is_cluster(operation, deadline).await? {
            return self.cluster.members.primaries(operation, deadline).await;
        }
        Ok(vec![Arc::clone(&self.primary)])
    }

    /// The same, of a cluster as it is now: what is about no key is told to nobody who has taken over slots meanwhile.
    pub(super) async fn all_primaries(
        &self,
        operation: &'static str,
        deadline: Instant,
    ) -> Result<Vec<Arc<Node>>> {
        if self.is_cluster(operation, deadline).await? {
            self.cluster.members.reload(operation, deadline).await?;
        }
        self.primaries(operation, deadline).await
    }

    /// Whether keys may be moved from one server to another while somebody looks for them.
    pub(super) fn keys_may_move(&self) -> bool {
        self.common.shape.get() == Shape::CLUSTER
    }

    /// Connects once more, outside of the breaker, and tells what is wrong.
    pub(super) async fn verify(&self) -> Result<()> {
        if self.common.shape.get() != Shape::CLUSTER {
            self.primary.verify().await?;
        }
        if self.common.shape.get() == Shape::CLUSTER {
            if !self.common.settings.replicas.is_empty() {
                return Err(Error::config("replicas of a cluster, which names its own")
                    .with_backend(super::NAME)
                    .with_operation("connect")
                    .with_hint("leave them out"));
            }
            self.cluster.members.verify().await?;
        }
        Ok(())
    }
}

/// Answers that came together, each for itself.
fn apart(answers: Vec<Value>, node: &Node) -> Vec<Result<Answer<Value>>> {
    let each = |value| match value {
        Value::ServerError(error) => {
            let error = RedisError::from(error);
            if is_read_only(&error) {
                // Whoever comes next finds the primary.
                let _done = node.drop_all();
            }
            Ok(Err(error))
        }
        value => Ok(Ok(value)),
    };
    answers.into_iter().map(each).collect()
}

pub(super) fn unexpected(operation: &'static str) -> Error {
    Error::new(ErrorKind::Unavailable, "the server's answer is not what was asked for")
        .with_backend(super::NAME)
        .with_operation(operation)
}

fn too_late(operation: &'static str, settings: &Settings) -> Error {
    let timeout = settings.operation_timeout;
    Error::new(ErrorKind::Timeout, format!("no answer within {timeout:?}"))
        .with_backend(super::NAME)
        .with_operation(operation)
}

impl std::fmt::Debug for Topology {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Topology").field("settings", &self.common.settings).finish_non_exhaustive()
    }
}
