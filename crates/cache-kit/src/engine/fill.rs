//! Storing what was loaded, unless an invalidation came first.

use std::collections::HashMap;
use std::panic::catch_unwind;
use std::time::Duration;

use bytes::Bytes;

use super::absent::Room;
use super::flight::Leader;
use super::pending::Owed;
use super::versions::{Captured, Scope};
use super::{Engine, Request};
use crate::backend::{CacheBackend, Filled};
use crate::clock::Tick;
use crate::entity::CacheValue;
use crate::entry::{self, Entry, Stamp};
use crate::error::{Error, Result};
use crate::key::Key;
use crate::loaded::{Loaded, Previous};
use crate::observe::{Event, survived};
use crate::outcome::Stored;

/// Of what a bounded backend holds, one in so many may say "absent".
const ABSENT_SHARE: usize = 10;

/// What a load may do with its value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Permit {
    /// Fill under the lease that the leader holds.
    Lease,
    /// Write, as long as the key was not invalidated in this process: the backend has no fence.
    Unfenced,
    /// Leave it: somebody else holds the lease.
    LeftToOther,
    /// Leave it: what the backend holds is not known.
    Unknown,
    /// Leave it: the backend would refuse it, as it has refused what is needed for it.
    Refused,
}

impl Permit {
    /// What is left after versions could not be had.
    pub(super) fn after(error: &Error) -> Self {
        if error.is_permanent() { Self::Refused } else { Self::Unknown }
    }
}

/// When a load began, and with which versions.
pub(super) struct Began {
    pub(super) at: Tick,
    pub(super) captured: Captured,
}

/// An entry that is ready to be stored.
pub(super) struct Sealed {
    pub(super) entry: Bytes,
    /// Stale or fresh, if it is not read.
    pub(super) life: Option<Duration>,
    /// The same, if it is.
    pub(super) longest: Option<Duration>,
    /// The versions that it carries.
    pub(super) captured: Captured,
    /// Of one that says "absent".
    pub(super) room: Option<Room>,
}

/// What became of sealing something.
pub(super) enum Sealing {
    Sealed(Sealed),
    /// There is nothing to store.
    NotAsked,
    /// A tag that only the load has named may have been invalidated since it began.
    Overtaken,
}

/// What was learned, after a load, of tags that only the load has named.
#[derive(Default)]
pub(super) struct Chosen {
    versions: HashMap<Scope, u64>,
    any_tag: Option<u64>,
    /// Why some of them are not known.
    failed: Option<Error>,
}

/// A write that may have to be taken back, and is queued for that if it cannot be waited for.
struct Written<'a, B: CacheBackend, F: Fn() -> bool> {
    engine: &'a Engine<B>,
    key: &'a str,
    invalidated: &'a F,
    is_settled: bool,
}

impl<B: CacheBackend, F: Fn() -> bool> Drop for Written<'_, B, F> {
    fn drop(&mut self) {
        if !self.is_settled && (self.invalidated)() {
            self.engine.owe(Owed::Key(self.key.into()));
        }
    }
}

