//! Products and their categories: list, create, read, update, delete, and a change of many prices.

use std::collections::BTreeMap;

use actix_web::{HttpResponse, web};
use serde_json::json;

use super::{Answer, Body, State, changed, page_of, shared};
use crate::error::AppError;
use crate::input::{Fields, Page};
use crate::model::{Product, ProductInput, category_name};
use crate::writes;

pub(super) async fn list(state: State, query: web::Query<BTreeMap<String, String>>) -> Answer {
    let page = Page::read(query.into_inner(), true)?;
    let ids = state.rows.product_ids(&page).await?;
    Ok(page_of(state.read_many::<Product>(&ids).await?, &ids, page.limit))
}

pub(super) async fn read(state: State, id: web::Path<i64>) -> Answer {
    let product = state.read::<Product>(*id).await?.value;
    Ok(HttpResponse::Ok().json(product.ok_or_else(|| AppError::not_found(format_args!("product {id}")))?))
}

pub(super) async fn create(state: State, body: Body) -> Answer {
    let input = ProductInput::try_from(body.into_inner())?;
    let (product, invalidated) = writes::create_product(shared(&state), input).await?;
    let mut answer = changed(HttpResponse::Created(), invalidated);
    answer.insert_header(("location", format!("/products/{}", product.id)));
    Ok(answer.json(product))
}

pub(super) async fn update(state: State, id: web::Path<i64>, body: Body) -> Answer {
    let input = ProductInput::try_from(body.into_inner())?;
    let (product, invalidated) = writes::update_product(shared(&state), *id, input).await?;
    Ok(changed(HttpResponse::Ok(), invalidated).json(product))
}

pub(super) async fn delete(state: State, id: web::Path<i64>) -> Answer {
    let invalidated = writes::delete_product(shared(&state), *id).await?;
    Ok(changed(HttpResponse::NoContent(), invalidated).finish())
}

pub(super) async fn categories(state: State) -> Answer {
    let names = state.categories().await?;
    Ok(HttpResponse::Ok().json(json!({"items": names})))
}

pub(super) async fn category(state: State, name: web::Path<String>) -> Answer {
    let category = state.category(&category_name(&name)?).await?;
    Ok(HttpResponse::Ok().json(category.ok_or_else(|| AppError::not_found(format_args!("category {name}")))?))
}

pub(super) async fn change_prices(state: State, name: web::Path<String>, body: Body) -> Answer {
    let name = category_name(&name)?;
    let mut fields = Fields::of(body.into_inner());
    let percent = fields.whole("percent", -90..=100)?;
    fields.finish()?;
    let (products, invalidated) = writes::change_prices(shared(&state), name, percent).await?;
    Ok(changed(HttpResponse::Ok(), invalidated).json(json!({"products": products})))
}
