//! Where images come from: registries, archives, layouts, content stores. Whatever the source, an
//! image is opened the same way: manifest, the platform's manifest if it is an index, configuration,
//! and layers that can be read one by one.

mod archive;
mod containerd;
mod docker_archive;
mod error;
mod layout;
mod registry;
mod target;

#[cfg(test)]
mod tests;

use std::{
    fs::File,
    io::{self, Read},
    os::unix::fs::OpenOptionsExt,
    path::Path,
    sync::Arc,
};

use bytes::{Bytes, BytesMut};
use futures_util::{StreamExt, stream::BoxStream};
use kuboard_oci::{Digest, MAX_MANIFEST_BYTES, Manifest, Reference};
use kuboard_rt::BoxFuture;
use kuboard_vuln::{ImageIdentity, LayerReference};
use libc::O_NONBLOCK;

pub use archive::ArchiveContents;
pub use containerd::{CONTAINERD_CONTENT, ContainerdContents};
pub use docker_archive::open_docker_archive;
pub use error::{SourceError, SourceErrorKind};
pub use layout::LayoutContents;
pub use registry::RegistryContents;
pub use target::{Target, TargetError};

use crate::index::{ImageConfig, MAX_CONFIG_BYTES, layer_references};

/// A blob that is being read.
pub enum BlobBytes {
    /// Read on a thread that may block.
    Reader(Box<dyn Read + Send>),
    /// As it comes from the network.
    Stream(BoxStream<'static, io::Result<Bytes>>),
}

/// A manifest's bytes.
#[derive(Clone, Debug)]
pub struct Document {
    /// Digest of the bytes.
    pub digest: Digest,
    /// As it was declared; empty if the source declares nothing.
    pub media_type: String,
    /// Verbatim.
    pub bytes: Bytes,
}

/// Something that holds manifests and blobs: a repository of a registry, a layout.
pub trait Contents: Send + Sync + 'static {
    /// The manifest that a tag or digest means; `None` means the one that there is.
    fn manifest<'a>(
        &'a self,
        reference: Option<&'a Reference>,
    ) -> BoxFuture<'a, Result<Document, SourceError>>;

    /// A blob. The bytes need not be checked.
    fn blob<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<BlobBytes, SourceError>>;
}

/// Gives the layers of one image.
pub trait Layers: Send + Sync {
    /// The bytes of the layer at this position, from the lowest up.
    fn open<'a>(
        &'a self,
        position: usize,
        layer: &'a LayerReference,
    ) -> BoxFuture<'a, Result<BlobBytes, SourceError>>;
}

/// An image whose layers can be read.
pub struct Image {
    /// What it is.
    pub identity: ImageIdentity,
    /// From the lowest up.
    pub layers: Vec<LayerReference>,
    /// Gives their bytes.
    pub content: Arc<dyn Layers>,
}

/// Which platform of an index is meant: `os/architecture[/variant]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlatformChoice {
    /// `linux`.
    pub os: String,
    /// `amd64`.
    pub architecture: String,
    /// `v8`; empty takes any.
    pub variant: String,
}

impl PlatformChoice {
    /// Reads `os/architecture[/variant]`.
    ///
    /// # Errors
    /// It has another form.
    pub fn parse(text: &str) -> Result<Self, SourceError> {
        let mut parts = text.split('/').map(str::to_owned);
        match (parts.next(), parts.next(), parts.next(), parts.next()) {
            (Some(os), Some(architecture), variant, None)
                if !os.is_empty() && !architecture.is_empty() =>
            {
                Ok(Self { os, architecture, variant: variant.unwrap_or_default() })
            }
            _ => Err(SourceError::invalid(format!(
                "{text:?} is no platform; hint: write linux/amd64 or linux/arm64/v8"
            ))),
        }
    }

