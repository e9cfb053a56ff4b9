//! What a loader says of what it has found: its life, its tags, that it is not to be stored, or that it is still good.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails, and each has its own thread")]

mod common;
#[path = "common/lives.rs"]
mod lives;

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use cache_kit::{ErrorKind, Loaded, Outcome, Previous, Result, Source, Step, Stored};
use common::SourceDown;
use lives::*;

#[tokio::test]
async fn what_the_loader_says_counts_before_what_the_call_asks_for() {
    for door in DOORS {
        for (life, what) in [(5 * SECOND, "shorter"), (200 * SECOND, "longer")] {
            let stage = stage(exact());
            let read = stage.load(door, "key", Loaded::value(1).with_ttl(life)).await.unwrap();
            assert_eq!((read.value, read.stored), (Some(1), Stored::Yes));
            stage.lives("key", life, &format!("{door:?}, {what}")).await;
        }
        let stage = stage(exact());
        stage.load(door, "silent", Loaded::value(1)).await.unwrap();
        stage.lives("silent", 60 * SECOND, "as the call asks").await;
        for (key, loaded) in [
            ("zero", Loaded::value(1).with_ttl(Duration::ZERO)),
            ("not", Loaded::value(1).do_not_store()),
            ("nor absent", Loaded::absent().do_not_store()),
        ] {
            let read = stage.load(door, key, loaded).await.unwrap();
            assert_eq!((read.value, read.stored), ((key != "nor absent").then_some(1), Stored::NotAsked));
            assert!(!read.is_degraded() && !stage.is_alive(key).await, "{door:?}, {key}");
        }
        assert_eq!(stage.memory.stats().leases, 0, "{door:?}: they are given back");
    }
}

#[tokio::test]
async fn what_the_loader_says_of_stale_life_counts_before_the_policy() {
    for door in DOORS {
        for (policy, said, is_kept) in
            [(exact(), 60 * SECOND, true), (exact().with_stale_if_error(60 * SECOND), Duration::ZERO, false)]
        {
            let stage = stage(policy);
            let loaded = Loaded::value(1).with_ttl(TTL).with_stale_life(said);
            stage.load(door, "key", loaded).await.unwrap();
            stage.time.advance(TTL + 30 * SECOND);
            assert!(stage.cache.get::<u64>("key").await.unwrap().is_none(), "not fresh");
            let options = OWNED().with_stale_if_error(60 * SECOND);
            let read = stage.cache.get_or_load_outcome("key", options, down).await;
            assert_eq!(read.is_ok_and(|read| read.stale_for == Some(30 * SECOND)), is_kept, "{door:?}");
        }
    }
}

#[tokio::test]
async fn what_is_tagged_by_its_loader_is_invalidated_with_it_beside_the_tags_of_the_call() {
    for door in DOORS {
        for tag in ["team:1", "site", "call"] {
            let stage = stage(exact());
            let said = Loaded::value(1).with_tags(["team:1", "site"]);
            stage.load(door, "key", said).await.unwrap();
            stage.cache.invalidate_tag("team:2").await.unwrap();
            assert_eq!(stage.cache.get::<u64>("key").await.unwrap(), Some(1));
            stage.cache.invalidate_tag(tag).await.unwrap();
            assert_eq!(stage.cache.get::<u64>("key").await.unwrap(), None, "{door:?}, {tag}");
        }
    }
}

fn bad_tags() -> [Vec<String>; 3] {
    [vec![String::new()], vec!["x".repeat(256)], (0..65).map(|at| format!("tag:{at}")).collect()]
}

#[tokio::test]
async fn a_tag_that_cannot_be_one_is_told_and_the_value_is_answered_and_not_stored() {
    for door in DOORS {
        for tags in bad_tags() {
            let stage = stage(exact());
            let read = stage.load(door, "key", Loaded::value(1).with_tags(tags)).await.unwrap();
            assert_eq!((read.value, read.source, read.stored), (Some(1), Source::Load, Stored::Failed));
            let error = read.degraded.unwrap();
            assert!(error.kind() == ErrorKind::InvalidInput && error.to_string().contains("tag"), "{error}");
            assert!(!stage.is_alive("key").await && stage.memory.stats().leases == 0, "{door:?}");
        }
    }
}

