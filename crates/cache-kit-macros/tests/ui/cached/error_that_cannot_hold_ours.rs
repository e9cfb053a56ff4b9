use cache_kit::{Cache, cached};
use std::sync::LazyLock;

static CACHE: LazyLock<Cache> = LazyLock::new(|| Cache::from_env().unwrap());

#[derive(Debug)]
struct DatabaseDown;

impl std::fmt::Display for DatabaseDown {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("the database is down")
    }
}

impl std::error::Error for DatabaseDown {}

#[cached(cache = CACHE, key = "user:{id}")]
async fn user(id: u64) -> Result<u64, DatabaseDown> {
    Err(DatabaseDown)
}

fn main() {}
