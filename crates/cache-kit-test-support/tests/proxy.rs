//! What a test may rely on while it holds a proxy, whatever the fault.

mod client;

use std::io::{Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::{Duration, Instant};

use cache_kit_test_support::{Cut, Direction, Fault, FaultProxy, RedisServer, ephemeral_range};
use client::{Client, FIN, LIMIT, RST, wait_until};
use socket2::SockRef;

const HOUR: Duration = Duration::from_secs(3_600);

#[test]
fn without_a_fault_bytes_pass_both_ways_and_are_counted() {
    let redis = RedisServer::start();
    let proxy = FaultProxy::start(redis.addr());
    let mut client = Client::connect(&proxy.addr());
    client.send("SET k v\r\nGET k\r\n");
    client.expect("+OK\r\n$1\r\nv\r\n");
    assert_eq!(redis.command("GET k"), "v");
    assert_eq!((proxy.received(Direction::ToServer), proxy.forwarded(Direction::ToServer)), (16, 16));
    assert_eq!((proxy.received(Direction::ToClient), proxy.forwarded(Direction::ToClient)), (12, 12));
}

#[test]
fn a_value_larger_than_all_buffers_arrives_unchanged() {
    let redis = RedisServer::start();
    let proxy = FaultProxy::start(redis.addr());
    let value: String = (0..5_000_000).map(|number: u32| char::from(b'a' + (number % 23) as u8)).collect();
    let mut client = Client::connect(&proxy.addr());
    client.send(format!("*3\r\n$3\r\nSET\r\n$1\r\nk\r\n${}\r\n{value}\r\n", value.len()));
    client.expect("+OK\r\n");
    client.send("GET k\r\n");
    client.expect(&format!("${}\r\n{value}\r\n", value.len()));
}

#[test]
fn the_port_is_outside_the_ephemeral_range() {
    let proxy = FaultProxy::start("127.0.0.1:1");
    assert!(!ephemeral_range().contains(&proxy.port()), "{}", proxy.port());
    assert_eq!(proxy.addr(), format!("127.0.0.1:{}", proxy.port()));
}

#[test]
fn connections_are_counted_while_they_are_open_and_in_total() {
    let redis = RedisServer::start();
    let proxy = FaultProxy::start(redis.addr());
    let mut clients: Vec<Client> = (0..3).map(|_| Client::connect(&proxy.addr())).collect();
    clients.iter_mut().for_each(Client::ping);
    assert_eq!((proxy.connections(), proxy.total_connections()), (3, 3));
    clients.pop();
    wait_until("two are open", || proxy.connections() == 2);
    assert_eq!(proxy.total_connections(), 3);
}

#[test]
fn the_end_that_the_server_chooses_reaches_the_client() {
    for (linger, end) in [(None, FIN), (Some(Duration::ZERO), RST)] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = FaultProxy::start(listener.local_addr().unwrap());
        let mut client = Client::connect(&proxy.addr());
        let (mut server, _) = listener.accept().unwrap();
        SockRef::from(&server).set_linger(linger).unwrap();
        server.write_all(b"bye").unwrap();
        client.expect("bye");
        drop(server);
        assert_eq!(client.rest(), (String::new(), end));
    }
}

#[test]
fn the_end_that_the_client_chooses_reaches_the_server() {
    for (linger, end) in [(None, FIN), (Some(Duration::ZERO), RST)] {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let proxy = FaultProxy::start(listener.local_addr().unwrap());
        let mut client = Client::connect(&proxy.addr());
        let mut server = Client(listener.accept().unwrap().0);
        SockRef::from(&client.0).set_linger(linger).unwrap();
        client.send("bye");
        server.expect("bye");
        drop(client);
        assert_eq!(server.rest(), (String::new(), end));
    }
}

#[test]
fn a_client_that_has_sent_everything_still_gets_its_reply() {
    let redis = RedisServer::start();
    let proxy = FaultProxy::start(redis.addr());
    let mut client = Client::connect(&proxy.addr());
    client.send("PING\r\nQUIT\r\n");
    client.0.shutdown(Shutdown::Write).unwrap();
    assert_eq!(client.rest(), ("+PONG\r\n+OK\r\n".to_owned(), FIN));
    wait_until("it is closed", || proxy.connections() == 0);
}

#[test]
fn without_a_server_the_client_is_reset_and_the_proxy_waits_for_the_next() {
    let redis = RedisServer::start();
    let proxy = FaultProxy::start(redis.addr());
    Client::connect(&proxy.addr()).ping();
    redis.kill();
    assert_eq!(Client::connect(&proxy.addr()).rest(), (String::new(), RST));
    redis.restart();
    Client::connect(&proxy.addr()).ping();
}

