//! For whoever runs the process: is it alive, is it ready, what has it counted?

use actix_web::HttpResponse;
use actix_web::web::Data;
use serde_json::json;

use super::{Answer, State};
use crate::metrics;
use crate::pulse::Pulse;

/// It answers, so it is alive.
pub(super) async fn alive(state: State) -> Answer {
    Ok(HttpResponse::Ok().json(json!({"alive": true, "uptime_seconds": state.observed.uptime().as_secs()})))
}

/// Ready without its cache, which makes answers fast, but not without its database.
pub(super) async fn ready(state: State, pulse: Data<Pulse>) -> Answer {
    let (database, cache) = (state.db.answers().await, pulse.ask(&state).await);
    let body = json!({
        "ready": database,
        "degraded": !cache,
        "database": {"name": state.db.name, "answers": database},
        "cache": {"name": state.cache.backend().capabilities().name, "answers": cache},
    });
    Ok(if database { HttpResponse::Ok() } else { HttpResponse::ServiceUnavailable() }.json(body))
}

pub(super) async fn metrics(state: State) -> Answer {
    Ok(HttpResponse::Ok().content_type(metrics::CONTENT_TYPE).body(metrics::text(&state)))
}
