//! What the hosted half refuses, each with its code of the distribution specification. The one
//! place where its errors become answers.

use std::{error::Error, fmt::Display, io, time::Duration};

use http::{HeaderName, Method, StatusCode, header};
use kuboard_oci::{Digest, ManifestError, Reference, RepositoryName};
use kuboard_registry::server::{ApiError, ErrorCode};
use kuboard_store::ErrorKind;
use serde_json::json;

/// The header that says which manifest a pushed one is about.
pub(super) const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
/// The header that repeats each tag a push has set.
pub(super) const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");
/// The header that says which filters a list has been through.
pub(super) const OCI_FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");
/// The header that repeats an upload's id.
pub(super) const DOCKER_UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");

/// How long a client should wait before it asks again for what we failed to do.
const PAUSE: Duration = Duration::from_secs(5);
/// Most digests that an answer lists.
const MAX_LISTED: usize = 100;

pub(super) fn blob_unknown(repository: &RepositoryName, digest: &Digest) -> ApiError {
    ApiError::new(ErrorCode::BlobUnknown, format!("{repository} has no such blob"))
        .with_detail(json!({ "digest": digest }))
}

pub(super) fn manifest_unknown(repository: &RepositoryName, reference: &Reference) -> ApiError {
    let message = format!("{repository} has no manifest {reference}");
    ApiError::new(ErrorCode::ManifestUnknown, message)
}

pub(super) fn name_unknown(repository: &RepositoryName) -> ApiError {
    let message = format!("there is no repository {repository}; hint: a push creates it");
    ApiError::new(ErrorCode::NameUnknown, message).with_detail(json!({ "name": repository }))
}

/// The repository lacks what a manifest points at. The specification has 404 for it.
pub(super) fn references_unknown(missing: &[Digest]) -> ApiError {
    let message = format!(
        "the manifest points at {} blobs or manifests that the repository does not have; \
         hint: push them first",
        missing.len()
    );
    let listed: Vec<_> =
        missing.iter().take(MAX_LISTED).map(|digest| json!({ "digest": digest })).collect();
    ApiError::new(ErrorCode::ManifestBlobUnknown, message)
        .with_status(StatusCode::NOT_FOUND)
        .with_detail(json!(listed))
}

pub(super) fn manifest_invalid(error: &ManifestError) -> ApiError {
    let refusal = ApiError::new(ErrorCode::ManifestInvalid, error.to_string());
    match error {
        ManifestError::TooLarge { .. } => refusal.with_status(StatusCode::PAYLOAD_TOO_LARGE),
        _ => refusal,
    }
}

pub(super) fn tag_invalid(why: impl Display) -> ApiError {
    ApiError::new(ErrorCode::TagInvalid, why.to_string())
}

pub(super) fn too_many_tags(max: usize) -> ApiError {
    let message = format!("a push sets at most {max} tags; hint: push again with the others");
    ApiError::new(ErrorCode::TagInvalid, message).with_status(StatusCode::URI_TOO_LONG)
}

pub(super) fn digest_invalid(why: impl Display) -> ApiError {
    ApiError::new(ErrorCode::DigestInvalid, why.to_string())
}

/// The bytes are not those of the digest.
pub(super) fn digest_mismatch(expected: &Digest, actual: &Digest) -> ApiError {
    digest_invalid("the content does not have the digest that was given; hint: send it again")
        .with_detail(json!({ "expected": expected, "actual": actual }))
}

/// More or fewer bytes came than were announced.
pub(super) fn size_invalid(expected: u64, actual: u64) -> ApiError {
    let message = format!("{expected} bytes were announced and {actual} came");
    ApiError::new(ErrorCode::SizeInvalid, message)
        .with_detail(json!({ "expected": expected, "actual": actual }))
}

