//! The reply to `stats`: names and values, then `END`.

use bytes::{Buf as _, BytesMut};

use crate::protocol::line::{self, after_word, cleaned};
use crate::protocol::{Refusal, Reply, Stat, Violation};

/// More than the statistics of 10,000 connections, of which each has a handful.
const MOST_STATS: usize = 65_536;

#[derive(Clone, Debug, Default)]
pub(super) struct StatsExpect(Vec<Stat>);

impl StatsExpect {
    pub(super) fn decode(&mut self, input: &mut BytesMut) -> Result<Option<Reply>, Violation> {
        loop {
            let Some(line) = line::first(input)? else { return Ok(None) };
            let consumed = line::len_with_end(line);
            if line == b"END" {
                input.advance(consumed);
                return Ok(Some(Reply::Stats(std::mem::take(&mut self.0))));
            }
            let Some(stat) = after_word(line, b"STAT") else {
                let refusal = Refusal::parse(line).ok_or(Violation::UnexpectedLine)?;
                input.advance(consumed);
                return Ok(Some(Reply::Refused(refusal)));
            };
            // A value may be empty, and then there is no space either.
            let mut parts = stat.splitn(2, |&byte| byte == b' ');
            let (name, value) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
            if name.is_empty() {
                return Err(Violation::UnexpectedLine);
            }
            if self.0.len() == MOST_STATS {
                return Err(Violation::TooManyStats);
            }
            self.0.push(Stat { name: cleaned(name), value: cleaned(value) });
            input.advance(consumed);
        }
    }
}
