//! What a client is made with.

use std::sync::Arc;
use std::time::Duration;

use cache_kit_net::Limits;

use crate::address::Server;
use crate::client::Client;
use crate::error::{Error, Result};
use crate::protocol::Credentials;
use crate::ring::{Distribution, Ring};
use crate::server::Upstream;
#[cfg(feature = "tls")]
use crate::tls::Tls;

/// A second connection is used from so many calls under way on, so that two cores can read and write: a fifth more at 16
/// and at 64 tasks than with one, where `bench/src/bin/memcached.rs` measured. Further ones gain nothing.
const SECOND_FROM: usize = 8;
const ONE_MORE_PER: usize = 16_384;
/// Bounds the wait for a sign of life, unless operations may take longer.
const SIGN_OF_LIFE: Duration = Duration::from_secs(1);
/// Longer is a mistake, and more than can be added to the time of day.
const LONGEST: Duration = Duration::from_secs(86_400);

/// All settings of a [`Client`].
///
/// ```
/// use cache_kit_memcached::Client;
/// use std::time::Duration;
///
/// let client = Client::builder()
///     .servers(["cache-1:11211", "cache-2:11211"])?
///     .operation_timeout(Duration::from_millis(200))
///     .build()?; // No I/O yet, and no runtime needed.
/// # Ok::<(), cache_kit_memcached::Error>(())
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct ClientBuilder {
    servers: Vec<Server>,
    distribution: Distribution,
    max_connections: usize,
    min_connections: usize,
    pub(crate) dialing: Dialing,
}

/// How connections are made, and what they are bounded by.
#[derive(Clone, Debug)]
pub(crate) struct Dialing {
    pub(crate) connection_timeout: Duration,
    pub(crate) operation_timeout: Duration,
    pub(crate) credentials: Option<Credentials>,
    #[cfg(feature = "tls")]
    pub(crate) tls: Option<Tls>,
}

impl Default for ClientBuilder {
    fn default() -> Self {
        Self {
            servers: Vec::new(),
            distribution: Distribution::default(),
            max_connections: 16,
            min_connections: 4,
            dialing: Dialing {
                connection_timeout: Duration::from_secs(5),
                operation_timeout: Duration::from_millis(500),
                credentials: None,
                #[cfg(feature = "tls")]
                tls: None,
            },
        }
    }
}

impl ClientBuilder {
    /// Adds a server.
    pub fn server(mut self, server: Server) -> Self {
        self.servers.push(server);
        self
    }

    /// Adds servers, as [`Server::parse`] reads them.
    ///
    /// # Errors
    /// As `Server::parse`.
    pub fn servers<S: AsRef<str>>(mut self, servers: impl IntoIterator<Item = S>) -> Result<Self> {
        for server in servers {
            self.servers.push(Server::parse(server.as_ref())?);
        }
        Ok(self)
    }

    /// How keys are spread over the servers. Default: libmemcached's weighted ketama.
    pub fn distribution(mut self, distribution: Distribution) -> Self {
        self.distribution = distribution;
        self
    }

    /// The most connections to one server that are ever open. Default: 16.
    pub fn max_connections(mut self, connections: usize) -> Self {
        self.max_connections = connections;
        self
    }

    /// The connections to one server that are kept open from its first use on, and opened again after a fault.
    /// Default: 4.
    ///
    /// Traffic keeps to one of them, or to few under much load, since requests that go together cost less; the others
    /// stand ready.
    pub fn min_connections(mut self, connections: usize) -> Self {
        self.min_connections = connections;
        self
    }

    /// Bounds one attempt to connect, with TLS and authentication. Default: 5 s.
    pub fn connection_timeout(mut self, timeout: Duration) -> Self {
        self.dialing.connection_timeout = timeout;
        self
    }

    /// Bounds each operation, whatever it waits for: a connection, a reconnect, a reply; it may end up to 10 ms later.
    /// Default: 500 ms.
    pub fn operation_timeout(mut self, timeout: Duration) -> Self {
        self.dialing.operation_timeout = timeout;
        self
    }

    /// Authenticates each connection, for servers with an authentication file (`-Y`). The password crosses the network
    /// as it is, unless there is TLS.
    pub fn credentials(mut self, credentials: Credentials) -> Self {
        self.dialing.credentials = Some(credentials);
        self
    }

    /// Encrypts each connection, for servers with TLS (`-Z`).
    #[cfg(feature = "tls")]
    pub fn tls(mut self, tls: Tls) -> Self {
        self.dialing.tls = Some(tls);
        self
    }

    /// The client. Does no I/O and needs no runtime.
    ///
    /// # Errors
    /// [`Config`](crate::ErrorKind::Config), naming the setting that makes no sense.
    pub fn build(self) -> Result<Client> {
        let Self { max_connections, min_connections, dialing, .. } = &self;
        if self.servers.is_empty() {
            return Err(
                Error::config("servers is empty").with_hint("name at least one, such as localhost:11211")
            );
        }
        if *max_connections == 0 {
            return Err(Error::config("max_connections is zero").with_hint("16 is the default, 1 the least"));
        }
        if min_connections > max_connections {
            let message =
                format!("min_connections ({min_connections}) is above max_connections ({max_connections})");
            return Err(Error::config(message).with_hint("4 and 16 are the defaults"));
        }
        for (name, timeout) in [
            ("connection_timeout", dialing.connection_timeout),
            ("operation_timeout", dialing.operation_timeout),
        ] {
            if timeout.is_zero() {
                return Err(Error::config(format!("{name} is zero")).with_hint("give it some milliseconds"));
            }
            if timeout > LONGEST {
                return Err(Error::config(format!("{name} is longer than a day")));
            }
        }
        let ring = Ring::new(self.servers.iter().map(Server::on_ring), self.distribution)
            .map_err(|error| Error::config(error.to_string()))?;
        let limits = Limits {
            most: *max_connections,
            least: *min_connections,
            dial: dialing.connection_timeout,
            second_from: SECOND_FROM,
            one_more_per: ONE_MORE_PER,
            sign_of_life: SIGN_OF_LIFE.max(dialing.operation_timeout),
        };
        let dialing = Arc::new(self.dialing);
        let servers = self
            .servers
            .into_iter()
            .map(|server| Upstream::new(server, Arc::clone(&dialing), limits))
            .collect();
        Ok(Client::with(servers, ring))
    }
}