/// The client broke off, or was too slow, while it sent a body.
pub(super) fn broken_body(error: &io::Error, received: u64) -> ApiError {
    let message = format!("the body ended after {received} bytes: {error}");
    let refusal = ApiError::new(ErrorCode::SizeInvalid, message);
    match error.kind() {
        io::ErrorKind::TimedOut => refusal.with_status(StatusCode::REQUEST_TIMEOUT),
        _ => refusal,
    }
}

pub(super) fn upload_unknown(repository: &RepositoryName) -> ApiError {
    let message = format!(
        "{repository} has no such upload: it never was, is complete, was cancelled or is too old; \
         hint: begin a new one"
    );
    ApiError::new(ErrorCode::BlobUploadUnknown, message)
}

pub(super) fn upload_invalid(why: impl Display) -> ApiError {
    ApiError::new(ErrorCode::BlobUploadInvalid, why.to_string())
}

/// Another request is writing to the upload.
pub(super) fn upload_busy() -> ApiError {
    let message = "another request is writing to this upload; hint: wait for it, then ask for \
                   the upload's range";
    upload_invalid(message)
        .with_status(StatusCode::CONFLICT)
        .with_retry_after(Duration::from_secs(1))
}

/// A chunk that does not begin where the upload stands.
pub(super) fn out_of_order(location: &str, range: &str, written: u64) -> ApiError {
    upload_invalid(format!("the upload goes on at byte {written}"))
        .with_status(StatusCode::RANGE_NOT_SATISFIABLE)
        .with_header(header::LOCATION, location)
        .with_header(header::RANGE, range)
}

pub(super) fn pagination_invalid() -> ApiError {
    ApiError::new(ErrorCode::PaginationNumberInvalid, "n is not a number of tags")
}

/// `allowed` is the value of the `Allow` header.
pub(super) fn method_not_allowed(method: &Method, allowed: &'static str) -> ApiError {
    let message = format!("{method} is not possible here; hint: {allowed} are");
    ApiError::new(ErrorCode::Unsupported, message).with_header(header::ALLOW, allowed)
}

/// The catalogue can't be asked: an outage of ours, never "not found".
pub(super) fn catalog_failed(error: &kuboard_catalog::Error) -> ApiError {
    if error.kind() == kuboard_catalog::ErrorKind::Conflict && !error.is_retryable() {
        return ApiError::new(ErrorCode::Denied, error.to_string())
            .with_status(StatusCode::CONFLICT);
    }
    let message = "the catalogue can't be asked; hint: see /readyz and the log";
    ApiError::new(ErrorCode::Unavailable, message).with_retry_after(PAUSE).caused_by(chain(error))
}

/// The store, or the spool before it, failed.
pub(super) fn store_failed(error: &kuboard_store::Error) -> ApiError {
    let refusal = match error.kind() {
        ErrorKind::Mismatch { expected, actual } => return digest_mismatch(expected, actual),
        ErrorKind::Length { expected, actual } => return size_invalid(*expected, *actual),
        ErrorKind::Busy => return upload_busy(),
        ErrorKind::NoSpace => {
            ApiError::new(ErrorCode::Unavailable, "no space is left for pushed content")
                .with_status(StatusCode::INSUFFICIENT_STORAGE)
        }
        _ => ApiError::new(ErrorCode::Unavailable, "the storage failed; hint: see the log"),
    };
    refusal.with_retry_after(PAUSE).caused_by(chain(error))
}

/// What the catalogue lists and the store does not have.
pub(super) fn lost(repository: &RepositoryName, digest: &Digest) -> ApiError {
    let message = "the content is listed but can't be read; hint: run `kuboard fsck`";
    ApiError::new(ErrorCode::Unknown, message)
        .with_detail(json!({ "digest": digest }))
        .caused_by(format!("{digest} of {repository} is listed and not in the store"))
}

pub(super) fn stopping() -> ApiError {
    ApiError::new(ErrorCode::Unavailable, "the server is stopping; hint: try again")
        .with_retry_after(PAUSE)
}

/// An error with its sources, for the log.
fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
