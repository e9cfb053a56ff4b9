//! A Redis Cluster: several servers that share the slots out among them.

mod builder;
mod form;
mod moves;
mod slot;
mod state;
mod view;

use std::path::PathBuf;

use crate::redis::Redis;
use crate::server::Server;
pub use builder::RedisClusterBuilder;

/// A Redis Cluster of three primaries and their replicas, owned by the test.
///
/// Nodes are named by their index in [`nodes`](Self::nodes): first three that are primaries at the start and have a
/// third of the slots each, in their order; then the replicas, one for each primary in the same order. Each keeps its
/// part in the cluster in its directory, so that it comes back as a member after a restart.
///
/// Whatever waits here waits for [`LIMIT`](Self::LIMIT) at most, and panics with what each node knows if that was not
/// enough; the logs follow when the nodes are dropped.
#[derive(Debug)]
pub struct RedisCluster {
    nodes: Vec<Server<Redis>>,
    /// Of the nodes, in their order.
    ids: Vec<String>,
    password: Option<String>,
    tls: bool,
}

impl RedisCluster {
    /// Options for the start.
    #[must_use]
    pub fn builder() -> RedisClusterBuilder {
        RedisClusterBuilder::default()
    }

    /// Starts three primaries with one replica each, with no options.
    ///
    /// # Panics
    ///
    /// As [`RedisClusterBuilder::start`].
    #[must_use]
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// The nodes, dead ones too.
    #[must_use]
    pub fn nodes(&self) -> &[Server<Redis>] {
        &self.nodes
    }

    /// The address of each node.
    #[must_use]
    pub fn addrs(&self) -> Vec<String> {
        self.nodes.iter().map(Server::addr).collect()
    }

    /// A URL with the addresses of all nodes, and the password if there is one.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.tls { "rediss+cluster" } else { "redis+cluster" };
        let userinfo = self.password.as_ref().map(|password| format!(":{password}@")).unwrap_or_default();
        format!("{scheme}://{userinfo}{}", self.addrs().join(","))
    }

    /// The certificate of the authority that signed those of the nodes, a PEM file.
    ///
    /// # Panics
    ///
    /// Without TLS.
    #[must_use]
    pub fn ca_certificate(&self) -> PathBuf {
        self.nodes[0].ca_certificate()
    }

    /// The slot of a key, as each client has to know it.
    #[must_use]
    pub fn slot(&self, key: &str) -> u16 {
        slot::slot(key.as_bytes())
    }

    /// Kills a node; see [`Server::kill`].
    pub fn kill(&self, node: usize) {
        self.nodes[node].kill();
    }

    /// Kills a node if it lives and starts it again, without its data, with its part in the cluster.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub fn restart(&self, node: usize) {
        self.nodes[node].restart();
    }
}
