//! Asking the backend for versions, and making those that are missing.

use std::collections::HashMap;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;

use super::keep::with_slack;
use super::{Asked, Bound, Cell, Learned, Record, Scope};
use crate::backend::{Acquired, CacheBackend, Claim, Distribution, Fence, Fill, Filled, Lease};
use crate::clock::jittered;
use crate::engine::lookup::quarantined;
use crate::engine::pending::Owed;
use crate::engine::{Engine, Request};
use crate::error::{Error, ErrorKind, Result};
use crate::key::Key;

/// Where the version of a namespace stands; no key of a user begins like this.
const SPACE: &str = "%space";
const TAG: &str = "%tag";
const ANY_TAG: &str = "%tags";

/// So often, for about a tenth of a second, a version that another process is making is looked for. Then it is made over.
const PATIENCE: u32 = 8;
const PAUSE: Duration = Duration::from_millis(5);
/// So many versions are read one by one.
const FEW: usize = 4;
/// So often one is asked for again that this process has changed in between.
const OVERTAKEN: usize = 4;
/// How long the lease of a version lives. Everybody waits for it, and it takes one exchange to make one.
pub(super) const VERSION_LEASE: Duration = Duration::from_millis(500);

/// The versions that a load began with.
#[derive(Clone, Debug)]
pub(in crate::engine) struct Captured {
    pub(in crate::engine) space: u64,
    /// Of the tags that were named before the load.
    pub(in crate::engine) tags: Vec<(Box<str>, u64)>,
    /// For a load that may name tags itself.
    pub(in crate::engine) any_tag: Option<u64>,
}

/// What one lookup knows of versions.
pub(in crate::engine) struct View {
    pub(in crate::engine) bound: Bound,
    /// Asked for during this lookup.
    pub(in crate::engine) fetched: HashMap<Scope, u64>,
}

impl View {
    pub(in crate::engine) fn fetched(&self, scope: &Scope) -> Option<u64> {
        self.fetched.get(scope).copied()
    }

    /// Takes what was asked for, and gives the first error.
    pub(in crate::engine) fn take(&mut self, scopes: &[Scope], versions: Vec<Result<u64>>) -> Option<Error> {
        let mut failed = None;
        for (scope, version) in scopes.iter().zip(versions) {
            match version {
                Ok(version) => {
                    self.fetched.insert(scope.clone(), version);
                }
                Err(error) => {
                    failed.get_or_insert(error);
                }
            }
        }
        failed
    }
}

/// A version, and whether this lookup has asked for it itself.
pub(in crate::engine) type Known = Option<(u64, bool)>;

impl<B: CacheBackend> Engine<B> {
    /// What a lookup that begins now may use of what is remembered.
    pub(in crate::engine) fn view(&self, request: &Request<'_>) -> View {
        let bound = if self.is_shared() {
            Bound::Tick(self.settings.clock.now().before(self.policy(request).tag_version_max_age))
        } else {
            Bound::Generation
        };
        View { bound, fetched: HashMap::new() }
    }

    /// Whether others than this process change what the backend has.
    pub(in crate::engine) fn is_shared(&self) -> bool {
        self.core.capabilities.distribution != Distribution::SingleProcess
    }

    /// The part that a key is on.
    pub(in crate::engine) fn shard(&self, key: &str) -> usize {
        if self.backend().shards() <= 1 { 0 } else { self.backend().shard_of(key) }
    }

    pub(in crate::engine) fn space_version(&self, shard: usize, view: &View) -> Known {
        if !view.fetched.is_empty()
            && let Some(version) = view.fetched(&Scope::Shard(shard))
        {
            return Some((version, true));
        }
        let version = self.core.versions.shard(shard, self.backend().shards()).known(view.bound)?;
        Some((version, false))
    }

    pub(in crate::engine) fn tag_version(&self, tag: &str, view: &View) -> Known {
        if !view.fetched.is_empty()
            && let Some(version) = view.fetched(&Scope::Tag(tag.into()))
        {
            return Some((version, true));
        }
        Some((self.core.versions.known_tag(tag, view.bound)?, false))
    }

    fn any_tag_version(&self, view: &View) -> Option<u64> {
        view.fetched(&Scope::AnyTag).or_else(|| self.core.versions.any_tag.known(view.bound))
    }

