//! The ways in which a Redis can be reached, and by whom.

mod client;

use cache_kit_test_support::RedisServer;
use client::{Client, LIMIT, SHORT};

#[test]
fn a_unix_socket_is_served_and_no_port() {
    let server = RedisServer::builder().unix_socket().password("secret").start();
    assert_eq!(server.addr(), server.dir().join("redis.sock").to_str().unwrap());
    assert_eq!(server.url(), format!("redis+unix://:secret@{}", server.addr()));
    assert_eq!(server.command("PING"), "PONG");
    assert!(std::net::TcpStream::connect(("127.0.0.1", server.port())).is_err());
}

#[test]
fn a_server_with_tls_refuses_plaintext_and_answers_the_test_bed() {
    let server = RedisServer::builder().tls().password("secret").start();
    assert_eq!(server.url(), format!("rediss://:secret@127.0.0.1:{}", server.port()));
    let mut foreign = Client::connect(&server.addr());
    foreign.send("PING PING PING\r\n");
    assert!(!foreign.rest().0.contains("PONG"));
    assert_eq!(server.command("PING"), "PONG");
}

#[test]
fn a_user_is_there_with_its_rules_after_each_start() {
    let server =
        RedisServer::builder().acl_user("app", "secret", "~app:* &* +@read -@dangerous +ping").start();
    let addr = server.addr();
    assert_eq!(server.url(), format!("redis://app:secret@{addr}"));
    for _ in 0..2 {
        let mut client = Client::connect(&addr);
        client.send("AUTH app secret\r\nGET app:k\r\nGET k\r\nKEYS *\r\n");
        client.expect("+OK\r\n$-1\r\n-NOPERM ");
        assert_eq!(server.command("ACL WHOAMI"), "default");
        server.restart();
    }
}

#[test]
fn of_several_users_the_url_has_the_last() {
    let builder = RedisServer::builder().acl_user("one", "1", "+@all").acl_user("two", "2", "allkeys +@all");
    let server = builder.password("secret").start();
    assert_eq!(server.url(), format!("redis://two:2@{}", server.addr()));
    assert_eq!(server.command("ACL USERS"), "default\none\ntwo");
}

#[test]
fn a_default_user_that_is_off_lets_nobody_in_but_the_test_bed_works() {
    let server = RedisServer::builder().password("secret").default_user_off().start();
    let mut client = Client::connect(&server.addr());
    client.send("PING\r\n");
    client.expect("-NOAUTH");
    let mut client = Client::connect(&server.addr());
    client.send("AUTH secret\r\n");
    client.expect("-WRONGPASS");
    assert_eq!(server.command("SET k v"), "OK");
}

#[test]
fn options_that_exclude_each_other_are_refused_in_words() {
    let payload = std::panic::catch_unwind(|| RedisServer::builder().unix_socket().tls().start()).map(drop);
    let said = payload.unwrap_err().downcast_ref::<String>().cloned().unwrap_or_default();
    assert!(said.contains("no TLS on a unix socket"), "{said}");
}

#[test]
fn however_it_is_reached_a_server_can_be_paused_and_killed_and_comes_back() {
    let builders = [RedisServer::builder().unix_socket(), RedisServer::builder().tls()];
    for server in builders.map(|builder| builder.password("secret").start()) {
        let addr = server.addr();
        server.pause();
        assert!(!server.answers(SHORT));
        server.resume();
        assert!(server.answers(LIMIT));
        server.kill();
        assert!(!server.answers(SHORT));
        server.restart();
        assert!(server.answers(LIMIT));
        assert_eq!(server.addr(), addr);
    }
}

#[test]
fn tls_takes_the_program_on_the_path_and_not_the_one_of_the_environment() {
    let run = |what: &str| {
        let mut command = std::process::Command::new(env!("CARGO_BIN_EXE_hold-server"));
        command.args(["redis", what]).env("CACHE_KIT_TEST_REDIS_URL", "");
        command.env("CACHE_KIT_REDIS_SERVER", "/nonexistent/program").output().unwrap().status
    };
    assert!(run("tls").success());
    assert!(!run("share").success());
}
