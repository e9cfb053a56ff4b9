use cache_kit::{Cache, cached};
use std::sync::LazyLock;

static CACHE: LazyLock<Cache> = LazyLock::new(|| Cache::from_env().unwrap());

#[cached(cache = CACHE, key = "sum:{numbers}")]
async fn sum(numbers: &[u64]) -> cache_kit::Result<u64> {
    Ok(numbers.iter().sum())
}

fn main() {}
