//! Content of upstream registries: local, else from the upstream, through one download that all
//! clients share.

mod answers;
mod blobs;
mod fill;
mod flights;
mod follow;
mod freshness;
mod gate;
mod links;
mod lists;
mod manifests;
mod members;
mod tags;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Weak};

use http::{HeaderMap, Method, header};
use kuboard_api::{UpstreamRule, Visibility};
use kuboard_catalog::Catalog;
use kuboard_oci::{Digest, RepositoryName, Tag};
use kuboard_registry::server::{ApiError, ErrorCode, Query, Route};
use kuboard_rt::{Clock, Tasks, http::Response};
use kuboard_store::{Cache, Spool};

pub(crate) use self::{answers::catalog_error, members::Members};
use self::{
    blobs::BlobRequest,
    fill::{FillParts, Fills, Source},
    flights::Flights,
    freshness::TagTimes,
    gate::Gate,
    links::Links,
    lists::ListMemory,
    manifests::{ManifestResult, TagResult},
    members::Member,
    tags::{Negative, TagMemory},
};
use crate::{
    hosted::Mountable, manifest_cache::ManifestCache, metrics::Metrics, observer::Observers,
};

/// One repository of one upstream, as a request names it.
#[derive(Clone)]
pub(crate) struct Origin {
    pub(crate) member: Arc<Member>,
    /// Its name at the upstream: `library/alpine`.
    pub(crate) upstream_repository: RepositoryName,
    /// Its name here: `docker.io/library/alpine`.
    pub(crate) repository: Arc<str>,
}

impl Origin {
    fn registry(&self) -> &str {
        &self.member.name
    }

    /// Whether callers are judged by the upstream instead of by our own users and keys.
    fn checks_callers_itself(&self) -> bool {
        self.settings().visibility == Visibility::Recheck
    }

    fn settings(&self) -> &UpstreamRule {
        &self.member.settings
    }

    fn negative_ttl_ms(&self) -> i64 {
        self.member.settings.negative_ttl.as_millis() as i64
    }

    fn tag_times(&self, tag: &Tag) -> TagTimes {
        let settings = self.settings();
        TagTimes {
            ttl: settings.tag_ttl,
            max_stale: settings.tag_ttl.saturating_add(settings.max_stale),
            immutable: settings.is_immutable(tag.as_str()),
        }
    }

    /// A key for what `reference` means in this repository; no name contains the separator.
    fn key(&self, reference: &str) -> String {
        format!("{}\u{0}{reference}", self.repository)
    }

    fn source(&self) -> Source {
        Source {
            upstream: self.member.upstream.clone(),
            repository: self.upstream_repository.clone(),
        }
    }
}

/// What [`Proxied::new`] is made of.
pub(crate) struct ProxiedParts {
    pub(crate) members: Members,
    pub(crate) cache: Arc<Cache>,
    pub(crate) spool: Spool,
    pub(crate) catalog: Catalog,
    pub(crate) manifests: Arc<ManifestCache>,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) tasks: Tasks,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) observers: Observers,
}

/// All upstream registries behind one cache.
pub(crate) struct Proxied {
    this: Weak<Self>,
    members: Members,
    cache: Arc<Cache>,
    spool: Spool,
    catalog: Catalog,
    manifests: Arc<ManifestCache>,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    fills: Arc<Fills>,
    tags: TagMemory,
    links: Links,
    negative: Negative,
    gate: Gate,
    lists: ListMemory,
    tasks: Tasks,
    observers: Observers,
    /// One tag is written at a time.
    tag_writes: tokio::sync::Mutex<()>,
    tag_flights: Flights<String, TagResult>,
    manifest_flights: Flights<String, ManifestResult>,
}

/// A read of upstream content.
pub(crate) struct ProxiedRequest<'a> {
    pub(crate) origin: &'a Origin,
    pub(crate) route: &'a Route,
    pub(crate) query: &'a Query,
    pub(crate) method: &'a Method,
    pub(crate) headers: &'a HeaderMap,
}

