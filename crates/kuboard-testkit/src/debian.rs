//! A real multi-platform image of more than 500 MB, made on the spot from Debian packages: one
//! gzip layer a package, amd64 and arm64 in one OCI index. It is made once a machine and kept in
//! the cache outside the checkout, as an OCI layout and as the storage of a real registry.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, bail, ensure};
use kuboard_oci::{Algorithm, Digest, Hasher, media_type};
use serde_json::{Value, json};

use crate::distribution::DistributionRegistry;
use crate::tool;

/// Change it when the recipe changes, so that a kept image of the old one is not used.
const RECIPE: &str = "debian-1";

/// Layers of the big variant; together more than [`LEAST_BYTES`] when compressed.
const AMD64: &[&str] = &[
    "libc6",
    "bash",
    "coreutils",
    "git",
    "gcc-12",
    "golang-1.19-src",
    "golang-1.19-go",
    "libllvm14",
    "llvm-14-dev",
    "libnode108",
    "libstd-rust-dev",
    "openjdk-17-jre-headless",
    "openjdk-17-jdk-headless",
    "fonts-noto-cjk",
];

/// Layers of the small variant. `golang-1.19-src` is the same package, so that the variants share
/// a layer, as real ones do.
const ARM64: &[&str] = &["libc6", "bash", "coreutils", "git", "golang-1.19-src", "libllvm14"];

/// What the compressed layers of the amd64 variant must sum up to, in bytes.
const LEAST_BYTES: u64 = 500_000_000;

/// The image, ready to be copied by any client.
#[derive(Clone, Debug)]
pub struct DebianImage {
    folder: PathBuf,
    /// Digest of the index.
    pub digest: Digest,
    /// Bytes of all different blobs and manifests of both variants.
    pub bytes: u64,
    /// Bytes of the amd64 variant's layers.
    pub amd64_bytes: u64,
    /// Digest and length of the amd64 variant's largest layer.
    pub largest_layer: (Digest, u64),
}

impl DebianImage {
    /// The repository in the prepared registry.
    pub const REPOSITORY: &'static str = "team/debian";
    /// The tag, in the layout and in the registry.
    pub const TAG: &'static str = "12";

    /// The image from the cache, made first if it is not there. Takes minutes and a few hundred
    /// megabytes of download then.
    pub fn get() -> Result<DebianImage> {
        let home = tool::cache()?.join("fixtures");
        fs::create_dir_all(&home)?;
        let guard = File::create(home.join("lock"))?;
        guard.lock()?;
        let folder = home.join(RECIPE);
        if !folder.join("summary.json").exists() {
            make(&home, &folder).context("make an image of Debian packages")?;
        }
        DebianImage::read(folder)
    }

    fn read(folder: PathBuf) -> Result<DebianImage> {
        let summary: Value = serde_json::from_slice(&fs::read(folder.join("summary.json"))?)?;
        let number = |name: &str| summary[name].as_u64().with_context(|| format!("no {name}"));
        let digest = |name: &str| -> Result<Digest> {
            Ok(summary[name].as_str().with_context(|| format!("no {name}"))?.parse()?)
        };
        Ok(DebianImage {
            digest: digest("digest")?,
            bytes: number("bytes")?,
            amd64_bytes: number("amd64Bytes")?,
            largest_layer: (digest("largestLayer")?, number("largestLayerBytes")?),
            folder,
        })
    }

    /// The OCI layout; the index is named [`DebianImage::TAG`] in it.
    pub fn layout(&self) -> PathBuf {
        self.folder.join("layout")
    }

    /// The storage of a distribution registry that holds the image. Use it read-only.
    pub fn registry_storage(&self) -> PathBuf {
        self.folder.join("registry")
    }
}

