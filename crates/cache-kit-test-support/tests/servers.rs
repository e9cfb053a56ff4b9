//! What a test may rely on while it holds a server.

use std::time::{Duration, Instant};

use cache_kit_test_support::{Kind, MemcachedServer, RedisServer, Server, ephemeral_range, is_running};

const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(10);

fn on_both(check: impl Fn(&dyn Fn() -> Held)) {
    check(&|| Held::Redis(RedisServer::start()));
    check(&|| Held::Memcached(MemcachedServer::start()));
}

/// One face for both kinds, with the commands that differ.
enum Held {
    Redis(RedisServer),
    Memcached(MemcachedServer),
}

macro_rules! each {
    ($held:expr, $server:ident => $body:expr) => {
        match $held {
            Held::Redis($server) => $body,
            Held::Memcached($server) => $body,
        }
    };
}

impl Held {
    fn put(&self) {
        match self {
            Self::Redis(server) => assert_eq!(server.command("SET k v"), "OK"),
            Self::Memcached(server) => assert_eq!(server.command("set k 0 0 1\r\nv"), "STORED"),
        }
    }

    fn holds_it(&self) -> bool {
        match self {
            Self::Redis(server) => server.command("GET k") == "v",
            Self::Memcached(server) => server.command("get k") == "VALUE k 0 1\r\nv\r\nEND",
        }
    }
}

#[test]
fn a_started_server_answers() {
    let redis = RedisServer::start();
    assert_eq!(redis.command("PING"), "PONG");
    assert!(redis.command("INFO server").contains(&format!("tcp_port:{}", redis.port())));
    assert_eq!(redis.url(), format!("redis://127.0.0.1:{}", redis.port()));
    assert!(redis.log().contains("Ready to accept connections"), "{}", redis.log());

    let memcached = MemcachedServer::start();
    assert!(memcached.command("version").starts_with("VERSION "));
    assert!(memcached.command("stats").contains(&format!("STAT pid {}", memcached.pid())));
    assert_eq!(memcached.url(), format!("memcached://127.0.0.1:{}", memcached.port()));
}

#[test]
fn a_command_reaches_the_data_as_a_foreign_client_does() {
    on_both(|start| {
        let held = start();
        assert!(!held.holds_it());
        held.put();
        assert!(held.holds_it());
    });
    let redis = RedisServer::start();
    assert_eq!(redis.command(r#"SET b "\xff\x00""#), "OK");
    assert_eq!(redis.command_bytes("GET b"), [0xff, 0]);
    assert_eq!(redis.command("DEL b"), "1");
    assert_eq!(redis.command("GET b"), "(nil)");
    assert!(redis.command("NONSENSE").starts_with("-ERR"));
}

#[test]
fn arguments_reach_the_server() {
    let redis = RedisServer::builder().arg("--maxmemory").arg("1mb").start();
    assert_eq!(redis.command("CONFIG GET maxmemory"), "maxmemory\n1048576");
    let memcached = MemcachedServer::builder().arg("-m").arg("17").start();
    assert!(memcached.command("stats settings").contains(&format!("STAT maxbytes {}", 17 << 20)));
}

#[test]
fn a_password_is_asked_for_and_part_of_the_url() {
    let redis = RedisServer::builder().password("secret").start();
    assert_eq!(redis.url(), format!("redis://:secret@127.0.0.1:{}", redis.port()));
    assert_eq!(redis.command("CONFIG GET requirepass"), "requirepass\nsecret");
}

#[test]
fn ports_are_outside_the_ephemeral_range() {
    fn check<K: Kind>(server: &Server<K>) {
        assert!(!ephemeral_range().contains(&server.port()), "{}", server.port());
    }
    check(&RedisServer::start());
    check(&MemcachedServer::start());
}

#[test]
fn two_servers_share_neither_port_nor_directory_nor_data() {
    on_both(|start| {
        let (one, two) = (start(), start());
        one.put();
        assert!(!two.holds_it());
        each!(&one, one => {
            each!(&two, two => {
                assert_ne!(one.port(), two.port());
                assert_ne!(one.dir(), two.dir());
                assert_ne!(one.pid(), two.pid());
            });
        });
    });
}

#[test]
fn a_killed_server_comes_back_on_its_port_and_empty() {
    on_both(|start| {
        let held = start();
        held.put();
        each!(&held, server => {
            let (port, pid) = (server.port(), server.pid());
            server.kill();
            assert!(!server.is_alive() && !is_running(pid) && !server.answers(SHORT));
            server.restart();
            assert!(server.is_alive() && server.answers(LONG));
            assert_eq!(server.port(), port);
            assert_ne!(server.pid(), pid);
        });
        assert!(!held.holds_it());
    });
}

#[test]
fn a_server_that_lives_can_be_restarted_with_a_client_connected() {
    on_both(|start| {
        let held = start();
        held.put();
        each!(&held, server => {
            let _client = std::net::TcpStream::connect(server.addr()).unwrap();
            server.restart();
        });
        assert!(!held.holds_it());
    });
}

#[test]
fn a_paused_server_is_silent_and_answers_again_when_resumed() {
    on_both(|start| {
        let held = start();
        held.put();
        each!(&held, server => {
            server.pause();
            assert!(server.is_alive());
            let error = server.try_command("PING", SHORT).unwrap_err();
            assert!(matches!(error.kind(), std::io::ErrorKind::WouldBlock | std::io::ErrorKind::TimedOut), "{error}");
            server.resume();
            assert!(server.answers(LONG));
        });
        assert!(held.holds_it());
    });
}

#[test]
fn a_dropped_server_is_gone_even_when_it_was_paused() {
    on_both(|start| {
        for pause in [false, true] {
            let held = start();
            let (pid, dir) = each!(&held, server => (server.pid(), server.dir().to_owned()));
            if pause {
                each!(&held, server => server.pause());
            }
            drop(held);
            assert!(!is_running(pid));
            assert!(!dir.exists());
        }
    });
}

#[test]
fn a_crash_of_the_server_is_seen() {
    let redis = RedisServer::start();
    // The connection closes without a reply, which is what is asked for here.
    let _ = redis.try_command("SHUTDOWN NOSAVE", LONG);
    let deadline = Instant::now() + LONG;
    while redis.is_alive() {
        assert!(Instant::now() < deadline, "still alive");
        std::thread::sleep(Duration::from_millis(5));
    }
    redis.restart();
    assert!(redis.is_alive());
}
