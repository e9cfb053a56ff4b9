//! A client of another make, and what it leaves on the servers.

use cache_kit_test_support::{Libmemcached, LibmemcachedDistribution, MemcachedServer};

const BOTH: [LibmemcachedDistribution; 2] =
    [LibmemcachedDistribution::KetamaWeighted, LibmemcachedDistribution::Ketama];

fn three() -> [MemcachedServer; 3] {
    std::array::from_fn(|_| MemcachedServer::start())
}

#[test]
fn what_it_stores_is_on_one_of_the_servers_and_comes_back() {
    for distribution in BOTH {
        let servers = three();
        let mut client = Libmemcached::start(&servers.each_ref().map(|server| server.addr()), distribution);
        for number in 0..100 {
            let (key, value) = (format!("key:{number}"), format!("value {number}\r\n\0").into_bytes());
            assert_eq!(client.get(&key), None);
            client.set(&key, &value);
            assert_eq!(client.get(&key), Some(value));
        }
        let items = servers.each_ref().map(|server| server.stat("curr_items"));
        assert_eq!(items.iter().sum::<u64>(), 100);
        assert!(items.iter().all(|items| *items > 0), "{items:?}");
        for number in 0..100 {
            assert!(client.delete(&format!("key:{number}")));
        }
        assert!(!client.delete("key:0"));
        assert!(servers.iter().all(|server| server.stat("curr_items") == 0));
    }
}

#[test]
fn values_of_others_come_as_they_are_stored_whatever_their_flags() {
    let server = MemcachedServer::start();
    let mut client = Libmemcached::start(&[server.addr()], LibmemcachedDistribution::KetamaWeighted);
    // Among them those that pylibmc gives to pickles, numbers and text.
    for flags in [0, 1, 2, 4, 16, 32, u32::MAX - 8] {
        assert_eq!(server.command(&format!("set k {flags} 0 2\r\n\u{1}x")), "STORED");
        assert_eq!(client.get("k"), Some(b"\x01x".to_vec()), "{flags}");
    }
    client.set("k", b"");
    assert_eq!(server.command("get k"), "VALUE k 0 0\r\n\r\nEND");
}

#[test]
fn weights_and_unix_sockets_are_understood() {
    let filled = |servers: &[MemcachedServer; 2], names: &[String; 2]| {
        let mut client = Libmemcached::start(names, LibmemcachedDistribution::KetamaWeighted);
        (0..100).for_each(|number| client.set(&format!("key:{number}"), b"v"));
        servers.each_ref().map(|server| server.stat("curr_items"))
    };
    let servers = [MemcachedServer::start(), MemcachedServer::start()];
    let items = filled(&servers, &[format!("{}:9", servers[0].addr()), servers[1].addr()]);
    assert!(items[0] + items[1] == 100 && items[0] > items[1], "{items:?}");

    let servers = [(), ()].map(|()| MemcachedServer::builder().unix_socket().start());
    let items = filled(&servers, &servers.each_ref().map(MemcachedServer::addr));
    assert!(items[0] + items[1] == 100 && items.iter().all(|items| *items > 0), "{items:?}");
}
