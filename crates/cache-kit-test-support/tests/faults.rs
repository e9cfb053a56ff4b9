//! Each fault does what it says.

mod client;

use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::time::{Duration, Instant};

use cache_kit_test_support::{Cut, Direction, Fault, FaultProxy, RedisServer};
use client::{Client, FIN, LIMIT, RST, wait_until};

const HOUR: Duration = Duration::from_secs(3_600);
const BOTH: [Direction; 2] = [Direction::ToServer, Direction::ToClient];

fn behind_redis() -> (RedisServer, FaultProxy) {
    let redis = RedisServer::start();
    let proxy = FaultProxy::start(redis.addr());
    (redis, proxy)
}

/// Sends a request that is answered by `$1`, the digit, each in a line; returns when the proxy has read the reply.
fn echo(proxy: &FaultProxy, client: &mut Client, digit: u8) {
    let received = proxy.received(Direction::ToClient);
    client.send(format!("ECHO {digit}\r\n"));
    wait_until("the reply is in the proxy", || proxy.received(Direction::ToClient) == received + 7);
}

#[test]
fn delay_adds_its_time_each_way() {
    let (_redis, proxy) = behind_redis();
    let mut client = Client::connect(&proxy.addr());
    let delay = Duration::from_millis(40);
    for directions in [&BOTH[..1], &BOTH[1..], &BOTH[..]] {
        directions.iter().for_each(|direction| proxy.set(*direction, Fault::Delay(delay)));
        let start = Instant::now();
        client.ping();
        assert!(start.elapsed() >= delay * directions.len() as u32, "{directions:?}: {:?}", start.elapsed());
        proxy.clear();
    }
}

#[test]
fn delay_lets_many_chunks_be_under_way_and_keeps_their_order() {
    let (_redis, proxy) = behind_redis();
    let delay = Duration::from_millis(50);
    BOTH.iter().for_each(|direction| proxy.set(*direction, Fault::Delay(delay)));
    let mut client = Client::connect(&proxy.addr());
    let start = Instant::now();
    for number in 100..300 {
        client.send(format!("ECHO {number}\r\n"));
    }
    for number in 100..300 {
        client.expect(&format!("$3\r\n{number}\r\n"));
    }
    // One after the other they would take 20 s.
    assert!(start.elapsed() >= delay * 2 && start.elapsed() < delay * 100, "{:?}", start.elapsed());
}

#[test]
fn delay_makes_the_end_of_the_stream_late_too() {
    let (_redis, proxy) = behind_redis();
    let delay = Duration::from_millis(40);
    let mut client = Client::connect(&proxy.addr());
    client.ping();
    proxy.set(Direction::ToClient, Fault::Delay(delay));
    let start = Instant::now();
    client.send("QUIT\r\n");
    assert_eq!(client.rest(), ("+OK\r\n".to_owned(), FIN));
    assert!(start.elapsed() >= delay);
}

#[test]
fn what_is_delayed_goes_at_once_when_cleared() {
    let (_redis, proxy) = behind_redis();
    let mut client = Client::connect(&proxy.addr());
    for delay in [HOUR, Duration::MAX] {
        proxy.set(Direction::ToClient, Fault::Delay(delay));
        echo(&proxy, &mut client, 1);
        proxy.clear();
        client.send("ECHO 2\r\n");
        client.expect("$1\r\n1\r\n$1\r\n2\r\n");
    }
}

#[test]
fn throttle_takes_the_time_that_the_bytes_need() {
    let (_redis, proxy) = behind_redis();
    let mut client = Client::connect(&proxy.addr());
    let value = "v".repeat(10_000);
    proxy.set(Direction::ToServer, Fault::Throttle { bytes_per_second: 100_000 });
    let start = Instant::now();
    client.send(format!("SET k {value}\r\n"));
    client.expect("+OK\r\n");
    assert!(start.elapsed() >= Duration::from_millis(100), "{:?}", start.elapsed());

    proxy.clear();
    proxy.set(Direction::ToClient, Fault::Throttle { bytes_per_second: 200_000 });
    let start = Instant::now();
    client.send("GET k\r\n");
    client.expect(&format!("$10000\r\n{value}\r\n"));
    assert!(start.elapsed() >= Duration::from_millis(50), "{:?}", start.elapsed());
}

