//! Answers that the hosted and the proxied half have in common: blobs, whole or in part, and
//! manifests.

use std::ops::Range;

use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use kuboard_oci::{ByteRange, ContentRange, Digest};
use kuboard_registry::server::{ApiError, ErrorCode};
use kuboard_rt::http::{Body, Response};
use kuboard_store::{Blob, Leased};

use crate::manifest_cache::CachedManifest;

/// The digest of the whole content, whatever part of it is answered.
pub(crate) const DOCKER_CONTENT_DIGEST: HeaderName =
    HeaderName::from_static("docker-content-digest");

const OCTET_STREAM: HeaderValue = HeaderValue::from_static("application/octet-stream");
const BYTES: HeaderValue = HeaderValue::from_static("bytes");

/// Content that may be answered in part.
pub(crate) trait Content {
    /// The digest of all of it.
    fn digest(&self) -> &Digest;
    /// Its length in bytes.
    fn size(&self) -> u64;
    /// The bytes of a range, which lies within the size.
    fn into_body(self, range: Range<u64>) -> Body;
}

impl Content for Blob {
    fn digest(&self) -> &Digest {
        &self.digest
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn into_body(self, range: Range<u64>) -> Body {
        self.body(range)
    }
}

impl Content for Leased {
    fn digest(&self) -> &Digest {
        &self.digest
    }

    fn size(&self) -> u64 {
        self.size
    }

    fn into_body(self, range: Range<u64>) -> Body {
        self.body(range)
    }
}

/// Answers GET or HEAD of a blob; `range` is the value of the request's `Range` header.
///
/// A range that can't be met, or can't be read, is 416; one that may be ignored (another unit,
/// several ranges) is answered whole.
pub(crate) fn blob_response(
    content: impl Content,
    method: &Method,
    range: Option<&HeaderValue>,
) -> Result<Response, ApiError> {
    let size = content.size();
    let part = wanted(range, size)?;
    let mut headers = blob_headers(content.digest());
    let (status, range) = match part {
        None => (StatusCode::OK, 0..size),
        Some(range) => {
            if let Some(value) = ContentRange::of(&range, Some(size)) {
                headers.insert(header::CONTENT_RANGE, text(&value.to_string()));
            }
            (StatusCode::PARTIAL_CONTENT, range)
        }
    };
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(range.end - range.start));
    let body = if method == Method::HEAD { Body::empty() } else { content.into_body(range) };
    Ok(respond(status, headers, body))
}

/// HEAD of a blob whose bytes need not be opened.
pub(crate) fn blob_head(digest: &Digest, size: u64) -> Response {
    let mut headers = blob_headers(digest);
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(size));
    respond(StatusCode::OK, headers, Body::empty())
}

/// The range of a blob of `size` bytes that a `Range` header asks for; `None` for all of it.
pub(crate) fn wanted(
    range: Option<&HeaderValue>,
    size: u64,
) -> Result<Option<Range<u64>>, ApiError> {
    let Some(value) = range else { return Ok(None) };
    let unmet = |why: &dyn std::fmt::Display| {
        ApiError::new(ErrorCode::RangeInvalid, why.to_string())
            .with_header(header::CONTENT_RANGE, &format!("bytes */{size}"))
    };
    let value = value.to_str().map_err(|_| unmet(&"the range is not text"))?;
    match ByteRange::parse(value) {
        Ok(None) => Ok(None),
        Ok(Some(range)) => range.resolve(size).map(Some).map_err(|why| unmet(&why)),
        Err(why) => Err(unmet(&why)),
    }
}

/// Answers GET or HEAD of a manifest; 304 if the client has it.
pub(crate) fn manifest_response(
    manifest: &CachedManifest,
    method: &Method,
    if_none_match: Option<&HeaderValue>,
) -> Response {
    let mut headers = HeaderMap::with_capacity(6);
    headers.insert(DOCKER_CONTENT_DIGEST, manifest.content_digest.clone());
    headers.insert(header::ETAG, manifest.etag.clone());
    if if_none_match.is_some_and(|client| client_has(client, &manifest.etag)) {
        return respond(StatusCode::NOT_MODIFIED, headers, Body::empty());
    }
    headers.insert(header::CONTENT_TYPE, manifest.content_type.clone());
    headers.insert(header::CONTENT_LENGTH, manifest.content_length.clone());
    let body = match *method {
        Method::HEAD => Body::empty(),
        _ => Body::full(manifest.bytes.clone()),
    };
    respond(StatusCode::OK, headers, body)
}

/// 304 for a blob that the client has.
pub(crate) fn blob_unchanged(digest: &Digest) -> Response {
    let mut headers = blob_headers(digest);
    headers.remove(header::CONTENT_TYPE);
    respond(StatusCode::NOT_MODIFIED, headers, Body::empty())
}

/// The entity tag of content with this digest.
pub(crate) fn etag(digest: &Digest) -> HeaderValue {
    text(&format!("\"{digest}\""))
}

/// Whether an `If-None-Match` value names `etag`, by weak comparison.
pub(crate) fn client_has(if_none_match: &HeaderValue, etag: &HeaderValue) -> bool {
    let Ok(list) = if_none_match.to_str() else { return false };
    list.split(',').map(str::trim).any(|tag| {
        tag == "*" || tag.strip_prefix("W/").unwrap_or(tag).as_bytes() == etag.as_bytes()
    })
}

