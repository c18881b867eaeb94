//! Roots of rpm-based systems that hold what a scanner looks at: the rpm database in each of its
//! three formats and the release files. The packages' files themselves are not there.
//!
//! Debian's rpm writes sqlite only and reads sqlite and Berkeley DB: the others are recorded here
//! or taken from the test data of claircore's Go module.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use anyhow::{Context, Result, ensure};
use serde_json::Value;

use super::image::RealImage;
use super::layer::{Layer, Package, write};
use crate::tool;

const SQLITE: &[u8] = include_bytes!("recorded/almalinux-9-rpmdb.sqlite.gz");
const BDB: &[u8] = include_bytes!("recorded/almalinux-9-Packages.gz");
const LISTING: &str = include_str!("recorded/almalinux-9-packages.tsv");

/// Its test data holds databases of whole images.
const CLAIRCORE: &str = "github.com/quay/claircore@v1.5.52";

/// What is built and installed here: name, epoch, version, release, architecture.
const MADE: &[(&str, u32, &str, &str, &str)] = &[
    ("bash", 0, "5.2.26", "4.el10", "x86_64"),
    ("curl", 0, "8.9.1", "5.el10", "x86_64"),
    ("expat", 0, "2.7.1", "1.el10_0", "x86_64"),
    ("glibc", 0, "2.39", "37.el10", "x86_64"),
    ("libxml2", 0, "2.12.5", "5.el10_0", "x86_64"),
    ("openssl-libs", 1, "3.2.2", "16.el10", "x86_64"),
    ("python3", 0, "3.12.9", "1.el10", "x86_64"),
    ("sqlite-libs", 0, "3.46.1", "4.el10", "x86_64"),
    ("sudo", 0, "1.9.15", "8.p5.el10", "x86_64"),
    ("tzdata", 0, "2025a", "1.el10", "noarch"),
    ("vim-minimal", 2, "9.1.083", "5.el10", "x86_64"),
];

/// Everything that rpm can tell about a package, one per line.
const QUERY: &str = "%{NAME}\\t%{EPOCHNUM}\\t%{VERSION}\\t%{RELEASE}\\n";

/// What a distribution says about itself in `etc/os-release`.
struct Release {
    id: &'static str,
    like: &'static str,
    name: &'static str,
    version: &'static str,
    cpe: &'static str,
}

const ALMALINUX_9: Release = Release {
    id: "almalinux",
    like: "rhel centos fedora",
    name: "AlmaLinux",
    version: "9.5",
    cpe: "cpe:/o:almalinux:almalinux:9::baseos",
};

const ALMALINUX_10: Release = Release {
    id: "almalinux",
    like: "rhel centos fedora",
    name: "AlmaLinux",
    version: "10.0",
    cpe: "cpe:/o:almalinux:almalinux:10::baseos",
};

const RHEL_8: Release = Release {
    id: "rhel",
    like: "fedora",
    name: "Red Hat Enterprise Linux",
    version: "8.6",
    cpe: "cpe:/o:redhat:enterprise_linux:8::baseos",
};

const SLES_15: Release = Release {
    id: "sles",
    like: "suse",
    name: "SLES",
    version: "15.4",
    cpe: "cpe:/o:suse:sles:15:sp4",
};

const FEDORA_35: Release = Release {
    id: "fedora",
    like: "",
    name: "Fedora Linux",
    version: "35",
    cpe: "cpe:/o:fedoraproject:fedora:35",
};

impl Release {
    fn write(&self, tree: &Path) -> Result<()> {
        let Release { id, like, name, version, cpe } = self;
        let text = format!(
            "NAME=\"{name}\"\nVERSION=\"{version}\"\nID=\"{id}\"\nID_LIKE=\"{like}\"\n\
             VERSION_ID=\"{version}\"\nPLATFORM_ID=\"platform:{id}\"\n\
             PRETTY_NAME=\"{name} {version}\"\nCPE_NAME=\"{cpe}\"\n"
        );
        write(&tree.join("usr/lib/os-release"), text.as_bytes())?;
        fs::create_dir_all(tree.join("etc"))?;
        Ok(std::os::unix::fs::symlink("../usr/lib/os-release", tree.join("etc/os-release"))?)
    }
}