fn make(home: &Path, folder: &Path) -> Result<()> {
    let work = tempfile::Builder::new().prefix("making-").tempdir_in(home)?;
    let layout = work.path().join("layout");
    fs::create_dir_all(layout.join("blobs/sha256"))?;
    fs::write(layout.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
    let variants = [("amd64", AMD64), ("arm64", ARM64)];
    let made: Vec<Result<Variant>> = std::thread::scope(|scope| {
        let running: Vec<_> = variants
            .map(|(architecture, packages)| {
                let (work, layout) = (work.path(), layout.as_path());
                scope.spawn(move || Variant::make(work, layout, architecture, packages))
            })
            .into();
        running
            .into_iter()
            .map(|thread| thread.join().unwrap_or_else(|_| bail!("a thread panicked")))
            .collect()
    });
    let made = made.into_iter().collect::<Result<Vec<Variant>>>()?;
    let index = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_INDEX,
        "manifests": made.iter().map(Variant::descriptor).collect::<Vec<_>>(),
    });
    let index = put(&layout, &serde_json::to_vec(&index)?)?;
    let named = json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_INDEX,
        "manifests": [{
            "mediaType": media_type::OCI_INDEX,
            "digest": index.digest.to_string(),
            "size": index.size,
            "annotations": {"org.opencontainers.image.ref.name": DebianImage::TAG},
        }],
    });
    fs::write(layout.join("index.json"), serde_json::to_vec(&named)?)?;
    let amd64 = made.first().context("no variant was made")?;
    let amd64_bytes: u64 = amd64.layers.iter().map(|layer| layer.size).sum();
    ensure!(
        amd64_bytes >= LEAST_BYTES,
        "the layers have {amd64_bytes} bytes; hint: add packages to AMD64"
    );
    let largest = amd64.layers.iter().max_by_key(|layer| layer.size).context("no layers")?;
    fill_registry(&layout, &work.path().join("registry"))?;
    let summary = json!({
        "digest": index.digest.to_string(),
        "bytes": folder_bytes(&layout.join("blobs/sha256"))?,
        "amd64Bytes": amd64_bytes,
        "largestLayer": largest.digest.to_string(),
        "largestLayerBytes": largest.size,
    });
    for used in ["amd64", "arm64"] {
        fs::remove_dir_all(work.path().join(used))?;
    }
    fs::write(work.path().join("summary.json"), summary.to_string())?;
    fs::rename(work.keep(), folder)?;
    Ok(())
}

fn folder_bytes(folder: &Path) -> Result<u64> {
    let mut sum = 0;
    for entry in fs::read_dir(folder)? {
        sum += entry?.metadata()?.len();
    }
    Ok(sum)
}

/// Something stored in the layout.
struct Stored {
    digest: Digest,
    size: u64,
}

fn put(layout: &Path, bytes: &[u8]) -> Result<Stored> {
    let digest = Digest::sha256(bytes);
    fs::write(layout.join("blobs/sha256").join(digest.hex()), bytes)?;
    Ok(Stored { digest, size: bytes.len() as u64 })
}

/// One platform's image.
struct Variant {
    architecture: &'static str,
    manifest: Stored,
    layers: Vec<Stored>,
}

impl Variant {
    fn make(
        work: &Path,
        layout: &Path,
        architecture: &'static str,
        packages: &[&str],
    ) -> Result<Variant> {
        let folder = work.join(architecture);
        download(&folder, architecture, packages)?;
        let mut layers = Vec::new();
        let mut diff_ids = Vec::new();
        for package in packages {
            let file = downloaded(&folder, package)?;
            let (layer, diff_id) = layer(&file, layout, &folder)?;
            layers.push(layer);
            diff_ids.push(diff_id.to_string());
        }
        let config = json!({
            "architecture": architecture,
            "os": "linux",
            "config": {"Cmd": ["/bin/bash"], "Env": ["PATH=/usr/bin:/bin"]},
            "rootfs": {"type": "layers", "diff_ids": diff_ids},
            "history": packages.iter().map(|it| json!({"created_by": it})).collect::<Vec<_>>(),
        });
        let config = put(layout, &serde_json::to_vec(&config)?)?;
        let describe = |kind: &str, it: &Stored| json!({"mediaType": kind, "digest": it.digest.to_string(), "size": it.size});
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_MANIFEST,
            "config": describe(media_type::OCI_CONFIG, &config),
            "layers": layers
                .iter()
                .map(|layer| describe(media_type::OCI_LAYER_GZIP, layer))
                .collect::<Vec<_>>(),
        });
        let manifest = put(layout, &serde_json::to_vec(&manifest)?)?;
        Ok(Variant { architecture, manifest, layers })
    }

    fn descriptor(&self) -> Value {
        json!({
            "mediaType": media_type::OCI_MANIFEST,
            "digest": self.manifest.digest.to_string(),
            "size": self.manifest.size,
            "platform": {"architecture": self.architecture, "os": "linux"},
        })
    }
}

