//! The one error type: what happened, where, and what to do about it.

use std::borrow::Cow;
use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;

/// The result type of this crate.
pub type Result<T, E = Error> = std::result::Result<T, E>;

type Boxed = Box<dyn StdError + Send + Sync>;

/// What went wrong, to be matched on.
///
/// A miss is no error: it is `Ok(None)`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum ErrorKind {
    /// A setting is wrong; the message names the field, URL parameter or variable. Found before any I/O.
    Config,
    /// An argument of this call is wrong: an empty key, a lifetime of zero, an id that cannot be displayed.
    InvalidInput,
    /// A key or value is larger than what the backend or the configuration allows.
    TooLarge,
    /// A value could not be encoded, or would not survive being decoded again.
    Codec,
    /// The source failed: a loader or repository returned an error, which is this error's
    /// [`source`](StdError::source).
    Source,
    /// The loader panicked. Nothing was stored; the next read loads afresh.
    LoaderPanicked,
    /// A loader asked the cache for the key that it is loading itself, directly or through other loads. Noticed
    /// within a task and through the cache's own tasks, not through one that the loader spawns; two loads that
    /// wait for each other from different callers are not noticed either.
    Reentrant,
    /// The load ended without an answer because its runtime or the cache was shut down.
    LoadAborted,
    /// Too many loads are under way, or too many reads wait for one ([`Limits`](crate::Limits)).
    Overloaded,
    /// The backend did not confirm an invalidation. It is queued and sent again until the backend confirms it, and this
    /// process does not believe the entry meanwhile; others may serve the old value until then. If this process ends
    /// first, they may until the entry expires.
    Unconfirmed,
    /// The backend could not be reached, or did not answer as it should.
    Unavailable,
    /// A deadline passed.
    Timeout,
    /// The server refuses the credentials.
    Auth,
    /// The server does not allow the user to do that.
    Permission,
    /// The server is out of memory.
    Full,
    /// The backend has no such operation; [`Capabilities`](crate::backend::Capabilities) tells beforehand.
    Unsupported,
}

impl ErrorKind {
    fn as_str(self) -> &'static str {
        match self {
            Self::Config => "bad configuration",
            Self::InvalidInput => "invalid input",
            Self::TooLarge => "too large",
            Self::Codec => "cannot encode",
            Self::Source => "the source failed",
            Self::LoaderPanicked => "the loader panicked",
            Self::Reentrant => "re-entrant load",
            Self::LoadAborted => "load aborted",
            Self::Overloaded => "overloaded",
            Self::Unconfirmed => "invalidation not confirmed",
            Self::Unavailable => "backend unavailable",
            Self::Timeout => "deadline passed",
            Self::Auth => "not let in",
            Self::Permission => "not allowed",
            Self::Full => "backend full",
            Self::Unsupported => "not supported",
        }
    }
}

impl fmt::Display for ErrorKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// An error of the cache, or of the source behind it.
///
/// One word big and cheap to clone: everyone who waited for a failed load gets the same error. It never
/// holds a password, a value, or a whole key.
///
/// `{error}` says what happened, where, and what to do; `{error:#}` adds the causes, `{error:?}` a line for each.
///
/// ```
/// use cache_kit::{Error, ErrorKind};
///
/// let error = Error::source(std::io::Error::other("connection reset by the database"));
/// assert_eq!(error.kind(), ErrorKind::Source);
/// assert!(error.find_source::<std::io::Error>().is_some());
/// ```
#[derive(Clone)]
pub struct Error(Arc<Inner>);

#[derive(Clone)]
struct Inner {
    kind: ErrorKind,
    message: Cow<'static, str>,
    hint: Option<Cow<'static, str>>,
    backend: Option<&'static str>,
    operation: Option<&'static str>,
    transient: Option<bool>,
    source: Option<Arc<dyn StdError + Send + Sync>>,
}

impl Error {
    /// An error of `kind`; `message` says what happened, in lower case and without a full stop.
    #[cold]
    #[must_use]
    pub fn new(kind: ErrorKind, message: impl Into<Cow<'static, str>>) -> Self {
        Self(Arc::new(Inner {
            kind,
            message: message.into(),
            hint: None,
            backend: None,
            operation: None,
            transient: None,
            source: None,
        }))
    }

    /// Wraps the error of a source: what a repository does with the error of its database.
    ///
    /// The wrapped error is found again with [`find_source`](Self::find_source). An error of this crate is
    /// passed on as it is, not wrapped a second time.
    #[cold]
    #[must_use]
    pub fn source(error: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        match error.into().downcast::<Self>() {
            Ok(own) => *own,
            Err(foreign) => Self::new(ErrorKind::Source, "").with_boxed_source(foreign),
        }
    }

