//! Every operation of the client with its options, against a real server.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

mod common;

use std::time::Duration;

use cache_kit_memcached::protocol::{
    ArithmeticMode, ArithmeticOptions, Credentials, GetOptions, MetaReply, SetMode, SetOptions, StatsTopic,
    Status,
};
use cache_kit_memcached::ttl::Exptime;
use cache_kit_memcached::{Client, ConnectionId, ErrorKind};
use cache_kit_test_support::{MemcachedServer, SilentServer};
use common::{counting, deleting, getting, patient, seconds, setting, told, until};
use futures_util::FutureExt as _;
use futures_util::future::join_all;

fn start() -> (MemcachedServer, Client) {
    let server = MemcachedServer::start();
    let client = patient([server.addr()]).build().unwrap();
    (server, client)
}

async fn put(client: &Client, key: &[u8], value: &[u8]) {
    assert!(client.set(key, value, SetOptions::default()).await.unwrap());
}

async fn read(client: &Client, key: &[u8]) -> Option<Vec<u8>> {
    client.get(key).await.unwrap().map(|value| value.data.to_vec())
}

async fn look(client: &Client, key: &[u8], change: impl FnOnce(&mut GetOptions)) -> MetaReply {
    let options = getting(|options| {
        options.value = true;
        options.client_flags = true;
        change(options);
    });
    client.meta_get(key, options).await.unwrap().reply
}

async fn count(client: &Client, key: &[u8], change: impl FnOnce(&mut ArithmeticOptions)) -> MetaReply {
    let options = counting(|options| {
        options.value = true;
        change(options);
    });
    client.arithmetic(key, options).await.unwrap().reply
}

#[tokio::test]
async fn a_value_is_read_back_as_it_was_with_its_flags_until_it_is_deleted() {
    let (_server, client) = start();
    let all: Vec<u8> = (0..=255).cycle().take(10_000).collect();
    for value in [&b""[..], b"\r\nEND\r\nVALUE k 0 1\r\n", b"\0", &all] {
        for flags in [0, 1, u32::MAX] {
            assert!(client.set(b"key", value, setting(|o| o.client_flags = flags)).await.unwrap());
            let found = client.get(b"key").await.unwrap().unwrap();
            assert_eq!((&found.data[..], found.client_flags), (value, flags));
            let found = client.get_many(&[b"key"]).await.remove(0).unwrap().unwrap();
            assert_eq!((&found.data[..], found.client_flags), (value, flags));
        }
    }
    assert!(client.delete(b"key").await.unwrap());
    assert_eq!(read(&client, b"key").await, None);
    assert!(!client.delete(b"key").await.unwrap());
}

#[tokio::test]
async fn add_replace_append_and_prepend_store_when_they_promise_to() {
    let (_server, client) = start();
    let store =
        async |value: &[u8], mode| client.set(b"key", value, setting(|o| o.mode = mode)).await.unwrap();
    for mode in [SetMode::Replace, SetMode::Append, SetMode::Prepend] {
        assert!(!store(b"x", mode).await, "{mode:?} of what is not there");
    }
    assert!(
        client.set(b"key", b"b", setting(|o| (o.mode, o.client_flags) = (SetMode::Add, 7))).await.unwrap()
    );
    assert!(!store(b"x", SetMode::Add).await);
    assert!(store(b"c", SetMode::Append).await && store(b"a", SetMode::Prepend).await);
    let found = client.get(b"key").await.unwrap().unwrap();
    assert_eq!((&found.data[..], found.client_flags), (&b"abc"[..], 7));
    assert!(store(b"new", SetMode::Replace).await);
    assert_eq!(read(&client, b"key").await.unwrap(), b"new");
}