/// Downloads the packages of an architecture into `folder`, with package lists of its own, so that
/// the machine's are neither needed fresh nor changed.
fn download(folder: &Path, architecture: &str, packages: &[&str]) -> Result<()> {
    for part in ["lists/partial", "cache/archives/partial", "packages"] {
        fs::create_dir_all(folder.join(part))?;
    }
    fs::write(folder.join("status"), "")?;
    let apt = |arguments: &[&str]| -> Result<String> {
        let mut command = tool::command("apt-get")?;
        for (name, value) in [
            ("Dir::State::lists", folder.join("lists")),
            ("Dir::State::status", folder.join("status")),
            ("Dir::Cache", folder.join("cache")),
        ] {
            command.arg("-o").arg(format!("{name}={}", value.display()));
        }
        command
            .args(["-qq", "-o", "APT::Sandbox::User="])
            .arg(format!("-oAPT::Architecture={architecture}"))
            .arg(format!("-oAPT::Architectures={architecture}"))
            .args(["-o", "Acquire::Languages=none", "-o", "Acquire::Retries=3"])
            .args(arguments)
            .current_dir(folder.join("packages"));
        tool::output(&mut command)
    };
    apt(&["update"])?;
    let mut arguments = vec!["download"];
    arguments.extend(packages);
    apt(&arguments)?;
    Ok(())
}

fn downloaded(folder: &Path, package: &str) -> Result<PathBuf> {
    let wanted = format!("{package}_");
    for entry in fs::read_dir(folder.join("packages"))? {
        let path = entry?.path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(&wanted) {
            return Ok(path);
        }
    }
    bail!("apt-get left no {wanted}*.deb")
}

/// The package's files as a gzip layer in the layout, and the digest of the bare tar archive.
fn layer(package: &Path, layout: &Path, scratch: &Path) -> Result<(Stored, Digest)> {
    let file = scratch.join("layer.tar.gz");
    let mut unpack = tool::command("dpkg-deb")?
        .arg("--fsys-tarfile")
        .arg(package)
        .stdout(Stdio::piped())
        .spawn()?;
    // No name and no time in the header (-n), so that equal packages give equal layers.
    let mut pack = Command::new("gzip")
        .args(["-n", "-1"])
        .stdin(Stdio::piped())
        .stdout(File::create(&file)?)
        .spawn()?;
    let from = unpack.stdout.take().context("dpkg-deb has no output")?;
    let to = pack.stdin.take().context("gzip has no input")?;
    let diff_id = hash(from, to)?;
    ensure!(unpack.wait()?.success(), "dpkg-deb failed on {}", package.display());
    ensure!(pack.wait()?.success(), "gzip failed on {}", package.display());
    let digest = hash(File::open(&file)?, std::io::sink())?;
    let size = fs::metadata(&file)?.len();
    fs::rename(&file, layout.join("blobs/sha256").join(digest.hex()))?;
    Ok((Stored { digest, size }, diff_id))
}

/// Copies everything and gives its digest.
fn hash(mut from: impl Read, mut to: impl Write) -> Result<Digest> {
    let mut hasher = Hasher::new(Algorithm::Sha256);
    let mut piece = vec![0; 1 << 20];
    loop {
        let count = from.read(&mut piece)?;
        if count == 0 {
            to.flush()?;
            return Ok(hasher.finish());
        }
        hasher.update(&piece[..count]);
        to.write_all(&piece[..count])?;
    }
}

/// Pushes the layout to a real registry that keeps it in `storage`.
fn fill_registry(layout: &Path, storage: &Path) -> Result<()> {
    let registry = DistributionRegistry::builder().storage(storage).start()?;
    let from = format!("oci:{}:{}", layout.display(), DebianImage::TAG);
    let to =
        format!("docker://{}/{}:{}", registry.address(), DebianImage::REPOSITORY, DebianImage::TAG);
    let mut copy = tool::command("skopeo")?;
    copy.args(["--insecure-policy", "copy", "--quiet", "--all", "--preserve-digests"]).args([
        "--dest-tls-verify=false",
        &from,
        &to,
    ]);
    tool::output(&mut copy).map(drop)
}
