//! For your own tests: a behaviour suite for any backend, backends that fail on command, loaders that stop at
//! a gate. Feature `testing`; outside semver.

mod faulty;
mod gate;
mod subject;
pub mod suite;

pub use faulty::{Faults, FaultyBackend, Operation};
pub use gate::Gate;
pub use subject::Subject;

/// What the macro needs from its user's dependencies.
#[doc(hidden)]
pub mod private {
    pub use tokio;

    /// Runs one behaviour on a runtime of its own, with a bound on its time: a backend that hangs fails.
    pub fn run(name: &str, test: impl Future<Output = ()>) {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build();
        let Ok(runtime) = runtime else { panic!("no runtime for {name}") };
        let bounded = async { tokio::time::timeout(std::time::Duration::from_secs(60), test).await };
        assert!(runtime.block_on(bounded).is_ok(), "{name} did not end within 60 s");
    }
}