#[tokio::test]
async fn of_two_that_compare_only_the_first_stores_or_deletes() {
    let (_server, client) = start();
    put(&client, b"key", b"old").await;
    let seen = client.meta_get(b"key", getting(|o| o.cas = true)).await.unwrap();
    let (cas, over) = (seen.reply.cas.unwrap(), seen.connection);
    assert_eq!(seen.reply.status, Status::Header, "no value was asked for");
    let compare = setting(|o| (o.compare_cas, o.cas) = (Some(cas), true));
    let first = client.meta_set_over(over, b"key", b"first", compare).await.unwrap().unwrap();
    assert_eq!((first.reply.status, first.connection), (Status::Header, over));
    assert_ne!(first.reply.cas.unwrap(), cas);
    let second = client.meta_set_over(over, b"key", b"second", compare).await.unwrap().unwrap();
    assert_eq!(second.reply.status, Status::Exists);
    assert!(!client.set(b"key", b"third", compare).await.unwrap());
    let gone = client.meta_delete_over(over, b"key", deleting(|o| o.compare_cas = Some(cas))).await.unwrap();
    assert_eq!(gone.unwrap().reply.status, Status::Exists);
    assert_eq!(read(&client, b"key").await.unwrap(), b"first");
    let gone =
        client.meta_delete_over(over, b"key", deleting(|o| o.compare_cas = first.reply.cas)).await.unwrap();
    assert_eq!(gone.unwrap().reply.status, Status::Header);
    let absent = client.meta_set_over(over, b"key", b"x", compare).await.unwrap().unwrap();
    assert_eq!(absent.reply.status, Status::NotFound);
    assert!(!client.set(b"key", b"x", compare).await.unwrap());
    assert_eq!(read(&client, b"key").await, None);
}

