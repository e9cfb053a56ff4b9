//! A PostgreSQL, which differs from a cache server in what it keeps and in how many processes it is.

use std::time::{Duration, Instant};

use cache_kit_test_support::{PostgresServer, is_running};

const SHORT: Duration = Duration::from_millis(300);
const LONG: Duration = Duration::from_secs(10);

#[test]
fn sql_is_answered_and_an_error_is_one() {
    let server = PostgresServer::start();
    assert_eq!(server.url(), format!("postgres://postgres@127.0.0.1:{}", server.port()));
    assert_eq!(server.command("SELECT 40 + 2"), "42");
    assert_eq!(server.command("SELECT n, NULL, 'a' FROM generate_series(1, 2) n"), "1||a\n2||a");
    assert_eq!(server.command("SHOW server_encoding"), "UTF8");
    let error = server.try_command("SELECT * FROM nothing", LONG).unwrap_err();
    assert_eq!(error.to_string(), "relation \"nothing\" does not exist");
}

#[test]
fn arguments_reach_the_server_and_two_servers_share_nothing() {
    let one = PostgresServer::builder().arg("-c").arg("max_connections=17").start();
    assert_eq!(one.command("SHOW max_connections"), "17");
    let two = PostgresServer::start();
    one.command("CREATE TABLE here (n int)");
    assert!(two.try_command("SELECT * FROM here", LONG).is_err());
}

#[test]
fn a_killed_server_comes_back_on_its_port_with_what_was_committed() {
    let server = PostgresServer::start();
    let (port, pid) = (server.port(), server.pid());
    server.command("CREATE TABLE kept (n int)");
    server.command("INSERT INTO kept VALUES (7)");
    server.kill();
    assert!(!server.is_alive() && !is_running(pid) && !server.answers(SHORT));
    server.restart();
    assert_eq!(server.port(), port);
    assert_ne!(server.pid(), pid);
    assert_eq!(server.command("SELECT n FROM kept"), "7");
}

#[test]
fn a_killed_server_takes_the_processes_of_its_connections_along() {
    let server = PostgresServer::start();
    std::thread::scope(|scope| {
        let sleeping = scope.spawn(|| server.try_command("SELECT pg_sleep(60)", LONG));
        let asleep = "SELECT pid FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
        let begun = Instant::now();
        let pid: u32 = loop {
            if let Ok(pid) = server.command(asleep).parse() {
                break pid;
            }
            assert!(begun.elapsed() < LONG, "nobody sleeps");
            std::thread::sleep(Duration::from_millis(5));
        };
        assert!(is_running(pid));
        server.kill();
        assert!(!is_running(pid));
        assert!(sleeping.join().unwrap().is_err());
    });
}

#[test]
fn a_paused_server_takes_no_connection_and_one_that_is_dropped_is_gone() {
    for pause in [true, false] {
        let server = PostgresServer::start();
        let (pid, dir) = (server.pid(), server.dir().to_owned());
        if pause {
            server.pause();
            assert!(server.is_alive() && !server.answers(SHORT));
            server.resume();
            assert!(server.answers(LONG));
            server.pause();
        }
        drop(server);
        assert!(!is_running(pid) && !dir.exists());
    }
}

fn message(start: impl FnOnce() -> PostgresServer + std::panic::UnwindSafe) -> String {
    let Err(payload) = std::panic::catch_unwind(start).map(drop) else { panic!("it did not panic") };
    payload.downcast_ref::<String>().cloned().unwrap_or_default()
}

#[test]
fn a_server_that_refuses_its_arguments_fails_with_its_own_words() {
    let said = message(|| PostgresServer::builder().arg("-c").arg("no_such_setting=1").start());
    assert!(said.contains("no_such_setting"), "{said}");
}

#[test]
fn a_program_without_the_one_that_makes_its_directory_is_an_error_in_words() {
    let said = message(|| PostgresServer::builder().program("/bin/sh").start());
    assert!(said.contains("there is no initdb beside /bin/sh"), "{said}");
}
