//! Lists that an upstream keeps and we pass through: tags and referrers.
//!
//! An upstream that does not answer is never an empty list: the last answer is served with a
//! warning, or the failure is told.

use std::{collections::HashMap, sync::Arc};

use bytes::Bytes;
use http::{HeaderValue, StatusCode, header};
use kuboard_oci::{Digest, Reference, RepositoryName, media_type};
use kuboard_registry::client::{UpstreamError, UpstreamErrorKind};
use kuboard_registry::server::{ApiError, ErrorCode, Query};
use kuboard_rt::http::{Body, Response};
use parking_lot::Mutex;

use super::{
    Origin, Proxied,
    answers::{self, Missing},
    freshness,
};

/// Bytes of referrers lists kept for upstreams that fail.
const MEMORY_BYTES: usize = 8 << 20;

/// Longest media type that is asked for.
const MAX_ARTIFACT_TYPE: usize = 255;

/// The latest referrers lists.
#[derive(Default)]
pub(super) struct ListMemory {
    lists: Mutex<Lists>,
}

#[derive(Default)]
struct Lists {
    known: HashMap<String, (Bytes, i64)>,
    /// Bytes of keys and lists.
    held: usize,
}

impl ListMemory {
    fn get(&self, key: &str) -> Option<(Bytes, i64)> {
        self.lists.lock().known.get(key).cloned()
    }

    fn set(&self, key: String, bytes: Bytes, now: i64) {
        let mut lists = self.lists.lock();
        let weight = key.len() + bytes.len() + 128;
        if lists.held + weight > MEMORY_BYTES {
            *lists = Lists::default();
        }
        // A list that replaces another is counted twice until the next clearing: an upper bound.
        lists.held += weight;
        lists.known.insert(key, (bytes, now));
    }
}

impl Proxied {
    /// The upstream's tags; what we have seen of them if it does not answer.
    pub(super) async fn tags_list(
        &self,
        origin: &Origin,
        spelled: &RepositoryName,
        query: &Query,
    ) -> Result<Response, ApiError> {
        let asked = page_query(query);
        let answer = origin.member.upstream.tags(&origin.upstream_repository, &asked).await;
        let error = match answer {
            Ok((bytes, link)) => {
                let bytes = rename(&bytes, origin);
                let mut response = json(bytes, "application/json")?;
                if let Some(link) = link.and_then(|link| our_link(&link, spelled, query.get("ns")))
                {
                    response.headers_mut().insert(header::LINK, link);
                }
                return Ok(response);
            }
            Err(error) => error,
        };
        if !freshness::may_stand_in(error.kind) {
            return Err(answers::upstream_error(Missing::Repository, origin, &error));
        }
        let limit = query.get("n").and_then(|n| n.parse().ok()).unwrap_or(10_000);
        let seen = self
            .catalog
            .tags(&origin.repository, query.get("last"), limit)
            .await
            .map_err(|error| answers::catalog_error(&error))?;
        // None seen is not none there.
        let Some(tags) = seen.filter(|tags| !tags.is_empty()) else {
            return Err(answers::upstream_error(Missing::Repository, origin, &error));
        };
        let list = serde_json::json!({ "name": &*origin.repository, "tags": tags });
        let mut response = json(list.to_string().into(), "application/json")?;
        self.stale(&mut response, &error);
        Ok(response)
    }

    /// The referrers of a digest by the upstream's API, or by its fallback tag.
    pub(super) async fn referrers(
        &self,
        origin: &Origin,
        digest: &Digest,
        query: &Query,
    ) -> Result<Response, ApiError> {
        let artifact_type = query.get("artifactType");
        if artifact_type.is_some_and(|wanted| wanted.len() > MAX_ARTIFACT_TYPE) {
            let message = "artifactType is longer than a media type may be";
            return Err(
                ApiError::new(ErrorCode::Unsupported, message).with_status(StatusCode::BAD_REQUEST)
            );
        }
        let key = origin.key(&format!("{digest}?{}", artifact_type.unwrap_or_default()));
        let now = self.now();
        if let Some((bytes, asked)) = self.lists.get(&key)
            && now - asked <= origin.settings().tag_ttl.as_millis() as i64
        {
            return referrers_answer(bytes, artifact_type);
        }
        match self.ask_referrers(origin, digest, artifact_type).await {
            Ok(bytes) => {
                self.lists.set(key, bytes.clone(), now);
                referrers_answer(bytes, artifact_type)
            }
            Err(error) => match self.lists.get(&key) {
                Some((bytes, _)) => {
                    let mut response = referrers_answer(bytes, artifact_type)?;
                    self.stale(&mut response, &error);
                    Ok(response)
                }
                None => Err(answers::upstream_error(Missing::Repository, origin, &error)),
            },
        }
    }

