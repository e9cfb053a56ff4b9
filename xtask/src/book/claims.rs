//! The page of claims: each sentence about behaviour, and the test behind it, gathered from the other pages.

use std::fmt::Write as _;

use super::{Page, Problem};

const PAGE: &str = "docs/src/claims.md";
const BOOK: &str = "docs/src/";
/// The section of a page that says what shows its claims.
const SECTION: &str = "## What shows this";
const BEGIN: &str = "<!-- claims: written by `cargo xtask book --paste` -->";

/// The page is what the others say.
pub(super) fn check(pages: &[Page]) -> Option<Problem> {
    let page = pages.iter().find(|page| page.path == PAGE)?;
    let is_current = head(page).is_some_and(|head| page.text == whole(head, pages));
    (!is_current).then(|| Problem {
        path: PAGE.to_owned(),
        line: 1,
        what: "it is not what the pages say: `cargo xtask book --paste` writes it anew".to_owned(),
    })
}

/// Makes it what they say.
pub(super) fn write(pages: &mut [Page]) {
    let Some(at) = pages.iter().position(|page| page.path == PAGE) else { return };
    if let Some(head) = head(&pages[at]).map(ToOwned::to_owned) {
        pages[at].text = whole(&head, pages);
    }
}

/// What is written by hand, up to the mark.
fn head(page: &Page) -> Option<&str> {
    page.text.split_once(BEGIN).map(|(head, _)| head)
}

fn whole(head: &str, pages: &[Page]) -> String {
    let mut text = format!("{head}{BEGIN}\n");
    let mut count = 0;
    for page in pages.iter().filter(|page| page.path.starts_with(BOOK) && page.path != PAGE) {
        let rows = rows(&page.text);
        if rows.is_empty() {
            continue;
        }
        count += rows.len();
        let name = &page.path[BOOK.len()..];
        let _ = write!(text, "\n## [{}]({name})\n\n| claim | test |\n|---|---|\n", title(&page.text));
        for row in rows {
            let _ = writeln!(text, "{row}");
        }
    }
    let _ = write!(text, "\n{count} claims.\n");
    text
}

fn title(text: &str) -> &str {
    text.lines().find_map(|line| line.strip_prefix("# ")).unwrap_or("?")
}

/// The rows of the table below the section's heading, without its head.
fn rows(text: &str) -> Vec<&str> {
    let Some((_, section)) = text.split_once(SECTION) else { return Vec::new() };
    let section = section.split("\n## ").next().unwrap_or_default();
    section.lines().filter(|line| line.starts_with('|')).skip(2).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pages(claims: &str) -> Vec<Page> {
        let page = |path: &str, text: &str| Page { path: path.to_owned(), text: text.to_owned() };
        let a = "# A\n| no | table |\n\n## What shows this\n\n| claim | test |\n|---|---|\n| it is | [`t`](x) |\n\n## More\n| no | no |\n";
        vec![page("docs/src/a.md", a), page(PAGE, claims), page("README.md", a)]
    }

    #[test]
    fn claims_are_gathered_from_the_pages_of_the_book() {
        let mut pages = pages(&format!("# Claims\n\n{BEGIN}\nold\n"));
        assert!(check(&pages).is_some());
        write(&mut pages);
        assert_eq!(check(&pages), None);
        let expected = "\n## [A](a.md)\n\n| claim | test |\n|---|---|\n| it is | [`t`](x) |\n\n1 claims.\n";
        assert_eq!(pages[1].text, format!("# Claims\n\n{BEGIN}\n{expected}"));
    }
}
