//! A PostgreSQL for a test: in a temporary directory, on a socket in it, gone when it is dropped.

use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt as _;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use tempfile::TempDir;
use tokio_postgres::{Client, Config, NoTls};

/// For the server to answer after its start.
const PATIENCE: Duration = Duration::from_secs(20);

pub struct Server {
    process: Child,
    directory: TempDir,
}

impl Server {
    /// `None` where PostgreSQL is not installed.
    pub fn start() -> Option<Self> {
        let programs = programs()?;
        let directory = tempfile::tempdir().unwrap();
        let data = directory.path().join("data");
        let user = other_user();
        if let Some((uid, gid)) = user {
            chown(directory.path(), Some(uid), Some(gid)).unwrap();
        }
        let command = |program: &str| {
            let mut command = Command::new(programs.join(program));
            command.current_dir(directory.path()).stdin(Stdio::null()).stdout(Stdio::null());
            if let Some((uid, gid)) = user {
                command.gid(gid).uid(uid);
            }
            command.arg("-D").arg(&data);
            command
        };
        let made = command("initdb")
            .args(["-A", "trust", "-U", "test", "-E", "UTF8", "--no-locale", "-N"])
            .status()
            .unwrap();
        assert!(made.success(), "initdb: {made}");
        let mut start = command("postgres");
        // No address, only a socket; and nothing has to be kept.
        start.args(["-c", "listen_addresses=", "-F", "-k"]).arg(directory.path()).stderr(Stdio::null());
        Some(Self { process: start.spawn().unwrap(), directory })
    }

    pub async fn connect(&self) -> Client {
        let mut config = Config::new();
        config.host_path(self.directory.path()).user("test").dbname("postgres");
        let begin = Instant::now();
        loop {
            match config.connect(NoTls).await {
                Ok((client, connection)) => {
                    tokio::spawn(connection);
                    return client;
                }
                Err(error) if begin.elapsed() > PATIENCE => panic!("PostgreSQL does not answer: {error}"),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Asked and not killed: its own processes end with it, and its shared memory is given back.
        let id = self.process.id().to_string();
        let quit = Command::new("sh").args(["-c", r#"kill -s INT "$1""#, "sh", &id]).status();
        if !quit.is_ok_and(|status| status.success()) {
            let _ = self.process.kill();
        }
        let _ = self.process.wait();
    }
}

/// The directory of the programs: Debian keeps them out of the path.
fn programs() -> Option<PathBuf> {
    let versions = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let debian = versions.map(|version| version.path().join("bin"));
    let path = std::env::var_os("PATH").unwrap_or_default();
    let all: Vec<PathBuf> = debian.chain(std::env::split_paths(&path)).collect();
    all.into_iter().find(|directory| ["initdb", "postgres"].iter().all(|name| directory.join(name).is_file()))
}

/// It refuses to run as root; then it runs as the user that may do nothing.
fn other_user() -> Option<(u32, u32)> {
    let id = |arguments: &[&str]| {
        let output = Command::new("id").args(arguments).output().unwrap();
        String::from_utf8_lossy(&output.stdout).trim().parse::<u32>().unwrap()
    };
    (id(&["-u"]) == 0).then(|| (id(&["-u", "nobody"]), id(&["-g", "nobody"])))
}
