//! Replies to the meta commands: a line with flags, and a value for some.

use bytes::{Buf as _, BytesMut};

use super::{take_value, whole};
use crate::protocol::line::{self, number, number_u32};
use crate::protocol::{MetaReply, Refusal, Reply, Status, Violation};

/// The digits of the largest counter.
pub(super) const MAX_NUMBER_LEN: usize = 20;

/// Which command the reply is for: not every one can be answered with everything.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Command {
    Get,
    Set,
    Delete,
    Arithmetic,
}

#[derive(Clone, Debug)]
pub(super) struct MetaExpect {
    command: Command,
    opaque: Option<u32>,
    max_value: usize,
    /// Header, value and line end together, once the header is known. Zero before. It saves reading the header again
    /// with each piece of a long value.
    awaited: usize,
}

impl MetaExpect {
    pub(super) fn new(command: Command, opaque: Option<u32>, max_value: usize) -> Self {
        Self { command, opaque, max_value, awaited: 0 }
    }

    pub(super) fn awaited(&self) -> usize {
        self.awaited
    }

    pub(super) fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Reply>, Violation> {
        if input.len() < self.awaited {
            return Ok(None);
        }
        let Some(line) = line::first(input)? else { return Ok(None) };
        let header = line::len_with_end(line);
        let mut words = line.split(|&byte| byte == b' ');
        // A line has a first word, if an empty one.
        let Some(status) = status(words.next().unwrap_or_default()) else {
            let refusal = Refusal::parse(line).ok_or(Violation::UnexpectedLine)?;
            input.advance(header);
            return Ok(Some(Reply::Refused(refusal)));
        };
        if !self.command.can_end_with(status) {
            return Err(Violation::UnexpectedLine);
        }
        // Before 1.6.18 there are more spaces than words need.
        let mut words = words.filter(|word| !word.is_empty());
        let len = if status == Status::Value {
            Some(self.value_len(words.next().unwrap_or_default())?)
        } else {
            None
        };
        let mut reply = MetaReply::new(status);
        read_flags(&mut reply, words)?;
        self.check_opaque(&reply)?;
        if let Some(len) = len {
            let Some(value) = take_value(input, header, len)? else {
                self.awaited = whole(header, len);
                return Ok(None);
            };
            reply.value = Some(value);
        } else {
            input.advance(header);
        }
        self.awaited = 0;
        Ok(Some(Reply::Meta(reply)))
    }

    fn value_len(&self, digits: &[u8]) -> Result<usize, Violation> {
        let len = usize::try_from(number(digits)?).unwrap_or(usize::MAX);
        if len > self.max_value { Err(Violation::ValueTooLarge) } else { Ok(len) }
    }

    fn check_opaque(&self, reply: &MetaReply) -> Result<(), Violation> {
        // Before 1.6.18 a miss repeats nothing. If it is somebody else's miss, the next reply tells.
        let left_out = reply.opaque.is_none() && reply.status == Status::Miss;
        if reply.opaque == self.opaque || left_out { Ok(()) } else { Err(Violation::OpaqueMismatch) }
    }
}

impl Command {
    fn can_end_with(self, status: Status) -> bool {
        match status {
            Status::Header => true,
            Status::Value => matches!(self, Self::Get | Self::Arithmetic),
            Status::Miss => self == Self::Get,
            Status::NotFound | Status::Exists => self != Self::Get,
            Status::NotStored => matches!(self, Self::Set | Self::Arithmetic),
        }
    }
}

fn status(code: &[u8]) -> Option<Status> {
    Some(match code {
        b"HD" => Status::Header,
        b"VA" => Status::Value,
        b"EN" => Status::Miss,
        b"NF" => Status::NotFound,
        b"NS" => Status::NotStored,
        b"EX" => Status::Exists,
        _ => return None,
    })
}

fn read_flags<'l>(reply: &mut MetaReply, words: impl Iterator<Item = &'l [u8]>) -> Result<(), Violation> {
    let mut seen = 0_u64;
    for word in words {
        let Some((&letter, argument)) = word.split_first().filter(|(letter, _)| letter.is_ascii_alphabetic())
        else {
            return Err(Violation::BadFlag);
        };
        let bit = 1 << (letter - b'A');
        if seen & bit != 0 {
            return Err(Violation::BadFlag);
        }
        seen |= bit;
        match letter {
            b'O' => reply.opaque = Some(number_u32(argument)?),
            b'f' => reply.client_flags = number_u32(argument)?,
            b'c' => reply.cas = Some(number(argument)?).filter(|&cas| cas != 0),
            b't' => reply.ttl = Some(seconds(argument)?),
            b's' => reply.size = Some(number(argument)?),
            b'l' => reply.last_access = Some(number(argument)?),
            b'h' => reply.hit_before = Some(yes(argument)?),
            b'W' => reply.won = mark(argument)?,
            b'X' => reply.stale = mark(argument)?,
            b'Z' => reply.already_won = mark(argument)?,
            // The protocol grows by flags, and 1.6.20 says some that it was not asked for.
            _ => {}
        }
    }
    Ok(())
}

/// A number that may be below zero.
fn seconds(digits: &[u8]) -> Result<i64, Violation> {
    let (negative, digits) = match digits.strip_prefix(b"-") {
        Some(digits) => (true, digits),
        None => (false, digits),
    };
    let number = i64::try_from(number(digits)?).map_err(|_| Violation::BadNumber)?;
    Ok(if negative { -number } else { number })
}

fn yes(digit: &[u8]) -> Result<bool, Violation> {
    match digit {
        b"0" => Ok(false),
        b"1" => Ok(true),
        _ => Err(Violation::BadNumber),
    }
}

/// A flag that says it all by being there.
fn mark(argument: &[u8]) -> Result<bool, Violation> {
    if argument.is_empty() { Ok(true) } else { Err(Violation::BadFlag) }
}
