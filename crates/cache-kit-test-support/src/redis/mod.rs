//! Redis: its arguments, and how a test looks inside.

mod acl;
mod cluster;
mod inspect;
mod options;
mod part;
mod reply;
mod sentinels;
mod session;
mod tls;

use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::identity::Identity;
use crate::kind::{Kind, sealed::Sealed};
use crate::place::Place;
use acl::Acl;
pub use cluster::{RedisCluster, RedisClusterBuilder};
use part::Part;
pub use sentinels::{RedisSentinels, RedisSentinelsBuilder};
use session::Session;

/// From the port of a member of a cluster to the one where the members talk to each other.
const BUS: u16 = 10_000;

/// Marks a [`Server`](crate::Server) as Redis.
#[derive(Debug, Default)]
pub struct Redis {
    password: Option<String>,
    acl: Acl,
    unix_socket: bool,
    tls: Option<Identity>,
    part: Part,
}

impl Sealed for Redis {}

impl Kind for Redis {
    const PROGRAM: &'static str = "redis-server";
    const PACKAGE: &'static str = "redis";
    const SCHEME: &'static str = "redis";
    const PROGRAM_VAR: &'static str = "CACHE_KIT_REDIS_SERVER";
    const EXTERNAL_VAR: &'static str = "CACHE_KIT_TEST_REDIS_URL";

    /// Other builds speak no TLS.
    fn any_program(&self) -> bool {
        self.tls.is_none()
    }

    fn second_port(&self) -> Option<u16> {
        matches!(self.part, Part::Node).then_some(BUS)
    }

    fn prepare(&mut self, _program: &Path, dir: &Path) -> Result<(), String> {
        if self.unix_socket && self.tls.is_some() {
            return Err("redis-server speaks no TLS on a unix socket: choose one of the two".to_owned());
        }
        self.part.prepare(dir)?;
        self.tls.as_ref().map_or(Ok(()), |tls| tls.prepare(dir))
    }

    fn arguments(&self, place: Place<'_>, log: &Path) -> Vec<OsString> {
        let mut arguments = self.part.arguments(place.dir);
        arguments.extend(["--unixsocket".into(), socket(place.dir).into()]);
        match &self.tls {
            Some(identity) => arguments.extend(tls::arguments(identity, place)),
            None => {
                let port = if self.unix_socket { 0 } else { place.port };
                arguments.extend(["--port".into(), port.to_string().into()]);
            }
        }
        arguments.extend(common(place, log));
        if let Some(password) = &self.password {
            arguments.extend(["--requirepass".into(), password.into()]);
        }
        arguments.extend(self.acl.arguments());
        arguments
    }

    fn addr(&self, place: Place<'_>) -> String {
        if self.unix_socket { socket(place.dir).to_string_lossy().into_owned() } else { place.addr() }
    }

    fn scheme(&self) -> &'static str {
        match (self.unix_socket, &self.tls) {
            (true, _) => "redis+unix",
            (false, Some(_)) => "rediss",
            (false, None) => Self::SCHEME,
        }
    }

    fn userinfo(&self) -> String {
        let of_default = || self.password.as_ref().map(|password| format!(":{password}@"));
        self.acl.userinfo().or_else(of_default).unwrap_or_default()
    }

    fn exchange(&self, place: Place<'_>, line: &str, timeout: Duration) -> io::Result<Vec<u8>> {
        Ok(self.session(place, timeout)?.line(line)?.rendered())
    }

    fn serving_pid(&self, place: Place<'_>, timeout: Duration) -> io::Result<u32> {
        self.session(place, timeout)?.serving_pid()
    }
}

impl Redis {
    /// A connection of the user that may do everything.
    fn session(&self, place: Place<'_>, timeout: Duration) -> io::Result<Session> {
        let mut session = Session::open(&socket(place.dir), timeout)?;
        if let Some(login) = self.acl.login() {
            session.login(&login)?;
        } else if let Some(password) = &self.password {
            session.login(&[password])?;
        }
        Ok(session)
    }
}

/// Arguments of whatever `redis-server` is started as.
fn common(place: Place<'_>, log: &Path) -> Vec<OsString> {
    let mut arguments: Vec<OsString> = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no"]
        .into_iter()
        .chain(["--daemonize", "no", "--dir"])
        .map(OsString::from)
        .collect();
    arguments.extend([place.dir.into(), "--logfile".into(), log.into()]);
    arguments
}

/// Every server listens there, and what a test asks of it through this crate goes there: that works the same with TLS,
/// and the process that opened it in our directory is ours.
fn socket(dir: &Path) -> PathBuf {
    dir.join("redis.sock")
}
