//! Keys of every form and values of every size that a server takes.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use cache_kit_memcached::protocol::{SetMode, SetOptions};
use cache_kit_memcached::{Client, ErrorKind, WireKey};
use cache_kit_test_support::MemcachedServer;
use common::{getting, patient, setting};

/// What an item takes beside its key and its value.
const OVERHEAD: usize = 64;

fn start(server: &MemcachedServer) -> Client {
    patient([server.addr()]).build().unwrap()
}

async fn put(client: &Client, key: &[u8], value: &[u8]) {
    assert!(client.set(key, value, SetOptions::default()).await.unwrap());
}

/// Both ways to read, which the server is asked for with different commands.
async fn read(client: &Client, key: &[u8]) -> Option<Vec<u8>> {
    let one = client.get(key).await.unwrap();
    let among_many = client.get_many(&[key]).await.remove(0).unwrap();
    assert_eq!(one, among_many);
    one.map(|value| value.data.to_vec())
}

#[tokio::test]
async fn any_bytes_are_a_key_of_their_own() {
    let server = MemcachedServer::start();
    let client = start(&server);
    let mut keys: Vec<Vec<u8>> = [
        &b""[..],
        b" ",
        b"  ",
        b"a b",
        b"a\0",
        b"a\0b",
        b"\r\n",
        b"a\r\nb",
        b"a\n",
        b"\xff\xfe",
        b"\xffa b\xff",
        "schlüssel".as_bytes(),
        b"%#",
        b"%#auth",
        b"YSBi",
        b"a\x7f",
    ]
    .map(<[u8]>::to_vec)
    .into();
    for length in [1, 185, 186, 187, 188, 249, 250, 251, 252, 1_000, 100_000] {
        keys.push(vec![b'x'; length]);
        keys.push([vec![b' '], vec![b'x'; length - 1]].concat());
        keys.push([vec![b'x'; length - 1], vec![0xff]].concat());
    }
    // The form of a long key is no other key's.
    let digest = WireKey::new(&[b'x'; 251]).as_bytes().to_vec();
    keys.push(digest);
    for key in &keys {
        put(&client, key, &[b"value of ", &key[..]].concat()).await;
    }
    let distinct: std::collections::HashSet<_> = keys.iter().collect();
    assert_eq!(server.stat("curr_items"), distinct.len() as u64);
    for key in &keys {
        assert_eq!(read(&client, key).await.unwrap(), [b"value of ", &key[..]].concat());
    }
    for key in distinct {
        assert!(client.delete(key).await.unwrap());
        assert_eq!(read(&client, key).await, None);
    }
    assert_eq!(server.stat("curr_items"), 0);
}

#[tokio::test]
async fn what_is_stored_under_one_form_of_a_key_is_found_under_the_other() {
    let server = MemcachedServer::start();
    let client = start(&server);
    // Others may send any key in base64; the server stores the key that is meant.
    assert_eq!(server.command("ms YWJj 6 b\r\ntheirs"), "HD");
    assert_eq!(read(&client, b"abc").await.unwrap(), b"theirs");
    put(&client, b"abc", b"ours").await;
    assert_eq!(server.command("mg YWJj b v"), "VA 4\r\nours");
    // What has to be base64 is the key itself for who reads it so.
    put(&client, b"a b", b"ours").await;
    assert_eq!(server.command("mg YSBi b v"), "VA 4\r\nours");
    assert_eq!(server.command("get YSBi"), "END", "not the text that it was sent as");
    // A long key is its digest for everybody else.
    let long = [b'x'; 300];
    put(&client, &long, b"ours").await;
    let digest = String::from_utf8(WireKey::new(&long).as_bytes().to_vec()).unwrap();
    assert!(server.command(&format!("get {digest}")).contains("ours"));
    // Created by the server itself, under a key in base64.
    let vivify = getting(|o| (o.vivify, o.value) = (Some(common::seconds(60)), true));
    assert!(client.meta_get(b"c d", vivify).await.unwrap().reply.won);
    put(&client, b"c d", b"filled").await;
    assert_eq!(read(&client, b"c d").await.unwrap(), b"filled");
    assert_eq!(server.command("mg YyBk b v"), "VA 6\r\nfilled");
}

#[tokio::test]
async fn up_to_the_servers_limit_a_value_is_stored_and_above_it_nothing_is_sent() {
    for (option, limit) in [("512k", 512 << 10), ("1m", 1 << 20), ("2m", 2 << 20)] {
        let server = MemcachedServer::builder().max_item_size(option).start();
        let client = start(&server);
        for key in [&b"key"[..], b"a key", &[b'x'; 300]] {
            let most = limit - OVERHEAD - WireKey::new(key).as_bytes().len();
            let value: Vec<u8> = (0..most + 1).map(|n| (n % 251) as u8).collect();
            put(&client, key, &value[..most]).await;
            assert!(read(&client, key).await.unwrap() == value[..most], "{option}: changed on its way");
            let before = (server.stat("cmd_set"), server.stat("bytes"));
            for above in [&value[..], &vec![0; limit], &vec![0; 3 * limit]] {
                let error = client.set(key, above, SetOptions::default()).await.unwrap_err();
                assert_eq!(error.kind(), ErrorKind::TooLarge, "{option}: {error:?}");
                assert!(error.hint().contains("-I") && !error.is_transient(), "{error}");
            }
            assert_eq!(
                (server.stat("cmd_set"), server.stat("bytes")),
                before,
                "{option}: something was sent"
            );
            assert!(read(&client, key).await.unwrap() == value[..most], "{option}: what was there is gone");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn values_of_one_and_a_half_megabytes_pass_where_the_server_takes_them() {
    let usual = MemcachedServer::start();
    let large = MemcachedServer::builder().max_item_size("2m").memory_megabytes(256).start();
    let value = |n: u8| -> Vec<u8> { (0..1_500_000_usize).map(|at| (at % 251) as u8 ^ n).collect() };
    let error = start(&usual).set(b"key:0", &value(0), SetOptions::default()).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TooLarge);
    let client = start(&large);
    let keys: Vec<String> = (0..8).map(|n| format!("key:{n}")).collect();
    let stored = keys.iter().zip(0..).map(|(key, n)| {
        let client = client.clone();
        async move { put(&client, key.as_bytes(), &value(n)).await }
    });
    futures_util::future::join_all(stored).await;
    let bytes: Vec<&[u8]> = keys.iter().map(String::as_bytes).collect();
    for (n, found) in (0..).zip(client.get_many(&bytes).await) {
        assert!(found.unwrap().unwrap().data == value(n), "key:{n}");
    }
    for (n, key) in (0..).zip(&bytes) {
        assert!(client.get(key).await.unwrap().unwrap().data == value(n), "key:{n}");
    }
}

#[tokio::test]
async fn what_would_grow_beyond_the_limit_is_not_stored_and_what_was_there_stays() {
    let server = MemcachedServer::start();
    let client = start(&server);
    let old = vec![b'x'; 1_000_000];
    put(&client, b"key", &old).await;
    let connection = client.meta_get(b"key", getting(|_| {})).await.unwrap().connection;
    for mode in [SetMode::Append, SetMode::Prepend] {
        let grown = client.set(b"key", &[b'y'; 100_000], setting(|o| o.mode = mode)).await;
        assert!(!grown.unwrap(), "{mode:?}");
        assert!(read(&client, b"key").await.unwrap() == old, "{mode:?}");
    }
    assert_eq!(client.meta_get(b"key", getting(|_| {})).await.unwrap().connection, connection);
}
