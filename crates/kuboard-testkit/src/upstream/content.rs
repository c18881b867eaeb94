//! What the fake upstream holds, and which of it a path names.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use kuboard_oci::{Digest, media_type};
use serde_json::{Value, json};

use crate::http::Headers;
use crate::image::{Blob, Image};
use crate::server::Received;
use crate::upstream::last_digest;

/// Repositories with their manifests; blobs are shared by all of them.
#[derive(Default)]
pub(crate) struct Content {
    repositories: HashMap<String, Repository>,
    blobs: HashMap<Digest, Arc<[u8]>>,
}

#[derive(Default)]
struct Repository {
    tags: BTreeMap<String, Manifest>,
    manifests: HashMap<Digest, Manifest>,
}

#[derive(Clone)]
struct Manifest {
    media_type: String,
    bytes: Arc<[u8]>,
}

/// What a request's path named.
pub(crate) enum Found {
    /// Nothing, with the error code of the specification.
    Nothing(&'static str),
    /// Something that ranges do not apply to.
    Answer { headers: Headers, body: Arc<[u8]> },
    /// A blob.
    Blob { headers: Headers, body: Arc<[u8]> },
}

impl Content {
    pub(crate) fn put_image(&mut self, repository: &str, image: &Image) {
        for blob in &image.blobs {
            self.put_blob(blob);
        }
        for child in &image.children {
            self.put_image(repository, child);
        }
        let manifest =
            Manifest { media_type: image.media_type.clone(), bytes: Arc::clone(&image.manifest) };
        let home = self.repositories.entry(repository.to_owned()).or_default();
        home.manifests.insert(image.digest, manifest);
    }

    pub(crate) fn tag(&mut self, repository: &str, tag: &str, digest: &Digest) {
        let home = self.repositories.entry(repository.to_owned()).or_default();
        if let Some(manifest) = home.manifests.get(digest).cloned() {
            home.tags.insert(tag.to_owned(), manifest);
        }
    }

    pub(crate) fn put_manifest(
        &mut self,
        repository: &str,
        reference: &str,
        media_type: &str,
        bytes: &[u8],
    ) {
        let manifest = Manifest { media_type: media_type.to_owned(), bytes: bytes.into() };
        let home = self.repositories.entry(repository.to_owned()).or_default();
        match reference.parse() {
            Ok(digest) => home.manifests.insert(digest, manifest),
            Err(_) => {
                home.manifests.insert(Digest::sha256(bytes), manifest.clone());
                home.tags.insert(reference.to_owned(), manifest)
            }
        };
    }

    pub(crate) fn put_blob(&mut self, blob: &Blob) {
        self.blobs.insert(blob.digest, Arc::clone(&blob.bytes));
    }

    pub(crate) fn delete_tag(&mut self, repository: &str, tag: &str) {
        if let Some(home) = self.repositories.get_mut(repository) {
            home.tags.remove(tag);
        }
    }

    pub(crate) fn find(&self, request: &Received) -> Found {
        let path = request.path.trim_end_matches('/');
        if path == "/v2" {
            return answer("application/json", b"{}".as_slice().into());
        }
        let Some((repository, kind, name)) = split(path) else {
            return Found::Nothing("NAME_UNKNOWN");
        };
        if kind == "blobs" {
            return self.blob(path);
        }
        let Some(home) = self.repositories.get(repository) else {
            return Found::Nothing("NAME_UNKNOWN");
        };
        match kind {
            "manifests" => home.manifest(name),
            "tags" => home.tags(repository, request),
            _ => home.referrers(path, request),
        }
    }

    fn blob(&self, path: &str) -> Found {
        let digest = last_digest(path);
        let Some((digest, body)) = digest.and_then(|it| self.blobs.get_key_value(&it)) else {
            return Found::Nothing("BLOB_UNKNOWN");
        };
        let mut headers = Headers::from([("Content-Type", media_type::OCTET_STREAM)]);
        headers.add("Docker-Content-Digest", digest.to_string());
        Found::Blob { headers, body: Arc::clone(body) }
    }
}

impl Repository {
    fn manifest(&self, reference: &str) -> Found {
        let found = match reference.parse::<Digest>() {
            Ok(digest) => self.manifests.get(&digest),
            Err(_) => self.tags.get(reference),
        };
        let Some(manifest) = found else { return Found::Nothing("MANIFEST_UNKNOWN") };
        let digest = Digest::sha256(&manifest.bytes).to_string();
        let mut headers = Headers::from([("Content-Type", manifest.media_type.as_str())]);
        headers.add("ETag", format!("\"{digest}\""));
        headers.add("Docker-Content-Digest", digest);
        Found::Answer { headers, body: Arc::clone(&manifest.bytes) }
    }

    fn tags(&self, repository: &str, request: &Received) -> Found {
        let last = request.parameter("last").unwrap_or_default();
        let limit = request.parameter("n").and_then(|n| n.parse().ok()).unwrap_or(usize::MAX);
        let after: Vec<&String> = self.tags.keys().filter(|tag| **tag > last).collect();
        let page: Vec<&String> = after.iter().take(limit).copied().collect();
        let body = json!({"name": repository, "tags": page}).to_string();
        let mut headers = Headers::from([("Content-Type", "application/json")]);
        if let (true, Some(last)) = (page.len() < after.len(), page.last()) {
            let next = format!("</v2/{repository}/tags/list?n={limit}&last={last}>; rel=\"next\"");
            headers.add("Link", next);
        }
        Found::Answer { headers, body: body.into_bytes().into() }
    }

    fn referrers(&self, path: &str, request: &Received) -> Found {
        let Some(subject) = last_digest(path).map(|digest| digest.to_string()) else {
            return Found::Nothing("DIGEST_INVALID");
        };
        let wanted = request.parameter("artifactType");
        let mut found: Vec<Value> = Vec::new();
        for (digest, manifest) in &self.manifests {
            let Ok(view) = serde_json::from_slice::<Value>(&manifest.bytes) else { continue };
            if view["subject"]["digest"] != json!(subject) {
                continue;
            }
            let kind = match &view["artifactType"] {
                Value::Null => view["config"]["mediaType"].clone(),
                named => named.clone(),
            };
            if wanted.as_ref().is_some_and(|wanted| kind != json!(wanted)) {
                continue;
            }
            found.push(json!({
                "mediaType": manifest.media_type,
                "digest": digest.to_string(),
                "size": manifest.bytes.len(),
                "artifactType": kind,
            }));
        }
        found.sort_by_key(|it| it["digest"].to_string());
        let body = json!({
            "schemaVersion": 2,
            "mediaType": media_type::OCI_INDEX,
            "manifests": found,
        });
        answer(media_type::OCI_INDEX, body.to_string().into_bytes().into())
    }
}

fn answer(media_type: &str, body: Arc<[u8]>) -> Found {
    Found::Answer { headers: [("Content-Type", media_type)].into(), body }
}

/// The repository that a path speaks of.
pub(crate) fn repository(path: &str) -> Option<&str> {
    split(path).map(|(repository, _, _)| repository)
}

/// Repository, kind (`manifests`, `blobs`, `tags`, `referrers`) and what follows.
fn split(path: &str) -> Option<(&str, &str, &str)> {
    let rest = path.strip_prefix("/v2/")?;
    let (head, name) = rest.rsplit_once('/')?;
    let (repository, kind) = head.rsplit_once('/')?;
    matches!(kind, "manifests" | "blobs" | "tags" | "referrers").then_some((repository, kind, name))
}
