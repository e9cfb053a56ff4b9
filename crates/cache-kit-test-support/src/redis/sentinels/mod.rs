//! Redis Sentinel: a primary, its replica, and those that watch them.

mod builder;
mod state;

use std::path::PathBuf;

use crate::redis::Redis;
use crate::server::Server;
pub use builder::RedisSentinelsBuilder;

/// What the sentinels call the primary.
const NAME: &str = "cache";

/// A primary, its replica, and three sentinels that watch them, owned by the test.
///
/// Servers are named by their index in [`servers`](Self::servers); the first is the primary at the start. Each server
/// and each sentinel keeps its part in its directory, so that it comes back with it after a restart.
///
/// Whatever waits here waits for [`LIMIT`](Self::LIMIT) at most, and panics with what the sentinels say if that was not
/// enough; the logs follow when all are dropped.
#[derive(Debug)]
pub struct RedisSentinels {
    servers: Vec<Server<Redis>>,
    sentinels: Vec<Server<Redis>>,
    password: Option<String>,
    tls: bool,
}

impl RedisSentinels {
    /// Options for the start.
    #[must_use]
    pub fn builder() -> RedisSentinelsBuilder {
        RedisSentinelsBuilder::default()
    }

    /// Starts all with no options.
    ///
    /// # Panics
    ///
    /// As [`RedisSentinelsBuilder::start`].
    #[must_use]
    pub fn start() -> Self {
        Self::builder().start()
    }

    /// What the sentinels call the primary.
    #[must_use]
    pub fn name(&self) -> &str {
        NAME
    }

    /// The primary and the replica, dead ones too.
    #[must_use]
    pub fn servers(&self) -> &[Server<Redis>] {
        &self.servers
    }

    /// The sentinels, dead ones too.
    #[must_use]
    pub fn sentinels(&self) -> &[Server<Redis>] {
        &self.sentinels
    }

    /// The address of each sentinel.
    #[must_use]
    pub fn sentinel_addrs(&self) -> Vec<String> {
        self.sentinels.iter().map(Server::addr).collect()
    }

    /// A URL with the addresses of all sentinels, the name, and the password of the servers if there is one.
    #[must_use]
    pub fn url(&self) -> String {
        let scheme = if self.tls { "rediss+sentinel" } else { "redis+sentinel" };
        let userinfo = self.password.as_ref().map(|password| format!(":{password}@")).unwrap_or_default();
        format!("{scheme}://{userinfo}{}/{NAME}", self.sentinel_addrs().join(","))
    }

    /// The certificate of the authority that signed those of the servers and the sentinels, a PEM file.
    ///
    /// # Panics
    ///
    /// Without TLS.
    #[must_use]
    pub fn ca_certificate(&self) -> PathBuf {
        self.servers[0].ca_certificate()
    }
}
