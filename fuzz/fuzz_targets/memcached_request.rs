//! Requests to memcached with any keys, values, options and credentials, one behind the other: a parser that splits
//! as the server does finds exactly these, with what each was told.

#![no_main]

use std::collections::BTreeMap;
use std::time::Duration;

use arbitrary::Arbitrary;
use cache_kit_memcached::protocol::{
    ArithmeticMode, ArithmeticOptions, Credentials, DeleteOptions, GetOptions, KeyList, RequestError,
    SetMode, SetOptions, StatsTopic, request,
};
use cache_kit_memcached::ttl::exptime;
use cache_kit_memcached::{Exptime, WireKey};
use libfuzzer_sys::fuzz_target;

const NOW: u64 = 1_800_000_000;
const MODES: [(SetMode, &str); 5] = [
    (SetMode::Set, ""),
    (SetMode::Add, "E"),
    (SetMode::Replace, "R"),
    (SetMode::Append, "A"),
    (SetMode::Prepend, "P"),
];
const TOPICS: [(StatsTopic, &str); 6] = [
    (StatsTopic::General, "stats"),
    (StatsTopic::Settings, "stats settings"),
    (StatsTopic::Items, "stats items"),
    (StatsTopic::Slabs, "stats slabs"),
    (StatsTopic::Sizes, "stats sizes"),
    (StatsTopic::Connections, "stats conns"),
];

/// Keys of a fuzzer rarely become long or look like a digest by themselves.
#[derive(Arbitrary, Debug)]
enum Key {
    Any(Vec<u8>),
    Repeated { byte: u8, times: u16, then: Vec<u8> },
    Digest,
    Injected(Vec<u8>),
}

impl Key {
    fn bytes(&self) -> Vec<u8> {
        match self {
            Self::Any(bytes) => bytes.clone(),
            Self::Repeated { byte, times, then } => {
                [&vec![*byte; usize::from(*times % 300)], &then[..]].concat()
            }
            Self::Digest => [&b"%#"[..], &b"0123456789abcdef".repeat(4)].concat(),
            Self::Injected(rest) => [b"k v\r\nflush_all\r\n", &rest[..]].concat(),
        }
    }
}

/// A lifetime in milliseconds.
#[derive(Arbitrary, Clone, Copy, Debug)]
struct Ttl(Option<u64>);

impl Ttl {
    fn exptime(self) -> Exptime {
        let ttl = self.0.map(|millis| Duration::from_millis(millis.max(1)));
        exptime(ttl, NOW).expect("no lifetime is zero")
    }
}

#[derive(Arbitrary, Debug)]
enum Request {
    Get {
        key: Key,
        wanted: [bool; 8],
        touch: Option<Ttl>,
        vivify: Option<Ttl>,
        recache: Option<u32>,
        opaque: Option<u32>,
    },
    Set {
        key: Key,
        value: Vec<u8>,
        mode: u8,
        client_flags: u32,
        ttl: Ttl,
        compare: Option<u64>,
        wanted: [bool; 2],
        opaque: Option<u32>,
    },
    Delete {
        key: Key,
        compare: Option<u64>,
        invalidate: bool,
        ttl: Option<Ttl>,
        opaque: Option<u32>,
    },
    Count {
        key: Key,
        down: bool,
        delta: u64,
        initial: u64,
        vivify: Option<Ttl>,
        touch: Option<Ttl>,
        compare: Option<u64>,
        wanted: [bool; 3],
        opaque: Option<u32>,
    },
    Debug {
        key: Key,
    },
    List {
        keys: Vec<Key>,
    },
    NoOp,
    Stats {
        topic: u8,
    },
    Flush {
        delay: u32,
    },
    Version,
    Authenticate {
        user: String,
        password: String,
    },
}

/// What the parser must find for a request.
struct Told {
    command: &'static str,
    key: Option<Vec<u8>>,
    flags: BTreeMap<char, String>,
    payload: Option<Vec<u8>>,
    /// The whole line, for commands without flags.
    line: Option<Vec<u8>>,
}

impl Told {
    fn meta(command: &'static str, key: &Key, payload: Option<&[u8]>) -> Self {
        let payload = payload.map(<[u8]>::to_vec);
        Self { command, key: Some(key.bytes()), flags: BTreeMap::new(), payload, line: None }
    }

    fn line(command: &'static str, line: &[u8], payload: Option<&[u8]>) -> Self {
        let payload = payload.map(<[u8]>::to_vec);
        Self { command, key: None, flags: BTreeMap::new(), payload, line: Some(line.to_vec()) }
    }

    fn number(&mut self, letter: char, number: Option<impl ToString>) {
        self.flags.extend(number.map(|number| (letter, number.to_string())));
    }

    fn exptime(&mut self, letter: char, exptime: Option<Exptime>) {
        self.number(letter, exptime.map(Exptime::get));
    }

