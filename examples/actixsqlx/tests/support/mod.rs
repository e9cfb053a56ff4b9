//! The program under test, and how it is asked.

mod client;
mod program;
mod webdriver;

use std::path::Path;
use std::process::ExitStatus;
use std::time::{Duration, Instant};

pub(crate) use client::{Kept, Reply};
use program::Program;
use serde_json::Value;
pub(crate) use webdriver::Browser;

/// For anything that is to come about by itself.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A running shop.
pub(crate) struct App {
    program: Program,
    addr: String,
}

impl App {
    /// Starts it on a free port with these variables; nothing else that it reads is set.
    pub(crate) fn start(variables: &[(&str, &str)]) -> Self {
        let port = [("PORT", "0")];
        let variables: Vec<_> = port.iter().chain(variables).copied().collect();
        let program = Program::start(Path::new(env!("CARGO_BIN_EXE_actixsqlx")), &[], &variables);
        let line = program.line(|line| line.starts_with("http://"));
        let addr = line.split_whitespace().next().unwrap().trim_start_matches("http://").to_owned();
        Self { program, addr }
    }

    /// Starts it where that must fail; returns the exit status and what it says.
    pub(crate) fn fail(variables: &[(&str, &str)]) -> (ExitStatus, String) {
        Program::start(Path::new(env!("CARGO_BIN_EXE_actixsqlx")), &[], variables).wait()
    }

    pub(crate) fn url(&self) -> String {
        format!("http://{}/", self.addr)
    }

    pub(crate) fn addr(&self) -> &str {
        &self.addr
    }

    pub(crate) fn get(&self, path: &str) -> Reply {
        client::send(&self.addr, "GET", path, &[], "").unwrap()
    }

    /// Sends JSON.
    pub(crate) fn send(&self, method: &str, path: &str, body: &Value) -> Reply {
        self.send_text(method, path, &body.to_string())
    }

    pub(crate) fn send_text(&self, method: &str, path: &str, body: &str) -> Reply {
        client::send(&self.addr, method, path, &[("content-type", "application/json")], body).unwrap()
    }

    /// Sends a body that says nothing of its type.
    pub(crate) fn send_untyped(&self, method: &str, path: &str, body: &str) -> Reply {
        client::send(&self.addr, method, path, &[], body).unwrap()
    }

    /// The value of one line of `/metrics`.
    pub(crate) fn metric(&self, name: &str) -> u64 {
        let text = self.get("/metrics").text();
        let line = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
        line.unwrap_or_else(|| panic!("no {name} in\n{text}")).parse().unwrap()
    }

    /// How often the database was asked for this.
    pub(crate) fn queries(&self, of: &str) -> u64 {
        self.metric(&format!("shop_source_queries_total{{query=\"{of}\"}}"))
    }

    pub(crate) fn signal(&self, name: &str) {
        self.program.signal(name);
    }

    /// Waits for its end; returns the exit status and what it has said.
    pub(crate) fn wait(self) -> (ExitStatus, String) {
        self.program.wait()
    }
}

/// Asks again and again until `condition` holds.
pub(crate) fn until(what: &str, mut condition: impl FnMut() -> bool) {
    let begun = Instant::now();
    while !condition() {
        assert!(begun.elapsed() < PATIENCE, "not within {PATIENCE:?}: {what}");
        std::thread::sleep(Duration::from_millis(10));
    }
}
