//! The ways that Redis is run, each as a place for the same tests.

#![allow(unused_imports, unused_macros, reason = "for the tests that run on every one of them")]

use std::sync::LazyLock;
use std::time::Duration;

use cache_kit::backend::RedisBackend;
use cache_kit::backend::redis::RedisBuilder;
use cache_kit_test_support::{Builder, Redis, RedisCluster, RedisSentinels, RedisServer};
use tokio::sync::{Mutex, MutexGuard};

/// A way that Redis is run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    Plain,
    Unix,
    Tls,
    /// As a user who may do what is needed, under one prefix, and nothing else.
    LeastRights,
    Sentinel,
    /// Three primaries, each with a replica.
    Cluster,
}

/// Makes tests of functions that take a [`Way`]: `[plain tls] { this that }` are `plain::this` and so on. A function may
/// be in one section only.
macro_rules! on_sites {
    ($([$($sites:ident)+] $tests:tt)+) => {
        mod plain { $($crate::common::sites::on_sites!(@if plain [$($sites)+] $tests);)+ }
        mod unix { $($crate::common::sites::on_sites!(@if unix [$($sites)+] $tests);)+ }
        mod tls { $($crate::common::sites::on_sites!(@if tls [$($sites)+] $tests);)+ }
        mod least_rights { $($crate::common::sites::on_sites!(@if least_rights [$($sites)+] $tests);)+ }
        mod sentinel { $($crate::common::sites::on_sites!(@if sentinel [$($sites)+] $tests);)+ }
        mod cluster { $($crate::common::sites::on_sites!(@if cluster [$($sites)+] $tests);)+ }
    };
    (@if plain [plain $($rest:ident)*] $tests:tt) => { $crate::common::sites::on_sites!(@tests Plain $tests); };
    (@if unix [unix $($rest:ident)*] $tests:tt) => { $crate::common::sites::on_sites!(@tests Unix $tests); };
    (@if tls [tls $($rest:ident)*] $tests:tt) => { $crate::common::sites::on_sites!(@tests Tls $tests); };
    (@if least_rights [least_rights $($rest:ident)*] $tests:tt) => {
        $crate::common::sites::on_sites!(@tests LeastRights $tests);
    };
    (@if sentinel [sentinel $($rest:ident)*] $tests:tt) => {
        $crate::common::sites::on_sites!(@tests Sentinel $tests);
    };
    (@if cluster [cluster $($rest:ident)*] $tests:tt) => {
        $crate::common::sites::on_sites!(@tests Cluster $tests);
    };
    (@if $site:ident [$other:ident $($rest:ident)*] $tests:tt) => {
        $crate::common::sites::on_sites!(@if $site [$($rest)*] $tests);
    };
    (@if $site:ident [] $tests:tt) => {};
    (@tests $way:ident { $($test:ident)+ }) => {
        $(
            // What a test asks of a server blocks its own thread, and what it tests goes on on these.
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() {
                super::$test($crate::common::sites::Way::$way).await;
            }
        )+
    };
}
pub(crate) use on_sites;

impl Way {
    /// Servers of the test's own.
    pub fn start(self) -> Site {
        let servers = match self {
            Self::Sentinel => Servers::Sentinels(RedisSentinels::start()),
            Self::Cluster => Servers::Cluster(RedisCluster::start()),
            _ => Servers::One(Box::new(self.server().start())),
        };
        Site { way: self, servers }
    }

    /// Servers that the tests of one program take in turns, empty, for those that leave them as they were.
    pub async fn turn(self) -> MutexGuard<'static, Site> {
        // Each lives as long as this process, whose end ends them all.
        static SITES: [LazyLock<Mutex<Site>>; 6] = [
            LazyLock::new(|| Mutex::new(Way::Plain.start())),
            LazyLock::new(|| Mutex::new(Way::Unix.start())),
            LazyLock::new(|| Mutex::new(Way::Tls.start())),
            LazyLock::new(|| Mutex::new(Way::LeastRights.start())),
            LazyLock::new(|| Mutex::new(Way::Sentinel.start())),
            LazyLock::new(|| Mutex::new(Way::Cluster.start())),
        ];
        let site = SITES[self as usize].lock().await;
        for primary in site.primaries() {
            for line in ["CONFIG SET maxmemory 0", "FLUSHALL"] {
                assert_eq!(primary.command(line), "OK", "{line}");
            }
        }
        site
    }

    /// One server that is reached this way.
    pub fn server(self) -> Builder<Redis> {
        match self {
            Self::Plain => RedisServer::builder(),
            Self::Unix => RedisServer::builder().unix_socket(),
            Self::Tls => RedisServer::builder().tls(),
            Self::LeastRights => {
                RedisServer::builder().acl_user("app", "secret", super::least_rights(self.prefix()))
            }
            Self::Sentinel | Self::Cluster => panic!("{self:?} is more than one server"),
        }
    }

    /// A URL for what is at these addresses, whatever that is.
    pub fn url(self, userinfo: &str, addresses: &str) -> String {
        let scheme = match self {
            Self::Plain | Self::LeastRights => "redis",
            Self::Unix => "redis+unix",
            Self::Tls => "rediss",
            Self::Sentinel => "redis+sentinel",
            Self::Cluster => "redis+cluster",
        };
        let name = if self == Self::Sentinel { "/cache" } else { "" };
        format!("{scheme}://{userinfo}{addresses}{name}")
    }

    /// In front of each key.
    fn prefix(self) -> &'static str {
        if self == Self::LeastRights { "app:" } else { "" }
    }
}

/// Running servers.
pub struct Site {
    way: Way,
    servers: Servers,
}

