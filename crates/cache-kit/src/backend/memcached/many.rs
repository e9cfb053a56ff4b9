//! Leases and fills of many keys, in one exchange for each server or connection; and keys that belong to one server.

use std::borrow::Cow;
use std::mem;
use std::sync::Arc;
use std::time::Duration;

use cache_kit_memcached::SetOver;
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use futures_util::stream::FuturesUnordered;

use super::error::convert;
use super::fence::{Look, SeenValue, Version, filled, filling, look};
use super::{Shared, check_ttl};
use crate::backend::releases::Releases;
use crate::backend::{Acquired, Claim, Fill, Filled, check_life};
use crate::error::Result;

/// Names that are tried to find one that belongs to a server. One that has a fair part of the keys is met in a few.
const NAMES: usize = 100_000;

/// The claims on keys of one server.
struct Claims<'a> {
    shared: &'a Arc<Shared>,
    server: usize,
    all: &'a [Claim<'a>],
    /// The keys of all of them on their servers.
    full: &'a [Cow<'a, str>],
    life: Duration,
}

/// The answers that have come, by the place of their claim. Dropped with them, as when the caller goes away while others
/// are awaited, the leases among them are given back.
struct Answers<'a> {
    shared: &'a Arc<Shared>,
    claims: &'a [Claim<'a>],
    come: Vec<(usize, Result<Acquired>)>,
}

impl Drop for Answers<'_> {
    fn drop(&mut self) {
        for (at, answer) in self.come.drain(..) {
            if let Ok(Acquired::Granted { lease, .. }) = answer {
                Releases::put(self.shared, self.claims[at].key, lease);
            }
        }
    }
}

impl<'a> Claims<'a> {
    /// All keys of the server are looked at in one exchange, and those that were seen are leased in a second one. Where
    /// others were at it at the same time, keys go on one by one, side by side.
    async fn acquire(self, wanted: &[usize]) -> Answers<'a> {
        let (shared, client) = (self.shared, &self.shared.client);
        let mut answers = Answers { shared, claims: self.all, come: Vec::with_capacity(wanted.len()) };
        let keys: Vec<&[u8]> = wanted.iter().map(|at| self.full[*at].as_bytes()).collect();
        let looks = client.meta_get_many(self.server, &keys, look(self.life)).await;
        let (mut seen, mut again) = (Vec::new(), Vec::new());
        for ((at, key), answer) in wanted.iter().zip(&keys).zip(looks) {
            match shared.looked(key, answer, self.all[*at].seen) {
                Ok(Look::Done(acquired)) => answers.come.push((*at, Ok(acquired))),
                Ok(Look::Seen(value)) => seen.push((*at, value)),
                Ok(Look::Spent(version)) => again.push((*at, Some(version))),
                Err(error) => answers.come.push((*at, Err(error))),
            }
        }
        self.lease(seen, &mut answers, &mut again).await;
        let mut again: FuturesUnordered<_> =
            again.into_iter().map(async |(at, spent)| (at, self.once_more(at, spent).await)).collect();
        while let Some(answer) = again.next().await {
            answers.come.push(answer);
        }
        answers
    }

    /// Takes leases over values that stay readable.
    async fn lease(
        &self,
        seen: Vec<(usize, SeenValue)>,
        answers: &mut Answers<'_>,
        again: &mut Vec<(usize, Option<Version>)>,
    ) {
        let leased: Vec<_> = seen.iter().map(|(_, value)| value.leased(self.life)).collect();
        let sets = seen.iter().zip(&leased).map(|((at, _), (connection, data, options))| SetOver {
            connection: *connection,
            key: self.full[*at].as_bytes(),
            value: data,
            options: *options,
        });
        let stored = self.shared.client.meta_set_many_over(&sets.collect::<Vec<_>>()).await;
        for ((at, value), stored) in seen.into_iter().zip(stored) {
            match stored.map(|stored| value.acquired(stored, self.life)) {
                Ok(Some(acquired)) => answers.come.push((at, Ok(acquired))),
                Ok(None) => again.push((at, None)),
                Err(error) => answers.come.push((at, Err(convert("acquire", error)))),
            }
        }
    }

    async fn once_more(&self, at: usize, spent: Option<Version>) -> Result<Acquired> {
        if let Some(version) = spent {
            self.shared.drop_exactly(self.full[at].as_bytes(), version).await?;
        }
        let Claim { key, seen } = self.all[at];
        self.shared.acquire(key, seen, self.life).await
    }
}

impl Shared {
    pub(super) async fn acquire_many(
        self: &Arc<Self>,
        claims: &[Claim<'_>],
        life: Duration,
    ) -> Vec<Result<Acquired>> {
        if let Err(error) = check_life(life) {
            return claims.iter().map(|_| Err(error.clone())).collect();
        }
        let full: Vec<Cow<'_, str>> = claims.iter().map(|claim| self.full(claim.key)).collect();
        let mut by_server: Vec<Vec<usize>> = vec![Vec::new(); self.client.servers()];
        for (at, key) in full.iter().enumerate() {
            by_server[self.client.server_of(key.as_bytes())].push(at);
        }
        let of_servers = by_server.iter().enumerate().filter(|(_, wanted)| !wanted.is_empty());
        let of_servers = of_servers.map(|(server, wanted)| {
            Claims { shared: self, server, all: claims, full: &full, life }.acquire(wanted)
        });
        let mut come: Vec<(usize, Result<Acquired>)> = Vec::with_capacity(claims.len());
        for mut answers in join_all(of_servers).await {
            come.append(&mut mem::take(&mut answers.come));
        }
        come.sort_unstable_by_key(|(at, _)| *at);
        come.into_iter().map(|(_, answer)| answer).collect()
    }

    pub(super) async fn fill_many(&self, fills: &[Fill<'_>]) -> Vec<Result<Filled>> {
        let full: Vec<Cow<'_, str>> = fills.iter().map(|fill| self.full(fill.key)).collect();
        let (mut sent, mut sets) = (Vec::with_capacity(fills.len()), Vec::with_capacity(fills.len()));
        let mut answers = Vec::with_capacity(fills.len());
        for (at, fill) in fills.iter().enumerate() {
            let how = check_ttl(fill.ttl).and_then(|()| filling(fill.lease, fill.ttl));
            answers.push(match how {
                Ok(Some((connection, options))) => {
                    sent.push(at);
                    sets.push(SetOver { connection, key: full[at].as_bytes(), value: &fill.value, options });
                    // Until it is known better.
                    Ok(Filled::Refused)
                }
                Ok(None) => Ok(Filled::Refused),
                Err(error) => Err(error),
            });
        }
        for (at, stored) in sent.into_iter().zip(self.client.meta_set_many_over(&sets).await) {
            answers[at] = filled(stored);
        }
        answers
    }

    pub(super) fn server_of(&self, key: &str) -> usize {
        self.client.server_of(self.full(key).as_bytes())
    }

    /// The first of `name~0`, `name~1` and so on that belongs to this server. One that has no keys has one of its own
    /// all the same, by its place among the addresses, which no order of the list changes.
    pub(super) fn key_of_server(&self, server: usize, name: &str) -> String {
        let keys = (0..NAMES).map(|number| format!("{name}~{number}"));
        let found = keys.into_iter().find(|key| self.server_of(key) == server);
        found.unwrap_or_else(|| {
            let addresses = (0..self.client.servers()).map(|other| self.client.address(other));
            let address = addresses.clone().nth(server).unwrap_or_default();
            let place = addresses.filter(|other| *other < address).count();
            format!("{name}~{}", NAMES + place)
        })
    }
}
