//! tokio-postgres, with plain values and closures.

use std::sync::Arc;

use cache_kit::{Cache, Error};
use cache_kit_test_support::PostgresServer;
use tokio_postgres::{Client, NoTls};

// ANCHOR: read
async fn name_of(cache: &Cache, db: &Arc<Client>, id: i64) -> cache_kit::Result<Option<String>> {
    let db = Arc::clone(db);
    let load = move || async move {
        let row = db.query_opt("SELECT name FROM users WHERE id = $1", &[&id]).await?;
        row.map(|row| row.try_get(0)).transpose() // That there is no row is remembered for a moment, too.
    };
    cache.get_or_load_optional(format!("name:{id}"), load).await
}
// ANCHOR_END: read

// ANCHOR: batch
async fn names_of(cache: &Cache, db: &Arc<Client>, ids: &[i64]) -> cache_kit::Result<Vec<Option<String>>> {
    let db = Arc::clone(db);
    let load = move |missing: Vec<String>| {
        let db = Arc::clone(&db);
        async move {
            let ids: Vec<i64> = missing.iter().filter_map(|key| key["name:".len()..].parse().ok()).collect();
            let rows = db.query("SELECT id, name FROM users WHERE id = ANY($1)", &[&ids]).await?;
            let pair = |row: &tokio_postgres::Row| {
                Ok((format!("name:{}", row.try_get::<_, i64>(0)?), row.try_get::<_, String>(1)?))
            };
            rows.iter().map(pair).collect::<Result<Vec<_>, tokio_postgres::Error>>()
        }
    };
    cache.get_many_or_load(ids.iter().map(|id| format!("name:{id}")), load).await
}
// ANCHOR_END: batch

// ANCHOR: update
async fn rename(cache: &Cache, db: &mut Client, id: i64, name: &str) -> cache_kit::Result<()> {
    let tx = db.transaction().await.map_err(Error::source)?;
    let update = "UPDATE users SET name = $2 WHERE id = $1";
    tx.execute(update, &[&id, &name]).await.map_err(Error::source)?;
    let hold = cache.hold([format!("name:{id}")]).await?; // From here on, nobody stores the old row.
    tx.commit().await.map_err(Error::source)?;
    hold.confirm().await
}
// ANCHOR_END: update

/// A client of a server that the test has started.
async fn connected(server: &PostgresServer) -> Client {
    let (client, connection) = tokio_postgres::connect(&server.url(), NoTls).await.unwrap();
    tokio::spawn(connection);
    client
}

#[tokio::test]
async fn rows_are_read_through_the_cache_and_anew_after_an_update() -> cache_kit::Result<()> {
    let server = PostgresServer::start();
    let (reader, mut writer) = (Arc::new(connected(&server).await), connected(&server).await);
    let schema = "CREATE TABLE users (id bigint PRIMARY KEY, name text NOT NULL);
                  INSERT INTO users VALUES (1, 'Ada'), (2, 'Grace'), (3, 'Barbara');";
    writer.batch_execute(schema).await.map_err(Error::source)?;

    let cache = Cache::from_url("memory://")?;
    assert_eq!(name_of(&cache, &reader, 1).await?.as_deref(), Some("Ada"));
    assert_eq!(name_of(&cache, &reader, 9).await?, None);
    let names = names_of(&cache, &reader, &[3, 9, 1]).await?;
    assert_eq!(names, [Some("Barbara".to_owned()), None, Some("Ada".to_owned())]);
    assert_eq!(cache.stats().hits, 2);

    rename(&cache, &mut writer, 1, "Ada Lovelace").await?;
    assert_eq!(name_of(&cache, &reader, 1).await?.as_deref(), Some("Ada Lovelace"));
    Ok(())
}
