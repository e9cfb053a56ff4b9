//! Entities that know their key, read through a repository: with a feeder, without one, and many at once.
//!
//! `cargo run -q --example entities`
#![expect(clippy::print_stdout, reason = "printing is what it is for")]

use cache_kit::backend::InMemoryBackend;
use cache_kit::{
    CacheEntity, CacheService, CacheStrategy, DataRepository, GenericFeeder, OperationConfig, Result,
};
use serde::{Deserialize, Serialize};

#[derive(Clone, Serialize, Deserialize, CacheEntity)]
#[cache(prefix = "user", tags = ["tenant:{tenant}"])]
struct User {
    id: u64,
    tenant: String,
}

/// Holds a connection pool in real life. There are the ids below 100.
struct Users;

impl DataRepository<User> for Users {
    async fn fetch_by_id(&self, id: &u64) -> Result<Option<User>> {
        println!("    (query for {id})");
        Ok((*id < 100).then(|| User { id: *id, tenant: "acme".to_owned() }))
    }

    async fn fetch_by_ids(&self, ids: &[u64]) -> Result<Vec<Option<User>>> {
        println!("    (one query for {ids:?})");
        Ok(ids.iter().map(|id| (*id < 100).then(|| User { id: *id, tenant: "acme".to_owned() })).collect())
    }
}

#[tokio::main]
async fn main() -> Result<()> {
    let cache = CacheService::new(InMemoryBackend::new());

    println!("with a feeder");
    let mut feeder = GenericFeeder::<User>::new(7);
    cache.execute(&mut feeder, &Users, CacheStrategy::Refresh).await?;
    println!("    found: {}", feeder.data.is_some());

    println!("without one");
    let user: Option<User> = cache.get(&7, &Users).await?;
    println!("    found: {}", user.is_some());

    println!("many at once");
    let users: Vec<Option<User>> = cache.get_many(&[7, 8, 9, 700], &Users).await?;
    println!("    found: {:?}", users.iter().map(Option::is_some).collect::<Vec<_>>());

    println!("after an invalidation, and how it went");
    cache.invalidate::<User>(&7).await?;
    let config = OperationConfig::default();
    let outcome = cache.get_outcome::<User, _>(&7, &Users, CacheStrategy::Refresh, config).await?;
    println!("    {}", outcome.explain());

    println!("after the tag of its tenant is invalidated");
    cache.invalidate_tag("tenant:acme").await?;
    cache.get_many::<User, _>(&[7, 8, 9], &Users).await?;
    Ok(())
}
