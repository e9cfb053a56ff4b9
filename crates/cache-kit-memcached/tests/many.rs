//! Meta commands on many keys: one answer for each, in order.

mod common;

use cache_kit_memcached::protocol::{SetOptions, Status};
use cache_kit_memcached::{ConnectionId, ErrorKind, SetOver};
use cache_kit_test_support::MemcachedServer;
use common::{getting, patient, seconds, setting};

#[tokio::test]
async fn each_of_many_keys_has_its_own_answer() {
    let server = MemcachedServer::start();
    let client = patient([server.addr()]).build().unwrap();
    let long = [b'k'; 300];
    let keys: [&[u8]; 5] = [b"plain", b"with a space", &long, b"absent", b"plain"];
    for key in &keys[..3] {
        assert!(client.set(key, key, SetOptions::default()).await.unwrap());
    }
    let options = getting(|options| (options.value, options.cas) = (true, true));
    let found = client.meta_get_many(0, &keys, options).await;
    let found: Vec<_> = found.into_iter().map(Result::unwrap).collect();
    for (key, answer) in keys.iter().zip(&found) {
        let value = (*key != b"absent").then_some(*key);
        assert_eq!(answer.reply.value.as_deref(), value);
        assert_eq!(answer.connection, found[0].connection);
    }
    let making = getting(|options| (options.value, options.vivify) = (true, Some(seconds(60))));
    let made = client.meta_get_many(0, &[b"new", b"new"], making).await;
    let won: Vec<bool> = made.into_iter().map(|answer| answer.unwrap().reply.won).collect();
    assert_eq!(won, [true, false]);
    assert!(client.meta_get_many(0, &[], options).await.is_empty());
}

#[tokio::test]
async fn each_of_many_values_is_stored_over_its_connection_or_not() {
    let server = MemcachedServer::start();
    let client = patient([server.addr()]).build().unwrap();
    let found = client.meta_get(b"any", getting(|options| options.value = true)).await.unwrap();
    let large = vec![0; 2 << 20];
    let other = setting(|options| options.compare_cas = Some(u64::MAX));
    assert!(client.set(b"is there", b"", SetOptions::default()).await.unwrap());
    let sets = [
        (found.connection, &b"with a space"[..], &b"value"[..], SetOptions::default()),
        (found.connection, b"is there", b"value", other),
        (found.connection, b"large", &large, SetOptions::default()),
        (ConnectionId::new(u64::MAX), b"no connection", b"value", SetOptions::default()),
    ];
    let sets = sets.map(|(connection, key, value, options)| SetOver { connection, key, value, options });
    let stored = client.meta_set_many_over(&sets).await;
    let status = |at: usize| stored[at].as_ref().unwrap().as_ref().map(|answer| answer.reply.status);
    assert_eq!((status(0), status(1), status(3)), (Some(Status::Header), Some(Status::Exists), None));
    assert_eq!(stored[2].as_ref().unwrap_err().kind(), ErrorKind::TooLarge);
    assert_eq!(client.get(b"with a space").await.unwrap().unwrap().data, &b"value"[..]);
    assert!(!format!("{:?}", sets[0]).contains("space"));
    assert!(client.meta_set_many_over(&[]).await.is_empty());
}
