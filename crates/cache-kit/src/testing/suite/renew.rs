//! Renewed leases: they live longer, and are leases like any other. What cannot renew has to say so.

use std::time::{Duration, Instant};

use bytes::Bytes;

use super::fence::{LIFE, fill, is_granted, lease};
use super::{Subject, get, ok, put};
use crate::ErrorKind;
use crate::backend::{Acquired, CacheBackend, Fence, Filled, Lease, Peek};

/// Renews a lease that holds; `None` if the backend says that it cannot.
async fn renew<B: CacheBackend>(subject: &Subject<B>, key: &str, held: &Lease) -> Option<Lease> {
    match subject.backend().renew(key, held, LIFE).await {
        Ok(Some(lease)) => Some(lease),
        Ok(None) => panic!("a lease that holds was not renewed"),
        Err(error) if error.kind() == ErrorKind::Unsupported => None,
        Err(error) => panic!("the backend failed: {error}"),
    }
}

/// A renewed lease on an absent key.
async fn renewed<B: CacheBackend>(subject: &Subject<B>, key: &str) -> Option<Lease> {
    let held = lease(subject, key).await?;
    renew(subject, key, &held).await
}

async fn is_void<B: CacheBackend>(subject: &Subject<B>, key: &str, lease: &Lease) -> bool {
    ok(subject.backend().renew(key, lease, LIFE).await).is_none()
}

/// A lease over a value that was stored before, and was seen.
async fn lease_over<B: CacheBackend>(subject: &Subject<B>, key: &str, seen: &'static str) -> Option<Lease> {
    let seen = Bytes::from(seen);
    match ok(subject.backend().acquire(key, Some(&seen), LIFE).await) {
        Acquired::Granted { lease, kept } => {
            assert_eq!(kept, Some(seen));
            Some(lease)
        }
        Acquired::Unfenced => None,
        other => panic!("a value that was seen is not leased: {other:?}"),
    }
}

/// Who has no fence has nothing to renew.
pub async fn without_a_fence_nothing_is_renewed<B: CacheBackend>(subject: &Subject<B>) {
    if subject.backend().capabilities().fence != Fence::None {
        return;
    }
    let refused = subject.backend().renew("key", &Lease::new(1), LIFE).await;
    assert_eq!(refused.expect_err("renewed without a fence").kind(), ErrorKind::Unsupported);
}

/// A renewed lease is not over when it would have been, and its fill is stored.
pub async fn a_renewed_lease_outlives_its_first_life<B: CacheBackend>(subject: &Subject<B>) {
    let backend = subject.backend();
    for (key, life) in
        [("quick", 1), ("slow", 5), ("slower", 20)].map(|(key, s)| (key, Duration::from_secs(s)))
    {
        let began = Instant::now();
        let Acquired::Granted { lease, .. } = ok(backend.acquire(key, None, life).await) else { return };
        let renewed = match backend.renew(key, &lease, LIFE).await {
            Ok(renewed) => renewed,
            Err(error) if error.kind() == ErrorKind::Unsupported => return,
            Err(error) => panic!("the backend failed: {error}"),
        };
        let Some(renewed) = renewed else {
            // On a machine that stood still meanwhile there was nothing left to renew.
            assert!(subject.is_real_time() && began.elapsed() > life / 2, "not renewed in time");
            continue;
        };
        subject.pass(life + backend.capabilities().ttl_resolution + Duration::from_millis(50)).await;
        assert_eq!(ok(backend.acquire(key, None, LIFE).await), Acquired::Busy { kept: None });
        assert_eq!(fill(subject, key, &renewed, "value").await, Filled::Stored);
        assert_eq!(get(subject, key).await.as_deref(), Some(&b"value"[..]));
        assert!(is_void(subject, key, &renewed).await, "used up");
        return;
    }
}

/// The life to come may be a short one, or as long as can be; but not zero.
pub async fn a_renewed_lease_ends_with_its_new_life<B: CacheBackend>(subject: &Subject<B>) {
    let backend = subject.backend();
    let Some(held) = renewed(subject, "key").await else { return };
    let zero = backend.renew("key", &held, Duration::ZERO).await;
    assert_eq!(zero.expect_err("renewed for no time").kind(), ErrorKind::InvalidInput);
    let Some(longest) = ok(backend.renew("key", &held, Duration::MAX).await) else {
        panic!("what was refused has changed something")
    };
    let short = Duration::from_millis(500);
    let Some(held) = ok(backend.renew("key", &longest, short).await) else { panic!("not renewed") };
    subject.pass(short + backend.capabilities().ttl_resolution + Duration::from_millis(50)).await;
    assert!(is_void(subject, "key", &held).await);
    assert_eq!(fill(subject, "key", &held, "late").await, Filled::Refused);
    assert!(is_granted(subject, "key").await);
}

