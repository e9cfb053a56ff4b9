//! What a server says when it does not do what it was asked to.

use super::line::{after_word, cleaned};

/// An error that the server reports. The texts are cut to 200 characters and hold printable ASCII only, but they may
/// quote what was sent: treat them in logs as you would treat keys and values.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Refusal {
    /// There is no room, and the server evicts nothing (`-M`), or nothing could be evicted in time. A `ms` that is
    /// refused so has deleted the old value.
    OutOfMemory,
    /// The value is larger than the server takes (`-I`). A `ms` that is refused so has deleted the old value.
    TooLarge,
    /// A counter was asked for, and the value is no number.
    NotNumeric,
    /// The server asks for a user and a password first.
    Unauthenticated,
    /// User and password are not those of the server.
    WrongCredentials,
    /// The server has as many connections as it takes; it closes this one.
    TooManyConnections,
    /// Another `SERVER_ERROR`, with its text.
    Server(Box<str>),
    /// Another `CLIENT_ERROR`, with its text, or a plain `ERROR`: the server did not understand the request.
    Client(Box<str>),
}

impl Refusal {
    /// Whether the connection can go on. After a request that was not understood the server may have taken a part of
    /// it for the next one; then nobody knows which reply belongs to what.
    #[must_use]
    pub fn keeps_connection(&self) -> bool {
        matches!(self, Self::OutOfMemory | Self::TooLarge | Self::NotNumeric | Self::Server(_))
    }

    /// Reads a line; `None` if it is no error.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        if let Some(text) = after_word(line, b"SERVER_ERROR") {
            return Some(Self::by_server(text));
        }
        if let Some(text) = after_word(line, b"CLIENT_ERROR") {
            return Some(Self::by_client(text));
        }
        let text = after_word(line, b"ERROR")?;
        Some(match text {
            b"Too many open connections" => Self::TooManyConnections,
            b"" => Self::Client("ERROR".into()),
            _ => Self::Client(cleaned(text)),
        })
    }

    fn by_server(text: &[u8]) -> Self {
        // There are many: storing, reading, allocating, in capitals or not.
        if starts_with(text, b"out of memory") {
            Self::OutOfMemory
        } else if starts_with(text, b"object too large") {
            Self::TooLarge
        } else {
            Self::Server(cleaned(text))
        }
    }

    fn by_client(text: &[u8]) -> Self {
        match text {
            b"unauthenticated" => Self::Unauthenticated,
            b"authentication failure" => Self::WrongCredentials,
            b"cannot increment or decrement non-numeric value" => Self::NotNumeric,
            _ => Self::Client(cleaned(text)),
        }
    }
}

fn starts_with(text: &[u8], start: &[u8]) -> bool {
    text.get(..start.len()).is_some_and(|head| head.eq_ignore_ascii_case(start))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(line: &str) -> Option<Refusal> {
        Refusal::parse(line.as_bytes())
    }

    #[test]
    fn the_texts_of_memcached_are_known() {
        for (line, refusal) in [
            ("SERVER_ERROR out of memory storing object", Refusal::OutOfMemory),
            ("SERVER_ERROR out of memory writing get response", Refusal::OutOfMemory),
            ("SERVER_ERROR Out of memory allocating new item", Refusal::OutOfMemory),
            ("SERVER_ERROR out of memory", Refusal::OutOfMemory),
            ("SERVER_ERROR object too large for cache", Refusal::TooLarge),
            ("SERVER_ERROR backend failure", Refusal::Server("backend failure".into())),
            ("SERVER_ERROR", Refusal::Server("".into())),
            ("CLIENT_ERROR cannot increment or decrement non-numeric value", Refusal::NotNumeric),
            ("CLIENT_ERROR unauthenticated", Refusal::Unauthenticated),
            ("CLIENT_ERROR authentication failure", Refusal::WrongCredentials),
            ("CLIENT_ERROR bad data chunk", Refusal::Client("bad data chunk".into())),
            ("CLIENT_ERROR", Refusal::Client("".into())),
            ("ERROR", Refusal::Client("ERROR".into())),
            ("ERROR Too many open connections", Refusal::TooManyConnections),
            ("ERROR of another kind", Refusal::Client("of another kind".into())),
        ] {
            assert_eq!(parse(line), Some(refusal), "{line}");
        }
    }

    #[test]
    fn other_lines_are_no_errors() {
        for line in
            ["", "EN", "END", "ERRORS", "error", " ERROR", "SERVER_ERRORS x", "CLIENT_ERROR:x", "STORED"]
        {
            assert_eq!(parse(line), None, "{line}");
        }
    }

    #[test]
    fn a_request_that_was_not_understood_ends_the_connection() {
        assert!(!Refusal::Client("x".into()).keeps_connection());
        assert!(!Refusal::Unauthenticated.keeps_connection());
        assert!(Refusal::TooLarge.keeps_connection());
        assert!(Refusal::NotNumeric.keeps_connection());
    }
}
