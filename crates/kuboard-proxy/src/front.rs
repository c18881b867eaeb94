//! The role `registry-proxy` by itself: passes each request to the cache that keeps its
//! repository.
//!
//! The cache is chosen by rendezvous hashing of the repository's name, so that all requests for
//! one repository (its tags, its uploads, its downloads) meet in one process whatever front took
//! them, and a cache that comes or goes moves only its own share. A cache that does not answer is
//! passed over for the next in the order; bodies that were begun are not sent twice. An upload
//! under way lies in one cache alone, so the address that its client is told names that cache.

use std::{
    collections::HashMap,
    hash::{Hash, Hasher},
    io,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::Context;
use bytes::Bytes;
use futures_util::{Stream, stream};
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use kuboard_registry::server::{ApiError, ErrorCode, Route, route};
use kuboard_rt::{
    BoxFuture,
    http::{Body, Handler, Peer, Request, RequestBody, RequestId, Response},
};
use parking_lot::Mutex;
use tokio::time::timeout;

/// A cache that failed is passed over so long.
const REST: Duration = Duration::from_secs(5);

/// What an upload's address says, in its query, about the cache that has it.
const UPLOAD_AT: &str = "cache=";

/// A cache's word on its own readiness is waited for so long.
const READY_TIMEOUT: Duration = Duration::from_secs(2);

const FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Headers that belong to one connection.
const HOP_BY_HOP: [&str; 8] = [
    "connection",
    "keep-alive",
    "proxy-authenticate",
    "proxy-authorization",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
];

/// Where the caches are.
pub struct FrontConfig {
    /// Base URLs, such as `http://registry-cache-0.registry-cache:5000`.
    pub caches: Vec<String>,
    /// Time to reach a cache before the next is tried.
    pub connect_timeout: Duration,
    /// Time a cache may send nothing.
    pub read_timeout: Duration,
}

/// The front of a set of caches.
pub struct Front {
    caches: Vec<String>,
    client: reqwest::Client,
    read_timeout: Duration,
    resting: Mutex<HashMap<usize, Instant>>,
}

/// Why a cache gave no answer.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error(transparent)]
    Http(#[from] reqwest::Error),
    #[error("it takes and sends nothing")]
    Silent,
}

impl Failure {
    /// Whether the cache was not even reached, so that it cannot have done anything.
    fn is_unreached(&self) -> bool {
        matches!(self, Self::Http(error) if error.is_connect())
    }
}

impl FrontConfig {
    /// Makes the front; fails if there is no cache to pass requests to.
    pub fn build(self) -> anyhow::Result<Arc<Front>> {
        if self.caches.is_empty() {
            anyhow::bail!(
                "the role registry-proxy needs caches to pass requests to; hint: name them in \
                 [proxy] caches, or run it together with registry-cache"
            );
        }
        let client = reqwest::Client::builder()
            .connect_timeout(self.connect_timeout)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .context("no HTTP client")?;
        let caches = self.caches.iter().map(|url| url.trim_end_matches('/').to_owned()).collect();
        Ok(Arc::new(Front {
            caches,
            client,
            read_timeout: self.read_timeout,
            resting: Mutex::default(),
        }))
    }
}

/// The order in which caches are asked for a repository: highest score first.
fn order(caches: &[String], repository: &str) -> Vec<usize> {
    let mut scored: Vec<(u64, usize)> = caches
        .iter()
        .enumerate()
        .map(|(index, cache)| (fixed_hash((cache, repository)), index))
        .collect();
    scored.sort_unstable_by(|a, b| b.cmp(a));
    scored.into_iter().map(|(_, index)| index).collect()
}

/// The same in every process and release, other than the map's random one.
fn fixed_hash(value: impl Hash) -> u64 {
    let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
    value.hash(&mut hasher);
    mix(hasher.finish())
}

/// FNV-1a, for its fixed definition.
struct Fnv(u64);

impl Hasher for Fnv {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0000_0100_0000_01b3);
        }
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// Spreads a hash over all bits (the finaliser of SplitMix64), since scores are compared.
fn mix(mut value: u64) -> u64 {
    value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

impl Handler for Front {
    fn handle(&self, request: Request) -> BoxFuture<'_, Response> {
        Box::pin(async move { self.pass(request).await.unwrap_or_else(ApiError::into_response) })
    }
}

