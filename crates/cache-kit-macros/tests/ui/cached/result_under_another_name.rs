use cache_kit::{Cache, cached};
use std::sync::LazyLock;

static CACHE: LazyLock<Cache> = LazyLock::new(|| Cache::from_env().unwrap());

type Answer<T> = Result<T, String>;

#[cached(cache = CACHE, key = "user:{id}")]
async fn user(id: u64) -> Answer<u64> {
    Ok(id)
}

fn main() {
    let _ = user(1);
}
