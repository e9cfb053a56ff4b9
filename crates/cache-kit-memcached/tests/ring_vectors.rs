//! The answers of libmemcached 1.1.4, recorded: the ring gives each of them.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::BTreeMap;

use cache_kit_memcached::ring::{Distribution, Ring, RingServer};

const KETAMA: &str = include_str!("vectors/ketama.tsv");
const EDGES: &str = include_str!("vectors/ketama_edges.tsv");

fn rows(file: &str) -> impl Iterator<Item = Vec<&str>> {
    file.lines().filter(|line| !line.starts_with('#')).map(|line| line.split('\t').collect())
}

fn ring(mode: &str, servers: &str) -> Ring {
    let distribution = match mode {
        "weighted" => Distribution::KetamaWeighted,
        "ketama" => Distribution::Ketama,
        other => panic!("a mode {other}"),
    };
    let server = |text: &str| {
        // From the end: an IPv6 address has colons of its own.
        let [weight, port, host] = text.rsplitn(3, ':').collect::<Vec<_>>()[..] else { panic!("{text}") };
        RingServer::new(host, port.parse().unwrap()).with_weight(weight.parse().unwrap())
    };
    Ring::new(servers.split(',').map(server), distribution).unwrap()
}

#[test]
fn each_key_goes_where_libmemcached_sends_it() {
    let mut seen: BTreeMap<&str, u32> = BTreeMap::new();
    for row in rows(KETAMA) {
        let [mode, servers, key, expected] = row[..] else { panic!("{row:?}") };
        let expected: usize = expected.parse().unwrap();
        assert_eq!(ring(mode, servers).server_of(key.as_bytes()), expected, "{mode} {servers} {key}");
        *seen.entry(mode).or_default() += 1;
    }
    assert_eq!(seen, BTreeMap::from([("ketama", 400), ("weighted", 800)]));
}

#[test]
fn many_servers_unix_sockets_ipv6_tiny_weights_and_keys_beyond_ascii_are_no_exception() {
    let mut seen: BTreeMap<&str, usize> = BTreeMap::new();
    for row in rows(EDGES) {
        let [mode, servers, prefix, expected] = row[..] else { panic!("{row:?}") };
        let ring = ring(mode, servers);
        let expected: Vec<usize> = expected.split(',').map(|index| index.parse().unwrap()).collect();
        for (number, expected) in expected.iter().enumerate() {
            let key = format!("{prefix}{number}");
            assert_eq!(ring.server_of(key.as_bytes()), *expected, "{mode} {servers} {key}");
        }
        *seen.entry(mode).or_default() += expected.len();
    }
    assert_eq!(seen, BTreeMap::from([("ketama", 200), ("weighted", 900)]));
}