    async fn ask_referrers(
        &self,
        origin: &Origin,
        digest: &Digest,
        artifact_type: Option<&str>,
    ) -> Result<Bytes, Arc<UpstreamError>> {
        let upstream = &origin.member.upstream;
        match upstream.referrers(&origin.upstream_repository, digest, artifact_type).await {
            Err(error) if error.kind == UpstreamErrorKind::NotFound => {}
            other => return other.map_err(Arc::new),
        }
        // The upstream has no referrers API: the fallback tag names the same list.
        let tag = Reference::Tag(kuboard_oci::referrers_tag(digest));
        match upstream.get_manifest(&origin.upstream_repository, &tag).await {
            Ok(fetched) if media_type::is_index(&fetched.media_type) => Ok(fetched.bytes),
            Ok(_) => Err(Arc::new(UpstreamError::new(
                UpstreamErrorKind::Invalid,
                origin.registry(),
                "the upstream's referrers tag is no index".to_owned(),
            ))),
            Err(error) if error.kind == UpstreamErrorKind::NotFound => {
                Ok(Bytes::from_static(kuboard_oci::empty_index()))
            }
            Err(error) => Err(Arc::new(error)),
        }
    }

    fn stale(&self, response: &mut Response, error: &UpstreamError) {
        let reason = freshness::stale_reason(error.kind);
        self.metrics.stale_served.with_label_values(&[reason]).inc();
        answers::warn_stale(response, reason);
    }
}

fn referrers_answer(bytes: Bytes, artifact_type: Option<&str>) -> Result<Response, ApiError> {
    let filtered = artifact_type.and_then(|wanted| filter(&bytes, wanted));
    let applied = filtered.is_some();
    let mut response = json(filtered.unwrap_or(bytes), media_type::OCI_INDEX)?;
    if applied {
        let name = http::HeaderName::from_static("oci-filters-applied");
        response.headers_mut().insert(name, HeaderValue::from_static("artifactType"));
    }
    Ok(response)
}

/// Keeps the descriptors of one artifact type; `None` if the list can't be read, which is then
/// passed on whole and unfiltered, as the specification lets a registry do.
fn filter(bytes: &[u8], wanted: &str) -> Option<Bytes> {
    let mut index: serde_json::Value = serde_json::from_slice(bytes).ok()?;
    let manifests = index.get_mut("manifests")?.as_array_mut()?;
    manifests.retain(|entry| entry.get("artifactType").and_then(|t| t.as_str()) == Some(wanted));
    Some(index.to_string().into())
}

fn json(bytes: Bytes, media_type: &'static str) -> Result<Response, ApiError> {
    http::Response::builder()
        .status(StatusCode::OK)
        .header(header::CONTENT_TYPE, media_type)
        .header(header::CONTENT_LENGTH, bytes.len())
        .body(Body::full(bytes))
        .map_err(|error| answers::bad_gateway(&error.to_string()))
}

/// The page that the client asked for, rebuilt from what we understood of it.
fn page_query(query: &Query) -> String {
    let mut parts = Vec::new();
    if let Some(n) = query.get("n").and_then(|n| n.parse::<u32>().ok()) {
        parts.push(format!("n={n}"));
    }
    if let Some(last) = query.get("last") {
        let last = percent_encoding::utf8_percent_encode(last, percent_encoding::NON_ALPHANUMERIC);
        parts.push(format!("last={last}"));
    }
    parts.join("&")
}

/// The list under our name of the repository; as it came if it can't be read.
fn rename(bytes: &Bytes, origin: &Origin) -> Bytes {
    match serde_json::from_slice::<serde_json::Value>(bytes) {
        Ok(mut list) if list.is_object() => {
            list["name"] = origin.repository.to_string().into();
            if list.get("tags").is_none_or(serde_json::Value::is_null) {
                list["tags"] = serde_json::json!([]);
            }
            list.to_string().into()
        }
        _ => bytes.clone(),
    }
}

/// The upstream's link to the next page, pointing to us by the name that the client used.
fn our_link(link: &str, spelled: &RepositoryName, ns: Option<&str>) -> Option<HeaderValue> {
    let (_, rest) = link.split_once('?')?;
    let (query, _) = rest.split_once('>')?;
    let ns = ns.map(|ns| format!("&ns={ns}")).unwrap_or_default();
    let ours = format!("</v2/{spelled}/tags/list?{query}{ns}>; rel=\"next\"");
    HeaderValue::from_str(&ours).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn filters_by_artifact_type() {
        let list = br#"{"manifests":[{"artifactType":"a","digest":"1"},{"digest":"2"}]}"#;
        for (wanted, expected) in [("a", 1), ("b", 0)] {
            let kept = filter(list, wanted).unwrap();
            let kept: serde_json::Value = serde_json::from_slice(&kept).unwrap();
            assert_eq!(kept["manifests"].as_array().unwrap().len(), expected, "{wanted}");
        }
        assert_eq!(filter(b"not json", "a"), None);
    }
}
