//! What the nodes say of their cluster, and waiting until they say something else.

use std::time::Duration;

use crate::process::wait_until;
use crate::redis::cluster::RedisCluster;
use crate::redis::cluster::view::{Member, View};

/// For one reply; a node that is silent for so long is not asked again in the same round.
const REPLY: Duration = Duration::from_secs(1);

impl RedisCluster {
    /// How long anything is waited for.
    pub const LIMIT: Duration = Duration::from_secs(20);

    /// The node that serves this slot, or did so last; asked of the nodes that answer.
    ///
    /// # Panics
    ///
    /// When no node answers, or none knows.
    #[must_use]
    pub fn primary_of(&self, slot: u16) -> usize {
        let views: Vec<View> = self.views().into_iter().map(|(_, view)| view).collect();
        let owners = views.iter().filter_map(|view| view.owner(slot));
        // Who took the slot over later has the higher epoch; not every node has heard of it.
        match owners.max_by_key(|member| member.epoch).and_then(|member| self.index(&member.id)) {
            Some(node) => node,
            None => self.give_up(&format!("a primary of slot {slot}")),
        }
    }

    /// A replica of the node that serves this slot; one that lives, if any does.
    ///
    /// # Panics
    ///
    /// As [`primary_of`](Self::primary_of).
    #[must_use]
    pub fn replica_of(&self, slot: u16) -> Option<usize> {
        let primary = &self.ids[self.primary_of(slot)];
        let views = self.views();
        let members = views.iter().flat_map(|(_, view)| view.members());
        let replicas = members.filter(|member| member.primary.as_ref() == Some(primary));
        let replicas: Vec<usize> = replicas.filter_map(|member| self.index(&member.id)).collect();
        replicas.iter().find(|node| self.nodes[**node].is_alive()).or(replicas.first()).copied()
    }

    /// Waits until those that answer, of which there is one at least, agree about themselves, are well, say
    /// `cluster_state:ok`, and, as replicas, follow their primaries.
    ///
    /// # Panics
    ///
    /// When that does not come about in time.
    pub fn wait_until_ok(&self) {
        self.wait_for("the cluster is ok", || {
            let views = self.views();
            !views.is_empty() && all_agree(&views) && views.iter().all(|(node, view)| self.is_ok(*node, view))
        });
    }

    /// Waits until another than `old` serves this slot, and each node that answers says so and `cluster_state:ok`;
    /// returns which one.
    ///
    /// # Panics
    ///
    /// When that does not come about in time.
    #[expect(clippy::must_use_candidate, reason = "a test may only want to wait")]
    pub fn wait_for_new_primary(&self, slot: u16, old: usize) -> usize {
        let mut new = old;
        self.wait_for(&format!("another primary of slot {slot} than node {old}"), || {
            let views = self.views();
            let owners: Option<Vec<usize>> = views.iter().map(|(_, view)| self.owner(view, slot)).collect();
            let Some([first, others @ ..]) = owners.as_deref() else { return false };
            new = *first;
            let agreed = new != old && others.iter().all(|other| *other == new);
            agreed && views.iter().all(|(node, _)| self.says(*node, "CLUSTER INFO", "cluster_state:ok"))
        });
        new
    }

    /// Makes a replica take over from its primary, which has to live, and waits until each node that answers says that
    /// it did.
    ///
    /// # Panics
    ///
    /// When it refuses, or does not become a primary in time.
    pub fn fail_over_to(&self, replica: usize) {
        self.order(replica, "CLUSTER FAILOVER");
        self.wait_for(&format!("node {replica} is a primary"), || {
            let views = self.views();
            let is_primary =
                |view: &View| view.member(&self.ids[replica]).is_some_and(|member| member.is("master"));
            !views.is_empty() && all_agree(&views) && views.iter().all(|(_, view)| is_primary(view))
        });
    }

    /// True when each node has a link to each.
    pub(super) fn all_know_all(&self) -> bool {
        let views = self.views();
        let knows_all = |view: &View| self.ids.iter().all(|id| view.member(id).is_some_and(Member::is_well));
        let nobody_else = |view: &View| view.members().len() == self.nodes.len();
        views.len() == self.nodes.len() && views.iter().all(|(_, view)| knows_all(view) && nobody_else(view))
    }

