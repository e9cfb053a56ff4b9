//! What the nodes of a cluster answer when a key is not theirs, or not only theirs.

use cache_kit_net::Address;
use redis::{ErrorKind, RedisError, ServerErrorKind};

/// Where to go instead.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Redirect {
    /// The slot belongs to another node.
    Moved { slot: u16, to: Address },
    /// The slot is being moved, and this key is there already, or is to be made there.
    Ask { to: Address },
    /// The slot is being moved, and some keys are here and some there.
    TryAgain,
    /// The node serves nobody, or nobody has the slot.
    Down,
}

impl Redirect {
    /// What an error of the node at `from` asks for, if it does.
    pub(super) fn of(error: &RedisError, from: Option<&Address>) -> Option<Self> {
        let ErrorKind::Server(kind) = error.kind() else { return None };
        match kind {
            ServerErrorKind::TryAgain => Some(Self::TryAgain),
            ServerErrorKind::ClusterDown | ServerErrorKind::MasterDown | ServerErrorKind::ReadOnly => {
                Some(Self::Down)
            }
            ServerErrorKind::Moved | ServerErrorKind::Ask => {
                let (address, slot) = error.redirect_node()?;
                let to = address_of(address, from)?;
                Some(match kind {
                    ServerErrorKind::Moved => Self::Moved { slot, to },
                    _ => Self::Ask { to },
                })
            }
            _ => None,
        }
    }
}

/// `host:port`, an IPv6 address without brackets; without a host it is that of the node that says so.
fn address_of(text: &str, from: Option<&Address>) -> Option<Address> {
    let (host, port) = text.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port > 0)?;
    node_address(host, port, from)
}

/// The address of a node that is announced with this host, which some do not know.
pub(super) fn node_address(host: &str, port: u16, from: Option<&Address>) -> Option<Address> {
    let host = match (host, from) {
        ("" | "?", Some(Address::Tcp { host, .. })) => host.clone(),
        // Asked over a unix socket, the others are at least on this machine.
        ("" | "?", _) => "127.0.0.1".to_owned(),
        (host, _) => host.trim_start_matches('[').trim_end_matches(']').to_owned(),
    };
    (port > 0).then_some(Address::Tcp { host, port })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn redirect(line: &str) -> Option<Redirect> {
        let text = format!("-{line}\r\n");
        let redis::Value::ServerError(error) = redis::parse_redis_value(text.as_bytes()).unwrap() else {
            panic!("no error: {line}")
        };
        Redirect::of(&error.into(), Some(&tcp("asked", 1)))
    }

    fn tcp(host: &str, port: u16) -> Address {
        Address::Tcp { host: host.to_owned(), port }
    }

    #[test]
    fn redirections_are_read_as_nodes_write_them() {
        let moved = |slot, to| Some(Redirect::Moved { slot, to });
        assert_eq!(redirect("MOVED 3999 127.0.0.1:6381"), moved(3999, tcp("127.0.0.1", 6381)));
        assert_eq!(redirect("MOVED 1 node-3.example:7000"), moved(1, tcp("node-3.example", 7000)));
        assert_eq!(redirect("MOVED 1 ::1:7000"), moved(1, tcp("::1", 7000)));
        assert_eq!(redirect("MOVED 1 :7000"), moved(1, tcp("asked", 7000)));
        assert_eq!(redirect("MOVED 1 ?:7000"), moved(1, tcp("asked", 7000)));
        assert_eq!(redirect("ASK 5 h:1"), Some(Redirect::Ask { to: tcp("h", 1) }));
        assert_eq!(redirect("TRYAGAIN Multiple keys request"), Some(Redirect::TryAgain));
        assert_eq!(redirect("CLUSTERDOWN Hash slot not served"), Some(Redirect::Down));
    }

    #[test]
    fn what_is_no_redirection_is_none() {
        for line in ["ERR unknown", "WRONGTYPE x", "MOVED", "MOVED x h:1", "MOVED 1 h", "MOVED 1 h:0"] {
            assert_eq!(redirect(line), None, "{line}");
        }
    }
}
