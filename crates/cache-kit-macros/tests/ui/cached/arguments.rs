use cache_kit::{Cache, cached};
use std::sync::LazyLock;

static CACHE: LazyLock<Cache> = LazyLock::new(|| Cache::from_env().unwrap());

#[cached(cache = CACHE, key = "user:{id}", lifetime = "5m")]
async fn unknown(id: u64) -> cache_kit::Result<u64> {
    Ok(id)
}

#[cached(cache = CACHE, key = "user:{id}", ttl = "five minutes")]
async fn no_duration(id: u64) -> cache_kit::Result<u64> {
    Ok(id)
}

#[cached(cache = CACHE, key = "user:{id}", skip(tenant))]
async fn skips_what_is_not_there(id: u64) -> cache_kit::Result<u64> {
    Ok(id)
}

#[cached(cache = CACHE, key = "user:{id}", key = "user:{id}")]
async fn twice(id: u64) -> cache_kit::Result<u64> {
    Ok(id)
}

fn main() {}
