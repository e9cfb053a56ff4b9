//! Redis: its arguments, and the little of its protocol that a test needs to look inside.

use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::time::Duration;

use crate::exchange::{connect, number_after};
use crate::kind::{Kind, sealed::Sealed};
use crate::place::Place;

/// Marks a [`Server`](crate::Server) as Redis.
#[derive(Debug, Default)]
pub struct Redis {
    pub(crate) password: Option<String>,
}

impl Sealed for Redis {}

impl Kind for Redis {
    const PROGRAM: &'static str = "redis-server";
    const PACKAGE: &'static str = "redis";
    const SCHEME: &'static str = "redis";
    const PROGRAM_VAR: &'static str = "CACHE_KIT_REDIS_SERVER";
    const EXTERNAL_VAR: &'static str = "CACHE_KIT_TEST_REDIS_URL";

    fn arguments(&self, place: Place<'_>, log: &Path) -> Vec<OsString> {
        let port = place.port.to_string();
        let mut arguments: Vec<OsString> = ["--port", &port, "--bind", "127.0.0.1", "--save", ""]
            .into_iter()
            .chain(["--appendonly", "no", "--daemonize", "no", "--dir"])
            .map(OsString::from)
            .collect();
        arguments.extend([place.dir.into(), "--logfile".into(), log.into()]);
        if let Some(password) = &self.password {
            arguments.extend(["--requirepass".into(), password.into()]);
        }
        arguments
    }

    fn userinfo(&self) -> String {
        self.password.as_ref().map(|password| format!(":{password}@")).unwrap_or_default()
    }

    fn exchange(&self, place: Place<'_>, line: &str, timeout: Duration) -> io::Result<Vec<u8>> {
        let mut stream = BufReader::new(connect(&place.addr(), timeout)?);
        if let Some(password) = &self.password {
            write!(stream.get_mut(), "AUTH {password}\r\n")?;
            read_reply(&mut stream)?;
        }
        stream.get_mut().write_all(format!("{line}\r\n").as_bytes())?;
        read_reply(&mut stream)
    }

    fn serving_pid(&self, place: Place<'_>, timeout: Duration) -> io::Result<u32> {
        let pong = self.exchange(place, "PING", timeout)?;
        if pong != b"PONG" {
            let reply = String::from_utf8_lossy(&pong).into_owned();
            return Err(io::Error::new(io::ErrorKind::InvalidData, format!("PING was answered {reply:?}")));
        }
        number_after(&self.exchange(place, "INFO server", timeout)?, "process_id:")
    }
}

/// Reads one reply and renders it as `redis-cli` does when it is not on a terminal, except that an error keeps its
/// leading `-` and an absent value is `(nil)`, so that neither can be taken for data by accident.
fn read_reply(reader: &mut impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = String::new();
    if reader.read_line(&mut line)? == 0 {
        return Err(io::ErrorKind::UnexpectedEof.into());
    }
    let line = line.trim_end();
    let length = || line[1..].parse::<i64>().map_err(|_| invalid(line));
    match line.as_bytes().first() {
        Some(b'+' | b':') => Ok(line.as_bytes()[1..].to_vec()),
        Some(b'-') => Ok(line.as_bytes().to_vec()),
        Some(b'$') => match usize::try_from(length()?) {
            Ok(length) => {
                let mut body = vec![0; length + 2];
                reader.read_exact(&mut body)?;
                body.truncate(length);
                Ok(body)
            }
            Err(_) => Ok(b"(nil)".to_vec()),
        },
        Some(b'*') => match usize::try_from(length()?) {
            Ok(length) => {
                let items = (0..length).map(|_| read_reply(reader)).collect::<io::Result<Vec<_>>>()?;
                Ok(items.join(&b'\n'))
            }
            Err(_) => Ok(b"(nil)".to_vec()),
        },
        _ => Err(invalid(line)),
    }
}

fn invalid(line: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("not a Redis reply: {line:?}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rendered(reply: &[u8]) -> String {
        String::from_utf8(read_reply(&mut &*reply).unwrap()).unwrap()
    }

    #[test]
    fn replies_are_rendered_as_text() {
        assert_eq!(rendered(b"+PONG\r\n"), "PONG");
        assert_eq!(rendered(b":42\r\n"), "42");
        assert_eq!(rendered(b"$3\r\na\nb\r\n"), "a\nb");
        assert_eq!(rendered(b"$-1\r\n"), "(nil)");
        assert_eq!(rendered(b"*2\r\n$1\r\na\r\n*1\r\n:7\r\n"), "a\n7");
    }

    #[test]
    fn an_error_cannot_be_taken_for_data() {
        assert_eq!(rendered(b"-ERR no\r\n"), "-ERR no");
    }

    #[test]
    fn a_cut_or_foreign_reply_is_an_error() {
        for reply in [&b""[..], b"$5\r\nab", b"VERSION 1.6\r\n", b"$x\r\n"] {
            assert!(read_reply(&mut &*reply).is_err(), "{reply:?}");
        }
    }
}
