//! Which server a key belongs to: the two ketama distributions of libmemcached.
//!
//! A server has points on a circle of 32-bit numbers, and a key belongs to the first point at or after its own hash.
//! With the same servers this gives the same answers as libmemcached 1.1.4 and what is built on it, so that programs
//! of several languages find each other's keys:
//!
//! | [`Distribution`] | libmemcached | pylibmc |
//! |---|---|---|
//! | [`KetamaWeighted`](Distribution::KetamaWeighted) | `KETAMA_WEIGHTED` | `{"ketama_weighted": True}` |
//! | [`Ketama`](Distribution::Ketama) | `KETAMA` | `{"ketama": True}`, no weights |
//!
//! The order of the list has no say. Where points of two servers coincide, libmemcached prefers the server that comes
//! first in its list; here it is the one whose host, then port, comes first, as with a list that libmemcached was told
//! to sort (`SORT_HOSTS`). Among three servers that concerns one key in many millions.
//!
//! ```
//! use cache_kit_memcached::ring::{Distribution, Ring, RingServer};
//!
//! let servers = ["cache-a", "cache-b", "cache-c"].map(|host| RingServer::new(host, 11_211));
//! let ring = Ring::new(servers, Distribution::default())?;
//! assert_eq!(ring.server_of(b"user:1"), 0);
//! # Ok::<(), cache_kit_memcached::ring::RingError>(())
//! ```

mod error;
mod points;
mod server;

pub use error::RingError;
pub use server::RingServer;

/// How keys are spread over the servers.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Distribution {
    /// MD5 for points and keys, 160 points for a server of average weight, in steps of 4. The default.
    ///
    /// * A server gets keys in proportion to its weight, in steps of a fortieth of the average. Below a fortieth it
    ///   gets none.
    /// * The number of a server's points depends on all the weights. Where they are all 1, removing or adding a server
    ///   moves the keys of this server only. This holds except to and from 25, 47, 50, 55, 61, 71, 94, 100 and some
    ///   larger numbers of servers: there libmemcached rounds the 160 points down to 156, and 2.5 % of the other
    ///   keys move too.
    /// * Where weights differ, keys of other servers move as well: a part that is no larger, up to such roundings, than
    ///   the part by which the average weight changes. Of 600, 300 and 200 without the 200, the average rises by 18 %,
    ///   and some 8 % move.
    #[default]
    KetamaWeighted,
    /// Jenkins' one-at-a-time hash for points and keys, 100 points for each server. No weights.
    ///
    /// Removing or adding a server moves the keys of this server only.
    Ketama,
}

/// The servers with their points: says for each key which one it belongs to.
#[derive(Clone)]
pub struct Ring {
    distribution: Distribution,
    /// Sorted, with the position of the server in the caller's list. Empty when there is one server only.
    points: Vec<(u32, u32)>,
}

impl Ring {
    /// Places the servers on the ring.
    ///
    /// # Errors
    ///
    /// A [`RingError`] when there are no servers, a server twice, or a weight that has no meaning.
    pub fn new(
        servers: impl IntoIterator<Item = RingServer>,
        distribution: Distribution,
    ) -> Result<Self, RingError> {
        let servers: Vec<RingServer> = servers.into_iter().collect();
        let sorted = sorted(&servers, distribution)?;
        // libmemcached does not hash either when there is no choice.
        let points = if let [_] = sorted[..] { Vec::new() } else { points::of(&sorted, distribution) };
        Ok(Self { distribution, points })
    }

    /// The server of this key, as a position in the list that the ring was made of, from 0.
    ///
    /// The key is hashed as it is given. libmemcached leaves its own prefix (`MEMCACHED_CALLBACK_NAMESPACE`) out
    /// unless `HASH_WITH_PREFIX_KEY` is set.
    #[must_use]
    pub fn server_of(&self, key: &[u8]) -> usize {
        let Some(first) = self.points.first() else { return 0 };
        let hash = points::hash(key, self.distribution);
        let at = self.points.partition_point(|(point, _)| *point < hash);
        let (_, server) = self.points.get(at).unwrap_or(first);
        *server as usize
    }
}

impl std::fmt::Debug for Ring {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut ring = f.debug_struct("Ring");
        ring.field("distribution", &self.distribution).field("points", &self.points.len()).finish()
    }
}

/// The servers with their positions in the list, in an order that does not depend on the list.
fn sorted(servers: &[RingServer], distribution: Distribution) -> Result<Vec<(u32, &RingServer)>, RingError> {
    let mut sorted: Vec<(u32, &RingServer)> = (0..).zip(servers).collect();
    if sorted.is_empty() {
        return Err(RingError::NoServers);
    }
    for (position, server) in servers.iter().enumerate() {
        match (server.weight, distribution) {
            (0, _) => return Err(RingError::ZeroWeight { position }),
            (2.., Distribution::Ketama) => return Err(RingError::WeightWithoutEffect { position }),
            _ => {}
        }
    }
    // Stable, so that of two that are equal the first is named first.
    sorted.sort_by(|(_, a), (_, b)| a.name().cmp(&b.name()));
    match sorted.windows(2).find(|pair| pair[0].1.name() == pair[1].1.name()) {
        Some(pair) => {
            Err(RingError::DuplicateServer { first: pair[0].0 as usize, second: pair[1].0 as usize })
        }
        None => Ok(sorted),
    }
}
