//! SeaORM over SQLite. The model itself is the entity.

use std::collections::HashMap;

use cache_kit::backend::InMemoryBackend;
use cache_kit::{CacheService, DataRepository, Error, Result};
use sea_orm::{ActiveModelTrait as _, ColumnTrait as _, EntityTrait as _, QueryFilter as _, Set};
use sea_orm::{ConnectOptions, ConnectionTrait as _, Database, DatabaseConnection, TransactionTrait as _};

// ANCHOR: entity
mod user {
    use cache_kit::CacheEntity;
    use sea_orm::entity::prelude::*;
    use serde::{Deserialize, Serialize};

    #[derive(Clone, Debug, PartialEq, DeriveEntityModel, Serialize, Deserialize, CacheEntity)]
    #[sea_orm(table_name = "users")]
    #[cache(prefix = "user", ttl = "5m")]
    pub struct Model {
        #[sea_orm(primary_key)]
        pub id: i32,
        pub name: String,
    }

    #[derive(Clone, Copy, Debug, EnumIter, DeriveRelation)]
    pub enum Relation {}

    impl ActiveModelBehavior for ActiveModel {}
}
// ANCHOR_END: entity

// ANCHOR: read
struct Users(DatabaseConnection);

impl DataRepository<user::Model> for Users {
    async fn fetch_by_id(&self, id: &i32) -> Result<Option<user::Model>> {
        user::Entity::find_by_id(*id).one(&self.0).await.map_err(Error::source)
    }

    async fn fetch_by_ids(&self, ids: &[i32]) -> Result<Vec<Option<user::Model>>> {
        let query = user::Entity::find().filter(user::Column::Id.is_in(ids.iter().copied()));
        let rows = query.all(&self.0).await.map_err(Error::source)?;
        let mut rows: HashMap<_, _> = rows.into_iter().map(|user| (user.id, user)).collect();
        Ok(ids.iter().map(|id| rows.remove(id)).collect()) // In the order of the ids, `None` where there is no row.
    }
}
// ANCHOR_END: read

// ANCHOR: update
async fn rename(cache: &CacheService<InMemoryBackend>, db: &Users, id: i32, name: &str) -> Result<()> {
    let tx = db.0.begin().await.map_err(Error::source)?;
    let user = user::ActiveModel { id: Set(id), name: Set(name.to_owned()) };
    user.update(&tx).await.map_err(Error::source)?;
    let hold = cache.hold::<user::Model>(&[id]).await?; // From here on, nobody stores the old row.
    tx.commit().await.map_err(Error::source)?;
    hold.confirm().await
}
// ANCHOR_END: update

#[tokio::test]
async fn rows_are_read_through_the_cache_and_anew_after_an_update() -> Result<()> {
    let mut options = ConnectOptions::new("sqlite::memory:");
    options.max_connections(1).sqlx_logging(false);
    let db = Users(Database::connect(options).await.map_err(Error::source)?);
    let schema = "CREATE TABLE users (id INTEGER PRIMARY KEY, name TEXT NOT NULL);
                  INSERT INTO users VALUES (1, 'Ada'), (2, 'Grace'), (3, 'Barbara');";
    db.0.execute_unprepared(schema).await.map_err(Error::source)?;

    let cache = CacheService::new(InMemoryBackend::new());
    let ada: Option<user::Model> = cache.get(&1, &db).await?;
    let some = cache.get_many(&[3, 9, 1], &db).await?; // One query, for what is not cached.
    assert_eq!(ada.map(|user| user.name).as_deref(), Some("Ada"));
    assert_eq!(some.iter().map(Option::is_some).collect::<Vec<_>>(), [true, false, true]);
    assert_eq!(cache.stats().hits, 1);

    rename(&cache, &db, 1, "Ada Lovelace").await?;
    assert_eq!(cache.get(&1, &db).await?, Some(user::Model { id: 1, name: "Ada Lovelace".to_owned() }));
    Ok(())
}
