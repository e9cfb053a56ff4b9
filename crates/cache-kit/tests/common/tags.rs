//! Loads of values with tags, in each way that a value can have one and a load can be run, that stop half way; and another
//! process that does the same.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::allow_attributes,
    reason = "each test file uses its own part of this"
)]

use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cache_kit::testing::Gate;
use cache_kit::{Cache, InlineOptions, LoadOptions, Loaded, Outcome, Policy, Previous, Source, Stored};
use tokio::task::JoinHandle;

use crate::common::engine::{Place, STALE, one};
use crate::common::other::{SAYS, URL};
use crate::common::{SourceDown, Users, bounded, until};

pub const SECOND: Duration = Duration::from_secs(1);
const LONG: Duration = Duration::from_secs(20);

/// How a load is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum How {
    Owned,
    Inline,
    /// Behind a caller who has got a stale value.
    Behind,
    /// As one of a batch.
    Batch,
}

impl How {
    pub const ALL: [Self; 4] = [Self::Owned, Self::Inline, Self::Behind, Self::Batch];
}

/// What an entry is invalidated by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// A tag that the call names.
    CallTag,
    /// A tag that the loader chooses.
    LoaderTag,
    /// Everything is invalidated.
    Clear,
}

impl By {
    pub const ALL: [Self; 3] = [Self::CallTag, Self::LoaderTag, Self::Clear];

    pub async fn invalidate(self, cache: &Cache, tag: &str) -> cache_kit::Result<()> {
        match self {
            Self::CallTag | Self::LoaderTag => cache.invalidate_tag(tag).await,
            Self::Clear => cache.clear().await,
        }
    }
}

fn named<T: Copy + std::fmt::Debug>(all: &[T], name: &str) -> T {
    *all.iter().find(|one| format!("{one:?}") == name).unwrap()
}

/// A policy that asks for versions with every hit.
pub fn strict() -> Policy {
    exact().with_tag_version_max_age(Duration::ZERO)
}

/// The default, with lives that nothing is taken off, and without loads that nobody asked for.
pub fn exact() -> Policy {
    Policy::default().with_ttl_jitter(0.0).with_early_refresh_beta(0.0)
}

pub fn in_namespace(place: &Place, namespace: &str, policy: Policy) -> Cache {
    let builder = Cache::builder().policy(policy).namespace(namespace);
    match place {
        Place::Memory(backend) => builder.build(backend.clone()),
        _ => builder.build_url(&place.url()),
    }
    .unwrap()
}

/// What a reader got.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Got {
    pub value: String,
    pub source: Source,
    pub stored: Stored,
}

impl Got {
    pub fn is_loaded(&self, value: &str, stored: Stored) -> bool {
        (self.value.as_str(), self.source, self.stored) == (value, Source::Load, stored)
    }

    pub fn is_hit(&self, value: &str) -> bool {
        (self.value.as_str(), self.source) == (value, Source::Cache)
    }
}

impl From<Outcome<String>> for Got {
    fn from(outcome: Outcome<String>) -> Self {
        Self { value: outcome.value, source: outcome.source, stored: outcome.stored }
    }
}

impl From<Outcome<Option<String>>> for Got {
    fn from(outcome: Outcome<Option<String>>) -> Self {
        Self { value: outcome.value.unwrap(), source: outcome.source, stored: outcome.stored }
    }
}

/// Reads the row of [`one`], and takes nothing stale.
pub async fn read(cache: &Cache, (how, by): (How, By), key: &str, tag: &str, users: &Users) -> Got {
    bounded(ask(cache, (how, by), key, tag, users.clone(), Duration::ZERO)).await
}

async fn ask(
    cache: &Cache,
    (how, by): (How, By),
    key: &str,
    tag: &str,
    users: Users,
    stale: Duration,
) -> Got {
    let tag_of_call = [tag];
    let tags: &[&str] = if by == By::CallTag { &tag_of_call } else { &[] };
    let options = LoadOptions::default().with_tags(tags).with_stale_while_revalidate(stale);
    let inline = InlineOptions::default().with_tags(tags);
    let tag = tag.to_owned();
    let load = move |users: Users| async move {
        Ok::<_, SourceDown>(Loaded::value(users.name(1).await?).with_tags([tag]))
    };
    match (how, by) {
        (How::Owned | How::Behind, By::LoaderTag) => {
            let load = move |_: Previous<String>| load(users);
            cache.get_or_load_entry_outcome(key, options, load).await.unwrap().into()
        }
        (How::Inline, By::LoaderTag) => {
            let load = move |_: Previous<String>| load(users);
            cache.get_or_load_entry_inline_outcome(key, inline, load).await.unwrap().into()
        }
        (How::Batch, By::LoaderTag) => {
            let load = move |keys: Vec<String>| {
                let loads = keys.into_iter().map(|key| (key, load.clone()(users.clone())));
                let loads: Vec<_> = loads.collect();
                async move {
                    let mut found = Vec::new();
                    for (key, load) in loads {
                        found.push((key, load.await));
                    }
                    Ok::<_, SourceDown>(found)
                }
            };
            let mut got = cache.get_many_or_load_entries([key], options, load).await.unwrap();
            got.remove(0).unwrap().into()
        }
        (How::Owned | How::Behind, _) => {
            cache.get_or_load_outcome(key, options, move || users.name(1)).await.unwrap().into()
        }
        (How::Inline, _) => {
            cache.get_or_load_inline_outcome(key, inline, move || users.name(1)).await.unwrap().into()
        }
        (How::Batch, _) => {
            let load = move |keys: Vec<String>| {
                let users = users.clone();
                async move {
                    let mut found = Vec::new();
                    for key in keys {
                        found.push((key, users.clone().name(1).await?));
                    }
                    Ok::<_, SourceDown>(found)
                }
            };
            let mut got = cache.get_many_or_load_outcomes([key], options, load).await.unwrap();
            got.remove(0).unwrap().into()
        }
    }
}

