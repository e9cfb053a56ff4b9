//! What one node of a cluster knows of all of them.

use std::ops::RangeInclusive;

/// A line of `CLUSTER NODES`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Member {
    pub(super) id: String,
    flags: Vec<String>,
    /// The id of the one that it replicates.
    pub(super) primary: Option<String>,
    pub(super) epoch: u64,
    linked: bool,
    slots: Vec<RangeInclusive<u16>>,
}

impl Member {
    fn parse(line: &str) -> Option<Self> {
        let words: Vec<&str> = line.split_whitespace().collect();
        let [id, _addr, flags, primary, _ping, _pong, epoch, link, slots @ ..] = &words[..] else {
            return None;
        };
        Some(Self {
            id: (*id).to_owned(),
            flags: flags.split(',').map(str::to_owned).collect(),
            primary: (*primary != "-").then(|| (*primary).to_owned()),
            epoch: epoch.parse().ok()?,
            linked: *link == "connected",
            // In brackets are the slots that are on the move.
            slots: slots
                .iter()
                .filter(|slots| !slots.starts_with('['))
                .map(|slots| range(slots))
                .collect::<Option<_>>()?,
        })
    }

    pub(super) fn has(&self, slot: u16) -> bool {
        self.slots.iter().any(|range| range.contains(&slot))
    }

    pub(super) fn is(&self, flag: &str) -> bool {
        self.flags.iter().any(|other| other == flag)
    }

    /// True when nothing stands against it.
    pub(super) fn is_well(&self) -> bool {
        self.linked && !["fail", "fail?", "handshake", "noaddr"].iter().any(|flag| self.is(flag))
    }

    /// True when the other says the same of this node's part in the cluster.
    pub(super) fn agrees_with(&self, other: &Self) -> bool {
        self.primary == other.primary && self.is("master") == other.is("master") && self.slots == other.slots
    }
}

fn range(slots: &str) -> Option<RangeInclusive<u16>> {
    let (first, last) = slots.split_once('-').unwrap_or((slots, slots));
    Some(first.parse().ok()?..=last.parse().ok()?)
}

/// The reply to `CLUSTER NODES`.
#[derive(Debug)]
pub(super) struct View(Vec<Member>);

impl View {
    pub(super) fn parse(reply: &str) -> Option<Self> {
        reply.lines().map(Member::parse).collect::<Option<_>>().map(Self)
    }

    pub(super) fn members(&self) -> &[Member] {
        &self.0
    }

    /// The node that was asked.
    pub(super) fn myself(&self) -> Option<&Member> {
        self.0.iter().find(|member| member.is("myself"))
    }

    pub(super) fn member(&self, id: &str) -> Option<&Member> {
        self.0.iter().find(|member| member.id == id)
    }

    pub(super) fn owner(&self, slot: u16) -> Option<&Member> {
        self.0.iter().find(|member| member.has(slot))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lines_of_all_versions_are_understood() {
        let view = View::parse(
            "a1 127.0.0.1:7000@17000 myself,master - 0 0 3 connected 0-5 7 [9-<-b2]\n\
             b2 127.0.0.1:7001@17001,host,shard-id=ab slave,fail? a1 1 2 3 disconnected\n",
        );
        let view = view.unwrap();
        let (one, other) = (view.member("a1").unwrap(), view.member("b2").unwrap());
        assert_eq!(view.myself(), Some(one));
        assert!(one.has(0) && one.has(5) && one.has(7) && !one.has(6) && !one.has(9));
        assert_eq!((one.epoch, one.primary.as_deref(), one.is_well()), (3, None, true));
        assert_eq!((other.primary.as_deref(), other.is_well()), (Some("a1"), false));
        assert_eq!(view.owner(7), Some(one));
        assert_eq!(view.owner(6), None);
    }

    #[test]
    fn something_else_is_not_a_view() {
        assert!(View::parse("-ERR This instance has cluster support disabled").is_none());
    }
}
