//! Outcomes to responses.

use std::io;

use bytes::Bytes;
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{CONTENT_ENCODING, CONTENT_TYPE, VARY},
};
use kuboard_oci::Digest;
use kuboard_rt::{
    Tasks,
    http::{Body, RequestBody, Response},
};
use percent_encoding::percent_decode_str;
use serde::Serialize;

use super::content::Encoding;
use crate::engine::ScanError;

/// Bodies shorter than this are not worth compressing.
const MIN_COMPRESSED: usize = 512;
/// Bodies longer than this are compressed on a thread that may block.
const LONG: usize = 64 << 10;
/// Of an error's message in the header.
const MAX_HEADER: usize = 512;

const NOSNIFF: HeaderName = HeaderName::from_static("x-content-type-options");
/// Clair sends it as a trailer: a document may fail half-way there. Here documents are complete
/// before they are sent, so that what there is to say is known at the beginning.
const CLAIR_ERROR: HeaderName = HeaderName::from_static("clair-error");

/// A request's parts without its body.
pub(super) struct Head {
    pub(super) method: Method,
    /// The path, decoded.
    pub(super) path: String,
    /// The query, as it came.
    pub(super) query: String,
    pub(super) headers: HeaderMap,
}

impl Head {
    pub(super) fn of(parts: http::request::Parts) -> Self {
        let path = percent_decode_str(parts.uri.path()).decode_utf8_lossy().into_owned();
        let query = parts.uri.query().unwrap_or_default().to_owned();
        Self { method: parts.method, path, query, headers: parts.headers }
    }

    /// The first value of a parameter that is not empty.
    pub(super) fn parameter(&self, name: &str) -> Option<String> {
        url::form_urlencoded::parse(self.query.as_bytes())
            .find(|(key, value)| key == name && !value.is_empty())
            .map(|(_, value)| value.into_owned())
    }

    /// Whether one of the `If-None-Match` headers is this validator.
    pub(super) fn has_unmodified(&self, validator: &str) -> bool {
        let given = self.headers.get_all(http::header::IF_NONE_MATCH);
        given.iter().any(|value| value.as_bytes() == validator.as_bytes())
    }

    pub(super) fn expect(&self, allowed: &[Method]) -> Result<(), Refusal> {
        if allowed.contains(&self.method) {
            return Ok(());
        }
        let message = format!("method disallowed: {}", self.method);
        Err(Refusal::new(StatusCode::METHOD_NOT_ALLOWED, message))
    }
}

/// What a body carries.
enum Content {
    Bytes(Bytes),
    Stream(Body),
}

/// What is answered.
pub(super) struct Answer {
    status: StatusCode,
    headers: HeaderMap,
    content: Content,
}

/// Why something else is answered.
#[derive(Debug)]
pub(super) struct Refusal {
    pub(super) status: StatusCode,
    pub(super) message: String,
}

/// What becomes of a request.
pub(super) type Outcome = Result<Answer, Refusal>;

impl Answer {
    pub(super) fn empty(status: StatusCode) -> Self {
        Self { status, headers: HeaderMap::new(), content: Content::Bytes(Bytes::new()) }
    }

    pub(super) fn bytes(status: StatusCode, media_type: &str, bytes: impl Into<Bytes>) -> Self {
        let answer =
            Self { status, headers: HeaderMap::new(), content: Content::Bytes(bytes.into()) };
        answer.with(CONTENT_TYPE, media_type)
    }

    pub(super) fn json<T: Serialize>(status: StatusCode, media_type: &str, value: &T) -> Outcome {
        let bytes = serde_json::to_vec(value).map_err(Refusal::internal)?;
        Ok(Self::bytes(status, media_type, bytes))
    }

    pub(super) fn stream(status: StatusCode, media_type: &str, body: Body) -> Self {
        let content = Content::Stream(body);
        Self { status, headers: HeaderMap::new(), content }.with(CONTENT_TYPE, media_type)
    }

    /// Adds a header; a value that can't be one is left out.
    #[must_use]
    pub(super) fn with(mut self, name: HeaderName, value: &str) -> Self {
        if let Ok(value) = HeaderValue::from_str(value) {
            self.headers.append(name, value);
        }
        self
    }