#[test]
fn throttle_ends_in_the_middle_of_a_chunk_when_cleared() {
    let (_redis, proxy) = behind_redis();
    let mut client = Client::connect(&proxy.addr());
    proxy.set(Direction::ToClient, Fault::Throttle { bytes_per_second: 1 });
    echo(&proxy, &mut client, 5);
    proxy.clear();
    client.expect("$1\r\n5\r\n");
}

#[test]
fn slices_give_the_same_bytes() {
    let (_redis, proxy) = behind_redis();
    let value = "0123456789".repeat(100);
    for bytes in [1, 2, 7, 4_096] {
        BOTH.iter().for_each(|direction| proxy.set(*direction, Fault::Slice { bytes }));
        let mut client = Client::connect(&proxy.addr());
        client.send(format!("SET k{bytes} {value}\r\nGET k{bytes}\r\nPING\r\n"));
        client.expect(&format!("+OK\r\n$1000\r\n{value}\r\n+PONG\r\n"));
    }
}

#[test]
fn a_cut_reply_ends_after_exactly_that_many_bytes() {
    let (_redis, proxy) = behind_redis();
    let reply = "$5\r\nhello\r\n";
    for (how, end) in [(Cut::Fin, FIN), (Cut::Rst, RST)] {
        for bytes in 0..=reply.len() {
            proxy.set(Direction::ToClient, Fault::CutAfter { bytes: bytes as u64, how });
            // Each new connection has its own count.
            for _ in 0..2 {
                let mut client = Client::connect(&proxy.addr());
                client.send("ECHO hello\r\n");
                assert_eq!(client.rest(), (reply[..bytes].to_owned(), end), "{how:?} after {bytes}");
                wait_until("it is closed", || proxy.connections() == 0);
            }
        }
    }
}

#[test]
fn a_cut_request_reaches_the_server_with_exactly_that_many_bytes() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = FaultProxy::start(listener.local_addr().unwrap());
    let request = "GET k\r\n";
    for (how, end) in [(Cut::Fin, FIN), (Cut::Rst, RST)] {
        for bytes in 0..=request.len() {
            proxy.set(Direction::ToServer, Fault::CutAfter { bytes: bytes as u64, how });
            let mut client = Client::connect(&proxy.addr());
            let mut server = Client(listener.accept().unwrap().0);
            client.send(request);
            assert_eq!(server.rest(), (request[..bytes].to_owned(), end), "{how:?} after {bytes}");
            assert_eq!(client.rest(), (String::new(), end), "{how:?} after {bytes}");
        }
    }
}

#[test]
fn a_cut_counts_from_now_on_a_connection_that_is_open() {
    let (_redis, proxy) = behind_redis();
    let mut client = Client::connect(&proxy.addr());
    client.ping();
    proxy.set(Direction::ToClient, Fault::CutAfter { bytes: 10, how: Cut::Rst });
    client.ping();
    client.send("PING\r\n");
    assert_eq!(client.rest(), ("+PO".to_owned(), RST));
}

#[test]
fn a_black_hole_that_reads_loses_what_it_reads_and_nothing_else() {
    let (redis, proxy) = behind_redis();
    let mut client = Client::connect(&proxy.addr());
    client.ping();
    proxy.set(Direction::ToClient, Fault::Blackhole { keep_reading: true });
    let forwarded = proxy.forwarded(Direction::ToClient);
    echo(&proxy, &mut client, 1);
    client.expect_silence();
    assert_eq!(proxy.forwarded(Direction::ToClient), forwarded);
    proxy.clear();
    client.send("ECHO 2\r\n");
    client.expect("$1\r\n2\r\n");

    proxy.set(Direction::ToServer, Fault::Blackhole { keep_reading: true });
    let received = proxy.received(Direction::ToServer);
    client.send("SET k v\r\n");
    wait_until("the request is lost", || proxy.received(Direction::ToServer) == received + 9);
    client.expect_silence();
    proxy.clear();
    client.ping();
    assert_eq!(redis.command("GET k"), "(nil)");
}

