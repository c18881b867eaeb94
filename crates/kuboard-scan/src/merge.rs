//! Layers to an image: what an upper layer replaces, removes or hides is gone.
//!
//! Pure, and about as fast as the packages can be copied: each path is looked at once, with the
//! layers in which something happened to it or to a folder above it.
//!
//! A distribution with a merged `/usr` has links like `lib` to `usr/lib` in its root, and other
//! layers may or may not write through them. So the paths of a layer are led through the links of
//! the root that stand there, whether that layer has them or one below. Links further down are not
//! followed. Entries that cover lower ones are known by a hash of the path as it was written, so
//! one that was written through such a link covers nothing.

mod hidden;
mod settle;
#[cfg(test)]
mod tests;

use std::{borrow::Cow, sync::Arc};

use kuboard_vuln::{
    Distribution, Ecosystem, FileRecord, ImageInventory, LayerInventory, LayerReference, Package,
    PlacedPackage, Problem,
};
use rustc_hash::{FxHashMap, FxHashSet};

use hidden::{Hidden, Links};

/// Problems that an image's inventory repeats.
const MAX_PROBLEMS: usize = 2000;
/// Repositories that an image's packages may come from.
const MAX_REPOSITORIES: usize = 1000;

/// A layer of an image, with what it holds.
pub type Layer = (LayerReference, Arc<LayerInventory>);

/// Merges the layers of an image, given from the lowest up.
#[must_use]
pub fn merge(layers: &[Layer]) -> ImageInventory {
    let (hidden, files, links) = survey(layers);
    let mut survivors = Vec::new();
    for (path, versions) in &files {
        if let Some(survivor) = survivor(path, versions, &hidden, &files) {
            survivors.push(survivor);
        }
    }
    let mut packages: Vec<PlacedPackage> = survivors.iter().flat_map(Survivor::packages).collect();
    mark_owned(&mut packages, &survivors, &links);
    place_repositories(&mut packages, &survivors);
    settle::drop_locked(&mut packages);
    settle::keep_licenses(&mut packages, layers);
    sort(&mut packages);
    ImageInventory {
        layers: layers.iter().map(|(reference, _)| reference.clone()).collect(),
        distribution: distribution(&survivors),
        packages,
        problems: problems(layers, &hidden, &files),
    }
}

/// The records of one path in one layer.
struct Version<'a> {
    layer: u32,
    records: Vec<&'a FileRecord>,
}

/// All versions of the files that indexers read, by path, each from the lowest up.
type Files<'a> = FxHashMap<Cow<'a, str>, Vec<Version<'a>>>;

/// One look at all layers.
fn survey(layers: &[Layer]) -> (Hidden<'_>, Files<'_>, Links<'_>) {
    let (mut hidden, mut files, mut links) =
        (Hidden::default(), Files::default(), Links::default());
    for (layer, (_, inventory)) in (0..).zip(layers) {
        // Removals concern what is below, and so go through the links that stand there.
        hidden.add(layer, inventory, &links);
        links.update(inventory);
        for record in &inventory.files {
            let versions = files.entry(links.lead(&record.path)).or_default();
            match versions.last_mut() {
                Some(version) if version.layer == layer => version.records.push(record),
                _ => versions.push(Version { layer, records: vec![record] }),
            }
        }
    }
    hidden.seal();
    (hidden, files, links)
}

/// A file that is there in the image.
struct Survivor<'a> {
    path: &'a str,
    layer: u32,
    records: &'a [&'a FileRecord],
    /// For each record, the layer that each of its packages is from.
    origins: Vec<Vec<u32>>,
}

/// What is left of a path's versions, if anything is.
fn survivor<'a>(
    path: &'a str,
    versions: &'a [Version<'a>],
    hidden: &Hidden<'_>,
    files: &Files<'_>,
) -> Option<Survivor<'a>> {
    let last = versions.last()?;
    let events = hidden.events(path, files);
    // Nothing may have happened to it above its last version.
    if events.iter().any(|event| *event > last.layer) {
        return None;
    }
    // Where the row of versions without a gap begins. What happens in a version's own layer
    // happens before it is put there, and so leaves no gap.
    let mut first = versions.len() - 1;
    while let Some(below) = first.checked_sub(1) {
        let (Some(lower), Some(upper)) = (versions.get(below), versions.get(first)) else { break };
        if events.iter().any(|event| lower.layer < *event && *event < upper.layer) {
            break;
        }
        first = below;
    }
    let row = versions.get(first..).unwrap_or_default();
    Some(Survivor { path, layer: last.layer, records: &last.records, origins: origins(row, last) })
}

/// What makes a package the same in two layers.
type Same<'a> = (&'a str, &'a str, &'a str, Option<&'a str>);

fn same<'a>(by: &'a str, package: &'a Package) -> Same<'a> {
    (by, &package.name, &package.version, package.arch.as_deref())
}

