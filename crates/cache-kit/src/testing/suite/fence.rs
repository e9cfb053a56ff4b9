//! The fence: whatever happens to a key voids its lease. A backend without a fence has to say so.

use std::time::Duration;

use bytes::Bytes;

use super::{Subject, get, ok, put};
use crate::ErrorKind;
use crate::backend::{Acquired, CacheBackend, Fence, Filled, Lease, Peek};

pub(super) const LIFE: Duration = Duration::from_secs(30);

/// A lease on an absent key; `None` if the backend has no fence, which is then checked to be what it says.
pub(super) async fn lease<B: CacheBackend>(subject: &Subject<B>, key: &str) -> Option<Lease> {
    match ok(subject.backend().acquire(key, None, LIFE).await) {
        Acquired::Granted { lease, kept: None } => Some(lease),
        Acquired::Unfenced => {
            assert_eq!(subject.backend().capabilities().fence, Fence::None);
            let refused = subject.backend().fill(key, &Lease::new(1), Bytes::from("late"), None).await;
            assert_eq!(refused.expect_err("filled without a fence").kind(), ErrorKind::Unsupported);
            None
        }
        other => panic!("no lease on the absent key {key:?}: {other:?}"),
    }
}

pub(super) async fn fill<B: CacheBackend>(
    subject: &Subject<B>,
    key: &str,
    lease: &Lease,
    value: &'static str,
) -> Filled {
    ok(subject.backend().fill(key, lease, Bytes::from(value), None).await)
}

pub(super) async fn is_granted<B: CacheBackend>(subject: &Subject<B>, key: &str) -> bool {
    matches!(ok(subject.backend().acquire(key, None, LIFE).await), Acquired::Granted { .. })
}

/// An absent key is leased to one caller.
pub async fn a_lease_is_granted_once<B: CacheBackend>(subject: &Subject<B>) {
    if lease(subject, "key").await.is_none() {
        return;
    }
    assert!(!is_granted(subject, "key").await);
    assert!(is_granted(subject, "another").await);
}

/// A lease is a miss to every read.
pub async fn a_lease_is_invisible_to_reads<B: CacheBackend>(subject: &Subject<B>) {
    let _ = lease(subject, "key").await;
    let backend = subject.backend();
    assert_eq!(get(subject, "key").await, None);
    assert!(!ok(backend.exists("key").await));
    assert_eq!(ok(backend.mget(&["key", "key"]).await), [None, None]);
    assert!(!matches!(backend.peek("key"), Peek::Hit(_)));
    if backend.capabilities().pattern_delete {
        assert_eq!(ok(backend.delete_pattern("*").await), 0);
    }
}

/// A fill under a lease that holds is stored, with its lifetime.
pub async fn a_fill_under_a_lease_is_stored<B: CacheBackend>(subject: &Subject<B>) {
    let Some(held) = lease(subject, "key").await else { return };
    let zero = subject.backend().fill("key", &held, Bytes::from("x"), Some(Duration::ZERO)).await;
    assert_eq!(zero.expect_err("a ttl of zero was taken").kind(), ErrorKind::InvalidInput);
    let ttl = Duration::from_millis(300);
    let filled = ok(subject.backend().fill("key", &held, Bytes::from("value"), Some(ttl)).await);
    assert_eq!(filled, Filled::Stored);
    assert_eq!(get(subject, "key").await.as_deref(), Some(&b"value"[..]));
    subject.pass(ttl + subject.backend().capabilities().ttl_resolution + Duration::from_millis(50)).await;
    assert_eq!(get(subject, "key").await, None);
}

/// A lease is used up by its fill.
pub async fn a_fill_happens_once<B: CacheBackend>(subject: &Subject<B>) {
    let Some(held) = lease(subject, "key").await else { return };
    assert_eq!(fill(subject, "key", &held, "first").await, Filled::Stored);
    assert_eq!(fill(subject, "key", &held, "second").await, Filled::Refused);
    assert_eq!(get(subject, "key").await.as_deref(), Some(&b"first"[..]));
}

