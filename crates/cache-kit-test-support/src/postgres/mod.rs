//! PostgreSQL: its directory, its arguments, and whom it runs as.

mod session;

use std::ffi::OsString;
use std::io;
use std::os::unix::fs::{MetadataExt, chown};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use crate::exchange::connect_unix;
use crate::kind::{Kind, sealed::Sealed};
use crate::place::Place;
use session::Session;

const INITDB: &str = "initdb";
/// Who owns the databases; trusted without a password.
const USER: &str = "postgres";

/// Marks a [`Server`](crate::Server) as PostgreSQL: a cluster of its own, made by `initdb`, on a port and on a unix socket
/// in its directory, with one user who needs no password. Nothing is synced to disk.
///
/// It differs from a cache server in four ways:
///
/// - A [restart](crate::Server::restart) keeps what was committed.
/// - [`kill`](crate::Server::kill) ends it by SIGQUIT: it ends at once, as after a crash, but takes the processes of its
///   connections along, which SIGKILL would leave to themselves.
/// - [`pause`](crate::Server::pause) stops the process that takes connections; those that are open are still answered.
/// - [`command`](crate::Server::command) takes SQL, and returns rows as lines, with `|` between columns.
///
/// It refuses to run as root. Where the test does, it runs as `nobody`, who then owns its directory.
///
/// `CACHE_KIT_POSTGRES_BIN` names a `postgres` with its `initdb` beside it. Without it the two are looked for on the path,
/// and where the packages of Debian, of the project itself and of Homebrew have them, the newest version first.
#[derive(Debug, Default)]
pub struct Postgres {
    user: Option<(u32, u32)>,
}

impl Sealed for Postgres {}

impl Kind for Postgres {
    const PROGRAM: &'static str = "postgres";
    const PACKAGE: &'static str = "postgresql-server";
    const APT_PACKAGE: &'static str = "postgresql";
    const BREW_PACKAGE: &'static str = "postgresql@17";
    const SCHEME: &'static str = "postgres";
    const PROGRAM_VAR: &'static str = "CACHE_KIT_POSTGRES_BIN";
    const EXTERNAL_VAR: &'static str = "CACHE_KIT_TEST_POSTGRES_URL";
    const END: &'static str = "QUIT";

    fn elsewhere() -> Vec<PathBuf> {
        // A directory, and how the versions in it are named; their programs are in `bin`.
        [
            ("/usr/lib/postgresql", ""),
            ("/usr", "pgsql-"),
            ("/opt/homebrew/opt", "postgresql@"),
            ("/usr/local/opt", "postgresql@"),
        ]
        .into_iter()
        .flat_map(|(dir, prefix)| versions(Path::new(dir), prefix))
        .collect()
    }

    fn complete(dir: &Path) -> bool {
        [Self::PROGRAM, INITDB].iter().all(|program| dir.join(program).is_file())
    }

    fn prepare(&mut self, program: &Path, dir: &Path) -> Result<(), String> {
        if data(dir).exists() {
            return Ok(());
        }
        let text = |error: io::Error| error.to_string();
        // This process made the directory, so its owner is who we are.
        if std::fs::metadata(dir).map_err(text)?.uid() == 0 {
            let (user, group) = (nobody("-u")?, nobody("-g")?);
            chown(dir, Some(user), Some(group)).map_err(text)?;
            self.user = Some((user, group));
        }
        let path = program.with_file_name(INITDB);
        if !path.is_file() {
            return Err(format!("there is no {INITDB} beside {}, which needs one", program.display()));
        }
        let mut initdb = Command::new(path);
        initdb.arg("-D").arg(data(dir)).args(["-U", USER, "-A", "trust", "-E", "UTF8", "--no-locale", "-N"]);
        if let Some((user, group)) = self.user {
            initdb.uid(user).gid(group);
        }
        let done = initdb.current_dir(dir).stdin(Stdio::null()).output();
        let done = done.map_err(|error| format!("could not start {INITDB}: {error}"))?;
        if done.status.success() {
            return Ok(());
        }
        Err(format!("{INITDB} ended with {}\n{}", done.status, String::from_utf8_lossy(&done.stderr)))
    }

    fn user(&self) -> Option<(u32, u32)> {
        self.user
    }

    fn arguments(&self, place: Place<'_>, _log: &Path) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = vec!["-D".into(), data(place.dir).into()];
        arguments.extend(["-k".into(), place.dir.into()]);
        arguments.extend(["-h", "127.0.0.1", "-p", &place.port.to_string()].map(OsString::from));
        // What it would lose is lost only if the whole machine dies.
        let settings = ["fsync=off", "full_page_writes=off"];
        arguments.extend(settings.into_iter().flat_map(|setting| ["-c", setting]).map(OsString::from));
        arguments
    }

    fn userinfo(&self) -> String {
        format!("{USER}@")
    }

    fn exchange(&self, place: Place<'_>, line: &str, timeout: Duration) -> io::Result<Vec<u8>> {
        Ok(Session::open(connect_unix(&socket(place), timeout)?, USER)?.ask(line)?.into_bytes())
    }

    /// That of the process that takes connections.
    fn serving_pid(&self, place: Place<'_>, timeout: Duration) -> io::Result<u32> {
        let file = self.exchange(place, "SELECT pg_read_file('postmaster.pid')", timeout)?;
        let file = String::from_utf8_lossy(&file);
        let first = file.lines().next().and_then(|line| line.trim().parse().ok());
        first.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "no process id in postmaster.pid"))
    }
}

fn data(dir: &Path) -> PathBuf {
    dir.join("data")
}

fn socket(place: Place<'_>) -> PathBuf {
    place.dir.join(format!(".s.PGSQL.{}", place.port))
}

/// The directories of programs of what is installed under `dir`, the newest version first.
fn versions(dir: &Path, prefix: &str) -> Vec<PathBuf> {
    let names = std::fs::read_dir(dir).into_iter().flatten().flatten().filter_map(|entry| {
        let name = entry.file_name().into_string().ok()?;
        let version: u32 = name.strip_prefix(prefix)?.split('.').next()?.parse().ok()?;
        Some((version, entry.path().join("bin")))
    });
    let mut found: Vec<_> = names.collect();
    found.sort_unstable_by(|one, other| other.cmp(one));
    found.into_iter().map(|(_, path)| path).collect()
}

/// An id of the user who may do nothing: `-u` is the user's own, `-g` the group's.
fn nobody(which: &str) -> Result<u32, String> {
    let output = Command::new("id").args([which, "nobody"]).output().map_err(|error| error.to_string())?;
    let number = String::from_utf8_lossy(&output.stdout).trim().parse();
    number
        .map_err(|_| "PostgreSQL does not run as root, and there is no user `nobody` to run it as".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_version_comes_first_and_what_is_none_does_not_count() {
        let dir = tempfile::tempdir().unwrap();
        for name in ["pgsql-9.6", "pgsql-17", "pgsql-15", "pgsql-next", "share"] {
            std::fs::create_dir(dir.path().join(name)).unwrap();
        }
        let found = versions(dir.path(), "pgsql-");
        assert_eq!(
            found,
            ["pgsql-17", "pgsql-15", "pgsql-9.6"].map(|name| dir.path().join(name).join("bin"))
        );
        assert!(versions(Path::new("/nonexistent"), "").is_empty());
    }
}
