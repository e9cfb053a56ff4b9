//! `cargo xtask ci`: what must hold beside the tests, cheapest first.

use std::process::Command;

use crate::step::Steps;
use crate::{book, cargo, features, matrix, metadata, model, root, tidy, tools};

pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    let mut steps = Steps::only(arguments);

    steps.command("fmt", &mut cargo(["fmt", "--all", "--check"]))?;
    steps.check("tidy", tidy::run)?;
    lints(&mut steps)?;
    each_feature(&mut steps)?;
    let doc = ["doc", "--workspace", "--lib", "--no-deps", "--all-features", "--locked"];
    steps.command("doc", cargo(doc).env("RUSTDOCFLAGS", "-D warnings"))?;
    steps.check("book", || book::run(&[]))?;
    examples(&mut steps)?;
    steps.check("tree", metadata::core_has_no_client)?;
    steps.check("rust-version", metadata::rust_version_is_true)?;
    deny(&mut steps)?;
    bench(&mut steps)?;
    databases(&mut steps)?;
    model::check(&mut steps)?;
    // Last: it is the one that not every machine can do.
    steps.check("valkey", matrix::valkey)?;
    steps.finish()
}

fn lints(steps: &mut Steps) -> Result<(), String> {
    let all =
        ["clippy", "--workspace", "--all-targets", "--all-features", "--locked", "--", "-D", "warnings"];
    steps.command("clippy", &mut cargo(all))?;
    let bare = ["clippy", "-p", "cache-kit", "--no-default-features", "--locked", "--", "-D", "warnings"];
    steps.command("clippy without features", &mut cargo(bare))
}

fn each_feature(steps: &mut Steps) -> Result<(), String> {
    let path = root().join("crates/cache-kit/Cargo.toml");
    let manifest = std::fs::read_to_string(&path).map_err(|error| format!("{}: {error}", path.display()))?;
    for feature in features::of(&manifest) {
        // Clippy and not `check`: with warnings denied only here, what the steps before compiled is used again.
        let bare = ["clippy", "-p", "cache-kit", "--lib", "--locked", "--no-default-features", "--features"];
        let mut command = cargo(bare);
        command.arg(&feature).args(["--", "-D", "warnings"]);
        steps.command(&format!("features {feature}"), &mut command)?;
    }
    Ok(())
}

/// Runs each program under `examples/`, once for each line of the `ci-args` file beside its manifest, with the words
/// of the line as arguments; lines that are empty or start with `#` are skipped. Without the file: once, without
/// arguments.
fn examples(steps: &mut Steps) -> Result<(), String> {
    if !steps.wants("examples") || !root().join("examples").is_dir() {
        return Ok(());
    }
    // As the tests have built them: what they measure is not looked at here.
    let build = ["build", "--workspace", "--all-features", "--bins", "--examples", "--locked"];
    steps.command("examples are built", &mut cargo(build))?;
    for example in metadata::examples()? {
        let runs = match std::fs::read_to_string(example.directory.join("ci-args")) {
            Ok(text) => lines_of_arguments(&text),
            Err(_) => vec![Vec::new()],
        };
        for arguments in runs {
            let mut command = Command::new(&example.program);
            command.current_dir(root()).args(arguments);
            steps.command(&format!("examples {}", example.name), &mut command)?;
        }
    }
    Ok(())
}

fn lines_of_arguments(text: &str) -> Vec<Vec<String>> {
    let lines = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#'));
    lines.map(|line| line.split_whitespace().map(str::to_owned).collect()).collect()
}

/// Advisories are not checked: their database lives outside the registry, and a build must not change with it.
fn deny(steps: &mut Steps) -> Result<(), String> {
    if !steps.wants("deny") {
        return Ok(());
    }
    let mut check = Command::new(tools::provide(&tools::CARGO_DENY)?);
    check.current_dir(root()).args(["--all-features", "--locked", "check", "bans", "licenses", "sources"]);
    steps.command("deny", &mut check)
}

/// The benchmarks and their peers are a workspace of their own; here they only have to compile.
fn bench(steps: &mut Steps) -> Result<(), String> {
    if !root().join("bench/Cargo.toml").is_file() {
        return Ok(());
    }
    let mut check = cargo(["check", "--manifest-path", "bench/Cargo.toml", "--all-targets", "--locked"]);
    steps.command("bench", check.env("CARGO_TARGET_DIR", root().join("target/bench")))
}

/// The book's snippets for databases are a workspace of their own: drivers that nobody else needs.
fn databases(steps: &mut Steps) -> Result<(), String> {
    let mut test = cargo(["test", "--manifest-path", "docs/databases/Cargo.toml", "--locked"]);
    steps.command("databases", test.env("CARGO_TARGET_DIR", root().join("target/databases")))
}

#[cfg(test)]
mod tests {
    use super::lines_of_arguments;

    #[test]
    fn each_line_of_ci_args_is_one_run() {
        let text = "# quick\n--rounds 2\n\n  --rounds 3 --quiet\n";
        assert_eq!(lines_of_arguments(text), [vec!["--rounds", "2"], vec!["--rounds", "3", "--quiet"]]);
        assert!(lines_of_arguments("# nothing to run\n").is_empty());
    }
}
