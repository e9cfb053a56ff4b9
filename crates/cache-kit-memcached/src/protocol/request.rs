//! Requests, appended to a buffer as the server reads them.
//!
//! Whatever the keys and the options are, one call appends one request: no key, number or credential can end a line
//! or add a word to it.

use std::error::Error;
use std::fmt;

use super::line::{CRLF, push_number};
use super::{
    ArithmeticMode, ArithmeticOptions, Credentials, DeleteOptions, GetOptions, KeyList, SetMode, SetOptions,
    StatsTopic,
};
use crate::key::WireKey;
use crate::ttl::Exptime;

/// What memcached reads as a length. It takes a longer value for the next commands.
const MAX_VALUE_LEN: usize = i32::MAX as usize - CRLF.len();
/// Beyond that many seconds memcached reads a point in time.
const MAX_SECONDS: u32 = 60 * 60 * 24 * 30;
/// The key of the `set` that authenticates. A server without authentication stores what is sent with it. This one
/// can be no key of ours: behind `%#` those have 64 digits.
const AUTH_KEY: &[u8] = b"%#auth";

/// Why a request cannot be written. Nothing was appended then.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum RequestError {
    /// A `get` of no keys.
    NoKeys,
    /// A key that needs base64, in a command that cannot have it.
    Base64Key,
    /// A value that no memcached takes: 2 GiB or more.
    ValueTooLong,
}

impl fmt::Display for RequestError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NoKeys => "a get of no keys asks nothing; ask for one key at least",
            Self::Base64Key => {
                "this command takes no keys with spaces or control characters; use mg for them"
            }
            Self::ValueTooLong => "a value of 2 GiB or more cannot be sent to memcached",
        })
    }
}

impl Error for RequestError {}

/// Reads an item.
pub fn mg(out: &mut Vec<u8>, key: &WireKey<'_>, options: &GetOptions) {
    let mut line = Line::start(out, b"mg ", key);
    let before = line.out.len();
    line.number(b'O', options.opaque);
    // In front of `t`, which tells the time that is left when it is the flag's turn.
    line.exptime(b'T', options.touch);
    line.exptime(b'N', options.vivify);
    line.number(b'R', options.recache_secs.map(|secs| secs.min(MAX_SECONDS)));
    for (letter, wanted) in [
        (b'u', options.no_bump),
        (b'v', options.value),
        (b'f', options.client_flags),
        (b'c', options.cas),
        (b't', options.ttl),
        (b's', options.size),
        (b'l', options.last_access),
        (b'h', options.hit_before),
    ] {
        line.flag(letter, wanted);
    }
    // Before 1.6.18 a server refuses the command without any flag.
    line.flag(b's', line.out.len() == before && !key.is_base64());
    line.end();
}

/// Stores a value.
///
/// # Errors
///
/// [`RequestError::ValueTooLong`], whose value would be executed as commands.
pub fn ms(
    out: &mut Vec<u8>,
    key: &WireKey<'_>,
    value: &[u8],
    options: &SetOptions,
) -> Result<(), RequestError> {
    if value.len() > MAX_VALUE_LEN {
        return Err(RequestError::ValueTooLong);
    }
    out.reserve(value.len() + key.as_bytes().len() + 96);
    let mut line = Line { out };
    line.out.extend_from_slice(b"ms ");
    line.out.extend_from_slice(key.as_bytes());
    line.out.push(b' ');
    push_number(line.out, value.len() as u64);
    line.flag(b'b', key.is_base64());
    line.number(b'O', options.opaque);
    line.number(b'F', Some(options.client_flags).filter(|&flags| flags != 0));
    line.exptime(b'T', Some(options.exptime).filter(|&exptime| exptime != Exptime::NEVER));
    line.number(b'C', options.compare_cas);
    line.flag(b'I', options.invalidate && options.compare_cas.is_some());
    line.flag(b'c', options.cas);
    line.mode(match options.mode {
        SetMode::Set => None,
        SetMode::Add => Some(b'E'),
        SetMode::Replace => Some(b'R'),
        SetMode::Append => Some(b'A'),
        SetMode::Prepend => Some(b'P'),
    });
    line.end();
    out.extend_from_slice(value);
    out.extend_from_slice(CRLF);
    Ok(())
}

/// Deletes or invalidates an item.
pub fn md(out: &mut Vec<u8>, key: &WireKey<'_>, options: &DeleteOptions) {
    let mut line = Line::start(out, b"md ", key);
    line.number(b'O', options.opaque);
    line.number(b'C', options.compare_cas);
    line.flag(b'I', options.invalidate);
    line.exptime(b'T', options.exptime.filter(|_| options.invalidate));
    line.end();
}