    /// The operation `operation` that `backend` does not have.
    #[cold]
    #[must_use]
    pub fn unsupported(backend: &'static str, operation: &'static str) -> Self {
        Self::new(ErrorKind::Unsupported, format!("{backend} has no {operation}"))
            .with_backend(backend)
            .with_operation(operation)
            .with_hint("capabilities() tells what a backend can do")
    }

    pub(crate) fn config(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::Config, message)
    }

    pub(crate) fn invalid(message: impl Into<Cow<'static, str>>) -> Self {
        Self::new(ErrorKind::InvalidInput, message)
    }

    /// Names the variable of the environment that a bad setting came from.
    pub(crate) fn in_variable(mut self, variable: &str) -> Self {
        let inner = Arc::make_mut(&mut self.0);
        inner.message = format!("{variable}: {}", inner.message).into();
        self
    }

    /// Says what to do about it.
    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<Cow<'static, str>>) -> Self {
        Arc::make_mut(&mut self.0).hint = Some(hint.into());
        self
    }

    /// Names the backend.
    #[must_use]
    pub fn with_backend(mut self, backend: &'static str) -> Self {
        Arc::make_mut(&mut self.0).backend = Some(backend);
        self
    }

    /// Names the operation.
    #[must_use]
    pub fn with_operation(mut self, operation: &'static str) -> Self {
        Arc::make_mut(&mut self.0).operation = Some(operation);
        self
    }

    /// Says whether the same call may succeed later. Without it the kind decides.
    #[must_use]
    pub fn with_transient(mut self, transient: bool) -> Self {
        Arc::make_mut(&mut self.0).transient = Some(transient);
        self
    }

    /// Attaches the cause.
    #[must_use]
    pub fn with_source(self, source: impl Into<Box<dyn StdError + Send + Sync>>) -> Self {
        self.with_boxed_source(source.into())
    }

    fn with_boxed_source(mut self, source: Boxed) -> Self {
        Arc::make_mut(&mut self.0).source = Some(Arc::from(source));
        self
    }

    /// What went wrong.
    #[must_use]
    pub fn kind(&self) -> ErrorKind {
        self.0.kind
    }

    /// Whether the same call may succeed later without anything being changed.
    ///
    /// For an error of the source nothing is known: `false`, unless
    /// [`with_transient`](Self::with_transient) said otherwise.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        self.0.transient.unwrap_or(matches!(
            self.0.kind,
            ErrorKind::Unavailable
                | ErrorKind::Timeout
                | ErrorKind::LoadAborted
                | ErrorKind::Overloaded
                | ErrorKind::Unconfirmed
        ))
    }

    /// Whether it was said that the same call will not succeed later.
    pub(crate) fn is_permanent(&self) -> bool {
        self.0.transient == Some(false)
    }

    /// The backend that the error is about, if it is about one.
    #[must_use]
    pub fn backend(&self) -> Option<&'static str> {
        self.0.backend
    }

    /// The operation that failed, if it is known.
    #[must_use]
    pub fn operation(&self) -> Option<&'static str> {
        self.0.operation
    }

    /// What happened, without where and what to do.
    pub(crate) fn message(&self) -> &str {
        &self.0.message
    }

    /// What to do about it, if there is something to say.
    #[must_use]
    pub fn hint(&self) -> Option<&str> {
        self.0.hint.as_deref()
    }

    fn debug_fields(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut out = f.debug_struct("Error");
        out.field("kind", &self.0.kind).field("message", &self.0.message);
        if let Some(hint) = &self.0.hint {
            out.field("hint", hint);
        }
        if let Some(backend) = self.0.backend {
            out.field("backend", &backend);
        }
        if let Some(operation) = self.0.operation {
            out.field("operation", &operation);
        }
        if let Some(source) = &self.0.source {
            out.field("source", source);
        }
        out.finish()
    }

    /// The first error of type `E` in the chain of causes.
    #[must_use]
    pub fn find_source<E: StdError + 'static>(&self) -> Option<&E> {
        let mut next = StdError::source(self);
        while let Some(error) = next {
            if let Some(found) = error.downcast_ref() {
                return Some(found);
            }
            next = error.source();
        }
        None
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Inner { kind, message, hint, backend, operation, .. } = &*self.0;
        write!(f, "{kind}")?;
        if !message.is_empty() {
            write!(f, ": {message}")?;
        }
        match (backend, operation) {
            (Some(backend), Some(operation)) => write!(f, " ({operation} on {backend})")?,
            (Some(backend), None) => write!(f, " (on {backend})")?,
            (None, Some(operation)) => write!(f, " ({operation})")?,
            (None, None) => {}
        }
        if let Some(hint) = hint {
            write!(f, "; {hint}")?;
        }
        if f.alternate() {
            let mut next = StdError::source(self);
            while let Some(cause) = next {
                write!(f, ": {cause}")?;
                next = cause.source();
            }
        }
        Ok(())
    }
}