enum Servers {
    One(Box<RedisServer>),
    Sentinels(RedisSentinels),
    Cluster(RedisCluster),
}

impl Site {
    /// This one server.
    pub fn on(way: Way, server: RedisServer) -> Self {
        Self { way, servers: Servers::One(Box::new(server)) }
    }

    /// For backends of few connections.
    pub fn builder(&self) -> RedisBuilder {
        let userinfo = if self.way == Way::LeastRights { "app:secret@" } else { "" };
        self.builder_as(userinfo, 0)
    }

    /// [`builder`](Self::builder) with these credentials (`user:password@`, percent-encoded) and this database.
    pub fn builder_as(&self, userinfo: &str, database: u32) -> RedisBuilder {
        let mut url = self.way.url(userinfo, &self.addresses());
        match (database, self.way) {
            (0, _) => url += "?",
            (database, Way::Unix) => url += &format!("?database={database}&"),
            (database, _) => url += &format!("/{database}?"),
        }
        url += "pool_size=4";
        if let (Way::Tls, Servers::One(server)) = (self.way, &self.servers) {
            url += &format!("&tls_roots={}", server.ca_certificate().display());
        }
        RedisBackend::builder_from_url(&url).unwrap().prefix(self.way.prefix())
    }

    /// A key as the servers know it.
    pub fn key(&self, key: &str) -> String {
        format!("{}{key}", self.way.prefix())
    }

    /// Does what a foreign client might, who may do everything, on the server that has this key now. `<key>` is what the
    /// servers know the key as.
    pub fn command(&self, key: &str, line: &str) -> String {
        self.owner(key).command(&line.replace("<key>", &self.key(key)))
    }

    /// All servers that hold keys, dead ones and replicas too.
    pub fn servers(&self) -> &[RedisServer] {
        match &self.servers {
            Servers::One(server) => std::slice::from_ref(&**server),
            Servers::Sentinels(sentinels) => sentinels.servers(),
            Servers::Cluster(cluster) => cluster.nodes(),
        }
    }

    /// Those that take writes.
    pub fn primaries(&self) -> Vec<&RedisServer> {
        let is_primary = |server: &&RedisServer| server.command("INFO replication").contains("role:master");
        self.servers().iter().filter(is_primary).collect()
    }

    /// Whether another server takes over when one dies.
    pub fn replicates(&self) -> bool {
        !matches!(self.servers, Servers::One(_))
    }

    /// Returns when the replica knows what the server that has this key knows now, if there is one.
    pub async fn replicated(&self, key: &str) {
        let primary = self.number(key);
        let replica = match &self.servers {
            Servers::One(_) => return,
            Servers::Sentinels(_) => 1 - primary,
            Servers::Cluster(cluster) => cluster.replica_of(cluster.slot(&self.key(key))).unwrap(),
        };
        let offset = |server: usize, field: &str| -> u64 {
            let info = self.servers()[server].command("INFO replication");
            info.lines().find_map(|line| line.strip_prefix(field)?.trim().parse().ok()).unwrap()
        };
        let wanted = offset(primary, "master_repl_offset:");
        let caught_up = async || offset(replica, "slave_repl_offset:") >= wanted;
        super::until("the replica has it", Duration::from_secs(10), caught_up).await;
    }

    /// Kills the server that has this key, as SIGKILL does; which one.
    pub fn kill(&self, key: &str) -> usize {
        let number = self.number(key);
        self.servers()[number].kill();
        number
    }

    /// Stops the server that has this key, as SIGSTOP does; which one.
    pub fn pause(&self, key: &str) -> usize {
        let number = self.number(key);
        self.servers()[number].pause();
        number
    }

    /// What is done about a server that had this key and was killed or stopped: one that is alone is started again or
    /// goes on, and for others it is waited until another one has taken over.
    pub fn bring_back(&self, key: &str, number: usize) {
        match &self.servers {
            Servers::One(server) if server.is_alive() => server.resume(),
            Servers::One(server) => server.restart(),
            Servers::Sentinels(sentinels) => _ = sentinels.wait_for_new_primary(number),
            Servers::Cluster(cluster) => {
                cluster.wait_for_new_primary(cluster.slot(&self.key(key)), number);
            }
        }
    }

    /// Kills all that hold keys.
    pub fn kill_all(&self) {
        self.servers().iter().for_each(RedisServer::kill);
    }

    /// Starts all that hold keys again, and waits until they are what they were to each other.
    pub fn restart_all(&self) {
        self.servers().iter().for_each(RedisServer::restart);
        self.wait_until_ok();
    }

    /// Waits until the servers that live are ready for the next failure.
    pub fn wait_until_ok(&self) {
        match &self.servers {
            Servers::One(_) => {}
            Servers::Sentinels(sentinels) => sentinels.wait_until_ok(),
            Servers::Cluster(cluster) => cluster.wait_until_ok(),
        }
    }

    fn addresses(&self) -> String {
        match &self.servers {
            Servers::One(server) => server.addr(),
            Servers::Sentinels(sentinels) => sentinels.sentinel_addrs().join(","),
            Servers::Cluster(cluster) => cluster.addrs().join(","),
        }
    }

    fn owner(&self, key: &str) -> &RedisServer {
        &self.servers()[self.number(key)]
    }

    fn number(&self, key: &str) -> usize {
        match &self.servers {
            Servers::One(_) => 0,
            Servers::Sentinels(sentinels) => sentinels.primary(),
            Servers::Cluster(cluster) => cluster.primary_of(cluster.slot(&self.key(key))),
        }
    }
}
