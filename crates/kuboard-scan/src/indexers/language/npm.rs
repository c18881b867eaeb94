//! Node packages: each `package.json` that states a name and a version.

use kuboard_vuln::Ecosystem;
use serde::Deserialize;
use serde_json::Value;

use super::{Parsed, license, package};
use crate::Candidate;

/// Any `package.json`: those in `node_modules`, and those of programs.
#[must_use]
pub(super) fn wants(candidate: &Candidate<'_>) -> bool {
    candidate.name() == "package.json"
}

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    name: Value,
    #[serde(default)]
    version: Value,
    #[serde(default)]
    license: Value,
    #[serde(default)]
    licenses: Value,
}

/// The package that a manifest states; none if it has no name or no version, as those have that
/// only tell a folder's kind of modules.
#[must_use]
pub fn parse(path: &str, bytes: &[u8]) -> Parsed {
    let manifest = match serde_json::from_slice::<Manifest>(super::without_mark(bytes)) {
        Ok(manifest) => manifest,
        // Packages bring broken manifests along to test with them: only an installed package's
        // own one is missed.
        Err(_) if !is_installed(path) => return Parsed::default(),
        Err(error) => return Parsed::failed(format!("it is not a manifest of npm: {error}")),
    };
    let (Some(name), Some(version)) = (manifest.name.as_str(), manifest.version.as_str()) else {
        return Parsed::default();
    };
    // npm drops what stands before the number.
    let version = version.trim().trim_start_matches(['v', '=']);
    let mut package = package(Ecosystem::Npm, name, version);
    if let Some(package) = &mut package {
        package.licenses = licenses(&manifest.license);
        if package.licenses.is_empty() {
            package.licenses = licenses(&manifest.licenses);
        }
    }
    Parsed::one(package)
}

/// Whether this is the manifest of a package that was installed: `node_modules/NAME` or
/// `node_modules/@SCOPE/NAME`.
fn is_installed(path: &str) -> bool {
    let mut parts = path.rsplit('/').skip(2);
    match (parts.next(), parts.next()) {
        (Some("node_modules"), _) => true,
        (Some(scope), Some("node_modules")) => scope.starts_with('@'),
        _ => false,
    }
}

/// Licences as a name, an object `{type, url}`, or a list of these.
fn licenses(value: &Value) -> Vec<String> {
    let one = |value: &Value| match value {
        Value::String(name) => license(name),
        Value::Object(object) => object.get("type").and_then(Value::as_str).and_then(license),
        _ => None,
    };
    match value {
        Value::Array(list) => list.iter().take(16).filter_map(one).collect(),
        other => one(other).into_iter().collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::{super::tests, *};

    #[test]
    fn manifests() {
        fn check(text: &str, expected: &str) {
            let parsed = parse("srv/node_modules/x/package.json", text.as_bytes());
            assert_eq!(tests::shown(&parsed), expected, "{text}");
        }
        check(r#"{"name":"lodash","version":"4.17.20","license":"MIT"}"#, "lodash 4.17.20 [MIT]");
        check(
            r#"{"name":"@a/b","version":" v1.0.0","licenses":[{"type":"MIT"},"ISC",1]}"#,
            "@a/b 1.0.0 [MIT, ISC]",
        );
        check(
            "\u{feff}{\"name\":\"a\",\"version\":\"1.0.0\",\"license\":{\"type\":\"X\"}}",
            "a 1.0.0 [X]",
        );
        check(r#"{"type":"module"}"#, "");
        check(r#"{"name":"a","version":1}"#, "");
        check(r#"{"name":"a\u0000","version":"1"}"#, "");
        let broken = parse("node_modules/@s/x/package.json", b"{");
        assert!(broken.packages.is_empty() && broken.problems.len() == 1);
        for path in ["package.json", "node_modules/x/test/package.json", "src/@s/x/package.json"] {
            assert_eq!(parse(path, b"{"), Parsed::default(), "{path}");
        }
        let deep = format!(r#"{{"name":"a","version":"1","x":{}"#, "[".repeat(1_000_000));
        assert_eq!(parse("node_modules/x/package.json", deep.as_bytes()).problems.len(), 1);
    }
}
