use cache_kit::{Cache, cached};
use std::sync::LazyLock;

static CACHE: LazyLock<Cache> = LazyLock::new(|| Cache::from_env().unwrap());

struct Users;

impl Users {
    #[cached(cache = CACHE, key = "user:{id}:{name}", detached)]
    async fn user(&self, id: u64, name: &str) -> cache_kit::Result<u64> {
        Ok(id + name.len() as u64)
    }
}

fn main() {}
