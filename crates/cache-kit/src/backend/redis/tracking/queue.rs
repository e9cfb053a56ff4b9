//! What is to be told, until somebody listens.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use redis::{PushInfo, PushKind, Value};
use tokio::sync::Notify;

use super::{RedisGap, RedisInvalidation};

/// So many keys wait to be told of, at most; then all that is told is that some were missed.
const MOST_KEYS: usize = 65_536;

/// What is to be told.
#[derive(Debug)]
pub(in super::super) struct Queue {
    /// In front of every key, and not told.
    prefix: String,
    state: Mutex<State>,
    more: Notify,
}

#[derive(Debug, Default)]
struct State {
    events: VecDeque<RedisInvalidation>,
    keys: usize,
    /// Nobody tells any more.
    ended: bool,
    /// Nobody listens any more.
    deaf: bool,
}

impl Queue {
    pub(super) fn new(prefix: String) -> Self {
        Self { prefix, state: Mutex::default(), more: Notify::new() }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn tell(&self, event: RedisInvalidation) {
        let mut state = self.lock();
        if state.deaf {
            return;
        }
        state.push(event);
        drop(state);
        self.more.notify_one();
    }

    /// The next event, as soon as there is one; `None` when there will be none.
    pub(super) async fn next(&self) -> Option<RedisInvalidation> {
        loop {
            let mut more = std::pin::pin!(self.more.notified());
            more.as_mut().enable();
            {
                let mut state = self.lock();
                if let Some(event) = state.pop() {
                    return Some(event);
                }
                if state.ended {
                    return None;
                }
            }
            more.await;
        }
    }

    pub(super) fn try_next(&self) -> Option<RedisInvalidation> {
        self.lock().pop()
    }

    /// Nobody will tell anything any more.
    pub(super) fn end(&self) {
        self.lock().ended = true;
        self.more.notify_waiters();
        self.more.notify_one();
    }

    /// Nobody listens any more.
    pub(super) fn close(&self) {
        *self.lock() = State { deaf: true, ended: true, ..State::default() };
    }

    pub(super) fn is_closed(&self) -> bool {
        self.lock().deaf
    }

    /// What the server pushes.
    pub(super) fn pushed(&self, push: &PushInfo) {
        if push.kind != PushKind::Invalidate {
            return;
        }
        match push.data.first() {
            Some(Value::Array(keys)) => {
                let keys: Vec<String> = keys.iter().filter_map(|key| self.own(key)).collect();
                if !keys.is_empty() {
                    self.tell(RedisInvalidation::Keys(keys));
                }
            }
            // Null: the server was flushed. What is neither may be anything.
            _ => self.tell(RedisInvalidation::Everything),
        }
    }

    /// A key without the prefix, if it is one of ours.
    fn own(&self, key: &Value) -> Option<String> {
        let Value::BulkString(bytes) = key else { return None };
        Some(std::str::from_utf8(bytes).ok()?.strip_prefix(&self.prefix)?.to_owned())
    }
}

impl State {
    fn push(&mut self, event: RedisInvalidation) {
        match &event {
            RedisInvalidation::Keys(keys) => {
                if self.keys + keys.len() > MOST_KEYS {
                    let overrun = RedisInvalidation::Gap(RedisGap::Overrun);
                    self.make_way_for(&overrun);
                    self.events.push_back(overrun);
                    return;
                }
                self.keys += keys.len();
            }
            other => self.make_way_for(other),
        }
        self.events.push_back(event);
    }

    /// Whoever is told to forget everything need not be told what, nor twice for the same reason.
    fn make_way_for(&mut self, event: &RedisInvalidation) {
        self.events.retain(|other| !matches!(other, RedisInvalidation::Keys(_)) && other != event);
        self.keys = 0;
    }

