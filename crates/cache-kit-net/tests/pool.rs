//! The connections to one server: few, shared, bounded, kept, and replaced.

#![allow(clippy::unwrap_used, clippy::allow_attributes, reason = "a test that cannot go on fails")]

mod toy;

use std::future::Future;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use cache_kit_net::{Connection, Connector, DialFailure, Limits, Permit, Pool, Report, Unavailable};
use toy::{Server, ToServer, ask, until};

fn limits(least: usize, most: usize) -> Limits {
    Limits {
        most,
        least,
        dial: Duration::from_secs(5),
        second_from: 64,
        one_more_per: 64,
        sign_of_life: Duration::from_secs(1),
    }
}

fn pool(server: &Server, limits: Limits) -> Arc<Pool<ToServer>> {
    Arc::new(Pool::new(ToServer(server.address()), limits))
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn callers_share_one_connection_until_its_queue_is_long_and_never_more_than_the_pool_holds() {
    let server = Server::echo();
    let pool = pool(&server, limits(0, 3));
    for n in 0..100 {
        let conn = pool.connection(soon()).await.unwrap();
        assert_eq!(ask(&conn, &n.to_string()).await.unwrap(), n.to_string());
    }
    assert_eq!(server.counts().2, 1);
    let callers: Vec<_> = (0..2_000)
        .map(|n| {
            let pool = Arc::clone(&pool);
            tokio::spawn(async move {
                let conn = pool.connection(soon()).await.unwrap();
                assert_eq!(ask(&conn, &n.to_string()).await.unwrap(), n.to_string());
            })
        })
        .collect();
    for caller in callers {
        caller.await.unwrap();
    }
    let (_, most, _) = server.counts();
    assert!((2..=3).contains(&most), "{most}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_least_number_of_connections_is_kept_open_and_opened_again_without_traffic() {
    let server = Server::echo();
    let pool = pool(&server, limits(3, 5));
    assert_eq!(server.counts().2, 0, "nothing before the first use");
    pool.connection(soon()).await.unwrap();
    until("three connections", || pool.connections() == 3 && server.counts().0 == 3).await;
    for round in 1..=5 {
        server.cut();
        until("three connections again", || {
            pool.connections() == 3 && server.counts().0 == 3 && server.counts().2 == 3 * (round + 1)
        })
        .await;
    }
    // All but one stand ready; used is the first.
    let used: Vec<_> = (0..10).map(|_| pool.connection(soon())).collect();
    let mut ids = Vec::new();
    for conn in used {
        ids.push(conn.await.unwrap().id());
    }
    ids.dedup();
    assert_eq!(ids.len(), 1);
    drop(pool);
    until("no connection", || server.counts().0 == 0).await;
}

#[tokio::test]
async fn a_dial_outlives_the_caller_that_asked_for_it() {
    let server = Server::echo();
    let pool = pool(&server, limits(0, 1));
    {
        let mut asks = Box::pin(pool.connection(soon()));
        assert!(asks.as_mut().poll(&mut Context::from_waker(Waker::noop())).is_pending());
    }
    until("a connection", || pool.connections() == 1).await;
}

#[tokio::test]
async fn a_server_that_is_not_there_costs_one_dial_and_then_nothing_until_it_is_looked_for() {
    let gone = Server::echo();
    let address = {
        // A port that was free a moment ago.
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        cache_kit_net::Address::Tcp {
            host: "127.0.0.1".to_owned(),
            port: listener.local_addr().unwrap().port(),
        }
    };
    drop(gone);
    let pool = Arc::new(Pool::new(ToServer(address), limits(1, 2)));
    let first = pool.connection(soon()).await.unwrap_err();
    assert!(
        matches!(&first, Unavailable::Dial(DialFailure::Failed(why)) if why.contains("refused")),
        "{first:?}"
    );
    assert!(pool.is_down());
    let began = Instant::now();
    for _ in 0..1_000 {
        let error = pool.connection(soon()).await.unwrap_err();
        assert!(matches!(error, Unavailable::Down(_)), "{error:?}");
    }
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
}

#[tokio::test]
async fn a_connection_that_is_lost_or_silent_is_replaced() {
    let server = Server::echo();
    let pool = pool(&server, limits(0, 2));
    let first = pool.connection(soon()).await.unwrap();
    pool.report(&first, Report::Lost);
    assert!(first.is_closed());
    let second = pool.connection(soon()).await.unwrap();
    assert_ne!(first.id(), second.id());
    pool.report(&second, Report::Answered);
    pool.report(&second, Report::Silent);
    assert!(!second.is_closed(), "once may be chance");
    pool.report(&second, Report::Silent);
    assert!(second.is_closed());
}

/// Connections that never answer and say whether they were closed before their connector knew that it had lost touch.
#[derive(Default)]
struct Mute {
    has_lost_touch: Arc<AtomicBool>,
    dialed: AtomicUsize,
}

struct MuteConn {
    has_lost_touch: Arc<AtomicBool>,
    closed_after: OnceLock<bool>,
    _permit: Permit,
}

impl Connector for Mute {
    type Conn = MuteConn;
    type Error = String;

    async fn dial(&self, permit: Permit) -> Result<MuteConn, String> {
        if self.dialed.fetch_add(1, Ordering::Relaxed) > 0 {
            return std::future::pending().await;
        }
        let has_lost_touch = Arc::clone(&self.has_lost_touch);
        Ok(MuteConn { has_lost_touch, closed_after: OnceLock::new(), _permit: permit })
    }

    fn lost_touch(&self) {
        self.has_lost_touch.store(true, Ordering::SeqCst);
    }
}

impl Connection for MuteConn {
    fn in_flight(&self) -> usize {
        0
    }

    fn is_closed(&self) -> bool {
        self.closed_after.get().is_some()
    }

    fn close(&self) {
        let _first = self.closed_after.set(self.has_lost_touch.load(Ordering::SeqCst));
    }

    fn silent(&self) -> bool {
        false
    }

    fn was_heard(&self) -> bool {
        false
    }

    async fn ping(&self) -> bool {
        std::future::pending().await
    }
}

/// A caller whose call fails with the last connection may find the server again at once, and believe what it holds.
#[tokio::test]
async fn that_touch_was_lost_is_known_before_the_calls_over_the_last_connection_fail() {
    let limits = Limits { sign_of_life: Duration::from_millis(1), ..limits(0, 2) };
    let pool = Arc::new(Pool::new(Mute::default(), limits));
    let conn = pool.connection(soon()).await.unwrap();
    until("the connection is given up", || conn.is_closed()).await;
    assert_eq!(conn.closed_after.get(), Some(&true));
}

#[tokio::test]
async fn all_connections_are_dropped_when_told_so_but_not_time_and_again() {
    let server = Server::echo();
    let pool = pool(&server, limits(0, 2));
    let first = pool.connection(soon()).await.unwrap();
    pool.drop_all();
    assert!(first.is_closed());
    let second = pool.connection(soon()).await.unwrap();
    pool.drop_all();
    assert!(!second.is_closed());
}

#[test]
fn without_a_runtime_there_is_an_error_and_no_panic() {
    let server = Server::echo();
    let pool = pool(&server, limits(1, 2));
    let mut asks = Box::pin(pool.connection(soon()));
    let polled = asks.as_mut().poll(&mut Context::from_waker(Waker::noop()));
    assert!(matches!(polled, std::task::Poll::Ready(Err(Unavailable::NoRuntime))));
}
