//! What goes wrong, and what to do about it.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// The result of an operation.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// What went wrong, where, and what to do about it. Cheap to clone. Holds no key, no value and no password.
#[derive(Clone)]
pub struct Error(Arc<Inner>);

struct Inner {
    kind: ErrorKind,
    message: String,
    hint: &'static str,
    server: Option<String>,
    source: Option<Box<dyn StdError + Send + Sync>>,
}

/// What kind of thing went wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting makes no sense.
    Config,
    /// The server cannot be reached, was lost, or is taken to be down.
    Unavailable,
    /// There was no answer in time. The request may have taken effect.
    Timeout,
    /// The server refuses the credentials, or asks for some.
    Auth,
    /// The server has no room, and evicts nothing.
    OutOfMemory,
    /// The value is larger than the server takes.
    TooLarge,
    /// What was asked for makes no sense for this command or this item.
    InvalidInput,
    /// The server answered with another error.
    Server,
}

impl Error {
    pub(crate) fn new(kind: ErrorKind, message: impl Into<String>) -> Self {
        Self(Arc::new(Inner { kind, message: message.into(), hint: "", server: None, source: None }))
    }

    pub(crate) fn config(message: impl Into<String>) -> Self {
        Self::new(ErrorKind::Config, message)
    }

    pub(crate) fn with_hint(mut self, hint: &'static str) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.hint = hint;
        }
        self
    }

    pub(crate) fn with_source(mut self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.source = Some(source.into());
        }
        self
    }

    /// The same error, as one of this server.
    pub(crate) fn at(mut self, server: &impl fmt::Display) -> Self {
        if let Some(inner) = Arc::get_mut(&mut self.0) {
            inner.server.get_or_insert_with(|| server.to_string());
        }
        self
    }

    /// What kind of thing went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// What to do about it; empty where there is nothing to say.
    #[must_use]
    pub fn hint(&self) -> &'static str {
        self.0.hint
    }

    /// The server that it is about.
    #[must_use]
    pub fn server(&self) -> Option<&str> {
        self.0.server.as_deref()
    }

    /// What happened, without the server and the hint.
    #[must_use]
    pub fn message(&self) -> &str {
        &self.0.message
    }

    /// Whether the same request may succeed a little later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self.0.kind, ErrorKind::Unavailable | ErrorKind::Timeout)
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(server) = &self.0.server {
            write!(f, "memcached at {server}: ")?;
        }
        f.write_str(&self.0.message)?;
        if !self.0.hint.is_empty() {
            write!(f, "; {}", self.0.hint)?;
        }
        Ok(())
    }
}

impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Error")
            .field("kind", &self.0.kind)
            .field("message", &self.0.message)
            .field("server", &self.0.server)
            .field("source", &self.0.source)
            .finish_non_exhaustive()
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}
