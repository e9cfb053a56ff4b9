//! A shell between the test and the server, so that the server ends when the test does, however that comes about.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{Child, ChildStdin, Command, Stdio};

use crate::process;

/// Starts the server in the background, tells its pid, and waits on a pipe whose other end only the test holds.
/// The kernel closes this pipe when the test process ends for whatever reason, SIGKILL included.
///
/// A line on the pipe means "kill the server"; the end of the pipe without a line means that the owner is gone, and
/// nobody is left to remove the directory. SIGCONT first, for systems where a stopped process keeps SIGKILL waiting, and for
/// other signals, which it keeps waiting anywhere.
const SCRIPT: &str = r#"
dir=$1; log=$2; end=$3; shift 3
"$@" </dev/null >>"$log" 2>&1 &
server=$!
echo "$server"
if read -r _; then orphaned=no; else orphaned=yes; fi
kill -s CONT "$server"
kill -s "$end" "$server"
wait "$server"
if [ "$orphaned" = yes ]; then rm -rf -- "$dir"; fi
exit 0
"#;

/// How a server lives and dies.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Life {
    /// The signal that ends it.
    pub(crate) end: &'static str,
    /// Whom it runs as, its shell too, if not as the test does.
    pub(crate) user: Option<(u32, u32)>,
}

/// A running server under its shell.
#[derive(Debug)]
pub(crate) struct Supervisor {
    life: Life,
    shell: Child,
    pipe: Option<ChildStdin>,
    server: u32,
}

impl Supervisor {
    /// Starts `program` in `dir`, its output appended to `log`.
    pub(crate) fn spawn(
        program: &Path,
        arguments: &[OsString],
        dir: &Path,
        log: &Path,
        life: Life,
    ) -> std::io::Result<Self> {
        let mut command = Command::new("sh");
        if let Some((user, group)) = life.user {
            command.uid(user).gid(group);
        }
        let mut shell = command
            .args(["-c", SCRIPT, "sh"])
            .arg(dir)
            .arg(log)
            .arg(life.end)
            .arg(program)
            .args(arguments)
            .current_dir(dir)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            // Inherited, it would keep the pipe of a test runner open after the test process was killed.
            .stderr(Stdio::null())
            // Ctrl-C and a runner's kill of the whole group must reach the test only, or the shell dies first.
            .process_group(0)
            .spawn()?;
        let pipe = shell.stdin.take();
        let mut line = String::new();
        if let Some(stdout) = shell.stdout.take() {
            BufReader::new(stdout).read_line(&mut line)?;
        }
        match line.trim().parse() {
            Ok(server) => Ok(Self { life, shell, pipe, server }),
            Err(_) => {
                drop(pipe);
                shell.wait()?;
                Err(std::io::Error::other("the supervising shell did not start the server"))
            }
        }
    }

    /// The server's pid, not the shell's.
    pub(crate) fn server(&self) -> u32 {
        self.server
    }
}

impl Drop for Supervisor {
    /// Returns when the server is gone and waited for.
    fn drop(&mut self) {
        if let Some(mut pipe) = self.pipe.take() {
            // An error means that the shell is gone already, which its exit status tells below.
            let _ = pipe.write_all(b"kill\n");
        }
        if self.shell.wait().is_ok_and(|status| status.signal().is_some()) {
            process::signal(self.server, "CONT");
            process::signal(self.server, self.life.end);
        }
    }
}
