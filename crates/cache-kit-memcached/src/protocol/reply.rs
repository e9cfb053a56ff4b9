//! What a server answers.

use std::fmt;

use bytes::Bytes;

use super::Refusal;
use super::line::number;

/// A complete answer to one request. `Debug` prints the lengths of values and not what is in them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Reply {
    /// To `mg`, `ms`, `md` and `ma`.
    Meta(MetaReply),
    /// To `mn`: everything before it was answered.
    NoOp,
    /// To `me`: what the server knows about the item, for people; `None` if there is none.
    Debug(Option<Box<str>>),
    /// To a `get`: for each key, in the order asked for, what is stored under it.
    Values(Vec<Option<Value>>),
    /// To `stats`.
    Stats(Vec<Stat>),
    /// To `version`.
    Version(Box<str>),
    /// To `flush_all` and to the `set` that authenticates.
    Done,
    /// The server did not do what it was asked to. It can be the answer to any request.
    Refused(Refusal),
}

/// How a meta command ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Status {
    /// `HD`: done, or found; there is no value in the reply.
    Header,
    /// `VA`: the value is in the reply.
    Value,
    /// `EN`: `mg` found nothing.
    Miss,
    /// `NF`: there is nothing to compare with, to delete or to count with.
    NotFound,
    /// `NS`: not stored, because the key is there (add), or is not (replace, append, prepend).
    NotStored,
    /// `EX`: the item has another cas than the one to compare with.
    Exists,
}

/// The answer to a meta command. What was not asked for is `None`, and so is what the server does not say.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct MetaReply {
    /// How the command ended.
    pub status: Status,
    /// The value, exactly with [`Status::Value`].
    pub value: Option<Bytes>,
    /// The client flags, zero if they were not asked for.
    pub client_flags: u32,
    /// The number that changes with each change of the item. Never zero, which a server writes that has stored nothing,
    /// or was started without such numbers (`-C`).
    pub cas: Option<u64>,
    /// The seconds that are left; -1 for an item that never expires.
    pub ttl: Option<i64>,
    /// The length of the value.
    pub size: Option<u64>,
    /// The seconds since the last access.
    pub last_access: Option<u64>,
    /// Whether the item was read before.
    pub hit_before: Option<bool>,
    /// This reader has won and is the one to load the value (`W`).
    pub won: bool,
    /// The item was invalidated (`X`).
    pub stale: bool,
    /// Another reader has won before (`Z`).
    pub already_won: bool,
    /// The number of the request. Before 1.6.18 a miss does not say it.
    pub opaque: Option<u32>,
}

impl MetaReply {
    pub(super) fn new(status: Status) -> Self {
        Self {
            status,
            value: None,
            client_flags: 0,
            cas: None,
            ttl: None,
            size: None,
            last_access: None,
            hit_before: None,
            won: false,
            stale: false,
            already_won: false,
            opaque: None,
        }
    }

    /// The value as a number: what `ma` returns.
    #[must_use]
    pub fn number(&self) -> Option<u64> {
        self.value.as_deref().and_then(|digits| number(digits).ok())
    }
}

impl fmt::Debug for MetaReply {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("MetaReply")
            .field("status", &self.status)
            .field("value_len", &self.value.as_ref().map(Bytes::len))
            .field("client_flags", &self.client_flags)
            .field("cas", &self.cas)
            .field("ttl", &self.ttl)
            .field("size", &self.size)
            .field("last_access", &self.last_access)
            .field("hit_before", &self.hit_before)
            .field("won", &self.won)
            .field("stale", &self.stale)
            .field("already_won", &self.already_won)
            .field("opaque", &self.opaque)
            .finish()
    }
}

/// What a classic `get` finds under a key.
#[derive(Clone, PartialEq, Eq)]
#[non_exhaustive]
pub struct Value {
    /// The number that was stored with it.
    pub client_flags: u32,
    /// The bytes.
    pub data: Bytes,
}

impl fmt::Debug for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Value")
            .field("client_flags", &self.client_flags)
            .field("len", &self.data.len())
            .finish()
    }
}

/// One statistic.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Stat {
    /// What is counted.
    pub name: Box<str>,
    /// How it stands.
    pub value: Box<str>,
}
