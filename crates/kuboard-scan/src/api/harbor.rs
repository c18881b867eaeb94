//! Harbor's API for pluggable scanners, versions 1.0 to 1.2: what the scanner can do, scan this,
//! give me the report.
//!
//! A scan's id is made of what is scanned, so asking twice gives one job; its state is that of the
//! job in the catalogue. Harbor asks for a report until it is there: 302 with `Refresh-After`.

use std::sync::Arc;

use anyhow::Context;
use http::{
    HeaderName, Method, StatusCode,
    header::{ACCEPT, LOCATION},
};
use kuboard_catalog::JobState;
use kuboard_oci::{Digest, RepositoryName};
use kuboard_rt::{
    BoxFuture,
    http::{Handler, Request, RequestBody, Response},
};
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Notify;
use url::Url;

use super::{
    Settings,
    access::Access,
    answer::{Answer, Head, Outcome, Refusal, read},
    clair::stable_id,
    content::Encoding,
    harbor_pull::is_authorization,
    outbound::Outbound,
    seal::Seal,
};
use crate::{
    engine::Engine,
    report::{
        Language, WriteOptions, dates,
        harbor::{
            SBOM_REPORT_MEDIA_TYPE, SbomForm, Scanner, VULNERABILITY_REPORT_MEDIA_TYPE,
            sbom_report, vulnerability_report,
        },
    },
};

/// Kind of the jobs that scan an image of Harbor's.
pub const HARBOR_SCAN: &str = "harbor-scan";

const METADATA: &str = "/api/v1/metadata";
const SCAN: &str = "/api/v1/scan";
const MAX_BODY: usize = 1 << 20;
const METADATA_TYPE: &str = "application/vnd.scanner.adapter.metadata+json; version=1.1";
const SCAN_TYPE: &str = "application/vnd.scanner.adapter.scan.response+json; version=1.1";
/// The name of the same report before it had one of its own.
const OLD_REPORT_TYPE: &str =
    "application/vnd.scanner.adapter.vuln.report.harbor+json; version=1.0";
const CONSUMED: [&str; 2] = [
    "application/vnd.oci.image.manifest.v1+json",
    "application/vnd.docker.distribution.manifest.v2+json",
];
/// Seconds until Harbor may ask again.
const REFRESH_SECONDS: &str = "5";
const REFRESH_AFTER: HeaderName = HeaderName::from_static("refresh-after");
/// Harbor gives up after half an hour.
const ATTEMPTS: u32 = 4;

/// Harbor's API over an [`Engine`].
pub struct HarborApi {
    pub(super) engine: Arc<Engine>,
    pub(super) outbound: Outbound,
    pub(super) seal: Seal,
    pub(super) added: Notify,
    access: Access,
    version: String,
}

#[derive(Deserialize)]
struct ScanRequest {
    registry: Registry,
    artifact: Artifact,
}

#[derive(Deserialize)]
struct Registry {
    url: String,
    #[serde(default)]
    authorization: Option<String>,
}

#[derive(Deserialize)]
struct Artifact {
    repository: String,
    digest: String,
    #[serde(default)]
    tag: Option<String>,
}

/// What a job says.
#[derive(Serialize, Deserialize)]
pub(super) struct HarborScan {
    /// Address of the registry.
    pub(super) registry: String,
    pub(super) repository: String,
    pub(super) tag: String,
    pub(super) digest: Digest,
    /// Sealed.
    pub(super) authorization: String,
    /// There was one, wherever it is.
    pub(super) is_authorized: bool,
}

impl HarborScan {
    /// The registry's name: its host, with the port where it has one.
    pub(super) fn registry_name(&self) -> String {
        let Ok(url) = self.registry.parse::<Url>() else { return String::new() };
        let host = url.host_str().unwrap_or_default();
        match url.port() {
            Some(port) => format!("{host}:{port}"),
            None => host.to_owned(),
        }
    }
}

/// Which document is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Wanted {
    Vulnerabilities(&'static str),
    Sbom,
}

impl HarborApi {
    /// The API with these settings. `version` is this program's.
    ///
    /// # Errors
    /// TLS can't be set up.
    pub fn new(
        settings: &Settings,
        version: &str,
        engine: Arc<Engine>,
    ) -> anyhow::Result<Arc<Self>> {
        Ok(Arc::new(Self {
            outbound: Outbound::new(settings.allow_private_addresses).context("HTTP client")?,
            seal: Seal::new(settings.psk.as_deref()),
            added: Notify::new(),
            access: Access::new(settings),
            version: version.to_owned(),
            engine,
        }))
    }

