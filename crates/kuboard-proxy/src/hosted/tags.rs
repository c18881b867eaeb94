//! The tags of a hosted repository.

use http::{HeaderMap, HeaderValue, StatusCode, header};
use kuboard_oci::RepositoryName;
use kuboard_registry::server::{ApiError, Query};
use kuboard_rt::http::{Body, Response};
use serde_json::json;

use super::{Hosted, refusals};
use crate::answer::{respond, text};

/// Most tags in one answer.
const PAGE: u32 = 10_000;

impl Hosted {
    /// `GET tags/list`, with `n` and `last`.
    pub(super) async fn list_tags(
        &self,
        repository: &RepositoryName,
        query: &Query,
    ) -> Result<Response, ApiError> {
        let limit = match query.get("n").filter(|n| !n.is_empty()) {
            None => PAGE,
            Some(n) => match n.parse::<u64>() {
                Ok(n) => u32::try_from(n).unwrap_or(PAGE).min(PAGE),
                Err(_) => return Err(refusals::pagination_invalid()),
            },
        };
        let last = query.get("last").filter(|last| !last.is_empty());
        // One more than asked tells whether there is a next page.
        let tags = self.catalog.tags(repository.as_str(), last, limit + 1).await;
        let tags = tags.map_err(|error| refusals::catalog_failed(&error))?;
        let mut tags = tags.ok_or_else(|| refusals::name_unknown(repository))?;
        let more = tags.len() > limit as usize;
        tags.truncate(limit as usize);
        let mut headers = HeaderMap::with_capacity(4);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
        if more && let Some(last) = tags.last() {
            let link = format!("</v2/{repository}/tags/list?n={limit}&last={last}>; rel=\"next\"");
            headers.insert(header::LINK, text(&link));
        }
        let body = json!({ "name": repository, "tags": tags }).to_string();
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        Ok(respond(StatusCode::OK, headers, Body::full(body)))
    }
}
