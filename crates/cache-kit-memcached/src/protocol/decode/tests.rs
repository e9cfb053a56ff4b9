use super::*;
use crate::WireKey;
use crate::protocol::{MAX_LINE_LEN, MetaReply, Refusal, Stat, Status, Value};

fn read(mut expect: Expect, bytes: &[u8]) -> Result<Option<Reply>, Violation> {
    let mut input = BytesMut::from(bytes);
    let reply = decode(&mut expect, &mut input);
    if !matches!(reply, Ok(Some(_))) {
        return reply;
    }
    assert!(input.is_empty(), "{} bytes are left", input.len());
    reply
}

fn meta(expect: Expect, text: &str) -> MetaReply {
    match read(expect, text.as_bytes()) {
        Ok(Some(Reply::Meta(reply))) => reply,
        other => panic!("{text:?} gave {other:?}"),
    }
}

fn violation(expect: Expect, text: &str) -> Violation {
    read(expect, text.as_bytes()).expect_err(text)
}

pub(super) fn get(opaque: Option<u32>) -> Expect {
    Expect::get(opaque, Limits::default())
}

pub(super) fn values(keys: &[&str]) -> Expect {
    let keys: Vec<_> = keys.iter().map(|key| WireKey::new(key.as_bytes())).collect();
    Expect::values(KeyList::new(&keys).unwrap(), Limits::default())
}

fn value(client_flags: u32, data: &'static str) -> Option<Value> {
    Some(Value { client_flags, data: data.into() })
}

/// The lines of this test and of the next are those of memcached 1.6.18.
#[test]
fn a_hit_carries_what_was_asked_for() {
    let reply = meta(get(Some(1)), "VA 3 s3 c1 t100 f7 l0 h0 O1\r\nabc\r\n");
    let expected = MetaReply {
        value: Some("abc".into()),
        client_flags: 7,
        cas: Some(1),
        ttl: Some(100),
        size: Some(3),
        last_access: Some(0),
        hit_before: Some(false),
        opaque: Some(1),
        ..MetaReply::new(Status::Value)
    };
    assert_eq!(reply, expected);
    assert_eq!(meta(get(None), "VA 0\r\n\r\n").value, Some(Bytes::new()));
    assert_eq!(meta(get(None), "VA 4\r\n\r\n\r\n\r\n").value, Some("\r\n\r\n".into()));
    assert_eq!(meta(get(None), "HD t-1 h1\r\n").ttl, Some(-1));
    assert_eq!(meta(get(None), "HD t-1 h1\r\n").hit_before, Some(true));
}

#[test]
fn winners_and_losers_are_told_apart() {
    let marks = |text: &str| {
        let reply = meta(get(Some(1)), text);
        (reply.won, reply.stale, reply.already_won)
    };
    assert_eq!(marks("VA 0 c7 t-1 O1 W\r\n\r\n"), (true, false, false));
    assert_eq!(marks("VA 0 c7 t30 O1 Z\r\n\r\n"), (false, false, true));
    assert_eq!(marks("VA 0 c8 O1 X W\r\n\r\n"), (true, true, false));
    assert_eq!(marks("VA 0 c8 O1 Z X\r\n\r\n"), (false, true, true));
}

#[test]
fn every_status_is_read_where_it_can_stand() {
    use Status::{Exists, Header, Miss, NotFound, NotStored, Value};
    let commands = [get(None), Expect::set(None), Expect::delete(None), Expect::arithmetic(None)];
    for (text, status, possible) in [
        ("HD\r\n", Header, [true, true, true, true]),
        ("VA 1\r\n1\r\n", Value, [true, false, false, true]),
        ("EN\r\n", Miss, [true, false, false, false]),
        ("NF\r\n", NotFound, [false, true, true, true]),
        ("NS\r\n", NotStored, [false, true, false, true]),
        ("EX\r\n", Exists, [false, true, true, true]),
    ] {
        for (expect, possible) in commands.iter().zip(possible) {
            if possible {
                assert_eq!(meta(expect.clone(), text).status, status, "{text:?} to {expect:?}");
            } else {
                assert_eq!(
                    violation(expect.clone(), text),
                    Violation::UnexpectedLine,
                    "{text:?} to {expect:?}"
                );
            }
        }
    }
}

