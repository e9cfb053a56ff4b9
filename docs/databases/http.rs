//! A source that speaks HTTP and knows the versions of what it answers.

use std::time::Duration;

use cache_kit::{Cache, Error, LoadOptions, Loaded, Policy, Previous};
use reqwest::header::{ETAG, IF_NONE_MATCH};
use reqwest::{Client, StatusCode};

#[path = "support/office.rs"]
mod office;

// ANCHOR: read
#[derive(Clone)]
struct Api {
    http: Client,
    url: String,
}

async fn rate(cache: &Cache, api: &Api, currency: &str) -> cache_kit::Result<Option<String>> {
    let request = api.http.get(format!("{}/rates/{currency}", api.url));
    let load = move |previous: Previous<String>| async move {
        let request = match previous.version {
            Some(etag) => request.header(IF_NONE_MATCH, etag),
            None => request,
        };
        let answer = request.send().await?;
        match answer.status() {
            StatusCode::NOT_MODIFIED => return Ok(Loaded::not_modified()), // Good for another life.
            StatusCode::NOT_FOUND => return Ok(Loaded::absent()),
            _ => {}
        }
        let answer = answer.error_for_status()?;
        let etag = answer.headers().get(ETAG).and_then(|etag| etag.to_str().ok()).map(str::to_owned);
        let rate = Loaded::value(answer.text().await?);
        Ok::<_, reqwest::Error>(match etag {
            Some(etag) => rate.with_version(etag),
            None => rate,
        })
    };
    cache.get_or_load_entry(format!("rate:{currency}"), LoadOptions::default(), load).await
}
// ANCHOR_END: read

// ANCHOR: batch
async fn rates(cache: &Cache, api: &Api, of: &[&str]) -> cache_kit::Result<Vec<Option<String>>> {
    let api = api.clone();
    let load = move |missing: Vec<String>| {
        let missing: Vec<&str> = missing.iter().filter_map(|key| key.strip_prefix("rate:")).collect();
        let request = api.http.get(format!("{}/rates?of={}", api.url, missing.join(",")));
        async move {
            let text = request.send().await?.error_for_status()?.text().await?; // Lines such as `usd 92`.
            let pairs = text.lines().filter_map(|line| line.split_once(' '));
            let pairs = pairs.map(|(currency, rate)| (format!("rate:{currency}"), rate.to_owned()));
            Ok::<_, reqwest::Error>(pairs.collect::<Vec<_>>())
        }
    };
    cache.get_many_or_load(of.iter().map(|currency| format!("rate:{currency}")), load).await
}
// ANCHOR_END: batch

// ANCHOR: update
async fn set(cache: &Cache, api: &Api, currency: &str, rate: &str) -> cache_kit::Result<()> {
    let request = api.http.put(format!("{}/rates/{currency}", api.url)).body(rate.to_owned());
    let answer = request.send().await.and_then(reqwest::Response::error_for_status);
    // Whatever the answer is: where none comes back, the change may have been made.
    cache.invalidate(format!("rate:{currency}")).await?;
    answer.map(drop).map_err(Error::source)
}
// ANCHOR_END: update

#[tokio::test]
async fn what_has_not_changed_is_not_sent_again() -> cache_kit::Result<()> {
    let office = office::open().await;
    // What is past its life is kept, to be shown to the source.
    let policy = Policy::default().with_stale_if_error(Duration::from_secs(3600));
    let cache = Cache::builder().policy(policy).build_url("memory://")?;
    let api = Api { http: Client::new(), url: office.url() };

    assert_eq!(rate(&cache, &api, "usd").await?.as_deref(), Some("92"));
    assert_eq!(rate(&cache, &api, "xxx").await?, None);
    let some = rates(&cache, &api, &["eur", "usd", "xxx"]).await?;
    assert_eq!(some, [Some("100".to_owned()), Some("92".to_owned()), None]);
    assert_eq!(office.answers(), ["200 usd", "404 xxx", "200 eur"]);

    cache.expire("rate:usd").await?;
    assert_eq!(rate(&cache, &api, "usd").await?.as_deref(), Some("92"));
    assert_eq!(office.answers(), ["304 usd"]);

    set(&cache, &api, "usd", "93").await?;
    assert_eq!(rate(&cache, &api, "usd").await?.as_deref(), Some("93"));
    assert_eq!(office.answers(), ["200 usd"]);
    Ok(())
}
