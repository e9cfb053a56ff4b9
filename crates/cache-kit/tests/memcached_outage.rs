//! Memcached servers that die, hang or refuse: reads go on, in time, a dead server costs only its own keys, and it is
//! used again as soon as it can be. Bounds are five times what is aimed at, for machines that are busy with something
//! else.

#![cfg(feature = "memcached")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::print_stdout, reason = "what was measured, for `--nocapture`")]

mod common;

use std::time::{Duration, Instant};

use bytes::Bytes;
use cache_kit::backend::{CacheBackend, MemcachedBackend, MemcachedConfig};
use cache_kit::{
    Cache, CacheExpander, CacheStrategy, ErrorKind, GenericFeeder, LoadOptions, OperationConfig, Source,
    Stored,
};
use cache_kit_test_support::{MemcachedServer, SilentServer, UnansweredPort};
use common::{User, Users, bounded};

const DEADLINE: Duration = Duration::from_millis(400);
/// Times of writing are kept in whole seconds, and what was written in the second of a fault is not trusted.
const SECOND: Duration = Duration::from_secs(1);

fn config<A: ToString>(servers: impl IntoIterator<Item = A>) -> MemcachedConfig {
    let servers = servers.into_iter().map(|addr| addr.to_string()).collect();
    MemcachedConfig { servers, max_connections: 2, min_connections: 1 }
}

fn over<A: ToString>(servers: impl IntoIterator<Item = A>) -> MemcachedBackend {
    MemcachedBackend::builder(config(servers)).operation_timeout(DEADLINE).build().unwrap()
}

fn backend(server: &MemcachedServer) -> MemcachedBackend {
    over([server.addr()])
}