    /// Whether a path is one of this API's.
    #[must_use]
    pub fn serves(path: &str) -> bool {
        path == METADATA || path == SCAN || path.starts_with("/api/v1/scan/")
    }

    async fn route(&self, head: &Head, body: RequestBody) -> Outcome {
        if !self.access.admits_harbor(&head.headers, self.engine.now_ms()) {
            let hint = "the key is missing or wrong; hint: register this scanner in Harbor with \
                        the content of the server's pskFile as a bearer token or API key";
            return Err(Refusal::new(StatusCode::UNAUTHORIZED, hint));
        }
        match head.path.as_str() {
            METADATA => self.metadata(head),
            SCAN => self.accept(head, body).await,
            other => {
                let id = other.strip_prefix("/api/v1/scan/");
                match id.and_then(|rest| rest.strip_suffix("/report")) {
                    Some(id) => self.report(head, id).await,
                    None => Err(Refusal::not_found("there is nothing here")),
                }
            }
        }
    }

    fn metadata(&self, head: &Head) -> Outcome {
        head.expect(&[Method::GET])?;
        let mut properties = json!({
            "harbor.scanner-adapter/scanner-type": "os-package-vulnerability",
            "harbor.scanner-adapter/registry-authorization-type": "Basic",
        });
        if let Some(database) = self.engine.database() {
            use kuboard_vuln::Advisories as _;
            let built = dates::rfc3339(database.stamp().built_ms);
            properties["harbor.scanner-adapter/vulnerability-database-updated-at"] = json!(built);
        }
        let metadata = json!({
            "scanner": Scanner::this(&self.version),
            "capabilities": [
                {
                    "type": "vulnerability",
                    "consumes_mime_types": CONSUMED,
                    "produces_mime_types": [VULNERABILITY_REPORT_MEDIA_TYPE, OLD_REPORT_TYPE],
                },
                {
                    "type": "sbom",
                    "consumes_mime_types": CONSUMED,
                    "produces_mime_types": [SBOM_REPORT_MEDIA_TYPE],
                    "additional_attributes": {
                        "sbom_media_types":
                            [SbomForm::Spdx.media_type(), SbomForm::CycloneDx.media_type()],
                    },
                },
            ],
            "properties": properties,
        });
        Answer::json(StatusCode::OK, METADATA_TYPE, &metadata)
    }

    async fn accept(&self, head: &Head, body: RequestBody) -> Outcome {
        head.expect(&[Method::POST])?;
        let bytes = read(body, MAX_BODY).await?;
        let request: ScanRequest = serde_json::from_slice(&bytes)
            .map_err(|error| Refusal::bad(format!("the scan request can't be read: {error}")))?;
        let wrong = |what: String| Refusal::new(StatusCode::UNPROCESSABLE_ENTITY, what);
        let registry: Url = request
            .registry
            .url
            .parse()
            .map_err(|error| wrong(format!("registry.url: {error}")))?;
        if !matches!(registry.scheme(), "http" | "https") || registry.host_str().is_none() {
            return Err(wrong("registry.url is no address of a registry".to_owned()));
        }
        let repository: RepositoryName = request
            .artifact
            .repository
            .parse()
            .map_err(|error| wrong(format!("artifact.repository: {error}")))?;
        let digest: Digest = request
            .artifact
            .digest
            .parse()
            .map_err(|error| wrong(format!("artifact.digest: {error}")))?;
        let authorization = request.registry.authorization.unwrap_or_default();
        if !is_authorization(&authorization) {
            return Err(wrong("registry.authorization is neither Basic nor Bearer".to_owned()));
        }
        let tag: String = request.artifact.tag.unwrap_or_default().chars().take(128).collect();
        let repository = repository.to_string();
        let id = stable_id(&[registry.as_str(), &repository, &tag, &digest.to_string()]);
        let id = id.to_string();
        let job = HarborScan {
            registry: registry.into(),
            repository,
            tag,
            digest,
            authorization: self.seal.close(&id, &authorization),
            is_authorized: !authorization.is_empty(),
        };
        self.queue(&id, &job).await?;
        Answer::json(StatusCode::ACCEPTED, SCAN_TYPE, &json!({"id": id}))
    }

    async fn queue(&self, id: &str, job: &HarborScan) -> Result<(), Refusal> {
        let now_ms = self.engine.now_ms();
        let job = kuboard_catalog::NewJob {
            kind: HARBOR_SCAN.to_owned(),
            subject: id.to_owned(),
            payload: serde_json::to_string(job).map_err(Refusal::internal)?,
            priority: 90,
            run_after_ms: now_ms,
            max_attempts: ATTEMPTS,
        };
        self.engine.catalog().enqueue(&job, now_ms).await?;
        self.added.notify_one();
        Ok(())
    }

