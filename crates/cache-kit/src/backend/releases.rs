//! Leases that are given back from where nobody can wait.
//!
//! They go into a short queue, and a task sends them, on whichever runtime is at hand. Without one, or when that one is
//! shut down, they wait for the next operation that comes with one. What falls out of the queue, or cannot be sent, ends with its life.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;

use futures_util::future::join_all;
use tokio::runtime::Handle;

use super::Lease;

/// So many wait; of more, the oldest fall out.
const LIMIT: usize = 1024;
/// So many are sent side by side.
const TOGETHER: usize = 16;

/// What gives leases back.
pub(super) trait Releasing: Send + Sync + 'static {
    fn releases(&self) -> &Releases;

    /// One try, with a deadline.
    fn give_back(&self, key: &str, lease: &Lease) -> impl Future<Output = ()> + Send;
}

/// The leases that are to be given back.
#[derive(Default)]
pub(super) struct Releases {
    /// Some wait and no task is at it: what an operation that starts can tell without the lock.
    stranded: AtomicBool,
    queue: Mutex<Queue>,
}

type Waiting = (Box<str>, Lease);

#[derive(Default)]
struct Queue {
    waiting: VecDeque<Waiting>,
    draining: bool,
}

impl Releases {
    /// Takes a lease to be given back soon.
    pub(super) fn put<R: Releasing>(owner: &Arc<R>, key: &str, lease: Lease) {
        let releases = owner.releases();
        {
            let mut queue = releases.lock();
            if queue.waiting.len() == LIMIT {
                queue.waiting.pop_front();
            }
            queue.waiting.push_back((key.into(), lease));
            releases.stranded.store(!queue.draining, Ordering::Relaxed);
        }
        Self::start(owner);
    }

    /// Goes on with what waits, if this is a place where that is possible.
    pub(super) fn resume<R: Releasing>(owner: &Arc<R>) {
        if owner.releases().stranded.load(Ordering::Relaxed) {
            Self::start(owner);
        }
    }

