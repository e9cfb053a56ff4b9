//! Outputs of programs in the pages: nobody types them.
//!
//! `<!-- output: COMMAND -->`, and behind it a block, or a table, with what the command prints, to the letter.
//! `<!-- measured: COMMAND -->` likewise, for figures that are different each time; in front of a table that was made of
//! them it only says where they are from.

use std::collections::HashMap;
use std::path::Path;
use std::process::Command;

use super::{Page, Paste, Problem};
use crate::say;

const OUTPUT: &str = "<!-- output: ";
const MEASURED: &str = "<!-- measured: ";
const END: &str = " -->";
const FENCE: &str = "```";

/// A block that a command fills.
#[derive(Debug, PartialEq, Eq)]
struct Block<'a> {
    /// Of the mark, from one.
    line: usize,
    command: &'a str,
    measured: bool,
    /// From the first byte behind the opening fence's line to the closing fence, or the lines of a table; `None` if neither
    /// follows.
    inside: Option<std::ops::Range<usize>>,
}

/// Compares the blocks with what the commands print, or fills them.
pub(super) fn settle(pages: &mut [Page], paste: Paste, root: &Path) -> Result<Vec<Problem>, String> {
    let mut printed = HashMap::new();
    let mut problems = Vec::new();
    for page in pages {
        let mut text = page.text.clone();
        // From the last to the first, so that what is filled moves nothing that is still to be filled.
        for block in blocks(&page.text).iter().rev() {
            let mut complain =
                |what: String| problems.push(Problem { path: page.path.clone(), line: block.line, what });
            if block.measured && (paste != Paste::Measurements || block.inside.is_none()) {
                continue;
            }
            let Some(inside) = block.inside.clone() else {
                complain("no block follows for what the command prints".to_owned());
                continue;
            };
            if !printed.contains_key(block.command) {
                printed.insert(block.command.to_owned(), run(block.command, root)?);
            }
            let now = &printed[block.command];
            if page.text[inside.clone()] == **now {
                continue;
            }
            if paste == Paste::Nothing {
                complain(format!(
                    "`{}` prints something else: `cargo xtask book --paste` writes it anew",
                    block.command
                ));
            } else {
                text.replace_range(inside, now);
            }
        }
        page.text = text;
    }
    Ok(problems)
}

fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut found = Vec::new();
    let mut at = 0;
    for (index, line) in text.split_inclusive('\n').enumerate() {
        at += line.len();
        let line = line.trim_end();
        let marked = [(OUTPUT, false), (MEASURED, true)]
            .into_iter()
            .find_map(|(mark, measured)| Some((line.strip_prefix(mark)?.strip_suffix(END)?, measured)));
        if let Some((command, measured)) = marked {
            // A table of figures is made of them by hand.
            let table = if measured { None } else { table(text, at) };
            found.push(Block { line: index + 1, command, measured, inside: inside(text, at).or(table) });
        }
    }
    found
}

/// What is between the fences that begin at `from`.
fn inside(text: &str, from: usize) -> Option<std::ops::Range<usize>> {
    let rest = &text[from..];
    let opening = rest.strip_prefix(FENCE)?.find('\n')? + FENCE.len() + 1;
    let body = &rest[opening..];
    let length = if body.starts_with(FENCE) { 0 } else { body.find("\n```")? + 1 };
    Some(from + opening..from + opening + length)
}

/// The lines of a table that begins at `from`.
fn table(text: &str, from: usize) -> Option<std::ops::Range<usize>> {
    let rows = text[from..].split_inclusive('\n').take_while(|line| line.starts_with('|'));
    let length: usize = rows.map(str::len).sum();
    (length > 0).then_some(from..from + length)
}

/// The standard output of a command that must succeed, typed in the root.
fn run(command: &str, root: &Path) -> Result<String, String> {
    say(format_args!("$ {command}"));
    let output = Command::new("sh").arg("-c").arg(command).current_dir(root).output();
    let output = output.map_err(|error| format!("`{command}` did not start: {error}"))?;
    if !output.status.success() {
        let errors = String::from_utf8_lossy(&output.stderr);
        return Err(format!("`{command}`: {}\n{errors}", output.status));
    }
    let mut printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if !printed.is_empty() && !printed.ends_with('\n') {
        printed.push('\n');
    }
    Ok(printed)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settled(text: &str, paste: Paste) -> (String, Vec<String>) {
        let mut pages = [Page { path: "a.md".to_owned(), text: text.to_owned() }];
        let problems = settle(&mut pages, paste, Path::new(".")).unwrap();
        (pages[0].text.clone(), problems.iter().map(ToString::to_string).collect())
    }

    const RIGHT: &str =
        "x\n<!-- output: echo one -->\n```text\none\n```\n<!-- measured: echo two -->\n```text\nold\n```\n";

    #[test]
    fn an_output_that_is_as_it_was_is_no_problem_and_a_figure_never_is() {
        assert_eq!(settled(RIGHT, Paste::Nothing), (RIGHT.to_owned(), vec![]));
    }

    #[test]
    fn an_output_that_has_changed_is_a_problem_or_is_written_anew() {
        let wrong = RIGHT.replace("\none\n", "\n");
        let (text, problems) = settled(&wrong, Paste::Nothing);
        assert_eq!((text, problems.len()), (wrong.clone(), 1));
        assert_eq!(settled(&wrong, Paste::Outputs), (RIGHT.to_owned(), vec![]));
        assert_eq!(settled(&wrong, Paste::Measurements).0, RIGHT.replace("old", "two"));
    }

    #[test]
    fn a_table_is_written_anew_up_to_its_last_row() {
        let page = "<!-- output: printf '| a |\\n|---|\\n' -->\n| b |\n|---|\n| c |\n\n| d |\n";
        let (text, problems) = settled(page, Paste::Outputs);
        assert_eq!(text, page.replace("| b |\n|---|\n| c |\n", "| a |\n|---|\n"));
        assert_eq!(problems.len(), 0);
    }

    #[test]
    fn a_mark_without_a_block_is_a_problem_and_a_command_that_fails_is_an_error() {
        assert_eq!(settled("<!-- output: echo -->\n\n```\n```\n", Paste::Outputs).1.len(), 1);
        let mut pages =
            [Page { path: "a.md".to_owned(), text: "<!-- output: exit 3 -->\n```\n```\n".to_owned() }];
        settle(&mut pages, Paste::Outputs, Path::new(".")).unwrap_err();
    }
}
