//! Which loads the current task is inside of, so that a load that waits for itself is an error, not a hang.

use std::any::TypeId;
use std::collections::HashSet;
use std::sync::Arc;

tokio::task_local! {
    static CHAIN: Option<Arc<Link>>;
}

/// A load, and the load that it was begun inside of.
pub(super) struct Link {
    /// Which cache, by the address of what its clones share.
    cache: usize,
    keys: Keys,
    tag: TypeId,
    within: Option<Arc<Self>>,
}

/// What is loaded.
enum Keys {
    One(Box<str>),
    Many(HashSet<Box<str>>),
}

impl Keys {
    fn contain(&self, key: &str) -> bool {
        match self {
            Self::One(one) => &**one == key,
            Self::Many(keys) => keys.contains(key),
        }
    }
}

/// The innermost load that this task is inside of.
fn current() -> Option<Arc<Link>> {
    CHAIN.try_with(Clone::clone).ok().flatten()
}

/// Whether this task is inside of a load of any key.
pub(super) fn is_within_any() -> bool {
    CHAIN.try_with(Option::is_some).unwrap_or(false)
}

impl Link {
    /// Whether the load was begun inside of another.
    pub(super) fn is_nested(&self) -> bool {
        self.within.is_some()
    }
}

/// Whether this task is inside of a load of this key.
pub(super) fn contains(cache: usize, key: &str, tag: TypeId) -> bool {
    let mut next = current();
    while let Some(link) = next {
        if link.cache == cache && link.tag == tag && link.keys.contain(key) {
            return true;
        }
        next = link.within.clone();
    }
    false
}

/// A load about to begin, inside of what the current task is inside of. Made before the load is spawned, so
/// that the chain crosses tasks.
pub(super) fn link(cache: usize, key: &str, tag: TypeId) -> Arc<Link> {
    Arc::new(Link { cache, keys: Keys::One(key.into()), tag, within: current() })
}

/// The load of many keys.
pub(super) fn link_many<'k>(cache: usize, keys: impl Iterator<Item = &'k str>, tag: TypeId) -> Arc<Link> {
    Arc::new(Link { cache, keys: Keys::Many(keys.map(Into::into).collect()), tag, within: current() })
}

/// A load that is inside of none.
pub(super) fn root(cache: usize, key: &str, tag: TypeId) -> Arc<Link> {
    Arc::new(Link { cache, keys: Keys::One(key.into()), tag, within: None })
}

/// Runs the load inside of its link.
pub(super) async fn within<F: Future>(link: Arc<Link>, load: F) -> F::Output {
    CHAIN.scope(Some(link), load).await
}
