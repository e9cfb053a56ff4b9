//! The nodes of a cluster and the map of slots, kept up to date: by what the nodes answer at once, and by asking one of
//! them for all of it soon after.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

use arc_swap::ArcSwapOption;
use cache_kit_net::Address;
use redis::cmd;
use tokio::runtime::Handle;
use tokio::time::{sleep, timeout_at};

use super::super::NAME;
use super::super::error::convert;
use super::super::node::{Common, Node, Place};
use super::super::settings::RedisReadFrom;
use super::first::first;
use super::slots::{Range, SLOTS, read_slots};
use super::turn::Turn;
use super::{too_late, unexpected};
use crate::error::{Error, Result};

/// The map is asked for at most this often.
const REFRESH_PAUSE: Duration = Duration::from_millis(100);
/// And at least this often while somebody needs to know what no answer tells: a replica that has come, a slot that has
/// another owner.
const OLD: Duration = Duration::from_secs(5);

/// The nodes of a cluster, and who has which slots.
pub(super) struct Members {
    common: Arc<Common>,
    seeds: Vec<Address>,
    /// The node that was connected to before anybody knew that it is one of many.
    found_by: Arc<Node>,
    map: ArcSwapOption<SlotMap>,
    nodes: Mutex<HashMap<Address, Arc<Node>>>,
    /// Held by who asks for the map. When that has failed last, and why.
    failed: tokio::sync::Mutex<Option<(Instant, Error)>>,
    refreshing: Turn,
    /// When the map was last asked for, in milliseconds after `origin`.
    refreshed: AtomicU64,
    origin: Instant,
    version: AtomicU64,
}

/// A primary and its replicas.
#[derive(Clone)]
pub(super) struct Shard {
    pub(super) primary: Arc<Node>,
    replicas: Vec<Arc<Node>>,
}

#[derive(Clone)]
pub(super) struct SlotMap {
    shards: Vec<Shard>,
    /// For each slot the number of its shard.
    owners: Box<[u16]>,
}

const NOBODY: u16 = u16::MAX;

impl SlotMap {
    /// Who has a slot.
    pub(super) fn shard(&self, slot: u16) -> Option<&Shard> {
        self.shards.get(usize::from(self.owners[usize::from(slot)]))
    }

    fn has_same_owners(&self, other: &Self) -> bool {
        let owner = |map: &Self, slot| map.shard(slot).map(|shard| Arc::as_ptr(&shard.primary));
        (0..SLOTS).all(|slot| owner(self, slot) == owner(other, slot))
    }

    /// Every node, primaries first.
    fn nodes(&self) -> impl Iterator<Item = &Arc<Node>> {
        let primaries = self.shards.iter().map(|shard| &shard.primary);
        primaries.chain(self.shards.iter().flat_map(|shard| &shard.replicas))
    }
}

