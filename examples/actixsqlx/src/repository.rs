//! The source behind the cache: what is asked of the database when the cache does not know.

use std::collections::HashMap;
use std::sync::Arc;

use cache_kit::{CacheEntity, DataRepository, Error, Result};
use sqlx::AssertSqlSafe;

use crate::db::{Db, Query};
use crate::input::Page;
use crate::model::{Category, Product, User};

/// The rows of the database.
#[derive(Clone)]
pub(crate) struct Rows {
    db: Arc<Db>,
    /// What a query for one row is counted as.
    one: Query,
}

impl DataRepository<User> for Rows {
    async fn fetch_by_id(&self, id: &i64) -> Result<Option<User>> {
        self.one("SELECT id, name, email FROM shop_users WHERE id = $1", *id).await.map_err(Error::source)
    }

    async fn fetch_by_ids(&self, ids: &[i64]) -> Result<Vec<Option<User>>> {
        self.many("SELECT id, name, email FROM shop_users WHERE id IN", ids).await.map_err(Error::source)
    }
}

impl DataRepository<Product> for Rows {
    async fn fetch_by_id(&self, id: &i64) -> Result<Option<Product>> {
        let query = "SELECT id, name, category, price_cents FROM shop_products WHERE id = $1";
        self.one(query, *id).await.map_err(Error::source)
    }

    async fn fetch_by_ids(&self, ids: &[i64]) -> Result<Vec<Option<Product>>> {
        let query = "SELECT id, name, category, price_cents FROM shop_products WHERE id IN";
        self.many(query, ids).await.map_err(Error::source)
    }
}

/// What can be a row of either database.
pub(crate) trait Row:
    for<'r> sqlx::FromRow<'r, sqlx::any::AnyRow> + Unpin + CacheEntity<Key = i64>
{
}

impl Row for User {}
impl Row for Product {}

impl Rows {
    pub(crate) fn new(db: Arc<Db>) -> Self {
        Self { db, one: Query::Row }
    }

    /// For the flood of the live page, whose queries are counted by themselves.
    pub(crate) fn for_flood(db: Arc<Db>) -> Self {
        Self { db, one: Query::Flood }
    }

    async fn one<T: Row>(&self, query: &'static str, id: i64) -> sqlx::Result<Option<T>> {
        let mut connection = self.db.ask(self.one).await?;
        sqlx::query_as(query).bind(id).fetch_optional(&mut *connection).await
    }

    /// One query for all of them, and one answer for each id, in order.
    async fn many<T: Row>(&self, query: &str, ids: &[i64]) -> sqlx::Result<Vec<Option<T>>> {
        let places: Vec<_> = (1..=ids.len()).map(|n| format!("${n}")).collect();
        let query = AssertSqlSafe(format!("{query} ({})", places.join(", ")));
        let mut connection = self.db.ask(Query::Batch).await?;
        let query = ids.iter().fold(sqlx::query_as::<_, T>(query), |query, id| query.bind(*id));
        let rows = query.fetch_all(&mut *connection).await?;
        let mut rows: HashMap<i64, T> = rows.into_iter().map(|row| (row.cache_key(), row)).collect();
        Ok(ids.iter().map(|id| rows.remove(id)).collect())
    }

    /// The ids of a page of users.
    pub(crate) async fn user_ids(&self, page: &Page) -> sqlx::Result<Vec<i64>> {
        let mut connection = self.db.ask(Query::Ids).await?;
        let query = sqlx::query_scalar("SELECT id FROM shop_users WHERE id > $1 ORDER BY id LIMIT $2");
        query.bind(page.after).bind(page.limit).fetch_all(&mut *connection).await
    }

    /// The ids of a page of products.
    pub(crate) async fn product_ids(&self, page: &Page) -> sqlx::Result<Vec<i64>> {
        let mut connection = self.db.ask(Query::Ids).await?;
        let query = match &page.category {
            None => sqlx::query_scalar("SELECT id FROM shop_products WHERE id > $1 ORDER BY id LIMIT $2"),
            Some(_) => sqlx::query_scalar(
                "SELECT id FROM shop_products WHERE id > $1 AND category = $3 ORDER BY id LIMIT $2",
            ),
        };
        let query = query.bind(page.after).bind(page.limit);
        let query = if let Some(category) = &page.category { query.bind(category.clone()) } else { query };
        query.fetch_all(&mut *connection).await
    }

    /// A category in figures; `None` if there is nothing in it.
    pub(crate) async fn category(&self, name: &str) -> sqlx::Result<Option<Category>> {
        let mut connection = self.db.ask(Query::Summary).await?;
        let query = "SELECT category AS name, count(*) AS products, min(price_cents) AS lowest_price_cents,
                            max(price_cents) AS highest_price_cents
                     FROM shop_products WHERE category = $1 GROUP BY category";
        sqlx::query_as(query).bind(name.to_owned()).fetch_optional(&mut *connection).await
    }

    /// The names of all categories.
    pub(crate) async fn categories(&self) -> sqlx::Result<Vec<String>> {
        let mut connection = self.db.ask(Query::Summary).await?;
        let query = "SELECT DISTINCT category FROM shop_products ORDER BY category";
        sqlx::query_scalar(query).fetch_all(&mut *connection).await
    }
}
