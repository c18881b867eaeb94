//! Refusals in the form of the distribution specification: a status, and a body with code,
//! message and detail.

use std::time::Duration;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use kuboard_rt::http::{Body, Response};

/// The codes of the distribution specification, and the two that every registry adds.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ErrorCode {
    /// The blob is not in this repository.
    BlobUnknown,
    /// The upload cannot go on like this.
    BlobUploadInvalid,
    /// There is no such upload.
    BlobUploadUnknown,
    /// Not a digest, or not the digest of what was sent.
    DigestInvalid,
    /// The manifest names content that is not in this repository.
    ManifestBlobUnknown,
    /// Not a manifest.
    ManifestInvalid,
    /// There is no such manifest or tag.
    ManifestUnknown,
    /// Not a repository name.
    NameInvalid,
    /// There is no such repository.
    NameUnknown,
    /// A page size that is none.
    PaginationNumberInvalid,
    /// A range that cannot be had, or that does not follow what was sent before.
    RangeInvalid,
    /// A length that does not fit what was sent.
    SizeInvalid,
    /// Not a tag.
    TagInvalid,
    /// Credentials are needed, or those sent are wrong.
    Unauthorized,
    /// Whoever asks may not do this.
    Denied,
    /// This registry does not do that.
    Unsupported,
    /// Too much in a short time.
    TooManyRequests,
    /// None of the specification's: we can't do it now.
    Unavailable,
    /// None of the specification's: a failure of ours or of an upstream.
    Unknown,
}

impl ErrorCode {
    /// As it stands in the body.
    #[must_use]
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::BlobUnknown => "BLOB_UNKNOWN",
            Self::BlobUploadInvalid => "BLOB_UPLOAD_INVALID",
            Self::BlobUploadUnknown => "BLOB_UPLOAD_UNKNOWN",
            Self::DigestInvalid => "DIGEST_INVALID",
            Self::ManifestBlobUnknown => "MANIFEST_BLOB_UNKNOWN",
            Self::ManifestInvalid => "MANIFEST_INVALID",
            Self::ManifestUnknown => "MANIFEST_UNKNOWN",
            Self::NameInvalid => "NAME_INVALID",
            Self::NameUnknown => "NAME_UNKNOWN",
            Self::PaginationNumberInvalid => "PAGINATION_NUMBER_INVALID",
            Self::RangeInvalid => "RANGE_INVALID",
            Self::SizeInvalid => "SIZE_INVALID",
            Self::TagInvalid => "TAG_INVALID",
            Self::Unauthorized => "UNAUTHORIZED",
            Self::Denied => "DENIED",
            Self::Unsupported => "UNSUPPORTED",
            Self::TooManyRequests => "TOOMANYREQUESTS",
            Self::Unavailable => "UNAVAILABLE",
            Self::Unknown => "UNKNOWN",
        }
    }

    /// The status that usually goes with it.
    #[must_use]
    pub const fn status(self) -> StatusCode {
        match self {
            Self::BlobUnknown
            | Self::BlobUploadUnknown
            | Self::ManifestUnknown
            | Self::NameUnknown => StatusCode::NOT_FOUND,
            Self::BlobUploadInvalid
            | Self::DigestInvalid
            | Self::ManifestBlobUnknown
            | Self::ManifestInvalid
            | Self::NameInvalid
            | Self::PaginationNumberInvalid
            | Self::SizeInvalid
            | Self::TagInvalid => StatusCode::BAD_REQUEST,
            Self::RangeInvalid => StatusCode::RANGE_NOT_SATISFIABLE,
            Self::Unauthorized => StatusCode::UNAUTHORIZED,
            Self::Denied => StatusCode::FORBIDDEN,
            Self::Unsupported => StatusCode::METHOD_NOT_ALLOWED,
            Self::TooManyRequests => StatusCode::TOO_MANY_REQUESTS,
            Self::Unavailable => StatusCode::SERVICE_UNAVAILABLE,
            Self::Unknown => StatusCode::INTERNAL_SERVER_ERROR,
        }
    }
}

