//! The advisory database as an artifact in a registry: an OCI manifest whose one layer is the bundle,
//! annotations that say which generation it is, and a signature that refers to it.
//!
//! ```text
//! TAG ── manifest, artifactType application/vnd.kuboard.advisories.v1
//!         ├ config  {}                                    application/vnd.oci.empty.v1+json
//!         └ layer   the bundle                            application/vnd.kuboard.advisories.bundle.v1
//! manifest, artifactType application/vnd.kuboard.signature.v1, subject: the one above
//!         └ layer   {"digest","generation","created"}     application/vnd.kuboard.signature.v1+json
//!         annotation cn.kuboard.signature: Ed25519 over the layer's bytes, base64
//! ```
//!
//! Signatures are found by the referrers API, or where a registry has none by the fallback tag of
//! the OCI distribution specification.

mod signature;
#[cfg(test)]
mod tests;

use std::{
    collections::BTreeMap,
    fs::File,
    io::{Seek, SeekFrom, Write},
    path::Path,
};

use anyhow::{Context, bail, ensure};
use bytes::Bytes;
use futures_util::StreamExt;
use kuboard_oci::{Descriptor, Digest, Hasher, Reference, RepositoryName, media_type};
use kuboard_registry::client::{Fetched, Upstream, UpstreamError, UpstreamErrorKind};
use kuboard_vuln::DatabaseStamp;
use serde::{Deserialize, Serialize};

use signature::{Payload, Private, Public};

/// What the artifact is.
pub const ARTIFACT_TYPE: &str = "application/vnd.kuboard.advisories.v1";
/// What its layer is.
pub const BUNDLE_TYPE: &str = "application/vnd.kuboard.advisories.bundle.v1";
/// What a signature is.
pub const SIGNATURE_TYPE: &str = "application/vnd.kuboard.signature.v1";
/// What a signature's layer is.
pub const PAYLOAD_TYPE: &str = "application/vnd.kuboard.signature.v1+json";

/// RFC 3339.
const CREATED: &str = "org.opencontainers.image.created";
const GENERATION: &str = "cn.kuboard.advisories.generation";
const FORMAT: &str = "cn.kuboard.advisories.format";
const SIGNATURE: &str = "cn.kuboard.signature";
/// Format of the bundle.
const BUNDLE_FORMAT: &str = "1";

/// A bundle is some hundred MiB.
const MAX_BUNDLE: u64 = 4 << 30;
/// A signature's payload is about 200 bytes.
const MAX_PAYLOAD: u64 = 16 << 10;
/// Signatures that are looked at.
const MAX_SIGNATURES: usize = 32;
/// Times that a broken download is taken up again.
const MAX_BREAKS: usize = 5;

/// A repository that holds artifacts.
pub struct Place {
    /// The registry.
    pub upstream: Upstream,
    /// The repository there.
    pub repository: RepositoryName,
}

/// The manifest of an artifact, as far as it is used here.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
struct Manifest {
    schema_version: u8,
    media_type: String,
    artifact_type: Option<String>,
    config: Descriptor,
    layers: Vec<Descriptor>,
    #[serde(skip_serializing_if = "Option::is_none")]
    subject: Option<Descriptor>,
    #[serde(default)]
    annotations: BTreeMap<String, String>,
}

impl Manifest {
    fn new(kind: &str, layer: Descriptor, annotations: BTreeMap<String, String>) -> Self {
        let empty = Digest::sha256(EMPTY);
        Self {
            schema_version: 2,
            media_type: media_type::OCI_MANIFEST.to_owned(),
            artifact_type: Some(kind.to_owned()),
            config: Descriptor::new(media_type::EMPTY_JSON, empty, EMPTY.len() as u64),
            layers: vec![layer],
            subject: None,
            annotations,
        }
    }

    /// The one layer of an artifact of a kind, whose media type is as expected.
    fn layer(&self, kind: &str, layer_type: &str) -> Option<&Descriptor> {
        let is_kind = self.artifact_type.as_deref() == Some(kind);
        match self.layers.as_slice() {
            [layer] if is_kind && layer.media_type == layer_type => Some(layer),
            _ => None,
        }
    }
}

const EMPTY: &[u8] = b"{}";