impl Front {
    /// Whether at least one cache takes requests; else says so, for the operator's eyes.
    pub async fn ready(&self) -> Result<(), String> {
        let asked = self.caches.iter().map(|cache| async move {
            let answer = self.client.get(format!("{cache}/readyz")).send();
            match timeout(READY_TIMEOUT, answer).await {
                Ok(Ok(answer)) if answer.status().is_success() => Ok(()),
                _ => Err(()),
            }
        });
        let asked = asked.map(Box::pin);
        let one = futures_util::future::select_ok(asked).await;
        one.map(|_| ()).map_err(|()| "no registry-cache is ready".to_owned())
    }

    async fn pass(&self, request: Request) -> Result<Response, ApiError> {
        let route = route(request.uri().path())?;
        let (mut parts, body) = request.into_parts();
        introduce(&mut parts);
        let repeatable = matches!(parts.method, Method::GET | Method::HEAD | Method::DELETE);
        let body = (!repeatable).then(|| Arc::new(Outgoing::new(body)));
        for index in self.candidates(&route, parts.uri.query()) {
            let error = match self.send(index, &parts, body.as_ref()).await {
                Ok(mut response) => {
                    if matches!(route, Route::Uploads(_) | Route::Upload(..)) {
                        name_cache(response.headers_mut(), &self.caches[index]);
                    }
                    return Ok(response);
                }
                Err(error) => error,
            };
            if body.as_ref().is_some_and(|body| body.is_broken()) {
                return Err(ApiError::new(ErrorCode::Unknown, "the request's body broke off")
                    .with_status(StatusCode::BAD_REQUEST));
            }
            tracing::warn!(cache = self.caches[index], %error, "cache does not answer");
            self.resting.lock().insert(index, Instant::now());
            if !repeatable && !error.is_unreached() {
                break;
            }
        }
        Err(ApiError::new(ErrorCode::Unknown, "no registry-cache answers")
            .with_status(StatusCode::BAD_GATEWAY)
            .with_retry_after(REST))
    }

    /// The caches that a request may go to, the best first.
    fn candidates(&self, route: &Route, query: Option<&str>) -> Vec<usize> {
        if matches!(route, Route::Upload(..))
            && let Some(index) = self.named_cache(query)
        {
            return vec![index];
        }
        let repository = match route {
            Route::Base | Route::Catalog | Route::Token => String::new(),
            Route::Tags(name)
            | Route::Manifest(name, _)
            | Route::Blob(name, _)
            | Route::Uploads(name)
            | Route::Upload(name, _)
            | Route::Referrers(name, _) => name.to_string(),
        };
        self.awake(order(&self.caches, &repository))
    }

    /// The cache that the address of an upload names.
    fn named_cache(&self, query: Option<&str>) -> Option<usize> {
        let name = query?.split('&').find_map(|part| part.strip_prefix(UPLOAD_AT))?;
        self.caches.iter().position(|cache| cache_name(cache) == name)
    }

    /// Caches that failed a moment ago go last.
    fn awake(&self, order: Vec<usize>) -> Vec<usize> {
        let mut resting = self.resting.lock();
        resting.retain(|_, since| since.elapsed() < REST);
        let (asleep, mut awake): (Vec<usize>, Vec<usize>) =
            order.into_iter().partition(|index| resting.contains_key(index));
        awake.extend(asleep);
        awake
    }

