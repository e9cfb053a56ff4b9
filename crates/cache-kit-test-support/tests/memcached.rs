//! The ways in which a Memcached can be reached.

mod client;

use cache_kit_test_support::MemcachedServer;
use client::{Client, LIMIT};

#[test]
fn a_unix_socket_is_served_and_no_port() {
    let server = MemcachedServer::builder().unix_socket().start();
    assert_eq!(server.addr(), server.dir().join("memcached.sock").to_str().unwrap());
    assert_eq!(server.url(), format!("memcached+unix://{}", server.addr()));
    assert!(server.command("version").starts_with("VERSION "));
    assert!(std::net::TcpStream::connect(("127.0.0.1", server.port())).is_err());
}

#[test]
fn a_server_with_tls_has_a_tls_port_and_a_plain_one() {
    let server = MemcachedServer::builder().tls().start();
    assert_ne!(server.addr(), server.plain_addr());
    assert_eq!(server.url(), format!("memcached+tls://{}", server.addr()));
    let mut plain = Client::connect(&server.plain_addr());
    plain.send("mn\r\n");
    plain.expect("MN\r\n");
    // Longer than the head of a TLS record, so that the server need not wait to see that it is none.
    let mut foreign = Client::connect(&server.addr());
    foreign.send("get a-key\r\n");
    assert_eq!(foreign.rest().0, "");
}

#[test]
fn a_login_is_asked_for_and_known_to_the_test_bed() {
    let server = MemcachedServer::builder().auth("user", "secret").start();
    assert_eq!(server.url(), format!("memcached://user:secret@127.0.0.1:{}", server.port()));
    let mut client = Client::connect(&server.addr());
    client.send("mn\r\n");
    client.expect("CLIENT_ERROR unauthenticated\r\n");
    client.send("set any 0 0 10\r\nuser wrong\r\n");
    client.expect("CLIENT_ERROR authentication failure\r\n");
    client.send("set any 0 0 11\r\nuser secret\r\n");
    client.expect("STORED\r\n");
    client.send("mn\r\n");
    client.expect("MN\r\n");
    assert_eq!(server.command("get any"), "END", "a login stores nothing");
}

#[test]
fn the_options_that_go_together_do() {
    let both = MemcachedServer::builder().tls().auth("user", "secret").start();
    assert!(both.command("version").starts_with("VERSION "));
    let both = MemcachedServer::builder().unix_socket().auth("user", "secret").start();
    assert!(both.command("version").starts_with("VERSION "));
}

#[test]
fn options_that_exclude_each_other_are_refused_in_words() {
    let message = |start: fn() -> MemcachedServer| {
        let payload = std::panic::catch_unwind(start).map(drop).unwrap_err();
        payload.downcast_ref::<String>().cloned().unwrap_or_default()
    };
    let said = message(|| MemcachedServer::builder().unix_socket().tls().start());
    assert!(said.contains("no TLS on a unix socket"), "{said}");
    for (user, password) in [("user", "se cret"), ("us:er", "secret"), ("", "secret"), ("user", "s\n")] {
        let start = move || MemcachedServer::builder().auth(user, password).start();
        let payload = std::panic::catch_unwind(start).map(drop).unwrap_err();
        let said = payload.downcast_ref::<String>().cloned().unwrap_or_default();
        assert!(said.contains("without spaces, colons"), "{said}");
    }
}

#[test]
fn however_it_is_reached_a_server_can_be_paused_and_killed_and_comes_back() {
    let builders = [MemcachedServer::builder().unix_socket(), MemcachedServer::builder().tls()];
    for server in builders.map(|builder| builder.auth("user", "secret").start()) {
        let addr = server.addr();
        server.pause();
        assert!(!server.answers(client::SHORT));
        server.resume();
        assert!(server.answers(LIMIT));
        server.kill();
        assert!(!server.answers(client::SHORT));
        server.restart();
        assert!(server.answers(LIMIT));
        assert_eq!(server.addr(), addr);
    }
}

#[test]
fn statistics_are_numbers() {
    let server = MemcachedServer::builder().memory_megabytes(17).max_item_size("2m").start();
    assert_eq!(server.stat("limit_maxbytes"), 17 << 20);
    assert!(server.command("stats settings").contains(&format!("STAT item_size_max {}", 2 << 20)));
    let before = server.stat("curr_connections");
    let mut client = Client::connect(&server.addr());
    client.send("get k\r\n");
    client.expect("END\r\n");
    assert_eq!(server.stat("cmd_get"), 1);
    assert_eq!(server.stat("curr_connections"), before + 1);
}
