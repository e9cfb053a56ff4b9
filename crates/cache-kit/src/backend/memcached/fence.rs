//! Leases on Memcached.
//!
//! On an absent key `mg` makes a *stub*, an item of no bytes, and tells one caller that it has won. A fill stores only
//! over the number (`cas`) that came with the win, so that a delete, an overwrite, an expiry, an eviction or a flush
//! refuses it. Over a value that was seen and is not wanted, the value itself is stored again behind a head that says
//! until when it is leased; it stays readable, and what its holder does not replace in time, the next may.
//!
//! To renew a lease is to store what it holds again, over its number, and to hold the number that comes back: of a value
//! with a later end, and of a stub as a head that keeps nothing and lives longer.
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
use crate::backend::{Acquired, Filled, Lease, check_life};
use crate::error::{Error, ErrorKind, Result};

const ACQUIRE: &str = "acquire";
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

/// The number that an item had, and the connection that told it.
pub(super) type Version = (ConnectionId, u64);

/// What a look at a key comes to, of which a lease is wanted.
pub(super) enum Look {
    /// To an answer.
    Done(Acquired),
    /// To a value that was seen: it is to be stored again, leased.
    Seen(SeenValue),
    /// To something that nobody is to read any more: it is to be dropped, and looked again.
    Spent(Version),
}

/// A value that is to stay readable while it is leased.
pub(super) struct SeenValue {
    version: Version,
    item: Item,
    /// What is left of its life.
    exptime: Exptime,
}

impl SeenValue {
    /// What is stored over it: the version that it must still have, the data, and how.
    pub(super) fn leased(&self, life: Duration) -> (ConnectionId, Vec<u8>, SetOptions) {
        let (connection, cas) = self.version;
        let (flags, data) = self.item.leased(unix_end(life));
        (connection, data, over(cas, flags, self.exptime))
    }

    /// The answer when that was done, or not because something happened to the key meanwhile.
    pub(super) fn acquired(&self, stored: Option<Answer>, life: Duration) -> Option<Acquired> {
        let (connection, cas) = (self.version.0, stored_as(stored)?);
        let lease = Token { connection, cas, until: end_after(life) }.lease();
        Some(Acquired::Granted { lease, kept: Some(self.item.data().clone()) })
    }
}

/// How to store over the item with this number, and over no other.
fn over(cas: u64, flags: u32, exptime: Exptime) -> SetOptions {
    let mut options = SetOptions::default();
    (options.client_flags, options.exptime) = (flags, exptime);
    (options.compare_cas, options.cas) = (Some(cas), true);
    options
}

/// The number of what was stored; `None` if something happened to the key, or the connection, meanwhile.
fn stored_as(stored: Option<Answer>) -> Option<u64> {
    stored.filter(|answer| answer.reply.status == Status::Header)?.reply.cas
}

/// How to look at a key of which a lease of this life is wanted.
pub(super) fn look(life: Duration) -> GetOptions {
    let mut options = GetOptions::default();
    (options.value, options.client_flags, options.cas, options.ttl) = (true, true, true, true);
    options.vivify = Some(end_of_stub(life));
    options
}

impl Shared {
    pub(super) async fn acquire(&self, key: &str, seen: Option<&Bytes>, life: Duration) -> Result<Acquired> {
        check_life(life)?;
        let (full, options) = (self.full(key), look(life));
        let full = full.as_bytes();
        for _ in 0..TRIES {
            let answer = self.client.meta_get(full, options).await;
            match self.looked(full, answer, seen)? {
                Look::Done(acquired) => return Ok(acquired),
                Look::Seen(value) => {
                    let (connection, data, options) = value.leased(life);
                    let stored = self.client.meta_set_over(connection, full, &data, options).await;
                    let stored = stored.map_err(|error| convert(ACQUIRE, error))?;
                    if let Some(acquired) = value.acquired(stored, life) {
                        return Ok(acquired);
                    }
                }
                Look::Spent(version) => self.drop_exactly(full, version).await?,
            }
        }
        Ok(Acquired::Busy { kept: None })
    }

