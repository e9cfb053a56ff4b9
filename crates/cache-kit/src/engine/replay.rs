//! Sending again what the backend has not confirmed, until it has.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Weak};
use std::time::Duration;

use futures_util::future::{Either, join_all, select};
use tokio::runtime::Handle;

use super::pending::{Added, Owed};
use super::versions::Scope;
use super::write::is_hopeless;
use super::{Core, Engine};
use crate::backend::CacheBackend;
use crate::clock::jittered;
use crate::error::{Error, ErrorKind, Result};
use crate::observe::Event;

/// So many are sent side by side.
const AT_A_TIME: usize = 64;
/// How long one is waited for.
const LONGEST_TRY: Duration = Duration::from_secs(10);
/// Between two rounds in which nothing was confirmed.
const FIRST_PAUSE: Duration = Duration::from_millis(25);
const LONGEST_PAUSE: Duration = Duration::from_millis(500);

/// Tells that the task has ended, however that came about.
struct Running<B: CacheBackend> {
    core: Weak<Core<B>>,
    is_told: bool,
}

impl<B: CacheBackend> Running<B> {
    fn told(mut self) {
        self.is_told = true;
    }
}

impl<B: CacheBackend> Drop for Running<B> {
    fn drop(&mut self) {
        if !self.is_told
            && let Some(core) = self.core.upgrade()
        {
            core.replaying.store(false, Ordering::SeqCst);
        }
    }
}

impl<B: CacheBackend> Engine<B> {
    /// Queues what the backend has not confirmed.
    pub(super) fn owe(&self, owed: Owed) {
        self.count(Event::Unconfirmed);
        let now = self.settings.clock.now();
        if self.core.pending.add(owed, now, || self.forget_spaces()) == Added::Collapsed {
            self.count(Event::Collapsed);
            self.detach_all();
        }
        self.replay_soon();
    }

    /// Sees to it that a task sends what is queued, if there is a runtime to run one.
    pub(super) fn replay_soon(&self) {
        let replaying: &AtomicBool = &self.core.replaying;
        if replaying.load(Ordering::SeqCst) {
            return;
        }
        let Ok(runtime) = Handle::try_current() else { return };
        if replaying.swap(true, Ordering::SeqCst) {
            return;
        }
        // Ends when the queue is empty, or with the cache: it keeps neither alive.
        let running = Running { core: Arc::downgrade(&self.core), is_told: false };
        let (settings, observer) = (self.settings.clone(), self.observer.clone());
        runtime.spawn(async move {
            let mut pause = FIRST_PAUSE;
            while let Some(core) = running.core.upgrade() {
                let engine = Engine { core, settings: settings.clone(), observer: observer.clone() };
                if engine.core.pending.len() == 0 {
                    engine.core.replaying.store(false, Ordering::SeqCst);
                    // One that came before the line above relied on this task.
                    if engine.core.pending.len() == 0 || engine.core.replaying.swap(true, Ordering::SeqCst) {
                        return running.told();
                    }
                }
                let confirmed = engine.replay().await;
                let clock = engine.settings.clock.clone();
                drop(engine);
                pause = if confirmed { FIRST_PAUSE } else { (pause * 2).min(LONGEST_PAUSE) };
                if !confirmed {
                    clock.sleep(jittered(pause)).await;
                }
            }
        });
    }

    /// Sends everything that is queued once; whether anything was confirmed.
    async fn replay(&self) -> bool {
        let (mut next, mut confirmed) = (0, false);
        loop {
            let round = self.core.pending.from(next, AT_A_TIME);
            let Some((last, _)) = round.last() else { return confirmed };
            next = last + 1;
            let sent = round.into_iter().map(|(number, owed)| async move {
                let sent = async {
                    match &owed {
                        Owed::Key(key) => {
                            self.backend().delete(key).await?;
                            self.hold_on(&[key]).await;
                            Ok(())
                        }
                        Owed::Pattern(pattern) => self.backend().delete_pattern(pattern).await.map(|_| ()),
                        Owed::Tag(tag) => self.remove_scope(Scope::Tag(tag.clone())).await,
                        Owed::Shard(shard) => self.remove_scope(Scope::Shard(*shard)).await,
                        Owed::Space => self.remove_spaces().await,
                    }
                };
                // A backend without a deadline of its own keeps nothing else waiting.
                let patience = self.settings.clock.sleep(LONGEST_TRY);
                let is_done = match select(std::pin::pin!(sent), patience).await {
                    Either::Left((Ok(()), _)) => true,
                    // What can be nowhere in the backend need not be removed.
                    Either::Left((Err(error), _)) => is_hopeless(&error),
                    Either::Right(_) => false,
                };
                if is_done {
                    self.core.pending.confirm_counted(&owed, number + 1, || self.count(Event::Replayed));
                }
                is_done
            });
            // All of a round, whatever becomes of one: each may concern another server.
            let done = join_all(sent).await;
            confirmed |= done.contains(&true);
            if !done.contains(&true) {
                return confirmed;
            }
        }
    }

    /// Sends what is queued until it is confirmed, for no longer than `timeout`.
    pub(crate) async fn flush_pending(&self, timeout: Duration) -> Result<()> {
        let clock = &self.settings.clock;
        let end = clock.now().after(timeout);
        let flush = async {
            let mut pause = FIRST_PAUSE;
            while self.core.pending.len() != 0 {
                if self.replay().await {
                    pause = FIRST_PAUSE;
                    continue;
                }
                let mut confirmed = std::pin::pin!(self.core.pending.confirmed.notified());
                confirmed.as_mut().enable();
                if self.core.pending.len() == 0 {
                    break;
                }
                select(confirmed, clock.sleep(pause)).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        };
        select(std::pin::pin!(flush), clock.sleep_until(end)).await;
        match self.core.pending.len() {
            0 => Ok(()),
            left => {
                Err(Error::new(ErrorKind::Unconfirmed, format!("{left} are still queued after {timeout:?}"))
                    .with_hint("they are sent again as long as this process lives"))
            }
        }
    }
}
