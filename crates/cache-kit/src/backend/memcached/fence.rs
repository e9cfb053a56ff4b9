//! Leases on Memcached.
//!
//! On an absent key `mg` makes a *stub*, an item of no bytes, and tells one caller that it has won. A fill stores only
//! over the number (`cas`) that came with the win, so that a delete, an overwrite, an expiry, an eviction or a flush
//! refuses it. Over a value that was seen and is not wanted, the value itself is stored again behind a head that says
//! until when it is leased; it stays readable, and what its holder does not replace in time, the next may.
//!
//! The number means something only to the server process that gave it, which counts from one again after a restart. So
//! a lease remembers its connection, and a fill over any other is refused without asking.

use std::sync::LazyLock;
use std::time::{Duration, Instant};

use bytes::Bytes;
use cache_kit_memcached::protocol::{DeleteOptions, GetOptions, MetaReply, SetOptions, Status};
use cache_kit_memcached::{Answer, ConnectionId, Exptime};

use super::error::convert;
use super::item::{self, Item};
use super::{NAME, Shared, expiry, unexpected, unix_time};
use crate::backend::{Acquired, Filled, Lease};
use crate::error::{Error, ErrorKind, Result};

/// So often a lease is tried for while others change the key at the same time.
const TRIES: usize = 4;

/// A lease in its token: a number and the connection that it came over, and the end of a lease over a value, which the
/// server does not know.
struct Token {
    connection: ConnectionId,
    cas: u64,
    /// In tenths of a second of this process; zero if there is no value, and the server knows the end.
    until: u32,
}

impl Token {
    fn lease(&self) -> Lease {
        // Connections are counted from one, and nobody has had four thousand million of them.
        let high = (self.connection.get() << 32) | u64::from(self.until);
        Lease::new((u128::from(high) << 64) | u128::from(self.cas))
    }

    fn of(lease: &Lease) -> Self {
        let high = u64::try_from(lease.token() >> 64).unwrap_or(0);
        let cas = u64::try_from(lease.token() & u128::from(u64::MAX)).unwrap_or(0);
        let until = u32::try_from(high & u64::from(u32::MAX)).unwrap_or(0);
        Self { connection: ConnectionId::new(high >> 32), cas, until }
    }

    fn keeps_a_value(&self) -> bool {
        self.until != 0
    }

    fn is_over(&self) -> bool {
        self.keeps_a_value() && u128::from(self.until) <= uptime().as_millis() / TENTH + 1
    }
}

/// Milliseconds in the unit of the end of a lease.
const TENTH: u128 = 100;

/// How long this process has had leases.
fn uptime() -> Duration {
    static START: LazyLock<Instant> = LazyLock::new(Instant::now);
    START.elapsed()
}

/// The end of a lease that is taken now; rounded up, and never zero.
fn end_after(life: Duration) -> u32 {
    let end = uptime().saturating_add(life).as_millis().div_ceil(TENTH);
    u32::try_from(end + 1).unwrap_or(u32::MAX)
}

impl Shared {
    pub(super) async fn acquire(&self, key: &str, seen: Option<&Bytes>, life: Duration) -> Result<Acquired> {
        const OPERATION: &str = "acquire";
        if life.is_zero() {
            return Err(Error::new(ErrorKind::InvalidInput, "the life of a lease is zero"));
        }
        let full = self.full(key);
        let full = full.as_bytes();
        let ends = expiry(Some(life))?;
        for _ in 0..TRIES {
            let mut options = GetOptions::default();
            (options.value, options.client_flags, options.cas, options.ttl) = (true, true, true, true);
            options.vivify = Some(ends);
            let answer =
                self.client.meta_get(full, options).await.map_err(|error| convert(OPERATION, error))?;
            let Answer { reply, connection, .. } = answer;
            if reply.status != Status::Value {
                // A server that cannot make a stub.
                return Err(Error::new(ErrorKind::Full, "the server has no room for a lease")
                    .with_backend(NAME)
                    .with_operation(OPERATION)
                    .with_hint("give it more memory (-m), or let it evict (no -M)"));
            }
            let Some(cas) = reply.cas else {
                return Err(Error::new(ErrorKind::Unsupported, "the server numbers no changes")
                    .with_backend(NAME)
                    .with_operation(OPERATION)
                    .with_hint("start it without -C"));
            };
            let found = Item::new(reply.client_flags, reply.value.clone().unwrap_or_default());
            if found.is_stub() {
                if reply.won {
                    let token = Token { connection, cas, until: 0 };
                    return Ok(Acquired::Granted { lease: token.lease(), kept: None });
                }
                if reply.already_won && !reply.stale {
                    return Ok(Acquired::Busy { kept: None });
                }
                // An empty value of another client; or a stub that another one has marked stale, and its lease is void.
                self.drop_exactly(full, cas, connection).await?;
                continue;
            }
            let value = match (reply.stale, self.visible(full, found.clone())) {
                (false, value) => value,
                (true, _) => None,
            };
            match (value, seen) {
                (Some(value), Some(seen)) if value == *seen => {
                    if let Some(acquired) =
                        self.lease_over(full, &found, &reply, cas, connection, life).await?
                    {
                        return Ok(acquired);
                    }
                }
                (Some(value), _) => return Ok(Acquired::Present { value }),
                // Not to be read any more.
                (None, _) => self.drop_exactly(full, cas, connection).await?,
            }
        }
        Ok(Acquired::Busy { kept: None })
    }

