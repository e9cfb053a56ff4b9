//! Versions live as long as the entries that carry them, and no longer: when the last entry has expired, so will they.

use std::time::Duration;

use super::fetch::{Captured, Making, VERSION_LEASE};
use super::{Record, Scope};
use crate::backend::{Acquired, CacheBackend, Claim, Fill, Filled};
use crate::engine::{Engine, Request};

/// A version is stored for this much longer than an entry lives, so that it is not written with each entry.
const SHORTEST_SLACK: Duration = Duration::from_secs(1);
const LONGEST_SLACK: Duration = Duration::from_secs(3600);

/// How long a version is stored for an entry that lives so long.
pub(super) fn with_slack(life: Duration) -> Duration {
    life.saturating_add((life / 4).clamp(SHORTEST_SLACK, LONGEST_SLACK))
}

impl<B: CacheBackend> Engine<B> {
    /// How long the entry lives that the load of this request stores, and so its versions.
    pub(in crate::engine) fn life_of_versions(&self, request: &Request<'_>) -> Option<Duration> {
        let life = self.life_of(request).ok().flatten()?;
        Some(life.saturating_add(self.policy(request).stale_life()))
    }

    /// The versions that an entry needs, for as long as it lives.
    pub(in crate::engine) fn needs(
        &self,
        key: &str,
        captured: &Captured,
        life: Option<Duration>,
    ) -> Vec<(Scope, u64, Option<Duration>)> {
        let tags = captured.tags.iter().map(|(tag, version)| (Scope::Tag(tag.clone()), *version, life));
        std::iter::once((Scope::Shard(self.shard(key)), captured.space, life)).chain(tags).collect()
    }

    /// Sees to it that the versions of entries are there for as long as those are themselves. Without one an entry is a miss,
    /// so what fails here costs a load and nothing else.
    pub(in crate::engine) async fn keep_versions(
        &self,
        needed: impl Iterator<Item = (Scope, u64, Option<Duration>)>,
    ) {
        let now = self.settings.clock.unix_millis();
        let shards = self.backend().shards();
        let mut short: Vec<(Scope, Record, Option<Duration>)> = Vec::new();
        for (scope, version, life) in needed {
            let end = Record::end(now, life);
            if let Some(record) = self.core.versions.cell(&scope, shards).expires_before(version, end) {
                short.push((scope, record, life));
            }
        }
        // Of those that many entries need, for as long as the longest of them lives; without end comes last.
        short.sort_unstable_by_key(|(scope, _, life)| (scope.clone(), life.unwrap_or(Duration::MAX)));
        short.reverse();
        short.dedup_by(|one, other| one.0 == other.0);
        if !short.is_empty() {
            Box::pin(self.prolong(short, now)).await;
        }
    }

    async fn prolong(&self, short: Vec<(Scope, Record, Option<Duration>)>, now: u64) {
        let keys: Vec<String> = short.iter().map(|(scope, ..)| self.scope_key(scope)).collect();
        let (at, shards) = (self.settings.clock.now(), self.backend().shards());
        let cells: Vec<_> = short.iter().map(|(scope, ..)| self.core.versions.cell(scope, shards)).collect();
        let asked: Vec<_> = cells.iter().zip(&keys).map(|(cell, key)| cell.ask(at, key)).collect();
        let held: Vec<_> = short.iter().map(|(_, record, _)| record.to_bytes()).collect();
        let claims: Vec<Claim<'_>> =
            keys.iter().zip(&held).map(|(key, held)| Claim { key, seen: Some(held) }).collect();
        let Ok(acquired) = self.backend().acquire_many(&claims, VERSION_LEASE).await else { return };
        let mut granted = Vec::new();
        for (at, acquired) in acquired.into_iter().enumerate().take(short.len()) {
            let (_, record, life) = &short[at];
            match acquired {
                Ok(Acquired::Granted { lease, kept: Some(_) }) => {
                    let expires_at = Record::end(now, life.map(with_slack));
                    let making = Making { engine: self, key: &keys[at], lease: Some(lease) };
                    granted.push((at, making, Record { expires_at, ..*record }));
                }
                // It is gone, and must not come back.
                Ok(Acquired::Granted { lease, kept: None }) => self.release_later(&keys[at], Some(lease)),
                // Another process has done it.
                Ok(Acquired::Present { value }) => {
                    if let Some(record) = Record::parse(&value) {
                        let _ = cells[at].learn(asked[at], record, self.settings.clock.now());
                    }
                }
                Ok(Acquired::Busy { .. } | Acquired::Unfenced) | Err(_) => {}
            }
        }
        if granted.is_empty() {
            return;
        }
        let filled = {
            let fills = granted.iter().filter_map(|(at, making, record)| {
                let (lease, value) = (making.lease.as_ref()?, record.to_bytes());
                Some(Fill { key: &keys[*at], lease, value, ttl: record.ttl(now) })
            });
            self.backend().fill_many(&fills.collect::<Vec<_>>()).await
        };
        let Ok(filled) = filled else { return };
        let answered_at = self.settings.clock.now();
        for ((at, making, record), filled) in granted.into_iter().zip(filled) {
            if matches!(filled, Ok(Filled::Stored)) {
                making.done();
                let _ = cells[at].learn(asked[at], record, answered_at);
            }
        }
    }
}
