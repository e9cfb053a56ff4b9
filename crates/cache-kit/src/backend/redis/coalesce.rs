//! Reads that come while others are under way go together, as one `MGET`: the server spends less on a key
//! of an `MGET` as on a `GET`, and the client one message instead of many.
//!
//! A read that finds its connection idle goes alone and at once. The first that does not starts a batch, and the
//! batch leaves when the tasks that are ready to run have had their turn, so that it holds the reads of all of them.
//! It is sent by a task of its own: callers may go away, or not be polled, without harm to the others.
//!
//! To a node of a cluster, which refuses an `MGET` of keys in several slots, a batch goes as many `GET`s in one message:
//! what is saved is the client's.

use std::mem;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use cache_kit_net::Connection as _;
use redis::{Pipeline, RedisResult, Value, cmd};
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::conn::Conn;
use super::error::is_no_permission;
use super::greeting::ServerMode;

/// With fewer commands under way, each goes alone: a batch costs a task, and would hold too few.
const FROM: usize = 2;
/// Keys in one `MGET`, at most: the server serves nobody else meanwhile.
const MOST: usize = 128;

/// The reads of one connection that have not left yet.
#[derive(Default)]
pub(super) struct Batch {
    waiting: Mutex<Vec<Waiting>>,
    /// The user may not `MGET` what he may `GET`.
    refused: AtomicBool,
}

/// Empties a batch whose task was dropped with its runtime, so that those who wait ask alone and the next starts anew.
struct Leaving(Option<Arc<Conn>>);

impl Leaving {
    fn now(mut self) -> Vec<Waiting> {
        self.0.take().map(|conn| conn.batch().take()).unwrap_or_default()
    }
}

impl Drop for Leaving {
    fn drop(&mut self) {
        if let Some(conn) = &self.0 {
            drop(conn.batch().take());
        }
    }
}

struct Waiting {
    key: String,
    answer: oneshot::Sender<RedisResult<Value>>,
}

impl Batch {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Waiting>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take(&self) -> Vec<Waiting> {
        mem::take(&mut *self.lock())
    }
}

impl Conn {
    /// The value under a key of the server, asked for alone or together with others. `bound` is the callers' own.
    pub(super) async fn read(self: &Arc<Self>, key: &str, bound: Duration) -> RedisResult<Value> {
        if self.in_flight() >= FROM
            && !self.batch().refused.load(Ordering::Relaxed)
            // Without an answer the batch was refused as a whole, or lost with the runtime that was to send it.
            && let Ok(answer) = self.join_batch(key, bound).await
        {
            return answer;
        }
        let mut command = cmd("GET");
        command.arg(key);
        self.send(&command).await
    }

    async fn join_batch(
        self: &Arc<Self>,
        key: &str,
        bound: Duration,
    ) -> Result<RedisResult<Value>, oneshot::error::RecvError> {
        let (answer, answered) = oneshot::channel();
        let first = {
            let mut waiting = self.batch().lock();
            waiting.push(Waiting { key: key.to_owned(), answer });
            waiting.len() == 1
        };
        if first {
            let (conn, leaving) = (Arc::clone(self), Leaving(Some(Arc::clone(self))));
            tokio::spawn(async move {
                tokio::task::yield_now().await;
                let mut batch = leaving.now();
                while batch.len() > MOST {
                    let full = batch.split_off(batch.len() - MOST);
                    let conn = Arc::clone(&conn);
                    tokio::spawn(async move { conn.send_batch(full, bound).await });
                }
                conn.send_batch(batch, bound).await;
            });
        }
        answered.await
    }

    /// Sends a batch and tells each caller its answer; whom it tells nothing asks alone.
    async fn send_batch(&self, mut batch: Vec<Waiting>, bound: Duration) {
        // Who has gone away needs no answer.
        batch.retain(|read| !read.answer.is_closed());
        let count = batch.len();
        if count > 1 && self.greeting().mode == ServerMode::Cluster {
            return self.send_batch_of_gets(batch, bound).await;
        }
        let mut command = cmd(if count == 1 { "GET" } else { "MGET" });
        for read in &batch {
            command.arg(&read.key);
        }
        let answer = match count {
            0 => return,
            _ => timeout(bound, self.send_for(&command, count)).await,
        };
        match answer {
            Ok(answer) if count == 1 => {
                if let Some(read) = batch.pop() {
                    drop(read.answer.send(answer));
                }
            }
            Ok(Ok(Value::Array(values))) if values.len() == count => {
                for (read, value) in batch.into_iter().zip(values) {
                    drop(read.answer.send(Ok(value)));
                }
            }
            // One key among them that the user may not read is enough. Who may read what, asking alone tells.
            Ok(Err(error)) if is_no_permission(&error) => self.batch().refused.store(true, Ordering::Relaxed),
            Ok(Err(error)) => {
                for read in batch {
                    drop(read.answer.send(Err(error.clone())));
                }
            }
            // The callers' own deadlines have passed too; or the answer makes no sense, and each asks alone.
            Err(_) | Ok(Ok(_)) => {}
        }
    }

    /// Sends a batch one by one, in one message.
    async fn send_batch_of_gets(&self, batch: Vec<Waiting>, bound: Duration) {
        let mut gets = Pipeline::with_capacity(batch.len());
        for read in &batch {
            gets.cmd("GET").arg(&read.key);
        }
        match timeout(bound, self.send_all(&gets, 0, batch.len())).await {
            Ok(Ok(answers)) if answers.len() == batch.len() => {
                for (read, answer) in batch.into_iter().zip(answers) {
                    drop(read.answer.send(match answer {
                        Value::ServerError(error) => Err(error.into()),
                        value => Ok(value),
                    }));
                }
            }
            Ok(Err(error)) => {
                for read in batch {
                    drop(read.answer.send(Err(error.clone())));
                }
            }
            // The callers' own deadlines have passed too; or the answer makes no sense, and each asks alone.
            Err(_) | Ok(Ok(_)) => {}
        }
    }
}
