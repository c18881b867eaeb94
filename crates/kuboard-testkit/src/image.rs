//! Small images, indexes and artifacts made in memory: the same arguments give the same bytes on
//! every machine. Layers are uncompressed tar archives that a real client can unpack.

use std::fs;
use std::io::BufWriter;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Result, ensure};
use kuboard_oci::{Algorithm, Digest, media_type};
use serde_json::{Value, json};

use crate::archive::Tar;

/// Docker's uncompressed layer; clients know it, though Docker itself always compresses.
const DOCKER_LAYER_PLAIN: &str = "application/vnd.docker.image.rootfs.diff.tar";

/// A blob that a manifest names.
#[derive(Clone, Debug)]
pub struct Blob {
    /// Its digest.
    pub digest: Digest,
    /// Its bytes.
    pub bytes: Arc<[u8]>,
}

impl Blob {
    /// A blob of these bytes under their sha256.
    pub fn new(bytes: impl Into<Arc<[u8]>>) -> Blob {
        Blob::with(Algorithm::Sha256, bytes)
    }

    /// A blob of these bytes under a digest of this algorithm.
    pub fn with(algorithm: Algorithm, bytes: impl Into<Arc<[u8]>>) -> Blob {
        let bytes = bytes.into();
        Blob { digest: Digest::of(algorithm, &bytes), bytes }
    }

    /// `length` bytes that do not compress, the same for the same seed.
    pub fn random(seed: u64, length: usize) -> Blob {
        Blob::new(noise(seed, length))
    }
}

/// Anything with a manifest: an image, an index with its children, an artifact.
#[derive(Clone, Debug)]
pub struct Image {
    /// The manifest's bytes.
    pub manifest: Arc<[u8]>,
    /// The manifest's media type.
    pub media_type: String,
    /// The manifest's digest.
    pub digest: Digest,
    /// Configuration first, then the layers.
    pub blobs: Vec<Blob>,
    /// What an index holds; empty for an image.
    pub children: Vec<Image>,
    /// The architecture to name in an index, if any.
    architecture: Option<String>,
}

/// What an image shall be like; `build` makes it.
#[derive(Clone, Debug)]
pub struct Builder {
    seed: u64,
    layers: Vec<usize>,
    docker: bool,
    architecture: String,
    subject: Option<Value>,
    artifact_type: Option<String>,
    annotations: serde_json::Map<String, Value>,
}

impl Image {
    /// An OCI image for amd64 whose layers hold about this many bytes each.
    pub fn oci(seed: u64, layers: &[usize]) -> Result<Image> {
        Image::builder(seed).layers(layers).build()
    }

    /// The same in Docker's media types.
    pub fn docker(seed: u64, layers: &[usize]) -> Result<Image> {
        Image::builder(seed).layers(layers).docker().build()
    }

    /// An image to be described further. Images of different seeds share no blob.
    pub fn builder(seed: u64) -> Builder {
        Builder {
            seed,
            layers: Vec::new(),
            docker: false,
            architecture: "amd64".to_owned(),
            subject: None,
            artifact_type: None,
            annotations: serde_json::Map::new(),
        }
    }

    /// An OCI index of these images.
    pub fn index(children: Vec<Image>) -> Result<Image> {
        Image::list(children, media_type::OCI_INDEX)
    }

    /// A Docker manifest list of these images.
    pub fn docker_list(children: Vec<Image>) -> Result<Image> {
        Image::list(children, media_type::DOCKER_LIST)
    }

    /// An index of one amd64 and one arm64 image.
    pub fn multi_platform(seed: u64, layers: &[usize]) -> Result<Image> {
        Image::index(vec![
            Image::builder(seed).layers(layers).build()?,
            Image::builder(seed + 1).layers(layers).architecture("arm64").build()?,
        ])
    }

    fn list(children: Vec<Image>, media_type: &str) -> Result<Image> {
        let manifests: Vec<Value> = children
            .iter()
            .map(|child| {
                let mut descriptor = child.descriptor();
                if let Some(architecture) = &child.architecture {
                    descriptor["platform"] = json!({"architecture": architecture, "os": "linux"});
                }
                descriptor
            })
            .collect();
        let manifest = json!({"schemaVersion": 2, "mediaType": media_type, "manifests": manifests});
        Image::from_manifest(&manifest, media_type, Vec::new(), children)
    }

