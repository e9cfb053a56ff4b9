//! Keys: namespace, prefix and id become one string, and different ones never the same.
//!
//! The common case reads as people expect: `prefix:id`, and `namespace/prefix:id` with a namespace. The
//! namespace is a plain name; `:`, `/` and `%` in a prefix are escaped; the id stands as it is. What would be
//! awkward for a server (control characters, spaces, great length) is replaced by a SHA-256 digest behind
//! `%#`, which no ordinary key contains in that place.
//!
//! A text key of [`Cache`](crate::Cache) is read as `prefix:id` at its first colon, so `"user:42"` is the key
//! of the entity `user` with the id `42`.

use std::any::Any;
use std::borrow::Cow;
use std::fmt::{Display, Write as _};
use std::panic::{AssertUnwindSafe, catch_unwind};

use sha2::{Digest as _, Sha256};
use xxhash_rust::xxh3::xxh3_128;

use crate::error::{Error, Result};

/// Longer keys are replaced by a digest; every backend takes keys of this length as they are.
const MAX_BYTES: usize = 200;
/// A prefix longer than this is not kept in front of a digest.
const MAX_HEAD_BYTES: usize = 64;
/// Stands in front of a digest.
const DIGEST_MARK: &str = "%#";

/// A key as it is stored, with the hash that its entry must carry.
#[derive(Clone, PartialEq, Eq)]
pub(crate) struct Key<'a> {
    stored: Cow<'a, str>,
    hash: u128,
}

impl<'a> Key<'a> {
    /// The key for a text, which is `prefix:id` or just a name.
    pub(crate) fn from_text(namespace: Option<&str>, text: &'a str) -> Result<Self> {
        if text.is_empty() {
            return Err(Error::invalid("the key is empty"));
        }
        if namespace.is_none() && stands_as_it_is(text) {
            return Ok(Self { stored: Cow::Borrowed(text), hash: xxh3_128(text.as_bytes()) });
        }
        let (head, tail) = text.split_once(':').map_or((text, None), |(head, tail)| (head, Some(tail)));
        let escaped = escape(head, b"/%");
        let mut whole = String::with_capacity(namespace.map_or(0, str::len) + text.len() + 8);
        push_head(&mut whole, namespace, &escaped);
        if let Some(tail) = tail {
            whole.push(':');
            whole.push_str(tail);
        }
        Ok(Self::finish(whole, namespace, &escaped, tail.is_some()))
    }

    /// A key of this crate's own. `mark` begins with a `%` that stands in front of no escape, as no other key does.
    pub(crate) fn reserved(namespace: Option<&str>, mark: &str, name: Option<&str>) -> String {
        let mut whole = String::with_capacity(namespace.map_or(0, str::len) + mark.len() + 24);
        push_head(&mut whole, namespace, mark);
        if let Some(name) = name {
            whole.push(':');
            whole.push_str(name);
        }
        Key::finish(whole, namespace, mark, name.is_some()).stored.into_owned()
    }

    /// The key of an entity.
    pub(crate) fn from_id<K: Display + 'static>(
        namespace: Option<&str>,
        prefix: &str,
        id: &K,
    ) -> Result<Key<'static>> {
        let escaped = escape(prefix, b":/%");
        let mut whole = String::with_capacity(namespace.map_or(0, str::len) + escaped.len() + 24);
        push_head(&mut whole, namespace, &escaped);
        whole.push(':');
        if let Some(id) = (id as &dyn Any).downcast_ref::<String>() {
            // The most common id, without the machinery of formatting.
            whole.push_str(id);
            return Ok(Key::finish(whole, namespace, &escaped, true));
        }
        // Somebody else's code, which must not take the caller's task down with it.
        let written = catch_unwind(AssertUnwindSafe(|| write!(whole, "{id}")));
        if !matches!(written, Ok(Ok(()))) {
            let how = if written.is_err() { "panicked" } else { "failed" };
            return Err(Error::invalid(format!("displaying the id of a `{prefix}` {how}"))
                .with_hint("the Display of an id must always succeed"));
        }
        Ok(Key::finish(whole, namespace, &escaped, true))
    }

    fn finish(whole: String, namespace: Option<&str>, head: &str, has_tail: bool) -> Key<'static> {
        let hash = xxh3_128(whole.as_bytes());
        let head_end = namespace.map_or(0, |namespace| namespace.len() + 1) + head.len();
        let tail = has_tail.then(|| &whole[head_end + 1..]);
        if is_plain(&whole, tail) {
            return Key { stored: Cow::Owned(whole), hash };
        }
        let mut stored = String::with_capacity(MAX_BYTES);
        if head.len() <= MAX_HEAD_BYTES && !head.bytes().any(is_awkward) && has_tail {
            push_head(&mut stored, namespace, head);
            stored.push(':');
        } else {
            push_head(&mut stored, namespace, "");
        }
        stored.push_str(DIGEST_MARK);
        for byte in Sha256::digest(whole.as_bytes()) {
            let _ = write!(stored, "{byte:02x}");
        }
        Key { stored: Cow::Owned(stored), hash }
    }

    /// What the backend is asked for.
    pub(crate) fn as_str(&self) -> &str {
        &self.stored
    }

    /// What an entry under this key carries: a hash of the key before any digest took its place.
    pub(crate) fn hash(&self) -> u128 {
        self.hash
    }

    pub(crate) fn into_owned(self) -> Key<'static> {
        Key { stored: Cow::Owned(self.stored.into_owned()), hash: self.hash }
    }
}