    async fn send(
        &self,
        index: usize,
        parts: &http::request::Parts,
        body: Option<&Arc<Outgoing>>,
    ) -> Result<Response, Failure> {
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let url = format!("{}{path}", self.caches[index]);
        // With the Host, which says which upstream is meant: the cache must see the client's.
        let mut headers = end_to_end(&parts.headers);
        if parts.extensions.get::<Peer>().is_some_and(|peer| peer.tls) {
            // Token challenges must name the address as the client reached it.
            let name = HeaderName::from_static("x-forwarded-proto");
            headers.insert(name, HeaderValue::from_static("https"));
        }
        if body.is_none() {
            // A promise of bytes that are not sent would swallow the next request's.
            headers.remove(header::CONTENT_LENGTH);
            headers.remove(header::EXPECT);
        }
        let mut request = self.client.request(parts.method.clone(), url).headers(headers);
        if let Some(body) = body {
            request = request.body(reqwest::Body::wrap_stream(body.clone().stream()));
        }
        let answer = self.answer(request.send(), body).await?;
        let mut response = Response::new(Body::empty());
        *response.status_mut() = answer.status();
        *response.headers_mut() = end_to_end(answer.headers());
        if parts.method != Method::HEAD {
            let length = answer.content_length();
            let bytes = incoming(answer, self.read_timeout);
            *response.body_mut() = match length {
                Some(length) => Body::sized_stream(length, bytes),
                None => Body::stream(bytes),
            };
        }
        Ok(response)
    }

    /// Waits for an answer's head as long as something moves: an upload may take its time.
    async fn answer(
        &self,
        sent: impl Future<Output = reqwest::Result<reqwest::Response>>,
        body: Option<&Arc<Outgoing>>,
    ) -> Result<reqwest::Response, Failure> {
        let mut sent = std::pin::pin!(sent);
        let passed = || body.map_or(0, |body| body.passed.load(Ordering::Relaxed));
        loop {
            let before = passed();
            match timeout(self.read_timeout, &mut sent).await {
                Ok(answer) => return Ok(answer?),
                Err(_) if passed() != before => {}
                Err(_) => return Err(Failure::Silent),
            }
        }
    }
}

/// Tells a cache what it can't see for itself: the request's id here, and that it came by TLS.
fn introduce(parts: &mut http::request::Parts) {
    if let Some(RequestId(id)) = parts.extensions.get::<RequestId>()
        && let Ok(id) = HeaderValue::from_str(id)
    {
        parts.headers.insert(REQUEST_ID, id);
    }
    let by_tls = parts.extensions.get::<Peer>().is_some_and(|peer| peer.tls);
    if by_tls && !parts.headers.contains_key(FORWARDED_PROTO) {
        parts.headers.insert(FORWARDED_PROTO, HeaderValue::from_static("https"));
    }
    // HTTP/2 has the name in the URI instead.
    if !parts.headers.contains_key(header::HOST)
        && let Some(authority) = parts.uri.authority()
        && let Ok(host) = HeaderValue::from_str(authority.as_str())
    {
        parts.headers.insert(header::HOST, host);
    }
}

/// A cache in the address of an upload, without telling where it is.
fn cache_name(cache: &str) -> String {
    format!("{:016x}", fixed_hash(cache))
}

/// Adds the cache's name to the address of an upload that it began or goes on with.
fn name_cache(headers: &mut HeaderMap, cache: &str) {
    let Some(Ok(location)) = headers.get(header::LOCATION).map(HeaderValue::to_str) else { return };
    if !location.contains("/blobs/uploads/") {
        return;
    }
    let joint = if location.contains('?') { '&' } else { '?' };
    let named = format!("{location}{joint}{UPLOAD_AT}{}", cache_name(cache));
    if let Ok(named) = HeaderValue::from_str(&named) {
        headers.insert(header::LOCATION, named);
    }
}

/// A request's body on its way. The first cache that is reached takes it.
struct Outgoing {
    body: Mutex<Option<RequestBody>>,
    /// Pieces passed on.
    passed: AtomicU64,
    /// The client did not send all of it: whatever fails then is not the cache's fault.
    broken: AtomicBool,
}

impl Outgoing {
    fn new(body: RequestBody) -> Self {
        let (passed, broken) = (AtomicU64::default(), AtomicBool::default());
        Self { body: Mutex::new(Some(body)), passed, broken }
    }

