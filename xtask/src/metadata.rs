//! Questions to `cargo metadata` and `cargo tree`.

use std::collections::HashSet;

use serde_json::Value;

use crate::{cargo, output_of};

/// Clients and transport that a build without features must not bring in.
const NOT_IN_THE_CORE: [&str; 15] = [
    "async-memcached",
    "bb8",
    "bmemcached",
    "deadpool",
    "deadpool-memcached",
    "deadpool-redis",
    "fred",
    "memcache",
    "memcache-async",
    "native-tls",
    "openssl",
    "redis",
    "rustls",
    "url",
    "vmemcached",
];

fn metadata(arguments: &[&str]) -> Result<Value, String> {
    let text = output_of(cargo(["metadata", "--format-version", "1", "--locked"]).args(arguments))?;
    serde_json::from_str(&text).map_err(|error| error.to_string())
}

/// `name version` of everything that the library's users compile, with these feature arguments.
fn compiled(features: &str) -> Result<Vec<(String, String)>, String> {
    let tree = ["tree", "--locked", "-p", "cache-kit", "-e", "normal", "--prefix", "none", "-f", "{p}"];
    let text = output_of(cargo(tree).args([features, "--target", "all"]))?;
    let packages = text.lines().filter_map(|line| {
        let mut words = line.split(' ');
        Some((words.next()?.to_owned(), words.next()?.trim_start_matches('v').to_owned()))
    });
    Ok(packages.collect())
}

/// The library without features must not pull in any client.
pub(crate) fn core_has_no_client() -> Result<(), String> {
    let packages = compiled("--no-default-features")?;
    match packages.iter().find(|(name, _)| NOT_IN_THE_CORE.contains(&name.as_str())) {
        Some((name, _)) => {
            Err(format!("cache-kit without features depends on {name}: `cargo tree -i {name}`"))
        }
        None => Ok(()),
    }
}

/// No dependency may ask for a newer compiler than the library says it needs.
pub(crate) fn rust_version_is_true() -> Result<(), String> {
    let compiled: HashSet<_> = compiled("--all-features")?.into_iter().collect();
    let metadata = metadata(&["--all-features"])?;
    let packages: Vec<_> = metadata["packages"].as_array().into_iter().flatten().collect();
    let text = |package: &Value, field: &str| package[field].as_str().unwrap_or_default().to_owned();
    let Some(own) = packages.iter().find(|package| package["name"] == "cache-kit") else {
        return Err("cargo metadata knows no cache-kit".to_owned());
    };
    let declared = text(own, "rust_version");
    let too_new: Vec<String> = packages
        .iter()
        .filter(|package| compiled.contains(&(text(package, "name"), text(package, "version"))))
        .filter(|package| version(&text(package, "rust_version")) > version(&declared))
        .map(|package| {
            format!("{} {} asks for {}", package["name"], package["version"], package["rust_version"])
        })
        .collect();
    if too_new.is_empty() {
        return Ok(());
    }
    Err(format!("cache-kit declares rust-version {declared:?}, but\n{}", too_new.join("\n")))
}

/// Numbers compare as numbers; a package that says nothing has an empty version, lower than all.
fn version(text: &str) -> Vec<u32> {
    let mut numbers: Vec<u32> = text.split('.').filter_map(|part| part.parse().ok()).collect();
    while numbers.last() == Some(&0) {
        numbers.pop();
    }
    numbers
}

/// A program under `examples/`: its name, the directory of its package, and where `cargo build` leaves it.
#[derive(Debug)]
pub(crate) struct Example {
    pub(crate) name: String,
    pub(crate) directory: std::path::PathBuf,
    pub(crate) program: std::path::PathBuf,
}

/// The programs of the workspace's packages under `examples/`.
pub(crate) fn examples() -> Result<Vec<Example>, String> {
    let root = std::path::absolute(crate::root().join("examples")).map_err(|error| error.to_string())?;
    let metadata = metadata(&["--no-deps"])?;
    let built = std::path::Path::new(metadata["target_directory"].as_str().unwrap_or("target")).join("debug");
    let mut examples = Vec::new();
    for package in metadata["packages"].as_array().into_iter().flatten() {
        let manifest = std::path::Path::new(package["manifest_path"].as_str().unwrap_or_default());
        let Some(directory) = manifest.parent().filter(|directory| directory.starts_with(&root)) else {
            continue;
        };
        for target in package["targets"].as_array().into_iter().flatten() {
            let place = match target["kind"][0].as_str() {
                Some("bin") => built.clone(),
                Some("example") => built.join("examples"),
                _ => continue,
            };
            if let Some(name) = target["name"].as_str() {
                let program = place.join(format!("{name}{}", std::env::consts::EXE_SUFFIX));
                examples.push(Example { name: name.to_owned(), directory: directory.to_owned(), program });
            }
        }
    }
    Ok(examples)
}

#[cfg(test)]
mod tests {
    use super::version;

    #[test]
    fn versions_compare_by_number() {
        assert!(version("1.100") > version("1.88"));
        assert!(version("1.88.1") > version("1.88"));
        assert!(version("1.88.0") == version("1.88"));
        assert!(version("") < version("1.0"));
    }
}
