//! Merges, in a compact notation. A layer is words:
//!
//! `PATH=PKG@VERSION,…` a record (by `x`; `PATH!BY=…` by another indexer, `PATH=` an empty one),
//! `-PATH` removed, `!PATH` opaque, `~PATH` covered, `NAME>PATH` a link in the root, `PATH:ID` a
//! distribution, `PATH^OWNED` a record that owns a path, `PATH?` a problem.
//!
//! A package is one of dpkg unless its name begins with a capital: then it is Python's. The image
//! is `PKG@VERSION#LAYER` words, with `+` if it is owned.

use std::sync::Arc;

use kuboard_oci::Digest;
use kuboard_vuln::{
    Distribution, Ecosystem, FileRecord, ImageInventory, LayerInventory, LayerReference, Package,
    Problem,
};

use super::{Layer, merge};

fn package(text: &str) -> Package {
    let (name, version) = text.split_once('@').unwrap();
    let is_python = name.starts_with(|first: char| first.is_ascii_uppercase());
    Package::new(if is_python { Ecosystem::Pypi } else { Ecosystem::Deb }, name, version)
}

fn layer(text: &str) -> Layer {
    let mut inventory = LayerInventory::default();
    for word in text.split_whitespace() {
        let mut record = FileRecord { by: "x".to_owned(), ..FileRecord::default() };
        if let Some(path) = word.strip_prefix('-') {
            inventory.removed.push(path.to_owned());
            continue;
        } else if let Some(path) = word.strip_prefix('!') {
            inventory.opaque.push(path.to_owned());
            continue;
        } else if let Some(path) = word.strip_prefix('~') {
            inventory.covered.push(LayerInventory::path_hash(path));
            continue;
        } else if let Some(path) = word.strip_suffix('?') {
            let (by, why) = ("x".to_owned(), "unread".to_owned());
            inventory.problems.push(Problem { path: path.to_owned(), by, why });
            continue;
        } else if let Some((name, target)) = word.split_once('>') {
            inventory.links.push((name.to_owned(), target.to_owned()));
            continue;
        } else if let Some((path, id)) = word.split_once(':') {
            record.path = path.to_owned();
            record.distribution = Some(Distribution { id: id.to_owned(), ..Default::default() });
        } else if let Some((path, owned)) = word.split_once('^') {
            record.path = path.to_owned();
            record.owns.push(owned.to_owned());
        } else {
            let (path, packages) = word.split_once('=').unwrap();
            let (path, by) = path.split_once('!').unwrap_or((path, "x"));
            record.path = path.to_owned();
            record.by = by.to_owned();
            record.packages =
                packages.split(',').filter(|name| !name.is_empty()).map(package).collect();
        }
        inventory.files.push(record);
    }
    inventory.covered.sort_unstable();
    let reference = LayerReference {
        digest: Digest::sha256(text.as_bytes()),
        diff_id: None,
        created_by: String::new(),
        size: 0,
    };
    (reference, Arc::new(inventory))
}

fn image(layers: &[&str]) -> ImageInventory {
    let layers: Vec<Layer> = layers.iter().map(|text| layer(text)).collect();
    let image = merge(&layers);
    assert_eq!(image.layers.len(), layers.len());
    image
}

fn check(layers: &[&str], want: &str) {
    let words: Vec<String> = image(layers)
        .packages
        .iter()
        .map(|placed| {
            let Package { name, version, .. } = &placed.package;
            let owned = if placed.owned { "+" } else { "" };
            format!("{name}@{version}#{}{owned}", placed.layer)
        })
        .collect();
    assert_eq!(words.join(" "), want, "{layers:?}");
}

#[test]
fn upper_files_replace_lower_ones() {
    check(&[], "");
    check(&["a/db=p@1,q@1"], "p@1#0 q@1#0");
    check(&["a/db=p@1", "a/db=q@1"], "q@1#1");
    check(&["a/db=p@1", "a/db="], "");
    check(&["a/db=p@1", "a/other=q@1"], "p@1#0 q@1#1");
    check(&["a/db=p@1", "a/db!y=q@1"], "q@1#1");
    check(&["a/db=p@1 a/db!y=q@1"], "p@1#0 q@1#0");
    // A file in place of a folder.
    check(&["a/b/db=p@1", "a/b="], "");
    check(&["a/b/db=p@1", "a/bc=", "a/b/dbx="], "p@1#0");
    // The same package twice.
    check(&["a/db=p@1,p@1"], "p@1#0");
    check(&["a/db=p@1 a/dc=p@1"], "p@1#0 p@1#0");
}

#[test]
fn a_package_is_from_the_layer_that_first_had_it() {
    check(&["db=p@1", "db=p@1,q@1", "db=p@1,q@1"], "p@1#0 q@1#1");
    check(&["db=p@1", "db=p@2", "db=p@1"], "p@1#2");
    check(&["db=p@1", "db=q@1", "db=p@1"], "p@1#2");
    check(&["db=p@1", "db!y=p@1"], "p@1#1");
    check(&["db=p@1", "other=", "db=p@1"], "p@1#0");
    // A gap: gone in the layer between.
    check(&["db=p@1", "-db", "db=p@1"], "p@1#2");
    check(&["a/db=p@1", "~a", "a/db=p@1"], "p@1#2");
    // Replaced in one layer.
    check(&["db=p@1", "-db db=p@1"], "p@1#0");
    check(&["a/db=p@1", "!a a/db=p@1", "a/db=p@1"], "p@1#0");
}