/// Whether a text without a namespace is stored just so, which is the common case: one pass decides.
fn stands_as_it_is(text: &str) -> bool {
    let bytes = text.as_bytes();
    if bytes.len() > MAX_BYTES {
        return false;
    }
    let mut head = true;
    for (at, &byte) in bytes.iter().enumerate() {
        if is_awkward(byte) || (head && (byte == b'/' || byte == b'%')) {
            return false;
        }
        if head && byte == b':' {
            head = false;
            if bytes[at + 1..].starts_with(DIGEST_MARK.as_bytes()) {
                return false;
            }
        }
    }
    true
}

fn push_head(whole: &mut String, namespace: Option<&str>, head: &str) {
    if let Some(namespace) = namespace {
        whole.push_str(namespace);
        whole.push('/');
    }
    whole.push_str(head);
}

/// Whether a key can be stored as it stands.
fn is_plain(whole: &str, tail: Option<&str>) -> bool {
    whole.len() <= MAX_BYTES
        && !whole.bytes().any(is_awkward)
        // An id that looks like a digest must not be taken for one.
        && !tail.is_some_and(|tail| tail.starts_with(DIGEST_MARK))
}

/// Spaces and control characters; a server's protocol may give them a meaning.
fn is_awkward(byte: u8) -> bool {
    byte <= b' ' || byte == 0x7f
}

fn escape<'a>(text: &'a str, special: &[u8]) -> Cow<'a, str> {
    if !text.bytes().any(|byte| special.contains(&byte)) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match u8::try_from(c) {
            Ok(byte) if special.contains(&byte) => {
                let _ = write!(escaped, "%{byte:02X}");
            }
            _ => escaped.push(c),
        }
    }
    Cow::Owned(escaped)
}

