//! The end: what is under way is answered, and the exit code is 0.

use std::net::TcpStream;
use std::thread;
use std::time::{Duration, Instant};

use super::support::{App, Kept, until};

/// As many as there are connections to the database.
const READERS: usize = 8;

fn ends_well_after(signal: &str) {
    let app = App::start(&[("SOURCE_DELAY", "400ms")]);
    let answers: Vec<_> = thread::scope(|scope| {
        let reading: Vec<_> = (1..=READERS).map(|id| (id, scope.spawn(move_read(&app, id)))).collect();
        until("all loads are under way", || app.metric("cache_kit_loads_under_way") == READERS as u64);
        app.signal(signal);
        reading.into_iter().map(|(id, read)| (id, read.join().unwrap())).collect()
    });
    for (id, answer) in answers {
        assert_eq!(answer.good()["id"], id);
    }
    let addr = app.addr().to_owned();
    let (status, said) = app.wait();
    assert_eq!(status.code(), Some(0), "{said}");
    assert!(TcpStream::connect(addr).is_err());
}

fn move_read(app: &App, id: usize) -> impl FnOnce() -> super::support::Reply + '_ {
    move || app.get(&format!("/products/{id}"))
}

#[test]
fn sigterm_lets_what_is_under_way_be_answered() {
    ends_well_after("TERM");
}

#[test]
fn ctrl_c_does_the_same() {
    ends_well_after("INT");
}

#[test]
fn a_connection_without_a_request_holds_nobody_up() {
    let app = App::start(&[]);
    let mut idle = Kept::open(app.addr()).unwrap();
    idle.get("/healthz").unwrap().good();
    let begun = Instant::now();
    app.signal("TERM");
    assert_eq!(app.wait().0.code(), Some(0));
    // Half of what answers may take.
    assert!(begun.elapsed() < Duration::from_secs(5), "{:?}", begun.elapsed());
    assert!(idle.get("/healthz").is_err());
}
