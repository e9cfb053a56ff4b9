//! Every change of a row, and the invalidation that belongs to it.

use std::sync::Arc;

use cache_kit::{CacheEntity, ErrorKind};
use sqlx::AssertSqlSafe;

use crate::error::{AppError, log};
use crate::model::{HIGHEST_PRICE, Product, ProductInput, User, UserInput, category_tag, summary_tag};
use crate::shop::{CATEGORIES, Shop};

/// What became of the invalidation after a change that is committed: the change stands whatever this says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Invalidated {
    /// No older value comes back.
    Confirmed,
    /// The backend has not confirmed it. This process does not believe the entry until it has; it is sent again.
    Queued,
    /// It could not be asked for; the old value may be served until it expires.
    Failed,
}

impl Invalidated {
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Confirmed => "confirmed",
            Self::Queued => "queued",
            Self::Failed => "failed",
        }
    }
}

/// Never an error: an answer of 500 would say that the change was not made.
pub(crate) fn told(result: cache_kit::Result<()>) -> Invalidated {
    match result {
        Ok(()) => Invalidated::Confirmed,
        Err(error) if error.kind() == ErrorKind::Unconfirmed => Invalidated::Queued,
        Err(error) => {
            log(format_args!("not invalidated: {error:#}"));
            Invalidated::Failed
        }
    }
}

/// What was written, and what became of the invalidation.
pub(crate) type Written<T> = (T, Invalidated);

/// Makes a change of one row that may be cached; `change` is a transaction, and begins when it is first polled. The old value
/// is gone before the commit, and nothing is stored until after it, so that nothing old is left even by a process that dies in
/// between.
async fn held<T, R>(
    shop: &Shop,
    id: i64,
    change: impl Future<Output = sqlx::Result<Option<R>>> + Send,
) -> Result<Written<R>, AppError>
where
    T: CacheEntity<Key = i64>,
{
    let hold = shop.cache.entities().hold::<T>(&[id]).await?;
    let changed = change.await;
    // Also after an error: a commit that was not answered may have been made.
    let done = told(hold.confirm().await);
    let row = changed?.ok_or_else(|| AppError::not_found(format_args!("{} {id}", T::cache_prefix())))?;
    Ok((row, done))
}

/// Runs in a task of its own: a client that hangs up must not part a commit from its invalidation.
async fn whole<T, F>(change: F) -> Result<T, AppError>
where
    T: Send + 'static,
    F: Future<Output = Result<T, AppError>> + Send + 'static,
{
    match tokio::spawn(change).await {
        Ok(done) => done,
        Err(error) => std::panic::resume_unwind(error.into_panic()),
    }
}

/// Invalidates what is computed from the products of these categories.
async fn summaries(shop: &Shop, categories: &[&str]) -> Invalidated {
    let tags: Vec<_> = categories.iter().map(|category| summary_tag(category)).collect();
    let by_tag = told(shop.cache.invalidate_tags(&tags).await);
    by_tag.max(told(shop.cache.invalidate(CATEGORIES).await))
}

pub(crate) async fn create_user(shop: Arc<Shop>, input: UserInput) -> Result<Written<User>, AppError> {
    whole(async move {
        let mut tx = shop.db.begin().await?;
        let query = "INSERT INTO shop_users (name, email) VALUES ($1, $2) RETURNING id, name, email";
        let query = sqlx::query_as(query).bind(input.name).bind(input.email);
        let user: User = query.fetch_one(&mut *tx).await?;
        tx.commit().await?;
        // Somebody may have asked for this id before, and the cache remembers for a moment that there was no such row.
        let done = told(shop.cache.entities().invalidate::<User>(&user.id).await);
        Ok((user, done))
    })
    .await
}

pub(crate) async fn update_user(
    shop: Arc<Shop>,
    id: i64,
    input: UserInput,
) -> Result<Written<User>, AppError> {
    whole(async move {
        let change = async {
            let mut tx = shop.db.begin().await?;
            let query = "UPDATE shop_users SET name = $2, email = $3 WHERE id = $1 RETURNING id, name, email";
            let query = sqlx::query_as(query).bind(id).bind(input.name).bind(input.email);
            let user: Option<User> = query.fetch_optional(&mut *tx).await?;
            tx.commit().await?;
            Ok(user)
        };
        held::<User, _>(&shop, id, change).await
    })
    .await
}

pub(crate) async fn delete_user(shop: Arc<Shop>, id: i64) -> Result<Invalidated, AppError> {
    whole(async move {
        let change = async {
            let mut tx = shop.db.begin().await?;
            let query = sqlx::query_scalar("DELETE FROM shop_users WHERE id = $1 RETURNING id").bind(id);
            let deleted: Option<i64> = query.fetch_optional(&mut *tx).await?;
            tx.commit().await?;
            Ok(deleted)
        };
        let (_, done) = held::<User, _>(&shop, id, change).await?;
        Ok(done)
    })
    .await
}

