//! Servers that never serve.

mod client;

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use cache_kit_test_support::{SilentServer, UnansweredPort, ephemeral_range};
use client::{Client, FIN, SHORT, wait_until};

#[test]
fn a_silent_server_takes_everything_and_says_nothing() {
    let server = SilentServer::start();
    assert!(!ephemeral_range().contains(&server.port()));
    let mut client = Client::connect(&server.addr());
    client.send(vec![b'x'; 10_000_000]);
    wait_until("it has read everything", || server.received() == 10_000_000);
    client.expect_silence();
    assert_eq!(server.connections(), 1);
    drop(client);
    wait_until("it knows that the client has gone", || server.connections() == 0);
}

#[test]
fn a_dropped_silent_server_closes_its_connections() {
    let server = SilentServer::start();
    let addr = server.addr();
    let mut client = Client::connect(&addr);
    client.send("x");
    wait_until("it has read", || server.received() == 1);
    drop(server);
    assert_eq!(client.rest(), (String::new(), FIN));
    assert_eq!(TcpStream::connect(&addr).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}

#[cfg(target_os = "linux")]
#[test]
fn a_connection_attempt_to_an_unanswered_port_hangs_every_time() {
    let port = UnansweredPort::new();
    assert!(!ephemeral_range().contains(&port.port()));
    let addr: SocketAddr = port.addr().parse().unwrap();
    for _ in 0..5 {
        let start = Instant::now();
        let error = TcpStream::connect_timeout(&addr, SHORT).unwrap_err();
        assert_eq!(error.kind(), ErrorKind::TimedOut);
        assert!(start.elapsed() >= SHORT);
    }
    // Long enough for the kernel to have asked twice more.
    let error = TcpStream::connect_timeout(&addr, Duration::from_millis(3_500)).unwrap_err();
    assert_eq!(error.kind(), ErrorKind::TimedOut);
    drop(port);
    assert_eq!(TcpStream::connect(addr).unwrap_err().kind(), ErrorKind::ConnectionRefused);
}
