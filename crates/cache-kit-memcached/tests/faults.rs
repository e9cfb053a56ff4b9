//! Whatever the network does between a client and its server: never a value that is another key's, never a hang, and
//! well again when the network is.
//!
//! memcached sends no checksum, so a bit that flips inside of a value or of its client flags cannot be seen here: the
//! values of these tests check themselves, and what differs from a stored one by a flipped bit counts as seen by the
//! reader. Nor does `mg` repeat its key, so a bit that flips in the key of a request may ask for another key: of the keys
//! here, any two differ by two bits or more. Whoever needs more than TCP's own checksum has an envelope, or TLS.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use cache_kit_memcached::protocol::{SetOptions, StatsTopic};
use cache_kit_memcached::{Client, Error, ErrorKind, Result};
use cache_kit_test_support::{
    Cut, Direction, Fault, FaultProxy, MemcachedServer, SilentServer, UnansweredPort,
};
use common::{bounded, counting, patient, seconds, seed, until};
use futures_util::future::join_all;

const DEADLINE: Duration = Duration::from_millis(150);
const BOTH: [Direction; 2] = [Direction::ToClient, Direction::ToServer];
const KEYS: usize = 16;

/// Each digit stands twice: no flipped bit makes one key of another.
fn key(n: usize) -> String {
    format!("key:{0}{0}{1}{1}", n / 10, n % 10)
}

/// Tells whose it is, which version, and whether it is whole.
fn value(key: &str, version: u64) -> Vec<u8> {
    let body = format!("{key} version {version} ");
    format!("{body}{:016x}", checksum(body.as_bytes())).into_bytes()
}

fn checksum(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |sum, byte| (sum ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}

#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
enum Outcome {
    Right,
    Miss,
    Failed,
    /// A value with a flipped bit.
    Flipped,
}

/// What was read under a key. Another key's value ends the test, and so does one that was never stored in whole, unless
/// a bit may have flipped in it.
fn outcome(
    what: &str,
    key: &str,
    flips: bool,
    found: Result<Option<cache_kit_memcached::protocol::Value>>,
) -> Outcome {
    let data = match found {
        Ok(Some(value)) => value.data,
        Ok(None) => return Outcome::Miss,
        Err(error) => {
            assert!(is_expected(&error), "{what}: {error:?}");
            return Outcome::Failed;
        }
    };
    let whole = data
        .len()
        .checked_sub(16)
        .is_some_and(|at| data[at..] == *format!("{:016x}", checksum(&data[..at])).as_bytes());
    if whole {
        assert!(
            data.starts_with(format!("{key} ").as_bytes()),
            "{what}: another's value under {key}: {data:?}"
        );
        return Outcome::Right;
    }
    // Of a version with one digit, as those of the tests that flip bits are.
    let stored = value(key, 1);
    let bits: u32 = stored.iter().zip(&data).map(|(a, b)| (a ^ b).count_ones()).sum();
    assert!(flips && data.len() == stored.len() && bits == 1, "{what}: a value that nobody stored: {data:?}");
    Outcome::Flipped
}

/// A network can make a server misunderstand or a client doubt; it is no reason to say that the request was wrong.
fn is_expected(error: &Error) -> bool {
    matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout | ErrorKind::Server)
}

struct Bed {
    server: MemcachedServer,
    proxy: FaultProxy,
    /// Through the proxy.
    client: Client,
    /// Beside it.
    direct: Client,
}

impl Bed {
    async fn with(most: usize) -> Self {
        let server = MemcachedServer::start();
        let proxy = FaultProxy::start(server.addr());
        let client = patient([proxy.addr()]).operation_timeout(DEADLINE).connection_timeout(2 * DEADLINE);
        let client = client.max_connections(most).min_connections(0).build().unwrap();
        let direct = patient([server.addr()]).max_connections(1).min_connections(0).build().unwrap();
        let bed = Self { server, proxy, client, direct };
        bed.store().await;
        bed
    }

    /// Every key as it was in the beginning.
    async fn store(&self) {
        for key in (0..KEYS).map(key) {
            self.direct.set(key.as_bytes(), &value(&key, 1), SetOptions::default()).await.unwrap();
        }
    }

    /// Until all keys are read again, each as it is; what is done to make it so is the client's to do.
    async fn until_well(&self, what: &str) -> Duration {
        until(what, Duration::from_secs(5), async || {
            let found = join_all((0..KEYS).map(|n| async move {
                let key = key(n);
                outcome(what, &key, false, self.client.get(key.as_bytes()).await)
            }));
            found.await.into_iter().all(|outcome| outcome == Outcome::Right)
        })
        .await
    }