    /// What a load of this key will need that is not known; what is known goes into the view, so that it is the same when
    /// the rest has come.
    pub(in crate::engine) fn due_to_load(
        &self,
        request: &Request<'_>,
        view: &mut View,
        due: &mut Vec<Scope>,
    ) {
        let mut note = |view: &mut View, scope: Scope, known: Known| match known {
            Some((version, _)) => {
                view.fetched.insert(scope, version);
            }
            None if !due.contains(&scope) => due.push(scope),
            None => {}
        };
        let shard = self.shard(request.key.as_str());
        let space = self.space_version(shard, view);
        note(view, Scope::Shard(shard), space);
        for tag in request.tags.names() {
            let known = self.tag_version(tag, view);
            note(view, Scope::Tag(tag.clone()), known);
        }
        if request.may_choose_tags {
            let known = self.any_tag_version(view).map(|version| (version, false));
            note(view, Scope::AnyTag, known);
        }
    }

    /// What a lookup of this key will need that is not known.
    pub(in crate::engine) fn due(&self, request: &Request<'_>, view: &View, due: &mut Vec<Scope>) {
        let mut add = |scope: Scope| {
            if !due.contains(&scope) {
                due.push(scope);
            }
        };
        let shard = self.shard(request.key.as_str());
        if self.space_version(shard, view).is_none() {
            add(Scope::Shard(shard));
        }
        for tag in request.tags.names() {
            if self.tag_version(tag, view).is_none() {
                add(Scope::Tag(tag.clone()));
            }
        }
        if request.may_choose_tags && self.any_tag_version(view).is_none() {
            add(Scope::AnyTag);
        }
    }

    /// Asks the backend for something, and for the versions beside it that its answer will be held against.
    pub(in crate::engine) async fn beside_versions<R>(
        &self,
        request: &Request<'_>,
        view: &mut View,
        asked: impl Future<Output = R>,
    ) -> R {
        let mut due = Vec::new();
        // Where nothing has far to go, what is needed is asked for when it is.
        if self.is_shared() {
            self.due(request, view, &mut due);
        }
        if due.is_empty() {
            return asked.await;
        }
        let fetch = Box::pin(self.fetch_versions(&due, self.life_of_versions(request)));
        let (fetched, answer) = futures_util::future::join(fetch, asked).await;
        // What is not known is asked for again where it is needed.
        let _failed = view.take(&due, fetched);
        answer
    }

    /// The versions that a load which begins now is held against.
    pub(in crate::engine) async fn capture(&self, request: &Request<'_>) -> Result<Captured> {
        let mut view = self.view(request);
        let mut due = Vec::new();
        self.due_to_load(request, &mut view, &mut due);
        let mut failed = None;
        if !due.is_empty() {
            let versions = Box::pin(self.fetch_versions(&due, self.life_of_versions(request))).await;
            failed = view.take(&due, versions);
        }
        self.captured(request, &view).map_err(|error| failed.unwrap_or(error))
    }

    /// The versions of a lookup that has asked for all it needs. Without that of any tag, a load can do but name tags.
    pub(in crate::engine) fn captured(&self, request: &Request<'_>, view: &View) -> Result<Captured> {
        // One may have been invalidated since.
        let (space, _) = self.space_version(self.shard(request.key.as_str()), view).ok_or_else(under_way)?;
        let tags = request.tags.names().iter().map(|tag| {
            let (version, _) = self.tag_version(tag, view).ok_or_else(under_way)?;
            Ok((tag.clone(), version))
        });
        let tags = tags.collect::<Result<_>>()?;
        let any_tag = request.may_choose_tags.then(|| self.any_tag_version(view)).flatten();
        Ok(Captured { space, tags, any_tag })
    }

    /// Asks for versions, all or none.
    pub(in crate::engine) async fn fetch_into(
        &self,
        view: &mut View,
        scopes: &[Scope],
        life: Option<Duration>,
    ) -> Result<()> {
        let versions = Box::pin(self.fetch_versions(scopes, life)).await;
        view.take(scopes, versions).map_or(Ok(()), Err)
    }

    /// Asks the backend for versions, and makes those that are missing, for entries that live so long.
    pub(in crate::engine) async fn fetch_versions(
        &self,
        scopes: &[Scope],
        life: Option<Duration>,
    ) -> Vec<Result<u64>> {
        let shards = self.backend().shards();
        let cells: Vec<_> = scopes.iter().map(|scope| self.core.versions.cell(scope, shards)).collect();
        let keys: Vec<String> = scopes.iter().map(|scope| self.scope_key(scope)).collect();
        let mut versions: Vec<Result<u64>> = scopes.iter().map(|_| Err(under_way())).collect();
        let mut left: Vec<usize> = (0..scopes.len()).collect();
        // Again for those that this process has changed in between: what was answered may be of before.
        for _ in 0..OVERTAKEN {
            // What is owed is not believed; who asked before it was settled does not believe what came after.
            left.retain(|&at| {
                let is_owed = self.core.pending.len() != 0 && self.owes(&scopes[at]);
                if is_owed {
                    self.replay_soon();
                    versions[at] = Err(quarantined());
                }
                !is_owed
            });
            if left.is_empty() {
                break;
            }
            let at = self.settings.clock.now();
            let asked: Vec<Asked> =
                left.iter().map(|&index| Cell::ask(&cells[index], at, &keys[index])).collect();
            let wanted: Vec<&str> = left.iter().map(|&index| keys[index].as_str()).collect();
            let records = self.read_or_make(&wanted, life.map(with_slack)).await;
            let answered_at = self.settings.clock.now();
            let mut again = Vec::new();
            for ((index, asked), record) in left.iter().copied().zip(asked).zip(records) {
                versions[index] = match record {
                    Ok(record) => match cells[index].learn(asked, record, answered_at) {
                        Learned::Known | Learned::ForOnce => Ok(record.version),
                        Learned::Overtaken => {
                            again.push(index);
                            Err(under_way())
                        }
                    },
                    Err(error) => Err(error),
                };
            }
            left = again;
        }
        versions
    }

