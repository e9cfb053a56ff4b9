//! The client: operations on keys, spread over the servers.

mod many;

use std::fmt;
use std::sync::Arc;
use std::time::Instant;

use futures_util::future::join_all;

use crate::conn::{Awaited, Conn, unexpected};
use crate::error::{Error, ErrorKind, Result};
use crate::key::WireKey;
use crate::protocol::{
    ArithmeticOptions, DeleteOptions, Expect, GetOptions, MetaReply, Reply, SetOptions, Stat, StatsTopic,
    Status, Value, request,
};
use crate::ring::Ring;
use crate::server::{Effect, Upstream};
use crate::settings::ClientBuilder;

pub use self::many::SetOver;

/// What an item takes beside its key and its value: the header of the server, a number that changes with each change,
/// client flags, line ends.
const ITEM_OVERHEAD: usize = 64;

/// A client of one or more memcached servers. `clone` is another handle to the same connections.
///
/// Each key belongs to one server. A server that is down costs its own keys a bounded delay, then microseconds, and
/// is looked for several times a second; its keys are never stored elsewhere.
///
/// All operations are cancel-safe: a request whose caller goes away may take effect, and its answer goes to nobody.
///
/// ```no_run
/// use cache_kit_memcached::Client;
/// use cache_kit_memcached::protocol::SetOptions;
///
/// # async fn run() -> cache_kit_memcached::Result<()> {
/// let client = Client::builder().servers(["localhost:11211"])?.build()?;
/// client.set(b"greeting", b"hello", SetOptions::default()).await?;
/// let found = client.get(b"greeting").await?;
/// assert_eq!(found.unwrap().data, &b"hello"[..]);
/// # Ok(()) }
/// ```
#[derive(Clone)]
pub struct Client(Arc<Inner>);

struct Inner {
    servers: Vec<Upstream>,
    ring: Ring,
}

/// Names a connection, among all that this process has ever had. Numbers that a server gives (`cas`) mean something only
/// as long as the connection that they came over is open: a server that was restarted counts from one again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct ConnectionId(u64);

impl ConnectionId {
    /// The number.
    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }

    /// The connection with this number, if there is one.
    #[must_use]
    pub fn new(number: u64) -> Self {
        Self(number)
    }
}

/// What a meta command was answered, and over which connection.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Answer {
    /// The answer.
    pub reply: MetaReply,
    /// Where it came from.
    pub connection: ConnectionId,
}

impl Client {
    /// A client to be made.
    pub fn builder() -> ClientBuilder {
        ClientBuilder::default()
    }

    pub(crate) fn with(servers: Vec<Upstream>, ring: Ring) -> Self {
        Self(Arc::new(Inner { servers, ring }))
    }

    /// How many servers there are.
    #[must_use]
    pub fn servers(&self) -> usize {
        self.0.servers.len()
    }

    /// The server of a key, by its position in the list that the client was made with.
    #[must_use]
    pub fn server_of(&self, key: &[u8]) -> usize {
        self.0.ring.server_of(key)
    }

    /// The address of a server.
    ///
    /// # Panics
    /// When there is no server at this position.
    #[must_use]
    pub fn address(&self, server: usize) -> String {
        self.0.servers[server].server().to_string()
    }

    /// How many connections to a server are open.
    ///
    /// # Panics
    /// When there is no server at this position.
    #[must_use]
    pub fn connections(&self, server: usize) -> usize {
        self.0.servers[server].connections()
    }

    /// Whether a server is taken to be down, so that operations on its keys fail at once.
    ///
    /// # Panics
    /// When there is no server at this position.
    #[must_use]
    pub fn is_down(&self, server: usize) -> bool {
        self.0.servers[server].is_down()
    }

    /// When this client last found a server down, or a change that it asked for may not have reached it, in seconds since
    /// 1970; zero for never. What the server holds from before may have missed changes, those of others too.
    ///
    /// # Panics
    /// When there is no server at this position.
    #[must_use]
    pub fn missed_at(&self, server: usize) -> u64 {
        self.0.servers[server].missed_at()
    }

    /// Closes all connections; what is under way fails, and the next operations connect anew. At most once a second for
    /// each server.
    pub fn drop_connections(&self) {
        self.0.servers.iter().for_each(Upstream::drop_connections);
    }

    /// Connects to each server, and says what is wrong with the first one that fails. Not needed: the first operation
    /// on a server connects by itself.
    ///
    /// # Errors
    /// [`Unavailable`](ErrorKind::Unavailable) or [`Timeout`](ErrorKind::Timeout) for the address,
    /// [`Auth`](ErrorKind::Auth) for the credentials, [`Server`](ErrorKind::Server) where the meta protocol is not
    /// spoken.
    pub async fn connect(&self) -> Result<()> {
        join_all(self.0.servers.iter().map(Upstream::verify)).await.into_iter().collect()
    }

    fn upstream(&self, key: &[u8]) -> &Upstream {
        &self.0.servers[self.0.ring.server_of(key)]
    }

