//! Leases and fills of many keys at once: each as it would be alone; and the parts that keys are spread over.

use std::collections::HashSet;
use std::time::Duration;

use bytes::Bytes;

use super::fence::{LIFE, is_granted, lease};
use super::{Subject, get, ok, put};
use crate::ErrorKind;
use crate::backend::{Acquired, CacheBackend, Claim, Fence, Fill, Filled, Lease};

const MANY: usize = 600;

fn claim(key: &str) -> Claim<'_> {
    Claim { key, seen: None }
}

fn fill<'a>(key: &'a str, lease: &'a Lease, value: &'static str) -> Fill<'a> {
    Fill { key, lease, value: Bytes::from(value), ttl: None }
}

async fn acquire_many<B: CacheBackend>(subject: &Subject<B>, claims: &[Claim<'_>]) -> Vec<Acquired> {
    ok(subject.backend().acquire_many(claims, LIFE).await).into_iter().map(ok).collect()
}

async fn fill_many<B: CacheBackend>(subject: &Subject<B>, fills: &[Fill<'_>]) -> Vec<Filled> {
    ok(subject.backend().fill_many(fills).await).into_iter().map(ok).collect()
}

/// The leases of absent keys, taken at once; `None` if the backend has no fence.
async fn leases<B: CacheBackend>(subject: &Subject<B>, keys: &[&str]) -> Option<Vec<Lease>> {
    let claims: Vec<_> = keys.iter().copied().map(claim).collect();
    let granted = acquire_many(subject, &claims).await.into_iter().map(|acquired| match acquired {
        Acquired::Granted { lease, kept: None } => Some(lease),
        Acquired::Unfenced => {
            assert_eq!(subject.backend().capabilities().fence, Fence::None);
            None
        }
        other => panic!("no lease on an absent key: {other:?}"),
    });
    let leases: Option<Vec<_>> = granted.collect();
    assert!(leases.as_ref().is_none_or(|leases| leases.len() == keys.len()));
    leases
}

/// Who has no fence says so of each key.
pub async fn without_a_fence_nothing_is_acquired_or_filled_at_once<B: CacheBackend>(subject: &Subject<B>) {
    let backend = subject.backend();
    if backend.capabilities().fence != Fence::None {
        return;
    }
    let acquired = acquire_many(subject, &[claim("a"), claim("b")]).await;
    assert_eq!(acquired, [Acquired::Unfenced, Acquired::Unfenced]);
    let lease = Lease::new(1);
    let refused = match backend.fill_many(&[fill("a", &lease, "late"), fill("b", &lease, "late")]).await {
        Ok(each) => each.into_iter().map(|filled| filled.expect_err("filled without a fence")).collect(),
        Err(error) => vec![error],
    };
    assert!(refused.iter().all(|error| error.kind() == ErrorKind::Unsupported), "{refused:?}");
    assert_eq!(get(subject, "a").await, None);
}

/// Claims are answered in their order, each as it would be alone.
pub async fn claims_made_at_once_are_answered_in_order_each_as_if_alone<B: CacheBackend>(
    subject: &Subject<B>,
) {
    if lease(subject, "taken").await.is_none() {
        return;
    }
    put(subject, "there", "value").await;
    put(subject, "stale", "old").await;
    put(subject, "changed", "newer").await;
    let (old, older) = (Bytes::from(b"old".to_vec()), Bytes::from("older"));
    let claims = [
        claim("absent"),
        claim("taken"),
        claim("there"),
        Claim { key: "stale", seen: Some(&old) },
        Claim { key: "changed", seen: Some(&older) },
        Claim { key: "gone", seen: Some(&old) },
    ];
    let mut answers = acquire_many(subject, &claims).await;
    let gone = answers.pop();
    assert!(matches!(gone, Some(Acquired::Granted { kept: None, .. })), "{gone:?}");
    let [absent, taken, there, stale, changed] = &answers[..] else { panic!("{answers:?}") };
    assert!(matches!(absent, Acquired::Granted { kept: None, .. }), "{absent:?}");
    assert_eq!(*taken, Acquired::Busy { kept: None });
    assert_eq!(*there, Acquired::Present { value: Bytes::from("value") });
    assert_eq!(*changed, Acquired::Present { value: Bytes::from("newer") });
    let Acquired::Granted { lease: held, kept } = stale else { panic!("{stale:?}") };
    assert_eq!(*kept, Some(old.clone()));
    // It stays readable until it is filled, and is busy to everyone else.
    assert_eq!(get(subject, "stale").await, Some(old.clone()));
    let again = acquire_many(subject, &[claim("absent"), Claim { key: "stale", seen: Some(&old) }]).await;
    assert_eq!(again, [Acquired::Busy { kept: None }, Acquired::Busy { kept: Some(old) }]);
    assert_eq!(fill_many(subject, &[fill("stale", held, "fresh")]).await, [Filled::Stored]);
    assert_eq!(get(subject, "stale").await.as_deref(), Some(&b"fresh"[..]));
}

/// Of two claims of one key at most one is granted, and of two fills under one lease one is stored.
pub async fn of_two_claims_of_one_key_at_most_one_is_granted<B: CacheBackend>(subject: &Subject<B>) {
    if lease(subject, "able").await.is_none() {
        return;
    }
    put(subject, "stale", "old").await;
    let old = Bytes::from("old");
    let seen = Claim { key: "stale", seen: Some(&old) };
    let claims = [claim("key"), seen, claim("other"), claim("key"), seen, claim("key")];
    let answers = acquire_many(subject, &claims).await;
    let granted = |key: &str| {
        let of = claims.iter().zip(&answers).filter(|(claim, _)| claim.key == key);
        let granted = of.filter_map(|(_, answer)| match answer {
            Acquired::Granted { lease, .. } => Some(lease.clone()),
            Acquired::Busy { .. } => None,
            other => panic!("{key}: {other:?}"),
        });
        let granted: Vec<_> = granted.collect();
        assert!(granted.len() <= 1, "{key}: {answers:?}");
        granted.into_iter().next()
    };
    let (held, _, _) = (granted("key"), granted("stale"), granted("other"));
    let Some(held) = held else { return };
    let filled = fill_many(subject, &[fill("key", &held, "one"), fill("key", &held, "two")]).await;
    assert_eq!(filled.iter().filter(|filled| **filled == Filled::Stored).count(), 1, "{filled:?}");
    assert!(get(subject, "key").await.is_some());
}

/// No claims are no answers, and no fills neither.
pub async fn of_no_keys_there_are_no_answers<B: CacheBackend>(subject: &Subject<B>) {
    assert_eq!(acquire_many(subject, &[]).await, []);
    assert_eq!(fill_many(subject, &[]).await, []);
}

/// Values that are filled at once have lives of their own; a lease that is void is refused alone, and so is a life of zero.
pub async fn fills_made_at_once_have_their_own_lives_and_refusals<B: CacheBackend>(subject: &Subject<B>) {
    let backend = subject.backend();
    let keys = ["stays", "goes", "void", "zero"];
    let Some(held) = leases(subject, &keys).await else { return };
    ok(backend.release("void", &held[2]).await);
    let short = Duration::from_millis(600);
    let ttls = [None, Some(short), None, Some(Duration::ZERO)];
    let fills: Vec<_> = keys
        .iter()
        .zip(&held)
        .zip(ttls)
        .map(|((key, lease), ttl)| Fill { key, lease, value: Bytes::from(*key), ttl })
        .collect();
    let mut filled = ok(backend.fill_many(&fills).await);
    let zero = filled.pop().map(|zero| zero.expect_err("a ttl of zero was taken").kind());
    assert_eq!(zero, Some(ErrorKind::InvalidInput));
    let filled: Vec<_> = filled.into_iter().map(ok).collect();
    assert_eq!(filled, [Filled::Stored, Filled::Stored, Filled::Refused]);
    assert_eq!(get(subject, "stays").await.as_deref(), Some(&b"stays"[..]));
    assert_eq!(get(subject, "goes").await.as_deref(), Some(&b"goes"[..]));
    assert_eq!(get(subject, "void").await, None);
    assert_eq!(get(subject, "zero").await, None);
    subject.pass(short + backend.capabilities().ttl_resolution + Duration::from_millis(50)).await;
    assert_eq!(get(subject, "stays").await.as_deref(), Some(&b"stays"[..]));
    assert_eq!(get(subject, "goes").await, None);
}

/// A delete or a write refuses the late fill of its own key, and the others are stored.
pub async fn a_delete_refuses_its_own_key_of_many<B: CacheBackend>(subject: &Subject<B>) {
    let keys = ["one", "deleted", "two", "written", "three"];
    let Some(held) = leases(subject, &keys).await else { return };
    ok(subject.backend().delete("deleted").await);
    put(subject, "written", "newer").await;
    let fills: Vec<_> = keys.iter().zip(&held).map(|(key, lease)| fill(key, lease, "loaded")).collect();
    let filled = fill_many(subject, &fills).await;
    let (stored, refused) = (Filled::Stored, Filled::Refused);
    assert_eq!(filled, [stored, refused, stored, refused, stored]);
    assert_eq!(get(subject, "deleted").await, None);
    assert_eq!(get(subject, "written").await.as_deref(), Some(&b"newer"[..]));
    for key in ["one", "two", "three"] {
        assert_eq!(get(subject, key).await.as_deref(), Some(&b"loaded"[..]), "{key}");
    }
    assert!(is_granted(subject, "deleted").await, "after a delete the key is free");
}

/// Hundreds of keys at once are as good as one.
pub async fn hundreds_of_keys_are_leased_and_filled_at_once<B: CacheBackend>(subject: &Subject<B>) {
    let keys: Vec<String> = (0..MANY).map(|n| format!("key:{n}")).collect();
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect();
    let Some(held) = leases(subject, &keys).await else { return };
    let distinct: HashSet<_> = keys.iter().zip(&held).map(|(key, lease)| (*key, lease.token())).collect();
    assert_eq!(distinct.len(), MANY);
    let fills: Vec<_> = keys
        .iter()
        .zip(&held)
        .map(|(key, lease)| Fill { key, lease, value: Bytes::from(format!("value of {key}")), ttl: None })
        .collect();
    assert_eq!(fill_many(subject, &fills).await, vec![Filled::Stored; MANY]);
    let values = ok(subject.backend().mget(&keys).await);
    for (key, value) in keys.iter().zip(values) {
        assert_eq!(value, Some(Bytes::from(format!("value of {key}"))));
    }
    let claims: Vec<_> = keys.iter().copied().map(claim).collect();
    for (key, again) in keys.iter().zip(acquire_many(subject, &claims).await) {
        assert_eq!(again, Acquired::Present { value: Bytes::from(format!("value of {key}")) });
    }
}

/// Each key belongs to one part, always the same; and each part has keys of its own to be made from any name.
pub async fn each_part_has_keys_of_its_own<B: CacheBackend>(subject: &Subject<B>) {
    let backend = subject.backend();
    // What the servers are is known from here on.
    put(subject, "known", "value").await;
    let shards = backend.shards();
    assert!(shards >= 1);
    for n in 0..100 {
        let key = format!("key:{n}");
        let shard = backend.shard_of(&key);
        assert!(shard < shards, "{key}: {shard} of {shards}");
        assert_eq!(backend.shard_of(&key), shard, "{key}");
    }
    let mut keys = HashSet::new();
    for name in ["epoch", "epoch~1", "epoch:é"] {
        for shard in 0..shards {
            let key = backend.shard_key(shard, name);
            assert!(key.starts_with(name), "{key}");
            assert_eq!(backend.shard_of(&key), shard, "{key}");
            assert_eq!(backend.shard_key(shard, name), key);
            assert!(keys.insert(key), "{name}: two parts, or names, with one key");
        }
    }
    assert_eq!(backend.shards(), shards);
    assert_eq!(keys.len(), 3 * shards);
}
