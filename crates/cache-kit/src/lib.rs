#![doc = include_str!("../../../README.md")]
//!
//! # Where to start
//!
//! | you want to | look at |
//! |---|---|
//! | cache what a function returns | [`Cache::get_or_load`] |
//! | borrow in the loader | [`Cache::get_or_load_inline`] |
//! | read many keys in one exchange | [`Cache::get_many_or_load`], [`CacheExpander::get_many`] |
//! | let the loader say for how long, or that it is not there | [`Cache::get_or_load_entry`], [`Loaded`] |
//! | invalidate many entries at once | [`Cache::invalidate_tag`], [`Cache::clear`] |
//! | change the source and drop the cached value | [`Cache::invalidate`] |
//! | change it within a transaction | [`Cache::hold`] |
//! | set how long entries live, serve stale values, bound how long a read or a load takes | [`Policy`], [`LoadOptions`] |
//! | set that for one kind of entity, or for one call | [`CacheEntity::cache_policy`], [`PolicyOverrides`] |
//! | bound how many loads run | [`Limits`] |
//! | know where a value came from, and why | [`Outcome`], [`Cache::get_or_load_outcome`], [`Outcome::explain`] |
//! | end a process without losing anything | [`Cache::shutdown`], [`Cache::flush_pending`] |
//! | cache entities with keys of their own | [`CacheEntity`], [`CacheExpander`], [`CacheService`] |
//! | choose a backend by configuration | [`Cache::from_url`], [`backend::from_env`] |
//! | count hits and misses | [`Cache::stats`], [`CacheMetrics`] |
//! | test code that uses a cache | `testing` (feature `testing`), [`ManualClock`] |
//! | write a backend | [`backend::CacheBackend`] |
//!
//! # Features
//!
//! `inmemory` (default): the backend in memory. `tracing` (default): spans and events. `msgpack`, `json`: further
//! payload formats. `all`: all of these. `testing`: the behaviour suite and test doubles.

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
