use cache_kit::{Cache, cached};
use std::sync::LazyLock;

static CACHE: LazyLock<Cache> = LazyLock::new(|| Cache::from_env().unwrap());

#[cached(cache = CACHE, key = "user:{ids}")]
async fn unknown(pool: &str, id: u64) -> cache_kit::Result<u64> {
    Ok(id + pool.len() as u64)
}

#[cached(cache = CACHE, key = "{id}")]
async fn no_name(id: u64) -> cache_kit::Result<u64> {
    Ok(id)
}

#[cached(cache = CACHE, key = "user:{id:?}")]
async fn formatted(id: u64) -> cache_kit::Result<u64> {
    Ok(id)
}

#[cached(cache = CACHE, key = "user:{}")]
async fn nameless(id: u64) -> cache_kit::Result<u64> {
    Ok(id)
}

#[cached(cache = CACHE, key = "user:{a}{b}")]
async fn side_by_side(a: u64, b: u64) -> cache_kit::Result<u64> {
    Ok(a + b)
}

#[cached(cache = CACHE, key = "user:{a")]
async fn unclosed(a: u64) -> cache_kit::Result<u64> {
    Ok(a)
}

fn main() {}