/// An answer of these parts.
pub(crate) fn respond(status: StatusCode, headers: HeaderMap, body: Body) -> Response {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    *response.headers_mut() = headers;
    response
}

/// A header value of text that we wrote ourselves; what can't be one becomes empty.
pub(crate) fn text(value: &str) -> HeaderValue {
    HeaderValue::from_str(value).unwrap_or(HeaderValue::from_static(""))
}

fn blob_headers(digest: &Digest) -> HeaderMap {
    let mut headers = HeaderMap::with_capacity(8);
    headers.insert(header::CONTENT_TYPE, OCTET_STREAM);
    headers.insert(DOCKER_CONTENT_DIGEST, text(&digest.to_string()));
    headers.insert(header::ETAG, etag(digest));
    headers.insert(header::ACCEPT_RANGES, BYTES);
    headers
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;

    struct Alphabet(Digest);

    impl Content for Alphabet {
        fn digest(&self) -> &Digest {
            &self.0
        }
        fn size(&self) -> u64 {
            26
        }
        fn into_body(self, range: Range<u64>) -> Body {
            let bytes: Vec<u8> = range.map(|n| b'a' + n as u8).collect();
            Body::full(bytes)
        }
    }

    /// One line per answer: status, Content-Range, Content-Length, body.
    async fn check(method: Method, range: Option<&'static str>, expected: &str) {
        let content = Alphabet(Digest::sha256(b"alphabet"));
        let range = range.map(HeaderValue::from_static);
        let response =
            blob_response(content, &method, range.as_ref()).unwrap_or_else(ApiError::into_response);
        let (parts, body) = response.into_parts();
        let header = |name| parts.headers.get(name).map_or("-", |v| v.to_str().unwrap()).to_owned();
        let body = body.collect().await.unwrap();
        let body = if parts.status.is_success() { body } else { Bytes::new() };
        let length = match parts.status.is_success() {
            true => header(header::CONTENT_LENGTH),
            false => "-".to_owned(),
        };
        let shown = format!(
            "{} {} {length} {}",
            parts.status.as_u16(),
            header(header::CONTENT_RANGE),
            String::from_utf8(body.to_vec()).unwrap()
        );
        assert_eq!(shown.trim_end(), expected, "{method} {range:?}");
    }

    #[tokio::test]
    async fn blobs_whole_and_in_part() {
        let (get, head) = (Method::GET, Method::HEAD);
        check(get.clone(), None, "200 - 26 abcdefghijklmnopqrstuvwxyz").await;
        check(head.clone(), None, "200 - 26").await;
        check(get.clone(), Some("bytes=0-2"), "206 bytes 0-2/26 3 abc").await;
        check(head, Some("bytes=0-2"), "206 bytes 0-2/26 3").await;
        check(get.clone(), Some("bytes=24-"), "206 bytes 24-25/26 2 yz").await;
        check(get.clone(), Some("bytes=-3"), "206 bytes 23-25/26 3 xyz").await;
        check(get.clone(), Some("bytes=25-99"), "206 bytes 25-25/26 1 z").await;
        check(get.clone(), Some("bytes=-99"), "206 bytes 0-25/26 26 abcdefghijklmnopqrstuvwxyz")
            .await;
        for unmet in ["bytes=26-", "bytes=50-60", "bytes=5-0", "bytes=-0", "bytes=x"] {
            check(get.clone(), Some(unmet), "416 bytes */26 -").await;
        }
        for ignored in ["lines=1-2", "bytes=0-1,3-4"] {
            let all = "200 - 26 abcdefghijklmnopqrstuvwxyz";
            check(get.clone(), Some(ignored), all).await;
        }
    }

    #[tokio::test]
    async fn manifests_with_and_without_their_bytes() {
        let digest = Digest::sha256(b"{}");
        let manifest = CachedManifest::new(digest, "a/b", Bytes::from_static(b"{}"));
        let cases = [
            (Method::GET, None, 200, "{}"),
            (Method::HEAD, None, 200, ""),
            (Method::GET, Some(format!("\"{digest}\"")), 304, ""),
            (Method::GET, Some(format!("\"x\", W/\"{digest}\"")), 304, ""),
            (Method::HEAD, Some("*".to_owned()), 304, ""),
            (Method::GET, Some("\"sha256:0\"".to_owned()), 200, "{}"),
        ];
        for (method, if_none_match, status, bytes) in cases {
            let value = if_none_match.as_deref().map(|v| HeaderValue::from_str(v).unwrap());
            let response = manifest_response(&manifest, &method, value.as_ref());
            assert_eq!(response.status(), status, "{method} {if_none_match:?}");
            let headers = response.headers();
            assert_eq!(headers[DOCKER_CONTENT_DIGEST], digest.to_string());
            if status == 200 {
                assert_eq!(headers[header::CONTENT_LENGTH], "2");
                assert_eq!(headers[header::CONTENT_TYPE], "a/b");
            }
            assert_eq!(response.into_body().collect().await.unwrap(), bytes);
        }
    }
}
