//! A Redis that dies, hangs, refuses or forgets: reads go on, in time, and the cache is used again as soon as it can be;
//! on every way that Redis is run. Bounds are five times what is aimed at, for machines that are busy with something
//! else.

#![cfg(feature = "redis")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::print_stdout, reason = "what was measured, for `--nocapture`")]

mod common;

use std::time::{Duration, Instant};

use bytes::Bytes;
use cache_kit::backend::redis::RedisBuilder;
use cache_kit::backend::{Acquired, CacheBackend, Fence, RedisBackend};
use cache_kit::testing::Gate;
use cache_kit::{
    CacheExpander, CacheStrategy, Error, ErrorKind, GenericFeeder, OperationConfig, Source, Stored,
};
use cache_kit_test_support::{RedisServer, SilentServer, UnansweredPort};
use common::sites::{Site, Way, on_sites};
use common::{User, Users, bounded};

on_sites! {
    [plain unix tls least_rights sentinel cluster] {
        after_kill_9_reads_go_on_cost_little_and_the_cache_is_used_again_when_a_server_is_there
        a_server_that_stands_still_is_an_error_at_the_deadline_and_the_cache_is_used_when_one_moves
        a_service_starts_while_its_cache_is_down
        with_the_cache_down_the_strategies_do_what_they_promise
        killed_clients_reconnect_and_paused_ones_end_in_time
        a_server_that_is_full_still_answers_reads_and_invalidations
        a_backend_works_on_the_next_runtime_when_the_first_is_gone
    }
    // These log in as users of their own.
    [plain unix tls sentinel cluster] {
        a_user_without_rights_is_told_which_and_reads_go_on
        without_scripts_tombstones_keep_late_fills_away
    }
    // A socket in the file system answers or refuses at once; rights come later than that.
    [plain tls sentinel cluster] {
        a_server_that_accepts_and_never_answers_is_an_error_in_time
        a_connect_that_is_never_answered_is_bounded_by_connection_timeout
        a_host_that_does_not_exist_is_named_as_the_problem
    }
    // What one connection is told is the same behind sentinels and in a cluster, which has no databases besides.
    [plain unix tls] {
        credentials_are_named_as_the_problem_and_never_printed
        a_database_that_does_not_exist_is_named_as_the_problem
        a_password_that_is_changed_while_running_keeps_what_is_open_and_refuses_what_is_new
        a_server_that_is_loading_is_unavailable_and_used_when_it_has_loaded
        a_call_on_a_connection_that_is_being_lost_ends_with_it_and_not_at_its_deadline
    }
}

const DEADLINE: Duration = Duration::from_millis(400);
/// From when a server is there until the cache is used again.
const RECOVERY: Duration = Duration::from_millis(500);
/// Where the one user is that is read.
const KEY: &str = "user:1";

fn backend(site: &Site) -> RedisBackend {
    site.builder().operation_timeout(DEADLINE).build().unwrap()
}