#[test]
fn a_reply_of_another_request_is_found_out() {
    for text in ["HD O2\r\n", "HD\r\n", "VA 1 O2\r\nx\r\n", "EN O2\r\n"] {
        assert_eq!(violation(get(Some(1)), text), Violation::OpaqueMismatch, "{text:?}");
    }
    assert_eq!(violation(get(None), "HD O1\r\n"), Violation::OpaqueMismatch);
    assert_eq!(violation(Expect::set(Some(1)), "NS\r\n"), Violation::OpaqueMismatch);
    // It is found out before the value arrives.
    assert_eq!(violation(get(Some(1)), "VA 1000 O2\r\n"), Violation::OpaqueMismatch);
    // Up to 1.6.17 a miss does not say whose it is.
    assert_eq!(meta(get(Some(1)), "EN\r\n").opaque, None);
    assert_eq!(meta(get(Some(1)), "EN O1\r\n").opaque, Some(1));
}

#[test]
fn a_cas_of_zero_is_none() {
    assert_eq!(meta(Expect::set(Some(1)), "EX O1 c0\r\n").cas, None);
    assert_eq!(meta(Expect::set(Some(1)), "HD O1 c5\r\n").cas, Some(5));
}

#[test]
fn flags_of_other_versions_do_no_harm() {
    assert_eq!(meta(Expect::set(Some(1)), "HD  O1  c5 \r\n").cas, Some(5), "spaces, before 1.6.18");
    assert_eq!(meta(get(Some(1)), "HD kkey b O1 j\r\n").opaque, Some(1));
}

#[test]
fn a_counter_is_a_number() {
    let reply = meta(Expect::arithmetic(Some(3)), "VA 20 O3 c12 t-1\r\n18446744073709551615\r\n");
    assert_eq!(reply.number(), Some(u64::MAX));
    assert_eq!(meta(get(None), "VA 2\r\n0 \r\n").number(), None);
    assert_eq!(violation(Expect::arithmetic(None), "VA 21\r\n"), Violation::ValueTooLarge);
}

#[test]
fn flags_that_make_no_sense_are_refused() {
    for text in ["HD O1 O1\r\n", "HD 1\r\n", "HD \u{e9}\r\n", "HD W1\r\n", "HD \t\r\n", "HD j1 j2\r\n"] {
        assert_eq!(violation(get(Some(1)), text), Violation::BadFlag, "{text:?}");
    }
    for text in [
        "HD f\r\n",
        "HD f4294967296\r\n",
        "HD c18446744073709551616\r\n",
        "HD t--1\r\n",
        "HD t9223372036854775808\r\n",
        "HD h2\r\n",
        "HD O-1\r\n",
        "HD s1.5\r\n",
        "VA\r\n",
        "VA x\r\n",
        "VA -1\r\n",
    ] {
        assert_eq!(violation(get(None), text), Violation::BadNumber, "{text:?}");
    }
}

#[test]
fn lines_that_answer_nothing_are_refused() {
    let expects =
        [get(None), values(&["a"]), Expect::stats(), Expect::version(), Expect::no_op(), Expect::debug()];
    for text in ["\r\n", "HELLO\r\n", "STORED\r\n", " MN\r\n", "HDO1\r\n", "VALUES\r\n", "ENDS\r\n"] {
        for expect in &expects {
            assert_eq!(violation(expect.clone(), text), Violation::UnexpectedLine, "{text:?} to {expect:?}");
        }
    }
    for expect in &expects {
        assert_eq!(violation(expect.clone(), "HD\n"), Violation::BareLineFeed);
        assert_eq!(violation(expect.clone(), &"x".repeat(MAX_LINE_LEN)), Violation::LineTooLong);
        assert_eq!(read(expect.clone(), &[b'x'; MAX_LINE_LEN - 1]), Ok(None));
    }
}

