use cache_kit::{Cache, cached};
use std::sync::LazyLock;

static CACHE: LazyLock<Cache> = LazyLock::new(|| Cache::from_env().unwrap());

struct User(u64);

#[cached(cache = CACHE, key = "user:{id}")]
async fn user(id: u64) -> cache_kit::Result<User> {
    Ok(User(id))
}

fn main() {}
