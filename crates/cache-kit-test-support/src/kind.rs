//! What differs between the servers.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::place::Place;

/// A kind of server: how it is found, started, asked.
///
/// Implemented by [`Redis`](crate::Redis), [`Memcached`](crate::Memcached) and [`Postgres`](crate::Postgres) only.
pub trait Kind: sealed::Sealed + Default + std::fmt::Debug + Send + Sync + 'static {
    /// Name of the program.
    const PROGRAM: &'static str;
    /// Name of the package in dnf.
    const PACKAGE: &'static str;
    /// Name of the package in apt.
    const APT_PACKAGE: &'static str = Self::PROGRAM;
    /// Name of the package in brew.
    const BREW_PACKAGE: &'static str = Self::PACKAGE;
    /// Scheme of the server's URLs, unless its options make it another.
    const SCHEME: &'static str;
    /// Environment variable with the path of another program to start.
    const PROGRAM_VAR: &'static str;
    /// Environment variable that names a running server to use.
    const EXTERNAL_VAR: &'static str;
    /// The signal that ends the process without its leave, by its name without `SIG`.
    const END: &'static str = "KILL";

    /// False when what was asked for needs the program of the system's package, and not the one that the environment
    /// names.
    fn any_program(&self) -> bool {
        true
    }

    /// Directories where the program may be although they are not on the path, the best first.
    #[must_use]
    fn elsewhere() -> Vec<PathBuf> {
        Vec::new()
    }

    /// Whether a program in this directory will do: others that it needs may have to be there, too.
    #[must_use]
    fn complete(dir: &Path) -> bool {
        dir.join(Self::PROGRAM).is_file()
    }

    /// How far above its port the server listens on a second one, if it does.
    fn second_port(&self) -> Option<u16> {
        None
    }

    /// Makes what the server needs before it starts, such as files in its directory; not before a restart, but again
    /// when another port is tried.
    ///
    /// # Errors
    ///
    /// In words, when that is not possible or what was asked for does not go together.
    fn prepare(&mut self, program: &Path, dir: &Path) -> Result<(), String> {
        let _ = (program, dir);
        Ok(())
    }

    /// Whom the server runs as, by the ids of user and group, if not as the test does.
    fn user(&self) -> Option<(u32, u32)> {
        None
    }

    /// Arguments for a server at this place.
    fn arguments(&self, place: Place<'_>, log: &Path) -> Vec<OsString>;

    /// What a client connects to.
    fn addr(&self, place: Place<'_>) -> String {
        place.addr()
    }

    /// Scheme of the server's URL.
    fn scheme(&self) -> &'static str {
        Self::SCHEME
    }

    /// Part of the URL before the host: credentials with their `@`, or nothing.
    fn userinfo(&self) -> String {
        String::new()
    }

    /// Sends one command line over a new connection and returns the reply.
    ///
    /// # Errors
    ///
    /// What connecting, writing or reading says, `TimedOut` or `WouldBlock` when nothing comes within `timeout`.
    fn exchange(&self, place: Place<'_>, line: &str, timeout: Duration) -> io::Result<Vec<u8>>;

    /// Asks the server for its process id: the answer proves that it serves, and that it is ours.
    ///
    /// # Errors
    ///
    /// As for [`exchange`](Kind::exchange); `InvalidData` when the reply has no process id.
    fn serving_pid(&self, place: Place<'_>, timeout: Duration) -> io::Result<u32>;
}

pub(crate) mod sealed {
    /// Keeps the set of kinds closed: the trait may grow without breaking anybody.
    pub trait Sealed {}
}
