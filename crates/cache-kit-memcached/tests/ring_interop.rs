//! The ring against libmemcached itself: what one stores, the other finds on the same server.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use cache_kit_memcached::ring::{Distribution, Ring, RingServer};
use cache_kit_test_support::{Libmemcached, LibmemcachedDistribution, MemcachedServer};

fn stored_where_the_ring_says(servers: &[(MemcachedServer, RingServer)], distribution: Distribution) {
    let theirs = match distribution {
        Distribution::KetamaWeighted => LibmemcachedDistribution::KetamaWeighted,
        Distribution::Ketama => LibmemcachedDistribution::Ketama,
        other => panic!("libmemcached has no {other:?}"),
    };
    let name = |(server, place): &(MemcachedServer, RingServer)| match place.port {
        0 => server.addr(),
        _ => format!("{}:{}", server.addr(), place.weight),
    };
    let mut client = Libmemcached::start(&servers.iter().map(name).collect::<Vec<_>>(), theirs);
    let ring = Ring::new(servers.iter().map(|(_, place)| place.clone()), distribution).unwrap();
    for number in 0..200 {
        let key = format!("schlüssel:{number}");
        client.set(&key, b"v");
        let (server, _) = &servers[ring.server_of(key.as_bytes())];
        assert!(server.command(&format!("get {key}")).starts_with("VALUE "), "{distribution:?} {key}");
    }
}

fn on_ports(weights: &[u32]) -> Vec<(MemcachedServer, RingServer)> {
    let start = |weight: &u32| {
        let server = MemcachedServer::start();
        let place = RingServer::new("127.0.0.1", server.port()).with_weight(*weight);
        (server, place)
    };
    weights.iter().map(start).collect()
}

#[test]
fn libmemcached_stores_keys_on_the_server_that_the_ring_names() {
    stored_where_the_ring_says(&on_ports(&[1, 1, 1]), Distribution::KetamaWeighted);
    stored_where_the_ring_says(&on_ports(&[5, 1, 3]), Distribution::KetamaWeighted);
    stored_where_the_ring_says(&on_ports(&[1, 1, 1]), Distribution::Ketama);
}

#[test]
fn unix_sockets_have_the_names_that_libmemcached_gives_them() {
    for distribution in [Distribution::KetamaWeighted, Distribution::Ketama] {
        let sockets: [_; 3] = std::array::from_fn(|_| {
            let server = MemcachedServer::builder().unix_socket().start();
            let place = RingServer::unix_socket(server.addr());
            (server, place)
        });
        stored_where_the_ring_says(&sockets, distribution);
    }
}
