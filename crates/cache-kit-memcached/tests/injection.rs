//! Whatever bytes somebody chooses for a key, the server runs what was asked for and nothing else: as it counts itself.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]
#![expect(clippy::print_stdout, reason = "what was measured, for `--nocapture`")]

mod common;

use std::collections::{BTreeMap, HashMap};

use bytes::Bytes;
use cache_kit_memcached::protocol::{ArithmeticMode, SetOptions, Status};
use cache_kit_memcached::{Client, WireKey};
use cache_kit_test_support::MemcachedServer;
use common::{bounded, counting, deleting, getting, patient, seconds, seed, setting};
use futures_util::future::join_all;

const SENTINEL: &[u8] = b"sentinel";
const UNTOUCHED: &[u8] = b"untouched";

/// What an attacker would send as a key.
const COMMANDS: [&[u8]; 28] = [
    b"\r\nflush_all\r\n",
    b"x\r\nflush_all\r\n",
    b"x\r\nflush_all\r\nget y",
    b"\nflush_all\n",
    b"x\nflush_all\n",
    b"\r\nset sentinel 0 0 5\r\nwrong\r\n",
    b"x 0 0 1\r\ny\r\nset sentinel 0 0 5\r\nwrong\r\n",
    b"x 5\r\nwrong\r\nms sentinel 5\r\nwrong\r\n",
    b"x S5 T0\r\nwrong\r\nflush_all",
    b"\r\nms sentinel S5\r\nwrong\r\n",
    b"\r\nmd sentinel q\r\n",
    b"\r\nma sentinel\r\n",
    b"\r\ndelete sentinel\r\n",
    b"x\r\nincr sentinel 1\r\n",
    b"\r\ntouch sentinel 1\r\n",
    b"\r\nverbosity 5\r\n",
    b"\r\nquit\r\n",
    b"\r\nshutdown\r\n",
    b"\r\nlru_crawler metadump all\r\n",
    b"\r\nme sentinel\r\n",
    b"x sentinel",
    b"x b",
    b"x v q",
    b"sentinel v\r\nmd sentinel",
    b"sentinel\0",
    b"sentinel\r",
    b"sentinel ",
    b" sentinel",
];

/// Bytes that mean something to the protocol among others, of lengths around its limits.
fn any_key(random: &mut fastrand::Rng) -> Vec<u8> {
    const PIECES: [&[u8]; 12] =
        [b"\r\n", b"\r", b"\n", b" ", b"\0", b"\t", b"\x7f", b"\xff\xfe", b"%#", b" b", b" q", SENTINEL];
    let length = match random.u32(..6) {
        0 => random.usize(180..192),
        1 => random.usize(244..256),
        2 => random.usize(..3_000),
        _ => random.usize(..40),
    };
    let mut key = Vec::new();
    while key.len() < length {
        match random.u32(..8) {
            0..3 => key.push(random.u8(..)),
            3..5 => key.push(random.u8(b'a'..=b'z')),
            5..7 => key.extend_from_slice(PIECES[random.usize(..PIECES.len())]),
            _ => key.extend_from_slice(COMMANDS[random.usize(..COMMANDS.len())]),
        }
    }
    // At these lengths and no others a key takes another form.
    if length > 180 && length < 256 {
        key.truncate(length);
    }
    key
}

