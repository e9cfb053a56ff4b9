use cache_kit::Cache;
use std::collections::HashMap;

struct Counters;

fn main() {
    let _ = Cache::new(HashMap::<String, String>::new());
    let _ = Cache::builder().metrics(Counters);
}
