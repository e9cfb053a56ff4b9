use cache_kit::CacheEntity;

#[derive(Clone, CacheEntity)]
#[cache(prefix = "user")]
struct User {
    id: u64,
}

fn main() {}