pub(super) fn almalinux_sqlite() -> Result<RealImage> {
    RealImage::kept("almalinux-sqlite", vec![almalinux_layer()?])
}

pub(crate) fn almalinux_layer() -> Result<Layer> {
    Layer::kept("almalinux-sqlite", 1, |tree| {
        ALMALINUX_9.write(tree)?;
        gunzip(SQLITE, &tree.join("var/lib/rpm/rpmdb.sqlite"))?;
        Ok(listed(LISTING))
    })
}

pub(super) fn almalinux_bdb() -> Result<RealImage> {
    let layer = Layer::kept("almalinux-bdb", 1, |tree| {
        ALMALINUX_9.write(tree)?;
        gunzip(BDB, &tree.join("var/lib/rpm/Packages"))?;
        Ok(listed(LISTING))
    })?;
    RealImage::kept("almalinux-bdb", vec![layer])
}

/// Packages built by rpmbuild and installed by rpm, at the path that newer releases use.
pub(super) fn almalinux_made() -> Result<RealImage> {
    let layer = Layer::kept("almalinux-made", 1, |tree| {
        ALMALINUX_10.write(tree)?;
        let work = tool::folder("rpmbuild")?;
        for package in MADE {
            build(work.path(), package)?;
        }
        let database = tree.join("usr/lib/sysimage/rpm");
        fs::create_dir_all(&database)?;
        let mut install = rpm(&database, "sqlite")?;
        // No file is installed and no script run: it needs no root and touches no other system.
        install.args(["-i", "--nodeps", "--noscripts", "--justdb", "--ignorearch", "--ignoreos"]);
        for folder in ["x86_64", "noarch"] {
            for entry in fs::read_dir(work.path().join("RPMS").join(folder))? {
                install.arg(entry?.path());
            }
        }
        tool::output(&mut install)?;
        let found = query(&database, "sqlite")?;
        ensure!(found.len() == MADE.len(), "rpm installed {} packages", found.len());
        Ok(found)
    })?;
    RealImage::kept("almalinux-made", vec![layer])
}

pub(super) fn ubi_bdb() -> Result<RealImage> {
    let layer = Layer::kept("ubi-bdb", 1, |tree| {
        RHEL_8.write(tree)?;
        let database = tree.join("var/lib/rpm");
        from_claircore("bdb/testdata/ubi8.Packages", &database.join("Packages"))?;
        // rpm wants to lock the folder and to see the indexes; it asks a copy.
        let copy = tool::folder("rpmdb")?;
        fs::copy(database.join("Packages"), copy.path().join("Packages"))?;
        query(copy.path(), "bdb_ro")
    })?;
    RealImage::kept("ubi-bdb", vec![layer])
}

/// No tool of Debian's reads this format: the image comes without a list of its packages.
pub(super) fn sles_ndb() -> Result<RealImage> {
    let layer = Layer::kept("sles-ndb", 1, |tree| {
        SLES_15.write(tree)?;
        from_claircore("ndb/testdata/Packages.db", &tree.join("usr/lib/sysimage/rpm/Packages.db"))?;
        Ok(Vec::new())
    })?;
    RealImage::kept("sles-ndb", vec![layer])
}

pub(super) fn fedora_sqlite() -> Result<RealImage> {
    let layer = Layer::kept("fedora-sqlite", 1, |tree| {
        FEDORA_35.write(tree)?;
        let file = tree.join("usr/lib/sysimage/rpm/rpmdb.sqlite");
        from_claircore("sqlite/testdata/rpmdb.sqlite", &file)?;
        let copy = tool::folder("rpmdb")?;
        fs::copy(&file, copy.path().join("rpmdb.sqlite"))?;
        query(copy.path(), "sqlite")
    })?;
    RealImage::kept("fedora-sqlite", vec![layer])
}

fn rpm(database: &Path, format: &str) -> Result<std::process::Command> {
    let mut command = tool::command("rpm")?;
    command.arg("--dbpath").arg(fs::canonicalize(database)?);
    command.args(["--define", &format!("_db_backend {format}")]);
    Ok(command)
}

