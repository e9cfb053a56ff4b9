//! How servers become one cluster, without a tool that does it.

use crate::redis::cluster::{RedisCluster, RedisClusterBuilder, slot};

/// The least that can outvote one that failed.
const PRIMARIES: usize = 3;

impl RedisCluster {
    pub(super) fn form(options: &RedisClusterBuilder) -> Self {
        let nodes: Vec<_> = (0..PRIMARIES * (1 + options.replicas)).map(|_| options.start_node()).collect();
        let ids = nodes.iter().map(|node| node.command("CLUSTER MYID")).collect();
        let cluster = Self { nodes, ids, password: options.password.clone(), tls: options.ca.is_some() };
        cluster.share_out();
        cluster.meet();
        cluster.replicate();
        cluster.wait_until_ok();
        cluster
    }

    fn share_out(&self) {
        for node in 0..self.nodes.len() {
            // Or they find out by themselves, one conflict after the other.
            self.order(node, &format!("CLUSTER SET-CONFIG-EPOCH {}", node + 1));
        }
        for node in 0..PRIMARIES {
            let slots: Vec<String> = slot::share(node, PRIMARIES).map(|slot| slot.to_string()).collect();
            self.order(node, &format!("CLUSTER ADDSLOTS {}", slots.join(" ")));
        }
    }

    /// Each meets each: by hearsay it would take longer.
    fn meet(&self) {
        for (node, server) in self.nodes.iter().enumerate() {
            for other in 0..node {
                self.order(other, &format!("CLUSTER MEET 127.0.0.1 {}", server.port()));
            }
        }
        self.wait_for("all nodes know all", || self.all_know_all());
    }

    fn replicate(&self) {
        for node in PRIMARIES..self.nodes.len() {
            self.order(node, &format!("CLUSTER REPLICATE {}", self.ids[node % PRIMARIES]));
        }
    }
}