/// Puts a bundle there, signs it if there is a key (Ed25519, PKCS#8, PEM or DER), and lets the tag
/// point at it: in this order, so that the tag never points at something unsigned. The digest of
/// the artifact.
///
/// # Errors
/// The registry refuses, the key is none, or the reference is no tag.
pub async fn push(
    place: &Place,
    tag: &Reference,
    bundle: Bytes,
    stamp: &DatabaseStamp,
    key: Option<&[u8]>,
) -> anyhow::Result<Digest> {
    let key = key.map(Private::read).transpose()?;
    ensure!(tag.tag().is_some(), "{tag} is no tag; hint: the digest is known only after the push");
    let Place { upstream, repository } = place;
    let size = bundle.len() as u64;
    ensure!(size <= MAX_BUNDLE, "the bundle has {size} bytes, more than {MAX_BUNDLE}");
    let created = jiff::Timestamp::from_millisecond(stamp.built_ms)
        .context("the database was built at no time")?
        .to_string();
    upstream.put_blob(repository, Bytes::from_static(EMPTY)).await?;
    let bundle = upstream.put_blob(repository, bundle).await.context("the bundle can't be put")?;
    let layer = Descriptor::new(BUNDLE_TYPE, bundle, size);
    let annotations = [
        (CREATED, created.clone()),
        (GENERATION, stamp.generation.to_string()),
        (FORMAT, BUNDLE_FORMAT.to_owned()),
    ];
    let annotations = annotations.map(|(name, value)| (name.to_owned(), value)).into();
    let manifest = serde_json::to_vec(&Manifest::new(ARTIFACT_TYPE, layer, annotations))?;
    let manifest = Bytes::from(manifest);
    let digest = Digest::sha256(&manifest);
    let by_digest = Reference::Digest(digest);
    upstream
        .put_manifest(repository, &by_digest, media_type::OCI_MANIFEST, manifest.clone())
        .await?;
    if let Some(key) = key {
        let payload = Payload { digest, generation: stamp.generation, created };
        let size = manifest.len() as u64;
        let subject = Descriptor::new(media_type::OCI_MANIFEST, digest, size);
        sign(place, subject, &payload, &key).await.context("the signature can't be put")?;
    }
    upstream.put_manifest(repository, tag, media_type::OCI_MANIFEST, manifest).await?;
    Ok(digest)
}

async fn sign(
    place: &Place,
    subject: Descriptor,
    payload: &Payload,
    key: &Private,
) -> anyhow::Result<()> {
    let Place { upstream, repository } = place;
    let payload = serde_json::to_vec(payload)?;
    let signed = key.sign(&payload);
    let size = payload.len() as u64;
    let layer = upstream.put_blob(repository, payload.into()).await?;
    let annotations = BTreeMap::from([(SIGNATURE.to_owned(), signed)]);
    let layer = Descriptor::new(PAYLOAD_TYPE, layer, size);
    let mut manifest = Manifest::new(SIGNATURE_TYPE, layer, annotations.clone());
    let of = subject.digest;
    manifest.subject = Some(subject);
    let manifest = serde_json::to_vec(&manifest)?;
    let (digest, size) = (Digest::sha256(&manifest), manifest.len() as u64);
    let by_digest = Reference::Digest(digest);
    let stored = upstream
        .put_manifest(repository, &by_digest, media_type::OCI_MANIFEST, manifest.into())
        .await?;
    if stored.is_listed {
        return Ok(());
    }
    // No referrers API: the list is the client's affair.
    let tag = Reference::Tag(kuboard_oci::referrers_tag(&of));
    let mut listed = fallback(place, &of).await?;
    if listed.iter().all(|one| one.digest != digest) {
        let mut entry = Descriptor::new(media_type::OCI_MANIFEST, digest, size);
        entry.artifact_type = Some(SIGNATURE_TYPE.to_owned());
        entry.annotations = annotations;
        listed.push(entry);
    }
    let index = kuboard_oci::referrers_index(&listed);
    upstream.put_manifest(repository, &tag, media_type::OCI_INDEX, index.into()).await?;
    Ok(())
}

