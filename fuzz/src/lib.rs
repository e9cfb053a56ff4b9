//! What the fuzz targets share.

use futures_util::FutureExt as _;

/// The output of a future that never waits, as those over the in-process backend are: no runtime is needed,
/// and a target that starts to wait fails at once instead of hanging.
pub fn ready<T>(future: impl Future<Output = T>) -> T {
    match future.now_or_never() {
        Some(output) => output,
        None => panic!("a future over the in-process backend waited"),
    }
}
