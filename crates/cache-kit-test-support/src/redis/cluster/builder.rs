//! What a cluster is started with.

use std::ffi::OsString;

use crate::builder::Builder;
use crate::certificates::Ca;
use crate::redis::Redis;
use crate::redis::cluster::RedisCluster;
use crate::redis::part::Part;
use crate::server::Server;

/// What a [`RedisCluster`] is started with.
#[derive(Debug)]
pub struct RedisClusterBuilder {
    pub(super) ca: Option<Ca>,
    pub(super) password: Option<String>,
    pub(super) replicas: usize,
    partial_coverage: bool,
    arguments: Vec<OsString>,
}

impl Default for RedisClusterBuilder {
    fn default() -> Self {
        Self { ca: None, password: None, replicas: 1, partial_coverage: false, arguments: Vec::new() }
    }
}

impl RedisClusterBuilder {
    /// Makes all nodes speak TLS, to clients and to each other, with certificates of one new authority, whose
    /// certificate is at [`RedisCluster::ca_certificate`]. For the program, see `tls` of the builder of a server.
    #[must_use]
    pub fn tls(self) -> Self {
        self.ca(&Ca::new())
    }

    /// [`tls`](Self::tls) with certificates of this authority.
    #[must_use]
    pub fn ca(mut self, ca: &Ca) -> Self {
        self.ca = Some(ca.clone());
        self
    }

    /// Makes all nodes ask for a password, which [`RedisCluster::url`] then holds. Without characters that a URL
    /// escapes.
    #[must_use]
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// How many replicas each of the three primaries has; one unless changed.
    #[must_use]
    pub fn replicas(mut self, replicas: usize) -> Self {
        self.replicas = replicas;
        self
    }

    /// Lets the nodes serve their slots while others are without a primary.
    #[must_use]
    pub fn partial_coverage(mut self) -> Self {
        self.partial_coverage = true;
        self
    }

    /// Adds an argument for each node, after those that this crate gives.
    #[must_use]
    pub fn argument(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Starts the nodes, makes them one cluster, and waits until it works: all know all, all slots are served, and
    /// each replica follows its primary.
    ///
    /// # Panics
    ///
    /// As [`Builder::start`], and when the nodes do not become a cluster in time.
    #[must_use]
    pub fn start(self) -> RedisCluster {
        RedisCluster::form(&self)
    }

    pub(super) fn start_node(&self) -> Server<Redis> {
        let coverage = if self.partial_coverage { "no" } else { "yes" };
        let mut builder = Server::<Redis>::builder();
        builder.kind.part = Part::Node;
        if let Some(ca) = &self.ca {
            builder = builder.ca(ca);
        }
        if let Some(password) = &self.password {
            builder = builder.password(password).arg("--masterauth").arg(password);
        }
        let arguments = ["--cluster-node-timeout", "1000", "--cluster-require-full-coverage", coverage];
        let arguments = arguments.into_iter().chain(["--repl-diskless-sync-delay", "0"]).map(OsString::from);
        arguments.chain(self.arguments.iter().cloned()).fold(builder, Builder::arg).start()
    }
}
