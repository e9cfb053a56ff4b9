//! The login of the text protocol, memcached's `-Y`.

use std::ffi::OsString;
use std::io;
use std::path::Path;

const FILE: &str = "users";
const ACCEPTED: &[u8] = b"STORED\r\n";

/// A user that the server knows.
#[derive(Debug)]
pub(super) struct Login {
    pub(super) user: String,
    pub(super) password: String,
}

impl Login {
    pub(super) fn prepare(&self, dir: &Path) -> Result<(), String> {
        let Self { user, password } = self;
        // It would read another user out of the file, or another password out of the command.
        let separates = |character: char| character == ':' || !character.is_ascii_graphic();
        if [user, password].iter().any(|part| part.is_empty() || part.contains(separates)) {
            return Err(
                "memcached takes a user and a password without spaces, colons and control characters".into(),
            );
        }
        std::fs::write(dir.join(FILE), format!("{user}:{password}\n")).map_err(|error| error.to_string())
    }

    pub(super) fn arguments(&self, dir: &Path) -> [OsString; 2] {
        ["-Y".into(), dir.join(FILE).into()]
    }

    /// A `set` of any key, which the server takes for the login as long as there was none.
    pub(super) fn command(&self) -> String {
        let Self { user, password } = self;
        format!("set login 0 0 {}\r\n{user} {password}\r\n", user.len() + 1 + password.len())
    }

    pub(super) fn userinfo(&self) -> String {
        format!("{}:{}@", self.user, self.password)
    }
}

/// The reply without the answer to the login.
pub(super) fn accepted(reply: Vec<u8>) -> io::Result<Vec<u8>> {
    match reply.strip_prefix(ACCEPTED) {
        Some(rest) => Ok(rest.to_vec()),
        None => Err(io::Error::new(io::ErrorKind::PermissionDenied, "the login was not accepted")),
    }
}