    fn owes(&self, scope: &Scope) -> bool {
        let pending = &self.core.pending;
        match Owed::of(scope) {
            Some(owed) => pending.owes(&owed) || (owed.is_space() && pending.owes(&Owed::Space)),
            None => false,
        }
    }

    async fn read_or_make(&self, keys: &[&str], life: Option<Duration>) -> Vec<Result<Record>> {
        let mut records: Vec<Option<Result<Record>>> = keys.iter().map(|_| None).collect();
        let mut seen: Vec<Option<Bytes>> = keys.iter().map(|_| None).collect();
        // A lagging copy could show a version that was removed long ago; a lease is asked of whoever decides.
        if !self.core.capabilities.reads_may_lag {
            match self.read(keys).await {
                Ok(found) if found.len() == keys.len() => {
                    for (at, found) in found.into_iter().enumerate() {
                        match found {
                            Ok(Some(bytes)) => match Record::parse(&bytes) {
                                Some(record) => records[at] = Some(Ok(record)),
                                None => seen[at] = Some(bytes),
                            },
                            Ok(None) => {}
                            Err(error) => records[at] = Some(Err(error)),
                        }
                    }
                }
                Ok(_) => return keys.iter().map(|_| Err(miscounted())).collect(),
                Err(error) => return keys.iter().map(|_| Err(error.clone())).collect(),
            }
        }
        let mut missing: Vec<usize> = (0..keys.len()).filter(|&at| records[at].is_none()).collect();
        if !missing.is_empty() && self.backend().capabilities().fence != Fence::Leases {
            let made = missing.iter().map(|&at| self.make_unfenced(keys[at]));
            for (at, record) in missing.iter().zip(join_all(made).await) {
                records[*at] = Some(record);
            }
            missing.clear();
        }
        let mut tried = 0;
        while !missing.is_empty() && tried < PATIENCE {
            self.make(keys, &mut missing, &mut seen, &mut records, life).await;
            tried += 1;
            if !missing.is_empty() {
                self.settings.clock.sleep(jittered(PAUSE * tried)).await;
            }
        }
        // Whoever has the lease of what is left has gone. What is written over it is drawn at random like any other.
        let made = missing.iter().map(|&at| self.make_over(keys[at], life));
        for (at, record) in missing.iter().zip(join_all(made).await) {
            records[*at] = Some(record);
        }
        records.into_iter().map(|record| record.unwrap_or_else(|| Err(miscounted()))).collect()
    }

    async fn read(&self, keys: &[&str]) -> Result<Vec<Result<Option<Bytes>>>> {
        if keys.len() <= FEW {
            // A backend that puts reads together puts them beside the entry's.
            return Ok(join_all(keys.iter().map(|key| self.backend().get(key))).await);
        }
        self.backend().mget_each(keys).await
    }

