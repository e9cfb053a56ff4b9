//! A small shop over Actix Web, SQLx and cache-kit: users, products, and prices that change.
//!
//! Where to look: `shop` reads through the cache, `writes` changes rows and invalidates, `repository` is the source
//! behind the cache, `model` says what is cached under which key and tags.

mod config;
mod db;
mod error;
mod input;
mod metrics;
mod model;
mod observe;
mod pulse;
mod repository;
mod routes;
mod server;
mod shop;
mod writes;

pub use config::{Config, Database};
pub use server::run;