    /// True when each node that answers says that this one serves the slot.
    pub(super) fn all_name(&self, slot: u16, node: usize) -> bool {
        let views = self.views();
        !views.is_empty() && views.iter().all(|(_, view)| self.owner(view, slot) == Some(node))
    }

    /// True when each node that answers knows the epoch of each that does, and no two primaries have the same.
    pub(super) fn epochs_are_known(&self) -> bool {
        let views = self.views();
        let known = |at: usize, view: &View| {
            let own = view.member(&self.ids[at]).map(|myself| myself.epoch);
            views.iter().all(|(_, other)| other.member(&self.ids[at]).map(|member| member.epoch) == own)
        };
        let mut epochs: Vec<u64> = views
            .iter()
            .filter_map(|(_, view)| {
                view.myself().filter(|myself| myself.is("master")).map(|myself| myself.epoch)
            })
            .collect();
        let count = epochs.len();
        epochs.sort_unstable();
        epochs.dedup();
        epochs.len() == count && views.iter().all(|(at, view)| known(*at, view))
    }

    /// True when this node says that the other one serves the slot.
    pub(super) fn names(&self, node: usize, slot: u16, owner: usize) -> bool {
        self.views().iter().any(|(at, view)| *at == node && self.owner(view, slot) == Some(owner))
    }

    /// The nodes that answer and are primaries.
    pub(super) fn primaries(&self) -> Vec<usize> {
        let is_primary = |view: &View| view.myself().is_some_and(|myself| myself.is("master"));
        self.views().iter().filter(|(_, view)| is_primary(view)).map(|(node, _)| *node).collect()
    }

    /// Sends a command that the node has to accept.
    pub(super) fn order(&self, node: usize, line: &str) {
        let reply = self.nodes[node].command(line);
        assert_eq!(reply, "OK", "node {node}: {line:.60}\n{}", self.described());
    }

    pub(super) fn wait_for(&self, what: &str, condition: impl FnMut() -> bool) {
        if !wait_until(Self::LIMIT, condition) {
            self.give_up(what);
        }
    }

    fn give_up(&self, what: &str) -> ! {
        panic!("not in {:?}: {what}\n{}", Self::LIMIT, self.described())
    }

    /// What the nodes that answer know.
    fn views(&self) -> Vec<(usize, View)> {
        let view = |node: usize| View::parse(&self.said(node, "CLUSTER NODES")?);
        (0..self.nodes.len()).filter_map(|node| Some((node, view(node)?))).collect()
    }

    fn said(&self, node: usize, line: &str) -> Option<String> {
        let node = &self.nodes[node];
        if node.is_alive() { node.try_command(line, REPLY).ok() } else { None }
    }

    fn says(&self, node: usize, line: &str, expected: &str) -> bool {
        self.said(node, line).is_some_and(|reply| reply.lines().any(|line| line == expected))
    }

    fn is_ok(&self, node: usize, view: &View) -> bool {
        let follows = || self.says(node, "INFO replication", "master_link_status:up");
        self.says(node, "CLUSTER INFO", "cluster_state:ok")
            && view.myself().is_some_and(|myself| myself.is("master") || follows())
    }

    fn owner(&self, view: &View, slot: u16) -> Option<usize> {
        view.owner(slot).and_then(|member| self.index(&member.id))
    }

    fn index(&self, id: &str) -> Option<usize> {
        self.ids.iter().position(|other| other == id)
    }

    fn described(&self) -> String {
        let describe = |node: usize| {
            let said = self.said(node, "CLUSTER NODES").unwrap_or_else(|| "no answer".to_owned());
            format!("-- node {node}, {}, {} --\n{said}", self.ids[node], self.nodes[node].addr())
        };
        (0..self.nodes.len()).map(describe).collect::<Vec<_>>().join("\n")
    }
}

/// True when what each says of itself is what all others say of it.
fn all_agree(views: &[(usize, View)]) -> bool {
    let selves = views.iter().map(|(_, view)| view.myself());
    selves.into_iter().all(|myself| {
        let Some(myself) = myself else { return false };
        views.iter().all(|(_, view)| {
            view.member(&myself.id).is_some_and(|member| member.is_well() && member.agrees_with(myself))
        })
    })
}