/// What the server counts, by the names that it has for it.
#[derive(Clone, Default, PartialEq, Eq, Debug)]
struct Counts(BTreeMap<&'static str, u64>);

impl Counts {
    const NAMES: [&str; 19] = [
        "cmd_get",
        "get_hits",
        "get_misses",
        "cmd_set",
        "cmd_flush",
        "cmd_touch",
        "touch_hits",
        "touch_misses",
        "cmd_meta",
        "delete_hits",
        "delete_misses",
        "incr_hits",
        "incr_misses",
        "decr_hits",
        "decr_misses",
        "cas_hits",
        "cas_misses",
        "cas_badval",
        "curr_items",
    ];

    fn of(server: &MemcachedServer) -> Self {
        Self(Self::NAMES.map(|name| (name, server.stat(name))).into())
    }

    fn add(&mut self, name: &'static str, count: u64) {
        *self.0.entry(name).or_default() += count;
    }

    /// One look at a key that is there, or is not.
    fn look(&mut self, hit: bool) {
        self.add("cmd_get", 1);
        self.add(if hit { "get_hits" } else { "get_misses" }, 1);
    }
}

/// Every operation on one key that nobody else uses, checked by what it reads. What the server should have counted.
async fn all_operations(client: &Client, key: &[u8], random: u64) -> Counts {
    let mut counts = Counts::default();
    let mut random = fastrand::Rng::with_seed(random);
    let value = Bytes::from(random.u64(..).to_string().repeat(random.usize(1..20)));
    let is = |found: Option<&Bytes>, expected: &[u8]| {
        assert_eq!(found.map(|found| &found[..]), Some(expected), "under {}", key.escape_ascii());
    };
    assert!(client.get(key).await.unwrap().is_none());
    counts.look(false);
    let options = setting(|o| o.client_flags = random.u32(..));
    assert!(client.set(key, &value, options).await.unwrap());
    counts.add("cmd_set", 1);
    is(client.get(key).await.unwrap().map(|found| found.data).as_ref(), &value);
    counts.look(true);
    let found = client.get_many(&[SENTINEL, key, key]).await;
    let found: Vec<_> = found.into_iter().map(|found| found.unwrap().map(|found| found.data)).collect();
    is(found[0].as_ref(), UNTOUCHED);
    is(found[1].as_ref(), &value);
    is(found[2].as_ref(), &value);
    (0..3).for_each(|_| counts.look(true));
    if random.bool() {
        let touch = getting(|o| (o.touch, o.value, o.cas) = (Some(seconds(100)), true, true));
        let answer = client.meta_get(key, touch).await.unwrap();
        is(answer.reply.value.as_ref(), &value);
        counts.add("cmd_touch", 1);
        counts.add("touch_hits", 1);
        let compare = setting(|o| o.compare_cas = answer.reply.cas);
        let over = client.meta_set_over(answer.connection, key, b"compared", compare).await.unwrap();
        // With several connections the one that answered is still there.
        assert_eq!(over.unwrap().reply.status, Status::Header);
        counts.add("cmd_set", 1);
        counts.add("cas_hits", 1);
        is(client.get(key).await.unwrap().map(|found| found.data).as_ref(), b"compared");
        counts.look(true);
    }
    if random.bool() {
        let stale = deleting(|o| (o.invalidate, o.exptime) = (true, Some(seconds(100))));
        assert_eq!(client.meta_delete(key, stale).await.unwrap().reply.status, Status::Header);
        assert!(client.meta_get(key, getting(|o| o.value = true)).await.unwrap().reply.stale);
        counts.look(true);
    }
    assert!(client.delete(key).await.unwrap());
    counts.add("delete_hits", 1);
    if random.bool() {
        let vivify = getting(|o| (o.vivify, o.value) = (Some(seconds(100)), true));
        let made = client.meta_get(key, vivify).await.unwrap().reply;
        assert!(made.won && made.value.unwrap().is_empty());
        // A server counts what it has just made as found.
        counts.look(true);
        assert!(client.delete(key).await.unwrap());
        counts.add("delete_hits", 1);
    }
    if random.bool() {
        let number = counting(|o| (o.vivify, o.initial, o.value) = (Some(seconds(100)), 7, true));
        assert_eq!(client.arithmetic(key, number).await.unwrap().reply.number(), Some(7));
        assert_eq!(client.arithmetic(key, number).await.unwrap().reply.number(), Some(8));
        counts.add("incr_hits", 1);
        let down = counting(|o| (o.mode, o.delta, o.value) = (ArithmeticMode::Decrement, 3, true));
        assert_eq!(client.arithmetic(key, down).await.unwrap().reply.number(), Some(5));
        counts.add("decr_hits", 1);
        assert!(client.delete(key).await.unwrap());
        counts.add("delete_hits", 1);
        assert_eq!(client.arithmetic(key, down).await.unwrap().reply.status, Status::NotFound);
        counts.add("decr_misses", 1);
    }
    if random.bool() && !WireKey::new(key).is_base64() {
        assert!(client.debug(key).await.unwrap().is_none());
        counts.add("cmd_meta", 1);
    }
    assert!(!client.delete(key).await.unwrap());
    counts.add("delete_misses", 1);
    if random.bool() {
        assert!(client.set(key, &value, SetOptions::default()).await.unwrap());
        counts.add("cmd_set", 1);
        counts.add("curr_items", 1);
    }
    counts
}

async fn holds(keys: Vec<Vec<u8>>, at_once: usize, random: &mut fastrand::Rng) {
    let server = MemcachedServer::start();
    let client = patient([server.addr()]).build().unwrap();
    assert!(client.set(SENTINEL, UNTOUCHED, SetOptions::default()).await.unwrap());
    let mut expected = Counts::of(&server);
    for keys in keys.chunks(at_once) {
        let all = keys.iter().map(|key| all_operations(&client, key, random.u64(..)));
        for counts in join_all(all).await {
            counts.0.into_iter().for_each(|(name, count)| expected.add(name, count));
        }
    }
    assert_eq!(client.get(SENTINEL).await.unwrap().unwrap().data, UNTOUCHED);
    expected.look(true);
    let counted = Counts::of(&server);
    println!("{} keys, {at_once} at once: {:?}", keys.len(), counted.0);
    assert_eq!(counted, expected);
    assert_eq!(counted.0["cmd_flush"], 0);
}

#[tokio::test]
async fn a_key_that_is_a_command_is_a_key() {
    let mut random = fastrand::Rng::with_seed(seed());
    let mut keys = COMMANDS.map(<[u8]>::to_vec).to_vec();
    // And each of them at the lengths where the form of a key changes; none of them begins with what fills it up.
    for length in [186, 187, 250, 251] {
        keys.extend(COMMANDS.map(|command| [&vec![b'#'; length - command.len()][..], command].concat()));
    }
    bounded(holds(keys, 1, &mut random)).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn thousands_of_arbitrary_keys_are_asked_for_and_nothing_else_is() {
    let mut random = fastrand::Rng::with_seed(seed());
    let mut keys: HashMap<Vec<u8>, ()> = HashMap::new();
    while keys.len() < 4_000 {
        let key = any_key(&mut random);
        if key != SENTINEL {
            keys.insert(key, ());
        }
    }
    let mut keys: Vec<_> = keys.into_keys().collect();
    keys.sort_unstable();
    random.shuffle(&mut keys);
    bounded(holds(keys, 64, &mut random)).await;
}
