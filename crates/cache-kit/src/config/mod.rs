//! Configuration as text: URLs, environment variables, durations and sizes.

pub(crate) mod text;
mod url;

#[cfg(any(feature = "redis", feature = "memcached"))]
pub(crate) use url::percent_decode;
pub(crate) use url::{Params, ServiceUrl};
