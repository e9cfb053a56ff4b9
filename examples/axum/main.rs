//! Temperatures of cities, measured by slow stations, read through the cache: `cargo run -p axum-example`.
#![expect(clippy::print_stdout, reason = "it says where it listens")]

use std::sync::atomic::{AtomicU32, Ordering::Relaxed};
use std::{collections::HashMap, env, io, net::Ipv4Addr, sync::Arc, time::Duration};

use axum::extract::{Path, State};
use axum::{Json, Router, http::StatusCode, response::IntoResponse, routing::get};
use cache_kit::{Cache, Error};
use tokio::signal::unix::{SignalKind, signal};
use tokio::{net::TcpListener, sync::Mutex, time::sleep};

struct Stations {
    celsius: Mutex<HashMap<&'static str, Option<f64>>>, // `None`: the station does not answer.
    asked: AtomicU32,
}
type App = State<(Cache, Arc<Stations>)>;
type Answer<T> = Result<T, StatusCode>;

impl Stations {
    async fn measure(self: Arc<Self>, city: String) -> io::Result<f64> {
        self.asked.fetch_add(1, Relaxed);
        sleep(Duration::from_millis(200)).await;
        let celsius = self.celsius.lock().await.get(&*city).copied().ok_or(io::ErrorKind::NotFound)?;
        celsius.ok_or_else(|| io::ErrorKind::HostUnreachable.into())
    }
}

async fn read(State((cache, stations)): App, Path(city): Path<String>) -> Answer<impl IntoResponse> {
    let (key, source) = (format!("celsius:{city}"), Arc::clone(&stations));
    let celsius = cache.get_or_load(key, || source.measure(city)).await.map_err(status)?;
    Ok(([("x-source-calls", stations.asked.load(Relaxed).to_string())], Json(celsius)))
}

async fn set(State((cache, stations)): App, Path(city): Path<String>, celsius: Json<f64>) -> Answer<()> {
    *stations.celsius.lock().await.get_mut(&*city).ok_or(StatusCode::NOT_FOUND)? = Some(*celsius);
    cache.invalidate(format!("celsius:{city}")).await.map_err(status) // After the change, never before it.
}

fn status(error: Error) -> StatusCode {
    match error.find_source::<io::Error>().map(io::Error::kind) {
        Some(io::ErrorKind::NotFound) => StatusCode::NOT_FOUND,
        _ => StatusCode::SERVICE_UNAVAILABLE, // The station is silent, or an invalidation is not confirmed yet.
    }
}

#[tokio::main]
async fn main() -> Result<(), Box<dyn std::error::Error>> {
    let cache = Cache::from_env()?; // CACHE_URL=redis://…, or memory.
    let celsius = HashMap::from([("oslo", Some(-4.5)), ("lima", Some(19.0)), ("quito", None)]);
    let state = (cache.clone(), Arc::new(Stations { celsius: Mutex::new(celsius), asked: 0.into() }));
    let app = Router::new().route("/celsius/{city}", get(read).put(set)).with_state(state);
    let port = env::var("PORT").map_or(Ok(8080), |port| port.parse())?;
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
    println!("http://{}/celsius/oslo", listener.local_addr()?);
    let mut terminated = signal(SignalKind::terminate())?;
    let told = async move { tokio::select!(_ = terminated.recv() => {}, _ = tokio::signal::ctrl_c() => {}) };
    axum::serve(listener, app).with_graceful_shutdown(told).await?;
    Ok(cache.shutdown(Duration::from_secs(10)).await?)
}
