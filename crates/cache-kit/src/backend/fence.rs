//! The words of the fence: leases, and the answers to asking for one and filling under one.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;

/// The right to fill one key, until something happens to that key.
///
/// Opaque: only the backend that made it knows what the token means. It must be unlikely to repeat, across
/// restarts of a server too.
#[derive(Clone, PartialEq, Eq)]
pub struct Lease(u128);

impl Lease {
    /// A lease with this token; for implementers of backends.
    #[must_use]
    pub fn new(token: u128) -> Self {
        Self(token)
    }

    /// The token; for implementers of backends.
    #[must_use]
    pub fn token(&self) -> u128 {
        self.0
    }
}

impl fmt::Debug for Lease {
    // Whoever knows a token can fill the key, so it is not printed.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Lease(..)")
    }
}

/// The answer to [`CacheBackend::acquire`](super::CacheBackend::acquire).
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Acquired {
    /// The lease is the caller's.
    Granted {
        /// To be handed to `fill` or `release`.
        lease: Lease,
        /// What the key holds meanwhile: the `seen` of the call, or nothing.
        kept: Option<Bytes>,
    },
    /// Somebody else has the lease.
    Busy {
        /// What the key holds meanwhile.
        kept: Option<Bytes>,
    },
    /// The key holds something that the caller has not seen; no lease was given.
    Present {
        /// What it holds.
        value: Bytes,
    },
    /// This backend has no fence.
    Unfenced,
}

/// The answer to [`CacheBackend::fill`](super::CacheBackend::fill).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[must_use]
pub enum Filled {
    /// The value is stored.
    Stored,
    /// The lease was void: something happened to the key after it was taken. Nothing was changed.
    Refused,
}

/// One key of [`CacheBackend::acquire_many`](super::CacheBackend::acquire_many).
#[derive(Clone, Copy, Debug)]
pub struct Claim<'a> {
    /// The key to lease.
    pub key: &'a str,
    /// What the caller has read under it and will not use.
    pub seen: Option<&'a Bytes>,
}

/// One value of [`CacheBackend::fill_many`](super::CacheBackend::fill_many).
#[derive(Clone, Debug)]
pub struct Fill<'a> {
    /// Where to store it.
    pub key: &'a str,
    /// The lease that allows it.
    pub lease: &'a Lease,
    /// What to store.
    pub value: Bytes,
    /// For how long; `None` is without end, zero is an error.
    pub ttl: Option<Duration>,
}
