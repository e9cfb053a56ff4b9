//! What a state machine shares between tasks: of std, or of the model checker, which then chooses who goes next.

#[cfg(not(all(test, cache_kit_model)))]
pub(super) use std::{
    hash::RandomState,
    sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicUsize, atomic::Ordering},
};

#[cfg(all(test, cache_kit_model))]
pub(super) use shuttle::sync::{Arc, Mutex, MutexGuard, PoisonError, atomic::AtomicUsize, atomic::Ordering};

#[cfg(all(test, cache_kit_model))]
pub(super) use self::fixed::RandomState;

#[cfg(all(test, cache_kit_model))]
mod fixed {
    use std::hash::{BuildHasher, DefaultHasher};

    /// Hashes alike in every run: a schedule that is repeated must meet the same locks.
    pub(in crate::engine) struct RandomState;

    impl RandomState {
        pub(in crate::engine) fn new() -> Self {
            Self
        }
    }

    impl BuildHasher for RandomState {
        type Hasher = DefaultHasher;

        fn build_hasher(&self) -> DefaultHasher {
            DefaultHasher::new()
        }
    }
}
