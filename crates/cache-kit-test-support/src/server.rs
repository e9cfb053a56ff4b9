//! A server process with its port and directory, under the test's control.

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tempfile::TempDir;

use crate::builder::Builder;
use crate::kind::Kind;
use crate::place::Place;
use crate::ports::Port;
use crate::process::{self, wait_until};
use crate::shared::Shared;
use crate::supervisor::{Life, Supervisor};

/// Ports that are tried; somebody outside this crate can take one between the check and the server's bind.
const ATTEMPTS: usize = 5;
/// For a server to answer after its start, and for a signal to take effect.
const PATIENCE: Duration = Duration::from_secs(10);
/// For one reply of a server that should be there.
pub(crate) const REPLY: Duration = Duration::from_secs(5);
const LOG_LINES: usize = 100;

enum Failure {
    /// The process ended, or somebody else has the port: another port may do.
    Ended(String),
    /// Another port will not help.
    Hopeless(String),
}

/// A server process owned by the test; see [`RedisServer`](crate::RedisServer),
/// [`MemcachedServer`](crate::MemcachedServer) and [`PostgresServer`](crate::PostgresServer).
///
/// Dropping it kills the process; when the test panics, the end of the server's log goes to stderr.
#[derive(Debug)]
pub struct Server<K: Kind> {
    kind: K,
    program: PathBuf,
    extra: Vec<OsString>,
    port: Port,
    dir: TempDir,
    running: Mutex<Option<Supervisor>>,
}

impl<K: Kind> Server<K> {
    /// Options for the start.
    #[must_use]
    pub fn builder() -> Builder<K> {
        Builder::default()
    }

    /// Starts a server with no options.
    ///
    /// # Panics
    ///
    /// As [`Builder::start`].
    #[must_use]
    pub fn start() -> Self {
        Builder::default().start()
    }

    /// The server that the environment names, or a new one: for tests that need no control over the process.
    ///
    /// # Panics
    ///
    /// As [`Builder::start`], when the environment names none.
    #[must_use]
    pub fn shared() -> Shared<K> {
        Shared::find_or_start()
    }

    /// The port, the same for the whole life of this value.
    #[must_use]
    pub fn port(&self) -> u16 {
        self.port.number()
    }

    /// `127.0.0.1:port`, or the path of the unix socket that it listens on instead.
    #[must_use]
    pub fn addr(&self) -> String {
        self.kind.addr(self.place())
    }

    /// The server's URL, with the credentials if it has any.
    #[must_use]
    pub fn url(&self) -> String {
        format!("{}://{}{}", self.kind.scheme(), self.kind.userinfo(), self.addr())
    }

    /// The private directory of the server.
    #[must_use]
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The process id.
    ///
    /// # Panics
    ///
    /// After [`kill`](Self::kill).
    #[must_use]
    pub fn pid(&self) -> u32 {
        match self.running().as_ref() {
            Some(supervisor) => supervisor.server(),
            None => panic!("{} on port {} was killed and has no pid", K::PROGRAM, self.port()),
        }
    }

    /// False after [`kill`](Self::kill), and when the process ended by itself. A paused server is alive.
    #[must_use]
    pub fn is_alive(&self) -> bool {
        self.running().as_ref().is_some_and(|supervisor| process::is_running(supervisor.server()))
    }

    /// True when the server replies within this time.
    #[must_use]
    pub fn answers(&self, within: Duration) -> bool {
        self.kind.serving_pid(self.place(), within).is_ok()
    }

    /// What the server has logged, over all its restarts.
    #[must_use]
    pub fn log(&self) -> String {
        std::fs::read(self.log_path())
            .map(|log| String::from_utf8_lossy(&log).into_owned())
            .unwrap_or_default()
    }

    /// Kills the process as SIGKILL does and waits until it is gone; its connections are reset. The port stays ours.
    pub fn kill(&self) {
        drop(self.running().take());
    }

    /// Kills the process if it lives and starts a new one on the same port: an empty cache, or the same database.
    ///
    /// # Panics
    ///
    /// When it does not start.
    pub fn restart(&self) {
        self.kill();
        match self.launch() {
            Ok(()) => {}
            Err(Failure::Ended(problem) | Failure::Hopeless(problem)) => panic!("{problem}"),
        }
    }

    /// Stops the process as SIGSTOP does: connections stay open, new ones are accepted by the kernel, no reply comes.
    ///
    /// # Panics
    ///
    /// When the process is not there to be stopped.
    pub fn pause(&self) {
        let pid = self.pid();
        // The signal is delivered to each thread in its own time; until then it may still answer.
        let stopped = process::signal(pid, "STOP") && wait_until(PATIENCE, || process::is_stopped(pid));
        assert!(stopped, "{} (pid {pid}) could not be stopped", K::PROGRAM);
    }

    /// Lets a paused process continue.
    ///
    /// # Panics
    ///
    /// When the process is not there.
    pub fn resume(&self) {
        let pid = self.pid();
        assert!(process::signal(pid, "CONT"), "{} (pid {pid}) could not be continued", K::PROGRAM);
    }

