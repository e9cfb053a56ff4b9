//! Which function answers which request.

mod live;
mod ops;
mod products;
mod users;

use std::sync::Arc;

use actix_web::guard::{Any, Get, Head};
use actix_web::web::{self, ServiceConfig};
use actix_web::{HttpResponse, HttpResponseBuilder, Resource, Route};
use serde_json::{Map, Value};

use crate::error::AppError;
use crate::shop::Shop;
use crate::writes::Invalidated;

/// A JSON body, not looked into yet.
type Body = web::Json<Map<String, Value>>;
type State = web::Data<Shop>;
type Answer = Result<HttpResponse, AppError>;

pub(crate) fn configure(config: &mut ServiceConfig, with_live: bool) {
    config
        .service(
            resource("/users", "GET, POST").route(get().to(users::list)).route(web::post().to(users::create)),
        )
        .service(
            resource("/users/{id}", "GET, PUT, DELETE")
                .route(get().to(users::read))
                .route(web::put().to(users::update))
                .route(web::delete().to(users::delete)),
        )
        .service(
            resource("/products", "GET, POST")
                .route(get().to(products::list))
                .route(web::post().to(products::create)),
        )
        .service(
            resource("/products/{id}", "GET, PUT, DELETE")
                .route(get().to(products::read))
                .route(web::put().to(products::update))
                .route(web::delete().to(products::delete)),
        )
        .service(resource("/categories", "GET").route(get().to(products::categories)))
        .service(resource("/categories/{name}", "GET").route(get().to(products::category)))
        .service(resource("/categories/{name}/prices", "POST").route(web::post().to(products::change_prices)))
        .service(resource("/healthz", "GET").route(get().to(ops::alive)))
        .service(resource("/readyz", "GET").route(get().to(ops::ready)))
        .service(resource("/metrics", "GET").route(get().to(ops::metrics)))
        .default_service(web::to(nothing_here));
    if with_live {
        live::configure(config);
    }
}

/// A resource whose other methods are answered with what it has.
fn resource(path: &str, allow: &'static str) -> Resource {
    let refuse = move || async move { Err::<HttpResponse, _>(AppError::method(allow)) };
    web::resource(path).default_service(web::to(refuse))
}

/// GET, and HEAD, which is GET without the body.
fn get() -> Route {
    web::route().guard(Any(Get()).or(Head()))
}

async fn nothing_here() -> Answer {
    Err(AppError::not_found("such path"))
}

/// The state for a task of its own.
fn shared(state: &State) -> Arc<Shop> {
    Arc::clone(state)
}

/// The answer to a change that is committed, whatever became of the invalidation.
fn changed(mut answer: HttpResponseBuilder, invalidated: Invalidated) -> HttpResponseBuilder {
    answer.insert_header(("cache-invalidation", invalidated.as_str()));
    answer
}

/// A page, and where the next one begins if this one is full.
fn page_of<T: serde::Serialize>(items: Vec<T>, ids: &[i64], limit: i64) -> HttpResponse {
    let full = i64::try_from(ids.len()).is_ok_and(|length| length == limit);
    let next = ids.last().filter(|_| full);
    HttpResponse::Ok().json(serde_json::json!({"items": items, "next": next}))
}