impl<B: CacheBackend> Engine<B> {
    /// Stores what was loaded as its permit allows.
    pub(super) async fn fill<T: CacheValue>(
        &self,
        leader: &mut Leader,
        request: &Request<'_>,
        (permit, began): (Permit, Option<&Began>),
        loaded: &Loaded<T>,
        cost: Duration,
    ) -> Result<Stored> {
        let key = request.key.as_str();
        let began = match (permit, began) {
            (Permit::LeftToOther, _) => return Ok(Stored::LeftToOther),
            (Permit::Lease | Permit::Unfenced, Some(began)) => began,
            (Permit::Refused, _) => {
                self.count(Event::StoreFailed);
                self.release_later(key, leader.lease.take());
                return Ok(Stored::Failed);
            }
            (Permit::Unknown, _) | (_, None) => {
                // A lease may be left of a backend that failed later.
                self.release_later(key, leader.lease.take());
                return Ok(Stored::BackendUnknown);
            }
        };
        let is_held = self.core.holds.contains(key);
        if permit == Permit::Lease && (leader.lease.is_none() || leader.is_detached() || is_held) {
            // The lease is void, or will be: nothing need be asked.
            self.release_later(key, leader.lease.take());
            return Ok(self.count_fill(Filled::Refused));
        }
        let chosen = self.learn_chosen(request, [(began, loaded)].into_iter()).await;
        let sealing = self.seal(request, began, loaded, cost, &chosen);
        let filled = match sealing {
            Ok(Sealing::Sealed(sealed)) => {
                let started = self.observer.start(&self.settings.clock);
                let Sealed { entry, life, longest, captured, room } = sealed;
                let store = async {
                    match &leader.lease {
                        Some(lease) => self.backend().fill(key, lease, entry, life).await,
                        None => {
                            let overtaken = || leader.is_detached() || self.core.holds.contains(key);
                            self.fill_unfenced(request, entry, life, overtaken).await
                        }
                    }
                };
                let keep = self.keep_versions(self.needs(key, &captured, longest).into_iter());
                let (filled, ()) = futures_util::future::join(store, keep).await;
                self.tell_fill(request, started, &filled);
                self.settle_absent(room, &filled);
                filled.map(Some)
            }
            Ok(Sealing::NotAsked) => Ok(None),
            Ok(Sealing::Overtaken) => Ok(Some(Filled::Refused)),
            Err(error) => Err(error),
        };
        let lease = leader.lease.take();
        match filled {
            Ok(Some(Filled::Stored)) => Ok(self.count_fill(Filled::Stored)),
            Ok(Some(Filled::Refused)) => {
                self.release_later(key, lease);
                Ok(self.count_fill(Filled::Refused))
            }
            Ok(None) => {
                self.release_later(key, lease);
                Ok(Stored::NotAsked)
            }
            Err(error) => {
                self.store_failed(&request.key, &error);
                self.release_later(key, lease);
                Err(error)
            }
        }
    }

    /// Keeps the room of an entry that says "absent", if it was stored.
    pub(super) fn settle_absent(&self, room: Option<Room>, filled: &Result<Filled>) {
        if let (Some(room), Ok(Filled::Stored)) = (room, filled) {
            room.keep();
            self.count(Event::AbsentStored);
        }
    }

    pub(super) fn tell_fill(&self, request: &Request<'_>, started: Option<Tick>, filled: &Result<Filled>) {
        if matches!(filled, Ok(Filled::Stored)) {
            let key = request.key.as_str();
            self.observer.timed(started, &self.settings.clock, |metrics, took| metrics.record_set(key, took));
        }
    }

    pub(super) fn store_failed(&self, key: &Key<'_>, error: &Error) {
        self.count(Event::StoreFailed);
        self.observer.tell(|metrics| metrics.record_error(key.as_str(), &error.to_string()));
        survived("a loaded value was not stored", error);
    }

    pub(super) fn count_fill(&self, filled: Filled) -> Stored {
        match filled {
            Filled::Stored => {
                self.count(Event::Stored);
                Stored::Yes
            }
            Filled::Refused => {
                self.count(Event::FencedOff);
                Stored::FencedOff
            }
        }
    }

