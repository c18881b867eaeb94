//! What `docker save` writes: a tar file with `manifest.json`, configurations and layers.

use std::{path::Path, sync::Arc};

use kuboard_oci::{Digest, ImageReference, Manifest, media_type};
use kuboard_rt::BoxFuture;
use kuboard_vuln::{ImageIdentity, LayerReference};
use serde::Deserialize;

use super::{
    BlobBytes, Image, Layers, SourceError, SourceErrorKind, archive::TarFile, check_layers,
};
use crate::index::{ImageConfig, MAX_CONFIG_BYTES, layer_references};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Entry {
    config: String,
    #[serde(default)]
    repo_tags: Option<Vec<String>>,
    #[serde(default)]
    layers: Vec<String>,
}

struct Members {
    tar: TarFile,
    names: Vec<String>,
}

impl Layers for Members {
    fn open<'a>(
        &'a self,
        position: usize,
        _layer: &'a LayerReference,
    ) -> BoxFuture<'a, Result<BlobBytes, SourceError>> {
        Box::pin(async move {
            let name = self.names.get(position).map_or("", String::as_str);
            let (section, _) = self.tar.reader(name)?;
            Ok(BlobBytes::Reader(Box::new(section)))
        })
    }
}

/// Opens the image named `tag` (as `docker save` was asked for), or the only one.
///
/// # Errors
/// It is no such archive, or has several images and none was named.
pub fn open_docker_archive(
    path: &Path,
    tag: Option<&str>,
    spill: &Path,
) -> Result<Image, SourceError> {
    let tar = TarFile::open(path, spill)?;
    let list = tar.bytes("manifest.json", MAX_CONFIG_BYTES)?;
    let entries: Vec<Entry> = serde_json::from_slice(&list)
        .map_err(|error| SourceError::invalid(format!("manifest.json: {error}")))?;
    let names = |entry: &Entry| entry.repo_tags.clone().unwrap_or_default();
    let entry = match tag {
        Some(tag) => {
            let is_meant = |name: &String| name == tag || is_same_name(name, tag);
            entries.iter().find(|entry| names(entry).iter().any(is_meant))
        }
        None if entries.len() > 1 => {
            let all: Vec<String> = entries.iter().flat_map(names).collect();
            return Err(SourceError::not_an_image(format!(
                "it has several images; hint: name one of them: {}",
                all.join(", ")
            )));
        }
        None => entries.first(),
    };
    let entry = entry.ok_or_else(|| {
        SourceError::new(SourceErrorKind::NotFound, "the archive has no such image")
    })?;
    check_layers(entry.layers.len())?;
    let config = tar.bytes(&entry.config, MAX_CONFIG_BYTES)?;
    let mut identity = ImageIdentity {
        name: names(entry).first().cloned().unwrap_or_else(|| path.display().to_string()),
        config: Some(Digest::sha256(&config)),
        ..ImageIdentity::default()
    };
    let manifest = manifest_of(&tar, entry, &config)?;
    let ImageConfig { mut layers, platform, created_ms, labels } =
        layer_references(&manifest, &config).map_err(SourceError::invalid)?;
    // Their digests are not known without reading them; they are what the configuration says.
    for layer in &mut layers {
        if let Some(diff_id) = layer.diff_id {
            layer.digest = diff_id;
        }
    }
    identity.size = layers.iter().map(|layer| layer.size).sum();
    identity.platform = platform;
    identity.created_ms = created_ms;
    identity.labels = labels;
    let content = Arc::new(Members { tar, names: entry.layers.clone() });
    Ok(Image { identity, layers, content })
}

/// Whether both mean the same in full: tools write `docker.io/library/` or leave it out.
fn is_same_name(one: &str, other: &str) -> bool {
    match (one.parse::<ImageReference>(), other.parse::<ImageReference>()) {
        (Ok(one), Ok(other)) => one == other,
        _ => false,
    }
}

/// A manifest as a registry would hold it, so that layers and history are joined in one place.
fn manifest_of(tar: &TarFile, entry: &Entry, config: &[u8]) -> Result<Manifest, SourceError> {
    let mut layers = Vec::with_capacity(entry.layers.len());
    for name in &entry.layers {
        let (_, size) = tar.reader(name)?;
        let digest = Digest::sha256(name.as_bytes());
        layers.push(serde_json::json!({
            "mediaType": "application/vnd.oci.image.layer.v1.tar",
            "digest": digest, "size": size,
        }));
    }
    let manifest = serde_json::json!({
        "schemaVersion": 2,
        "mediaType": media_type::OCI_MANIFEST,
        "config": {
            "mediaType": media_type::OCI_CONFIG,
            "digest": Digest::sha256(config), "size": config.len(),
        },
        "layers": layers,
    });
    Manifest::parse(manifest.to_string().as_bytes(), None)
        .map_err(|error| SourceError::invalid(format!("manifest.json: {error}")))
}
