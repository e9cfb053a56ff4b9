//! Why there is no ring of these servers.

/// Why there is no ring of these servers. Positions are those in the list, from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RingError {
    /// The list is empty.
    NoServers,
    /// Two servers have the same host and port: it would get the keys of two.
    DuplicateServer {
        /// The position where it is first.
        first: usize,
        /// The position where it is again.
        second: usize,
    },
    /// A weight of 0; libmemcached takes it for 1, other clients for "no keys".
    ZeroWeight {
        /// The position of the server.
        position: usize,
    },
    /// A weight other than 1 with [`Distribution::Ketama`](super::Distribution::Ketama), which has none.
    ///
    /// What libmemcached does with such a list depends on whether it learns of the servers or of the distribution
    /// first: it ignores the weights, or places the servers as [`KetamaWeighted`](super::Distribution::KetamaWeighted)
    /// does and the keys as [`Ketama`](super::Distribution::Ketama).
    WeightWithoutEffect {
        /// The position of the server.
        position: usize,
    },
}

impl std::fmt::Display for RingError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::NoServers => f.write_str("no memcached servers: name at least one"),
            Self::DuplicateServer { first, second } => {
                let (first, second) = (first + 1, second + 1);
                write!(
                    f,
                    "memcached servers {first} and {second} of the list are the same: name it once, with a weight"
                )
            }
            Self::ZeroWeight { position } => {
                let number = position + 1;
                write!(
                    f,
                    "memcached server {number} of the list has weight 0: give it 1 or more, or leave it out"
                )
            }
            Self::WeightWithoutEffect { position } => {
                let number = position + 1;
                write!(
                    f,
                    "memcached server {number} of the list has a weight, which plain ketama cannot follow: "
                )?;
                f.write_str("use weighted ketama, or no weights")
            }
        }
    }
}

impl std::error::Error for RingError {}