    fn marks<const N: usize>(&mut self, letters: [char; N], wanted: [bool; N]) {
        let wanted = letters.into_iter().zip(wanted).filter(|(_, wanted)| *wanted);
        self.flags.extend(wanted.map(|(letter, _)| (letter, String::new())));
    }
}

impl Request {
    /// Writes the request, and says what was written; `None` if it is one that cannot be.
    fn write(&self, out: &mut Vec<u8>) -> Option<Told> {
        let mut told;
        match self {
            Self::Get { key, wanted, touch, vivify, recache, opaque } => {
                let mut options = GetOptions::default();
                [
                    options.value,
                    options.client_flags,
                    options.cas,
                    options.ttl,
                    options.size,
                    options.last_access,
                    options.hit_before,
                    options.no_bump,
                ] = *wanted;
                options.touch = touch.map(Ttl::exptime);
                options.vivify = vivify.map(Ttl::exptime);
                options.recache_secs = *recache;
                options.opaque = *opaque;
                request::mg(out, &WireKey::new(&key.bytes()), &options);
                told = Told::meta("mg", key, None);
                told.marks(['v', 'f', 'c', 't', 's', 'l', 'h', 'u'], *wanted);
                told.exptime('T', options.touch);
                told.exptime('N', options.vivify);
                told.number('R', recache.map(|secs| secs.min(2_592_000)));
                told.number('O', *opaque);
                if told.flags.is_empty() && !WireKey::new(&key.bytes()).is_base64() {
                    told.marks(['s'], [true]);
                }
            }
            Self::Set { key, value, mode, client_flags, ttl, compare, wanted, opaque } => {
                let (mode, letter) = MODES[usize::from(*mode) % MODES.len()];
                let mut options = SetOptions::default();
                options.mode = mode;
                options.client_flags = *client_flags;
                options.exptime = ttl.exptime();
                options.compare_cas = *compare;
                [options.invalidate, options.cas] = *wanted;
                options.opaque = *opaque;
                request::ms(out, &WireKey::new(&key.bytes()), value, &options).expect("no fuzzer has 2 GiB");
                told = Told::meta("ms", key, Some(value));
                told.number('M', Some(letter).filter(|letter| !letter.is_empty()));
                told.number('F', Some(client_flags).filter(|&&flags| flags != 0));
                told.exptime('T', Some(ttl.exptime()).filter(|&exptime| exptime != Exptime::NEVER));
                told.number('C', *compare);
                told.marks(['I', 'c'], [wanted[0] && compare.is_some(), wanted[1]]);
                told.number('O', *opaque);
            }
            Self::Delete { key, compare, invalidate, ttl, opaque } => {
                let mut options = DeleteOptions::default();
                options.compare_cas = *compare;
                options.invalidate = *invalidate;
                options.exptime = ttl.map(Ttl::exptime);
                options.opaque = *opaque;
                request::md(out, &WireKey::new(&key.bytes()), &options);
                told = Told::meta("md", key, None);
                told.number('C', *compare);
                told.marks(['I'], [*invalidate]);
                told.exptime('T', options.exptime.filter(|_| *invalidate));
                told.number('O', *opaque);
            }
            Self::Count { key, down, delta, initial, vivify, touch, compare, wanted, opaque } => {
                let mut options = ArithmeticOptions::default();
                options.mode = if *down { ArithmeticMode::Decrement } else { ArithmeticMode::Increment };
                options.delta = *delta;
                options.initial = *initial;
                options.vivify = vivify.map(Ttl::exptime);
                options.touch = touch.map(Ttl::exptime);
                options.compare_cas = *compare;
                [options.value, options.ttl, options.cas] = *wanted;
                options.opaque = *opaque;
                request::ma(out, &WireKey::new(&key.bytes()), &options);
                told = Told::meta("ma", key, None);
                told.number('M', down.then_some("D"));
                told.number('D', Some(delta).filter(|&&delta| delta != 1));
                told.number('J', vivify.map(|_| initial).filter(|&&initial| initial != 0));
                told.exptime('N', options.vivify);
                told.exptime('T', options.touch);
                told.number('C', *compare);
                told.marks(['v', 't', 'c'], *wanted);
                told.number('O', *opaque);
            }
            Self::Debug { key } => {
                if let Err(error) = request::me(out, &WireKey::new(&key.bytes())) {
                    assert_eq!(error, RequestError::Base64Key);
                    return None;
                }
                told = Told::meta("me", key, None);
            }
            Self::List { keys } => {
                let keys: Vec<_> = keys.iter().map(Key::bytes).collect();
                let keys: Vec<_> = keys.iter().map(|key| WireKey::new(key)).collect();
                let list = KeyList::new(&keys).ok()?;
                request::get(out, &list);
                let words: Vec<_> = keys.iter().map(WireKey::as_bytes).collect();
                assert_eq!(list.count(), words.len());
                told = Told::line("get", &[b"get ", &words.join(&b' ')[..]].concat(), None);
            }
            Self::NoOp => {
                request::mn(out);
                told = Told::line("mn", b"mn", None);
            }
            Self::Stats { topic } => {
                let (topic, line) = TOPICS[usize::from(*topic) % TOPICS.len()];
                request::stats(out, topic);
                told = Told::line("stats", line.as_bytes(), None);
            }
            Self::Flush { delay } => {
                request::flush_all(out, *delay);
                let line = match delay.min(&2_592_000) {
                    0 => "flush_all".to_owned(),
                    delay => format!("flush_all {delay}"),
                };
                told = Told::line("flush_all", line.as_bytes(), None);
            }
            Self::Version => {
                request::version(out);
                told = Told::line("version", b"version", None);
            }
            Self::Authenticate { user, password } => {
                let credentials = Credentials::new(user, password).ok()?;
                request::auth(out, &credentials);
                let payload = format!("{user} {password}");
                assert_eq!(payload.split(char::is_whitespace).count(), 2);
                let line = format!("set %#auth 0 -1 {}", payload.len());
                told = Told::line("set", line.as_bytes(), Some(payload.as_bytes()));
            }
        }
        Some(told)
    }
}