    /// The value of a key, or nothing.
    ///
    /// # Errors
    /// When the server cannot tell. An error is not a miss.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Value>> {
        let options = GetOptions { value: true, client_flags: true, ..GetOptions::default() };
        Ok(value_of(self.meta_get(key, options).await?.reply))
    }

    /// Stores a value. Whether it was stored depends on the mode and the number to compare with that the options hold;
    /// with neither, it was.
    ///
    /// # Errors
    /// When it was not stored, or that is not known. [`TooLarge`](ErrorKind::TooLarge) before anything is sent, where
    /// the server's limit is known.
    pub async fn set(&self, key: &[u8], value: &[u8], options: SetOptions) -> Result<bool> {
        Ok(self.meta_set(key, value, options).await?.reply.status == Status::Header)
    }

    /// Removes a key; whether it was there.
    ///
    /// # Errors
    /// When it may still be there.
    pub async fn delete(&self, key: &[u8]) -> Result<bool> {
        Ok(self.meta_delete(key, DeleteOptions::default()).await?.reply.status == Status::Header)
    }

    /// `mg`, with all that it can be asked.
    ///
    /// # Errors
    /// When the server cannot tell.
    pub async fn meta_get(&self, key: &[u8], mut options: GetOptions) -> Result<Answer> {
        let (upstream, wire) = (self.upstream(key), WireKey::new(key));
        let conn = upstream.connection().await?;
        let limits = conn.0.limits();
        ask(upstream, &conn, Effect::Reads, |opaque, out| {
            options.opaque = Some(opaque);
            request::mg(out, &wire, &options);
            looking(Expect::get(options.opaque, limits), &options, key)
        })
        .await
    }

    /// `ms`, with all that it can be told.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub async fn meta_set(&self, key: &[u8], value: &[u8], options: SetOptions) -> Result<Answer> {
        let upstream = self.upstream(key);
        let conn = upstream.connection().await?;
        store(upstream, &conn, key, value, options).await
    }

    /// `ms` over a connection that is named; `None` if it is closed. For numbers to compare with that came over it.
    ///
    /// # Errors
    /// As [`set`](Self::set).
    pub async fn meta_set_over(
        &self,
        connection: ConnectionId,
        key: &[u8],
        value: &[u8],
        options: SetOptions,
    ) -> Result<Option<Answer>> {
        let upstream = self.upstream(key);
        match upstream.connection_with_id(connection.0) {
            Some(conn) => store(upstream, &conn, key, value, options).await.map(Some),
            None => Ok(None),
        }
    }

    /// `md`, with all that it can be told.
    ///
    /// # Errors
    /// When the key may still be there.
    pub async fn meta_delete(&self, key: &[u8], options: DeleteOptions) -> Result<Answer> {
        let upstream = self.upstream(key);
        let conn = upstream.connection().await?;
        remove(upstream, &conn, key, options).await
    }

    /// `md` over a connection that is named; `None` if it is closed. For numbers to compare with that came over it.
    ///
    /// # Errors
    /// As [`meta_delete`](Self::meta_delete).
    pub async fn meta_delete_over(
        &self,
        connection: ConnectionId,
        key: &[u8],
        options: DeleteOptions,
    ) -> Result<Option<Answer>> {
        let upstream = self.upstream(key);
        match upstream.connection_with_id(connection.0) {
            Some(conn) => remove(upstream, &conn, key, options).await.map(Some),
            None => Ok(None),
        }
    }

    /// `ma`: counts up or down.
    ///
    /// # Errors
    /// When it was not counted, or that is not known; [`InvalidInput`](ErrorKind::InvalidInput) for a value that is no
    /// number.
    pub async fn arithmetic(&self, key: &[u8], mut options: ArithmeticOptions) -> Result<Answer> {
        let (upstream, wire) = (self.upstream(key), WireKey::new(key));
        let conn = upstream.connection().await?;
        ask(upstream, &conn, Effect::Changes, |opaque, out| {
            options.opaque = Some(opaque);
            request::ma(out, &wire, &options);
            Expect::arithmetic(options.opaque).into()
        })
        .await
    }

    /// What a server tells of an item, for people; nothing if there is none.
    ///
    /// # Errors
    /// [`InvalidInput`](ErrorKind::InvalidInput) for a key that goes onto the wire in base64.
    pub async fn debug(&self, key: &[u8]) -> Result<Option<Box<str>>> {
        let wire = WireKey::new(key);
        if wire.is_base64() {
            return Err(Error::new(ErrorKind::InvalidInput, request::RequestError::Base64Key.to_string()));
        }
        let upstream = self.upstream(key);
        let conn = upstream.connection().await?;
        let sent = upstream.call(&conn, Effect::Reads, |_, out| {
            let written = request::me(out, &wire);
            debug_assert!(written.is_ok(), "looked at before");
            Expect::debug().into()
        });
        match sent.await? {
            Reply::Debug(text) => Ok(text),
            _ => Err(unexpected().at(upstream.server())),
        }
    }

    /// Statistics of each server, in the order of the list.
    pub async fn stats(&self, topic: StatsTopic) -> Vec<Result<Vec<Stat>>> {
        join_all(self.0.servers.iter().map(async |upstream| {
            let sent = one(upstream, Effect::Reads, |out| request::stats(out, topic), Expect::stats());
            match sent.await? {
                Reply::Stats(stats) => Ok(stats),
                _ => Err(unexpected().at(upstream.server())),
            }
        }))
        .await
    }

    /// The version of each server, in the order of the list.
    pub async fn versions(&self) -> Vec<Result<Box<str>>> {
        join_all(self.0.servers.iter().map(async |upstream| {
            match one(upstream, Effect::Reads, request::version, Expect::version()).await? {
                Reply::Version(version) => Ok(version),
                _ => Err(unexpected().at(upstream.server())),
            }
        }))
        .await
    }

    /// Drops every item of every server, whoever stored it.
    ///
    /// # Errors
    /// Of the first server that may still hold items.
    pub async fn flush_all(&self) -> Result<()> {
        let flushed = join_all(self.0.servers.iter().map(async |upstream| {
            match one(upstream, Effect::Changes, |out| request::flush_all(out, 0), Expect::flushed()).await? {
                Reply::Done => Ok(()),
                _ => Err(unexpected().at(upstream.server())),
            }
        }));
        flushed.await.into_iter().collect()
    }
}

