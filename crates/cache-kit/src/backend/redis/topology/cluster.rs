//! A cluster: the map of slots, kept up to date by what the nodes answer.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use cache_kit_net::Address;
use futures_util::future::join_all;
use redis::{Cmd, Pipeline, RedisError, Value, cmd};
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout_at};

use super::super::NAME;
use super::super::error::convert;
use super::super::node::{Answer, Common, Node, Place};
use super::super::settings::RedisReadFrom;
use super::first::first;
use super::redirect::Redirect;
use super::replicas::half_way;
use super::slots::{Range, SLOTS, read_slots, slot_of};
use super::{Keyed, too_late, unexpected};
use crate::error::{Error, ErrorKind, Result};

/// A command follows so many redirections, and no more.
const MAX_REDIRECTIONS: usize = 5;
/// The map is asked for at most this often.
const REFRESH_PAUSE: Duration = Duration::from_millis(100);
/// A key whose slot is being moved is asked for again after this long, in milliseconds, drawn at random.
const TRY_AGAIN_MILLIS: std::ops::Range<u64> = 5..25;

/// The nodes of a cluster, and who has which slots.
pub(super) struct Cluster {
    common: Arc<Common>,
    seeds: Vec<Address>,
    /// The node that was connected to before anybody knew that it is one of many.
    found_by: Arc<Node>,
    map: ArcSwapOption<SlotMap>,
    nodes: Mutex<HashMap<Address, Arc<Node>>>,
    /// Held by who asks for the map. When that has failed last, and why.
    failed: tokio::sync::Mutex<Option<(Instant, Error)>>,
    refreshing: AtomicBool,
    refreshed: Mutex<Option<Instant>>,
}

/// A primary and its replicas.
#[derive(Clone)]
struct Shard {
    primary: Arc<Node>,
    replicas: Vec<Arc<Node>>,
}

#[derive(Clone)]
struct SlotMap {
    shards: Vec<Shard>,
    /// For each slot the number of its shard.
    owners: Box<[u16]>,
}

const NOBODY: u16 = u16::MAX;

impl SlotMap {
    fn shard(&self, slot: u16) -> Option<&Shard> {
        self.shards.get(usize::from(self.owners[usize::from(slot)]))
    }

    /// Every node, primaries first.
    fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        let primaries = self.shards.iter().map(|shard| &shard.primary);
        primaries.chain(self.shards.iter().flat_map(|shard| &shard.replicas))
    }
}

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

impl Cluster {
    pub(super) fn new(common: Arc<Common>, seeds: Vec<Address>, found_by: Arc<Node>) -> Self {
        let nodes = found_by.address().map(|address| (address.clone(), Arc::clone(&found_by)));
        Self {
            common,
            seeds,
            map: ArcSwapOption::empty(),
            nodes: Mutex::new(nodes.into_iter().collect()),
            found_by,
            failed: tokio::sync::Mutex::new(None),
            refreshing: AtomicBool::new(false),
            refreshed: Mutex::new(None),
        }
    }

    pub(super) fn connections(&self) -> usize {
        let nodes = self.lock_nodes();
        let apart = !nodes.values().any(|node| Arc::ptr_eq(node, &self.found_by));
        let found_by = if apart { self.found_by.connections() } else { 0 };
        nodes.values().map(|node| node.connections()).sum::<usize>() + found_by
    }

    pub(super) fn drop_all(&self) {
        for node in self.lock_nodes().values() {
            let _done = node.drop_all();
        }
    }

    /// Reads the value under a key.
    pub(super) async fn read(self: &Arc<Self>, deadline: Instant, key: &str) -> Result<Answer<Value>> {
        if let Some(replica) = self.replica(slot_of(key.as_bytes()))
            && let Ok(Ok(value)) = replica.read(half_way(deadline), key).await
        {
            return Ok(Ok(value));
        }
        let mut get = cmd("GET");
        get.arg(key);
        self.send("get", deadline, key.as_bytes(), &get).await
    }

    /// Sends a command to the node that has the key's slot, wherever that takes it.
    pub(super) async fn send(
        self: &Arc<Self>,
        operation: &'static str,
        deadline: Instant,
        key: &[u8],
        command: &Cmd,
    ) -> Result<Answer<Value>> {
        let slot = slot_of(key);
        let mut target = self.target(operation, slot, deadline).await?;
        for _ in 0..=MAX_REDIRECTIONS {
            let sent = match target.asking {
                false => target.node.send(operation, deadline, command).await,
                true => target.node.send_asking(operation, deadline, command).await,
            };
            let answer = sent.inspect_err(|_| self.refresh_soon())?;
            let Err(error) = &answer else { return Ok(answer) };
            match self.follow(error, &target, deadline).await {
                Some(next) => target = next,
                None => return Ok(answer),
            }
        }
        Err(lost_in_redirections(operation))
    }

