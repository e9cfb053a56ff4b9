use cache_kit::{CacheEntity, CacheExpander, backend::InMemoryBackend};
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize)]
struct Plain {
    id: u64,
}

#[derive(Clone, Serialize, Deserialize, CacheEntity)]
#[cache(prefix = "user")]
struct User {
    id: u64,
}

struct Users;

fn read(expander: &CacheExpander<InMemoryBackend>) {
    drop(expander.get::<Plain, _>(&1, &Users));
    drop(expander.get::<User, _>(&1, &Users));
}

fn main() {}
