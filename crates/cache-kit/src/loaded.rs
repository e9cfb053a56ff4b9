//! What a loader that knows more than a value can say of it.

use std::time::Duration;

use crate::entry::MAX_NAME_BYTES;
use crate::error::{Error, Result};
use crate::tags::Tags;

/// What a loader has found, and how it is to be kept.
///
/// ```
/// use cache_kit::Loaded;
/// use std::time::Duration;
///
/// let page = Loaded::value("<html>".to_owned())
///     .with_ttl(Duration::from_secs(20))
///     .with_tags(["site:7"])
///     .with_version("\"etag-1\"");
/// # let _ = page;
/// ```
#[derive(Clone, Debug)]
#[must_use]
pub struct Loaded<T> {
    pub(crate) what: What<T>,
    pub(crate) ttl: Option<Duration>,
    pub(crate) stale: Option<Duration>,
    /// What cannot be a tag is told where it is stored.
    pub(crate) tags: Vec<String>,
    pub(crate) version: Option<String>,
    pub(crate) may_be_stored: bool,
    /// The source has said that the value is still good.
    pub(crate) is_confirmed: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum What<T> {
    Value(T),
    Absent,
    NotModified,
}

impl<T> Loaded<T> {
    fn new(what: What<T>) -> Self {
        Self {
            what,
            ttl: None,
            stale: None,
            tags: Vec::new(),
            version: None,
            may_be_stored: true,
            is_confirmed: false,
        }
    }

    /// A value.
    pub fn value(value: T) -> Self {
        Self::new(What::Value(value))
    }

    /// The source does not have it, which is remembered for a while
    /// ([`Policy::absent_ttl`](crate::Policy::absent_ttl)). An error is something else.
    pub fn absent() -> Self {
        Self::new(What::Absent)
    }

    /// The value that the loader was shown is still good: it is stored again, with its tags and its version unless others
    /// are given. Without one that was shown this is an error.
    pub fn not_modified() -> Self {
        Self::new(What::NotModified)
    }

    /// Lives so long, whatever the policy says; that the source does not have it, no longer than
    /// [`Policy::absent_ttl`](crate::Policy::absent_ttl). Zero is not stored.
    pub fn with_ttl(mut self, ttl: Duration) -> Self {
        self.ttl = Some(ttl);
        self
    }

    /// Is kept for so long after its fresh life, to be served where the policy of a read allows it.
    pub fn with_stale_life(mut self, life: Duration) -> Self {
        self.stale = Some(life);
        self
    }

    /// Is invalidated with these tags, beside those of the call. A tag is up to 255 bytes long, and an entry has up to 64.
    pub fn with_tags<S: Into<String>>(mut self, tags: impl IntoIterator<Item = S>) -> Self {
        self.tags.extend(tags.into_iter().map(Into::into));
        self
    }

    /// What the source calls this version of the value, such as an ETag; the next loader is shown it. Up to 255 bytes; a
    /// longer one is not kept.
    pub fn with_version(mut self, version: impl Into<String>) -> Self {
        self.version = Some(version.into()).filter(|version| version.len() <= MAX_NAME_BYTES);
        self
    }

    /// Is handed out, and not stored.
    pub fn do_not_store(mut self) -> Self {
        self.may_be_stored = false;
        self
    }

    /// The value, if it is one.
    pub(crate) fn found(&self) -> Option<&T> {
        match &self.what {
            What::Value(value) => Some(value),
            What::Absent | What::NotModified => None,
        }
    }

    pub(crate) fn into_value(self) -> Option<T> {
        match self.what {
            What::Value(value) => Some(value),
            What::Absent | What::NotModified => None,
        }
    }

    /// The value in place of "not modified".
    pub(crate) fn settle(mut self, previous: Previous<T>) -> Result<Self> {
        if !matches!(self.what, What::NotModified) {
            return Ok(self);
        }
        let Some(value) = previous.value else {
            return Err(Error::source("the loader says \"not modified\", and was shown no value")
                .with_hint("Loaded::not_modified is for loaders whose Previous has a value"));
        };
        self.what = What::Value(value);
        self.is_confirmed = true;
        if self.tags.is_empty() {
            self.tags = previous.tags;
        }
        self.version = self.version.or(previous.version);
        Ok(self)
    }

    pub(crate) fn tags(&self) -> Result<Tags> {
        Tags::new(&self.tags)
    }
}

impl<T> From<Option<T>> for Loaded<T> {
    fn from(found: Option<T>) -> Self {
        found.map_or_else(Self::absent, Self::value)
    }
}

/// What the cache still has of a value that is loaded anew.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Previous<T> {
    /// The value, past its fresh life, near its end, or invalidated. `None` where there is none that can be read.
    pub value: Option<T>,
    /// What the source called it ([`Loaded::with_version`]).
    pub version: Option<String>,
    /// How long ago it was stored.
    pub age: Option<Duration>,
    pub(crate) tags: Vec<String>,
}

impl<T> Default for Previous<T> {
    fn default() -> Self {
        Self { value: None, version: None, age: None, tags: Vec::new() }
    }
}
