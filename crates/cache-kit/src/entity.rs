//! What can be cached: values, and entities that know their own key.

use std::fmt::Display;
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use crate::entry::Codec;
use crate::error::Result;
use crate::policy::PolicyOverrides;

/// Anything that can be stored and read back: implemented for every type that fits, never by hand.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be cached",
    note = "a cached value is `Serialize + DeserializeOwned + Clone + Send + Sync + 'static`: add \
            `#[derive(Clone, serde::Serialize, serde::Deserialize)]`, and own the data instead of borrowing it"
)]
pub trait CacheValue: Serialize + DeserializeOwned + Clone + Send + Sync + 'static {}

#[diagnostic::do_not_recommend]
impl<T: Serialize + DeserializeOwned + Clone + Send + Sync + 'static> CacheValue for T {}

/// A value with an identity, stored under `prefix:id`.
///
/// ```
/// use cache_kit::CacheEntity;
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, Serialize, Deserialize)]
/// struct User { id: u64, name: String }
///
/// impl CacheEntity for User {
///     type Key = u64;
///     fn cache_key(&self) -> u64 { self.id }
///     fn cache_prefix() -> &'static str { "user" }
/// }
/// ```
#[diagnostic::on_unimplemented(
    message = "`{Self}` is not a cache entity",
    note = "add `#[derive(cache_kit::CacheEntity)]` with `#[cache(prefix = \"…\")]` (feature `macros`), implement \
            `CacheEntity` (key and prefix), or use `Cache::get_or_load`, which needs no trait"
)]
pub trait CacheEntity: CacheValue {
    /// The identity. Two ids are one key exactly if they display alike.
    type Key: Display + Clone + Send + Sync + 'static;

    /// The identity of this entity.
    fn cache_key(&self) -> Self::Key;

    /// What sets this kind of entity apart from the others, such as `user`.
    fn cache_prefix() -> &'static str;

    /// The version of the stored form. Raise it when the type's fields change: entries of other versions
    /// are misses. Default: 0.
    #[must_use]
    fn cache_version() -> u32 {
        0
    }

    /// How entities of this kind look when they are stored, as a number: entries of another one are misses. Derived entities
    /// have that of [`CacheSchema`](crate::CacheSchema). Default: 0, nothing but the type's name and
    /// [`cache_version`](Self::cache_version) is looked at.
    ///
    /// A [`Cache`](crate::Cache) does not know entities, so it takes an entry of any number, and may misread one of another shape.
    /// What it stores itself is of none, and a miss for an entity with one.
    #[must_use]
    fn cache_schema() -> u64 {
        0
    }

    /// The format that entities of this kind are stored in. Default: that of the cache.
    #[must_use]
    fn cache_codec() -> Option<Codec> {
        None
    }

    /// Whether an entity past its fresh life may be served where the [`Policy`](crate::Policy) allows it. Say no for what
    /// must never be out of date, such as permissions. Default: it may.
    #[must_use]
    fn may_be_stale() -> bool {
        true
    }

    /// What this entity is invalidated with ([`CacheExpander::invalidate_tag`](crate::CacheExpander::invalidate_tag)), such as
    /// its tenant. Asked after a load. A tag is up to 255 bytes long, and an entity has up to 64. Default: none.
    #[must_use]
    fn cache_tags(&self) -> Vec<String> {
        Vec::new()
    }

    /// How long this entity lives, where that depends on what it holds. Zero is not stored. Default: as the policy says.
    #[must_use]
    fn cache_ttl(&self) -> Option<Duration> {
        None
    }

    /// What is different for entities of this kind from the cache's [`Policy`](crate::Policy), the life that a
    /// [`TtlPolicy`](crate::TtlPolicy) says included; a call may change it again. What contradicts itself is an error of kind
    /// [`Config`](crate::ErrorKind::Config) from every read. Default: nothing.
    ///
    /// ```
    /// # use cache_kit::{CacheEntity, PolicyOverrides};
    /// # use std::time::Duration;
    /// # #[derive(Clone, serde::Serialize, serde::Deserialize)]
    /// # struct Price(u64);
    /// # impl CacheEntity for Price {
    /// #     type Key = u64;
    /// #     fn cache_key(&self) -> u64 { self.0 }
    /// #     fn cache_prefix() -> &'static str { "price" }
    /// fn cache_policy() -> PolicyOverrides {
    ///     PolicyOverrides::default().with_ttl(Duration::from_secs(5))
    /// }
    /// # }
    /// ```
    #[must_use]
    fn cache_policy() -> PolicyOverrides {
        PolicyOverrides::NONE
    }

    /// Says no to an entity that must not be used; asked after a load and after a hit. A cached entity that is
    /// refused is a miss; one from the source is an error. Default: all are good.
    ///
    /// # Errors
    /// Why the entity must not be used.
    fn validate(&self) -> Result<()> {
        Ok(())
    }
}
