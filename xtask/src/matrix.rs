//! `cargo xtask matrix`: the tests of Redis, against one version of the server after the other.

mod outcome;

use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use outcome::Outcome;

use crate::servers::{self, Provided, Server};
use crate::{cargo, root, say};

/// A test program, and the part of a name that selects tests in it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Test {
    program: String,
    filter: Option<&'static str>,
}

impl Test {
    fn all_of(program: &str) -> Self {
        Self { program: program.to_owned(), filter: None }
    }
}

/// In the programs for every backend, these are the tests of Redis.
const SHARED: [(&str, &str); 1] = [("behaviour", "redis")];
/// The programs that are all about Redis begin with this; a new one joins by its name.
const OWN: &str = "redis_";
/// What `cargo xtask ci` runs of them.
const SHORT: [&str; 2] = ["behaviour", "redis_races"];

/// What became of one version.
#[derive(Debug)]
struct Row {
    name: &'static str,
    version: Option<String>,
    result: Result<usize, String>,
    took: Duration,
}

pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    run_on(&servers::named(arguments)?, &tests()?)
}

/// A short run on one Valkey, for `cargo xtask ci`.
pub(crate) fn valkey() -> Result<(), String> {
    run_on(&servers::named(&[servers::VALKEY.to_owned()])?, &shortened(tests()?)?)
}

