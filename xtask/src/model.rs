//! `cargo xtask model`: the state machine of shared loads, under a model checker.

use crate::step::Steps;
use crate::{cargo, root};

pub(crate) fn run() -> Result<(), String> {
    let mut steps = Steps::default();
    check(&mut steps)?;
    steps.finish()
}

/// The library is compiled again for it, with other locks, in a directory of its own: the flags of a build are those of
/// everything in it. Optimized, because the schedules are many; overflows are checked all the same.
pub(crate) fn check(steps: &mut Steps) -> Result<(), String> {
    let mut test =
        cargo(["test", "-p", "cache-kit", "--lib", "--locked", "flight::model", "--", "--nocapture"]);
    test.env("RUSTFLAGS", "--cfg cache_kit_model")
        .env("CARGO_PROFILE_DEV_OPT_LEVEL", "2")
        .env("CARGO_TARGET_DIR", root().join("target/model"));
    steps.command("model", &mut test)
}
