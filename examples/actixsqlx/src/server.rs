//! The server: from the settings to the last answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use actix_web::body::MessageBody;
use actix_web::dev::{ServiceRequest, ServiceResponse};
use actix_web::middleware::{Next, from_fn};
use actix_web::{App, HttpServer, web};
use tokio::task::JoinSet;

use crate::config::Config;
use crate::db::Db;
use crate::error::{self, log};
use crate::pulse::{self, Pulse};
use crate::routes;
use crate::shop::Shop;

/// For requests that are under way when the process is told to end.
const DRAIN: u64 = 10;
/// For what is left behind them: loads, and invalidations that are not confirmed.
const PATIENCE: Duration = Duration::from_secs(5);
const LARGEST_BODY: usize = 16 * 1024;

/// Serves until SIGTERM or Ctrl-C; then answers what is under way, and ends what is left behind.
///
/// # Errors
/// One line that says what kept it from serving.
#[expect(clippy::future_not_send, reason = "actix runs its server on the thread that made it")]
#[expect(clippy::print_stdout, reason = "where to find it")]
pub async fn run(config: Config) -> Result<(), String> {
    let db = Db::open(&config).await?;
    let (database, backend) = (db.name, config.cache.backend().capabilities().name);
    let shop = Arc::new(Shop::new(db, config.cache, config.live));
    let pulse = Arc::new(Pulse::default());

    let (state, beat) = (web::Data::from(Arc::clone(&shop)), web::Data::from(Arc::clone(&pulse)));
    let live = config.live;
    let server = HttpServer::new(move || {
        App::new()
            .app_data(state.clone())
            .app_data(beat.clone())
            .app_data(web::JsonConfig::default().limit(LARGEST_BODY).error_handler(|e, _| error::of_body(e)))
            .app_data(web::PathConfig::default().error_handler(|e, _| error::of_path(e)))
            .app_data(web::QueryConfig::default().error_handler(|e, _| error::of_query(e)))
            .wrap(from_fn(observed))
            .configure(|config| routes::configure(config, live))
    });
    let bound =
        server.bind(config.addr).map_err(|error| format!("BIND and PORT, {}: {error}", config.addr))?;
    let addr = bound.addrs().first().copied().unwrap_or(config.addr);
    let server = bound.shutdown_timeout(DRAIN).disable_signals().run();

    let mut behind = JoinSet::new();
    if live {
        behind.spawn(pulse::sample(Arc::clone(&shop), pulse));
        behind.spawn(pulse::traffic(Arc::clone(&shop)));
    }
    let handle = server.handle();
    let signals = Signals::listen()?;
    tokio::spawn(async move {
        signals.wait().await;
        handle.stop(true).await;
    });
    println!("http://{addr}  database: {database}  cache: {backend}");
    let ended = server.await.map_err(|error| error.to_string());

    behind.shutdown().await;
    shop.close(PATIENCE).await;
    log("ended");
    ended
}

/// Measures each answer.
#[expect(clippy::future_not_send, reason = "an actix request stays on its thread")]
async fn observed(
    request: ServiceRequest,
    next: Next<impl MessageBody>,
) -> Result<ServiceResponse<impl MessageBody>, actix_web::Error> {
    let begun = Instant::now();
    let shop = request.app_data::<web::Data<Shop>>().cloned();
    let response = next.call(request).await?;
    if let Some(shop) = shop {
        let pattern = response.request().match_pattern();
        shop.observed.request(pattern.as_deref(), response.status().as_u16(), begun.elapsed());
    }
    Ok(response)
}

/// SIGTERM and Ctrl-C.
struct Signals {
    #[cfg(unix)]
    terminate: tokio::signal::unix::Signal,
}

impl Signals {
    fn listen() -> Result<Self, String> {
        #[cfg(unix)]
        let terminate = tokio::signal::unix::signal(tokio::signal::unix::SignalKind::terminate())
            .map_err(|error| error.to_string())?;
        Ok(Self {
            #[cfg(unix)]
            terminate,
        })
    }

    async fn wait(mut self) {
        #[cfg(unix)]
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = tokio::signal::ctrl_c() => {}
        }
        #[cfg(not(unix))]
        let _ = tokio::signal::ctrl_c().await;
    }
}
