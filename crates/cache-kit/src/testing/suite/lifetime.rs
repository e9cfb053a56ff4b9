//! How long values live: at least as long as asked, at most the backend's resolution longer.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::{Subject, get, ok, put};
use crate::ErrorKind;
use crate::backend::CacheBackend;

/// Room for the time that the test itself takes.
const SLACK: Duration = Duration::from_millis(50);

async fn set<B: CacheBackend>(subject: &Subject<B>, key: &str, ttl: Duration) {
    ok(subject.backend().set(key, Bytes::from("value"), Some(ttl)).await);
}

/// A lifetime of zero is refused, and what was there stays.
pub async fn a_ttl_of_zero_is_an_error_and_changes_nothing<B: CacheBackend>(subject: &Subject<B>) {
    put(subject, "key", "value").await;
    let refused = subject.backend().set("key", Bytes::from("other"), Some(Duration::ZERO)).await;
    assert_eq!(refused.expect_err("a ttl of zero was taken").kind(), ErrorKind::InvalidInput);
    assert_eq!(get(subject, "key").await.as_deref(), Some(&b"value"[..]));
}

/// A very short life ends; it is not taken for an endless one.
pub async fn a_ttl_of_1_ms_ends<B: CacheBackend>(subject: &Subject<B>) {
    set(subject, "key", Duration::from_millis(1)).await;
    subject.pass(Duration::from_millis(1) + subject.backend().capabilities().ttl_resolution + SLACK).await;
    assert_eq!(get(subject, "key").await, None);
}

/// A life of less than a second neither ends early nor becomes an endless one.
pub async fn a_ttl_of_900_ms_is_kept<B: CacheBackend>(subject: &Subject<B>) {
    let ttl = Duration::from_millis(900);
    let began = Instant::now();
    set(subject, "key", ttl).await;
    subject.pass(Duration::from_millis(600)).await;
    let alive = get(subject, "key").await.is_some();
    // A machine that stood still meanwhile proves nothing either way.
    assert!(alive || (subject.is_real_time() && began.elapsed() >= ttl), "ended before its time");
    subject.pass(Duration::from_millis(300) + subject.backend().capabilities().ttl_resolution + SLACK).await;
    assert_eq!(get(subject, "key").await, None);
}

/// A life beyond thirty days is not taken for a date.
pub async fn a_ttl_of_40_days_is_kept<B: CacheBackend>(subject: &Subject<B>) {
    let day = Duration::from_secs(24 * 60 * 60);
    set(subject, "key", 40 * day).await;
    subject.pass(SLACK).await;
    assert!(get(subject, "key").await.is_some());
    if !subject.is_real_time() {
        subject.pass(40 * day - 2 * SLACK).await;
        assert!(get(subject, "key").await.is_some());
        subject.pass(2 * SLACK + subject.backend().capabilities().ttl_resolution).await;
        assert_eq!(get(subject, "key").await, None);
    }
}

/// `Duration::MAX` is a life that does not end.
pub async fn the_longest_ttl_does_not_end<B: CacheBackend>(subject: &Subject<B>) {
    for (key, ttl) in [("max", Duration::MAX), ("secs", Duration::from_secs(u64::MAX))] {
        set(subject, key, ttl).await;
        subject.pass(SLACK).await;
        assert!(get(subject, key).await.is_some(), "{key}");
    }
}

/// A later `set` replaces the lifetime, by a longer one, none, or a shorter one.
pub async fn an_overwrite_replaces_the_ttl<B: CacheBackend>(subject: &Subject<B>) {
    let (short, long) = (Duration::from_millis(200), Duration::from_secs(60));
    set(subject, "longer", short).await;
    set(subject, "longer", long).await;
    set(subject, "endless", short).await;
    put(subject, "endless", "value").await;
    set(subject, "shorter", long).await;
    set(subject, "shorter", short).await;
    subject.pass(short + subject.backend().capabilities().ttl_resolution + SLACK).await;
    assert!(get(subject, "longer").await.is_some());
    assert!(get(subject, "endless").await.is_some());
    assert_eq!(get(subject, "shorter").await, None);
}

/// An expired key is gone for every read, and free to be used again.
pub async fn an_expired_key_can_be_set_again<B: CacheBackend>(subject: &Subject<B>) {
    let short = Duration::from_millis(20);
    set(subject, "key", short).await;
    subject.pass(short + subject.backend().capabilities().ttl_resolution + SLACK).await;
    assert!(!ok(subject.backend().exists("key").await));
    assert_eq!(ok(subject.backend().mget(&["key"]).await), [None]);
    ok(subject.backend().delete("key").await);
    put(subject, "key", "again").await;
    assert_eq!(get(subject, "key").await.as_deref(), Some(&b"again"[..]));
}
