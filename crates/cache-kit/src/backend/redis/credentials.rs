//! Who we are to a server: fixed, or asked for anew with each connection.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;

use super::config::RedisConfig;
use crate::error::{Error, ErrorKind, Result};

/// A user's name and password. Never printed.
#[derive(Clone, PartialEq, Eq)]
pub struct RedisCredentials {
    /// ACL user; `None` is the server's default user.
    pub username: Option<String>,
    /// Any bytes.
    pub password: String,
}

impl fmt::Debug for RedisCredentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("RedisCredentials")
            .field("username", &self.username)
            .field("password", &"<redacted>")
            .finish()
    }
}

type Asked = Pin<Box<dyn Future<Output = Result<RedisCredentials>> + Send>>;

/// Where credentials come from.
#[derive(Clone)]
pub(super) enum Credentials {
    None,
    Fixed(RedisCredentials),
    Provider(Arc<dyn Fn() -> Asked + Send + Sync>),
}

impl Credentials {
    pub(super) fn of(config: &RedisConfig) -> Self {
        match &config.password {
            None => Self::None,
            Some(password) => Self::Fixed(RedisCredentials {
                username: config.username.clone(),
                password: password.clone(),
            }),
        }
    }

    pub(super) fn provider<F, Fut>(provider: F) -> Self
    where
        F: Fn() -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<RedisCredentials>> + Send + 'static,
    {
        Self::Provider(Arc::new(move || Box::pin(provider())))
    }

    /// Those of this moment.
    pub(super) async fn get(&self) -> Result<Option<RedisCredentials>> {
        match self {
            Self::None => Ok(None),
            Self::Fixed(credentials) => Ok(Some(credentials.clone())),
            Self::Provider(provider) => provider().await.map(Some).map_err(|error| {
                Error::new(ErrorKind::Auth, "the provider of credentials has failed")
                    .with_backend(super::NAME)
                    .with_operation("connect")
                    .with_transient(true)
                    .with_source(error)
            }),
        }
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::None => f.write_str("None"),
            Self::Fixed(credentials) => credentials.fmt(f),
            Self::Provider(_) => f.write_str("Provider"),
        }
    }
}
