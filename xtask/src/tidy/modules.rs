//! Which module of the library may know which: the direction of its dependencies.

use super::{Violation, code_lines, has_word};

const SRC: &str = "crates/cache-kit/src/";

/// Backends and layers move bytes; they know nothing of entities and loads.
const ABOVE_THE_BACKENDS: [&str; 7] =
    ["engine", "entity", "entry", "expander", "cache", "strategy", "repository"];
const CONCRETE_BACKENDS: [&str; 3] = ["InMemoryBackend", "RedisBackend", "MemcachedBackend"];
const IO: [&str; 3] = ["std::net", "std::fs", "tokio::"];

pub(super) fn check(path: &str, text: &str) -> Vec<Violation> {
    let Some(module) = path.strip_prefix(SRC).filter(|path| path.ends_with(".rs")) else { return Vec::new() };
    let within =
        |name: &str| module.strip_prefix(name).is_some_and(|rest| rest.starts_with('/') || rest == ".rs");
    let mut found = Vec::new();
    if within("backend") || within("layer") {
        for (line, name) in crate_paths(text) {
            if ABOVE_THE_BACKENDS.contains(&name.as_str()) {
                let why = "backends and layers move bytes and know nothing above them";
                found.push(Violation::new(path, line, format!("crate::{name} is used; {why}")));
            }
        }
    }
    if within("engine") {
        let code = text.split("#[cfg(test)]").next().unwrap_or_default();
        let why = "the engine works with any backend; only its tests may choose one";
        found.extend(words(path, code, &CONCRETE_BACKENDS, why));
    }
    // Their tests read golden files.
    if (within("entry") || within("key")) && !path.ends_with("tests.rs") {
        found.extend(words(path, text, &IO, "keys and entries are computed; they do no I/O and never wait"));
    }
    found
}

fn words(path: &str, text: &str, words: &[&str], why: &str) -> Vec<Violation> {
    let found = code_lines(text).flat_map(|(line, text)| {
        let here = words.iter().filter(move |word| has_word(text, word));
        here.map(move |word| Violation::new(path, line, format!("{word} is used; {why}")))
    });
    found.collect()
}

/// The modules named after `crate::`, also as members of a group, `crate::{a::X, b}`.
fn crate_paths(text: &str) -> Vec<(usize, String)> {
    let code: Vec<(usize, char)> = code_lines(text)
        .flat_map(|(line, text)| text.chars().chain(['\n']).map(move |character| (line, character)))
        .collect();
    let characters: String = code.iter().map(|(_, character)| character).collect();
    let mut found = Vec::new();
    for (start, needle) in characters.match_indices("crate::") {
        // Positions in `code` are characters, those of `match_indices` are bytes.
        let mut rest = code[characters[..start + needle.len()].chars().count()..].iter().peekable();
        let mut depth = 0;
        let mut expected = true;
        while let Some((line, character)) = rest.next() {
            match character {
                '{' => depth += 1,
                '}' => depth -= 1,
                ',' => expected = depth == 1,
                c if c.is_whitespace() => continue,
                c if expected && (c.is_alphanumeric() || *c == '_') => {
                    let mut name = String::from(*c);
                    while let Some((_, c)) = rest.next_if(|(_, c)| c.is_alphanumeric() || *c == '_') {
                        name.push(*c);
                    }
                    found.push((*line, name));
                    expected = false;
                }
                _ => {}
            }
            if depth <= 0 {
                break;
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
        check(&format!("{SRC}{path}"), text).iter().map(|violation| violation.line).collect()
    }

    #[test]
    fn backends_and_layers_do_not_look_up() {
        assert_eq!(lines("backend/redis.rs", "use x;\nuse crate::engine::Flight;"), [2]);
        assert_eq!(lines("layer/retry/mod.rs", "fn f(e: crate::entity::Entity) {}"), [1]);
        assert_eq!(
            lines("backend.rs", "use crate::{\n    error::Error,\n    strategy::{A, B},\n    cache,\n};"),
            [3, 4]
        );
        assert_eq!(lines("backend/redis.rs", "use crate::cache_control;\nuse crate::error::Error;"), NONE);
    }

    #[test]
    fn others_may_look_at_everything_and_comments_may_name_anything() {
        assert_eq!(lines("expander.rs", "use crate::engine::Flight;"), NONE);
        assert_eq!(lines("backend/mod.rs", "//! See [`crate::engine`].\n    /// [`crate::entity`]"), NONE);
    }

    #[test]
    fn the_engine_chooses_no_backend_outside_its_tests() {
        assert_eq!(lines("engine/read.rs", "let b = RedisBackend::new();"), [1]);
        assert_eq!(lines("engine.rs", "use crate::backend::{InMemoryBackend};"), [1]);
        assert_eq!(
            lines("engine/read.rs", "/// InMemoryBackend\n#[cfg(test)]\nmod t { MemcachedBackend }"),
            NONE
        );
    }

    #[test]
    fn keys_and_entries_do_no_io() {
        assert_eq!(lines("entry/envelope.rs", "use std::fs::File;"), [1]);
        assert_eq!(lines("key.rs", "\ntokio::spawn(f);\nuse std::net::TcpStream;"), [2, 3]);
        assert_eq!(lines("keys.rs", "use std::fs::File;"), NONE);
        assert_eq!(lines("entry/tests.rs", "use std::fs::File;"), NONE);
    }
}