/// Refuses a namespace that would not stand as it is in front of every key.
pub(crate) fn check_namespace(namespace: &str) -> Result<()> {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
    if namespace.is_empty() || namespace.len() > 64 || !namespace.bytes().all(plain) {
        return Err(Error::config("the namespace is not a plain name")
            .with_hint("use 1 to 64 letters, digits, `.`, `_` or `-`"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::fmt;

    use proptest::prelude::*;

    use super::*;

    /// An id that is not a string, and goes through its `Display`.
    struct Shown(String);

    impl Display for Shown {
        fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str(&self.0)
        }
    }

    fn id(namespace: Option<&str>, prefix: &str, id: &str) -> String {
        Key::from_id(namespace, prefix, &Shown(id.into())).unwrap().as_str().to_owned()
    }

    fn text(namespace: Option<&str>, text: &str) -> String {
        Key::from_text(namespace, text).unwrap().as_str().to_owned()
    }

    #[test]
    fn ordinary_keys_stand_as_people_write_them() {
        assert_eq!(id(None, "user", "42"), "user:42");
        assert_eq!(id(Some("shop"), "user", "42"), "shop/user:42");
        assert_eq!(id(None, "user", "a:b/c%d{e}"), "user:a:b/c%d{e}");
        assert_eq!(id(None, "größe", "µ"), "größe:µ");
        assert_eq!(text(None, "greeting"), "greeting");
        assert_eq!(text(None, "user:42"), "user:42");
    }

    #[test]
    fn a_text_key_is_the_key_of_the_entity_that_it_names() {
        for (prefix, of) in
            [("user", "42"), ("user", "a:b"), ("user", ""), ("user", "sp ace"), ("user", "%#1")]
        {
            let (entity, typed) =
                (format!("{prefix}:{of}"), Key::from_id(Some("n"), prefix, &of.to_owned()).unwrap());
            assert!(Key::from_text(Some("n"), &entity).unwrap() == typed, "{entity}");
        }
    }

    #[test]
    fn awkward_keys_become_a_digest_behind_their_prefix() {
        for awkward in ["sp ace", "line\r\nbreak", "nul\0", "%#pretender", &"long".repeat(80)] {
            let key = id(Some("shop"), "user", awkward);
            assert!(key.starts_with("shop/user:%#"), "{key}");
            assert_eq!(key.len(), "shop/user:%#".len() + 64);
        }
        assert!(text(None, "sp ace").starts_with("%#"));
        assert!(text(None, &"x".repeat(10_000)).len() <= MAX_BYTES);
        assert!(id(None, &"p".repeat(100), &"x".repeat(200)).starts_with("%#"));
    }

    #[test]
    fn an_id_that_cannot_be_displayed_is_an_error() {
        struct Bad(bool);
        impl Display for Bad {
            fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
                assert!(self.0, "no display for you");
                Err(fmt::Error)
            }
        }
        assert!(
            Key::from_id(None, "user", &Bad(true)).is_err_and(|e| e.to_string().contains("`user` failed"))
        );
        assert!(Key::from_id(None, "user", &Bad(false)).is_err_and(|e| e.to_string().contains("panicked")));
    }

    #[test]
    fn an_empty_key_and_a_fancy_namespace_are_refused() {
        assert!(Key::from_text(None, "").is_err());
        assert!(check_namespace("shop-1.eu_west").is_ok());
        for bad in ["", "a/b", "a:b", "a b", "ü", &"n".repeat(65)] {
            assert!(check_namespace(bad).is_err(), "{bad:?}");
        }
    }

    /// Parts with many separators, and some that are awkward.
    fn part() -> impl Strategy<Value = String> {
        prop_oneof!["[ab:/%#2F3A]{0,6}", "[a-c \r\n\0]{0,3}", Just("x".repeat(300))]
    }

    #[test]
    fn tuples_made_of_separators_never_meet() {
        let namespaces = [None, Some("a"), Some("a-b"), Some("3A")];
        let parts = [
            "", "a", "b", "c", ":", "/", "%", "a:b", "b:c", "a/b", "a%3Ab", "a%2Fb", "%3A", "3A", ":b", "a:",
            "/a:b",
        ];
        let mut seen = HashMap::new();
        for namespace in namespaces {
            for prefix in parts {
                for of in parts {
                    let tuple = (namespace, prefix, of);
                    let other = seen.insert(id(namespace, prefix, of), tuple);
                    assert_eq!(other, None, "meets {tuple:?}");
                }
            }
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4_000))]

        #[test]
        fn different_tuples_never_meet(
            a in (proptest::option::of("[a-c]{1,2}"), part(), part()),
            b in (proptest::option::of("[a-c]{1,2}"), part(), part()),
        ) {
            let key = |(namespace, prefix, of): &(Option<String>, String, String)| {
                Key::from_id(namespace.as_deref(), prefix, of).unwrap()
            };
            let (first, second) = (key(&a), key(&b));
            prop_assert_eq!(a == b, first.as_str() == second.as_str());
            prop_assert_eq!(a == b, first.hash() == second.hash());
        }

        #[test]
        fn different_texts_never_meet(
            a in (proptest::option::of("[a-c]{1,2}"), part()),
            b in (proptest::option::of("[a-c]{1,2}"), part()),
        ) {
            // An empty text is refused, so each gets a letter.
            let key = |(namespace, text): &(Option<String>, String)| {
                Key::from_text(namespace.as_deref(), &format!("{text}x")).unwrap().into_owned()
            };
            let (first, second) = (key(&a), key(&b));
            prop_assert_eq!(a == b, first.as_str() == second.as_str());
        }

        #[test]
        fn what_is_stored_is_short_and_harmless(namespace in "[a-z]{1,64}", prefix in ".{0,90}", of in ".{0,300}") {
            let key = Key::from_id(Some(&namespace), &prefix, &Shown(of)).unwrap();
            prop_assert!(key.as_str().len() <= MAX_BYTES);
            prop_assert!(!key.as_str().bytes().any(is_awkward));
        }
    }
}
