//! What the benchmarks share: the values that they use, and the harness of those with a network.

pub mod dead_link;
pub mod network;

use serde::{Deserialize, Serialize};

/// A small entity: three short strings, 42 bytes in postcard.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Small {
    pub id: String,
    pub name: String,
    pub email: String,
}

/// About three quarters of a kilobyte in postcard, nested.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Large {
    pub id: String,
    pub title: String,
    pub tags: Vec<String>,
    pub lines: Vec<Line>,
}

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Line {
    pub sku: String,
    pub quantity: u32,
    pub price: f64,
}

impl Small {
    pub fn new(n: u64) -> Self {
        Self { id: n.to_string(), name: format!("name of {n}"), email: format!("user{n}@example.com") }
    }
}

impl Large {
    pub fn new(n: u64) -> Self {
        let line = |l: u32| Line { sku: format!("sku-{n}-{l:04}"), quantity: l, price: f64::from(l) * 1.25 };
        Self {
            id: n.to_string(),
            title: format!("order number {n} with a title of some length"),
            tags: (0..8).map(|tag| format!("tag number {tag}")).collect(),
            lines: (0..22).map(line).collect(),
        }
    }
}

macro_rules! entity {
    ($type:ty, $prefix:literal) => {
        impl cache_kit::CacheEntity for $type {
            type Key = String;

            fn cache_key(&self) -> String {
                self.id.clone()
            }

            fn cache_prefix() -> &'static str {
                $prefix
            }
        }

        impl published::CacheEntity for $type {
            type Key = String;

            fn cache_key(&self) -> String {
                self.id.clone()
            }

            fn cache_prefix() -> &'static str {
                $prefix
            }
        }
    };
}

entity!(Small, "small");
entity!(Large, "large");
