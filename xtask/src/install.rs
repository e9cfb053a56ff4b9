//! The servers that the tests need: are they here, and how do they get here?

use std::path::Path;
use std::process::{Command, Stdio};

use crate::say;

/// A server that the tests start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Needed {
    program: &'static str,
    /// Package in dnf and brew; in apt it is called like the program.
    package: &'static str,
    program_var: &'static str,
    external_var: &'static str,
}

pub(crate) const NEEDED: [Needed; 2] = [
    Needed {
        program: "redis-server",
        package: "redis",
        program_var: "CACHE_KIT_REDIS_SERVER",
        external_var: "CACHE_KIT_TEST_REDIS_URL",
    },
    Needed {
        program: "memcached",
        package: "memcached",
        program_var: "CACHE_KIT_MEMCACHED_BIN",
        external_var: "CACHE_KIT_TEST_MEMCACHED",
    },
];

/// The servers that are neither installed nor named by the environment.
pub(crate) fn missing() -> Vec<Needed> {
    let set = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let there = |needed: &Needed| match set(needed.program_var) {
        Some(path) => Path::new(&path).is_file(),
        None => set(needed.external_var).is_some() || on_path(needed.program),
    };
    NEEDED.into_iter().filter(|needed| !there(needed)).collect()
}

fn on_path(program: &str) -> bool {
    std::env::var_os("PATH")
        .is_some_and(|path| std::env::split_paths(&path).any(|dir| dir.join(program).is_file()))
}

/// What to do about missing servers.
pub(crate) fn advice(missing: &[Needed]) -> String {
    let programs: Vec<_> = missing.iter().map(|needed| needed.program).collect();
    let packages: Vec<_> = missing.iter().map(|needed| needed.package).collect();
    let (programs, packages) = (programs.join(" "), packages.join(" "));
    let mut text = format!(
        "The tests run against real servers; not found: {programs}\n\
         install them:   apt-get install {programs}\n\
         \x20               dnf install {packages}\n\
         \x20               brew install {packages}\n\
         or let xtask:   cargo xtask test --install\n\
         or set, for a program elsewhere, or a running server that may be used by tests which do not control it:"
    );
    for needed in missing {
        let example = if needed.package == "redis" { "redis://host:port" } else { "host:port" };
        text += &format!("\n    {}=<path>   or   {}={example}", needed.program_var, needed.external_var);
    }
    text
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Manager {
    Apt,
    Dnf,
    Brew,
}

/// Installs the packages of the missing servers with the package manager of this machine.
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
    let programs = missing.iter().map(|needed| needed.program);
    let packages = missing.iter().map(|needed| needed.package);
    let commands: Vec<Vec<&str>> = match manager {
        Manager::Apt => vec![
            apt.into_iter().chain(["update"]).collect(),
            apt.into_iter().chain(["install", "-y", "--no-install-recommends"]).chain(programs).collect(),
        ],
        Manager::Dnf => vec![["dnf", "install", "-y"].into_iter().chain(packages).collect()],
        Manager::Brew => vec![["brew", "install"].into_iter().chain(packages).collect()],
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
        assert_eq!(typed(Manager::Dnf, &NEEDED[1..], true, true), ["dnf install -y memcached"]);
        assert_eq!(typed(Manager::Brew, &NEEDED, false, true), ["brew install redis memcached"]);
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
    fn the_advice_names_packages_and_variables() {
        let advice = advice(&NEEDED);
        for part in [
            "apt-get install redis-server memcached",
            "dnf install redis memcached",
            "brew install redis memcached",
            "cargo xtask test --install",
            "CACHE_KIT_TEST_REDIS_URL=redis://host:port",
            "CACHE_KIT_TEST_MEMCACHED=host:port",
            "CACHE_KIT_REDIS_SERVER",
            "CACHE_KIT_MEMCACHED_BIN",
        ] {
            assert!(advice.contains(part), "{part} is not in {advice}");
        }
    }
}
