//! Configuration as text: URLs, environment variables, durations and sizes.

pub(crate) mod text;
mod url;

#[cfg(feature = "redis")]
pub(crate) use url::percent_decode;
pub(crate) use url::{Params, ServiceUrl};
