//! What a path of the distribution protocol means.

use kuboard_oci::{Digest, Reference, RepositoryName};

use super::{ApiError, ErrorCode};

/// Longest path that is looked at: the longest name, the longest reference, and what is between.
const MAX_PATH: usize = 1024;

/// Where a request goes.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Route {
    /// `/v2/`
    Base,
    /// `/v2/_catalog`
    Catalog,
    /// `/token`
    Token,
    /// `/v2/<name>/tags/list`
    Tags(RepositoryName),
    /// `/v2/<name>/manifests/<reference>`
    Manifest(RepositoryName, Reference),
    /// `/v2/<name>/blobs/<digest>`
    Blob(RepositoryName, Digest),
    /// `/v2/<name>/blobs/uploads/`
    Uploads(RepositoryName),
    /// `/v2/<name>/blobs/uploads/<id>`
    Upload(RepositoryName, String),
    /// `/v2/<name>/referrers/<digest>`
    Referrers(RepositoryName, Digest),
}

/// Reads a path, which may percent-encode `:` and `@` but nothing that could be a separator.
///
/// # Errors
/// 404 for a path that is none of the protocol's; 400 with `NAME_INVALID`, `DIGEST_INVALID` or
/// `TAG_INVALID` for one whose parts are not what the specification allows.
pub fn route(path: &str) -> Result<Route, ApiError> {
    if path.len() > MAX_PATH {
        return Err(bad(ErrorCode::NameInvalid, "the path is too long"));
    }
    let path = decode(path)?;
    let path = path.as_str();
    if path == "/token" {
        return Ok(Route::Token);
    }
    let rest = match path.strip_prefix("/v2") {
        Some("" | "/") => return Ok(Route::Base),
        Some(rest) => rest.strip_prefix('/').ok_or_else(ApiError::no_endpoint)?,
        None => return Err(ApiError::no_endpoint()),
    };
    if rest.strip_suffix('/').unwrap_or(rest) == "_catalog" {
        return Ok(Route::Catalog);
    }
    if let Some(name) = rest.strip_suffix("/tags/list") {
        return Ok(Route::Tags(repository(name)?));
    }
    let uploads = rest.strip_suffix('/').unwrap_or(rest);
    if let Some(name) = uploads.strip_suffix("/blobs/uploads") {
        return Ok(Route::Uploads(repository(name)?));
    }
    // A repository may itself be called `a/manifests`: the last separator counts.
    let (head, last) = rest.rsplit_once('/').ok_or_else(ApiError::no_endpoint)?;
    if let Some(name) = head.strip_suffix("/blobs/uploads") {
        return Ok(Route::Upload(repository(name)?, upload(last)?));
    }
    if let Some(name) = head.strip_suffix("/manifests") {
        return Ok(Route::Manifest(repository(name)?, reference(last)?));
    }
    if let Some(name) = head.strip_suffix("/blobs") {
        return Ok(Route::Blob(repository(name)?, digest(last)?));
    }
    if let Some(name) = head.strip_suffix("/referrers") {
        return Ok(Route::Referrers(repository(name)?, digest(last)?));
    }
    Err(ApiError::no_endpoint())
}

fn decode(path: &str) -> Result<String, ApiError> {
    if !path.contains('%') {
        return Ok(path.to_owned());
    }
    let mut decoded = String::with_capacity(path.len());
    let mut rest = path;
    while let Some((before, after)) = rest.split_once('%') {
        decoded.push_str(before);
        let code = after.get(..2).map(str::to_ascii_uppercase);
        decoded.push(match code.as_deref() {
            Some("3A") => ':',
            Some("40") => '@',
            Some("2B") => '+',
            _ => return Err(bad(ErrorCode::NameInvalid, "the path encodes what no name may hold")),
        });
        rest = &after[2..];
    }
    decoded.push_str(rest);
    Ok(decoded)
}

fn repository(name: &str) -> Result<RepositoryName, ApiError> {
    name.parse().map_err(|error| {
        bad(ErrorCode::NameInvalid, &format!("{error}"))
            .with_detail(serde_json::json!({ "name": shown(name) }))
    })
}

fn reference(text: &str) -> Result<Reference, ApiError> {
    let code = if text.contains(':') { ErrorCode::DigestInvalid } else { ErrorCode::TagInvalid };
    text.parse().map_err(|error| {
        bad(code, &format!("{error}")).with_detail(serde_json::json!({ "reference": shown(text) }))
    })
}

fn digest(text: &str) -> Result<Digest, ApiError> {
    text.parse().map_err(|error| {
        bad(ErrorCode::DigestInvalid, &format!("{error}"))
            .with_detail(serde_json::json!({ "digest": shown(text) }))
    })
}