    /// The entry of what was loaded. Of the versions with which its load began: one that an invalidation overtook is a miss.
    pub(super) fn seal<T: CacheValue>(
        &self,
        request: &Request<'_>,
        began: &Began,
        loaded: &Loaded<T>,
        cost: Duration,
        chosen: &Chosen,
    ) -> Result<Sealing> {
        let policy = self.policy(request);
        let mut ttl = match loaded.ttl {
            Some(ttl) => Some(ttl),
            None => self.life_of(request)?,
        };
        let mut stale = loaded.stale.unwrap_or_else(|| policy.stale_life());
        let is_absent = loaded.found().is_none();
        if is_absent {
            // The loader's own word counts, like the policy's, if it is shorter.
            ttl = Some(ttl.map_or(policy.absent_ttl, |ttl| ttl.min(policy.absent_ttl)));
            stale = Duration::ZERO;
        }
        if !loaded.may_be_stored || ttl == Some(Duration::ZERO) {
            return Ok(Sealing::NotAsked);
        }
        let Some(captured) = self.versions_of(began, loaded, chosen)? else {
            return Ok(Sealing::Overtaken);
        };
        let clock = &self.settings.clock;
        let mut room = None;
        if is_absent {
            let life = ttl.unwrap_or(policy.absent_ttl);
            room = self.core.absent.admit(clock.now(), life, self.most_absent());
            if room.is_none() {
                self.count(Event::AbsentRefused);
                return Ok(Sealing::NotAsked);
            }
        }
        // Drawn once, when the entry is written, and never longer than asked.
        let ttl = ttl.map(|ttl| jittered_life(ttl, policy.ttl_jitter));
        let stamp = Stamp {
            schema: request.schema,
            key_hash: request.key.hash(),
            written_at: clock.unix_millis(),
            ttl,
            idle: if is_absent { None } else { policy.idle },
            stale,
            load_cost: cost,
            space: captured.space,
            tags: &captured.tags,
            validator: loaded.version.as_deref(),
        };
        let settings = &self.settings;
        let limit =
            self.core.capabilities.max_value_bytes.unwrap_or(usize::MAX).min(settings.max_value_bytes);
        let codec = request.codec.unwrap_or(settings.codec);
        let entry = entry::seal(loaded.found(), codec, &stamp, settings.verify_roundtrip, limit)?;
        let life = match (ttl, stamp.idle) {
            (Some(ttl), Some(idle)) => Some(ttl.min(idle)),
            (ttl, idle) => ttl.or(idle),
        };
        let with_stale = |life: Option<Duration>| life.map(|life| life.saturating_add(stale));
        let (life, longest) = (with_stale(life), with_stale(ttl));
        Ok(Sealing::Sealed(Sealed { entry, life, longest, captured, room }))
    }

    /// How many entries may say "absent".
    fn most_absent(&self) -> usize {
        let most = self.settings.limits.max_absent;
        self.core.capabilities.max_entries.map_or(most, |entries| most.min(entries / ABSENT_SHARE))
    }

    /// Asks for the versions of tags that only loads have named, if this process did not know them before those began.
    pub(super) async fn learn_chosen<'l, T: 'l>(
        &self,
        request: &Request<'_>,
        loads: impl Iterator<Item = (&'l Began, &'l Loaded<T>)>,
    ) -> Chosen {
        let mut unknown = Vec::new();
        for (began, loaded) in loads {
            // What cannot be a tag is told where the entry is made.
            let Ok(tags) = loaded.tags() else { continue };
            for tag in tags.names() {
                let is_captured = began.captured.tags.iter().any(|(known, _)| known == tag);
                if !is_captured && self.core.versions.tag_before(tag, began.at).is_none() {
                    unknown.push(Scope::Tag(tag.clone()));
                }
            }
        }
        if unknown.is_empty() {
            return Chosen::default();
        }
        unknown.sort_unstable();
        unknown.dedup();
        let (mut view, life) = (self.view(request), self.life_of_versions(request));
        let versions = Box::pin(self.fetch_versions(&unknown, life)).await;
        let mut failed = view.take(&unknown, versions);
        // Asked for after the tags, which are invalidated after it.
        let any_tag = Box::pin(self.fetch_versions(&[Scope::AnyTag], life)).await;
        failed = failed.or(view.take(&[Scope::AnyTag], any_tag));
        let any_tag = view.fetched.remove(&Scope::AnyTag);
        Chosen { versions: view.fetched, any_tag, failed }
    }

    /// The versions that an entry carries; `None` if one of its tags, which only the load has named, may have been invalidated
    /// since the load began.
    fn versions_of<T>(&self, began: &Began, loaded: &Loaded<T>, chosen: &Chosen) -> Result<Option<Captured>> {
        let mut captured = began.captured.clone();
        for tag in loaded.tags()?.names() {
            if captured.tags.iter().any(|(known, _)| known == tag) {
                continue;
            }
            let version = match self.core.versions.tag_before(tag, began.at) {
                Some(version) => version,
                None => {
                    let learned = chosen.versions.get(&Scope::Tag(tag.clone()));
                    match (learned, captured.any_tag.zip(chosen.any_tag), &chosen.failed) {
                        (Some(version), Some((before, after)), _) if before == after => *version,
                        (Some(_), Some(_), _) => return Ok(None),
                        // Not known, before the load or after.
                        (_, _, Some(error)) => return Err(error.clone()),
                        _ => return Ok(None),
                    }
                }
            };
            captured.tags.push((tag.clone(), version));
        }
        if captured.tags.len() > entry::MAX_TAGS {
            return Err(Error::invalid(format!(
                "more than {} tags, with those of the call",
                entry::MAX_TAGS
            )));
        }
        Ok(Some(captured))
    }

