use proptest::prelude::*;

use super::tests::{get, values};
use super::*;
use crate::protocol::{MetaReply, Refusal, Stat, Status, Value};

/// A request's expectation, the bytes of the server, and what they mean.
#[derive(Clone, Debug)]
struct Exchange {
    expect: Expect,
    bytes: Vec<u8>,
    reply: Reply,
}

fn any_value() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        4 => prop::collection::vec(any::<u8>(), 0..40),
        2 => prop::collection::vec(prop::sample::select(&b"\r\nEND VA0"[..]), 0..12),
        1 => (any::<u8>(), 4_000..9_000_usize).prop_map(|(byte, len)| vec![byte; len]),
    ]
}

fn a_hit() -> impl Strategy<Value = Exchange> {
    let asked = (any::<Option<u32>>(), any::<u32>(), any::<Option<i32>>(), any::<Option<u64>>());
    (any_value(), asked, any::<[bool; 3]>()).prop_map(|(value, asked, marks)| {
        let ((opaque, client_flags, ttl, cas), [won, stale, already_won]) = (asked, marks);
        let mut line = format!("VA {} f{client_flags}", value.len());
        if let Some(opaque) = opaque {
            line += &format!(" O{opaque}");
        }
        if let Some(ttl) = ttl {
            line += &format!(" t{ttl}");
        }
        if let Some(cas) = cas {
            line += &format!(" c{cas}");
        }
        for (mark, letter) in [(won, " W"), (stale, " X"), (already_won, " Z")] {
            line += if mark { letter } else { "" };
        }
        let reply = MetaReply {
            client_flags,
            cas: cas.filter(|&cas| cas != 0),
            ttl: ttl.map(i64::from),
            won,
            stale,
            already_won,
            opaque,
            value: Some(Bytes::copy_from_slice(&value)),
            ..MetaReply::new(Status::Value)
        };
        let bytes = [line.as_bytes(), b"\r\n", &value, b"\r\n"].concat();
        Exchange { expect: get(opaque), bytes, reply: Reply::Meta(reply) }
    })
}

fn a_list() -> impl Strategy<Value = Exchange> {
    // Few different keys, so that some are asked for twice.
    let entry = ("[ab]{1,2}", prop::option::of((any::<u32>(), any_value())));
    prop::collection::vec(entry, 1..6).prop_map(|entries| {
        let mut bytes = Vec::new();
        let mut found: Vec<Option<Value>> = Vec::new();
        let keys: Vec<_> = entries.iter().map(|(key, _)| key.as_str()).collect();
        for (index, (key, value)) in entries.iter().enumerate() {
            // Of one key that is asked for twice, a value stands at the first place that is free.
            let missed_before =
                keys[..index].iter().zip(&found).any(|(k, found)| k == key && found.is_none());
            let value = value.as_ref().filter(|_| !missed_before);
            found.push(value.map(|(client_flags, data)| {
                bytes.extend(format!("VALUE {key} {client_flags} {}\r\n", data.len()).bytes());
                bytes.extend([&data[..], b"\r\n"].concat());
                Value { client_flags: *client_flags, data: Bytes::copy_from_slice(data) }
            }));
        }
        bytes.extend(b"END\r\n");
        Exchange { expect: values(&keys), bytes, reply: Reply::Values(found) }
    })
}

fn any_exchange() -> impl Strategy<Value = Exchange> {
    let fixed = |expect: Expect, text: &str, reply: Reply| {
        Just(Exchange { expect, bytes: text.as_bytes().to_vec(), reply })
    };
    let stat = Stat { name: "a".into(), value: "b c".into() };
    let stored = MetaReply { opaque: Some(9), cas: Some(3), ..MetaReply::new(Status::Header) };
    prop_oneof![
        4 => a_hit(),
        4 => a_list(),
        1 => fixed(Expect::set(Some(9)), "HD O9 c3\r\n", Reply::Meta(stored)),
        1 => fixed(get(Some(9)), "EN\r\n", Reply::Meta(MetaReply::new(Status::Miss))),
        1 => fixed(Expect::no_op(), "MN\r\n", Reply::NoOp),
        1 => fixed(Expect::version(), "VERSION 1\r\n", Reply::Version("1".into())),
        1 => fixed(Expect::stats(), "STAT a b c\r\nSTAT a b c\r\nEND\r\n", Reply::Stats(vec![stat; 2])),
        1 => fixed(get(Some(1)), "SERVER_ERROR x\r\n", Reply::Refused(Refusal::Server("x".into()))),
    ]
}

