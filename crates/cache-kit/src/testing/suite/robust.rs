//! Many callers, and callers that go away.

use std::task::Poll;

use bytes::Bytes;
use futures_util::future::{join_all, poll_fn};
use futures_util::pin_mut;

use super::{Subject, get, ok, put};
use crate::backend::CacheBackend;

/// Writers of one key leave one of their values, whole; writers of others are not disturbed.
pub async fn concurrent_writers_leave_one_whole_value<B: CacheBackend>(subject: &Subject<B>) {
    let writers = (0..64_u8).map(|writer| async move {
        for _ in 0..20 {
            put(subject, "shared", vec![writer; 1000]).await;
            let own = format!("own:{writer}");
            put(subject, &own, vec![writer; 10]).await;
            assert_eq!(get(subject, &own).await, Some(Bytes::from(vec![writer; 10])));
        }
    });
    join_all(writers).await;
    let Some(value) = get(subject, "shared").await else { panic!("all writes are gone") };
    assert_eq!(value.len(), 1000);
    assert!(value.iter().all(|byte| *byte == value[0]), "values of two writers are mixed");
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
