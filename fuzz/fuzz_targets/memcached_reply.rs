//! What a memcached server may send, and what none would: the decoder never panics, and what it makes of the bytes
//! does not depend on how they arrive.

#![no_main]

use arbitrary::Arbitrary;
use bytes::BytesMut;
use cache_kit_memcached::WireKey;
use cache_kit_memcached::protocol::{
    Expect, KeyList, Limits, MAX_LINE_LEN, MetaReply, Refusal, Reply, Status, Violation, decode,
};
use libfuzzer_sys::fuzz_target;

/// One is the beginning of another, one looks like the end of a list.
const KEYS: [&str; 4] = ["a", "ab", "END", "%"];

const WORDS: [&str; 31] = [
    "HD",
    "VA",
    "EN",
    "NF",
    "NS",
    "EX",
    "MN",
    "ME",
    "END",
    "OK",
    "STORED",
    "STAT",
    "VALUE",
    "VERSION",
    "ERROR",
    "CLIENT_ERROR",
    "SERVER_ERROR",
    "O",
    "c",
    "f",
    "t",
    "s",
    "l",
    "h",
    "W",
    "X",
    "Z",
    "-1",
    "a",
    "ab",
    "out of memory",
];

#[derive(Arbitrary, Debug)]
struct Input {
    max_value: u16,
    requests: Vec<Request>,
    pieces: Vec<Piece>,
    /// How many bytes arrive at once.
    reads: Vec<u16>,
}

/// Requests in flight.
#[derive(Arbitrary, Clone, Debug)]
enum Request {
    Get { opaque: Option<u8> },
    Set { opaque: Option<u8> },
    Delete { opaque: Option<u8> },
    Arithmetic { opaque: Option<u8> },
    NoOp,
    Debug,
    Values { first: u8, others: Vec<u8> },
    Stats,
    Version,
    Flush,
    Authenticate,
}

#[derive(Arbitrary, Debug)]
enum Piece {
    Raw(Vec<u8>),
    Word(u8),
    Number(u64),
    Space,
    CarriageReturn,
    LineEnd,
    Long {
        byte: u8,
        times: u16,
    },
    /// What a good server answers to one of the requests.
    Answer {
        to: u8,
        found: Vec<bool>,
        client_flags: u32,
        data: Vec<u8>,
        times: u16,
    },
}

impl Request {
    fn keys(&self) -> Vec<&'static str> {
        let Self::Values { first, others } = self else { return Vec::new() };
        [first].into_iter().chain(others).map(|which| KEYS[usize::from(*which) % KEYS.len()]).collect()
    }

    fn expect(&self, limits: Limits) -> Expect {
        let number = |opaque: &Option<u8>| opaque.map(u32::from);
        match self {
            Self::Get { opaque } => Expect::get(number(opaque), limits),
            Self::Set { opaque } => Expect::set(number(opaque)),
            Self::Delete { opaque } => Expect::delete(number(opaque)),
            Self::Arithmetic { opaque } => Expect::arithmetic(number(opaque)),
            Self::NoOp => Expect::no_op(),
            Self::Debug => Expect::debug(),
            Self::Values { .. } => {
                let keys: Vec<_> = self.keys().iter().map(|key| WireKey::new(key.as_bytes())).collect();
                Expect::values(KeyList::new(&keys).expect("plain keys, and one at least"), limits)
            }
            Self::Stats => Expect::stats(),
            Self::Version => Expect::version(),
            Self::Flush => Expect::flushed(),
            Self::Authenticate => Expect::authenticated(),
        }
    }

    fn answer(&self, found: &[bool], client_flags: u32, data: &[u8], out: &mut Vec<u8>) {
        let hit = found.first().copied().unwrap_or(true);
        match self {
            Self::Get { opaque }
            | Self::Arithmetic { opaque }
            | Self::Set { opaque }
            | Self::Delete { opaque } => {
                let valued = hit && matches!(self, Self::Get { .. } | Self::Arithmetic { .. });
                out.extend(if valued { format!("VA {}", data.len()) } else { "HD".to_owned() }.bytes());
                if let Some(opaque) = opaque {
                    out.extend(format!(" O{opaque}").bytes());
                }
                out.extend(format!(" f{client_flags} c{client_flags} t-1\r\n").bytes());
                if valued {
                    out.extend(data);
                    out.extend(b"\r\n");
                }
            }
            Self::NoOp => out.extend(b"MN\r\n"),
            Self::Debug => out.extend(b"ME a exp=-1 la=0\r\n"),
            Self::Values { .. } => {
                for (index, key) in self.keys().iter().enumerate() {
                    if found.get(index).copied().unwrap_or(true) {
                        out.extend(format!("VALUE {key} {client_flags} {}\r\n", data.len()).bytes());
                        out.extend(data);
                        out.extend(b"\r\n");
                    }
                }
                out.extend(b"END\r\n");
            }
            Self::Stats => out.extend(format!("STAT a {client_flags}\r\nSTAT b\r\nEND\r\n").bytes()),
            Self::Version => out.extend(b"VERSION 1.6.18\r\n"),
            Self::Flush => out.extend(b"OK\r\n"),
            Self::Authenticate => out.extend(b"STORED\r\n"),
        }
    }
}

