//! Blobs of hosted repositories: read, taken in, mounted, deleted.

use std::sync::Arc;

use http::{Method, StatusCode, header};
use kuboard_catalog::Kind;
use kuboard_oci::{Digest, RepositoryName};
use kuboard_registry::server::ApiError;
use kuboard_rt::http::{Body, Request, Response};
use kuboard_store::Verified;

use super::{Hosted, MountSource, Mountable, refusals, uploads::write_all};
use crate::answer::{self, blob_response, respond};

impl Hosted {
    /// `GET` and `HEAD` of a blob.
    pub(super) async fn get_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        request: &Request,
    ) -> Result<Response, ApiError> {
        if request.method() == Method::HEAD {
            return self.head_blob(repository, digest).await;
        }
        self.check_link(repository, digest).await?;
        let headers = request.headers();
        let etag = answer::etag(digest);
        if headers.get(header::IF_NONE_MATCH).is_some_and(|tags| answer::client_has(tags, &etag)) {
            return Ok(answer::blob_unchanged(digest));
        }
        let opened =
            self.store.open(digest).await.map_err(|error| refusals::store_failed(&error))?;
        // Listed without bytes: a push is about to publish it, or never came to that.
        let blob = opened.ok_or_else(|| refusals::blob_unknown(repository, digest))?;
        let same = headers.get(header::IF_RANGE).is_none_or(|tag| *tag == etag);
        let range = headers.get(header::RANGE).filter(|_| same);
        blob_response(blob, request.method(), range)
    }

    /// All bytes of a blob, and their number.
    pub(crate) async fn read_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<(Body, u64), ApiError> {
        self.check_link(repository, digest).await?;
        let opened =
            self.store.open(digest).await.map_err(|error| refusals::store_failed(&error))?;
        let blob = opened.ok_or_else(|| refusals::blob_unknown(repository, digest))?;
        let size = blob.size;
        Ok((blob.body(0..size), size))
    }

    /// Whoever asks whether a blob is there will rely on the answer, so it renews the lease.
    async fn head_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Response, ApiError> {
        match self.hold(repository, digest).await? {
            Some(size) => Ok(answer::blob_head(digest, size)),
            None => Err(refusals::blob_unknown(repository, digest)),
        }
    }

    /// The size of a blob that the repository has, and will have for the better part of a lease.
    async fn hold(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<u64>, ApiError> {
        let failed = |error| refusals::catalog_failed(&error);
        let name = repository.as_str();
        let Some(row) = self.catalog.blob(name, digest).await.map_err(failed)? else {
            return Ok(None);
        };
        if is_due(row.lease_until_ms, self.clock.now_ms(), self.lease_ms) {
            let until = self.lease_until();
            if !self.catalog.renew_lease(name, digest, until).await.map_err(failed)? {
                return Ok(None);
            }
        }
        self.store.stat(digest).await.map_err(|error| refusals::store_failed(&error))
    }

    /// Refuses unless the repository has the blob: knowing a digest is not a right to its bytes.
    async fn check_link(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<(), ApiError> {
        if self.known.has_link(repository, digest) {
            return Ok(());
        }
        let ticket = self.known.link_ticket();
        let row = self.catalog.blob(repository.as_str(), digest).await;
        if row.map_err(|error| refusals::catalog_failed(&error))?.is_none() {
            return Err(refusals::blob_unknown(repository, digest));
        }
        self.known.note_link(ticket, repository, digest);
        Ok(())
    }

    /// Lists a checked blob under a lease, then publishes it; see the head of `mod.rs`.
    pub(super) async fn publish(
        &self,
        repository: &RepositoryName,
        verified: Verified,
    ) -> Result<(), ApiError> {
        let (name, digest) = (repository.as_str(), verified.digest());
        let until = self.lease_until();
        let listed = self.catalog.put_blob(name, Kind::Hosted, &digest, verified.size(), until);
        listed.await.map_err(|error| refusals::catalog_failed(&error))?;
        self.store.publish(verified).await.map_err(|error| refusals::store_failed(&error))
    }

    /// Makes a blob of another repository one of this one's too; false if it can't be had.
    pub(super) async fn mount(
        self: &Arc<Self>,
        repository: &RepositoryName,
        digest: &Digest,
        from: Option<&str>,
        mounts: &dyn MountSource,
    ) -> Result<bool, ApiError> {
        let mounted = self.hold(repository, digest).await?.is_some()
            || self.mount_hosted(repository, digest, from, mounts).await?
            || self.mount_cached(repository, digest, from, mounts).await?;
        if mounted {
            self.metrics.mounted_blobs.inc();
        }
        Ok(mounted)
    }

    async fn mount_hosted(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        from: Option<&str>,
        mounts: &dyn MountSource,
    ) -> Result<bool, ApiError> {
        let failed = |error| refusals::catalog_failed(&error);
        let source = match from {
            Some(from) => Some(from.to_owned()),
            None => {
                let found = self.catalog.find_blob(digest).await.map_err(failed)?;
                found.map(|(source, _)| source)
            }
        };
        let Some(source) = source.filter(|source| mounts.may_pull(source)) else {
            return Ok(false);
        };
        let until = self.lease_until();
        let mounted = self.catalog.mount(&source, repository.as_str(), digest, until).await;
        if mounted.map_err(failed)?.is_none() {
            return Ok(false);
        }
        // The source may be listed without bytes, by a push that is not over. The new listing
        // then waits for a push too, or for the collector.
        let size = self.store.stat(digest).await.map_err(|error| refusals::store_failed(&error))?;
        Ok(size.is_some())
    }

    /// Copies the blob out of the cache of an upstream's repository.
    async fn mount_cached(
        self: &Arc<Self>,
        repository: &RepositoryName,
        digest: &Digest,
        from: Option<&str>,
        mounts: &dyn MountSource,
    ) -> Result<bool, ApiError> {
        let Some(from) = from.filter(|from| mounts.may_pull(from)) else { return Ok(false) };
        let Some(Mountable { size, body }) = mounts.cached(from, digest).await else {
            return Ok(false);
        };
        let (this, repository, digest) = (self.clone(), repository.clone(), *digest);
        let copy = async move {
            let created = this.spool.create(digest.algorithm(), Some(size)).await;
            let mut ingest = created.map_err(|error| refusals::store_failed(&error))?;
            if write_all(&mut ingest, body, Some(size)).await.is_err() {
                return Ok(false);
            }
            match ingest.finish(&digest, Some(size)).await {
                Ok(verified) => this.publish(&repository, verified).await.map(|()| true),
                Err(error) => {
                    tracing::warn!(%digest, %error, "cached blob could not be mounted");
                    Ok(false)
                }
            }
        };
        self.detached("mount", copy).await
    }

    /// `DELETE` of a blob.
    pub(super) async fn delete_blob(
        self: &Arc<Self>,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Response, ApiError> {
        let (this, repository, digest) = (self.clone(), repository.clone(), *digest);
        let change = async move {
            let removed = this.catalog.unlink_blob(repository.as_str(), &digest).await;
            let removed = removed.map_err(|error| refusals::catalog_failed(&error))?;
            this.known.forget_link(&repository, &digest);
            if removed { Ok(accepted()) } else { Err(refusals::blob_unknown(&repository, &digest)) }
        };
        self.detached("delete", change).await
    }
}

/// 202 without a body.
pub(super) fn accepted() -> Response {
    respond(StatusCode::ACCEPTED, http::HeaderMap::new(), Body::empty())
}

/// Whether a lease should be renewed: a third of it has passed, so that most questions about a
/// blob cost no write.
fn is_due(until_ms: i64, now_ms: i64, lease_ms: i64) -> bool {
    until_ms.saturating_sub(now_ms) < lease_ms / 3 * 2
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn leases_are_renewed_after_a_third() {
        let check = |until, now, due| assert_eq!(is_due(until, now, 900), due, "{until} at {now}");
        check(900, 0, false);
        check(900, 300, false);
        check(900, 301, true);
        check(900, 2000, true);
        check(0, 0, true);
        check(i64::MAX, 0, false);
    }
}