    /// Every kind of operation at the same time. No call may take longer than ten deadlines.
    async fn all_at_once(&self, what: &str, flips: bool, version: u64, seen: &mut BTreeMap<Outcome, u32>) {
        let client = &self.client;
        let gets = join_all((0..KEYS).map(|n| {
            timed(what, async move {
                let key = key(n);
                outcome(what, &key, flips, client.get(key.as_bytes()).await)
            })
        }));
        let many = timed(what, async {
            let keys: Vec<String> = (0..KEYS).map(key).collect();
            let bytes: Vec<&[u8]> = keys.iter().map(String::as_bytes).collect();
            let found = client.get_many(&bytes).await;
            keys.iter().zip(found).map(|(key, found)| outcome(what, key, flips, found)).collect::<Vec<_>>()
        });
        let sets = join_all((0..KEYS / 2).map(|n| {
            timed(what, async move {
                let key = key(n);
                match client.set(key.as_bytes(), &value(&key, version), SetOptions::default()).await {
                    Ok(stored) => assert!(stored, "{what}: not stored, and no error"),
                    Err(error) => assert!(is_expected(&error), "{what}: {error:?}"),
                }
            })
        }));
        let others = join_all((0..4).map(|n| {
            timed(what, async move {
                let key = format!("gone:{n}");
                let gone = client.delete(key.as_bytes()).await;
                let number = counting(|o| (o.vivify, o.value) = (Some(seconds(60)), true));
                let counted = client.arithmetic(format!("number:{n}").as_bytes(), number).await;
                let errors = [gone.err(), counted.err()];
                assert!(errors.iter().flatten().all(is_expected), "{what}: {errors:?}");
            })
        }));
        let (gets, many, _, _) = tokio::join!(gets, many, sets, others);
        for outcome in gets.into_iter().chain(many) {
            *seen.entry(outcome).or_default() += 1;
        }
    }
}

