//! Clair's API as one handler: who may call, what is meant, in which form it is answered.

use std::sync::Arc;

use anyhow::Context;
use http::{
    HeaderName, Method, StatusCode,
    header::{CACHE_CONTROL, ETAG},
};
use kuboard_oci::Digest;
use kuboard_rt::{
    BoxFuture,
    http::{Handler, Request, RequestBody, Response},
};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use tokio::sync::{Notify, Semaphore};

use super::{
    Settings,
    access::Access,
    answer::{Answer, Head, Outcome, Refusal},
    content::{Encoding, choose},
    outbound::Outbound,
};
use crate::engine::Engine;

const INDEX_REPORT: &str = "/indexer/api/v1/index_report";
const INDEX_STATE: &str = "/indexer/api/v1/index_state";
const AFFECTED: &str = "/indexer/api/v1/internal/affected_manifest";
pub(super) const VULNERABILITY_REPORT: &str = "/matcher/api/v1/vulnerability_report";
const UPDATE_OPERATION: &str = "/matcher/api/v1/internal/update_operation";
const UPDATE_DIFF: &str = "/matcher/api/v1/internal/update_diff";
pub(super) const NOTIFICATION: &str = "/notifier/api/v1/notification";
const OPENAPI: &str = "/openapi/v1";
const ROBOTS: &str = "/robots.txt";

/// The description of the API; JSON is YAML, too.
const DESCRIPTION: &str = include_str!("openapi.json");

/// Clair v4's HTTP API over an [`Engine`].
pub struct ClairApi {
    pub(super) settings: Settings,
    pub(super) access: Access,
    pub(super) engine: Arc<Engine>,
    pub(super) outbound: Outbound,
    /// Without the guard: the target is the administrator's word.
    pub(super) client: reqwest::Client,
    /// Index requests.
    pub(super) requests: Semaphore,
    /// Layers that are being read, over all requests.
    pub(super) reading: Semaphore,
    /// Layers that some request is fetching.
    pub(super) layers: Mutex<FxHashMap<Digest, Arc<tokio::sync::Mutex<()>>>>,
    /// A notification was added.
    pub(super) added: Notify,
}

impl ClairApi {
    /// The API with these settings.
    ///
    /// # Errors
    /// TLS can't be set up.
    pub fn new(settings: Settings, engine: Arc<Engine>) -> anyhow::Result<Arc<Self>> {
        let outbound = Outbound::new(settings.allow_private_addresses).context("HTTP client")?;
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .timeout(std::time::Duration::from_secs(30))
            .build()
            .context("HTTP client")?;
        let parallel = engine.inspector().parallel.max(1);
        Ok(Arc::new(Self {
            access: Access::new(&settings),
            requests: Semaphore::new(settings.index_requests.clamp(1, Semaphore::MAX_PERMITS)),
            reading: Semaphore::new((parallel * 2).min(Semaphore::MAX_PERMITS)),
            layers: Mutex::default(),
            added: Notify::new(),
            settings,
            engine,
            outbound,
            client,
        }))
    }

    /// Whether a path is one of this API's.
    #[must_use]
    pub fn serves(path: &str) -> bool {
        let roots = ["/indexer/api/v1/", "/matcher/api/v1/", "/notifier/api/v1/"];
        path == OPENAPI || path == ROBOTS || roots.iter().any(|root| path.starts_with(root))
    }

    async fn route(&self, head: &Head, body: RequestBody) -> Outcome {
        let path = head.path.as_str();
        if path == ROBOTS {
            return robots(head);
        }
        if !self.access.admits(&head.headers, self.engine.now_ms()) {
            return Ok(Answer::empty(StatusCode::UNAUTHORIZED));
        }
        let below = |root: &str| {
            let rest = path.strip_prefix(root)?.strip_prefix('/')?;
            (!rest.is_empty()).then_some(rest)
        };
        match path.strip_suffix('/').unwrap_or(path) {
            OPENAPI => return description(head),
            INDEX_REPORT => return self.index_reports(head, body).await,
            INDEX_STATE => return self.index_state(head),
            AFFECTED => return self.affected_manifests(head, body).await,
            UPDATE_OPERATION => return self.update_operations(head),
            UPDATE_DIFF => return self.update_diff(head),
            _ => {}
        }
        if let Some(digest) = below(INDEX_REPORT) {
            self.index_report(head, digest).await
        } else if let Some(digest) = below(VULNERABILITY_REPORT) {
            self.vulnerability_report(head, digest).await
        } else if let Some(id) = below(UPDATE_OPERATION) {
            delete_update_operation(head, id)
        } else if let Some(id) = below(NOTIFICATION) {
            self.notification(head, id).await
        } else {
            Err(Refusal::not_found("there is nothing here"))
        }
    }
}

impl Handler for ClairApi {
    fn handle(&self, request: Request) -> BoxFuture<'_, Response> {
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let head = Head::of(parts);
            let encoding = Encoding::of(&head.headers);
            let outcome = self.route(&head, body).await;
            let answer = outcome.unwrap_or_else(|refusal| {
                tracing::debug!(path = %head.path, status = %refusal.status,
                    reason = %refusal.message, "refused");
                refusal.into_clair()
            });
            answer.into_response(encoding, &self.engine.inspector().tasks).await
        })
    }
}

fn robots(head: &Head) -> Outcome {
    head.expect(&[Method::GET, Method::HEAD])?;
    let text = "User-agent: *\nDisallow: /\n";
    Ok(Answer::bytes(StatusCode::OK, "text/plain; charset=utf-8", text)
        .with(HeaderName::from_static("x-content-type-options"), "nosniff")
        .with(CACHE_CONTROL, "no-store"))
}

fn description(head: &Head) -> Outcome {
    head.expect(&[Method::GET])?;
    let media_type = choose(
        &head.headers,
        &[
            "application/openapi+json",
            "application/openapi+yaml",
            "application/json",
            "application/yaml",
            "application/vnd.oai.openapi+json",
            "application/vnd.oai.openapi+yaml",
        ],
    )?;
    let etag = format!("\"{}\"", Digest::sha256(DESCRIPTION.as_bytes()).hex());
    if head.has_unmodified(&etag) {
        return Ok(Answer::empty(StatusCode::NOT_MODIFIED).with(ETAG, &etag));
    }
    Ok(Answer::bytes(StatusCode::OK, media_type, DESCRIPTION).with(ETAG, &etag))
}

/// Generations of advisories go by themselves; whoever deletes one is only told that it is well.
fn delete_update_operation(head: &Head, id: &str) -> Outcome {
    head.expect(&[Method::DELETE])?;
    uuid_of(id)?;
    Ok(Answer::empty(StatusCode::OK))
}

/// The id that a path ends with.
pub(super) fn uuid_of(text: &str) -> Result<uuid::Uuid, Refusal> {
    text.parse().map_err(|error| Refusal::bad(format!("could not parse {text:?}: {error}")))
}

/// An id that is made of what it stands for, so that the same thing has the same id everywhere.
pub(super) fn stable_id(parts: &[&str]) -> uuid::Uuid {
    let mut hasher = kuboard_oci::Hasher::new(kuboard_oci::Algorithm::Sha256);
    for part in parts {
        hasher.update(part.as_bytes());
        hasher.update(&[0]);
    }
    let mut bytes = [0; 16];
    for (to, from) in bytes.iter_mut().zip(hasher.finish().bytes()) {
        *to = *from;
    }
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}
