//! Caching for services that have a database behind them: read through Redis, Memcached or memory, with
//! invalidations that always win.

pub mod backend;
mod cache;
mod clock;
mod config;
mod engine;
mod entity;
mod entry;
mod error;
mod expander;
mod feed;
mod key;
mod observe;
mod outcome;
mod policy;
mod repository;
mod service;
mod strategy;
#[cfg(feature = "testing")]
pub mod testing;

pub use cache::{Cache, CacheBuilder};
pub use clock::{Clock, ManualClock, Tick};
pub use entity::{CacheEntity, CacheValue};
pub use entry::Codec;
pub use error::{Error, ErrorKind, Result, load};
pub use expander::CacheExpander;
pub use feed::{CacheFeed, GenericFeeder};
pub use observe::{CacheMetrics, NoOpMetrics, RejectedStats, Stats};
pub use outcome::{Outcome, Source, Stored};
pub use policy::{InlineOptions, LoadOptions, OperationConfig, TtlPolicy};
pub use repository::{DataRepository, InMemoryRepository};
pub use service::CacheService;
pub use strategy::CacheStrategy;
