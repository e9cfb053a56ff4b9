//! A gate in the middle of a load: tests of races stop and go instead of sleeping and hoping.

use std::fmt;
use std::sync::Arc;

use tokio::sync::Semaphore;

/// Something that a load stops at until the test lets it pass.
///
/// ```
/// use cache_kit::{Cache, testing::Gate};
///
/// # async fn run() -> cache_kit::Result<()> {
/// let cache = Cache::from_url("memory://")?;
/// let gate = Gate::new();
/// let (load, at) = (cache.clone(), gate.clone());
/// let loading = tokio::spawn(async move {
///     load.get_or_load("k", move || async move {
///         at.pass().await;
///         Ok::<_, std::io::Error>(1)
///     })
///     .await
/// });
/// gate.reached().await; // The load has begun.
/// cache.invalidate("k").await?;
/// gate.open();
/// assert_eq!(loading.await.unwrap()?, 1);
/// assert_eq!(cache.get::<i32>("k").await?, None); // It stored nothing.
/// # Ok(()) }
/// # tokio::runtime::Builder::new_current_thread().build().unwrap().block_on(run()).unwrap();
/// ```
#[derive(Clone)]
pub struct Gate {
    arrived: Arc<Semaphore>,
    open: Arc<Semaphore>,
}

impl Gate {
    /// A closed gate.
    #[must_use]
    pub fn new() -> Self {
        Self { arrived: Arc::new(Semaphore::new(0)), open: Arc::new(Semaphore::new(0)) }
    }

    /// Arrives, and waits until the gate is open.
    pub async fn pass(&self) {
        self.arrived.add_permits(1);
        if let Ok(permit) = self.open.acquire().await {
            permit.forget();
        }
    }

    /// Waits until one more has arrived.
    pub async fn reached(&self) {
        if let Ok(permit) = self.arrived.acquire().await {
            permit.forget();
        }
    }

    /// Lets everyone pass, now and later.
    pub fn open(&self) {
        self.open.close();
    }

    /// Lets one pass.
    pub fn let_one_pass(&self) {
        self.open.add_permits(1);
    }
}

impl Default for Gate {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Gate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Gate")
    }
}
