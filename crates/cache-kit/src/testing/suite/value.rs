//! Values and keys.

use bytes::Bytes;

use super::{Subject, get, ok, put};
use crate::backend::{CacheBackend, Peek};

/// A missing key is `Ok(None)`.
pub async fn a_missing_key_is_none<B: CacheBackend>(subject: &Subject<B>) {
    assert_eq!(get(subject, "missing").await, None);
}

/// Values come back byte for byte, empty and binary ones included.
pub async fn a_value_comes_back_byte_for_byte<B: CacheBackend>(subject: &Subject<B>) {
    let all_bytes: Vec<u8> = (0..=255).collect();
    let values: [&[u8]; 6] = [b"", b"plain", b" spaces \t", b"line\r\nEND\r\n", b"\0", &all_bytes];
    for (at, value) in values.into_iter().enumerate() {
        let key = format!("value:{at}");
        put(subject, &key, value.to_vec()).await;
        assert_eq!(get(subject, &key).await.as_deref(), Some(value));
    }
}

/// A later `set` replaces the value.
pub async fn an_overwrite_replaces_the_value<B: CacheBackend>(subject: &Subject<B>) {
    put(subject, "key", "a longer first value").await;
    put(subject, "key", "second").await;
    assert_eq!(get(subject, "key").await.as_deref(), Some(&b"second"[..]));
}

/// 900 kB come back whole, unless the backend says that it takes less.
pub async fn a_large_value_comes_back<B: CacheBackend>(subject: &Subject<B>) {
    let value: Vec<u8> = (0..900_000_u32).map(|n| n.to_le_bytes()[n as usize % 3]).collect();
    let value = Bytes::from(value);
    let limit = subject.backend().capabilities().max_value_bytes;
    let stored = subject.backend().set("large", value.clone(), None).await;
    if limit.is_some_and(|limit| value.len() > limit) {
        let error = stored.expect_err("more than capabilities() allows was taken");
        assert_eq!(error.kind(), crate::ErrorKind::TooLarge);
    } else {
        ok(stored);
        assert!(get(subject, "large").await == Some(value), "the large value came back changed");
    }
}

/// Keys may be any string but the empty one.
pub async fn awkward_keys_are_keys_like_any_other<B: CacheBackend>(subject: &Subject<B>) {
    put(subject, "sentinel", "untouched").await;
    let long = "k".repeat(10_000);
    let at_limit = "k".repeat(250);
    let keys = [
        " ",
        "with space",
        "tab\t",
        "crlf\r\nflush_all\r\n",
        "\r\n",
        "nul\0byte",
        "größe",
        "日本語",
        "{tag}rest",
        "{",
        "}",
        "%s%n",
        "*",
        "?",
        "[a-z]",
        "\\",
        "'\"`$(reboot)",
        "\u{7f}",
        "\u{feff}",
        "a:b/c",
        &at_limit,
        &long,
    ];
    for (at, key) in keys.iter().enumerate() {
        put(subject, key, format!("value {at}")).await;
    }
    for (at, key) in keys.iter().enumerate() {
        let expected = format!("value {at}");
        assert_eq!(get(subject, key).await.as_deref(), Some(expected.as_bytes()), "under {key:?}");
        ok(subject.backend().delete(key).await);
        assert_eq!(get(subject, key).await, None, "after the delete of {key:?}");
    }
    assert_eq!(get(subject, "sentinel").await.as_deref(), Some(&b"untouched"[..]));
}

/// Keys that differ only in what a protocol might trim or fold are different keys.
pub async fn keys_that_look_alike_do_not_meet<B: CacheBackend>(subject: &Subject<B>) {
    let long = "x".repeat(400);
    let (longer, last) = (format!("{long}x"), format!("{}y", &long[1..]));
    let keys = ["a", "A", "a ", " a", "a\n", "a\0", "a\0b", "ä", "a\u{308}", &long, &longer, &last];
    for (at, key) in keys.iter().enumerate() {
        put(subject, key, format!("{at}")).await;
    }
    for (at, key) in keys.iter().enumerate() {
        assert_eq!(get(subject, key).await.as_deref(), Some(format!("{at}").as_bytes()), "under {key:?}");
    }
}

/// A deleted key is `Ok(None)`.
pub async fn a_deleted_key_is_none<B: CacheBackend>(subject: &Subject<B>) {
    put(subject, "key", "value").await;
    put(subject, "other", "value").await;
    ok(subject.backend().delete("key").await);
    assert_eq!(get(subject, "key").await, None);
    assert!(get(subject, "other").await.is_some());
}

/// Deleting an absent key is fine.
pub async fn deleting_an_absent_key_is_fine<B: CacheBackend>(subject: &Subject<B>) {
    ok(subject.backend().delete("absent").await);
    ok(subject.backend().delete("absent").await);
}

/// `exists` is true exactly if `get` would return a value.
pub async fn exists_tells_what_get_would_find<B: CacheBackend>(subject: &Subject<B>) {
    assert!(!ok(subject.backend().exists("key").await));
    put(subject, "key", "").await;
    assert!(ok(subject.backend().exists("key").await), "an empty value is a value");
    ok(subject.backend().delete("key").await);
    assert!(!ok(subject.backend().exists("key").await));
}

/// `peek` answers as `get` would, or that it does not know.
pub async fn peek_tells_what_get_would_find<B: CacheBackend>(subject: &Subject<B>) {
    let peek = |key| subject.backend().peek(key);
    assert!(matches!(peek("key"), Peek::Miss | Peek::Unknown));
    put(subject, "key", "value").await;
    assert!(matches!(peek("key"), Peek::Hit(value) if value == "value") || peek("key") == Peek::Unknown);
    ok(subject.backend().delete("key").await);
    assert!(matches!(peek("key"), Peek::Miss | Peek::Unknown));
}

/// A backend that answers says that it is healthy.
pub async fn a_healthy_backend_says_so<B: CacheBackend>(subject: &Subject<B>) {
    assert!(ok(subject.backend().health_check().await));
}

/// Capabilities are constant, and name the backend.
pub async fn capabilities_do_not_change<B: CacheBackend>(subject: &Subject<B>) {
    let before = subject.backend().capabilities();
    put(subject, "key", "value").await;
    assert_eq!(subject.backend().capabilities(), before);
    assert!(!before.name.is_empty() && before.name == before.name.to_lowercase());
}
