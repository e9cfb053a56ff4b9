//! Links that lead somewhere: to pages, to places in them, and to tests.

use super::markdown::{Link, anchors, links};
use super::{Page, Problem};

/// Links to the sources are written so, for they are read outside of the tree as well.
const TREE: [&str; 2] = [
    "https://github.com/megamsys/cache-kit.rs/blob/main/",
    "https://github.com/megamsys/cache-kit.rs/tree/main/",
];

pub(super) fn check(
    pages: &[Page],
    read: impl Fn(&str) -> Option<String>,
    exists: impl Fn(&str) -> bool,
) -> Vec<Problem> {
    let mut problems = Vec::new();
    for page in pages {
        for link in links(&page.text) {
            if let Err(what) = follow(page, &link, pages, &read, &exists) {
                problems.push(Problem { path: page.path.clone(), line: link.line, what });
            }
        }
    }
    problems
}

fn follow(
    page: &Page,
    link: &Link<'_>,
    pages: &[Page],
    read: impl Fn(&str) -> Option<String>,
    exists: impl Fn(&str) -> bool,
) -> Result<(), String> {
    let target = link.target;
    if let Some(path) = TREE.iter().find_map(|prefix| target.strip_prefix(prefix)) {
        let path = path.split('#').next().unwrap_or_default();
        if !exists(path) {
            return Err(format!("there is no {path}"));
        }
        return function_is_there(link.text, path, &read);
    }
    // Other hosts are not asked, and what has no slash or dot is a link of rustdoc.
    if target.contains("://") || target.starts_with("mailto:") || is_rustdoc(page, target) {
        return Ok(());
    }
    let (file, anchor) = target.split_once('#').map_or((target, None), |(file, anchor)| (file, Some(anchor)));
    let path = if file.is_empty() { page.path.clone() } else { beside(&page.path, file) };
    if !exists(&path) {
        return Err(format!("there is no {path}"));
    }
    let Some(anchor) = anchor else { return Ok(()) };
    match pages.iter().find(|other| other.path == path) {
        Some(other) if !anchors(&other.text).iter().any(|known| known == anchor) => {
            Err(format!("{path} has no heading #{anchor}"))
        }
        _ => Ok(()),
    }
}

/// In the documentation of the library, links name items.
fn is_rustdoc(page: &Page, target: &str) -> bool {
    page.path.starts_with("crates/") && !target.contains(['/', '.', '#'])
        || target.contains("::")
        || ["derive@", "trait@", "macro@"].iter().any(|kind| target.starts_with(kind))
}

/// A test that is named in a link to a file of Rust is in that file.
fn function_is_there(text: &str, path: &str, read: impl Fn(&str) -> Option<String>) -> Result<(), String> {
    let Some(name) = text.strip_prefix('`').and_then(|text| text.strip_suffix('`')) else { return Ok(()) };
    let is_name = !name.is_empty()
        && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'_');
    if !is_name || !path.ends_with(".rs") {
        return Ok(());
    }
    let declared = format!("fn {name}");
    let ends = |rest: &str| !rest.starts_with(|c: char| c.is_alphanumeric() || c == '_');
    let text = read(path).unwrap_or_default();
    let found = text.match_indices(&declared).any(|(at, _)| ends(&text[at + declared.len()..]));
    if found { Ok(()) } else { Err(format!("{path} has no function {name}")) }
}

/// The path of `relative`, seen from a page.
pub(super) fn beside(page: &str, relative: &str) -> String {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in relative.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                parts.pop();
            }
            _ => parts.push(part),
        }
    }
    parts.join("/")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn problems(text: &str) -> Vec<String> {
        let page = |path: &str, text: &str| Page { path: path.to_owned(), text: text.to_owned() };
        let pages = [page("docs/src/a.md", text), page("docs/src/b.md", "# Here")];
        let read = |path: &str| (path == "t/x.rs").then(|| "async fn is_there() {}".to_owned());
        let exists = |path: &str| ["docs/src/a.md", "docs/src/b.md", "t/x.rs", "README.md"].contains(&path);
        check(&pages, read, exists).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_link_leads_to_a_page_and_to_a_heading() {
        assert!(
            problems("# Top\n[b](b.md#here) [c](#top) [d](../../README.md) [e](https://example.org/x)")
                .is_empty()
        );
        assert_eq!(problems("\n[b](c.md)"), ["docs/src/a.md:2: there is no docs/src/c.md"]);
        assert_eq!(problems("[b](b.md#there)"), ["docs/src/a.md:1: docs/src/b.md has no heading #there"]);
    }

    #[test]
    fn a_test_that_is_named_is_there() {
        let link = |name: &str, path: &str| format!("[`{name}`]({}{path})", TREE[0]);
        assert!(problems(&link("is_there", "t/x.rs")).is_empty());
        assert!(problems(&link("Any::thing", "t/x.rs")).is_empty());
        assert_eq!(problems(&link("is_the", "t/x.rs")), ["docs/src/a.md:1: t/x.rs has no function is_the"]);
        assert_eq!(problems(&link("is_there", "t/y.rs")), ["docs/src/a.md:1: there is no t/y.rs"]);
    }
}
