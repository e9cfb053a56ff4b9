//! Invalidating everything with a tag, or everything: the versions go, and whoever needs one makes another.

use std::sync::Arc;

use futures_util::future::join_all;

use super::{Cell, Scope, bump};
use crate::backend::CacheBackend;
use crate::engine::Engine;
use crate::engine::pending::Owed;
use crate::error::{Error, ErrorKind, Result};
use crate::observe::Event;

/// An invalidation on its way: nothing is remembered of its versions until it has ended. What the backend has not confirmed
/// when it ends is queued, be it because its caller went away.
struct Change<'a, B: CacheBackend> {
    engine: &'a Engine<B>,
    scopes: Vec<(Scope, Arc<Cell>)>,
    any_tag: Option<Arc<Cell>>,
    /// Of the first request that this one does not settle.
    number: u64,
    /// Those that the backend has confirmed.
    confirmed: Vec<bool>,
}

impl<'a, B: CacheBackend> Change<'a, B> {
    fn begin(engine: &'a Engine<B>, scopes: Vec<Scope>) -> Self {
        let (versions, shards) = (&engine.core.versions, engine.backend().shards());
        let number = engine.core.pending.number();
        let any_tag =
            scopes.iter().any(|scope| matches!(scope, Scope::Tag(_))).then(|| Arc::clone(&versions.any_tag));
        let confirmed = vec![false; scopes.len()];
        let scopes: Vec<_> = scopes
            .into_iter()
            .map(|scope| {
                let cell = versions.cell(&scope, shards);
                (scope, cell)
            })
            .collect();
        let change = Self { engine, scopes, any_tag, number, confirmed };
        change.cells().for_each(|cell| cell.begin_change());
        change.bump();
        change.detach();
        change
    }

    /// Other caches in this process may be over the same store.
    fn bump(&self) {
        self.scopes.iter().for_each(|(scope, _)| bump(&self.engine.scope_key(scope)));
        if self.any_tag.is_some() {
            bump(&self.engine.scope_key(&Scope::AnyTag));
        }
    }

    fn cells(&self) -> impl Iterator<Item = &Arc<Cell>> {
        self.scopes.iter().map(|(_, cell)| cell).chain(&self.any_tag)
    }

    /// Loads that may be of what is invalidated are not joined any more.
    fn detach(&self) {
        let tags: Vec<&str> = self
            .scopes
            .iter()
            .filter_map(|(scope, _)| match scope {
                Scope::Tag(tag) => Some(&**tag),
                _ => None,
            })
            .collect();
        if tags.len() < self.scopes.len() {
            self.engine.detach_all();
        } else {
            self.engine.detach_tagged(&tags);
        }
    }
}

impl<B: CacheBackend> Drop for Change<'_, B> {
    fn drop(&mut self) {
        for ((scope, _), confirmed) in self.scopes.iter().zip(&self.confirmed) {
            let Some(owed) = Owed::of(scope) else { continue };
            // Of one that is known to have but one part, it may turn out that it has many.
            let owed = if owed.is_space() && self.scopes.len() == 1 { Owed::Space } else { owed };
            if *confirmed {
                self.engine.core.pending.confirm(&owed, self.number);
            } else {
                self.engine.owe(owed);
            }
        }
        // A load that began in between may have been answered by an entry that was good until just now.
        self.detach();
        if self.confirmed.iter().all(|confirmed| *confirmed)
            && self.scopes.iter().all(|(scope, _)| matches!(scope, Scope::Shard(_)))
        {
            self.engine.core.pending.confirm(&Owed::Space, self.number);
        }
        self.cells().for_each(|cell| cell.end_change());
        self.bump();
    }
}

