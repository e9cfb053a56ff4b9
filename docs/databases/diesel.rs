//! Diesel over SQLite. It blocks, so its queries run where blocking is allowed.

use std::collections::HashMap;

use cache_kit::backend::InMemoryBackend;
use cache_kit::{CacheEntity, CacheService, DataRepository, Error, Result};
use diesel::prelude::*;
use diesel::r2d2::{ConnectionManager, Pool};
use serde::{Deserialize, Serialize};

// ANCHOR: entity
diesel::table! { users { id -> Integer, name -> Text, } }

#[derive(Clone, Debug, PartialEq, Queryable, Serialize, Deserialize, CacheEntity)]
#[cache(prefix = "user", ttl = "5m")]
struct User {
    id: i32,
    name: String,
}

struct Users(Pool<ConnectionManager<SqliteConnection>>);

impl Users {
    async fn run<T, F>(&self, query: F) -> Result<T>
    where
        T: Send + 'static,
        F: FnOnce(&mut SqliteConnection) -> QueryResult<T> + Send + 'static,
    {
        let pool = self.0.clone();
        let run = move || query(&mut *pool.get().map_err(Error::source)?).map_err(Error::source);
        tokio::task::spawn_blocking(run).await.map_err(Error::source)?
    }
}
// ANCHOR_END: entity

// ANCHOR: read
impl DataRepository<User> for Users {
    async fn fetch_by_id(&self, &id: &i32) -> Result<Option<User>> {
        self.run(move |db| users::table.find(id).first(db).optional()).await
    }

    async fn fetch_by_ids(&self, ids: &[i32]) -> Result<Vec<Option<User>>> {
        let query = users::table.filter(users::id.eq_any(ids.to_vec()));
        let rows: Vec<User> = self.run(|db| query.load(db)).await?;
        let mut rows: HashMap<_, _> = rows.into_iter().map(|user| (user.id, user)).collect();
        Ok(ids.iter().map(|id| rows.remove(id)).collect()) // In the order of the ids, `None` where there is no row.
    }
}
// ANCHOR_END: read

// ANCHOR: update
async fn rename(cache: &CacheService<InMemoryBackend>, db: &Users, id: i32, name: &str) -> Result<()> {
    let name = name.to_owned();
    let update = move |db: &mut SqliteConnection| {
        db.transaction(|db| diesel::update(users::table.find(id)).set(users::name.eq(name)).execute(db))
    };
    db.run(update).await?; // Committed.
    cache.invalidate::<User>(&id).await
}
// ANCHOR_END: update

#[tokio::test]
async fn rows_are_read_through_the_cache_and_anew_after_an_update() -> Result<()> {
    let one = Pool::builder().max_size(1).build(ConnectionManager::new(":memory:"));
    let db = Users(one.map_err(Error::source)?);
    let schema = "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
                  INSERT INTO users VALUES (1, 'Ada'), (2, 'Grace'), (3, 'Barbara');";
    db.run(|db| diesel::connection::SimpleConnection::batch_execute(db, schema)).await?;

    // ANCHOR: use
    let cache = CacheService::new(InMemoryBackend::new());
    let ada: Option<User> = cache.get(&1, &db).await?;
    let some = cache.get_many(&[3, 9, 1], &db).await?; // One query, for what is not cached.
    // ANCHOR_END: use
    assert_eq!(ada.map(|user| user.name).as_deref(), Some("Ada"));
    assert_eq!(some.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(cache.stats().hits, 1);

    rename(&cache, &db, 1, "Ada Lovelace").await?;
    assert_eq!(cache.get(&1, &db).await?, Some(User { id: 1, name: "Ada Lovelace".to_owned() }));
    Ok(())
}
