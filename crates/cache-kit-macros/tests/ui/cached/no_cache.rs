use cache_kit::{Cache, cached};
use std::sync::LazyLock;

static CACHE: LazyLock<Cache> = LazyLock::new(|| Cache::from_env().unwrap());

#[cached(key = "user:{id}")]
async fn user(id: u64) -> cache_kit::Result<u64> {
    Ok(id)
}

fn main() {
    let _ = (user(1), &CACHE);
}
