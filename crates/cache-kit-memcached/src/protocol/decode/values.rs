//! The reply to a classic `get`: values under their keys, then `END`.

use bytes::{Buf as _, BytesMut};

use super::{take_value, whole};
use crate::protocol::key_list::Place;
use crate::protocol::line::{self, after_word, number, number_u32};
use crate::protocol::{KeyList, Refusal, Reply, Value, Violation};

#[derive(Clone, Debug)]
pub(super) struct ValuesExpect {
    keys: KeyList,
    found: Vec<Option<Value>>,
    /// Behind the key of the last value. The server answers in the order asked for and leaves misses out, so what
    /// stands before it is settled.
    place: Place,
    max_value: usize,
    /// The next value with its line and its end, once the line is known. Zero before.
    awaited: usize,
}

impl ValuesExpect {
    pub(super) fn new(keys: KeyList, max_value: usize) -> Self {
        let found = vec![None; keys.count()];
        Self { keys, found, place: Place::default(), max_value, awaited: 0 }
    }

    pub(super) fn awaited(&self) -> usize {
        self.awaited
    }

    pub(super) fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Reply>, Violation> {
        loop {
            if input.len() < self.awaited {
                return Ok(None);
            }
            let Some(line) = line::first(input)? else { return Ok(None) };
            let header = line::len_with_end(line);
            if line == b"END" {
                input.advance(header);
                return Ok(Some(Reply::Values(std::mem::take(&mut self.found))));
            }
            let Some(item) = after_word(line, b"VALUE") else {
                let refusal = Refusal::parse(line).ok_or(Violation::UnexpectedLine)?;
                input.advance(header);
                return Ok(Some(Reply::Refused(refusal)));
            };
            let Item { place, client_flags, len } = self.read(item)?;
            let Some(data) = take_value(input, header, len)? else {
                self.awaited = whole(header, len);
                return Ok(None);
            };
            self.awaited = 0;
            self.place = place;
            // The place is behind the key.
            if let Some(found) = self.found.get_mut(place.index - 1) {
                *found = Some(Value { client_flags, data });
            }
        }
    }

    fn read(&self, item: &[u8]) -> Result<Item, Violation> {
        let mut words = item.split(|&byte| byte == b' ');
        let (Some(key), Some(client_flags), Some(len), None) =
            (words.next(), words.next(), words.next(), words.next())
        else {
            return Err(Violation::UnexpectedLine);
        };
        let client_flags = number_u32(client_flags)?;
        let len = usize::try_from(number(len)?).unwrap_or(usize::MAX);
        let place = self.keys.find(key, self.place).ok_or(Violation::UnexpectedKey)?;
        if len > self.max_value {
            return Err(Violation::ValueTooLarge);
        }
        Ok(Item { place, client_flags, len })
    }
}

/// The line in front of a value.
struct Item {
    place: Place,
    client_flags: u32,
    len: usize,
}
