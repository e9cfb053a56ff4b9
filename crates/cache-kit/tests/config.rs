//! Configuration by URL, builder and environment: what is wrong is named.

use std::process::Command;
use std::time::Duration;

use cache_kit::backend::{CacheBackend, InMemoryBackend};
use cache_kit::{Cache, ErrorKind, ManualClock, Policy, TtlPolicy, backend};
use cache_kit_test_support::MemcachedServer;

#[tokio::test]
async fn one_url_sets_backend_and_cache() {
    let cache =
        Cache::from_url("memory://?max_entries=10k&ttl=5m&namespace=shop&codec=json&max_value=1kb").unwrap();
    cache.set("user:1", &"Ada".to_owned()).await.unwrap();
    let entry = cache.backend().get("shop/user:1").await.unwrap().unwrap();
    assert_eq!(&entry[80..], br#""Ada""#);
    assert_eq!(cache.set("big", &"x".repeat(1000)).await.unwrap_err().kind(), ErrorKind::TooLarge);
    cache.clear().await.unwrap();
    assert_eq!(cache.get::<String>("user:1").await.unwrap(), None);
}

#[tokio::test]
async fn what_the_url_sets_wins_over_the_builder() {
    let cache = Cache::builder().namespace("mine").build_url("memory://").unwrap();
    cache.set("k", &1).await.unwrap();
    assert!(cache.backend().exists("mine/k").await.unwrap());
    let cache = Cache::builder().namespace("mine").build_url("memory://?namespace=theirs").unwrap();
    cache.set("k", &1).await.unwrap();
    assert!(cache.backend().exists("theirs/k").await.unwrap());
}

#[tokio::test]
async fn a_store_in_memory_that_a_url_names_lives_by_the_clock_of_the_cache() {
    let time = ManualClock::new();
    let policy = Policy::default().with_ttl(Duration::from_secs(60)).with_ttl_jitter(0.0);
    let cache = Cache::builder().clock(time.clock()).policy(policy).build_url("memory://").unwrap();
    cache.set("k", &1).await.unwrap();
    time.advance(Duration::from_secs(60) - Duration::from_millis(1));
    assert_eq!(cache.get::<i32>("k").await.unwrap(), Some(1));
    time.advance(Duration::from_millis(1));
    assert_eq!(cache.get::<i32>("k").await.unwrap(), None);
}

#[test]
fn what_is_wrong_with_a_url_is_named() {
    for (url, names) in [
        ("memory://?ttl=0s", "ttl is zero"),
        ("memory://?ttl=5", "`ttl` cannot be read"),
        ("memory://?ttl=soon", "`ttl` cannot be read"),
        ("memory://?namespace=a/b", "namespace"),
        ("memory://?namespace=", "namespace"),
        ("memory://?codec=xml", "`codec`"),
        ("memory://?max_value=1", "max_value_bytes"),
        ("memory://?max_entries=many", "`max_entries`"),
        ("memory://?maxentries=1", "unknown URL parameter `maxentries`"),
        ("memory://h", "no host"),
        ("memcached://h/0", "no path"),
        ("memcached://h:port", "port"),
        ("memcached://h,h", "are the same"),
        ("memcached://h?pool_size=4", "`pool_size`"),
        ("memcached://h?min_connections=20", "min_connections"),
        ("memcached://h?ttl=0s", "ttl is zero"),
        ("memcached+udp://h", "`memcached+udp`"),
        ("gopher://h", "`gopher`"),
        ("", "no scheme"),
    ] {
        let error = Cache::from_url(url).unwrap_err();
        assert!(error.kind() == ErrorKind::Config && error.to_string().contains(names), "{url}: {error}");
    }
    assert!(Cache::from_url("memory://?ttl=none").is_ok());
}

#[test]
fn what_is_wrong_with_a_setting_is_named() {
    let backend = InMemoryBackend::new;
    for (builder, names) in [
        (Cache::builder().ttl(Duration::ZERO), "ttl"),
        (Cache::builder().ttl_policy(TtlPolicy::Fixed(Duration::ZERO)), "ttl"),
        (Cache::builder().namespace("a b"), "namespace"),
        (Cache::builder().max_value_bytes(0), "max_value_bytes"),
    ] {
        let error = builder.build(backend()).unwrap_err();
        assert!(error.kind() == ErrorKind::Config && error.to_string().contains(names), "{error}");
    }
    let expander = cache_kit::CacheExpander::new(backend());
    assert!(expander.with_namespace("a b").is_err());
}

#[tokio::test]
async fn clearing_a_cache_without_a_namespace_removes_nothing_of_others() {
    let backend = InMemoryBackend::new();
    let (cache, other) = (Cache::new(backend.clone()), Cache::builder().namespace("other"));
    let other = other.build(backend.clone()).unwrap();
    backend.set("somebody's", "own".into(), None).await.unwrap();
    cache.set("k", &1).await.unwrap();
    other.set("k", &2).await.unwrap();
    cache.clear().await.unwrap();
    assert_eq!(cache.get::<i32>("k").await.unwrap(), None);
    assert_eq!(other.get::<i32>("k").await.unwrap(), Some(2));
    assert_eq!(backend.get("somebody's").await.unwrap().as_deref(), Some(&b"own"[..]));
}

#[tokio::test]
async fn bad_arguments_are_refused_by_name() {
    let cache = Cache::new(InMemoryBackend::new());
    assert!(cache.get::<i32>("").await.unwrap_err().to_string().contains("the key is empty"));
    assert!(cache.invalidate("").await.is_err());
    let zero = cache_kit::LoadOptions::default().with_ttl(Duration::ZERO);
    assert!(cache.set_with("k", zero, &1).await.unwrap_err().to_string().contains("ttl is zero"));
    let fresh = cache_kit::LoadOptions::default().with_strategy(cache_kit::CacheStrategy::Fresh);
    let found = cache.get_or_load_with("k", fresh, || async { Ok::<i32, std::io::Error>(1) }).await;
    assert!(found.unwrap_err().to_string().contains("use Cache::get"));
}

/// Prints what the environment selects; run by the test below in processes with environments of their own.
#[test]
fn child_that_prints_what_the_environment_selects() {
    if std::env::var_os("CACHE_KIT_TEST_CHILD").is_none() {
        return;
    }
    match (backend::from_env(), Cache::from_env()) {
        (Ok(backend), Ok(cache)) => println!("[{} {:?}]", backend.capabilities().name, cache),
        (Err(error), Err(_)) => println!("[error: {error}]"),
        _ => println!("[they differ]"),
    }
}

#[test]
fn the_environment_selects_the_backend() {
    let selected = |vars: &[(&str, &str)]| {
        let mut child = Command::new(std::env::current_exe().unwrap());
        child.args(["--exact", "child_that_prints_what_the_environment_selects", "--nocapture"]);
        for name in ["CACHE_URL", "CACHE_BACKEND", "MEMCACHED_SERVERS"] {
            child.env_remove(name);
        }
        let output = child.env("CACHE_KIT_TEST_CHILD", "1").envs(vars.iter().copied()).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (from, to) = (text.find('[').unwrap(), text.rfind(']').unwrap());
        text[from..=to].to_owned()
    };
    assert!(selected(&[]).starts_with("[memory Cache"));
    assert!(selected(&[("CACHE_BACKEND", "memory")]).starts_with("[memory"));
    assert!(selected(&[("CACHE_BACKEND", "")]).starts_with("[memory"), "empty is not set");
    assert!(selected(&[("CACHE_URL", "memory://"), ("CACHE_BACKEND", "nonsense")]).starts_with("[memory"));
    assert!(
        selected(&[("CACHE_BACKEND", "nonsense")]).starts_with("[error: bad configuration: CACHE_BACKEND")
    );
    assert!(selected(&[("CACHE_URL", "memory://?max_entries=0")]).contains("max_entries is zero"));
    let memcached = |servers| selected(&[("CACHE_BACKEND", "memcached"), ("MEMCACHED_SERVERS", servers)]);
    assert!(memcached("cache-1:11211").starts_with("[memcached Cache"));
    assert!(memcached("cache-1, cache-2:11212,[::1]:11213").starts_with("[memcached Cache"));
    for (servers, names) in [
        ("cache-1:port", "port"),
        ("a,a", "are the same"),
        ("cache-1,", "MEMCACHED_SERVERS"),
        ("a:1,,b:2", "no host"),
    ] {
        let refused = memcached(servers);
        assert!(refused.starts_with("[error: bad configuration: MEMCACHED_SERVERS"), "{servers}: {refused}");
        assert!(refused.contains(names), "{servers}: {refused}");
    }
    for missing in
        [&[("CACHE_BACKEND", "memcached")][..], &[("CACHE_BACKEND", "memcached"), ("MEMCACHED_SERVERS", "")]]
    {
        let refused = selected(missing);
        assert!(refused.starts_with("[error: bad configuration: MEMCACHED_SERVERS is not set"), "{refused}");
    }
    assert!(
        selected(&[("CACHE_URL", "memcached://h:1,h:2"), ("CACHE_BACKEND", "redis")])
            .starts_with("[memcached")
    );
    let refused = selected(&[("CACHE_URL", "memcached://me:hunter2@h?min_connections=20")]);
    assert!(refused.contains("CACHE_URL") && refused.contains("min_connections"), "{refused}");
    assert!(!refused.contains("hunter2"), "{refused}");
}

#[tokio::test]
async fn a_url_selects_memcached_for_backend_and_cache() {
    let servers = [MemcachedServer::start(), MemcachedServer::start()];
    let addrs = servers.each_ref().map(|server| server.addr()).join(",");
    let chosen = backend::from_url(&format!("memcached://{addrs}")).unwrap();
    assert_eq!(chosen.capabilities().name, "memcached");
    assert!(chosen.health_check().await.unwrap());
    let url = format!("memcached://{addrs}?ttl=1m&namespace=shop&max_connections=2&prefix=test:");
    let cache = Cache::from_url(&url).unwrap();
    cache.set("user:1", &1_u8).await.unwrap();
    assert_eq!(cache.get::<u8>("user:1").await.unwrap(), Some(1));
    let stored = servers.iter().filter(|server| server.command("mg test:shop/user:1") != "EN").count();
    assert_eq!(stored, 1, "under the prefix, in the namespace, on one server");
    assert_eq!(
        chosen.get("test:shop/user:1").await.unwrap(),
        cache.backend().get("shop/user:1").await.unwrap()
    );
    assert!(
        backend::from_url("memcached://h?ttl=1m")
            .is_err_and(|error| error.to_string().contains("Cache::from_url"))
    );
}

#[tokio::test]
async fn a_url_reaches_memcached_over_tls_by_a_unix_socket_and_with_a_login() {
    let secure = MemcachedServer::builder().tls().auth("me", "secret").start();
    let roots = secure.ca_certificate();
    let secure_url = format!("{}?tls_roots={}", secure.url(), roots.display());
    let local = MemcachedServer::builder().unix_socket().start();
    for url in [secure_url, local.url()] {
        let cache = Cache::from_url(&url).unwrap();
        cache.set("user:1", &1_u8).await.unwrap();
        assert_eq!(
            cache.get::<u8>("user:1").await.unwrap(),
            Some(1),
            "{}",
            cache.backend().capabilities().name
        );
    }
}
