//! A repository of a registry, asked as a client.

use kuboard_oci::{Digest, Reference, RepositoryName};
use kuboard_registry::client::{Upstream, UpstreamError, UpstreamErrorKind};
use kuboard_rt::BoxFuture;

use super::{BlobBytes, Contents, Document, SourceError, SourceErrorKind};

/// One repository.
pub struct RegistryContents {
    /// The registry.
    pub upstream: Upstream,
    /// The repository there.
    pub repository: RepositoryName,
}

impl Contents for RegistryContents {
    fn manifest<'a>(
        &'a self,
        reference: Option<&'a Reference>,
    ) -> BoxFuture<'a, Result<Document, SourceError>> {
        Box::pin(async move {
            let reference =
                reference.ok_or_else(|| SourceError::invalid("no tag and no digest"))?;
            let fetched = self.upstream.get_manifest(&self.repository, reference).await;
            let fetched = fetched.map_err(|error| refused(&error))?;
            Ok(Document {
                digest: fetched.digest,
                media_type: fetched.media_type,
                bytes: fetched.bytes,
            })
        })
    }

    fn blob<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<BlobBytes, SourceError>> {
        Box::pin(async move {
            let blob = self.upstream.get_blob(&self.repository, digest, 0, None).await;
            let blob = blob.map_err(|error| refused(&error))?;
            Ok(BlobBytes::Stream(blob.stream))
        })
    }
}

fn refused(error: &UpstreamError) -> SourceError {
    let kind = match error.kind {
        UpstreamErrorKind::NotFound => SourceErrorKind::NotFound,
        UpstreamErrorKind::Invalid => SourceErrorKind::Invalid,
        UpstreamErrorKind::Unauthorized | UpstreamErrorKind::Denied => SourceErrorKind::Denied,
        _ => SourceErrorKind::Unreachable,
    };
    SourceError::new(kind, error.to_string())
}
