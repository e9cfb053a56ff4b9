use cache_kit::CacheEntity;
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize)]
struct Inner {
    a: u8,
}

#[derive(Clone, Serialize, Deserialize, CacheEntity)]
#[cache(prefix = "user")]
struct User {
    id: u64,
    #[serde(skip_serializing_if = "Option::is_none")]
    email: Option<String>,
    #[serde(flatten)]
    inner: Inner,
}

#[derive(Clone, Serialize, Deserialize, cache_kit::CacheSchema)]
#[serde(tag = "kind")]
enum Event {
    Created { at: u64 },
}

fn main() {}
