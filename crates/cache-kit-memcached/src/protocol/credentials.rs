//! User and password of a server that was started with an authentication file (`-Y`).

use std::error::Error;
use std::fmt;

/// The longest line of an authentication file, which is `user:password`.
const MAX_FILE_LINE: usize = 255;

/// User and password, in a form that the server can read. `Debug` prints neither.
///
/// ```
/// use cache_kit_memcached::protocol::{Credentials, CredentialsError};
///
/// assert!(Credentials::new("shop", "hunter2").is_ok());
/// assert_eq!(Credentials::new("shop", "hunter 2"), Err(CredentialsError::NotOneWord));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// Both as they are sent, with a space between.
    text: Box<str>,
}

impl Credentials {
    /// # Errors
    ///
    /// What could never be the line of an authentication file, see [`CredentialsError`].
    pub fn new(user: &str, password: &str) -> Result<Self, CredentialsError> {
        for part in [user, password] {
            if part.is_empty() {
                return Err(CredentialsError::Empty);
            }
            // A line feed would end the line, and what follows would be a command.
            if part.chars().any(|c| c.is_whitespace() || c.is_control()) {
                return Err(CredentialsError::NotOneWord);
            }
        }
        if user.contains(':') {
            return Err(CredentialsError::ColonInUser);
        }
        if user.len() + 1 + password.len() > MAX_FILE_LINE {
            return Err(CredentialsError::TooLong);
        }
        Ok(Self { text: [user, " ", password].concat().into() })
    }

    pub(super) fn as_bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials").finish_non_exhaustive()
    }
}

/// Why a user and a password cannot be those of a memcached server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum CredentialsError {
    /// One of them is empty.
    Empty,
    /// One of them holds whitespace or a control character.
    NotOneWord,
    /// The user holds a colon, which ends the user in an authentication file.
    ColonInUser,
    /// Together they are longer than 254 bytes.
    TooLong,
}

impl fmt::Display for CredentialsError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Empty => "the user or the password for memcached is empty",
            Self::NotOneWord => {
                "the user or the password for memcached holds whitespace or a control character"
            }
            Self::ColonInUser => {
                "the user for memcached holds a colon, which no authentication file can have there"
            }
            Self::TooLong => "user and password for memcached are longer than 254 bytes together",
        })
    }
}

impl Error for CredentialsError {}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(user: &str, password: &str) -> CredentialsError {
        Credentials::new(user, password).unwrap_err()
    }

    #[test]
    fn what_would_break_the_line_is_refused() {
        for bad in ["a b", "a\r\nflush_all", "a\n", "a\tb", "a\0", "a\u{7f}", "a\u{a0}b", "a\u{2028}b"] {
            assert_eq!(refused(bad, "p"), CredentialsError::NotOneWord, "{bad:?}");
            assert_eq!(refused("u", bad), CredentialsError::NotOneWord, "{bad:?}");
        }
    }

    #[test]
    fn what_no_authentication_file_can_hold_is_refused() {
        assert_eq!(refused("", "p"), CredentialsError::Empty);
        assert_eq!(refused("u", ""), CredentialsError::Empty);
        assert_eq!(refused("u:v", "p"), CredentialsError::ColonInUser);
        assert!(Credentials::new("ü", "p:q:ß").is_ok());
        assert!(Credentials::new("user", &"p".repeat(250)).is_ok());
        assert_eq!(refused("user", &"p".repeat(251)), CredentialsError::TooLong);
    }

    #[test]
    fn debug_prints_neither_user_nor_password() {
        let text = format!("{:?}", Credentials::new("hunter", "hunter2"));
        assert!(!text.contains("hunter"), "{text}");
    }
}