    pub(crate) fn from_manifest(
        manifest: &Value,
        media_type: &str,
        blobs: Vec<Blob>,
        children: Vec<Image>,
    ) -> Result<Image> {
        let bytes = serde_json::to_vec_pretty(manifest)?;
        Ok(Image {
            digest: Digest::sha256(&bytes),
            manifest: bytes.into(),
            media_type: media_type.to_owned(),
            blobs,
            children,
            architecture: None,
        })
    }

    /// Media type, digest and size of the manifest.
    pub fn descriptor(&self) -> Value {
        json!({
            "mediaType": self.media_type,
            "digest": self.digest.to_string(),
            "size": self.manifest.len(),
        })
    }

    /// The layers: every blob but the configuration.
    pub fn layers(&self) -> &[Blob] {
        self.blobs.get(1..).unwrap_or_default()
    }

    /// All blobs, those of the children too.
    pub fn all_blobs(&self) -> Vec<&Blob> {
        let own = self.blobs.iter();
        own.chain(self.children.iter().flat_map(Image::all_blobs)).collect()
    }

    /// Sum of the lengths of all blobs, those of the children too.
    pub fn blob_bytes(&self) -> u64 {
        self.all_blobs().iter().map(|blob| blob.bytes.len() as u64).sum()
    }

    /// Writes an OCI layout folder that holds this under the name `tag`.
    pub fn write_layout(&self, folder: &Path, tag: &str) -> Result<()> {
        fs::create_dir_all(folder)?;
        fs::write(folder.join("oci-layout"), br#"{"imageLayoutVersion":"1.0.0"}"#)?;
        let mut descriptor = self.descriptor();
        descriptor["annotations"] = json!({"org.opencontainers.image.ref.name": tag});
        let index = json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_INDEX,
            "manifests": [descriptor],
        });
        fs::write(folder.join("index.json"), serde_json::to_vec(&index)?)?;
        self.write_blobs(folder)
    }

    fn write_blobs(&self, folder: &Path) -> Result<()> {
        let put = |digest: &Digest, bytes: &[u8]| -> Result<()> {
            let home = folder.join("blobs").join(digest.algorithm().as_str());
            fs::create_dir_all(&home)?;
            Ok(fs::write(home.join(digest.hex()), bytes)?)
        };
        put(&self.digest, &self.manifest)?;
        for blob in &self.blobs {
            put(&blob.digest, &blob.bytes)?;
        }
        self.children.iter().try_for_each(|child| child.write_blobs(folder))
    }

    /// Writes what `docker save` writes, under `name` (`repository:tag`). Not for an index.
    pub fn write_docker_archive(&self, file: &Path, name: &str) -> Result<()> {
        ensure!(self.children.is_empty(), "a docker archive holds single images only");
        let mut archive = Tar::new(BufWriter::new(fs::File::create(file)?));
        let mut layers = Vec::new();
        for layer in self.layers() {
            let path = format!("{}.tar", layer.digest.hex());
            archive.file(&path, 0o644, &layer.bytes)?;
            layers.push(path);
        }
        let Some(config) = self.blobs.first() else { return Ok(()) };
        let config_path = format!("{}.json", config.digest.hex());
        archive.file(&config_path, 0o644, &config.bytes)?;
        let list = json!([{"Config": config_path, "RepoTags": [name], "Layers": layers}]);
        archive.file("manifest.json", 0o644, &serde_json::to_vec(&list)?)?;
        archive.finish()?;
        Ok(())
    }
}

impl Builder {
    /// About this many bytes in each layer.
    pub fn layers(mut self, layers: &[usize]) -> Builder {
        self.layers = layers.to_vec();
        self
    }

    /// Docker's media types instead of OCI's.
    pub fn docker(mut self) -> Builder {
        self.docker = true;
        self
    }

    /// The architecture, `amd64` if not said.
    pub fn architecture(mut self, architecture: &str) -> Builder {
        self.architecture = architecture.to_owned();
        self
    }

    /// Refers to `subject`.
    pub fn subject(mut self, subject: &Image) -> Builder {
        self.subject = Some(subject.descriptor());
        self
    }

    /// An artifact of this type: its configuration is the empty JSON object.
    pub fn artifact_type(mut self, artifact_type: &str) -> Builder {
        self.artifact_type = Some(artifact_type.to_owned());
        self
    }

    /// One annotation of the manifest.
    pub fn annotation(mut self, name: &str, value: &str) -> Builder {
        self.annotations.insert(name.to_owned(), json!(value));
        self
    }

