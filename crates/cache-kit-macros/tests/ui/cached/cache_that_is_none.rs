use cache_kit::{backend::InMemoryBackend, cached};
use std::sync::LazyLock;

static CACHE: LazyLock<InMemoryBackend> = LazyLock::new(InMemoryBackend::new);

#[cached(cache = CACHE, key = "user:{id}")]
async fn user(id: u64) -> cache_kit::Result<u64> {
    Ok(id)
}

fn main() {}
