//! Tests without a need for control may be pointed at a running server.

use std::process::Command;

fn shared(kind: &str, variable: &str, value: &str) -> (String, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_hold-server"));
    let output = command.args([kind, "share"]).env(variable, value).output();
    let text = String::from_utf8(output.map(|output| output.stdout).unwrap_or_default()).unwrap_or_default();
    let mut lines = text.lines().map(str::to_owned);
    (lines.next().unwrap_or_default(), lines.next().unwrap_or_default())
}

#[test]
fn the_server_that_the_environment_names_is_used() {
    let (url, addr) = shared("redis", "CACHE_KIT_TEST_REDIS_URL", "redis://:secret@cache:6379/1");
    assert_eq!((url.as_str(), addr.as_str()), ("redis://:secret@cache:6379/1", "cache:6379"));
    let (url, addr) = shared("memcached", "CACHE_KIT_TEST_MEMCACHED", "cache:11211");
    assert_eq!((url.as_str(), addr.as_str()), ("memcached://cache:11211", "cache:11211"));
}

#[test]
fn without_a_name_or_with_an_empty_one_a_server_is_started() {
    for (kind, variable) in [("redis", "CACHE_KIT_TEST_REDIS_URL"), ("memcached", "CACHE_KIT_TEST_MEMCACHED")]
    {
        let (url, addr) = shared(kind, variable, "");
        assert!(addr.starts_with("127.0.0.1:"), "{addr}");
        assert_eq!(url, format!("{kind}://{addr}"));
    }
}
