//! What an error of the client means here.

use cache_kit_memcached::ErrorKind as Theirs;

use super::NAME;
use crate::error::{Error, ErrorKind};

/// Our error for one of the client, which quotes neither keys nor values.
pub(super) fn convert(operation: &'static str, error: cache_kit_memcached::Error) -> Error {
    let kind = match error.kind() {
        Theirs::Config => ErrorKind::Config,
        Theirs::Timeout => ErrorKind::Timeout,
        Theirs::Auth => ErrorKind::Auth,
        Theirs::OutOfMemory => ErrorKind::Full,
        Theirs::TooLarge => ErrorKind::TooLarge,
        Theirs::InvalidInput => ErrorKind::InvalidInput,
        _ => ErrorKind::Unavailable,
    };
    let message = match error.server() {
        Some(server) => format!("{server}: {}", error.message()),
        None => error.message().to_owned(),
    };
    let converted = Error::new(kind, message)
        .with_backend(NAME)
        .with_operation(operation)
        .with_transient(error.is_transient());
    let converted = match error.hint() {
        "" => converted,
        hint => converted.with_hint(hint),
    };
    converted.with_source(error)
}
