//! The reply to a classic `get`: values under their keys, then `END`.

use bytes::{Buf as _, Bytes, BytesMut};

use super::{COPIED_BELOW, take_value, whole};
use crate::protocol::key_list::Place;
use crate::protocol::line::{self, CRLF, after_word, number, number_u32};
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
    /// Values that were read and not copied yet, with where their bytes begin.
    pieces: Vec<(Item, usize)>,
}

/// What comes after small values.
enum Next {
    /// A line of which the end has not come.
    Unknown,
    /// A small value that has not come in whole.
    Incomplete {
        whole: usize,
    },
    /// A value that is cut out of the buffer.
    Large {
        item: Item,
        header: usize,
    },
    End {
        header: usize,
    },
    Refused {
        refusal: Refusal,
        header: usize,
    },
}

impl ValuesExpect {
    pub(super) fn new(keys: KeyList, max_value: usize) -> Self {
        let found = vec![None; keys.count()];
        Self { keys, found, place: Place::default(), max_value, awaited: 0, pieces: Vec::new() }
    }

    pub(super) fn awaited(&self) -> usize {
        self.awaited
    }

    pub(super) fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Reply>, Violation> {
        loop {
            if input.len() < self.awaited {
                return Ok(None);
            }
            let mut read = 0;
            let next = self.scan(input, &mut read);
            self.take_pieces(input, read);
            match next? {
                Next::Unknown => return Ok(None),
                Next::Incomplete { whole } => {
                    self.awaited = whole;
                    return Ok(None);
                }
                Next::Large { item, header } => {
                    let Some(data) = take_value(input, header, item.len)? else {
                        self.awaited = whole(header, item.len);
                        return Ok(None);
                    };
                    self.awaited = 0;
                    self.place = item.place;
                    self.found(&item, data);
                }
                Next::End { header } => {
                    input.advance(header);
                    return Ok(Some(Reply::Values(std::mem::take(&mut self.found))));
                }
                Next::Refused { refusal, header } => {
                    input.advance(header);
                    return Ok(Some(Reply::Refused(refusal)));
                }
            }
        }
    }

    /// Reads on over small values, of which it notes where they stand, to the next that needs something else. `read` is
    /// how far it came.
    fn scan(&mut self, input: &[u8], read: &mut usize) -> Result<Next, Violation> {
        loop {
            let rest = input.get(*read..).unwrap_or_default();
            let Some(line) = line::first(rest)? else { return Ok(Next::Unknown) };
            let header = line::len_with_end(line);
            if line == b"END" {
                return Ok(Next::End { header });
            }
            let Some(item) = after_word(line, b"VALUE") else {
                let refusal = Refusal::parse(line).ok_or(Violation::UnexpectedLine)?;
                return Ok(Next::Refused { refusal, header });
            };
            let item = self.read(item)?;
            if item.len >= COPIED_BELOW {
                return Ok(Next::Large { item, header });
            }
            let len = item.len;
            let Some(end) = rest.get(header + len..whole(header, len)) else {
                return Ok(Next::Incomplete { whole: whole(header, len) });
            };
            if end != CRLF {
                return Err(Violation::ValueNotEnded);
            }
            self.awaited = 0;
            self.place = item.place;
            self.pieces.push((item, *read + header));
            *read += whole(header, len);
        }
    }

    /// Copies what was read, once for all the values in it: they came together, and are mostly dropped together.
    fn take_pieces(&mut self, input: &mut BytesMut, read: usize) {
        let pieces = std::mem::take(&mut self.pieces);
        let first = pieces.first().map_or(0, |(_, at)| *at);
        let block = Bytes::copy_from_slice(input.get(first..read).unwrap_or_default());
        for (item, at) in pieces {
            let data = block.slice(at - first..at - first + item.len);
            self.found(&item, data);
        }
        input.advance(read);
    }

    fn found(&mut self, item: &Item, data: Bytes) {
        // The place is behind the key.
        if let Some(found) = self.found.get_mut(item.place.index - 1) {
            *found = Some(Value { client_flags: item.client_flags, data });
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
#[derive(Clone, Debug)]
struct Item {
    place: Place,
    client_flags: u32,
    len: usize,
}