    /// Draws the conclusions from the answer to [`look`].
    pub(super) fn looked(
        &self,
        full: &[u8],
        answer: cache_kit_memcached::Result<Answer>,
        seen: Option<&Bytes>,
    ) -> Result<Look> {
        let Answer { reply, connection, .. } = answer.map_err(|error| convert(ACQUIRE, error))?;
        if reply.status != Status::Value {
            // A server that cannot make a stub.
            return Err(Error::new(ErrorKind::Full, "the server has no room for a lease")
                .with_backend(NAME)
                .with_operation(ACQUIRE)
                .with_hint("give it more memory (-m), or let it evict (no -M)"));
        }
        let Some(cas) = reply.cas else {
            return Err(Error::new(ErrorKind::Unsupported, "the server numbers no changes")
                .with_backend(NAME)
                .with_operation(ACQUIRE)
                .with_hint("start it without -C"));
        };
        let version = (connection, cas);
        let item = Item::new(reply.client_flags, reply.value.clone().unwrap_or_default());
        if item.is_stub() {
            if reply.won {
                let token = Token { connection, cas, until: 0 };
                return Ok(Look::Done(Acquired::Granted { lease: token.lease(), kept: None }));
            }
            if reply.already_won && !reply.stale {
                return Ok(Look::Done(Acquired::Busy { kept: None }));
            }
            // An empty value of another client; or a stub that another one has marked stale, and its lease is void.
            return Ok(Look::Spent(version));
        }
        if item.is_renewed() && !reply.stale {
            return Ok(Look::Done(Acquired::Busy { kept: None }));
        }
        let value = if reply.stale { None } else { self.visible(full, item.clone()) };
        Ok(match (value, seen) {
            (Some(value), Some(seen)) if value == *seen => {
                if item.leased_until.is_some_and(|until| u128::from(until) > unix_time().as_millis()) {
                    return Ok(Look::Done(Acquired::Busy { kept: Some(value) }));
                }
                Look::Seen(SeenValue { version, item, exptime: what_is_left(&reply) })
            }
            (Some(value), _) => Look::Done(Acquired::Present { value }),
            (None, _) => Look::Spent(version),
        })
    }

    /// Stores flags and data over a number that came over this connection; the new number, or `None` if something
    /// happened to the key, or the connection, meanwhile.
    async fn store_over(
        &self,
        full: &[u8],
        (connection, cas): Version,
        (flags, data): (u32, Vec<u8>),
        exptime: Exptime,
    ) -> cache_kit_memcached::Result<Option<u64>> {
        let options = over(cas, flags, exptime);
        Ok(stored_as(self.client.meta_set_over(connection, full, &data, options).await?))
    }

    /// Removes what was found, unless something else happened to it first, so that the next look makes a stub.
    pub(super) async fn drop_exactly(&self, full: &[u8], (connection, cas): Version) -> Result<()> {
        let mut options = DeleteOptions::default();
        options.compare_cas = Some(cas);
        let dropped = self.client.meta_delete_over(connection, full, options).await;
        dropped.map(|_| ()).map_err(|error| convert(ACQUIRE, error))
    }

    pub(super) async fn fill(
        &self,
        key: &str,
        lease: &Lease,
        value: &[u8],
        ttl: Option<Duration>,
    ) -> Result<Filled> {
        let Some((connection, options)) = filling(lease, ttl)? else { return Ok(Filled::Refused) };
        let full = self.full(key);
        filled(self.client.meta_set_over(connection, full.as_bytes(), value, options).await)
    }

    pub(super) async fn renew(&self, key: &str, lease: &Lease, life: Duration) -> Result<Option<Lease>> {
        check_life(life)?;
        let token = Token::of(lease);
        let full = self.full(key);
        let full = full.as_bytes();
        let renewed = if token.keeps_a_value() {
            self.renew_over_value(full, &token, life).await
        } else {
            let over = (token.connection, token.cas);
            let cas = self.store_over(full, over, item::renewed(), end_of_stub(life)).await;
            cas.map(|cas| cas.map(|cas| Token { cas, ..token }))
        };
        Ok(renewed.map_err(|error| convert("renew", error))?.map(|token| token.lease()))
    }