#[test]
fn removed_paths_are_gone() {
    check(&["a/db=p@1", "-a/db"], "");
    check(&["a/db=p@1", "-a"], "");
    check(&["a/b/c/db=p@1", "-a/b"], "");
    check(&["a/db=p@1 ab/db=q@1", "-a"], "q@1#0");
    check(&["a/db=p@1", "-a/d -b -a/db/c"], "p@1#0");
    // What the layer itself brings stays.
    check(&["a/db=p@1", "-a a/dc=q@1"], "q@1#1");
    check(&["-a/db a/db=p@1"], "p@1#0");
    check(&["a/db=p@1", "-a/db", ""], "");
}

#[test]
fn opaque_folders_hide_what_was_in_them() {
    check(&["a/db=p@1", "!a"], "");
    check(&["a/b/db=p@1", "!a a/b/dc=q@1"], "q@1#1");
    check(&["a=p@1", "!a"], "p@1#0");
    check(&["a/db=p@1 b/db=q@1", "!"], "");
    check(&["!a a/db=p@1"], "p@1#0");
}

#[test]
fn covered_paths_are_gone_with_what_is_below() {
    check(&["a/db=p@1", "~a/db"], "");
    check(&["a/b/db=p@1", "~a"], "");
    check(&["a/db=p@1", "~a/dc ~b ~a/db/c"], "p@1#0");
    check(&["a/db=p@1", "~a/db", "a/db=p@1"], "p@1#2");
    check(&["~a/db a/db=p@1"], "p@1#0");
}

#[test]
fn paths_lead_through_links_in_the_root() {
    let (base, merged) = ("lib>usr/lib usr/lib/db=p@1", "usr/lib/db=p@1");
    check(&[base, "lib/db=p@1,q@1"], "p@1#0 q@1#1");
    check(&[base, "lib/.x= -lib/db"], "");
    check(&[base, "!lib/sub", "lib/sub/db="], "p@1#0");
    check(&[base, "~lib lib>usr/lib", "lib/db=q@1"], "q@1#2");
    // Without the link they are two files.
    check(&[merged, "lib/db=q@1"], "p@1#0 q@1#1");
    // The link goes away.
    check(&[base, "-lib", "lib/db=q@1"], "p@1#0 q@1#2");
    // A real folder becomes a link.
    check(&["lib/db=p@1", "~lib lib>usr/lib usr/lib/db=q@1"], "q@1#1");
    // Links to links, and in a circle.
    check(&["a>b b>c c/db=p@1", "a/db=q@1"], "q@1#1");
    check(&["a>b b>a", "a/db=p@1", "b/db=q@1"], "p@1#1 q@1#2");
    check(&["a>a/a a/db=p@1", "a/db="], "");
}

#[test]
fn the_topmost_distribution_counts() {
    let check = |layers: &[&str], want: Option<&str>| {
        let named = image(layers).distribution.map(|named| named.id);
        assert_eq!(named.as_deref(), want, "{layers:?}");
    };
    check(&["db="], None);
    check(&["etc/os-release:a", "etc/os-release:b"], Some("b"));
    check(&["usr/lib/os-release:a etc/os-release:b etc/alpine-release:c"], Some("b"));
    check(&["usr/lib/os-release:a", "etc/os-release:b", "usr/lib/os-release:c"], Some("c"));
    check(&["etc/os-release:a", "etc/os-release:"], None);
    check(&["usr/lib/os-release:a", "etc/os-release:"], Some("a"));
    check(&["etc/os-release:a usr/lib/os-release:b", "-etc/os-release"], Some("b"));
    check(&["etc/y:a etc/x:b"], Some("b"));
}

#[test]
fn language_packages_of_the_distribution_are_owned() {
    let python = "usr/lib/p/METADATA=Flask@1";
    check(&["d/list^usr/lib/p/METADATA", python], "Flask@1#1+");
    check(&["d/list^usr/lib/p/OTHER", python], "Flask@1#1");
    check(&["d/list^usr/lib/p/METADATA", python, "-d/list"], "Flask@1#1");
    check(&["lib>usr/lib d/list^lib/p/METADATA", python], "Flask@1#1+");
    check(&["d/list^db", "db=p@1"], "p@1#1");
}

#[test]
fn problems_of_files_that_are_gone_are_gone() {
    let check = |layers: &[&str], want: &[&str]| {
        let image = image(layers);
        let paths: Vec<&str> = image.problems.iter().map(|one| one.path.as_str()).collect();
        assert_eq!(paths, want, "{layers:?}");
    };
    check(&["a/x? ?", "b?"], &["a/x", "", "b"]);
    check(&["a/x?", "a/x?"], &["a/x"]);
    check(&["a/x?", "-a"], &[]);
    check(&["a/x?", "a/x="], &[]);
    check(&["-a a/x? ?", "!a"], &[""]);
}

#[test]
fn rpm_packages_get_the_repositories_of_the_image() {
    let mut own = Package::new(Ecosystem::Rpm, "own", "1");
    own.repositories = vec!["mine".to_owned()];
    let packages = vec![
        own,
        Package::new(Ecosystem::Rpm, "rpm", "1"),
        Package::new(Ecosystem::Deb, "deb", "1"),
    ];
    let with = |path: &str, packages: Vec<Package>, repositories: &[&str]| {
        let repositories = repositories.iter().map(|&name| name.to_owned()).collect();
        let (path, by) = (path.to_owned(), "x".to_owned());
        let record = FileRecord { path, by, packages, repositories, ..FileRecord::default() };
        let inventory = LayerInventory { files: vec![record], ..LayerInventory::default() };
        (layer("").0, Arc::new(inventory))
    };
    let image = merge(&[with("db", packages, &["b"]), with("m", Vec::new(), &["a", "b"])]);
    let found: Vec<String> = image
        .packages
        .iter()
        .map(|placed| format!("{} {}", placed.package.name, placed.package.repositories.join(" ")))
        .collect();
    assert_eq!(found, ["deb ", "own mine", "rpm a b"]);
}