#[tokio::test]
async fn who_stores_with_an_older_number_may_store_as_stale() {
    let (_server, client) = start();
    put(&client, b"key", b"old").await;
    let cas = look(&client, b"key", |o| o.cas = true).await.cas;
    put(&client, b"key", b"new").await;
    let late = setting(|o| (o.compare_cas, o.invalidate) = (cas, true));
    assert!(client.set(b"key", b"late", late).await.unwrap());
    let found = look(&client, b"key", |_| {}).await;
    assert_eq!((found.stale, found.won, &found.value.unwrap()[..]), (true, true, &b"late"[..]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_of_many_readers_of_an_absent_key_wins_it() {
    let (_server, client) = start();
    for key in [&b"absent"[..], b"absent too", &[b'x'; 300]] {
        let looks = (0..50)
            .map(|_| look(&client, key, |o| (o.vivify, o.cas, o.ttl) = (Some(seconds(60)), true, true)));
        let found = join_all(looks).await;
        let stub = found.iter().find(|reply| reply.won).unwrap().cas.unwrap();
        assert_eq!(found.iter().filter(|reply| reply.won && !reply.already_won).count(), 1);
        assert_eq!(found.iter().filter(|reply| !reply.won && reply.already_won).count(), 49);
        for reply in &found {
            assert_eq!((reply.status, reply.cas, reply.client_flags), (Status::Value, Some(stub), 0));
            assert!(reply.value.as_ref().unwrap().is_empty() && (58..=60).contains(&reply.ttl.unwrap()));
        }
        assert!(client.set(key, b"filled", setting(|o| o.compare_cas = Some(stub))).await.unwrap());
        let filled = look(&client, key, |o| o.vivify = Some(seconds(60))).await;
        assert_eq!(filled.value.unwrap(), "filled");
        assert!(!filled.won && !filled.already_won && !filled.stale);
    }
}

#[tokio::test]
async fn of_what_was_invalidated_the_next_reader_wins_and_all_see_that_it_is_stale() {
    let (_server, client) = start();
    for key in [&b"key"[..], b"a key", &[b'x'; 300]] {
        put(&client, key, b"old").await;
        let stale = deleting(|o| (o.invalidate, o.exptime) = (true, Some(seconds(30))));
        assert_eq!(client.meta_delete(key, stale).await.unwrap().reply.status, Status::Header);
        let first = look(&client, key, |o| (o.ttl, o.cas) = (true, true)).await;
        assert_eq!((first.stale, first.won, first.already_won), (true, true, false));
        assert!((28..=30).contains(&first.ttl.unwrap()), "{first:?}");
        assert_eq!(first.value.unwrap(), "old");
        let second = look(&client, key, |_| {}).await;
        assert_eq!((second.stale, second.won, second.already_won), (true, false, true));
        // Neither the simple reads tell.
        assert_eq!(read(&client, key).await.unwrap(), b"old");
        assert!(client.set(key, b"new", setting(|o| o.compare_cas = first.cas)).await.unwrap());
        let fresh = look(&client, key, |_| {}).await;
        assert_eq!((fresh.stale, fresh.won, fresh.already_won), (false, false, false));
        assert_eq!(fresh.value.unwrap(), "new");
    }
    let missing = client.meta_delete(b"missing", deleting(|o| o.invalidate = true)).await.unwrap();
    assert_eq!(missing.reply.status, Status::NotFound);
}

#[tokio::test]
async fn one_reader_wins_an_item_that_is_about_to_end_and_none_one_that_never_does() {
    let (_server, client) = start();
    assert!(client.set(b"key", b"v", setting(|o| o.exptime = seconds(30))).await.unwrap());
    assert!(!look(&client, b"key", |o| o.recache_secs = Some(10)).await.won);
    assert!(look(&client, b"key", |o| o.recache_secs = Some(60)).await.won);
    let next = look(&client, b"key", |o| o.recache_secs = Some(60)).await;
    assert_eq!((next.won, next.already_won, &next.value.unwrap()[..]), (false, true, &b"v"[..]));
    put(&client, b"key", b"v").await;
    assert!(!look(&client, b"key", |o| o.recache_secs = Some(u32::MAX)).await.won);
}

#[tokio::test]
async fn what_is_known_of_an_item_is_told() {
    let (_server, client) = start();
    put(&client, b"key", b"value").await;
    let ask = |o: &mut GetOptions| {
        (o.value, o.client_flags) = (false, false);
        (o.ttl, o.size, o.last_access, o.hit_before, o.cas) = (true, true, true, true, true);
    };
    let unseen = look(&client, b"key", |o| {
        ask(o);
        o.no_bump = true;
    });
    let unseen = unseen.await;
    assert_eq!((unseen.status, unseen.value, unseen.ttl), (Status::Header, None, Some(-1)));
    assert_eq!((unseen.size, unseen.hit_before), (Some(5), Some(false)));
    assert!(unseen.last_access.unwrap() < 5 && unseen.cas.is_some());
    assert_eq!(look(&client, b"key", ask).await.hit_before, Some(false), "a look that was not to count");
    assert_eq!(look(&client, b"key", ask).await.hit_before, Some(true));

    assert!(client.set(b"key", b"v", setting(|o| o.exptime = seconds(100))).await.unwrap());
    assert!((98..=100).contains(&look(&client, b"key", ask).await.ttl.unwrap()));
    let touched = look(&client, b"key", |o| (o.touch, o.ttl) = (Some(seconds(500)), true)).await;
    assert!((498..=500).contains(&touched.ttl.unwrap()) && touched.value.unwrap() == "v");
    let touched = look(&client, b"key", |o| (o.touch, o.ttl) = (Some(Exptime::NEVER), true)).await;
    assert_eq!(touched.ttl, Some(-1));
    // Nothing asked for but whether it is there.
    assert_eq!(client.meta_get(b"key", GetOptions::default()).await.unwrap().reply.status, Status::Header);
    let miss = client.meta_get(b"missing", getting(|o| o.touch = Some(seconds(9)))).await;
    assert_eq!(miss.unwrap().reply.status, Status::Miss);
}

#[tokio::test]
async fn an_item_ends_with_its_time() {
    let (_server, client) = start();
    assert!(client.set(b"key", b"v", setting(|o| o.exptime = seconds(1))).await.unwrap());
    let took =
        until("the end of an item", Duration::from_secs(10), async || read(&client, b"key").await.is_none());
    println!("one second took {:?}", took.await);
}

#[tokio::test]
async fn numbers_are_counted_up_and_down_and_not_below_zero() {
    let (_server, client) = start();
    for key in [&b"n"[..], b"a number", &[b'n'; 300]] {
        let missing = client.arithmetic(key, ArithmeticOptions::default()).await.unwrap();
        assert_eq!(missing.reply.status, Status::NotFound);
        let made =
            count(&client, key, |o| (o.vivify, o.initial, o.ttl) = (Some(seconds(50)), 40, true)).await;
        assert_eq!((made.status, made.number()), (Status::Value, Some(40)), "nothing is added to a new one");
        assert!((48..=50).contains(&made.ttl.unwrap()));
        assert_eq!(
            count(&client, key, |o| (o.vivify, o.initial) = (Some(seconds(50)), 9)).await.number(),
            Some(41)
        );
        assert_eq!(count(&client, key, |o| o.delta = 100).await.number(), Some(141));
        let down =
            |delta| move |o: &mut ArithmeticOptions| (o.mode, o.delta) = (ArithmeticMode::Decrement, delta);
        assert_eq!(count(&client, key, down(41)).await.number(), Some(100));
        assert_eq!(count(&client, key, down(u64::MAX)).await.number(), Some(0));
        assert_eq!(count(&client, key, |o| o.delta = u64::MAX).await.number(), Some(u64::MAX));
        assert_eq!(count(&client, key, |o| o.delta = 3).await.number(), Some(2), "it wraps");
        let told = count(&client, key, |o| (o.touch, o.ttl, o.cas) = (Some(seconds(90)), true, true)).await;
        assert!((88..=90).contains(&told.ttl.unwrap()));
        let compare = |cas| move |o: &mut ArithmeticOptions| o.compare_cas = cas;
        assert_eq!(count(&client, key, compare(told.cas)).await.number(), Some(4));
        assert_eq!(count(&client, key, compare(told.cas)).await.status, Status::Exists);
        let quiet = client.arithmetic(key, ArithmeticOptions::default()).await.unwrap().reply;
        assert_eq!((quiet.status, quiet.value), (Status::Header, None));
        assert_eq!(read(&client, key).await.unwrap().trim_ascii_end(), b"5");
    }
    let connection = client.meta_get(b"n", GetOptions::default()).await.unwrap().connection;
    for value in [&b"x"[..], b"", b"1x", b"-1", b"184467440737095516160"] {
        put(&client, b"text", value).await;
        let error = client.arithmetic(b"text", ArithmeticOptions::default()).await.unwrap_err();
        assert_eq!(error.kind(), ErrorKind::InvalidInput, "{error:?}");
        assert_eq!(read(&client, b"text").await.unwrap(), value);
    }
    let after = client.meta_get(b"n", GetOptions::default()).await.unwrap().connection;
    assert_eq!(after, connection, "the connection went on");
}

#[tokio::test]
async fn an_item_can_be_described_for_people_without_its_key() {
    let (_server, client) = start();
    put(&client, b"sesame", b"v").await;
    let text = client.debug(b"sesame").await.unwrap().unwrap();
    println!("{text}");
    assert!(text.contains("exp=-1") && text.contains("size=") && !text.contains("sesame"), "{text}");
    assert_eq!(client.debug(b"missing").await.unwrap(), None);
    assert_eq!(client.debug(&[b'x'; 1_000]).await.unwrap(), None);
    assert_eq!(client.debug(b"a key").await.unwrap_err().kind(), ErrorKind::InvalidInput);
}

#[tokio::test]
async fn statistics_settings_and_versions_are_those_of_each_server() {
    let servers = [MemcachedServer::start(), MemcachedServer::builder().max_item_size("2m").start()];
    let client = patient(servers.iter().map(MemcachedServer::addr)).build().unwrap();
    put(&client, b"key", b"v").await;
    let told = |stats: &[cache_kit_memcached::protocol::Stat], name: &str| {
        stats.iter().find(|stat| &*stat.name == name).map(|stat| stat.value.to_string()).unwrap()
    };
    for (server, stats) in servers.iter().zip(client.stats(StatsTopic::General).await) {
        let stats = stats.unwrap();
        assert_eq!(told(&stats, "pid"), server.pid().to_string());
        assert_eq!(told(&stats, "curr_items"), server.stat("curr_items").to_string());
    }
    for (most, stats) in [1 << 20, 2 << 20].into_iter().zip(client.stats(StatsTopic::Settings).await) {
        assert_eq!(told(&stats.unwrap(), "item_size_max"), most.to_string());
    }
    for topic in [StatsTopic::Items, StatsTopic::Slabs, StatsTopic::Sizes, StatsTopic::Connections] {
        for stats in client.stats(topic).await {
            assert!(stats.is_ok(), "{topic:?}: {stats:?}");
        }
    }
    let versions: Vec<_> = client.versions().await.into_iter().map(Result::unwrap).collect();
    let theirs = servers.each_ref().map(|server| server.command("version"));
    assert_eq!(versions.iter().map(|version| format!("VERSION {version}")).collect::<Vec<_>>(), theirs);
}

#[tokio::test]
async fn everything_on_every_server_can_be_dropped() {
    let servers = [MemcachedServer::start(), MemcachedServer::start()];
    let client = patient(servers.iter().map(MemcachedServer::addr)).build().unwrap();
    let keys: Vec<String> = (0..100).map(|n| format!("key:{n}")).collect();
    for key in &keys {
        put(&client, key.as_bytes(), b"v").await;
    }
    assert!(servers.iter().all(|server| server.stat("curr_items") > 0));
    client.flush_all().await.unwrap();
    let keys: Vec<&[u8]> = keys.iter().map(String::as_bytes).collect();
    assert!(client.get_many(&keys).await.into_iter().all(|found| found.unwrap().is_none()));
    assert_eq!(servers.each_ref().map(|server| server.stat("cmd_flush")), [1, 1]);
    // What is stored afterwards stays.
    put(&client, b"later", b"v").await;
    assert!(read(&client, b"later").await.is_some());
}

#[tokio::test]
async fn many_keys_are_answered_in_their_order_whatever_their_form_and_how_often_they_are_asked_for() {
    let (server, client) = start();
    assert!(client.get_many(&[]).await.is_empty());
    let long = vec![b'l'; 1_000];
    let keys: Vec<&[u8]> =
        vec![b"a", b"b c", b"missing", b"a", b"b c", b"not there", &long, b"", b"\r\n", &long, b"%#x"];
    for key in keys.iter().filter(|key| !key.starts_with(b"missing") && !key.starts_with(b"not")) {
        put(&client, key, &[b"value of ", *key].concat()).await;
    }
    let before = server.stat("cmd_get");
    let found = client.get_many(&keys).await;
    assert_eq!(server.stat("cmd_get") - before, keys.len() as u64);
    for (key, found) in keys.iter().zip(found) {
        let expected = [b"value of ", *key].concat();
        let found = found.unwrap().map(|value| value.data.to_vec());
        let absent = matches!(*key, b"missing" | b"not there");
        assert_eq!(found, (!absent).then_some(expected), "{:?}", String::from_utf8_lossy(key));
    }
    // More than one request takes, each third in base64, half of them missing, and once more from behind.
    let keys: Vec<String> =
        (0..1_000).map(|n| if n % 3 == 0 { format!("a key {n}") } else { format!("key:{n}") }).collect();
    for key in keys.iter().step_by(2) {
        put(&client, key.as_bytes(), key.as_bytes()).await;
    }
    let asked: Vec<&String> = keys.iter().chain(keys.iter().rev()).collect();
    let bytes: Vec<&[u8]> = asked.iter().map(|key| key.as_bytes()).collect();
    for (key, found) in asked.iter().zip(client.get_many(&bytes).await) {
        let number: usize = key.trim_start_matches(|c: char| !c.is_ascii_digit()).parse().unwrap();
        let found = found.unwrap().map(|value| value.data.to_vec());
        assert_eq!(found, number.is_multiple_of(2).then(|| key.as_bytes().to_vec()), "{key}");
    }
}

#[tokio::test]
async fn a_number_of_a_connection_that_is_closed_stores_and_deletes_nothing() {
    let (server, client) = start();
    put(&client, b"key", b"old").await;
    let seen = client.meta_get(b"key", getting(|o| o.cas = true)).await.unwrap();
    let compare = setting(|o| o.compare_cas = seen.reply.cas);
    client.drop_connections();
    let before = server.stat("cmd_set");
    assert_eq!(client.meta_set_over(seen.connection, b"key", b"x", compare).await.unwrap(), None);
    let gone = deleting(|o| o.compare_cas = seen.reply.cas);
    assert_eq!(client.meta_delete_over(seen.connection, b"key", gone).await.unwrap(), None);
    assert_eq!(server.stat("cmd_set"), before);
    // The next operation has another connection.
    let again = client.meta_get(b"key", getting(|o| o.value = true)).await.unwrap();
    assert_ne!(again.connection, seen.connection);
    assert_eq!(again.reply.value.unwrap(), "old");
    for unknown in [0, u64::MAX] {
        let unknown = ConnectionId::new(unknown);
        assert_eq!(client.meta_set_over(unknown, b"key", b"x", compare).await.unwrap(), None);
    }
    assert_eq!(ConnectionId::new(again.connection.get()), again.connection);
}

#[test]
fn without_a_runtime_every_operation_is_an_error_and_no_panic() {
    let (_server, client) = start();
    let says = |error: cache_kit_memcached::Error| {
        assert!(error.to_string().contains("tokio runtime"), "{error}");
        assert_eq!(error.kind(), ErrorKind::Unavailable);
    };
    says(client.get(b"k").now_or_never().unwrap().unwrap_err());
    says(client.set(b"k", b"v", SetOptions::default()).now_or_never().unwrap().unwrap_err());
    says(client.delete(b"k").now_or_never().unwrap().unwrap_err());
    says(client.connect().now_or_never().unwrap().unwrap_err());
    says(client.flush_all().now_or_never().unwrap().unwrap_err());
    says(client.arithmetic(b"k", ArithmeticOptions::default()).now_or_never().unwrap().unwrap_err());
    client.get_many(&[b"k", b"k k"]).now_or_never().unwrap().into_iter().for_each(|r| says(r.unwrap_err()));
    client.stats(StatsTopic::General).now_or_never().unwrap().into_iter().for_each(|r| says(r.unwrap_err()));
    client.versions().now_or_never().unwrap().into_iter().for_each(|r| says(r.unwrap_err()));
    // It was no reason to take the server for dead.
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(put(&client, b"k", b"v"));
}

#[tokio::test]
async fn neither_keys_nor_values_nor_passwords_are_ever_printed() {
    const SECRETS: [&str; 3] = ["sesame", "hunter2", "treasure"];
    let says_nothing = |text: &str| assert!(!SECRETS.iter().any(|word| text.contains(word)), "{text}");
    let (server, client) = start();
    let silent = SilentServer::start();
    let credentials = Credentials::new("treasure", "hunter2").unwrap();
    let builder = patient([silent.addr()]).credentials(credentials);
    let hanging = builder.operation_timeout(Duration::from_millis(50));
    says_nothing(&format!("{hanging:?} {hanging:#?}"));
    let hanging = hanging.build().unwrap();
    server.command("set sesame 0 0 8\r\ntreasure");
    let mut errors = vec![
        client.set(b"sesame", &b"treasure".repeat(200_000), SetOptions::default()).await.unwrap_err(),
        client.arithmetic(b"sesame", ArithmeticOptions::default()).await.unwrap_err(),
        client.debug(b"sesame sesame").await.unwrap_err(),
        hanging.get(b"sesame").await.unwrap_err(),
        hanging.set(b"sesame", b"treasure", SetOptions::default()).await.unwrap_err(),
        hanging.get_many(&[b"sesame"]).await.remove(0).unwrap_err(),
    ];
    let found = client.meta_get(b"sesame", getting(|o| o.value = true)).await.unwrap();
    let value = client.get(b"sesame").await.unwrap().unwrap();
    says_nothing(&format!("{found:?} {found:#?} {value:?} {client:?} {client:#?} {hanging:?}"));
    server.kill();
    for _ in 0..5 {
        errors.push(client.get(b"sesame").await.unwrap_err());
        errors.push(client.delete(b"sesame").await.unwrap_err());
    }
    for error in &errors {
        println!("{:?}: {error}", error.kind());
        says_nothing(&told(error));
    }
}
