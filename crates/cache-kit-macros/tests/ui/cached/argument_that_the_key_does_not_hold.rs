use cache_kit::{Cache, cached};
use std::sync::LazyLock;

static CACHE: LazyLock<Cache> = LazyLock::new(|| Cache::from_env().unwrap());

#[cached(cache = CACHE, key = "user:{id}")]
async fn user(tenant: u32, id: u64) -> cache_kit::Result<u64> {
    Ok(id + u64::from(tenant))
}

fn main() {}
