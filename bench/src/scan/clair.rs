//! A real Clair with its PostgreSQL as one more scanner: a service that is up, and one image after
//! the other. What it costs is what both processes used from the request on.

use std::collections::BTreeMap;
use std::fs;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use kuboard_testkit::clair::Clair;
use kuboard_testkit::http::{Headers, Request};
use kuboard_testkit::rootfs::{Package, RealImage};
use kuboard_testkit::server::Server;
use kuboard_testkit::tool;
use serde_json::{Value, json};

use super::Feeds;
use super::meter::Usage;
use super::peers::{Found, Scanner, list, normal, text};
use crate::plan::MIB;

/// Its name.
pub(crate) const CLAIR: &str = "clair";

pub(super) struct ClairPeer {
    clair: Clair,
    /// Serves the layers' files by digest.
    layers: Server,
    files: Arc<Mutex<BTreeMap<String, PathBuf>>>,
    seen: Mutex<Vec<String>>,
    report: Mutex<Value>,
}

impl ClairPeer {
    pub(super) fn prepare(feeds: &Feeds) -> Result<ClairPeer> {
        tool::find("clair")?;
        let files: Arc<Mutex<BTreeMap<String, PathBuf>>> = Arc::default();
        let served = Arc::clone(&files);
        let layers = Server::start("127.0.0.1:0", move |request, reply| {
            let name = request.path.trim_start_matches('/');
            let file = served.lock().unwrap_or_else(PoisonError::into_inner).get(name).cloned();
            match file {
                Some(file) => reply.send(200, &Headers::default(), &fs::read(file)?).map(drop),
                None => reply.send(404, &Headers::default(), b"").map(drop),
            }
        })?;
        let clair = Clair::of_folder(feeds.folder())?;
        let (seen, report) = (Mutex::default(), Mutex::default());
        Ok(ClairPeer { clair, layers, files, seen, report })
    }

    fn cpu(&self) -> Result<f64> {
        Ok(self.clair.process().cpu_seconds()? + self.clair.database().cpu_seconds()?)
    }

    fn manifest(&self, image: &RealImage) -> Value {
        let mut files = self.files.lock().unwrap_or_else(PoisonError::into_inner);
        let layers: Vec<Value> = image
            .layers
            .iter()
            .map(|layer| {
                let name = layer.digest.hex();
                let uri = format!("http://{}/{name}", self.layers.address());
                files.insert(name, layer.file.clone());
                json!({"hash": layer.digest.to_string(), "uri": uri, "headers": {}})
            })
            .collect();
        json!({"hash": image.digest.to_string(), "layers": layers})
    }
}

impl Scanner for ClairPeer {
    fn name(&self) -> &'static str {
        CLAIR
    }

    fn version(&self) -> String {
        "4.9.0".to_owned()
    }

    /// Layers that no manifest has any more are forgotten with it.
    fn forget(&self) -> Result<()> {
        let seen = std::mem::take(&mut *self.seen.lock().unwrap_or_else(PoisonError::into_inner));
        for digest in seen {
            let path = format!("/indexer/api/v1/index_report/{digest}");
            let answer = Request::new("DELETE", path).send(self.clair.address())?;
            ensure!(answer.status == 204, "{digest} not deleted: {}", answer.status);
        }
        Ok(())
    }

    fn scan(&self, image: &RealImage) -> Result<Usage> {
        let digest = image.digest.to_string();
        let body = self.manifest(image).to_string();
        let (before, started) = (self.cpu()?, Instant::now());
        let post = Request::new("POST", "/indexer/api/v1/index_report");
        let post = post.header("Content-Type", "application/json").body(body);
        let indexed = post.send(self.clair.address())?;
        ensure!(matches!(indexed.status, 200 | 201), "{}: {}", indexed.status, indexed.text());
        ensure!(indexed.json()?["success"] == true, "not indexed: {}", indexed.text());
        let path = format!("/matcher/api/v1/vulnerability_report/{digest}");
        let report = self.clair.get(&path)?;
        let wall = started.elapsed().as_secs_f64();
        ensure!(report.status == 200, "{}: {}", report.status, report.text());
        let cpu = self.cpu()? - before;
        let peak = self.clair.process().peak_rss()? as f64 / MIB as f64;
        *self.report.lock().unwrap_or_else(PoisonError::into_inner) = report.json()?;
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).push(digest);
        Ok(Usage { cpu, wall, peak })
    }

    fn found(&self) -> Result<Found> {
        let report = self.report.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found = Found::default();
        let packages = report["packages"].as_object().context("no packages")?;
        let vulnerabilities = &report["package_vulnerabilities"];
        for (id, package) in packages {
            let name = text(&package["name"]);
            for one in list(&vulnerabilities[id]) {
                let advisory = &report["vulnerabilities"][text(one)];
                found.finding(&text(&advisory["name"]), &name);
            }
            // Each says in its places what it is.
            for place in list(&report["environments"][id]) {
                let Some(kind) = kind(&text(&place["package_db"])) else { continue };
                let name = if kind == "pypi" { normal(&name) } else { name.clone() };
                found.packages.insert(Package::new(kind, &name, text(&package["version"])));
            }
        }
        Ok(found)
    }
}

/// The package URL's word for where Clair found a package.
fn kind(place: &str) -> Option<&'static str> {
    let (kind, _) = place.split_once(':').unwrap_or(("", place));
    Some(match kind {
        "go" => "golang",
        "python" => "pypi",
        "ruby" => "gem",
        "maven" | "java" => "maven",
        "sqlite" | "ndb" | "bdb" => "rpm",
        _ if place.contains("lib/dpkg") => "deb",
        _ if place.contains("lib/apk") => "apk",
        _ => return None,
    })
}

/// Whether an advisory is of an ecosystem that Clair takes from OSV and looks for in images: it
/// reads no Rust programs.
pub(crate) fn is_comparable(advisory: &str) -> bool {
    const OTHERS: [&str; 5] = ["RUSTSEC-", "ALSA-", "ALBA-", "ALEA-", "DEBIAN-"];
    !OTHERS.iter().any(|prefix| advisory.starts_with(prefix))
}
