//! What only the whole image can settle about its packages.

use kuboard_vuln::{Ecosystem, PlacedPackage};
use rustc_hash::{FxHashMap, FxHashSet};

use super::Layer;

/// A lockfile says what was meant to be installed; where the folder that it is for is there, that
/// one says what was.
pub(super) fn drop_locked(packages: &mut Vec<PlacedPackage>) {
    let is_locked = |placed: &PlacedPackage| placed.package.role.as_deref() == Some("lockfile");
    if !packages.iter().any(is_locked) {
        return;
    }
    let installed: FxHashSet<&str> = packages
        .iter()
        .filter(|placed| placed.package.ecosystem == Ecosystem::Npm && !is_locked(placed))
        .filter_map(|placed| placed.path.find("node_modules/").and_then(|at| placed.path.get(..at)))
        .collect();
    let folder = |path: &str| path.rfind('/').map_or(0, |slash| slash + 1);
    let gone: Vec<bool> = packages
        .iter()
        .map(|placed| {
            let folder = placed.path.get(..folder(&placed.path)).unwrap_or_default();
            is_locked(placed) && installed.contains(folder)
        })
        .collect();
    let mut gone = gone.into_iter();
    packages.retain(|_| !gone.next().unwrap_or(false));
}

/// dpkg's licences stand in files of the layer that installed the package, its state in one file
/// that upper layers write anew: a package without licences has those that it had below.
pub(super) fn keep_licenses(packages: &mut [PlacedPackage], layers: &[Layer]) {
    if layers.len() < 2
        || !packages.iter().any(|one| one.by == "dpkg" && one.package.licenses.is_empty())
    {
        return;
    }
    let mut known: FxHashMap<(&str, &str), &[String]> = FxHashMap::default();
    for (_, inventory) in layers {
        for record in inventory.files.iter().filter(|record| record.by == "dpkg") {
            for package in record.packages.iter().filter(|package| !package.licenses.is_empty()) {
                known.insert((&package.name, &package.version), &package.licenses);
            }
        }
    }
    for placed in packages.iter_mut().filter(|one| one.by == "dpkg") {
        let package = &mut placed.package;
        if package.licenses.is_empty()
            && let Some(licenses) = known.get(&(package.name.as_str(), package.version.as_str()))
        {
            package.licenses = licenses.to_vec();
        }
    }
}

#[cfg(test)]
mod tests {
    use kuboard_vuln::{Ecosystem, Package, PlacedPackage};

    use super::drop_locked;

    fn placed(path: &str, name: &str, role: Option<&str>) -> PlacedPackage {
        let role = role.map(str::to_owned);
        PlacedPackage {
            package: Package { role, ..Package::new(Ecosystem::Npm, name, "1.0.0") },
            path: path.to_owned(),
            by: "npm".to_owned(),
            layer: 0,
            owned: false,
        }
    }

    #[test]
    fn lockfiles_count_where_nothing_is_installed_beside_them() {
        let mut packages = vec![
            placed("app/node_modules/a/package.json", "a", None),
            placed("app/package-lock.json", "b", Some("lockfile")),
            placed("other/package-lock.json", "c", Some("lockfile")),
        ];
        drop_locked(&mut packages);
        let names: Vec<_> = packages.iter().map(|one| one.package.name.as_str()).collect();
        assert_eq!(names, ["a", "c"]);
    }
}