/// Upload ids are what we gave out, UUIDs in lower case; nothing else can be one, nor a path.
fn upload(id: &str) -> Result<String, ApiError> {
    let fits = |(at, byte): (usize, u8)| match at {
        8 | 13 | 18 | 23 => byte == b'-',
        _ => byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte),
    };
    if id.len() != 36 || !id.bytes().enumerate().all(fits) {
        return Err(ApiError::new(ErrorCode::BlobUploadUnknown, "no such upload"));
    }
    Ok(id.to_owned())
}

fn shown(text: &str) -> String {
    text.chars().take(256).collect()
}

fn bad(code: ErrorCode, message: &str) -> ApiError {
    ApiError::new(code, message)
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEX: &str = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

    fn check(path: &str, expected: &str) {
        let got = match route(path) {
            Ok(Route::Base) => "base".to_owned(),
            Ok(Route::Catalog) => "catalog".to_owned(),
            Ok(Route::Token) => "token".to_owned(),
            Ok(Route::Tags(name)) => format!("tags {name}"),
            Ok(Route::Manifest(name, reference)) => format!("manifest {name} {reference}"),
            Ok(Route::Blob(name, digest)) => format!("blob {name} {digest}"),
            Ok(Route::Uploads(name)) => format!("uploads {name}"),
            Ok(Route::Upload(name, id)) => format!("upload {name} {id}"),
            Ok(Route::Referrers(name, digest)) => format!("referrers {name} {digest}"),
            Err(error) => format!("{} {}", error.status.as_u16(), error.code.as_str()),
        };
        assert_eq!(got, expected, "{path}");
    }

    #[test]
    fn paths_are_read() {
        for (path, expected) in [
            ("/v2", "base"),
            ("/v2/", "base"),
            ("/v2/_catalog", "catalog"),
            ("/token", "token"),
            ("/v2/a/tags/list", "tags a"),
            ("/v2/a/b-c/d/manifests/v1.0", "manifest a/b-c/d v1.0"),
            ("/v2/a/manifests/manifests/v1", "manifest a/manifests v1"),
            ("/v2/a/blobs/uploads/", "uploads a"),
            ("/v2/a/blobs/uploads", "uploads a"),
            ("/v2/a/blobs/uploads/0a-b9", "404 BLOB_UPLOAD_UNKNOWN"),
            ("/v2/a/blobs/uploads/..", "404 BLOB_UPLOAD_UNKNOWN"),
            ("/v2/a/manifests/sha256:xyz", "400 DIGEST_INVALID"),
            ("/v2/a/blobs/sha256:xyz", "400 DIGEST_INVALID"),
            ("/v2/a/referrers/latest", "400 DIGEST_INVALID"),
            ("/v2/a/manifests/-x", "400 TAG_INVALID"),
            ("/v2/A/manifests/x", "400 NAME_INVALID"),
            ("/v2/a//b/manifests/x", "400 NAME_INVALID"),
            ("/v2/../manifests/x", "400 NAME_INVALID"),
            ("/v2/a/%2e%2e/manifests/x", "400 NAME_INVALID"),
            ("/v2/a%2fb/manifests/x", "400 NAME_INVALID"),
            ("/v2/a/manifests/x%00", "400 NAME_INVALID"),
            ("/v2/a/manifests/x%", "400 NAME_INVALID"),
            ("/v2/a/manifests/é%é", "400 NAME_INVALID"),
            ("/v2/manifests/x", "404 UNSUPPORTED"),
            ("/v1/a", "404 UNSUPPORTED"),
            ("/v2x", "404 UNSUPPORTED"),
            ("/", "404 UNSUPPORTED"),
        ] {
            check(path, expected);
        }
        let id = "0b0d8b3c-9f6a-4b52-8f0e-1c2d3e4f5a6b";
        check(&format!("/v2/a/blobs/uploads/{id}"), &format!("upload a {id}"));
        check(&format!("/v2/a/blobs/uploads/{}", id.to_uppercase()), "404 BLOB_UPLOAD_UNKNOWN");
        check(&format!("/v2/a/blobs/uploads/{id}/"), "404 UNSUPPORTED");
        check(&format!("/v2/a/blobs/sha256:{HEX}"), &format!("blob a sha256:{HEX}"));
        check(&format!("/v2/a/manifests/sha256%3A{HEX}"), &format!("manifest a sha256:{HEX}"));
        check(&format!("/v2/a/referrers/sha256:{HEX}"), &format!("referrers a sha256:{HEX}"));
        check(&format!("/v2/{}/tags/list", "a".repeat(300)), "400 NAME_INVALID");
        check(&format!("/v2/{}", "a".repeat(2000)), "400 NAME_INVALID");
    }
}