fuzz_target!(|requests: Vec<Request>| {
    let mut stream = Vec::new();
    let mut told = Vec::new();
    for request in &requests {
        let before = stream.len();
        match request.write(&mut stream) {
            Some(request) => told.push(request),
            None => assert_eq!(stream.len(), before, "what cannot be sent leaves nothing behind"),
        }
    }
    let mut rest = &stream[..];
    for told in &told {
        rest = read(rest, told);
    }
    assert!(rest.is_empty(), "a request that nobody made");
});

/// Reads one request as the server does, compares it, and returns what is behind it.
fn read<'s>(stream: &'s [u8], told: &Told) -> &'s [u8] {
    // The server looks for the line feed, and takes the carriage return in front of it for a part of the end.
    let end = stream.iter().position(|&byte| byte == b'\n').expect("the end of the line");
    let line = stream[..end].strip_suffix(b"\r").expect("a line with both characters at its end");
    assert!(line.iter().all(|&byte| byte >= b' ' && byte != 0x7f), "a control character");
    let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    assert!(words.iter().all(|word| !word.is_empty()), "a space too many");
    assert_eq!(words[0], told.command.as_bytes());

    let mut behind = &stream[end + 1..];
    let length_at = match told.command {
        "ms" => Some(2),
        "set" => Some(4),
        _ => None,
    };
    assert_eq!(length_at.is_some(), told.payload.is_some());
    if let Some((at, payload)) = length_at.zip(told.payload.as_ref()) {
        assert_eq!(words[at], payload.len().to_string().as_bytes());
        behind = behind
            .strip_prefix(&payload[..])
            .and_then(|rest| rest.strip_prefix(b"\r\n"))
            .expect("the payload");
    }

    if let Some(expected) = &told.line {
        assert_eq!(line, expected);
    }
    if let Some(key) = &told.key {
        // The server's own bounds: on a line that is no `get`, on words, on a key, on an opaque.
        assert!(line.len() < 2_048 && words.len() < 20);
        assert!((1..=250).contains(&words[1].len()));
        let mut flags = BTreeMap::new();
        for flag in &words[length_at.map_or(2, |at| at + 1)..] {
            let flag = std::str::from_utf8(flag).expect("flags are ASCII");
            assert!(flag.len() <= 32);
            let repeated = flags.insert(flag.chars().next().expect("not empty"), flag[1..].to_owned());
            assert_eq!(repeated, None, "a flag twice");
        }
        let stored = match flags.remove(&'b') {
            Some(argument) => {
                assert_eq!(argument, "");
                base64(words[1])
            }
            None => words[1].to_vec(),
        };
        let digested = stored.len() == 66 && stored.starts_with(b"%#");
        assert!(stored == *key || digested, "stored under another key");
        assert!(stored != *key || !key.starts_with(b"%#"), "somebody's digest was named");
        assert_eq!(flags, told.flags);
    }
    behind
}

/// What the server decodes, written here once more.
fn base64(text: &[u8]) -> Vec<u8> {
    assert_eq!(text.len() % 4, 0);
    let mut bytes = Vec::new();
    for four in text.chunks(4) {
        let digits = four.iter().take_while(|&&digit| digit != b'=').count();
        assert!(digits >= 2 && (digits == 4 || four.as_ptr_range().end == text.as_ptr_range().end));
        let value = |digit: &u8| match digit {
            b'A'..=b'Z' => digit - b'A',
            b'a'..=b'z' => digit - b'a' + 26,
            b'0'..=b'9' => digit - b'0' + 52,
            b'+' => 62,
            b'/' => 63,
            _ => panic!("no digit of base64"),
        };
        let bits = four[..digits].iter().fold(0_u32, |bits, digit| bits << 6 | u32::from(value(digit)));
        let bits = bits << (6 * (4 - digits));
        bytes.extend(&bits.to_be_bytes()[1..digits]);
    }
    bytes
}
