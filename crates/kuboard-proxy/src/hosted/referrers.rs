//! What refers to a manifest: signatures, attestations, inventories.
//!
//! Manifests with a `subject` are listed from the catalogue. What an old client wrote into the
//! fallback tag of the subject is listed too, as far as the repository has it.

use std::collections::HashSet;

use http::{HeaderMap, HeaderValue, StatusCode, header};
use kuboard_catalog::ReferrerRow;
use kuboard_oci::{
    Descriptor, Digest, Manifest, Reference, RepositoryName, media_type, referrers_index,
    referrers_tag,
};
use kuboard_registry::server::{ApiError, Query};
use kuboard_rt::http::{Body, Response};

use super::{Hosted, refusals};
use crate::answer::{respond, text};

/// Bytes of descriptors after which a page ends; clients take no more than 4 MiB.
const PAGE: usize = 3 << 20;
/// What a descriptor takes beside its free texts.
const DESCRIPTOR: usize = 512;

impl Hosted {
    /// `GET referrers/<digest>`, with `artifactType`. A subject that is not here has no referrers,
    /// which is no error.
    pub(super) async fn list_referrers(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        query: &Query,
    ) -> Result<Response, ApiError> {
        let wanted = query.get("artifactType").filter(|wanted| !wanted.is_empty());
        let rows = self.catalog.referrers(repository.as_str(), subject, wanted).await;
        let rows = rows.map_err(|error| refusals::catalog_failed(&error))?;
        let mut listed: Vec<Descriptor> = rows.into_iter().map(descriptor).collect();
        self.add_fallback(repository, subject, wanted, &mut listed).await?;
        let (page, next) = page(listed, query.get("last"));
        let mut headers = HeaderMap::with_capacity(6);
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(media_type::OCI_INDEX));
        if wanted.is_some() {
            headers.insert(refusals::OCI_FILTERS_APPLIED, HeaderValue::from_static("artifactType"));
        }
        if let Some(last) = next {
            let filter = wanted.map(|wanted| format!("artifactType={}&", encoded(wanted)));
            let filter = filter.unwrap_or_default();
            let link =
                format!("</v2/{repository}/referrers/{subject}?{filter}last={last}>; rel=\"next\"");
            headers.insert(header::LINK, text(&link));
        }
        let body = referrers_index(&page);
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(body.len()));
        Ok(respond(StatusCode::OK, headers, Body::full(body)))
    }

    /// Adds what the index under the subject's fallback tag lists, and the repository has.
    async fn add_fallback(
        &self,
        repository: &RepositoryName,
        subject: &Digest,
        wanted: Option<&str>,
        listed: &mut Vec<Descriptor>,
    ) -> Result<(), ApiError> {
        let tag = Reference::Tag(referrers_tag(subject));
        let Some(index) = self.find_manifest(repository, &tag).await? else { return Ok(()) };
        if !media_type::is_index(&index.media_type) {
            return Ok(());
        }
        let Ok(index) = Manifest::parse(&index.bytes, Some(&index.media_type)) else {
            return Ok(());
        };
        let mut seen: HashSet<Digest> = listed.iter().map(|known| known.digest).collect();
        for entry in index.manifests {
            let is_wanted =
                wanted.is_none_or(|wanted| entry.artifact_type.as_deref() == Some(wanted));
            if !is_wanted || !seen.insert(entry.digest) {
                continue;
            }
            let here = self.catalog.manifest(repository.as_str(), &entry.digest).await;
            if here.map_err(|error| refusals::catalog_failed(&error))?.is_some() {
                listed.push(entry);
            }
        }
        Ok(())
    }
}

fn descriptor(row: ReferrerRow) -> Descriptor {
    Descriptor {
        artifact_type: row.artifact_type,
        annotations: row.annotations,
        ..Descriptor::new(row.media_type, row.digest, row.size)
    }
}

/// The descriptors after `last`, as many as fit into a page, and the digest after which the next
/// page begins. Pages are in the order of digests.
fn page(mut listed: Vec<Descriptor>, last: Option<&str>) -> (Vec<Descriptor>, Option<Digest>) {
    let weight = |descriptor: &Descriptor| {
        let notes = descriptor.annotations.iter().map(|(key, value)| key.len() + value.len());
        DESCRIPTOR + notes.sum::<usize>()
    };
    if last.is_none() && listed.iter().map(weight).sum::<usize>() <= PAGE {
        return (listed, None);
    }
    listed.sort_by_cached_key(|descriptor| descriptor.digest.to_string());
    let last = last.unwrap_or_default();
    let mut page = Vec::new();
    let mut used = 0;
    for descriptor in listed {
        if descriptor.digest.to_string().as_str() <= last {
            continue;
        }
        used += weight(&descriptor);
        if used > PAGE && !page.is_empty() {
            let next = page.last().map(|last: &Descriptor| last.digest);
            return (page, next);
        }
        page.push(descriptor);
    }
    (page, None)
}

/// A value of a query string.
fn encoded(value: &str) -> String {
    percent_encoding::utf8_percent_encode(value, percent_encoding::NON_ALPHANUMERIC).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(count: usize, note: usize) -> Vec<Descriptor> {
        let one = |n: usize| {
            let digest = Digest::sha256(n.to_string().as_bytes());
            let mut descriptor = Descriptor::new(media_type::OCI_MANIFEST, digest, 7);
            descriptor.annotations.insert("note".to_owned(), "x".repeat(note));
            descriptor
        };
        (0..count).map(one).collect()
    }

    #[test]
    fn short_lists_are_one_page_in_their_own_order() {
        let all = listed(100, 100);
        assert_eq!(page(all.clone(), None), (all, None));
    }

    #[test]
    fn long_lists_come_whole_over_their_pages() {
        let all = listed(10, 1 << 20);
        let mut seen = HashSet::new();
        let (mut last, mut pages) = (None, 0);
        loop {
            let (entries, next) = page(all.clone(), last.as_deref());
            pages += 1;
            assert!(entries.iter().all(|entry| seen.insert(entry.digest)), "nothing comes twice");
            match next {
                Some(digest) => last = Some(digest.to_string()),
                None => break,
            }
        }
        assert_eq!((seen.len(), pages), (10, 5));
    }

    #[test]
    fn what_is_larger_than_a_page_has_its_own() {
        let (entries, next) = page(listed(2, PAGE + 1), None);
        assert_eq!(entries.len(), 1);
        assert!(next.is_some());
    }
}
