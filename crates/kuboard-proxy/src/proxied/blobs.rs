//! Blobs of upstream registries: from the cache, else from the one fill that all clients follow.

use http::{Method, StatusCode, header};
use kuboard_oci::{ByteRange, Digest};
use kuboard_registry::client::UpstreamErrorKind;
use kuboard_registry::server::ApiError;
use kuboard_rt::http::{Body, Response};

use super::{
    Origin, Proxied,
    answers::{self, Missing},
    fill::{Fill, Source},
    follow::{self, Start},
    freshness::{self, RangePlan},
};

/// What the client asked for of a blob.
pub(super) struct BlobRequest<'a> {
    pub(super) digest: &'a Digest,
    pub(super) method: &'a Method,
    pub(super) range: Option<&'a http::HeaderValue>,
}

impl Proxied {
    /// Answers GET and HEAD of a blob.
    pub(super) async fn blob(
        &self,
        origin: &Origin,
        request: &BlobRequest<'_>,
    ) -> Result<Response, ApiError> {
        self.metrics.requests.with_label_values(&["blob"]).inc();
        let answered = self.find_blob(origin, request).await;
        let counted = match &answered {
            Ok((_, hit)) => {
                if *hit {
                    "hit"
                } else {
                    "miss"
                }
            }
            Err(error) => answers::result_label(error),
        };
        self.metrics.pulls.with_label_values(&[origin.registry(), "blob", counted]).inc();
        let (mut response, hit) = answered?;
        let side = if hit { &self.metrics.hits } else { &self.metrics.misses };
        side.with_label_values(&["blob"]).inc();
        if request.method == Method::GET
            && let Some(length) = answers::content_length(&response)
        {
            self.metrics.pushed_bytes.with_label_values(&["blob"]).inc_by(length);
        }
        answers::mark_cache(&mut response, counted);
        Ok(response)
    }

    async fn find_blob(
        &self,
        origin: &Origin,
        request: &BlobRequest<'_>,
    ) -> Result<(Response, bool), ApiError> {
        let digest = request.digest;
        // A fill that ends between our look into the cache and our joining it sends us back once.
        for _ in 0..2 {
            match self.cache.open_blob(digest).await {
                Ok(Some(leased)) => {
                    self.prove_link(origin, digest).await?;
                    let response =
                        crate::answer::blob_response(leased, request.method, request.range)?;
                    return Ok((response, true));
                }
                Ok(None) => {}
                Err(error) => {
                    tracing::warn!(%digest, %error, "cached blob not readable; asking the upstream");
                    return Ok((relay(&origin.source(), request, origin).await?, false));
                }
            }
            if request.method == Method::HEAD {
                return Ok((self.blob_head(origin, digest).await?, false));
            }
            if let Some(response) = self.blob_miss(origin, request).await? {
                return Ok((response, false));
            }
        }
        Ok((relay(&origin.source(), request, origin).await?, false))
    }

    /// Proves that the repository holds the blob before another repository's copy is served:
    /// knowing a digest is not a right to its bytes.
    async fn prove_link(&self, origin: &Origin, digest: &Digest) -> Result<(), ApiError> {
        if self.links.holds(&origin.repository, digest) {
            return Ok(());
        }
        let linked = self
            .catalog
            .linked(&origin.repository, digest)
            .await
            .map_err(|error| answers::catalog_error(&error))?;
        if linked {
            self.links.note(&origin.repository, digest);
        } else {
            self.upstream_size(origin, digest).await?;
            self.note_link(origin, digest);
        }
        Ok(())
    }

    /// Remembers a proof, in memory at once; nobody waits for the catalogue.
    fn note_link(&self, origin: &Origin, digest: &Digest) {
        self.links.note(&origin.repository, digest);
        let (this, repository, digest) = (self.arc(), origin.repository.clone(), *digest);
        self.tasks.spawn("link", async move {
            if let Err(error) = this.catalog.link(&repository, &[digest]).await {
                tracing::warn!(%repository, %digest, %error, "link not remembered");
            }
        });
    }

    /// The size by the upstream's own HEAD; an answered HEAD proves that the repository holds it.
    async fn upstream_size(&self, origin: &Origin, digest: &Digest) -> Result<u64, ApiError> {
        let now = self.now();
        let key = origin.key(&format!("blob {digest}"));
        if self.negative.holds(&key, now) {
            return Err(answers::missing(Missing::Blob, origin, "asked moments ago"));
        }
        let head = origin.member.upstream.head_blob(&origin.upstream_repository, digest).await;
        head.map_err(|error| {
            if error.kind == UpstreamErrorKind::NotFound {
                self.negative.note(&key, now + origin.negative_ttl_ms(), now);
            }
            answers::upstream_error(Missing::Blob, origin, &error)
        })
    }

    async fn blob_head(&self, origin: &Origin, digest: &Digest) -> Result<Response, ApiError> {
        let size = self.upstream_size(origin, digest).await?;
        answers::blob_head(digest, size)
    }

