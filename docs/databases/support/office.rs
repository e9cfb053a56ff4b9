//! An office that tells rates over HTTP, with an `ETag` for each.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};

use axum::extract::{Path, RawQuery, State};
use axum::http::header::{ETAG, IF_NONE_MATCH};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use axum::{Router, routing::get};

pub struct Office {
    addr: std::net::SocketAddr,
    books: Books,
}

#[derive(Clone)]
struct Books {
    rates: Arc<Mutex<BTreeMap<String, String>>>,
    answers: Arc<Mutex<Vec<String>>>,
}

impl Office {
    pub fn url(&self) -> String {
        format!("http://{}", self.addr)
    }

    /// What was answered since this was asked the last time.
    pub fn answers(&self) -> Vec<String> {
        std::mem::take(&mut self.books.answers.lock().unwrap())
    }
}

pub async fn open() -> Office {
    let rates = BTreeMap::from([("eur", "100"), ("usd", "92")].map(|(a, b)| (a.to_owned(), b.to_owned())));
    let books = Books { rates: Arc::new(Mutex::new(rates)), answers: Arc::default() };
    let routes = Router::new().route("/rates/{currency}", get(tell).put(set)).route("/rates", get(tell_some));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    tokio::spawn(axum::serve(listener, routes.with_state(books.clone())).into_future());
    Office { addr, books }
}

async fn tell(State(books): State<Books>, Path(currency): Path<String>, headers: HeaderMap) -> Response {
    let rate = books.rates.lock().unwrap().get(&currency).cloned();
    let etag = rate.as_ref().map(|rate| format!("\"{rate}\""));
    let known = headers.get(IF_NONE_MATCH).and_then(|known| known.to_str().ok());
    let answer = match (rate, etag) {
        (_, Some(etag)) if known == Some(&etag) => StatusCode::NOT_MODIFIED.into_response(),
        (Some(rate), Some(etag)) => ([(ETAG, etag)], rate).into_response(),
        _ => StatusCode::NOT_FOUND.into_response(),
    };
    books.answers.lock().unwrap().push(format!("{} {currency}", answer.status().as_u16()));
    answer
}

/// `/rates?of=eur,usd`.
async fn tell_some(State(books): State<Books>, RawQuery(query): RawQuery) -> String {
    let query = query.unwrap_or_default();
    let asked = query.trim_start_matches("of=");
    books.answers.lock().unwrap().push(format!("200 {asked}"));
    let rates = books.rates.lock().unwrap();
    asked.split(',').filter_map(|one| Some(format!("{one} {}\n", rates.get(one)?))).collect()
}

async fn set(State(books): State<Books>, Path(currency): Path<String>, rate: String) {
    books.rates.lock().unwrap().insert(currency, rate);
}