    fn is_broken(&self) -> bool {
        self.broken.load(Ordering::Relaxed)
    }

    /// The body; nothing if it was taken before.
    fn stream(self: Arc<Self>) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
        stream::unfold((self, None), |(outgoing, body)| async move {
            let mut body: RequestBody = match body {
                Some(body) => body,
                None => outgoing.body.lock().take()?,
            };
            let piece = body.next().await?;
            match &piece {
                Ok(_) => _ = outgoing.passed.fetch_add(1, Ordering::Relaxed),
                Err(_) => outgoing.broken.store(true, Ordering::Relaxed),
            }
            Some((piece, (outgoing, Some(body))))
        })
    }
}

/// The bytes of an answer, each awaited for a bounded time.
fn incoming(
    answer: reqwest::Response,
    patience: Duration,
) -> impl Stream<Item = io::Result<Bytes>> + Send + 'static {
    stream::unfold(Some(answer), move |answer| async move {
        let mut answer = answer?;
        let error = match timeout(patience, answer.chunk()).await {
            Ok(Ok(piece)) => return piece.map(|piece| (Ok(piece), Some(answer))),
            Ok(Err(error)) => io::Error::other(error),
            Err(_) => io::ErrorKind::TimedOut.into(),
        };
        Some((Err(error), None))
    })
}

fn end_to_end(headers: &HeaderMap<HeaderValue>) -> HeaderMap {
    let is_local = |name: &HeaderName| HOP_BY_HOP.contains(&name.as_str());
    headers
        .iter()
        .filter(|(name, _)| !is_local(name))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caches(count: usize) -> Vec<String> {
        (0..count).map(|n| format!("http://cache-{n}:5000")).collect()
    }

    #[test]
    fn a_cache_that_comes_moves_only_its_share() {
        let (before, after) = (caches(4), caches(5));
        let names: Vec<String> = (0..2000).map(|n| format!("library/image-{n}")).collect();
        let moved = names.iter().filter(|name| order(&before, name)[0] != order(&after, name)[0]);
        let moved: Vec<_> = moved.collect();
        assert!(moved.iter().all(|name| order(&after, name)[0] == 4), "only to the new one");
        assert!((250..550).contains(&moved.len()), "about a fifth: {}", moved.len());
    }

    #[test]
    fn an_upload_goes_back_to_the_cache_that_has_it() {
        let front = FrontConfig {
            caches: caches(3),
            connect_timeout: Duration::from_secs(1),
            read_timeout: Duration::from_secs(1),
        };
        let front = front.build().unwrap();
        let route =
            route("/v2/team/app/blobs/uploads/6f9619ff-8b86-d011-b42d-00c04fc964ff").unwrap();
        for (index, cache) in caches(3).iter().enumerate() {
            for location in [
                "/v2/team/app/blobs/uploads/6f9619ff-8b86-d011-b42d-00c04fc964ff",
                "/v2/team/app/blobs/uploads/6f9619ff-8b86-d011-b42d-00c04fc964ff?x=y",
            ] {
                let mut headers = HeaderMap::new();
                headers.insert(header::LOCATION, location.parse().unwrap());
                name_cache(&mut headers, cache);
                let told = headers[header::LOCATION].to_str().unwrap();
                let (path, query) = told.split_once('?').unwrap();
                assert_eq!(path, "/v2/team/app/blobs/uploads/6f9619ff-8b86-d011-b42d-00c04fc964ff");
                let query = format!("{query}&digest=sha256:00");
                assert_eq!(front.candidates(&route, Some(&query)), [index]);
            }
        }
        assert_eq!(front.candidates(&route, Some("cache=elsewhere")).len(), 3);
    }

    #[test]
    fn the_order_names_each_cache_once_and_is_fixed() {
        let caches = caches(3);
        let mut named = order(&caches, "library/alpine");
        assert_eq!(named, order(&caches, "library/alpine"));
        named.sort_unstable();
        assert_eq!(named, [0, 1, 2]);
    }
}
