//! The indexer: a manifest that names layers by address becomes an inventory.
//!
//! Addresses are often signed for a minute, so all requests go out at once and the answers wait
//! for their turn to be read. A layer is kept as soon as it is read: whoever asks again after a
//! failure goes on where the last request ended.
//!
//! The API's `hash` is the caller's word, as in Clair: that these layers are that image is not
//! checked here. What is stored so has no digest of a configuration, which whoever must be sure can
//! tell it by.

use std::{
    collections::{BTreeMap, HashSet},
    io,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use futures_util::{
    StreamExt, TryStreamExt,
    stream::{self, BoxStream},
};
use http::{
    HeaderMap, HeaderName, HeaderValue, Method, StatusCode,
    header::{ETAG, LINK, LOCATION},
};
use kuboard_oci::{Digest, Hasher};
use kuboard_rt::http::RequestBody;
use kuboard_vuln::{ImageIdentity, ImageInventory, LayerInventory, LayerReference};
use serde::Deserialize;
use url::Url;

use super::{
    answer::{Answer, Head, Outcome, Refusal, digest_of, read},
    clair::{ClairApi, VULNERABILITY_REPORT},
    content::choose,
    outbound::FetchError,
};
use crate::{
    index::ARCHIVE,
    inspect::keep,
    inventories::decode,
    merge::merge,
    report::clair::{INDEX_REPORT_MEDIA_TYPE, IndexOutcome, index_report},
};

const MAX_BODY: usize = 8 << 20;
const MAX_LAYERS: usize = 1000;
/// Requests for layers that are open at once.
const OPEN: usize = 64;
const MAX_HEADERS: usize = 64;
const STATE_TYPE: &str = "application/vnd.clair.index_state.v1+json";
const JSON: &str = "application/json";
const DELETED_TYPE: &str = "application/vnd.clair.bulk_delete.v1+json";
/// Headers that belong to a connection or to how bytes travel, not to a layer.
const NOT_PASSED_ON: [&str; 12] = [
    "host",
    "connection",
    "content-length",
    "transfer-encoding",
    "te",
    "trailer",
    "upgrade",
    "keep-alive",
    "proxy-authorization",
    "accept-encoding",
    "range",
    "expect",
];

#[derive(Deserialize)]
struct Manifest {
    #[serde(default)]
    hash: String,
    #[serde(default)]
    layers: Option<Vec<Layer>>,
}

#[derive(Deserialize)]
struct Layer {
    hash: Digest,
    uri: String,
    #[serde(default)]
    headers: Option<BTreeMap<String, Vec<String>>>,
}

/// A layer as it was read.
#[derive(Clone)]
struct Fetched {
    inventory: Arc<LayerInventory>,
    /// Bytes of the blob; 0 if it was known.
    size: u64,
}

impl ClairApi {
    pub(super) fn state_tag(&self) -> String {
        format!("\"{}\"", self.engine.state())
    }

    /// `POST` and `DELETE` of `index_report`.
    pub(super) async fn index_reports(&self, head: &Head, body: RequestBody) -> Outcome {
        head.expect(&[Method::POST, Method::DELETE])?;
        if head.method == Method::DELETE {
            return self.delete_manifests(body).await;
        }
        let Ok(_place) = self.requests.try_acquire() else {
            let message = "server handling too many requests";
            return Err(Refusal::new(StatusCode::TOO_MANY_REQUESTS, message));
        };
        let body = read(body, MAX_BODY).await?;
        let manifest: Manifest = serde_json::from_slice(&body)
            .map_err(|error| Refusal::bad(format!("failed to deserialize manifest: {error}")))?;
        let layers = manifest.layers.unwrap_or_default();
        if manifest.hash.is_empty() || layers.is_empty() || layers.len() > MAX_LAYERS {
            return Err(Refusal::bad("bogus manifest"));
        }
        let hash: Digest = manifest
            .hash
            .parse()
            .map_err(|error| Refusal::bad(format!("failed to deserialize manifest: {error}")))?;
        let next = format!("{}/{hash}", head.path.trim_end_matches('/'));
        let rel = |path: &str, kind: &str| {
            format!("<{path}>; rel=\"https://projectquay.io/clair/v1/{kind}\"")
        };
        let links = [
            rel(&next, "index_report"),
            rel(&format!("{VULNERABILITY_REPORT}/{hash}"), "vulnerability_report"),
        ];
        let [first, second] = &links;
        let tag = self.state_tag();
        if head.has_unmodified(&tag) {
            let answer = Answer::empty(StatusCode::PRECONDITION_FAILED);
            return Ok(answer.with(LINK, first).with(LINK, second));
        }
        let inventory = self.index(&hash, &layers).await?;
        let answer = index_answer(StatusCode::CREATED, INDEX_REPORT_MEDIA_TYPE, &hash, &inventory)?;
        let answer = answer.with(ETAG, &tag).with(LOCATION, &next);
        Ok(answer.with(LINK, first).with(LINK, second))
    }

    async fn index(&self, hash: &Digest, layers: &[Layer]) -> Result<ImageInventory, Refusal> {
        if let Some((_, known)) = self.engine.inventory(hash).await? {
            return Ok(known);
        }
        let mut named = HashSet::new();
        let reads = layers.iter().filter(|layer| named.insert(layer.hash)).map(|layer| async {
            let fetched = self.layer(layer).await?;
            Ok::<_, Refusal>((layer.hash, fetched))
        });
        let reads: Vec<_> = reads.collect();
        let reading = stream::iter(reads).buffer_unordered(OPEN).try_collect::<BTreeMap<_, _>>();
        let limit = Duration::from_secs(self.settings.index_seconds.max(1));
        let read = tokio::time::timeout(limit, reading).await;
        let read =
            read.map_err(|_| Refusal::internal("failed to start scan: it takes too long"))?;
        let read = read?;
        let merged: Vec<(LayerReference, Arc<LayerInventory>)> = layers
            .iter()
            .filter_map(|layer| {
                let fetched = read.get(&layer.hash)?;
                let reference = LayerReference {
                    digest: layer.hash,
                    diff_id: fetched.inventory.diff_id,
                    created_by: String::new(),
                    size: fetched.size,
                };
                Some((reference, fetched.inventory.clone()))
            })
            .collect();
        let inventory = merge(&merged);
        let identity = ImageIdentity {
            name: hash.to_string(),
            digest: Some(*hash),
            size: merged.iter().map(|(layer, _)| layer.size).sum(),
            ..ImageIdentity::default()
        };
        self.engine.keep_inventory(hash, &identity, &inventory).await?;
        Ok(inventory)
    }

    /// What a layer holds, read by one request at a time.
    async fn layer(&self, layer: &Layer) -> Result<Fetched, Refusal> {
        let turn = self.layers.lock().entry(layer.hash).or_default().clone();
        let fetched = {
            let _turn = turn.lock().await;
            self.read_layer(layer).await
        };
        drop(turn);
        // Only the table still has it: nobody waits. A cancelled request leaves its entry to the
        // next one that ends.
        self.layers.lock().retain(|_, turn| Arc::strong_count(turn) > 1);
        let fetched = fetched?;
        let archive = |inventory: &LayerInventory| {
            let problem = inventory.problems.iter().find(|problem| problem.by == ARCHIVE);
            problem.filter(|_| inventory.entries == 0).map(|problem| problem.why.clone())
        };
        match archive(&fetched.inventory) {
            Some(why) => {
                Err(Refusal::bad(format!("failed to start scan: layer {}: {why}", layer.hash)))
            }
            None => Ok(fetched),
        }
    }

    async fn read_layer(&self, layer: &Layer) -> Result<Fetched, Refusal> {
        let inventories = &*self.engine.inspector().inventories;
        if let Some(known) = inventories.get(&layer.hash).await {
            return Ok(Fetched { inventory: Arc::new(known), size: 0 });
        }
        let failed = |reason: &dyn std::fmt::Display| {
            Refusal::internal(format!("failed to start scan: layer {}: {reason}", layer.hash))
        };
        let url: Url = layer.uri.parse().map_err(|error: url::ParseError| {
            Refusal::bad(format!("failed to start scan: layer {}: {error}", layer.hash))
        })?;
        let headers = passed_on(layer.headers.as_ref());
        let response = self.outbound.get(&url, &headers).await;
        let response = response.map_err(|error: FetchError| failed(&error))?;
        let _place = self.reading.acquire().await.map_err(Refusal::internal)?;
        let size = Arc::new(std::sync::atomic::AtomicU64::new(0));
        let checked = Checked {
            bytes: response.bytes_stream().map_err(reqwest::Error::without_url).boxed(),
            hasher: Some(Hasher::new(layer.hash.algorithm())),
            expected: layer.hash,
            seen: size.clone(),
            max: self.settings.max_layer_bytes,
        };
        let indexed = self.engine.inspector().index_stream(checked.into_stream()).await;
        let inventory = indexed.map_err(|error| failed(&error))?;
        keep(inventories, &layer.hash, &inventory).await;
        let size = size.load(std::sync::atomic::Ordering::Relaxed);
        Ok(Fetched { inventory: Arc::new(inventory), size })
    }

    async fn delete_manifests(&self, body: RequestBody) -> Outcome {
        let body = read(body, MAX_BODY).await?;
        let digests: Vec<Digest> = serde_json::from_slice(&body)
            .map_err(|error| Refusal::bad(format!("failed to deserialize bulk delete: {error}")))?;
        let mut gone = Vec::new();
        for digest in digests {
            if self.engine.catalog().forget_image(&digest).await? {
                gone.push(digest);
            }
        }
        Answer::json(StatusCode::OK, DELETED_TYPE, &gone)
    }

    /// `GET` and `DELETE` of one index report.
    pub(super) async fn index_report(&self, head: &Head, digest: &str) -> Outcome {
        head.expect(&[Method::GET, Method::DELETE])?;
        let digest = digest_of(digest)?;
        if head.method == Method::DELETE {
            self.engine.catalog().forget_image(&digest).await?;
            return Ok(Answer::empty(StatusCode::NO_CONTENT));
        }
        let media_type = choose(&head.headers, &[INDEX_REPORT_MEDIA_TYPE, JSON])?;
        let tag = self.state_tag();
        if head.has_unmodified(&tag) {
            return Ok(Answer::empty(StatusCode::NOT_MODIFIED));
        }
        let Some((_, inventory)) = self.any_inventory(&digest).await? else {
            return Err(Refusal::not_found("index report not found"));
        };
        Ok(index_answer(StatusCode::OK, media_type, &digest, &inventory)?.with(ETAG, &tag))
    }

    /// The inventory of an image, also one by older indexers: clients learn from the state that
    /// it may be made anew.
    pub(super) async fn any_inventory(
        &self,
        image: &Digest,
    ) -> Result<Option<(ImageIdentity, ImageInventory)>, Refusal> {
        let Some(row) = self.engine.catalog().image_inventory(image).await? else {
            return Ok(None);
        };
        let read = decode(&row.body).inspect_err(|error| {
            tracing::warn!(%image, %error, "stored inventory unreadable; it must be indexed anew");
        });
        Ok(read.ok())
    }

    /// `index_state`.
    pub(super) fn index_state(&self, head: &Head) -> Outcome {
        head.expect(&[Method::GET])?;
        let media_type = choose(&head.headers, &[STATE_TYPE, JSON])?;
        let tag = self.state_tag();
        if head.has_unmodified(&tag) {
            return Ok(Answer::empty(StatusCode::NOT_MODIFIED).with(ETAG, &tag));
        }
        let state = serde_json::json!({"state": self.engine.state()});
        Ok(Answer::json(StatusCode::OK, media_type, &state)?.with(ETAG, &tag))
    }
}

/// An index report. Clair has no word for "partly read"; `err` beside `success` tells people.
fn index_answer(
    status: StatusCode,
    media_type: &str,
    hash: &Digest,
    inventory: &ImageInventory,
) -> Outcome {
    let mut report = index_report(hash, inventory, IndexOutcome::Finished);
    if let Some(first) = inventory.problems.first() {
        let count = inventory.problems.len();
        report.err = format!("partly read ({count}): {} {}", first.path, first.why);
    }
    Answer::json(status, media_type, &report)
}

/// The headers that a caller wants to be sent for a layer.
fn passed_on(given: Option<&BTreeMap<String, Vec<String>>>) -> HeaderMap {
    let pairs = given
        .into_iter()
        .flatten()
        .flat_map(|(name, values)| values.iter().map(move |value| (name.as_str(), value.as_str())));
    let mut headers = HeaderMap::new();
    for (name, value) in pairs.take(MAX_HEADERS) {
        let name = HeaderName::from_bytes(name.as_bytes());
        let (Ok(name), Ok(value)) = (name, HeaderValue::from_str(value)) else { continue };
        if !NOT_PASSED_ON.contains(&name.as_str()) {
            headers.append(name, value);
        }
    }
    headers
}

/// Bytes that end with an error unless they are those of a digest.
struct Checked {
    bytes: BoxStream<'static, reqwest::Result<Bytes>>,
    /// Gone once the end was reached.
    hasher: Option<Hasher>,
    expected: Digest,
    seen: Arc<std::sync::atomic::AtomicU64>,
    max: u64,
}

impl Checked {
    fn into_stream(self) -> BoxStream<'static, io::Result<Bytes>> {
        stream::unfold(self, |mut checked| async move {
            let piece = checked.next().await?;
            if piece.is_err() {
                checked.hasher = None;
            }
            Some((piece, checked))
        })
        .boxed()
    }

    async fn next(&mut self) -> Option<io::Result<Bytes>> {
        let hasher = self.hasher.as_mut()?;
        match self.bytes.next().await {
            Some(Ok(piece)) => {
                hasher.update(&piece);
                let size = piece.len() as u64;
                let seen = self.seen.fetch_add(size, std::sync::atomic::Ordering::Relaxed) + size;
                if seen > self.max {
                    let reason = format!("it is longer than {} bytes", self.max);
                    return Some(Err(io::Error::new(io::ErrorKind::InvalidData, reason)));
                }
                Some(Ok(piece))
            }
            Some(Err(error)) => Some(Err(io::Error::other(error))),
            None => {
                let actual = self.hasher.take()?.finish();
                (actual != self.expected).then(|| {
                    let reason = format!("its bytes are those of {actual}");
                    Err(io::Error::new(io::ErrorKind::InvalidData, reason))
                })
            }
        }
    }
}
