//! `cargo xtask tidy`: the invariants that a search can hold, so that no document has to be believed.

mod modules;
mod rules;
mod tree;

use std::fmt;
use std::path::Path;

use crate::{root, say};

/// A place that breaks a rule.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Violation {
    path: String,
    line: usize,
    what: String,
}

impl Violation {
    /// `line` counts from one.
    fn new(path: &str, line: usize, what: impl Into<String>) -> Self {
        Self { path: path.to_owned(), line, what: what.into() }
    }
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}: {}", self.path, self.line, self.what)
    }
}

pub(crate) fn run() -> Result<(), String> {
    let root = root();
    let mut files = Vec::new();
    collect(&root, &root, &mut files).map_err(|error| format!("reading {}: {error}", root.display()))?;
    files.sort();
    let mut found: Vec<Violation> = files.iter().flat_map(|(path, text)| check(path, text)).collect();
    let text_of = |path: &str| files.iter().find(|(name, _)| name == path).map(|(_, text)| text.as_str());
    found.extend(tree::check(text_of, |path| root.join(path).exists()));

    for violation in &found {
        say(violation);
    }
    say(format_args!("{} text files, {} violations", files.len(), found.len()));
    if found.is_empty() { Ok(()) } else { Err(format!("{} violations of the rules above", found.len())) }
}

/// The rules that look at one file.
fn check(path: &str, text: &str) -> Vec<Violation> {
    [modules::check, rules::check].into_iter().flat_map(|rules| rules(path, text)).collect()
}

/// Collects the text files below `dir`, with `/`-separated names relative to `root`, but nothing that is built.
fn collect(root: &Path, dir: &Path, files: &mut Vec<(String, String)>) -> std::io::Result<()> {
    for entry in std::fs::read_dir(dir)? {
        let entry = entry?;
        let (name, path) = (entry.file_name(), entry.path());
        // In a work tree beside the repository it is a file.
        if name == ".git" {
            continue;
        }
        // A link could lead out of the tree; what it links to inside is read there.
        if entry.file_type()?.is_dir() {
            if name != "target" {
                collect(root, &path, files)?;
            }
        } else if entry.file_type()?.is_file()
            && let Ok(text) = String::from_utf8(std::fs::read(&path)?)
            && let Ok(relative) = path.strip_prefix(root)
        {
            let parts: Vec<_> = relative.iter().map(|part| part.to_string_lossy()).collect();
            files.push((parts.join("/"), text));
        }
    }
    Ok(())
}

/// The lines with their numbers, without those that are only a comment: an example in the documentation is no
/// dependency.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, &str)> {
    let lines = text.lines().enumerate().map(|(index, line)| (index + 1, line));
    lines.filter(|(_, line)| !line.trim_start().starts_with("//"))
}

/// True when `word` occurs in `line` and is not a part of a longer identifier. The ends of `word` that are no
/// identifier characters are matched as they are.
fn has_word(line: &str, word: &str) -> bool {
    let part = |character: Option<char>| character.is_some_and(|c| c.is_alphanumeric() || c == '_');
    line.match_indices(word).any(|(start, _)| {
        let (before, after) = (&line[..start], &line[start + word.len()..]);
        let starts_inside = part(word.chars().next()) && part(before.chars().next_back());
        let ends_inside = part(word.chars().next_back()) && part(after.chars().next());
        !starts_inside && !ends_inside
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violation_can_be_clicked() {
        assert_eq!(Violation::new("src/lib.rs", 3, "bad").to_string(), "src/lib.rs:3: bad");
    }

    #[test]
    fn words_are_whole() {
        assert!(has_word("let x: RedisBackend = y;", "RedisBackend"));
        assert!(!has_word("let x: MyRedisBackend2 = y;", "RedisBackend"));
        assert!(has_word("tokio::spawn(x)", "tokio::"));
        assert!(!has_word("my_tokio::spawn(x)", "tokio::"));
    }

    #[test]
    fn what_is_built_is_not_read() {
        let dir = std::env::temp_dir().join(format!("cache-kit-xtask-tidy-{}", std::process::id()));
        for (path, bytes) in [
            ("a/x.rs", &b"x"[..]),
            ("target/y.rs", b"y"),
            (".git/z", b"z"),
            ("a/.git", b"z"),
            ("b.bin", b"\xff"),
        ] {
            std::fs::create_dir_all(dir.join(path).parent().unwrap()).unwrap();
            std::fs::write(dir.join(path), bytes).unwrap();
        }
        let mut files = Vec::new();
        collect(&dir, &dir, &mut files).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
        assert_eq!(files, [("a/x.rs".to_owned(), "x".to_owned())]);
    }
}
