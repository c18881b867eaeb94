//! What the proxied half answers: upstream failures as the client should see them, and the
//! headers of content that is still on its way.

use std::ops::Range;

use http::{HeaderValue, StatusCode, header};
use kuboard_oci::Digest;
use kuboard_registry::client::{Head, UpstreamError, UpstreamErrorKind};
use kuboard_registry::server::{ApiError, ErrorCode};
use kuboard_rt::http::{Body, Response};

use super::Origin;

/// What was looked for, to name it in "not found".
#[derive(Clone, Copy)]
pub(super) enum Missing {
    Manifest,
    Blob,
    Repository,
}

impl Missing {
    fn code(self) -> ErrorCode {
        match self {
            Self::Manifest => ErrorCode::ManifestUnknown,
            Self::Blob => ErrorCode::BlobUnknown,
            Self::Repository => ErrorCode::NameUnknown,
        }
    }
}

/// The one place where an upstream's failure becomes our answer.
///
/// Only the upstream's own "not found" becomes 404: a client must never take a broken road for
/// missing content.
pub(super) fn upstream_error(missing: Missing, origin: &Origin, error: &UpstreamError) -> ApiError {
    let name = origin.registry();
    let told = |what: &str| format!("{what}: {error}");
    match error.kind {
        UpstreamErrorKind::NotFound => {
            ApiError::new(missing.code(), format!("{name} does not have it: {error}"))
        }
        UpstreamErrorKind::Unauthorized | UpstreamErrorKind::Denied => ApiError::new(
            ErrorCode::Denied,
            told(&format!(
                "{name} refuses us {}; hint: it may not exist, or [upstream.credentials] of {name} \
                 lack the right to it",
                origin.repository
            )),
        ),
        UpstreamErrorKind::Throttled { retry_after } => ApiError::new(
            ErrorCode::TooManyRequests,
            told(&format!("{name} throttles us; hint: give it credentials, or wait")),
        )
        .with_retry_after(retry_after.unwrap_or(std::time::Duration::from_secs(30))),
        UpstreamErrorKind::Timeout => ApiError::new(
            ErrorCode::Unavailable,
            told(&format!("{name} did not answer in time, and it is not cached")),
        )
        .with_retry_after(std::time::Duration::from_secs(5)),
        UpstreamErrorKind::Unavailable => {
            bad_gateway(&told(&format!("{name} can't be reached, and it is not cached")))
                .with_retry_after(std::time::Duration::from_secs(5))
        }
        UpstreamErrorKind::Invalid => {
            bad_gateway(&told(&format!("{name} sent something that can't be right")))
        }
        UpstreamErrorKind::Refused => {
            bad_gateway(&told(&format!("{name} asked for something our rules refuse")))
        }
    }
}

/// 502 with a reason.
pub(super) fn bad_gateway(message: &str) -> ApiError {
    ApiError::new(ErrorCode::Unknown, message).with_status(StatusCode::BAD_GATEWAY)
}

/// 404 from our own short memory.
pub(super) fn missing(missing: Missing, origin: &Origin, why: &str) -> ApiError {
    let message = format!("{} does not have it ({why})", origin.registry());
    ApiError::new(missing.code(), message)
}

/// The catalogue can't be asked: an outage of ours, never "not found".
pub(crate) fn catalog_error(error: &kuboard_catalog::Error) -> ApiError {
    tracing::error!(%error, "catalogue unavailable");
    ApiError::new(
        ErrorCode::Unavailable,
        "the catalogue can't be asked; hint: see /readyz and the log",
    )
    .with_retry_after(std::time::Duration::from_secs(5))
}

/// The `result` label of a refused pull.
pub(super) fn result_label(error: &ApiError) -> &'static str {
    if error.status == StatusCode::NOT_FOUND { "not_found" } else { "error" }
}

fn built(response: Result<Response, http::Error>) -> Result<Response, ApiError> {
    response.map_err(|error| {
        bad_gateway(&format!("the upstream's headers can't be passed on: {error}"))
    })
}

/// A blob's answer; `part` is (range, size) where the size is known.
pub(super) fn blob(
    digest: &Digest,
    status: StatusCode,
    part: Option<(Range<u64>, u64)>,
    body: Body,
) -> Result<Response, ApiError> {
    let mut builder = http::Response::builder()
        .status(status)
        .header(header::CONTENT_TYPE, "application/octet-stream")
        .header("docker-content-digest", digest.to_string())
        .header(header::ETAG, format!("\"{digest}\""))
        .header(header::ACCEPT_RANGES, "bytes");
    if let Some((range, size)) = part {
        builder = builder.header(header::CONTENT_LENGTH, range.end - range.start);
        if status == StatusCode::PARTIAL_CONTENT {
            let value = format!("bytes {}-{}/{size}", range.start, range.end - 1);
            builder = builder.header(header::CONTENT_RANGE, value);
        }
    }
    built(builder.body(body))
}

/// HEAD of a blob that is not here.
pub(super) fn blob_head(digest: &Digest, size: u64) -> Result<Response, ApiError> {
    blob(digest, StatusCode::OK, Some((0..size, size)), Body::empty())
}

/// HEAD of a manifest that is not here, as the upstream described it.
pub(super) fn head_response(digest: &Digest, head: &Head) -> Result<Response, ApiError> {
    let mut builder = http::Response::builder()
        .status(StatusCode::OK)
        .header("docker-content-digest", digest.to_string())
        .header(header::ETAG, format!("\"{digest}\""));
    if let Some(media_type) = &head.media_type {
        builder = builder.header(header::CONTENT_TYPE, media_type.as_str());
    }
    if let Some(size) = head.size {
        builder = builder.header(header::CONTENT_LENGTH, size);
    }
    built(builder.body(Body::empty()))
}

/// Says that the upstream did not confirm what is served.
pub(super) fn warn_stale(response: &mut Response, reason: &str) {
    let text = format!("110 kuboard \"response is stale: upstream {reason}\"");
    if let Ok(value) = HeaderValue::from_str(&text) {
        response.headers_mut().insert(header::WARNING, value);
    }
}

/// Says where the answer came from.
pub(super) fn mark_cache(response: &mut Response, outcome: &'static str) {
    response.headers_mut().insert("x-kuboard-cache", HeaderValue::from_static(outcome));
}

pub(super) fn content_length(response: &Response) -> Option<u64> {
    response.headers().get(header::CONTENT_LENGTH)?.to_str().ok()?.parse().ok()
}