#[tokio::test]
async fn a_tag_of_one_key_that_cannot_be_one_is_nothing_to_the_others_of_a_batch() {
    for tags in bad_tags() {
        let stage = stage(exact());
        let load = move |keys: Vec<String>| {
            let tagged = |key: &str| if key == "bad" { tags.clone() } else { vec!["good".to_owned()] };
            let rows =
                keys.into_iter().map(|key| (key.clone(), Ok(Loaded::value(1).with_tags(tagged(&key)))));
            let rows: Vec<_> = rows.collect();
            async move { Ok::<_, SourceDown>(rows) }
        };
        let read = stage.cache.get_many_or_load_entries(["bad", "good"], OWNED(), load).await.unwrap();
        let stored: Vec<_> =
            read.into_iter().map(|read: Result<Outcome<Option<u64>>>| read.unwrap().stored).collect();
        assert_eq!(stored, [Stored::Failed, Stored::Yes]);
    }
}

#[tokio::test]
async fn an_entity_says_how_long_it_lives_and_what_it_is_invalidated_with() {
    for door in ["owned", "inline", "many"] {
        for (note, said, life) in [
            (Note::living(7), None, 7),
            (Note::living(200), None, 200),
            (Note::new("team"), None, 60),
            (Note::living(7), Some(9), 9),
            (Note::living(0), Some(9), 9),
        ] {
            // The repository is asked for many without what it could say of each.
            let life = if door == "many" { note.seconds.unwrap_or(60) } else { life };
            let (stage, notes) = (stage(exact()), Arc::new(Notes::of(note.clone())));
            if let Some(said) = said {
                notes.say(Loaded::value(note).with_ttl(said * SECOND));
            }
            let read = stage.note(&notes, door).await.unwrap();
            assert!(read.value.is_some() && !read.is_degraded());
            if life == 0 {
                assert!(read.stored == Stored::NotAsked && !stage.is_alive("note:1").await, "{door}");
            } else {
                stage.lives("note:1", Duration::from_secs(life), door).await;
            }
            if life != 0 {
                stage.note(&notes, door).await.unwrap();
                stage.expander.invalidate_tag("other").await.unwrap();
                assert!(stage.is_cached().await);
                stage.expander.invalidate_tag("team").await.unwrap();
                assert!(!stage.is_cached().await, "{door}");
            }
        }
        let (stage, notes) = (stage(exact()), Arc::new(Notes::of(Note::new(""))));
        let read = stage.note(&notes, door).await.unwrap();
        assert_eq!((read.value.is_some(), read.stored), (true, Stored::Failed), "{door}: no tag");
        assert_eq!(read.degraded.unwrap().kind(), ErrorKind::InvalidInput);
    }
}

/// A note that has been stale for ten seconds, of version 1.
async fn stale_note(note: Note) -> (Stage, Arc<Notes>) {
    let (stage, notes) = (stage(exact().with_stale_if_error(TTL)), Arc::new(Notes::of(note.clone())));
    notes.say(Loaded::value(note).with_version("1"));
    stage.note(&notes, "inline").await.unwrap();
    stage.time.advance(70 * SECOND);
    assert!(!stage.is_cached().await);
    (stage, notes)
}

#[tokio::test]
async fn a_stale_note_is_shown_to_its_repository_which_can_say_that_it_is_still_good() {
    for door in ["owned", "inline"] {
        let (stage, notes) = stale_note(Note::new("team")).await;
        notes.say(Loaded::not_modified());
        for round in 1..=2_u64 {
            let read = stage.note(&notes, door).await.unwrap();
            assert_eq!(
                (read.value, read.source, read.stored),
                (Some(Note::new("team")), Source::Load, Stored::Yes)
            );
            assert!(read.steps.contains(Step::NotModified) && read.steps.contains(Step::Loaded));
            assert_eq!(stage.expander.stats().not_modified, round, "{door}");
            let shown = notes.shown.lock().unwrap().last().cloned().unwrap();
            assert_eq!(
                (shown.value, shown.version.as_deref()),
                (Some(Note::new("team")), Some("1")),
                "{door}"
            );
            assert_eq!(shown.age, Some(70 * SECOND), "{door}: since it was last said to be good");
            stage.time.advance(59 * SECOND);
            let hit = stage.note(&notes, door).await.unwrap();
            assert!(hit.is_hit() && !hit.is_stale() && hit.age == Some(59 * SECOND), "{door}: {hit:?}");
            stage.time.advance(11 * SECOND);
        }
        stage.note(&notes, door).await.unwrap();
        stage.expander.invalidate_tag("team").await.unwrap();
        assert!(!stage.is_cached().await, "{door}: it keeps its tags");
        notes.say(Loaded::not_modified().with_version("2"));
        stage.note(&notes, door).await.unwrap();
        stage.time.advance(70 * SECOND);
        stage.note(&notes, door).await.unwrap();
        assert_eq!(notes.shown.lock().unwrap().last().unwrap().version.as_deref(), Some("2"));
    }
}

