use cache_kit::Cache;

struct User;

fn read(cache: &Cache) {
    drop(cache.get::<User>("user:1"));
}

fn main() {}
