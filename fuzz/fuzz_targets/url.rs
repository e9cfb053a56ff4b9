//! Any text as a cache URL: never a panic, and no error that repeats what stands between `://` and `@`.

#![no_main]

use std::fmt::Write as _;

use arbitrary::Arbitrary;
use cache_kit::backend::{self, CacheBackend};
use cache_kit::{Cache, Error, ErrorKind};
use cache_kit_fuzz::ready;
use libfuzzer_sys::fuzz_target;

/// Part of every password that is put into a URL here. No message contains it by chance, and nothing but its
/// meaning sets it apart from the name of a parameter.
const SECRET: &str = "hunterzqvx";

const SCHEMES: [&str; 9] =
    ["memory", "redis", "rediss", "redis+cluster", "redis+unix", "memcached", "MEMORY", "re dis", ""];

const PARAMETERS: [&str; 9] = [
    "ttl=5m",
    "namespace=shop",
    "codec=json",
    "max_value=1mb",
    "max_entries=10",
    "max_bytes=64KiB",
    "sweep_every=1s",
    "ttl=none",
    "nonsense=%zz",
];

#[derive(Arbitrary, Debug)]
enum Input {
    Text(String),
    Memory {
        parameters: Vec<Parameter>,
    },
    /// A URL as people write it, with whatever is in their password unescaped.
    WithPassword {
        scheme: u8,
        user: String,
        before: String,
        after: String,
        rest: String,
        parameters: Vec<Parameter>,
    },
}

#[derive(Arbitrary, Debug)]
enum Parameter {
    Known(u8),
    /// A known name with any value.
    Valued(u8, String),
    Any(String, String),
}

fn query(parameters: &[Parameter]) -> String {
    let mut query = String::new();
    for parameter in parameters {
        query.push(if query.is_empty() { '?' } else { '&' });
        let known = |which: u8| PARAMETERS[usize::from(which) % PARAMETERS.len()];
        let written = match parameter {
            Parameter::Known(which) => query.write_str(known(*which)),
            Parameter::Valued(which, value) => {
                write!(query, "{}={value}", known(*which).split('=').next().unwrap_or_default())
            }
            Parameter::Any(name, value) => write!(query, "{name}={value}"),
        };
        written.expect("a string takes any text");
    }
    query
}

fuzz_target!(|input: Input| {
    match input {
        Input::Text(url) => text(&url),
        Input::Memory { parameters } => {
            let _ = attempt(&format!("memory://{}", query(&parameters)));
        }
        Input::WithPassword { scheme, user, before, after, rest, parameters } => {
            let scheme = SCHEMES[usize::from(scheme) % SCHEMES.len()];
            let query = query(&parameters);
            let url = format!("{scheme}://{user}:{before}{SECRET}{after}@{rest}{query}");
            for said in attempt(&url) {
                assert!(!said.contains(SECRET), "{url:?} gave {said:?}");
            }
        }
    }
});

fn text(url: &str) {
    let said = attempt(url);
    let Some((start, end)) = url.find("://").map(|at| at + 3).zip(url.rfind('@')) else { return };
    if start >= end {
        return;
    }
    let secret = &url[start..end];
    // A text that the message contains whatever stands in the URL was not repeated from it.
    let other: String = secret.chars().map(|c| if c.is_alphanumeric() { 'w' } else { c }).collect();
    let said_of_other = attempt(&format!("{}{other}{}", &url[..start], &url[end..]));
    for said in said {
        let by_chance = said_of_other.iter().any(|said| said.contains(secret));
        assert!(by_chance || !said.contains(secret), "{url:?} gave {said:?}");
    }
}

/// Tries the URL both ways and returns everything that was said about it.
fn attempt(url: &str) -> Vec<String> {
    let mut said = Vec::new();
    match Cache::from_url(url) {
        Ok(cache) => {
            said.push(format!("{cache:?}"));
            if cache.backend().capabilities().name == "memory" {
                works(url, cache.backend());
            }
        }
        Err(error) => said.extend(messages(url, &error)),
    }
    match backend::from_url(url) {
        Ok(backend) => said.push(format!("{:?}", backend.capabilities())),
        Err(error) => said.extend(messages(url, &error)),
    }
    said
}

/// What was accepted works, within its own bounds. Without end, so that no thread starts for sweeps.
fn works(url: &str, backend: &dyn CacheBackend) {
    let stored = ready(backend.set("key", "value".into(), None));
    let read = ready(backend.get("key")).expect("memory answers");
    match stored {
        Ok(()) => assert!(read.is_none_or(|value| value == "value"), "{url:?}"),
        Err(error) => assert_eq!(error.kind(), ErrorKind::TooLarge, "{url:?} gave {error}"),
    }
}

fn messages(url: &str, error: &Error) -> [String; 2] {
    assert_eq!(error.kind(), ErrorKind::Config, "{url:?} gave {error}");
    [error.to_string(), format!("{error:?}")]
}