#[test]
fn every_request_can_be_refused() {
    let expects = [
        get(Some(1)),
        values(&["a"]),
        Expect::stats(),
        Expect::version(),
        Expect::no_op(),
        Expect::debug(),
        Expect::flushed(),
        Expect::authenticated(),
    ];
    for expect in &expects {
        let refused = |text: &str| read(expect.clone(), text.as_bytes());
        let refusal = Refusal::OutOfMemory;
        assert_eq!(refused("SERVER_ERROR out of memory\r\n"), Ok(Some(Reply::Refused(refusal))));
        let refusal = Refusal::Unauthenticated;
        assert_eq!(refused("CLIENT_ERROR unauthenticated\r\n"), Ok(Some(Reply::Refused(refusal))));
        let refusal = Refusal::Client("ERROR".into());
        assert_eq!(refused("ERROR\r\n"), Ok(Some(Reply::Refused(refusal))));
    }
    let late = "VALUE a 0 1\r\nA\r\nSERVER_ERROR out of memory writing get response\r\n";
    let refusal = Reply::Refused(Refusal::OutOfMemory);
    assert_eq!(read(values(&["a", "b"]), late.as_bytes()), Ok(Some(refusal)));
}

#[test]
fn values_stand_where_their_keys_were_asked_for() {
    let found = |keys: &[&str], text: &str| match read(values(keys), text.as_bytes()) {
        Ok(Some(Reply::Values(found))) => found,
        other => panic!("{text:?} gave {other:?}"),
    };
    assert_eq!(found(&["x"], "END\r\n"), [None]);
    let text = "VALUE a 0 1\r\nA\r\nVALUE b 5 4\r\nEND\r\r\nVALUE a 0 0\r\n\r\nEND\r\n";
    assert_eq!(found(&["a", "x", "b", "a"], text), [value(0, "A"), None, value(5, "END\r"), value(0, "")]);
    // Between the two the item was deleted: one answer, for one of them.
    assert_eq!(found(&["a", "a"], "VALUE a 0 1\r\nA\r\nEND\r\n"), [value(0, "A"), None]);
}

#[test]
fn values_that_were_not_asked_for_are_refused() {
    let a = "VALUE a 0 1\r\nA\r\n";
    assert_eq!(violation(values(&["b"]), a), Violation::UnexpectedKey);
    assert_eq!(violation(values(&["a"]), &format!("{a}{a}")), Violation::UnexpectedKey, "twice");
    let backwards = format!("VALUE b 0 1\r\nB\r\n{a}");
    assert_eq!(violation(values(&["a", "b"]), &backwards), Violation::UnexpectedKey);
    assert_eq!(violation(values(&["aa"]), a), Violation::UnexpectedKey);
    assert_eq!(violation(values(&["a"]), "VALUE a b 0 1\r\n"), Violation::UnexpectedLine);
    assert_eq!(violation(values(&["a"]), "VALUE a 0 1 7\r\nA\r\n"), Violation::UnexpectedLine, "with a cas");
    assert_eq!(violation(values(&["a"]), "VALUE  a 0 1\r\nA\r\n"), Violation::UnexpectedLine);
    assert_eq!(violation(values(&["a"]), "VALUE a 0 -1\r\n"), Violation::BadNumber);
    assert_eq!(violation(values(&["a"]), "VALUE a 4294967296 1\r\nA\r\n"), Violation::BadNumber);
}

#[test]
fn a_value_has_a_largest_size() {
    let four = Limits::new(4);
    assert!(read(Expect::get(None, four), b"VA 4\r\n1234\r\n").unwrap().is_some());
    assert_eq!(read(Expect::get(None, four), b"VA 5\r\n"), Err(Violation::ValueTooLarge));
    let list = || KeyList::new(&[WireKey::new(b"a")]).unwrap();
    assert_eq!(read(Expect::values(list(), four), b"VALUE a 0 5\r\n"), Err(Violation::ValueTooLarge));
    let all = Limits::new(usize::MAX);
    assert_eq!(read(Expect::get(None, all), b"VA 2147483647\r\n"), Ok(None));
    for text in ["VA 2147483648\r\n", "VA 18446744073709551615\r\n"] {
        assert_eq!(read(Expect::get(None, all), text.as_bytes()), Err(Violation::ValueTooLarge));
    }
}

#[test]
fn a_value_ends_where_its_line_says() {
    for text in ["VA 1\r\nabc", "VA 1\r\na\n\r", "VA 0\r\nHD\r\n", "VA 1\r\na\rx"] {
        assert_eq!(violation(get(None), text), Violation::ValueNotEnded, "{text:?}");
    }
    assert_eq!(violation(values(&["a"]), "VALUE a 0 1\r\nab\r\n"), Violation::ValueNotEnded);
}

