//! End to end: the real program over HTTP, with real cache servers and a real browser.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on says where")]

mod browser;
mod database;
mod http;
mod outage;

mod shutdown;
mod start;
mod support;