    /// Linux on this machine's kind of processor.
    #[must_use]
    pub fn here() -> Self {
        let architecture = match std::env::consts::ARCH {
            "x86_64" => "amd64",
            "aarch64" => "arm64",
            other => other,
        };
        Self {
            os: "linux".to_owned(),
            architecture: architecture.to_owned(),
            variant: String::new(),
        }
    }

    fn is_met_by(&self, platform: &kuboard_oci::Platform) -> bool {
        platform.os == self.os
            && platform.architecture == self.architecture
            && (self.variant.is_empty()
                || platform.variant.as_deref().unwrap_or_default() == self.variant)
    }
}

/// Layers of an image: no runtime mounts more than some hundred.
pub(crate) const MAX_LAYERS: usize = 1024;

/// Opens a file by following links (layouts made by build tools consist of them), but nothing else
/// than a regular file: a pipe or device would never end, or never open.
fn open_regular(path: &Path) -> Result<File, SourceError> {
    let opened = File::options().read(true).custom_flags(O_NONBLOCK).open(path);
    let named = |error: io::Error| {
        let SourceError { kind, message } = SourceError::io(error);
        SourceError::new(kind, format!("{}: {message}", path.display()))
    };
    let file = opened.map_err(named)?;
    if !file.metadata().map_err(named)?.is_file() {
        return Err(SourceError::invalid(format!("{} is no regular file", path.display())));
    }
    Ok(file)
}

fn check_layers(count: usize) -> Result<(), SourceError> {
    match count > MAX_LAYERS {
        true => Err(SourceError::invalid(format!("it has {count} layers, more than {MAX_LAYERS}"))),
        false => Ok(()),
    }
}

/// Opens the image that a reference means. Without a platform, an index is searched for the
/// platform of this machine, and an index with a single image gives that one.
///
/// # Errors
/// It does not exist, can't be read, is no image, or has no such platform.
pub async fn open_image(
    contents: Arc<dyn Contents>,
    mut identity: ImageIdentity,
    reference: Option<&Reference>,
    platform: Option<&PlatformChoice>,
) -> Result<Image, SourceError> {
    let mut document = contents.manifest(reference).await?;
    let mut manifest = parse(&document)?;
    if manifest.is_index() {
        let digest = choose(&manifest, platform)?;
        document = contents.manifest(Some(&Reference::Digest(digest))).await?;
        manifest = parse(&document)?;
        if manifest.is_index() {
            return Err(SourceError::not_an_image("an index within an index names no image"));
        }
    }
    let config = manifest
        .config
        .as_ref()
        .filter(|config| is_image_config(&config.media_type))
        .ok_or_else(|| SourceError::not_an_image(not_an_image(&manifest)))?;
    check_layers(manifest.layers.len())?;
    let bytes = read_bounded(contents.blob(&config.digest).await?, MAX_CONFIG_BYTES).await?;
    if !is_digest_of(&config.digest, &bytes) {
        return Err(SourceError::invalid(format!(
            "the configuration's bytes are not those of {}",
            config.digest
        )));
    }
    let config_digest = config.digest;
    let ImageConfig { layers, platform, created_ms, labels } =
        layer_references(&manifest, &bytes).map_err(SourceError::invalid)?;
    identity.digest = Some(document.digest);
    identity.config = Some(config_digest);
    identity.platform = platform;
    identity.created_ms = created_ms;
    identity.labels = labels;
    identity.size = layers.iter().map(|layer| layer.size).sum();
    Ok(Image { identity, layers, content: Arc::new(Blobs(contents)) })
}

/// Layers that are blobs of a [`Contents`].
struct Blobs(Arc<dyn Contents>);

impl Layers for Blobs {
    fn open<'a>(
        &'a self,
        _position: usize,
        layer: &'a LayerReference,
    ) -> BoxFuture<'a, Result<BlobBytes, SourceError>> {
        self.0.blob(&layer.digest)
    }
}

fn parse(document: &Document) -> Result<Manifest, SourceError> {
    let declared = Some(document.media_type.as_str()).filter(|declared| !declared.is_empty());
    Manifest::parse(&document.bytes, declared)
        .map_err(|error| SourceError::invalid(format!("manifest {}: {error}", document.digest)))
}

