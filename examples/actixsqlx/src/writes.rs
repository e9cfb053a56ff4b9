//! Every change of a row, and the invalidation that belongs to it.

use std::sync::Arc;

use cache_kit::ErrorKind;
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

pub(crate) async fn create_user(shop: Arc<Shop>, input: UserInput) -> Result<Written<User>, AppError> {
    whole(async move {
        let mut tx = shop.db.begin().await?;
        let query = sqlx::query_scalar("INSERT INTO shop_users (name, email) VALUES ($1, $2) RETURNING id");
        let id: i64 = query.bind(input.name.clone()).bind(input.email.clone()).fetch_one(&mut *tx).await?;
        tx.commit().await?;
        // Somebody may have asked for this id before, and the cache remembers for a moment that there was no such row.
        let done = told(shop.entities.invalidate::<User>(&id).await);
        Ok((User { id, name: input.name, email: input.email }, done))
    })
    .await
}

pub(crate) async fn update_user(
    shop: Arc<Shop>,
    id: i64,
    input: UserInput,
) -> Result<Written<User>, AppError> {
    whole(async move {
        // Held: the old value is gone before the commit, and nothing is stored until after it, so that nothing old is left
        // even by a process that dies in between.
        let hold = shop.entities.hold::<User>(&[id]).await?;
        let changed = async {
            let mut tx = shop.db.begin().await?;
            let query = sqlx::query("UPDATE shop_users SET name = $2, email = $3 WHERE id = $1");
            let query = query.bind(id).bind(input.name.clone()).bind(input.email.clone());
            let rows = query.execute(&mut *tx).await?.rows_affected();
            tx.commit().await?;
            Ok::<_, sqlx::Error>(rows)
        };
        let changed = changed.await;
        // Also after an error: a commit that was not answered may have been made.
        let done = told(hold.confirm().await);
        match changed? {
            0 => Err(AppError::not_found(format_args!("user {id}"))),
            _ => Ok((User { id, name: input.name, email: input.email }, done)),
        }
    })
    .await
}

pub(crate) async fn delete_user(shop: Arc<Shop>, id: i64) -> Result<Invalidated, AppError> {
    whole(async move {
        let hold = shop.entities.hold::<User>(&[id]).await?;
        let deleted = async {
            let mut tx = shop.db.begin().await?;
            let query = sqlx::query("DELETE FROM shop_users WHERE id = $1").bind(id);
            let rows = query.execute(&mut *tx).await?.rows_affected();
            tx.commit().await?;
            Ok::<_, sqlx::Error>(rows)
        };
        let deleted = deleted.await;
        let done = told(hold.confirm().await);
        if deleted? == 0 { Err(AppError::not_found(format_args!("user {id}"))) } else { Ok(done) }
    })
    .await
}

pub(crate) async fn create_product(
    shop: Arc<Shop>,
    input: ProductInput,
) -> Result<Written<Product>, AppError> {
    whole(async move {
        let mut tx = shop.db.begin().await?;
        let query =
            "INSERT INTO shop_products (name, category, price_cents) VALUES ($1, $2, $3) RETURNING id";
        let query = sqlx::query_scalar(query).bind(input.name.clone()).bind(input.category.clone());
        let id: i64 = query.bind(input.price_cents).fetch_one(&mut *tx).await?;
        tx.commit().await?;
        let key = told(shop.entities.invalidate::<Product>(&id).await);
        let done = key.max(summaries(&shop, &[&input.category]).await);
        Ok((product(id, input), done))
    })
    .await
}

pub(crate) async fn update_product(
    shop: Arc<Shop>,
    id: i64,
    input: ProductInput,
) -> Result<Written<Product>, AppError> {
    whole(async move {
        let hold = shop.entities.hold::<Product>(&[id]).await?;
        let changed = async {
            let mut tx = shop.db.begin().await?;
            // Changes nothing, but locks the row and tells which category it is in.
            let query = "UPDATE shop_products SET id = id WHERE id = $1 RETURNING category";
            let before: Option<String> = sqlx::query_scalar(query).bind(id).fetch_optional(&mut *tx).await?;
            let query = "UPDATE shop_products SET name = $2, category = $3, price_cents = $4 WHERE id = $1";
            let query = sqlx::query(query).bind(id).bind(input.name.clone()).bind(input.category.clone());
            query.bind(input.price_cents).execute(&mut *tx).await?;
            tx.commit().await?;
            Ok::<_, sqlx::Error>(before)
        };
        let changed = changed.await;
        let key = told(hold.confirm().await);
        let Some(before) = changed? else { return Err(AppError::not_found(format_args!("product {id}"))) };
        let done = key.max(summaries(&shop, &[&before, &input.category]).await);
        Ok((product(id, input), done))
    })
    .await
}

pub(crate) async fn delete_product(shop: Arc<Shop>, id: i64) -> Result<Invalidated, AppError> {
    whole(async move {
        let hold = shop.entities.hold::<Product>(&[id]).await?;
        let deleted = async {
            let mut tx = shop.db.begin().await?;
            let query = "DELETE FROM shop_products WHERE id = $1 RETURNING category";
            let before: Option<String> = sqlx::query_scalar(query).bind(id).fetch_optional(&mut *tx).await?;
            tx.commit().await?;
            Ok::<_, sqlx::Error>(before)
        };
        let deleted = deleted.await;
        let key = told(hold.confirm().await);
        let Some(category) = deleted? else { return Err(AppError::not_found(format_args!("product {id}"))) };
        Ok(key.max(summaries(&shop, &[&category]).await))
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
        let products = told(shop.entities.invalidate_tag(category_tag(&category)).await);
        Ok((rows, products.max(summaries(&shop, &[&category]).await)))
    })
    .await
}

/// Raises or lowers the price of one product by a cent; for the live page.
pub(crate) async fn nudge_price(shop: Arc<Shop>, id: i64) -> Result<Written<Product>, AppError> {
    whole(async move {
        let hold = shop.entities.hold::<Product>(&[id]).await?;
        let changed = async {
            let mut tx = shop.db.begin().await?;
            let query = "UPDATE shop_products SET price_cents = price_cents + 1 - 2 * (price_cents % 2)
                         WHERE id = $1 RETURNING id, name, category, price_cents";
            let row = sqlx::query_as(query).bind(id).fetch_optional(&mut *tx).await?;
            tx.commit().await?;
            Ok(row)
        };
        let changed: sqlx::Result<Option<Product>> = changed.await;
        let key = told(hold.confirm().await);
        let Some(product) = changed? else { return Err(AppError::not_found(format_args!("product {id}"))) };
        let done = key.max(summaries(&shop, &[&product.category]).await);
        Ok((product, done))
    })
    .await
}

/// Invalidates what is computed from the products of these categories.
async fn summaries(shop: &Shop, categories: &[&str]) -> Invalidated {
    let tags: Vec<_> = categories.iter().map(|category| summary_tag(category)).collect();
    let by_tag = told(shop.values.invalidate_tags(&tags).await);
    by_tag.max(told(shop.values.invalidate(CATEGORIES).await))
}

fn product(id: i64, input: ProductInput) -> Product {
    let ProductInput { name, category, price_cents } = input;
    Product { id, name, category, price_cents }
}
