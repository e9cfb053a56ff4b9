//! `cargo xtask book`: builds the book, and holds what it says against the tree.

mod claims;
mod links;
mod markdown;
mod outputs;
mod pages;

use std::fmt;
use std::path::Path;
use std::process::Command;

use crate::{root, say, tools};

/// A Markdown file: its path, relative to the root and with `/`, and its text.
#[derive(Debug, Clone)]
struct Page {
    path: String,
    text: String,
}

/// A place in a page that is not as it should be.
#[derive(Debug, PartialEq, Eq)]
struct Problem {
    path: String,
    /// From one.
    line: usize,
    what: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

/// What to do with outputs that are not as the programs print them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Paste {
    /// They are problems.
    Nothing,
    /// They are written anew.
    Outputs,
    /// So are figures that were measured, which no two runs agree about.
    Measurements,
}

pub(crate) fn run(arguments: &[String]) -> Result<(), String> {
    let paste = match arguments {
        [] => Paste::Nothing,
        [option] if option == "--paste" => Paste::Outputs,
        [option] if option == "--measure" => Paste::Measurements,
        _ => return Err(format!("not understood: {}", arguments.join(" "))),
    };
    check(paste)?;
    build()
}

/// Everything but the build.
pub(crate) fn check(paste: Paste) -> Result<(), String> {
    let root = root();
    let read = |path: &str| std::fs::read_to_string(root.join(path)).ok();
    let mut pages = pages::collect(&root)?;
    let mut problems = outputs::settle(&mut pages, paste, &root)?;
    if paste == Paste::Nothing {
        problems.extend(claims::check(&pages));
    } else {
        claims::write(&mut pages);
    }
    problems.extend(pages::check(&pages, read("docs/lib.rs").as_deref(), read));
    problems.extend(links::check(&pages, read, |path| root.join(path).exists()));
    if paste != Paste::Nothing {
        save(&root, &pages)?;
    }
    for problem in &problems {
        say(problem);
    }
    say(format_args!("{} pages, {} problems", pages.len(), problems.len()));
    if problems.is_empty() { Ok(()) } else { Err(format!("{} problems in the pages above", problems.len())) }
}

fn save(root: &Path, pages: &[Page]) -> Result<(), String> {
    for Page { path, text } in pages {
        let file = root.join(path);
        // What is as it was keeps its time.
        if std::fs::read_to_string(&file).is_ok_and(|old| old == *text) {
            continue;
        }
        std::fs::write(&file, text).map_err(|error| format!("{path}: {error}"))?;
        say(format_args!("{path} is written anew"));
    }
    Ok(())
}

fn build() -> Result<(), String> {
    let mut command = Command::new(tools::provide(&tools::MDBOOK)?);
    command.current_dir(root()).args(["build", "docs"]);
    let output = command.output().map_err(|error| format!("mdbook did not start: {error}"))?;
    let told = String::from_utf8_lossy(&output.stderr);
    if !output.status.success() || told.contains("WARN") || told.contains("ERROR") {
        return Err(format!("mdbook build docs: {}\n{told}", output.status));
    }
    say("the book is in target/book/index.html");
    Ok(())
}
