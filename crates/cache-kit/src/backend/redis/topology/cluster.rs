//! A cluster: commands go to the node that has their key's slot, wherever the nodes say that it is.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use cache_kit_net::Address;
use futures_util::future::join_all;
use redis::{Cmd, Pipeline, RedisError, Value, cmd};
use tokio::time::sleep;

use super::super::NAME;
use super::super::error::convert;
use super::super::node::{Answer, Common, Node};
use super::members::Members;
use super::redirect::Redirect;
use super::replicas::half_way;
use super::slots::slot_of;
use super::{Keyed, unexpected};
use crate::error::{Error, ErrorKind, Result};

/// A command follows so many redirections, and no more.
pub(in super::super) const MAX_REDIRECTIONS: usize = 8;
/// Two at once: to the node that has the slot, and to the one that it is being moved to. From there on the nodes do not agree,
/// and are given time to: so many milliseconds at first, doubled each time, half of it drawn at random.
const AGREE_MILLIS: u64 = 4;

/// Where a command goes.
#[derive(Clone)]
struct Target {
    node: Arc<Node>,
    /// The slot is being moved there, and is the node's only for who says so.
    asking: bool,
    /// It may know less than the primary.
    is_replica: bool,
}

impl Target {
    fn primary(node: Arc<Node>) -> Self {
        Self { node, asking: false, is_replica: false }
    }
}

/// A cluster.
pub(super) struct Cluster {
    pub(super) members: Arc<Members>,
}

impl Cluster {
    pub(super) fn new(common: Arc<Common>, seeds: Vec<Address>, found_by: Arc<Node>) -> Self {
        Self { members: Arc::new(Members::new(common, seeds, found_by)) }
    }

    /// Reads the value under a key.
    pub(super) async fn read(&self, deadline: Instant, key: &str) -> Result<Answer<Value>> {
        if let Some(replica) = self.members.replica(slot_of(key.as_bytes()))
            && let Ok(Ok(value)) = replica.read(half_way(deadline), key).await
        {
            return Ok(Ok(value));
        }
        let target = self.target("get", slot_of(key.as_bytes()), deadline).await?;
        let answer = target.node.read(deadline, key).await;
        let answer = answer.inspect_err(|_| self.members.refresh_soon())?;
        match &answer {
            // Followed from here, where one key goes its own way.
            Err(error) if Redirect::of(error, target.node.address()).is_some() => {
                let mut get = cmd("GET");
                get.arg(key);
                self.send("get", deadline, key.as_bytes(), &get).await
            }
            _ => Ok(answer),
        }
    }

    /// Sends a command to the node that has the key's slot, wherever that takes it.
    pub(super) async fn send(
        &self,
        operation: &'static str,
        deadline: Instant,
        key: &[u8],
        command: &Cmd,
    ) -> Result<Answer<Value>> {
        let slot = slot_of(key);
        let mut target = self.target(operation, slot, deadline).await?;
        for hop in 0..=MAX_REDIRECTIONS {
            let sent = match target.asking {
                false => target.node.send(operation, deadline, command).await,
                true => target.node.send_asking(operation, deadline, command).await,
            };
            let answer = sent.inspect_err(|_| self.members.refresh_soon())?;
            let Err(error) = &answer else { return Ok(answer) };
            match self.follow(error, &target) {
                Some(next) if let_them_agree(hop, deadline).await => target = next,
                _ => return Ok(answer),
            }
        }
        Err(lost_in_redirections(operation))
    }

    /// The node that has the key's slot.
    pub(super) async fn owner(
        &self,
        operation: &'static str,
        deadline: Instant,
        key: &[u8],
    ) -> Result<Arc<Node>> {
        Ok(self.target(operation, slot_of(key), deadline).await?.node)
    }