/// Asks until the cache answers, and tells how long that took.
async fn until_used_again(backend: &RedisBackend, what: &str) -> Duration {
    let used = async || match backend.get(KEY).await {
        Ok(_) => true,
        Err(error) => {
            println!("{what}: {error:#}");
            false
        }
    };
    let took = common::until(what, Duration::from_secs(15), used).await;
    println!("{what}: used again after {took:?}");
    took
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

async fn after_kill_9_reads_go_on_cost_little_and_the_cache_is_used_again_when_a_server_is_there(way: Way) {
    let site = way.start();
    let backend = backend(&site);
    let expander = CacheExpander::new(backend.clone());
    let users = Users::with(&[(1, "one")]);
    reads_go_on(&expander, &users).await;
    assert_eq!(users.asked(), 1);
    site.replicated(KEY).await;
    let killed = site.kill(KEY);
    let took = reads_go_on(&expander, &users).await;
    println!("{way:?}, killed: median {:?}, longest {:?}", took[50], took[99]);
    assert!(
        took[50] < Duration::from_millis(5),
        "once the breaker is open a call costs microseconds: {took:?}"
    );
    assert!(took[99] < 5 * DEADLINE, "{took:?}");
    site.bring_back(KEY, killed);
    let again = until_used_again(&backend, &format!("{way:?}, after kill -9")).await;
    assert!(again < 5 * RECOVERY, "{again:?}");
    let asked = users.asked();
    reads_go_on(&expander, &users).await;
    // Who was started again is empty; who has taken over has what was there.
    assert_eq!(users.asked() - asked, u64::from(!site.replicates()));
}

async fn a_server_that_stands_still_is_an_error_at_the_deadline_and_the_cache_is_used_when_one_moves(
    way: Way,
) {
    let site = way.start();
    let backend = backend(&site);
    let expander = CacheExpander::new(backend.clone());
    let users = Users::with(&[(1, "one")]);
    reads_go_on(&expander, &users).await;
    site.replicated(KEY).await;
    let still = site.pause(KEY);
    let began = Instant::now();
    let error = backend.get(KEY).await.unwrap_err();
    let took = began.elapsed();
    println!("{way:?}, standing still: {} after {took:?}", error.kind());
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(took >= DEADLINE && took < 5 * DEADLINE, "{took:?}");
    let took = reads_go_on(&expander, &users).await;
    assert!(took[50] < Duration::from_millis(5) && took[99] < 5 * DEADLINE, "{took:?}");
    site.bring_back(KEY, still);
    let again = until_used_again(&backend, &format!("{way:?}, one moves")).await;
    assert!(again < 5 * RECOVERY, "{again:?}");
    if site.replicates() {
        // And it stays so when the old one comes back and learns what became of it.
        site.servers()[still].resume();
        site.wait_until_ok();
        let asked = users.asked();
        reads_go_on(&expander, &users).await;
        assert_eq!(users.asked(), asked, "who has taken over has what was there");
    }
}

async fn a_service_starts_while_its_cache_is_down(way: Way) {
    let site = way.start();
    site.kill_all();
    let backend = backend(&site);
    let expander = CacheExpander::new(backend.clone());
    let users = Users::with(&[(1, "one")]);
    let took = reads_go_on(&expander, &users).await;
    println!("{way:?}, down: median {:?}, longest {:?}", took[50], took[99]);
    assert!(took[99] < 5 * DEADLINE, "{took:?}");
    let error = backend.connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Unavailable, "{error:?}");
    assert!(format!("{error:#}").contains("refused"), "{error:#}");
    site.restart_all();
    let again = until_used_again(&backend, &format!("{way:?}, started")).await;
    assert!(again < 5 * RECOVERY, "{again:?}");
    backend.connect().await.unwrap();
}

/// Reaches nobody: what would be a server, a sentinel, or a node of a cluster is dead.
fn reaches_nobody(way: Way) -> RedisBackend {
    let server = match way {
        Way::Sentinel | Way::Cluster => RedisServer::start(),
        _ => way.server().start(),
    };
    server.kill();
    to(way, &server.addr(), "").operation_timeout(DEADLINE).build().unwrap()
}

/// For what is at this address.
fn to(way: Way, address: &str, parameters: &str) -> RedisBuilder {
    RedisBackend::builder_from_url(&format!("{}?{parameters}", way.url("", address))).unwrap()
}

async fn with_the_cache_down_the_strategies_do_what_they_promise(way: Way) {
    let expander = CacheExpander::new(reaches_nobody(way));
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
}

async fn a_server_that_accepts_and_never_answers_is_an_error_in_time(way: Way) {
    let silent = SilentServer::start();
    let builder = to(way, &silent.addr(), "connection_timeout=400ms").operation_timeout(DEADLINE);
    let backend = builder.build().unwrap();
    let named = |error: &Error| match way {
        // There it is said what it is that is not answered.
        Way::Tls => error.kind() == ErrorKind::Unavailable && error.to_string().contains("greeting of TLS"),
        _ => error.kind() == ErrorKind::Timeout,
    };
    let began = Instant::now();
    let error = backend.get(KEY).await.unwrap_err();
    assert!(named(&error), "{error:?}");
    assert!(began.elapsed() < 5 * DEADLINE);
    let began = Instant::now();
    let error = backend.connect().await.unwrap_err();
    assert!(named(&error), "{error:?}");
    assert!(began.elapsed() < Duration::from_secs(2), "{:?}", began.elapsed());
    // The dials themselves are bounded, not only the wait for them.
    let nobody = async || silent.connections() == 0;
    common::until("no dial goes on", Duration::from_secs(2), nobody).await;
}

async fn a_connect_that_is_never_answered_is_bounded_by_connection_timeout(way: Way) {
    let port = UnansweredPort::new();
    let backend = to(way, &port.addr(), "connection_timeout=300ms").build().unwrap();
    let began = Instant::now();
    let error = backend.connect().await.unwrap_err();
    let took = began.elapsed();
    println!("{way:?}, never answered: {error} after {took:?}");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("connection_timeout"), "{error}");
    assert!(took >= Duration::from_millis(300) && took < Duration::from_millis(1_500), "{took:?}");
}

async fn a_host_that_does_not_exist_is_named_as_the_problem(way: Way) {
    let error = to(way, "no-such-host.invalid", "").build().unwrap().connect().await.unwrap_err();
    println!("{way:?}: {error}");
    assert!(error.to_string().contains("host"), "{error}");
}

