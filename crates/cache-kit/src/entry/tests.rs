use std::collections::BTreeMap;

use proptest::prelude::*;
use serde::{Deserialize, Serialize};

use super::*;

/// A value with one of everything, whose stored form must never change.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
struct Golden {
    id: u64,
    name: String,
    tags: Vec<String>,
    score: f64,
    note: Option<String>,
    counts: BTreeMap<String, i32>,
}

fn golden() -> Golden {
    Golden {
        id: 1 << 40,
        name: "Größe".into(),
        tags: vec!["a".into(), String::new()],
        score: -0.5,
        note: None,
        counts: BTreeMap::from([("x".into(), -1), ("y".into(), 300)]),
    }
}

const KEY: u128 = 0x0011_2233_4455_6677_8899_aabb_ccdd_eeff;
const SCHEMA: Schema = Schema::exactly(0x0123_4567_89ab_cdef);
const OTHER_SCHEMA: Schema = Schema::exactly(0x0123_4567_89ab_cdf0);
const MAX: usize = 1 << 20;

fn stamp() -> Stamp<'static> {
    Stamp {
        schema: SCHEMA,
        key_hash: KEY,
        written_at: 1_600_000_000_123,
        ttl: Some(Duration::from_millis(90_500)),
        idle: None,
        stale: Duration::ZERO,
        load_cost: Duration::from_micros(4_567),
        space: 0xfedc_ba98_7654_3210,
        tags: &[],
        validator: None,
    }
}

/// A stamp with everything that an entry can have.
fn full_stamp(tags: &[(Box<str>, u64)]) -> Stamp<'_> {
    Stamp { idle: Some(Duration::from_millis(30_000)), tags, validator: Some("\"v1\""), ..stamp() }
}

fn tags() -> [(Box<str>, u64); 2] {
    [("tenant:7".into(), 1), ("größe".into(), u64::MAX)]
}

/// The value and the header of an entry of this key and type.
fn open<T: CacheValue>(
    entry: &[u8],
    key_hash: u128,
    schema: Schema,
    max_bytes: usize,
) -> Result<(T, Header), Reject> {
    let entry = Entry::read(entry, key_hash, schema, max_bytes)?;
    let value = entry.value()?.expect("a value, not that there is none");
    Ok((value, entry.header))
}

fn seal_golden(codec: Codec) -> Bytes {
    seal(Some(&golden()), codec, &stamp(), true, MAX).unwrap()
}

fn open_golden(entry: &[u8]) -> Result<(Golden, Header), Reject> {
    open(entry, KEY, SCHEMA, MAX)
}

fn codecs() -> impl Iterator<Item = Codec> {
    (1..=3).filter_map(Codec::from_id)
}

fn golden_file(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/golden/{name}.hex", env!("CARGO_MANIFEST_DIR"));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    let digits: Vec<u32> = text.chars().filter_map(|c| c.to_digit(16)).collect();
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap()).collect()
}

fn hex(entry: &[u8]) -> String {
    let lines =
        entry.chunks(32).map(|line| line.iter().map(|byte| format!("{byte:02x}")).collect::<String>());
    lines.map(|line| line + "\n").collect()
}

#[test]
fn entries_of_every_released_format_stay_readable_and_are_written_alike() {
    for codec in codecs() {
        let file = golden_file(&format!("format2-{codec}"));
        let entry = seal_golden(codec);
        assert_eq!(hex(&entry), hex(&file), "the stored form in {codec} has changed");
        let (value, header) = open_golden(&file).unwrap();
        assert_eq!(value, golden());
        assert_eq!(header.written_at, 1_600_000_000_123);
        assert_eq!((header.fresh_until, header.expires_at), (1_600_000_090_623, 1_600_000_090_623));
        assert_eq!(header.load_cost_micros, 4_567);
    }
}

#[test]
fn an_entry_with_everything_that_one_can_have_is_written_alike() {
    let tags = tags();
    let entry = seal(Some(&golden()), Codec::Postcard, &full_stamp(&tags), true, MAX).unwrap();
    assert_eq!(hex(&entry), hex(&golden_file("format2-full")), "the stored form has changed");
    let read = Entry::read(&entry, KEY, SCHEMA, MAX).unwrap();
    assert_eq!(read.value::<Golden>().unwrap(), Some(golden()));
    assert_eq!(read.header.space, stamp().space);
    assert_eq!(read.header.fresh_until, stamp().written_at + 30_000, "the shorter of its two lives");
    assert_eq!(read.extras.tags().collect::<Vec<_>>(), [("tenant:7", 1), ("größe", u64::MAX)]);
    assert_eq!(read.extras.validator, Some("\"v1\""));
    let sliding = read.extras.sliding.unwrap();
    assert_eq!((sliding.idle, sliding.ends_at), (30_000, stamp().written_at + 90_500));
}

