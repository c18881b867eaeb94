//! Manifests of upstream registries: tags to digests, digests to bytes.

use std::sync::Arc;

use http::Method;
use kuboard_catalog::{Kind, ManifestRow};
use kuboard_oci::{Digest, Manifest, Reference, Tag};
use kuboard_registry::client::{Fetched, Head, UpstreamError, UpstreamErrorKind};
use kuboard_registry::server::ApiError;
use kuboard_rt::http::Response;

use super::{
    Origin, Proxied,
    answers::{self, Missing},
    freshness::{self, Plan},
    tags::Known,
};
use crate::{manifest_cache::CachedManifest, observer::ManifestSeen};

/// After a question that got no answer, the next one for the same tag waits so long.
const PAUSE_AFTER_TROUBLE_MS: i64 = 10_000;

/// How long a client with a cached tag at hand waits for a slow upstream.
const PATIENCE: std::time::Duration = std::time::Duration::from_secs(5);

/// A tag's question and its answer, shared by all who ask at once.
#[derive(Clone)]
pub(super) struct TagAnswer {
    digest: Digest,
    /// What the upstream's HEAD said, when the bytes were not fetched.
    head: Option<Head>,
}

pub(super) type TagResult = Result<TagAnswer, Arc<UpstreamError>>;
pub(super) type ManifestResult = Result<Arc<CachedManifest>, Arc<UpstreamError>>;

/// How a request came to its manifest, for counters and headers.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Outcome {
    Hit,
    Miss,
    Stale(&'static str),
}

impl Outcome {
    fn label(self) -> &'static str {
        match self {
            Self::Hit => "hit",
            Self::Miss => "miss",
            Self::Stale(_) => "stale",
        }
    }
}

/// A tag as it will be served.
struct Resolved {
    digest: Digest,
    head: Option<Head>,
    outcome: Outcome,
}

impl Proxied {
    /// Answers GET and HEAD of a manifest.
    pub(super) async fn manifest(
        &self,
        origin: &Origin,
        reference: &Reference,
        method: &Method,
        if_none_match: Option<&http::HeaderValue>,
    ) -> Result<Response, ApiError> {
        self.metrics.requests.with_label_values(&["manifest"]).inc();
        let answered = self.find_manifest(origin, reference, method).await;
        let counted = match &answered {
            Ok((_, outcome)) => outcome.label(),
            Err(error) => answers::result_label(error),
        };
        self.metrics.pulls.with_label_values(&[origin.registry(), "manifest", counted]).inc();
        let (found, outcome) = answered?;
        let side = if outcome == Outcome::Miss { &self.metrics.misses } else { &self.metrics.hits };
        side.with_label_values(&["manifest"]).inc();
        let mut response = match found {
            Found::Manifest(manifest) => {
                self.metrics
                    .pushed_bytes
                    .with_label_values(&["manifest"])
                    .inc_by(manifest.bytes.len() as u64);
                if method == Method::GET {
                    self.observers.tell(|| ManifestSeen {
                        registry: origin.registry().to_owned(),
                        repository: origin.upstream_repository.to_string(),
                        tag: reference.tag().map(ToString::to_string),
                        digest: manifest.digest,
                        media_type: manifest.media_type.clone(),
                        bytes: manifest.bytes.clone(),
                    });
                }
                crate::answer::manifest_response(&manifest, method, if_none_match)
            }
            Found::Head(digest, head) => answers::head_response(&digest, &head)?,
        };
        if let Outcome::Stale(reason) = outcome {
            self.metrics.stale_served.with_label_values(&[reason]).inc();
            answers::warn_stale(&mut response, reason);
        }
        answers::mark_cache(&mut response, outcome.label());
        Ok(response)
    }

    async fn find_manifest(
        &self,
        origin: &Origin,
        reference: &Reference,
        method: &Method,
    ) -> Result<(Found, Outcome), ApiError> {
        match reference {
            Reference::Digest(digest) => {
                if let Some(manifest) = self.manifest_at_hand(origin, digest).await? {
                    return Ok((Found::Manifest(manifest), Outcome::Hit));
                }
                let manifest = self.fetch_by_digest(origin, digest).await?;
                Ok((Found::Manifest(manifest), Outcome::Miss))
            }
            Reference::Tag(tag) => {
                let resolved = self.resolve(origin, tag, method == Method::HEAD).await?;
                if let Some(manifest) = self.manifest_at_hand(origin, &resolved.digest).await? {
                    return Ok((Found::Manifest(manifest), resolved.outcome));
                }
                if method == Method::HEAD
                    && let Some(head) = resolved.head
                {
                    return Ok((Found::Head(resolved.digest, head), resolved.outcome));
                }
                let manifest = self.fetch_by_digest(origin, &resolved.digest).await?;
                Ok((Found::Manifest(manifest), Outcome::Miss))
            }
        }
    }

