//! What happens to the servers when a test goes wrong.

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use cache_kit_test_support::{MemcachedServer, RedisServer, is_running};

const HOLDER: &str = env!("CARGO_BIN_EXE_hold-server");
const LIMIT: Duration = Duration::from_secs(10);

fn message_of(panicking: impl FnOnce() + std::panic::UnwindSafe) -> String {
    let Err(payload) = std::panic::catch_unwind(panicking) else { panic!("it did not panic") };
    payload.downcast_ref::<String>().cloned().unwrap_or_else(|| "no text".to_owned())
}

#[test]
fn a_killed_test_process_leaves_no_server_and_no_directory_behind() {
    for kind in ["redis", "memcached", "postgres"] {
        let mut owner = Command::new(HOLDER).args([kind, "hold"]).stdout(Stdio::piped()).spawn().unwrap();
        let mut lines = BufReader::new(owner.stdout.take().unwrap()).lines();
        let pid: u32 = lines.next().unwrap().unwrap().parse().unwrap();
        let dir = lines.next().unwrap().unwrap();
        assert!(is_running(pid) && Path::new(&dir).exists());

        owner.kill().unwrap();
        owner.wait().unwrap();

        let deadline = Instant::now() + LIMIT;
        while is_running(pid) || Path::new(&dir).exists() {
            assert!(Instant::now() < deadline, "{kind} (pid {pid}) outlives its owner, or {dir} does");
            std::thread::sleep(Duration::from_millis(5));
        }
    }
}

#[test]
fn a_panicking_test_stops_its_servers() {
    let pids = std::sync::Mutex::new(Vec::new());
    let message = message_of(std::panic::AssertUnwindSafe(|| {
        let (redis, memcached) = (RedisServer::start(), MemcachedServer::start());
        pids.lock().unwrap().extend([redis.pid(), memcached.pid()]);
        panic!("{}", "the test fails".to_owned());
    }));
    assert_eq!(message, "the test fails");
    for pid in pids.lock().unwrap().iter() {
        assert!(!is_running(*pid));
    }
}

#[test]
fn a_panicking_test_shows_what_its_server_said() {
    let output = Command::new(HOLDER).args(["redis", "panic"]).output().unwrap();
    let errors = String::from_utf8(output.stderr).unwrap();
    assert!(errors.contains("log of redis-server on port"), "{errors}");
    assert!(errors.contains("Ready to accept connections"), "{errors}");
}

#[test]
fn a_missing_program_says_what_to_install_and_which_variables_help() {
    for (kind, variable, [apt, dnf, brew]) in [
        ("redis", "CACHE_KIT_REDIS_SERVER", ["redis-server", "redis", "redis"]),
        ("memcached", "CACHE_KIT_MEMCACHED_BIN", ["memcached"; 3]),
        ("postgres", "CACHE_KIT_POSTGRES_BIN", ["postgresql", "postgresql-server", "postgresql@17"]),
    ] {
        let output =
            Command::new(HOLDER).args([kind, "hold"]).env(variable, "/nonexistent/program").output().unwrap();
        let message = String::from_utf8(output.stderr).unwrap();
        assert!(!output.status.success());
        for part in [
            "there is no program /nonexistent/program",
            &format!("apt-get install {apt} "),
            &format!("dnf install {dnf} "),
            &format!("brew install {brew}\n"),
            "cargo xtask test --install",
            variable,
            "CACHE_KIT_TEST_REDIS_URL",
            "CACHE_KIT_TEST_MEMCACHED",
        ] {
            assert!(message.contains(part), "{part:?} is not in {message}");
        }
    }
}

#[test]
fn a_server_that_refuses_its_arguments_fails_with_its_own_words() {
    let message = message_of(|| drop(RedisServer::builder().arg("--no-such-option").arg("1").start()));
    assert!(message.contains("no-such-option"), "{message}");
    let message = message_of(|| drop(MemcachedServer::builder().arg("-m").arg("none").start()));
    assert!(message.contains("memcached"), "{message}");
}

#[test]
fn a_program_that_never_serves_is_an_error_and_not_a_hang() {
    let message = message_of(|| drop(RedisServer::builder().program("/bin/false").start()));
    assert!(message.contains("ended at once"), "{message}");
}