    /// Sends commands to the nodes that have their keys' slots: those for one node in one exchange, all nodes at the same
    /// time, and again what is redirected.
    pub(super) async fn send_each(
        self: &Arc<Self>,
        operation: &'static str,
        deadline: Instant,
        commands: Vec<Keyed>,
        reads: bool,
    ) -> Result<Vec<Result<Answer<Value>>>> {
        let map = self.map(operation, deadline).await?;
        let mut answers: Vec<Option<Result<Answer<Value>>>> = commands.iter().map(|_| None).collect();
        let mut pending: Vec<(usize, Target)> = Vec::with_capacity(commands.len());
        for (at, keyed) in commands.iter().enumerate() {
            let slot = slot_of(&keyed.key);
            let replica = if reads { self.replica(slot) } else { None };
            match (replica, map.shard(slot)) {
                (Some(node), _) => pending.push((at, Target { node, asking: false, is_replica: true })),
                (None, Some(shard)) => pending.push((at, Target::primary(Arc::clone(&shard.primary)))),
                (None, None) => {
                    self.refresh_soon();
                    answers[at] = Some(Err(nobody_has(operation, slot)));
                }
            }
        }
        let mut rounds = 0;
        while !pending.is_empty() {
            if rounds > MAX_REDIRECTIONS {
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
                            match self.next(&commands[at].key, &answer, &target, deadline).await {
                                Some(next) => pending.push((at, next)),
                                None => answers[at] = Some(Ok(answer)),
                            }
                        }
                    }
                    Err(error) => {
                        self.refresh_soon();
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
    async fn next(
        self: &Arc<Self>,
        key: &[u8],
        answer: &Answer<Value>,
        target: &Target,
        deadline: Instant,
    ) -> Option<Target> {
        let Err(error) = answer else { return None };
        match self.instead(key, target) {
            Some(primary) => Some(primary),
            None => self.follow(error, target, deadline).await,
        }
    }

    /// The primary, where a replica was asked in vain.
    fn instead(&self, key: &[u8], target: &Target) -> Option<Target> {
        if !target.is_replica {
            return None;
        }
        let map = self.map.load();
        let shard = map.as_ref()?.shard(slot_of(key))?;
        Some(Target::primary(Arc::clone(&shard.primary)))
    }

    /// Sends a transaction on keys of one slot.
    pub(super) async fn transaction(
        self: &Arc<Self>,
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
        for _ in 0..=MAX_REDIRECTIONS {
            // MULTI, what each command is answered when it is queued, and EXEC.
            let sent = target.node.send_all(operation, deadline, pipeline, 0, count + 2).await;
            let answers = sent.inspect_err(|_| self.refresh_soon())?;
            let mut answers = answers.map_err(|error| convert(operation, error))?;
            let refusal = answers.iter().find_map(|answer| match answer {
                Value::ServerError(error) => Some(RedisError::from(error.clone())),
                _ => None,
            });
            let Some(refusal) = refusal else {
                return answers.pop().ok_or_else(|| unexpected(operation));
            };
            match self.follow(&refusal, &target, deadline).await {
                Some(next) if !next.asking => target = next,
                // One cannot ask for a transaction there: it is refused until the slot has moved.
                _ => return Err(convert(operation, refusal)),
            }
        }
        Err(lost_in_redirections(operation))
    }

    /// The primaries that have slots, each once.
    pub(super) async fn primaries(
        self: &Arc<Self>,
        operation: &'static str,
        deadline: Instant,
    ) -> Result<Vec<Arc<Node>>> {
        let map = self.map(operation, deadline).await?;
        Ok(map.shards.iter().map(|shard| Arc::clone(&shard.primary)).collect())
    }

    /// Connects to every primary, and tells what is wrong with the first one that fails.
    pub(super) async fn verify(self: &Arc<Self>) -> Result<()> {
        let ranges = self.ask().await?;
        let map = self.adopt(&ranges);
        for shard in &map.shards {
            shard.primary.verify().await?;
        }
        Ok(())
    }

    /// The node that has a slot.
    async fn target(
        self: &Arc<Self>,
        operation: &'static str,
        slot: u16,
        deadline: Instant,
    ) -> Result<Target> {
        match self.map(operation, deadline).await?.shard(slot) {
            Some(shard) => Ok(Target::primary(Arc::clone(&shard.primary))),
            None => {
                self.refresh_soon();
                Err(nobody_has(operation, slot))
            }
        }
    }

    /// A replica to read from that is not known to be down, if that is wanted.
    fn replica(&self, slot: u16) -> Option<Arc<Node>> {
        if self.common.settings.read_from != RedisReadFrom::PreferReplica {
            return None;
        }
        let map = self.map.load();
        let up: Vec<_> = map.as_ref()?.shard(slot)?.replicas.iter().filter(|node| !node.is_down()).collect();
        (!up.is_empty()).then(|| Arc::clone(up[fastrand::usize(..up.len())]))
    }

    /// Where an error says to go, if it does.
    async fn follow(
        self: &Arc<Self>,
        error: &RedisError,
        target: &Target,
        deadline: Instant,
    ) -> Option<Target> {
        match Redirect::of(error, target.node.address())? {
            Redirect::Moved { slot, to } => Some(Target::primary(self.moved(slot, to))),
            Redirect::Ask { to } => Some(Target { node: self.node(to), asking: true, is_replica: false }),
            Redirect::TryAgain => {
                let pause = Duration::from_millis(fastrand::u64(TRY_AGAIN_MILLIS));
                if Instant::now() + pause >= deadline {
                    return None;
                }
                sleep(pause).await;
                Some(target.clone())
            }
            Redirect::Down => {
                self.refresh_soon();
                None
            }
        }
    }

    /// A slot has another owner: known at once, and the rest of the map soon.
    fn moved(self: &Arc<Self>, slot: u16, to: Address) -> Arc<Node> {
        let node = self.node(to);
        self.map.rcu(|map| {
            let mut map = SlotMap::clone(map.as_ref()?);
            let known = map.shards.iter().position(|shard| Arc::ptr_eq(&shard.primary, &node));
            let shard = known.unwrap_or_else(|| {
                map.shards.push(Shard { primary: Arc::clone(&node), replicas: Vec::new() });
                map.shards.len() - 1
            });
            if let Some(owner) = map.owners.get_mut(usize::from(slot)) {
                *owner = u16::try_from(shard).unwrap_or(NOBODY);
            }
            Some(Arc::new(map))
        });
        self.refresh_soon();
        node
    }

    /// The node at this address.
    fn node(&self, address: Address) -> Arc<Node> {
        let mut nodes = self.lock_nodes();
        let most = self.share(nodes.len() + 1);
        let new = |address: &Address| {
            let reads_only = self.common.settings.read_from == RedisReadFrom::PreferReplica;
            Arc::new(Node::new(&self.common, Place::At(address.clone()), reads_only, most))
        };
        Arc::clone(nodes.entry(address).or_insert_with_key(new))
    }

    /// The connections that each of so many nodes may have.
    fn share(&self, nodes: usize) -> usize {
        (self.common.settings.pool_size / nodes.max(1)).max(1)
    }

    /// The map; who has none has to ask for it.
    async fn map(self: &Arc<Self>, operation: &'static str, deadline: Instant) -> Result<Arc<SlotMap>> {
        if let Some(map) = self.map.load_full() {
            return Ok(map);
        }
        match timeout_at(deadline.into(), self.load()).await {
            Ok(map) => map.map_err(|error| error.with_operation(operation)),
            Err(_) => Err(too_late(operation, &self.common.settings)),
        }
    }

    /// One at a time; the others share what comes of it.
    async fn load(self: &Arc<Self>) -> Result<Arc<SlotMap>> {
        let mut failed = self.failed.lock().await;
        if let Some(map) = self.map.load_full() {
            return Ok(map);
        }
        if let Some((at, error)) = &*failed
            && at.elapsed() < REFRESH_PAUSE
        {
            return Err(error.clone());
        }
        match self.ask().await {
            Ok(ranges) => {
                *failed = None;
                Ok(self.adopt(&ranges))
            }
            Err(error) => {
                *failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Asks for the map in the background, unless somebody does, at most so often.
    fn refresh_soon(self: &Arc<Self>) {
        if self.refreshing.load(Ordering::Relaxed) || self.refreshing.swap(true, Ordering::AcqRel) {
            return;
        }
        let refreshing = Refreshing(Arc::downgrade(self));
        let Ok(runtime) = Handle::try_current() else { return };
        runtime.spawn(async move {
            let refreshing = refreshing;
            let pause = {
                let Some(cluster) = refreshing.0.upgrade() else { return };
                let last = *cluster.refreshed.lock().unwrap_or_else(PoisonError::into_inner);
                last.map_or(Duration::ZERO, |last| REFRESH_PAUSE.saturating_sub(last.elapsed()))
            };
            sleep(pause).await;
            let Some(cluster) = refreshing.0.upgrade() else { return };
            // Who finds nobody to ask keeps the map that there is; the next failure asks again.
            let asked = cluster.ask().await;
            *cluster.refreshed.lock().unwrap_or_else(PoisonError::into_inner) = Some(Instant::now());
            if let Ok(ranges) = asked {
                cluster.adopt(&ranges);
            }
        });
    }

    /// The map as some node knows it.
    async fn ask(self: &Arc<Self>) -> Result<Vec<Range>> {
        let known = self.map.load_full();
        let mut candidates: Vec<Arc<Node>> = known.iter().flat_map(|map| map.nodes().cloned()).collect();
        fastrand::shuffle(&mut candidates);
        // Whoever is connected answers soonest.
        candidates.sort_by_key(|node| (node.is_down(), node.connections() == 0));
        let mut seeds = self.seeds.clone();
        fastrand::shuffle(&mut seeds);
        for seed in seeds {
            if !candidates.iter().any(|node| node.address() == Some(&seed)) {
                candidates.push(self.node(seed));
            }
        }
        let deadline = self.common.settings.operation_timeout.max(Duration::from_millis(500));
        let asking = candidates.into_iter().map(|node| async move {
            let mut command = cmd("CLUSTER");
            command.arg("SLOTS");
            let answer = node.send("connect", Instant::now() + deadline, &command).await?;
            let answer = answer.map_err(|error| no_cluster(convert("connect", error)))?;
            read_slots(&answer, node.address()).ok_or_else(|| {
                unexpected("connect").with_hint("is the cluster set up? See CLUSTER INFO on the server")
            })
        });
        first(asking).await.unwrap_or_else(|| Err(unexpected("connect")))
    }

    /// Uses a map from now on.
    fn adopt(&self, ranges: &[Range]) -> Arc<SlotMap> {
        let mut map = SlotMap { shards: Vec::new(), owners: vec![NOBODY; usize::from(SLOTS)].into() };
        for range in ranges {
            let primary = self.node(range.primary.clone());
            let known = map.shards.iter().position(|shard| Arc::ptr_eq(&shard.primary, &primary));
            let shard = known.unwrap_or_else(|| {
                let replicas = range.replicas.iter().map(|replica| self.node(replica.clone())).collect();
                map.shards.push(Shard { primary, replicas });
                map.shards.len() - 1
            });
            let owner = u16::try_from(shard).unwrap_or(NOBODY);
            map.owners[usize::from(range.first)..=usize::from(range.last)].fill(owner);
        }
        let map = Arc::new(map);
        let most = self.share(map.nodes().count());
        {
            let mut nodes = self.lock_nodes();
            // What is no node any more ends with the last call over it.
            nodes.retain(|_, node| map.nodes().any(|used| Arc::ptr_eq(used, node)));
            for node in nodes.values() {
                node.set_most(most);
            }
        }
        if !map.nodes().any(|node| Arc::ptr_eq(node, &self.found_by)) {
            // A name for one of the nodes, or for all of them.
            self.found_by.close_all();
        }
        self.map.store(Some(Arc::clone(&map)));
        map
    }

    fn lock_nodes(&self) -> MutexGuard<'_, HashMap<Address, Arc<Node>>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Somebody is asking for the map. Ends with the runtime that it is done on.
struct Refreshing(Weak<Cluster>);

impl Drop for Refreshing {
    fn drop(&mut self) {
        if let Some(cluster) = self.0.upgrade() {
            cluster.refreshing.store(false, Ordering::Release);
        }
    }
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

fn lost_in_redirections(operation: &'static str) -> Error {
    unavailable(operation, format!("more than {MAX_REDIRECTIONS} redirections"))
        .with_hint("do the nodes agree on who has which slots? See CLUSTER SLOTS on each")
}

/// A server that is asked for slots and has none.
fn no_cluster(error: Error) -> Error {
    let says_so = std::error::Error::source(&error)
        .is_some_and(|source| source.to_string().contains("cluster support disabled"));
    if !says_so {
        return error;
    }
    Error::config("the server is not a node of a cluster")
        .with_backend(NAME)
        .with_operation("connect")
        .with_hint("write redis:// for a server alone")
        .with_source(error)
}
