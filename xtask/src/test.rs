//! `cargo xtask test`: every test, with nothing but cargo and what `--install` fetches.

use crate::step::Steps;
use crate::{cargo, install, say};

pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    let end = arguments.iter().position(|argument| argument == "--").unwrap_or(arguments.len());
    let (options, rest) = (&arguments[..end], arguments.get(end + 1..).unwrap_or_default());
    let install = match options {
        [] => false,
        [option] if option == "--install" => true,
        _ => return Err(format!("not understood: {}", options.join(" "))),
    };
    provide(install)?;

    let mut steps = Steps::default();
    // Without a choice of targets this is units, integration tests and doctests, and it builds the examples.
    let all = ["test", "--workspace", "--all-features", "--locked"];
    let mut test = cargo(all);
    if std::env::var_os(THREADS).is_none() {
        test.env(THREADS, threads().to_string());
    }
    steps.command("test", test.args(rest))?;
    steps.finish()
}

/// How many tests of a program run at a time; read by the test harness.
const THREADS: &str = "RUST_TEST_THREADS";

/// Two for each core, where the harness has one: tests against servers wait for lifetimes and deadlines, and compute little.
fn threads() -> usize {
    2 * std::thread::available_parallelism().map_or(2, usize::from)
}

fn provide(install: bool) -> Result<(), String> {
    let missing = install::missing();
    if missing.is_empty() {
        return Ok(());
    }
    if !install {
        return Err(install::advice(&missing));
    }
    install::install(&missing)?;
    let missing = install::missing();
    if missing.is_empty() {
        say("what the tests need is installed");
        Ok(())
    } else {
        Err(format!("installed, but still:\n{}", install::advice(&missing)))
    }
}
