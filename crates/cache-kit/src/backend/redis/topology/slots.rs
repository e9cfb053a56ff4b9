//! Slots: which one a key is in, and which nodes have which.
//!
//! As the Redis Cluster specification says it: CRC-16 (XMODEM) of the key, or of what is between the first `{` and the
//! next `}` if that is anything, modulo 16,384.

use cache_kit_net::Address;
use redis::Value;

use super::redirect::node_address;

/// How many there are.
pub(in super::super) const SLOTS: u16 = 16_384;

/// The slot of a key.
pub(super) fn slot_of(key: &[u8]) -> u16 {
    crc16(tag(key)) % SLOTS
}

/// The part of a key that decides.
fn tag(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|byte| *byte == b'{') else { return key };
    let rest = &key[open + 1..];
    match rest.iter().position(|byte| *byte == b'}') {
        None | Some(0) => key,
        Some(close) => &rest[..close],
    }
}

const POLYNOMIAL: u16 = 0x1021;

const TABLE: [u16; 256] = {
    let mut table = [0; 256];
    let mut byte = 0;
    while byte < 256 {
        let mut crc = (byte as u16) << 8;
        let mut bit = 0;
        while bit < 8 {
            crc = if crc & 0x8000 != 0 { (crc << 1) ^ POLYNOMIAL } else { crc << 1 };
            bit += 1;
        }
        table[byte] = crc;
        byte += 1;
    }
    table
};

fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| (crc << 8) ^ TABLE[usize::from((crc >> 8) as u8 ^ byte)])
}

/// A range of slots and who has it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Range {
    pub(super) first: u16,
    pub(super) last: u16,
    pub(super) primary: Address,
    pub(super) replicas: Vec<Address>,
}

/// Reads the answer to `CLUSTER SLOTS` of the node at `from`. What makes no sense in it is left out, such as a node
/// without a port; `None` if nothing is left.
pub(super) fn read_slots(answer: &Value, from: Option<&Address>) -> Option<Vec<Range>> {
    let Value::Array(ranges) = answer else { return None };
    let range = |range: &Value| {
        let Value::Array(parts) = range else { return None };
        let [first, last, nodes @ ..] = &parts[..] else { return None };
        let mut nodes = nodes.iter().filter_map(|node| read_node(node, from));
        let (first, last) = (number(first)?, number(last)?);
        let range = Range { first, last, primary: nodes.next()?, replicas: nodes.collect() };
        (first <= last && last < SLOTS).then_some(range)
    };
    let ranges: Vec<Range> = ranges.iter().filter_map(range).collect();
    (!ranges.is_empty()).then_some(ranges)
}

fn read_node(node: &Value, from: Option<&Address>) -> Option<Address> {
    let Value::Array(parts) = node else { return None };
    let [host, port, ..] = &parts[..] else { return None };
    let host = match host {
        Value::BulkString(bytes) => std::str::from_utf8(bytes).ok()?,
        Value::SimpleString(text) => text,
        Value::Nil => "",
        _ => return None,
    };
    node_address(host, number(port)?, from)
}

fn number(value: &Value) -> Option<u16> {
    match value {
        Value::Int(number) => u16::try_from(*number).ok(),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_those_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
        // As `CLUSTER KEYSLOT` answers.
        for (key, slot) in [("foo", 12_182), ("bar", 5_061), ("hello", 866), ("", 0)] {
            assert_eq!(slot_of(key.as_bytes()), slot, "{key}");
        }
    }

    #[test]
    fn only_what_is_in_braces_decides_if_it_is_anything() {
        let same = |a: &str, b: &str| slot_of(a.as_bytes()) == slot_of(b.as_bytes());
        assert!(same("{user1000}.following", "{user1000}.followers"));
        assert!(same("foo{bar}{zap}", "bar"));
        assert!(same("foo{{bar}}zap", "{bar"));
        assert!(!same("foo{}{bar}", "bar"));
        assert!(!same("foo{bar", "bar"));
    }

    #[test]
    fn the_map_of_slots_is_read_and_nonsense_is_none() {
        let bulk = |text: &str| Value::BulkString(text.as_bytes().to_vec());
        let node = |host: Value, port: i64| Value::Array(vec![host, Value::Int(port), bulk("id")]);
        let range = |first: i64, last: i64, nodes: Vec<Value>| {
            Value::Array([vec![Value::Int(first), Value::Int(last)], nodes].concat())
        };
        let asked = Address::Tcp { host: "asked".to_owned(), port: 1 };
        let tcp = |host: &str, port| Address::Tcp { host: host.to_owned(), port };
        let answer = Value::Array(vec![
            range(0, 100, vec![node(bulk("a"), 1), node(bulk("b"), 2)]),
            range(101, 16_383, vec![node(Value::Nil, 3)]),
        ]);
        let read = read_slots(&answer, Some(&asked)).unwrap();
        assert_eq!((read[0].primary.clone(), read[0].replicas.clone()), (tcp("a", 1), vec![tcp("b", 2)]));
        assert_eq!((read[1].first, read[1].last, read[1].primary.clone()), (101, 16_383, tcp("asked", 3)));
        let half =
            Value::Array(vec![range(0, 1, vec![node(bulk("a"), 0)]), range(2, 3, vec![node(bulk("b"), 1)])]);
        assert_eq!(read_slots(&half, Some(&asked)).unwrap().len(), 1);
        for nonsense in [
            Value::Nil,
            Value::Array(vec![]),
            Value::Array(vec![range(0, 16_384, vec![node(bulk("a"), 1)])]),
            Value::Array(vec![range(5, 4, vec![node(bulk("a"), 1)])]),
            Value::Array(vec![range(0, 1, vec![])]),
            Value::Array(vec![range(0, 1, vec![node(bulk("a"), 0)])]),
            Value::Array(vec![Value::Int(1)]),
        ] {
            assert_eq!(read_slots(&nonsense, Some(&asked)), None, "{nonsense:?}");
        }
    }
}
