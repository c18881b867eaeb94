//! A Node application: what npm put into `node_modules`, with its lock file, on Alpine.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use serde_json::{Value, json};

use crate::rootfs::{Layer, Package, RealImage, alpine_layer, home as fixtures};
use crate::tool;

/// Old on purpose; npm resolves what these need to the newest that fits, and the lock file tells.
const DEPENDENCIES: &[(&str, &str)] = &[
    ("@babel/traverse", "7.22.5"),
    ("express", "4.16.0"),
    ("handlebars", "4.0.11"),
    ("lodash", "4.17.15"),
    ("minimist", "1.2.0"),
];

pub(crate) fn image() -> Result<RealImage> {
    let layer = Layer::kept("node-app", 1, fill)?;
    RealImage::kept("node-app", vec![alpine_layer()?, layer])
}

fn fill(tree: &Path) -> Result<Vec<Package>> {
    let home = tree.join("srv/shop");
    fs::create_dir_all(&home)?;
    let dependencies: serde_json::Map<String, Value> =
        DEPENDENCIES.iter().map(|(name, version)| ((*name).to_owned(), json!(version))).collect();
    let manifest = json!({
        "name": "shop", "version": "1.0.0", "private": true, "dependencies": dependencies,
    });
    fs::write(home.join("package.json"), format!("{manifest:#}\n"))?;
    let mut install = tool::command("npm")?;
    install
        .args(["install", "--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier"])
        .args(["--omit=dev", "--loglevel=error", "--cache"])
        .arg(fixtures()?.join("npm-cache"))
        .current_dir(&home);
    tool::output(&mut install)?;
    let lock: Value = serde_json::from_slice(&fs::read(home.join("package-lock.json"))?)?;
    installed(&lock)
}

/// The entries of a lock file below `node_modules/`.
fn installed(lock: &Value) -> Result<Vec<Package>> {
    let mut found = Vec::new();
    for (path, entry) in lock["packages"].as_object().context("no packages in the lock file")? {
        let Some((_, name)) = path.rsplit_once("node_modules/") else { continue };
        let version = entry["version"].as_str().with_context(|| format!("{path}: no version"))?;
        found.push(Package::new("npm", name, version));
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::installed;
    use crate::rootfs::Package;
    use serde_json::json;

    #[test]
    fn nested_packages_count_and_the_application_does_not() {
        let lock = json!({"packages": {
            "": {"version": "1.0.0"},
            "node_modules/@a/b": {"version": "2.0.0"},
            "node_modules/c/node_modules/d": {"version": "3.0.0"},
        }});
        let expected = [Package::new("npm", "@a/b", "2.0.0"), Package::new("npm", "d", "3.0.0")];
        assert_eq!(installed(&lock).unwrap(), expected);
    }
}
