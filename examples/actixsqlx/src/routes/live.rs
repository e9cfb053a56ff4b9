//! The live page: its files, what it shows, and what its buttons do. For a demonstration; `LIVE=off` leaves it out.
//!
//! Every button sends JSON, be it empty: a browser lets no page from elsewhere do that without asking.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Instant;

use actix_web::HttpResponse;
use actix_web::web::{self, Data, ServiceConfig};
use cache_kit::{CacheEntity, OperationConfig, Outcome, Source};
use serde_json::{Value, json};
use tokio::task::JoinSet;

use super::{Answer, Body, State, get, resource, shared};
use crate::db::{PRODUCTS, Query, USERS};
use crate::error::AppError;
use crate::input::{Fields, Page};
use crate::model::{Product, User};
use crate::pulse::{KEPT, Pulse, RATE, popular};
use crate::repository::Rows;
use crate::shop::Shop;
use crate::writes;

const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
                      base-uri 'none'; form-action 'none'; frame-ancestors 'none'";
const FILES: [(&str, &str, &str); 4] = [
    ("/", "text/html; charset=utf-8", include_str!("../live/index.html")),
    ("/live/style.css", "text/css; charset=utf-8", include_str!("../live/style.css")),
    ("/live/app.js", "text/javascript; charset=utf-8", include_str!("../live/app.js")),
    ("/live/icon.svg", "image/svg+xml", include_str!("../live/icon.svg")),
];
/// Upper ends of the ranges of the picture of latencies, in microseconds; the last range has no end.
const RANGES: [u64; 11] = [25, 50, 100, 250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000];
/// The product that nothing but the flood reads.
const FLOODED: i64 = PRODUCTS;

pub(super) fn configure(config: &mut ServiceConfig) {
    for (path, kind, text) in FILES {
        let answer = move || async move {
            let mut answer = HttpResponse::Ok();
            answer.content_type(kind).insert_header(("content-security-policy", POLICY));
            answer
                .insert_header(("x-content-type-options", "nosniff"))
                .insert_header(("cache-control", "no-cache"));
            Ok::<_, AppError>(answer.body(text))
        };
        config.service(resource(path, "GET").route(get().to(answer)));
    }
    config
        .service(resource("/live/state", "GET").route(get().to(state)))
        .service(resource("/live/read", "POST").route(web::post().to(read)))
        .service(resource("/live/page", "POST").route(web::post().to(page)))
        .service(resource("/live/update", "POST").route(web::post().to(update)))
        .service(resource("/live/invalidate", "POST").route(web::post().to(invalidate)))
        .service(resource("/live/flood", "POST").route(web::post().to(flood)))
        .service(resource("/live/cache", "POST").route(web::post().to(cache)))
        .service(resource("/live/traffic", "POST").route(web::post().to(traffic)));
}

/// All that the page shows.
async fn state(state: State, pulse: Data<Pulse>) -> Answer {
    let (tick, seconds) = pulse.seconds();
    let latencies = state.observed.latencies();
    let [cached, source] = latencies.each_ref().map(|sorted| {
        json!({"median": percentile(sorted, 50), "p95": percentile(sorted, 95), "ranges": ranges(sorted)})
    });
    let body = json!({
        "cache": {
            "on": state.is_cache_on(),
            "backend": state.cache.backend().capabilities().name,
            "reachable": pulse.is_reachable(),
            "pending": state.cache.gauges().pending_invalidations,
        },
        "database": {
            "name": state.db.name,
            "delay_ms": u64::try_from(state.db.delay.as_millis()).unwrap_or(u64::MAX),
        },
        "traffic": {"on": state.traffic_on.load(Ordering::Relaxed), "rate": RATE},
        "hit_rate": pulse.hit_rate(),
        "latency": {"bounds": RANGES, "cache": cached, "source": source},
        "seconds": {"kept": KEPT, "latest": tick, "values": seconds},
        "recent": state.observed.recent(),
    });
    Ok(HttpResponse::Ok().insert_header(("cache-control", "no-store")).json(body))
}

/// Reads one user or product by chance.
async fn read(state: State, body: Body) -> Answer {
    Fields::of(body.into_inner()).finish()?;
    let asked = Instant::now();
    let done = if fastrand::bool() {
        let id = popular();
        said(&format!("product {id}"), &state.read::<Product>(id).await?, asked)
    } else {
        let id = fastrand::i64(1..=USERS);
        said(&format!("user {id}"), &state.read::<User>(id).await?, asked)
    };
    Ok(HttpResponse::Ok().json(json!({"done": done})))
}

/// What a read of one comes to, in a sentence.
fn said<T>(what: &str, outcome: &Outcome<Option<T>>, asked: Instant) -> String {
    let from = match outcome.source {
        Source::Cache => "from the cache",
        Source::Load => "from the source",
        Source::SharedLoad => "from a query that another reader had begun",
        _ => "not there",
    };
    format!("Read {what} {from} in {}.", took(asked))
}

