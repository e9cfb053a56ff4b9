//! `#[derive(CacheEntity)]` and `#[derive(CacheSchema)]`.

#![cfg(feature = "macros")]
#![expect(dead_code, reason = "of many types here only the shape counts")]

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use cache_kit::backend::{CacheBackend, InMemoryBackend};
use cache_kit::{
    Cache, CacheEntity, CacheExpander, CacheSchema, CacheValue, Codec, CompositeKey, Error, ErrorKind,
    InMemoryRepository, PolicyOverrides, Result,
};
use serde::{Deserialize, Serialize};

const SECOND: Duration = Duration::from_secs(1);

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize, CacheEntity)]
#[cache(prefix = "user", ttl = "5m", tags = ["tenant:{tenant}", "all"], version = 3, validate = Self::check)]
struct User {
    id: u64,
    tenant: u32,
    name: String,
}

impl User {
    fn check(&self) -> Result<()> {
        if self.name.is_empty() { Err(Error::new(ErrorKind::InvalidInput, "no name")) } else { Ok(()) }
    }
}

fn user(name: &str) -> User {
    User { id: 7, tenant: 3, name: name.into() }
}

#[test]
fn what_the_attributes_say_is_what_the_entity_says() {
    let ada = user("Ada");
    assert_eq!((User::cache_prefix(), User::cache_version(), ada.cache_key()), ("user", 3, 7));
    assert_eq!(ada.cache_tags(), ["tenant:3", "all"]);
    assert_eq!(User::cache_policy(), PolicyOverrides::default().with_ttl(300 * SECOND));
    assert_eq!((User::cache_codec(), User::may_be_stale()), (None, true));
    assert!(ada.validate().is_ok() && user("").validate().is_err());
}

#[derive(Clone, Serialize, Deserialize, CacheEntity)]
#[cache(prefix = "price", codec = "json", never_stale)]
#[cache(policy = PolicyOverrides::default().with_ttl(SECOND).with_timeout(SECOND), ttl = "none")]
struct Price {
    #[cache(key)]
    shop: u32,
    #[cache(key)]
    article: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    cents: Option<u64>,
}

#[test]
fn a_key_may_be_several_fields() {
    let price = Price { shop: 3, article: "te:a".into(), cents: None };
    assert_eq!(price.cache_key(), CompositeKey((3, "te:a".to_owned())));
    assert_eq!(price.cache_key().to_string(), "3:te%3Aa");
}

#[test]
fn the_life_wins_over_that_of_the_policy() {
    assert_eq!(Price::cache_policy(), PolicyOverrides::default().without_ttl().with_timeout(SECOND));
    assert!(!Price::may_be_stale());
}

