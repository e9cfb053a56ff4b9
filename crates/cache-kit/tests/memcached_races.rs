//! Late fills on Memcached are refused, whoever invalidated and however: this cache, another one, a foreign command, a
//! flush, an expiry, a restart. And what is stored is what other clients can read. Gates, not sleeps.

// long: each race is run on one set of gates.

#![cfg(feature = "memcached")]
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::time::{Duration, Instant};

use bytes::Bytes;
use cache_kit::backend::{
    Acquired, CacheBackend, Filled, Lease, MemcachedBackend, MemcachedConfig, SetEntry,
};
use cache_kit::testing::Gate;
use cache_kit::{Cache, LoadOptions, Outcome, Policy, Source, Stored};
use cache_kit_test_support::MemcachedServer;
use common::{Users, bounded};

const LIFE: Duration = Duration::from_secs(30);
const DAY: u64 = 86_400;

fn backend(server: &MemcachedServer) -> MemcachedBackend {
    let config = MemcachedConfig { servers: vec![server.addr()], max_connections: 2, min_connections: 1 };
    MemcachedBackend::builder(config).operation_timeout(Duration::from_secs(5)).build().unwrap()
}

async fn read(cache: &Cache, users: Users) -> Outcome<String> {
    cache.get_or_load_outcome("user:1", LoadOptions::default(), move || users.name(1)).await.unwrap()
}

/// Begins a load that has read the old row, holds the lease, and stands at the gate; then lets `invalidate` happen.
async fn late_fill(
    server: &MemcachedServer,
    invalidate: impl AsyncFnOnce(&Cache),
) -> (Cache, Users, Outcome<String>) {
    let (cache, users, gate) = (Cache::new(backend(server)), Users::with(&[(1, "old")]), Gate::new());
    let (reader, slow) = (cache.clone(), users.behind(&gate));
    let old = tokio::spawn(async move { read(&reader, slow).await });
    bounded(gate.reached()).await;
    users.put(1, "new");
    invalidate(&cache).await;
    gate.open();
    let old = bounded(old).await.unwrap();
    (cache, users, old)
}