pub(crate) async fn create_product(
    shop: Arc<Shop>,
    input: ProductInput,
) -> Result<Written<Product>, AppError> {
    whole(async move {
        let mut tx = shop.db.begin().await?;
        let query = "INSERT INTO shop_products (name, category, price_cents) VALUES ($1, $2, $3)
                     RETURNING id, name, category, price_cents";
        let query = sqlx::query_as(query).bind(input.name).bind(input.category).bind(input.price_cents);
        let product: Product = query.fetch_one(&mut *tx).await?;
        tx.commit().await?;
        let key = told(shop.cache.entities().invalidate::<Product>(&product.id).await);
        let done = key.max(summaries(&shop, &[&product.category]).await);
        Ok((product, done))
    })
    .await
}

pub(crate) async fn update_product(
    shop: Arc<Shop>,
    id: i64,
    input: ProductInput,
) -> Result<Written<Product>, AppError> {
    whole(async move {
        let change = async {
            let mut tx = shop.db.begin().await?;
            // Changes nothing, but locks the row and tells which category it is in.
            let query = "UPDATE shop_products SET id = id WHERE id = $1 RETURNING category";
            let before: Option<String> = sqlx::query_scalar(query).bind(id).fetch_optional(&mut *tx).await?;
            let query = "UPDATE shop_products SET name = $2, category = $3, price_cents = $4 WHERE id = $1
                         RETURNING id, name, category, price_cents";
            let query = sqlx::query_as(query).bind(id).bind(input.name).bind(input.category);
            let product = query.bind(input.price_cents).fetch_optional(&mut *tx).await?;
            tx.commit().await?;
            Ok(before.zip(product))
        };
        let (changed, key) = held::<Product, (String, Product)>(&shop, id, change).await?;
        let (before, product) = changed;
        let done = key.max(summaries(&shop, &[&before, &product.category]).await);
        Ok((product, done))
    })
    .await
}

pub(crate) async fn delete_product(shop: Arc<Shop>, id: i64) -> Result<Invalidated, AppError> {
    whole(async move {
        let change = async {
            let mut tx = shop.db.begin().await?;
            let query = "DELETE FROM shop_products WHERE id = $1 RETURNING category";
            let before: Option<String> = sqlx::query_scalar(query).bind(id).fetch_optional(&mut *tx).await?;
            tx.commit().await?;
            Ok(before)
        };
        let (before, key) = held::<Product, _>(&shop, id, change).await?;
        Ok(key.max(summaries(&shop, &[&before]).await))
    })
    .await
}

/// Raises or lowers the price of one product by a cent; for the live page.
pub(crate) async fn nudge_price(shop: Arc<Shop>, id: i64) -> Result<Written<Product>, AppError> {
    whole(async move {
        let change = async {
            let mut tx = shop.db.begin().await?;
            let query = "UPDATE shop_products SET price_cents = price_cents + 1 - 2 * (price_cents % 2)
                         WHERE id = $1 RETURNING id, name, category, price_cents";
            let product: Option<Product> = sqlx::query_as(query).bind(id).fetch_optional(&mut *tx).await?;
            tx.commit().await?;
            Ok(product)
        };
        let (product, key) = held::<Product, _>(&shop, id, change).await?;
        let done = key.max(summaries(&shop, &[&product.category]).await);
        Ok((product, done))
    })
    .await
}

/// Changes all prices of a category by so many percent; tells how many products that were.
pub(crate) async fn change_prices(
    shop: Arc<Shop>,
    category: String,
    percent: i64,
) -> Result<Written<u64>, AppError> {
    whole(async move {
        let mut tx = shop.db.begin().await?;
        let price = "price_cents * (100 + $2) / 100";
        let query = format!(
            "UPDATE shop_products SET price_cents = CASE WHEN {price} > {HIGHEST_PRICE} THEN {HIGHEST_PRICE}
             ELSE {price} END WHERE category = $1"
        );
        let query = sqlx::query(AssertSqlSafe(query)).bind(category.clone()).bind(percent);
        let rows = query.execute(&mut *tx).await?.rows_affected();
        tx.commit().await?;
        if rows == 0 {
            return Err(AppError::not_found(format_args!("category {category}")));
        }
        // By tag, after the commit: nobody has to know which of the products are cached.
        let products = told(shop.cache.invalidate_tag(category_tag(&category)).await);
        Ok((rows, products.max(summaries(&shop, &[&category]).await)))
    })
    .await
}