#[tokio::test]
async fn an_entity_is_stored_in_the_format_that_it_asks_for() {
    let backend = Arc::new(InMemoryBackend::new());
    let shared: Arc<dyn CacheBackend> = Arc::<InMemoryBackend>::clone(&backend);
    let expander = CacheExpander::new(shared);
    assert_eq!(Price::cache_codec(), Some(Codec::Json));
    let price = Price { shop: 3, article: "tea".into(), cents: None };
    let mut repository = InMemoryRepository::new();
    repository.insert(price.cache_key(), price.clone());
    for _ in 0..2 {
        let read = expander.get::<Price, _>(&price.cache_key(), &repository).await.unwrap().unwrap();
        assert_eq!((read.shop, read.cents), (3, None), "postcard would not read it back");
    }
    let entry = backend.get("price:3:tea").await.unwrap().unwrap();
    assert!(entry.ends_with(br#"{"shop":3,"article":"tea"}"#));
}

#[derive(Clone, Serialize, Deserialize, CacheEntity)]
#[cache(prefix = "pair", tags = ["left:{0}"])]
struct Pair(#[cache(key)] u64, String);

#[derive(Clone, Serialize, Deserialize, CacheEntity)]
#[cache(prefix = "held")]
#[serde(bound = "")]
struct Held<T: CacheValue> {
    id: u64,
    value: T,
}

#[test]
fn structs_without_names_and_with_parameters_are_entities_too() {
    let pair = Pair(7, "x".into());
    assert_eq!((pair.cache_key(), pair.cache_tags()), (7, vec!["left:7".to_owned()]));
    assert_eq!(Held { id: 7, value: 1_u8 }.cache_key(), 7);
}

/// Types that are alike but for one thing.
macro_rules! shapes {
    ($($module:ident: { $($item:tt)* })+) => {
        $(mod $module {
            use super::*;
            #[derive(Clone, Serialize, Deserialize, CacheSchema)]
            $($item)*
        })+
        const SHAPES: &[(&str, u64)] = &[$((stringify!($module), $module::Shape::SCHEMA)),+];
    };
}

shapes! {
    plain: { pub(super) struct Shape { a: u8, b: Vec<u8> } }
    renamed: { pub(super) struct Shape { a: u8, c: Vec<u8> } }
    retyped: { pub(super) struct Shape { a: u8, b: Vec<u16> } }
    reordered: { pub(super) struct Shape { b: Vec<u8>, a: u8 } }
    longer: { pub(super) struct Shape { a: u8, b: Vec<u8>, c: u8 } }
    written_otherwise: { pub(super) struct Shape { #[serde(rename = "A")] a: u8, b: Vec<u8> } }
    skipped: { pub(super) struct Shape { #[serde(skip)] a: u8, b: Vec<u8> } }
    variants: { pub(super) enum Shape { A(u8), B } }
    other_order: { pub(super) enum Shape { B, A(u8) } }
}

#[test]
fn the_schema_changes_with_the_stored_shape() {
    for (at, (name, schema)) in SHAPES.iter().enumerate() {
        let same = SHAPES[..at].iter().find(|(_, other)| other == schema);
        assert_eq!(same, None, "{name}");
        assert_ne!(*schema, 0, "{name}");
    }
}

mod before {
    use super::*;
    #[derive(Clone, Serialize, Deserialize, CacheSchema)]
    pub(super) struct Address(pub(super) String);
    pub(super) mod inner {
        #[derive(Clone, serde::Serialize, serde::Deserialize, cache_kit::CacheSchema)]
        pub(in super::super) struct Street(u8);
    }
    #[derive(Clone, Serialize, Deserialize, CacheSchema)]
    pub(super) struct User {
        pub(super) addresses: Vec<Option<Address>>,
    }
    #[derive(Clone, Serialize, Deserialize, CacheSchema)]
    pub(super) struct ByPath<T> {
        pub(super) street: Option<inner::Street>,
        pub(super) others: (std::net::IpAddr, [u8; 4], Box<str>),
        pub(super) of: T,
    }
    #[derive(Clone, Serialize, Deserialize, CacheSchema)]
    pub(super) struct Opaque {
        #[cache(opaque)]
        pub(super) addresses: Vec<Option<Address>>,
    }
}

mod after {
    use super::*;
    #[derive(Clone, Serialize, Deserialize, CacheSchema)]
    pub(super) struct Address(pub(super) String, pub(super) u32);
    pub(super) mod inner {
        #[derive(Clone, serde::Serialize, serde::Deserialize, cache_kit::CacheSchema)]
        pub(in super::super) struct Street(u8, u8);
    }
    #[derive(Clone, Serialize, Deserialize, CacheSchema)]
    pub(super) struct User {
        pub(super) addresses: Vec<Option<Address>>,
    }
    #[derive(Clone, Serialize, Deserialize, CacheSchema)]
    pub(super) struct ByPath<T> {
        pub(super) street: Option<inner::Street>,
        pub(super) others: (std::net::IpAddr, [u8; 4], Box<str>),
        pub(super) of: T,
    }
    #[derive(Clone, Serialize, Deserialize, CacheSchema)]
    pub(super) struct Opaque {
        #[cache(opaque)]
        pub(super) addresses: Vec<Option<Address>>,
    }
}

#[test]
fn types_may_be_named_by_their_paths() {
    assert_ne!(before::ByPath::<u8>::SCHEMA, after::ByPath::<u8>::SCHEMA);
}

#[test]
fn a_change_deep_inside_changes_the_schema_of_what_holds_it() {
    assert_ne!(before::User::SCHEMA, after::User::SCHEMA);
    assert_eq!(before::Opaque::SCHEMA, after::Opaque::SCHEMA, "what is opaque is left out");
}

#[derive(Clone, Serialize, Deserialize, CacheSchema)]
struct Tree {
    branches: Vec<Option<Box<Tree>>>,
    parent: Option<Box<Self>>,
}

#[test]
fn a_type_that_holds_itself_has_a_schema() {
    assert_ne!(Tree::SCHEMA, 0);
}

static SCHEMA: AtomicU64 = AtomicU64::new(1);

#[derive(Clone, Serialize, Deserialize)]
struct Changing(u64);

impl CacheEntity for Changing {
    type Key = u64;

    fn cache_key(&self) -> u64 {
        self.0
    }

    fn cache_prefix() -> &'static str {
        "changing"
    }

    fn cache_schema() -> u64 {
        SCHEMA.load(Ordering::Relaxed)
    }
}

#[tokio::test]
async fn an_entry_of_another_schema_is_a_miss() {
    let expander = CacheExpander::new(InMemoryBackend::new());
    let mut repository = InMemoryRepository::new();
    repository.insert(7, Changing(7));
    let hits = async || {
        expander.get::<Changing, _>(&7, &repository).await.unwrap().unwrap();
        expander.stats().hits
    };
    assert_eq!((hits().await, hits().await), (0, 1));
    SCHEMA.store(2, Ordering::Relaxed);
    assert_eq!((hits().await, hits().await), (1, 2), "stored anew, and found again");
    SCHEMA.store(1, Ordering::Relaxed);
    assert_eq!(hits().await, 2);
}

#[tokio::test]
async fn the_doors_share_the_entries_of_a_derived_entity() {
    let backend: Arc<dyn CacheBackend> = Arc::new(InMemoryBackend::new());
    let (cache, expander) = (Cache::new(Arc::clone(&backend)), CacheExpander::new(backend));
    let mut repository = InMemoryRepository::new();
    repository.insert(7, Pair(7, "x".into()));
    expander.get::<Pair, _>(&7, &repository).await.unwrap();
    assert!(
        cache.get::<Pair>("pair:7").await.unwrap().is_some(),
        "what an entity stored, a closure's reader finds"
    );
    // What was stored by somebody who does not know the shape is loaded once more, and then shared.
    cache.set("pair:7", &Pair(7, "y".into())).await.unwrap();
    let hits = expander.stats().hits;
    assert_eq!(expander.get::<Pair, _>(&7, &repository).await.unwrap().unwrap().1, "x");
    assert_eq!(expander.get::<Pair, _>(&7, &repository).await.unwrap().unwrap().1, "x");
    assert_eq!(
        (expander.stats().hits - hits, cache.get::<Pair>("pair:7").await.unwrap().unwrap().1),
        (1, "x".into())
    );
    cache.invalidate("pair:7").await.unwrap();
    repository.insert(7, Pair(7, "z".into()));
    assert_eq!(expander.get::<Pair, _>(&7, &repository).await.unwrap().unwrap().1, "z");
}

/// Types as serde's attributes make them, each with a value that shows what becomes of it.
mod attributes {
    use super::*;

    #[derive(Clone, Serialize, Deserialize)]
    #[serde(untagged)]
    pub(super) enum Untagged {
        Text(String),
    }
    #[derive(Clone, Serialize, Deserialize)]
    #[serde(tag = "t")]
    pub(super) enum Internal {
        Text { text: String },
    }
    #[derive(Clone, Serialize, Deserialize)]
    #[serde(tag = "t", content = "c")]
    pub(super) enum Adjacent {
        Text(String),
    }
    #[derive(Clone, Serialize, Deserialize)]
    pub(super) struct Inner {
        pub(super) text: String,
    }
    #[derive(Clone, Serialize, Deserialize)]
    pub(super) struct Flat {
        #[serde(flatten)]
        pub(super) inner: Inner,
    }
    #[derive(Clone, Serialize, Deserialize)]
    pub(super) struct SkippedIf {
        #[serde(default, skip_serializing_if = "Option::is_none")]
        pub(super) first: Option<String>,
        pub(super) second: String,
    }
    #[derive(Clone, Serialize, Deserialize)]
    pub(super) struct NotWritten {
        #[serde(skip_serializing, default)]
        pub(super) first: String,
        pub(super) second: String,
    }
    #[derive(Clone, Serialize, Deserialize)]
    pub(super) struct NotRead {
        #[serde(skip_deserializing)]
        pub(super) first: String,
        pub(super) second: String,
    }
    #[derive(Clone, Serialize, Deserialize)]
    pub(super) enum VariantSkipped {
        #[serde(skip)]
        Gone,
        Text(String),
    }
    #[derive(Clone, Serialize, Deserialize)]
    pub(super) enum LastVariantSkipped {
        Text(String),
        #[serde(skip)]
        Gone,
    }
    #[derive(Clone, Serialize, Deserialize)]
    #[serde(rename_all = "camelCase", deny_unknown_fields)]
    pub(super) struct Survives {
        #[serde(skip)]
        pub(super) skipped: u8,
        #[serde(default, rename = "x", alias = "y")]
        pub(super) renamed: String,
    }
}

#[tokio::test]
async fn what_the_derive_refuses_is_what_postcard_misreads() {
    use attributes::*;
    let cache = Cache::builder().verify_roundtrip(true).build(InMemoryBackend::new()).unwrap();
    let text = || "text".to_owned();
    let refused = [
        ("untagged", cache.set("a", &Untagged::Text(text())).await),
        ("tag", cache.set("a", &Internal::Text { text: text() }).await),
        ("tag and content", cache.set("a", &Adjacent::Text(text())).await),
        ("flatten", cache.set("a", &Flat { inner: Inner { text: text() } }).await),
        ("skip_serializing_if", cache.set("a", &SkippedIf { first: None, second: text() }).await),
        ("skip_serializing", cache.set("a", &NotWritten { first: text(), second: text() }).await),
        ("skip_deserializing", cache.set("a", &NotRead { first: text(), second: "other".into() }).await),
        ("skip", cache.set("a", &VariantSkipped::Text(text())).await),
    ];
    for (attribute, written) in refused {
        assert_eq!(written.map_err(|error| error.kind()), Err(ErrorKind::Codec), "{attribute}");
    }
    for (attribute, written) in [
        ("skip, last", cache.set("a", &LastVariantSkipped::Text(text())).await),
        ("rename, default, alias, skip", cache.set("a", &Survives { skipped: 0, renamed: text() }).await),
    ] {
        written.unwrap_or_else(|error| panic!("{attribute}: {error}"));
    }
}
