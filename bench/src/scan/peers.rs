//! The scanners: how each is given the feeds, started, and read.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result};
use kuboard_testkit::rootfs::{self, Package, RealImage};
use kuboard_testkit::tool;
use serde_json::Value;

use super::Feeds;
use super::clair::ClairPeer;
use super::meter::{Usage, measure};
use super::ours::{Ours, remove};

/// The name of ours.
pub(crate) const OURS: &str = "kuboard";

/// One scanner, ready to scan.
pub(crate) trait Scanner {
    fn name(&self) -> &'static str;
    fn version(&self) -> String;

    /// Makes the form of the image that it reads, if that is not there yet.
    fn warm_up(&self, image: &RealImage) -> Result<()> {
        let _ = image;
        Ok(())
    }

    /// Forgets the layers that it has seen.
    fn forget(&self) -> Result<()> {
        Ok(())
    }

    /// Scans as a process of its own; a service that runs already, by a request.
    fn scan(&self, image: &RealImage) -> Result<Usage>;

    /// What the last scan found.
    fn found(&self) -> Result<Found>;
}

/// Findings and packages in everybody's words: advisory ids of the feeds, kinds of package URLs,
/// Python's names as PEP 503 writes them.
#[derive(Clone, Debug, Default)]
pub(crate) struct Found {
    /// Advisory and package name.
    pub(crate) findings: BTreeSet<(String, String)>,
    pub(crate) packages: BTreeSet<Package>,
}

impl Found {
    pub(crate) fn finding(&mut self, advisory: &str, package: &str) {
        self.findings.insert((advisory.to_owned(), normal(package)));
    }

    /// A package URL: `pkg:KIND/NAMESPACE/NAME@VERSION?…`. A distribution's name, which is the
    /// namespace of its packages, is left out, and an epoch comes back to where rpm and dpkg write it.
    fn package_url(&mut self, url: &str) {
        let Some((head, tail)) = url.strip_prefix("pkg:").and_then(|url| url.split_once('/'))
        else {
            return;
        };
        let (path, qualifiers) = tail.split_once('?').unwrap_or((tail, ""));
        let path = path.split('#').next().unwrap_or(path);
        let Some((name, version)) = path.rsplit_once('@') else { return };
        let (name, version) = (decode(name), decode(version));
        let name = match head {
            "deb" | "rpm" | "apk" => name.rsplit('/').next().unwrap_or(&name).to_owned(),
            "maven" => name.replacen('/', ":", 1),
            "pypi" => normal(&name),
            _ => name,
        };
        let epoch = qualifiers.split('&').find_map(|it| it.strip_prefix("epoch="));
        let version = match epoch {
            Some(epoch) if matches!(head, "deb" | "rpm") && epoch != "0" => {
                format!("{epoch}:{version}")
            }
            _ => version,
        };
        self.packages.insert(Package::new(head, &name, version));
    }
}

/// Lower case, one dash for each run of dashes, dots and underscores.
pub(crate) fn normal(name: &str) -> String {
    let mut text = String::with_capacity(name.len());
    for letter in name.chars() {
        if !matches!(letter, '-' | '_' | '.') {
            text.extend(letter.to_lowercase());
        } else if !text.ends_with('-') {
            text.push('-');
        }
    }
    text
}

fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, tail)) = rest.split_first() {
        let digits = tail.get(..2).and_then(|it| std::str::from_utf8(it).ok());
        match digits.and_then(|it| u8::from_str_radix(it, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &tail[2..];
            }
            _ => {
                bytes.push(*first);
                rest = tail;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// The text of a JSON string, else nothing.
pub(crate) fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// In the order of the tables.
type Scanners = Vec<Box<dyn Scanner>>;

/// All scanners that can be had, and why the others cannot.
pub(crate) fn prepare(feeds: &Feeds, work: &Path) -> Result<(Scanners, Vec<String>)> {
    let (mut ready, mut missing) = (Scanners::new(), Vec::new());
    for (name, make) in all() {
        match make(feeds, work) {
            Ok(scanner) => ready.push(scanner),
            Err(error) => missing.push(format!("{name}: {error:#}")),
        }
    }
    Ok((ready, missing))
}

type Make = fn(&Feeds, &Path) -> Result<Box<dyn Scanner>>;

/// Everybody, ours first.
fn all() -> Vec<(&'static str, Make)> {
    vec![
        (OURS, |feeds, work| Ok(Box::new(Ours::prepare(feeds, work)?))),
        ("trivy", |feeds, work| Ok(Box::new(Trivy::prepare(feeds, work)?))),
        ("grype", |feeds, work| Ok(Box::new(Grype::prepare(feeds, work)?))),
        ("osv-scanner", |feeds, work| Ok(Box::new(OsvScanner::prepare(feeds, work)?))),
        ("clair", |feeds, _| Ok(Box::new(ClairPeer::prepare(feeds)?))),
        ("syft", |_, work| Ok(Box::new(Syft::prepare(work)?))),
    ]
}

/// A database made from the feeds by `maker FEEDS FOLDER`; kept, for Grype's takes a minute.
fn database(maker: &str, feeds: &Feeds) -> Result<PathBuf> {
    let key = feeds.folder().file_name().unwrap_or_default().to_string_lossy().into_owned();
    rootfs::kept(&format!("{maker}-{key}-2"), |work| {
        tool::output(tool::command(maker)?.arg(feeds.folder()).arg(work)).map(drop)
    })
}

fn copy(from: &Path, to: &Path) -> Result<()> {
    tool::output(tool::command("cp")?.arg("-r").arg(from).arg(to)).map(drop)
}

fn read(file: &Path) -> Result<Value> {
    serde_json::from_slice(&fs::read(file)?).with_context(|| format!("read {}", file.display()))
}

pub(super) fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

struct Trivy {
    cache: PathBuf,
    output: PathBuf,
}

impl Trivy {
    fn prepare(feeds: &Feeds, work: &Path) -> Result<Trivy> {
        tool::find("trivy")?;
        let cache = work.join("trivy");
        // It writes beside the database, so it gets a copy.
        copy(&database("trivy-db-maker", feeds)?, &cache)?;
        Ok(Trivy { cache, output: work.join("trivy.json") })
    }
}

impl Scanner for Trivy {
    fn name(&self) -> &'static str {
        "trivy"
    }

    fn version(&self) -> String {
        version("trivy", "Version: ")
    }

    fn forget(&self) -> Result<()> {
        remove(&self.cache.join("fanal"))
    }

    fn scan(&self, image: &RealImage) -> Result<Usage> {
        let mut scan = tool::command("trivy")?;
        scan.arg("image").arg("--cache-dir").arg(&self.cache).arg("--input").arg(image.layout());
        // Vulnerabilities alone: by default it also looks for secrets, which costs much more.
        scan.args(["--scanners", "vuln", "--format", "json", "--list-all-pkgs", "--quiet"]);
        scan.args(["--offline-scan", "--skip-db-update", "--skip-java-db-update"]);
        measure(scan.arg("--skip-version-check"), &self.output, &[0])
    }

    fn found(&self) -> Result<Found> {
        let report = read(&self.output)?;
        let mut found = Found::default();
        for result in list(&report["Results"]) {
            for it in list(&result["Vulnerabilities"]) {
                found.finding(&text(&it["VulnerabilityID"]), &text(&it["PkgName"]));
            }
            for it in list(&result["Packages"]) {
                found.package_url(&text(&it["Identifier"]["PURL"]));
            }
        }
        Ok(found)
    }
}

struct Grype {
    database: PathBuf,
    output: PathBuf,
}

impl Grype {
    fn prepare(feeds: &Feeds, work: &Path) -> Result<Grype> {
        tool::find("grype")?;
        let database = database("grype-db-maker", feeds)?;
        Ok(Grype { database, output: work.join("grype.json") })
    }
}

impl Scanner for Grype {
    fn name(&self) -> &'static str {
        "grype"
    }

    fn version(&self) -> String {
        version("grype", "Version: ")
    }

    fn scan(&self, image: &RealImage) -> Result<Usage> {
        let mut scan = tool::command("grype")?;
        scan.arg(format!("oci-dir:{}", image.layout().display())).args(["-q", "-o", "json"]);
        scan.env("GRYPE_DB_CACHE_DIR", &self.database)
            .env("GRYPE_DB_AUTO_UPDATE", "false")
            .env("GRYPE_DB_VALIDATE_AGE", "false")
            .env("GRYPE_CHECK_FOR_APP_UPDATE", "false");
        measure(&scan, &self.output, &[0])
    }

    /// Its report names only packages with findings: Syft stands for its inventory.
    fn found(&self) -> Result<Found> {
        let report = read(&self.output)?;
        let mut found = Found::default();
        for it in list(&report["matches"]) {
            found.finding(&text(&it["vulnerability"]["id"]), &text(&it["artifact"]["name"]));
        }
        Ok(found)
    }
}

/// Ecosystems of the images that the feeds have nothing for.
const WITHOUT_ADVISORIES: &[&str] =
    &["Alpine", "Maven", "npm", "Red Hat", "RubyGems", "SUSE", "openSUSE", "Fedora"];

struct OsvScanner {
    cache: PathBuf,
    output: PathBuf,
}

impl OsvScanner {
    fn prepare(feeds: &Feeds, work: &Path) -> Result<OsvScanner> {
        tool::find("osv-scanner")?;
        let cache = work.join("osv");
        fs::create_dir_all(&cache)?;
        let home = cache.join("osv-scalibr");
        copy(feeds.folder(), &home)?;
        // It gives up on all where one ecosystem's file is missing.
        let nothing = work.join("nothing");
        fs::create_dir_all(&nothing)?;
        for ecosystem in WITHOUT_ADVISORIES {
            fs::create_dir_all(home.join(ecosystem))?;
            let mut zip = tool::command("jar")?;
            zip.args(["--create", "--no-manifest", "--file"]);
            zip.arg(home.join(ecosystem).join("all.zip")).arg("-C").arg(&nothing).arg(".");
            tool::output(&mut zip)?;
        }
        Ok(OsvScanner { cache, output: work.join("osv-scanner.json") })
    }
}

impl Scanner for OsvScanner {
    fn name(&self) -> &'static str {
        "osv-scanner"
    }

    fn version(&self) -> String {
        version("osv-scanner", "osv-scanner version: ")
    }

    fn warm_up(&self, image: &RealImage) -> Result<()> {
        image.docker_archive().map(drop)
    }

    fn scan(&self, image: &RealImage) -> Result<Usage> {
        let mut scan = tool::command("osv-scanner")?;
        scan.args(["scan", "image", "--offline", "--format", "json", "--all-packages"]);
        // rpm databases are not among what it reads of an image unless it is told to.
        scan.args(["--all-vulns", "--experimental-plugins", "artifact,os/rpm", "--archive"]);
        scan.arg(image.docker_archive()?);
        scan.env("OSV_SCALIBR_LOCAL_DB_CACHE_DIRECTORY", &self.cache);
        // 1: there are findings. 127 and 128: no database for an ecosystem, no packages.
        measure(&scan, &self.output, &[0, 1, 127, 128])
    }

    fn found(&self) -> Result<Found> {
        let report = read(&self.output)?;
        let mut found = Found::default();
        for it in list(&report["results"]).flat_map(|it| list(&it["packages"])) {
            let package = &it["package"];
            for one in list(&it["vulnerabilities"]) {
                found.finding(&text(&one["id"]), &text(&package["name"]));
            }
            let system = text(&package["ecosystem"]);
            let (kind, name) = (kind(&system), text(&package["name"]));
            let name = if kind == "pypi" { normal(&name) } else { name };
            found.packages.insert(Package::new(kind, &name, text(&package["version"])));
        }
        Ok(found)
    }
}

