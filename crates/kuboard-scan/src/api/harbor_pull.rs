//! A repository of the registry that Harbor names, read with the credentials that it gives.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::{StreamExt, TryStreamExt};
use http::{
    HeaderMap, HeaderValue, StatusCode,
    header::{ACCEPT, AUTHORIZATION},
};
use kuboard_oci::{Algorithm, Digest, MAX_MANIFEST_BYTES, Reference};
use kuboard_rt::BoxFuture;
use parking_lot::Mutex;
use serde::Deserialize;
use url::Url;

use super::outbound::{FetchError, Outbound};
use crate::source::{BlobBytes, Contents, Document, SourceError, read_bounded};

const MANIFESTS: &str = "application/vnd.oci.image.manifest.v1+json, \
    application/vnd.docker.distribution.manifest.v2+json, \
    application/vnd.oci.image.index.v1+json, \
    application/vnd.docker.distribution.manifest.list.v2+json";
const MAX_TOKEN: usize = 64 << 10;

/// One repository.
pub(super) struct HarborContents {
    outbound: Outbound,
    registry: Url,
    repository: String,
    /// As Harbor gave it: `Basic …` or `Bearer …`, or empty.
    authorization: String,
    /// A token that was got for it.
    token: Mutex<Option<String>>,
}

#[derive(Deserialize)]
struct Token {
    #[serde(alias = "access_token")]
    token: String,
}

impl HarborContents {
    pub(super) fn new(
        outbound: Outbound,
        registry: Url,
        repository: String,
        authorization: String,
    ) -> Self {
        Self { outbound, registry, repository, authorization, token: Mutex::new(None) }
    }

    fn url(&self, kind: &str, reference: &str) -> Url {
        let mut url = self.registry.clone();
        let base = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{base}/v2/{}/{kind}/{reference}", self.repository));
        url.set_query(None);
        url
    }

    async fn get(&self, url: &Url, accept: &'static str) -> Result<reqwest::Response, SourceError> {
        let token = self.token.lock().clone();
        let authorization = token.unwrap_or_else(|| self.authorization.clone());
        let answer = self.outbound.get(url, &headers(&authorization, accept)).await;
        let challenge = match answer {
            Err(FetchError::Status { status: StatusCode::UNAUTHORIZED, challenge, .. })
                if challenge.starts_with("Bearer ") && self.token.lock().is_none() =>
            {
                challenge
            }
            other => return Ok(other?),
        };
        let token = self.token_for(&challenge).await?;
        let authorization = format!("Bearer {token}");
        let answer = self.outbound.get(url, &headers(&authorization, accept)).await?;
        *self.token.lock() = Some(authorization);
        Ok(answer)
    }

    /// Changes the credentials for a token, at the place that the registry names, which gets them
    /// only if it is the registry's own host.
    async fn token_for(&self, challenge: &str) -> Result<String, SourceError> {
        let part = |name: &str| challenge_part(challenge, name);
        let realm = part("realm").and_then(|realm| realm.parse::<Url>().ok());
        let mut realm =
            realm.ok_or_else(|| SourceError::invalid("the registry asks for an unknown token"))?;
        for name in ["service", "scope"] {
            if let Some(value) = part(name) {
                realm.query_pairs_mut().append_pair(name, &value);
            }
        }
        let is_own = realm.host_str() == self.registry.host_str();
        let authorization = if is_own { self.authorization.as_str() } else { "" };
        let answer = self.outbound.get(&realm, &headers(authorization, "application/json")).await?;
        let body = BlobBytes::Stream(answer.bytes_stream().map_err(std::io::Error::other).boxed());
        let token: Token = serde_json::from_slice(&read_bounded(body, MAX_TOKEN).await?)
            .map_err(|_| SourceError::invalid("the registry's token can't be read"))?;
        Ok(token.token)
    }
}

fn headers(authorization: &str, accept: &'static str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    headers.insert(ACCEPT, HeaderValue::from_static(accept));
    if let Ok(mut value) = HeaderValue::from_str(authorization)
        && !authorization.is_empty()
    {
        value.set_sensitive(true);
        headers.insert(AUTHORIZATION, value);
    }
    headers
}

/// `realm="…"` of a challenge.
fn challenge_part(challenge: &str, name: &str) -> Option<String> {
    let rest = challenge.split_once(&format!("{name}=\""))?.1;
    rest.split_once('"').map(|(value, _)| value.to_owned())
}

/// Whether a header is one that can be passed on.
pub(super) fn is_authorization(text: &str) -> bool {
    match text.split_once(' ') {
        Some(("Basic", rest)) => STANDARD.decode(rest.trim()).is_ok(),
        Some(("Bearer", rest)) => !rest.trim().is_empty(),
        _ => text.is_empty(),
    }
}

impl Contents for HarborContents {
    fn manifest<'a>(
        &'a self,
        reference: Option<&'a Reference>,
    ) -> BoxFuture<'a, Result<Document, SourceError>> {
        Box::pin(async move {
            let reference =
                reference.ok_or_else(|| SourceError::invalid("no tag and no digest"))?;
            let url = self.url("manifests", &reference.to_string());
            let answer = self.get(&url, MANIFESTS).await?;
            let media_type = answer.headers().get(http::header::CONTENT_TYPE);
            let media_type = media_type.and_then(|value| value.to_str().ok());
            let media_type = media_type.unwrap_or_default().to_owned();
            let body =
                BlobBytes::Stream(answer.bytes_stream().map_err(std::io::Error::other).boxed());
            let bytes = read_bounded(body, MAX_MANIFEST_BYTES).await?;
            let digest = match reference {
                Reference::Digest(digest) => {
                    if Digest::of(digest.algorithm(), &bytes) != *digest {
                        return Err(SourceError::invalid(format!(
                            "the manifest's bytes are not those of {digest}"
                        )));
                    }
                    *digest
                }
                Reference::Tag(_) => Digest::of(Algorithm::Sha256, &bytes),
            };
            Ok(Document { digest, media_type, bytes })
        })
    }

    fn blob<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<BlobBytes, SourceError>> {
        Box::pin(async move {
            let answer = self.get(&self.url("blobs", &digest.to_string()), "*/*").await?;
            let bytes = answer.bytes_stream().map_err(reqwest::Error::without_url);
            Ok(BlobBytes::Stream(bytes.map_err(std::io::Error::other).boxed()))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::{challenge_part, is_authorization};

    #[test]
    fn challenges_are_read() {
        let challenge = r#"Bearer realm="https://h/service/token",service="harbor-registry",scope="repository:a/b:pull""#;
        assert_eq!(challenge_part(challenge, "realm").unwrap(), "https://h/service/token");
        assert_eq!(challenge_part(challenge, "scope").unwrap(), "repository:a/b:pull");
        assert_eq!(challenge_part(challenge, "error"), None);
    }

    #[test]
    fn authorizations_are_recognised() {
        for (text, is) in [
            ("", true),
            ("Basic eDp5", true),
            ("Bearer x.y", true),
            ("Basic ?", false),
            ("x", false),
        ] {
            assert_eq!(is_authorization(text), is, "{text}");
        }
    }
}
