//! The start: what is wrong with the environment is one line that names the variable.

use std::net::TcpListener;

use super::support::App;

#[test]
fn what_cannot_be_read_is_named_in_one_line() {
    for (name, value) in [
        ("PORT", "http"),
        ("BIND", "localhost"),
        ("DATABASE_URL", "mysql://me:secret@host/shop"),
        ("SOURCE_DELAY", "soon"),
        ("LIVE", "maybe"),
        ("CACHE_BACKEND", "rocksdb"),
        ("CACHE_URL", "redis://me:secret@host:port"),
        ("CACHE_URL", "redis://me:secret@host?ttl=soon"),
        ("DATABASE_URL", "postgres://me:secret@127.0.0.1:1/shop"),
        ("DATABASE_URL", "sqlite:///no/such/directory/shop.db"),
    ] {
        let (status, said) = App::fail(&[("PORT", "0"), (name, value)]);
        assert_eq!(status.code(), Some(1), "{name}={value}");
        assert!(said.starts_with("actixsqlx: ") && said.contains(name), "{said}");
        assert!(said.lines().count() == 1 && !said.contains("secret"), "{said}");
    }
}

#[test]
fn a_server_that_is_not_named_is_named() {
    let (status, said) = App::fail(&[("PORT", "0"), ("CACHE_BACKEND", "memcached")]);
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("MEMCACHED_SERVERS"), "{said}");
}

#[test]
fn a_port_that_is_taken_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = taken.local_addr().unwrap().port().to_string();
    let (status, said) = App::fail(&[("PORT", &port)]);
    assert_eq!(status.code(), Some(1));
    assert!(said.contains("PORT") && said.contains(&port), "{said}");
}

#[test]
fn a_cache_that_is_not_there_keeps_nobody_from_starting() {
    let free = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let app = App::start(&[("CACHE_URL", &format!("redis://{free}"))]);
    assert_eq!(app.get("/users/1").good()["name"], "Ada Abe");
    let ready = app.get("/readyz");
    assert_eq!((ready.status, ready.json()["degraded"].as_bool()), (200, Some(true)));
}
