//! An external Clair 4 in place of the own engine: it is told where the layers are, fetches them
//! from this registry, and its report becomes a [`Report`], so that nothing behind it knows the
//! difference.

mod mapping;
mod scanner;
mod token;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::StreamExt;
use http::{
    StatusCode,
    header::{AUTHORIZATION, ETAG, IF_NONE_MATCH, RETRY_AFTER},
};
use kuboard_oci::{Digest, RepositoryName};
use kuboard_rt::{Clock, retry::Backoff};
use kuboard_vuln::{ImageIdentity, LayerReference, Report};
use parking_lot::Mutex;
use rustc_hash::FxHashMap;
use serde::Deserialize;
use serde_json::json;
use url::Url;

pub use mapping::{MapError, report_of};
pub use scanner::{ClairScanner, LOOK};
pub use token::{INTRASERVICE, Psk};

/// Largest document that is read.
const MAX_BODY: usize = 256 << 20;
/// Of an error's body that is shown.
const MAX_ERROR: usize = 4 << 10;
/// Manifests whose state is remembered.
const REMEMBERED: usize = 50_000;
/// Clair's clients wait so long for an index.
const PATIENCE: Duration = Duration::from_secs(600);
const TOKEN_SECONDS: i64 = 300;
const PAUSE: Backoff = Backoff { base: Duration::from_secs(1), cap: Duration::from_secs(30) };

/// How Clair is reached.
#[derive(Clone, Debug)]
pub struct ClairSettings {
    /// Its base address, such as `http://clair:6060`.
    pub url: Url,
    /// Its `auth.psk.key`, decoded.
    pub psk: Option<Vec<u8>>,
    /// Issuer of the tokens sent to it; [`INTRASERVICE`] is always allowed.
    pub issuer: String,
    /// How it reaches this registry, such as `http://registry-cache:5000`.
    pub registry_url: Url,
    /// Tries of one request, the first one included, while Clair is busy, starting, or away.
    pub tries: u32,
}

/// An image, as Clair must be told of it.
pub struct ClairImage<'a> {
    /// What it is; it becomes the report's image.
    pub identity: &'a ImageIdentity,
    /// Digest of the manifest.
    pub manifest: Digest,
    /// The repository below `/v2/` of this registry, such as `docker.io/library/nginx`.
    pub repository: &'a RepositoryName,
    /// From the lowest up.
    pub layers: &'a [LayerReference],
}

/// Gives the `Authorization` header by which a repository of this registry may be read for some
/// minutes; `None` if none is needed.
pub type Authorize = Arc<dyn Fn(&RepositoryName) -> Option<String> + Send + Sync>;

/// Why there is no report.
#[derive(Debug, thiserror::Error)]
pub enum ClairError {
    /// Clair did not answer, is busy, or is starting.
    #[error("{0}")]
    Unavailable(String),
    /// Clair could not do it with this image, this time.
    #[error("{0}")]
    Failed(String),
    /// Clair refuses the key.
    #[error("clair refuses the key; hint: scan.clair.pskFile must be its auth.psk.key")]
    Unauthorized,
    /// Clair refuses the image, or its answer can't be read: no use in asking again.
    #[error("{0}")]
    Invalid(String),
}

impl ClairError {
    /// Whether the same may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Unavailable(_) | Self::Failed(_))
    }
}

/// The last update of one source of Clair's advisories.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Update {
    /// Name of the source's updater.
    pub updater: String,
    /// The update's id.
    pub reference: String,
    /// When it was, milliseconds since 1970.
    pub at_ms: i64,
}

/// An update as Clair tells of it.
#[derive(Deserialize)]
struct Operation {
    #[serde(rename = "ref")]
    reference: String,
    #[serde(default)]
    date: String,
}

impl Operation {
    fn at_ms(&self) -> i64 {
        self.date.parse::<jiff::Timestamp>().map_or(0, jiff::Timestamp::as_millisecond)
    }
}

/// What Clair answered.
struct Answered {
    status: StatusCode,
    etag: String,
    body: Vec<u8>,
}

/// A client of an external Clair.
pub struct ExternalClair {
    settings: ClairSettings,
    psk: Option<Psk>,
    authorize: Authorize,
    clock: Arc<dyn Clock>,
    client: reqwest::Client,
    /// The indexer's state by manifest, as `If-None-Match` wants it.
    indexed: Mutex<FxHashMap<Digest, String>>,
}

impl ExternalClair {
    /// A client with these settings.
    ///
    /// # Errors
    /// TLS can't be set up.
    pub fn new(
        settings: ClairSettings,
        authorize: Authorize,
        clock: Arc<dyn Clock>,
    ) -> Result<Arc<Self>, reqwest::Error> {
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .connect_timeout(Duration::from_secs(10))
            .timeout(PATIENCE)
            .build()?;
        let psk = settings.psk.as_deref().map(Psk::new);
        let indexed = Mutex::default();
        Ok(Arc::new(Self { settings, psk, authorize, clock, client, indexed }))
    }