pub(crate) fn is_image_config(media_type: &str) -> bool {
    matches!(
        media_type,
        kuboard_oci::media_type::OCI_CONFIG
            | "application/vnd.docker.container.image.v1+json"
            | "application/vnd.docker.container.image.rootfs.diff+json"
    )
}

fn not_an_image(manifest: &Manifest) -> String {
    match manifest.referrer_type() {
        Some(kind) => format!("it is an artifact of type {kind}"),
        None => "its manifest names no image configuration".to_owned(),
    }
}

/// The image of an index for the platform. Attestations and entries for unknown platforms are no
/// images.
fn choose(index: &Manifest, platform: Option<&PlatformChoice>) -> Result<Digest, SourceError> {
    let images: Vec<_> = index
        .manifests
        .iter()
        .filter(|entry| !is_attestation(entry))
        .filter(|entry| entry.artifact_type.is_none())
        .collect();
    let fits = |choice: &PlatformChoice| {
        images.iter().find(|entry| entry.platform.as_ref().is_some_and(|p| choice.is_met_by(p)))
    };
    let chosen = match platform {
        Some(choice) => fits(choice),
        None => match images.as_slice() {
            [only] => Some(only),
            _ => fits(&PlatformChoice::here()),
        },
    };
    if let Some(entry) = chosen {
        return Ok(entry.digest);
    }
    let has: Vec<String> = images
        .iter()
        .filter_map(|entry| entry.platform.as_ref())
        .map(|platform| format!("{}/{}", platform.os, platform.architecture))
        .collect();
    let has = if has.is_empty() { "none".to_owned() } else { has.join(", ") };
    Err(SourceError::not_an_image(format!(
        "the index has no image for this platform; hint: --platform takes one of: {has}"
    )))
}

fn is_attestation(entry: &kuboard_oci::Descriptor) -> bool {
    entry.annotations.contains_key("vnd.docker.reference.type")
        || entry
            .platform
            .as_ref()
            .is_some_and(|platform| platform.os == "unknown" || platform.architecture == "unknown")
}

pub(crate) fn is_digest_of(digest: &Digest, bytes: &[u8]) -> bool {
    Digest::of(digest.algorithm(), bytes) == *digest
}

/// All bytes of a small blob.
///
/// # Errors
/// It is longer than `max`, or can't be read.
pub async fn read_bounded(blob: BlobBytes, max: usize) -> Result<Bytes, SourceError> {
    let mut all = BytesMut::new();
    let too_long = || SourceError::invalid(format!("it is longer than {max} bytes"));
    match blob {
        BlobBytes::Reader(reader) => {
            let mut bytes = Vec::new();
            // Small files on a local disk: not worth a thread of their own.
            reader.take(max as u64 + 1).read_to_end(&mut bytes).map_err(SourceError::io)?;
            if bytes.len() > max {
                return Err(too_long());
            }
            Ok(bytes.into())
        }
        BlobBytes::Stream(mut stream) => {
            while let Some(chunk) = stream.next().await {
                let chunk = chunk.map_err(SourceError::io)?;
                if all.len() + chunk.len() > max {
                    return Err(too_long());
                }
                all.extend_from_slice(&chunk);
            }
            Ok(all.freeze())
        }
    }
}

/// Reads a manifest's document from a blob of a layout.
async fn document(
    contents: &dyn Contents,
    digest: &Digest,
    media_type: &str,
) -> Result<Document, SourceError> {
    let bytes = read_bounded(contents.blob(digest).await?, MAX_MANIFEST_BYTES).await?;
    if !is_digest_of(digest, &bytes) {
        return Err(SourceError::invalid(format!(
            "the manifest's bytes are not those of {digest}"
        )));
    }
    Ok(Document { digest: *digest, media_type: media_type.to_owned(), bytes })
}
