//! Lockfiles of Node programs: `package-lock.json` and `npm-shrinkwrap.json` of npm (all three
//! forms), `yarn.lock` (1 and later), `pnpm-lock.yaml` (5 to 9).
//!
//! What they state need not be installed, so their packages have the role `lockfile`; where
//! `node_modules` is there, that is the truth. What is needed only to develop is left out as far
//! as the lockfile tells: yarn's do not.

mod pnpm;
mod yarn;

use std::collections::HashMap;

use kuboard_vuln::{Ecosystem, Package};
use serde::Deserialize;

use super::{MAX_PACKAGES, Parsed, license, package};
use crate::Candidate;

/// How deep dependencies may be nested in the first form of npm's lockfile.
const MAX_DEPTH: usize = 32;

/// Lockfiles of programs; those inside of installed packages hold for nobody.
#[must_use]
pub(super) fn wants(candidate: &Candidate<'_>) -> bool {
    matches!(
        candidate.name(),
        "package-lock.json" | "npm-shrinkwrap.json" | "yarn.lock" | "pnpm-lock.yaml"
    ) && !candidate.path.split('/').any(|part| part == "node_modules")
}

/// Packages of a lockfile; its name says which.
#[must_use]
pub fn parse(path: &str, bytes: &[u8]) -> Parsed {
    let bytes = super::without_mark(bytes);
    let name = path.rsplit('/').next().unwrap_or(path);
    let mut parsed = match name {
        "yarn.lock" => yarn::parse(&String::from_utf8_lossy(bytes)),
        "pnpm-lock.yaml" => pnpm::parse(&String::from_utf8_lossy(bytes)),
        _ => npm(bytes),
    };
    parsed.packages.sort();
    parsed.packages.dedup();
    parsed
}

/// A package of a lockfile.
fn locked(name: &str, version: &str) -> Option<Package> {
    let mut package = package(Ecosystem::Npm, name, version)?;
    // A folder, an archive or a repository in place of a version.
    if !package.version.starts_with(|first: char| first.is_ascii_digit()) {
        return None;
    }
    package.role = Some("lockfile".to_owned());
    Some(package)
}

#[derive(Deserialize)]
struct Lock {
    #[serde(default)]
    packages: Option<HashMap<String, Installed>>,
    #[serde(default)]
    dependencies: Option<HashMap<String, Dependency>>,
}

/// An entry of the later forms; its key is a path.
#[derive(Deserialize)]
struct Installed {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    license: Option<serde_json::Value>,
    #[serde(default)]
    dev: bool,
    #[serde(default)]
    link: bool,
}

/// An entry of the first form; its key is a name.
#[derive(Deserialize)]
struct Dependency {
    #[serde(default)]
    version: Option<String>,
    #[serde(default)]
    dev: bool,
    #[serde(default)]
    dependencies: Option<HashMap<String, Dependency>>,
}

fn npm(bytes: &[u8]) -> Parsed {
    let lock = match serde_json::from_slice::<Lock>(bytes) {
        Ok(lock) => lock,
        Err(error) => return Parsed::failed(format!("it is not a lockfile of npm: {error}")),
    };
    if let Some(packages) = lock.packages {
        let found = packages.iter().filter_map(|(path, entry)| {
            // The program itself and its own parts have no `node_modules` in their path.
            let (_, name) = path.rsplit_once("node_modules/")?;
            if entry.dev || entry.link {
                return None;
            }
            let name = entry.name.as_deref().unwrap_or(name);
            let mut package = locked(name, entry.version.as_deref()?)?;
            let stated = entry.license.as_ref().and_then(serde_json::Value::as_str);
            package.licenses.extend(stated.and_then(license));
            Some(package)
        });
        return Parsed::bounded(found);
    }
    let mut parsed = Parsed::default();
    if let Some(dependencies) = &lock.dependencies {
        nested(dependencies, 0, &mut parsed);
    }
    parsed
}

fn nested(dependencies: &HashMap<String, Dependency>, depth: usize, parsed: &mut Parsed) {
    if depth == MAX_DEPTH {
        parsed.problems.push(format!("its dependencies are nested more than {MAX_DEPTH} deep"));
        return;
    }
    for (name, dependency) in dependencies {
        if parsed.packages.len() == MAX_PACKAGES {
            return;
        }
        if dependency.dev {
            continue;
        }
        if let Some(version) = dependency.version.as_deref() {
            // Another name for a package: `npm:NAME@VERSION`.
            let alias = version.strip_prefix("npm:").and_then(|of| of.rsplit_once('@'));
            let (name, version) = alias.unwrap_or((name, version));
            parsed.packages.extend(locked(name, version));
        }
        if let Some(inner) = &dependency.dependencies {
            nested(inner, depth + 1, parsed);
        }
    }
}

#[cfg(test)]
mod tests;
