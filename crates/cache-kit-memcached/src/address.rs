//! Servers as people write them.

use cache_kit_net::Address;

use crate::error::{Error, Result};
use crate::ring::RingServer;

/// memcached's own port.
const PORT: u16 = 11_211;

/// A server of a [`Client`](crate::Client): where it is, and how many of the keys it gets.
///
/// ```
/// use cache_kit_memcached::Server;
///
/// for server in ["cache-1", "cache-1:11211", "[::1]:11211", "10.0.0.1:11212", "/run/memcached.sock"] {
///     Server::parse(server)?;
/// }
/// assert!(Server::parse("cache-1:port").is_err());
/// # Ok::<(), cache_kit_memcached::Error>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Server {
    address: Address,
    weight: u32,
}

impl Server {
    /// Reads `host`, `host:port`, `[v6]:port`, an IPv6 address, or the path of a unix socket (absolute, or behind
    /// `unix:`). Without a port it is 11211. Host names are resolved anew for each connection.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config), saying what of it cannot be read.
    pub fn parse(text: &str) -> Result<Self> {
        let address = Address::parse(text, PORT).map_err(|hint| refused(text, hint))?;
        Ok(Self { address, weight: 1 })
    }

    /// The same server with this weight; 1 unless changed.
    #[must_use]
    pub fn with_weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    pub(crate) fn address(&self) -> &Address {
        &self.address
    }

    /// What the ring knows of it.
    pub(crate) fn on_ring(&self) -> RingServer {
        let server = match &self.address {
            Address::Tcp { host, port } => RingServer::new(host.as_str(), *port),
            Address::Unix(path) => RingServer::unix_socket(path.to_string_lossy()),
        };
        server.with_weight(self.weight)
    }
}

impl std::fmt::Display for Server {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.address.fmt(f)
    }
}

fn refused(text: &str, hint: &'static str) -> Error {
    // Credentials may stand in front of an `@`, where somebody has pasted a URL.
    let shown = text.rsplit('@').next().unwrap_or_default();
    Error::config(format!("`{shown}` is no memcached server")).with_hint(hint)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_read_as_people_write_them() {
        let tcp = |host: &str, port| Address::Tcp { host: host.to_owned(), port };
        for (text, address) in [
            ("localhost:11211", tcp("localhost", 11_211)),
            ("localhost", tcp("localhost", 11_211)),
            (" cache-1:7 ", tcp("cache-1", 7)),
            ("127.0.0.1:11212", tcp("127.0.0.1", 11_212)),
            ("[::1]:7", tcp("::1", 7)),
            ("[::1]", tcp("::1", 11_211)),
            ("::1", tcp("::1", 11_211)),
            ("/run/m.sock", Address::Unix("/run/m.sock".into())),
            ("unix:/run/m.sock", Address::Unix("/run/m.sock".into())),
        ] {
            assert_eq!(*Server::parse(text).unwrap().address(), address, "{text}");
        }
    }

    #[test]
    fn what_is_no_server_is_refused_without_repeating_credentials() {
        for text in [
            "",
            ":11211",
            "h:0",
            "h:65536",
            "h:x",
            "h:",
            "[::1",
            "[::1]7",
            "tcp://h:1",
            "a b",
            "unix:x",
            "h/p",
        ] {
            assert!(Server::parse(text).is_err(), "{text}");
        }
        let error = Server::parse("me:hunter2@h:x").unwrap_err().to_string();
        assert!(!error.contains("hunter2"), "{error}");
    }
}
