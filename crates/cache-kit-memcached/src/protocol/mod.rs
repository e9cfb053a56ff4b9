//! The wire protocol, without I/O: requests are written into a buffer, replies are read from one.
//!
//! It is the meta protocol of memcached 1.6.10 and later, whose commands carry flags, and of the older text protocol
//! what the meta protocol has no better word for: `get` of many keys, `stats`, `flush_all`, `version`, and the `set`
//! that authenticates.
//!
//! A server answers in the order of the requests, so whoever drives a connection keeps an [`Expect`] for each request
//! in flight, and hands the oldest to [`decode`] together with what was read. The number that a request carries as
//! its *opaque* comes back with its reply; that is how a reply that belongs to another request is found out.
//!
//! ```
//! use bytes::BytesMut;
//! use cache_kit_memcached::WireKey;
//! use cache_kit_memcached::protocol::{Expect, GetOptions, Limits, Reply, Status, decode, request};
//!
//! let mut options = GetOptions::default();
//! options.value = true;
//! options.cas = true;
//! options.opaque = Some(7);
//! let mut out = Vec::new();
//! request::mg(&mut out, &WireKey::new(b"user:42"), &options);
//! assert_eq!(out, b"mg user:42 O7 v c\r\n");
//!
//! let mut expect = Expect::get(options.opaque, Limits::default());
//! let mut input = BytesMut::from(&b"VA 5 O7 c91\r\nhel"[..]);
//! assert_eq!(decode(&mut expect, &mut input)?, None);
//! input.extend_from_slice(b"lo\r\n");
//! let Some(Reply::Meta(reply)) = decode(&mut expect, &mut input)? else { panic!("no reply") };
//! assert_eq!((reply.status, reply.cas), (Status::Value, Some(91)));
//! assert_eq!(reply.value.as_deref(), Some(&b"hello"[..]));
//! # Ok::<(), cache_kit_memcached::protocol::Violation>(())
//! ```

mod credentials;
mod decode;
mod key_list;
mod line;
mod options;
mod refusal;
mod reply;
pub mod request;
mod violation;

pub use credentials::{Credentials, CredentialsError};
pub use decode::{Expect, Limits, decode};
pub use key_list::KeyList;
pub use line::MAX_LINE_LEN;
pub use options::{
    ArithmeticMode, ArithmeticOptions, DeleteOptions, GetOptions, SetMode, SetOptions, StatsTopic,
};
pub use refusal::Refusal;
pub use reply::{MetaReply, Reply, Stat, Status, Value};
pub use request::RequestError;
pub use violation::Violation;
