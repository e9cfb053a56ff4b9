//! Which server is it, and does it run here?

use std::io::{self, BufRead, BufReader, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::output_of;

const STARTS_WITHIN: Duration = Duration::from_secs(10);

/// Kind and version: `Valkey 8.1.8`.
pub(super) fn version(program: &Path) -> Result<String, String> {
    let output = output_of(Command::new(program).arg("--version"))?;
    parsed(&output).ok_or_else(|| format!("{} --version told {output:?}", program.display()))
}

/// Reads `Valkey server v=8.1.8 sha=00000000:1 malloc=libc bits=64 build=7eb4ebc9d7e91f4e`.
fn parsed(output: &str) -> Option<String> {
    let mut words = output.split_whitespace();
    let (kind, "server") = (words.next()?, words.next()?) else { return None };
    Some(format!("{kind} {}", words.next()?.strip_prefix("v=")?))
}

/// Starts it once and asks whether it is there; it finds its libraries or it does not.
pub(super) fn ping(program: &Path) -> Result<(), String> {
    let failed =
        |problem: &dyn std::fmt::Display| format!("{} does not run here: {problem}", program.display());
    let port = free_port().map_err(|error| failed(&error))?;
    let mut server = Running::start(program, port).map_err(|error| failed(&error))?;
    let start = Instant::now();
    loop {
        let problem = match pong(port) {
            Ok(()) => return Ok(()),
            Err(error) => error,
        };
        if let Ok(Some(status)) = server.0.try_wait() {
            return Err(failed(&format_args!("{status}, instead of an answer to PING")));
        }
        if start.elapsed() > STARTS_WITHIN {
            return Err(failed(&format_args!("no answer to PING after {STARTS_WITHIN:?}: {problem}")));
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn free_port() -> io::Result<u16> {
    Ok(TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?.port())
}

fn pong(port: u16) -> io::Result<()> {
    let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port))?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    (&stream).write_all(b"PING\r\n")?;
    let mut line = String::new();
    BufReader::new(&stream).read_line(&mut line)?;
    if line == "+PONG\r\n" { Ok(()) } else { Err(io::Error::other(format!("it answered {line:?}"))) }
}

/// Ends with its owner.
struct Running(Child);

impl Running {
    fn start(program: &Path, port: u16) -> io::Result<Self> {
        let mut command = Command::new(program);
        command.args([
            "--port",
            &port.to_string(),
            "--bind",
            "127.0.0.1",
            "--save",
            "",
            "--appendonly",
            "no",
        ]);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        command.spawn().map(Self)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kind_and_version_are_read() {
        let redis = "Redis server v=6.2.14 sha=40305114:0 malloc=libc bits=64 build=dff95a8e7a99d269\n";
        assert_eq!(parsed(redis).unwrap(), "Redis 6.2.14");
        assert_eq!(parsed("Valkey server v=9.1.2 sha=00000000:1\n").unwrap(), "Valkey 9.1.2");
    }

    #[test]
    fn another_program_is_no_server() {
        for output in ["", "memcached 1.6.18\n", "Redis client v=7.0.15\n", "Redis server 7.0.15\n"] {
            assert_eq!(parsed(output), None, "{output}");
        }
    }

    #[test]
    fn a_program_that_ends_or_is_not_there_does_not_run_here() {
        for program in ["false", "/cache-kit/no/such/server"] {
            let problem = ping(Path::new(program)).unwrap_err();
            assert!(problem.starts_with(&format!("{program} does not run here: ")), "{problem}");
        }
    }
}
