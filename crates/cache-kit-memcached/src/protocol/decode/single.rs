//! Replies of one line.

use bytes::{Buf as _, BytesMut};

use crate::protocol::line::{self, after_word, cleaned};
use crate::protocol::{Refusal, Reply, Violation};

/// Which line it is to be.
#[derive(Clone, Copy, Debug)]
pub(super) enum Single {
    NoOp,
    Debug,
    Version,
    Flushed,
    Authenticated,
}

impl Single {
    pub(super) fn decode(self, input: &mut BytesMut) -> Result<Option<Reply>, Violation> {
        let Some(line) = line::first(input)? else { return Ok(None) };
        let reply = match self.read(line) {
            Some(reply) => reply,
            None => Reply::Refused(Refusal::parse(line).ok_or(Violation::UnexpectedLine)?),
        };
        let consumed = line::len_with_end(line);
        input.advance(consumed);
        Ok(Some(reply))
    }

    fn read(self, line: &[u8]) -> Option<Reply> {
        match self {
            Self::NoOp => (line == b"MN").then_some(Reply::NoOp),
            Self::Debug if line == b"EN" => Some(Reply::Debug(None)),
            Self::Debug => {
                let item = after_word(line, b"ME")?;
                // The key is left out: what is for people ends up in logs.
                let space = item.iter().position(|&byte| byte == b' ')?;
                Some(Reply::Debug(Some(cleaned(&item[space + 1..]))))
            }
            Self::Version => {
                let version = after_word(line, b"VERSION").filter(|version| !version.is_empty())?;
                Some(Reply::Version(cleaned(version)))
            }
            Self::Flushed => (line == b"OK").then_some(Reply::Done),
            Self::Authenticated => (line == b"STORED").then_some(Reply::Done),
        }
    }
}
