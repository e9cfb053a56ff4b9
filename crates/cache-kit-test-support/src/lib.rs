//! Real cache servers for tests: each on its own free port, in its own directory, stopped whatever happens.
//!
//! ```no_run
//! use cache_kit_test_support::{MemcachedServer, RedisServer};
//!
//! let redis = RedisServer::builder().arg("--maxmemory").arg("1mb").start();
//! assert_eq!(redis.command("PING"), "PONG");
//! redis.kill();
//! redis.restart(); // the same port, empty
//!
//! let memcached = MemcachedServer::start();
//! memcached.pause(); // accepts connections, answers nothing
//! ```
//!
//! What a network can do to a connection comes from a [`FaultProxy`] between the client and the server, and from the
//! two servers that never serve, [`SilentServer`] and [`UnansweredPort`]:
//!
//! ```no_run
//! use cache_kit_test_support::{Cut, Direction, Fault, FaultProxy, RedisServer};
//!
//! let redis = RedisServer::start();
//! let proxy = FaultProxy::start(redis.addr());
//! // ... the client connects to proxy.addr() ...
//! proxy.set(Direction::ToClient, Fault::CutAfter { bytes: 3, how: Cut::Rst });
//! proxy.clear();
//! ```
//!
//! A Memcached can listen on a unix socket, speak TLS with a certificate that is right or wrong, and ask for a login;
//! [`Libmemcached`] is a client of another make, to compare with:
//!
//! ```no_run
//! use cache_kit_test_support::{Libmemcached, LibmemcachedDistribution, MemcachedServer};
//!
//! let secure = MemcachedServer::builder().tls().auth("user", "secret").start();
//! let (_trusted, _addr) = (secure.ca_certificate(), secure.addr());
//! assert_eq!(secure.stat("cmd_get"), 0);
//!
//! let servers = [MemcachedServer::start(), MemcachedServer::start()];
//! let addrs = servers.each_ref().map(|server| server.addr());
//! let mut client = Libmemcached::start(&addrs, LibmemcachedDistribution::KetamaWeighted);
//! client.set("key", b"value");
//! ```
//!
//! A Redis can do the same, with users of its own besides; and several can be one [`RedisCluster`], or a primary and a
//! replica that [`RedisSentinels`] watch:
//!
//! ```no_run
//! use cache_kit_test_support::{Ca, RedisCluster, RedisSentinels, RedisServer};
//!
//! let ca = Ca::new();
//! let secure = RedisServer::builder().ca(&ca).acl_user("app", "secret", "~app:* +@all").start();
//! assert!(secure.url().starts_with("rediss://app:secret@"));
//!
//! let cluster = RedisCluster::builder().password("secret").start();
//! let slot = cluster.slot("key");
//! let old = cluster.primary_of(slot);
//! cluster.move_slot(slot, (old + 1) % 3);
//! cluster.kill((old + 1) % 3);
//! let _new = cluster.wait_for_new_primary(slot, (old + 1) % 3);
//!
//! let watched = RedisSentinels::start();
//! let (_old, _new) = watched.fail_over();
//! ```
//!
//! Behind a cache there is a database. This one keeps its rows over a restart:
//!
//! ```no_run
//! use cache_kit_test_support::PostgresServer;
//!
//! let database = PostgresServer::start();
//! assert_eq!(database.command("SELECT 40 + 2"), "42");
//! database.kill();
//! database.restart();
//! ```
//!
//! Everything blocks, and nothing here needs a runtime, so synchronous and asynchronous tests can both use it.
//! A test that cannot run must fail: a missing server program is a panic that says what to install, never a skip.
//!
//! Tests that need no control over the process may take [`Server::shared`] instead of [`Server::start`]; it uses
//! the server that `CACHE_KIT_TEST_REDIS_URL` or `CACHE_KIT_TEST_MEMCACHED` names, when it is set.
//!
//! Unix only: the servers run under a small `sh` supervisor.

mod acceptor;
mod builder;
mod certificates;
mod exchange;
mod identity;
mod kind;
mod libmemcached;
mod locate;
mod memcached;
mod open;
mod place;
mod ports;
mod postgres;
mod process;
mod proxy;
mod redis;
mod server;
mod shared;
mod silent;
mod supervisor;
mod unanswered;

pub use builder::Builder;
pub use certificates::{Ca, Certificate};
pub use kind::Kind;
pub use libmemcached::{Libmemcached, LibmemcachedDistribution};
pub use memcached::Memcached;
pub use place::Place;
pub use ports::ephemeral_range;
pub use postgres::Postgres;
pub use process::is_running;
pub use proxy::{Cut, Direction, Fault, FaultProxy};
pub use redis::{Redis, RedisCluster, RedisClusterBuilder, RedisSentinels, RedisSentinelsBuilder};
pub use server::Server;
pub use shared::{Shared, external_memcached, external_redis_url};
pub use silent::SilentServer;
pub use unanswered::UnansweredPort;

/// A `redis-server` process owned by the test.
pub type RedisServer = Server<Redis>;

/// A `memcached` process owned by the test.
pub type MemcachedServer = Server<Memcached>;

/// A PostgreSQL owned by the test; see [`Postgres`].
pub type PostgresServer = Server<Postgres>;