    /// What an entry that is loaded anew has for its loader.
    pub(super) fn previous<T: CacheValue>(&self, request: &Request<'_>, bytes: &Bytes) -> Previous<T> {
        let limit = self.settings.max_value_bytes;
        let Ok(entry) = Entry::read(bytes, request.key.hash(), request.schema, limit) else {
            return Previous::default();
        };
        let Ok(Some(value)) = entry.value::<T>() else { return Previous::default() };
        let age = self.settings.clock.unix_millis().saturating_sub(entry.header.written_at);
        Previous {
            value: Some(value),
            version: entry.extras.validator.map(str::to_owned),
            age: Some(Duration::from_millis(age)),
            tags: entry.extras.tags().map(|(tag, _)| tag.to_owned()).collect(),
        }
    }

    /// For how long the value of this read is fresh: as the call or the entity says, else the cache, else its policy.
    pub(super) fn life_of(&self, request: &Request<'_>) -> Result<Option<Duration>> {
        let policy = &self.settings.ttl;
        let ttl = match request.ttl {
            Some(ttl) => Some(ttl),
            // It is somebody else's code.
            None => catch_unwind(|| policy.ttl_for(request.prefix))
                .map_err(|_| Error::invalid("the TtlPolicy panicked"))?,
        };
        let ttl = ttl.unwrap_or(self.policy(request).ttl);
        if ttl == Some(Duration::ZERO) {
            return Err(
                Error::invalid("ttl is zero, as the TtlPolicy says").with_hint("let it say at least 1 ms")
            );
        }
        Ok(ttl)
    }

    /// Writes if nothing was invalidated since the load began, looks again afterwards, and takes the value
    /// away if something was. Between the write and the second look another reader may see it: that is what
    /// a backend without a fence cannot prevent.
    pub(super) async fn fill_unfenced(
        &self,
        request: &Request<'_>,
        entry: Bytes,
        ttl: Option<Duration>,
        invalidated: impl Fn() -> bool + Send + Sync,
    ) -> Result<Filled> {
        if invalidated() {
            return Ok(Filled::Refused);
        }
        let key = request.key.as_str();
        let mut written = Written { engine: self, key, invalidated: &invalidated, is_settled: false };
        self.backend().set(key, entry, ttl).await?;
        if invalidated() {
            self.backend().delete(key).await?;
            written.is_settled = true;
            return Ok(Filled::Refused);
        }
        written.is_settled = true;
        Ok(Filled::Stored)
    }
}

/// A life from which a random share is taken.
fn jittered_life(ttl: Duration, share: f64) -> Duration {
    if share == 0.0 {
        return ttl;
    }
    let taken = ttl.mul_f64(share * fastrand::f64());
    ttl.saturating_sub(taken).max(Duration::from_millis(1)).min(ttl)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_life_is_shortened_by_a_share_of_itself_at_most_and_never_to_nothing() {
        let ttl = Duration::from_secs(100);
        let lives: Vec<Duration> = (0..1_000).map(|_| jittered_life(ttl, 0.1)).collect();
        assert!(lives.iter().all(|life| (Duration::from_secs(90)..=ttl).contains(life)));
        let (least, most) = (lives.iter().min().unwrap(), lives.iter().max().unwrap());
        assert!(*least < Duration::from_secs(91) && *most > Duration::from_secs(99), "{least:?} {most:?}");
        assert_eq!(jittered_life(ttl, 0.0), ttl);
        assert_eq!(jittered_life(Duration::from_nanos(5), 0.5), Duration::from_nanos(5));
        assert_eq!(jittered_life(Duration::MAX, 0.0), Duration::MAX);
    }
}