/// What a delete, a write or a clear has voided stays void.
pub async fn a_void_lease_is_not_renewed<B: CacheBackend>(subject: &Subject<B>) {
    let backend = subject.backend();
    if renewed(subject, "able").await.is_none() {
        return;
    }
    let Some(held) = lease(subject, "deleted").await else { return };
    ok(backend.delete("deleted").await);
    assert!(is_void(subject, "deleted", &held).await);
    assert_eq!(get(subject, "deleted").await, None);
    assert_eq!(fill(subject, "deleted", &held, "late").await, Filled::Refused);
    assert!(is_granted(subject, "deleted").await, "the key was leased by a lease that is void");

    let Some(held) = lease(subject, "written").await else { return };
    put(subject, "written", "newer").await;
    assert!(is_void(subject, "written", &held).await);
    assert_eq!(get(subject, "written").await.as_deref(), Some(&b"newer"[..]));

    let Some(held) = lease(subject, "released").await else { return };
    ok(backend.release("released", &held).await);
    assert!(is_void(subject, "released", &held).await);
    assert!(is_granted(subject, "released").await);

    put(subject, "kept", "stale").await;
    let Some(held) = lease_over(subject, "kept", "stale").await else { return };
    put(subject, "kept", "stale").await;
    assert!(is_void(subject, "kept", &held).await, "the same value, written anew");
    assert!(lease_over(subject, "kept", "stale").await.is_some(), "leased by a lease that is void");

    let Some(held) = lease(subject, "cleared").await else { return };
    ok(backend.clear_all().await);
    assert!(is_void(subject, "cleared", &held).await);
    assert!(is_granted(subject, "cleared").await);
}

/// What somebody else holds is not renewed, and stays theirs; nor is what is held on another key.
pub async fn the_lease_of_another_is_not_renewed<B: CacheBackend>(subject: &Subject<B>) {
    let backend = subject.backend();
    let Some(older) = renewed(subject, "key").await else { return };
    ok(backend.delete("key").await);
    let Some(newer) = lease(subject, "key").await else { panic!("the key is not free") };
    let Some(other) = lease(subject, "other").await else { panic!("the key is not free") };
    assert!(is_void(subject, "key", &older).await);
    assert!(is_void(subject, "key", &other).await);
    assert!(is_void(subject, "third", &other).await);
    assert!(is_granted(subject, "third").await);
    assert_eq!(fill(subject, "key", &newer, "value").await, Filled::Stored);

    // Nor over a value.
    put(subject, "kept", "stale").await;
    let Some(older) = lease_over(subject, "kept", "stale").await else { return };
    ok(backend.release("kept", &older).await);
    let Some(newer) = lease_over(subject, "kept", "stale").await else { return };
    assert!(is_void(subject, "kept", &older).await);
    assert_eq!(fill(subject, "kept", &newer, "fresh").await, Filled::Stored);
    assert_eq!(get(subject, "kept").await.as_deref(), Some(&b"fresh"[..]));
}

/// A renewed lease is a miss to every read, and busy to everyone else.
pub async fn a_renewed_lease_is_invisible_and_busy<B: CacheBackend>(subject: &Subject<B>) {
    let backend = subject.backend();
    let Some(once) = renewed(subject, "key").await else { return };
    let Some(held) = renew(subject, "key", &once).await else { return };
    assert_eq!(get(subject, "key").await, None);
    assert!(!ok(backend.exists("key").await));
    assert_eq!(ok(backend.mget(&["key", "key"]).await), [None, None]);
    assert!(!matches!(backend.peek("key"), Peek::Hit(_)));
    assert_eq!(ok(backend.acquire("key", None, LIFE).await), Acquired::Busy { kept: None });
    for seen in ["", "seen before it went"].map(Bytes::from) {
        assert_eq!(ok(backend.acquire("key", Some(&seen), LIFE).await), Acquired::Busy { kept: None });
    }
    // None of which has taken it.
    assert_eq!(fill(subject, "key", &held, "").await, Filled::Stored);
    assert_eq!(get(subject, "key").await.as_deref(), Some(&b""[..]), "an empty value is a value");
}

/// What is kept under a lease stays readable while the lease is renewed, and is kept no longer for it.
pub async fn renewing_over_a_value_keeps_it_readable<B: CacheBackend>(subject: &Subject<B>) {
    let backend = subject.backend();
    for value in ["stale", ""] {
        put(subject, "key", value).await;
        let Some(held) = lease_over(subject, "key", value).await else { return };
        let Some(once) = renew(subject, "key", &held).await else { return };
        let Some(held) = renew(subject, "key", &once).await else { return };
        let seen = Bytes::from(value);
        assert_eq!(get(subject, "key").await, Some(seen.clone()));
        assert!(ok(backend.exists("key").await));
        assert_eq!(ok(backend.mget(&["key"]).await), [Some(seen.clone())]);
        let busy = ok(backend.acquire("key", Some(&seen), LIFE).await);
        assert_eq!(busy, Acquired::Busy { kept: Some(seen.clone()) });
        // Given back, it is there as before; and filled, it is replaced.
        ok(backend.release("key", &held).await);
        assert_eq!(get(subject, "key").await, Some(seen));
        let Some(held) = lease_over(subject, "key", value).await else { return };
        let Some(held) = renew(subject, "key", &held).await else { return };
        assert_eq!(fill(subject, "key", &held, "fresh").await, Filled::Stored);
        assert_eq!(get(subject, "key").await.as_deref(), Some(&b"fresh"[..]));
    }
    let ttl = Duration::from_millis(600);
    ok(backend.set("short", Bytes::from("stale"), Some(ttl)).await);
    if let Acquired::Granted { lease, .. } =
        ok(backend.acquire("short", Some(&Bytes::from("stale")), LIFE).await)
    {
        let _ = renew(subject, "short", &lease).await;
    }
    subject.pass(ttl + backend.capabilities().ttl_resolution + Duration::from_millis(50)).await;
    assert_eq!(get(subject, "short").await, None);
}

