//! A source that counts how often it is asked, and the entity that it holds.

#![allow(
    dead_code,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::allow_attributes,
    clippy::future_not_send,
    clippy::print_stdout,
    reason = "each test file uses its own part of this, prints what it measured, and runs it on its own thread"
)]

pub mod engine;
pub mod network;
pub mod other;
pub mod sites;

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use cache_kit::backend::{CacheBackend, InMemoryBackend, Peek};
use cache_kit::testing::Gate;
use cache_kit::{CacheEntity, DataRepository, Error, Result};
use serde::{Deserialize, Serialize};

#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct User {
    pub id: u64,
    pub name: String,
}

impl CacheEntity for User {
    type Key = u64;

    fn cache_key(&self) -> u64 {
        self.id
    }

    fn cache_prefix() -> &'static str {
        "user"
    }

    fn validate(&self) -> Result<()> {
        if self.name == "invalid" { Err(Error::source("a user named invalid")) } else { Ok(()) }
    }
}

/// The error of the source.
#[derive(Debug, PartialEq, Eq)]
pub struct SourceDown(pub u64);

impl std::fmt::Display for SourceDown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "source down, try {}", self.0)
    }
}

impl std::error::Error for SourceDown {}

/// A table of users. Cheap to clone; clones are one table.
#[derive(Clone, Default)]
pub struct Users {
    rows: Arc<Mutex<HashMap<u64, String>>>,
    asked: Arc<AtomicU64>,
    failures: Arc<AtomicU64>,
    gate: Option<Gate>,
}

impl Users {
    pub fn with(rows: &[(u64, &str)]) -> Self {
        let users = Self::default();
        for (id, name) in rows {
            users.put(*id, name);
        }
        users
    }

    /// The same table; whoever reads through this handle reads first, and then waits at the gate.
    pub fn behind(&self, gate: &Gate) -> Self {
        Self { gate: Some(gate.clone()), ..self.clone() }
    }

    pub fn put(&self, id: u64, name: &str) {
        self.rows.lock().unwrap().insert(id, name.to_owned());
    }

    /// Lets the next `count` reads fail.
    pub fn fail(&self, count: u64) {
        self.failures.store(count, Ordering::SeqCst);
    }

    /// How often a read was begun.
    pub fn asked(&self) -> u64 {
        self.asked.load(Ordering::SeqCst)
    }

    pub async fn find(&self, id: u64) -> Result<Option<User>, SourceDown> {
        let try_number = self.asked.fetch_add(1, Ordering::SeqCst) + 1;
        let found = self.rows.lock().unwrap().get(&id).map(|name| User { id, name: name.clone() });
        if let Some(gate) = &self.gate {
            gate.pass().await;
        }
        let failing =
            self.failures.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if failing.is_ok() {
            return Err(SourceDown(try_number));
        }
        Ok(found)
    }

    /// As a loader for `Cache`: the name.
    pub async fn name(self, id: u64) -> Result<String, SourceDown> {
        Ok(self.find(id).await?.map_or_else(String::new, |user| user.name))
    }
}

impl DataRepository<User> for Users {
    async fn fetch_by_id(&self, id: &u64) -> Result<Option<User>> {
        self.find(*id).await.map_err(Error::source)
    }

    async fn fetch_by_ids(&self, ids: &[u64]) -> Result<Vec<Option<User>>> {
        self.asked.fetch_add(1, Ordering::SeqCst);
        if let Some(gate) = &self.gate {
            let rows = self.rows.lock().unwrap().clone();
            gate.pass().await;
            return Ok(ids
                .iter()
                .map(|id| rows.get(id).map(|n| User { id: *id, name: n.clone() }))
                .collect());
        }
        let rows = self.rows.lock().unwrap();
        Ok(ids.iter().map(|id| rows.get(id).map(|name| User { id: *id, name: name.clone() })).collect())
    }
}

/// Ends a test that hangs.
pub async fn bounded<F: Future>(test: F) -> F::Output {
    match tokio::time::timeout(Duration::from_secs(20), test).await {
        Ok(output) => output,
        Err(_) => panic!("hangs"),
    }
}

/// Lets other tasks of a single-threaded runtime run until they wait.
pub async fn settle() {
    for _ in 0..20 {
        tokio::task::yield_now().await;
    }
}

/// Polls a future up to `polls` times, yielding in between, and drops it.
pub async fn drop_after<F: Future>(future: F, polls: u32) -> Option<F::Output> {
    let mut future = std::pin::pin!(future);
    for _ in 0..polls {
        if let Poll::Ready(output) = future.as_mut().poll(&mut Context::from_waker(Waker::noop())) {
            return Some(output);
        }
        tokio::task::yield_now().await;
    }
    None
}

/// What a Redis user of a backend with this prefix must be allowed, and nothing more; see SECURITY.md.
pub fn least_rights(prefix: &str) -> String {
    format!(
        "~{prefix}* +get +mget +set +unlink +del +exists +getrange +pttl +time +eval +evalsha +scan +ping \
         +cluster|slots +readonly +asking"
    )
}

/// Asks again and again until it holds.
pub async fn until(what: &str, limit: Duration, mut holds: impl AsyncFnMut() -> bool) -> Duration {
    let began = std::time::Instant::now();
    while !holds().await {
        assert!(began.elapsed() < limit, "{what}: not within {limit:?}");
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    began.elapsed()
}

/// How many entries a store in memory has, beside the versions of a cache without a namespace, or of one that is named `shop`.
pub fn values_in(memory: &InMemoryBackend) -> usize {
    let versions = ["%space", "%tags", "shop/%space", "shop/%tags"].into_iter();
    memory.stats().entries - versions.filter(|key| matches!(memory.peek(key), Peek::Hit(_))).count()
}
