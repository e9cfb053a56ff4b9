use std::collections::BTreeMap;
use std::time::Duration;

use proptest::prelude::*;

use super::*;
use crate::ttl::exptime;

fn written(write: impl FnOnce(&mut Vec<u8>)) -> String {
    let mut out = Vec::new();
    write(&mut out);
    String::from_utf8(out).unwrap()
}

fn seconds(seconds: u64) -> Exptime {
    exptime(Some(Duration::from_secs(seconds - 1)), 1_800_000_000).unwrap()
}

#[test]
fn a_get_asks_for_what_it_is_told_to() {
    let key = WireKey::new(b"user:42");
    let all = GetOptions {
        value: true,
        client_flags: true,
        cas: true,
        ttl: true,
        size: true,
        last_access: true,
        hit_before: true,
        touch: Some(seconds(60)),
        vivify: Some(seconds(30)),
        recache_secs: Some(5),
        no_bump: true,
        opaque: Some(u32::MAX),
    };
    let expected = "mg user:42 O4294967295 T60 N30 R5 u v f c t s l h\r\n";
    assert_eq!(written(|out| mg(out, &key, &all)), expected);

    let value = GetOptions { value: true, ..GetOptions::default() };
    assert_eq!(written(|out| mg(out, &WireKey::new(b"a b"), &value)), "mg YSBi b v\r\n");

    let recache = GetOptions { recache_secs: Some(u32::MAX), ..GetOptions::default() };
    assert_eq!(written(|out| mg(out, &key, &recache)), "mg user:42 R2592000\r\n");
}

#[test]
fn a_get_is_never_without_a_flag() {
    let nothing = GetOptions::default();
    assert_eq!(written(|out| mg(out, &WireKey::new(b"k"), &nothing)), "mg k s\r\n");
    assert_eq!(written(|out| mg(out, &WireKey::new(b"a b"), &nothing)), "mg YSBi b\r\n");
}

#[test]
fn a_set_carries_its_value() {
    let key = WireKey::new(b"k");
    let set = |value: &[u8], options| written(|out| ms(out, &key, value, &options).unwrap());
    assert_eq!(set(b"", SetOptions::default()), "ms k 0\r\n\r\n");
    let all = SetOptions {
        mode: SetMode::Add,
        client_flags: 7,
        exptime: seconds(60),
        compare_cas: Some(9),
        invalidate: true,
        cas: true,
        opaque: Some(0),
    };
    assert_eq!(set(b"a\r\nb", all), "ms k 4 O0 F7 T60 C9 I c ME\r\na\r\nb\r\n");
    for (mode, letter) in
        [(SetMode::Replace, " MR"), (SetMode::Append, " MA"), (SetMode::Prepend, " MP"), (SetMode::Set, "")]
    {
        let options = SetOptions { mode, ..SetOptions::default() };
        assert_eq!(set(b"v", options), format!("ms k 1{letter}\r\nv\r\n"));
    }
    let without_cas = SetOptions { invalidate: true, ..SetOptions::default() };
    assert_eq!(set(b"v", without_cas), "ms k 1\r\nv\r\n");
    let spaced = written(|out| ms(out, &WireKey::new(b"a b"), b"v", &SetOptions::default()).unwrap());
    assert_eq!(spaced, "ms YSBi 1 b\r\nv\r\n");
}

#[test]
fn a_delete_deletes_or_invalidates() {
    let delete = |key: &[u8], options| written(|out| md(out, &WireKey::new(key), &options));
    assert_eq!(delete(b"k", DeleteOptions::default()), "md k\r\n");
    let all = DeleteOptions {
        compare_cas: Some(u64::MAX),
        invalidate: true,
        exptime: Some(seconds(30)),
        opaque: Some(3),
    };
    assert_eq!(delete(b"a b", all), "md YSBi b O3 C18446744073709551615 I T30\r\n");
    let plain = DeleteOptions { exptime: Some(seconds(30)), ..DeleteOptions::default() };
    assert_eq!(delete(b"k", plain), "md k\r\n", "without invalidate there is nothing to expire");
}

