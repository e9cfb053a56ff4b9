//! The service as its users see it: started, asked over HTTP, told to end.
#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::TcpStream;
use std::process::{Child, Command, Stdio};

use cache_kit_test_support::{MemcachedServer, RedisServer};

/// The service, on a port that is free.
struct Service {
    process: Child,
    addr: String,
}

impl Service {
    fn start(cache_url: &str) -> Self {
        let mut process = Command::new(env!("CARGO_BIN_EXE_axum-example"))
            .env("CACHE_URL", cache_url)
            .env("PORT", "0")
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let addr = line.strip_prefix("http://").and_then(|rest| rest.split('/').next()).unwrap();
        Self { addr: addr.to_owned(), process }
    }

    /// The status, the value of `x-source-calls` if there is one, and the body.
    fn ask(&self, method: &str, path: &str, body: &str) -> (u16, Option<u32>, String) {
        let mut stream = TcpStream::connect(&self.addr).unwrap();
        write!(
            stream,
            "{method} {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\
             Content-Type: application/json\r\nContent-Length: {}\r\n\r\n{body}",
            body.len()
        )
        .unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).unwrap();
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let calls = head.lines().find_map(|line| line.strip_prefix("x-source-calls: ")?.parse().ok());
        (head["HTTP/1.1 ".len()..][..3].parse().unwrap(), calls, body.to_owned())
    }

    fn get(&self, city: &str) -> (u16, Option<u32>, String) {
        self.ask("GET", &format!("/celsius/{city}"), "")
    }

    fn terminate(&self) {
        let kill = ["-c", r#"kill -s TERM "$1""#, "sh", &self.process.id().to_string()];
        assert!(Command::new("sh").args(kill).status().unwrap().success());
    }
}

impl Drop for Service {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn serves(cache_url: &str) {
    let mut service = Service::start(cache_url);

    // A crowd, and one who comes later: the station is asked once.
    let crowd: Vec<_> = std::thread::scope(|scope| {
        let readers: Vec<_> = (0..8).map(|_| scope.spawn(|| service.get("oslo"))).collect();
        readers.into_iter().map(|reader| reader.join().unwrap()).collect()
    });
    for answer in crowd.into_iter().chain([service.get("oslo")]) {
        assert_eq!(answer, (200, Some(1), "-4.5".to_owned()));
    }

    // A change is seen by the next read.
    assert_eq!(service.ask("PUT", "/celsius/oslo", "2.25").0, 200);
    assert_eq!(service.get("oslo"), (200, Some(2), "2.25".to_owned()));
    assert_eq!(service.get("oslo"), (200, Some(2), "2.25".to_owned()));

    // What fails is not cached: a station that answers again is heard.
    assert_eq!(service.get("quito").0, 503);
    assert_eq!(service.ask("PUT", "/celsius/quito", "11").0, 200);
    assert_eq!(service.get("quito").2, "11.0");

    // What is not there, or not understood.
    assert_eq!(service.get("atlantis").0, 404);
    assert_eq!(service.ask("PUT", "/celsius/atlantis", "1").0, 404);
    assert_eq!(service.ask("PUT", "/celsius/oslo", "warm").0, 400);
    assert_eq!(service.ask("DELETE", "/celsius/oslo", "").0, 405);
    let (_, calls, value) = service.get("oslo");
    assert_eq!(value, "2.25");

    // Told to end while a station is being asked: the answer comes first.
    let late = std::thread::scope(|scope| {
        let late = scope.spawn(|| service.get("lima"));
        while service.get("oslo").1 == calls {}
        service.terminate();
        late.join().unwrap()
    });
    assert_eq!((late.0, late.2.as_str()), (200, "19.0"));
    assert!(service.process.wait().unwrap().success());
}

#[test]
fn it_serves_from_memory() {
    serves("memory://");
}

#[test]
fn it_serves_from_redis() {
    serves(&RedisServer::start().url());
}

#[test]
fn it_serves_from_memcached() {
    serves(&MemcachedServer::start().url());
}
