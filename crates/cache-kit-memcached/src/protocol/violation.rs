//! What a server must not answer.

use std::error::Error;
use std::fmt;

/// How the bytes that were read break the protocol. The connection cannot be used any more: nobody knows where the
/// next reply begins, or whose it is.
///
/// It holds nothing of what was read, which may be somebody's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Violation {
    /// No line end within [`MAX_LINE_LEN`](super::MAX_LINE_LEN) bytes.
    LineTooLong,
    /// A line that ends in a line feed alone.
    BareLineFeed,
    /// A line that is no answer to the request.
    UnexpectedLine,
    /// Something else where a number must stand, or a number that is too large for what it counts.
    BadNumber,
    /// A flag that is given twice, has an argument it cannot have, or is no letter.
    BadFlag,
    /// The reply carries another opaque than the request, or lacks it, or has one that was not asked for.
    OpaqueMismatch,
    /// A value under a key that was not asked for, or in another order.
    UnexpectedKey,
    /// A value longer than [`Limits::max_value`](super::Limits::max_value).
    ValueTooLarge,
    /// A value that goes on where its line said it ends.
    ValueNotEnded,
    /// More statistics than any server has.
    TooManyStats,
}

impl Violation {
    /// What is wrong, in words.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::LineTooLong => "the server sent a line that does not end",
            Self::BareLineFeed => "the server sent a line feed without a carriage return",
            Self::UnexpectedLine => "the server sent a line that is no answer to the request",
            Self::BadNumber => "the server sent something else than a number, or one out of range",
            Self::BadFlag => "the server sent a flag that makes no sense",
            Self::OpaqueMismatch => "the server sent the reply to another request",
            Self::UnexpectedKey => "the server sent a key that was not asked for, or out of order",
            Self::ValueTooLarge => {
                "the server sent a value above the largest size; raise it if values are that large"
            }
            Self::ValueNotEnded => "the server sent a value that does not end where it should",
            Self::TooManyStats => "the server sent more statistics than are kept",
        }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Error for Violation {}
