//! The role `registry-proxy` by itself: passes each request to the cache that keeps its
//! repository.
//!
//! The cache is chosen by rendezvous hashing of the repository's name, so that all requests for
//! one repository (its tags, its uploads, its downloads) meet in one process whatever front took
//! them, and a cache that comes or goes moves only its own share. A cache that does not answer is
//! passed over for the next in the order; bodies that were begun are not sent twice.

use std::{
    collections::HashMap,
    hash::{Hash, Hasher},
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::Context;
use futures_util::StreamExt;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header};
use kuboard_registry::server::{ApiError, ErrorCode, Route, route};
use kuboard_rt::{
    BoxFuture,
    http::{Body, Handler, Request, Response},
};
use parking_lot::Mutex;

/// A cache that failed is passed over so long.
const REST: Duration = Duration::from_secs(5);

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
    resting: Mutex<HashMap<usize, Instant>>,
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
            .read_timeout(self.read_timeout)
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .build()
            .context("no HTTP client")?;
        let caches =
            self.caches.iter().map(|url| url.trim_end_matches('/').to_owned()).collect();
        Ok(Arc::new(Front { caches, client, resting: Mutex::default() }))
    }
}

/// The order in which caches are asked for a repository: highest score first.
fn order(caches: &[String], repository: &str) -> Vec<usize> {
    let mut scored: Vec<(u64, usize)> = caches
        .iter()
        .enumerate()
        .map(|(index, cache)| {
            // The same in every process and release: a fixed hash, not the map's random one.
            let mut hasher = Fnv(0xcbf2_9ce4_8422_2325);
            (cache, repository).hash(&mut hasher);
            (mix(hasher.finish()), index)
        })
        .collect();
    scored.sort_unstable_by(|a, b| b.cmp(a));
    scored.into_iter().map(|(_, index)| index).collect()
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
        Box::pin(async move {
            self.pass(request).await.unwrap_or_else(ApiError::into_response)
        })
    }
}

impl Front {
    async fn pass(&self, request: Request) -> Result<Response, ApiError> {
        let route = route(request.uri().path())?;
        let repository = match &route {
            Route::Base | Route::Catalog | Route::Token => String::new(),
            Route::Tags(name)
            | Route::Manifest(name, _)
            | Route::Blob(name, _)
            | Route::Uploads(name)
            | Route::Upload(name, _)
            | Route::Referrers(name, _) => name.to_string(),
        };
        let order = self.awake(order(&self.caches, &repository));
        let (parts, body) = request.into_parts();
        let repeatable = matches!(parts.method, Method::GET | Method::HEAD | Method::DELETE);
        let mut body = Some(body);
        let mut last = None;
        for index in order {
            let sent = if repeatable { None } else { body.take() };
            if !repeatable && sent.is_none() {
                break;
            }
            match self.send(index, &parts, sent).await {
                Ok(response) => return Ok(response),
                Err(error) => {
                    tracing::warn!(cache = self.caches[index], %error, "cache does not answer");
                    self.resting.lock().insert(index, Instant::now());
                    last = Some(error);
                }
            }
        }
        let why = last.map_or_else(|| "none is known".to_owned(), |error| error.to_string());
        Err(ApiError::new(ErrorCode::Unknown, format!("no registry-cache answers: {why}"))
            .with_status(StatusCode::BAD_GATEWAY)
            .with_retry_after(REST))
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
        body: Option<kuboard_rt::http::RequestBody>,
    ) -> Result<Response, reqwest::Error> {
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let url = format!("{}{path}", self.caches[index]);
        let mut headers = end_to_end(&parts.headers);
        if let Some(host) = parts.headers.get(header::HOST) {
            // The Host says which upstream is meant; the cache must see the client's.
            headers.insert(header::HOST, host.clone());
        }
        let mut request = self.client.request(parts.method.clone(), url).headers(headers);
        if let Some(body) = body {
            let chunks = futures_util::stream::unfold(body, |mut body| async move {
                body.next().await.map(|chunk| (chunk, body))
            });
            request = request.body(reqwest::Body::wrap_stream(chunks));
        }
        let answer = request.send().await?;
        let mut response = Response::new(Body::empty());
        *response.status_mut() = answer.status();
        *response.headers_mut() = end_to_end(answer.headers());
        let length = answer.content_length();
        if parts.method != Method::HEAD {
            let bytes = answer.bytes_stream().map(|chunk| chunk.map_err(std::io::Error::other));
            *response.body_mut() = match length {
                Some(length) => Body::sized_stream(length, bytes),
                None => Body::stream(bytes),
            };
        }
        Ok(response)
    }
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
    fn the_order_names_each_cache_once_and_is_fixed() {
        let caches = caches(3);
        let mut named = order(&caches, "library/alpine");
        assert_eq!(named, order(&caches, "library/alpine"));
        named.sort_unstable();
        assert_eq!(named, [0, 1, 2]);
    }
}
