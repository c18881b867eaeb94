//! Manifests of hosted repositories: bytes verbatim, taken only with all they point at.

use std::{collections::BTreeSet, sync::Arc};

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use kuboard_catalog::{Kind, ManifestRow, PutOutcome};
use kuboard_oci::{
    Algorithm, Descriptor, Digest, MAX_MANIFEST_BYTES, Manifest, ManifestError, Reference,
    RepositoryName, Tag, media_type,
};
use kuboard_registry::server::{ApiError, Query};
use kuboard_rt::http::{Body, Request, RequestBody, Response};

use super::{Hosted, blobs::accepted, refusals};
use crate::{
    answer::{DOCKER_CONTENT_DIGEST, manifest_response, respond, text},
    manifest_cache::CachedManifest,
    observer::ManifestSeen,
};

/// Most tags that one push may set.
const MAX_TAGS: usize = 128;
/// Manifests up to this size are hashed and read where they arrive; longer ones would keep the
/// other connections of the thread waiting.
const SMALL: usize = 64 << 10;

/// A manifest on its way in.
struct Pushed {
    repository: RepositoryName,
    /// What the client says it is.
    reference: Reference,
    tags: Vec<Tag>,
    content_type: Option<String>,
    bytes: Bytes,
}

/// What a manifest needs to be there.
struct Needs {
    blobs: BTreeSet<Digest>,
    /// Blobs that may be fetched elsewhere: held if they are here, not missed if they are not.
    optional: BTreeSet<Digest>,
    children: Vec<Digest>,
}