    /// Makes the blobs and the manifest.
    pub fn build(self) -> Result<Image> {
        let mut layers = Vec::new();
        for (number, size) in self.layers.iter().enumerate() {
            layers.push(Blob::new(layer(self.seed, number as u64, *size)?));
        }
        let (manifest_type, config_type, layer_type) = if self.docker {
            (media_type::DOCKER_MANIFEST, media_type::DOCKER_CONFIG, DOCKER_LAYER_PLAIN)
        } else if self.artifact_type.is_some() {
            (media_type::OCI_MANIFEST, media_type::EMPTY_JSON, media_type::OCTET_STREAM)
        } else {
            (media_type::OCI_MANIFEST, media_type::OCI_CONFIG, media_type::OCI_LAYER)
        };
        let config = if self.artifact_type.is_some() {
            Blob::new(b"{}".as_slice())
        } else {
            let diff_ids: Vec<String> = layers.iter().map(|it| it.digest.to_string()).collect();
            Blob::new(serde_json::to_vec(&json!({
                "architecture": self.architecture,
                "os": "linux",
                "config": {"Cmd": ["/bin/true"], "Labels": {"seed": self.seed.to_string()}},
                "rootfs": {"type": "layers", "diff_ids": diff_ids},
            }))?)
        };
        let describe = |kind: &str, blob: &Blob| json!({"mediaType": kind, "digest": blob.digest.to_string(), "size": blob.bytes.len()});
        let mut manifest = json!({
            "schemaVersion": 2,
            "mediaType": manifest_type,
            "config": describe(config_type, &config),
            "layers": layers.iter().map(|it| describe(layer_type, it)).collect::<Vec<_>>(),
        });
        if let Some(subject) = self.subject {
            manifest["subject"] = subject;
        }
        if let Some(artifact_type) = self.artifact_type {
            manifest["artifactType"] = json!(artifact_type);
        }
        if !self.annotations.is_empty() {
            manifest["annotations"] = Value::Object(self.annotations);
        }
        let blobs = std::iter::once(config).chain(layers).collect();
        let mut image = Image::from_manifest(&manifest, manifest_type, blobs, Vec::new())?;
        image.architecture = Some(self.architecture);
        Ok(image)
    }
}

/// A tar archive of one file with `size` bytes that do not compress.
fn layer(seed: u64, number: u64, size: usize) -> Result<Vec<u8>> {
    let mut archive = Tar::new(Vec::with_capacity(size + 4096));
    archive.folder("opt")?;
    let content = noise(seed.wrapping_mul(1000).wrapping_add(number), size);
    archive.file(&format!("opt/layer-{seed}-{number}"), 0o644, &content)?;
    archive.finish()
}

/// Reproducible bytes that do not compress (xorshift64*).
fn noise(seed: u64, length: usize) -> Vec<u8> {
    let mut state = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15) | 1;
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        state ^= state >> 12;
        state ^= state << 25;
        state ^= state >> 27;
        bytes.extend_from_slice(&state.wrapping_mul(0x2545_F491_4F6C_DD1D).to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

#[cfg(test)]
mod tests {
    use super::Image;
    use kuboard_oci::Manifest;

    #[test]
    fn equal_arguments_give_equal_images_and_other_seeds_share_nothing() {
        let one = Image::multi_platform(1, &[10, 5000]).unwrap();
        let same = Image::multi_platform(1, &[10, 5000]).unwrap();
        let other = Image::multi_platform(3, &[10, 5000]).unwrap();
        assert_eq!(one.digest, same.digest);
        for blob in one.all_blobs() {
            assert!(other.all_blobs().iter().all(|it| it.digest != blob.digest));
        }
    }

    #[test]
    fn manifests_are_well_formed() {
        let check = |image: &Image, blobs: usize, children: usize| {
            let parsed = Manifest::parse(&image.manifest, Some(&image.media_type)).unwrap();
            assert_eq!(parsed.blobs().count(), blobs);
            assert_eq!(parsed.children().count(), children);
        };
        let image = Image::oci(1, &[10, 20]).unwrap();
        check(&image, 3, 0);
        check(&Image::docker(1, &[10]).unwrap(), 2, 0);
        check(&Image::multi_platform(1, &[1]).unwrap(), 0, 2);
        let signature =
            Image::builder(2).layers(&[3]).artifact_type("application/x").subject(&image).build();
        let signature = signature.unwrap();
        check(&signature, 2, 0);
        let parsed = Manifest::parse(&signature.manifest, None).unwrap();
        assert_eq!(parsed.subject.map(|it| it.digest), Some(image.digest));
    }
}
