//! The cache server goes away in the middle, and comes back: no read fails, and nothing old is ever read.

use std::sync::atomic::{AtomicBool, AtomicI64, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use cache_kit_test_support::{Kind, MemcachedServer, RedisServer, Server};
use serde_json::json;

use super::support::{App, Reply, until};

/// For a read, whatever the cache server does: deadlines of its operations, and room for a busy machine.
const READ: Duration = Duration::from_secs(3);
/// For an update, which has several.
const UPDATE: Duration = Duration::from_secs(8);

#[test]
fn redis_goes_and_comes_back() {
    goes_and_comes_back(&RedisServer::start());
}

#[test]
fn memcached_goes_and_comes_back() {
    goes_and_comes_back(&MemcachedServer::start());
}

/// What the readers share with who writes.
#[derive(Default)]
struct Shared {
    /// The price that was committed last.
    committed: AtomicI64,
    reads: AtomicU64,
    slowest_micros: AtomicU64,
    end: AtomicBool,
}

fn goes_and_comes_back<K: Kind>(server: &Server<K>) {
    let app = App::start(&[("CACHE_URL", &server.url())]);
    let shared = Shared::default();
    let price = app.get("/products/1").good()["price_cents"].as_i64().unwrap();
    shared.committed.store(price, Ordering::SeqCst);
    thread::scope(|scope| {
        let ended = End(&shared.end);
        for _ in 0..3 {
            scope.spawn(|| read_on(&app, &shared));
        }
        hits_grow(&app);
        assert_eq!(update(&app, &shared).header("cache-invalidation"), Some("confirmed"));

        // Killed, and back with nothing.
        server.kill();
        until("the cache is reported as down", || app.get("/readyz").good()["degraded"] == true);
        for _ in 0..3 {
            assert_eq!(update(&app, &shared).header("cache-invalidation"), Some("queued"));
        }
        reads_grow(&shared);
        assert_eq!(app.get("/healthz").status, 200);
        server.restart();
        comes_back(&app);
        assert_eq!(update(&app, &shared).header("cache-invalidation"), Some("confirmed"));

        // Silent, and back with all that it had: the old value of what was updated meanwhile, too.
        hits_grow(&app);
        server.pause();
        for _ in 0..2 {
            assert_eq!(update(&app, &shared).header("cache-invalidation"), Some("queued"));
        }
        reads_grow(&shared);
        server.resume();
        comes_back(&app);
        reads_grow(&shared);
        drop(ended);
    });
    let slowest = Duration::from_micros(shared.slowest_micros.into_inner());
    assert!(slowest < READ, "{slowest:?}");
}

/// Reads one product again and again: a read that begins after an update was answered gives no older price.
fn read_on(app: &App, shared: &Shared) {
    while !shared.end.load(Ordering::SeqCst) {
        let (least, begun) = (shared.committed.load(Ordering::SeqCst), Instant::now());
        let price = app.get("/products/1").good()["price_cents"].as_i64().unwrap();
        let took = u64::try_from(begun.elapsed().as_micros()).unwrap();
        shared.slowest_micros.fetch_max(took, Ordering::SeqCst);
        assert!(price >= least, "{price} after {least}");
        shared.reads.fetch_add(1, Ordering::SeqCst);
    }
}

fn update(app: &App, shared: &Shared) -> Reply {
    let price = shared.committed.load(Ordering::SeqCst) + 1;
    let body = json!({"name": "ash pouch", "category": "bags", "price_cents": price});
    let begun = Instant::now();
    let reply = app.send("PUT", "/products/1", &body);
    assert_eq!(reply.good()["price_cents"], price);
    assert!(begun.elapsed() < UPDATE, "{:?}", begun.elapsed());
    shared.committed.store(price, Ordering::SeqCst);
    reply
}

fn comes_back(app: &App) {
    until("the cache is reported as up", || app.get("/readyz").good()["degraded"] == false);
    until("all invalidations are confirmed", || app.metric("cache_kit_pending_invalidations") == 0);
    hits_grow(app);
}

fn hits_grow(app: &App) {
    let hits = || app.metric("cache_kit_hits_total");
    let before = hits();
    until("hits", || hits() > before + 10);
}

fn reads_grow(shared: &Shared) {
    let before = shared.reads.load(Ordering::SeqCst);
    until("reads", || shared.reads.load(Ordering::SeqCst) > before + 30);
}

/// Ends the readers even if the test panics.
struct End<'a>(&'a AtomicBool);

impl Drop for End<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::SeqCst);
    }
}