/// Where a renewed lease is another one, the old one is void: it fills nothing, and removes nothing.
pub async fn an_old_lease_removes_nothing_of_a_renewed_one<B: CacheBackend>(subject: &Subject<B>) {
    let backend = subject.backend();
    let Some(old) = lease(subject, "key").await else { return };
    let Some(new) = renew(subject, "key", &old).await else { return };
    put(subject, "kept", "stale").await;
    let Some(old_over) = lease_over(subject, "kept", "stale").await else { return };
    let Some(new_over) = renew(subject, "kept", &old_over).await else { return };
    if new != old {
        ok(backend.release("key", &old).await);
        backend.release_later("key", old.clone());
        assert!(is_void(subject, "key", &old).await);
        assert_eq!(fill(subject, "key", &old, "late").await, Filled::Refused);
        assert!(!is_granted(subject, "key").await);
    }
    if new_over != old_over {
        ok(backend.release("kept", &old_over).await);
        assert!(is_void(subject, "kept", &old_over).await);
        assert_eq!(fill(subject, "kept", &old_over, "late").await, Filled::Refused);
        assert_eq!(get(subject, "kept").await.as_deref(), Some(&b"stale"[..]));
    }
    assert_eq!(fill(subject, "key", &new, "value").await, Filled::Stored);
    assert_eq!(fill(subject, "kept", &new_over, "fresh").await, Filled::Stored);
    assert_eq!(get(subject, "key").await.as_deref(), Some(&b"value"[..]));
    assert_eq!(get(subject, "kept").await.as_deref(), Some(&b"fresh"[..]));
}

/// A renewed lease that is given back can be taken again.
pub async fn a_renewed_lease_can_be_released<B: CacheBackend>(subject: &Subject<B>) {
    let backend = subject.backend();
    let Some(held) = renewed(subject, "key").await else { return };
    ok(backend.release("key", &held).await);
    assert_eq!(get(subject, "key").await, None);
    let Some(again) = lease(subject, "key").await else { panic!("the key is not free") };
    ok(backend.release("key", &held).await);
    assert_eq!(fill(subject, "key", &again, "value").await, Filled::Stored);
}

/// What voids a lease voids a renewed one.
pub async fn a_delete_or_a_write_voids_a_renewed_lease<B: CacheBackend>(subject: &Subject<B>) {
    let backend = subject.backend();
    let Some(deleted) = renewed(subject, "deleted").await else { return };
    let Some(many) = renewed(subject, "many").await else { return };
    let Some(written) = renewed(subject, "written").await else { return };
    let Some(cleared) = renewed(subject, "cleared").await else { return };
    ok(backend.delete("deleted").await);
    ok(backend.mdelete(&["many"]).await);
    put(subject, "written", "newer").await;
    if backend.capabilities().pattern_delete {
        let Some(matching) = renewed(subject, "user:1").await else { return };
        assert_eq!(ok(backend.delete_pattern("user:*").await), 0);
        assert_eq!(fill(subject, "user:1", &matching, "late").await, Filled::Refused);
    }
    for (key, held) in [("deleted", &deleted), ("many", &many), ("written", &written)] {
        assert_eq!(fill(subject, key, held, "late").await, Filled::Refused, "{key}");
        assert!(is_void(subject, key, held).await, "{key}");
    }
    assert_eq!(get(subject, "deleted").await, None);
    assert_eq!(get(subject, "written").await.as_deref(), Some(&b"newer"[..]));
    assert!(is_granted(subject, "deleted").await, "after a delete the key is free");
    ok(backend.clear_all().await);
    assert_eq!(fill(subject, "cleared", &cleared, "late").await, Filled::Refused);
}

/// A lease that is given back later takes nothing with it that is not its own.
pub async fn giving_back_later_touches_nothing_else<B: CacheBackend>(subject: &Subject<B>) {
    let backend = subject.backend();
    let Some(older) = lease(subject, "key").await else { return };
    ok(backend.delete("key").await);
    let Some(newer) = lease(subject, "key").await else { panic!("the key is not free") };
    backend.release_later("key", older);
    backend.release_later("absent", newer.clone());
    subject.pass(Duration::from_millis(50)).await;
    assert_eq!(fill(subject, "key", &newer, "value").await, Filled::Stored);
    backend.release_later("key", newer);
    subject.pass(Duration::from_millis(50)).await;
    assert_eq!(get(subject, "key").await.as_deref(), Some(&b"value"[..]));
}
