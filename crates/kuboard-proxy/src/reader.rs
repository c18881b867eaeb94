//! Content by name, for other parts of the same process: the way of a pull without a caller. What
//! it reads is cached, shared and observed like any pull.

use std::sync::Arc;

use bytes::Bytes;
use http::{HeaderMap, Method, header};
use kuboard_api::{Rules, Target};
use kuboard_oci::{Digest, MAX_MANIFEST_BYTES, Reference, RepositoryName};
use kuboard_registry::server::{ApiError, Query, Route};
use kuboard_rt::http::{Body, Response};

use crate::{
    hosted::Hosted,
    proxied::{Proxied, ProxiedRequest},
};

/// Reads what the registry holds or can get.
#[derive(Clone)]
pub struct Reader {
    pub(crate) rules: Arc<Rules>,
    pub(crate) hosted: Arc<Hosted>,
    pub(crate) proxied: Arc<Proxied>,
}

/// A manifest's bytes.
#[derive(Clone, Debug)]
pub struct ManifestContent {
    /// Digest of the bytes.
    pub digest: Digest,
    /// As declared.
    pub media_type: String,
    /// Verbatim.
    pub bytes: Bytes,
}

/// Why content can't be read.
#[derive(Debug, thiserror::Error)]
#[error("{message}")]
pub struct ReadError {
    /// What is wrong.
    pub message: String,
    /// The registry itself said that it does not exist.
    pub not_found: bool,
}

impl From<ApiError> for ReadError {
    fn from(error: ApiError) -> Self {
        let not_found = error.status == http::StatusCode::NOT_FOUND;
        Self { message: error.message.clone(), not_found }
    }
}

impl Reader {
    /// A manifest by tag or digest. `registry` is the name of an upstream's rule, or empty for a
    /// hosted repository.
    ///
    /// # Errors
    /// It does not exist, its upstream can't be asked, or no rule allows it.
    pub async fn manifest(
        &self,
        registry: &str,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<ManifestContent, ReadError> {
        if registry.is_empty() {
            let found = self.hosted.find_manifest(repository, reference).await?;
            let found = found.ok_or_else(|| missing(registry, repository, reference))?;
            return Ok(ManifestContent {
                digest: found.digest,
                media_type: found.media_type.clone(),
                bytes: found.bytes.clone(),
            });
        }
        let route = Route::Manifest(repository.clone(), reference.clone());
        let (head, body) = self.upstream(registry, repository, &route).await?.into_parts();
        let text = |name: &str| head.headers.get(name).and_then(|value| value.to_str().ok());
        let digest = text("docker-content-digest").and_then(|text| text.parse().ok());
        let media_type = text(header::CONTENT_TYPE.as_str()).unwrap_or_default().to_owned();
        let bytes = body.collect().await.map_err(broken)?;
        if bytes.len() > MAX_MANIFEST_BYTES {
            return Err(broken("the manifest is too large"));
        }
        let digest = digest.unwrap_or_else(|| Digest::sha256(&bytes));
        Ok(ManifestContent { digest, media_type, bytes })
    }

    /// A blob's bytes, checked while they come, and their number if it is known.
    ///
    /// # Errors
    /// As [`Reader::manifest`].
    pub async fn blob(
        &self,
        registry: &str,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<(Body, Option<u64>), ReadError> {
        if registry.is_empty() {
            let (body, size) = self.hosted.read_blob(repository, digest).await?;
            return Ok((body, Some(size)));
        }
        let route = Route::Blob(repository.clone(), *digest);
        let (head, body) = self.upstream(registry, repository, &route).await?.into_parts();
        let size = head.headers.get(header::CONTENT_LENGTH);
        Ok((body, size.and_then(|value| value.to_str().ok()?.parse().ok())))
    }

    /// Whether a blob is in the cache.
    pub async fn is_cached(&self, blob: &Digest) -> bool {
        self.proxied.has_cached(blob).await
    }

    async fn upstream(
        &self,
        registry: &str,
        repository: &RepositoryName,
        route: &Route,
    ) -> Result<Response, ReadError> {
        let target = self.rules.target(Some(registry), None, repository);
        let Target::Upstream { rule, registry, repository } = target else {
            return Err(ReadError {
                message: format!("no rule knows the registry {registry}"),
                not_found: false,
            });
        };
        let origin = self.proxied.origin(rule, &registry, &repository)?;
        let request = ProxiedRequest {
            origin: &origin,
            route,
            query: &Query::default(),
            method: &Method::GET,
            headers: &HeaderMap::new(),
        };
        Ok(self.proxied.handle(request).await?)
    }
}

fn missing(registry: &str, repository: &RepositoryName, reference: &Reference) -> ReadError {
    let message = format!("{registry}{repository} has no manifest {reference}");
    ReadError { message, not_found: true }
}

fn broken(error: impl ToString) -> ReadError {
    ReadError { message: error.to_string(), not_found: false }
}
