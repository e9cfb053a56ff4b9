//! A server, as far as the ring is concerned.

/// A server on the ring: the name that its points come from, and its weight.
///
/// The name is text and is not looked up: programs that share keys write it in the same way, and `localhost` is
/// another server than `127.0.0.1`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct RingServer {
    /// Host name, IPv4 address, IPv6 address without brackets, or the path of a unix socket.
    pub host: String,
    /// The port; 0 for a unix socket.
    pub port: u16,
    /// How many keys it gets compared with the others; 1 unless changed.
    pub weight: u32,
}

impl RingServer {
    /// A server of weight 1.
    #[must_use]
    pub fn new(host: impl Into<String>, port: u16) -> Self {
        Self { host: host.into(), port, weight: 1 }
    }

    /// A server of weight 1 that listens on a unix socket.
    ///
    /// This is the name that libmemcached gives to what is added as a socket, as pylibmc does
    /// (`memcached_server_add_unix_socket`): port 0 is part of it. A path that is added as a host
    /// (`memcached_server_add`) has port 11211 there if none is given; that one is `RingServer::new(path, 11_211)`.
    #[must_use]
    pub fn unix_socket(path: impl Into<String>) -> Self {
        Self::new(path, 0)
    }

    /// The same server with this weight.
    #[must_use]
    pub fn with_weight(mut self, weight: u32) -> Self {
        self.weight = weight;
        self
    }

    /// What makes it the same server as another, and the order among servers: by host, then by port.
    pub(super) fn name(&self) -> (&str, u16) {
        (&self.host, self.port)
    }
}