#[test]
fn arithmetic_counts_both_ways() {
    let count = |options| written(|out| ma(out, &WireKey::new(b"n"), &options));
    assert_eq!(count(ArithmeticOptions::default()), "ma n\r\n");
    let all = ArithmeticOptions {
        mode: ArithmeticMode::Decrement,
        delta: 5,
        vivify: Some(Exptime::NEVER),
        initial: 10,
        touch: Some(seconds(60)),
        compare_cas: Some(4),
        value: true,
        ttl: true,
        cas: true,
        opaque: Some(3),
    };
    assert_eq!(count(all), "ma n O3 N0 J10 D5 T60 C4 MD v t c\r\n");
    let initial = ArithmeticOptions { initial: 10, delta: 0, ..ArithmeticOptions::default() };
    assert_eq!(count(initial), "ma n D0\r\n");
}

#[test]
fn the_other_commands_are_fixed() {
    assert_eq!(written(mn), "mn\r\n");
    assert_eq!(written(version), "version\r\n");
    assert_eq!(written(|out| flush_all(out, 0)), "flush_all\r\n");
    assert_eq!(written(|out| flush_all(out, 10)), "flush_all 10\r\n");
    assert_eq!(written(|out| flush_all(out, u32::MAX)), "flush_all 2592000\r\n");
    for (topic, line) in [
        (StatsTopic::General, "stats\r\n"),
        (StatsTopic::Settings, "stats settings\r\n"),
        (StatsTopic::Items, "stats items\r\n"),
        (StatsTopic::Slabs, "stats slabs\r\n"),
        (StatsTopic::Sizes, "stats sizes\r\n"),
        (StatsTopic::Connections, "stats conns\r\n"),
    ] {
        assert_eq!(written(|out| stats(out, topic)), line);
    }
    assert_eq!(written(|out| me(out, &WireKey::new(b"k")).unwrap()), "me k\r\n");
    let keys = [WireKey::new(b"a"), WireKey::new(b"b"), WireKey::new(b"a")];
    assert_eq!(written(|out| get(out, &KeyList::new(&keys).unwrap())), "get a b a\r\n");
}

#[test]
fn credentials_are_expired_where_they_are_stored_and_under_no_key_of_ours() {
    let credentials = Credentials::new("shop", "hunter2").unwrap();
    let line = written(|out| auth(out, &credentials));
    assert_eq!(line, "set %#auth 0 -1 12\r\nshop hunter2\r\n");
    assert_ne!(WireKey::new(AUTH_KEY).as_bytes(), AUTH_KEY);
}

#[test]
fn what_cannot_be_sent_leaves_nothing_behind() {
    let mut out = b"before".to_vec();
    assert_eq!(me(&mut out, &WireKey::new(b"a b")), Err(RequestError::Base64Key));
    // Never touched, so it takes no memory.
    let value = vec![0; MAX_VALUE_LEN + 1];
    let key = WireKey::new(b"k");
    assert_eq!(ms(&mut out, &key, &value, &SetOptions::default()), Err(RequestError::ValueTooLong));
    assert_eq!(out, b"before");
}

/// A request as the server reads it: words that are separated by single spaces, up to the end of the line.
#[derive(Debug)]
struct Parsed {
    key: Vec<u8>,
    flags: BTreeMap<char, String>,
    /// What is behind the line.
    payload: Vec<u8>,
}

fn parse(request: &[u8], command: &str, fixed_words: usize) -> (Parsed, Vec<String>) {
    let end = request.windows(2).position(|two| two == b"\r\n").unwrap();
    let (line, payload) = (&request[..end], &request[end + 2..]);
    assert!(line.iter().all(|&byte| byte >= b' ' && byte != 0x7f), "a control character in the line");
    let words: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
    assert!(words.iter().all(|word| !word.is_empty()), "a space too many");
    assert_eq!(words[0], command.as_bytes());
    let text = |word: &&[u8]| String::from_utf8(word.to_vec()).unwrap();
    let fixed = words[2..2 + fixed_words].iter().map(text).collect();
    let mut flags = BTreeMap::new();
    for flag in words[2 + fixed_words..].iter().map(text) {
        let letter = flag.chars().next().unwrap();
        assert!(flags.insert(letter, flag[1..].to_owned()).is_none(), "{letter} twice");
    }
    (Parsed { key: words[1].to_vec(), flags, payload: payload.to_vec() }, fixed)
}

impl Parsed {
    fn has(&mut self, letter: char) -> bool {
        self.flags.remove(&letter).map(|argument| assert_eq!(argument, "")).is_some()
    }