/// A load that has read the row, holds the lease, and stands at the gate.
pub struct Load {
    how: How,
    cache: Cache,
    gate: Gate,
    reading: JoinHandle<Got>,
}

impl Load {
    pub async fn begin(cache: &Cache, (how, by): (How, By), key: &str, tag: &str, users: &Users) -> Self {
        let (gate, reader) = (Gate::new(), cache.clone());
        let (slow, key, tag) = (users.behind(&gate), key.to_owned(), tag.to_owned());
        let reading = if how == How::Behind {
            let window = Duration::from_secs(3600);
            let options = LoadOptions::default().with_stale_while_revalidate(window);
            cache.set_with(&key, options, &STALE.to_owned()).await.unwrap();
            cache.expire(&key).await.unwrap();
            let served = bounded(ask(cache, (how, by), &key, &tag, slow, window)).await;
            assert_eq!((served.value.as_str(), served.source), (STALE, Source::Cache));
            tokio::spawn(async move { served })
        } else {
            tokio::spawn(async move { ask(&reader, (how, by), &key, &tag, slow, Duration::ZERO).await })
        };
        bounded(gate.reached()).await;
        Self { how, cache: cache.clone(), gate, reading }
    }

    /// Lets it go on; what its caller got, and what became of storing what it read.
    pub async fn end(self) -> (String, Stored) {
        let before = self.cache.stats();
        self.gate.open();
        let got = bounded(self.reading).await.unwrap();
        if self.how != How::Behind {
            return (got.value, got.stored);
        }
        // Nobody is told what became of a load behind, but it is counted.
        let cache = self.cache;
        until("the load behind ends", LONG, async || cache.gauges().tasks == 0).await;
        let now = cache.stats().since(&before);
        let stored = match (now.stored, now.fenced_off) {
            (1, 0) => Stored::Yes,
            (0, 1) => Stored::FencedOff,
            other => panic!("one load ended: {other:?}"),
        };
        (got.value, stored)
    }
}

/// What the caller of a load gets that reads "old".
pub fn served(how: How) -> &'static str {
    if how == How::Behind { STALE } else { "old" }
}

/// Milliseconds since 1970.
pub fn unix_millis() -> u128 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_millis()
}

/// Asks until there is no value; when the last read that still found one began, and how many there were.
pub async fn watch(cache: &Cache, key: &str) -> (u128, u64) {
    let (mut last, mut hits) = (0, 0);
    let gone = async || {
        let began = unix_millis();
        let is_there = cache.get::<String>(key).await.unwrap().is_some();
        if is_there {
            (last, hits) = (began, hits + 1);
        }
        !is_there
    };
    until("the others see it", LONG, gone).await;
    (last, hits)
}

/// What another process does; the body of a test `another_process` in each program that starts some.
pub async fn serve() {
    let url = std::env::var(URL).expect("started by a test of this file");
    let open = |policy| Cache::builder().policy(policy).build_url(&url).unwrap();
    let (mut cache, mut asking) = (open(exact()), open(strict()));
    let mut loads = HashMap::new();
    let mut lines = std::io::stdin().lines();
    while let Some(line) = lines.next().transpose().unwrap() {
        let words: Vec<&str> = line.split(' ').collect();
        let said = match words[..] {
            ["begin-anew"] => {
                (cache, asking) = (open(exact()), open(strict()));
                "done".to_owned()
            }
            ["load", how, by, key, tag, row] => {
                let way = (named(&How::ALL, how), named(&By::ALL, by));
                loads.insert(key.to_owned(), Load::begin(&cache, way, key, tag, &one(row)).await);
                "loading".to_owned()
            }
            ["end", key] => {
                let (value, stored) = loads.remove(key).expect("a load is under way").end().await;
                format!("{value} {stored:?}")
            }
            [who, how, by, key, tag, row] if who == "read" || who == "read-strictly" => {
                let way = (named(&How::ALL, how), named(&By::ALL, by));
                let reader = if who == "read" { &cache } else { &asking };
                let got = read(reader, way, key, tag, &one(row)).await;
                format!("{} {:?} {:?}", got.value, got.source, got.stored)
            }
            ["invalidate", by, tag] => {
                named(&By::ALL, by).invalidate(&cache, tag).await.unwrap();
                "done".to_owned()
            }
            ["watch", key] => {
                let (last, hits) = watch(&cache, key).await;
                format!("{last} {hits}")
            }
            _ => panic!("what is {line:?}?"),
        };
        println!("\n{SAYS}{said}");
    }
}
