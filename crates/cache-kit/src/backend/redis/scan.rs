//! Keys by pattern, on every server that holds some.

use bytes::Bytes;
use redis::{Value, cmd};

use super::error::convert;
use super::node::Node;
use super::topology::{Keyed, unexpected};
use super::{Shared, bytes_of, head_of, stub};
use crate::error::Result;

/// How many keys a `SCAN` is asked for at a time.
const SCAN_COUNT: usize = 1_000;
/// Where keys may move while somebody looks for them, they are looked for at least and at most so often, and no more once none
/// is found.
const SCANS: std::ops::RangeInclusive<usize> = 2..=4;

impl Shared {
    /// Removes the keys that match a pattern of the servers' own keys; how many of them held values.
    pub(super) async fn unlink_matching(&self, operation: &'static str, pattern: &str) -> Result<u64> {
        let mut removed = 0;
        for scan in 1..=*SCANS.end() {
            let before = removed;
            for node in self.topology.all_primaries(operation, self.topology.deadline()).await? {
                let found = self.unlink_matching_on(&node, operation, pattern).await;
                removed += found.inspect_err(|_| self.topology.suspect())?;
            }
            // A key that moves from a node that was not looked at yet to one that was is missed.
            let again = scan < *SCANS.start() || removed != before;
            if !self.topology.keys_may_move() || !again {
                break;
            }
        }
        Ok(removed)
    }

    async fn unlink_matching_on(&self, node: &Node, operation: &'static str, pattern: &str) -> Result<u64> {
        let (mut cursor, mut removed) = (b"0".to_vec(), 0);
        loop {
            let mut scan = cmd("SCAN");
            scan.arg(&cursor).arg("MATCH").arg(pattern).arg("COUNT").arg(SCAN_COUNT);
            let answer = node.send(operation, self.topology.deadline(), &scan).await?;
            let Value::Array(mut answer) = answer.map_err(|error| convert(operation, error))? else {
                return Err(unexpected(operation));
            };
            let (Some(Value::Array(keys)), Some(next)) = (answer.pop(), answer.pop().and_then(bytes_of))
            else {
                return Err(unexpected(operation));
            };
            let keys: Vec<Bytes> = keys.into_iter().filter_map(bytes_of).collect();
            if !keys.is_empty() {
                removed += self.unlink(operation, &keys).await?;
            }
            if &next[..] == b"0" {
                return Ok(removed);
            }
            cursor = next.to_vec();
        }
    }

    /// Removes keys by their names on the server; how many of them held values, leases not counted.
    async fn unlink(&self, operation: &'static str, keys: &[Bytes]) -> Result<u64> {
        let mut commands = Vec::with_capacity(2 * keys.len());
        for key in keys {
            // Enough to tell a lease from a value; a key of another type has none.
            commands.push(head_of(key));
            let mut unlink = cmd("UNLINK");
            unlink.arg(&key[..]);
            commands.push(Keyed::new(key, unlink));
        }
        let answers = self.topology.send_each(operation, commands).await?;
        let (mut removed, mut answers) = (0, answers.into_iter());
        while let (Some(head), Some(unlinked)) = (answers.next(), answers.next()) {
            let unlinked = unlinked?.map_err(|error| convert(operation, error))?;
            let is_lease = matches!(head?, Ok(Value::BulkString(head)) if stub::is_bare(&head));
            removed += u64::from(unlinked == Value::Int(1) && !is_lease);
        }
        Ok(removed)
    }
}

/// Takes the meaning from a text that stands in a pattern.
pub(super) fn escape_pattern(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        if "*?[]^\\".contains(c) {
            escaped.push('\\');
        }
        escaped.push(c);
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_means_nothing_in_a_pattern() {
        assert_eq!(escape_pattern("a*b[c]?\\d"), "a\\*b\\[c\\]\\?\\\\d");
    }
}
