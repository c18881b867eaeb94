//! An image of kept layers in the forms that scanners read: OCI layout, archives, a registry, an
//! unpacked folder.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use kuboard_oci::{Digest, media_type};
use serde_json::{Value, json};

use super::kept::kept;
use super::layer::{Layer, Package};
use crate::tool;

/// An image for linux/amd64 in the cache.
#[derive(Clone, Debug)]
pub struct RealImage {
    /// What [`super::image`] calls it.
    pub name: String,
    /// Digest of the manifest.
    pub digest: Digest,
    /// From the base up.
    pub layers: Vec<Layer>,
    folder: PathBuf,
}

impl RealImage {
    /// The tag in the layout.
    pub const TAG: &'static str = "latest";

    /// An image of these layers, written into the cache if it is not there.
    pub(crate) fn kept(name: &str, layers: Vec<Layer>) -> Result<RealImage> {
        let config = serde_json::to_vec(&json!({
            "architecture": "amd64",
            "os": "linux",
            "config": {"Env": ["PATH=/usr/local/bin:/usr/bin:/bin"], "Cmd": ["/bin/sh"]},
            "rootfs": {
                "type": "layers",
                "diff_ids": layers.iter().map(|it| it.diff_id.to_string()).collect::<Vec<_>>(),
            },
            "history": layers.iter().map(|_| json!({"created_by": name})).collect::<Vec<_>>(),
        }))?;
        let config_digest = Digest::sha256(&config);
        let describe = |kind: &str, digest: &Digest, size: u64| json!({"mediaType": kind, "digest": digest.to_string(), "size": size});
        let manifest = serde_json::to_vec(&json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_MANIFEST,
            "config": describe(media_type::OCI_CONFIG, &config_digest, config.len() as u64),
            "layers": layers
                .iter()
                .map(|it| describe(media_type::OCI_LAYER_GZIP, &it.digest, it.size))
                .collect::<Vec<_>>(),
        }))?;
        let digest = Digest::sha256(&manifest);
        // The digest in the name: a changed recipe of any layer makes another folder.
        let short = &digest.hex()[..12];
        let folder = kept(&format!("image-{name}-{short}"), |work| {
            let layout = work.join("layout");
            let blobs = layout.join("blobs/sha256");
            fs::create_dir_all(&blobs)?;
            fs::write(layout.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
            fs::write(blobs.join(config_digest.hex()), &config)?;
            fs::write(blobs.join(digest.hex()), &manifest)?;
            for layer in &layers {
                link(&layer.file, &blobs.join(layer.digest.hex()))?;
            }
            let index = layout_index(&digest, manifest.len());
            Ok(fs::write(layout.join("index.json"), serde_json::to_vec(&index)?)?)
        })?;
        Ok(RealImage { name: name.to_owned(), digest, layers, folder })
    }

    /// This image with one more layer.
    pub fn plus(&self, name: &str, layer: Layer) -> Result<RealImage> {
        let mut layers = self.layers.clone();
        layers.push(layer);
        RealImage::kept(name, layers)
    }

    /// What the ecosystems' own tools say is in it, sorted, each once.
    pub fn packages(&self) -> Vec<&Package> {
        let mut packages: Vec<&Package> =
            self.layers.iter().flat_map(|layer| &layer.packages).collect();
        packages.sort();
        packages.dedup();
        packages
    }

    /// The OCI layout; the image is named [`RealImage::TAG`] in it.
    pub fn layout(&self) -> PathBuf {
        self.folder.join("layout")
    }

    /// As `docker save` writes it.
    pub fn docker_archive(&self) -> Result<PathBuf> {
        self.copied("docker-archive", "docker.tar")
    }

    /// The OCI layout in one tar archive.
    pub fn oci_archive(&self) -> Result<PathBuf> {
        self.copied("oci-archive", "oci.tar")
    }

    /// The OCI layout of the same image with zstd layers.
    pub fn zstd_layout(&self) -> Result<PathBuf> {
        let folder = kept(&format!("{}-zstd", self.key()), |work| {
            let to = format!("oci:{}:{}", work.join("layout").display(), RealImage::TAG);
            skopeo_copy(
                &["--dest-compress-format=zstd", "--dest-force-compress-format"],
                &self.source(),
                &to,
            )
        })?;
        Ok(folder.join("layout"))
    }

    /// Pushes it to a registry that speaks plain HTTP at `address`.
    pub fn push(&self, address: &str, repository: &str, tag: &str) -> Result<()> {
        let to = format!("docker://{address}/{repository}:{tag}");
        skopeo_copy(&["--preserve-digests", "--dest-tls-verify=false"], &self.source(), &to)
    }

    /// Unpacks all layers into a folder, as one root file system. The layers have no whiteouts.
    pub fn unpack(&self, to: &Path) -> Result<()> {
        fs::create_dir_all(to)?;
        for layer in &self.layers {
            let mut unpack = tool::command("tar")?;
            unpack.args(["--extract", "--gzip", "--no-same-owner", "--file"]).arg(&layer.file);
            tool::output(unpack.arg("--keep-directory-symlink").arg("--directory").arg(to))?;
        }
        Ok(())
    }

    fn copied(&self, transport: &str, file: &str) -> Result<PathBuf> {
        let folder = kept(&format!("{}-{transport}", self.key()), |work| {
            let to = format!("{transport}:{}:{}:latest", work.join(file).display(), self.name);
            skopeo_copy(&[], &self.source(), &to)
        })?;
        Ok(folder.join(file))
    }

    fn key(&self) -> String {
        let name = self.folder.file_name().unwrap_or_default();
        name.to_string_lossy().into_owned()
    }

    fn source(&self) -> String {
        format!("oci:{}:{}", self.layout().display(), RealImage::TAG)
    }
}

fn layout_index(digest: &Digest, size: usize) -> Value {
    json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_INDEX,
        "manifests": [{
            "mediaType": media_type::OCI_MANIFEST,
            "digest": digest.to_string(),
            "size": size,
            "platform": {"architecture": "amd64", "os": "linux"},
            "annotations": {"org.opencontainers.image.ref.name": RealImage::TAG},
        }],
    })
}

fn skopeo_copy(options: &[&str], from: &str, to: &str) -> Result<()> {
    let mut copy = tool::command("skopeo")?;
    copy.args(["--insecure-policy", "copy", "--quiet"]).args(options).args([from, to]);
    tool::output(&mut copy).map(drop)
}

/// A second name for the same file, or a copy where the file system has no such thing.
fn link(from: &Path, to: &Path) -> Result<()> {
    if to.exists() || fs::hard_link(from, to).is_ok() {
        return Ok(());
    }
    fs::copy(from, to).map(drop).with_context(|| format!("copy {}", from.display()))
}
