//! What the meta commands can be told. The letters are those of the protocol.

use crate::ttl::Exptime;

/// Options of `mg`. The default asks for nothing but whether the key is there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct GetOptions {
    /// Return the value (`v`).
    pub value: bool,
    /// Return the client flags (`f`).
    pub client_flags: bool,
    /// Return the number that changes with each change of the item (`c`).
    pub cas: bool,
    /// Return the seconds that are left, as they are after `touch` and `vivify` (`t`).
    pub ttl: bool,
    /// Return the length of the value (`s`).
    pub size: bool,
    /// Return the seconds since the last access (`l`).
    pub last_access: bool,
    /// Return whether the item was ever read before (`h`).
    pub hit_before: bool,
    /// Give a hit this expiry (`T`).
    pub touch: Option<Exptime>,
    /// Create an empty item with this expiry on a miss (`N`): the one that created it has *won*, and everybody else
    /// learns that somebody has. A server that is out of memory answers a plain miss.
    pub vivify: Option<Exptime>,
    /// Let one reader win when fewer seconds than these are left (`R`); 30 days at most, more is taken for that. An
    /// item that never expires has no winner.
    pub recache_secs: Option<u32>,
    /// Do not count this as a use of the item (`u`).
    pub no_bump: bool,
    /// The number that the reply must carry (`O`).
    pub opaque: Option<u32>,
}

/// When `ms` stores (`M`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum SetMode {
    /// Whatever the server holds.
    #[default]
    Set,
    /// If the key is absent.
    Add,
    /// If the key is there.
    Replace,
    /// Behind the value that is there.
    Append,
    /// In front of the value that is there.
    Prepend,
}

/// Options of `ms`. The default stores for ever, whatever the server holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct SetOptions {
    /// When to store.
    pub mode: SetMode,
    /// A number that is kept with the value (`F`). Append and prepend do not change it.
    pub client_flags: u32,
    /// When the item ends (`T`). Append and prepend do not change it.
    pub exptime: Exptime,
    /// Store only over an item with this number (`C`).
    pub compare_cas: Option<u64>,
    /// With `compare_cas`: store over an item with a higher number too, but as stale (`I`).
    pub invalidate: bool,
    /// Return the number of the stored item (`c`).
    pub cas: bool,
    /// The number that the reply must carry (`O`).
    pub opaque: Option<u32>,
}

/// Options of `md`. The default deletes the item.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct DeleteOptions {
    /// Only an item with this number (`C`).
    pub compare_cas: Option<u64>,
    /// Keep the item as stale instead of deleting it (`I`): the next reader wins, and everybody sees that it is stale.
    pub invalidate: bool,
    /// With `invalidate`: give the stale item this expiry (`T`).
    pub exptime: Option<Exptime>,
    /// The number that the reply must carry (`O`).
    pub opaque: Option<u32>,
}

/// Which way `ma` counts (`M`).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum ArithmeticMode {
    /// Up; what is beyond 64 bits wraps.
    #[default]
    Increment,
    /// Down, to zero and not below.
    Decrement,
}

/// Options of `ma`. The default adds one to an item that exists.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct ArithmeticOptions {
    /// Which way to count.
    pub mode: ArithmeticMode,
    /// How far to count (`D`).
    pub delta: u64,
    /// Create the item with this expiry on a miss, with `initial` as its value (`N`).
    pub vivify: Option<Exptime>,
    /// With `vivify`: what a new item starts with; nothing is added to it (`J`).
    pub initial: u64,
    /// Give the item this expiry (`T`).
    pub touch: Option<Exptime>,
    /// Only an item with this number (`C`).
    pub compare_cas: Option<u64>,
    /// Return the new value (`v`).
    pub value: bool,
    /// Return the seconds that are left (`t`).
    pub ttl: bool,
    /// Return the number that changes with each change of the item (`c`).
    pub cas: bool,
    /// The number that the reply must carry (`O`).
    pub opaque: Option<u32>,
}

impl Default for ArithmeticOptions {
    fn default() -> Self {
        Self {
            mode: ArithmeticMode::default(),
            delta: 1,
            vivify: None,
            initial: 0,
            touch: None,
            compare_cas: None,
            value: false,
            ttl: false,
            cas: false,
            opaque: None,
        }
    }
}

/// What `stats` tells about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub enum StatsTopic {
    /// The server as a whole.
    #[default]
    General,
    /// What the server was started with.
    Settings,
    /// The items of each size class.
    Items,
    /// The memory of each size class.
    Slabs,
    /// How many items there are of each size, if the server counts them.
    Sizes,
    /// The connections.
    Connections,
}
