//! What sentinels and their servers are started with.

use crate::builder::Builder;
use crate::certificates::Ca;
use crate::process::wait_until;
use crate::redis::Redis;
use crate::redis::part::Part;
use crate::redis::sentinels::{NAME, RedisSentinels};
use crate::server::Server;

const SENTINELS: usize = 3;
/// How many sentinels have to miss the primary; a majority elects the one that acts.
const QUORUM: usize = 2;
/// In milliseconds. A sentinel connects to a new primary up to a second after it learnt of it, because it tries a dead
/// one once a second; if it missed the new one earlier than that, one failover would follow the other.
const DOWN_AFTER: u32 = 1_500;
/// Sentinels ask and tell each other sooner, until they are restarted: a primary that comes back after it was replaced
/// becomes a replica four of these periods later, and counts as one when it was asked again.
const HASTE: &str = "SENTINEL DEBUG PUBLISH-PERIOD 500 INFO-PERIOD 1000";

/// What [`RedisSentinels`] are started with.
#[derive(Debug, Default)]
pub struct RedisSentinelsBuilder {
    ca: Option<Ca>,
    password: Option<String>,
    sentinel_password: Option<String>,
}

impl RedisSentinelsBuilder {
    /// Makes the servers and the sentinels speak TLS, to clients and to each other, with certificates of one new
    /// authority, whose certificate is at [`RedisSentinels::ca_certificate`]. For the program, see `tls` of the builder
    /// of a server.
    #[must_use]
    pub fn tls(self) -> Self {
        self.ca(&Ca::new())
    }

    /// [`tls`](Self::tls) with certificates of this authority.
    #[must_use]
    pub fn ca(mut self, ca: &Ca) -> Self {
        self.ca = Some(ca.clone());
        self
    }

    /// Makes the servers ask for a password, which [`RedisSentinels::url`] then holds. Without characters that a URL
    /// escapes.
    #[must_use]
    pub fn password(mut self, password: impl Into<String>) -> Self {
        self.password = Some(password.into());
        self
    }

    /// Makes the sentinels ask for a password.
    #[must_use]
    pub fn sentinel_password(mut self, password: impl Into<String>) -> Self {
        self.sentinel_password = Some(password.into());
        self
    }

    /// Starts the servers and the sentinels and waits until the sentinels know each other and the replica: from then
    /// on they can replace the primary.
    ///
    /// # Panics
    ///
    /// As [`Builder::start`], and when they do not come together in time.
    #[must_use]
    pub fn start(self) -> RedisSentinels {
        let primary = self.start_server(String::new());
        let replica = self.start_server(format!("replicaof 127.0.0.1 {}\n", primary.port()));
        let servers = vec![primary, replica];
        // Sentinels ask for the replicas once, and then not for ten seconds.
        let online = || servers[0].command("INFO replication").contains("state=online");
        assert!(wait_until(RedisSentinels::LIMIT, online), "no replica of {}", servers[0].addr());
        let sentinels = (0..SENTINELS).map(|_| self.start_sentinel(servers[0].port())).collect();
        let started = RedisSentinels { servers, sentinels, password: self.password, tls: self.ca.is_some() };
        started.wait_until_ok();
        started
    }

    fn start_server(&self, configuration: String) -> Server<Redis> {
        let mut builder = self.builder(self.password.as_ref(), Part::Watched { configuration });
        if let Some(password) = &self.password {
            builder = builder.arg("--masterauth").arg(password);
        }
        builder.arg("--repl-diskless-sync-delay").arg("0").start()
    }

    fn start_sentinel(&self, primary: u16) -> Server<Redis> {
        let mut configuration = format!(
            "sentinel monitor {NAME} 127.0.0.1 {primary} {QUORUM}\n\
             sentinel down-after-milliseconds {NAME} {DOWN_AFTER}\n\
             sentinel failover-timeout {NAME} 2000\n\
             sentinel parallel-syncs {NAME} 1\n"
        );
        if let Some(password) = &self.password {
            configuration += &format!("sentinel auth-pass {NAME} {password}\n");
        }
        let sentinel =
            self.builder(self.sentinel_password.as_ref(), Part::Sentinel { configuration }).start();
        // Redis 6 does not know the command; there everything takes its usual time.
        let _ = sentinel.command(HASTE);
        sentinel
    }

    fn builder(&self, password: Option<&String>, part: Part) -> Builder<Redis> {
        let mut builder = Server::<Redis>::builder();
        builder.kind.part = part;
        if let Some(ca) = &self.ca {
            builder = builder.ca(ca);
        }
        match password {
            Some(password) => builder.password(password),
            None => builder,
        }
    }
}