#[test]
fn that_the_source_has_nothing_is_an_entry_of_its_own() {
    let entry = seal::<Golden>(None, Codec::Postcard, &stamp(), true, MAX).unwrap();
    assert_eq!(hex(&entry), hex(&golden_file("format2-absent")), "the stored form has changed");
    assert_eq!(Entry::read(&entry, KEY, SCHEMA, MAX).unwrap().value::<Golden>(), Ok(None));
}

#[test]
fn entries_of_the_format_before_are_misses() {
    for codec in codecs() {
        let entry = golden_file(&format!("format1-{codec}"));
        assert_eq!(open_golden(&entry).unwrap_err(), Reject::UnknownFormat);
    }
}

#[test]
fn an_entry_that_is_read_lives_on_up_to_its_end_and_is_not_written_for_little() {
    let tags = tags();
    let sealed = seal(Some(&golden()), Codec::Postcard, &full_stamp(&tags), true, MAX).unwrap();
    let start = stamp().written_at;
    assert_eq!(touched(&sealed, start + 3_000), None, "a tenth of its idle time has not passed");
    let (entry, life) = touched(&sealed, start + 10_000).unwrap();
    assert_eq!(life, Some(Duration::from_millis(30_000)));
    assert_eq!(open_golden(&entry).unwrap().1.fresh_until, start + 40_000);
    let (entry, life) = touched(&entry, start + 39_000).unwrap();
    assert_eq!(life, Some(Duration::from_millis(30_000)));
    let (entry, life) = touched(&entry, start + 68_000).unwrap();
    assert_eq!(life, Some(Duration::from_millis(22_500)), "no longer than it may live at all");
    assert_eq!(open_golden(&entry).unwrap().1.fresh_until, start + 90_500);
    assert_eq!(touched(&entry, start + 90_000), None, "nothing to be gained");
    assert_eq!(touched(&sealed, start + 30_000), None, "what has ended does not come back");
    assert_eq!(touched(&seal_golden(Codec::Postcard), start + 10_000), None, "not sliding");
}

#[test]
fn every_flipped_bit_is_noticed() {
    for codec in codecs() {
        let entry = seal_golden(codec);
        for bit in 0..entry.len() * 8 {
            let mut flipped = entry.to_vec();
            flipped[bit / 8] ^= 1 << (bit % 8);
            assert!(open_golden(&flipped).is_err(), "bit {bit} in {codec}");
        }
    }
}

#[test]
fn every_flipped_bit_and_truncation_of_what_follows_the_header_is_noticed() {
    let tags = tags();
    let entry = seal(Some(&golden()), Codec::Postcard, &full_stamp(&tags), true, MAX).unwrap();
    for bit in 0..entry.len() * 8 {
        let mut flipped = entry.to_vec();
        flipped[bit / 8] ^= 1 << (bit % 8);
        assert!(open_golden(&flipped).is_err(), "bit {bit}");
    }
    for len in 0..entry.len() {
        assert!(open_golden(&entry[..len]).is_err(), "{len} bytes");
    }
}

#[test]
fn every_truncation_and_extension_is_noticed() {
    for codec in codecs() {
        let entry = seal_golden(codec);
        for len in 0..entry.len() {
            let reject = open_golden(&entry[..len]).unwrap_err();
            assert!(matches!(reject, Reject::Foreign | Reject::Truncated), "{len} bytes: {reject:?}");
        }
        let mut longer = entry.to_vec();
        longer.push(0);
        assert_eq!(open_golden(&longer).unwrap_err(), Reject::Corrupt);
    }
}

