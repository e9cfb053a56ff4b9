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
    steps.command("test", cargo(all).args(rest))?;
    steps.finish()
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
