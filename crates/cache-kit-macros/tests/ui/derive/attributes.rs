use cache_kit::CacheEntity;
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize, CacheEntity)]
#[cache(prefix = "", ttl = "5 minuts")]
#[cache(lifetime = "5m")]
struct User {
    #[cache(id)]
    id: u64,
}

#[derive(Clone, Serialize, Deserialize, CacheEntity)]
#[cache(prefix = "a", prefix = "b")]
struct Twice {
    id: u64,
}

#[derive(Clone, Serialize, Deserialize, CacheEntity)]
#[cache(prefix = "a", ttl = "0s", tags = "all", codec = "bincode")]
struct Wrong {
    id: u64,
}

#[derive(Clone, Serialize, Deserialize, CacheEntity)]
#[cache(prefix = "a", tags = "all")]
struct Tags {
    id: u64,
}

#[derive(Clone, Serialize, Deserialize, CacheEntity)]
#[cache(prefix = "a", codec = "bincode")]
struct OtherCodec {
    id: u64,
}

fn main() {}
