//! Which pages there are, and that each can be found.

use std::path::Path;

use super::{Page, Problem, links, markdown};

/// The book's own.
const BOOK: &str = "docs/src/";
const SUMMARY: &str = "docs/src/SUMMARY.md";
/// Folders that are looked through, beside the Markdown files in the root.
const FOLDERS: [&str; 4] = ["docs/src", "examples", "crates", "bench"];

/// All pages, in order.
pub(super) fn collect(root: &Path) -> Result<Vec<Page>, String> {
    let mut pages = Vec::new();
    read(root, "", false, &mut pages)?;
    for folder in FOLDERS {
        read(root, folder, true, &mut pages)?;
    }
    pages.sort_by(|a, b| a.path.cmp(&b.path));
    Ok(pages)
}

fn read(root: &Path, folder: &str, deep: bool, pages: &mut Vec<Page>) -> Result<(), String> {
    let failed = |error: std::io::Error| format!("{folder}: {error}");
    for entry in std::fs::read_dir(root.join(folder)).map_err(failed)? {
        let entry = entry.map_err(failed)?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let path = if folder.is_empty() { name.clone() } else { format!("{folder}/{name}") };
        if entry.file_type().map_err(failed)?.is_dir() {
            if deep && name != "target" && name != "node_modules" {
                read(root, &path, deep, pages)?;
            }
        } else if name.ends_with(".md") {
            let text = std::fs::read_to_string(entry.path()).map_err(failed)?;
            pages.push(Page { path, text });
        }
    }
    Ok(())
}

/// Each page of the book is in its table of contents, and its snippets are compiled: with the page, or in the file that
/// they are included from.
pub(super) fn check(
    pages: &[Page],
    library: Option<&str>,
    read: impl Fn(&str) -> Option<String>,
) -> Vec<Problem> {
    let Some(summary) = pages.iter().find(|page| page.path == SUMMARY) else {
        return vec![Problem {
            path: SUMMARY.to_owned(),
            line: 1,
            what: "there is no table of contents".to_owned(),
        }];
    };
    let listed: Vec<_> = markdown::links(&summary.text).iter().map(|link| link.target.to_owned()).collect();
    let mut problems = Vec::new();
    for page in pages.iter().filter(|page| page.path.starts_with(BOOK) && page.path != SUMMARY) {
        let name = &page.path[BOOK.len()..];
        let mut complain =
            |what: &str| problems.push(Problem { path: page.path.clone(), line: 1, what: what.to_owned() });
        if !listed.iter().any(|target| target.trim_start_matches("./") == name) {
            complain("the page is not in SUMMARY.md");
        }
        let blocks = markdown::blocks(&page.text);
        let has_code = blocks.iter().any(|block| block.info.starts_with("rust") && !is_included(block));
        let included = format!("include_str!(\"src/{name}\")");
        if has_code && !library.is_some_and(|library| library.contains(&included)) {
            complain("its snippets are not compiled: include the page in docs/lib.rs");
        }
        if let Some((line, _, _)) = markdown::lines(&page.text)
            .find(|(_, line, _)| line.trim_start().starts_with("```rust") && line.contains("ignore"))
        {
            problems.push(Problem {
                path: page.path.clone(),
                line,
                what: "a snippet is not compiled".to_owned(),
            });
        }
        for block in &blocks {
            for (line, target) in (block.line + 1..).zip(&block.inside) {
                let Some(target) = include(target) else { continue };
                if let Err(what) = included_is_there(&page.path, target, &read) {
                    problems.push(Problem { path: page.path.clone(), line, what });
                }
            }
        }
    }
    problems
}

/// True of a block that has nothing of its own.
fn is_included(block: &markdown::Block<'_>) -> bool {
    let mut lines = block.inside.iter().filter(|line| !line.trim().is_empty()).peekable();
    lines.peek().is_some() && lines.all(|line| include(line).is_some())
}

/// What a line includes: a path, and perhaps an anchor behind a colon.
fn include(line: &str) -> Option<&str> {
    line.trim().strip_prefix("{{#include ")?.strip_suffix("}}").map(str::trim)
}

/// The build of the book says nothing of an anchor that is missing, and includes nothing.
fn included_is_there(page: &str, target: &str, read: impl Fn(&str) -> Option<String>) -> Result<(), String> {
    let (file, anchor) = target.split_once(':').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
    let path = links::beside(page, file);
    let Some(text) = read(&path) else { return Err(format!("there is no {path}")) };
    let Some(anchor) = anchor else { return Ok(()) };
    let is_there = |mark: &str| {
        let mark = format!("{mark}: {anchor}");
        text.lines().any(|line| line.trim_start().trim_start_matches(['/', ' ']) == mark)
    };
    let is_whole = is_there("ANCHOR") && is_there("ANCHOR_END");
    if is_whole { Ok(()) } else { Err(format!("{path} has no anchor {anchor} that begins and ends")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(path: &str, text: &str) -> Page {
        Page { path: path.to_owned(), text: text.to_owned() }
    }

    fn none(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn a_page_is_listed_and_its_snippets_are_compiled() {
        let pages = [
            page(SUMMARY, "- [A](a.md)\n- [B](./b.md)"),
            page("docs/src/a.md", "```rust\nfn a() {}\n```"),
            page("docs/src/b.md", "```text\n```"),
        ];
        assert_eq!(check(&pages, Some("#[doc = include_str!(\"src/a.md\")]"), none), []);
        assert_eq!(check(&pages, Some(""), none).len(), 1);
        let hidden = [page(SUMMARY, ""), page("docs/src/c.md", "```rust,ignore\n```")];
        assert_eq!(check(&hidden, Some("include_str!(\"src/c.md\")"), none).len(), 2);
    }

    #[test]
    fn a_snippet_that_is_included_is_compiled_where_it_is_from() {
        let problems = |text: &str| {
            let pages = [page(SUMMARY, "- [A](a.md)"), page("docs/src/a.md", text)];
            let file = "x\n    // ANCHOR: one\ny\n    // ANCHOR_END: one\n// ANCHOR: two\n";
            let read = |path: &str| (path == "docs/db/x.rs").then(|| file.to_owned());
            check(&pages, None, read).iter().map(ToString::to_string).collect::<Vec<_>>()
        };
        let none: [&str; 0] = [];
        assert_eq!(problems("```rust\n{{#include ../db/x.rs:one}}\n\n{{#include ../db/x.rs}}\n```"), none);
        assert_eq!(
            problems("\n```rust\n{{#include ../db/y.rs:one}}\n```"),
            ["docs/src/a.md:3: there is no docs/db/y.rs"]
        );
        for anchor in ["two", "on", "three"] {
            assert_eq!(
                problems(&format!("```rust\n{{{{#include ../db/x.rs:{anchor}}}}}\n```")),
                [format!("docs/src/a.md:2: docs/db/x.rs has no anchor {anchor} that begins and ends")]
            );
        }
        for own in ["```rust\n```", "```rust\n{{#include ../db/x.rs:one}}\nlet x = 1;\n```"] {
            assert_eq!(
                problems(own),
                ["docs/src/a.md:1: its snippets are not compiled: include the page in docs/lib.rs"]
            );
        }
    }

    #[test]
    fn the_pages_of_the_tree_are_found() {
        let pages = collect(&crate::root()).unwrap();
        for path in ["README.md", "CHANGELOG.md", SUMMARY] {
            assert!(pages.iter().any(|page| page.path == path), "{path}");
        }
    }
}
