//! What the tests need besides cargo: is it here, and how does it get here?

use std::ffi::{OsStr, OsString};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::say;

/// Something that the tests need.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Needed {
    /// The program, or the module of Python.
    name: &'static str,
    apt: &'static str,
    dnf: &'static str,
    brew: &'static str,
    found: Found,
}

/// How it is found, and which environment variables name another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Found {
    /// A server that the tests start, by its name on the path.
    Server { program_var: &'static str, external_var: &'static str, external: &'static str },
    /// A program that the tests start, by its name on the path or by another that it goes by.
    Program { program_var: &'static str, others: &'static [&'static str] },
    /// A module that one of the interpreters imports.
    Import { interpreter_var: &'static str },
    /// PostgreSQL's two programs, in one directory; packages keep them off the path.
    Postgres { program_var: &'static str },
}

pub(crate) const NEEDED: [Needed; 6] = [
    Needed {
        name: "redis-server",
        apt: "redis-server",
        dnf: "redis",
        brew: "redis",
        found: Found::Server {
            program_var: "CACHE_KIT_REDIS_SERVER",
            external_var: "CACHE_KIT_TEST_REDIS_URL",
            external: "redis://host:port",
        },
    },
    Needed {
        name: "memcached",
        apt: "memcached",
        dnf: "memcached",
        brew: "memcached",
        found: Found::Server {
            program_var: "CACHE_KIT_MEMCACHED_BIN",
            external_var: "CACHE_KIT_TEST_MEMCACHED",
            external: "host:port",
        },
    },
    Needed {
        name: "pylibmc",
        apt: "python3-pylibmc",
        dnf: "python3-pylibmc",
        // brew has no package of it, only the library that pip builds it with.
        brew: "libmemcached",
        found: Found::Import { interpreter_var: "CACHE_KIT_PYTHON" },
    },
    Needed {
        name: "postgres",
        apt: "postgresql",
        dnf: "postgresql-server",
        brew: "postgresql@17",
        found: Found::Postgres { program_var: "CACHE_KIT_POSTGRES_BIN" },
    },
    // The live page of examples/actixsqlx is tested in a real browser.
    Needed {
        name: "chromium",
        apt: "chromium",
        dnf: "chromium",
        brew: "chromium",
        found: Found::Program {
            program_var: "CACHE_KIT_CHROMIUM",
            others: &["chromium-browser", "google-chrome", "google-chrome-stable"],
        },
    },
    Needed {
        name: "chromedriver",
        apt: "chromium-driver",
        dnf: "chromedriver",
        brew: "chromedriver",
        found: Found::Program { program_var: "CACHE_KIT_CHROMEDRIVER", others: &[] },
    },
];

/// What is neither installed nor named by the environment.
pub(crate) fn missing() -> Vec<Needed> {
    let there = |needed: &Needed| match needed.found {
        Found::Server { program_var, external_var, .. } => match set(program_var) {
            Some(path) => Path::new(&path).is_file(),
            None => set(external_var).is_some() || on_path(needed.name),
        },
        Found::Program { program_var, others } => match set(program_var) {
            Some(path) => Path::new(&path).is_file(),
            None => on_path(needed.name) || others.iter().any(|other| on_path(other)),
        },
        Found::Import { interpreter_var } => imports(needed.name, interpreter_var),
        Found::Postgres { program_var } => match set(program_var) {
            Some(path) => Path::new(&path).is_file(),
            None => postgres(),
        },
    };
    NEEDED.into_iter().filter(|needed| !there(needed)).collect()
}

fn set(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

fn on_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// Looks where the tests look: on the path, and where Debian, the project's own packages and Homebrew have each version.
fn postgres() -> bool {
    let places = [
        ("/usr/lib/postgresql", ""),
        ("/usr", "pgsql-"),
        ("/opt/homebrew/opt", "postgresql@"),
        ("/usr/local/opt", "postgresql@"),
    ];
    let versions = places.into_iter().flat_map(|(place, prefix)| {
        let entries = std::fs::read_dir(place).into_iter().flatten().flatten();
        let bin = move |entry: std::fs::DirEntry| {
            entry.file_name().to_string_lossy().starts_with(prefix).then(|| entry.path().join("bin"))
        };
        entries.filter_map(bin)
    });
    let path = std::env::var_os("PATH").unwrap_or_default();
    let both = |dir: PathBuf| ["initdb", "postgres"].iter().all(|program| dir.join(program).is_file());
    std::env::split_paths(&path).chain(versions).any(both)
}

/// Looks where the tests look: the system's own Python has the system's packages, and another on the path can hide it.
fn imports(module: &str, interpreter_var: &str) -> bool {
    let interpreters =
        set(interpreter_var).into_iter().chain(["python3", "/usr/bin/python3"].map(OsString::from));
    let import = |python: &OsStr| {
        let mut command = Command::new(python);
        command.args(["-c", &format!("import {module}")]);
        command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status()
    };
    interpreters.into_iter().any(|python| import(&python).is_ok_and(|status| status.success()))
}

/// What to do about what is missing.
pub(crate) fn advice(missing: &[Needed]) -> String {
    let list = |name: fn(&Needed) -> &'static str| missing.iter().map(name).collect::<Vec<_>>().join(" ");
    let mut text = format!(
        "The tests run against real servers, a real client of another make, a real database and a real browser; not found: {}\n\
         install them:   apt-get install {}\n\
         \x20               dnf install {}\n\
         \x20               brew install {}\n\
         or let xtask:   cargo xtask test --install\n\
         or set, for a program elsewhere, or a running server that may be used by tests which do not control it:",
        list(|needed| needed.name),
        list(|needed| needed.apt),
        list(|needed| needed.dnf),
        list(|needed| needed.brew),
    );
    for needed in missing {
        text += &match needed.found {
            Found::Server { program_var, external_var, external } => {
                format!("\n    {program_var}=<path>   or   {external_var}={external}")
            }
            Found::Program { program_var, .. } | Found::Postgres { program_var } => {
                format!("\n    {program_var}=<path>")
            }
            Found::Import { interpreter_var } => format!(
                "\n    {interpreter_var}=<python>, one that has {name}; without a package of it, as with brew, by\n        \
                 python3 -m venv <dir> && <dir>/bin/pip install {name}, which makes <dir>/bin/python one",
                name = needed.name
            ),
        };
    }
    text
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manager {
    Apt,
    Dnf,
    Brew,
}

/// Installs the packages of what is missing with the package manager of this machine.
pub(crate) fn install(missing: &[Needed]) -> Result<(), String> {
    let manager = if on_path("apt-get") {
        Manager::Apt
    } else if on_path("dnf") {
        Manager::Dnf
    } else if on_path("brew") {
        Manager::Brew
    } else {
        return Err(format!("no apt-get, dnf or brew here.\n{}", advice(missing)));
    };
    let root = Command::new("id").arg("-u").output().is_ok_and(|output| output.stdout.trim_ascii() == b"0");
    for words in commands(manager, missing, root, on_path("sudo")) {
        say(format_args!("installing: {}", words.join(" ")));
        let status = Command::new(words[0]).args(&words[1..]).stdin(Stdio::inherit()).status();
        if !status.is_ok_and(|status| status.success()) {
            return Err(format!("{:?} failed.\n{}", words.join(" "), advice(missing)));
        }
    }
    Ok(())
}

fn commands(manager: Manager, missing: &[Needed], root: bool, sudo: bool) -> Vec<Vec<&'static str>> {
    // A question that nobody answers would hang a build machine; sudo does not pass the variable on by itself.
    let apt = ["env", "DEBIAN_FRONTEND=noninteractive", "apt-get"];
    let packages = |name: fn(&Needed) -> &'static str| missing.iter().map(name);
    let commands: Vec<Vec<&str>> = match manager {
        Manager::Apt => vec![
            apt.into_iter().chain(["update"]).collect(),
            apt.into_iter()
                .chain(["install", "-y", "--no-install-recommends"])
                .chain(packages(|n| n.apt))
                .collect(),
        ],
        Manager::Dnf => vec![["dnf", "install", "-y"].into_iter().chain(packages(|n| n.dnf)).collect()],
        Manager::Brew => vec![["brew", "install"].into_iter().chain(packages(|n| n.brew)).collect()],
    };
    // Homebrew refuses to run as root.
    let raise = sudo && !root && manager != Manager::Brew;
    let raised = |words: Vec<&'static str>| if raise { [vec!["sudo"], words].concat() } else { words };
    commands.into_iter().map(raised).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn typed(manager: Manager, missing: &[Needed], root: bool, sudo: bool) -> Vec<String> {
        commands(manager, missing, root, sudo).iter().map(|words| words.join(" ")).collect()
    }

    #[test]
    fn only_what_is_missing_is_installed() {
        assert_eq!(
            typed(Manager::Dnf, &NEEDED[1..], true, true),
            ["dnf install -y memcached python3-pylibmc postgresql-server chromium chromedriver"]
        );
        assert_eq!(
            typed(Manager::Brew, &NEEDED, false, true),
            ["brew install redis memcached libmemcached postgresql@17 chromium chromedriver"]
        );
    }

    #[test]
    fn apt_learns_the_packages_first_and_asks_nothing() {
        let update = "env DEBIAN_FRONTEND=noninteractive apt-get update";
        let install =
            "env DEBIAN_FRONTEND=noninteractive apt-get install -y --no-install-recommends redis-server";
        assert_eq!(typed(Manager::Apt, &NEEDED[..1], true, true), [update, install]);
    }

    #[test]
    fn sudo_is_used_by_others_than_root_where_it_exists() {
        assert!(typed(Manager::Apt, &NEEDED, false, true).iter().all(|line| line.starts_with("sudo env ")));
        assert!(typed(Manager::Apt, &NEEDED, false, false).iter().all(|line| line.starts_with("env ")));
    }

    #[test]
    fn a_module_is_there_when_an_interpreter_imports_it() {
        assert!(imports("sys", "CACHE_KIT_TEST_NO_SUCH_VARIABLE"));
        assert!(!imports("cache_kit_no_such_module", "CACHE_KIT_TEST_NO_SUCH_VARIABLE"));
    }

    #[test]
    fn the_advice_names_packages_and_variables() {
        let advice = advice(&NEEDED);
        for part in [
            "not found: redis-server memcached pylibmc postgres chromium chromedriver",
            "apt-get install redis-server memcached python3-pylibmc postgresql chromium chromium-driver",
            "dnf install redis memcached python3-pylibmc postgresql-server chromium chromedriver",
            "brew install redis memcached libmemcached postgresql@17 chromium chromedriver",
            "pip install pylibmc",
            "CACHE_KIT_PYTHON",
            "cargo xtask test --install",
            "CACHE_KIT_TEST_REDIS_URL=redis://host:port",
            "CACHE_KIT_TEST_MEMCACHED=host:port",
            "CACHE_KIT_REDIS_SERVER",
            "CACHE_KIT_MEMCACHED_BIN",
            "CACHE_KIT_POSTGRES_BIN=<path>",
            "CACHE_KIT_CHROMIUM=<path>",
            "CACHE_KIT_CHROMEDRIVER=<path>",
        ] {
            assert!(advice.contains(part), "{part} is not in {advice}");
        }
    }
}
