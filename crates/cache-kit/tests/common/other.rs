//! Another process: this test program, started again.

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};

pub const URL: &str = "CACHE_KIT_TEST_OTHER_PROCESS_URL";
/// Stands in front of what another process says, between the lines of the test harness.
pub const SAYS: &str = "other process: ";

/// This test program, started again to run its `another_process` alone.
pub struct Other {
    child: Child,
    to: ChildStdin,
    said: Receiver<String>,
}

impl Other {
    pub fn start(url: &str) -> Self {
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["--exact", "another_process", "--ignored", "--nocapture"])
            .env(URL, url)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let (to, from) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        let (sender, said) = channel();
        std::thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                if let Some(said) = line.strip_prefix(SAYS) {
                    drop(sender.send(said.to_owned()));
                }
            }
        });
        Self { child, to, said }
    }

    /// Tells the process what to do, and gives what it says when that is done.
    pub fn tell(&mut self, line: &str) -> String {
        self.ask(line);
        self.answer()
    }

    pub fn ask(&mut self, line: &str) {
        writeln!(self.to, "{line}").unwrap();
    }

    pub fn answer(&self) -> String {
        self.said.recv_timeout(Duration::from_secs(60)).unwrap_or_else(|_| panic!("no answer"))
    }

    /// As SIGSTOP does: it says nothing, and its connections stay open.
    pub fn stop(&self) -> Instant {
        self.signal("-STOP");
        Instant::now()
    }

    pub fn go_on(&self) {
        self.signal("-CONT");
    }

    fn signal(&self, name: &str) {
        let sent = Command::new("kill").args([name, &self.child.id().to_string()]).status().unwrap();
        assert!(sent.success(), "{name}");
    }

    /// As SIGKILL does.
    pub fn kill(mut self) -> Instant {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
        Instant::now()
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}