    /// Clair's report on an image: indexes it where Clair does not know it or knows it by older
    /// indexers, then asks for what is known of it today.
    ///
    /// # Errors
    /// See [`ClairError`].
    pub async fn report(&self, image: &ClairImage<'_>) -> Result<Report, ClairError> {
        self.index(image).await?;
        let path = format!("matcher/api/v1/vulnerability_report/{}", image.manifest);
        let mut answer = self.ask(reqwest::Method::GET, &path, None, "").await?;
        if answer.status == StatusCode::NOT_FOUND {
            // Its database is another one than last time.
            self.indexed.lock().remove(&image.manifest);
            self.index(image).await?;
            answer = self.ask(reqwest::Method::GET, &path, None, "").await?;
        }
        match answer.status {
            // The description says 201, the program 200.
            StatusCode::OK | StatusCode::CREATED => {}
            _ => return Err(unexpected("its vulnerability report", &answer)),
        }
        report_of(&answer.body, image.identity, image.layers, self.clock.now_ms())
            .map_err(|error| ClairError::Invalid(error.to_string()))
    }

    /// Has an image indexed, unless that was done by the indexers of now.
    ///
    /// # Errors
    /// See [`ClairError`].
    pub async fn index(&self, image: &ClairImage<'_>) -> Result<(), ClairError> {
        let known = self.indexed.lock().get(&image.manifest).cloned().unwrap_or_default();
        let manifest = self.manifest(image)?;
        let path = "indexer/api/v1/index_report";
        let answer = self.ask(reqwest::Method::POST, path, Some(&manifest), &known).await?;
        match answer.status {
            StatusCode::OK | StatusCode::CREATED => {}
            StatusCode::PRECONDITION_FAILED | StatusCode::NOT_MODIFIED => return Ok(()),
            _ => return Err(unexpected("its index", &answer)),
        }
        let report: serde_json::Value = serde_json::from_slice(&answer.body)
            .map_err(|error| ClairError::Invalid(format!("clair's index report: {error}")))?;
        if report["success"] == serde_json::Value::Bool(false) {
            let reason = report["err"].as_str().unwrap_or("it says no reason");
            return Err(ClairError::Failed(format!("clair can't index the image: {reason}")));
        }
        let mut indexed = self.indexed.lock();
        if indexed.len() >= REMEMBERED {
            indexed.clear();
        }
        if !answer.etag.is_empty() {
            indexed.insert(image.manifest, answer.etag);
        }
        Ok(())
    }

    /// The last update of each source of Clair's advisories.
    ///
    /// # Errors
    /// See [`ClairError`].
    pub async fn updates(&self) -> Result<Vec<Update>, ClairError> {
        let url = self.address("matcher/api/v1/internal/update_operation", Some("latest=true"));
        let (answer, _) = self.ask_once(&reqwest::Method::GET, url, None, "").await?;
        if answer.status != StatusCode::OK {
            return Err(unexpected("the state of its advisories", &answer));
        }
        let told: BTreeMap<String, Option<Vec<Operation>>> = serde_json::from_slice(&answer.body)
            .map_err(|error| {
            ClairError::Invalid(format!("clair's update operations: {error}"))
        })?;
        let last = |(updater, operations): (String, Option<Vec<Operation>>)| {
            let last = operations.into_iter().flatten().max_by_key(Operation::at_ms)?;
            Some(Update { updater, at_ms: last.at_ms(), reference: last.reference })
        };
        Ok(told.into_iter().filter_map(last).collect())
    }

    /// Passes a request on, as it is but for who sends it.
    ///
    /// # Errors
    /// Clair can't be reached.
    pub async fn pass_on(
        &self,
        method: http::Method,
        path: &str,
        query: Option<&str>,
        headers: http::HeaderMap,
        body: Bytes,
    ) -> Result<reqwest::Response, ClairError> {
        let mut request = self.client.request(method, self.address(path, query)).headers(headers);
        if let Some(token) = self.token()? {
            request = request.header(AUTHORIZATION, token);
        }
        request.body(body).send().await.map_err(away)
    }

    fn address(&self, path: &str, query: Option<&str>) -> Url {
        let mut url = below(&self.settings.url, path.trim_start_matches('/'));
        url.set_query(query);
        url
    }

