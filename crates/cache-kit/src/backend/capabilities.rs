//! What a backend is and can do, as data.

use std::fmt;
use std::time::Duration;

/// What a backend is and can do. Compare with the table in the [module documentation](super).
///
/// ```
/// use cache_kit::backend::{CacheBackend, InMemoryBackend, Tier};
///
/// let able = InMemoryBackend::new().capabilities();
/// assert_eq!(able.tier, Tier::DevTest);
/// assert!(able.pattern_delete && !able.pub_sub);
/// ```
///
/// A backend of your own starts from [`minimal`](Self::minimal) and sets what it can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// The backend's name, in lower case; it appears in errors and as a metric label.
    pub name: &'static str,
    /// What it is meant for.
    pub tier: Tier,
    /// Whether entries survive a restart of the server.
    pub persistence: Persistence,
    /// Who sees the entries. With [`SingleProcess`](Distribution::SingleProcess), what this process knows of a key's versions
    /// and leases is never asked again: say so only of a store that nobody else reaches.
    pub distribution: Distribution,
    /// What can be stored beside plain values.
    pub data_model: DataModel,
    /// What happens when memory runs out.
    pub eviction: Eviction,
    /// Whether [`delete_pattern`](super::CacheBackend::delete_pattern) works.
    pub pattern_delete: bool,
    /// Whether subscribers can learn of invalidations made by other processes.
    pub pub_sub: bool,
    /// Whether several commands can be made one.
    pub transactions: bool,
    /// How fills are protected from invalidations that overtake them.
    pub fence: Fence,
    /// Whether [`acquire`](super::CacheBackend::acquire) is as good a read as [`get`](super::CacheBackend::get): one
    /// round trip, and nothing changed where the key holds a value. A reader that will load what is not there then asks
    /// by `acquire`, and a miss costs no round trip for its lease.
    pub lease_on_read: bool,
    /// Whether [`get`](super::CacheBackend::get) and [`mget`](super::CacheBackend::mget) may be answered by a copy that is
    /// behind, such as a replica. [`acquire`](super::CacheBackend::acquire) never is.
    pub reads_may_lag: bool,
    /// How much longer than asked an entry may live; it never lives shorter.
    pub ttl_resolution: Duration,
    /// How many entries it holds at most, as far as that is known: of a bound in bytes, as many as are a kilobyte each.
    pub max_entries: Option<usize>,
    /// The longest key in bytes that is stored as it is, if there is a limit.
    pub max_key_bytes: Option<usize>,
    /// The largest value in bytes, if there is a limit.
    pub max_value_bytes: Option<usize>,
}

impl Capabilities {
    /// A single-process key-value store that claims nothing beyond `get`, `set` and `delete`, and keeps
    /// lifetimes to the second.
    #[must_use]
    pub const fn minimal(name: &'static str) -> Self {
        Self {
            name,
            tier: Tier::DevTest,
            persistence: Persistence::No,
            distribution: Distribution::SingleProcess,
            data_model: DataModel::KeyValue,
            eviction: Eviction::Manual,
            pattern_delete: false,
            pub_sub: false,
            transactions: false,
            fence: Fence::None,
            lease_on_read: false,
            reads_may_lag: false,
            ttl_resolution: Duration::from_secs(1),
            max_entries: None,
            max_key_bytes: None,
            max_value_bytes: None,
        }
    }
}

/// What a backend is meant for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Tier {
    /// Tier-0: production.
    Production,
    /// Tier-1: development and tests.
    DevTest,
}

/// Whether entries survive a restart of the server.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Persistence {
    /// They do not.
    No,
    /// They do if the server is set up for it.
    Optional,
}

/// Who sees the entries.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Distribution {
    /// Only this process.
    SingleProcess,
    /// Every process; keys are spread over a list of servers.
    MultiServer,
    /// Every process; one server or a cluster that spreads keys itself.
    Clustering,
}

/// What can be stored beside plain values.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum DataModel {
    /// Plain values only.
    KeyValue,
    /// Lists, sets, streams and more.
    Rich,
}

/// What happens when memory runs out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Eviction {
    /// Nothing: entries stay until they expire or are deleted.
    Manual,
    /// Entries are evicted to stay within a bound.
    Bounded,
    /// The server evicts what was not used for longest.
    Lru,
    /// The server evicts by a policy of its configuration.
    ServerPolicy,
}

/// How fills are protected from invalidations that overtake them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Fence {
    /// Not by the backend. The engine then protects fills from invalidations made through itself, not from
    /// those of other processes: it does not write what was invalidated meanwhile, and takes back a write that
    /// was overtaken on its way, as far as the backend answers.
    None,
    /// By leases that any change of the key voids.
    Leases,
    /// By tombstones that an invalidation leaves: fills of loads that take longer than `hold_off` may be late.
    Tombstones {
        /// How long a tombstone keeps late fills away.
        hold_off: Duration,
    },
}

impl fmt::Display for Tier {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Production => "Tier-0 (Production)",
            Self::DevTest => "Tier-1 (Dev/Test)",
        })
    }
}

impl fmt::Display for Persistence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::No => "No",
            Self::Optional => "Optional",
        })
    }
}

impl fmt::Display for Distribution {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SingleProcess => "Single process",
            Self::MultiServer => "Multi-server",
            Self::Clustering => "Clustering",
        })
    }
}

impl fmt::Display for DataModel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::KeyValue => "Key-value only",
            Self::Rich => "Rich",
        })
    }
}