/// As it is read where a `main` returns it or an `unwrap` meets it: what [`Display`](fmt::Display) says, and below it the
/// causes, a line each. `{error:#?}` shows the fields.
impl fmt::Debug for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if f.alternate() {
            return self.debug_fields(f);
        }
        write!(f, "{self}")?;
        let mut next = StdError::source(self);
        if next.is_some() {
            f.write_str("\n\ncaused by:")?;
        }
        while let Some(cause) = next {
            write!(f, "\n    {cause}")?;
            next = cause.source();
        }
        Ok(())
    }
}

impl StdError for Error {
    fn source(&self) -> Option<&(dyn StdError + 'static)> {
        self.0.source.as_deref().map(|source| source as _)
    }
}

/// Fixes the error type of a loader written as an `async` block with `?` in it.
///
/// The type of error cannot be inferred through `?`; this makes it a boxed one, which any error becomes.
///
/// ```
/// # async fn run(cache: cache_kit::Cache) -> cache_kit::Result<()> {
/// let port = cache
///     .get_or_load("port", || {
///         cache_kit::load(async {
///             let port: u16 = "8080".parse()?;
///             Ok(port)
///         })
///     })
///     .await?;
/// # assert_eq!(port, 8080); Ok(())
/// # }
/// # tokio::runtime::Builder::new_current_thread().build().unwrap()
/// #     .block_on(run(cache_kit::Cache::new(cache_kit::backend::InMemoryBackend::new()))).unwrap();
/// ```
pub fn load<T, F>(future: F) -> F
where
    F: Future<Output = std::result::Result<T, Boxed>> + Send,
{
    future
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_one_word_and_can_cross_threads() {
        fn assert_static<T: Send + Sync + Clone + 'static>() {}
        assert_static::<Error>();
        assert_eq!(size_of::<Error>(), size_of::<usize>());
        assert_eq!(size_of::<Result<()>>(), size_of::<usize>());
    }

    #[test]
    fn display_says_what_where_and_what_to_do_and_leaves_the_cause_to_source() {
        let error = Error::new(ErrorKind::Unavailable, "no connection within 500 ms")
            .with_backend("redis")
            .with_operation("get")
            .with_hint("is the server up?")
            .with_source(std::io::Error::other("refused"));
        assert_eq!(
            error.to_string(),
            "backend unavailable: no connection within 500 ms (get on redis); is the server up?"
        );
        assert_eq!(StdError::source(&error).unwrap().to_string(), "refused");
        assert_eq!(format!("{error:#}"), format!("{error}: refused"));
        assert_eq!(format!("{error:?}"), format!("{error}\n\ncaused by:\n    refused"));
        let fields = format!("{error:#?}");
        for field in [
            "kind: Unavailable",
            "hint: \"is the server up?\"",
            "backend: \"redis\"",
            "operation: \"get\"",
            "refused",
        ] {
            assert!(fields.contains(field), "{fields}");
        }
    }

    #[test]
    fn the_error_of_a_source_is_found_again() {
        #[derive(Debug, PartialEq)]
        struct RowLocked(u32);
        impl fmt::Display for RowLocked {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                write!(f, "row {} is locked", self.0)
            }
        }
        impl StdError for RowLocked {}

        let error = Error::source(RowLocked(7));
        assert_eq!(error.find_source::<RowLocked>(), Some(&RowLocked(7)));
        assert_eq!(error.to_string(), "the source failed");
        let again = Error::source(error.clone());
        assert!(Arc::ptr_eq(&again.0, &error.0), "an error of ours is not wrapped twice");
    }

    #[test]
    fn transient_is_known_by_kind_and_can_be_overridden() {
        assert!(Error::new(ErrorKind::Timeout, "").is_transient());
        assert!(!Error::new(ErrorKind::Config, "").is_transient());
        assert!(!Error::source("gone").is_transient());
        assert!(Error::source("busy").with_transient(true).is_transient());
    }
}