#[test]
fn a_black_hole_that_does_not_read_fills_the_sender_and_loses_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = FaultProxy::start(listener.local_addr().unwrap());
    proxy.set(Direction::ToServer, Fault::Blackhole { keep_reading: false });
    let client = Client::connect(&proxy.addr());
    let mut server = Client(listener.accept().unwrap().0);
    client.0.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
    let mut written = 0;
    let full = loop {
        match (&client.0).write(&[b'x'; 65_536]) {
            Ok(length) => written += length,
            Err(error) => break error.kind(),
        }
    };
    assert!(matches!(full, ErrorKind::WouldBlock | ErrorKind::TimedOut), "{full}");
    server.expect_silence();
    proxy.clear();
    drop(client);
    assert_eq!(server.rest(), ("x".repeat(written), FIN));
}

#[test]
fn a_black_hole_hides_the_end_of_the_server_until_cleared() {
    for fault in
        [Fault::Blackhole { keep_reading: true }, Fault::Blackhole { keep_reading: false }, Fault::Stall]
    {
        let (redis, proxy) = behind_redis();
        let mut client = Client::connect(&proxy.addr());
        client.ping();
        proxy.set(Direction::ToClient, fault.clone());
        redis.kill();
        client.expect_silence();
        assert_eq!(proxy.connections(), 1);
        proxy.clear();
        assert_eq!(client.rest(), (String::new(), FIN), "{fault:?}");
    }
}

#[test]
fn a_client_that_gives_up_on_a_silent_connection_ends_it() {
    let (_redis, proxy) = behind_redis();
    let lossy = Fault::Blackhole { keep_reading: true };
    let full = Fault::Blackhole { keep_reading: false };
    for (fault, directions) in [
        (&lossy, &BOTH[..1]),
        (&lossy, &BOTH[1..]),
        (&lossy, &BOTH[..]),
        (&Fault::Stall, &BOTH[..1]),
        (&Fault::Stall, &BOTH[1..]),
        (&Fault::Stall, &BOTH[..]),
        (&full, &BOTH[1..]),
    ] {
        let mut client = Client::connect(&proxy.addr());
        client.ping();
        directions.iter().for_each(|direction| proxy.set(*direction, fault.clone()));
        client.send("PING\r\n");
        client.expect_silence();
        assert_eq!(proxy.connections(), 1);
        drop(client);
        wait_until("the connection is closed", || proxy.connections() == 0);
        proxy.clear();
    }
}

#[test]
fn a_client_whose_bytes_are_not_read_ends_its_connection_when_they_are() {
    let (redis, proxy) = behind_redis();
    let mut client = Client::connect(&proxy.addr());
    client.ping();
    proxy.set(Direction::ToServer, Fault::Blackhole { keep_reading: false });
    client.send("SET k v\r\n");
    client.expect_silence();
    drop(client);
    assert_eq!(proxy.connections(), 1);
    proxy.clear();
    wait_until("the connection is closed", || proxy.connections() == 0);
    assert_eq!(redis.command("GET k"), "v");
}

#[test]
fn what_is_stalled_is_sent_in_order_when_cleared_or_when_another_fault_is_set() {
    let (_redis, proxy) = behind_redis();
    let mut client = Client::connect(&proxy.addr());
    for end in [None, Some(Fault::Stall), Some(Fault::Slice { bytes: 1 })] {
        proxy.set(Direction::ToClient, Fault::Stall);
        (1..4).for_each(|digit| echo(&proxy, &mut client, digit));
        client.expect_silence();
        match end {
            None => proxy.clear(),
            Some(fault) => proxy.set(Direction::ToClient, fault),
        }
        client.expect("$1\r\n1\r\n$1\r\n2\r\n$1\r\n3\r\n");
    }
}