/// Counts.
pub fn ma(out: &mut Vec<u8>, key: &WireKey<'_>, options: &ArithmeticOptions) {
    let mut line = Line::start(out, b"ma ", key);
    line.number(b'O', options.opaque);
    line.exptime(b'N', options.vivify);
    line.number(b'J', Some(options.initial).filter(|&n| n != 0 && options.vivify.is_some()));
    line.number(b'D', Some(options.delta).filter(|&n| n != 1));
    line.exptime(b'T', options.touch);
    line.number(b'C', options.compare_cas);
    line.mode(match options.mode {
        ArithmeticMode::Increment => None,
        ArithmeticMode::Decrement => Some(b'D'),
    });
    line.flag(b'v', options.value);
    line.flag(b't', options.ttl);
    line.flag(b'c', options.cas);
    line.end();
}

/// Asks for a sign that everything before was answered.
pub fn mn(out: &mut Vec<u8>) {
    out.extend_from_slice(b"mn\r\n");
}

/// Asks what the server knows about an item.
///
/// # Errors
///
/// [`RequestError::Base64Key`]: the server repeats the key, and it repeats one that it created itself (`vivify`) as it
/// is, with the line ends that may be in it.
pub fn me(out: &mut Vec<u8>, key: &WireKey<'_>) -> Result<(), RequestError> {
    if key.is_base64() {
        return Err(RequestError::Base64Key);
    }
    Line::start(out, b"me ", key).end();
    Ok(())
}

/// Reads many keys, at half of what an `mg` for each costs the server. The reply says less: an item that was created by
/// `vivify` and not filled yet is an empty value in it, and one that was invalidated is a value like any other.
pub fn get(out: &mut Vec<u8>, keys: &KeyList) {
    out.extend_from_slice(keys.as_line());
}

/// Asks for statistics.
pub fn stats(out: &mut Vec<u8>, topic: StatsTopic) {
    out.extend_from_slice(match topic {
        StatsTopic::General => b"stats\r\n",
        StatsTopic::Settings => b"stats settings\r\n",
        StatsTopic::Items => b"stats items\r\n",
        StatsTopic::Slabs => b"stats slabs\r\n",
        StatsTopic::Sizes => b"stats sizes\r\n",
        StatsTopic::Connections => b"stats conns\r\n",
    });
}

/// Drops every item, at once or after some seconds; 30 days at most, more is taken for that.
pub fn flush_all(out: &mut Vec<u8>, delay_secs: u32) {
    out.extend_from_slice(b"flush_all");
    if delay_secs > 0 {
        out.push(b' ');
        push_number(out, delay_secs.min(MAX_SECONDS).into());
    }
    out.extend_from_slice(CRLF);
}

/// Asks for the version of the server.
pub fn version(out: &mut Vec<u8>) {
    out.extend_from_slice(b"version\r\n");
}

/// Authenticates at a server with an authentication file (`-Y`). It must be the first request.
///
/// A server without one takes this for what it looks like, and stores user and password for everybody to read. So
/// they are sent with an expiry in the past, which the other kind of server ignores.
pub fn auth(out: &mut Vec<u8>, credentials: &Credentials) {
    out.extend_from_slice(b"set ");
    out.extend_from_slice(AUTH_KEY);
    out.extend_from_slice(b" 0 -1 ");
    push_number(out, credentials.as_bytes().len() as u64);
    out.extend_from_slice(CRLF);
    out.extend_from_slice(credentials.as_bytes());
    out.extend_from_slice(CRLF);
}

/// The line of a meta command while it is written.
struct Line<'o> {
    out: &'o mut Vec<u8>,
}

impl<'o> Line<'o> {
    fn start(out: &'o mut Vec<u8>, command: &[u8], key: &WireKey<'_>) -> Self {
        // Most lines need no more room.
        out.reserve(key.as_bytes().len() + 64);
        out.extend_from_slice(command);
        out.extend_from_slice(key.as_bytes());
        let mut line = Self { out };
        line.flag(b'b', key.is_base64());
        line
    }

    fn flag(&mut self, letter: u8, wanted: bool) {
        if wanted {
            self.out.extend_from_slice(&[b' ', letter]);
        }
    }

    fn number(&mut self, letter: u8, number: Option<impl Into<u64>>) {
        if let Some(number) = number {
            self.flag(letter, true);
            push_number(self.out, number.into());
        }
    }

    fn exptime(&mut self, letter: u8, exptime: Option<Exptime>) {
        self.number(letter, exptime.map(Exptime::get));
    }

    fn mode(&mut self, mode: Option<u8>) {
        if let Some(mode) = mode {
            self.out.extend_from_slice(&[b' ', b'M', mode]);
        }
    }

    fn end(self) {
        self.out.extend_from_slice(CRLF);
    }
}

#[cfg(test)]
mod tests;
