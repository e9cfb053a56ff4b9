//! Operations on many keys, in one exchange for each server or connection.

use std::collections::HashMap;
use std::fmt;

use futures_util::future::join_all;

use super::{Answer, Client, ConnectionId, answer, ask, check_size, effect, looking, value_of};
use crate::conn::unexpected;
use crate::error::{Error, ErrorKind, Result};
use crate::key::WireKey;
use crate::protocol::{Expect, GetOptions, KeyList, Reply, SetOptions, Value, request};
use crate::server::{Effect, Upstream};

/// Keys in one `get`. The server answers nobody else on this connection meanwhile.
const KEYS_PER_GET: usize = 256;

/// One value of [`Client::meta_set_many_over`].
#[derive(Clone, Copy)]
pub struct SetOver<'a> {
    /// The connection to store it over.
    pub connection: ConnectionId,
    /// Where to store it.
    pub key: &'a [u8],
    /// What to store.
    pub value: &'a [u8],
    /// How to store it. The opaque is the client's to choose.
    pub options: SetOptions,
}

impl fmt::Debug for SetOver<'_> {
    // Neither the key nor the value.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SetOver")
            .field("connection", &self.connection)
            .field("key_len", &self.key.len())
            .field("value_len", &self.value.len())
            .field("options", &self.options)
            .finish()
    }
}

impl Client {
    /// The values of many keys, one for each, in their order: one round trip for each server that has some of them, side
    /// by side. A server that fails fails its own keys only.
    pub async fn get_many(&self, keys: &[&[u8]]) -> Vec<Result<Option<Value>>> {
        let mut by_server: Vec<Vec<usize>> = vec![Vec::new(); self.servers()];
        for (index, key) in keys.iter().enumerate() {
            by_server[self.server_of(key)].push(index);
        }
        let of_servers =
            by_server.iter().enumerate().filter(|(_, wanted)| !wanted.is_empty()).map(
                async |(server, wanted)| (wanted, get_from(&self.0.servers[server], keys, wanted).await),
            );
        let mut found: Vec<Result<Option<Value>>> = keys.iter().map(|_| Ok(None)).collect();
        for (wanted, values) in join_all(of_servers).await {
            for (index, value) in wanted.iter().zip(values) {
                found[*index] = value;
            }
        }
        found
    }

    /// `mg` of many keys of one server ([`server_of`](Self::server_of)), in one exchange over one connection, with all
    /// that one can be asked. One answer for each, in their order; a key that stands there twice is asked for twice.
    ///
    /// # Panics
    /// When there is no server at this position.
    pub async fn meta_get_many(
        &self,
        server: usize,
        keys: &[&[u8]],
        options: GetOptions,
    ) -> Vec<Result<Answer>> {
        debug_assert!(keys.iter().all(|key| self.server_of(key) == server), "keys of another server");
        let upstream = &self.0.servers[server];
        if keys.is_empty() {
            return Vec::new();
        }
        let conn = match upstream.connection().await {
            Ok(conn) => conn,
            Err(error) => return keys.iter().map(|_| Err(error.clone())).collect(),
        };
        let wires: Vec<WireKey<'_>> = keys.iter().map(|key| WireKey::new(key)).collect();
        let limits = conn.0.limits();
        let replies = upstream.call_many(&conn, Effect::Reads, keys.len(), |at, opaque, out| {
            let options = GetOptions { opaque: Some(opaque), ..options };
            request::mg(out, &wires[at], &options);
            looking(Expect::get(options.opaque, limits), &options, keys[at])
        });
        let replies = replies.await.into_iter();
        replies.map(|reply| answer(upstream, &conn.0, reply?)).collect()
    }

