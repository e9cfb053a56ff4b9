//! Each page of the book as the documentation of a module, so that its snippets are documentation tests.

#[doc = include_str!("../README.md")]
pub mod readme {}

#[doc = include_str!("src/introduction.md")]
pub mod introduction {}

#[doc = include_str!("src/gentle-introduction.md")]
pub mod gentle_introduction {}

#[doc = include_str!("src/installation.md")]
pub mod installation {}

#[doc = include_str!("src/get-or-load.md")]
pub mod get_or_load {}

#[doc = include_str!("src/entities.md")]
pub mod entities {}

#[doc = include_str!("src/macros.md")]
pub mod macros {}

#[doc = include_str!("src/batches.md")]
pub mod batches {}

#[doc = include_str!("src/absent.md")]
pub mod absent {}

#[doc = include_str!("src/invalidation.md")]
pub mod invalidation {}

#[doc = include_str!("src/tags.md")]
pub mod tags {}

#[doc = include_str!("src/freshness.md")]
pub mod freshness {}

#[doc = include_str!("src/stale.md")]
pub mod stale {}

#[doc = include_str!("src/stampede.md")]
pub mod stampede {}

#[doc = include_str!("src/keys.md")]
pub mod keys {}

#[doc = include_str!("src/serialization.md")]
pub mod serialization {}

#[doc = include_str!("src/backends.md")]
pub mod backends {}

#[doc = include_str!("src/redis.md")]
pub mod redis {}

#[doc = include_str!("src/memcached.md")]
pub mod memcached {}

#[doc = include_str!("src/memory.md")]
pub mod memory {}

#[doc = include_str!("src/own-backend.md")]
pub mod own_backend {}

#[doc = include_str!("src/observing.md")]
pub mod observing {}

#[doc = include_str!("src/operations.md")]
pub mod operations {}

#[doc = include_str!("src/failure-modes.md")]
pub mod failure_modes {}

#[doc = include_str!("src/performance.md")]
pub mod performance {}

#[doc = include_str!("src/testing.md")]
pub mod testing {}

#[doc = include_str!("src/cookbook.md")]
pub mod cookbook {}

#[doc = include_str!("src/migrating/moka.md")]
pub mod migrating_from_moka {}

#[doc = include_str!("src/migrating/cached.md")]
pub mod migrating_from_cached {}

#[doc = include_str!("src/migrating/cache-kit-0.9.md")]
pub mod migrating_from_cache_kit_0_9 {}

#[doc = include_str!("src/migrating/redis.md")]
pub mod migrating_from_redis {}

#[doc = include_str!("src/options.md")]
pub mod options {}

#[doc = include_str!("src/comparison.md")]
pub mod comparison {}

#[doc = include_str!("src/design-principles.md")]
pub mod design_principles {}