#[tokio::test]
async fn what_is_not_modified_is_kept_for_as_long_as_the_entity_says() {
    let (stage, notes) = stale_note(Note::living(7)).await;
    notes.say(Loaded::not_modified());
    stage.note(&notes, "inline").await.unwrap();
    stage.time.advance(7 * SECOND);
    assert!(!stage.is_cached().await, "longer than the entity says");
}

#[tokio::test]
async fn what_is_not_modified_keeps_the_tags_of_the_entity_beside_those_that_are_given() {
    let (stage, notes) = stale_note(Note::new("team")).await;
    notes.say(Loaded::not_modified().with_tags(["site"]));
    stage.note(&notes, "inline").await.unwrap();
    assert!(stage.is_cached().await);
    stage.expander.invalidate_tag("team").await.unwrap();
    assert!(!stage.is_cached().await, "its own tag is gone");
}

#[tokio::test]
async fn an_entity_that_is_refused_is_not_handed_out_because_it_is_not_modified() {
    let (stage, notes) = stale_note(Note::new("refused")).await;
    REFUSES.store(true, Ordering::SeqCst);
    notes.say(Loaded::not_modified());
    let read = stage.note(&notes, "inline").await;
    assert!(!read.is_ok_and(|read| read.value.is_some()), "refused, and handed out");
}

#[tokio::test]
async fn a_closure_too_is_shown_what_is_stale_and_can_say_that_it_is_still_good() {
    for door in [Door::Owned, Door::Inline] {
        let stage = stage(exact().with_stale_if_error(TTL));
        stage.load(door, "key", Loaded::value(1).with_version("etag").with_tags(["team"])).await.unwrap();
        assert_eq!(*stage.shown.lock().unwrap(), Previous::default(), "{door:?}: there was nothing");
        stage.time.advance(70 * SECOND);
        let read = stage.load(door, "key", Loaded::not_modified()).await.unwrap();
        assert_eq!((read.value, read.source, read.stored), (Some(1), Source::Load, Stored::Yes));
        assert!(read.steps.contains(Step::NotModified) && stage.cache.stats().not_modified == 1);
        let shown = stage.shown.lock().unwrap().clone();
        assert_eq!((shown.value, shown.version.as_deref()), (Some(1), Some("etag")), "{door:?}");
        assert_eq!(shown.age, Some(70 * SECOND), "{door:?}");
        stage.time.advance(59 * SECOND);
        assert!(stage.load(door, "key", Loaded::value(2)).await.unwrap().is_hit(), "{door:?}");
        stage.cache.invalidate_tag("team").await.unwrap();
        assert_eq!(stage.cache.get::<u64>("key").await.unwrap(), None, "{door:?}: it keeps its tags");
    }
}

#[tokio::test]
async fn not_modified_without_a_value_that_was_shown_is_an_error() {
    for door in DOORS {
        let stage = stage(exact());
        let error = stage.load(door, "key", Loaded::not_modified()).await.unwrap_err();
        assert!(error.kind() == ErrorKind::Source && error.to_string().contains("not_modified"), "{error}");
        assert!(!stage.is_alive("key").await && stage.memory.stats().leases == 0, "{door:?}");
        assert_eq!(stage.cache.stats().not_modified, 0);
        stage.load(door, "absent", Loaded::absent()).await.unwrap();
        stage.time.advance(TTL);
        assert!(stage.load(door, "absent", Loaded::not_modified()).await.is_err());
    }
}

#[tokio::test]
async fn what_was_invalidated_with_a_tag_is_shown_and_never_served() {
    for door in ["owned", "inline"] {
        let (stage, notes) = stale_note(Note::new("team")).await;
        notes.say(Loaded::value(Note::new("team")).with_version("2"));
        stage.note(&notes, door).await.unwrap();
        stage.expander.invalidate_tag("team").await.unwrap();
        let error = stage.expander.get_outcome::<Note, _>(&1, &Down, REFRESH, CONFIG()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Source, "{door}: not even stale");
        notes.say(Loaded::not_modified());
        let read = stage.note(&notes, door).await.unwrap();
        assert!(
            read.value.is_some() && read.source == Source::Load && read.steps.contains(Step::NotModified)
        );
        let shown = notes.shown.lock().unwrap().last().cloned().unwrap();
        assert_eq!((shown.value.is_some(), shown.version.as_deref()), (true, Some("2")), "{door}");
        // What is removed is not shown.
        stage.expander.invalidate::<Note>(&1).await.unwrap();
        assert!(stage.note(&notes, door).await.is_err(), "not modified, and nothing was shown");
        assert_eq!(*notes.shown.lock().unwrap().last().unwrap(), Previous::default());
    }
}
