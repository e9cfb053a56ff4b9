use cache_kit::CacheEntity;
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize, CacheEntity)]
#[cache(prefix = "user", tags = ["tenant:{tenant}", "{id}", "pair:{id}{name}"])]
struct User {
    id: u64,
    name: String,
}

#[derive(Clone, Serialize, Deserialize, CacheEntity)]
#[cache(prefix = "user", tags = ["tenant:{tenant}"])]
struct Other {
    id: u64,
    name: String,
}

fn main() {}