#[test]
fn cut_all_ends_each_connection_and_no_later_one() {
    let redis = RedisServer::start();
    let proxy = FaultProxy::start(redis.addr());
    for (how, end) in [(Cut::Fin, FIN), (Cut::Rst, RST)] {
        let mut clients: Vec<Client> = (0..3).map(|_| Client::connect(&proxy.addr())).collect();
        clients.iter_mut().for_each(Client::ping);
        proxy.cut_all(how);
        assert_eq!(proxy.connections(), 0);
        for client in &mut clients {
            assert_eq!(client.rest(), (String::new(), end), "{how:?}");
        }
        Client::connect(&proxy.addr()).ping();
    }
}

#[test]
fn cut_all_ends_connections_under_every_fault() {
    let redis = RedisServer::start();
    let proxy = FaultProxy::start(redis.addr());
    for fault in [
        Fault::Delay(HOUR),
        Fault::Throttle { bytes_per_second: 1 },
        Fault::Blackhole { keep_reading: true },
        Fault::Blackhole { keep_reading: false },
        Fault::Stall,
        Fault::SwapReplies,
    ] {
        for (how, end) in [(Cut::Fin, FIN), (Cut::Rst, RST)] {
            let mut client = Client::connect(&proxy.addr());
            client.ping();
            proxy.set(Direction::ToClient, fault.clone());
            let received = proxy.received(Direction::ToClient);
            client.send("PING\r\n");
            wait_until("the reply is in the proxy", || proxy.received(Direction::ToClient) == received + 7);
            proxy.cut_all(how);
            assert_eq!(client.rest(), (String::new(), end), "{fault:?}");
            proxy.clear();
        }
    }
}

#[test]
fn a_receiver_that_does_not_read_holds_up_neither_cut_nor_drop() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = FaultProxy::start(listener.local_addr().unwrap());
    let fill = || {
        let client = Client::connect(&proxy.addr());
        let (mut server, _) = listener.accept().unwrap();
        server.set_write_timeout(Some(Duration::from_millis(200))).unwrap();
        while server.write(&[0; 65_536]).is_ok() {}
        (client, server)
    };
    for how in [Cut::Fin, Cut::Rst] {
        let (_client, _server) = fill();
        let start = Instant::now();
        proxy.cut_all(how);
        assert!(start.elapsed() < LIMIT);
    }
    let (_client, _server) = fill();
    let start = Instant::now();
    drop(proxy);
    assert!(start.elapsed() < LIMIT);
}

#[test]
fn a_dropped_proxy_closes_its_connections_and_its_port() {
    let redis = RedisServer::start();
    let proxy = FaultProxy::start(redis.addr());
    let addr = proxy.addr();
    let mut client = Client::connect(&addr);
    client.ping();
    drop(proxy);
    assert_eq!(client.rest(), (String::new(), FIN));
    let error = TcpStream::connect(&addr).unwrap_err();
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionRefused);
}

#[test]
fn a_fault_that_is_set_or_cleared_during_traffic_loses_and_reorders_nothing() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let proxy = FaultProxy::start(listener.local_addr().unwrap());
    let client = Client::connect(&proxy.addr());
    let (mut server, _) = listener.accept().unwrap();
    const NUMBERS: u32 = 200_000;
    std::thread::scope(|scope| {
        let mut sender = &client.0;
        scope.spawn(move || {
            for number in 0..NUMBERS {
                sender.write_all(&number.to_be_bytes()).unwrap();
            }
        });
        let receiver = scope.spawn(move || {
            let mut number = [0; 4];
            server.set_read_timeout(Some(LIMIT)).unwrap();
            for expected in 0..NUMBERS {
                server.read_exact(&mut number).unwrap();
                assert_eq!(u32::from_be_bytes(number), expected);
            }
        });
        let mut random = fastrand::Rng::with_seed(7);
        while !receiver.is_finished() {
            let fault = match random.u8(..7) {
                0 => Fault::Delay(Duration::from_micros(random.u64(..2_000))),
                1 => Fault::Throttle { bytes_per_second: 1 << random.u32(10..24) },
                2 => Fault::Slice { bytes: random.usize(1..9) },
                3 => Fault::Stall,
                4 => Fault::Blackhole { keep_reading: false },
                5 => Fault::RefuseAccept,
                _ => {
                    proxy.clear();
                    continue;
                }
            };
            proxy.set(Direction::ToServer, fault);
            std::thread::yield_now();
        }
    });
}
