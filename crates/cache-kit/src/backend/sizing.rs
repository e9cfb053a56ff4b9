//! How many connections a pool is given.

use std::num::NonZero;

/// The usual size of a pool of connections on a machine with so many cores: `(cores × 2) + 1`.
///
/// The rule is for pools whose connections serve one caller at a time. The backends here share theirs, so few do most of the
/// work whatever the bound is; it says what they may use at most.
///
/// ```
/// use cache_kit::backend::pool_size_for;
///
/// assert_eq!([4, 8, 16, 32].map(pool_size_for), [9, 17, 33, 65]);
/// ```
#[must_use]
pub const fn pool_size_for(cores: u32) -> u32 {
    cores.saturating_mul(2).saturating_add(1)
}

/// [`pool_size_for`] this machine, as many cores as the process may use. Where that is not known, 16, the default of
/// `RedisConfig` and `MemcachedConfig`.
#[must_use]
pub fn pool_size_here() -> u32 {
    let cores = std::thread::available_parallelism().map(NonZero::get);
    cores.map_or(16, |cores| pool_size_for(u32::try_from(cores).unwrap_or(u32::MAX)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pool_has_two_connections_a_core_and_one_more() {
        assert_eq!([0, 1, 8, u32::MAX].map(pool_size_for), [1, 3, 17, u32::MAX]);
        assert!(pool_size_here() >= 3);
    }
}
