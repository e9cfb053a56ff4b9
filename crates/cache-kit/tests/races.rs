//! An invalidation beats a load that is under way. Gates, not sleeps: each race is the same on every run.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::sync::Arc;

use cache_kit::backend::{CacheBackend, InMemoryBackend};
use cache_kit::testing::Gate;
use cache_kit::{Cache, CacheExpander, CacheStrategy, InlineOptions, LoadOptions, Outcome, Source, Stored};
use common::{User, Users, bounded};

/// How a cache is read in a race: with a loader that reads the row, and then stops at a gate.
#[derive(Clone, Copy, Debug)]
enum Kind {
    Owned,
    Inline,
}

async fn read(cache: &Cache, kind: Kind, users: Users) -> Outcome<String> {
    let key = "user:1";
    match kind {
        Kind::Owned => cache.get_or_load_outcome(key, LoadOptions::default(), move || users.name(1)).await,
        Kind::Inline => {
            cache.get_or_load_inline_outcome(key, InlineOptions::default(), move || users.name(1)).await
        }
    }
    .unwrap()
}

/// Begins a read whose load has read the old row and stands at the gate.
async fn begin(
    cache: &Cache,
    kind: Kind,
    users: &Users,
    gate: &Gate,
) -> tokio::task::JoinHandle<Outcome<String>> {
    let (cache, users) = (cache.clone(), users.behind(gate));
    let reading = tokio::spawn(async move { read(&cache, kind, users).await });
    gate.reached().await;
    reading
}

#[tokio::test]
async fn a_read_after_an_invalidation_gets_the_new_row_and_the_old_load_stores_nothing() {
    for kind in [Kind::Owned, Kind::Inline] {
        let (cache, users, gate) =
            (Cache::from_url("memory://").unwrap(), Users::with(&[(1, "old")]), Gate::new());
        let old = begin(&cache, kind, &users, &gate).await;
        users.put(1, "new");
        cache.invalidate("user:1").await.unwrap();

        // Does not join the load that began before.
        let now = bounded(read(&cache, kind, users.clone())).await;
        assert_eq!(
            (now.value.as_str(), now.source, now.stored),
            ("new", Source::Load, Stored::Yes),
            "{kind:?}"
        );

        // Whoever waited already may get the old value, but it is not stored.
        gate.open();
        let old = bounded(old).await.unwrap();
        assert_eq!((old.value.as_str(), old.stored), ("old", Stored::FencedOff), "{kind:?}");
        assert_eq!(cache.get::<String>("user:1").await.unwrap().as_deref(), Some("new"));
        assert_eq!(users.asked(), 2);
        assert_eq!(cache.stats().fenced_off, 1);
    }
}

#[tokio::test]
async fn a_late_load_does_not_come_back_into_an_empty_key() {
    for kind in [Kind::Owned, Kind::Inline] {
        let (cache, users, gate) =
            (Cache::from_url("memory://").unwrap(), Users::with(&[(1, "old")]), Gate::new());
        let old = begin(&cache, kind, &users, &gate).await;
        cache.invalidate("user:1").await.unwrap();
        gate.open();
        assert_eq!(bounded(old).await.unwrap().stored, Stored::FencedOff, "{kind:?}");
        assert_eq!(cache.get::<String>("user:1").await.unwrap(), None, "{kind:?}");
    }
}

#[tokio::test]
async fn an_invalidation_through_another_cache_on_the_same_backend_is_not_overtaken() {
    for kind in [Kind::Owned, Kind::Inline] {
        let backend = InMemoryBackend::new();
        let (here, elsewhere) = (Cache::new(backend.clone()), Cache::new(backend.clone()));
        let (users, gate) = (Users::with(&[(1, "old")]), Gate::new());
        let old = begin(&here, kind, &users, &gate).await;
        users.put(1, "new");
        elsewhere.invalidate("user:1").await.unwrap();
        gate.open();
        assert_eq!(bounded(old).await.unwrap().stored, Stored::FencedOff, "{kind:?}");
        assert_eq!(read(&here, kind, users.clone()).await.value, "new", "{kind:?}");
    }
}

#[tokio::test]
async fn a_plain_delete_a_pattern_and_a_clear_of_the_backend_fence_as_well() {
    for how in ["delete", "pattern", "clear"] {
        let backend = InMemoryBackend::new();
        let cache = Cache::new(backend.clone());
        let (users, gate) = (Users::with(&[(1, "old")]), Gate::new());
        let old = begin(&cache, Kind::Owned, &users, &gate).await;
        match how {
            "delete" => backend.delete("user:1").await.unwrap(),
            "pattern" => assert_eq!(backend.delete_pattern("user:*").await.unwrap(), 0),
            _ => backend.clear_all().await.unwrap(),
        }
        gate.open();
        assert_eq!(bounded(old).await.unwrap().stored, Stored::FencedOff, "{how}");
        assert_eq!(cache.get::<String>("user:1").await.unwrap(), None, "{how}");
    }
}

