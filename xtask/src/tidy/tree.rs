//! Rules for the tree as a whole: files that must be there, and documents that speak of files.

use super::Violation;

const REQUIRED: [&str; 7] = [
    "ARCHITECTURE.md",
    "CHANGELOG.md",
    "CONTRIBUTING.md",
    "LICENSE-APACHE",
    "LICENSE-MIT",
    "README.md",
    "SECURITY.md",
];
const SPOKEN_OF: [&str; 5] = ["bench/", "crates/", "docs/", "examples/", "xtask/"];

pub(super) fn check<'a>(
    text_of: impl Fn(&str) -> Option<&'a str>,
    exists: impl Fn(&str) -> bool,
) -> Vec<Violation> {
    let missing = REQUIRED.into_iter().filter(|path| !exists(path));
    let mut found: Vec<_> = missing.map(|path| Violation::new(path, 1, "the file is missing")).collect();
    let unreleased = |text: &str| text.lines().any(|line| line.trim_end() == "## [Unreleased]");
    if text_of("CHANGELOG.md").is_some_and(|text| !unreleased(text)) {
        found.push(Violation::new("CHANGELOG.md", 1, "no section `## [Unreleased]` for the next change"));
    }
    for (line, path) in text_of("ARCHITECTURE.md").into_iter().flat_map(paths) {
        if !exists(path) {
            found.push(Violation::new("ARCHITECTURE.md", line, format!("there is no {path}")));
        }
    }
    found
}

/// The paths in backticks with their lines, but no patterns.
fn paths(text: &str) -> Vec<(usize, &str)> {
    let lines = text.lines().enumerate();
    let quoted =
        lines.flat_map(|(index, line)| line.split('`').skip(1).step_by(2).map(move |q| (index + 1, q)));
    let first_words = quoted.filter_map(|(line, quoted)| Some((line, quoted.split([' ', ':']).next()?)));
    first_words
        .filter(|(_, path)| SPOKEN_OF.iter().any(|start| path.starts_with(start)))
        .filter(|(_, path)| !path.contains(['*', '{', '<']))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(changelog: &str, architecture: &str, exists: impl Fn(&str) -> bool) -> Vec<String> {
        let text_of = |path: &str| match path {
            "CHANGELOG.md" => Some(changelog),
            "ARCHITECTURE.md" => Some(architecture),
            _ => None,
        };
        check(text_of, exists).iter().map(ToString::to_string).collect()
    }

    const CHANGELOG: &str = "# Changelog\n\n## [Unreleased]\n";

    #[test]
    fn a_tree_in_order_has_no_violations() {
        assert!(found(CHANGELOG, "`crates/a` and `crates/*`, `src/b`", |_| true).is_empty());
    }

    #[test]
    fn the_documents_and_licences_are_there() {
        for missing in REQUIRED {
            let found = found(CHANGELOG, "", |path| path != missing);
            assert_eq!(found, [format!("{missing}:1: the file is missing")]);
        }
    }

    #[test]
    fn the_changelog_has_a_place_for_the_next_change() {
        assert_eq!(found("## [1.0.0]\n", "", |_| true).len(), 1);
    }

    #[test]
    fn the_architecture_speaks_of_what_exists() {
        let text = "one\n`xtask/src/gone.rs:12` `crates/here/src` `bench/gone now`";
        let found = found(CHANGELOG, text, |path| !path.contains("gone"));
        assert_eq!(
            found,
            ["ARCHITECTURE.md:2: there is no xtask/src/gone.rs", "ARCHITECTURE.md:2: there is no bench/gone"]
        );
    }
}
