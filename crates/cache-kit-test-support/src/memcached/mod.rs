//! Memcached: its arguments, and its text protocol as far as a test needs it.

mod inspect;
mod login;
mod options;
mod tls;

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::exchange::{connect, connect_unix, number_after};
use crate::kind::{Kind, sealed::Sealed};
use crate::place::Place;
use login::Login;
use tls::Tls;

/// Marks a [`Server`](crate::Server) as Memcached.
#[derive(Debug, Default)]
pub struct Memcached {
    unix_socket: bool,
    tls: Option<Tls>,
    login: Option<Login>,
}

impl Sealed for Memcached {}

impl Kind for Memcached {
    const PROGRAM: &'static str = "memcached";
    const PACKAGE: &'static str = "memcached";
    const SCHEME: &'static str = "memcached";
    const PROGRAM_VAR: &'static str = "CACHE_KIT_MEMCACHED_BIN";
    const EXTERNAL_VAR: &'static str = "CACHE_KIT_TEST_MEMCACHED";

    fn prepare(&mut self, _program: &Path, dir: &Path) -> Result<(), String> {
        if self.unix_socket && self.tls.is_some() {
            return Err("memcached speaks no TLS on a unix socket: choose one of the two".to_owned());
        }
        self.login.as_ref().map_or(Ok(()), |login| login.prepare(dir))?;
        self.tls.as_mut().map_or(Ok(()), |tls| tls.prepare(dir))
    }

    fn arguments(&self, place: Place<'_>, _log: &Path) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = ["-U", "0", "-v"].map(OsString::from).to_vec();
        if self.unix_socket {
            arguments.extend(["-s".into(), socket(place.dir).into()]);
        } else {
            arguments.extend(["-l", "127.0.0.1", "-p", &place.port.to_string()].map(OsString::from));
        }
        arguments.extend(self.tls.as_ref().map(|tls| tls.arguments(place.dir)).into_iter().flatten());
        arguments.extend(self.login.as_ref().map(|login| login.arguments(place.dir)).into_iter().flatten());
        // As root it refuses to start unless told whom to become. The directory was made by this process, so its
        // owner is who we are.
        if std::fs::metadata(place.dir).is_ok_and(|dir| dir.uid() == 0) {
            arguments.extend(["-u", "root"].map(OsString::from));
        }
        arguments
    }

    fn addr(&self, place: Place<'_>) -> String {
        if self.unix_socket { socket(place.dir).to_string_lossy().into_owned() } else { place.addr() }
    }

    fn scheme(&self) -> &'static str {
        match (self.unix_socket, &self.tls) {
            (true, _) => "memcached+unix",
            (false, Some(_)) => "memcached+tls",
            (false, None) => Self::SCHEME,
        }
    }

    fn userinfo(&self) -> String {
        self.login.as_ref().map(Login::userinfo).unwrap_or_default()
    }

    fn exchange(&self, place: Place<'_>, line: &str, timeout: Duration) -> io::Result<Vec<u8>> {
        if self.unix_socket {
            self.ask(connect_unix(&socket(place.dir), timeout)?, line)
        } else {
            let addr = self.tls.as_ref().map_or_else(|| place.addr(), Tls::plain_addr);
            self.ask(connect(&addr, timeout)?, line)
        }
    }

    fn serving_pid(&self, place: Place<'_>, timeout: Duration) -> io::Result<u32> {
        number_after(&self.exchange(place, "stats", timeout)?, "STAT pid ")
    }
}

impl Memcached {
    fn ask(&self, mut stream: impl Read + Write, line: &str) -> io::Result<Vec<u8>> {
        let login = self.login.as_ref().map(Login::command).unwrap_or_default();
        // The end of a text reply depends on the command; the end of the connection does not.
        stream.write_all(format!("{login}{line}\r\nquit\r\n").as_bytes())?;
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply)?;
        if self.login.is_some() {
            reply = login::accepted(reply)?;
        }
        if reply.ends_with(b"\r\n") {
            reply.truncate(reply.len() - 2);
        }
        Ok(reply)
    }
}

fn socket(dir: &Path) -> PathBuf {
    dir.join("memcached.sock")
}
