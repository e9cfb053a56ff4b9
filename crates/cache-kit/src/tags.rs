//! Names that entries can be invalidated by together.

use std::fmt;
use std::sync::Arc;

use crate::entry::{MAX_NAME_BYTES, MAX_TAGS};
use crate::error::{Error, Result};

/// The tags of an entry: sorted, each once. Cheap to clone.
#[derive(Clone, Default, PartialEq, Eq)]
pub(crate) struct Tags(Option<Arc<[Box<str>]>>);

impl Tags {
    /// Takes these names, if an entry can have them.
    pub(crate) fn new<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Result<Self> {
        let mut tags = Vec::new();
        for name in names {
            tags.push(check(name.as_ref())?.into());
        }
        if tags.is_empty() {
            return Ok(Self::default());
        }
        tags.sort_unstable();
        tags.dedup();
        if tags.len() > MAX_TAGS {
            return Err(Error::invalid(format!(
                "{} tags are more than the {MAX_TAGS} of an entry",
                tags.len()
            ))
            .with_hint("tag an entry with what it is invalidated by, not with all that is known of it"));
        }
        Ok(Self(Some(tags.into())))
    }

    pub(crate) fn names(&self) -> &[Box<str>] {
        self.0.as_deref().unwrap_or_default()
    }
}

/// These tags, however many they are: to be invalidated, not to be carried by an entry.
pub(crate) fn checked<S: AsRef<str>>(names: impl IntoIterator<Item = S>) -> Result<Vec<Box<str>>> {
    let mut tags = Vec::new();
    for name in names {
        tags.push(check(name.as_ref())?.into());
    }
    tags.sort_unstable();
    tags.dedup();
    Ok(tags)
}

/// A name that a tag can have.
pub(crate) fn check(name: &str) -> Result<&str> {
    if name.is_empty() {
        return Err(Error::invalid("a tag is empty").with_hint("name what is to be invalidated together"));
    }
    if name.len() > MAX_NAME_BYTES {
        let len = name.len();
        return Err(Error::invalid(format!("a tag of {len} bytes is longer than {MAX_NAME_BYTES}"))
            .with_hint("use a shorter name, such as a digest of it"));
    }
    Ok(name)
}

impl fmt::Debug for Tags {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.names()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tags_are_sorted_and_each_is_there_once() {
        let tags = Tags::new(["b", "a", "b"]).unwrap();
        assert_eq!(tags.names(), [Box::<str>::from("a"), Box::from("b")]);
        assert_eq!(Tags::new([""; 0]).unwrap(), Tags::default());
    }

    #[test]
    fn what_no_entry_can_have_is_refused() {
        let many: Vec<String> = (0..=MAX_TAGS).map(|at| at.to_string()).collect();
        for (names, what) in [(vec![String::new()], "empty"), (vec!["x".repeat(256)], "256"), (many, "65")] {
            assert!(Tags::new(names).unwrap_err().to_string().contains(what));
        }
    }
}
