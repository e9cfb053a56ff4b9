//! Configuration as text: URLs, environment variables, durations and sizes.

pub(crate) mod text;
mod url;

pub(crate) use url::{Params, ServiceUrl};
