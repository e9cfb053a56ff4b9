use cache_kit::CacheEntity;
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize, CacheEntity)]
#[cache(prefix = "user", codec = "msgpack")]
struct User {
    id: u64,
}

fn main() {}