/// A delete voids the lease, though the key held nothing: the late fill is refused.
pub async fn a_lease_is_void_after_a_delete<B: CacheBackend>(subject: &Subject<B>) {
    let Some(held) = lease(subject, "one").await else { return };
    let Some(many) = lease(subject, "many").await else { return };
    ok(subject.backend().delete("one").await);
    ok(subject.backend().mdelete(&["many"]).await);
    assert_eq!(fill(subject, "one", &held, "late").await, Filled::Refused);
    assert_eq!(fill(subject, "many", &many, "late").await, Filled::Refused);
    assert_eq!(get(subject, "one").await, None);
    assert!(is_granted(subject, "one").await, "after a delete the key is free");
}

/// A write voids the lease, and is not undone by the late fill.
pub async fn a_lease_is_void_after_an_overwrite<B: CacheBackend>(subject: &Subject<B>) {
    let Some(held) = lease(subject, "key").await else { return };
    put(subject, "key", "newer").await;
    assert_eq!(fill(subject, "key", &held, "late").await, Filled::Refused);
    assert_eq!(get(subject, "key").await.as_deref(), Some(&b"newer"[..]));
    // Not even if the write is gone again.
    let Some(held) = lease(subject, "gone").await else { return };
    put(subject, "gone", "newer").await;
    ok(subject.backend().delete("gone").await);
    assert_eq!(fill(subject, "gone", &held, "late").await, Filled::Refused);
}

/// Clearing voids every lease.
pub async fn a_lease_is_void_after_clear_all<B: CacheBackend>(subject: &Subject<B>) {
    let Some(held) = lease(subject, "key").await else { return };
    ok(subject.backend().clear_all().await);
    assert_eq!(fill(subject, "key", &held, "late").await, Filled::Refused);
    assert_eq!(get(subject, "key").await, None);
}

/// Deleting by a pattern voids the leases of the keys that match.
pub async fn a_lease_is_void_after_delete_pattern<B: CacheBackend>(subject: &Subject<B>) {
    if !subject.backend().capabilities().pattern_delete {
        return;
    }
    let Some(matching) = lease(subject, "user:1").await else { return };
    let Some(other) = lease(subject, "order:1").await else { return };
    assert_eq!(ok(subject.backend().delete_pattern("user:*").await), 0);
    assert_eq!(fill(subject, "user:1", &matching, "late").await, Filled::Refused);
    assert_eq!(fill(subject, "order:1", &other, "value").await, Filled::Stored);
}

/// A lease ends with its life; then the key is free, and the late fill is refused.
pub async fn a_lease_ends_with_its_life<B: CacheBackend>(subject: &Subject<B>) {
    let life = Duration::from_millis(500);
    let backend = subject.backend();
    let held = match ok(backend.acquire("key", None, life).await) {
        Acquired::Granted { lease, .. } => lease,
        _ => return,
    };
    subject.pass(life + backend.capabilities().ttl_resolution + Duration::from_millis(50)).await;
    assert_eq!(fill(subject, "key", &held, "late").await, Filled::Refused);
    assert!(is_granted(subject, "key").await);
    assert!(backend.acquire("zero", None, Duration::ZERO).await.is_err(), "a lease without a life");
}

/// A lease that is given back can be taken again; giving back what is void already is fine, and touches
/// nothing.
pub async fn a_released_lease_can_be_taken_again<B: CacheBackend>(subject: &Subject<B>) {
    let Some(first) = lease(subject, "key").await else { return };
    ok(subject.backend().release("key", &first).await);
    let Some(second) = lease(subject, "key").await else { panic!("the key is not free") };
    ok(subject.backend().release("key", &first).await);
    assert_eq!(fill(subject, "key", &first, "late").await, Filled::Refused);
    assert_eq!(fill(subject, "key", &second, "value").await, Filled::Stored);
    ok(subject.backend().release("key", &second).await);
    assert_eq!(get(subject, "key").await.as_deref(), Some(&b"value"[..]));
}

/// A lease is for its own key.
pub async fn a_lease_of_one_key_does_not_fill_another<B: CacheBackend>(subject: &Subject<B>) {
    let Some(held) = lease(subject, "key").await else { return };
    let _ = lease(subject, "other").await;
    assert_eq!(fill(subject, "other", &held, "wrong").await, Filled::Refused);
    assert_eq!(fill(subject, "third", &held, "wrong").await, Filled::Refused);
    assert_eq!(get(subject, "third").await, None);
}

