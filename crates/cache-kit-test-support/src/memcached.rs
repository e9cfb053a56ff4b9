//! Memcached: its arguments, and its text protocol as far as a test needs it.

use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Duration;

use crate::exchange::{connect, number_after};
use crate::kind::{Kind, sealed::Sealed};

/// Marks a [`Server`](crate::Server) as Memcached.
#[derive(Debug, Default)]
pub struct Memcached;

impl Sealed for Memcached {}

impl Kind for Memcached {
    const PROGRAM: &'static str = "memcached";
    const PACKAGE: &'static str = "memcached";
    const SCHEME: &'static str = "memcached";
    const PROGRAM_VAR: &'static str = "CACHE_KIT_MEMCACHED_BIN";
    const EXTERNAL_VAR: &'static str = "CACHE_KIT_TEST_MEMCACHED";

    fn arguments(&self, port: u16, dir: &Path, _log: &Path) -> Vec<OsString> {
        let mut arguments: Vec<OsString> =
            ["-l", "127.0.0.1", "-p", &port.to_string(), "-U", "0", "-v"].map(OsString::from).to_vec();
        // As root it refuses to start unless told whom to become. The directory was made by this process, so its
        // owner is who we are.
        if std::fs::metadata(dir).is_ok_and(|dir| dir.uid() == 0) {
            arguments.extend(["-u", "root"].map(OsString::from));
        }
        arguments
    }

    fn exchange(&self, addr: &str, line: &str, timeout: Duration) -> io::Result<Vec<u8>> {
        let mut stream = connect(addr, timeout)?;
        // The end of a text reply depends on the command; the end of the connection does not.
        stream.write_all(format!("{line}\r\nquit\r\n").as_bytes())?;
        let mut reply = Vec::new();
        stream.read_to_end(&mut reply)?;
        if reply.ends_with(b"\r\n") {
            reply.truncate(reply.len() - 2);
        }
        Ok(reply)
    }

    fn serving_pid(&self, addr: &str, timeout: Duration) -> io::Result<u32> {
        number_after(&self.exchange(addr, "stats", timeout)?, "STAT pid ")
    }
}