impl<B: CacheBackend> Engine<B> {
    /// Makes every entry with one of these tags invalid.
    pub(crate) async fn invalidate_tags(&self, tags: &[Box<str>]) -> Result<()> {
        if tags.is_empty() {
            return Ok(());
        }
        let mut change = Change::begin(self, tags.iter().cloned().map(Scope::Tag).collect());
        match self.remove_tags(tags).await {
            Ok(()) => {
                change.confirmed.fill(true);
                drop(change);
                tags.iter().for_each(|_| self.count(Event::TagInvalidation));
                Ok(())
            }
            Err(error) => {
                drop(change);
                Err(self.not_confirmed(error, "the backend may still hold the old version of a tag"))
            }
        }
    }

    pub(in crate::engine) async fn remove_tags(&self, tags: &[Box<str>]) -> Result<()> {
        // First: a load that learns a new version of a tag has to see here that it is one.
        let any_tag = self.backend().delete(&self.scope_key(&Scope::AnyTag)).await;
        let keys: Vec<String> = tags.iter().map(|tag| self.scope_key(&Scope::Tag(tag.clone()))).collect();
        let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
        // Even so: they may be on other servers, and others go on serving what is there.
        self.backend().mdelete(&keys).await?;
        any_tag
    }

    /// Makes everything of this cache invalid; confirmed when each part of the backend has answered.
    pub(crate) async fn clear(&self) -> Result<()> {
        let mut shards = self.backend().shards();
        loop {
            let mut change = Change::begin(self, (0..shards).map(Scope::Shard).collect());
            let removed = join_all((0..shards).map(|shard| self.remove_space(shard))).await;
            let failed = removed.iter().filter(|removed| removed.is_err()).count();
            for (confirmed, removed) in change.confirmed.iter_mut().zip(&removed) {
                *confirmed = removed.is_ok();
            }
            drop(change);
            if let Some(error) = removed.into_iter().find_map(Result::err) {
                let what = format!("{failed} of {shards} parts have not answered");
                return Err(self.not_confirmed(error, what));
            }
            // The first answer may have shown that there are more.
            let now = self.backend().shards();
            if now == shards {
                self.count(Event::Clear);
                return Ok(());
            }
            shards = now;
        }
    }

    async fn remove_space(&self, shard: usize) -> Result<()> {
        self.backend().delete(&self.scope_key(&Scope::Shard(shard))).await
    }

    /// Sends again what was queued of everything.
    pub(in crate::engine) async fn remove_spaces(&self) -> Result<()> {
        loop {
            let shards = self.backend().shards();
            let removed = join_all((0..shards).map(|shard| self.remove_scope(Scope::Shard(shard)))).await;
            removed.into_iter().collect::<Result<()>>()?;
            if self.backend().shards() == shards {
                return Ok(());
            }
        }
    }

    /// Sends again what was queued.
    pub(in crate::engine) async fn remove_scope(&self, scope: Scope) -> Result<()> {
        match &scope {
            Scope::Tag(tag) => self.remove_tags(std::slice::from_ref(tag)).await?,
            Scope::Shard(shard) => self.remove_space(*shard).await?,
            Scope::AnyTag => {}
        }
        // What was read before this was answered is not the version from here on.
        self.forget(&scope);
        Ok(())
    }

    fn forget(&self, scope: &Scope) {
        let cell = self.core.versions.cell(scope, self.backend().shards());
        cell.begin_change();
        cell.end_change();
        bump(&self.scope_key(scope));
    }

    fn not_confirmed(&self, error: Error, what: impl Into<std::borrow::Cow<'static, str>>) -> Error {
        self.count(Event::BackendError);
        crate::observe::survived("an invalidation is not confirmed", &error);
        Error::new(ErrorKind::Unconfirmed, what)
            .with_source(error)
            .with_hint("it is queued and sent again until it is confirmed; flush_pending waits for that")
    }

    /// Makes everything in this process's reach invalid at once, before the backend is told.
    pub(in crate::engine) fn forget_spaces(&self) {
        (0..self.backend().shards()).for_each(|shard| self.forget(&Scope::Shard(shard)));
    }

    fn detach_tagged(&self, tags: &[&str]) {
        for (key, lease) in self.core.flights.detach_tagged(tags) {
            self.release_later(&key, Some(lease));
        }
    }
}
