//! How a key goes onto the wire.
//!
//! A key is any bytes. The protocol takes 1 to 250 of them, and spaces and line ends have a meaning there: a key that
//! is copied into a request as it is lets whoever chooses keys choose commands. So a key takes one of three forms:
//!
//! | key | form | is known by |
//! |---|---|---|
//! | 1 to 250 bytes without spaces and control characters | as it is | – |
//! | other, up to 186 bytes | base64, with the meta flag `b` | the server: it stores the key itself |
//! | empty, longer, or beginning with `%#` | `%#` and the SHA-256 in 64 hexadecimal digits | this client only |
//!
//! Different keys never meet: what begins with `%#` is a digest, and nobody can name a digest, because a key that
//! begins so is digested as well.

use std::fmt;

use sha2::{Digest as _, Sha256};

/// The longest key that memcached takes, as it is on the wire: the base64 and not what it stands for.
pub const MAX_KEY_LEN: usize = 250;
/// Stands in front of a digest.
const DIGEST_MARK: &[u8; 2] = b"%#";

/// A key in its form on the wire, which never holds a space, a control character or more than [`MAX_KEY_LEN`] bytes.
///
/// `Debug` prints form and length, never the key.
///
/// ```
/// use cache_kit_memcached::WireKey;
///
/// let plain = WireKey::new(b"user:42");
/// assert_eq!((plain.as_bytes(), plain.is_base64()), (&b"user:42"[..], false));
///
/// let spaced = WireKey::new(b"john doe");
/// assert_eq!((spaced.as_bytes(), spaced.is_base64()), (&b"am9obiBkb2U="[..], true));
/// ```
#[derive(Clone, PartialEq, Eq, Hash)]
pub struct WireKey<'a>(Form<'a>);

/// Private, so that a form that breaks the promise of [`WireKey`] cannot be made elsewhere.
#[derive(Clone, PartialEq, Eq, Hash)]
enum Form<'a> {
    Plain(&'a [u8]),
    Base64(Box<[u8]>),
    Digest(Box<[u8]>),
}

impl<'a> WireKey<'a> {
    /// The form of any key. Plain keys are borrowed, and nothing is allocated for them.
    #[must_use]
    pub fn new(key: &'a [u8]) -> Self {
        if key.is_empty() || key.starts_with(DIGEST_MARK) {
            return Self(Form::Digest(digest(key)));
        }
        if key.len() <= MAX_KEY_LEN && is_plain(key) {
            return Self(Form::Plain(key));
        }
        Self(if base64_len(key.len()) <= MAX_KEY_LEN {
            Form::Base64(base64(key))
        } else {
            Form::Digest(digest(key))
        })
    }

    /// What stands for the key in a request and in a reply.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Form::Plain(key) => key,
            Form::Base64(text) | Form::Digest(text) => text,
        }
    }

    /// Whether the request must carry the meta flag `b`. Commands without flags, such as `get`, cannot ask for such
    /// a key.
    #[must_use]
    pub fn is_base64(&self) -> bool {
        matches!(self.0, Form::Base64(_))
    }
}

impl fmt::Debug for WireKey<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let form = match &self.0 {
            Form::Plain(_) => "Plain",
            Form::Base64(_) => "Base64",
            Form::Digest(_) => "Digest",
        };
        write!(f, "WireKey::{form}({} bytes)", self.as_bytes().len())
    }
}

/// Bytes of UTF-8 beyond ASCII are fine: the server splits at spaces and line ends, nothing else.
fn is_plain(key: &[u8]) -> bool {
    // Without an early end, so that it is computed for many bytes at once.
    key.iter().fold(true, |plain, &byte| plain & (byte > b' ') & (byte != 0x7f))
}

fn digest(key: &[u8]) -> Box<[u8]> {
    const DIGITS: &[u8; 16] = b"0123456789abcdef";
    let mut text = DIGEST_MARK.to_vec();
    for byte in Sha256::digest(key) {
        text.extend([byte >> 4, byte & 15].map(|digit| DIGITS[usize::from(digit)]));
    }
    text.into()
}

const fn base64_len(len: usize) -> usize {
    len.div_ceil(3).saturating_mul(4)
}

