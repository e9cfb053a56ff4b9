//! What is sold and to whom: the cached entities, and what a client may send of them.

use cache_kit::CacheEntity;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::error::AppError;
use crate::input::Fields;

/// A hundred thousand, in whatever the currency is.
pub(crate) const HIGHEST_PRICE: i64 = 10_000_000;

/// Kept as long as the cache keeps what says nothing else: five minutes, or as `CACHE_URL` has it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow, CacheEntity)]
#[cache(prefix = "user")]
pub(crate) struct User {
    pub(crate) id: i64,
    pub(crate) name: String,
    pub(crate) email: String,
}

/// A price that missed its invalidation is old for five minutes at most. The tag is what a change of a whole category
/// invalidates.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow, CacheEntity)]
#[cache(prefix = "product", ttl = "5m", tags = ["category:{category}"])]
pub(crate) struct Product {
    pub(crate) id: i64,
    pub(crate) name: String,
    pub(crate) category: String,
    pub(crate) price_cents: i64,
}

/// The products of a category in figures.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, sqlx::FromRow)]
pub(crate) struct Category {
    pub(crate) name: String,
    pub(crate) products: i64,
    pub(crate) lowest_price_cents: i64,
    pub(crate) highest_price_cents: i64,
}

/// On each product of a category, as the derive of [`Product`] writes it.
pub(crate) fn category_tag(category: &str) -> String {
    format!("category:{category}")
}

/// On what is computed from the products of a category: a change of one product invalidates this, not its siblings.
pub(crate) fn summary_tag(category: &str) -> String {
    format!("summary:{category}")
}

/// A user as a client sends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct UserInput {
    pub(crate) name: String,
    pub(crate) email: String,
}

impl TryFrom<Map<String, Value>> for UserInput {
    type Error = AppError;

    fn try_from(body: Map<String, Value>) -> Result<Self, AppError> {
        let mut fields = Fields::of(body);
        let name = fields.text("name", 80)?;
        let email = fields.text("email", 254)?.to_lowercase();
        fields.finish()?;
        let sound = email.split_once('@').is_some_and(|(user, host)| {
            let labels = host.split('.').count() >= 2 && host.split('.').all(|label| !label.is_empty());
            !user.is_empty() && labels && !host.contains('@') && !email.contains(char::is_whitespace)
        });
        if !sound {
            return Err(AppError::invalid("email", "`email` is not an address such as ada@example.org"));
        }
        Ok(Self { name, email })
    }
}

/// A product as a client sends it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct ProductInput {
    pub(crate) name: String,
    pub(crate) category: String,
    pub(crate) price_cents: i64,
}

impl TryFrom<Map<String, Value>> for ProductInput {
    type Error = AppError;

    fn try_from(body: Map<String, Value>) -> Result<Self, AppError> {
        let mut fields = Fields::of(body);
        let name = fields.text("name", 80)?;
        let category = category_name(&fields.text("category", 40)?)?;
        let price_cents = fields.whole("price_cents", 0..=HIGHEST_PRICE)?;
        fields.finish()?;
        Ok(Self { name, category, price_cents })
    }
}

/// A name that is good for URLs, keys and tags.
pub(crate) fn category_name(text: &str) -> Result<String, AppError> {
    let fits = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-';
    if text.is_empty() || text.len() > 40 || !text.chars().all(fits) {
        let why = "`category` is 1 to 40 lower-case letters, digits or `-`";
        return Err(AppError::invalid("category", why));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn user(body: &Value) -> Result<UserInput, AppError> {
        body.as_object().unwrap().clone().try_into()
    }

    #[test]
    fn an_address_has_a_user_and_a_host_with_a_dot() {
        assert_eq!(
            user(&json!({"name": " Ada ", "email": "Ada@Example.org"})).unwrap().email,
            "ada@example.org"
        );
        for email in ["ada", "@example.org", "ada@", "ada@host", "a@b@c.d", "a b@c.d", "ada@.org", "ada@c..d"]
        {
            let error = user(&json!({"name": "Ada", "email": email})).unwrap_err();
            assert_eq!(error.field(), Some("email"), "{email}");
        }
    }

    #[test]
    fn the_tag_that_is_invalidated_is_the_one_that_products_carry() {
        let product = Product { id: 1, name: "kite".into(), category: "games-2".into(), price_cents: 1 };
        assert_eq!(product.cache_tags(), [category_tag("games-2")]);
    }

    #[test]
    fn a_category_is_good_for_urls_keys_and_tags() {
        assert!(category_name("garden-2").is_ok());
        for name in ["", "Garden", "a b", "a:b", "ä", "a/b"] {
            assert!(category_name(name).is_err(), "{name}");
        }
    }
}
