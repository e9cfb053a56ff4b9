//! What a server is started with.

use std::ffi::OsString;
use std::path::PathBuf;

use crate::kind::Kind;
use crate::locate;
use crate::server::Server;

/// What a server is started with.
#[derive(Debug, Default)]
pub struct Builder<K: Kind> {
    pub(crate) kind: K,
    program: Option<PathBuf>,
    extra: Vec<OsString>,
}

impl<K: Kind> Builder<K> {
    /// Adds an argument after those that give the server its port and directory.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.extra.push(argument.into());
        self
    }

    /// Starts this program, whatever the environment says.
    #[must_use]
    pub fn program(mut self, path: impl Into<PathBuf>) -> Self {
        self.program = Some(path.into());
        self
    }

    /// Starts the server and waits until it answers.
    ///
    /// # Panics
    ///
    /// When the program is missing, with the packages to install, or when the server does not start, with its log.
    #[must_use]
    pub fn start(self) -> Server<K> {
        let program = locate::program(&self.kind, self.program.as_deref());
        match program.and_then(|program| Server::launch_somewhere(self.kind, program, self.extra)) {
            Ok(server) => server,
            Err(problem) => panic!("{problem}"),
        }
    }
}