    /// The digest of a tag, from memory while it may be believed, else from the upstream.
    async fn resolve(
        &self,
        origin: &Origin,
        tag: &Tag,
        head_only: bool,
    ) -> Result<Resolved, ApiError> {
        let now = self.now();
        let Some(known) = self.known_tag(origin, tag).await? else {
            if self.negative.holds(&origin.key(tag.as_str()), now) {
                return Err(answers::missing(Missing::Manifest, origin, "asked moments ago"));
            }
            let answer = self.ask_tag(origin, tag, head_only).await;
            return match answer {
                Ok(answer) => Ok(Resolved {
                    digest: answer.digest,
                    head: answer.head,
                    outcome: Outcome::Miss,
                }),
                Err(error) => Err(answers::upstream_error(Missing::Manifest, origin, &error)),
            };
        };
        let serve = |outcome| Resolved { digest: known.digest, head: None, outcome };
        let resting = known.trouble.filter(|(_, asked_ms)| now - asked_ms < PAUSE_AFTER_TROUBLE_MS);
        if let Some((reason, _)) = resting {
            return Ok(serve(Outcome::Stale(reason)));
        }
        let age = std::time::Duration::from_millis((now - known.confirmed_ms).max(0) as u64);
        let saving = freshness::is_saving(origin.member.upstream.rate_limit());
        match freshness::plan(age, origin.tag_times(tag), saving) {
            Plan::Serve => Ok(serve(Outcome::Hit)),
            Plan::ServeAndRevalidate => {
                self.start_asking(origin, tag);
                let outcome = known.trouble.map_or(Outcome::Hit, |(why, _)| Outcome::Stale(why));
                Ok(serve(outcome))
            }
            Plan::AskFirst => {
                match tokio::time::timeout(PATIENCE, self.ask_tag(origin, tag, true)).await {
                    Ok(Ok(answer)) => Ok(Resolved {
                        digest: answer.digest,
                        head: answer.head,
                        outcome: Outcome::Hit,
                    }),
                    Ok(Err(error)) if freshness::may_stand_in(error.kind) => {
                        Ok(serve(Outcome::Stale(freshness::stale_reason(error.kind))))
                    }
                    Ok(Err(error)) => {
                        Err(answers::upstream_error(Missing::Manifest, origin, &error))
                    }
                    Err(_) => Ok(serve(Outcome::Stale("timeout"))),
                }
            }
        }
    }

    /// What memory, or else the catalogue, knows of a tag.
    async fn known_tag(&self, origin: &Origin, tag: &Tag) -> Result<Option<Known>, ApiError> {
        if let Some(known) = self.tags.get(&origin.repository, tag) {
            return Ok(Some(known));
        }
        let row = self
            .catalog
            .resolve(&origin.repository, tag)
            .await
            .map_err(|error| answers::catalog_error(&error))?;
        let Some(row) = row else { return Ok(None) };
        let age_ms = (self.clock.now_ms() - row.checked_ms).max(0);
        let known = Known { digest: row.digest, confirmed_ms: self.now() - age_ms, trouble: None };
        self.tags.set(&origin.repository, tag, known);
        Ok(Some(known))
    }

    /// Asks the upstream for a tag, together with whoever asks the same at the moment.
    async fn ask_tag(&self, origin: &Origin, tag: &Tag, head_only: bool) -> TagResult {
        let (this, owned, tag) = (self.arc(), origin.clone(), tag.clone());
        let key = origin.key(tag.as_str());
        let answer = self
            .tag_flights
            .ask(&key, || async move { this.question(&owned, &tag, head_only).await });
        answer.await.unwrap_or_else(|| Err(Arc::new(stopping(origin))))
    }

    fn start_asking(&self, origin: &Origin, tag: &Tag) {
        let (this, owned, tag) = (self.arc(), origin.clone(), tag.clone());
        let key = origin.key(tag.as_str());
        drop(
            self.tag_flights.board(&key, || async move { this.question(&owned, &tag, true).await }),
        );
    }