/// Takes the bundle from there into an unnamed file of `folder`, at its beginning. With a key
/// (Ed25519, SPKI, PEM or DER), only one that this key has signed.
///
/// # Errors
/// There is none, it is damaged, or nobody with that key signed it.
pub async fn pull(
    place: &Place,
    reference: &Reference,
    key: Option<&[u8]>,
    folder: &Path,
) -> anyhow::Result<File> {
    let key = key.map(Public::read).transpose()?;
    let Fetched { bytes, digest, .. } =
        place.upstream.get_manifest(&place.repository, reference).await?;
    // Signatures speak of sha256.
    let digest = if digest.algorithm() == kuboard_oci::Algorithm::Sha256 {
        digest
    } else {
        Digest::sha256(&bytes)
    };
    let manifest: Option<Manifest> = serde_json::from_slice(&bytes).ok();
    let layer = manifest.as_ref().and_then(|one| one.layer(ARTIFACT_TYPE, BUNDLE_TYPE));
    let (Some(manifest), Some(layer)) = (&manifest, layer) else {
        bail!(
            "{} holds no advisories under {reference}; hint: `kuboard db push` puts them there",
            place.repository
        );
    };
    let format = manifest.annotations.get(FORMAT).map(String::as_str);
    ensure!(
        format.is_none_or(|format| format == BUNDLE_FORMAT),
        "the advisories have format {}, and {BUNDLE_FORMAT} is the one known here; hint: update \
         kuboard",
        format.unwrap_or_default().escape_debug()
    );
    if let Some(key) = key {
        verify(place, manifest, digest, &key).await?;
    }
    download(place, layer, folder).await
}

/// Whether somebody with the key signed this very artifact.
async fn verify(
    place: &Place,
    manifest: &Manifest,
    digest: Digest,
    key: &Public,
) -> anyhow::Result<()> {
    let signatures = signatures(place, &digest).await.context("the signatures can't be had")?;
    let mut first_bad = None;
    let count = signatures.len();
    for entry in signatures.into_iter().take(MAX_SIGNATURES) {
        match verify_one(place, manifest, digest, &entry, key).await {
            Ok(()) => return Ok(()),
            Err(error) => {
                tracing::debug!(signature = %entry.digest, "not taken: {error:#}");
                first_bad.get_or_insert(error);
            }
        }
    }
    match first_bad {
        None => bail!(
            "nobody signed {digest}; hint: push it with a key, or leave the key away to take what \
             is unsigned"
        ),
        Some(error) => Err(error.context(format!(
            "none of {count} signatures of {digest} is of that key; hint: the public key must \
             belong to the one it was pushed with"
        ))),
    }
}

async fn verify_one(
    place: &Place,
    manifest: &Manifest,
    digest: Digest,
    entry: &Descriptor,
    key: &Public,
) -> anyhow::Result<()> {
    let Place { upstream, repository } = place;
    let by_digest = Reference::Digest(entry.digest);
    let fetched = upstream.get_manifest(repository, &by_digest).await?;
    let signing: Manifest = serde_json::from_slice(&fetched.bytes)?;
    let subject = signing.subject.as_ref().map(|subject| subject.digest);
    ensure!(subject == Some(digest), "it refers to something else");
    let layer = signing.layer(SIGNATURE_TYPE, PAYLOAD_TYPE).context("it is no signature")?;
    let signed = signing.annotations.get(SIGNATURE).context("it holds no signature")?;
    ensure!(layer.size <= MAX_PAYLOAD, "its payload has {} bytes", layer.size);
    let mut payload = Vec::new();
    let mut stream = upstream.get_blob(repository, &layer.digest, 0, None).await?.stream;
    while let Some(piece) = stream.next().await {
        payload.extend_from_slice(&piece?);
        ensure!(payload.len() as u64 <= MAX_PAYLOAD, "its payload is longer than it says");
    }
    let payload_digest = Digest::of(layer.digest.algorithm(), &payload);
    ensure!(payload_digest == layer.digest, "its payload is damaged");
    key.verify(&payload, signed)?;
    // Only now is it worth reading.
    let payload: Payload = serde_json::from_slice(&payload)?;
    let generation = payload.generation.to_string();
    ensure!(
        payload.digest == digest
            && manifest.annotations.get(GENERATION) == Some(&generation)
            && manifest.annotations.get(CREATED) == Some(&payload.created),
        "it was made for another artifact"
    );
    Ok(())
}

/// What is known to sign an artifact.
async fn signatures(place: &Place, subject: &Digest) -> anyhow::Result<Vec<Descriptor>> {
    let Place { upstream, repository } = place;
    let listed = upstream.referrers(repository, subject, Some(SIGNATURE_TYPE)).await;
    let mut listed = match absent(listed)? {
        Some(index) => entries(&index)?,
        None => Vec::new(),
    };
    if listed.is_empty() {
        listed = fallback(place, subject).await?;
    }
    listed.retain(|one| one.artifact_type.as_deref().is_none_or(|kind| kind == SIGNATURE_TYPE));
    Ok(listed)
}

