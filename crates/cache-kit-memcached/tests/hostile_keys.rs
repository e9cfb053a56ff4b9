//! Whatever the bytes of a key are, the server is asked exactly what was meant.

#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test that cannot go on fails")]

use cache_kit_memcached::Client;
use cache_kit_memcached::protocol::SetOptions;
use cache_kit_test_support::MemcachedServer;

const ROUNDS: u64 = 4_000;

/// Bytes that mean something to the protocol, and some that do not, of lengths around the limits.
fn any_key(random: &mut fastrand::Rng) -> Vec<u8> {
    let pieces: [&[u8]; 12] = [
        b"\r\n",
        b"\n",
        b" ",
        b"\0",
        b"\r\nflush_all\r\n",
        b"\r\nset sentinel 0 0 5\r\nwrong\r\n",
        b"\r\nmd sentinel\r\n",
        b" b",
        b"%#",
        b"user:",
        b"\xff\xfe",
        b"\x7f",
    ];
    let length = match random.u32(..4) {
        0 => random.usize(180..260),
        1 => random.usize(..2_000),
        _ => random.usize(..40),
    };
    let mut key = Vec::new();
    while key.len() < length {
        match random.u32(..3) {
            0 => key.push(random.u8(..)),
            1 => key.push(random.u8(b'a'..=b'z')),
            _ => key.extend_from_slice(pieces[random.usize(..pieces.len())]),
        }
    }
    key
}

#[tokio::test]
async fn no_key_becomes_a_command_and_each_finds_its_own_value() {
    let seed =
        std::env::var("CACHE_KIT_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(fastrand::u64(..));
    println!("CACHE_KIT_SEED={seed}");
    let mut random = fastrand::Rng::with_seed(seed);
    let server = MemcachedServer::start();
    let client = Client::builder().servers([server.addr()]).unwrap().build().unwrap();
    client.set(b"sentinel", b"untouched", SetOptions::default()).await.unwrap();

    let (mut sets, mut hits, mut deletes) = (1, 0, 0);
    for n in 0..ROUNDS {
        let (key, value) = (any_key(&mut random), n.to_string());
        if key == b"sentinel" {
            continue;
        }
        assert!(client.set(&key, value.as_bytes(), SetOptions::default()).await.unwrap());
        assert_eq!(client.get(&key).await.unwrap().unwrap().data, value.as_bytes());
        let found = client.get_many(&[&key[..], b"sentinel", &key[..]]).await;
        let found: Vec<_> = found.into_iter().map(|found| found.unwrap().unwrap().data).collect();
        assert_eq!(found, [value.as_bytes(), b"untouched", value.as_bytes()]);
        (sets, hits) = (sets + 1, hits + 4);
        if random.bool() {
            assert!(client.delete(&key).await.unwrap());
            assert!(client.get(&key).await.unwrap().is_none());
            deletes += 1;
        }
    }
    assert_eq!(client.get(b"sentinel").await.unwrap().unwrap().data, &b"untouched"[..]);
    // As the server counts: nothing was run that was not asked for.
    assert_eq!(server.stat("cmd_set"), sets);
    assert_eq!(server.stat("get_hits"), hits + 1);
    assert_eq!(server.stat("get_misses"), deletes);
    assert_eq!((server.stat("delete_hits"), server.stat("delete_misses")), (deletes, 0));
    assert_eq!((server.stat("cmd_flush"), server.stat("cmd_touch")), (0, 0));
    assert_eq!((server.stat("incr_hits"), server.stat("incr_misses")), (0, 0));
    println!("{sets} sets, {hits} hits, {deletes} deletes");
}