    /// The node that an error of this one says to ask instead, and whether it takes an `ASKING`.
    pub(super) fn redirected(&self, error: &RedisError, node: &Arc<Node>) -> Option<(Arc<Node>, bool)> {
        let next = self.follow(error, &Target::primary(Arc::clone(node)))?;
        Some((next.node, next.asking))
    }

    /// Sends commands to the nodes that have their keys' slots: those for one node in one exchange, all nodes at the same
    /// time, and again what is redirected.
    pub(super) async fn send_each(
        &self,
        operation: &'static str,
        deadline: Instant,
        commands: Vec<Keyed>,
        reads: bool,
    ) -> Result<Vec<Result<Answer<Value>>>> {
        let map = self.members.map(operation, deadline).await?;
        let mut answers: Vec<Option<Result<Answer<Value>>>> = commands.iter().map(|_| None).collect();
        let mut pending: Vec<(usize, Target)> = Vec::with_capacity(commands.len());
        for (at, keyed) in commands.iter().enumerate() {
            let slot = slot_of(&keyed.key);
            let replica = if reads { self.members.replica(slot) } else { None };
            match (replica, map.shard(slot)) {
                (Some(node), _) => pending.push((at, Target { node, asking: false, is_replica: true })),
                (None, Some(shard)) => pending.push((at, Target::primary(Arc::clone(&shard.primary)))),
                (None, None) => {
                    self.members.refresh_soon();
                    answers[at] = Some(Err(nobody_has(operation, slot)));
                }
            }
        }
        let mut rounds = 0;
        while !pending.is_empty() {
            if rounds > MAX_REDIRECTIONS || (rounds > 0 && !let_them_agree(rounds - 1, deadline).await) {
                for (at, _) in pending {
                    answers[at] = Some(Err(lost_in_redirections(operation)));
                }
                break;
            }
            rounds += 1;
            let groups = by_node(std::mem::take(&mut pending));
            let sent = join_all(groups.iter().map(|(node, group)| {
                let until = if group[0].1.is_replica { half_way(deadline) } else { deadline };
                let group = group.iter().map(|(at, target)| (&commands[*at].command, target.asking));
                node.send_group(operation, until, group)
            }))
            .await;
            for ((_, group), sent) in groups.into_iter().zip(sent) {
                match sent {
                    Ok(values) => {
                        for ((at, target), answer) in group.into_iter().zip(values) {
                            match self.next(&commands[at].key, &answer, &target) {
                                Some(next) => pending.push((at, next)),
                                None => answers[at] = Some(Ok(answer)),
                            }
                        }
                    }
                    Err(error) => {
                        self.members.refresh_soon();
                        for (at, target) in group {
                            match self.instead(&commands[at].key, &target) {
                                Some(next) => pending.push((at, next)),
                                None => answers[at] = Some(Err(error.clone())),
                            }
                        }
                    }
                }
            }
        }
        Ok(answers.into_iter().map(|answer| answer.unwrap_or_else(|| Err(unexpected(operation)))).collect())
    }

    /// Where a command goes after this answer, if it goes anywhere.
    fn next(&self, key: &[u8], answer: &Answer<Value>, target: &Target) -> Option<Target> {
        let Err(error) = answer else { return None };
        self.instead(key, target).or_else(|| self.follow(error, target))
    }

    /// The primary, where a replica was asked in vain.
    fn instead(&self, key: &[u8], target: &Target) -> Option<Target> {
        if !target.is_replica {
            return None;
        }
        let map = self.members.known()?;
        let shard = map.shard(slot_of(key))?;
        Some(Target::primary(Arc::clone(&shard.primary)))
    }

