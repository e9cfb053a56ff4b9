//! A backend that fails on command.

use std::fmt;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;

use crate::backend::{Acquired, CacheBackend, Capabilities, Claim, Fill, Filled, Lease, Peek, SetEntry};
use crate::error::{Error, ErrorKind, Result};

/// The operations of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u32)]
#[expect(missing_docs, reason = "named as the methods are")]
pub enum Operation {
    Get,
    Set,
    Delete,
    Exists,
    Mget,
    Mset,
    Mdelete,
    DeletePattern,
    HealthCheck,
    ClearAll,
    Acquire,
    Fill,
    Renew,
    /// [`release_later`](CacheBackend::release_later) too: made to fail or hang, it does not reach the backend.
    Release,
}

impl Operation {
    const ALL: [Self; 14] = [
        Self::Get,
        Self::Set,
        Self::Delete,
        Self::Exists,
        Self::Mget,
        Self::Mset,
        Self::Mdelete,
        Self::DeletePattern,
        Self::HealthCheck,
        Self::ClearAll,
        Self::Acquire,
        Self::Fill,
        Self::Renew,
        Self::Release,
    ];

    fn bit(self) -> u32 {
        1 << self as u32
    }
}

/// Which operations fail; shared with the test, which changes it while the backend is in use.
#[derive(Debug, Default)]
pub struct Faults {
    failing: AtomicU32,
    hanging: AtomicU32,
    calls: [AtomicU64; Operation::ALL.len()],
}

impl Faults {
    /// Lets these operations fail with [`Unavailable`](ErrorKind::Unavailable), before they reach the backend.
    pub fn fail(&self, operations: impl IntoIterator<Item = Operation>) {
        for operation in operations {
            self.failing.fetch_or(operation.bit(), Ordering::SeqCst);
        }
    }

    /// Lets all operations fail.
    pub fn fail_all(&self) {
        self.fail(Operation::ALL);
    }

    /// Lets these operations never return.
    pub fn hang(&self, operations: impl IntoIterator<Item = Operation>) {
        for operation in operations {
            self.hanging.fetch_or(operation.bit(), Ordering::SeqCst);
        }
    }

    /// Lets everything work again. What hangs already, hangs on.
    pub fn heal(&self) {
        self.failing.store(0, Ordering::SeqCst);
        self.hanging.store(0, Ordering::SeqCst);
    }

    /// How often an operation was called, failed calls included.
    #[must_use]
    pub fn calls(&self, operation: Operation) -> u64 {
        self.calls[operation as usize].load(Ordering::SeqCst)
    }

    fn any(&self) -> bool {
        self.faulty() != 0
    }

    /// What fails or hangs.
    fn faulty(&self) -> u32 {
        self.failing.load(Ordering::SeqCst) | self.hanging.load(Ordering::SeqCst)
    }

    async fn check(&self, operation: Operation) -> Result<()> {
        self.calls[operation as usize].fetch_add(1, Ordering::SeqCst);
        if self.hanging.load(Ordering::SeqCst) & operation.bit() != 0 {
            std::future::pending::<()>().await;
        }
        if self.failing.load(Ordering::SeqCst) & operation.bit() != 0 {
            return Err(Error::new(ErrorKind::Unavailable, "made to fail").with_backend("faulty"));
        }
        Ok(())
    }
}

/// Wraps a backend and fails as [`Faults`] says.
///
/// ```
/// use cache_kit::{Cache, backend::InMemoryBackend, testing::FaultyBackend};
///
/// # async fn run() -> cache_kit::Result<()> {
/// let (backend, faults) = FaultyBackend::new(InMemoryBackend::new());
/// let cache = Cache::new(backend);
/// faults.fail_all();
/// // A dead cache fails no read that the source can answer.
/// let value = cache.get_or_load("k", || async { Ok::<_, std::io::Error>(1) }).await?;
/// assert_eq!(value, 1);
/// # Ok(()) }
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run()).unwrap();
/// ```
#[derive(Clone)]
pub struct FaultyBackend<B> {
    inner: B,
    faults: std::sync::Arc<Faults>,
}

impl<B: CacheBackend> FaultyBackend<B> {
    /// The wrapped backend, and the handle that makes it fail. It fails nothing at first.
    pub fn new(inner: B) -> (Self, std::sync::Arc<Faults>) {
        let faults = std::sync::Arc::new(Faults::default());
        (Self { inner, faults: std::sync::Arc::clone(&faults) }, faults)
    }
}