    fn number(&mut self, letter: char) -> Option<u64> {
        self.flags.remove(&letter).map(|digits| digits.parse().unwrap())
    }

    fn finish(mut self, key: &WireKey<'_>, payload: &[u8]) {
        assert_eq!(self.key, key.as_bytes());
        assert_eq!(self.has('b'), key.is_base64());
        assert_eq!(self.flags, BTreeMap::new(), "flags that nobody asked for");
        assert_eq!(self.payload, payload);
    }
}

fn any_key() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        prop::collection::vec(any::<u8>(), 0..300),
        prop::collection::vec(prop::sample::select(&b"k \r\n\0\t%#\x7f\xff"[..]), 0..20),
        Just(b"k v\r\nflush_all\r\n".to_vec()),
    ]
}

fn any_exptime() -> impl Strategy<Value = Exptime> {
    any::<Option<u32>>().prop_map(|secs| {
        exptime(secs.map(|secs| Duration::from_secs(u64::from(secs) + 1)), 1_800_000_000).unwrap()
    })
}

fn get_exptime(exptime: Option<Exptime>) -> Option<u64> {
    exptime.map(|exptime| exptime.get().into())
}

proptest! {
    #[test]
    fn a_get_says_what_was_asked_and_nothing_else(
        key in any_key(),
        wanted in any::<[bool; 8]>(),
        touch in prop::option::of(any_exptime()),
        vivify in prop::option::of(any_exptime()),
        recache_secs in any::<Option<u32>>(),
        opaque in any::<Option<u32>>(),
    ) {
        let [value, client_flags, cas, ttl, size, last_access, hit_before, no_bump] = wanted;
        let options = GetOptions {
            value, client_flags, cas, ttl, size, last_access, hit_before, touch, vivify, recache_secs,
            no_bump, opaque,
        };
        let key = WireKey::new(&key);
        let mut out = Vec::new();
        mg(&mut out, &key, &options);
        let (mut parsed, _) = parse(&out, "mg", 0);
        let empty = options == GetOptions::default() && !key.is_base64();
        prop_assert_eq!(parsed.has('v'), value);
        prop_assert_eq!(parsed.has('f'), client_flags);
        prop_assert_eq!(parsed.has('c'), cas);
        prop_assert_eq!(parsed.has('t'), ttl);
        prop_assert_eq!(parsed.has('s'), size || empty);
        prop_assert_eq!(parsed.has('l'), last_access);
        prop_assert_eq!(parsed.has('h'), hit_before);
        prop_assert_eq!(parsed.has('u'), no_bump);
        prop_assert_eq!(parsed.number('T'), get_exptime(touch));
        prop_assert_eq!(parsed.number('N'), get_exptime(vivify));
        prop_assert_eq!(parsed.number('R'), recache_secs.map(|secs| u64::from(secs).min(2_592_000)));
        prop_assert_eq!(parsed.number('O'), opaque.map(u64::from));
        parsed.finish(&key, b"");
    }

    #[test]
    fn a_set_says_what_was_asked_and_nothing_else(
        key in any_key(),
        value in prop::collection::vec(any::<u8>(), 0..300),
        mode in prop::sample::select(
            &[SetMode::Set, SetMode::Add, SetMode::Replace, SetMode::Append, SetMode::Prepend][..],
        ),
        client_flags in any::<u32>(),
        exptime in any_exptime(),
        compare_cas in any::<Option<u64>>(),
        invalidate in any::<bool>(),
        cas in any::<bool>(),
        opaque in any::<Option<u32>>(),
    ) {
        let options = SetOptions { mode, client_flags, exptime, compare_cas, invalidate, cas, opaque };
        let key = WireKey::new(&key);
        let mut out = Vec::new();
        ms(&mut out, &key, &value, &options).unwrap();
        let (mut parsed, fixed) = parse(&out, "ms", 1);
        prop_assert_eq!(&fixed[0], &value.len().to_string());
        let mode = match mode {
            SetMode::Set => None,
            SetMode::Add => Some("E"),
            SetMode::Replace => Some("R"),
            SetMode::Append => Some("A"),
            SetMode::Prepend => Some("P"),
        };
        let written_mode = parsed.flags.remove(&'M');
        prop_assert_eq!(written_mode.as_deref(), mode);
        prop_assert_eq!(parsed.number('F').unwrap_or(0), u64::from(client_flags));
        prop_assert_eq!(parsed.number('T').unwrap_or(0), u64::from(exptime.get()));
        prop_assert_eq!(parsed.number('C'), compare_cas);
        prop_assert_eq!(parsed.has('I'), invalidate && compare_cas.is_some());
        prop_assert_eq!(parsed.has('c'), cas);
        prop_assert_eq!(parsed.number('O'), opaque.map(u64::from));
        let payload = [&value[..], b"\r\n"].concat();
        parsed.finish(&key, &payload);
    }

    #[test]
    fn a_delete_and_a_count_say_what_was_asked_and_nothing_else(
        key in any_key(),
        exptime in prop::option::of(any_exptime()),
        touch in prop::option::of(any_exptime()),
        numbers in any::<[u64; 2]>(),
        compare_cas in any::<Option<u64>>(),
        wanted in any::<[bool; 5]>(),
        opaque in any::<Option<u32>>(),
    ) {
        let [invalidate, down, value, ttl, cas] = wanted;
        let key = WireKey::new(&key);

        let mut out = Vec::new();
        md(&mut out, &key, &DeleteOptions { compare_cas, invalidate, exptime, opaque });
        let (mut parsed, _) = parse(&out, "md", 0);
        prop_assert_eq!(parsed.number('C'), compare_cas);
        prop_assert_eq!(parsed.has('I'), invalidate);
        prop_assert_eq!(parsed.number('T'), get_exptime(exptime.filter(|_| invalidate)));
        prop_assert_eq!(parsed.number('O'), opaque.map(u64::from));
        parsed.finish(&key, b"");

        let [delta, initial] = numbers;
        let mode = if down { ArithmeticMode::Decrement } else { ArithmeticMode::Increment };
        let vivify = exptime;
        let mut out = Vec::new();
        let options = ArithmeticOptions {
            mode, delta, vivify, initial, touch, compare_cas, value, ttl, cas, opaque,
        };
        ma(&mut out, &key, &options);
        let (mut parsed, _) = parse(&out, "ma", 0);
        let written_mode = parsed.flags.remove(&'M');
        prop_assert_eq!(written_mode.as_deref(), down.then_some("D"));
        prop_assert_eq!(parsed.number('D').unwrap_or(1), delta);
        prop_assert_eq!(parsed.number('N'), get_exptime(vivify));
        prop_assert_eq!(parsed.number('J'), vivify.map(|_| initial).filter(|&initial| initial != 0));
        prop_assert_eq!(parsed.number('T'), get_exptime(touch));
        prop_assert_eq!(parsed.number('C'), compare_cas);
        prop_assert_eq!(parsed.has('v'), value);
        prop_assert_eq!(parsed.has('t'), ttl);
        prop_assert_eq!(parsed.has('c'), cas);
        prop_assert_eq!(parsed.number('O'), opaque.map(u64::from));
        parsed.finish(&key, b"");
    }

    #[test]
    fn a_list_of_keys_is_one_line_with_each_of_them(keys in prop::collection::vec(any_key(), 0..20)) {
        let keys: Vec<_> = keys.iter().map(|key| WireKey::new(key)).collect();
        let Ok(list) = KeyList::new(&keys) else {
            prop_assert!(keys.is_empty() || keys.iter().any(WireKey::is_base64));
            return Ok(());
        };
        let mut out = Vec::new();
        get(&mut out, &list);
        let line = out.strip_prefix(b"get ").unwrap().strip_suffix(b"\r\n").unwrap();
        let words: Vec<_> = line.split(|&byte| byte == b' ').collect();
        let asked: Vec<_> = keys.iter().map(WireKey::as_bytes).collect();
        prop_assert_eq!(words, asked);
        prop_assert!(line.iter().all(|&byte| byte >= b' '));
    }

    #[test]
    fn credentials_are_one_line_of_two_words(user in ".{0,20}", password in ".{0,300}") {
        let Ok(credentials) = Credentials::new(&user, &password) else { return Ok(()) };
        let mut out = Vec::new();
        auth(&mut out, &credentials);
        let payload = format!("{user} {password}");
        prop_assert_eq!(payload.split_whitespace().count(), 2);
        prop_assert!(payload.len() <= 255);
        let expected = format!("set %#auth 0 -1 {}\r\n{payload}\r\n", payload.len());
        prop_assert_eq!(out, expected.as_bytes());
    }
}