/// Asks until the cache answers, and tells how long that took.
async fn until_used_again(backend: &dyn CacheBackend, what: &str) -> Duration {
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

/// Reads through the cache: the source must answer each time. What many reads took, the shortest first.
async fn reads_go_on(expander: &CacheExpander<MemcachedBackend>, users: &Users) -> Vec<Duration> {
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

/// Reads until the cache answers by itself: the source is asked for as long as what it holds is not trusted.
async fn until_hits(expander: &CacheExpander<MemcachedBackend>, users: &Users, what: &str) {
    let (began, asked) = (Instant::now(), users.asked());
    loop {
        let config = OperationConfig::default();
        let read = expander.get_outcome::<User, _>(&1, users, CacheStrategy::Refresh, config).await.unwrap();
        assert_eq!(read.value.unwrap().name, "one");
        if read.source == Source::Cache {
            break;
        }
        assert!(began.elapsed() < 5 * SECOND, "{what}: nothing is found in the cache");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    println!("{what}: hits after {:?}, and {} reads of the source", began.elapsed(), users.asked() - asked);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn after_kill_9_reads_go_on_cost_little_and_the_server_is_used_again_when_it_is_back() {
    let server = MemcachedServer::start();
    let backend = backend(&server);
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
    until_hits(&expander, &users, "restarted").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_stands_still_is_an_error_at_the_deadline_and_used_when_it_moves() {
    let server = MemcachedServer::start();
    let backend = backend(&server);
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
    println!("standing still: median {:?}, longest {:?}", took[50], took[99]);
    assert!(took[50] < Duration::from_millis(5) && took[99] < 5 * DEADLINE, "{took:?}");
    server.resume();
    let again = until_used_again(&backend, "moving again").await;
    assert!(again < Duration::from_millis(2_500), "{again:?}");
    until_hits(&expander, &users, "moving again").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_service_starts_while_its_cache_is_down() {
    let server = MemcachedServer::start();
    server.kill();
    let backend = backend(&server);
    let expander = CacheExpander::new(backend.clone());
    let users = Users::with(&[(1, "one")]);
    let took = reads_go_on(&expander, &users).await;
    assert!(took[99] < 5 * DEADLINE, "{took:?}");
    let error = backend.connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(format!("{error:#}").contains("refused"), "{error:#}");
    assert!(error.to_string().contains(&server.addr()), "one of many servers has to be named: {error}");
    server.restart();
    until_used_again(&backend, "started").await;
    backend.connect().await.unwrap();
    assert!(backend.health_check().await.unwrap());
}

#[tokio::test]
async fn with_the_cache_down_the_strategies_do_what_they_promise() {
    let server = MemcachedServer::start();
    server.kill();
    let expander = CacheExpander::new(backend(&server));
    let users = Users::with(&[(1, "one")]);
    for strategy in [CacheStrategy::Refresh, CacheStrategy::Invalidate, CacheStrategy::Bypass] {
        let mut feeder = GenericFeeder::<User>::new(1);
        let config = OperationConfig::default();
        let outcome = expander.with_outcome(&mut feeder, &users, strategy, config).await.unwrap();
        assert_eq!((feeder.data.unwrap().name.as_str(), outcome.source), ("one", Source::Load));
        assert_eq!(outcome.is_degraded(), strategy != CacheStrategy::Bypass);
        assert_ne!(outcome.stored, Stored::Yes);
    }
    let mut feeder = GenericFeeder::<User>::new(2);
    let error = expander.with(&mut feeder, &users, CacheStrategy::Fresh).await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(expander.invalidate::<User>(&1).await.is_err(), "an invalidation that cannot be kept is no Ok");
    assert!(expander.backend().health_check().await.is_err());
}

#[tokio::test]
async fn a_server_that_accepts_and_never_answers_is_an_error_in_time() {
    let silent = SilentServer::start();
    // With none that are kept, nobody looks for the server but who asks.
    let config = MemcachedConfig { min_connections: 0, ..config([silent.addr()]) };
    let builder = MemcachedBackend::builder(config).connection_timeout(DEADLINE).operation_timeout(DEADLINE);
    let backend = builder.build().unwrap();
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
    let bound = Duration::from_millis(300);
    let config = MemcachedConfig { min_connections: 0, ..config([port.addr()]) };
    let backend = MemcachedBackend::builder(config).connection_timeout(bound).build().unwrap();
    let began = Instant::now();
    let error = backend.connect().await.unwrap_err();
    let took = began.elapsed();
    println!("never answered: {error} after {took:?}");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("connection_timeout"), "{error}");
    assert!(took >= bound && took < 5 * bound, "{took:?}");
}

#[tokio::test]
async fn a_host_that_does_not_exist_is_named_as_the_problem() {
    let error = over(["no-such-host.invalid"]).connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable);
    assert!(error.to_string().contains("no-such-host.invalid:11211"), "{error}");
}

#[tokio::test]
async fn credentials_are_named_as_the_problem_and_never_printed() {
    let server = MemcachedServer::builder().auth("someone", "s3same@:/#%?".replace(':', ";")).start();
    let with = |credentials: Option<(&str, &str)>| {
        let builder = MemcachedBackend::builder(config([server.addr()]));
        let builder = match credentials {
            Some((user, password)) => builder.credentials(user, password),
            None => builder,
        };
        assert!(!format!("{builder:?}").contains("hunter2"), "{builder:?}");
        builder.build().unwrap()
    };
    let right = with(Some(("someone", "s3same@;/#%?")));
    right.connect().await.unwrap();
    right.set("k", Bytes::from("v"), None).await.unwrap();
    for wrong in [with(Some(("someone", "hunter2"))), with(Some(("nobody", "hunter2"))), with(None)] {
        let error = wrong.connect().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Auth, "{error:?}");
        let text = format!("{error} {error:?} {error:#} {wrong:?}");
        assert!(!text.contains("hunter2") && !text.contains("s3same"), "{text}");
        assert!(error.to_string().contains("credentials"), "{error}");
        let error = wrong.get("k").await.unwrap_err();
        assert_eq!(error.backend(), Some("memcached"));
        assert!(!format!("{error:?} {error:#}").contains("hunter2"), "{error:?}");
    }
    // And through a URL, percent-encoded.
    let url = format!("memcached://someone:s3same%40%3B%2F%23%25%3F@{}", server.addr());
    MemcachedBackend::from_url(&url).unwrap().connect().await.unwrap();
}

#[test]
fn a_backend_works_on_the_next_runtime_when_the_first_is_gone() {
    let server = MemcachedServer::start();
    let backend = backend(&server);
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

#[test]
fn a_runtime_that_ends_is_no_outage() {
    let server = MemcachedServer::start();
    // With connections that are still being made when it ends.
    let config = MemcachedConfig { max_connections: 16, min_connections: 4, ..config([server.addr()]) };
    for round in 0..20 {
        let builder = MemcachedBackend::builder(config.clone()).operation_timeout(Duration::from_secs(5));
        let backend = builder.build().unwrap();
        let on_a_runtime = |work: &dyn Fn(&tokio::runtime::Runtime)| {
            let mut builder = tokio::runtime::Builder::new_multi_thread();
            work(&builder.worker_threads(1).enable_all().build().unwrap());
        };
        on_a_runtime(&|runtime| {
            runtime.block_on(backend.set("key", Bytes::from("value"), None)).unwrap();
        });
        // The server was there all the time, and has missed nothing.
        on_a_runtime(&|runtime| {
            let found = runtime.block_on(backend.get("key"));
            assert_eq!(found.unwrap().as_deref(), Some(&b"value"[..]), "round {round}");
        });
    }
}

/// Three servers, keys on all of them, and a cache over them in which the keys are.
async fn three() -> ([MemcachedServer; 3], Cache, Vec<String>) {
    let servers = [MemcachedServer::start(), MemcachedServer::start(), MemcachedServer::start()];
    let cache = Cache::new(over(servers.each_ref().map(|server| server.addr())));
    let keys: Vec<String> = (0..60).map(|n| format!("key:{n}")).collect();
    for key in &keys {
        cache.set(key, &format!("cached {key}")).await.unwrap();
    }
    assert!(servers.iter().all(|server| server.stat("curr_items") > 0), "all servers are used");
    (servers, cache, keys)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_server_costs_only_its_own_keys_and_they_are_stored_nowhere_else() {
    let (servers, cache, keys) = three().await;
    let items = || servers[1..].iter().map(|server| server.stat("curr_items")).collect::<Vec<_>>();
    let (dead, before) = (&servers[0], items());
    let lost: Vec<bool> = keys.iter().map(|key| dead.command(&format!("mg {key}")) != "EN").collect();
    let count = lost.iter().filter(|lost| **lost).count();
    dead.kill();
    let mut took = Vec::new();
    for round in 0..3 {
        for (key, &lost) in keys.iter().zip(&lost) {
            let began = Instant::now();
            let load = || async { Ok::<_, std::io::Error>("loaded".to_owned()) };
            let read = bounded(cache.get_or_load_outcome(key, LoadOptions::default(), load)).await.unwrap();
            if lost {
                took.push(began.elapsed());
                assert_eq!(
                    (read.value.as_str(), read.stored),
                    ("loaded", Stored::BackendUnknown),
                    "{round} {key}"
                );
                assert!(read.is_degraded());
            } else {
                assert_eq!(
                    (read.value, read.source),
                    (format!("cached {key}"), Source::Cache),
                    "{round} {key}"
                );
                assert!(read.degraded.is_none());
            }
        }
    }
    took.sort_unstable();
    println!(
        "{count} of 60 keys on the dead server: median {:?}, longest {:?}",
        took[took.len() / 2],
        took[took.len() - 1]
    );
    assert!(
        took[took.len() / 2] < Duration::from_millis(5) && took[took.len() - 1] < 5 * DEADLINE,
        "{took:?}"
    );
    for (key, &lost) in keys.iter().zip(&lost) {
        assert_eq!(cache.backend().set(key, Bytes::from("v"), None).await.is_err(), lost, "{key}");
        assert_eq!(cache.invalidate(key).await.is_err(), lost, "{key}");
        assert_eq!(cache.set(key, &format!("cached {key}")).await.is_err(), lost, "{key}");
    }
    assert_eq!(items(), before);
    // All servers are asked, and one of them is not there.
    assert!(cache.backend().health_check().await.is_err());
    assert!(cache.backend().clear_all().await.is_err());
    let left = keys.iter().filter(|key| servers[1..].iter().any(|s| s.command(&format!("mg {key}")) != "EN"));
    assert_eq!(left.count(), 0, "those that are there are cleared all the same");
    dead.restart();
    let key = keys.iter().zip(&lost).find(|(_, lost)| **lost).unwrap().0;
    let began = Instant::now();
    while cache.get::<String>(key).await.is_err() {
        assert!(began.elapsed() < Duration::from_millis(2_500), "not used again");
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    println!("one of three restarted: used again after {:?}", began.elapsed());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_batch_over_a_dead_server_is_answered_all_the_same() {
    let (servers, cache, keys) = three().await;
    servers[0].kill();
    let all: Vec<&str> = keys.iter().map(String::as_str).collect();
    assert!(cache.backend().mget(&all).await.is_err(), "no key may be taken for absent that is only unknown");
    let load = |missing: Vec<String>| async move {
        Ok::<_, std::io::Error>(missing.into_iter().map(|key| (key, "loaded".to_owned())).collect::<Vec<_>>())
    };
    let began = Instant::now();
    let reads = bounded(cache.get_many_or_load_outcomes(&keys, LoadOptions::default(), load)).await.unwrap();
    let reads: Vec<_> = reads.into_iter().map(Result::unwrap).collect();
    println!("60 keys, one of three servers dead: answered in {:?}", began.elapsed());
    for read in &reads {
        assert!(read.value.as_deref().is_some_and(|value| value == "loaded" || value.starts_with("cached")));
        assert_ne!(read.stored, Stored::Yes, "what is not known is not written over");
    }
    for (key, read) in all.iter().zip(&reads) {
        let is_alive = servers[1..].iter().any(|server| server.command(&format!("mg {key}")) != "EN");
        assert_eq!(read.is_hit(), is_alive, "{key}: a dead server costs its own keys and no others");
        assert_eq!(read.degraded.is_some(), !is_alive, "{key}");
    }
    let hits = reads.iter().filter(|read| read.is_hit()).count();
    println!("60 keys, one of three servers dead: {hits} from the cache, {} loaded", 60 - hits);
    // Those of one that lives are found as ever.
    let alive: Vec<&str> = all
        .iter()
        .copied()
        .filter(|key| servers[1..].iter().any(|s| s.command(&format!("mg {key}")) != "EN"))
        .collect();
    let found = cache.backend().mget(&alive).await.unwrap();
    assert!(!alive.is_empty() && found.iter().all(Option::is_some));
}
