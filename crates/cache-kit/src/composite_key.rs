//! Keys of several values.

use std::fmt::{self, Display, Write as _};

use crate::escape::Escaped;

/// The key of an entity that several values identify together: displayed as `a:b`, with `:` and `%` within a value
/// escaped, so that different values never make the same key.
///
/// ```
/// use cache_kit::CompositeKey;
///
/// assert_eq!(CompositeKey(("eu", 7)).to_string(), "eu:7");
/// assert_ne!(CompositeKey(("a:b", "c")).to_string(), CompositeKey(("a", "b:c")).to_string());
/// let key: CompositeKey<(&str, u64)> = ("eu", 7).into();
/// ```
///
/// Made for tuples of two to six values.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct CompositeKey<T>(pub T);

impl<T> From<T> for CompositeKey<T> {
    fn from(parts: T) -> Self {
        Self(parts)
    }
}

macro_rules! tuples {
    ($($first:ident $($other:ident)+),+ $(,)?) => {$(
        impl<$first: Display, $($other: Display),+> Display for CompositeKey<($first, $($other),+)> {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                #[expect(non_snake_case, reason = "a value is called as its type is")]
                let ($first, $($other),+) = &self.0;
                write!(Escaped::new(f, ":"), "{}", $first)?;
                $(
                    f.write_char(':')?;
                    write!(Escaped::new(f, ":"), "{}", $other)?;
                )+
                Ok(())
            }
        }
    )+};
}

tuples!(A B, A B C, A B C D, A B C D E, A B C D E F);

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    #[test]
    fn keys_read_as_people_write_them() {
        assert_eq!(CompositeKey((1, "a", 'x', 2.5, true, 0_u8)).to_string(), "1:a:x:2.5:true:0");
        assert_eq!(CompositeKey(("größe", "a b")).to_string(), "größe:a b");
    }

    #[test]
    fn different_values_never_make_the_same_key() {
        let parts = ["", "a", ":", "%", "%3A", "a:", ":a", "a%", "%25", "3A"];
        let mut seen = HashMap::new();
        for a in parts {
            for b in parts {
                for c in parts {
                    let other = seen.insert(CompositeKey((a, b, c)).to_string(), (a, b, c));
                    assert_eq!(other, None);
                }
            }
        }
    }
}