fn bytes(input: &Input) -> Vec<u8> {
    let mut out = Vec::new();
    for piece in &input.pieces {
        match piece {
            Piece::Raw(raw) => out.extend(raw),
            Piece::Word(which) => out.extend(WORDS[usize::from(*which) % WORDS.len()].bytes()),
            Piece::Number(number) => out.extend(number.to_string().bytes()),
            Piece::Space => out.push(b' '),
            Piece::CarriageReturn => out.push(b'\r'),
            Piece::LineEnd => out.extend(b"\r\n"),
            Piece::Long { byte, times } => {
                out.extend(std::iter::repeat_n(*byte, usize::from(*times) % (2 * MAX_LINE_LEN)));
            }
            Piece::Answer { to, found, client_flags, data, times } => {
                if let Some(request) = input.requests.get(usize::from(*to) % input.requests.len().max(1)) {
                    // Now and then above the length from which on values are not copied.
                    let data = data.repeat(1 + usize::from(*times) % 64);
                    request.answer(found, *client_flags, &data, &mut out);
                }
            }
        }
    }
    out
}

/// What came of the bytes: the replies with the places they end at, a violation, and how much was consumed.
#[derive(Debug, PartialEq)]
struct Outcome {
    replies: Vec<(Reply, usize)>,
    violation: Option<Violation>,
    consumed: usize,
}

fn replay(requests: &[Request], limits: Limits, all: &[u8], reads: &[usize]) -> Outcome {
    let mut outcome = Outcome { replies: Vec::new(), violation: None, consumed: 0 };
    let (mut input, mut arrived, mut missing) = (BytesMut::new(), 0, 0);
    let mut expects = requests.iter().map(|request| request.expect(limits));
    let mut expect = expects.next();
    for &read in reads.iter().chain([&usize::MAX]) {
        let read = read.min(all.len() - arrived);
        input.extend_from_slice(&all[arrived..arrived + read]);
        arrived += read;
        let mut too_early = read < missing;
        while let Some(waiting) = &mut expect {
            let before = input.clone();
            let result = decode(waiting, &mut input);
            assert!(before.ends_with(&input), "what is left is the end of what was there");
            outcome.consumed = arrived - input.len();
            match result {
                Ok(Some(reply)) => {
                    assert!(!too_early, "a reply without the bytes that it said were missing");
                    outcome.replies.push((reply, outcome.consumed));
                    expect = expects.next();
                    missing = 0;
                }
                Ok(None) => {
                    missing = waiting.missing(input.len());
                    assert!(missing <= limits.max_value.max(20) + 2, "more than a value may have");
                    break;
                }
                Err(violation) => {
                    assert!(!input.is_empty(), "what is refused stays");
                    let left = input.clone();
                    assert_eq!(decode(waiting, &mut input), Err(violation), "the verdict stays");
                    assert_eq!(input, left);
                    outcome.violation = Some(violation);
                    return outcome;
                }
            }
            too_early = false;
        }
    }
    outcome
}