    /// Sends one command over a connection of its own, as a foreign client would, and returns the reply as text.
    ///
    /// Redis takes its inline form (`SET k "a b"`); replies come as `redis-cli` prints them, with `-` before errors
    /// and `(nil)` for an absent value. Memcached takes its text protocol, a data block after `\r\n`; the reply comes
    /// as it is, without the last line end. PostgreSQL takes SQL; each row is a line, with `|` between columns.
    ///
    /// # Panics
    ///
    /// When there is no reply within 5 seconds.
    pub fn command(&self, line: &str) -> String {
        String::from_utf8_lossy(&self.command_bytes(line)).into_owned()
    }

    /// [`command`](Self::command) for replies that are not text.
    ///
    /// # Panics
    ///
    /// As [`command`](Self::command).
    pub fn command_bytes(&self, line: &str) -> Vec<u8> {
        match self.kind.exchange(self.place(), line, REPLY) {
            Ok(reply) => reply,
            Err(error) => panic!("{} on port {}: {line:?}: {error}", K::PROGRAM, self.port()),
        }
    }

    /// [`command`](Self::command) with a limit on time and an error instead of a panic.
    ///
    /// # Errors
    ///
    /// What the connection says; `WouldBlock` or `TimedOut` when no reply comes within `timeout`.
    pub fn try_command(&self, line: &str, timeout: Duration) -> io::Result<String> {
        let reply = self.kind.exchange(self.place(), line, timeout)?;
        Ok(String::from_utf8_lossy(&reply).into_owned())
    }

    /// A server of this kind on a port that works, started.
    pub(crate) fn launch_somewhere(kind: K, program: PathBuf, extra: Vec<OsString>) -> Result<Self, String> {
        let port = Port::reserve_with(kind.second_port())?;
        let mut server = Self {
            kind,
            program,
            extra,
            port,
            dir: TempDir::with_prefix("cache-kit-test-").map_err(|error| error.to_string())?,
            running: Mutex::new(None),
        };
        let mut problem = String::new();
        for _ in 0..ATTEMPTS {
            server.kind.prepare(&server.program, server.dir.path())?;
            match server.launch() {
                Ok(()) => return Ok(server),
                Err(Failure::Hopeless(text)) => return Err(text),
                Err(Failure::Ended(text)) => problem = text,
            }
            server.port = Port::reserve_with(server.kind.second_port())?;
        }
        Err(format!("gave up after {ATTEMPTS} attempts; the last: {problem}"))
    }

    pub(crate) fn kind(&self) -> &K {
        &self.kind
    }

    pub(crate) fn place(&self) -> Place<'_> {
        Place { port: self.port(), dir: self.dir() }
    }

    fn running(&self) -> MutexGuard<'_, Option<Supervisor>> {
        self.running.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log_path(&self) -> PathBuf {
        self.dir.path().join("server.log")
    }

    /// Starts the process on the port and waits until this very process answers.
    fn launch(&self) -> Result<(), Failure> {
        let mut arguments = self.kind.arguments(self.place(), &self.log_path());
        arguments.extend(self.extra.iter().cloned());
        let (dir, log, life) =
            (self.dir.path(), self.log_path(), Life { end: K::END, user: self.kind.user() });
        let supervisor = Supervisor::spawn(&self.program, &arguments, dir, &log, life)
            .map_err(|error| Failure::Hopeless(format!("could not start {}: {error}", K::PROGRAM)))?;
        let pid = supervisor.server();
        // Somebody else's server on this port would also answer: only the one with the pid of our child counts.
        let mut answer = None;
        let settled = wait_until(PATIENCE, || {
            answer = self.kind.serving_pid(self.place(), REPLY).ok();
            answer.is_some() || !process::is_running(pid)
        });
        if answer == Some(pid) {
            *self.running() = Some(supervisor);
            return Ok(());
        }
        let log = self.log_tail();
        let problem = match answer {
            Some(other) => format!("process {other} answers on port {}, not ours, {pid}", self.port()),
            None if settled => format!("{} ended at once on port {}\n{log}", K::PROGRAM, self.port()),
            None => {
                let text = format!("{} gave no answer in {PATIENCE:?}\n{log}", K::PROGRAM);
                return Err(Failure::Hopeless(text));
            }
        };
        Err(Failure::Ended(problem))
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<&str> = log.lines().collect();
        let tail = lines[lines.len().saturating_sub(LOG_LINES)..].join("\n");
        format!(
            "-- log of {} on port {}, last {LOG_LINES} lines --\n{tail}\n-- end --",
            K::PROGRAM,
            self.port()
        )
    }
}

impl<K: Kind> Drop for Server<K> {
    fn drop(&mut self) {
        self.kill();
        if std::thread::panicking() {
            #[expect(clippy::print_stderr, reason = "a failed test shows what its servers said")]
            {
                eprintln!("{}", self.log_tail());
            }
        }
    }
}
