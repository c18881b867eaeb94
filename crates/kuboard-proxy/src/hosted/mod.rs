//! Repositories of our own: the whole distribution specification over a blob store and the
//! catalogue.
//!
//! Durability: content is first listed in the catalogue under a lease, then its bytes are
//! published, and only then is the client told. So whatever was acknowledged is listed and there,
//! and the collector (see `gc.rs`), which removes bytes in the transaction that takes away their
//! last listing, can't fall between the two.
//!
//! Writes run as tasks of their own: a client that hangs up leaves neither a half-done change nor
//! a memory that disagrees with the catalogue.

mod blobs;
mod gc;
mod known;
mod manifests;
mod metrics;
mod referrers;
mod refusals;
mod sessions;
mod tags;
#[cfg(test)]
mod tests;
mod uploads;

use std::{sync::Arc, time::Duration};

use http::Method;
use kuboard_catalog::Catalog;
use kuboard_oci::Digest;
use kuboard_registry::server::{ApiError, Query, Route};
use kuboard_rt::{
    BoxFuture, Clock, Tasks,
    http::{Body, Request, Response},
};
use kuboard_store::{BlobStore, Spool};

pub(crate) use self::metrics::HostedMetrics;
use self::{known::Known, sessions::Sessions};
use crate::{manifest_cache::ManifestCache, observer::Observers};

/// What [`Hosted::new`] is made of.
pub(crate) struct HostedParts {
    /// Holds hosted content only; nothing else may remove from it.
    pub(crate) store: Arc<dyn BlobStore>,
    /// On the file system of the store, if that is a folder.
    pub(crate) spool: Spool,
    pub(crate) catalog: Catalog,
    /// May be shared with the proxied half.
    pub(crate) manifests: Arc<ManifestCache>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) tasks: Tasks,
    /// How long content that no manifest refers to is kept after it was last pushed or asked for.
    pub(crate) lease: Duration,
    /// How long an unfinished upload is kept after its last byte.
    pub(crate) upload_ttl: Duration,
    /// Whether this process alone writes the catalogue, so that it may remember what it read.
    pub(crate) exclusive: bool,
    pub(crate) observers: Observers,
    pub(crate) metrics: HostedMetrics,
}

/// Where blobs to mount may come from, as the caller at hand sees it.
pub(crate) trait MountSource: Send + Sync {
    /// Whether the caller may pull from this repository.
    fn may_pull(&self, repository: &str) -> bool;

    /// The blob, if it is cached for this repository of an upstream.
    fn cached<'a>(
        &'a self,
        repository: &'a str,
        digest: &'a Digest,
    ) -> BoxFuture<'a, Option<Mountable>>;
}

/// A cached blob that is to be copied into a hosted repository.
pub(crate) struct Mountable {
    /// Its length in bytes.
    pub(crate) size: u64,
    /// All of it. The bytes are checked again on their way.
    pub(crate) body: Body,
}

/// The hosted half of the registry.
pub(crate) struct Hosted {
    store: Arc<dyn BlobStore>,
    spool: Spool,
    catalog: Catalog,
    manifests: Arc<ManifestCache>,
    clock: Arc<dyn Clock>,
    tasks: Tasks,
    lease_ms: i64,
    upload_ttl_ms: i64,
    exclusive: bool,
    observers: Observers,
    metrics: HostedMetrics,
    known: Known,
    sessions: Arc<Sessions>,
}

impl Hosted {
    pub(crate) fn new(parts: HostedParts) -> Arc<Self> {
        Arc::new(Self {
            sessions: Sessions::new(parts.spool.clone()),
            known: Known::new(parts.exclusive),
            store: parts.store,
            spool: parts.spool,
            catalog: parts.catalog,
            manifests: parts.manifests,
            clock: parts.clock,
            tasks: parts.tasks,
            lease_ms: millis(parts.lease),
            upload_ttl_ms: millis(parts.upload_ttl),
            exclusive: parts.exclusive,
            observers: parts.observers,
            metrics: parts.metrics,
        })
    }

    /// Answers a request whose caller may do what it asks for.
    pub(crate) async fn handle(
        self: &Arc<Self>,
        route: &Route,
        query: &Query,
        request: Request,
        mounts: &dyn MountSource,
    ) -> Result<Response, ApiError> {
        let method = request.method().clone();
        let reads = matches!(method, Method::GET | Method::HEAD);
        match (route, &method) {
            (Route::Manifest(name, reference), _) if reads => {
                let answer = self.get_manifest(name, reference, &request).await;
                self.metrics.manifest_pulls.count(&answer);
                answer
            }
            (Route::Blob(name, digest), _) if reads => {
                let answer = self.get_blob(name, digest, &request).await;
                self.metrics.blob_pulls.count(&answer);
                answer
            }
            (Route::Tags(name), _) if reads => self.list_tags(name, query).await,
            (Route::Referrers(name, subject), _) if reads => {
                self.list_referrers(name, subject, query).await
            }
            (Route::Upload(name, id), _) if reads => self.upload_status(name, id).await,
            (Route::Manifest(name, reference), &Method::PUT) => {
                self.put_manifest(name, reference, query, request).await
            }
            (Route::Manifest(name, reference), &Method::DELETE) => {
                self.delete_manifest(name, reference).await
            }
            (Route::Blob(name, digest), &Method::DELETE) => self.delete_blob(name, digest).await,
            (Route::Uploads(name), &Method::POST) => {
                self.begin_upload(name, query, request, mounts).await
            }
            (Route::Upload(name, id), &Method::PATCH) => self.go_on(name, id, request).await,
            (Route::Upload(name, id), &Method::PUT) => {
                self.finish_upload(name, id, query, request).await
            }
            (Route::Upload(name, id), &Method::DELETE) => self.cancel_upload(name, id).await,
            (Route::Manifest(..), _) => Err(not_allowed(&method, "GET, HEAD, PUT, DELETE")),
            (Route::Blob(..), _) => Err(not_allowed(&method, "GET, HEAD, DELETE")),
            (Route::Uploads(_), _) => Err(not_allowed(&method, "POST")),
            (Route::Upload(..), _) => Err(not_allowed(&method, "GET, PATCH, PUT, DELETE")),
            (Route::Tags(_) | Route::Referrers(..), _) => Err(not_allowed(&method, "GET, HEAD")),
            (Route::Base | Route::Catalog | Route::Token, _) => Err(ApiError::no_endpoint()),
        }
    }

    /// Runs a change to its end, whatever becomes of the client that asked for it.
    async fn detached<T: Send + 'static>(
        self: &Arc<Self>,
        name: &'static str,
        change: impl Future<Output = Result<T, ApiError>> + Send + 'static,
    ) -> Result<T, ApiError> {
        let (tell, told) = tokio::sync::oneshot::channel();
        self.tasks.spawn(name, async move {
            // Nobody listens any more if the client is gone.
            let _ = tell.send(change.await);
        });
        told.await.unwrap_or_else(|_| Err(refusals::stopping()))
    }

    fn lease_until(&self) -> i64 {
        self.clock.now_ms().saturating_add(self.lease_ms)
    }
}

fn not_allowed(method: &Method, allowed: &'static str) -> ApiError {
    refusals::method_not_allowed(method, allowed)
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}
