//! The tasks that a cache has started, and their end.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::AbortHandle;

use crate::clock::Clock;

/// Loads that run behind their callers, until they end or are stopped.
pub(crate) struct Tasks {
    state: Mutex<State>,
    ended: Notify,
}

#[derive(Default)]
struct State {
    running: HashMap<u64, Option<AbortHandle>>,
    next: u64,
    is_closed: bool,
    /// What is still started is stopped at once.
    is_stopping: bool,
}

/// Takes a task off the list, however it ends.
struct Ended {
    tasks: Arc<Tasks>,
    id: u64,
}

impl Tasks {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Self { state: Mutex::default(), ended: Notify::new() })
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How many are running.
    pub(super) fn len(&self) -> usize {
        self.lock().running.len()
    }

    /// Whether no more are started.
    pub(super) fn is_closed(&self) -> bool {
        self.lock().is_closed
    }

    /// Starts one, unless the cache is shut down; then it is dropped.
    pub(super) fn spawn(
        self: &Arc<Self>,
        runtime: &Handle,
        task: impl Future<Output = ()> + Send + 'static,
    ) -> bool {
        let ended = {
            let mut state = self.lock();
            if state.is_closed {
                return false;
            }
            let id = state.next;
            state.next += 1;
            state.running.insert(id, None);
            Ended { tasks: Arc::clone(self), id }
        };
        let id = ended.id;
        let spawned = runtime.spawn(async move {
            let _ended = ended;
            task.await;
        });
        let mut state = self.lock();
        if state.is_stopping {
            spawned.abort();
        }
        // Not there any more if it has ended by now.
        if let Some(handle) = state.running.get_mut(&id) {
            *handle = Some(spawned.abort_handle());
        }
        true
    }

    /// Starts no more, waits for those that run, and stops what has not ended in time; how many that was.
    pub(super) async fn close(&self, clock: &Clock, timeout: Duration) -> usize {
        self.lock().is_closed = true;
        let mut sleep = std::pin::pin!(clock.sleep(timeout));
        loop {
            let mut ended = std::pin::pin!(self.ended.notified());
            ended.as_mut().enable();
            if self.len() == 0 {
                return 0;
            }
            if let futures_util::future::Either::Right(_) =
                futures_util::future::select(ended, &mut sleep).await
            {
                break;
            }
        }
        let (running, count): (Vec<_>, _) = {
            let mut state = self.lock();
            state.is_stopping = true;
            (state.running.values().flatten().cloned().collect(), state.running.len())
        };
        running.iter().for_each(AbortHandle::abort);
        count
    }
}

impl Drop for Ended {
    fn drop(&mut self) {
        let last = {
            let mut state = self.tasks.lock();
            state.running.remove(&self.id);
            if state.running.is_empty() {
                // A crowd that has gone leaves no table behind.
                state.running.shrink_to_fit();
            }
            state.running.is_empty()
        };
        if last {
            self.tasks.ended.notify_waiters();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_closed_list_waits_for_what_runs_and_starts_no_more() {
        let tasks = Tasks::new();
        let (end, ended) = tokio::sync::oneshot::channel::<()>();
        assert!(tasks.spawn(&Handle::current(), async move { ended.await.unwrap() }));
        let clock = Clock::system();
        let close = tasks.close(&clock, Duration::from_secs(60));
        let (stopped, ()) = tokio::join!(close, async { end.send(()).unwrap() });
        assert_eq!((stopped, tasks.len()), (0, 0));
        assert!(!tasks.spawn(&Handle::current(), async {}));
    }

    #[tokio::test]
    async fn what_does_not_end_in_time_is_stopped() {
        let tasks = Tasks::new();
        for _ in 0..3 {
            tasks.spawn(&Handle::current(), std::future::pending());
        }
        let time = crate::ManualClock::new();
        let clock = time.clock();
        let (stopped, ()) = tokio::join!(tasks.close(&clock, Duration::from_secs(1)), async {
            tokio::task::yield_now().await;
            time.advance(Duration::from_secs(1));
        });
        assert_eq!(stopped, 3);
        while tasks.len() != 0 {
            tokio::task::yield_now().await;
        }
    }
}
