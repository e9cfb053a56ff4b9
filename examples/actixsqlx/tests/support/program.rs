//! A program that a test starts, and that ends with the test however that comes about.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, channel};
use std::thread::JoinHandle;

use super::PATIENCE;

/// Waits for the program and hands on its exit status. A second shell waits for the end of a pipe that only the test
/// holds, which the kernel closes when the test ends, and kills what is left then.
const SCRIPT: &str = r#"
exec 3<&0 </dev/null
"$@" 3<&- &
program=$!
echo "$program"
( exec >/dev/null 2>&1; read -r _ <&3; kill -s KILL "$program" ) &
exec 3<&-
wait "$program"
"#;
/// What the program under test reads of the environment.
const READ: [&str; 10] = [
    "PORT",
    "BIND",
    "DATABASE_URL",
    "SOURCE_DELAY",
    "LIVE",
    "CACHE_URL",
    "CACHE_BACKEND",
    "REDIS_HOST",
    "REDIS_PORT",
    "MEMCACHED_SERVERS",
];

pub(crate) struct Program {
    shell: Child,
    pipe: Option<ChildStdin>,
    id: String,
    /// Behind a lock only so that many threads can use what has a program.
    lines: Mutex<Receiver<String>>,
    errors: Option<JoinHandle<String>>,
}

impl Program {
    pub(crate) fn start(path: &Path, arguments: &[&str], variables: &[(&str, &str)]) -> Self {
        let mut command = Command::new("sh");
        command.args(["-c", SCRIPT, "sh"]).arg(path).args(arguments);
        for name in READ {
            command.env_remove(name);
        }
        command.envs(variables.iter().copied());
        // Ctrl-C must reach the test only.
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped()).process_group(0);
        let mut shell = command.spawn().unwrap();
        let (pipe, stdout) = (shell.stdin.take(), shell.stdout.take().unwrap());
        let mut stderr = shell.stderr.take().unwrap();
        let (sender, lines) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(stdout).lines().map_while(Result::ok) {
                // Nobody may want to know.
                let _ = sender.send(line);
            }
        });
        let errors = std::thread::spawn(move || {
            let mut text = String::new();
            let _ = stderr.read_to_string(&mut text);
            text
        });
        let id = lines.recv_timeout(PATIENCE).unwrap();
        Self { shell, pipe, id, lines: Mutex::new(lines), errors: Some(errors) }
    }

    /// The first line that it prints for which this holds.
    pub(crate) fn line(&self, wanted: impl Fn(&str) -> bool) -> String {
        let lines = self.lines.lock().unwrap();
        loop {
            match lines.recv_timeout(PATIENCE) {
                Ok(line) if wanted(&line) => return line,
                Ok(_) => {}
                Err(error) => panic!("the program has not said what was waited for: {error}"),
            }
        }
    }

    pub(crate) fn signal(&self, name: &str) {
        let kill = ["-c", r#"kill -s "$1" "$2""#, "sh", name, &self.id];
        assert!(Command::new("sh").args(kill).status().unwrap().success());
    }

    /// Waits for its end; what it has said to stderr comes with the exit status.
    pub(crate) fn wait(mut self) -> (ExitStatus, String) {
        let mut ended = None;
        super::until("the end of the program", || {
            ended = self.shell.try_wait().unwrap();
            ended.is_some()
        });
        drop(self.pipe.take());
        (ended.unwrap(), self.errors.take().unwrap().join().unwrap())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.pipe.take());
        let _ = self.shell.wait();
        if let (true, Some(errors)) = (std::thread::panicking(), self.errors.take()) {
            #[expect(clippy::print_stderr, reason = "a failed test shows what its programs said")]
            {
                eprintln!("-- stderr of the program --\n{}-- end --", errors.join().unwrap_or_default());
            }
        }
    }
}