    /// Stores the value that a lease keeps with a later end, if it is still there.
    async fn renew_over_value(
        &self,
        full: &[u8],
        token: &Token,
        life: Duration,
    ) -> cache_kit_memcached::Result<Option<Token>> {
        if token.is_over() {
            return Ok(None);
        }
        let Some((kept, reply)) = self.kept_under(full, token).await? else { return Ok(None) };
        let (over, leased) = ((token.connection, token.cas), kept.leased(unix_end(life)));
        let cas = self.store_over(full, over, leased, what_is_left(&reply)).await?;
        Ok(cas.map(|cas| Token { connection: token.connection, cas, until: end_after(life) }))
    }

    /// The value that a lease keeps, if it is still there.
    async fn kept_under(
        &self,
        full: &[u8],
        token: &Token,
    ) -> cache_kit_memcached::Result<Option<(Item, MetaReply)>> {
        let mut options = GetOptions::default();
        (options.value, options.client_flags, options.cas, options.ttl) = (true, true, true, true);
        let reply = self.client.meta_get(full, options).await?.reply;
        let data = reply.value.clone().filter(|_| reply.cas == Some(token.cas));
        Ok(data.map(|data| (Item::new(reply.client_flags, data), reply)))
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
        let Some((kept, reply)) = self.kept_under(full, token).await? else { return Ok(()) };
        let mut options = SetOptions::default();
        (options.client_flags, options.exptime) = (kept.flags, what_is_left(&reply));
        options.compare_cas = Some(token.cas);
        self.client.meta_set_over(token.connection, full, kept.data(), options).await.map(|_| ())
    }
}

/// Over which connection a value is stored under a lease, and how; `None` if the lease is over.
pub(super) fn filling(lease: &Lease, ttl: Option<Duration>) -> Result<Option<(ConnectionId, SetOptions)>> {
    let token = Token::of(lease);
    let mut options = SetOptions::default();
    (options.client_flags, options.exptime) = (item::flags_now(), expiry(ttl)?);
    options.compare_cas = Some(token.cas);
    Ok((!token.is_over()).then_some((token.connection, options)))
}

/// Whether the value was stored.
pub(super) fn filled(stored: cache_kit_memcached::Result<Option<Answer>>) -> Result<Filled> {
    match stored.map_err(|error| convert("fill", error))?.map(|answer| answer.reply.status) {
        Some(Status::Header) => Ok(Filled::Stored),
        // The connection is gone, and with it the proof that nothing happened.
        None | Some(Status::NotFound | Status::Exists | Status::NotStored) => Ok(Filled::Refused),
        Some(_) => Err(unexpected("fill")),
    }
}

/// The end of a lease over a value, for everybody who reads the value.
fn unix_end(life: Duration) -> u64 {
    u64::try_from(unix_time().saturating_add(life).as_millis()).unwrap_or(u64::MAX)
}

/// When the server drops a lease that keeps nothing: no later than its life, unlike a value, which lives at least as
/// long as was asked for. A life of one second would be over with the next tick of its clock.
fn end_of_stub(life: Duration) -> Exptime {
    let seconds = life.as_secs().saturating_add(u64::from(life.subsec_nanos() > 0)).max(2);
    Exptime::within(Duration::from_secs(seconds), unix_time().as_secs())
}

/// The life that an item has left, to be stored again with it: never longer, and up to a second shorter.
fn what_is_left(reply: &MetaReply) -> Exptime {
    match reply.ttl.map(u64::try_from) {
        Some(Ok(seconds)) => Exptime::within(Duration::from_secs(seconds.max(1)), unix_time().as_secs()),
        _ => Exptime::NEVER,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lease_that_keeps_nothing_lives_no_longer_than_asked_for() {
        for (millis, seconds) in [(1, 2), (1_000, 2), (2_000, 2), (2_001, 3), (3_000, 3), (60_000, 60)] {
            assert_eq!(end_of_stub(Duration::from_millis(millis)).get(), seconds, "{millis}");
        }
        assert_eq!(end_of_stub(Duration::MAX), Exptime::NEVER);
    }

    #[test]
    fn a_token_comes_back_as_it_was() {
        let token = Token { connection: ConnectionId::new(7), cas: u64::MAX, until: u32::MAX };
        let read = Token::of(&token.lease());
        assert_eq!((read.connection, read.cas, read.until), (token.connection, token.cas, token.until));
    }
}
