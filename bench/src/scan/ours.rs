//! Kuboard's own command line, the one place that knows it: the database is imported once into a
//! data folder, and each scan is a process of its own that reads it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use kuboard_testkit::rootfs::{Package, RealImage};
use kuboard_testkit::{Kuboard, tool};
use serde_json::Value;

use super::Feeds;
use super::meter::{Usage, measure};
use super::peers::{Found, OURS, Scanner, text};

/// The feeds that the peers' databases are made of, too.
const FEEDS: [&str; 4] = ["osv:almalinux", "osv:go", "osv:pypi", "osv:crates.io"];

pub(super) struct Ours {
    /// Holds the database and the inventories.
    data: PathBuf,
    output: PathBuf,
    version: String,
}

impl Ours {
    pub(super) fn prepare(feeds: &Feeds, work: &Path) -> Result<Ours> {
        let ours = Ours {
            data: data(work),
            output: work.join("kuboard.json"),
            version: tool::output(Kuboard::command()?.arg("--version"))?.trim().to_owned(),
        };
        // A mirror holds OSV's layout in a folder of that name.
        let mirror = ours.data.join("mirror");
        remove(&mirror)?;
        fs::create_dir_all(&mirror)?;
        std::os::unix::fs::symlink(feeds.folder(), mirror.join("osv"))?;
        let mut update = Kuboard::command()?;
        update.args(["db", "update"]);
        for feed in FEEDS {
            update.args(["--feed", feed]);
        }
        update.arg("--mirror").arg(&mirror).arg("--db-dir").arg(advisories(work));
        tool::output(&mut update).context("compile the advisories")?;
        Ok(ours)
    }
}

fn data(work: &Path) -> PathBuf {
    work.join("kuboard")
}

/// The folder of the compiled advisories.
pub(super) fn advisories(work: &Path) -> PathBuf {
    data(work).join("advisories")
}

impl Scanner for Ours {
    fn name(&self) -> &'static str {
        OURS
    }

    fn version(&self) -> String {
        self.version.clone()
    }

    /// Inventories of layers are what it remembers.
    fn forget(&self) -> Result<()> {
        remove(&self.data.join("inventories"))
    }

    fn scan(&self, image: &RealImage) -> Result<Usage> {
        let mut scan: Command = Kuboard::command()?;
        scan.args(["scan", "--quiet", "--format", "json"]);
        scan.arg("--db-dir").arg(self.data.join("advisories"));
        scan.arg("--cache-dir").arg(&self.data);
        scan.arg(format!("oci:{}", image.layout().display()));
        // 1: there are no advisories for what it found; the report is there all the same.
        measure(&scan, &self.output, &[0, 1])
    }

    fn found(&self) -> Result<Found> {
        let report: Value = serde_json::from_slice(&fs::read(&self.output)?)?;
        let mut found = Found::default();
        for finding in report["findings"].as_array().into_iter().flatten() {
            found.finding(&text(&finding["advisory"]), &text(&finding["package"]["name"]));
        }
        for placed in report["packages"].as_array().into_iter().flatten() {
            let package = &placed["package"];
            let name = match text(&package["ecosystem"]).as_str() {
                kind if !kind.is_empty() => {
                    Package::new(kind, &text(&package["name"]), text(&package["version"]))
                }
                _ => continue,
            };
            found.packages.insert(name);
        }
        Ok(found)
    }
}

pub(super) fn remove(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error.into()),
        _ => Ok(()),
    }
}