    fn start<R: Releasing>(owner: &Arc<R>) {
        let Ok(runtime) = Handle::try_current() else { return };
        if let Some(draining) = Draining::begin(owner) {
            // Not under the lock: a runtime that is shut down drops the task at once, which takes the lock.
            runtime.spawn(draining.run());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The one task that sends. However it ends, the next may begin.
struct Draining<R: Releasing> {
    /// A backend that nobody holds any more ends with the leases that are under way, and the task with it.
    owner: Weak<R>,
    under_way: Vec<Waiting>,
}

impl<R: Releasing> Draining<R> {
    fn begin(owner: &Arc<R>) -> Option<Self> {
        let releases = owner.releases();
        let mut queue = releases.lock();
        if queue.draining || queue.waiting.is_empty() {
            return None;
        }
        queue.draining = true;
        releases.stranded.store(false, Ordering::Relaxed);
        Some(Self { owner: Arc::downgrade(owner), under_way: Vec::new() })
    }

    async fn run(mut self) {
        while let Some(owner) = self.next() {
            // Each once: a server that is down costs them a deadline together, and nobody asks it again and again.
            join_all(self.under_way.iter().map(|(key, lease)| owner.give_back(key, lease))).await;
            self.under_way.clear();
            drop(owner);
            tokio::task::yield_now().await;
        }
    }

    /// Takes what is sent next; with nothing left, the draining is over.
    fn next(&mut self) -> Option<Arc<R>> {
        let owner = self.owner.upgrade()?;
        {
            let mut queue = owner.releases().lock();
            let together = queue.waiting.len().min(TOGETHER);
            self.under_way.extend(queue.waiting.drain(..together));
            if self.under_way.is_empty() {
                // Whoever puts something in from here on begins anew, and this one must not end that.
                queue.draining = false;
                self.owner = Weak::new();
                return None;
            }
        }
        Some(owner)
    }
}

impl<R: Releasing> Drop for Draining<R> {
    fn drop(&mut self) {
        let Some(owner) = self.owner.upgrade() else { return };
        let releases = owner.releases();
        let mut queue = releases.lock();
        // What a runtime that was shut down took with it has not had its try. What made the task panic has.
        if !thread::panicking() {
            for waiting in self.under_way.drain(..).rev() {
                if queue.waiting.len() < LIMIT {
                    queue.waiting.push_front(waiting);
                }
            }
        }
        queue.draining = false;
        releases.stranded.store(!queue.waiting.is_empty(), Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::runtime::{Builder, Runtime};

    use super::*;

    /// Notes what it gives back; or never ends to.
    #[derive(Default)]
    struct Owner {
        releases: Releases,
        given: Mutex<Vec<u128>>,
        hangs: AtomicBool,
    }

    impl Releasing for Owner {
        fn releases(&self) -> &Releases {
            &self.releases
        }

        async fn give_back(&self, key: &str, lease: &Lease) {
            if self.hangs.load(Ordering::SeqCst) {
                std::future::pending::<()>().await;
            }
            assert_eq!(key, format!("key:{}", lease.token()));
            self.given.lock().unwrap().push(lease.token());
        }
    }

    impl Owner {
        fn put(self: &Arc<Self>, tokens: std::ops::Range<u128>) {
            for token in tokens {
                Releases::put(self, &format!("key:{token}"), Lease::new(token));
            }
        }

        fn given(&self) -> Vec<u128> {
            self.given.lock().unwrap().clone()
        }

        fn waiting(&self) -> usize {
            self.releases.lock().waiting.len()
        }

        fn is_draining(&self) -> bool {
            self.releases.lock().draining
        }
    }

    fn runtime() -> Runtime {
        Builder::new_current_thread().enable_time().build().unwrap()
    }

    /// Lets the tasks of a runtime run until they wait.
    fn settle(runtime: &Runtime) {
        runtime.block_on(async { tokio::time::sleep(Duration::from_millis(20)).await });
    }

    #[test]
    fn the_oldest_fall_out() {
        let owner = Arc::new(Owner::default());
        owner.put(0..5_000);
        assert_eq!(owner.waiting(), LIMIT);
        let runtime = runtime();
        runtime.block_on(async { Releases::resume(&owner) });
        settle(&runtime);
        assert_eq!(owner.given(), (5_000 - LIMIT as u128..5_000).collect::<Vec<_>>());
    }

    #[test]
    fn what_waits_for_a_runtime_goes_with_the_next_operation_on_one() {
        let owner = Arc::new(Owner::default());
        Releases::resume(&owner);
        owner.put(0..3);
        Releases::resume(&owner);
        assert_eq!((owner.waiting(), owner.is_draining()), (3, false));
        let runtime = runtime();
        runtime.block_on(async { Releases::resume(&owner) });
        settle(&runtime);
        assert_eq!(owner.given(), [0, 1, 2]);
        assert!(!owner.is_draining(), "the task ends with its work");
        // And with the next one, without a call for it, once it comes from a runtime.
        runtime.block_on(async { owner.put(3..5) });
        settle(&runtime);
        assert_eq!(owner.given(), [0, 1, 2, 3, 4]);
        assert!(!owner.releases.stranded.load(Ordering::SeqCst));
    }

    #[test]
    fn a_task_that_ends_with_its_runtime_hands_on_what_waits() {
        let owner = Arc::new(Owner::default());
        owner.hangs.store(true, Ordering::SeqCst);
        let first = runtime();
        first.block_on(async { owner.put(0..20) });
        settle(&first);
        assert_eq!((owner.waiting(), owner.is_draining()), (20 - TOGETHER, true));
        drop(first);
        assert_eq!((owner.waiting(), owner.is_draining()), (20, false), "what was under way has had no try");
        owner.hangs.store(false, Ordering::SeqCst);
        let second = runtime();
        second.block_on(async { Releases::resume(&owner) });
        settle(&second);
        assert_eq!(owner.given(), (0..20).collect::<Vec<_>>());
    }

    #[test]
    fn what_is_handed_on_stays_within_the_bound() {
        let owner = Arc::new(Owner::default());
        owner.hangs.store(true, Ordering::SeqCst);
        let first = runtime();
        first.block_on(async { owner.put(0..20) });
        settle(&first);
        owner.put(20..5_000);
        drop(first);
        assert_eq!((owner.waiting(), owner.is_draining()), (LIMIT, false));
    }

    #[test]
    fn what_makes_the_task_panic_is_not_tried_again() {
        let owner = Arc::new(Owner::default());
        let runtime = runtime();
        runtime.block_on(async { Releases::put(&owner, "of nobody", Lease::new(0)) });
        settle(&runtime);
        assert_eq!((owner.waiting(), owner.is_draining()), (0, false));
        runtime.block_on(async { owner.put(1..2) });
        settle(&runtime);
        assert_eq!(owner.given(), [1]);
    }

    #[test]
    fn a_runtime_that_is_shut_down_already_takes_no_task_and_blocks_none() {
        let owner = Arc::new(Owner::default());
        let gone = runtime();
        let handle = gone.handle().clone();
        drop(gone);
        {
            let _entered = handle.enter();
            owner.put(0..2);
        }
        assert_eq!((owner.waiting(), owner.is_draining()), (2, false));
        let runtime = runtime();
        runtime.block_on(async { owner.put(2..3) });
        settle(&runtime);
        assert_eq!(owner.given(), [0, 1, 2]);
    }

    #[test]
    fn a_task_keeps_no_owner_alive() {
        let runtime = runtime();
        let owner = Arc::new(Owner::default());
        let alive = Arc::downgrade(&owner);
        {
            let _entered = runtime.enter();
            owner.put(0..3);
        }
        assert!(owner.is_draining());
        drop(owner);
        assert!(alive.upgrade().is_none());
        settle(&runtime);
    }
}
