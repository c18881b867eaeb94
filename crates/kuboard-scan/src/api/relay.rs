//! Clair's API where an external Clair scans: callers are let in as always, and what they ask for is
//! asked of that Clair, whose answer is theirs.

use std::sync::Arc;

use futures_util::TryStreamExt;
use http::{
    HeaderMap, HeaderName, StatusCode,
    header::{
        ACCEPT, ACCEPT_ENCODING, CACHE_CONTROL, CONTENT_ENCODING, CONTENT_TYPE, ETAG,
        IF_NONE_MATCH, LINK, LOCATION, RETRY_AFTER,
    },
};
use kuboard_rt::{
    BoxFuture,
    http::{Body, Handler, Request, Response},
};

use super::{
    Settings,
    access::Access,
    answer::{Answer, Refusal, read},
    clair::ClairApi,
    content::Encoding,
};
use crate::{clair_engine::ExternalClair, engine::Engine};

/// Longest request that is passed on: a notifier asks for what many vulnerabilities affect.
const MAX_BODY: usize = 64 << 20;
const ASKED: [HeaderName; 4] = [ACCEPT, ACCEPT_ENCODING, CONTENT_TYPE, IF_NONE_MATCH];
const ANSWERED: [HeaderName; 7] =
    [CONTENT_TYPE, CONTENT_ENCODING, ETAG, LOCATION, LINK, CACHE_CONTROL, RETRY_AFTER];

/// Clair's API, answered by an external Clair.
pub struct ClairRelay {
    access: Access,
    clair: Arc<ExternalClair>,
    engine: Arc<Engine>,
}

impl ClairRelay {
    /// Lets callers in by these settings.
    #[must_use]
    pub fn new(settings: &Settings, clair: Arc<ExternalClair>, engine: Arc<Engine>) -> Arc<Self> {
        Arc::new(Self { access: Access::new(settings), clair, engine })
    }

    /// Whether a path is one of this API's.
    #[must_use]
    pub fn serves(path: &str) -> bool {
        ClairApi::serves(path)
    }

    async fn relay(&self, request: Request) -> Result<Response, Refusal> {
        let (parts, body) = request.into_parts();
        if !self.access.admits(&parts.headers, self.engine.now_ms()) {
            return Err(Refusal::new(StatusCode::UNAUTHORIZED, "the key is missing or wrong"));
        }
        let body = read(body, MAX_BODY).await?;
        let (path, query) = (parts.uri.path(), parts.uri.query());
        let headers = chosen(&parts.headers, &ASKED);
        let asked = self.clair.pass_on(parts.method, path, query, headers, body).await;
        let answer =
            asked.map_err(|error| Refusal::new(StatusCode::BAD_GATEWAY, error.to_string()))?;
        let (status, headers) = (answer.status(), chosen(answer.headers(), &ANSWERED));
        let bytes = answer.bytes_stream().map_err(reqwest::Error::without_url);
        let mut response = Response::new(Body::stream(bytes.map_err(std::io::Error::other)));
        *response.status_mut() = status;
        *response.headers_mut() = headers;
        Ok(response)
    }
}

fn chosen(all: &HeaderMap, names: &[HeaderName]) -> HeaderMap {
    let wanted = all.iter().filter(|(name, _)| names.contains(name));
    wanted.map(|(name, value)| (name.clone(), value.clone())).collect()
}

impl Handler for ClairRelay {
    fn handle(&self, request: Request) -> BoxFuture<'_, Response> {
        Box::pin(async move {
            let refusal = match self.relay(request).await {
                Ok(response) => return response,
                Err(refusal) => refusal,
            };
            let answer = match refusal.status {
                StatusCode::UNAUTHORIZED => Answer::empty(StatusCode::UNAUTHORIZED),
                _ => refusal.into_clair(),
            };
            answer.into_response(Encoding::Identity, &self.engine.inspector().tasks).await
        })
    }
}
