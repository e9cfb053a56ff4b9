//! Many callers, and callers that go away.

use std::sync::Barrier;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::poll_fn;
use futures_util::pin_mut;
use tokio::runtime::Handle;

use super::{Subject, get, ok, put};
use crate::backend::{Acquired, CacheBackend, Fence};

/// Runs one job on each of so many threads, all at once, and waits for them.
///
/// Blocks the thread of the test, which is not one of the runtime's.
fn on_threads<Fut: Future<Output = ()>>(threads: u8, job: impl Fn(u8) -> Fut + Sync) {
    let (runtime, together) = (Handle::current(), Barrier::new(usize::from(threads)));
    std::thread::scope(|scope| {
        for thread in 0..threads {
            let (runtime, together, job) = (&runtime, &together, &job);
            scope.spawn(move || {
                together.wait();
                runtime.block_on(job(thread));
            });
        }
    });
}

/// Writers of one key leave one of their values, whole; writers of others are not disturbed.
pub async fn concurrent_writers_leave_one_whole_value<B: CacheBackend>(subject: &Subject<B>) {
    on_threads(8, |writer| async move {
        for _ in 0..100 {
            put(subject, "shared", vec![writer; 1000]).await;
            let own = format!("own:{writer}");
            put(subject, &own, vec![writer; 10]).await;
            assert_eq!(get(subject, &own).await, Some(Bytes::from(vec![writer; 10])));
        }
    });
    let Some(value) = get(subject, "shared").await else { panic!("all writes are gone") };
    assert_eq!(value.len(), 1000);
    assert!(value.iter().all(|byte| *byte == value[0]), "values of two writers are mixed");
}

/// While a key is written over and over, every read finds one of the values.
pub async fn an_overwrite_is_never_seen_as_a_miss<B: CacheBackend>(subject: &Subject<B>) {
    put(subject, "key", vec![0; 100]).await;
    on_threads(4, |thread| async move {
        for _ in 0..200 {
            if thread == 0 {
                put(subject, "key", vec![1; 100]).await;
            } else {
                assert!(get(subject, "key").await.is_some(), "a key that always had a value had none");
            }
        }
    });
}

/// A fill that races with a delete, a pattern or a clear is gone when that has returned: it came before and was
/// removed, or it came after and was refused.
pub async fn a_fill_that_races_with_an_invalidation_does_not_survive_it<B: CacheBackend>(
    subject: &Subject<B>,
) {
    let backend = subject.backend();
    let able = backend.capabilities();
    if able.fence == Fence::None {
        return;
    }
    let ways: &[&str] =
        if able.pattern_delete { &["delete", "pattern", "clear"] } else { &["delete", "clear"] };
    for round in 0..300 {
        let (key, way) = (format!("race:{round}"), ways[round % ways.len()]);
        let acquired = ok(backend.acquire(&key, None, Duration::from_secs(30)).await);
        let Acquired::Granted { lease, .. } = acquired else {
            panic!("no lease on an absent key: {acquired:?}")
        };
        let (key, lease) = (&key, &lease);
        on_threads(2, |thread| async move {
            match (thread, way) {
                (0, _) => {
                    let _ = ok(backend.fill(key, lease, Bytes::from("old"), None).await);
                }
                (_, "delete") => ok(backend.delete(key).await),
                (_, "pattern") => {
                    ok(backend.delete_pattern("race:*").await);
                }
                _ => ok(backend.clear_all().await),
            }
        });
        assert_eq!(get(subject, key).await, None, "an old value survived a {way} in round {round}");
    }
}

/// Callers that go away after any number of polls leave nothing for others: each key still answers with its
/// own value, and the backend still works.
pub async fn cancelled_callers_leave_no_trace<B: CacheBackend>(subject: &Subject<B>) {
    let backend = subject.backend();
    for key in 0..8 {
        put(subject, &format!("key:{key}"), format!("value of {key}")).await;
    }
    for round in 0..200 {
        let (key, polls) = (format!("key:{}", round % 8), round % 5);
        match round % 3 {
            0 => poll_and_drop(backend.get(&key), polls).await,
            1 => poll_and_drop(backend.mget(&[&key, "key:0", "missing"]), polls).await,
            _ => poll_and_drop(backend.exists(&key), polls).await,
        }
        poll_and_drop(backend.set("victim", Bytes::from("victim"), None), polls).await;
        let (other, expected) = (format!("key:{}", (round + 3) % 8), format!("value of {}", (round + 3) % 8));
        assert_eq!(get(subject, &other).await.as_deref(), Some(expected.as_bytes()), "in round {round}");
    }
    ok(backend.delete("victim").await);
}

/// Polls a future so many times, and drops it.
async fn poll_and_drop<F: Future>(future: F, polls: usize) {
    pin_mut!(future);
    let mut left = polls;
    poll_fn(|context| {
        if left == 0 {
            return Poll::Ready(());
        }
        left -= 1;
        if future.as_mut().poll(context).is_ready() {
            return Poll::Ready(());
        }
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}
