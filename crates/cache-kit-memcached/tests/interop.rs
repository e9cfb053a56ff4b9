//! What a real libmemcached stores, this client finds, and the other way round, over three servers.

#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test that cannot go on fails")]

use cache_kit_memcached::Client;
use cache_kit_memcached::protocol::SetOptions;
use cache_kit_memcached::ring::Distribution;
use cache_kit_test_support::{Libmemcached, LibmemcachedDistribution, MemcachedServer};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_one_client_stores_the_other_finds() {
    for (theirs, ours) in [
        (LibmemcachedDistribution::KetamaWeighted, Distribution::KetamaWeighted),
        (LibmemcachedDistribution::Ketama, Distribution::Ketama),
    ] {
        let servers = [(); 3].map(|()| MemcachedServer::start());
        let addresses: Vec<String> = servers.iter().map(MemcachedServer::addr).collect();
        let mut python = Libmemcached::start(&addresses, theirs);
        let client = Client::builder().servers(&addresses).unwrap().distribution(ours).build().unwrap();
        for n in 0..300 {
            let (a, b) = (format!("theirs:{n}"), format!("ours:{n}"));
            python.set(&a, format!("value of {a}").as_bytes());
            client
                .set(b.as_bytes(), format!("value of {b}").as_bytes(), SetOptions::default())
                .await
                .unwrap();
        }
        for n in 0..300 {
            let (a, b) = (format!("theirs:{n}"), format!("ours:{n}"));
            let found = client.get(a.as_bytes()).await.unwrap().unwrap();
            assert_eq!(found.data, format!("value of {a}").as_bytes());
            assert_eq!(python.get(&b).unwrap(), format!("value of {b}").as_bytes());
        }
        let used: Vec<u64> = servers.iter().map(|server| server.stat("curr_items")).collect();
        println!("{ours:?}: {used:?}");
        assert!(used.iter().all(|&items| items > 60), "{used:?}");
        // And what one removes is gone for the other.
        assert!(client.delete(b"theirs:1").await.unwrap());
        assert_eq!(python.get("theirs:1"), None);
        assert!(python.delete("ours:1"));
        assert!(client.get(b"ours:1").await.unwrap().is_none());
    }
}
