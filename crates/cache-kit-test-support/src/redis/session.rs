//! One connection to a Redis, by its unix socket.

use std::io::{self, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use crate::exchange::{connect_unix, number_after};
use crate::redis::reply::Reply;

/// A connection with a limit on the time of each reply.
#[derive(Debug)]
pub(super) struct Session(BufReader<UnixStream>);

impl Session {
    pub(super) fn open(socket: &Path, timeout: Duration) -> io::Result<Self> {
        connect_unix(socket, timeout).map(|stream| Self(BufReader::new(stream)))
    }

    /// Logs in. A refusal is no error: the test may have changed the password, and the next reply says so.
    pub(super) fn login(&mut self, credentials: &[&str]) -> io::Result<()> {
        let words: Vec<&[u8]> = ["AUTH"].iter().chain(credentials).map(|word| word.as_bytes()).collect();
        self.ask(&words).map(drop)
    }

    /// Sends a command in the form that people type.
    pub(super) fn line(&mut self, line: &str) -> io::Result<Reply> {
        self.0.get_mut().write_all(format!("{line}\r\n").as_bytes())?;
        Reply::read(&mut self.0)
    }

    /// Sends a command of these words, whatever is in them.
    pub(super) fn ask(&mut self, words: &[&[u8]]) -> io::Result<Reply> {
        let mut command = format!("*{}\r\n", words.len()).into_bytes();
        for word in words {
            command.extend(format!("${}\r\n", word.len()).into_bytes());
            command.extend_from_slice(word);
            command.extend(b"\r\n");
        }
        self.0.get_mut().write_all(&command)?;
        Reply::read(&mut self.0)
    }

    /// The server's process id, once it serves.
    pub(super) fn serving_pid(&mut self) -> io::Result<u32> {
        let pong = self.line("PING")?.rendered();
        if pong != b"PONG" {
            let reply = String::from_utf8_lossy(&pong).into_owned();
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("PING was answered {reply:?}")));
        }
        number_after(&self.line("INFO server")?.rendered(), "process_id:")
    }
}