/// The package URL's word for OSV's name of an ecosystem.
fn kind(ecosystem: &str) -> &'static str {
    match ecosystem.split(':').next().unwrap_or_default() {
        "Go" => "golang",
        "crates.io" => "cargo",
        "PyPI" => "pypi",
        "npm" => "npm",
        "Maven" => "maven",
        "RubyGems" => "gem",
        "Debian" | "Ubuntu" => "deb",
        "Alpine" => "apk",
        "AlmaLinux" | "Red Hat" | "SUSE" | "Rocky Linux" => "rpm",
        _ => "generic",
    }
}

struct Syft {
    output: PathBuf,
}

impl Syft {
    fn prepare(work: &Path) -> Result<Syft> {
        tool::find("syft")?;
        Ok(Syft { output: work.join("syft.json") })
    }
}

impl Scanner for Syft {
    fn name(&self) -> &'static str {
        "syft"
    }

    fn version(&self) -> String {
        version("syft", "Version: ")
    }

    fn scan(&self, image: &RealImage) -> Result<Usage> {
        let mut scan: Command = tool::command("syft")?;
        scan.arg("scan").arg(format!("oci-dir:{}", image.layout().display()));
        scan.args(["-q", "-o", "json"]).env("SYFT_CHECK_FOR_APP_UPDATE", "false");
        measure(&scan, &self.output, &[0])
    }

    fn found(&self) -> Result<Found> {
        let report = read(&self.output)?;
        let mut found = Found::default();
        for it in list(&report["artifacts"]) {
            found.package_url(&text(&it["purl"]));
        }
        Ok(found)
    }
}

/// What follows `mark` in the program's words on its version.
fn version(program: &str, mark: &str) -> String {
    let argument = if matches!(program, "grype" | "syft") { "version" } else { "--version" };
    let told = tool::command(program).and_then(|mut it| tool::output(it.arg(argument)));
    let told = told.unwrap_or_else(|error| format!("{mark}unknown: {error:#}"));
    let line = told.lines().find_map(|line| line.strip_prefix(mark.trim_end()));
    line.unwrap_or("unknown").trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::{Found, normal};
    use kuboard_testkit::rootfs::Package;

    #[test]
    fn package_urls_become_everybodys_words() {
        let check = |url: &str, kind: &str, name: &str, version: &str| {
            let mut found = Found::default();
            found.package_url(url);
            assert_eq!(found.packages.into_iter().next(), Some(Package::new(kind, name, version)));
        };
        check("pkg:deb/debian/libc6@2.36-9%2Bdeb12u9?arch=amd64", "deb", "libc6", "2.36-9+deb12u9");
        check("pkg:rpm/almalinux/a@1-2.el9?epoch=1&arch=x", "rpm", "a", "1:1-2.el9");
        check("pkg:golang/golang.org/x/net@v0.1.0#html", "golang", "golang.org/x/net", "v0.1.0");
        check("pkg:npm/%40babel/core@7.0.0", "npm", "@babel/core", "7.0.0");
        check("pkg:maven/org.a/b@1", "maven", "org.a:b", "1");
        check("pkg:pypi/Zope.Interface@5", "pypi", "zope-interface", "5");
    }

    #[test]
    fn names_are_normal() {
        assert_eq!(normal("A_._b-C"), "a-b-c");
    }
}
