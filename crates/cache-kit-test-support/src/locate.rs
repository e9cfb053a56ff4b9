//! Finding the server's program, and saying what to do when there is none.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use crate::kind::Kind;

/// The program to start: `chosen` if given, else the one of the environment variable if that may be any, else the first
/// on the path, else the first where the kind of server has it.
pub(crate) fn program<K: Kind>(kind: &K, chosen: Option<&Path>) -> Result<PathBuf, String> {
    let of_environment = || variable(K::PROGRAM_VAR).filter(|_| kind.any_program()).map(PathBuf::from);
    let named = chosen.map(Path::to_path_buf).or_else(of_environment);
    match named {
        Some(path) if path.is_file() => std::path::absolute(&path).map_err(|error| error.to_string()),
        Some(path) => Err(missing::<K>(&format!("there is no program {}", path.display()))),
        None => found::<K>().ok_or_else(|| missing::<K>(&format!("no {} on the PATH", K::PROGRAM))),
    }
}

fn found<K: Kind>() -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dir = std::env::split_paths(&path).chain(K::elsewhere()).find(|dir| K::complete(dir))?;
    Some(dir.join(K::PROGRAM))
}

fn missing<K: Kind>(problem: &str) -> String {
    format!(
        "{problem}; this test needs a real {kind} server.\n\
         install it:    apt-get install {apt}   |   dnf install {package}   |   brew install {brew}\n\
         or let xtask:  cargo xtask test --install\n\
         or name a program with {program_var}=<path>, \
         or, for the tests that need no control over the process, a running server with\n\
         CACHE_KIT_TEST_REDIS_URL=redis://host:port and CACHE_KIT_TEST_MEMCACHED=host:port",
        kind = K::SCHEME,
        apt = K::APT_PACKAGE,
        brew = K::BREW_PACKAGE,
        package = K::PACKAGE,
        program_var = K::PROGRAM_VAR,
    )
}

/// An environment variable; empty counts as not set, as it does in a shell's `${NAME:-}`.
pub(crate) fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}