/// Reads a page of products by chance.
async fn page(state: State, body: Body) -> Answer {
    Fields::of(body.into_inner()).finish()?;
    let after = fastrand::i64(0..10) * Page::LIMIT;
    let (asked, before) = (Instant::now(), state.db.asked(Query::Batch));
    let ids = state.rows.product_ids(&Page { after, limit: Page::LIMIT, category: None }).await?;
    let products: Vec<Product> = state.read_many(&ids).await?;
    let batches = match state.db.asked(Query::Batch) - before {
        0 => "no query for the rows".to_owned(),
        1 => "1 query for all rows that were missing".to_owned(),
        more => format!("{more} queries for rows, of all readers"),
    };
    let done =
        format!("Read {} products in {}: 1 query for their ids, {batches}.", products.len(), took(asked));
    Ok(HttpResponse::Ok().json(json!({"done": done})))
}

/// Changes a product by chance.
async fn update(state: State, body: Body) -> Answer {
    Fields::of(body.into_inner()).finish()?;
    let (product, invalidated) = writes::nudge_price(shared(&state), popular()).await?;
    let Product { id, price_cents, .. } = product;
    let price = format!("{}.{:02}", price_cents / 100, price_cents % 100);
    let what = invalidated.as_str();
    let done = format!("Product {id} costs {price} now. Its invalidation is {what}.");
    Ok(HttpResponse::Ok().json(json!({"done": done, "invalidation": what})))
}

/// Invalidates all products of a category by chance, by its tag.
async fn invalidate(state: State, body: Body) -> Answer {
    Fields::of(body.into_inner()).finish()?;
    let Some(product) = state.read::<Product>(popular()).await?.value else {
        return Err(AppError::not_found("product by chance"));
    };
    let invalidated = writes::told(state.cache.invalidate_tags(product.cache_tags()).await);
    let done = format!("All products of “{}” are invalid: {}.", product.category, invalidated.as_str());
    Ok(HttpResponse::Ok().json(json!({"done": done, "invalidation": invalidated.as_str()})))
}

/// Has many readers ask for one product that is not cached, all at the same time.
async fn flood(state: State, body: Body) -> Answer {
    let mut fields = Fields::of(body.into_inner());
    let readers = fields.whole("readers", 1..=2000)?;
    fields.finish()?;
    // A source of its own, so that only its own queries are counted.
    let (shop, before) = (shared(&state), state.db.asked(Query::Flood));
    let flooded = Arc::new(Rows::for_flood(Arc::clone(&shop.db)));
    let _ = writes::told(shop.cache.entities().invalidate::<Product>(&FLOODED).await);
    let asked = Instant::now();
    let mut reading = JoinSet::new();
    for _ in 0..readers {
        let (shop, rows) = (Arc::clone(&shop), Arc::clone(&flooded));
        reading.spawn(async move { read_flooded(&shop, &rows).await });
    }
    let (mut answered, mut led) = (0_u64, None);
    while let Some(read) = reading.join_next().await {
        match read {
            Ok(outcome) => {
                let outcome = outcome?;
                answered += 1;
                if outcome.source == Source::Load {
                    led = Some(outcome.explain().to_string());
                }
            }
            Err(error) => std::panic::resume_unwind(error.into_panic()),
        }
    }
    let took_all = asked.elapsed();
    let queries = state.db.asked(Query::Flood) - before;
    let noun = if queries == 1 { "query" } else { "queries" };
    let done = format!("{answered} readers, {queries} source {noun}, in {}.", took(asked));
    let explained =
        format!("{queries} source {noun}; {}", led.unwrap_or_else(|| "none was their own".to_owned()));
    state.observed.flood(format!("product {FLOODED} × {answered}"), explained, took_all);
    let body = json!({"done": done, "readers": answered, "source_queries": queries});
    Ok(HttpResponse::Ok().json(body))
}

async fn read_flooded(shop: &Shop, rows: &Rows) -> Result<Outcome<Option<Product>>, AppError> {
    let entities = shop.cache.entities();
    let read = entities.get_outcome(&FLOODED, rows, shop.strategy(), OperationConfig::default());
    Ok(read.await?)
}

async fn cache(state: State, body: Body) -> Answer {
    let on = switch(body)?;
    state.cache_on.store(on, Ordering::Relaxed);
    let done = if on { "The cache is on." } else { "The cache is off: every read asks the source." };
    Ok(HttpResponse::Ok().json(json!({"done": done, "on": on})))
}

async fn traffic(state: State, body: Body) -> Answer {
    let on = switch(body)?;
    state.traffic_on.store(on, Ordering::Relaxed);
    let done = if on { format!("{RATE} reads a second.") } else { "No steady traffic.".to_owned() };
    Ok(HttpResponse::Ok().json(json!({"done": done, "on": on})))
}

fn switch(body: Body) -> Result<bool, AppError> {
    let mut fields = Fields::of(body.into_inner());
    let on = fields.flag("on")?;
    fields.finish()?;
    Ok(on)
}

fn percentile(sorted: &[u64], percent: usize) -> Option<u64> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

fn ranges(sorted: &[u64]) -> Value {
    let mut counts = [0_u64; RANGES.len() + 1];
    for micros in sorted {
        counts[RANGES.partition_point(|bound| bound < micros)] += 1;
    }
    json!(counts)
}

/// How long ago it was, as one reads it.
fn took(asked: Instant) -> String {
    let micros = asked.elapsed().as_micros();
    if micros < 1000 {
        format!("{micros} µs")
    } else {
        format!("{}.{} ms", micros / 1000, micros % 1000 / 100)
    }
}
