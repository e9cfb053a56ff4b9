//! A fingerprint of how values of a type look when they are stored.

/// How values of a type look when they are stored, as a number: a derived one changes when a field is added, removed,
/// renamed, moved or given another type, when a variant is, and when serde's attributes on them change. Entries of another
/// schema are misses.
///
/// `#[derive(CacheEntity)]` (feature `macros`) brings it along. Derive it for the types that an entity's fields are made of,
/// so that a change of these counts as well; of types without it only the name counts, as it is written.
///
/// ```
/// # #[cfg(feature = "macros")] {
/// use cache_kit::{CacheEntity, CacheSchema};
/// use serde::{Deserialize, Serialize};
///
/// #[derive(Clone, Serialize, Deserialize, CacheSchema)]
/// struct Address { street: String, city: String }
///
/// #[derive(Clone, Serialize, Deserialize, CacheEntity)]
/// #[cache(prefix = "user")]
/// struct User { id: u64, addresses: Vec<Address> }
/// # }
/// ```
///
/// Two types that hold each other have no end, which the compiler reports as a cycle: `#[cache(opaque)]` above a field
/// leaves what its type looks like out.
pub trait CacheSchema {
    /// The fingerprint. Zero is that of a type of which nothing is known.
    const SCHEMA: u64;
    /// Whether values must be stored with names, because the type, or one within it, says so with `#[cache(codec = "msgpack")]`
    /// or `"json"`. A derived entity that is stored in postcard all the same is a compile error.
    const NEEDS_NAMES: bool = false;
}
