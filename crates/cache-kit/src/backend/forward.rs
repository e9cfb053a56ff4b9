//! `Box` and `Arc` of a backend are backends.
//!
//! Written against the signature that `#[async_trait]` expands to, so that a call through the pointer hands
//! out the boxed future of the backend itself instead of boxing it a second time.

use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;

use super::{Acquired, CacheBackend, Capabilities, Claim, Fill, Filled, Lease, Peek, SetEntry};
use crate::error::Result;

/// What `#[async_trait]` returns.
type Boxed<'a, T> = Pin<Box<dyn Future<Output = Result<T>> + Send + 'a>>;

/// Forwards every method to `&**self`.
macro_rules! forward_backend {
    ($($pointer:ty),+) => {$(
        #[deny(clippy::missing_trait_methods)]
        impl<T: CacheBackend + ?Sized> CacheBackend for $pointer {
            fn capabilities(&self) -> Capabilities {
                (**self).capabilities()
            }

            fn peek(&self, key: &str) -> Peek {
                (**self).peek(key)
            }

            fn distrust(&self) {
                (**self).distrust();
            }

            fn release_later(&self, key: &str, lease: Lease) {
                (**self).release_later(key, lease);
            }

            fn shards(&self) -> usize {
                (**self).shards()
            }

            fn shard_of(&self, key: &str) -> usize {
                (**self).shard_of(key)
            }

            fn shard_key(&self, shard: usize, name: &str) -> String {
                (**self).shard_key(shard, name)
            }

            forward_backend! { @async
                fn get['k](key: &'k str) -> Option<Bytes>;
                fn set['k](key: &'k str, value: Bytes, ttl: Option<Duration>) -> ();
                fn delete['k](key: &'k str) -> ();
                fn exists['k](key: &'k str) -> bool;
                fn mget['l, 'k](keys: &'l [&'k str]) -> Vec<Option<Bytes>>;
                fn mget_each['l, 'k](keys: &'l [&'k str]) -> Vec<Result<Option<Bytes>>>;
                fn mset['l, 'k](entries: &'l [SetEntry<'k>]) -> ();
                fn mdelete['l, 'k](keys: &'l [&'k str]) -> ();
                fn delete_pattern['k](pattern: &'k str) -> u64;
                fn health_check[]() -> bool;
                fn clear_all[]() -> ();
                fn acquire['k, 'v](key: &'k str, seen: Option<&'v Bytes>, life: Duration) -> Acquired;
                fn fill['k, 'l](key: &'k str, lease: &'l Lease, value: Bytes, ttl: Option<Duration>) -> Filled;
                fn acquire_many['l, 'k](claims: &'l [Claim<'k>], life: Duration) -> Vec<Result<Acquired>>;
                fn fill_many['l, 'k](fills: &'l [Fill<'k>]) -> Vec<Result<Filled>>;
                fn renew['k, 'l](key: &'k str, lease: &'l Lease, life: Duration) -> Option<Lease>;
                fn release['k, 'l](key: &'k str, lease: &'l Lease) -> ();
            }
        }
    )+};
    (@async $(fn $name:ident[$($life:lifetime),*]($($arg:ident: $type:ty),*) -> $out:ty;)+) => {$(
        fn $name<'s, $($life,)* 'async_trait>(&'s self $(, $arg: $type)*) -> Boxed<'async_trait, $out>
        where
            's: 'async_trait,
            $($life: 'async_trait,)*
            Self: 'async_trait,
        {
            (**self).$name($($arg),*)
        }
    )+};
}

forward_backend!(Box<T>, Arc<T>);
