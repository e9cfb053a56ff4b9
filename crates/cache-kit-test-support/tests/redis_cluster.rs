//! What a test may rely on while it holds a Redis Cluster.

mod client;

use cache_kit_test_support::{Ca, RedisCluster, RedisClusterBuilder, RedisServer};
use client::Client;

/// A key that this node serves.
#[expect(clippy::unwrap_used, reason = "a failure is the test's")]
fn key_of(cluster: &RedisCluster, node: usize) -> String {
    let mut keys = (0..1_000).map(|number| format!("key:{number}"));
    keys.find(|key| cluster.primary_of(cluster.slot(key)) == node).unwrap()
}

#[test]
fn a_cluster_forms_and_serves_each_slot_by_the_node_that_it_names() {
    let cluster = RedisCluster::start();
    assert_eq!(cluster.nodes().len(), 6);
    assert_eq!(cluster.url(), format!("redis+cluster://{}", cluster.addrs().join(",")));
    for primary in 0..3 {
        let key = key_of(&cluster, primary);
        let slot = cluster.slot(&key);
        for (node, server) in cluster.nodes().iter().enumerate() {
            let reply = server.command(&format!("SET {key} v"));
            let moved = format!("-MOVED {slot} {}", cluster.nodes()[primary].addr());
            assert_eq!(reply, if node == primary { "OK" } else { &moved });
        }
        assert_eq!(cluster.replica_of(slot), Some(primary + 3));
    }
}

#[test]
fn the_slot_of_a_key_is_what_the_server_says() {
    let server = RedisServer::builder().arg("--cluster-enabled").arg("yes").start();
    let cluster = RedisCluster::builder().replicas(0).start();
    assert_eq!(cluster.nodes().len(), 3);
    let made = (0..100).map(|number| format!("some:{number}"));
    let keys =
        ["", "a", "{tag}a", "a{tag}b", "{}a", "a{}{b}", "{{a}}b", "}a{b}", "a{b", "grün"].map(str::to_owned);
    for key in keys.into_iter().chain(made) {
        let said = server.command(&format!("CLUSTER KEYSLOT \"{key}\""));
        assert_eq!(cluster.slot(&key).to_string(), said, "{key}");
    }
    assert_eq!(cluster.replica_of(0), None);
}

#[test]
fn a_moved_slot_takes_its_keys_along_and_asks_while_it_moves() {
    let cluster = RedisCluster::builder().password("secret").replicas(0).start();
    assert_eq!(cluster.url(), format!("redis+cluster://:secret@{}", cluster.addrs().join(",")));
    let slot = cluster.slot("{tag}");
    let from = cluster.primary_of(slot);
    let to = (from + 1) % 3;
    let [old, new] = [from, to].map(|node| &cluster.nodes()[node]);
    // More than one batch, and a key that is no text.
    for number in 0..250 {
        assert_eq!(old.command(&format!(r#"SET "{{tag}}\xff\n{number}" v"#)), "OK");
    }
    cluster.begin_move(slot, to);
    assert_eq!(old.command(r#"GET "{tag}\xff\n7""#), "v");
    assert_eq!(old.command("GET {tag}none"), format!("-ASK {slot} {}", new.addr()));
    cluster.move_keys(slot, to);
    assert_eq!(old.command(r#"GET "{tag}\xff\n7""#), format!("-ASK {slot} {}", new.addr()));
    cluster.end_move(slot, to);
    assert_eq!(old.command(r#"GET "{tag}\xff\n7""#), format!("-MOVED {slot} {}", new.addr()));
    assert_eq!(new.command(r#"GET "{tag}\xff\n7""#), "v");
    assert_eq!(new.command(&format!("CLUSTER COUNTKEYSINSLOT {slot}")), "250");
    assert_eq!(cluster.primary_of(slot), to);
    cluster.move_slot(slot, from);
    assert_eq!(old.command(r#"GET "{tag}\xff\n7""#), "v");
}

#[test]
fn a_replica_takes_over_from_a_killed_primary_which_comes_back_as_its_replica() {
    let cluster = RedisCluster::start();
    let slot = cluster.slot("k");
    let old = cluster.primary_of(slot);
    let mut client = Client::connect(&cluster.nodes()[old].addr());
    client.send("SET k v\r\nWAIT 1 5000\r\n");
    client.expect("+OK\r\n:1\r\n");
    cluster.kill(old);
    let new = cluster.wait_for_new_primary(slot, old);
    assert_eq!(cluster.primary_of(slot), new);
    assert_eq!(cluster.nodes()[new].command("GET k"), "v");
    cluster.restart(old);
    cluster.wait_until_ok();
    assert_eq!(cluster.replica_of(slot), Some(old));
}

#[test]
fn a_replica_takes_over_from_a_primary_that_lives() {
    let cluster = RedisCluster::start();
    let slot = cluster.slot("k");
    let old = cluster.primary_of(slot);
    let new = cluster.replica_of(slot).unwrap();
    cluster.fail_over_to(new);
    assert_eq!(cluster.primary_of(slot), new);
    assert_eq!(cluster.nodes()[new].command("SET k v"), "OK");
    cluster.wait_until_ok();
    assert_eq!(cluster.replica_of(slot), Some(old));
}

#[test]
fn without_full_coverage_the_rest_is_served_on() {
    let refusal = |builder: RedisClusterBuilder| {
        let cluster = builder.replicas(0).start();
        let key = key_of(&cluster, 1);
        cluster.kill(0);
        let node = &cluster.nodes()[1];
        let noticed = || node.command("CLUSTER NODES").lines().any(|line| line.contains("master,fail "));
        client::wait_until("the failure is noticed", noticed);
        node.command(&format!("SET {key} v"))
    };
    std::thread::scope(|scope| {
        let partial = scope.spawn(|| refusal(RedisCluster::builder().partial_coverage()));
        assert_eq!(refusal(RedisCluster::builder()), "-CLUSTERDOWN The cluster is down");
        assert_eq!(partial.join().unwrap(), "OK");
    });
}

#[test]
fn a_cluster_over_tls_has_one_authority_and_no_plaintext() {
    let ca = Ca::new();
    let cluster = RedisCluster::builder().ca(&ca).password("secret").start();
    assert_eq!(cluster.url(), format!("rediss+cluster://:secret@{}", cluster.addrs().join(",")));
    assert_eq!(std::fs::read_to_string(cluster.ca_certificate()).unwrap(), ca.certificate());
    let slot = cluster.slot("k");
    let old = cluster.primary_of(slot);
    assert_eq!(cluster.nodes()[old].command("SET k v"), "OK");
    cluster.move_slot(slot, (old + 1) % 3);
    assert_eq!(cluster.nodes()[(old + 1) % 3].command("GET k"), "v");

    let mut plain = Client::connect(&cluster.addrs()[0]);
    plain.send("PING PING PING\r\n");
    assert!(!plain.rest().0.contains("PONG"));
}
