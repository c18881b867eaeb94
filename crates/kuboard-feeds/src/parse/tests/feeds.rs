//! Whole feeds, in the folder that the variable `KUBOARD_FEEDS` names. Without it the recorded
//! samples of the other tests stand for them.

use std::fs::File;
use std::path::PathBuf;

use super::{Kept, rows};
use crate::parse::osv::{self, Feed};
use crate::parse::{MAX_ARCHIVE, ParseError, Summary, compressed, debian, redhat, tar};

fn feed(name: &str) -> Option<File> {
    let folder = PathBuf::from(std::env::var_os("KUBOARD_FEEDS")?);
    Some(File::open(folder.join(name)).unwrap_or_else(|error| panic!("{name}: {error}")))
}

/// Calls `take` for each file of an archive.
fn files(archive: File, wanted: &dyn Fn(&str) -> bool, take: &mut dyn FnMut(&str, &[u8])) {
    let plain = compressed::open(archive, MAX_ARCHIVE).unwrap();
    tar::files(plain, wanted, &mut |path, content| {
        take(path, content.unwrap());
        Ok::<(), ParseError>(())
    })
    .unwrap();
}

fn osv_archive(name: &str, feed_of: &Feed<'_>, folder: &str) -> Option<(Kept, Summary)> {
    let mut kept = Kept::default();
    let mut summary = Summary::default();
    let wanted = |path: &str| path.contains(folder) && path.ends_with(".json");
    files(feed(name)?, &wanted, &mut |path, content| {
        osv::take(path, Ok(content), feed_of, &mut summary, &mut kept);
    });
    Some((kept, summary))
}

#[test]
fn go_vulnerabilities() {
    let go = Feed { source: "osv:go", ecosystem: Some("Go") };
    let Some((kept, summary)) = osv_archive("go-osv.tar.zst", &go, "/osv/") else { return };
    assert_eq!(summary.skipped, []);
    assert_eq!(summary.advisories + summary.ignored, 4291);
    assert!(kept.advisories.iter().any(|one| one.affected[0].package == "stdlib"));
}

#[test]
fn rust_vulnerabilities() {
    let rust = Feed { source: "osv:crates.io", ecosystem: Some("crates.io") };
    let Some((_, summary)) = osv_archive("rust-osv.tar.zst", &rust, "/crates/") else { return };
    assert_eq!(summary.skipped, []);
    assert_eq!(summary.advisories + summary.ignored, 1206);
}

#[test]
fn alma_errata() {
    let alma = Feed { source: "osv:alma", ecosystem: Some("AlmaLinux") };
    let Some((kept, summary)) = osv_archive("alma-osv.tar.zst", &alma, "/advisories/") else {
        return;
    };
    assert_eq!(summary.skipped, []);
    assert_eq!(summary.advisories + summary.ignored, 5680);
    let count: usize = kept.advisories.iter().map(|one| one.affected.len()).sum();
    assert_eq!(count, 71_329);
}

#[test]
fn pypi_vulnerabilities() {
    let Some(archive) = feed("pypi-osv.tar.zst") else { return };
    let pypi = Feed { source: "osv:pypi", ecosystem: Some("PyPI") };
    let mut kept = Kept::default();
    let mut summary = Summary::default();
    let wanted = |path: &str| path.contains("/vulns/") && path.ends_with(".yaml");
    files(archive, &wanted, &mut |path, content| {
        let value: serde_json::Value = serde_yaml_ng::from_slice(content).unwrap();
        let json = serde_json::to_vec(&value).unwrap();
        osv::take(path, Ok(&json), &pypi, &mut summary, &mut kept);
    });
    assert_eq!(summary.skipped, []);
    assert_eq!(summary.advisories + summary.ignored, 2661);
}

#[test]
fn debian_tracker() {
    let Some(file) = feed("debian-tracker-derived-2023-04.json.zst") else { return };
    let mut kept = Kept::default();
    let summary = debian::parse(file, &mut kept).unwrap();
    assert_eq!(summary.skipped, []);
    assert!(summary.advisories > 10_000, "{}", summary.advisories);
    let mut sources: Vec<_> =
        kept.advisories.iter().flat_map(|one| &one.affected).map(|one| &one.package).collect();
    sources.sort();
    sources.dedup();
    // Of 2058, the others were fixed in woody alone, which shares its number with sarge.
    assert_eq!(sources.len(), 1789);
}

#[test]
fn large_red_hat_documents() {
    let Some(archive) = feed("fixtures.tar.zst") else { return };
    let wanted = |path: &str| path.contains("rhel/vex/testdata/cve-") && path.ends_with(".json");
    let mut seen = 0;
    files(archive, &wanted, &mut |path, content| {
        seen += 1;
        match redhat::parse_document(content).unwrap() {
            redhat::Parsed::Advisory(advisory) => {
                let rows = rows(&advisory);
                // Thousands of products, joined.
                assert!(advisory.affected.len() < 400, "{path}: {}", advisory.affected.len());
                if path.ends_with("cve-2022-38752.json") {
                    assert!(rows.contains("rhel:8 candlepin fixed [,4.2.13-1.el8sat)"), "{rows}");
                    assert!(rows.contains("rhel:7 src:snakeyaml end-of-life"), "{rows}");
                }
            }
            other => panic!("{path}: {other:?}"),
        }
    });
    assert!(seen >= 7, "{seen}");
}
