//! Many keys at once.

use std::time::Duration;

use bytes::Bytes;

use super::{Subject, get, ok, put};
use crate::ErrorKind;
use crate::backend::{Acquired, CacheBackend, SetEntry};

/// `mget` answers once per key, in order; a key asked for twice is answered twice.
pub async fn mget_answers_in_order_with_duplicates_and_misses<B: CacheBackend>(subject: &Subject<B>) {
    put(subject, "a", "1").await;
    put(subject, "b c", "2").await;
    put(subject, "empty", "").await;
    let keys = ["b c", "missing", "a", "a", "empty", "b c"];
    let expected: Vec<_> = [Some("2"), None, Some("1"), Some("1"), Some(""), Some("2")]
        .into_iter()
        .map(|value| value.map(Bytes::from))
        .collect();
    assert_eq!(ok(subject.backend().mget(&keys).await), expected);
    let each = ok(subject.backend().mget_each(&keys).await);
    assert_eq!(each.into_iter().map(ok).collect::<Vec<_>>(), expected);
}

/// `mget` of an empty list is an empty answer; `mset` and `mdelete` of one do nothing.
pub async fn mget_of_nothing_is_nothing<B: CacheBackend>(subject: &Subject<B>) {
    assert_eq!(ok(subject.backend().mget(&[]).await), Vec::<Option<Bytes>>::new());
    assert!(ok(subject.backend().mget_each(&[]).await).is_empty());
    ok(subject.backend().mset(&[]).await);
    ok(subject.backend().mdelete(&[]).await);
}

/// `mset` writes each entry as `set` would; the last of two with one key stays.
pub async fn mset_writes_each_entry_with_its_own_life<B: CacheBackend>(subject: &Subject<B>) {
    let entry = |key, value: &'static str, ttl| SetEntry { key, value: Bytes::from(value), ttl };
    let short = Duration::from_millis(300);
    ok(subject
        .backend()
        .mset(&[
            entry("stays", "1", None),
            entry("goes", "2", Some(short)),
            entry("twice", "3", None),
            entry("twice", "4", None),
        ])
        .await);
    assert_eq!(get(subject, "twice").await.as_deref(), Some(&b"4"[..]));
    subject.pass(short + subject.backend().capabilities().ttl_resolution + Duration::from_millis(50)).await;
    assert_eq!(get(subject, "stays").await.as_deref(), Some(&b"1"[..]));
    assert_eq!(get(subject, "goes").await, None);
    let zero = subject.backend().mset(&[entry("zero", "5", Some(Duration::ZERO))]).await;
    assert_eq!(zero.expect_err("a ttl of zero was taken").kind(), ErrorKind::InvalidInput);
}

/// Of many entries with one key, `mset` leaves the last, whatever way each takes to the server.
pub async fn mset_leaves_the_last_of_many_with_one_key<B: CacheBackend>(subject: &Subject<B>) {
    let values: Vec<String> = (0..200).map(|n| n.to_string()).collect();
    for round in 0..20 {
        let key = format!("key:{round}");
        let entry = |value: &String| SetEntry { key: &key, value: Bytes::from(value.clone()), ttl: None };
        let entries: Vec<_> = values.iter().map(entry).collect();
        ok(subject.backend().mset(&entries).await);
        assert_eq!(get(subject, &key).await.as_deref(), Some(&b"199"[..]));
    }
}

/// `mdelete` removes the keys that are there; absent ones are fine.
pub async fn mdelete_removes_what_is_there<B: CacheBackend>(subject: &Subject<B>) {
    put(subject, "a", "1").await;
    put(subject, "b", "2").await;
    put(subject, "c", "3").await;
    ok(subject.backend().mdelete(&["a", "absent", "c", "a"]).await);
    assert_eq!(get(subject, "a").await, None);
    assert!(get(subject, "b").await.is_some());
    assert_eq!(get(subject, "c").await, None);
}

/// `delete_pattern` removes the keys that match, and only those; or it is a typed refusal that names the
/// backend.
pub async fn delete_pattern_removes_what_matches_or_says_that_it_cannot<B: CacheBackend>(
    subject: &Subject<B>,
) {
    for key in ["user:1", "user:2", "user:[x]", "users:1", "order:1"] {
        put(subject, key, "value").await;
    }
    let able = subject.backend().capabilities();
    let removed = subject.backend().delete_pattern("user:*").await;
    if !able.pattern_delete {
        let error = removed.expect_err("capabilities() say that there is no pattern delete");
        assert_eq!(error.kind(), ErrorKind::Unsupported);
        assert!(error.to_string().contains(able.name), "{error} does not name {}", able.name);
        assert!(get(subject, "user:1").await.is_some());
        return;
    }
    assert_eq!(ok(removed), 3);
    assert_eq!(get(subject, "user:1").await, None);
    assert!(get(subject, "users:1").await.is_some());
    // What is only leased is not a value, and not counted.
    let _ = ok(subject.backend().acquire("order:2", None, Duration::from_secs(5)).await);
    assert_eq!(ok(subject.backend().delete_pattern("order:[0-9]").await), 1);
    assert_eq!(ok(subject.backend().delete_pattern("order:\\*").await), 0);
}

/// After `clear_all` nothing is left; where it is not supported, all is.
pub async fn clear_all_leaves_nothing<B: CacheBackend>(subject: &Subject<B>) {
    let keys: Vec<String> = (0..100).map(|n| format!("key:{n}")).collect();
    for key in &keys {
        put(subject, key, "value").await;
    }
    let cleared = subject.backend().clear_all().await;
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    if cleared.as_ref().is_err_and(|error| error.kind() == ErrorKind::Unsupported) {
        assert!(ok(subject.backend().mget(&keys).await).iter().all(Option::is_some));
        return;
    }
    ok(cleared);
    assert_eq!(ok(subject.backend().mget(&keys).await), vec![None; 100]);
    put(subject, "key:0", "again").await;
    assert!(get(subject, "key:0").await.is_some());
    assert!(!matches!(
        ok(subject.backend().acquire("key:0", None, Duration::from_secs(5)).await),
        Acquired::Granted { .. }
    ));
}