    pub(super) async fn into_response(self, encoding: Encoding, tasks: &Tasks) -> Response {
        let mut headers = self.headers;
        let body = match self.content {
            Content::Stream(body) => body,
            Content::Bytes(bytes) => {
                let bytes = if encoding == Encoding::Identity || bytes.len() < MIN_COMPRESSED {
                    bytes
                } else {
                    compressed(bytes, encoding, tasks, &mut headers).await
                };
                headers.append(VARY, HeaderValue::from_static("accept-encoding"));
                Body::full(bytes)
            }
        };
        let mut response = Response::new(body);
        *response.status_mut() = self.status;
        *response.headers_mut() = headers;
        response
    }
}

/// The bytes compressed, with the header that says so; as they are if that fails.
async fn compressed(
    bytes: Bytes,
    encoding: Encoding,
    tasks: &Tasks,
    headers: &mut HeaderMap,
) -> Bytes {
    let given = bytes.clone();
    let done = if bytes.len() > LONG {
        tasks.blocking("compress an answer", move || encoding.compress(&given)).await
    } else {
        Ok(encoding.compress(&given))
    };
    match done {
        Ok(Ok(shorter)) => {
            headers.insert(CONTENT_ENCODING, HeaderValue::from_static(encoding.as_str()));
            shorter.into()
        }
        Ok(Err(error)) | Err(error) => {
            tracing::warn!(%error, "answer not compressed");
            bytes
        }
    }
}

impl Refusal {
    pub(super) fn new(status: StatusCode, message: impl Into<String>) -> Self {
        Self { status, message: message.into() }
    }

    pub(super) fn bad(message: impl Into<String>) -> Self {
        Self::new(StatusCode::BAD_REQUEST, message)
    }

    pub(super) fn not_found(message: impl Into<String>) -> Self {
        Self::new(StatusCode::NOT_FOUND, message)
    }

    #[expect(clippy::needless_pass_by_value, reason = "it is handed to map_err")]
    pub(super) fn internal(error: impl ToString) -> Self {
        Self::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())
    }

    /// Clair's form of an error: `{"code", "message"}`.
    pub(super) fn into_clair(self) -> Answer {
        let code = match self.status {
            StatusCode::BAD_REQUEST => "bad-request",
            StatusCode::METHOD_NOT_ALLOWED => "method-not-allowed",
            StatusCode::NOT_FOUND => "not-found",
            StatusCode::TOO_MANY_REQUESTS => "too-many-requests",
            _ => "internal-error",
        };
        let body = serde_json::json!({"code": code, "message": self.message});
        let printable = |c: char| if c.is_ascii_graphic() || c == ' ' { c } else { '?' };
        let header: String = self.message.chars().take(MAX_HEADER).map(printable).collect();
        Answer::bytes(self.status, "application/json", body.to_string())
            .with(NOSNIFF, "nosniff")
            .with(CLAIR_ERROR, &header)
    }

    /// Harbor's form of an error: `{"error": {"message"}}`.
    pub(super) fn into_harbor(self) -> Answer {
        const TYPE: &str = "application/vnd.scanner.adapter.error+json; version=1.0";
        let body = serde_json::json!({"error": {"message": self.message}});
        Answer::bytes(self.status, TYPE, body.to_string()).with(NOSNIFF, "nosniff")
    }
}

impl From<ScanError> for Refusal {
    fn from(error: ScanError) -> Self {
        Self::internal(error)
    }
}

impl From<kuboard_catalog::Error> for Refusal {
    fn from(error: kuboard_catalog::Error) -> Self {
        Self::internal(error)
    }
}

/// The digest that a path ends with.
pub(super) fn digest_of(segment: &str) -> Result<Digest, Refusal> {
    segment.parse().map_err(|error| Refusal::bad(format!("malformed path: {error}")))
}

/// A request's body, at most `limit` bytes.
pub(super) async fn read(body: RequestBody, limit: usize) -> Result<Bytes, Refusal> {
    body.collect(limit).await.map_err(|error| match error.kind() {
        io::ErrorKind::FileTooLarge => {
            Refusal::new(StatusCode::PAYLOAD_TOO_LARGE, error.to_string())
        }
        _ => Refusal::bad(format!("failed to read the request: {error}")),
    })
}