impl Members {
    pub(super) fn new(common: Arc<Common>, seeds: Vec<Address>, found_by: Arc<Node>) -> Self {
        let nodes = found_by.address().map(|address| (address.clone(), Arc::clone(&found_by)));
        Self {
            common,
            seeds,
            map: ArcSwapOption::empty(),
            nodes: Mutex::new(nodes.into_iter().collect()),
            found_by,
            failed: tokio::sync::Mutex::new(None),
            refreshing: Turn::default(),
            refreshed: AtomicU64::new(0),
            origin: Instant::now(),
            version: AtomicU64::new(0),
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

    /// Another number whenever slots have got another owner.
    pub(super) fn slots_version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// The map, if there is one.
    pub(super) fn known(&self) -> Option<Arc<SlotMap>> {
        self.map.load_full()
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
        let ranges = self.ask(Asked::Verified).await?;
        let map = self.adopt(&ranges);
        for shard in &map.shards {
            shard.primary.verify().await?;
        }
        Ok(())
    }

    /// A replica to read from that is not known to be down, if that is wanted.
    pub(super) fn replica(self: &Arc<Self>, slot: u16) -> Option<Arc<Node>> {
        if self.common.settings.read_from != RedisReadFrom::PreferReplica {
            return None;
        }
        self.refresh_if_old();
        let map = self.map.load();
        let up: Vec<_> = map.as_ref()?.shard(slot)?.replicas.iter().filter(|node| !node.is_down()).collect();
        (!up.is_empty()).then(|| Arc::clone(up[fastrand::usize(..up.len())]))
    }

    /// A slot has another owner: known at once, and the rest of the map soon.
    pub(super) fn moved(self: &Arc<Self>, slot: u16, to: Address) -> Arc<Node> {
        let node = self.node(to);
        // Many callers are told of the same move.
        let has_it = |map: &SlotMap| map.shard(slot).is_some_and(|shard| Arc::ptr_eq(&shard.primary, &node));
        if slot >= SLOTS || self.known().is_some_and(|map| has_it(&map)) {
            self.refresh_soon();
            return node;
        }
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
        self.version.fetch_add(1, Ordering::AcqRel);
        self.refresh_soon();
        node
    }

    /// The node at this address.
    pub(super) fn node(&self, address: Address) -> Arc<Node> {
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
    pub(super) async fn map(
        self: &Arc<Self>,
        operation: &'static str,
        deadline: Instant,
    ) -> Result<Arc<SlotMap>> {
        if let Some(map) = self.map.load_full() {
            return Ok(map);
        }
        match timeout_at(deadline.into(), self.load()).await {
            Ok(map) => map.map_err(|error| error.with_operation(operation)),
            Err(_) => Err(too_late(operation, &self.common.settings)),
        }
    }

    /// Asks for the map, whether or not there is one.
    pub(super) async fn reload(self: &Arc<Self>, operation: &'static str, deadline: Instant) -> Result<()> {
        let Ok(asked) = timeout_at(deadline.into(), self.ask(Asked::IfUp)).await else {
            return Err(too_late(operation, &self.common.settings));
        };
        let ranges = asked.map_err(|error| error.with_operation(operation))?;
        self.asked_now();
        self.adopt(&ranges);
        Ok(())
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
        match self.ask(Asked::IfUp).await {
            Ok(ranges) => {
                *failed = None;
                self.asked_now();
                Ok(self.adopt(&ranges))
            }
            Err(error) => {
                *failed = Some((Instant::now(), error.clone()));
                Err(error)
            }
        }
    }

    /// Asks for the map in the background, unless somebody does, at most so often.
    pub(super) fn refresh_soon(self: &Arc<Self>) {
        if !self.refreshing.begin() {
            return;
        }
        let refreshing = Refreshing(Arc::downgrade(self));
        let Ok(runtime) = Handle::try_current() else { return };
        runtime.spawn(async move {
            let refreshing = refreshing;
            let pause = {
                let Some(members) = refreshing.0.upgrade() else { return };
                REFRESH_PAUSE.saturating_sub(members.age())
            };
            sleep(pause).await;
            let Some(members) = refreshing.0.upgrade() else { return };
            // Who finds nobody to ask keeps the map that there is; the next failure asks again.
            let asked = members.ask(Asked::IfUp).await;
            members.asked_now();
            if let Ok(ranges) = asked {
                members.adopt(&ranges);
            }
        });
    }

    /// Asks for the map in the background if that was not done for a while.
    pub(super) fn refresh_if_old(self: &Arc<Self>) {
        if self.age() > OLD {
            self.refresh_soon();
        }
    }

    /// The map as some node knows it.
    async fn ask(self: &Arc<Self>, asked: Asked) -> Result<Vec<Range>> {
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
            if asked == Asked::Verified {
                node.verify().await?;
            }
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
        if self.map.swap(Some(Arc::clone(&map))).is_some_and(|before| !before.has_same_owners(&map)) {
            self.version.fetch_add(1, Ordering::AcqRel);
        }
        map
    }

    /// How long ago the map was last asked for.
    fn age(&self) -> Duration {
        self.origin.elapsed().saturating_sub(Duration::from_millis(self.refreshed.load(Ordering::Relaxed)))
    }

    fn asked_now(&self) {
        let now = u64::try_from(self.origin.elapsed().as_millis()).unwrap_or(u64::MAX);
        self.refreshed.store(now, Ordering::Relaxed);
    }

    fn lock_nodes(&self) -> MutexGuard<'_, HashMap<Address, Arc<Node>>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Which nodes are asked for the map.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Asked {
    /// Those that are not known to be down.
    IfUp,
    /// All of them, each after it was connected to, whatever is known of it.
    Verified,
}

/// Somebody is asking for the map. Ends with the runtime that it is done on.
struct Refreshing(Weak<Members>);

impl Drop for Refreshing {
    fn drop(&mut self) {
        if let Some(members) = self.0.upgrade() {
            members.refreshing.end();
        }
    }
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