    /// The answer from the fill; `None` if the cache has the blob meanwhile.
    async fn blob_miss(
        &self,
        origin: &Origin,
        request: &BlobRequest<'_>,
    ) -> Result<Option<Response>, ApiError> {
        let digest = request.digest;
        let key = origin.key(&format!("blob {digest}"));
        let now = self.now();
        if self.negative.holds(&key, now) {
            return Err(answers::missing(Missing::Blob, origin, "asked moments ago"));
        }
        let source = origin.source();
        let fill = self.fills.join(digest, &source);
        // Another repository's download: it proves nothing about ours, nor does its failure.
        let foreign = !fill.source.is_same(&source);
        if foreign {
            self.prove_link(origin, digest).await?;
        }
        match follow::start(&fill).await {
            Start::Follow { size } => {
                if !foreign && !self.links.holds(&origin.repository, digest) {
                    self.note_link(origin, digest);
                }
                self.follow(&fill, source, size, request).await.map(Some)
            }
            Start::Cached => Ok(None),
            Start::Aside => relay(&source, request, origin).await.map(Some),
            Start::Failed(_) if foreign => Ok(None),
            Start::Failed(error) => {
                if error.kind == UpstreamErrorKind::NotFound {
                    self.negative.note(&key, now + origin.negative_ttl_ms(), now);
                }
                Err(answers::upstream_error(Missing::Blob, origin, &error))
            }
        }
    }

    /// Answers from a fill under way: whole, or a range of it.
    async fn follow(
        &self,
        fill: &Fill,
        source: Source,
        size: Option<u64>,
        request: &BlobRequest<'_>,
    ) -> Result<Response, ApiError> {
        let Some(size) = size else {
            let body = Body::stream(follow::bytes(fill, source, 0, None));
            return answers::blob(request.digest, StatusCode::OK, None, body);
        };
        let Some(range) = crate::answer::wanted(request.range, size)? else {
            let body = Body::sized_stream(size, follow::bytes(fill, source, 0, Some(size)));
            return answers::blob(request.digest, StatusCode::OK, Some((0..size, size)), body);
        };
        let written = fill.written();
        let length = range.end - range.start;
        let body = match freshness::range_plan(range.start, written, fill.elapsed()) {
            RangePlan::Follow => Body::sized_stream(
                length,
                follow::bytes(fill, source, range.start, Some(range.end)),
            ),
            RangePlan::Relay => {
                let answer = source
                    .upstream
                    .get_blob(&source.repository, request.digest, range.start, Some(range.end - 1))
                    .await;
                match answer {
                    Ok(answer) => Body::sized_stream(
                        length,
                        follow::relay(answer, range.start, Some(range.end))
                            .map_err(|error| answers::bad_gateway(&error.to_string()))?,
                    ),
                    // No second road: wait for the fill to come by.
                    Err(_) => Body::sized_stream(
                        length,
                        follow::bytes(fill, source, range.start, Some(range.end)),
                    ),
                }
            }
        };
        answers::blob(request.digest, StatusCode::PARTIAL_CONTENT, Some((range, size)), body)
    }
}

/// Passes the upstream's bytes straight through, for content that can't be kept.
async fn relay(
    source: &Source,
    request: &BlobRequest<'_>,
    origin: &Origin,
) -> Result<Response, ApiError> {
    let failed = |error| answers::upstream_error(Missing::Blob, origin, &error);
    let broken = |error: std::io::Error| answers::bad_gateway(&error.to_string());
    let upstream = &source.upstream;
    let digest = request.digest;
    let asks_range = request
        .range
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| matches!(ByteRange::parse(value), Ok(Some(_))));
    if !asks_range {
        let answer =
            upstream.get_blob(&source.repository, digest, 0, None).await.map_err(failed)?;
        let total = answer.total;
        let bytes = follow::checked(follow::relay(answer, 0, total).map_err(broken)?, *digest);
        return match total {
            Some(size) => {
                let body = Body::sized_stream(size, bytes);
                answers::blob(digest, StatusCode::OK, Some((0..size, size)), body)
            }
            None => answers::blob(digest, StatusCode::OK, None, Body::stream(bytes)),
        };
    }
    let size = upstream.head_blob(&source.repository, digest).await.map_err(failed)?;
    let Some(range) = crate::answer::wanted(request.range, size)? else {
        return Err(answers::bad_gateway("the range could not be read twice"));
    };
    let answer = upstream
        .get_blob(&source.repository, digest, range.start, Some(range.end - 1))
        .await
        .map_err(failed)?;
    let bytes = follow::relay(answer, range.start, Some(range.end)).map_err(broken)?;
    let body = Body::sized_stream(range.end - range.start, bytes);
    answers::blob(digest, StatusCode::PARTIAL_CONTENT, Some((range, size)), body)
}

/// The header that carries a range request.
pub(super) const RANGE: header::HeaderName = header::RANGE;