impl Proxied {
    pub(crate) fn new(parts: ProxiedParts) -> Arc<Self> {
        let ProxiedParts { members, cache, spool, catalog, manifests, .. } = parts;
        let ProxiedParts { clock, tasks, metrics, observers, .. } = parts;
        let fills = Fills::new(FillParts {
            cache: cache.clone(),
            spool: spool.clone(),
            tasks: tasks.clone(),
            metrics: metrics.clone(),
            observers: observers.blobs.clone(),
        });
        Arc::new_cyclic(|this| Self {
            this: this.clone(),
            members,
            cache,
            spool,
            catalog,
            manifests,
            clock,
            metrics,
            fills,
            tags: TagMemory::default(),
            links: Links::default(),
            negative: Negative::default(),
            gate: Gate::default(),
            lists: ListMemory::default(),
            tag_flights: Flights::new("tag question", tasks.clone()),
            manifest_flights: Flights::new("manifest question", tasks.clone()),
            tasks,
            observers,
            tag_writes: tokio::sync::Mutex::default(),
        })
    }

    #[expect(clippy::expect_used, reason = "a method runs only while a strong reference is held")]
    fn arc(&self) -> Arc<Self> {
        self.this.upgrade().expect("alive while it is borrowed")
    }

    /// Milliseconds on the monotonic clock.
    fn now(&self) -> i64 {
        self.clock.monotonic().as_millis() as i64
    }

    /// A cached blob that a repository here is known to hold, for a push that mounts it.
    pub(crate) async fn mountable(&self, repository: &str, digest: &Digest) -> Option<Mountable> {
        if !self.catalog.linked(repository, digest).await.ok()? {
            return None;
        }
        let leased = self.cache.open_blob(digest).await.ok()??;
        let size = leased.size;
        Some(Mountable { size, body: leased.body(0..size) })
    }

    /// Whether a blob is in the cache.
    pub(crate) async fn has_cached(&self, digest: &Digest) -> bool {
        self.cache.stat(digest).await.is_some()
    }

    /// Downloads under way.
    pub(crate) fn fills_running(&self) -> usize {
        self.fills.count()
    }

    /// Forgets what memory holds of a repository whose content was removed by hand.
    pub(crate) fn forget(&self, repository: &str) {
        self.tags.forget_repository(repository);
        self.links.forget_repository(repository);
        self.manifests.forget_repository(repository);
    }

    /// The repository of an upstream that a request means.
    pub(crate) fn origin(
        &self,
        rule: usize,
        registry: &str,
        repository: &RepositoryName,
    ) -> Result<Origin, ApiError> {
        let member = self.members.get(rule, registry)?;
        let name = format!("{}/{repository}", member.name);
        Ok(Origin { member, upstream_repository: repository.clone(), repository: name.into() })
    }

    /// Answers one request for content of an upstream.
    pub(crate) async fn handle(&self, request: ProxiedRequest<'_>) -> Result<Response, ApiError> {
        let origin = request.origin;
        if !matches!(*request.method, Method::GET | Method::HEAD) {
            return Err(read_only(origin));
        }
        if !origin.settings().admits(origin.upstream_repository.as_str()) {
            return Err(ApiError::new(
                ErrorCode::Denied,
                format!(
                    "the rule of {} does not allow {}; hint: see allow and deny in kuboard.toml",
                    origin.registry(),
                    origin.upstream_repository
                ),
            ));
        }
        self.admit(origin, &request).await?;
        match request.route {
            Route::Manifest(_, reference) => {
                let if_none_match = request.headers.get(header::IF_NONE_MATCH);
                self.manifest(origin, reference, request.method, if_none_match).await
            }
            Route::Blob(_, digest) => {
                let range = request.headers.get(blobs::RANGE);
                let blob = BlobRequest { digest, method: request.method, range };
                self.blob(origin, &blob).await
            }
            Route::Tags(spelled) => self.tags_list(origin, spelled, request.query).await,
            Route::Referrers(_, digest) => self.referrers(origin, digest, request.query).await,
            _ => Err(read_only(origin)),
        }
    }
}

fn read_only(origin: &Origin) -> ApiError {
    ApiError::new(
        ErrorCode::Unsupported,
        format!(
            "{} is a cache of {} and takes no writes; hint: push to the upstream, or to a \
             repository of this registry",
            origin.repository,
            origin.registry()
        ),
    )
}
