//! Caching for services that have a database behind them. Reads go through the cache, each key is loaded once however many
//! ask, and an invalidation wins over every load that is under way: in memory, over Redis and over Memcached alike.
//!
//! ```
//! #[tokio::main]
//! async fn main() -> cache_kit::Result<()> {
//!     let cache = cache_kit::Cache::from_env()?; // memory, or the server that CACHE_URL names
//!     let text = cache.get_or_load("manifest", || tokio::fs::read_to_string("Cargo.toml")).await?;
//!     println!("{} bytes", text.len());
//!     cache.invalidate("manifest").await // after the file has changed
//! }
//! ```
//!
//! # What you want to do
//!
//! | you want to | look at |
//! |---|---|
//! | cache what a function returns | [`Cache::get_or_load`]; with an attribute, [`cached`](macro@cached) |
//! | cache a row that may not exist | [`Cache::get_or_load_optional`] |
//! | borrow in the loader | [`Cache::get_or_load_inline`] |
//! | cache rows with keys of their own | [`CacheEntity`](trait@CacheEntity) and [its derive](derive@CacheEntity), [`CacheExpander`], [`CacheService`] |
//! | read many keys in one exchange, and load what is missing with one call | [`Cache::get_many_or_load`], [`CacheExpander::get_many`] |
//! | change the source and drop the cached value | [`Cache::invalidate`] |
//! | change it within a transaction | [`Cache::hold`] |
//! | invalidate many entries at once | [`Cache::invalidate_tag`], [`Cache::clear`] |
//! | set how long entries live, serve stale values, bound how long a read or a load takes | [`Policy`], [`LoadOptions`] |
//! | set that for one kind of entity, or for one call | [`CacheEntity::cache_policy`](trait@CacheEntity), [`PolicyOverrides`] |
//! | let the loader say for how long, or that it is not there, or that nothing has changed | [`Cache::get_or_load_entry`], [`Loaded`] |
//! | bound how many loads run | [`Limits`] |
//! | choose a backend by configuration | [`Cache::from_url`], [`backend::from_env`] |
//! | know where a value came from, and why | [`Outcome`], [`Cache::get_or_load_outcome`], [`Outcome::explain`] |
//! | count hits and misses | [`Cache::stats`], [`CacheMetrics`] |
//! | end a process without losing anything | [`Cache::shutdown`], [`Cache::flush_pending`] |
//! | test code that uses a cache | `testing` (feature `testing`), [`ManualClock`] |
//! | write a backend | [`backend::CacheBackend`] |
//!
//! The [book](https://github.com/megamsys/cache-kit.rs/blob/main/docs/src/SUMMARY.md) has a page for each of these, and the
//! [examples](https://github.com/megamsys/cache-kit.rs/blob/main/examples/README.md) a program.
//!
//! # Features
//!
//! | feature | default | |
//! |---|---|---|
//! | `inmemory` | yes | the backend in memory |
//! | `macros` | yes | `#[derive(CacheEntity)]`, `#[derive(CacheSchema)]` and `#[cached]` |
//! | `tracing` | yes | spans and events |
//! | `redis` | | Redis and Valkey |
//! | `memcached` | | Memcached |
//! | `tls` | | TLS to both |
//! | `msgpack`, `json` | | further formats of payloads |
//! | `all` | | all of these |
//! | `testing` | | the behaviour suite and test doubles; outside semver |
#![cfg_attr(docsrs, feature(doc_cfg))]

pub mod backend;
mod cache;
mod clock;
mod composite_key;
mod config;
mod engine;
mod entity;
mod entry;
mod error;
mod escape;
mod expander;
mod feed;
mod key;
mod loaded;
#[doc(hidden)]
pub mod macro_support;
mod observe;
mod outcome;
mod policy;
mod repository;
mod schema;
mod service;
mod steps;
mod strategy;
mod tags;
#[cfg(feature = "testing")]
pub mod testing;

pub use cache::{Cache, CacheBuilder};
#[cfg(feature = "macros")]
#[doc = include_str!("macros/entity.md")]
pub use cache_kit_macros::CacheEntity;
#[cfg(feature = "macros")]
/// Derives [`CacheSchema`](trait@CacheSchema) for a type that entities are made of, a struct or an enum.
///
/// Attributes of serde that postcard misreads are errors here as well as in
/// [`derive(CacheEntity)`](derive@CacheEntity); `#[cache(codec = "msgpack")]` says that the type is stored in another
/// format.
pub use cache_kit_macros::CacheSchema;
#[cfg(feature = "macros")]
#[doc = include_str!("macros/cached.md")]
pub use cache_kit_macros::cached;
pub use clock::{Clock, ManualClock, Tick};
pub use composite_key::CompositeKey;
pub use engine::{Gauges, Hold, SourceFailure};
pub use entity::{CacheEntity, CacheValue};
pub use entry::Codec;
pub use error::{Error, ErrorKind, Result, load};
pub use expander::CacheExpander;
pub use feed::{CacheFeed, GenericFeeder};
pub use loaded::{Loaded, Previous};
pub use observe::{CacheMetrics, NoOpMetrics, RejectedStats, Stats};
pub use outcome::{Invalidation, Outcome, Source, Stored};
pub use policy::{InlineOptions, Limits, LoadOptions, OperationConfig, Policy, PolicyOverrides, TtlPolicy};
pub use repository::{DataRepository, InMemoryRepository};
pub use schema::CacheSchema;
pub use service::CacheService;
pub use steps::{Step, Steps};
pub use strategy::CacheStrategy;