fn tests() -> Result<Vec<Test>, String> {
    let directory = root().join("crates/cache-kit/tests");
    let entries =
        std::fs::read_dir(&directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let files: Vec<_> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    Ok(tests_in(&files))
}

fn tests_in(files: &[String]) -> Vec<Test> {
    let programs = files.iter().filter_map(|file| file.strip_suffix(".rs"));
    let mut own: Vec<_> = programs.filter(|program| program.starts_with(OWN)).collect();
    own.sort_unstable();
    let shared = SHARED.map(|(program, filter)| Test { program: program.to_owned(), filter: Some(filter) });
    shared.into_iter().chain(own.into_iter().map(Test::all_of)).collect()
}

fn shortened(mut tests: Vec<Test>) -> Result<Vec<Test>, String> {
    tests.retain(|test| SHORT.contains(&test.program.as_str()));
    if tests.len() == SHORT.len() { Ok(tests) } else { Err(format!("not all of {SHORT:?} are there")) }
}

fn run_on(servers: &[&'static Server], tests: &[Test]) -> Result<(), String> {
    build(tests)?;
    let rows: Vec<_> = servers.iter().map(|server| try_version(server, tests)).collect();
    say("");
    for row in &rows {
        say(shown(row));
    }
    let failed: Vec<_> = rows.iter().filter(|row| row.result.is_err()).map(|row| row.name).collect();
    if failed.is_empty() { Ok(()) } else { Err(format!("\nfailed: {}", failed.join(" "))) }
}

fn try_version(server: &Server, tests: &[Test]) -> Row {
    say(format_args!("\n== {}", server.name));
    let start = Instant::now();
    let provided = servers::provide(server);
    let version = provided.as_ref().ok().map(|provided| provided.version.clone());
    let result = provided.and_then(|provided| run_tests(&provided, tests));
    Row { name: server.name, version, result, took: start.elapsed() }
}

/// Builds once, so that the first version does not seem the slowest.
fn build(tests: &[Test]) -> Result<(), String> {
    let mut command = cargo_test();
    for test in tests {
        command.args(["--test", &test.program]);
    }
    match command.arg("--no-run").status() {
        Ok(status) if status.success() => Ok(()),
        Ok(status) => Err(format!("the tests were not built: {status}")),
        Err(error) => Err(format!("cargo did not start: {error}")),
    }
}

fn cargo_test() -> Command {
    // With all features, as `cargo xtask test` has built them.
    cargo(["test", "--workspace", "--all-features", "--locked"])
}

/// Runs all of them, also after a failure, and says how many passed.
fn run_tests(server: &Provided, tests: &[Test]) -> Result<usize, String> {
    let mut all = Outcome::default();
    let mut problems = Vec::new();
    for test in tests {
        match run_test(server, test) {
            Ok(outcome) => all.add(outcome),
            Err((outcome, problem)) => {
                // What a test program names as failed says more than its status.
                if outcome.failed.is_empty() {
                    problems.push(problem);
                }
                all.add(outcome);
            }
        }
    }
    problems.extend(all.failed);
    if problems.is_empty() {
        return Ok(all.passed);
    }
    Err(format!("{} passed, failed:\n    {}", all.passed, problems.join("\n    ")))
}

fn run_test(server: &Provided, test: &Test) -> Result<Outcome, (Outcome, String)> {
    let mut outcome = Outcome::of(&test.program);
    match watched(&mut command(server, test), &mut outcome) {
        Ok(()) if outcome.passed == 0 => {
            let problem = format!("{}: there was no test to run", test.program);
            Err((outcome, problem))
        }
        Ok(()) => Ok(outcome),
        Err(problem) => Err((outcome, format!("{}: {problem}", test.program))),
    }
}

fn command(server: &Provided, test: &Test) -> Command {
    let mut command = cargo_test();
    command.args(["--test", &test.program]).args(test.filter);
    command.env("CACHE_KIT_REDIS_SERVER", &server.program);
    // A running server, of whatever version, must not stand in for it.
    command.env_remove("CACHE_KIT_TEST_REDIS_URL");
    command
}

/// Shows what the command writes, and reads it.
fn watched(command: &mut Command, outcome: &mut Outcome) -> Result<(), String> {
    let child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
    let mut child = child.map_err(|error| format!("cargo did not start: {error}"))?;
    let mut lines = child.stdout.take().map(BufReader::new).ok_or("no output")?;
    let mut line = Vec::new();
    while lines.read_until(b'\n', &mut line).map_err(|error| error.to_string())? > 0 {
        let text = String::from_utf8_lossy(&line);
        let text = text.trim_end_matches(['\r', '\n']);
        say(text);
        outcome.line(text);
        line.clear();
    }
    let status = child.wait().map_err(|error| error.to_string())?;
    if status.success() { Ok(()) } else { Err(status.to_string()) }
}

fn shown(row: &Row) -> String {
    let (verdict, detail) = match &row.result {
        Ok(passed) => ("passed", format!("{passed} tests")),
        Err(problem) => ("FAILED", problem.clone()),
    };
    let version = row.version.as_deref().unwrap_or("-");
    format!("{:<11} {version:<14} {verdict} {:>7.1} s  {detail}", row.name, row.took.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(names: &[&str]) -> Vec<String> {
        names.iter().map(|&name| name.to_owned()).collect()
    }

    #[test]
    fn the_tests_of_redis_are_found_by_their_names() {
        let found = tests_in(&files(&[
            "redis_races.rs",
            "memcached_races.rs",
            "redis_cluster.rs",
            "behaviour.rs",
            "redis_golden",
            "processes.rs",
        ]));
        let behaviour = Test { program: "behaviour".into(), filter: Some("redis") };
        assert_eq!(found, [behaviour, Test::all_of("redis_cluster"), Test::all_of("redis_races")]);
    }

    #[test]
    fn the_short_run_is_complete_or_an_error() {
        let found = tests_in(&files(&["redis_pool.rs", "redis_races.rs"]));
        let programs: Vec<_> = shortened(found).unwrap().into_iter().map(|test| test.program).collect();
        assert_eq!(programs, SHORT);
        shortened(tests_in(&files(&["redis_pool.rs"]))).unwrap_err();
    }

    #[test]
    fn the_server_under_test_is_named_to_the_tests_and_no_other() {
        let server = Provided { program: "/there/valkey-server".into(), version: "Valkey 8.1.8".into() };
        let command = command(&server, &Test { program: "behaviour".into(), filter: Some("redis") });
        let variables: Vec<_> = command.get_envs().collect();
        assert!(
            variables.contains(&("CACHE_KIT_REDIS_SERVER".as_ref(), Some("/there/valkey-server".as_ref())))
        );
        assert!(variables.contains(&("CACHE_KIT_TEST_REDIS_URL".as_ref(), None)));
        let words: Vec<_> = command.get_args().filter_map(|word| word.to_str()).collect();
        assert!(words.ends_with(&["--test", "behaviour", "redis"]), "{words:?}");
    }

    #[test]
    fn what_the_tests_write_is_read_and_a_bad_status_is_a_failure() {
        let mut outcome = Outcome::of("x");
        let script = "echo 'test a ... FAILED'; printf 'test result: FAILED. 2 passed; 1 failed'; exit 3";
        let problem = watched(Command::new("sh").args(["-c", script]), &mut outcome).unwrap_err();
        assert!(problem.contains('3'), "{problem}");
        assert_eq!((outcome.passed, outcome.failed), (2, vec!["x a".to_owned()]));
    }

    #[test]
    fn a_row_shows_version_verdict_and_seconds() {
        let mut row = Row {
            name: "valkey-8.1",
            version: Some("Valkey 8.1.8".into()),
            result: Ok(42),
            took: Duration::from_millis(1_250),
        };
        assert_eq!(shown(&row), "valkey-8.1  Valkey 8.1.8   passed     1.2 s  42 tests");
        (row.version, row.result) = (None, Err("cannot be had".into()));
        assert_eq!(shown(&row), "valkey-8.1  -              FAILED     1.2 s  cannot be had");
    }
}
