//! A Redis server that dies, hangs, refuses or forgets: reads go on, in time, and the cache is used again as soon
//! as it can be. Bounds are five times what is aimed at, for machines that are busy with something else.

#![cfg(feature = "redis")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::print_stdout, reason = "what was measured, for `--nocapture`")]

mod common;

use std::time::{Duration, Instant};

use bytes::Bytes;
use cache_kit::backend::{CacheBackend, Fence, RedisBackend, RedisConfig};
use cache_kit::testing::Gate;
use cache_kit::{CacheExpander, CacheStrategy, ErrorKind, GenericFeeder, OperationConfig, Source, Stored};
use cache_kit_test_support::{RedisServer, SilentServer, UnansweredPort};
use common::{User, Users, bounded};

const DEADLINE: Duration = Duration::from_millis(400);

fn config(port: u16) -> RedisConfig {
    RedisConfig { host: "127.0.0.1".into(), port, pool_size: 4, ..RedisConfig::default() }
}

fn backend(port: u16) -> RedisBackend {
    RedisBackend::builder(config(port)).operation_timeout(DEADLINE).build().unwrap()
}

/// Asks until the cache answers, and tells how long that took.
async fn until_used_again(backend: &RedisBackend, what: &str) -> Duration {
    let began = Instant::now();
    loop {
        if backend.get("any").await.is_ok() {
            let took = began.elapsed();
            println!("{what}: used again after {took:?}");
            return took;
        }
        assert!(began.elapsed() < Duration::from_secs(15), "{what}: not used again");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

/// Reads through the cache: the source must answer each time. The longest of many reads.
async fn reads_go_on(expander: &CacheExpander<RedisBackend>, users: &Users) -> Vec<Duration> {
    let mut took = Vec::new();
    for _ in 0..100 {
        let began = Instant::now();
        let found = expander.get::<User, _>(&1, users).await.unwrap();
        assert_eq!(found.unwrap().name, "one");
        took.push(began.elapsed());
    }
    took.sort_unstable();
    took
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_kill_9_reads_go_on_cost_little_and_the_server_is_used_again_when_it_is_back() {
    let server = RedisServer::start();
    let backend = backend(server.port());
    let expander = CacheExpander::new(backend.clone());
    let users = Users::with(&[(1, "one")]);
    reads_go_on(&expander, &users).await;
    assert_eq!(users.asked(), 1);
    server.kill();
    let took = reads_go_on(&expander, &users).await;
    println!("server killed: median {:?}, longest {:?}", took[50], took[99]);
    assert!(
        took[50] < Duration::from_millis(5),
        "once the breaker is open a call costs microseconds: {took:?}"
    );
    assert!(took[99] < 5 * DEADLINE, "{took:?}");
    server.restart();
    let again = until_used_again(&backend, "restarted").await;
    assert!(again < Duration::from_millis(2_500), "{again:?}");
    // It came back empty.
    let asked = users.asked();
    reads_go_on(&expander, &users).await;
    assert_eq!(users.asked(), asked + 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stands_still_is_an_error_at_the_deadline_and_used_when_it_moves() {
    let server = RedisServer::start();
    let backend = backend(server.port());
    let expander = CacheExpander::new(backend.clone());
    let users = Users::with(&[(1, "one")]);
    reads_go_on(&expander, &users).await;
    server.pause();
    let began = Instant::now();
    let error = backend.get("k").await.unwrap_err();
    let took = began.elapsed();
    println!("standing still: {} after {took:?}", error.kind());
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(took >= DEADLINE && took < 5 * DEADLINE, "{took:?}");
    let took = reads_go_on(&expander, &users).await;
    assert!(took[50] < Duration::from_millis(5) && took[99] < 5 * DEADLINE, "{took:?}");
    server.resume();
    let again = until_used_again(&backend, "moving again").await;
    assert!(again < Duration::from_millis(2_500), "{again:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_starts_while_its_cache_is_down() {
    let server = RedisServer::start();
    server.kill();
    let backend = backend(server.port());
    let expander = CacheExpander::new(backend.clone());
    let users = Users::with(&[(1, "one")]);
    let took = reads_go_on(&expander, &users).await;
    assert!(took[99] < 5 * DEADLINE, "{took:?}");
    let error = backend.connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(format!("{error:#}").contains("refused"), "{error:#}");
    server.restart();
    until_used_again(&backend, "started").await;
    backend.connect().await.unwrap();
}

#[tokio::test]
async fn with_the_cache_down_the_strategies_do_what_they_promise() {
    let server = RedisServer::start();
    server.kill();
    let expander = CacheExpander::new(backend(server.port()));
    let users = Users::with(&[(1, "one")]);
    for strategy in [CacheStrategy::Refresh, CacheStrategy::Invalidate, CacheStrategy::Bypass] {
        let mut feeder = GenericFeeder::<User>::new(1);
        let config = OperationConfig::default();
        let outcome = expander.with_outcome(&mut feeder, &users, strategy, config).await.unwrap();
        assert_eq!((feeder.data.unwrap().name.as_str(), outcome.source), ("one", Source::Load));
        assert_eq!(outcome.is_degraded(), strategy != CacheStrategy::Bypass);
        assert_ne!(outcome.stored, Stored::Yes);
    }
    let mut feeder = GenericFeeder::<User>::new(1);
    let error = expander.with(&mut feeder, &users, CacheStrategy::Fresh).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(expander.invalidate::<User>(&1).await.is_err(), "an invalidation that cannot be kept is no Ok");
}

#[tokio::test]
async fn a_server_that_accepts_and_never_answers_is_an_error_in_time() {
    let silent = SilentServer::start();
    let backend = RedisBackend::builder(RedisConfig {
        connection_timeout: Duration::from_millis(400),
        ..config(silent.port())
    })
    .operation_timeout(DEADLINE)
    .build()
    .unwrap();
    let began = Instant::now();
    assert_eq!(backend.get("k").await.unwrap_err().kind(), ErrorKind::Timeout);
    assert!(began.elapsed() < 5 * DEADLINE);
    let began = Instant::now();
    let error = backend.connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    // The dials themselves are bounded, not only the wait for them.
    let began = Instant::now();
    while silent.connections() > 0 {
        assert!(began.elapsed() < Duration::from_secs(2), "a dial goes on");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_connect_that_is_never_answered_is_bounded_by_connection_timeout() {
    let port = UnansweredPort::new();
    let config = RedisConfig { connection_timeout: Duration::from_millis(300), ..config(port.port()) };
    let backend = RedisBackend::new(config).unwrap();
    let began = Instant::now();
    let error = backend.connect().await.unwrap_err();
    let took = began.elapsed();
    println!("never answered: {error} after {took:?}");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("connection_timeout"), "{error}");
    assert!(took >= Duration::from_millis(300) && took < Duration::from_millis(1_500), "{took:?}");
}

#[tokio::test]
async fn a_host_that_does_not_exist_is_named_as_the_problem() {
    let config = RedisConfig { host: "no-such-host.invalid".into(), ..RedisConfig::default() };
    let error = RedisBackend::new(config).unwrap().connect().await.unwrap_err();
    assert!(error.to_string().contains("host"), "{error}");
}

#[tokio::test]
async fn credentials_are_named_as_the_problem_and_never_printed() {
    let server = RedisServer::builder().password("sésame@:/#%?").start();
    let with = |username: Option<&str>, password: Option<&str>| {
        RedisBackend::new(RedisConfig {
            username: username.map(str::to_owned),
            password: password.map(str::to_owned),
            ..config(server.port())
        })
        .unwrap()
    };
    with(None, Some("sésame@:/#%?")).connect().await.unwrap();
    with(Some("default"), Some("sésame@:/#%?")).connect().await.unwrap();
    for wrong in [with(None, Some("hunter2")), with(Some("nobody"), Some("hunter2")), with(None, None)] {
        let error = wrong.connect().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Auth, "{error:?}");
        let text = format!("{error} {error:?} {error:#} {wrong:?}");
        assert!(!text.contains("hunter2"), "{text}");
        assert_eq!(wrong.get("k").await.unwrap_err().backend(), Some("redis"));
    }
    // And through a URL, percent-encoded.
    let url = format!("redis://:s%C3%A9same%40%3A%2F%23%25%3F@127.0.0.1:{}", server.port());
    RedisBackend::from_url(&url).unwrap().connect().await.unwrap();
}

#[tokio::test]
async fn a_database_that_does_not_exist_is_named_as_the_problem() {
    let server = RedisServer::start();
    let backend = RedisBackend::new(RedisConfig { database: 99, ..config(server.port()) }).unwrap();
    let error = backend.connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
    assert!(error.to_string().contains("no database 99"), "{error}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_password_that_is_changed_while_running_keeps_what_is_open_and_refuses_what_is_new() {
    let server = RedisServer::builder().password("first").start();
    let backend =
        RedisBackend::new(RedisConfig { password: Some("first".into()), ..config(server.port()) }).unwrap();
    backend.set("k", Bytes::from("v"), None).await.unwrap();
    server.command("AUTH first");
    let admin =
        RedisBackend::new(RedisConfig { password: Some("first".into()), ..config(server.port()) }).unwrap();
    admin.command("CONFIG").arg("SET").arg("requirepass").arg("second").run().await.unwrap();
    assert!(backend.get("k").await.unwrap().is_some(), "what is open stays open");
    admin.command("CLIENT").arg("KILL").arg("TYPE").arg("normal").arg("SKIPME").arg("no").run().await.ok();
    let began = Instant::now();
    let error = loop {
        match backend.get("k").await {
            Err(error) if error.kind() == ErrorKind::Auth => break error,
            // Until the lost connection was noticed.
            _ => assert!(began.elapsed() < Duration::from_secs(10)),
        }
        if let Err(error) = backend.connect().await
            && error.kind() == ErrorKind::Auth
        {
            break error;
        }
    };
    assert!(!format!("{error:?}").contains("first"), "{error:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_clients_reconnect_and_paused_ones_end_in_time() {
    let server = RedisServer::start();
    let patient = RedisBackend::builder(config(server.port()))
        .operation_timeout(Duration::from_secs(5))
        .build()
        .unwrap();
    patient.set("k", Bytes::from("v"), None).await.unwrap();
    for _ in 0..20 {
        server.command("CLIENT KILL TYPE normal SKIPME yes");
        until_used_again(&patient, "killed by CLIENT KILL").await;
        assert_eq!(bounded(patient.get("k")).await.unwrap().as_deref(), Some(&b"v"[..]));
    }
    let backend = backend(server.port());
    backend.connect().await.unwrap();
    server.command("CLIENT PAUSE 1200 ALL");
    let began = Instant::now();
    assert_eq!(backend.get("k").await.unwrap_err().kind(), ErrorKind::Timeout);
    assert!(began.elapsed() < 5 * DEADLINE);
    let again = until_used_again(&backend, "after CLIENT PAUSE").await;
    assert!(again < Duration::from_secs(5), "{again:?}");
}

#[tokio::test]
async fn a_server_that_is_full_still_answers_reads_and_invalidations() {
    let server = RedisServer::start();
    let backend = backend(server.port());
    let expander = CacheExpander::new(backend.clone());
    let users = Users::with(&[(1, "one"), (2, "two")]);
    expander.get::<User, _>(&1, &users).await.unwrap();
    server.command("CONFIG SET maxmemory-policy noeviction");
    server.command("CONFIG SET maxmemory 1");
    let config = OperationConfig::default();
    let hit = expander.get_outcome::<User, _>(&1, &users, CacheStrategy::Refresh, config).await.unwrap();
    assert_eq!(hit.source, Source::Cache);
    let miss = expander.get_outcome::<User, _>(&2, &users, CacheStrategy::Refresh, config).await.unwrap();
    assert_eq!(miss.value.unwrap().name, "two");
    assert_eq!(miss.degraded.unwrap().kind(), ErrorKind::Full);
    assert_eq!(backend.set("k", Bytes::from("v"), None).await.unwrap_err().kind(), ErrorKind::Full);
    expander.invalidate::<User>(&1).await.unwrap();
    assert!(!backend.exists("user:1").await.unwrap());
}

#[tokio::test]
async fn a_user_without_rights_is_told_which_and_reads_go_on() {
    let server = RedisServer::start();
    assert_eq!(server.command("ACL SETUSER reader on >pw ~* +get +mget +ping +client"), "OK");
    assert_eq!(server.command("ACL SETUSER nobody on >pw ~* +ping"), "OK");
    let as_user = |name: &str| {
        let config =
            RedisConfig { username: Some(name.into()), password: Some("pw".into()), ..config(server.port()) };
        RedisBackend::new(config).unwrap()
    };
    let reader = as_user("reader");
    reader.connect().await.unwrap();
    assert_eq!(reader.set("k", Bytes::from("v"), None).await.unwrap_err().kind(), ErrorKind::Permission);
    let expander = CacheExpander::new(reader);
    let users = Users::with(&[(1, "one")]);
    let outcome = expander
        .get_outcome::<User, _>(&1, &users, CacheStrategy::Refresh, OperationConfig::default())
        .await
        .unwrap();
    assert_eq!((outcome.value.unwrap().name.as_str(), outcome.stored), ("one", Stored::Failed));
    assert_eq!(as_user("nobody").connect().await.unwrap_err().kind(), ErrorKind::Permission);
}

#[tokio::test]
async fn without_scripts_tombstones_keep_late_fills_away() {
    let server = RedisServer::start();
    assert_eq!(server.command("ACL SETUSER plain on >pw ~* +@all -@scripting"), "OK");
    let config =
        RedisConfig { username: Some("plain".into()), password: Some("pw".into()), ..config(server.port()) };
    let backend = RedisBackend::new(config).unwrap();
    backend.connect().await.unwrap();
    assert!(
        matches!(backend.capabilities().fence, Fence::Tombstones { .. }),
        "{:?}",
        backend.capabilities().fence
    );
    let expander = CacheExpander::new(backend.clone());
    let (users, gate) = (Users::with(&[(1, "old")]), Gate::new());
    let (reader, slow) = (CacheExpander::new(backend.clone()), users.behind(&gate));
    let old = tokio::spawn(async move {
        reader.get_outcome::<User, _>(&1, &slow, CacheStrategy::Refresh, OperationConfig::default()).await
    });
    gate.reached().await;
    users.put(1, "new");
    expander.invalidate::<User>(&1).await.unwrap();
    gate.open();
    let old = old.await.unwrap().unwrap();
    assert_eq!((old.value.unwrap().name.as_str(), old.stored), ("old", Stored::FencedOff));
    assert_eq!(expander.get::<User, _>(&1, &users).await.unwrap().unwrap().name, "new");
    // An ordinary load is stored.
    users.put(2, "two");
    expander.get::<User, _>(&2, &users).await.unwrap();
    let asked = users.asked();
    assert_eq!(expander.get::<User, _>(&2, &users).await.unwrap().unwrap().name, "two");
    assert_eq!(users.asked(), asked);
}

#[test]
fn a_backend_works_on_the_next_runtime_when_the_first_is_gone() {
    let server = RedisServer::start();
    let backend = backend(server.port());
    for round in 0..5 {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        runtime.block_on(async {
            until_used_again(&backend, "on a new runtime").await;
            backend.set("round", Bytes::from(format!("{round}")), None).await.unwrap();
            let value = backend.get("round").await.unwrap().unwrap();
            assert_eq!(value, format!("{round}"));
        });
        runtime.shutdown_background();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_loading_is_unavailable_and_used_when_it_has_loaded() {
    // Half a millisecond for each key, and a look at its clients every kilobyte.
    let slow = ["--key-load-delay", "500", "--loading-process-events-interval-bytes", "1024"];
    let server = slow.into_iter().fold(RedisServer::builder(), |builder, arg| builder.arg(arg)).start();
    let backend = backend(server.port());
    for from in (0..2_000).step_by(500) {
        let mut pipeline = backend.pipeline();
        for key in from..from + 500 {
            pipeline = pipeline.then(backend.command("SET").key(format!("key:{key}")).arg("v".repeat(20)));
        }
        pipeline.run().await.unwrap();
    }
    backend.command("SAVE").run().await.unwrap();
    server.kill();
    let restarting = std::thread::spawn(move || {
        server.restart();
        server
    });
    let (mut loading, began) = (false, Instant::now());
    loop {
        match backend.get("key:7").await {
            Ok(Some(_)) => break,
            Ok(None) => panic!("a server that is loading knows nothing"),
            Err(error) => {
                assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout), "{error:?}");
                loading |= format!("{error:#}").contains("loading");
            }
        }
        assert!(began.elapsed() < Duration::from_secs(20));
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(loading, "it was never seen loading");
    drop(restarting.join());
}