#[async_trait]
#[deny(clippy::missing_trait_methods)]
impl<B: CacheBackend> CacheBackend for FaultyBackend<B> {
    fn capabilities(&self) -> Capabilities {
        self.inner.capabilities()
    }

    fn peek(&self, key: &str) -> Peek {
        // What is to fail or hang, or to be counted, has to come through `get`.
        if self.faults.any() {
            return Peek::Unknown;
        }
        self.faults.calls[Operation::Get as usize].fetch_add(1, Ordering::SeqCst);
        self.inner.peek(key)
    }

    fn distrust(&self) {
        self.inner.distrust();
    }

    async fn get(&self, key: &str) -> Result<Option<Bytes>> {
        self.faults.check(Operation::Get).await?;
        self.inner.get(key).await
    }

    async fn set(&self, key: &str, value: Bytes, ttl: Option<Duration>) -> Result<()> {
        self.faults.check(Operation::Set).await?;
        self.inner.set(key, value, ttl).await
    }

    async fn delete(&self, key: &str) -> Result<()> {
        self.faults.check(Operation::Delete).await?;
        self.inner.delete(key).await
    }

    async fn exists(&self, key: &str) -> Result<bool> {
        self.faults.check(Operation::Exists).await?;
        self.inner.exists(key).await
    }

    async fn mget(&self, keys: &[&str]) -> Result<Vec<Option<Bytes>>> {
        self.faults.check(Operation::Mget).await?;
        self.inner.mget(keys).await
    }

    async fn mget_each(&self, keys: &[&str]) -> Result<Vec<Result<Option<Bytes>>>> {
        self.faults.check(Operation::Mget).await?;
        self.inner.mget_each(keys).await
    }

    async fn mset(&self, entries: &[SetEntry<'_>]) -> Result<()> {
        self.faults.check(Operation::Mset).await?;
        self.inner.mset(entries).await
    }

    async fn mdelete(&self, keys: &[&str]) -> Result<()> {
        self.faults.check(Operation::Mdelete).await?;
        self.inner.mdelete(keys).await
    }

    async fn delete_pattern(&self, pattern: &str) -> Result<u64> {
        self.faults.check(Operation::DeletePattern).await?;
        self.inner.delete_pattern(pattern).await
    }

    async fn health_check(&self) -> Result<bool> {
        self.faults.check(Operation::HealthCheck).await?;
        self.inner.health_check().await
    }

    async fn clear_all(&self) -> Result<()> {
        self.faults.check(Operation::ClearAll).await?;
        self.inner.clear_all().await
    }

    async fn acquire(&self, key: &str, seen: Option<&Bytes>, life: Duration) -> Result<Acquired> {
        self.faults.check(Operation::Acquire).await?;
        self.inner.acquire(key, seen, life).await
    }

    async fn fill(&self, key: &str, lease: &Lease, value: Bytes, ttl: Option<Duration>) -> Result<Filled> {
        self.faults.check(Operation::Fill).await?;
        self.inner.fill(key, lease, value, ttl).await
    }

    async fn acquire_many(&self, claims: &[Claim<'_>], life: Duration) -> Result<Vec<Result<Acquired>>> {
        self.faults.check(Operation::Acquire).await?;
        self.inner.acquire_many(claims, life).await
    }

    async fn fill_many(&self, fills: &[Fill<'_>]) -> Result<Vec<Result<Filled>>> {
        self.faults.check(Operation::Fill).await?;
        self.inner.fill_many(fills).await
    }

    fn shards(&self) -> usize {
        self.inner.shards()
    }

    fn shard_of(&self, key: &str) -> usize {
        self.inner.shard_of(key)
    }

    fn shard_key(&self, shard: usize, name: &str) -> String {
        self.inner.shard_key(shard, name)
    }

    async fn renew(&self, key: &str, lease: &Lease, life: Duration) -> Result<Option<Lease>> {
        self.faults.check(Operation::Renew).await?;
        self.inner.renew(key, lease, life).await
    }

    async fn release(&self, key: &str, lease: &Lease) -> Result<()> {
        self.faults.check(Operation::Release).await?;
        self.inner.release(key, lease).await
    }

    fn release_later(&self, key: &str, lease: Lease) {
        self.faults.calls[Operation::Release as usize].fetch_add(1, Ordering::SeqCst);
        if self.faults.faulty() & Operation::Release.bit() == 0 {
            self.inner.release_later(key, lease);
        }
    }
}

impl<B> fmt::Debug for FaultyBackend<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultyBackend").field("faults", &self.faults).finish_non_exhaustive()
    }
}