/// A request that is not granted.
#[derive(Clone, Debug)]
pub struct ApiError {
    /// Status of the answer.
    pub status: StatusCode,
    /// Code in the body.
    pub code: ErrorCode,
    /// For the person at the client.
    pub message: String,
    /// The specification's free-form detail.
    pub detail: Option<serde_json::Value>,
    /// Further headers of the answer; boxed, because most refusals have none and all are moved.
    pub headers: Box<HeaderMap>,
}

impl ApiError {
    /// A refusal with the code's usual status.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        let message = message.into();
        Self { status: code.status(), code, message, detail: None, headers: Box::default() }
    }

    /// A fault of ours; the cause goes to the log, not to the client.
    #[must_use]
    pub fn internal(cause: impl std::fmt::Display) -> Self {
        tracing::error!(%cause, "a request failed inside");
        Self::new(ErrorCode::Unknown, "an internal fault; hint: see the server's log")
    }

    /// 401 without a challenge; `Access` adds the one that fits the request.
    #[must_use]
    pub fn unauthorized(message: impl Into<String>) -> Self {
        Self::new(ErrorCode::Unauthorized, message)
    }

    /// Logs the cause, which is not for the client.
    #[must_use]
    pub fn caused_by(self, cause: impl std::fmt::Display) -> Self {
        tracing::error!(%cause, answer = %self, "a request failed inside");
        self
    }

    /// 404 for a path that is none of the registry's.
    #[must_use]
    pub fn no_endpoint() -> Self {
        Self::new(
            ErrorCode::Unsupported,
            "no such endpoint; hint: the registry's paths begin with /v2/",
        )
        .with_status(StatusCode::NOT_FOUND)
    }

    /// The same under another status.
    #[must_use]
    pub fn with_status(mut self, status: StatusCode) -> Self {
        self.status = status;
        self
    }

    /// Adds the specification's free-form detail.
    #[must_use]
    pub fn with_detail(mut self, detail: serde_json::Value) -> Self {
        self.detail = Some(detail);
        self
    }

    /// Adds a header to the answer; a value that can't be one is left out.
    #[must_use]
    pub fn with_header(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }

    /// Tells the client when to come again, in whole seconds, rounded up, at least one.
    #[must_use]
    pub fn with_retry_after(self, after: Duration) -> Self {
        let seconds = after.as_millis().div_ceil(1000).max(1);
        self.with_header(header::RETRY_AFTER, &seconds.to_string())
    }

    /// The answer with the specification's body.
    #[must_use]
    pub fn into_response(self) -> Response {
        let Self { status, code, message, detail, headers } = self;
        let mut error = serde_json::json!({ "code": code.as_str(), "message": message });
        if let Some(detail) = detail {
            error["detail"] = detail;
        }
        let body = serde_json::json!({ "errors": [error] }).to_string();
        let length = HeaderValue::from(body.len());
        let mut response = Response::new(Body::full(body));
        *response.status_mut() = status;
        *response.headers_mut() = *headers;
        let sent = response.headers_mut();
        sent.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        sent.insert(header::CONTENT_LENGTH, length);
        response
    }
}

impl std::fmt::Display for ApiError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} {}: {}", self.status.as_u16(), self.code.as_str(), self.message)
    }
}

impl std::error::Error for ApiError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn bodies_are_the_specifications() {
        let error = ApiError::new(ErrorCode::BlobUnknown, "no \"such\"")
            .with_detail(serde_json::json!({ "digest": "sha256:0" }))
            .with_retry_after(Duration::from_millis(10));
        let response = error.into_response();
        assert_eq!(response.status(), 404);
        assert_eq!(response.headers()[header::RETRY_AFTER], "1");
        let body = response.into_body().collect().await.unwrap();
        let body: serde_json::Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(
            body,
            serde_json::json!({"errors": [{
                "code": "BLOB_UNKNOWN",
                "message": "no \"such\"",
                "detail": {"digest": "sha256:0"},
            }]})
        );
    }
}
