//! What the ring promises about keys when the list of servers changes.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::collections::HashMap;

use cache_kit_memcached::ring::{Distribution, Ring, RingError, RingServer};

const BOTH: [Distribution; 2] = [Distribution::KetamaWeighted, Distribution::Ketama];
const KEYS: usize = 30_000;

fn servers(count: usize) -> Vec<RingServer> {
    (0..count).map(|number| RingServer::new(format!("10.0.{number}.1"), 11_211)).collect()
}

fn weighted(weights: &[u32]) -> Vec<RingServer> {
    let server = |(number, weight): (usize, &u32)| {
        RingServer::new(format!("cache-{number}"), 11_311).with_weight(*weight)
    };
    weights.iter().enumerate().map(server).collect()
}

/// The host of each key's server: what must not change when only the list does.
fn hosts(servers: &[RingServer], distribution: Distribution) -> Vec<&str> {
    let ring = Ring::new(servers.to_vec(), distribution).unwrap();
    let key = |number| format!("key:{number}");
    (0..KEYS).map(|number| servers[ring.server_of(key(number).as_bytes())].host.as_str()).collect()
}

/// Without the server at `gone`: the part of the other servers' keys that moved.
fn moved_among_others(servers: &[RingServer], gone: usize, distribution: Distribution) -> f64 {
    let mut rest = servers.to_vec();
    let gone = rest.remove(gone).host;
    let (before, after) = (hosts(servers, distribution), hosts(&rest, distribution));
    let others = || before.iter().zip(&after).filter(|(before, _)| **before != gone);
    others().filter(|(before, after)| before != after).count() as f64 / others().count() as f64
}

/// The part of the keys that each server has, in the order of the list.
fn shares(servers: &[RingServer], distribution: Distribution) -> Vec<f64> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for host in hosts(servers, distribution) {
        *counts.entry(host).or_default() += 1;
    }
    let share =
        |server: &RingServer| counts.get(server.host.as_str()).copied().unwrap_or(0) as f64 / KEYS as f64;
    servers.iter().map(share).collect()
}

#[test]
fn the_order_of_the_list_does_not_matter() {
    let servers = [("b", 11_211, 1), ("a", 11_212, 1), ("/run/a.sock", 0, 1), ("a", 11_211, 1)]
        .map(|(host, port, weight)| RingServer::new(host, port).with_weight(weight));
    for distribution in BOTH {
        let expected = Ring::new(servers.clone(), distribution).unwrap();
        for [a, b, c] in [[0, 1, 2], [2, 1, 0], [3, 0, 1], [1, 3, 2], [3, 2, 1]] {
            let rest = 6 - a - b - c;
            let order = [a, b, c, rest];
            let shuffled = Ring::new(order.map(|at| servers[at].clone()), distribution).unwrap();
            for number in 0..1_000 {
                let key = format!("key:{number}");
                let (at, expected) = (shuffled.server_of(key.as_bytes()), expected.server_of(key.as_bytes()));
                assert_eq!(order[at], expected, "{distribution:?} {order:?} {key}");
            }
        }
    }
}

#[test]
fn where_points_coincide_the_first_by_name_has_the_key_whatever_the_list_says() {
    // Both have the point 1296976496, which is the next after the hash of the key.
    let (one, other) = (RingServer::new("cache-590", 11_211), RingServer::new("cache-712", 11_211));
    let ring =
        |list: [&RingServer; 2]| Ring::new(list.map(Clone::clone), Distribution::KetamaWeighted).unwrap();
    assert_eq!(ring([&one, &other]).server_of(b"key:76"), 0);
    assert_eq!(ring([&other, &one]).server_of(b"key:76"), 1);
}

#[test]
fn a_key_exactly_at_a_point_belongs_to_the_server_of_the_point() {
    for distribution in BOTH {
        let servers = servers(3);
        let ring = Ring::new(servers.clone(), distribution).unwrap();
        for (at, server) in servers.iter().enumerate() {
            for number in 0..40 {
                // The text that one of the points is the hash of.
                let key = format!("{}-{number}", server.host);
                assert_eq!(ring.server_of(key.as_bytes()), at, "{distribution:?} {key}");
            }
        }
    }
}

#[test]
fn removing_or_adding_a_server_of_plain_ketama_moves_its_own_keys_only() {
    for count in [2, 3, 10, 25, 50] {
        assert_eq!(moved_among_others(&servers(count), count / 2, Distribution::Ketama), 0.0, "{count}");
    }
}

#[test]
fn removing_or_adding_one_of_few_equal_servers_moves_its_own_keys_only() {
    for count in 2..=24 {
        let moved = moved_among_others(&servers(count), count / 2, Distribution::KetamaWeighted);
        assert_eq!(moved, 0.0, "{count}");
    }
}

