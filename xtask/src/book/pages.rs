//! Which pages there are, and that each can be found.

use std::path::Path;

use super::{Page, Problem, markdown};

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

/// Each page of the book is in its table of contents, and its snippets are compiled.
pub(super) fn check(pages: &[Page], library: Option<&str>) -> Vec<Problem> {
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
        let has_code = page.text.lines().any(|line| line.trim_start().starts_with("```rust"));
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
    }
    problems
}

#[cfg(test)]
mod tests {
    use super::*;

    fn page(path: &str, text: &str) -> Page {
        Page { path: path.to_owned(), text: text.to_owned() }
    }

    #[test]
    fn a_page_is_listed_and_its_snippets_are_compiled() {
        let pages = [
            page(SUMMARY, "- [A](a.md)\n- [B](./b.md)"),
            page("docs/src/a.md", "```rust\nfn a() {}\n```"),
            page("docs/src/b.md", "```text\n```"),
        ];
        assert_eq!(check(&pages, Some("#[doc = include_str!(\"src/a.md\")]")), []);
        assert_eq!(check(&pages, Some("")).len(), 1);
        let hidden = [page(SUMMARY, ""), page("docs/src/c.md", "```rust,ignore\n```")];
        assert_eq!(check(&hidden, Some("include_str!(\"src/c.md\")")).len(), 2);
    }

    #[test]
    fn the_pages_of_the_tree_are_found() {
        let pages = collect(&crate::root()).unwrap();
        for path in ["README.md", "CHANGELOG.md", SUMMARY] {
            assert!(pages.iter().any(|page| page.path == path), "{path}");
        }
    }
}
