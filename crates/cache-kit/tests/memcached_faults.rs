//! Whatever the network between us and Memcached does: never a wrong value, never a hang, and well again afterwards.

#![cfg(feature = "memcached")]

mod common;

use std::time::Duration;

use cache_kit::Cache;
use cache_kit::backend::{MemcachedBackend, MemcachedConfig};
use cache_kit_test_support::{FaultProxy, MemcachedServer};
use common::network;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_network_does_no_value_is_wrong_and_nothing_hangs() {
    let server = MemcachedServer::start();
    let proxy = FaultProxy::start(server.addr());
    let deadline = Duration::from_millis(200);
    let config = MemcachedConfig { servers: vec![proxy.addr()], max_connections: 2, min_connections: 0 };
    let backend = MemcachedBackend::builder(config)
        .operation_timeout(deadline)
        .connection_timeout(Duration::from_millis(300))
        .build()
        .unwrap();
    // Through the engine, whose entries tell whose they are. Stored beside the proxy, so that they are never doubted for
    // an outage that this backend saw: it could not tell a wrong value from a miss then.
    let config = MemcachedConfig { servers: vec![server.addr()], max_connections: 2, min_connections: 0 };
    let (cache, direct) = (Cache::new(backend), Cache::new(MemcachedBackend::new(config).unwrap()));
    let injected: [&[u8]; 3] =
        [b"EN\r\n", b"VA 5 f256\r\nwrong\r\n", b"VALUE key:1 256 5\r\nwrong\r\nEND\r\n"];
    // What is written now is found; what was there before may be doubted for the outage.
    let is_well = async || {
        cache.set("well", &1_u64).await.is_ok() && matches!(cache.get::<u64>("well").await, Ok(Some(1)))
    };
    network::no_value_is_wrong_and_nothing_hangs(&proxy, (&cache, deadline), &direct, &injected, is_well)
        .await;
}