/// The standard alphabet with padding: what memcached decodes.
fn base64(bytes: &[u8]) -> Box<[u8]> {
    const ALPHABET: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = Vec::with_capacity(base64_len(bytes.len()));
    for three in bytes.chunks(3) {
        let at = |index: usize| u32::from(three.get(index).copied().unwrap_or(0));
        let bits = at(0) << 16 | at(1) << 8 | at(2);
        for digit in 0..4 {
            let value = bits >> (18 - 6 * digit) & 63;
            // One byte fills two digits, two bytes fill three.
            text.push(if digit <= three.len() { ALPHABET[value as usize] } else { b'=' });
        }
    }
    text.into()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn is_digest(key: &[u8]) -> bool {
        let wire = WireKey::new(key);
        let text = wire.as_bytes();
        text.len() == 66
            && text.starts_with(b"%#")
            && text[2..].iter().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
            && !wire.is_base64()
    }

    fn is_as_it_is(key: &[u8]) -> bool {
        let wire = WireKey::new(key);
        wire.as_bytes() == key && !wire.is_base64()
    }

    #[test]
    fn the_base64_is_that_of_the_standard() {
        // The vectors of RFC 4648, and both digits that differ in the alphabet for URLs.
        for (bytes, text) in [
            (&b"f"[..], "Zg=="),
            (b"fo", "Zm8="),
            (b"foo", "Zm9v"),
            (b"foob", "Zm9vYg=="),
            (b"fooba", "Zm9vYmE="),
            (b"foobar", "Zm9vYmFy"),
            (b"\xfb\xff\xfe", "+//+"),
        ] {
            assert_eq!(*base64(bytes), *text.as_bytes());
        }
    }

    #[test]
    fn the_digest_is_sha_256() {
        let wire = WireKey::new(b"");
        let expected = "%#e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
        assert_eq!(wire.as_bytes(), expected.as_bytes());
    }

    #[test]
    fn plain_keys_go_up_to_250_bytes() {
        assert!(is_as_it_is(&[b'k'; 250]));
        assert!(is_digest(&[b'k'; 251]), "its base64 is too long as well");
        assert!(is_as_it_is("schlüssel:ß\u{2028}".as_bytes()));
        assert!(is_as_it_is(b"\x80\xff"));
    }

    #[test]
    fn base64_keys_go_up_to_186_bytes() {
        let spaces = [b' '; 188];
        assert_eq!(WireKey::new(&spaces[..186]).as_bytes().len(), 248);
        assert!(WireKey::new(&spaces[..186]).is_base64());
        assert!(is_digest(&spaces[..187]), "252 digits");
        assert!(is_digest(&spaces));
    }

    #[test]
    fn no_control_character_and_no_space_is_plain() {
        for byte in 0..=u8::MAX {
            let key = [b'k', byte, b'y'];
            let forbidden = byte <= b' ' || byte == 0x7f;
            assert_eq!(WireKey::new(&key).is_base64(), forbidden, "{byte:#x}");
            assert_eq!(is_as_it_is(&key), !forbidden, "{byte:#x}");
        }
    }

    #[test]
    fn nobody_can_name_the_digest_of_another_key() {
        let long = [b'k'; 300];
        let victim = WireKey::new(&long);
        let attack = WireKey::new(victim.as_bytes());
        assert!(is_digest(victim.as_bytes()));
        assert_ne!(attack, victim);
        assert!(is_digest(b"%#"));
        assert!(is_digest(b"%# with a space"));
        assert!(is_as_it_is(b"%"));
        assert!(is_as_it_is(b"a%#"));
    }

    #[test]
    fn debug_does_not_print_the_key() {
        assert_eq!(format!("{:?}", WireKey::new(b"secret")), "WireKey::Plain(6 bytes)");
        assert_eq!(format!("{:?}", WireKey::new(b"a secret")), "WireKey::Base64(12 bytes)");
    }

    /// Keys of every form, and pairs that are alike.
    fn key() -> impl Strategy<Value = Vec<u8>> {
        prop_oneof![
            prop::collection::vec(any::<u8>(), 0..300),
            prop::collection::vec(prop::sample::select(&b"a %#=A\x7f\n"[..]), 0..4),
            "[!-~]{1,260}".prop_map(String::into_bytes),
            prop::collection::vec(any::<u8>(), 0..200).prop_map(|key| base64(&key).into_vec()),
            prop::collection::vec(any::<u8>(), 0..300).prop_map(|key| digest(&key).into_vec()),
        ]
    }

    proptest! {
        #[test]
        fn different_keys_stay_different(one in key(), other in key()) {
            let (a, b) = (WireKey::new(&one), WireKey::new(&other));
            prop_assert_eq!(one == other, (a.as_bytes(), a.is_base64()) == (b.as_bytes(), b.is_base64()));
            // Not even the key and what stands for it are the same.
            let again = WireKey::new(a.as_bytes());
            let same = (again.as_bytes(), again.is_base64()) == (a.as_bytes(), a.is_base64());
            prop_assert_eq!(same, one == a.as_bytes());
        }

        #[test]
        fn every_form_is_safe_in_a_line(key in key()) {
            let wire = WireKey::new(&key);
            let text = wire.as_bytes();
            prop_assert!((1..=MAX_KEY_LEN).contains(&text.len()));
            prop_assert!(text.iter().all(|&byte| byte > b' ' && byte != 0x7f));
        }
    }
}