/// The lowest layer from which on each package of the last version is there without a gap.
fn origins(row: &[Version<'_>], last: &Version<'_>) -> Vec<Vec<u32>> {
    let mut since: FxHashMap<Same<'_>, u32> = FxHashMap::default();
    // A row of one is the usual case.
    if row.len() > 1 {
        for version in row {
            let mut next = FxHashMap::default();
            for record in &version.records {
                for package in &record.packages {
                    let same = same(&record.by, package);
                    next.insert(same, since.get(&same).copied().unwrap_or(version.layer));
                }
            }
            since = next;
        }
    }
    let mut origins = Vec::with_capacity(last.records.len());
    for record in &last.records {
        let origin = |package| since.get(&same(&record.by, package)).copied();
        let of_record = record.packages.iter().map(|one| origin(one).unwrap_or(last.layer));
        origins.push(of_record.collect());
    }
    origins
}

impl Survivor<'_> {
    fn packages(&self) -> impl Iterator<Item = PlacedPackage> {
        self.records.iter().zip(&self.origins).flat_map(|(record, origins)| {
            record.packages.iter().zip(origins).map(|(package, layer)| PlacedPackage {
                package: package.clone(),
                path: self.path.to_owned(),
                by: record.by.clone(),
                layer: *layer,
                owned: false,
            })
        })
    }
}

/// Marks the language packages whose files belong to packages of the distribution.
fn mark_owned(packages: &mut [PlacedPackage], survivors: &[Survivor<'_>], links: &Links<'_>) {
    if packages.iter().all(|placed| placed.package.ecosystem.is_os()) {
        return;
    }
    let owned: FxHashSet<Cow<'_, str>> = survivors
        .iter()
        .flat_map(|survivor| survivor.records)
        .flat_map(|record| &record.owns)
        .map(|path| links.lead(path))
        .collect();
    for placed in packages {
        placed.owned = !placed.package.ecosystem.is_os() && owned.contains(placed.path.as_str());
    }
}

/// Gives the image's repositories to the rpm packages that state none of their own.
fn place_repositories(packages: &mut [PlacedPackage], survivors: &[Survivor<'_>]) {
    let mut all: Vec<&String> = survivors
        .iter()
        .flat_map(|survivor| survivor.records)
        .flat_map(|record| &record.repositories)
        .collect();
    if all.is_empty() {
        return;
    }
    all.sort();
    all.dedup();
    let all: Vec<String> = all.into_iter().take(MAX_REPOSITORIES).cloned().collect();
    for placed in packages {
        let package = &mut placed.package;
        if package.ecosystem == Ecosystem::Rpm && package.repositories.is_empty() {
            package.repositories.clone_from(&all);
        }
    }
}

/// Sorts by ecosystem, name, version and path, and leaves one of several that are the same.
fn sort(packages: &mut Vec<PlacedPackage>) {
    fn key(placed: &PlacedPackage) -> impl Ord + '_ {
        let PlacedPackage { package, path, by, .. } = placed;
        (package.ecosystem, &package.name, &package.version, path, by, &package.arch)
    }
    packages.sort_by(|a, b| key(a).cmp(&key(b)));
    packages.dedup_by(|a, b| key(a) == key(b));
}

/// The distribution of the topmost layer that names one; in a layer, what is read first by
/// programs that ask.
fn distribution(survivors: &[Survivor<'_>]) -> Option<Distribution> {
    let rank = |path: &str| match path {
        "etc/os-release" => 2,
        "usr/lib/os-release" => 1,
        _ => 0,
    };
    survivors
        .iter()
        .flat_map(|survivor| survivor.records.iter().map(move |record| (survivor, record)))
        .filter_map(|(survivor, record)| {
            let named = record.distribution.as_ref().filter(|named| !named.id.is_empty())?;
            Some(((survivor.layer, rank(survivor.path)), survivor.path, named))
        })
        // Of equals the first by path, whatever the order of the survivors.
        .max_by(|(a, a_path, _), (b, b_path, _)| a.cmp(b).then(b_path.cmp(a_path)))
        .map(|(_, _, named)| named.clone())
}

/// The problems of all layers, but for those with files that are not in the image.
fn problems(layers: &[Layer], hidden: &Hidden<'_>, files: &Files<'_>) -> Vec<Problem> {
    let mut links = Links::default();
    let mut problems: Vec<Problem> = Vec::new();
    let mut seen: FxHashSet<&Problem> = FxHashSet::default();
    for (layer, (_, inventory)) in (0..).zip(layers) {
        links.update(inventory);
        for problem in &inventory.problems {
            let path = links.lead(&problem.path);
            let is_gone = !path.is_empty()
                && (hidden.events(&path, files).iter().any(|event| *event > layer)
                    || files
                        .get(&path)
                        .and_then(|versions| versions.last())
                        .is_some_and(|version| version.layer > layer));
            if !is_gone && problems.len() < MAX_PROBLEMS && seen.insert(problem) {
                problems.push(problem.clone());
            }
        }
    }
    problems
}