/// Reads replies as their bytes arrive in pieces.
fn in_pieces(exchanges: &[Exchange], cuts: &[usize]) -> Vec<Reply> {
    let stream: Vec<u8> = exchanges.iter().flat_map(|exchange| exchange.bytes.clone()).collect();
    let mut expects = exchanges.iter().map(|exchange| exchange.expect.clone());
    let mut expect = expects.next();
    let (mut input, mut replies, mut arrived) = (BytesMut::new(), Vec::new(), 0);
    for &cut in cuts.iter().chain([&stream.len()]) {
        let cut = cut.min(stream.len());
        if cut < arrived {
            continue;
        }
        input.extend_from_slice(&stream[arrived..cut]);
        arrived = cut;
        while let Some(waiting) = &mut expect {
            let Some(reply) = decode(waiting, &mut input).unwrap() else { break };
            replies.push(reply);
            expect = expects.next();
        }
    }
    assert!(input.is_empty(), "{} bytes are left", input.len());
    replies
}

fn any_expect() -> impl Strategy<Value = Expect> {
    prop::sample::select(vec![
        get(Some(1)),
        Expect::set(Some(1)),
        Expect::delete(None),
        Expect::arithmetic(None),
        values(&["a", "b", "a"]),
        Expect::stats(),
        Expect::version(),
        Expect::no_op(),
        Expect::debug(),
        Expect::flushed(),
        Expect::authenticated(),
    ])
}

/// Bytes that are close to replies, and some that are not.
fn any_garbage() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        4 => prop::sample::select(vec![
            "VA ", "HD", "EN", "NF", "MN", "ME ", "VALUE ", "a ", "b ", "END", "STAT ", "STORED", "OK", "VERSION ",
            "ERROR", "CLIENT_ERROR ", "SERVER_ERROR ", " O1", " c1", " W", " W", "0 ", "1", "9", "-1", " ", "\r",
            "\n", "\r\n", "\r\n", "\r\n", "VA 1 O1\r\nx\r\n", "VALUE a 0 1\r\nx\r\n",
        ]).prop_map(|text| text.as_bytes().to_vec()),
        1 => prop::collection::vec(any::<u8>(), 0..6),
        1 => (any::<u8>(), 1_000..3_000_usize).prop_map(|(byte, len)| vec![byte; len]),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn replies_do_not_depend_on_how_their_bytes_arrive(
        exchanges in prop::collection::vec(any_exchange(), 1..6),
        mut cuts in prop::collection::vec(0..12_000_usize, 0..12),
    ) {
        cuts.sort_unstable();
        let expected: Vec<_> = exchanges.iter().map(|exchange| exchange.reply.clone()).collect();
        prop_assert_eq!(&in_pieces(&exchanges, &[]), &expected);
        prop_assert_eq!(&in_pieces(&exchanges, &cuts), &expected);
    }

    #[test]
    fn replies_may_arrive_byte_by_byte(exchanges in prop::collection::vec(any_exchange(), 1..4)) {
        let expected: Vec<_> = exchanges.iter().map(|exchange| exchange.reply.clone()).collect();
        let every: Vec<_> = (0..20_000).collect();
        prop_assert_eq!(in_pieces(&exchanges, &every), expected);
    }

    #[test]
    fn garbage_is_refused_where_it_stands_and_in_any_pieces(
        expect in any_expect(),
        garbage in any_garbage(),
        cut in 0..200_usize,
    ) {
        let (mut whole, mut input) = (expect.clone(), BytesMut::from(&garbage[..]));
        let result = decode(&mut whole, &mut input);
        prop_assert!(garbage.ends_with(&input), "what is left is the end of what was there");
        if result.is_err() {
            prop_assert!(!input.is_empty(), "what is refused stays");
            let left = input.clone();
            prop_assert_eq!(&decode(&mut whole, &mut input), &result);
            prop_assert_eq!(&input, &left);
        }

        let cut = cut.min(garbage.len());
        let (mut split, mut pieces) = (expect, BytesMut::from(&garbage[..cut]));
        let mut split_result = decode(&mut split, &mut pieces);
        if split_result == Ok(None) {
            pieces.extend_from_slice(&garbage[cut..]);
            split_result = decode(&mut split, &mut pieces);
        } else {
            pieces.extend_from_slice(&garbage[cut..]);
        }
        prop_assert_eq!(split_result, result);
        prop_assert_eq!(pieces, input);
    }
}
