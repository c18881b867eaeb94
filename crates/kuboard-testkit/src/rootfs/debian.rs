//! Debian bookworm from its own packages: a full system with dpkg's database, one with the
//! databases of language packages in a second layer, and one in the manner of distroless images.
//!
//! The packages are unpacked and described as dpkg does it (`status`, `info/*.list`, md5sums,
//! maintainer scripts); their scripts are not run, so nothing here needs root.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};

use super::apt::Apt;
use super::image::RealImage;
use super::layer::{Layer, Package, write};
use crate::tool;

/// `?essential` is apt's pattern; the rest is what debootstrap's minbase has on top.
const MINBASE: &[&str] = &[
    "?essential",
    "adduser",
    "apt",
    "debian-archive-keyring",
    "gpgv",
    "logsave",
    "mount",
    "passwd",
    "tzdata",
    "usr-is-merged",
];

/// What a server image adds: the measured 100 MB layer.
const SERVER: &[&str] =
    &["python3", "openssl", "curl", "ca-certificates", "git", "nginx-light", "perl"];

/// Debian's own packages of language libraries: their files are owned by dpkg.
const STACKS: &[&str] = &[
    "python3-requests",
    "python3-jinja2",
    "ruby-rack",
    "node-minimist",
    "node-lodash",
    "liblog4j2-java",
    "libcommons-text-java",
];

const DISTROLESS: &[&str] =
    &["base-files", "ca-certificates", "libc6", "libssl3", "netbase", "tzdata", "zlib1g"];

const STATUS: &str = "var/lib/dpkg/status";

/// Where a merged /usr keeps what packages of bookworm still put at the root.
const MERGED: &[&str] = &["bin", "lib", "lib32", "lib64", "libx32", "sbin"];

pub(super) fn bookworm() -> Result<RealImage> {
    RealImage::kept("debian", vec![base_layer()?])
}

pub(crate) fn base_layer() -> Result<Layer> {
    Layer::kept("debian-bookworm", 1, |tree| {
        let apt = Apt::new(beside(tree, "apt")?)?;
        let wanted = [MINBASE, SERVER].concat();
        let packages = apt.closure(&wanted)?;
        merge_usr(tree)?;
        install(tree, &packages, "")
    })
}

pub(super) fn stacks() -> Result<RealImage> {
    let base = base_layer()?;
    let layer = Layer::kept("debian-stacks", 1, |tree| {
        let status = status_of(&base)?;
        let apt = Apt::new(beside(tree, "apt")?)?;
        let before = beside(tree, "before")?.join("status");
        fs::write(&before, &status)?;
        apt.installed(&before)?;
        install(tree, &apt.closure(STACKS)?, &status)
    })?;
    RealImage::kept("debian-stacks", vec![base, layer])
}

pub(super) fn distroless() -> Result<RealImage> {
    RealImage::kept("distroless", vec![distroless_layer()?])
}

pub(crate) fn distroless_layer() -> Result<Layer> {
    Layer::kept("distroless", 1, |tree| {
        let apt = Apt::new(beside(tree, "apt")?)?;
        merge_usr(tree)?;
        let mut found = Vec::new();
        for file in apt.download(DISTROLESS)? {
            unpack(&file, tree)?;
            let control = control(&file, tree)?;
            let home = tree.join("var/lib/dpkg/status.d");
            let name = field(&control.text, "Package")?;
            write(&home.join(name), control.text.as_bytes())?;
            if let Some((_, sums)) = control.members.iter().find(|(it, _)| it == "md5sums") {
                write(&home.join(format!("{name}.md5sums")), sums)?;
            }
            found.push(Package::new("deb", name, field(&control.text, "Version")?));
        }
        Ok(found)
    })
}

/// A folder next to the tree, for work that does not belong into the layer. It goes with the work
/// folder of the fixture.
fn beside(tree: &Path, name: &str) -> Result<PathBuf> {
    let parent = tree.ancestors().nth(2).context("the tree has a parent")?;
    let folder = parent.join(name);
    fs::create_dir_all(&folder)?;
    Ok(folder)
}

fn merge_usr(tree: &Path) -> Result<()> {
    for name in MERGED {
        fs::create_dir_all(tree.join("usr").join(name))?;
        std::os::unix::fs::symlink(format!("usr/{name}"), tree.join(name))?;
    }
    Ok(())
}