    /// Makes the versions that are missing, or learns of those that others have made meanwhile.
    async fn make(
        &self,
        keys: &[&str],
        missing: &mut Vec<usize>,
        seen: &mut [Option<Bytes>],
        records: &mut [Option<Result<Record>>],
        life: Option<Duration>,
    ) {
        let claims: Vec<Claim<'_>> =
            missing.iter().map(|&at| Claim { key: keys[at], seen: seen[at].as_ref() }).collect();
        let acquired = match self.backend().acquire_many(&claims, VERSION_LEASE).await {
            Ok(acquired) if acquired.len() == missing.len() => acquired,
            Ok(_) => missing.iter().map(|_| Err(miscounted())).collect(),
            Err(error) => missing.iter().map(|_| Err(error.clone())).collect(),
        };
        let now = self.settings.clock.unix_millis();
        let mut granted = Vec::new();
        for (&at, acquired) in missing.iter().zip(acquired) {
            match acquired {
                Ok(Acquired::Granted { lease, .. }) => {
                    let making = Making { engine: self, key: keys[at], lease: Some(lease) };
                    granted.push((at, making, Record::draw(now, life)));
                }
                Ok(Acquired::Present { value }) => match Record::parse(&value) {
                    Some(record) => records[at] = Some(Ok(record)),
                    None => seen[at] = Some(value),
                },
                Ok(Acquired::Busy { .. } | Acquired::Unfenced) => {}
                Err(error) => records[at] = Some(Err(error)),
            }
        }
        if granted.is_empty() {
            missing.retain(|&at| records[at].is_none());
            return;
        }
        let filled = {
            let fills = granted.iter().filter_map(|(at, making, record)| {
                let (lease, value) = (making.lease.as_ref()?, record.to_bytes());
                Some(Fill { key: keys[*at], lease, value, ttl: record.ttl(now) })
            });
            self.backend().fill_many(&fills.collect::<Vec<_>>()).await
        };
        let mut filled = match filled {
            Ok(filled) => filled.into_iter(),
            Err(error) => granted.iter().map(|_| Err(error.clone())).collect::<Vec<_>>().into_iter(),
        };
        for (at, making, record) in granted {
            // A version counts once the backend has said that it is there.
            records[at] = match filled.next() {
                Some(Ok(Filled::Stored)) => {
                    making.done();
                    Some(Ok(record))
                }
                Some(Ok(Filled::Refused)) => None,
                Some(Err(error)) => Some(Err(error)),
                None => Some(Err(miscounted())),
            };
        }
        missing.retain(|&at| records[at].is_none());
    }

    /// Without leases two processes may make one at the same time. The one that stays is the one that both then read. Without
    /// end, since it could not be prolonged without the danger that one comes back which was removed.
    async fn make_unfenced(&self, key: &str) -> Result<Record> {
        if let Some(record) = self.read_unfenced(key).await? {
            return Ok(record);
        }
        let record = Record::draw(0, None);
        self.backend().set(key, record.to_bytes(), None).await?;
        self.read_unfenced(key).await?.ok_or_else(|| {
            Error::new(ErrorKind::Unavailable, "a version that was just stored is not there")
                .with_backend(self.core.capabilities.name)
        })
    }

    /// Makes one in place of a lease that nobody fills. If another is made at the same time, the one that stays counts.
    async fn make_over(&self, key: &str, life: Option<Duration>) -> Result<Record> {
        let now = self.settings.clock.unix_millis();
        let record = Record::draw(now, life);
        self.backend().set(key, record.to_bytes(), record.ttl(now)).await?;
        self.read_unfenced(key).await?.ok_or_else(under_way)
    }

    async fn read_unfenced(&self, key: &str) -> Result<Option<Record>> {
        if !self.core.capabilities.reads_may_lag {
            return Ok(self.backend().get(key).await?.as_deref().and_then(Record::parse));
        }
        // Where nothing is leased, to ask for a lease is to read what is really there.
        match self.backend().acquire(key, None, VERSION_LEASE).await? {
            Acquired::Present { value } => Ok(Record::parse(&value)),
            Acquired::Granted { lease, .. } => {
                self.release_later(key, Some(lease));
                Ok(None)
            }
            Acquired::Busy { .. } | Acquired::Unfenced => Ok(None),
        }
    }

    /// Where a version stands.
    pub(super) fn scope_key(&self, scope: &Scope) -> String {
        let namespace = self.settings.namespace.as_deref();
        match scope {
            Scope::Shard(shard) => {
                let name = Key::reserved(namespace, SPACE, None);
                if self.backend().shards() <= 1 { name } else { self.backend().shard_key(*shard, &name) }
            }
            Scope::Tag(tag) => Key::reserved(namespace, TAG, Some(tag)),
            Scope::AnyTag => Key::reserved(namespace, ANY_TAG, None),
        }
    }
}

/// The lease of a version that is being made, given back if nothing comes of it.
pub(super) struct Making<'a, B: CacheBackend> {
    pub(super) engine: &'a Engine<B>,
    pub(super) key: &'a str,
    pub(super) lease: Option<Lease>,
}

impl<B: CacheBackend> Making<'_, B> {
    /// The lease has ended with its fill.
    pub(super) fn done(mut self) {
        self.lease = None;
    }
}

impl<B: CacheBackend> Drop for Making<'_, B> {
    fn drop(&mut self) {
        self.engine.release_later(self.key, self.lease.take());
    }
}

fn under_way() -> Error {
    Error::new(ErrorKind::Unavailable, "an invalidation is under way")
}

fn miscounted() -> Error {
    Error::new(ErrorKind::Unavailable, "the backend did not answer once for each key")
}