    /// `ms` of many values, each over the connection that it names, in one exchange for each connection, side by side.
    /// One answer for each, in their order, as of [`meta_set_over`](Self::meta_set_over).
    pub async fn meta_set_many_over(&self, sets: &[SetOver<'_>]) -> Vec<Result<Option<Answer>>> {
        let mut by_connection: HashMap<(usize, u64), Vec<usize>> = HashMap::new();
        for (index, set) in sets.iter().enumerate() {
            let over = (self.server_of(set.key), set.connection.0);
            by_connection.entry(over).or_default().push(index);
        }
        let over_connections = by_connection.iter().map(async |((server, connection), wanted)| {
            store_over(&self.0.servers[*server], *connection, sets, wanted).await
        });
        let mut stored: Vec<Result<Option<Answer>>> = sets.iter().map(|_| Ok(None)).collect();
        for (index, answer) in join_all(over_connections).await.into_iter().flatten() {
            stored[index] = answer;
        }
        stored
    }
}

/// Stores those values that go over this connection; the answers, but none where it is closed.
async fn store_over(
    upstream: &Upstream,
    connection: u64,
    sets: &[SetOver<'_>],
    wanted: &[usize],
) -> Vec<(usize, Result<Option<Answer>>)> {
    let Some(conn) = upstream.connection_with_id(connection) else { return Vec::new() };
    let mut stored = Vec::with_capacity(wanted.len());
    let mut sent: Vec<(usize, WireKey<'_>)> = Vec::with_capacity(wanted.len());
    // One that does not compare first is enough for the server to have missed a change if the answers are.
    let mut changes = Effect::Reads;
    for &index in wanted {
        let set = &sets[index];
        let wire = WireKey::new(set.key);
        match check_size(upstream, &conn.0, &wire, set.value) {
            Ok(()) => {
                if effect(set.options.compare_cas) == Effect::Changes {
                    changes = Effect::Changes;
                }
                sent.push((index, wire));
            }
            Err(error) => stored.push((index, Err(error))),
        }
    }
    let replies = upstream.call_many(&conn, changes, sent.len(), |at, opaque, out| {
        let (index, wire) = &sent[at];
        let options = SetOptions { opaque: Some(opaque), ..sets[*index].options };
        let written = request::ms(out, wire, sets[*index].value, &options);
        debug_assert!(written.is_ok(), "no item is as long as that");
        Expect::set(options.opaque).into()
    });
    let replies = replies.await.into_iter().map(|reply| answer(upstream, &conn.0, reply?).map(Some));
    stored.extend(sent.iter().map(|(index, _)| *index).zip(replies));
    stored
}

/// The values of those keys that are this server's.
async fn get_from(upstream: &Upstream, keys: &[&[u8]], wanted: &[usize]) -> Vec<Result<Option<Value>>> {
    let conn = match upstream.connection().await {
        Ok(conn) => conn,
        Err(error) => return wanted.iter().map(|_| Err(error.clone())).collect(),
    };
    let wires: Vec<WireKey<'_>> = wanted.iter().map(|index| WireKey::new(keys[*index])).collect();
    let limits = conn.0.limits();
    // A classic `get` costs the server less than half of what as many `mg` do, but has no base64.
    let plain: Vec<usize> = (0..wires.len()).filter(|at| !wires[*at].is_base64()).collect();
    let lists = plain.chunks(KEYS_PER_GET).map(async |places| {
        let list = KeyList::new(places.iter().map(|at| &wires[*at]))
            .map_err(|error| Error::new(ErrorKind::InvalidInput, error.to_string()).at(upstream.server()));
        let values = match list {
            Ok(list) => {
                upstream
                    .call(&conn, Effect::Reads, |_, out| {
                        request::get(out, &list);
                        Expect::values(list, limits).into()
                    })
                    .await
            }
            Err(error) => Err(error),
        };
        let values: Vec<_> = match values {
            Ok(Reply::Values(values)) => values.into_iter().map(Ok).collect(),
            Ok(_) => places.iter().map(|_| Err(unexpected().at(upstream.server()))).collect(),
            Err(error) => places.iter().map(|_| Err(error.clone())).collect(),
        };
        places.iter().copied().zip(values).collect::<Vec<_>>()
    });
    let singles = (0..wires.len()).filter(|at| wires[*at].is_base64()).map(async |at| {
        let answer = ask(upstream, &conn, Effect::Reads, |opaque, out| {
            let opaque = Some(opaque);
            let options = GetOptions { value: true, client_flags: true, opaque, ..GetOptions::default() };
            request::mg(out, &wires[at], &options);
            Expect::get(opaque, limits).into()
        });
        (at, answer.await.map(|answer| value_of(answer.reply)))
    });
    let (lists, singles) = futures_util::future::join(join_all(lists), join_all(singles)).await;
    let mut found: Vec<Result<Option<Value>>> = wires.iter().map(|_| Ok(None)).collect();
    for (at, value) in lists.into_iter().flatten().chain(singles) {
        found[at] = value;
    }
    found
}
