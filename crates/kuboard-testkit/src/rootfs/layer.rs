//! One gzip layer made from a folder, with the list of the packages that are in it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use kuboard_oci::{Algorithm, Digest, Hasher};
use serde_json::{Value, json};

use super::kept::kept;
use crate::tool;

/// What an ecosystem's own tool says is installed.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Package {
    /// As in a package URL: `deb`, `apk`, `rpm`, `golang`, `cargo`, `pypi`, `npm`, `maven`, `gem`.
    pub kind: String,
    /// The name; of Maven `group:artifact`.
    pub name: String,
    /// The version as the ecosystem writes it; of rpm `[epoch:]version-release`.
    pub version: String,
}

impl Package {
    /// A package.
    pub fn new(kind: &str, name: &str, version: impl Into<String>) -> Package {
        Package { kind: kind.to_owned(), name: name.to_owned(), version: version.into() }
    }
}

/// A layer in the cache.
#[derive(Clone, Debug)]
pub struct Layer {
    /// The compressed archive.
    pub file: PathBuf,
    /// Its digest.
    pub digest: Digest,
    /// Its length in bytes.
    pub size: u64,
    /// Digest of the bare tar archive.
    pub diff_id: Digest,
    /// Length of the bare tar archive in bytes.
    pub tar_size: u64,
    /// What is in it; empty when nothing but a scanner can tell.
    pub packages: Vec<Package>,
}

impl Layer {
    /// The layer from the cache. If it is not there, `fill` writes its files below the folder it is
    /// given and tells what they hold. `recipe` is to be raised when `fill` changes.
    pub fn kept(
        name: &str,
        recipe: u32,
        fill: impl FnOnce(&Path) -> Result<Vec<Package>>,
    ) -> Result<Layer> {
        let folder = kept(&format!("layer-{name}-{recipe}"), |work| {
            let tree = work.join("tree");
            fs::create_dir(&tree)?;
            let mut packages = fill(&tree)?;
            packages.sort();
            packages.dedup();
            pack(&tree, work)?;
            // The files of a package may be in folders that only root can write to.
            tool::output(tool::command("chmod")?.args(["-R", "u+rwX"]).arg(&tree))?;
            fs::remove_dir_all(&tree)?;
            let lines: Vec<String> = packages
                .iter()
                .map(|it| format!("{}\t{}\t{}\n", it.kind, it.name, it.version))
                .collect();
            fs::write(work.join("packages.tsv"), lines.concat())?;
            Ok(())
        })?;
        Layer::read(&folder)
    }

    fn read(folder: &Path) -> Result<Layer> {
        let about: Value = serde_json::from_slice(&fs::read(folder.join("layer.json"))?)?;
        let text = |name: &str| about[name].as_str().with_context(|| format!("no {name}"));
        let number = |name: &str| about[name].as_u64().with_context(|| format!("no {name}"));
        Ok(Layer {
            file: folder.join("layer.tar.gz"),
            digest: text("digest")?.parse()?,
            size: number("size")?,
            diff_id: text("diffId")?.parse()?,
            tar_size: number("tarSize")?,
            packages: read_packages(&fs::read_to_string(folder.join("packages.tsv"))?)?,
        })
    }
}

fn read_packages(text: &str) -> Result<Vec<Package>> {
    text.lines()
        .map(|line| {
            let mut fields = line.split('\t');
            let mut next = || fields.next().with_context(|| format!("three fields: {line}"));
            Ok(Package { kind: next()?.into(), name: next()?.into(), version: next()?.into() })
        })
        .collect()
}

/// Writes a file and the folders above it.
pub(crate) fn write(file: &Path, content: &[u8]) -> Result<()> {
    if let Some(parent) = file.parent() {
        fs::create_dir_all(parent)?;
    }
    fs::write(file, content).with_context(|| format!("write {}", file.display()))
}

/// `tree` as `layer.tar.gz` and `layer.json` in `work`: sorted, of one time, owned by root, with
/// GNU's long names, as image builders write it.
fn pack(tree: &Path, work: &Path) -> Result<()> {
    let file = work.join("layer.tar.gz");
    let mut archive = tool::command("tar")?
        .args(["--create", "--sort=name", "--mtime=@1700000000", "--owner=0", "--group=0"])
        .args(["--numeric-owner", "--format=gnu", "--directory"])
        .arg(tree)
        .arg(".")
        .stdout(Stdio::piped())
        .spawn()?;
    let mut shrink = Command::new("gzip")
        .args(["-n", "-6"])
        .stdin(Stdio::piped())
        .stdout(File::create(&file)?)
        .spawn()?;
    let from = archive.stdout.take().context("tar has no output")?;
    let to = shrink.stdin.take().context("gzip has no input")?;
    let (diff_id, tar_size) = copy(from, to)?;
    ensure!(archive.wait()?.success(), "tar failed on {}", tree.display());
    ensure!(shrink.wait()?.success(), "gzip failed on {}", tree.display());
    let (digest, size) = copy(File::open(&file)?, std::io::sink())?;
    let about = json!({
        "digest": digest.to_string(), "size": size,
        "diffId": diff_id.to_string(), "tarSize": tar_size,
    });
    Ok(fs::write(work.join("layer.json"), about.to_string())?)
}

/// Copies everything and gives its digest and length.
fn copy(mut from: impl Read, mut to: impl Write) -> Result<(Digest, u64)> {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut piece = vec![0; 1 << 20];
    let mut length = 0;
    loop {
        let count = from.read(&mut piece)?;
        if count == 0 {
            to.flush()?;
            return Ok((hasher.finish(), length));
        }
        length += count as u64;
        hasher.update(&piece[..count]);
        to.write_all(&piece[..count])?;
    }
}

#[cfg(test)]
mod tests {
    use super::{Package, read_packages};

    #[test]
    fn package_lists_are_three_columns() {
        let read = read_packages("deb\tbash\t5.2-1\nrpm\ta\t1:2-3\n").unwrap();
        assert_eq!(read, [Package::new("deb", "bash", "5.2-1"), Package::new("rpm", "a", "1:2-3")]);
        assert!(read_packages("deb\tbash\n").is_err());
    }
}