impl Hosted {
    /// `GET` and `HEAD` of a manifest.
    pub(super) async fn get_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
        request: &Request,
    ) -> Result<Response, ApiError> {
        let found = self.find_manifest(repository, reference).await?;
        let found = found.ok_or_else(|| refusals::manifest_unknown(repository, reference))?;
        let if_none_match = request.headers().get(header::IF_NONE_MATCH);
        Ok(manifest_response(&found, request.method(), if_none_match))
    }

    /// The manifest under a tag or digest of the repository; from memory when it may be.
    pub(crate) async fn find_manifest(
        &self,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Option<Arc<CachedManifest>>, ApiError> {
        let name = repository.as_str();
        let ticket = self.manifests.ticket();
        let (digest, mut listed) = match reference {
            Reference::Digest(digest) => (*digest, None),
            Reference::Tag(tag) => match self.resolve(repository, tag).await? {
                Some((digest, media_type)) => (digest, media_type),
                None => return Ok(None),
            },
        };
        if self.exclusive
            && let Some(manifest) = self.manifests.get(name, &digest)
        {
            return Ok(Some(manifest));
        }
        if listed.is_none() {
            let meta = self.catalog.manifest(name, &digest).await;
            let meta = meta.map_err(|error| refusals::catalog_failed(&error))?;
            listed = meta.map(|meta| meta.media_type);
        }
        let Some(media_type) = listed else { return Ok(None) };
        let held = self.manifests.get(name, &digest);
        if let Some(manifest) = held.filter(|held| held.media_type == media_type) {
            return Ok(Some(manifest));
        }
        let Some(bytes) = self.manifest_bytes(repository, &digest).await? else { return Ok(None) };
        let manifest = CachedManifest::new(digest, media_type, bytes);
        Ok(Some(self.manifests.insert_unless_overtaken(ticket, name, manifest)))
    }

    /// Where a tag points, and the media type there if the catalogue was asked.
    async fn resolve(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
    ) -> Result<Option<(Digest, Option<String>)>, ApiError> {
        if let Some(digest) = self.known.tag(repository, tag) {
            return Ok(Some((digest, None)));
        }
        let ticket = self.known.tag_ticket();
        let row = self.catalog.resolve(repository.as_str(), tag).await;
        let row = row.map_err(|error| refusals::catalog_failed(&error))?;
        let Some(row) = row else { return Ok(None) };
        self.known.note_tag(ticket, repository, tag, row.digest);
        Ok(Some((row.digest, Some(row.media_type))))
    }

    async fn manifest_bytes(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<Bytes>, ApiError> {
        let failed = |error| refusals::store_failed(&error);
        match self.store.open(digest).await.map_err(failed)? {
            Some(blob) => blob.bytes(MAX_MANIFEST_BYTES).await.map(Some).map_err(failed),
            // Listed a moment ago and gone: deleted since, or lost?
            None => match self.catalog.manifest(repository.as_str(), digest).await {
                Ok(None) => Ok(None),
                Ok(Some(_)) => Err(refusals::lost(repository, digest)),
                Err(error) => Err(refusals::catalog_failed(&error)),
            },
        }
    }

    /// `PUT` of a manifest, by tag, or by digest with any number of `tag` parameters.
    pub(super) async fn put_manifest(
        self: &Arc<Self>,
        repository: &RepositoryName,
        reference: &Reference,
        query: &Query,
        request: Request,
    ) -> Result<Response, ApiError> {
        let tags = wanted_tags(reference, query)?;
        let content_type = request.headers().get(header::CONTENT_TYPE);
        let pushed = Pushed {
            repository: repository.clone(),
            reference: reference.clone(),
            tags,
            content_type: content_type.and_then(|v| v.to_str().ok()).map(str::to_owned),
            bytes: read_manifest(request).await?,
        };
        let this = self.clone();
        self.detached("push", async move { this.take_manifest(pushed).await }).await
    }

    async fn take_manifest(&self, pushed: Pushed) -> Result<Response, ApiError> {
        let content_type = pushed.content_type.clone();
        let algorithm =
            pushed.reference.digest().map_or(Algorithm::Sha256, |digest| digest.algorithm());
        let (digest, manifest) = self.read(algorithm, pushed.bytes.clone(), content_type).await?;
        if let Some(expected) = pushed.reference.digest().filter(|expected| **expected != digest) {
            return Err(refusals::digest_mismatch(expected, &digest));
        }
        let manifest = manifest.map_err(|error| refusals::manifest_invalid(&error))?;
        self.store_manifest(&pushed, &digest).await?;
        self.list_manifest(&pushed, &digest, &manifest).await?;
        // After the catalogue, before the answer: from here on nobody sees what was before.
        self.manifests.forget(&digest);
        for tag in &pushed.tags {
            self.known.forget_tag(&pushed.repository, tag);
        }
        self.metrics.pushed_manifests.inc();
        self.metrics.pushed_bytes.inc_by(pushed.bytes.len() as u64);
        // Without a tag it is told once, as what it is.
        let tags = pushed.tags.iter().map(|tag| Some(tag.to_string()));
        let untagged = pushed.tags.is_empty().then_some(None);
        for tag in tags.chain(untagged) {
            self.observers.tell(|| ManifestSeen {
                registry: String::new(),
                repository: pushed.repository.to_string(),
                tag,
                digest,
                media_type: manifest.media_type.clone(),
                bytes: pushed.bytes.clone(),
            });
        }
        Ok(manifest_created(&pushed, &digest, &manifest))
    }

    /// Hashes and parses, off the async threads when it takes long.
    async fn read(
        &self,
        algorithm: Algorithm,
        bytes: Bytes,
        content_type: Option<String>,
    ) -> Result<(Digest, Result<Manifest, ManifestError>), ApiError> {
        let small = bytes.len() <= SMALL;
        let read = move || {
            let manifest = Manifest::parse(&bytes, content_type.as_deref());
            (Digest::of(algorithm, &bytes), manifest)
        };
        if small {
            return Ok(read());
        }
        self.tasks.blocking("reading a manifest", read).await.map_err(|_| refusals::stopping())
    }

    /// Keeps the bytes as those of a blob, under a lease.
    async fn store_manifest(&self, pushed: &Pushed, digest: &Digest) -> Result<(), ApiError> {
        let failed = |error| refusals::store_failed(&error);
        let size = pushed.bytes.len() as u64;
        let created = self.spool.create(digest.algorithm(), Some(size)).await;
        let mut ingest = created.map_err(failed)?;
        ingest.write(pushed.bytes.clone()).await.map_err(failed)?;
        let verified = ingest.finish(digest, Some(size)).await.map_err(failed)?;
        self.publish(&pushed.repository, verified).await
    }

    /// Lists the manifest with its tags, if all that it needs is there.
    async fn list_manifest(
        &self,
        pushed: &Pushed,
        digest: &Digest,
        manifest: &Manifest,
    ) -> Result<(), ApiError> {
        let mut needs = Needs::of(manifest);
        let mut optional = self.present(&pushed.repository, &needs.optional).await?;
        needs.optional.retain(|digest| !needs.blobs.contains(digest));
        optional.retain(|digest| needs.optional.contains(digest));
        self.check_bytes(&needs.blobs).await?;
        let mut row = ManifestRow {
            repository: pushed.repository.as_str().to_owned(),
            kind: Kind::Hosted,
            digest: *digest,
            media_type: manifest.media_type.clone(),
            size: pushed.bytes.len() as u64,
            artifact_type: manifest.referrer_type().map(str::to_owned),
            subject: manifest.subject.as_ref().map(|subject| subject.digest),
            annotations: manifest.annotations.clone(),
            blobs: needs.blobs.iter().chain(&optional).copied().collect(),
            children: needs.children.clone(),
            pushed_at_ms: self.clock.now_ms(),
        };
        let failed = |error| refusals::catalog_failed(&error);
        let mut outcome = self.catalog.put_manifest(&row, &pushed.tags).await.map_err(failed)?;
        if let PutOutcome::Missing(missing) = &outcome
            && missing.iter().all(|digest| optional.contains(digest))
        {
            // An optional blob was collected since we looked.
            row.blobs = needs.blobs.iter().copied().collect();
            outcome = self.catalog.put_manifest(&row, &pushed.tags).await.map_err(failed)?;
        }
        match outcome {
            PutOutcome::Stored => Ok(()),
            PutOutcome::Missing(missing) => Err(refusals::references_unknown(&missing)),
        }
    }

    /// Those of `digests` that the repository has.
    async fn present(
        &self,
        repository: &RepositoryName,
        digests: &BTreeSet<Digest>,
    ) -> Result<BTreeSet<Digest>, ApiError> {
        let mut present = BTreeSet::new();
        for digest in digests {
            let row = self.catalog.blob(repository.as_str(), digest).await;
            if row.map_err(|error| refusals::catalog_failed(&error))?.is_some() {
                present.insert(*digest);
            }
        }
        Ok(present)
    }

    /// Refuses if one of `digests` has no bytes: it may be listed by a push that is not over.
    async fn check_bytes(&self, digests: &BTreeSet<Digest>) -> Result<(), ApiError> {
        let mut missing = Vec::new();
        for digest in digests {
            let size = self.store.stat(digest).await;
            if size.map_err(|error| refusals::store_failed(&error))?.is_none() {
                missing.push(*digest);
            }
        }
        if missing.is_empty() { Ok(()) } else { Err(refusals::references_unknown(&missing)) }
    }

    /// `DELETE` of a tag, or of a manifest with all its tags.
    pub(super) async fn delete_manifest(
        self: &Arc<Self>,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<Response, ApiError> {
        let (this, repository, reference) = (self.clone(), repository.clone(), reference.clone());
        let change = async move {
            let name = repository.as_str();
            let deleted = match &reference {
                Reference::Tag(tag) => {
                    let deleted = this.catalog.delete_tag(name, tag).await;
                    this.known.forget_tag(&repository, tag);
                    deleted
                }
                Reference::Digest(digest) => {
                    let deleted = this.catalog.delete_manifest(name, digest).await;
                    this.manifests.forget(digest);
                    this.known.forget_tags_of(digest);
                    deleted
                }
            };
            match deleted.map_err(|error| refusals::catalog_failed(&error))? {
                true => Ok(accepted()),
                false => Err(refusals::manifest_unknown(&repository, &reference)),
            }
        };
        self.detached("delete", change).await
    }
}

impl Needs {
    fn of(manifest: &Manifest) -> Self {
        let mut needs =
            Self { blobs: BTreeSet::new(), optional: BTreeSet::new(), children: Vec::new() };
        for blob in manifest.blobs() {
            let set = if is_elsewhere(blob) { &mut needs.optional } else { &mut needs.blobs };
            set.insert(blob.digest);
        }
        for child in manifest.children() {
            // An index may list what is no manifest; then it is a blob that must be there.
            match media_type::readable(&child.media_type) {
                Some(_) => needs.children.push(child.digest),
                None if is_elsewhere(child) => _ = needs.optional.insert(child.digest),
                None => _ = needs.blobs.insert(child.digest),
            }
        }
        needs.children.sort_unstable();
        needs.children.dedup();
        needs
    }
}

/// Whether the content may be fetched from another place than this registry.
fn is_elsewhere(descriptor: &Descriptor) -> bool {
    descriptor.is_nondistributable() || !descriptor.urls.is_empty()
}

/// The tags that a push sets.
fn wanted_tags(reference: &Reference, query: &Query) -> Result<Vec<Tag>, ApiError> {
    let mut tags: Vec<Tag> = reference.tag().cloned().into_iter().collect();
    for tag in query.get_all("tag") {
        let tag: Tag = tag.parse().map_err(refusals::tag_invalid)?;
        if !tags.contains(&tag) {
            tags.push(tag);
        }
        if tags.len() > MAX_TAGS {
            return Err(refusals::too_many_tags(MAX_TAGS));
        }
    }
    Ok(tags)
}

/// A manifest's bytes, bounded, and as many as were announced.
async fn read_manifest(request: Request) -> Result<Bytes, ApiError> {
    let announced = request.headers().get(header::CONTENT_LENGTH).cloned();
    let announced = announced.and_then(|value| value.to_str().ok()?.parse::<u64>().ok());
    let too_large = |actual| {
        refusals::manifest_invalid(&ManifestError::TooLarge { actual, max: MAX_MANIFEST_BYTES })
    };
    if let Some(announced) = announced.filter(|length| *length > MAX_MANIFEST_BYTES as u64) {
        return Err(too_large(usize::try_from(announced).unwrap_or(usize::MAX)));
    }
    let body: RequestBody = request.into_body();
    let bytes = body.collect(MAX_MANIFEST_BYTES).await.map_err(|error| match error.kind() {
        std::io::ErrorKind::FileTooLarge => too_large(MAX_MANIFEST_BYTES + 1),
        _ => refusals::broken_body(&error, 0),
    })?;
    match announced.filter(|announced| *announced != bytes.len() as u64) {
        Some(announced) => Err(refusals::size_invalid(announced, bytes.len() as u64)),
        None => Ok(bytes),
    }
}

fn manifest_created(pushed: &Pushed, digest: &Digest, manifest: &Manifest) -> Response {
    let mut headers = HeaderMap::with_capacity(8);
    let location = format!("/v2/{}/manifests/{digest}", pushed.repository);
    headers.insert(header::LOCATION, text(&location));
    headers.insert(DOCKER_CONTENT_DIGEST, text(&digest.to_string()));
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from_static("0"));
    if let Some(subject) = &manifest.subject {
        headers.insert(refusals::OCI_SUBJECT, text(&subject.digest.to_string()));
    }
    // Only what came as a parameter is repeated: it says that parameters are understood.
    if pushed.reference.digest().is_some() {
        for tag in &pushed.tags {
            headers.append(refusals::OCI_TAG, text(tag.as_str()));
        }
    }
    respond(StatusCode::CREATED, headers, Body::empty())
}
