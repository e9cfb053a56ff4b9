//! What a backend was built with: checked, and read.

use std::time::Duration;

use cache_kit_net::Address;

use super::credentials::{Credentials, RedisCredentials};

/// Where plain reads go: `get` and `mget` of a backend, and so what a cache finds before it asks for a lease.
///
/// Everything that changes something goes to the primary, whatever this says: invalidations, leases, fills. So does the
/// read that goes with taking a lease.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum RedisReadFrom {
    /// To the primary.
    #[default]
    Primary,
    /// To a replica that can be reached, else to the primary.
    ///
    /// A replica lags behind: what this reads may be older than the last invalidation by as much, milliseconds mostly,
    /// and as long as the replica is cut off from its primary and still answers (a server does unless it is set up with
    /// `replica-serve-stale-data no`). This holds for invalidations made in this process as well. What must never be
    /// stale is read from the primary.
    PreferReplica,
}

/// The servers of a backend.
#[derive(Clone, Debug)]
pub(super) enum Servers {
    /// A server, or a node of a cluster; its greeting tells.
    One(Address),
    /// Nodes of a cluster.
    Cluster(Vec<Address>),
    Sentinels(SentinelSettings),
}

#[derive(Clone, Debug)]
pub(super) struct SentinelSettings {
    pub(super) sentinels: Vec<Address>,
    /// The name that they know the primary by.
    pub(super) name: String,
    pub(super) credentials: Option<RedisCredentials>,
}

/// All of it.
#[derive(Debug)]
pub(super) struct Settings {
    pub(super) servers: Servers,
    pub(super) replicas: Vec<Address>,
    pub(super) read_from: RedisReadFrom,
    pub(super) credentials: Credentials,
    #[cfg(feature = "tls")]
    pub(super) tls: Option<cache_kit_net::Tls>,
    pub(super) database: u32,
    pub(super) pool_size: usize,
    pub(super) connection_timeout: Duration,
    pub(super) operation_timeout: Duration,
    pub(super) prefix: String,
}