    /// Takes a lease over a value that stays readable; `None` if something happened to it meanwhile.
    async fn lease_over(
        &self,
        full: &[u8],
        found: &Item,
        reply: &MetaReply,
        cas: u64,
        connection: ConnectionId,
        life: Duration,
    ) -> Result<Option<Acquired>> {
        let now = unix_time();
        let kept = Some(found.data().clone());
        if found.leased_until.is_some_and(|until| u128::from(until) > now.as_millis()) {
            return Ok(Some(Acquired::Busy { kept }));
        }
        let until = u64::try_from(now.saturating_add(life).as_millis()).unwrap_or(u64::MAX);
        let (flags, data) = found.leased(until);
        let mut options = SetOptions::default();
        (options.client_flags, options.exptime) = (flags, what_is_left(reply));
        (options.compare_cas, options.cas) = (Some(cas), true);
        let stored = self.client.meta_set_over(connection, full, &data, options).await;
        Ok(match stored.map_err(|error| convert("acquire", error))? {
            Some(Answer { reply: MetaReply { status: Status::Header, cas: Some(cas), .. }, .. }) => {
                let lease = Token { connection, cas, until: end_after(life) }.lease();
                Some(Acquired::Granted { lease, kept })
            }
            _ => None,
        })
    }

    /// Removes what was found, unless something else happened to it first, so that the next look makes a stub.
    async fn drop_exactly(&self, full: &[u8], cas: u64, connection: ConnectionId) -> Result<()> {
        let mut options = DeleteOptions::default();
        options.compare_cas = Some(cas);
        let dropped = self.client.meta_delete_over(connection, full, options).await;
        dropped.map(|_| ()).map_err(|error| convert("acquire", error))
    }

    pub(super) async fn fill(
        &self,
        key: &str,
        lease: &Lease,
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<Filled> {
        let token = Token::of(lease);
        let mut options = SetOptions::default();
        (options.client_flags, options.exptime) = (item::flags_now(), expiry(ttl)?);
        if token.is_over() {
            return Ok(Filled::Refused);
        }
        options.compare_cas = Some(token.cas);
        let full = self.full(key);
        let stored = self.client.meta_set_over(token.connection, full.as_bytes(), value, options).await;
        match stored.map_err(|error| convert("fill", error))?.map(|answer| answer.reply.status) {
            Some(Status::Header) => Ok(Filled::Stored),
            // The connection is gone, and with it the proof that nothing happened.
            None | Some(Status::NotFound | Status::Exists | Status::NotStored) => Ok(Filled::Refused),
            Some(_) => Err(unexpected("fill")),
        }
    }

    pub(super) async fn release(&self, key: &str, lease: &Lease) -> Result<()> {
        let token = Token::of(lease);
        let full = self.full(key);
        let released = if token.keeps_a_value() {
            self.release_value(full.as_bytes(), &token).await
        } else {
            let mut options = DeleteOptions::default();
            options.compare_cas = Some(token.cas);
            let deleted = self.client.meta_delete_over(token.connection, full.as_bytes(), options).await;
            deleted.map(|_| ())
        };
        released.map_err(|error| convert("release", error))
    }

    /// Stores the value that a lease keeps as it was, if it is still there.
    async fn release_value(&self, full: &[u8], token: &Token) -> cache_kit_memcached::Result<()> {
        let mut options = GetOptions::default();
        (options.value, options.client_flags, options.cas, options.ttl) = (true, true, true, true);
        let reply = self.client.meta_get(full, options).await?.reply;
        let (Some(data), true) = (reply.value.clone(), reply.cas == Some(token.cas)) else { return Ok(()) };
        let kept = Item::new(reply.client_flags, data);
        let mut options = SetOptions::default();
        (options.client_flags, options.exptime) = (kept.flags, what_is_left(&reply));
        options.compare_cas = Some(token.cas);
        self.client.meta_set_over(token.connection, full, kept.data(), options).await.map(|_| ())
    }
}

/// The life that an item has left, to be stored again with it: never longer, and up to a second shorter.
fn what_is_left(reply: &MetaReply) -> Exptime {
    match reply.ttl.map(u64::try_from) {
        Some(Ok(seconds)) => Exptime::within(Duration::from_secs(seconds.max(1)), unix_time().as_secs()),
        _ => Exptime::NEVER,
    }
}
