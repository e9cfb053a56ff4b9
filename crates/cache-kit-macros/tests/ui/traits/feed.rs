use cache_kit::{CacheEntity, CacheExpander, CacheStrategy, InMemoryRepository, backend::InMemoryBackend};
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize, CacheEntity)]
#[cache(prefix = "user")]
struct User {
    id: u64,
}

fn read(expander: &CacheExpander<InMemoryBackend>, repository: &InMemoryRepository<User>) {
    let mut id = 7_u64;
    drop(expander.with(&mut id, repository, CacheStrategy::Refresh));
}

fn main() {}
