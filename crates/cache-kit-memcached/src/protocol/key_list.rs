//! The keys of a classic `get`.

use std::fmt;

use super::request::RequestError;
use crate::key::WireKey;

const COMMAND: &[u8] = b"get ";
const END: &[u8] = b"\r\n";

/// The keys of one `get`, in the order asked for. The same key may stand in it more than once.
///
/// It is the request line itself: the server answers with the keys in this order, and they are compared where they
/// stand. `Debug` prints how many there are.
#[derive(Clone, PartialEq, Eq)]
pub struct KeyList {
    line: Box<[u8]>,
    count: usize,
}

impl KeyList {
    /// # Errors
    ///
    /// [`RequestError::NoKeys`] without a key, and [`RequestError::Base64Key`] for a key that must be asked for with
    /// [`mg`](super::request::mg), as the command has no flags.
    pub fn new<'k>(keys: impl IntoIterator<Item = &'k WireKey<'k>>) -> Result<Self, RequestError> {
        let mut line = COMMAND.to_vec();
        let mut count = 0;
        for key in keys {
            if key.is_base64() {
                return Err(RequestError::Base64Key);
            }
            if count > 0 {
                line.push(b' ');
            }
            line.extend_from_slice(key.as_bytes());
            count += 1;
        }
        if count == 0 {
            return Err(RequestError::NoKeys);
        }
        line.extend_from_slice(END);
        Ok(Self { line: line.into(), count })
    }

    /// How many keys there are, at least one.
    #[must_use]
    pub fn count(&self) -> usize {
        self.count
    }

    /// The whole request.
    pub(super) fn as_line(&self) -> &[u8] {
        &self.line
    }

    /// The first key at or after `place` that is `wanted`, as the place behind it. `None` if there is none.
    pub(super) fn find(&self, wanted: &[u8], mut place: Place) -> Option<Place> {
        // No key holds a space, so that they can be told apart where they stand.
        let keys = self.line.get(COMMAND.len()..self.line.len().saturating_sub(END.len()))?;
        for key in keys.get(place.byte..)?.split(|&byte| byte == b' ') {
            place.byte += key.len() + 1;
            place.index += 1;
            if key == wanted {
                return Some(place);
            }
        }
        None
    }
}

/// A place between two keys of a [`KeyList`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Place {
    byte: usize,
    /// How many keys stand before it.
    pub(super) index: usize,
}

impl fmt::Debug for KeyList {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "KeyList({} keys)", self.count)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn list(keys: &[&str]) -> KeyList {
        let keys: Vec<_> = keys.iter().map(|key| WireKey::new(key.as_bytes())).collect();
        KeyList::new(&keys).unwrap()
    }

    #[test]
    fn it_is_the_request_line() {
        assert_eq!(list(&["a"]).as_line(), b"get a\r\n");
        assert_eq!(list(&["a", "bc", "a"]).as_line(), b"get a bc a\r\n");
        assert_eq!(list(&["a", "bc", "a"]).count(), 3);
    }

    #[test]
    fn no_keys_and_base64_keys_are_refused() {
        assert_eq!(KeyList::new([]), Err(RequestError::NoKeys));
        let keys = [WireKey::new(b"a"), WireKey::new(b"b c")];
        assert_eq!(KeyList::new(&keys), Err(RequestError::Base64Key));
    }

    #[test]
    fn keys_are_found_in_order_and_each_once() {
        let keys = list(&["a", "bc", "a"]);
        let first = keys.find(b"a", Place::default()).unwrap();
        assert_eq!(first.index, 1);
        let second = keys.find(b"a", first).unwrap();
        assert_eq!(second.index, 3);
        assert_eq!(keys.find(b"a", second), None);
        assert_eq!(keys.find(b"bc", second), None);
        for absent in [&b"b"[..], b"c", b"", b"a bc", b"get", b"a\r\n"] {
            assert_eq!(keys.find(absent, Place::default()), None);
        }
    }
}