    /// The question itself: HEAD where it may save a counted GET, and the memory of its outcome.
    async fn question(&self, origin: &Origin, tag: &Tag, head_only: bool) -> TagResult {
        let known = self.tags.get(&origin.repository, tag);
        let answer = self.head_or_get(origin, tag, known, head_only).await;
        let now = self.now();
        match &answer {
            Ok(answer) => {
                let fresh = Known { digest: answer.digest, confirmed_ms: now, trouble: None };
                self.tags.set(&origin.repository, tag, fresh);
                self.negative.forget(&origin.key(tag.as_str()));
                self.remember_tag(origin, tag);
            }
            Err(error) if error.kind == UpstreamErrorKind::NotFound => {
                self.tags.forget(&origin.repository, tag);
                let until = now + origin.negative_ttl_ms();
                self.negative.note(&origin.key(tag.as_str()), until, now);
                if known.is_some()
                    && let Err(error) = self.catalog.delete_tag(&origin.repository, tag).await
                {
                    tracing::warn!(repository = %origin.repository, %tag, %error, "tag not forgotten");
                }
            }
            Err(error) => {
                let reason = freshness::stale_reason(error.kind);
                tracing::warn!(repository = %origin.repository, %tag, %error, reason,
                    "tag not confirmed by its upstream");
                if let Some(known) = known {
                    let trouble = Some((reason, now));
                    self.tags.set(&origin.repository, tag, Known { trouble, ..known });
                }
            }
        }
        answer
    }

    async fn head_or_get(
        &self,
        origin: &Origin,
        tag: &Tag,
        known: Option<Known>,
        head_only: bool,
    ) -> TagResult {
        let reference = Reference::Tag(tag.clone());
        let upstream = &origin.member.upstream;
        if head_only || known.is_some() || upstream.rate_limit().is_some() {
            let head = upstream
                .head_manifest(&origin.upstream_repository, &reference)
                .await
                .map_err(Arc::new)?;
            if let Some(digest) = head.digest {
                self.have_before_moving(origin, known, &digest).await?;
                return Ok(TagAnswer { digest, head: Some(head) });
            }
        }
        let fetched = upstream
            .get_manifest(&origin.upstream_repository, &reference)
            .await
            .map_err(Arc::new)?;
        let manifest = self.keep(origin, fetched).await?;
        Ok(TagAnswer { digest: manifest.digest, head: None })
    }

    /// A tag that moved is moved here only with the manifest it moved to at hand: until then the
    /// old image, which is whole, can still be served.
    async fn have_before_moving(
        &self,
        origin: &Origin,
        known: Option<Known>,
        digest: &Digest,
    ) -> Result<(), Arc<UpstreamError>> {
        let moved = known.is_some_and(|known| known.digest != *digest);
        if !moved || matches!(self.manifest_at_hand(origin, digest).await, Ok(Some(_))) {
            return Ok(());
        }
        let reference = Reference::Digest(*digest);
        let upstream = &origin.member.upstream;
        match upstream.get_manifest(&origin.upstream_repository, &reference).await {
            Ok(fetched) => self.keep(origin, fetched).await.map(|_| ()),
            // A mirror that lags behind is no word that the tag is gone.
            Err(mut error) => {
                if error.kind == UpstreamErrorKind::NotFound {
                    error.kind = UpstreamErrorKind::Unavailable;
                }
                Err(Arc::new(error))
            }
        }
    }

    /// Writes a tag that moved, or was never seen, to the catalogue; nobody waits for it. What is
    /// written is what memory says at that time, so that of two writes the later word stays.
    fn remember_tag(&self, origin: &Origin, tag: &Tag) {
        let (this, origin, tag) = (self.arc(), origin.clone(), tag.clone());
        self.tasks.spawn("tag", async move {
            let _turn = this.tag_writes.lock().await;
            let Some(known) = this.tags.get(&origin.repository, &tag) else { return };
            let now_ms = this.clock.now_ms();
            let repository = &origin.repository;
            let stored = this
                .catalog
                .set_tag(repository, Kind::Cached, &tag, &known.digest, now_ms, None)
                .await;
            if let Err(error) = stored {
                tracing::warn!(%repository, %tag, %error, "tag not remembered");
            }
        });
    }

    /// A manifest that this repository is known to hold, from memory or from the cache.
    async fn manifest_at_hand(
        &self,
        origin: &Origin,
        digest: &Digest,
    ) -> Result<Option<Arc<CachedManifest>>, ApiError> {
        if let Some(manifest) = self.manifests.get(&origin.repository, digest) {
            return Ok(Some(manifest));
        }
        let ticket = self.manifests.ticket();
        let meta = self
            .catalog
            .manifest(&origin.repository, digest)
            .await
            .map_err(|error| answers::catalog_error(&error))?;
        let Some(meta) = meta else { return Ok(None) };
        let leased = match self.cache.open_blob(digest).await {
            Ok(Some(leased)) => leased,
            Ok(None) => return Ok(None),
            Err(error) => {
                tracing::warn!(%digest, %error, "cached manifest not readable; asking the upstream");
                return Ok(None);
            }
        };
        match leased.bytes(kuboard_oci::MAX_MANIFEST_BYTES).await {
            Ok(bytes) => {
                let manifest = CachedManifest::new(*digest, meta.media_type, bytes);
                let held = &self.manifests;
                Ok(Some(held.insert_unless_overtaken(ticket, &origin.repository, manifest)))
            }
            Err(error) => {
                tracing::warn!(%digest, %error, "cached manifest not readable; asking the upstream");
                Ok(None)
            }
        }
    }