/// A key that holds a value which the caller has not seen is not leased; the answer brings the value.
pub async fn a_present_value_is_not_leased_over<B: CacheBackend>(subject: &Subject<B>) {
    put(subject, "key", "value").await;
    let backend = subject.backend();
    if backend.capabilities().fence == Fence::None {
        return;
    }
    let value = Bytes::from("value");
    let seen = Bytes::from("another");
    assert_eq!(ok(backend.acquire("key", None, LIFE).await), Acquired::Present { value: value.clone() });
    assert_eq!(ok(backend.acquire("key", Some(&seen), LIFE).await), Acquired::Present { value });
    assert_eq!(get(subject, "key").await.as_deref(), Some(&b"value"[..]));
}

/// A value that the caller has seen is leased over, and stays readable until the fill replaces it.
pub async fn a_value_that_was_seen_stays_until_it_is_filled<B: CacheBackend>(subject: &Subject<B>) {
    put(subject, "key", "stale").await;
    let backend = subject.backend();
    // Compared by content: what was read may have crossed a network.
    let seen = Bytes::from(b"stale".to_vec());
    let held = match ok(backend.acquire("key", Some(&seen), LIFE).await) {
        Acquired::Granted { lease, kept } => {
            assert_eq!(kept, Some(seen.clone()));
            lease
        }
        Acquired::Unfenced => return,
        other => panic!("a value that was seen is not leased: {other:?}"),
    };
    assert_eq!(get(subject, "key").await.as_deref(), Some(&b"stale"[..]));
    assert_eq!(ok(backend.mget(&["key"]).await), [Some(seen.clone())]);
    assert_eq!(
        ok(backend.acquire("key", Some(&seen), LIFE).await),
        Acquired::Busy { kept: Some(seen.clone()) }
    );
    assert_eq!(fill(subject, "key", &held, "fresh").await, Filled::Stored);
    assert_eq!(get(subject, "key").await.as_deref(), Some(&b"fresh"[..]));

    // Given back instead of filled, it stays as well.
    let seen = Bytes::from("fresh");
    let Acquired::Granted { lease, .. } = ok(backend.acquire("key", Some(&seen), LIFE).await) else {
        panic!("the key is not free")
    };
    ok(backend.release("key", &lease).await);
    assert_eq!(get(subject, "key").await.as_deref(), Some(&b"fresh"[..]));

    // And a delete under the lease removes both.
    let Acquired::Granted { lease, .. } = ok(backend.acquire("key", Some(&seen), LIFE).await) else {
        panic!("the key is not free")
    };
    ok(backend.delete("key").await);
    assert_eq!(get(subject, "key").await, None);
    assert_eq!(fill(subject, "key", &lease, "late").await, Filled::Refused);
    assert_eq!(get(subject, "key").await, None);
}

/// Whoever comes while a lease is out is told so.
pub async fn a_second_caller_is_told_busy<B: CacheBackend>(subject: &Subject<B>) {
    let Some(_held) = lease(subject, "key").await else { return };
    assert_eq!(ok(subject.backend().acquire("key", None, LIFE).await), Acquired::Busy { kept: None });
    let seen = Bytes::from("seen before it went");
    assert_eq!(ok(subject.backend().acquire("key", Some(&seen), LIFE).await), Acquired::Busy { kept: None });
}

/// After an invalidation a new lease can be taken; the old one does not fill under it.
pub async fn an_older_lease_does_not_fill_a_newer_one<B: CacheBackend>(subject: &Subject<B>) {
    let Some(older) = lease(subject, "key").await else { return };
    ok(subject.backend().delete("key").await);
    let Some(newer) = lease(subject, "key").await else { panic!("the key is not free") };
    assert_eq!(fill(subject, "key", &older, "old").await, Filled::Refused);
    assert_eq!(get(subject, "key").await, None);
    assert_eq!(fill(subject, "key", &newer, "new").await, Filled::Stored);
    assert_eq!(fill(subject, "key", &older, "old").await, Filled::Refused);
    assert_eq!(get(subject, "key").await.as_deref(), Some(&b"new"[..]));
}