/// Asks until the answer is what is wanted, and tells how long that took.
async fn until<F: AsyncFnMut() -> bool>(what: &str, bound: Duration, mut holds: F) -> Duration {
    let began = Instant::now();
    while !holds().await {
        assert!(began.elapsed() < bound, "{what}: not within {bound:?}");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    began.elapsed()
}

async fn granted(backend: &MemcachedBackend, key: &str, seen: Option<&Bytes>, life: Duration) -> Lease {
    match backend.acquire(key, seen, life).await.unwrap() {
        Acquired::Granted { lease, kept } => {
            assert_eq!(kept.as_ref(), seen);
            lease
        }
        other => panic!("no lease: {other:?}"),
    }
}

/// What the server tells of an item after a letter of `mg`, such as `t` for the life that is left.
fn told(server: &MemcachedServer, key: &str, letter: char) -> i64 {
    let reply = server.command(&format!("mg {key} {letter}"));
    let told = reply.strip_prefix("HD ").and_then(|rest| rest.strip_prefix(letter)?.parse().ok());
    told.unwrap_or_else(|| panic!("{reply:?}"))
}

#[tokio::test]
async fn a_late_fill_is_refused_after_every_kind_of_invalidation() {
    let server = MemcachedServer::start();
    for how in
        ["this cache", "another cache", "delete", "set and delete", "flush_all", "expiry", "marked stale"]
    {
        let foreign = |command: &str, answer: &str| assert_eq!(server.command(command), answer, "{how}");
        let (cache, users, old) = late_fill(&server, async |cache| match how {
            "this cache" => cache.invalidate("user:1").await.unwrap(),
            "another cache" => Cache::new(backend(&server)).invalidate("user:1").await.unwrap(),
            "delete" => foreign("delete user:1", "DELETED"),
            "set and delete" => {
                foreign("set user:1 0 0 7\r\nforeign", "STORED");
                foreign("delete user:1", "DELETED");
            }
            "flush_all" => foreign("flush_all", "OK"),
            "expiry" => foreign("touch user:1 -1", "TOUCHED"),
            _ => foreign("md user:1 I", "HD"),
        })
        .await;
        assert_eq!((old.value.as_str(), old.stored), ("old", Stored::FencedOff), "{how}");
        let now = bounded(read(&cache, users.clone())).await;
        assert_eq!((now.value.as_str(), now.source, now.stored), ("new", Source::Load, Stored::Yes), "{how}");
        let again = bounded(read(&cache, users)).await;
        assert_eq!((again.value.as_str(), again.source), ("new", Source::Cache), "{how}");
        server.command("delete user:1");
    }
}

#[tokio::test]
async fn a_late_fill_is_refused_after_a_restart() {
    let server = MemcachedServer::start();
    let (cache, users, old) = late_fill(&server, async |cache| {
        server.kill();
        server.restart();
        // Until the lost connection was noticed and replaced, the fill would fail for that reason alone.
        until("used again", Duration::from_secs(10), async || cache.backend().get("any").await.is_ok()).await;
    })
    .await;
    assert_eq!((old.value.as_str(), old.stored), ("old", Stored::FencedOff));
    assert_eq!(bounded(read(&cache, users)).await.value, "new");
}

#[tokio::test]
async fn a_lease_from_before_a_restart_is_void_though_its_number_is_given_again() {
    let server = MemcachedServer::start();
    let (first, second) = (backend(&server), backend(&server));
    let old = granted(&first, "key", None, LIFE).await;
    server.kill();
    server.restart();
    let new = until_granted(&second, "key").await;
    // The server counts from one again. What tells the two apart is not what it says.
    let number = |lease: &Lease| lease.token() & u128::from(u64::MAX);
    assert_eq!((number(&old), number(&new)), (1, 1));
    // Able to fill, were it allowed to.
    until("used again", Duration::from_secs(10), async || first.get("any").await.is_ok()).await;
    assert_eq!(first.fill("key", &old, Bytes::from("old"), None).await.unwrap(), Filled::Refused);
    assert_eq!(server.command("get key"), "VALUE key 0 0\r\n\r\nEND", "the stub of the other");
    first.release("key", &old).await.unwrap();
    assert_eq!(second.fill("key", &new, Bytes::from("new"), None).await.unwrap(), Filled::Stored);
    assert_eq!(first.fill("key", &old, Bytes::from("old"), None).await.unwrap(), Filled::Refused);
    assert_eq!(second.get("key").await.unwrap().unwrap(), "new");
}

/// Takes the lease of an absent key as soon as the server can be used.
async fn until_granted(backend: &MemcachedBackend, key: &str) -> Lease {
    let began = Instant::now();
    loop {
        match backend.acquire(key, None, LIFE).await {
            Ok(Acquired::Granted { lease, .. }) => return lease,
            Ok(other) => panic!("{other:?}"),
            Err(error) => assert!(began.elapsed() < Duration::from_secs(10), "{error:?}"),
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn a_late_fill_is_refused_when_the_stub_has_expired() {
    let server = MemcachedServer::start();
    let (backend, other) = (backend(&server), backend(&server));
    let late = granted(&backend, "key", None, Duration::from_millis(1)).await;
    let later = granted(&backend, "taken", None, Duration::from_millis(1)).await;
    let gone = async || server.command("mg key") == "EN";
    let took = until("the stub expires", Duration::from_secs(10), gone).await;
    println!("a stub with a life of 1 ms was gone after {took:?}");
    assert_eq!(backend.fill("key", &late, Bytes::from("late"), None).await.unwrap(), Filled::Refused);
    assert_eq!(server.command("mg key"), "EN", "nothing was stored");
    // Nor if somebody else has it by then.
    let mut next = None;
    until("the other stub expires", Duration::from_secs(10), async || {
        let acquired = other.acquire("taken", None, LIFE).await.unwrap();
        if let Acquired::Granted { lease, .. } = acquired {
            next = Some(lease);
        }
        next.is_some()
    })
    .await;
    assert_eq!(backend.fill("taken", &later, Bytes::from("late"), None).await.unwrap(), Filled::Refused);
    backend.release("taken", &later).await.unwrap();
    let filled = other.fill("taken", &next.unwrap(), Bytes::from("next"), None).await.unwrap();
    assert_eq!(filled, Filled::Stored);
}

#[tokio::test]
async fn a_foreign_write_is_not_overwritten_by_a_late_fill() {
    let server = MemcachedServer::start();
    let (cache, users, old) = late_fill(&server, async |_| {
        assert_eq!(server.command("set user:1 0 0 7\r\nforeign"), "STORED");
    })
    .await;
    assert_eq!(old.stored, Stored::FencedOff);
    assert_eq!(server.command("get user:1"), "VALUE user:1 0 7\r\nforeign\r\nEND");
    assert_eq!(cache.get::<String>("user:1").await.unwrap(), None, "not written by this library");
    assert_eq!(cache.stats().rejected.foreign, 1);
    // And it heals.
    let now = bounded(read(&cache, users.clone())).await;
    assert_eq!((now.value.as_str(), now.stored), ("new", Stored::Yes));
    assert_eq!(bounded(read(&cache, users)).await.source, Source::Cache);
}

#[tokio::test]
async fn a_lease_that_a_joining_reader_brings_does_not_let_an_older_load_store() {
    let server = MemcachedServer::start();
    let (cache, users, gate) = (Cache::new(backend(&server)), Users::with(&[(1, "old")]), Gate::new());
    let start = |users: Users| {
        let reader = cache.clone();
        tokio::spawn(async move { read(&reader, users).await })
    };
    let first = start(users.behind(&gate));
    bounded(gate.reached()).await;
    users.put(1, "new");
    // Somebody else's: this cache does not learn of it, and its readers go on joining the load. The next one finds the
    // key absent, and gets a lease with that.
    Cache::new(backend(&server)).invalidate("user:1").await.unwrap();
    let second = start(users.clone());
    until("joined", Duration::from_secs(10), async || cache.readers_waiting() == 2).await;
    assert!(server.command("mg user:1 s").starts_with("HD s0"), "the next reader has got a lease");
    gate.open();
    let first = bounded(first).await.unwrap();
    assert_eq!((first.value.as_str(), first.stored), ("old", Stored::FencedOff));
    assert_eq!(bounded(second).await.unwrap().value, "old");
    assert_eq!(cache.get::<String>("user:1").await.unwrap(), None, "stored by an older load");
    // The lease that nobody used is given back.
    let now = bounded(read(&cache, users)).await;
    assert_eq!((now.value.as_str(), now.source, now.stored), ("new", Source::Load, Stored::Yes));
}

#[tokio::test]
async fn a_batch_is_fenced_key_by_key() {
    let server = MemcachedServer::start();
    let (cache, gate) = (Cache::new(backend(&server)), Gate::new());
    let (reader, at) = (cache.clone(), gate.clone());
    let batch = tokio::spawn(async move {
        let load = move |missing: Vec<String>| {
            let at = at.clone();
            async move {
                at.pass().await;
                Ok::<_, std::io::Error>(
                    missing.into_iter().map(|key| (key, "old".to_owned())).collect::<Vec<_>>(),
                )
            }
        };
        reader.get_many_or_load_outcomes(["user:1", "user:2"], LoadOptions::default(), load).await.unwrap()
    });
    bounded(gate.reached()).await;
    assert_eq!(server.command("delete user:1"), "DELETED");
    gate.open();
    let stored: Vec<_> = bounded(batch).await.unwrap().into_iter().map(|read| read.unwrap().stored).collect();
    assert_eq!(stored, [Stored::FencedOff, Stored::Yes]);
    assert_eq!(cache.get::<String>("user:1").await.unwrap(), None);
    assert_eq!(cache.get::<String>("user:2").await.unwrap().as_deref(), Some("old"));
}

#[tokio::test]
async fn what_somebody_marks_stale_is_a_miss_and_loaded_anew() {
    let server = MemcachedServer::start();
    // The first to see the mark is told another thing than those who come after.
    for before in ["nothing", "get", "exists"] {
        let (cache, users) = (Cache::new(backend(&server)), Users::with(&[(1, "old")]));
        assert_eq!(read(&cache, users.clone()).await.stored, Stored::Yes);
        users.put(1, "new");
        assert_eq!(server.command("md user:1 I"), "HD");
        match before {
            "get" => assert_eq!(cache.get::<String>("user:1").await.unwrap(), None),
            "exists" => assert!(!cache.backend().exists("user:1").await.unwrap()),
            _ => {}
        }
        let now = bounded(read(&cache, users.clone())).await;
        assert_eq!(
            (now.value.as_str(), now.source, now.stored),
            ("new", Source::Load, Stored::Yes),
            "{before}"
        );
        assert_eq!(bounded(read(&cache, users)).await.source, Source::Cache, "{before}");
        server.command("delete user:1");
    }
}

#[tokio::test]
async fn a_lease_that_somebody_marks_stale_keeps_nobody_from_filling() {
    let server = MemcachedServer::start();
    let (cache, users, old) = late_fill(&server, async |cache| {
        assert_eq!(server.command("md user:1 I"), "HD");
        // The server tells one reader that it has won the right to load, and this is one that does not.
        assert_eq!(cache.get::<String>("user:1").await.unwrap(), None);
    })
    .await;
    assert_eq!(old.stored, Stored::FencedOff);
    let now = bounded(read(&cache, users)).await;
    assert_eq!((now.value.as_str(), now.source, now.stored), ("new", Source::Load, Stored::Yes));
}

#[tokio::test]
async fn a_stale_value_stays_readable_and_keeps_its_life_while_it_is_leased() {
    let server = MemcachedServer::start();
    let backend = backend(&server);
    for (key, ttl) in [("limited", Some(Duration::from_secs(100))), ("unlimited", None)] {
        let seen = Bytes::from("stale");
        backend.set(key, seen.clone(), ttl).await.unwrap();
        let flags = told(&server, key, 'f');
        let same_life = |when: &str| {
            let left = told(&server, key, 't');
            match ttl {
                Some(_) => assert!((90..=102).contains(&left), "{when}: {left}"),
                None => assert_eq!(left, -1, "{when}"),
            }
        };
        same_life("stored");
        let lease = granted(&backend, key, Some(&seen), LIFE).await;
        same_life("leased");
        assert_eq!(told(&server, key, 'f') & 0xff, 0, "the bits of others");
        assert_eq!(backend.get(key).await.unwrap(), Some(seen.clone()));
        assert!(backend.exists(key).await.unwrap());
        assert_eq!(backend.mget(&[key]).await.unwrap(), [Some(seen.clone())]);
        backend.release(key, &lease).await.unwrap();
        same_life("released");
        assert_eq!(server.command(&format!("get {key}")), format!("VALUE {key} {flags} 5\r\nstale\r\nEND"));
        assert_eq!(
            backend.fill(key, &lease, Bytes::from("late"), None).await.unwrap(),
            Filled::Refused,
            "given back"
        );
    }
}

#[tokio::test]
async fn a_value_of_another_client_comes_out_of_a_lease_as_it_was() {
    let server = MemcachedServer::start();
    let (backend, seen) = (backend(&server), Bytes::from("theirs"));
    // 16 is what Python's clients note for text; 0xffff_ffff has every bit that means something to us.
    for flags in ["0", "16", "4294967295"] {
        assert_eq!(server.command(&format!("set key {flags} 0 6\r\ntheirs")), "STORED");
        let lease = granted(&backend, "key", Some(&seen), LIFE).await;
        assert_eq!(backend.get("key").await.unwrap(), Some(seen.clone()), "{flags}");
        backend.release("key", &lease).await.unwrap();
        assert_eq!(server.command("get key"), format!("VALUE key {flags} 6\r\ntheirs\r\nEND"));
    }
}

#[tokio::test]
async fn a_lease_over_a_value_ends_by_its_own_time_and_the_next_may_have_it() {
    let server = MemcachedServer::start();
    let (first, second) = (backend(&server), backend(&server));
    let (seen, life) = (Bytes::from("stale"), Duration::from_millis(300));
    first.set("key", seen.clone(), None).await.unwrap();
    let began = Instant::now();
    let late = granted(&first, "key", Some(&seen), life).await;
    let mut next = None;
    until("the lease ends", 5 * life, async || {
        match second.acquire("key", Some(&seen), LIFE).await.unwrap() {
            Acquired::Granted { lease, kept } => {
                assert_eq!(kept.as_ref(), Some(&seen));
                next = Some(lease);
            }
            Acquired::Busy { kept } => assert_eq!(kept.as_ref(), Some(&seen)),
            other => panic!("{other:?}"),
        }
        next.is_some()
    })
    .await;
    assert!(began.elapsed() >= life - Duration::from_millis(1), "{:?}", began.elapsed());
    assert_eq!(first.fill("key", &late, Bytes::from("late"), None).await.unwrap(), Filled::Refused);
    first.release("key", &late).await.unwrap();
    assert_eq!(second.get("key").await.unwrap(), Some(seen));
    let filled = second.fill("key", &next.unwrap(), Bytes::from("fresh"), None).await.unwrap();
    assert_eq!(filled, Filled::Stored);
    assert_eq!(first.get("key").await.unwrap().unwrap(), "fresh");
}

#[tokio::test]
async fn a_lease_over_a_value_is_void_after_its_life_though_nobody_else_has_it() {
    let server = MemcachedServer::start();
    let (backend, seen, life) = (backend(&server), Bytes::from("stale"), Duration::from_millis(100));
    backend.set("key", seen.clone(), None).await.unwrap();
    let late = granted(&backend, "key", Some(&seen), life).await;
    // Nothing shows the end of it but time.
    tokio::time::sleep(life + backend.capabilities().ttl_resolution + Duration::from_millis(50)).await;
    assert_eq!(backend.fill("key", &late, Bytes::from("late"), None).await.unwrap(), Filled::Refused);
    assert_eq!(backend.get("key").await.unwrap(), Some(seen));
}

#[tokio::test]
async fn a_lease_over_a_value_holds_for_all_of_its_life() {
    let server = MemcachedServer::start();
    let (backend, seen, life) = (backend(&server), Bytes::from("stale"), Duration::from_millis(40));
    let mut in_time = 0;
    for _ in 0..40 {
        backend.set("key", seen.clone(), None).await.unwrap();
        let began = Instant::now();
        let lease = granted(&backend, "key", Some(&seen), life).await;
        let filled = backend.fill("key", &lease, Bytes::from("fresh"), None).await.unwrap();
        // A machine that stood still meanwhile proves nothing.
        if began.elapsed() < life {
            assert_eq!(filled, Filled::Stored, "after {:?} of {life:?}", began.elapsed());
            in_time += 1;
        }
        // Not always at the same place in a tick of whatever clock.
        tokio::time::sleep(Duration::from_millis(7)).await;
    }
    assert!(in_time > 0);
}

#[tokio::test]
async fn values_of_other_clients_are_read_and_stubs_are_not() {
    let server = MemcachedServer::start();
    let backend = backend(&server);
    server.command("set theirs 0 0 5\r\nhello");
    assert_eq!(backend.get("theirs").await.unwrap().unwrap(), "hello");
    assert_eq!(backend.mget(&["theirs"]).await.unwrap(), [Some(Bytes::from("hello"))]);
    assert_eq!(
        backend.acquire("theirs", None, LIFE).await.unwrap(),
        Acquired::Present { value: Bytes::from("hello") }
    );
    // Empty, and written by us: a value.
    backend.set("empty", Bytes::new(), None).await.unwrap();
    assert_eq!(backend.get("empty").await.unwrap(), Some(Bytes::new()));
    assert_eq!(backend.mget(&["empty"]).await.unwrap(), [Some(Bytes::new())]);
    assert!(backend.exists("empty").await.unwrap());
    // Empty, and a lease: nothing.
    let lease = granted(&backend, "leased", None, LIFE).await;
    assert_eq!(server.command("get leased"), "VALUE leased 0 0\r\n\r\nEND");
    assert_eq!(backend.get("leased").await.unwrap(), None);
    assert_eq!(backend.mget(&["leased", "theirs"]).await.unwrap(), [None, Some(Bytes::from("hello"))]);
    assert!(!backend.exists("leased").await.unwrap());
    backend.release("leased", &lease).await.unwrap();
    assert_eq!(server.command("mg leased"), "EN", "given back");
}

#[tokio::test]
async fn an_empty_value_of_another_client_keeps_nobody_from_filling() {
    let server = MemcachedServer::start();
    assert_eq!(server.command("set user:1 0 0 0\r\n"), "STORED");
    let (cache, users) = (Cache::new(backend(&server)), Users::with(&[(1, "row")]));
    let now = bounded(read(&cache, users.clone())).await;
    assert_eq!((now.value.as_str(), now.source, now.stored), ("row", Source::Load, Stored::Yes));
    assert_eq!(bounded(read(&cache, users)).await.source, Source::Cache);
}

#[tokio::test]
async fn client_flags_are_never_zero_and_leave_the_low_bits_to_others() {
    let server = MemcachedServer::start();
    let backend = backend(&server);
    backend.set("set", Bytes::from("v"), None).await.unwrap();
    let entry = SetEntry { key: "mset", value: Bytes::new(), ttl: Some(LIFE) };
    backend.mset(&[entry]).await.unwrap();
    let lease = granted(&backend, "fill", None, LIFE).await;
    assert_eq!(backend.fill("fill", &lease, Bytes::from("v"), None).await.unwrap(), Filled::Stored);
    let exact = Policy::default().with_ttl_jitter(0.0);
    let cache = Cache::builder().policy(exact).build(backend).unwrap();
    cache.set("cache", &"Ada".to_owned()).await.unwrap();
    for key in ["set", "mset", "fill", "cache"] {
        let flags = told(&server, key, 'f');
        assert!(flags > 0 && flags & 0xff == 0, "{key}: {flags:#x}");
    }
    assert_eq!(server.command("get set").lines().nth(1), Some("v"), "values are stored as they are");
    assert!(server.command("get cache").contains("CKIT"));
    let left = told(&server, "cache", 't');
    assert!((290..=302).contains(&left), "five minutes by default, in seconds: {left}");
}

#[tokio::test]
async fn a_ttl_of_half_a_second_is_neither_cut_nor_endless() {
    let server = MemcachedServer::start();
    let backend = backend(&server);
    let began = Instant::now();
    backend.set("key", Bytes::from("v"), Some(Duration::from_millis(500))).await.unwrap();
    let gone = async || backend.get("key").await.unwrap().is_none();
    until("it expires", Duration::from_secs(10), gone).await;
    let lived = began.elapsed();
    println!("a ttl of 500 ms lived {lived:?}");
    assert!(lived >= Duration::from_millis(500) && lived <= Duration::from_millis(2_600), "{lived:?}");
}

#[tokio::test]
async fn a_ttl_of_40_days_is_no_date_and_the_longest_one_never_ends() {
    let server = MemcachedServer::start();
    let backend = backend(&server);
    for way in ["set", "fill"] {
        let began = Instant::now();
        let ttl = Some(Duration::from_secs(40 * DAY));
        match way {
            "set" => backend.set("days", Bytes::from("v"), ttl).await.unwrap(),
            _ => {
                backend.delete("days").await.unwrap();
                let lease = granted(&backend, "days", None, LIFE).await;
                let filled = backend.fill("days", &lease, Bytes::from("v"), ttl).await.unwrap();
                assert_eq!(filled, Filled::Stored);
            }
        }
        let left = u64::try_from(told(&server, "days", 't')).unwrap() - server.clock_behind();
        // Since then the server's clock may have moved on; and it began with a whole second, so it may be off by one.
        let since = began.elapsed().as_secs() + 1;
        assert!(left + since > 40 * DAY && left <= 40 * DAY + 3, "{way}: {left}");
        assert_eq!(backend.get("days").await.unwrap().unwrap(), "v");
    }
    backend.set("ever", Bytes::from("v"), Some(Duration::MAX)).await.unwrap();
    assert_eq!(told(&server, "ever", 't'), -1);
    backend.set("none", Bytes::from("v"), None).await.unwrap();
    assert_eq!(told(&server, "none", 't'), -1);
    // A lease over a value with 40 days left keeps them.
    let seen = Bytes::from("v");
    let lease = granted(&backend, "days", Some(&seen), LIFE).await;
    let left = u64::try_from(told(&server, "days", 't')).unwrap() - server.clock_behind();
    assert!((40 * DAY - 60..=40 * DAY + 2).contains(&left), "{left}");
    backend.release("days", &lease).await.unwrap();
    let left = u64::try_from(told(&server, "days", 't')).unwrap() - server.clock_behind();
    assert!((40 * DAY - 60..=40 * DAY + 2).contains(&left), "{left}");
}
