//! Which slot a key is in, as the specification of Redis Cluster says.

const SLOTS: u16 = 16_384;

/// The slot of a key: of all of it, or of what is between the first `{` and the first `}` after it, if anything is.
pub(super) fn slot(key: &[u8]) -> u16 {
    crc16(tag(key)) % SLOTS
}

fn tag(key: &[u8]) -> &[u8] {
    let Some(open) = key.iter().position(|byte| *byte == b'{') else { return key };
    let rest = &key[open + 1..];
    match rest.iter().position(|byte| *byte == b'}') {
        None | Some(0) => key,
        Some(close) => &rest[..close],
    }
}

/// CRC-16/XMODEM.
fn crc16(bytes: &[u8]) -> u16 {
    bytes.iter().fold(0, |crc, byte| {
        (0..8).fold(crc ^ (u16::from(*byte) << 8), |crc, _| {
            (crc << 1) ^ if crc >> 15 == 1 { 0x1021 } else { 0 }
        })
    })
}

/// The slots of the primary with this number, when all are shared out evenly.
pub(super) fn share(primary: usize, primaries: usize) -> std::ops::Range<usize> {
    let start = |primary: usize| usize::from(SLOTS) * primary / primaries;
    start(primary)..start(primary + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_is_the_one_of_the_specification() {
        assert_eq!(crc16(b"123456789"), 0x31c3);
    }

    #[test]
    fn the_tag_is_the_first_one_that_is_complete_and_not_empty() {
        for (key, hashed) in [
            ("{user1000}.following", "user1000"),
            ("foo{}{bar}", "foo{}{bar}"),
            ("foo{{bar}}zap", "{bar"),
            ("foo{bar}{zap}", "bar"),
            ("foo}{bar", "foo}{bar"),
            ("", ""),
        ] {
            assert_eq!(tag(key.as_bytes()), hashed.as_bytes(), "{key}");
        }
    }

    #[test]
    fn every_slot_is_somebodys() {
        let shares: Vec<usize> = (0..3).flat_map(|primary| share(primary, 3)).collect();
        assert_eq!(shares, (0..usize::from(SLOTS)).collect::<Vec<_>>());
    }
}
