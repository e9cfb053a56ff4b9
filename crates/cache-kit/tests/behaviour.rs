//! The shared behaviours, on every backend, boxed, and around every decorator.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use cache_kit::backend::{CacheBackend, InMemoryBackend};
use cache_kit::testing::{FaultyBackend, Subject};
use cache_kit::{ManualClock, Result, backend_suite};

/// A fresh store, and the time that it lives by.
fn memory() -> Subject<InMemoryBackend> {
    let time = ManualClock::new();
    let backend = InMemoryBackend::builder().clock(time.clock()).build().unwrap();
    Subject::manual_time(backend, time)
}

fn bounded() -> Subject<InMemoryBackend> {
    let time = ManualClock::new();
    let builder = InMemoryBackend::builder().clock(time.clock());
    Subject::manual_time(builder.max_entries(10_000).max_bytes(64 << 20).build().unwrap(), time)
}

/// The least that a user's own backend must write; everything else is provided.
struct Minimal(InMemoryBackend);

#[async_trait]
impl CacheBackend for Minimal {
    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        self.0.get(key).await
    }

    async fn set(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<()> {
        self.0.set(key, value, ttl).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.0.delete(key).await
    }

    // The suite needs it; without a provided form that could do it, it is the fourth method.
    async fn clear_all(&self) -> Result<()> {
        self.0.clear_all().await
    }
}

backend_suite!(inmemory, async { memory() });
backend_suite!(inmemory_bounded, async { bounded() });
backend_suite!(inmemory_real_time, async { Subject::real_time(InMemoryBackend::new()) });
backend_suite!(boxed, async { memory().map(|backend| Box::new(backend) as Box<dyn CacheBackend>) });
backend_suite!(arced, async { memory().map(|backend| Arc::new(backend) as Arc<dyn CacheBackend>) });
backend_suite!(faulty_without_faults, async { memory().map(|backend| FaultyBackend::new(backend).0) });
backend_suite!(own_minimal, async { memory().map(Minimal) });
backend_suite!(own_minimal_boxed, async {
    memory().map(|backend| Box::new(Minimal(backend)) as Box<dyn CacheBackend>)
});