/// Two waits in a row are the most that an operation here has.
async fn timed<T>(what: &str, call: impl Future<Output = T>) -> T {
    let began = Instant::now();
    let output = bounded(call).await;
    let took = began.elapsed();
    assert!(took < 10 * DEADLINE, "{what}: hung for {took:?}");
    output
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_the_network_does_no_value_is_anothers_nothing_hangs_and_all_is_well_afterwards() {
    let mut random = fastrand::Rng::with_seed(seed());
    let noise = |random: &mut fastrand::Rng| (0..random.usize(1..200)).map(|_| random.u8(..)).collect();
    let bed = Bed::with(2).await;
    let mut faults = vec![
        Fault::Delay(Duration::from_millis(20)),
        Fault::Delay(2 * DEADLINE),
        Fault::Throttle { bytes_per_second: 20_000 },
        Fault::Slice { bytes: 1 },
        Fault::Blackhole { keep_reading: true },
        Fault::Blackhole { keep_reading: false },
        Fault::Stall,
        Fault::DuplicateReply,
        Fault::SwapReplies,
        Fault::RefuseAccept,
    ];
    for bytes in [1, 100, 101, 1_000] {
        faults.push(Fault::CutAfter { bytes, how: Cut::Fin });
        faults.push(Fault::CutAfter { bytes, how: Cut::Rst });
    }
    for garbage in [
        &b"VALUE x 0 1\r\nx\r\nEND\r\n"[..],
        b"VALUE key:0000 0 5\r\nwrong\r\nEND\r\n",
        b"VA 5 f0\r\nwrong\r\n",
        b"EN\r\n",
        b"HD\r\n",
        b"END\r\n",
        b"MN\r\n",
        b"ERROR\r\n",
        b"\r\n",
        b"\0",
    ] {
        faults.push(Fault::Inject(garbage.to_vec()));
    }
    faults.extend((0..4).map(|_| Fault::Inject(noise(&mut random))));
    let (mut seen, mut slowest) = (BTreeMap::new(), (Duration::ZERO, String::new()));
    for direction in BOTH {
        for (fault, version) in faults.iter().zip(2..) {
            let what = format!("{direction:?} {fault:?}");
            bed.client.get(b"a connection that is open").await.ok();
            bed.proxy.set(direction, fault.clone());
            for _ in 0..2 {
                bed.all_at_once(&what, false, version, &mut seen).await;
            }
            bed.proxy.clear();
            bed.store().await;
            // Nothing is cut here: it is for the client to find out what is out of step.
            let took = bed.until_well(&what).await;
            if took > slowest.0 {
                slowest = (took, what);
            }
        }
    }
    println!("{seen:?}; well again after {:?} at most ({})", slowest.0, slowest.1);
    assert!(seen[&Outcome::Right] > 0 && seen[&Outcome::Failed] > 0 && !seen.contains_key(&Outcome::Flipped));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_nobody_asked_for_ends_the_connection() {
    let bed = Bed::with(1).await;
    let (client, proxy) = (&bed.client, &bed.proxy);
    for fault in [Fault::DuplicateReply, Fault::Inject(b"HD\r\n".to_vec())] {
        until("an open connection", Duration::from_secs(5), async || client.get(b"key").await.is_ok()).await;
        assert_eq!(client.connections(0), 1);
        let garbage = matches!(fault, Fault::Inject(_));
        proxy.set(Direction::ToClient, fault);
        assert_eq!(
            client.get(b"key").await.is_err(),
            garbage,
            "the first answer is the right one, if it is one"
        );
        until("its end", Duration::from_secs(5), async || client.connections(0) == 0).await;
        proxy.clear();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_is_cut_at_any_byte_is_an_error_and_never_a_part_of_it() {
    let bed = Bed::with(1).await;
    let (client, proxy) = (&bed.client, &bed.proxy);
    let (mut cuts, mut spared) = (0, 0);
    for operation in ["get", "get_many", "set", "delete"] {
        let ask = async || -> Result<()> {
            let (one, two) = (key(1), key(2));
            match operation {
                "get" => {
                    let got = client.get(one.as_bytes()).await;
                    let failed = got.as_ref().err().cloned();
                    match outcome("a cut", &one, false, got) {
                        Outcome::Right => Ok(()),
                        other => Err(failed.unwrap_or_else(|| panic!("{other:?}"))),
                    }
                }
                "get_many" => {
                    let found = client.get_many(&[one.as_bytes(), b"missing", two.as_bytes()]).await;
                    found.into_iter().collect::<Result<Vec<_>>>().map(drop)
                }
                "set" => client
                    .set(one.as_bytes(), &value(&one, 1), SetOptions::default())
                    .await
                    .map(|ok| assert!(ok)),
                _ => client.delete(b"missing").await.map(drop),
            }
        };
        ask().await.unwrap();
        let before = proxy.forwarded(Direction::ToClient);
        ask().await.unwrap();
        let length = proxy.forwarded(Direction::ToClient) - before;
        for bytes in 0..length {
            for how in [Cut::Fin, Cut::Rst] {
                let what = format!("{operation} cut by {how:?} after {bytes} of {length} bytes");
                proxy.set(Direction::ToClient, Fault::CutAfter { bytes, how });
                let answer = timed(&what, ask()).await;
                proxy.clear();
                match answer {
                    Err(error) => assert_eq!(error.kind(), ErrorKind::Unavailable, "{what}"),
                    // What was cut was the sign of life that is asked for twice a second, and the whole answer came over
                    // the next connection.
                    Ok(()) => spared += 1,
                }
                until(&what, Duration::from_secs(5), async || ask().await.is_ok()).await;
                cuts += 1;
            }
        }
    }
    println!("{cuts} cuts, {spared} of them of something else, {} connections", proxy.total_connections());
    assert!(spared * 20 < cuts, "{spared} of {cuts}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_bit_that_flips_outside_of_a_value_never_makes_another_answer_of_it() {
    let bed = Bed::with(1).await;
    let (client, proxy, mut seen) = (&bed.client, &bed.proxy, BTreeMap::new());
    for many in [false, true] {
        let keys = [key(1), key(3)];
        let ask = async |what: &str, direction: Direction| {
            let flips = direction == Direction::ToClient;
            if many {
                let bytes = keys.each_ref().map(|key| key.as_bytes());
                let found = client.get_many(&bytes).await;
                keys.iter().zip(found).map(|(key, found)| outcome(what, key, flips, found)).collect()
            } else {
                vec![outcome(what, &keys[0], flips, client.get(keys[0].as_bytes()).await)]
            }
        };
        let well = async |what: &str| {
            until(what, Duration::from_secs(5), async || {
                ask(what, Direction::ToServer).await.iter().all(|outcome| *outcome == Outcome::Right)
            })
            .await;
        };
        for direction in BOTH {
            well("before").await;
            let before = proxy.forwarded(direction);
            well("a measure").await;
            // Numbers of requests grow by some digits meanwhile.
            let length = proxy.forwarded(direction) - before + 2;
            for at in 0..8 * length {
                let what = format!("bit {at} of {length} bytes, {direction:?}, many: {many}");
                proxy.set(direction, Fault::FlipBit { at });
                for outcome in timed(&what, ask(&what, direction)).await {
                    *seen.entry(outcome).or_insert(0_u32) += 1;
                }
                proxy.clear();
                well(&what).await;
            }
        }
    }
    println!("{seen:?}, {} connections", proxy.total_connections());
    assert!(seen[&Outcome::Failed] > 0 && seen[&Outcome::Flipped] > 0);
    assert_eq!(bed.server.stat("cmd_flush"), 0);
}

#[tokio::test]
async fn a_server_that_takes_everything_and_says_nothing_is_an_error_at_the_deadline() {
    let silent = SilentServer::start();
    let builder = patient([silent.addr()]).operation_timeout(DEADLINE).connection_timeout(4 * DEADLINE);
    let client = builder.min_connections(0).build().unwrap();
    let began = Instant::now();
    let error = client.get(b"key").await.unwrap_err();
    let took = began.elapsed();
    println!("an operation: {error} after {took:?}");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(took >= DEADLINE && took < 5 * DEADLINE, "{took:?}");
    let began = Instant::now();
    let error = client.connect().await.unwrap_err();
    let took = began.elapsed();
    println!("connecting: {error} after {took:?}");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(took < 20 * DEADLINE, "{took:?}");
    // Then it is taken to be down, and costs nothing.
    until("the breaker", Duration::from_secs(5), async || {
        assert!(client.get(b"key").await.is_err());
        client.is_down(0)
    })
    .await;
    let mut took: Vec<Duration> = Vec::new();
    for _ in 0..1_000 {
        let began = Instant::now();
        assert!(client.get(b"key").await.is_err());
        took.push(began.elapsed());
    }
    took.sort_unstable();
    println!("taken to be down: {:?} (median), {:?} at most", took[500], took[999]);
    assert!(took[500] < Duration::from_millis(1), "{:?}", took[500]);
    // The dials themselves are bounded, not only the wait for them.
    drop(client);
    until("the end of the dials", Duration::from_secs(5), async || silent.connections() == 0).await;
}

#[tokio::test]
async fn a_connect_that_is_never_answered_is_bounded_by_connection_timeout() {
    let port = UnansweredPort::new();
    let client = patient([port.addr()]).connection_timeout(2 * DEADLINE).build().unwrap();
    let began = Instant::now();
    let error = client.connect().await.unwrap_err();
    let took = began.elapsed();
    println!("{error} after {took:?}");
    assert_eq!(error.kind(), ErrorKind::Timeout);
    assert!(error.to_string().contains("connection_timeout"), "{error}");
    assert!(took >= 2 * DEADLINE && took < 10 * DEADLINE, "{took:?}");
    // An operation waits for its own deadline at most.
    let client = patient([port.addr()]).operation_timeout(DEADLINE).build().unwrap();
    let began = Instant::now();
    let error = client.set(b"key", b"value", SetOptions::default()).await.unwrap_err();
    let took = began.elapsed();
    assert_eq!(error.kind(), ErrorKind::Timeout, "{error:?}");
    assert!(took >= DEADLINE && took < 5 * DEADLINE, "{took:?}");
}

#[tokio::test]
async fn a_client_without_tls_at_a_port_with_tls_gets_an_error_in_time() {
    let server = MemcachedServer::builder().tls().start();
    let builder = patient([server.addr()]).operation_timeout(DEADLINE).connection_timeout(2 * DEADLINE);
    let client = builder.build().unwrap();
    for _ in 0..3 {
        let began = Instant::now();
        assert!(client.get(b"key").await.unwrap_err().is_transient());
        assert!(began.elapsed() < 5 * DEADLINE, "{:?}", began.elapsed());
    }
    let began = Instant::now();
    let error = client.connect().await.unwrap_err();
    println!("{error} after {:?}", began.elapsed());
    assert!(began.elapsed() < 10 * DEADLINE);
    assert!(client.stats(StatsTopic::General).await.remove(0).is_err());
}

// A server with TLS, which waits for more than the four bytes of `mn`, would otherwise never say that it understands
// nothing, and a client without TLS would wait for all of `connection_timeout`.
#[tokio::test]
async fn a_greeting_takes_one_round_trip() {
    let server = MemcachedServer::start();
    let (proxy, far) = (FaultProxy::start(server.addr()), Duration::from_millis(500));
    proxy.set(Direction::ToClient, Fault::Delay(far));
    let client = patient([proxy.addr()]).build().unwrap();
    let began = Instant::now();
    client.connect().await.unwrap();
    let took = began.elapsed();
    println!("connected after {took:?}, {far:?} away");
    assert!(took < 2 * far, "{took:?}");
}

#[tokio::test]
async fn a_server_that_takes_no_more_connections_is_an_error_that_says_so() {
    let server = MemcachedServer::builder().arg("-c").arg("64").start();
    let held: Vec<_> = (0..64).map(|_| std::net::TcpStream::connect(server.addr()).unwrap()).collect();
    let client = patient([server.addr()]).operation_timeout(DEADLINE).build().unwrap();
    let error = client.connect().await.unwrap_err();
    println!("{error}");
    assert!(matches!(error.kind(), ErrorKind::Unavailable | ErrorKind::Timeout), "{error:?}");
    drop(held);
    until("a free place", Duration::from_secs(5), async || client.get(b"key").await.is_ok()).await;
}