    async fn fetch_by_digest(
        &self,
        origin: &Origin,
        digest: &Digest,
    ) -> Result<Arc<CachedManifest>, ApiError> {
        let text = digest.to_string();
        let key = origin.key(&text);
        let now = self.now();
        if self.negative.holds(&key, now) {
            return Err(answers::missing(Missing::Manifest, origin, "asked moments ago"));
        }
        let (this, owned, digest) = (self.arc(), origin.clone(), *digest);
        let answer = self.manifest_flights.ask(&key, || async move {
            let origin = owned;
            let reference = Reference::Digest(digest);
            let fetched =
                origin.member.upstream.get_manifest(&origin.upstream_repository, &reference).await;
            match fetched {
                Ok(fetched) => this.keep(&origin, fetched).await,
                Err(error) => Err(Arc::new(error)),
            }
        });
        let answer = answer.await.unwrap_or_else(|| Err(Arc::new(stopping(origin))));
        answer.map_err(|error| {
            if error.kind == UpstreamErrorKind::NotFound {
                self.negative.note(&key, now + origin.negative_ttl_ms(), now);
            }
            answers::upstream_error(Missing::Manifest, origin, &error)
        })
    }

    /// Stores a fetched manifest: bytes in the cache, what it refers to in the catalogue.
    /// Failing to store is logged, not answered: the client gets its manifest.
    async fn keep(&self, origin: &Origin, fetched: Fetched) -> ManifestResult {
        let ticket = self.manifests.ticket();
        self.metrics.pulled_manifest_bytes.inc_by(fetched.bytes.len() as u64);
        let parsed =
            Manifest::parse(&fetched.bytes, Some(&fetched.media_type)).map_err(|error| {
                Arc::new(UpstreamError::new(
                    UpstreamErrorKind::Invalid,
                    origin.registry(),
                    format!("the upstream's manifest can't be read: {error}"),
                ))
            })?;
        let row = ManifestRow {
            repository: origin.repository.to_string(),
            kind: Kind::Cached,
            digest: fetched.digest,
            media_type: fetched.media_type.clone(),
            size: fetched.bytes.len() as u64,
            artifact_type: parsed.referrer_type().map(str::to_owned),
            subject: parsed.subject.as_ref().map(|subject| subject.digest),
            blobs: parsed.blobs().map(|blob| blob.digest).collect(),
            children: parsed.children().map(|child| child.digest).collect(),
            annotations: parsed.annotations.clone(),
            pushed_at_ms: self.clock.now_ms(),
        };
        let manifest =
            CachedManifest::new(fetched.digest, fetched.media_type.clone(), fetched.bytes.clone());
        let manifest = self.manifests.insert_unless_overtaken(ticket, &origin.repository, manifest);
        // Nobody waits for the disk: a cache that forgets on a crash asks again.
        let this = self.arc();
        self.tasks.spawn("manifest", async move { this.persist(&row, &fetched).await });
        Ok(manifest)
    }

    async fn persist(&self, row: &ManifestRow, fetched: &Fetched) {
        let (stored, listed) =
            tokio::join!(self.store_manifest(fetched), self.catalog.put_manifest(row, &[]));
        if let Err(error) = stored {
            tracing::warn!(digest = %fetched.digest, %error, "manifest not cached");
        }
        if let Err(error) = listed {
            tracing::warn!(digest = %fetched.digest, %error, "manifest not catalogued");
        }
    }

    async fn store_manifest(&self, fetched: &Fetched) -> Result<(), kuboard_store::Error> {
        let size = fetched.bytes.len() as u64;
        if self.cache.stat(&fetched.digest).await.is_some() {
            return Ok(());
        }
        let Some(mut reservation) = self.cache.reserve(size) else { return Ok(()) };
        reservation.ready().await;
        let mut ingest = self.spool.create(fetched.digest.algorithm(), Some(size)).await?;
        ingest.write(fetched.bytes.clone()).await?;
        let verified = ingest.finish(&fetched.digest, Some(size)).await?;
        self.cache.insert(verified, reservation).await
    }
}

enum Found {
    Manifest(Arc<CachedManifest>),
    Head(Digest, Head),
}

fn stopping(origin: &Origin) -> UpstreamError {
    let kind = UpstreamErrorKind::Unavailable;
    UpstreamError::new(kind, origin.registry(), "the server is stopping")
}
