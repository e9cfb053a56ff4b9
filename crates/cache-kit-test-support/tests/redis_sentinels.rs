//! What a test may rely on while it holds a Redis that sentinels watch.

mod client;

use cache_kit_test_support::{Ca, RedisSentinels, RedisServer};
use client::{Client, wait_until};

/// The address that this sentinel advertises.
fn advertised(sentinel: &RedisServer) -> String {
    sentinel.command("SENTINEL GET-MASTER-ADDR-BY-NAME cache").replace('\n', ":")
}

#[test]
fn every_sentinel_names_the_primary_that_the_replica_follows() {
    let watched = RedisSentinels::start();
    assert_eq!(
        watched.url(),
        format!("redis+sentinel://{}/{}", watched.sentinel_addrs().join(","), watched.name())
    );
    let [primary, replica] = watched.servers() else { panic!("{watched:?}") };
    assert_eq!(watched.primary(), 0);
    assert_eq!(watched.sentinels().len(), 3);
    for sentinel in watched.sentinels() {
        assert_eq!(advertised(sentinel), primary.addr());
    }
    let mut client = Client::connect(&primary.addr());
    client.send("SET k v\r\nWAIT 1 5000\r\n");
    client.expect("+OK\r\n:1\r\n");
    assert_eq!(replica.command("GET k"), "v");
    assert!(replica.command("SET k v").starts_with("-READONLY"));
}

#[test]
fn a_failover_is_advertised_by_every_sentinel() {
    let watched = RedisSentinels::builder().password("secret").sentinel_password("hidden").start();
    assert!(watched.url().starts_with("redis+sentinel://:secret@127.0.0.1:"), "{}", watched.url());
    assert_eq!(watched.fail_over(), (0, 1));
    assert_eq!(watched.primary(), 1);
    for sentinel in watched.sentinels() {
        assert_eq!(advertised(sentinel), watched.servers()[1].addr());
    }
    assert_eq!(watched.servers()[1].command("SET k v"), "OK");
    for (server, password) in [(&watched.servers()[0], "secret"), (&watched.sentinels()[0], "hidden")] {
        let mut client = Client::connect(&server.addr());
        client.send(format!("PING\r\nAUTH {password}\r\n"));
        client.expect("-NOAUTH Authentication required.\r\n+OK\r\n");
    }
}

#[test]
fn a_killed_primary_is_replaced_and_comes_back_as_a_replica() {
    let watched = RedisSentinels::start();
    let old = watched.kill_primary();
    let new = watched.wait_for_new_primary(old);
    assert_ne!(new, old);
    assert_eq!(watched.servers()[new].command("SET k v"), "OK");
    watched.servers()[old].restart();
    watched.wait_until_ok();
    assert_eq!(watched.primary(), new);
    wait_until("the value is replicated", || watched.servers()[old].command("GET k") == "v");
    // What the sentinels made of it is what it is after a restart.
    watched.servers()[old].restart();
    assert!(watched.servers()[old].command("INFO replication").contains("role:slave"));
}

#[test]
fn a_sentinel_comes_back_and_knows_what_happened() {
    let watched = RedisSentinels::start();
    watched.sentinels()[0].kill();
    let (_, new) = watched.fail_over();
    watched.sentinels()[0].restart();
    let addr = watched.servers()[new].addr();
    wait_until("it names the new primary", || advertised(&watched.sentinels()[0]) == addr);
}

#[test]
fn over_tls_all_have_one_authority_and_fail_over_too() {
    let ca = Ca::new();
    let watched = RedisSentinels::builder().ca(&ca).start();
    assert!(watched.url().starts_with("rediss+sentinel://127.0.0.1:"), "{}", watched.url());
    assert_eq!(std::fs::read_to_string(watched.ca_certificate()).unwrap(), ca.certificate());
    let old = watched.kill_primary();
    assert_ne!(watched.wait_for_new_primary(old), old);
    let mut plain = Client::connect(&watched.sentinel_addrs()[0]);
    plain.send("PING PING PING\r\n");
    assert!(!plain.rest().0.contains("PONG"));
}