fuzz_target!(|input: Input| {
    let limits = Limits::new(usize::from(input.max_value));
    let all = bytes(&input);
    let reads: Vec<_> = input.reads.iter().map(|&read| usize::from(read)).collect();
    let whole = replay(&input.requests, limits, &all, &[]);
    assert_eq!(replay(&input.requests, limits, &all, &reads), whole);
    if all.len() < 512 {
        let single = vec![1; all.len()];
        assert_eq!(replay(&input.requests, limits, &all, &single), whole);
    }
    let mut start = 0;
    for (request, (reply, end)) in input.requests.iter().zip(&whole.replies) {
        judge(request, reply, &all[start..*end], limits);
        start = *end;
    }
});

/// What is in a reply stands in its bytes.
fn judge(request: &Request, reply: &Reply, bytes: &[u8], limits: Limits) {
    assert!(bytes.ends_with(b"\r\n"));
    match reply {
        Reply::Meta(reply) => judge_meta(request, reply, bytes, limits),
        Reply::NoOp => assert_eq!(bytes, b"MN\r\n"),
        Reply::Debug(None) => assert_eq!(bytes, b"EN\r\n"),
        Reply::Debug(Some(text)) => {
            assert!(bytes.starts_with(b"ME "));
            judge_text(text);
        }
        Reply::Values(found) => {
            assert!(bytes.ends_with(b"END\r\n"));
            assert_eq!(found.len(), request.keys().len(), "one place for each key");
            // Each value stands there with its key, in this order, and nothing else does.
            let mut rest = bytes;
            for (key, value) in request.keys().iter().zip(found) {
                let Some(value) = value else { continue };
                assert!(value.data.len() <= limits.max_value);
                let head = format!("VALUE {key} ");
                rest = rest.strip_prefix(head.as_bytes()).expect("the key of the value");
                let line = rest.iter().position(|&byte| byte == b'\n').expect("the end of the line");
                rest = rest[line + 1..].strip_prefix(&value.data[..]).expect("the value");
                rest = rest.strip_prefix(b"\r\n").expect("the end of the value");
            }
            assert_eq!(rest, b"END\r\n");
        }
        Reply::Stats(stats) => {
            let lines = bytes.iter().filter(|&&byte| byte == b'\n').count();
            assert_eq!(lines, stats.len() + 1);
            stats.iter().flat_map(|stat| [&stat.name, &stat.value]).for_each(|text| judge_text(text));
        }
        Reply::Version(text) => {
            assert!(bytes.starts_with(b"VERSION "));
            judge_text(text);
        }
        Reply::Done => assert!(bytes == b"OK\r\n" || bytes == b"STORED\r\n"),
        Reply::Refused(refusal) => {
            // A list may have begun.
            assert!(bytes.windows(5).any(|five| five == b"ERROR"));
            if let Refusal::Server(text) | Refusal::Client(text) = refusal {
                judge_text(text);
            }
        }
        _ => panic!("a reply that this target does not know"),
    }
}

fn judge_meta(request: &Request, reply: &MetaReply, bytes: &[u8], limits: Limits) {
    let (Request::Get { opaque }
    | Request::Set { opaque }
    | Request::Delete { opaque }
    | Request::Arithmetic { opaque }) = request
    else {
        panic!("{reply:?} to {request:?}");
    };
    let opaque = opaque.map(u32::from);
    assert!(reply.opaque == opaque || (reply.opaque, reply.status) == (None, Status::Miss));
    let code: &[u8] = match reply.status {
        Status::Header => b"HD",
        Status::Value => b"VA",
        Status::Miss => b"EN",
        Status::NotFound => b"NF",
        Status::NotStored => b"NS",
        Status::Exists => b"EX",
        _ => panic!("a status that this target does not know"),
    };
    assert!(bytes.starts_with(code));
    assert_eq!(reply.value.is_some(), reply.status == Status::Value);
    let line = bytes.iter().position(|&byte| byte == b'\n').expect("the end of the line");
    let behind = &bytes[line + 1..];
    match &reply.value {
        Some(value) => {
            assert!(value.len() <= limits.max_value || matches!(request, Request::Arithmetic { .. }));
            assert_eq!(behind, [value, &b"\r\n"[..]].concat());
        }
        None => assert_eq!(behind, b""),
    }
}

fn judge_text(text: &str) {
    assert!(text.len() <= 200);
    assert!(text.bytes().all(|byte| matches!(byte, b' '..=b'~')), "{text:?}");
}
