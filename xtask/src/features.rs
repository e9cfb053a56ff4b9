//! The features of a manifest, read from the manifest, so that a new one cannot be forgotten.

/// The names in the `[features]` table, without `default`.
pub(crate) fn of(manifest: &str) -> Vec<String> {
    let mut names = Vec::new();
    let mut inside = false;
    // A feature's list may span lines; what is inside brackets is no feature.
    let mut depth = 0_i32;
    for line in manifest.lines() {
        let line = line.split('#').next().unwrap_or_default().trim();
        if depth == 0 && line.starts_with('[') {
            inside = line == "[features]";
            continue;
        }
        if !inside {
            continue;
        }
        if depth == 0
            && let Some((name, _)) = line.split_once('=')
        {
            names.push(name.trim().trim_matches('"').to_owned());
        }
        for character in line.chars() {
            depth += i32::from(character == '[') - i32::from(character == ']');
        }
    }
    names.retain(|name| name != "default");
    names
}

#[cfg(test)]
mod tests {
    use super::of;

    #[test]
    fn each_feature_is_found_and_nothing_else() {
        let manifest = r#"
            [package]
            name = "x"
            [features]
            default = ["a"]
            # b = ["commented"]
            a = ["dep:x"] # why
            "quoted" = []
            many = [
                "a",
                "dep:y",
            ]
            last=[]
            [dependencies]
            y = { version = "1", optional = true }
        "#;
        assert_eq!(of(manifest), ["a", "quoted", "many", "last"]);
    }

    #[test]
    fn the_library_has_features() {
        let manifest = std::fs::read_to_string(crate::root().join("crates/cache-kit/Cargo.toml")).unwrap();
        assert!(of(&manifest).len() > 3, "{:?}", of(&manifest));
    }
}