/// Unpacks the packages and writes dpkg's database of `before` and them.
fn install(tree: &Path, packages: &[PathBuf], before: &str) -> Result<Vec<Package>> {
    ensure!(!packages.is_empty(), "apt-get downloaded nothing");
    let mut status = before.to_owned();
    let mut found = Vec::new();
    let info = tree.join("var/lib/dpkg/info");
    for file in packages {
        let list = unpack(file, tree)?;
        let control = control(file, tree)?;
        let name = field(&control.text, "Package")?;
        let same = field(&control.text, "Multi-Arch").is_ok_and(|it| it == "same");
        let architecture = field(&control.text, "Architecture")?;
        let stem = if same { format!("{name}:{architecture}") } else { name.to_owned() };
        write(&info.join(format!("{stem}.list")), list.as_bytes())?;
        for (member, content) in &control.members {
            write(&info.join(format!("{stem}.{member}")), content)?;
        }
        status.push_str(&stanza(&control));
        found.push(Package::new("deb", name, field(&control.text, "Version")?));
    }
    write(&tree.join(STATUS), status.as_bytes())?;
    write(&info.join("format"), b"1\n")?;
    Ok(found)
}

/// A package's paragraph in the status file.
fn stanza(control: &Control) -> String {
    let mut text = String::new();
    for line in control.text.trim_end().lines() {
        text.push_str(line);
        text.push('\n');
        if line.starts_with("Package:") {
            text.push_str("Status: install ok installed\n");
        }
    }
    if let Some((_, files)) = control.members.iter().find(|(name, _)| name == "conffiles") {
        text.push_str("Conffiles:\n");
        for file in String::from_utf8_lossy(files).lines().filter(|it| it.starts_with('/')) {
            text.push_str(&format!(" {file} newconffile\n"));
        }
    }
    text.push('\n');
    text
}

/// Unpacks a package's files and gives their paths, as dpkg lists them.
fn unpack(package: &Path, tree: &Path) -> Result<String> {
    let mut files = tool::command("dpkg-deb")?;
    let files = files.arg("--fsys-tarfile").arg(package).output()?;
    ensure!(files.status.success(), "dpkg-deb failed on {}", package.display());
    let mut unpack = Command::new("tar")
        .args(["--extract", "--verbose", "--no-same-owner", "--keep-directory-symlink"])
        .args(["--no-same-permissions", "--directory"])
        .arg(tree)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()?;
    let mut input = unpack.stdin.take().context("tar has no input")?;
    let fed = std::thread::spawn(move || input.write_all(&files.stdout));
    let done = unpack.wait_with_output()?;
    ensure!(done.status.success(), "tar failed on {}", package.display());
    fed.join().ok().context("a thread panicked")??;
    let mut list = String::new();
    for line in String::from_utf8_lossy(&done.stdout).lines() {
        let path = line.strip_prefix('.').unwrap_or(line).trim_end_matches('/');
        list.push_str(if path.is_empty() { "/." } else { path });
        list.push('\n');
    }
    Ok(list)
}

/// What a package says about itself.
struct Control {
    text: String,
    /// The other files of its control archive.
    members: Vec<(String, Vec<u8>)>,
}

fn control(package: &Path, tree: &Path) -> Result<Control> {
    let folder = beside(tree, "control")?;
    fs::remove_dir_all(&folder)?;
    tool::output(tool::command("dpkg-deb")?.arg("--control").arg(package).arg(&folder))?;
    let text = fs::read_to_string(folder.join("control"))?;
    let mut members = Vec::new();
    for entry in fs::read_dir(&folder)? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name != "control" {
            members.push((name, fs::read(&path)?));
        }
    }
    Ok(Control { text, members })
}

fn field<'a>(control: &'a str, name: &str) -> Result<&'a str> {
    let lines = control.lines().filter_map(|line| line.split_once(':'));
    let mut values = lines.filter(|(key, _)| *key == name).map(|(_, value)| value.trim());
    values.next().with_context(|| format!("no {name} in a control file"))
}

/// The status file inside a layer.
fn status_of(layer: &Layer) -> Result<String> {
    let mut read = tool::command("tar")?;
    read.args(["--extract", "--gzip", "--to-stdout", "--file"]).arg(&layer.file);
    tool::output(read.arg(format!("./{STATUS}")))
}
