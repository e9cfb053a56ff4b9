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
    code(error) == Some("READONLY")
}

pub(super) fn is_wrong_type(error: &RedisError) -> bool {
    error.code() == Some("WRONGTYPE")
}

pub(super) fn is_no_permission(error: &RedisError) -> bool {
    matches!(error.kind(), RedisKind::Server(ServerErrorKind::NoPerm)) || code(error) == Some("NOPERM")
}

pub(super) fn is_no_script(error: &RedisError) -> bool {
    matches!(error.kind(), RedisKind::Server(ServerErrorKind::NoScript))
}

/// Whether a command was on keys that may not go together: a proxy in front of many servers says so.
pub(super) fn is_cross_slot(error: &RedisError) -> bool {
    matches!(error.kind(), RedisKind::Server(ServerErrorKind::CrossSlot))
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

/// The code of the server's error; of one within a script that of what failed there, which servers before 7.0 put behind
/// words of their own.
fn code(error: &RedisError) -> Option<&str> {
    let code = error.code()?;
    let detail = error.detail().filter(|detail| code == "ERR" && detail.starts_with("Error running script"));
    let inner = detail.and_then(|detail| detail.split(" -").nth(1)?.split(' ').next());
    Some(inner.unwrap_or(code))
}

fn describe(error: &RedisError) -> (ErrorKind, &'static str, &'static str, bool) {
    use ErrorKind::{Auth, Full, Permission, Unavailable};
    match code(error) {
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
        Some("READONLY") => {
            return (
                Unavailable,
                "the server is a replica that takes no writes",
                "connect to the primary",
                true,
            );
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

#[cfg(test)]
mod tests {
    use super::*;

    fn error(line: &str) -> RedisError {
        match redis::parse_redis_value(format!("-{line}\r\n").as_bytes()) {
            Ok(redis::Value::ServerError(error)) => error.into(),
            other => panic!("{line}: {other:?}"),
        }
    }

    #[test]
    fn what_fails_within_a_script_means_what_it_means_without() {
        // As Redis 6.2 and 7.0 have it.
        for line in [
            "ERR Error running script (call to f_5a): @user_script:1: @user_script: 1: -OOM command not allowed when \
             used memory > 'maxmemory'.",
            "OOM command not allowed when used memory > 'maxmemory'. script: 5a, on @user_script:1.",
        ] {
            assert_eq!(convert("set", error(line)).kind(), ErrorKind::Full, "{line}");
        }
        assert!(is_read_only(&error("READONLY You can't write against a read only replica.")));
        let within = "ERR Error running script (call to f_5a): @user_script:2: -READONLY You can't write";
        assert!(is_read_only(&error(within)));
        assert!(!is_read_only(&error("ERR Error running script")));
    }

    #[test]
    fn what_a_server_says_of_itself_is_told_apart_from_what_it_says_of_the_connection() {
        for (line, expected) in [
            ("LOADING Redis is loading the dataset in memory", Blame::Server),
            ("WRONGTYPE Operation against a key", Blame::Server),
            ("NOPERM this user has no permissions", Blame::Server),
            ("NOAUTH Authentication required.", Blame::Connection),
        ] {
            assert_eq!(blame(&error(line)), expected, "{line}");
        }
    }
}
