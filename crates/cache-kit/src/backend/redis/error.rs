//! What an error of the client library or the server means here.

use redis::{ErrorKind as RedisKind, RedisError, ServerErrorKind};

use super::NAME;
use crate::error::{Error, ErrorKind};

/// What to do with the connection that an error came over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Blame {
    /// The connection works; the server has answered.
    Server,
    /// The connection cannot be trusted any more.
    Connection,
}

pub(super) fn blame(error: &RedisError) -> Blame {
    match error.kind() {
        RedisKind::Io | RedisKind::Parse | RedisKind::Client => Blame::Connection,
        // Who it was let in as is no longer let in: a new connection says who we are now.
        _ if error.code() == Some("NOAUTH") => Blame::Connection,
        _ if error.is_connection_dropped() || error.is_unrecoverable_error() => Blame::Connection,
        _ => Blame::Server,
    }
}

/// Whether the server says that it cannot serve anybody now, though it answers.
pub(super) fn is_out_of_service(error: &RedisError) -> bool {
    matches!(
        error.kind(),
        RedisKind::Server(
            ServerErrorKind::BusyLoading | ServerErrorKind::MasterDown | ServerErrorKind::ClusterDown
        )
    )
}

/// Whether the server has become a replica, which takes no writes.
pub(super) fn is_read_only(error: &RedisError) -> bool {
    matches!(error.kind(), RedisKind::Server(ServerErrorKind::ReadOnly))
}

pub(super) fn is_wrong_type(error: &RedisError) -> bool {
    error.code() == Some("WRONGTYPE")
}

pub(super) fn is_no_permission(error: &RedisError) -> bool {
    matches!(error.kind(), RedisKind::Server(ServerErrorKind::NoPerm)) || error.code() == Some("NOPERM")
}

pub(super) fn is_no_script(error: &RedisError) -> bool {
    matches!(error.kind(), RedisKind::Server(ServerErrorKind::NoScript))
}

/// Our error for one of the client library. The library's error becomes the source only where it cannot quote
/// what was sent.
pub(super) fn convert(operation: &'static str, error: RedisError) -> Error {
    let (kind, message, hint, transient) = describe(&error);
    let converted =
        Error::new(kind, message).with_backend(NAME).with_operation(operation).with_transient(transient);
    let converted = match hint {
        "" => converted,
        hint => converted.with_hint(hint),
    };
    converted.with_source(error)
}

fn describe(error: &RedisError) -> (ErrorKind, &'static str, &'static str, bool) {
    use ErrorKind::{Auth, Full, Permission, Unavailable};
    match error.code() {
        Some("OOM") => {
            let hint = "set an eviction policy (maxmemory-policy allkeys-lru), or give it more memory";
            return (Full, "the server is out of memory", hint, false);
        }
        Some("WRONGPASS" | "NOAUTH") => {
            return (Auth, "the server refuses the credentials", "check username and password", false);
        }
        Some("NOPERM") => {
            return (Permission, "the user may not do that", "see ACL GETUSER on the server", false);
        }
        Some("MISCONF" | "NOREPLICAS") => {
            return (Unavailable, "the server refuses writes", "see its log: persistence or replicas", true);
        }
        Some("BUSY") => return (Unavailable, "the server is busy running a script", "", true),
        _ => {}
    }
    match error.kind() {
        RedisKind::AuthenticationFailed => {
            (Auth, "the server refuses the credentials", "check username and password", false)
        }
        RedisKind::Server(ServerErrorKind::NoPerm) => {
            (Permission, "the user may not do that", "see ACL GETUSER on the server", false)
        }
        RedisKind::Server(ServerErrorKind::BusyLoading) => {
            (Unavailable, "the server is loading its data", "", true)
        }
        RedisKind::Server(ServerErrorKind::ReadOnly) => {
            (Unavailable, "the server is a replica that takes no writes", "connect to the primary", true)
        }
        RedisKind::Server(ServerErrorKind::MasterDown) => {
            (Unavailable, "the server has lost its primary", "", true)
        }
        RedisKind::Server(ServerErrorKind::ClusterDown) => {
            (Unavailable, "the cluster is down, or has nobody for this key", "see CLUSTER INFO", true)
        }
        RedisKind::Server(ServerErrorKind::TryAgain | ServerErrorKind::Ask | ServerErrorKind::Moved) => {
            (Unavailable, "the key is being moved to another node", "", true)
        }
        RedisKind::Server(ServerErrorKind::CrossSlot) => {
            let hint = "give keys that go together the same {tag}";
            (ErrorKind::InvalidInput, "the keys are on several nodes of the cluster", hint, false)
        }
        RedisKind::Io if error.is_connection_refusal() => {
            (Unavailable, "the connection was refused", "is the server up, and the port right?", true)
        }
        RedisKind::Io => (Unavailable, "the connection was lost", "", true),
        RedisKind::Parse => {
            (Unavailable, "the server's answer makes no sense", "is it a Redis server?", false)
        }
        _ => (Unavailable, "the server answered with an error", "", false),
    }
}
