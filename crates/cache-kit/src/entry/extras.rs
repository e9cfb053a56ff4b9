//! What stands between the header and the payload, where the flags say so: tags, sliding life, the source's version.

use super::header::{self, Header};
use super::{Reject, Stamp};

/// Tags of one entry, at most.
pub(crate) const MAX_TAGS: usize = 64;
/// The longest name of a tag, and of a version of the source, in bytes.
pub(crate) const MAX_NAME_BYTES: usize = 255;

/// What follows the header, as it lies in the entry.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Extras<'a> {
    /// Each a length, a name, a version.
    tags: &'a [u8],
    pub(crate) sliding: Option<Sliding>,
    /// What the source calls this version of the value.
    pub(crate) validator: Option<&'a str>,
}

/// The life of an entry that ends sooner if it is not read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Sliding {
    /// In milliseconds without a read.
    pub(crate) idle: u64,
    /// When it ends at the latest, in milliseconds since 1970.
    pub(crate) ends_at: u64,
}

/// The flags of a new entry.
pub(super) fn flags(stamp: &Stamp<'_>, is_absent: bool) -> u8 {
    let flag = |is_set: bool, flag: u8| if is_set { flag } else { 0 };
    flag(is_absent, header::ABSENT)
        | flag(!stamp.tags.is_empty(), header::TAGGED)
        | flag(stamp.idle.is_some(), header::SLIDING)
        | flag(stamp.validator.is_some(), header::VALIDATED)
}

/// Writes what follows the header.
pub(super) fn write(stamp: &Stamp<'_>, entry: &mut Vec<u8>) {
    debug_assert!(stamp.tags.len() <= MAX_TAGS, "checked where tags come in");
    if !stamp.tags.is_empty() {
        entry.push(u8::try_from(stamp.tags.len()).unwrap_or(u8::MAX));
        for (name, version) in stamp.tags {
            push_text(entry, name);
            entry.extend_from_slice(&version.to_le_bytes());
        }
    }
    if let Some(idle) = stamp.idle {
        let millis = u64::try_from(idle.as_millis()).unwrap_or(u64::MAX).max(1);
        let ends_at = stamp.ttl.map_or(header::NEVER, |ttl| header::after(stamp.written_at, ttl));
        entry.extend_from_slice(&millis.to_le_bytes());
        entry.extend_from_slice(&ends_at.to_le_bytes());
    }
    if let Some(validator) = stamp.validator {
        push_text(entry, validator);
    }
}

fn push_text(entry: &mut Vec<u8>, text: &str) {
    let len = u8::try_from(text.len()).unwrap_or(u8::MAX);
    entry.push(len);
    entry.extend_from_slice(&text.as_bytes()[..usize::from(len)]);
}

/// Reads what follows the header, and gives the payload.
pub(super) fn parse<'a>(header: &Header, mut body: &'a [u8]) -> Result<(Extras<'a>, &'a [u8]), Reject> {
    let mut extras = Extras::default();
    if header.has(header::TAGGED) {
        let count = take(&mut body, 1)?[0];
        let whole = body;
        for _ in 0..count {
            let _name = text(&mut body)?;
            take(&mut body, 8)?;
        }
        extras.tags = &whole[..whole.len() - body.len()];
    }
    if header.has(header::SLIDING) {
        let (idle, ends_at) = (number(&mut body)?, number(&mut body)?);
        extras.sliding = Some(Sliding { idle, ends_at });
    }
    if header.has(header::VALIDATED) {
        extras.validator = Some(text(&mut body)?);
    }
    Ok((extras, body))
}

impl<'a> Extras<'a> {
    /// The tags and their versions.
    pub(crate) fn tags(&self) -> impl Iterator<Item = (&'a str, u64)> + use<'a> {
        let mut rest = self.tags;
        // Read once already, so nothing is missing.
        std::iter::from_fn(move || Some((text(&mut rest).ok()?, number(&mut rest).ok()?)))
    }
}

impl Sliding {
    pub(super) fn fresh_until(self, now: u64) -> u64 {
        now.saturating_add(self.idle).min(self.ends_at)
    }

    /// Whether so much of the idle time is over that it is worth writing that the entry was read.
    pub(crate) fn is_due(self, fresh_until: u64, now: u64) -> bool {
        let gained = self.fresh_until(now).saturating_sub(fresh_until);
        gained > self.idle / TOUCH_SHARE
    }
}

/// An entry that is read is written again only after a tenth of its idle time.
const TOUCH_SHARE: u64 = 10;

fn take<'a>(rest: &mut &'a [u8], len: usize) -> Result<&'a [u8], Reject> {
    let (taken, left) = rest.split_at_checked(len).ok_or(Reject::Corrupt)?;
    *rest = left;
    Ok(taken)
}

fn number(rest: &mut &[u8]) -> Result<u64, Reject> {
    let mut bytes = [0; 8];
    bytes.copy_from_slice(take(rest, 8)?);
    Ok(u64::from_le_bytes(bytes))
}

fn text<'a>(rest: &mut &'a [u8]) -> Result<&'a str, Reject> {
    let len = take(rest, 1)?[0];
    str::from_utf8(take(rest, usize::from(len))?).map_err(|_| Reject::Corrupt)
}