#[test]
fn each_mismatch_has_its_own_reason() {
    let entry = seal_golden(Codec::Postcard);
    assert_eq!(open::<Golden>(&entry, KEY + 1, SCHEMA, MAX).unwrap_err(), Reject::WrongKey);
    assert_eq!(open::<Golden>(&entry, KEY, OTHER_SCHEMA, MAX).unwrap_err(), Reject::WrongSchema);
    assert_eq!(open::<Golden>(&entry, KEY, SCHEMA, entry.len() - 1).unwrap_err(), Reject::TooLarge);
    // The header says postcard, and is right about everything, but the payload is of another type.
    let other = seal(Some(&(1_u8, "text".to_owned())), Codec::Postcard, &stamp(), false, MAX);
    assert_eq!(open::<Golden>(&other.unwrap(), KEY, SCHEMA, MAX).unwrap_err(), Reject::Undecodable);
    assert_eq!(open_golden(b"CKI").unwrap_err(), Reject::Foreign);
    assert_eq!(open_golden(b"hello, this is somebody else's").unwrap_err(), Reject::Foreign);
}

#[test]
fn a_codec_of_a_later_version_is_a_miss() {
    let mut entry = seal_golden(Codec::Postcard).to_vec();
    let (mut header, _) = Header::parse(&entry).unwrap();
    header.codec = 200;
    header.write(&mut entry);
    assert_eq!(open_golden(&entry).unwrap_err(), Reject::UnknownFormat);
}

#[test]
fn an_end_too_far_away_to_be_written_is_no_end() {
    for ttl in [None, Some(Duration::MAX), Some(Duration::from_millis(u64::MAX))] {
        let entry = seal(Some(&1_u8), Codec::Postcard, &Stamp { ttl, ..stamp() }, true, MAX).unwrap();
        let (_, header) = open::<u8>(&entry, KEY, SCHEMA, MAX).unwrap();
        assert_eq!(header.expires_at, u64::MAX);
    }
    let ttl = Some(Duration::from_nanos(1));
    let entry = seal(Some(&1_u8), Codec::Postcard, &Stamp { ttl, ..stamp() }, true, MAX).unwrap();
    assert_eq!(
        open::<u8>(&entry, KEY, SCHEMA, MAX).unwrap().1.expires_at,
        stamp().written_at + 1,
        "rounded up"
    );
}

#[test]
fn trailing_bytes_behind_a_value_are_refused_by_every_codec() {
    for codec in codecs() {
        let mut payload = codec.encode(&7_u8, Vec::new()).unwrap();
        assert_eq!(codec.decode::<u8>(&payload), Some(7));
        payload.push(7);
        assert_eq!(codec.decode::<u8>(&payload), None, "{codec}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn arbitrary_bytes_never_panic_and_are_never_an_entry(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
        prop_assert!(open::<Golden>(&bytes, KEY, SCHEMA, MAX).is_err());
        let mut pretender = bytes;
        if pretender.len() >= 8 {
            pretender[..8].copy_from_slice(b"CKIT\x02\x0f\x01\x50");
        }
        prop_assert!(open::<Golden>(&pretender, KEY, SCHEMA, MAX).is_err());
    }

    #[test]
    fn what_is_written_is_read(
        text in ".{0,200}",
        numbers in proptest::collection::vec(any::<i64>(), 0..50),
        float in proptest::num::f64::NORMAL | proptest::num::f64::ZERO,
    ) {
        for codec in codecs() {
            let value = (text.clone(), numbers.clone(), float);
            let entry = seal(Some(&value), codec, &stamp(), true, MAX).unwrap();
            prop_assert_eq!(open::<(String, Vec<i64>, f64)>(&entry, KEY, SCHEMA, MAX).unwrap().0, value);
        }
    }

    #[test]
    fn a_body_that_lies_about_what_is_in_it_is_never_an_entry_and_never_panics(
        body in proptest::collection::vec(any::<u8>(), 0..200),
        flags in 0_u8..16,
    ) {
        let mut entry = vec![0; header::LEN];
        entry.extend_from_slice(&body);
        Header::new(1, flags, &stamp(), entry.len()).write(&mut entry);
        if let Ok(read) = Entry::read(&entry, KEY, SCHEMA, MAX) {
            prop_assert!(read.extras.tags().count() <= 255);
            let _ = read.value::<Golden>();
        }
    }

    #[test]
    fn a_payload_that_lies_about_its_size_allocates_little(mut payload in proptest::collection::vec(any::<u8>(), 1..64)) {
        // Lengths near the top of what a varint holds.
        payload[0] = 0xff;
        for codec in codecs() {
            let _ = codec.decode::<Vec<u64>>(&payload);
            let _ = codec.decode::<Vec<String>>(&payload);
            let _ = codec.decode::<BTreeMap<String, Vec<u8>>>(&payload);
        }
    }
}