#[test]
fn where_libmemcached_rounds_down_one_other_key_in_forty_moves_too() {
    // With 25, 47, 50, ... servers each has 156 points instead of 160: to there and from there.
    for count in [25, 26, 47, 48] {
        let moved = moved_among_others(&servers(count), 3, Distribution::KetamaWeighted);
        assert!((0.015..0.035).contains(&moved), "{count}: {moved}");
    }
    assert_eq!(moved_among_others(&servers(27), 3, Distribution::KetamaWeighted), 0.0);
}

#[test]
fn with_unequal_weights_no_more_keys_of_others_move_than_the_average_weight_does() {
    let rounding = 0.025;
    for weights in [&[600, 300, 200][..], &[1, 2, 3, 4], &[1, 1, 1, 5], &[10, 9, 8, 7, 6, 5]] {
        let average = |weights: &[u32]| f64::from(weights.iter().sum::<u32>()) / weights.len() as f64;
        for gone in 0..weights.len() {
            let rest = [&weights[..gone], &weights[gone + 1..]].concat();
            let change = average(weights) / average(&rest);
            let most = 1.0 - change.min(1.0 / change) + rounding;
            let moved = moved_among_others(&weighted(weights), gone, Distribution::KetamaWeighted);
            assert!(moved < most, "{weights:?} without {gone}: {moved}, not below {most}");
        }
    }
    assert!(moved_among_others(&weighted(&[600, 300, 200]), 2, Distribution::KetamaWeighted) > 0.0);
}

#[test]
fn equal_servers_have_equal_shares_within_a_fifth() {
    for distribution in BOTH {
        for count in [2, 3] {
            for share in shares(&servers(count), distribution) {
                let fair = 1.0 / count as f64;
                assert!((share - fair).abs() < fair / 5.0, "{distribution:?}, {count}: {share}");
            }
        }
    }
}

#[test]
fn a_share_of_the_keys_follows_the_share_of_the_weight() {
    for weights in [&[600, 300, 200][..], &[1, 2, 3, 4], &[1, 1, 8], &[u32::MAX, u32::MAX, 1 << 31]] {
        let total: f64 = weights.iter().map(|weight| f64::from(*weight)).sum();
        let shares = shares(&weighted(weights), Distribution::KetamaWeighted);
        for (share, weight) in shares.iter().zip(weights) {
            let fair = f64::from(*weight) / total;
            assert!((share - fair).abs() < fair / 4.0, "{weights:?}: {share} instead of {fair}");
        }
    }
}

#[test]
fn a_server_of_less_than_a_fortieth_of_the_average_weight_has_no_key() {
    let shares = shares(&weighted(&[1, 200]), Distribution::KetamaWeighted);
    assert_eq!(shares, [0.0, 1.0]);
}

#[test]
fn a_single_server_has_every_key() {
    for distribution in BOTH {
        let ring = Ring::new(servers(1), distribution).unwrap();
        for key in [&b""[..], b"k", &[0xff; 300]] {
            assert_eq!(ring.server_of(key), 0);
        }
    }
}

#[test]
fn a_list_that_makes_no_ring_is_refused_with_the_positions_to_look_at() {
    let made = |servers: Vec<RingServer>, distribution| Ring::new(servers, distribution).err();
    for distribution in BOTH {
        assert_eq!(made(Vec::new(), distribution), Some(RingError::NoServers));
        assert_eq!(made(weighted(&[1, 0]), distribution), Some(RingError::ZeroWeight { position: 1 }));
        let twice = [("a", 1), ("b", 1), ("a", 2), ("b", 1)].map(|(host, port)| RingServer::new(host, port));
        let duplicate = RingError::DuplicateServer { first: 1, second: 3 };
        assert_eq!(made(twice.to_vec(), distribution), Some(duplicate));
    }
    let weight = RingError::WeightWithoutEffect { position: 2 };
    assert_eq!(made(weighted(&[1, 1, 2]), Distribution::Ketama), Some(weight));
}

#[test]
fn an_error_counts_from_one_and_says_what_to_do() {
    let text = RingError::DuplicateServer { first: 1, second: 3 }.to_string();
    assert_eq!(text, "memcached servers 2 and 4 of the list are the same: name it once, with a weight");
    let text = RingError::NoServers.to_string();
    assert_eq!(text, "no memcached servers: name at least one");
    let text = RingError::ZeroWeight { position: 0 }.to_string();
    assert_eq!(text, "memcached server 1 of the list has weight 0: give it 1 or more, or leave it out");
    let text = RingError::WeightWithoutEffect { position: 0 }.to_string();
    assert!(text.ends_with("use weighted ketama, or no weights"), "{text}");
}