#[test]
fn the_replies_of_one_line_are_read() {
    let one = |expect: Expect, text: &str| read(expect, text.as_bytes()).unwrap().unwrap();
    assert_eq!(one(Expect::no_op(), "MN\r\n"), Reply::NoOp);
    assert_eq!(one(Expect::version(), "VERSION 1.6.18\r\n"), Reply::Version("1.6.18".into()));
    assert_eq!(one(Expect::flushed(), "OK\r\n"), Reply::Done);
    assert_eq!(one(Expect::authenticated(), "STORED\r\n"), Reply::Done);
    assert_eq!(violation(Expect::flushed(), "STORED\r\n"), Violation::UnexpectedLine);
    assert_eq!(violation(Expect::version(), "VERSION\r\n"), Violation::UnexpectedLine);
    assert_eq!(one(Expect::debug(), "EN\r\n"), Reply::Debug(None));
    let item = "exp=-1 la=0 cas=16 fetch=no cls=1 size=63";
    let said = one(Expect::debug(), &format!("ME secret {item}\r\n"));
    assert_eq!(said, Reply::Debug(Some(item.into())), "without the key");
}

#[test]
fn statistics_are_names_and_values() {
    let text = "STAT pid 8228\r\nSTAT libevent 2.1.12 stable\r\nSTAT inter\r\nSTAT inter \r\nEND\r\n";
    let stat = |name: &str, value: &str| Stat { name: name.into(), value: value.into() };
    let expected =
        vec![stat("pid", "8228"), stat("libevent", "2.1.12 stable"), stat("inter", ""), stat("inter", "")];
    assert_eq!(read(Expect::stats(), text.as_bytes()), Ok(Some(Reply::Stats(expected))));
    assert_eq!(read(Expect::stats(), b"END\r\n"), Ok(Some(Reply::Stats(Vec::new()))));
    assert_eq!(violation(Expect::stats(), "STAT \r\n"), Violation::UnexpectedLine);
    assert_eq!(violation(Expect::stats(), "STAT\r\n"), Violation::UnexpectedLine);
    assert_eq!(violation(Expect::stats(), &"STAT a b\r\n".repeat(65_537)), Violation::TooManyStats);
}

#[test]
fn small_values_are_copied_and_large_ones_are_not() {
    for (len, copied) in [(4_095, true), (4_096, false)] {
        let mut input = BytesMut::from(format!("VA {len}\r\n{}\r\nrest", "x".repeat(len)).as_bytes());
        let in_place = input[9..].as_ptr();
        let Ok(Some(Reply::Meta(reply))) = decode(&mut get(None), &mut input) else { panic!("no reply") };
        let value = reply.value.unwrap();
        assert_eq!(value, "x".repeat(len));
        assert_eq!(value.as_ptr() != in_place, copied);
        assert_eq!(input, "rest");
    }
}

#[test]
fn what_is_missing_is_known_once_the_line_is_there() {
    let mut input = BytesMut::from(&b"VALUE a 0 10\r"[..]);
    let mut expect = values(&["a"]);
    assert_eq!(decode(&mut expect, &mut input), Ok(None));
    assert_eq!(expect.missing(input.len()), 0);
    input.extend_from_slice(b"\n123");
    assert_eq!(decode(&mut expect, &mut input), Ok(None));
    assert_eq!(expect.missing(input.len()), 9);
    input.extend_from_slice(b"4567890\r\nEND");
    assert_eq!(decode(&mut expect, &mut input), Ok(None));
    assert_eq!((&input[..], expect.missing(input.len())), (&b"END"[..], 0));
}

#[test]
fn nothing_that_is_printed_holds_a_value_or_a_key() {
    let mut expect = values(&["secret", "other"]);
    let mut input = BytesMut::from(&b"VALUE secret 0 6\r\nsecret\r\n"[..]);
    assert_eq!(decode(&mut expect, &mut input), Ok(None));
    let partial = format!("{expect:?}");
    input.extend_from_slice(b"END\r\n");
    let whole = format!("{:?}", decode(&mut expect, &mut input));
    let hit = format!("{:?}", meta(get(None), "VA 6\r\nsecret\r\n"));
    for text in [partial, whole, hit] {
        assert!(!text.contains("secret"), "{text}");
    }
}

#[test]
fn a_queue_of_expectations_is_small() {
    assert!(size_of::<Expect>() <= 40, "{} bytes", size_of::<Expect>());
}