    fn token(&self) -> Result<Option<String>, ClairError> {
        let Some(psk) = &self.psk else { return Ok(None) };
        let token = psk.sign(&self.settings.issuer, self.clock.now_ms(), TOKEN_SECONDS);
        let token = token.map_err(|error| ClairError::Invalid(error.to_string()))?;
        Ok(Some(format!("Bearer {token}")))
    }

    fn manifest(&self, image: &ClairImage<'_>) -> Result<serde_json::Value, ClairError> {
        let headers = match (self.authorize)(image.repository) {
            Some(value) => json!({"Authorization": [value]}),
            None => json!({}),
        };
        let mut layers = Vec::with_capacity(image.layers.len());
        for layer in image.layers {
            let path = format!("v2/{}/blobs/{}", image.repository, layer.digest);
            let uri = below(&self.settings.registry_url, &path);
            layers.push(json!({"hash": layer.digest, "uri": uri.as_str(), "headers": headers}));
        }
        if layers.is_empty() {
            return Err(ClairError::Invalid("the image has no layers".to_owned()));
        }
        Ok(json!({"hash": image.manifest, "layers": layers}))
    }

    /// Asks until there is an answer that is one: 202 means that Clair has no advisories yet, 429
    /// that it is busy.
    async fn ask(
        &self,
        method: reqwest::Method,
        path: &str,
        body: Option<&serde_json::Value>,
        validator: &str,
    ) -> Result<Answered, ClairError> {
        let mut attempt = 0;
        loop {
            let url = self.address(path, None);
            let (reason, pause) = match self.ask_once(&method, url, body, validator).await {
                Ok((answer, pause)) => match answer.status {
                    StatusCode::ACCEPTED => ("clair has no advisories yet".to_owned(), pause),
                    StatusCode::TOO_MANY_REQUESTS => ("clair is busy".to_owned(), pause),
                    StatusCode::BAD_GATEWAY
                    | StatusCode::SERVICE_UNAVAILABLE
                    | StatusCode::GATEWAY_TIMEOUT => {
                        (format!("clair answers {}", answer.status), pause)
                    }
                    _ => return Ok(answer),
                },
                Err(ClairError::Unavailable(reason)) => (reason, None),
                Err(other) => return Err(other),
            };
            attempt += 1;
            if attempt >= self.settings.tries.max(1) {
                return Err(ClairError::Unavailable(reason));
            }
            tracing::debug!(path, attempt, reason, "asking clair again");
            let pause = pause.unwrap_or_else(|| PAUSE.delay(attempt - 1, 0.5));
            tokio::time::sleep(pause).await;
        }
    }

    async fn ask_once(
        &self,
        method: &reqwest::Method,
        url: Url,
        body: Option<&serde_json::Value>,
        validator: &str,
    ) -> Result<(Answered, Option<Duration>), ClairError> {
        let mut request = self.client.request(method.clone(), url);
        if let Some(token) = self.token()? {
            request = request.header(AUTHORIZATION, token);
        }
        if !validator.is_empty() {
            request = request.header(IF_NONE_MATCH, validator);
        }
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.map_err(away)?;
        let status = response.status();
        if status == StatusCode::UNAUTHORIZED {
            return Err(ClairError::Unauthorized);
        }
        let header = |name: http::HeaderName| {
            let value = response.headers().get(name).and_then(|value| value.to_str().ok());
            value.unwrap_or_default().to_owned()
        };
        let (etag, pause) = (header(ETAG), header(RETRY_AFTER));
        let pause = pause.parse().ok().map(|seconds: u64| Duration::from_secs(seconds.min(60)));
        let limit = if status.is_success() { MAX_BODY } else { MAX_ERROR };
        let mut stream = response.bytes_stream();
        let mut body = Vec::new();
        while let Some(piece) = stream.next().await {
            let piece = piece.map_err(away)?;
            if body.len() + piece.len() > limit {
                if status.is_success() {
                    return Err(ClairError::Invalid("clair's answer is too long".to_owned()));
                }
                break;
            }
            body.extend_from_slice(&piece);
        }
        Ok((Answered { status, etag, body }, pause))
    }
}

fn away(error: reqwest::Error) -> ClairError {
    ClairError::Unavailable(format!("clair can't be reached: {}", error.without_url()))
}

/// An address below another one.
fn below(base: &Url, path: &str) -> Url {
    let mut url = base.clone();
    let root = base.path().trim_end_matches('/');
    url.set_path(&format!("{root}/{path}"));
    url
}

/// An answer that is none: what Clair says of it, and whether to ask again.
fn unexpected(what: &str, answer: &Answered) -> ClairError {
    let said: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
    let said = said["message"].as_str().unwrap_or_default();
    let text = format!("clair answers {} for {what}: {said}", answer.status);
    if answer.status.is_server_error() {
        ClairError::Failed(text)
    } else {
        ClairError::Invalid(text)
    }
}
