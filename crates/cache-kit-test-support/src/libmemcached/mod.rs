//! A client of another make: libmemcached, through Python's pylibmc.

mod python;

use std::io::{BufRead, BufReader, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

const SCRIPT: &str = include_str!("client.py");

/// How libmemcached spreads keys over its servers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum LibmemcachedDistribution {
    /// `MEMCACHED_BEHAVIOR_KETAMA_WEIGHTED`, which sets MD5 for points and keys.
    KetamaWeighted,
    /// `MEMCACHED_BEHAVIOR_KETAMA`, with its default hash. Only with weights of 1: with others, pylibmc makes a third
    /// thing of it, the points of the weighted one with the key hash of this one.
    Ketama,
}

/// A libmemcached client in a process of its own: the text protocol, values as they are, no compression.
#[derive(Debug)]
pub struct Libmemcached {
    child: Child,
    /// Its end is the end of the process.
    requests: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Libmemcached {
    /// A client of these servers: `host:port`, `host:port:weight` and `[ipv6]:port`, or paths of unix sockets only.
    ///
    /// # Panics
    ///
    /// When no Python here has pylibmc, with what to install.
    #[must_use]
    pub fn start<S: AsRef<str>>(servers: &[S], distribution: LibmemcachedDistribution) -> Self {
        let behaviour = match distribution {
            LibmemcachedDistribution::KetamaWeighted => "ketama_weighted",
            LibmemcachedDistribution::Ketama => "ketama",
        };
        let mut command = Command::new(python::with_pylibmc());
        command.args(["-c", SCRIPT, behaviour]).args(servers.iter().map(AsRef::as_ref));
        let started = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn();
        let mut child = started.unwrap_or_else(|error| panic!("no libmemcached client: {error}"));
        match (child.stdin.take(), child.stdout.take()) {
            (Some(requests), Some(answers)) => {
                Self { child, requests: Some(requests), answers: BufReader::new(answers) }
            }
            _ => unreachable!("both were asked for"),
        }
    }

    /// Stores the value without an end of its life.
    ///
    /// # Panics
    ///
    /// When libmemcached says that it did not.
    pub fn set(&mut self, key: &str, value: &[u8]) {
        let reply = self.ask(&format!("set {} {}", hex(key.as_bytes()), hex(value)));
        assert_eq!(reply, "yes", "set of a key by libmemcached");
    }

    /// The value as it is stored, if there is one.
    ///
    /// pylibmc has two limits here: an empty value is none to it, and it decompresses a value with the flag 8.
    ///
    /// # Panics
    ///
    /// When libmemcached reports an error.
    pub fn get(&mut self, key: &str) -> Option<Vec<u8>> {
        let reply = self.ask(&format!("get {}", hex(key.as_bytes())));
        let value = reply.strip_prefix("yes ").map(bytes);
        assert!(value.is_some() || reply == "no", "get of a key by libmemcached: {reply}");
        value
    }

    /// Deletes the key; says whether it was there.
    ///
    /// # Panics
    ///
    /// When libmemcached reports an error.
    pub fn delete(&mut self, key: &str) -> bool {
        match self.ask(&format!("delete {}", hex(key.as_bytes()))).as_str() {
            "yes" => true,
            "no" => false,
            other => panic!("delete of a key by libmemcached: {other}"),
        }
    }

    fn ask(&mut self, request: &str) -> String {
        let mut reply = String::new();
        let asked = self.requests.as_mut().is_some_and(|requests| writeln!(requests, "{request}").is_ok());
        let answered = asked && self.answers.read_line(&mut reply).is_ok_and(|length| length > 0);
        assert!(answered, "the libmemcached client has ended; it has said why on stderr");
        // An empty value is a reply that ends with a space.
        reply.truncate(reply.trim_end_matches('\n').len());
        reply
    }
}

impl Drop for Libmemcached {
    fn drop(&mut self) {
        drop(self.requests.take());
        // An error means that there is no process to wait for.
        let _ = self.child.wait();
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u32> = hex.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks_exact(2).map(|pair| (pair[0] * 16 + pair[1]) as u8).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_byte_survives_the_line() {
        let all: Vec<u8> = (0..=255).collect();
        assert_eq!(bytes(&hex(&all)), all);
        assert_eq!(hex(&[0, 0x0a, 0xff]), "000aff");
    }
}