fn query(database: &Path, format: &str) -> Result<Vec<Package>> {
    Ok(listed(&tool::output(rpm(database, format)?.args(["-qa", "--qf", QUERY]))?))
}

/// Lines of name, epoch, version, release and perhaps more. Keys that rpm keeps among the packages
/// are not packages.
fn listed(lines: &str) -> Vec<Package> {
    let mut found = Vec::new();
    for line in lines.lines() {
        let fields: Vec<&str> = line.split('\t').collect();
        let [name, epoch, version, release, ..] = fields[..] else { continue };
        if name != "gpg-pubkey" {
            let epoch = if epoch == "0" { String::new() } else { format!("{epoch}:") };
            found.push(Package::new("rpm", name, format!("{epoch}{version}-{release}")));
        }
    }
    found
}

/// An empty package that names itself; below `RPMS/` of `work`.
fn build(work: &Path, package: &(&str, u32, &str, &str, &str)) -> Result<()> {
    let (name, epoch, version, release, architecture) = package;
    let file = work.join(format!("{name}.spec"));
    let epoch = if *epoch == 0 { String::new() } else { format!("Epoch: {epoch}\n") };
    let spec = format!(
        "Name: {name}\n{epoch}Version: {version}\nRelease: {release}\nSummary: {name}\n\
         License: MIT\nVendor: AlmaLinux\n%description\n{name}\n%files\n"
    );
    fs::write(&file, spec)?;
    let mut command = tool::command("rpmbuild")?;
    command
        .args(["-bb", "--quiet", "--target", architecture, "--define"])
        .arg(format!("_topdir {}", work.display()))
        .args(["--define", "_build_id_links none"])
        .arg(&file);
    tool::output(&mut command).map(drop)
}

/// A file of claircore's internal rpm packages, from the Go module proxy.
fn from_claircore(path: &str, to: &Path) -> Result<()> {
    let mut download = tool::command("go")?;
    download
        .args(["mod", "download", "-json", CLAIRCORE])
        // The checksum database is one more host to reach; the version is exact.
        .env("GOSUMDB", "off")
        .env("GOFLAGS", "-mod=mod")
        .current_dir(super::home()?);
    let answer: Value = serde_json::from_str(&tool::output(&mut download)?)?;
    let home = answer["Dir"].as_str().context("go mod download names no folder")?;
    let from = PathBuf::from(home).join("internal/rpm").join(path);
    // Read and written: files of the module cache cannot be written to, and a copy neither.
    write(to, &fs::read(&from).with_context(|| format!("read {}", from.display()))?)
}

fn gunzip(bytes: &'static [u8], to: &Path) -> Result<()> {
    let mut command = tool::command("gzip")?;
    let mut child = command.arg("-dc").stdin(Stdio::piped()).stdout(Stdio::piped()).spawn()?;
    let mut input = child.stdin.take().context("gzip has no input")?;
    let fed = std::thread::spawn(move || input.write_all(bytes));
    let done = child.wait_with_output()?;
    ensure!(done.status.success(), "gzip failed");
    fed.join().ok().context("a thread panicked")??;
    write(to, &done.stdout)
}

#[cfg(test)]
mod tests {
    use super::{BDB, LISTING, SQLITE, gunzip, listed};
    use crate::tool;

    #[test]
    fn the_recorded_databases_unpack_and_their_listing_is_read() {
        let folder = tool::folder("recorded").unwrap();
        let check = |bytes: &'static [u8], at: usize, magic: &[u8]| {
            let file = folder.path().join("x");
            gunzip(bytes, &file).unwrap();
            assert_eq!(&std::fs::read(&file).unwrap()[at..at + magic.len()], magic);
        };
        check(SQLITE, 0, b"SQLite format 3\0");
        check(BDB, 12, &0x0006_1561_u32.to_le_bytes());
        let packages = listed(LISTING);
        assert_eq!(packages.len(), 60);
        assert_eq!(packages[0].version, "1:1.48.10-5.el9_5");
    }
}