    async fn report(&self, head: &Head, id: &str) -> Outcome {
        head.expect(&[Method::GET])?;
        let wanted = wanted(head)?;
        let unknown = || Refusal::not_found(format!("there is no scan {id}"));
        let job = self.engine.catalog().last_job(HARBOR_SCAN, id).await?.ok_or_else(unknown)?;
        let is_pending = match job.state {
            JobState::Waiting | JobState::Running => true,
            // Without advisories a report would say that nothing is known; they may come.
            JobState::Done => wanted != Wanted::Sbom && self.engine.database().is_none(),
            JobState::Failed => {
                let reason = format!("the scan failed: {}", job.reason);
                return Err(Refusal::internal(reason));
            }
        };
        if is_pending {
            return Ok(Answer::empty(StatusCode::FOUND)
                .with(LOCATION, &location(head))
                .with(REFRESH_AFTER, REFRESH_SECONDS));
        }
        let scan: HarborScan = serde_json::from_str(&job.payload).map_err(|_| unknown())?;
        let mut report = self.engine.report_now(&scan.digest).await?.ok_or_else(unknown)?;
        report.image.registry = scan.registry_name();
        report.image.repository.clone_from(&scan.repository);
        report.image.tag.clone_from(&scan.tag);
        report.image.digest = Some(scan.digest);
        let options = WriteOptions {
            width: None,
            color: false,
            now_ms: self.engine.now_ms(),
            tool_version: &self.version,
            lang: Language::En,
        };
        match wanted {
            Wanted::Vulnerabilities(media_type) => {
                let document = vulnerability_report(&report, &options);
                Answer::json(StatusCode::OK, media_type, &document)
            }
            Wanted::Sbom => {
                let form = match head.parameter("sbom_media_type") {
                    Some(form) if form == SbomForm::CycloneDx.media_type() => SbomForm::CycloneDx,
                    Some(form) if form != SbomForm::Spdx.media_type() => {
                        let reason = format!("{form:?} is no form of a bill of materials here");
                        return Err(Refusal::bad(reason));
                    }
                    _ => SbomForm::Spdx,
                };
                let document = sbom_report(&report, form, &options).map_err(Refusal::internal)?;
                Answer::json(StatusCode::OK, SBOM_REPORT_MEDIA_TYPE, &document)
            }
        }
    }
}

impl Handler for HarborApi {
    fn handle(&self, request: Request) -> BoxFuture<'_, Response> {
        Box::pin(async move {
            let (parts, body) = request.into_parts();
            let head = Head::of(parts);
            let encoding = Encoding::of(&head.headers);
            let outcome = self.route(&head, body).await;
            let answer = outcome.unwrap_or_else(|refusal| {
                tracing::debug!(path = %head.path, status = %refusal.status,
                    reason = %refusal.message, "refused");
                refusal.into_harbor()
            });
            answer.into_response(encoding, &self.engine.inspector().tasks).await
        })
    }
}

/// The document that `Accept` names; parameters count, blanks between them don't.
fn wanted(head: &Head) -> Result<Wanted, Refusal> {
    let accept = head.headers.get(ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let bare = |text: &str| -> String {
        text.chars().filter(|c| !c.is_whitespace()).collect::<String>().to_ascii_lowercase()
    };
    let asked = bare(accept);
    let is_any = asked.is_empty() || asked.split(',').any(|one| one == "*/*");
    for media_type in [VULNERABILITY_REPORT_MEDIA_TYPE, OLD_REPORT_TYPE] {
        if asked.contains(&bare(media_type)) {
            return Ok(Wanted::Vulnerabilities(media_type));
        }
    }
    if asked.contains(&bare(SBOM_REPORT_MEDIA_TYPE)) {
        return Ok(Wanted::Sbom);
    }
    if is_any || asked.split(',').any(|one| one == "application/json") {
        return Ok(Wanted::Vulnerabilities(VULNERABILITY_REPORT_MEDIA_TYPE));
    }
    let reason = format!("{accept:?} is no report of this scanner");
    Err(Refusal::new(StatusCode::UNSUPPORTED_MEDIA_TYPE, reason))
}

/// The same address again.
fn location(head: &Head) -> String {
    match head.query.as_str() {
        "" => head.path.clone(),
        query => format!("{}?{query}", head.path),
    }
}
