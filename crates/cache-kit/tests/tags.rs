//! Invalidating by tag, and everything: what was loaded before is never served after, whatever loads it and whoever
//! invalidates it, and nothing else is touched. In memory and on servers, in one process and in two. Gates, not sleeps.

#![cfg(all(feature = "redis", feature = "memcached"))]
#![expect(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::future_not_send,
    reason = "a test that cannot go on fails, one that goes on prints what it measured, and each has its own thread"
)]

mod common;
#[path = "common/tags.rs"]
mod tagged;

use std::time::{Duration, Instant};

use cache_kit::backend::{self, CacheBackend};
use cache_kit::{
    Cache, CacheEntity, CacheExpander, DataRepository, ErrorKind, LoadOptions, Loaded, OperationConfig,
    Previous, Source, Stored,
};
use common::engine::{Place, on_places, one};
use common::other::Other;
use common::{SourceDown, Users, bounded, until};
use serde::{Deserialize, Serialize};
use tagged::{
    By, Got, How, Load, SECOND, exact, in_namespace, read, serve, served, strict, unix_millis, watch,
};

on_places! {
    memory {
        what_a_load_read_before_an_invalidation_is_never_served_after_it
        what_is_tagged_is_a_miss_once_its_tag_is_invalidated
        what_has_other_tags_or_is_in_another_namespace_stays
        who_comes_after_an_invalidation_does_not_join_a_load_that_began_before_it
        a_value_with_a_tag_that_was_not_known_is_stored_unless_any_tag_was_invalidated_meanwhile
        what_was_invalidated_is_not_served_as_stale_and_is_shown_to_the_loader
        entities_are_invalidated_by_their_tags
        a_tag_can_have_any_name_and_no_key_stands_in_its_way
        another_cache_over_the_same_memory_sees_it_at_once
    }
    redis {
        what_a_load_read_before_an_invalidation_is_never_served_after_it
        what_is_tagged_is_a_miss_once_its_tag_is_invalidated
        what_has_other_tags_or_is_in_another_namespace_stays
        who_comes_after_an_invalidation_does_not_join_a_load_that_began_before_it
        a_value_with_a_tag_that_was_not_known_is_stored_unless_any_tag_was_invalidated_meanwhile
        what_was_invalidated_is_not_served_as_stale_and_is_shown_to_the_loader
        entities_are_invalidated_by_their_tags
        a_tag_can_have_any_name_and_no_key_stands_in_its_way
        others_serve_it_for_a_second_at_most
        what_a_load_read_before_another_process_invalidated_it_is_never_served_after
    }
    memcached {
        what_a_load_read_before_an_invalidation_is_never_served_after_it
        what_is_tagged_is_a_miss_once_its_tag_is_invalidated
        what_has_other_tags_or_is_in_another_namespace_stays
        who_comes_after_an_invalidation_does_not_join_a_load_that_began_before_it
        a_value_with_a_tag_that_was_not_known_is_stored_unless_any_tag_was_invalidated_meanwhile
        what_was_invalidated_is_not_served_as_stale_and_is_shown_to_the_loader
        entities_are_invalidated_by_their_tags
        a_tag_can_have_any_name_and_no_key_stands_in_its_way
        others_serve_it_for_a_second_at_most
        what_a_load_read_before_another_process_invalidated_it_is_never_served_after
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the other process of the tests in this file, which start it"]
async fn another_process() {
    serve().await;
}

const LONG: Duration = Duration::from_secs(20);

fn ways() -> impl Iterator<Item = (How, By)> {
    How::ALL.into_iter().flat_map(|how| By::ALL.map(|by| (how, by)))
}

/// Makes the version of a tag known to a cache.
async fn know(cache: &Cache, tag: &str) {
    let key = format!("of {tag}");
    assert!(
        read(cache, (How::Owned, By::CallTag), &key, tag, &one("row")).await.is_loaded("row", Stored::Yes)
    );
}

async fn what_a_load_read_before_an_invalidation_is_never_served_after_it(place: Place) {
    let (here, elsewhere) = (place.cache_by(exact()), place.cache_by(exact()));
    let strict = place.cache_by(strict());
    let mut cases = 0;
    for (how, by) in ways() {
        for is_elsewhere in [false, true] {
            for is_known in [false, true] {
                cases += 1;
                let what = format!("{how:?}, {by:?}, elsewhere: {is_elsewhere}, tag known: {is_known}");
                let (key, tag) = (&format!("user:{cases}"), &format!("tag-{cases}"));
                if is_known {
                    know(&here, tag).await;
                }
                let users = one("old");
                let load = Load::begin(&here, (how, by), key, tag, &users).await;
                users.put(1, "new");
                let invalidating = if is_elsewhere { &elsewhere } else { &here };
                by.invalidate(invalidating, tag).await.unwrap();
                let (value, stored) = load.end().await;
                assert_eq!(value, served(how), "{what}");
                if !is_elsewhere || (by == By::LoaderTag && !is_known) {
                    assert_eq!(stored, Stored::FencedOff, "{what}");
                }
                // By whoever has invalidated it, and by who asks with every hit.
                let first = if cases % 2 == 0 { [invalidating, &strict] } else { [&strict, invalidating] };
                let now = read(first[0], (how, by), key, tag, &users).await;
                assert!(now.is_loaded("new", Stored::Yes), "{what}: {now:?}");
                for cache in [first[1], first[0], &here, &elsewhere] {
                    let found = read(cache, (how, by), key, tag, &one("not asked")).await;
                    assert!(found.is_hit("new"), "{what}: {found:?}");
                }
            }
        }
    }
    println!("{cases} races, none of them won by the old row");
}

async fn what_is_tagged_is_a_miss_once_its_tag_is_invalidated(place: Place) {
    for (at, (how, by)) in ways().enumerate() {
        // What a cache remembers of another's invalidations is a second old at most: each begins anew.
        let (here, strict, asking) =
            (place.cache_by(exact()), place.cache_by(strict()), place.cache_by(strict()));
        let (key, tag) = (&format!("user:{at}"), &format!("tag-{at}"));
        let users = one("old");
        let loaded = read(&here, (how, by), key, tag, &users).await;
        assert!(loaded.is_loaded("old", Stored::Yes), "{how:?}, {by:?}: {loaded:?}");
        for (round, invalidating) in [&here, &strict].into_iter().enumerate() {
            for cache in [&here, &strict, &asking] {
                assert!(cache.get::<String>(key).await.unwrap().is_some(), "{how:?}, {by:?}");
            }
            by.invalidate(invalidating, tag).await.unwrap();
            for cache in [invalidating, &strict, &asking] {
                assert_eq!(cache.get::<String>(key).await.unwrap(), None, "{how:?}, {by:?}, {round}");
            }
            users.put(1, "new");
            let now = read(invalidating, (how, by), key, tag, &users).await;
            assert!(now.is_loaded("new", Stored::Yes), "{how:?}, {by:?}: {now:?}");
        }
    }
}

async fn what_has_other_tags_or_is_in_another_namespace_stays(place: Place) {
    for policy in [exact(), strict()] {
        let caches = [
            place.cache_by(policy),
            in_namespace(&place, "a", policy),
            in_namespace(&place, "b", policy),
            in_namespace(&place, "tag", policy),
        ];
        let [plain, a, b, _] = &caches;
        let entries: [(&str, &[&str]); 5] =
            [("x", &["x"]), ("y", &["y"]), ("both", &["x", "y"]), ("z", &["z"]), ("none", &[])];
        for cache in &caches {
            for (key, tags) in entries {
                let options = LoadOptions::default().with_tags(tags);
                cache.set_with(key, options, &"row".to_owned()).await.unwrap();
            }
        }
        let there = async |cache: &Cache| {
            let mut there = Vec::new();
            for (key, _) in entries {
                if bounded(cache.get::<String>(key)).await.unwrap().is_some() {
                    there.push(key);
                }
            }
            there
        };
        let all = entries.map(|(key, _)| key);
        for cache in &caches {
            assert_eq!(there(cache).await, all);
        }
        a.invalidate_tag("x").await.unwrap();
        assert_eq!(there(a).await, ["y", "z", "none"]);
        b.invalidate_tags(["x", "y", "x", "nobody has it"]).await.unwrap();
        assert_eq!(there(b).await, ["z", "none"]);
        plain.invalidate_tag("nobody has it").await.unwrap();
        plain.invalidate_tags([""; 0]).await.unwrap();
        for cache in [plain, &caches[3]] {
            assert_eq!(there(cache).await, all);
        }
        assert_eq!(plain.invalidate_tags(["x", ""]).await.unwrap_err().kind(), ErrorKind::InvalidInput);
        assert_eq!(there(plain).await, all, "all or none");
        plain.clear().await.unwrap();
        assert_eq!(there(plain).await, [""; 0]);
        assert_eq!(there(a).await, ["y", "z", "none"]);
        assert_eq!(there(b).await, ["z", "none"]);
        assert_eq!(there(&caches[3]).await, all);
        let stats = plain.stats();
        assert_eq!((stats.clears, stats.tag_invalidations, stats.unconfirmed), (1, 1, 0));
    }
}

/// A reader that has joined a load.
async fn join(
    cache: &Cache,
    way: (How, By),
    key: &str,
    tag: &str,
    users: &Users,
) -> tokio::task::JoinHandle<Got> {
    let (waiting, reader) = (cache.readers_waiting(), cache.clone());
    let (key, tag, users) = (key.to_owned(), tag.to_owned(), users.clone());
    let joined = tokio::spawn(async move { read(&reader, way, &key, &tag, &users).await });
    until("it joins", LONG, async || cache.readers_waiting() > waiting).await;
    joined
}

async fn who_comes_after_an_invalidation_does_not_join_a_load_that_began_before_it(place: Place) {
    for (at, (how, by)) in ways().enumerate() {
        let (here, users) = (place.cache_by(exact().with_lease_wait(SECOND / 10)), one("old"));
        let (key, tag) = (&format!("user:{at}"), &format!("tag-{at}"));
        let load = Load::begin(&here, (how, by), key, tag, &users).await;
        if by != By::LoaderTag {
            here.invalidate_tag("another").await.unwrap();
        }
        let joined = join(&here, (how, by), key, tag, &one("not asked")).await;
        users.put(1, "new");
        by.invalidate(&here, tag).await.unwrap();
        // While the load stands where it stands.
        let began = Instant::now();
        let now = read(&here, (how, by), key, tag, &users).await;
        assert_eq!((now.value.as_str(), now.source), ("new", Source::Load), "{how:?}, {by:?}");
        println!("{how:?}, {by:?}: after {:?}, and {:?}", began.elapsed(), now.stored);
        assert_eq!(load.end().await.1, Stored::FencedOff, "{how:?}, {by:?}");
        let joined = bounded(joined).await.unwrap();
        assert_eq!((joined.value.as_str(), joined.source), ("old", Source::SharedLoad), "it came before");
        let now = read(&here, (how, by), key, tag, &users).await;
        assert_eq!(now.value, "new", "{how:?}, {by:?}");
    }
}

async fn a_value_with_a_tag_that_was_not_known_is_stored_unless_any_tag_was_invalidated_meanwhile(
    place: Place,
) {
    for how in How::ALL {
        let (here, elsewhere) = (place.cache_by(exact()), place.cache_by(exact()));
        let way = (how, By::LoaderTag);
        let tag = &format!("{how:?}");
        // Nobody has ever heard of the tag.
        let load = Load::begin(&here, way, &format!("{tag}:first"), tag, &one("old")).await;
        assert_eq!(load.end().await, (served(how).to_owned(), Stored::Yes), "{how:?}");
        let found = read(&here, way, &format!("{tag}:first"), tag, &one("not asked")).await;
        assert!(found.is_hit("old"), "{how:?}: {found:?}");
        let found = read(&elsewhere, way, &format!("{tag}:first"), tag, &one("not asked")).await;
        assert!(found.is_hit("old"), "{how:?}: {found:?}");
        // The tag of this one was invalidated, or one that it does not have.
        for other in [format!("{tag} unknown"), "another".to_owned()] {
            let key = &format!("{tag}:{}", other.len());
            let load = Load::begin(&here, way, key, &format!("{tag} unknown"), &one("old")).await;
            elsewhere.invalidate_tag(&other).await.unwrap();
            assert_eq!(load.end().await, (served(how).to_owned(), Stored::FencedOff), "{how:?}, {other}");
            let now = read(&here, way, key, &format!("{tag} unknown"), &one("new")).await;
            assert!(now.is_loaded("new", Stored::Yes), "{how:?}, {other}: {now:?}");
            here.invalidate_tag(format!("{tag} unknown")).await.unwrap();
        }
        // Of one that was known it can be told.
        let (known, key) = (&format!("{tag} known"), &format!("{tag}:known"));
        know(&here, known).await;
        let load = Load::begin(&here, way, key, known, &one("old")).await;
        elsewhere.invalidate_tag("another").await.unwrap();
        assert_eq!(load.end().await, (served(how).to_owned(), Stored::Yes), "{how:?}");
        assert!(read(&here, way, key, known, &one("not asked")).await.is_hit("old"), "{how:?}");
    }
}

async fn what_was_invalidated_is_not_served_as_stale_and_is_shown_to_the_loader(place: Place) {
    let window = Duration::from_secs(3600);
    let cache = place.cache_by(exact().with_stale_while_revalidate(window).with_stale_if_error(window));
    for (at, by) in By::ALL.into_iter().enumerate() {
        let (key, tag) = (&format!("user:{at}"), &format!("tag-{at}"));
        let version = |previous: Previous<String>, row: &str| {
            assert_eq!(previous.value.as_deref(), Some(row), "the loader is shown what was there");
            assert_eq!(previous.version.as_deref(), Some("v1"));
        };
        let (tag_of_call, chosen) = ([tag.as_str()], tag.clone());
        let tags: &[&str] = if by == By::CallTag { &tag_of_call } else { &[] };
        let options = LoadOptions::default().with_tags(tags);
        let first = move |_: Previous<String>| async move {
            let loaded = Loaded::value("old".to_owned()).with_version("v1");
            Ok::<_, SourceDown>(if by == By::LoaderTag { loaded.with_tags([chosen]) } else { loaded })
        };
        let loaded = cache.get_or_load_entry_outcome(key, options, first).await.unwrap();
        assert_eq!(loaded.stored, Stored::Yes, "{by:?}");
        cache.expire(key).await.unwrap();
        let down = |_: Previous<String>| async { Err::<Loaded<String>, _>(SourceDown(1)) };
        let stale = cache.get_or_load_entry_outcome(key, options, down).await.unwrap();
        assert!(stale.is_stale() && stale.value.as_deref() == Some("old"), "{by:?}: {stale:?}");
        until("the load behind ends", LONG, async || cache.gauges().tasks == 0).await;
        by.invalidate(&cache, tag).await.unwrap();
        let failed = cache.get_or_load_entry_outcome(key, options, down).await;
        assert_eq!(failed.unwrap_err().kind(), ErrorKind::Source, "{by:?}: no fallback any more");
        // The source may say that it is still good, and then it is: with its tags.
        let confirmed = move |previous: Previous<String>| async move {
            version(previous, "old");
            Ok::<_, SourceDown>(Loaded::not_modified())
        };
        let now = cache.get_or_load_entry_outcome(key, options, confirmed).await.unwrap();
        assert_eq!((now.value.as_deref(), now.stored), (Some("old"), Stored::Yes), "{by:?}");
        assert_eq!(cache.get::<String>(key).await.unwrap().as_deref(), Some("old"), "{by:?}");
        by.invalidate(&cache, tag).await.unwrap();
        assert_eq!(cache.get::<String>(key).await.unwrap(), None, "{by:?}");
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Member {
    id: u64,
    name: String,
}

impl CacheEntity for Member {
    type Key = u64;

    fn cache_key(&self) -> u64 {
        self.id
    }

    fn cache_prefix() -> &'static str {
        "member"
    }

    fn cache_tags(&self) -> Vec<String> {
        vec![format!("team:{}", self.id % 2), "members".to_owned()]
    }
}

/// Reads rows as members.
struct Members(Users);

impl DataRepository<Member> for Members {
    async fn fetch_by_id(&self, id: &u64) -> cache_kit::Result<Option<Member>> {
        let found = self.0.find(*id).await.map_err(cache_kit::Error::source)?;
        Ok(found.map(|user| Member { id: user.id, name: user.name }))
    }
}

fn expander(place: &Place) -> CacheExpander<Box<dyn CacheBackend>> {
    let backend = match place {
        Place::Memory(backend) => Box::new(backend.clone()),
        _ => backend::from_url(&place.url()).unwrap(),
    };
    CacheExpander::new(backend).with_policy(strict()).unwrap()
}

async fn entities_are_invalidated_by_their_tags(place: Place) {
    let (here, elsewhere) = (expander(&place), expander(&place));
    let ids = [1, 2, 3];
    let rows = |name: &str| Members(Users::with(&ids.map(|id| (id, name))));
    let names = async |expander: &CacheExpander<_>, source: &Members| {
        let found: Vec<Option<Member>> = expander.get_many(&ids, source).await.unwrap();
        found.into_iter().map(|member| member.unwrap().name).collect::<Vec<_>>()
    };
    assert_eq!(names(&here, &rows("old")).await, ["old"; 3]);
    for expander in [&here, &elsewhere] {
        assert_eq!(names(expander, &rows("not asked")).await, ["old"; 3]);
    }
    elsewhere.invalidate_tag("team:0").await.unwrap();
    assert_eq!(names(&here, &rows("new")).await, ["old", "new", "old"]);
    here.invalidate_tag("members").await.unwrap();
    assert_eq!(names(&elsewhere, &rows("newer")).await, ["newer"; 3]);
    here.clear().await.unwrap();
    for (by, id) in [("team:1", 1_u64), ("", 3)] {
        // Overtaken by the invalidation of a tag that the repository names, or of everything.
        let gate = cache_kit::testing::Gate::new();
        let source = Members(Users::with(&[(id, "late")]).behind(&gate));
        let config = OperationConfig::default();
        let reading = here.get_outcome::<Member, _>(&id, &source, Default::default(), config);
        let overtaking = async {
            gate.reached().await;
            match by {
                "" => elsewhere.clear().await.unwrap(),
                tag => elsewhere.invalidate_tag(tag).await.unwrap(),
            }
            gate.open();
        };
        let (late, ()) = bounded(async { tokio::join!(reading, overtaking) }).await;
        assert_eq!(late.unwrap().value.unwrap().name, "late");
        for expander in [&here, &elsewhere] {
            let found = expander.get::<Member, _>(&id, &rows("newest")).await.unwrap();
            assert_eq!(found.unwrap().name, "newest", "{id}");
        }
    }
}

async fn a_tag_can_have_any_name_and_no_key_stands_in_its_way(place: Place) {
    let (here, there) = (place.cache_by(strict()), place.cache_by(strict()));
    let longest = "x".repeat(255);
    let names = ["a b", "line\r\nbreak", "\u{fc}\u{1f980}", "{slot}", "a/b:c%d", "s", "\0", longest.as_str()];
    for (at, tag) in names.into_iter().enumerate() {
        let (way, key) = ((How::Owned, By::LoaderTag), &format!("user:{at}"));
        assert!(read(&here, way, key, tag, &one("old")).await.is_loaded("old", Stored::Yes), "{tag:?}");
        assert!(read(&there, way, key, tag, &one("not asked")).await.is_hit("old"), "{tag:?}");
    }
    for (at, tag) in names.into_iter().enumerate() {
        there.invalidate_tag(tag).await.unwrap();
        for (other, name) in names.into_iter().enumerate() {
            let found = here.get::<String>(format!("user:{other}")).await.unwrap();
            assert_eq!(found.is_none(), other <= at, "{name:?} after {tag:?}");
        }
    }
    // Keys that are called as versions are, are keys.
    let options = LoadOptions::default().with_tags(&["t"]);
    here.set_with("user:t", options, &"row".to_owned()).await.unwrap();
    for key in ["%space", "%space~0", "%tag:t", "%tags"] {
        here.set(key, &"row".to_owned()).await.unwrap();
        here.invalidate(key).await.unwrap();
        here.set(key, &"row".to_owned()).await.unwrap();
        for found in ["user:t", key] {
            assert_eq!(there.get::<String>(found).await.unwrap().as_deref(), Some("row"), "{key}: {found}");
        }
    }
}

async fn another_cache_over_the_same_memory_sees_it_at_once(place: Place) {
    let (here, there) = (place.cache_by(exact()), place.cache_by(exact()));
    for (at, (how, by)) in ways().enumerate() {
        let (key, tag) = (&format!("user:{at}"), &format!("tag-{at}"));
        assert!(read(&here, (how, by), key, tag, &one("old")).await.is_loaded("old", Stored::Yes));
        assert_eq!(there.get::<String>(key).await.unwrap().as_deref(), Some("old"), "{how:?}, {by:?}");
        by.invalidate(&here, tag).await.unwrap();
        assert_eq!(there.get::<String>(key).await.unwrap(), None, "{how:?}, {by:?}");
    }
}

async fn others_serve_it_for_a_second_at_most(place: Place) {
    let (here, there) = (place.cache_by(exact()), place.cache_by(exact()));
    let mut other = Other::start(&place.url());
    for (how, by) in [(How::Owned, By::CallTag), (How::Batch, By::LoaderTag), (How::Inline, By::Clear)] {
        let key = &format!("{how:?}:{by:?}");
        assert!(read(&here, (how, by), key, "t", &one("old")).await.is_loaded("old", Stored::Yes));
        assert_eq!(there.get::<String>(key).await.unwrap().as_deref(), Some("old"), "{key}");
        assert_eq!(other.tell(&format!("read {how:?} {by:?} {key} t not-asked")), "old Cache NotAsked");
        by.invalidate(&here, "t").await.unwrap();
        let confirmed = unix_millis();
        other.ask(&format!("watch {key}"));
        let (last, hits) = watch(&there, key).await;
        let said = other.answer();
        let (other_last, other_hits) = said.split_once(' ').unwrap();
        for (who, last, hits) in
            [("here", last, hits), ("elsewhere", other_last.parse().unwrap(), other_hits.parse().unwrap())]
        {
            let after = last.saturating_sub(confirmed);
            println!(
                "{key}: {who} {hits} reads, the last {after} ms after it was confirmed, found the old value"
            );
            assert!(after <= 1_000, "{key}, {who}: {after} ms");
        }
        // Nor is it ever found again.
        for _ in 0..100 {
            assert_eq!(there.get::<String>(key).await.unwrap(), None, "{key}");
        }
    }
}

async fn what_a_load_read_before_another_process_invalidated_it_is_never_served_after(place: Place) {
    let (mut other, mut cases) = (Other::start(&place.url()), 0);
    for (how, by) in ways() {
        let (here, strict) = (place.cache_by(exact()), place.cache_by(strict()));
        assert_eq!(other.tell("begin-anew"), "done");
        let what = format!("{how:?}, {by:?}");
        // The load is here, and the other process invalidates.
        let (key, tag) = (&format!("{how:?}:{by:?}"), &format!("{how:?}-{by:?}"));
        let load = Load::begin(&here, (how, by), key, tag, &one("old")).await;
        assert_eq!(other.tell(&format!("invalidate {by:?} {tag}")), "done");
        let (value, stored) = load.end().await;
        assert_eq!(value, served(how), "{what}");
        if by == By::LoaderTag {
            assert_eq!(stored, Stored::FencedOff, "{what}");
        }
        let said = other.tell(&format!("read {how:?} {by:?} {key} {tag} new"));
        assert_eq!(said, "new Load Yes", "{what}: by who has invalidated it");
        assert!(read(&strict, (how, by), key, tag, &one("not asked")).await.is_hit("new"), "{what}");
        assert!(read(&here, (how, by), key, tag, &one("not asked")).await.is_hit("new"), "{what}");

        // The other way round, and read by who asks with every hit.
        let (key, tag) = (&format!("{how:?}:{by:?}:2"), &format!("{how:?}-{by:?}-2"));
        assert_eq!(other.tell(&format!("load {how:?} {by:?} {key} {tag} old")), "loading");
        by.invalidate(&here, tag).await.unwrap();
        assert!(other.tell(&format!("end {key}")).starts_with(served(how)), "{what}");
        let now = read(&strict, (how, by), key, tag, &one("new")).await;
        assert!(now.is_loaded("new", Stored::Yes), "{what}: {now:?}");
        assert!(read(&here, (how, by), key, tag, &one("not asked")).await.is_hit("new"), "{what}");
        let said = other.tell(&format!("read-strictly {how:?} {by:?} {key} {tag} not-asked"));
        assert_eq!(said, "new Cache NotAsked", "{what}");
        cases += 2;
    }
    println!("{cases} races between processes, none of them won by the old row");
}
