use cache_kit::{Cache, cached};
use std::sync::LazyLock;

static CACHE: LazyLock<Cache> = LazyLock::new(|| Cache::from_env().unwrap());

#[cached(cache = CACHE, key = "nothing")]
async fn nothing() {}

#[cached(cache = CACHE, key = "some")]
async fn some() -> impl std::fmt::Display {
    5
}

#[cached(cache = CACHE, key = "pair")]
async fn pair((a, b): (u64, u64)) -> cache_kit::Result<u64> {
    Ok(a + b)
}

fn main() {}