impl fmt::Debug for Client {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let servers = self.0.servers.iter();
        f.debug_map().entries(servers.map(|s| (s.server().to_string(), s.connections()))).finish()
    }
}

/// What a `get` finds, of what `mg` was answered.
fn value_of(reply: MetaReply) -> Option<Value> {
    let data = reply.value?;
    Some(Value { client_flags: reply.client_flags, data })
}

/// A request of a server, and not of a key.
async fn one(
    upstream: &Upstream,
    effect: Effect,
    write: impl FnOnce(&mut Vec<u8>),
    expect: Expect,
) -> Result<Reply> {
    let conn = upstream.connection().await?;
    let encode = |_, out: &mut Vec<u8>| {
        write(out);
        expect.into()
    };
    upstream.call(&conn, effect, encode).await
}

async fn ask(
    upstream: &Upstream,
    conn: &(Arc<Conn>, Instant),
    effect: Effect,
    encode: impl FnOnce(u32, &mut Vec<u8>) -> Awaited,
) -> Result<Answer> {
    answer(upstream, &conn.0, upstream.call(conn, effect, encode).await?)
}

fn answer(upstream: &Upstream, conn: &Conn, reply: Reply) -> Result<Answer> {
    match reply {
        Reply::Meta(reply) => Ok(Answer { reply, connection: ConnectionId(conn.pipe.id()) }),
        _ => Err(unexpected().at(upstream.server())),
    }
}

/// What a `mg` expects, and leaves behind.
fn looking(expect: Expect, options: &GetOptions, key: &[u8]) -> Awaited {
    if options.vivify.is_some() { Awaited::vivifying(expect, key) } else { expect.into() }
}

/// Who compares first says what is to happen only if nothing did; when that is not done, nothing is amiss.
fn effect(compare_cas: Option<u64>) -> Effect {
    if compare_cas.is_some() { Effect::Reads } else { Effect::Changes }
}

async fn store(
    upstream: &Upstream,
    conn: &(Arc<Conn>, Instant),
    key: &[u8],
    value: &[u8],
    mut options: SetOptions,
) -> Result<Answer> {
    let wire = WireKey::new(key);
    check_size(upstream, &conn.0, &wire, value)?;
    ask(upstream, conn, effect(options.compare_cas), |opaque, out| {
        options.opaque = Some(opaque);
        let written = request::ms(out, &wire, value, &options);
        debug_assert!(written.is_ok(), "no item is as long as that");
        Expect::set(options.opaque).into()
    })
    .await
}

/// What does not fit is not sent: the server would take it all in, drop the old value, and refuse.
fn check_size(upstream: &Upstream, conn: &Conn, wire: &WireKey<'_>, value: &[u8]) -> Result<()> {
    let most = conn.item_size_max;
    if value.len() + wire.as_bytes().len() + ITEM_OVERHEAD <= most {
        return Ok(());
    }
    let message = format!("the value does not fit into an item of {most} bytes");
    Err(Error::new(ErrorKind::TooLarge, message)
        .with_hint("store less, or raise the server's -I")
        .at(upstream.server()))
}

async fn remove(
    upstream: &Upstream,
    conn: &(Arc<Conn>, Instant),
    key: &[u8],
    mut options: DeleteOptions,
) -> Result<Answer> {
    let wire = WireKey::new(key);
    ask(upstream, conn, effect(options.compare_cas), |opaque, out| {
        options.opaque = Some(opaque);
        request::md(out, &wire, &options);
        Expect::delete(options.opaque).into()
    })
    .await
}
