//! As much of Markdown as is looked at: lines of code, headings, links.

/// The lines with their numbers, from one, and whether they are code.
pub(super) fn lines(text: &str) -> impl Iterator<Item = (usize, &str, bool)> {
    let mut fence: Option<String> = None;
    text.lines().enumerate().map(move |(index, line)| {
        let trimmed = line.trim_start();
        let marks: String = trimmed.chars().take_while(|c| *c == '`').collect();
        let is_code = match &fence {
            Some(open) => {
                if marks.len() >= open.len() && trimmed.trim_end() == marks {
                    fence = None;
                }
                true
            }
            None if marks.len() >= 3 => {
                fence = Some(marks);
                true
            }
            None => false,
        };
        (index + 1, line, is_code)
    })
}

/// A block of code.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Block<'a> {
    /// Of the opening fence.
    pub(super) line: usize,
    /// What stands behind the opening fence.
    pub(super) info: &'a str,
    pub(super) inside: Vec<&'a str>,
}

/// The blocks of code that are closed.
pub(super) fn blocks(text: &str) -> Vec<Block<'_>> {
    let mut found = Vec::new();
    let mut open: Option<(usize, Block<'_>)> = None;
    for (number, line, _) in lines(text).filter(|(_, _, is_code)| *is_code) {
        let trimmed = line.trim();
        let info = trimmed.trim_start_matches('`');
        let marks = trimmed.len() - info.len();
        match &mut open {
            None => open = Some((marks, Block { line: number, info, inside: Vec::new() })),
            Some((fence, _)) if marks >= *fence && info.is_empty() => {
                found.extend(open.take().map(|(_, block)| block));
            }
            Some((_, block)) => block.inside.push(line),
        }
    }
    found
}

/// A link or an image.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Link<'a> {
    pub(super) line: usize,
    pub(super) text: &'a str,
    pub(super) target: &'a str,
}

/// The links of a page, but not those in code.
pub(super) fn links(text: &str) -> Vec<Link<'_>> {
    let mut found = Vec::new();
    for (number, line, is_code) in lines(text) {
        if !is_code {
            links_of(number, line, &mut found);
        }
    }
    found
}

fn links_of<'a>(number: usize, line: &'a str, found: &mut Vec<Link<'a>>) {
    if let Some((name, target)) = line.strip_prefix('[').and_then(|rest| rest.split_once("]: ")) {
        found.push(Link { line: number, text: name, target: target.trim() });
        return;
    }
    let mut from = 0;
    while let Some(at) = line[from..].find("](").map(|at| from + at) {
        from = at + 2;
        let Some(end) = closing(&line[from..]).map(|end| from + end) else { continue };
        // Within code it is no link; code around its text is.
        if line[..at].matches('`').count() % 2 == 1 {
            continue;
        }
        let start = line[..at].rfind('[').map_or(at, |start| start + 1);
        // A title may follow.
        let target = line[from..end].split(' ').next().unwrap_or_default();
        found.push(Link { line: number, text: &line[start..at], target });
        from = end;
    }
}

/// The parenthesis that closes a target, which may hold some itself.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0_u32;
    for (at, character) in text.char_indices() {
        match character {
            '(' => depth += 1,
            ')' if depth == 0 => return Some(at),
            ')' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// The anchors that the headings of a page make.
pub(super) fn anchors(text: &str) -> Vec<String> {
    let mut found: Vec<String> = Vec::new();
    for (_, line, is_code) in lines(text) {
        let level = line.chars().take_while(|c| *c == '#').count();
        if is_code || level == 0 || level > 6 || !line[level..].starts_with(' ') {
            continue;
        }
        let anchor = anchor_of(&line[level..]);
        let same = found.iter().filter(|other| **other == anchor).count();
        found.push(anchor.clone());
        if same > 0 {
            found.push(format!("{anchor}-{same}"));
        }
    }
    found
}

fn anchor_of(heading: &str) -> String {
    // Of a link only the text is shown.
    let mut shown = String::new();
    let mut rest = heading.trim();
    while let Some((before, after)) = rest.split_once("](") {
        shown.push_str(before);
        rest = closing(after).map_or("", |end| &after[end + 1..]);
    }
    shown.push_str(rest);
    let kept = shown.chars().filter_map(|character| match character {
        ' ' => Some('-'),
        '-' | '_' => Some(character),
        _ if character.is_alphanumeric() => Some(character),
        _ => None,
    });
    kept.flat_map(char::to_lowercase).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_between_fences_is_code() {
        let code: Vec<_> =
            lines("a\n```rust\n[b](c)\n```\n````md\n```\n[d](e)\n````\nf").map(|(_, _, code)| code).collect();
        assert_eq!(code, [false, true, true, true, true, true, true, true, false]);
        assert!(links("```\n[b](c)\n```").is_empty());
    }

    #[test]
    fn links_are_found_wherever_they_stand() {
        let text = "see [a](b.md#c) and ![d](e(f).svg \"title\"), not `[g](h)`\n[`i`](j)\n[k]: l";
        let found: Vec<_> = links(text).iter().map(|link| (link.line, link.text, link.target)).collect();
        assert_eq!(found, [(1, "a", "b.md#c"), (1, "d", "e(f).svg"), (2, "`i`", "j"), (3, "k", "l")]);
    }

    #[test]
    fn headings_make_anchors() {
        let text = "# A `b` – C, d!\n## Same\n## Same\n```\n# no\n```\n### [x](y) z\n#no";
        assert_eq!(anchors(text), ["a-b--c-d", "same", "same", "same-1", "x-z"]);
    }

    #[test]
    fn blocks_have_what_stands_behind_their_fence_and_what_is_inside() {
        let text = "a\n```rust\nb\n```\n````text\n```\nc\n````\n```\n```\n```open\n";
        let found = blocks(text);
        let found: Vec<_> =
            found.iter().map(|block| (block.line, block.info, block.inside.concat())).collect();
        assert_eq!(
            found,
            [(2, "rust", "b".to_owned()), (5, "text", "```c".to_owned()), (9, "", String::new())]
        );
    }
}