    /// Sends a transaction on keys of one slot.
    pub(super) async fn transaction(
        &self,
        operation: &'static str,
        deadline: Instant,
        keys: &[String],
        pipeline: &Pipeline,
        count: usize,
    ) -> Result<Value> {
        let mut slots = keys.iter().map(|key| slot_of(key.as_bytes()));
        let slot = slots.next().unwrap_or_default();
        if slots.any(|other| other != slot) {
            return Err(Error::new(
                ErrorKind::InvalidInput,
                "the keys of a transaction are on several nodes",
            )
            .with_backend(NAME)
            .with_operation(operation)
            .with_hint("give keys that go together the same {tag}"));
        }
        let mut target = self.target(operation, slot, deadline).await?;
        for hop in 0..=MAX_REDIRECTIONS {
            // MULTI, what each command is answered when it is queued, and EXEC.
            let sent = target.node.send_all(operation, deadline, pipeline, 0, count + 2).await;
            let answers = sent.inspect_err(|_| self.members.refresh_soon())?;
            let mut answers = answers.map_err(|error| convert(operation, error))?;
            let refusal = answers.iter().find_map(|answer| match answer {
                Value::ServerError(error) => Some(RedisError::from(error.clone())),
                _ => None,
            });
            let Some(refusal) = refusal else {
                return answers.pop().ok_or_else(|| unexpected(operation));
            };
            match self.follow(&refusal, &target) {
                Some(next) if !next.asking && let_them_agree(hop, deadline).await => target = next,
                // One cannot ask for a transaction there: it is refused until the slot has moved.
                _ => return Err(convert(operation, refusal)),
            }
        }
        Err(lost_in_redirections(operation))
    }

    /// The node that has a slot.
    async fn target(&self, operation: &'static str, slot: u16, deadline: Instant) -> Result<Target> {
        match self.members.map(operation, deadline).await?.shard(slot) {
            Some(shard) => Ok(Target::primary(Arc::clone(&shard.primary))),
            None => {
                self.members.refresh_soon();
                Err(nobody_has(operation, slot))
            }
        }
    }

    /// Where an error says to go, if it does.
    fn follow(&self, error: &RedisError, target: &Target) -> Option<Target> {
        match Redirect::of(error, target.node.address())? {
            Redirect::Moved { slot, to } => Some(Target::primary(self.members.moved(slot, to))),
            Redirect::Ask { to } => {
                Some(Target { node: self.members.node(to), asking: true, is_replica: false })
            }
            Redirect::TryAgain => Some(target.clone()),
            Redirect::Down => {
                self.members.refresh_soon();
                None
            }
        }
    }
}

/// Waits before the redirection after this one is followed; false if there is no time for that.
pub(in super::super) async fn let_them_agree(hop: usize, deadline: Instant) -> bool {
    if hop < 2 {
        return true;
    }
    let most = AGREE_MILLIS << (hop - 2);
    let pause = Duration::from_millis(fastrand::u64(most / 2..=most));
    if Instant::now() + pause >= deadline {
        return false;
    }
    sleep(pause).await;
    true
}

/// Commands that go to one node, in their order.
type Group = (Arc<Node>, Vec<(usize, Target)>);

/// Those for replicas are apart, since they are given less time.
fn by_node(pending: Vec<(usize, Target)>) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    let mut known: HashMap<(*const Node, bool), usize> = HashMap::new();
    for (at, target) in pending {
        let group = *known.entry((Arc::as_ptr(&target.node), target.is_replica)).or_insert_with(|| {
            groups.push((Arc::clone(&target.node), Vec::new()));
            groups.len() - 1
        });
        groups[group].1.push((at, target));
    }
    groups
}

fn unavailable(operation: &'static str, message: String) -> Error {
    Error::new(ErrorKind::Unavailable, message).with_backend(NAME).with_operation(operation)
}

fn nobody_has(operation: &'static str, slot: u16) -> Error {
    unavailable(operation, format!("no node of the cluster has slot {slot}")).with_hint("see CLUSTER SLOTS")
}

pub(in super::super) fn lost_in_redirections(operation: &'static str) -> Error {
    unavailable(operation, "redirected again and again".to_owned())
        .with_hint("do the nodes agree on who has which slots? See CLUSTER SLOTS on each")
}