#[test]
fn a_duplicated_reply_comes_twice_and_the_next_once() {
    let (_redis, proxy) = behind_redis();
    let mut client = Client::connect(&proxy.addr());
    proxy.set(Direction::ToClient, Fault::DuplicateReply);
    client.send("ECHO 1\r\n");
    client.expect("$1\r\n1\r\n$1\r\n1\r\n");
    client.send("ECHO 2\r\n");
    client.expect("$1\r\n2\r\n");
    // It is gone for other connections too.
    let mut other = Client::connect(&proxy.addr());
    other.send("PING\r\nQUIT\r\n");
    assert_eq!(other.rest(), ("+PONG\r\n+OK\r\n".to_owned(), FIN));
}

#[test]
fn swapped_replies_come_in_the_wrong_order_once() {
    let (_redis, proxy) = behind_redis();
    let mut client = Client::connect(&proxy.addr());
    proxy.set(Direction::ToClient, Fault::SwapReplies);
    (1..5).for_each(|digit| echo(&proxy, &mut client, digit));
    client.expect("$1\r\n2\r\n$1\r\n1\r\n$1\r\n3\r\n$1\r\n4\r\n");
}

#[test]
fn a_reply_that_waits_to_be_overtaken_is_sent_when_nothing_overtakes_it() {
    let (_redis, proxy) = behind_redis();
    let mut client = Client::connect(&proxy.addr());
    proxy.set(Direction::ToClient, Fault::SwapReplies);
    echo(&proxy, &mut client, 1);
    client.expect_silence();
    proxy.clear();
    client.expect("$1\r\n1\r\n");
    client.ping();

    proxy.set(Direction::ToClient, Fault::SwapReplies);
    client.send("QUIT\r\n");
    assert_eq!(client.rest(), ("+OK\r\n".to_owned(), FIN));
}

#[test]
fn injected_bytes_come_once_before_the_next_reply() {
    let (_redis, proxy) = behind_redis();
    let mut client = Client::connect(&proxy.addr());
    proxy.set(Direction::ToClient, Fault::Inject(b":7\r\n".to_vec()));
    client.send("ECHO 1\r\n");
    client.expect(":7\r\n$1\r\n1\r\n");
    client.ping();
    proxy.set(Direction::ToServer, Fault::Inject(b"SET k ".to_vec()));
    client.send("v\r\n");
    client.expect("+OK\r\n");
}

#[test]
fn a_flipped_bit_differs_and_no_other_does() {
    let (_redis, proxy) = behind_redis();
    let reply = *b"+PONG\r\n";
    for at in 0..reply.len() * 8 {
        proxy.set(Direction::ToClient, Fault::FlipBit { at: at as u64 });
        let mut expected = reply;
        expected[at / 8] ^= 1 << (at % 8);
        let mut client = Client::connect(&proxy.addr());
        client.send("PING\r\n");
        let mut got = [0; 7];
        client.0.read_exact(&mut got).unwrap();
        assert_eq!(got, expected, "bit {at}");
        client.ping();
    }
}

#[test]
fn a_bit_is_counted_from_now_over_chunks_and_for_each_connection() {
    let (_redis, proxy) = behind_redis();
    let mut client = Client::connect(&proxy.addr());
    client.ping();
    // Bit 0 of byte 8: the P of the second reply.
    proxy.set(Direction::ToClient, Fault::FlipBit { at: 64 });
    for mut client in [client, Client::connect(&proxy.addr())] {
        client.ping();
        client.send("PING\r\n");
        client.expect("+QONG\r\n");
        client.ping();
    }
}

#[test]
fn refused_connections_are_reset_and_open_ones_work_on() {
    let (_redis, proxy) = behind_redis();
    let mut open = Client::connect(&proxy.addr());
    open.ping();
    for direction in BOTH {
        proxy.set(direction, Fault::RefuseAccept);
        let before = proxy.total_connections();
        // The reset can be faster than the return of connect, which then fails with it.
        match TcpStream::connect(proxy.addr()) {
            Ok(stream) => {
                stream.set_read_timeout(Some(LIMIT)).unwrap();
                assert_eq!(Client(stream).rest(), (String::new(), RST));
            }
            Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
        }
        assert_eq!((proxy.total_connections(), proxy.connections()), (before + 1, 1));
        open.ping();
        proxy.clear();
        Client::connect(&proxy.addr()).ping();
        wait_until("the last has gone", || proxy.connections() == 1);
    }
}