#[tokio::test]
async fn a_value_that_was_set_is_not_overwritten_by_an_older_load() {
    let (cache, users, gate) =
        (Cache::from_url("memory://").unwrap(), Users::with(&[(1, "old")]), Gate::new());
    let old = begin(&cache, Kind::Owned, &users, &gate).await;
    cache.set("user:1", &"set".to_owned()).await.unwrap();
    gate.open();
    assert_eq!(bounded(old).await.unwrap().stored, Stored::FencedOff);
    assert_eq!(cache.get::<String>("user:1").await.unwrap().as_deref(), Some("set"));
}

#[tokio::test]
async fn clearing_a_namespace_beats_its_loads_and_leaves_the_others_alone() {
    let backend = InMemoryBackend::new();
    let cache = |name: &str| Cache::builder().namespace(name).build(backend.clone()).unwrap();
    let (mine, other) = (cache("mine"), cache("other"));
    let (users, gate) = (Users::with(&[(1, "old")]), Gate::new());
    other.set("user:1", &"kept".to_owned()).await.unwrap();
    mine.set("user:2", &"goes".to_owned()).await.unwrap();
    let old = begin(&mine, Kind::Owned, &users, &gate).await;
    users.put(1, "new");
    mine.clear().await.unwrap();
    assert_eq!(bounded(read(&mine, Kind::Owned, users.clone())).await.value, "new");
    gate.open();
    bounded(old).await.unwrap();
    assert_eq!(mine.get::<String>("user:1").await.unwrap().as_deref(), Some("new"));
    assert_eq!(mine.get::<String>("user:2").await.unwrap(), None);
    assert_eq!(other.get::<String>("user:1").await.unwrap().as_deref(), Some("kept"));
}

#[tokio::test]
async fn an_entity_read_is_fenced_like_any_other() {
    let backend = InMemoryBackend::new();
    let expander = Arc::new(CacheExpander::new(backend));
    let (users, gate) = (Users::with(&[(1, "old"), (2, "two")]), Gate::new());
    let (reader, slow) = (Arc::clone(&expander), users.behind(&gate));
    let old = tokio::spawn(async move { reader.get::<User, _>(&1, &slow).await.unwrap().unwrap().name });
    gate.reached().await;
    users.put(1, "new");
    expander.invalidate::<User>(&1).await.unwrap();
    assert_eq!(bounded(expander.get::<User, _>(&1, &users)).await.unwrap().unwrap().name, "new");
    gate.open();
    assert_eq!(bounded(old).await.unwrap(), "old");
    assert_eq!(expander.get::<User, _>(&1, &users).await.unwrap().unwrap().name, "new");
}

#[tokio::test]
async fn a_batch_is_fenced_key_by_key() {
    let expander = Arc::new(CacheExpander::new(InMemoryBackend::new()));
    let (users, gate) = (Users::with(&[(1, "old"), (2, "two")]), Gate::new());
    let (reader, slow) = (Arc::clone(&expander), users.behind(&gate));
    let batch = tokio::spawn(async move { reader.get_many::<User, _>(&[1, 2], &slow).await.unwrap() });
    gate.reached().await;
    users.put(1, "new");
    expander.invalidate::<User>(&1).await.unwrap();
    gate.open();
    let names: Vec<_> = bounded(batch).await.unwrap().into_iter().map(|user| user.unwrap().name).collect();
    assert_eq!(names, ["old", "two"]);
    let asked = users.asked();
    assert_eq!(expander.get::<User, _>(&2, &users).await.unwrap().unwrap().name, "two");
    assert_eq!(users.asked(), asked, "the key that was not invalidated is stored");
    assert_eq!(expander.get::<User, _>(&1, &users).await.unwrap().unwrap().name, "new");
    assert_eq!(users.asked(), asked + 1, "the one that was is not");
}

#[tokio::test]
async fn the_strategy_invalidate_beats_a_load_and_reads_the_source_itself() {
    let (cache, users, gate) =
        (Cache::from_url("memory://").unwrap(), Users::with(&[(1, "old")]), Gate::new());
    let old = begin(&cache, Kind::Owned, &users, &gate).await;
    users.put(1, "new");
    let (now, options) = (users.clone(), LoadOptions::default().with_strategy(CacheStrategy::Invalidate));
    let fresh = bounded(cache.get_or_load_outcome("user:1", options, move || now.name(1))).await.unwrap();
    assert_eq!((fresh.value.as_str(), fresh.source, fresh.stored), ("new", Source::Load, Stored::Yes));
    gate.open();
    assert_eq!(bounded(old).await.unwrap().stored, Stored::FencedOff);
    assert_eq!(cache.get::<String>("user:1").await.unwrap().as_deref(), Some("new"));
}

#[tokio::test]
async fn a_second_loader_on_a_shared_backend_does_not_store_over_the_first() {
    let backend = InMemoryBackend::new();
    let (first, second) = (Cache::new(backend.clone()), Cache::new(backend));
    let (users, gate) = (Users::with(&[(1, "row")]), Gate::new());
    let leading = begin(&first, Kind::Owned, &users, &gate).await;
    let other = bounded(read(&second, Kind::Owned, users.clone())).await;
    assert_eq!((other.value.as_str(), other.stored), ("row", Stored::LeftToOther));
    gate.open();
    assert_eq!(bounded(leading).await.unwrap().stored, Stored::Yes);
    assert_eq!(read(&second, Kind::Owned, users.clone()).await.source, Source::Cache);
}
