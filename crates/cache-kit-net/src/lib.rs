//! What the network backends of [`cache-kit`](https://docs.rs/cache-kit) share, each a part of its own:
//!
//! - [`Pool`]: the supervisor of the connections to one server. It opens, shares out, replaces, and bounds them.
//! - [`Breaker`]: a server that is down costs microseconds, and is looked for several times a second.
//! - [`Pipe`]: a connection that many callers write into at once, for any [`Protocol`] whose replies come in order.
//! - [`dial`] and [`Stream`]: TCP with the options that make a dead peer show, and unix sockets.
//! - `Tls` (feature `tls`): encrypted connections, and errors that say why there is none.
//!
//! It knows nothing of caching. Everything is public for the crates of the project; other users are welcome, and
//! get no promise that it stays as it is before 1.0.

mod breaker;
mod dial;
mod permit;
mod pipe;
mod pool;
mod stream;
#[cfg(feature = "tls")]
mod tls;
mod watchdog;

pub use breaker::{Breaker, Verdict};
pub use dial::{Address, DialError, dial};
pub use permit::{Permit, Sockets};
pub use pipe::{CallError, Lost, Pipe, PipeLimits, Protocol};
pub use pool::{Connection, Connector, DialFailure, Limits, Pool, Report, Unavailable};
pub use stream::Stream;
#[cfg(feature = "tls")]
pub use tls::{LateFailure, Tls, TlsBuilder, TlsConfigError, TlsError, TlsFailure};
