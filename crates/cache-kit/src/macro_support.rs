//! What the code that macros write calls. No part of the public API: it changes whenever the macros do.

use std::fmt::{Display, Write as _};
use std::marker::PhantomData;

use crate::error::{Error, ErrorKind};
use crate::escape::Escaped;
use crate::schema::CacheSchema;

/// Something that can stand in a key or a tag.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot stand in a key",
    label = "does not display itself",
    note = "a key is made of values that implement `Display`, such as numbers, strings and ids; implement it, or use \
            fields of the value that do"
)]
pub trait KeyPart: Display {}

#[diagnostic::do_not_recommend]
impl<T: Display + ?Sized> KeyPart for T {}

/// Writes a value into a key or tag. With something special the value is one of several.
pub fn push_part<P: KeyPart + ?Sized>(text: &mut String, part: &P, special: &str) {
    // Writing to a string does not fail. A `Display` that does has shown less than the whole value.
    let written = if special.is_empty() {
        write!(text, "{part}")
    } else {
        write!(Escaped::new(text, special), "{part}")
    };
    assert!(written.is_ok(), "a `Display` implementation returned an error, and a key must be whole");
}

/// What the key of an entity must be.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot be the key of an entity",
    label = "is not `Display + Clone + Send + Sync + 'static`",
    note = "a key displays itself and is cloned: use a number, a string, an id type with `Display`, or several fields, each \
            with `#[cache(key)]`"
)]
pub trait EntityKey: Display + Clone + Send + Sync + 'static {}

#[diagnostic::do_not_recommend]
impl<T: Display + Clone + Send + Sync + 'static> EntityKey for T {}

/// Compiles for types that can be keys.
pub const fn assert_key_part<T: EntityKey>() {}

/// Codecs by their names; those of features that are off are not there.
pub mod codec {
    use crate::Codec;

    /// The default.
    #[must_use]
    pub fn postcard() -> Codec {
        Codec::Postcard
    }

    /// MessagePack.
    #[cfg(feature = "msgpack")]
    #[must_use]
    pub fn msgpack() -> Codec {
        Codec::MessagePack
    }

    /// JSON.
    #[cfg(feature = "json")]
    #[must_use]
    pub fn json() -> Codec {
        Codec::Json
    }
}

/// The schema of a type that may have none: `Schema::<T>::OF` is the inherent constant where there is one, and else that of
/// [`WithoutSchema`].
#[derive(Debug)]
pub struct Schema<T: ?Sized>(PhantomData<T>);

impl<T: CacheSchema + ?Sized> Schema<T> {
    /// The type's own.
    pub const OF: u64 = T::SCHEMA;
    /// Likewise.
    pub const NEEDS_NAMES: bool = T::NEEDS_NAMES;
}

/// The schema of a type that has none.
pub trait WithoutSchema {
    /// Nothing is known of it.
    const OF: u64 = 0;
    /// Nothing is known of it.
    const NEEDS_NAMES: bool = false;
}

impl<T: ?Sized> WithoutSchema for Schema<T> {}

/// Two schemas as one; the order counts.
#[must_use]
pub const fn mixed(schema: u64, part: u64) -> u64 {
    // The finalizer of splitmix64: <https://prng.di.unimi.it/splitmix64.c>
    let mut mixed = schema.rotate_left(5) ^ part.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// Tells the compiler what a future answers.
pub fn typed<T, F: Future<Output = T>>(future: F) -> F {
    future
}

/// The answer of a function that cannot fail, as that of a loader.
///
/// # Errors
/// Never.
pub fn never_fails<T>(value: T) -> Result<T, std::convert::Infallible> {
    Ok(value)
}

/// What a cached function returns, to be asked how an error of the cache becomes one of its own.
#[derive(Debug)]
pub struct Returns<R>(PhantomData<R>);

impl<R> Returns<R> {
    /// The only one.
    pub const NEW: Self = Self(PhantomData);
}

/// An error type that can hold one of the cache.
#[diagnostic::on_unimplemented(
    message = "`{Self}` cannot hold an error of the cache",
    label = "the error type of a cached function",
    note = "return `cache_kit::Result<_>`, which holds the function's own error (`Error::find_source`), or add a variant \
            with `#[from] cache_kit::Error` to the error type"
)]
pub trait HoldsCacheError: From<Error> {}

#[diagnostic::do_not_recommend]
impl<E: From<Error>> HoldsCacheError for E {}

/// Errors that can be cloned come back as the function returned them.
pub trait Recovered<R> {
    /// The answer for a read that failed.
    fn failed(&self, error: Error) -> R;
}

impl<T, E: HoldsCacheError + std::error::Error + Clone + 'static> Recovered<Result<T, E>>
    for &Returns<Result<T, E>>
{
    fn failed(&self, error: Error) -> Result<T, E> {
        // An error of this crate is never wrapped in another one.
        if error.kind() == ErrorKind::Source
            && let Some(own) = error.find_source::<E>()
        {
            return Err(own.clone());
        }
        Err(error.into())
    }
}

/// Other errors are inside of that of the cache.
pub trait Converted<T, E> {
    /// The answer for a read that failed.
    fn failed(&self, error: Error) -> Result<T, E>
    where
        E: HoldsCacheError;
}

impl<T, E> Converted<T, E> for Returns<Result<T, E>> {
    fn failed(&self, error: Error) -> Result<T, E>
    where
        E: HoldsCacheError,
    {
        Err(error.into())
    }
}

/// Whether a type is a `Result`: the inherent constant where it is, and else that of [`NoResult`].
#[derive(Debug)]
pub struct Kind<R: ?Sized>(PhantomData<R>);

impl<T, E> Kind<Result<T, E>> {
    /// It is.
    pub const IS_RESULT: bool = true;
}

/// What is no `Result`.
pub trait NoResult {
    /// It is not.
    const IS_RESULT: bool = false;
}

impl<R: ?Sized> NoResult for Kind<R> {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_order_of_parts_counts() {
        assert_ne!(mixed(mixed(1, 2), 3), mixed(mixed(1, 3), 2));
        assert_ne!(mixed(1, 0), mixed(mixed(1, 0), 0));
    }

    #[test]
    fn a_result_is_known_under_any_name() {
        type Answer = Result<u8, Error>;
        assert_eq!([Kind::<Answer>::IS_RESULT, Kind::<Option<u8>>::IS_RESULT], [true, false]);
    }
}
