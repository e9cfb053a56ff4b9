//! An async client of memcached's meta protocol (1.6.10 and later).
//!
//! | you want to | look at |
//! |---|---|
//! | read and store values | [`Client`] |
//! | know how a key goes onto the wire | [`key`] |
//! | know how a lifetime goes onto the wire | [`ttl`] |
//! | write requests and read replies over I/O of your own | [`protocol`] |
//! | find the server of a key, as libmemcached does | [`ring`] |

mod address;
mod client;
mod conn;
mod error;
pub mod key;
pub mod protocol;
pub mod ring;
mod server;
mod settings;
#[cfg(feature = "tls")]
mod tls;
pub mod ttl;

pub use address::Server;
pub use client::{Answer, Client, ConnectionId, SetOver};
pub use error::{Error, ErrorKind, Result};
pub use key::WireKey;
pub use settings::ClientBuilder;
#[cfg(feature = "tls")]
pub use tls::Tls;
pub use ttl::Exptime;
