use cache_kit::{CacheEntity, CacheSchema};
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize, CacheSchema)]
#[cache(codec = "msgpack")]
struct Address {
    #[serde(skip_serializing_if = "Option::is_none")]
    street: Option<String>,
}

#[derive(Clone, Serialize, Deserialize, CacheSchema)]
struct Contact {
    addresses: Vec<Address>,
}

#[derive(Clone, Serialize, Deserialize, CacheEntity)]
#[cache(prefix = "user")]
struct User {
    id: u64,
    contact: Contact,
}

fn main() {}