async fn credentials_are_named_as_the_problem_and_never_printed(way: Way) {
    let site = Site::on(way, way.server().password("sésame@:/#%?").start());
    let with = |userinfo: &str| site.builder_as(userinfo, 0).build().unwrap();
    let right = "s%C3%A9same%40%3A%2F%23%25%3F";
    with(&format!(":{right}@")).connect().await.unwrap();
    with(&format!("default:{right}@")).connect().await.unwrap();
    for wrong in [":hunter2@", "nobody:hunter2@", ""].map(with) {
        let error = wrong.connect().await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::Auth, "{error:?}");
        let text = format!("{error} {error:?} {error:#} {wrong:?}");
        assert!(!text.contains("hunter2"), "{text}");
        assert_eq!(wrong.get(KEY).await.unwrap_err().backend(), Some("redis"));
    }
}

async fn a_database_that_does_not_exist_is_named_as_the_problem(way: Way) {
    let site = way.turn().await;
    let error = site.builder_as("", 99).build().unwrap().connect().await.unwrap_err();
    assert_eq!(error.kind(), ErrorKind::Config, "{error:?}");
    assert!(error.to_string().contains("no database 99"), "{error}");
}

async fn a_password_that_is_changed_while_running_keeps_what_is_open_and_refuses_what_is_new(way: Way) {
    let site = Site::on(way, way.server().password("first").start());
    let [backend, admin] = [(); 2].map(|()| site.builder_as(":first@", 0).build().unwrap());
    backend.set(KEY, Bytes::from("v"), None).await.unwrap();
    admin.command("CONFIG").arg("SET").arg("requirepass").arg("second").run().await.unwrap();
    assert!(backend.get(KEY).await.unwrap().is_some(), "what is open stays open");
    admin.command("CLIENT").arg("KILL").arg("TYPE").arg("normal").arg("SKIPME").arg("no").run().await.ok();
    let began = Instant::now();
    let error = loop {
        match backend.get(KEY).await {
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

async fn killed_clients_reconnect_and_paused_ones_end_in_time(way: Way) {
    let site = way.turn().await;
    let patient = site.builder().operation_timeout(Duration::from_secs(5)).build().unwrap();
    patient.set(KEY, Bytes::from("v"), None).await.unwrap();
    for _ in 0..20 {
        site.command(KEY, "CLIENT KILL TYPE normal SKIPME yes");
        until_used_again(&patient, &format!("{way:?}, after CLIENT KILL")).await;
        assert_eq!(bounded(patient.get(KEY)).await.unwrap().as_deref(), Some(&b"v"[..]));
    }
    let backend = backend(&site);
    backend.connect().await.unwrap();
    assert_eq!(site.command(KEY, "CLIENT PAUSE 1200 ALL"), "OK");
    let began = Instant::now();
    assert_eq!(backend.get(KEY).await.unwrap_err().kind(), ErrorKind::Timeout);
    assert!(began.elapsed() < 5 * DEADLINE);
    let again = until_used_again(&backend, &format!("{way:?}, after CLIENT PAUSE")).await;
    assert!(again < Duration::from_secs(5), "{again:?}");
}

async fn a_call_on_a_connection_that_is_being_lost_ends_with_it_and_not_at_its_deadline(way: Way) {
    let site = way.turn().await;
    let patient = site.builder().operation_timeout(Duration::from_secs(5)).build().unwrap();
    let mut longest = Duration::ZERO;
    // Seldom does a call come just when the end of the connection is seen.
    for _ in 0..1_000 {
        site.command(KEY, "CLIENT KILL TYPE normal SKIPME yes");
        loop {
            let began = Instant::now();
            let called = patient.get(KEY).await;
            longest = longest.max(began.elapsed());
            match called {
                Ok(_) => break,
                Err(error) => assert_ne!(error.kind(), ErrorKind::Timeout, "{error:?}"),
            }
            tokio::task::yield_now().await;
        }
    }
    println!("{way:?}, lost while it was called: the longest call took {longest:?}");
}

async fn a_server_that_is_full_still_answers_reads_and_invalidations(way: Way) {
    let site = way.turn().await;
    let backend = backend(&site);
    let expander = CacheExpander::new(backend.clone());
    let users = Users::with(&[(1, "one"), (2, "two")]);
    expander.get::<User, _>(&1, &users).await.unwrap();
    for primary in site.primaries() {
        assert_eq!(primary.command("CONFIG SET maxmemory-policy noeviction"), "OK");
        assert_eq!(primary.command("CONFIG SET maxmemory 1"), "OK");
    }
    let config = OperationConfig::default();
    let hit = expander.get_outcome::<User, _>(&1, &users, CacheStrategy::Refresh, config).await.unwrap();
    assert_eq!(hit.source, Source::Cache);
    let miss = expander.get_outcome::<User, _>(&2, &users, CacheStrategy::Refresh, config).await.unwrap();
    assert_eq!(miss.value.unwrap().name, "two");
    assert_eq!(miss.degraded.unwrap().kind(), ErrorKind::Full);
    assert_eq!(backend.set("k", Bytes::from("v"), None).await.unwrap_err().kind(), ErrorKind::Full);
    expander.invalidate::<User>(&1).await.unwrap();
    assert!(!backend.exists(KEY).await.unwrap());
}

/// Adds a user to every server, who may do this and what it takes to find the nodes of a cluster.
fn add_user(site: &Site, name: &str, rights: &str) -> RedisBuilder {
    for server in site.servers() {
        let line = format!("ACL SETUSER {name} on >pw ~* {rights} +cluster|slots");
        assert_eq!(server.command(&line), "OK", "{line}");
    }
    site.builder_as(&format!("{name}:pw@"), 0)
}

async fn a_user_without_rights_is_told_which_and_reads_go_on(way: Way) {
    let site = way.turn().await;
    let reader = add_user(&site, "reader", "+get +mget +ping +client").build().unwrap();
    reader.connect().await.unwrap();
    assert_eq!(reader.set(KEY, Bytes::from("v"), None).await.unwrap_err().kind(), ErrorKind::Permission);
    let expander = CacheExpander::new(reader);
    let users = Users::with(&[(1, "one")]);
    let outcome = expander
        .get_outcome::<User, _>(&1, &users, CacheStrategy::Refresh, OperationConfig::default())
        .await
        .unwrap();
    assert_eq!((outcome.value.unwrap().name.as_str(), outcome.stored), ("one", Stored::Failed));
    let nobody = add_user(&site, "nobody", "+ping").build().unwrap();
    assert_eq!(nobody.connect().await.unwrap_err().kind(), ErrorKind::Permission);
}

async fn without_scripts_tombstones_keep_late_fills_away(way: Way) {
    let site = way.turn().await;
    let backend = add_user(&site, "plain", "+@all -@scripting").build().unwrap();
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
    // A lease is one until something happens to its key.
    let life = Duration::from_secs(3);
    let Acquired::Granted { lease, .. } = backend.acquire("leased", None, life).await.unwrap() else {
        panic!("the key is absent")
    };
    assert!(backend.renew("leased", &lease, life).await.unwrap().is_some());
    backend.delete("leased").await.unwrap();
    assert!(backend.renew("leased", &lease, life).await.unwrap().is_none());
    // An ordinary load is stored.
    users.put(2, "two");
    expander.get::<User, _>(&2, &users).await.unwrap();
    let asked = users.asked();
    assert_eq!(expander.get::<User, _>(&2, &users).await.unwrap().unwrap().name, "two");
    assert_eq!(users.asked(), asked);
}

async fn a_backend_works_on_the_next_runtime_when_the_first_is_gone(way: Way) {
    let site = way.turn().await;
    let backend = backend(&site);
    let rounds = std::thread::spawn(move || {
        for round in 0..5 {
            let runtime =
                tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
            runtime.block_on(async {
                until_used_again(&backend, &format!("{way:?}, on a new runtime")).await;
                backend.set("round", Bytes::from(format!("{round}")), None).await.unwrap();
                let value = backend.get("round").await.unwrap().unwrap();
                assert_eq!(value, format!("{round}"));
            });
            runtime.shutdown_background();
        }
    });
    bounded(tokio::task::spawn_blocking(move || rounds.join())).await.unwrap().unwrap();
}

async fn a_server_that_is_loading_is_unavailable_and_used_when_it_has_loaded(way: Way) {
    // Half a millisecond for each key, and a look at its clients every two megabytes, which not every version can be
    // told to do more often.
    let slow = ["--key-load-delay", "500", "--rdbcompression", "no"];
    let server = slow.into_iter().fold(way.server(), |builder, arg| builder.arg(arg)).start();
    let fill = "for n = 1, 1000 do redis.call('SET', 'key:' .. n, string.rep('v', 40000)) end return 'OK'";
    assert_eq!(server.command(&format!("EVAL \"{fill}\" 0")), "OK");
    assert_eq!(server.command("SAVE"), "OK");
    let site = Site::on(way, server);
    let backend = backend(&site);
    backend.connect().await.unwrap();
    let server = site.kill(KEY);
    let restarting = tokio::task::spawn_blocking(move || {
        site.bring_back(KEY, server);
        site
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
    println!("{way:?}, loaded: used after {:?}", began.elapsed());
    assert!(loading, "it was never seen loading");
    drop(restarting.await.unwrap());
}
