//! Rules for any file.

use super::{Violation, has_word};

/// Longer files hold more than one subject.
const MOST_LINES: usize = 500;
/// Left behind while writing.
const UNFINISHED: [&str; 3] = ["todo", "unimplemented", "dbg"];
/// First parts of absolute paths that exist on one machine only.
const HOMES: [&str; 3] = ["root", "home", "work"];

pub(super) fn check(path: &str, text: &str) -> Vec<Violation> {
    let mut found = Vec::new();
    if path.ends_with(".rs") {
        found.extend(length(path, text));
        found.extend(unfinished(path, text));
    }
    found.extend(homes(path, text));
    found
}

fn length(path: &str, text: &str) -> Option<Violation> {
    let lines = text.lines().count();
    let reason = |line: &str| line.strip_prefix("// long:").is_some_and(|reason| !reason.trim().is_empty());
    if lines <= MOST_LINES || text.lines().any(reason) {
        return None;
    }
    let what = format!(
        "{lines} lines, more than {MOST_LINES}: split it, or say why not in a line `// long: <reason>`"
    );
    Some(Violation::new(path, MOST_LINES + 1, what))
}

fn unfinished(path: &str, text: &str) -> Vec<Violation> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for name in UNFINISHED {
            if has_word(line, &format!("{name}!(")) {
                found.push(Violation::new(path, index + 1, format!("{name}! is left in the code")));
            }
        }
        let ignored = line.split_once(concat!("#[", "ignore")).map(|(_, rest)| rest.trim_start());
        if ignored.is_some_and(|rest| !rest.starts_with('=')) {
            found.push(Violation::new(path, index + 1, "a test is ignored without a reason"));
        }
    }
    found
}

fn homes(path: &str, text: &str) -> Vec<Violation> {
    let mut found = Vec::new();
    for (index, line) in text.lines().enumerate() {
        for home in HOMES.map(|name| format!("/{name}/")) {
            // In the middle of a URL or of a relative path it is no absolute path.
            let absolute = |start: usize| {
                let before = line[..start].chars().next_back();
                !before.is_some_and(|c| c.is_alphanumeric() || "._-/}>)".contains(c))
            };
            if line.match_indices(&home).any(|(start, _)| absolute(start)) {
                found.push(Violation::new(path, index + 1, format!("a path of one machine, {home}")));
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    const NONE: [usize; 0] = [];

    fn lines(path: &str, text: &str) -> Vec<usize> {
        check(path, text).iter().map(|violation| violation.line).collect()
    }

    #[test]
    fn long_files_give_a_reason() {
        let long = "x\n".repeat(501);
        assert_eq!(lines("a.rs", &long), [501]);
        assert_eq!(lines("a.rs", &format!("{long}// long:\n")), [501]);
        assert_eq!(lines("a.rs", &format!("{long}// long: one table\n")), NONE);
        assert_eq!(lines("a.rs", &"x\n".repeat(500)), NONE);
        assert_eq!(lines("a.md", &long), NONE);
    }

    #[test]
    fn nothing_is_left_unfinished() {
        for name in UNFINISHED {
            assert_eq!(lines("a.rs", &format!("\nlet x = {name}!(y);")), [2]);
            assert_eq!(lines("a.rs", &format!("my_{name}!(y);")), NONE);
        }
    }

    #[test]
    fn an_ignored_test_has_a_reason() {
        let ignore = concat!("#[", "ignore");
        assert_eq!(lines("a.rs", &format!("{ignore}]")), [1]);
        assert_eq!(lines("a.rs", &format!("{ignore} = \"takes an hour\"]")), NONE);
    }

    #[test]
    fn no_path_of_one_machine_is_kept() {
        for home in HOMES {
            assert_eq!(lines("a.md", &format!("see `/{home}/me/x`")), [1]);
            assert_eq!(lines("a.rs", &format!("\"/{home}/x\"")), [1]);
            assert_eq!(lines("a.md", &format!("https://example.org/{home}/x and ../{home}/x")), NONE);
        }
    }
}
