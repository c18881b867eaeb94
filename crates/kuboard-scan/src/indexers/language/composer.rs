//! PHP packages: what Composer says it installed, `vendor/composer/installed.json`.

use std::collections::HashSet;

use kuboard_vuln::{Ecosystem, Package};
use serde::Deserialize;
use serde_json::Value;

use super::{Parsed, license, package};
use crate::Candidate;

/// The list of installed packages; the vendor folder may have any name.
#[must_use]
pub(super) fn wants(candidate: &Candidate<'_>) -> bool {
    candidate.path.ends_with("composer/installed.json")
        && candidate.path.rsplit('/').nth(1) == Some("composer")
}

/// Composer 1 writes a list, Composer 2 an object.
#[derive(Deserialize)]
#[serde(untagged)]
enum Installed {
    Two {
        packages: Vec<Entry>,
        #[serde(default, rename = "dev-package-names")]
        dev: Vec<String>,
    },
    One(Vec<Entry>),
}

#[derive(Deserialize)]
struct Entry {
    name: String,
    version: String,
    #[serde(default)]
    license: Value,
}

/// Installed packages, without those that are flagged as needed only to develop.
#[must_use]
pub fn parse(_path: &str, bytes: &[u8]) -> Parsed {
    let installed = match serde_json::from_slice::<Installed>(super::without_mark(bytes)) {
        Ok(installed) => installed,
        Err(error) => return Parsed::failed(format!("it is not Composer's list: {error}")),
    };
    let (packages, dev) = match installed {
        Installed::Two { packages, dev } => (packages, dev),
        Installed::One(packages) => (packages, Vec::new()),
    };
    let dev: HashSet<String> = dev.into_iter().collect();
    Parsed::bounded(packages.iter().filter(|entry| !dev.contains(&entry.name)).filter_map(found))
}

fn found(entry: &Entry) -> Option<Package> {
    // Tags of some repositories begin with a `v` that is no part of the version.
    let version = entry.version.trim();
    let version = match version.strip_prefix('v') {
        Some(rest) if rest.starts_with(|first: char| first.is_ascii_digit()) => rest,
        _ => version,
    };
    let mut package = package(Ecosystem::Composer, &entry.name, version)?;
    package.licenses = match &entry.license {
        Value::String(name) => license(name).into_iter().collect(),
        Value::Array(list) => {
            list.iter().take(16).filter_map(Value::as_str).filter_map(license).collect()
        }
        _ => Vec::new(),
    };
    Some(package)
}

#[cfg(test)]
mod tests {
    use super::{super::tests, *};

    #[test]
    fn lists() {
        fn check(text: &str, expected: &str) {
            assert_eq!(tests::shown(&parse("", text.as_bytes())), expected, "{text}");
        }
        check(
            r#"{"packages":[{"name":"monolog/monolog","version":"2.0.0","license":["MIT"],"x":{}},
                {"name":"symfony/yaml","version":"v5.4.3"},{"name":"a/b","version":"dev-main"},
                {"name":"phpunit/phpunit","version":"9.0.0"}],
               "dev":true,"dev-package-names":["phpunit/phpunit"]}"#,
            "monolog/monolog 2.0.0 [MIT], symfony/yaml 5.4.3, a/b dev-main",
        );
        check(r#"[{"name":"a/b","version":"1.0.0.0","license":"X"}]"#, "a/b 1.0.0.0 [X]");
        check("[]", "");
        assert_eq!(parse("", b"{}").problems.len(), 1);
        assert_eq!(parse("", &b"[".repeat(1 << 20)).problems.len(), 1);
    }

    #[test]
    fn paths() {
        tests::check_wants(
            wants,
            &[
                ("app/vendor/composer/installed.json", true),
                ("composer/installed.json", true),
                ("app/xcomposer/installed.json", false),
                ("app/installed.json", false),
            ],
        );
    }
}