/// The list under the fallback tag.
async fn fallback(place: &Place, subject: &Digest) -> anyhow::Result<Vec<Descriptor>> {
    let tag = Reference::Tag(kuboard_oci::referrers_tag(subject));
    match absent(place.upstream.get_manifest(&place.repository, &tag).await)? {
        Some(fetched) => entries(&fetched.bytes),
        None => Ok(Vec::new()),
    }
}

fn entries(index: &[u8]) -> anyhow::Result<Vec<Descriptor>> {
    #[derive(Deserialize)]
    struct Index {
        manifests: Vec<Descriptor>,
    }
    let index: Index = serde_json::from_slice(index).context("the list of referrers is none")?;
    Ok(index.manifests)
}

fn absent<T>(outcome: Result<T, UpstreamError>) -> Result<Option<T>, UpstreamError> {
    match outcome {
        Ok(found) => Ok(Some(found)),
        Err(error) if error.kind == UpstreamErrorKind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The bytes of a blob, checked, in a file without a name.
async fn download(place: &Place, blob: &Descriptor, folder: &Path) -> anyhow::Result<File> {
    ensure!(blob.size <= MAX_BUNDLE, "the bundle has {} bytes, more than {MAX_BUNDLE}", blob.size);
    let kept = || format!("the bundle can't be kept in {}", folder.display());
    let mut target = Download {
        file: tempfile::tempfile_in(folder).with_context(kept)?,
        hasher: Hasher::new(blob.digest.algorithm()),
        written: 0,
    };
    let mut breaks = 0;
    while target.written < blob.size {
        let before = target.written;
        if let Err(error) = target.go_on(place, blob).await {
            // What came is not lost, and a step forward is worth another try.
            breaks = if target.written > before { 1 } else { breaks + 1 };
            let lasting = matches!(
                error.downcast_ref::<UpstreamError>(),
                Some(error) if !error.is_retryable()
            );
            if lasting || breaks > MAX_BREAKS || error.is::<Unusable>() {
                return Err(error.context("the bundle can't be fetched"));
            }
            tracing::info!("the bundle broke off at {} bytes: {error:#}", target.written);
        }
    }
    let Download { mut file, hasher, .. } = target;
    let digest = hasher.finish();
    ensure!(digest == blob.digest, "the bundle is damaged: it has the digest {digest}");
    file.flush().and_then(|()| file.seek(SeekFrom::Start(0)).map(drop)).with_context(kept)?;
    Ok(file)
}

struct Download {
    file: File,
    hasher: Hasher,
    written: u64,
}

/// Trying again would not help.
#[derive(Debug, thiserror::Error)]
enum Unusable {
    #[error("the bundle is longer than its manifest says")]
    Longer,
    #[error("the bundle can't be kept: {0}")]
    Disk(std::io::Error),
}

impl Download {
    async fn go_on(&mut self, place: &Place, blob: &Descriptor) -> anyhow::Result<()> {
        let from = self.written;
        let Place { upstream, repository } = place;
        let mut blob_stream = upstream.get_blob(repository, &blob.digest, from, None).await?;
        if blob_stream.offset != from {
            // It knows no ranges and gives all of it again.
            ensure!(blob_stream.offset == 0, "the registry sends another part");
            self.restart(blob)?;
        }
        while let Some(piece) = blob_stream.stream.next().await {
            let piece = piece?;
            self.written = self.written.saturating_add(piece.len() as u64);
            if self.written > blob.size {
                return Err(Unusable::Longer.into());
            }
            self.hasher.update(&piece);
            self.file.write_all(&piece).map_err(Unusable::Disk)?;
        }
        ensure!(self.written == blob.size, "the bundle ended early");
        Ok(())
    }

    fn restart(&mut self, blob: &Descriptor) -> Result<(), Unusable> {
        let emptied = self.file.set_len(0);
        emptied.and_then(|()| self.file.seek(SeekFrom::Start(0))).map_err(Unusable::Disk)?;
        self.hasher = Hasher::new(blob.digest.algorithm());
        self.written = 0;
        Ok(())
    }
}