    fn pop(&mut self) -> Option<RedisInvalidation> {
        let event = self.events.pop_front()?;
        if let RedisInvalidation::Keys(keys) = &event {
            self.keys -= keys.len();
        }
        Some(event)
    }
}

/// Tells that a connection can tell nothing any more, once, whatever ends it.
#[derive(Debug)]
pub(in super::super) struct Gap {
    queue: Arc<Queue>,
    told: AtomicBool,
}

impl Gap {
    pub(super) fn new(queue: Arc<Queue>) -> Self {
        Self { queue, told: AtomicBool::new(false) }
    }

    pub(in super::super) fn tell(&self) {
        if !self.told.swap(true, Ordering::AcqRel) {
            self.queue.tell(RedisInvalidation::Gap(RedisGap::Lost));
        }
    }
}

impl Drop for Gap {
    fn drop(&mut self) {
        self.tell();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn push(kind: PushKind, data: Vec<Value>) -> PushInfo {
        PushInfo { kind, data }
    }

    fn keys(keys: &[&str]) -> PushInfo {
        let keys = keys.iter().map(|key| Value::BulkString(key.as_bytes().to_vec())).collect();
        push(PushKind::Invalidate, vec![Value::Array(keys)])
    }

    fn told(queue: &Queue) -> Vec<RedisInvalidation> {
        std::iter::from_fn(|| queue.try_next()).collect()
    }

    #[test]
    fn every_key_of_a_push_is_told_without_the_prefix_and_those_of_others_are_not() {
        let queue = Queue::new("p:".to_owned());
        queue.pushed(&keys(&["p:a", "q:b", "p:c"]));
        queue.pushed(&keys(&["q:b"]));
        queue.pushed(&push(PushKind::Message, vec![Value::Nil]));
        assert_eq!(told(&queue), [RedisInvalidation::Keys(vec!["a".into(), "c".into()])]);
    }

    #[test]
    fn a_null_push_means_everything() {
        let queue = Queue::new(String::new());
        queue.pushed(&push(PushKind::Invalidate, vec![Value::Nil]));
        queue.pushed(&push(PushKind::Invalidate, Vec::new()));
        assert_eq!(told(&queue), [RedisInvalidation::Everything], "one says it all");
    }

    #[test]
    fn a_listener_that_is_too_slow_is_told_that_it_has_missed_some() {
        let queue = Queue::new(String::new());
        let many: Vec<String> = (0..MOST_KEYS).map(|n| n.to_string()).collect();
        queue.tell(RedisInvalidation::Keys(many));
        queue.pushed(&keys(&["one"]));
        queue.pushed(&keys(&["more"]));
        let more = RedisInvalidation::Keys(vec!["more".into()]);
        assert_eq!(told(&queue), [RedisInvalidation::Gap(RedisGap::Overrun), more]);
    }

    #[test]
    fn the_end_of_a_connection_is_told_once() {
        let queue = Arc::new(Queue::new(String::new()));
        let gap = Gap::new(Arc::clone(&queue));
        gap.tell();
        queue.pushed(&keys(&["a"]));
        drop(gap);
        let gap = RedisInvalidation::Gap(RedisGap::Lost);
        assert_eq!(told(&queue), [gap, RedisInvalidation::Keys(vec!["a".into()])]);
    }

    #[test]
    fn what_waits_is_bounded_whatever_is_told() {
        let queue = Queue::new(String::new());
        for _ in 0..1_000 {
            queue.pushed(&keys(&["a"]));
            for gap in [RedisGap::Lost, RedisGap::Armed, RedisGap::Moved] {
                queue.tell(RedisInvalidation::Gap(gap));
            }
            queue.tell(RedisInvalidation::Everything);
        }
        assert_eq!(told(&queue).len(), 4);
    }

    #[tokio::test]
    async fn what_was_told_before_the_end_is_heard() {
        let queue = Queue::new(String::new());
        queue.pushed(&keys(&["a"]));
        queue.end();
        assert!(queue.next().await.is_some());
        assert_eq!(queue.next().await, None);
        assert_eq!(queue.next().await, None);
    }
}
