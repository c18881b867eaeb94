//! The registry's front: one request in, one answer out.
//!
//! path → who asks → which registry is meant → hosted or proxied → answer.

use std::sync::Arc;

use http::{HeaderValue, Method, StatusCode, header};
use kuboard_api::{Fallback, Rules, Target, Visibility};
use kuboard_catalog::Catalog;
use kuboard_oci::{Digest, RepositoryName};
use kuboard_registry::server::{Access, Action, ApiError, Caller, ErrorCode, Query, Route, route};
use kuboard_rt::{
    BoxFuture, Clock,
    http::{Body, Handler, Peer, Request, Response},
};

use crate::{
    hosted::{Hosted, MountSource, Mountable},
    metrics::Metrics,
    proxied::{Proxied, ProxiedRequest, catalog_error},
};

/// Most names that `_catalog` lists at once.
const CATALOG_PAGE: u32 = 1000;

/// Answers `/v2/` and `/token`.
pub(crate) struct Service {
    pub(crate) rules: Arc<Rules>,
    pub(crate) access: Arc<Access>,
    pub(crate) hosted: Arc<Hosted>,
    pub(crate) proxied: Arc<Proxied>,
    pub(crate) catalog: Catalog,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Arc<Metrics>,
}

impl Handler for Service {
    fn handle(&self, request: Request) -> BoxFuture<'_, Response> {
        Box::pin(async move {
            let method = request.method().clone();
            let mut response = match self.answer(request).await {
                Ok(response) => response,
                Err(error) => error.into_response(),
            };
            response.headers_mut().insert(
                "docker-distribution-api-version",
                HeaderValue::from_static("registry/2.0"),
            );
            let code = response.status();
            self.metrics.responses.with_label_values(&[method_label(&method), code.as_str()]).inc();
            response
        })
    }
}

impl Service {
    async fn answer(&self, request: Request) -> Result<Response, ApiError> {
        let route = route(request.uri().path())?;
        let query = Query::parse(request.uri().query())?;
        let now_ms = self.clock.now_ms();
        let name = match &route {
            Route::Base => {
                if self.is_judged_upstream(&request) {
                    return self.base_of_recheck(&request);
                }
                let caller = self.caller(&request, now_ms).await?;
                if caller.is_authenticated() || self.access.allows_anonymous() {
                    return Ok(json("{}".to_owned()));
                }
                return Err(self.access.challenge_base(&request));
            }
            Route::Catalog => return self.catalog_list(&request, &query, now_ms).await,
            Route::Token => return Ok(self.access.token(request, now_ms).await),
            Route::Tags(name)
            | Route::Manifest(name, _)
            | Route::Blob(name, _)
            | Route::Uploads(name)
            | Route::Upload(name, _)
            | Route::Referrers(name, _) => name,
        };
        let target = self.target(&request, &query, name);
        let namespace = query.get("ns").and_then(|ns| HeaderValue::from_str(ns).ok());
        let asked = Asked { route: &route, query: &query };
        let mut response = self.repository(request, target, asked, now_ms).await?;
        if let Some(namespace) = namespace {
            response.headers_mut().insert("oci-namespace", namespace);
        }
        Ok(response)
    }

    fn target(&self, request: &Request, query: &Query, name: &RepositoryName) -> Target {
        let host = request
            .headers()
            .get(header::HOST)
            .and_then(|value| value.to_str().ok())
            .or_else(|| request.uri().authority().map(http::uri::Authority::as_str));
        self.rules.target(query.get("ns"), host, name)
    }

    async fn repository(
        &self,
        request: Request,
        target: Target,
        asked: Asked<'_>,
        now_ms: i64,
    ) -> Result<Response, ApiError> {
        match target {
            Target::UnknownNamespace { name } => Err(ApiError::new(
                ErrorCode::NameUnknown,
                format!(
                    "no rule knows the registry {name}; hint: add [[upstream]] name = \"{name}\" \
                     to kuboard.toml"
                ),
            )),
            Target::Upstream { rule, registry, repository } => {
                let meant = Fallback { rule, registry, repository };
                self.upstream(&request, &meant, &asked, now_ms).await
            }
            Target::Hosted { repository, fallback } => {
                let reads = matches!(*request.method(), Method::GET | Method::HEAD);
                let twin = fallback.filter(|_| reads).map(|meant| (meant, clone_head(&request)));
                let answer = self.hosted(request, repository.as_str(), &asked, now_ms).await;
                match (answer, twin) {
                    (Err(error), Some((meant, again))) if error.status == StatusCode::NOT_FOUND => {
                        self.upstream(&again, &meant, &asked, now_ms).await
                    }
                    (answer, _) => answer,
                }
            }
        }
    }

    async fn upstream(
        &self,
        request: &Request,
        meant: &Fallback,
        asked: &Asked<'_>,
        now_ms: i64,
    ) -> Result<Response, ApiError> {
        let visibility = self.rules.get(meant.rule).map(|rule| rule.visibility);
        // Rights first: nobody without them makes us keep anything for a name.
        if visibility != Some(Visibility::Recheck) {
            let name = format!("{}/{}", meant.registry, meant.repository);
            let action = action_of(request.method(), asked.route);
            let caller = self.permitted(request, action, &name, now_ms).await?;
            if !caller.is_authenticated() && visibility == Some(Visibility::Authenticated) {
                return Err(self.access.refusal(&caller, request, action, &name));
            }
        }
        let origin = self.proxied.origin(meant.rule, &meant.registry, &meant.repository)?;
        let origin = &origin;
        self.proxied
            .handle(ProxiedRequest {
                origin,
                route: asked.route,
                query: asked.query,
                method: request.method(),
                headers: request.headers(),
            })
            .await
    }

    async fn hosted(
        &self,
        request: Request,
        repository: &str,
        asked: &Asked<'_>,
        now_ms: i64,
    ) -> Result<Response, ApiError> {
        let action = action_of(request.method(), asked.route);
        let caller = self.permitted(&request, action, repository, now_ms).await?;
        let mounts = Mounts { service: self, caller: &caller };
        self.hosted.handle(asked.route, asked.query, request, &mounts).await
    }

    /// Whether what is cached under this name may be shown to the caller outside of a pull: where
    /// the upstream itself is the judge, never.
    fn shows(&self, caller: &Caller, name: &str) -> bool {
        let Ok(name) = name.parse() else { return false };
        let Target::Upstream { rule, repository, .. } = self.rules.target(None, None, &name) else {
            return true;
        };
        self.rules.get(rule).is_some_and(|rule| {
            rule.admits(repository.as_str())
                && match rule.visibility {
                    Visibility::Public => true,
                    Visibility::Authenticated => caller.is_authenticated(),
                    Visibility::Recheck => false,
                }
        })
    }

    /// Whether the host that the client asked at stands for an upstream that judges callers.
    fn is_judged_upstream(&self, request: &Request) -> bool {
        let Ok(name) = "a/a".parse() else { return false };
        let query = Query::default();
        match self.target(request, &query, &name) {
            Target::Upstream { rule, .. } => {
                self.rules.get(rule).is_some_and(|rule| rule.visibility == Visibility::Recheck)
            }
            _ => false,
        }
    }

    /// Clients learn at `/v2/` how to log in: with what they would log in to the upstream with.
    fn base_of_recheck(&self, request: &Request) -> Result<Response, ApiError> {
        if request.headers().contains_key(header::AUTHORIZATION) {
            return Ok(json("{}".to_owned()));
        }
        Err(ApiError::new(ErrorCode::Unauthorized, "log in as to the upstream itself")
            .with_header(header::WWW_AUTHENTICATE, "Basic realm=\"upstream\""))
    }

    /// The caller, if it may do this; else the challenge or refusal that says why not.
    async fn permitted(
        &self,
        request: &Request,
        action: Action,
        repository: &str,
        now_ms: i64,
    ) -> Result<Caller, ApiError> {
        self.access.permit(request, action, repository, now_ms).await
    }

    async fn caller(&self, request: &Request, now_ms: i64) -> Result<Caller, ApiError> {
        let peer = request.extensions().get::<Peer>().copied();
        self.access.caller(request.headers(), peer, now_ms).await
    }

    async fn catalog_list(
        &self,
        request: &Request,
        query: &Query,
        now_ms: i64,
    ) -> Result<Response, ApiError> {
        let caller = self.permitted(request, Action::Catalog, "", now_ms).await?;
        let limit = match query.get("n") {
            Some(text) => text.parse::<u32>().map_err(|_| {
                ApiError::new(
                    ErrorCode::PaginationNumberInvalid,
                    "n is not a number of repositories",
                )
            })?,
            None => CATALOG_PAGE,
        };
        let limit = limit.min(CATALOG_PAGE);
        let mut names = self
            .catalog
            .repositories(None, query.get("last"), limit)
            .await
            .map_err(|error| catalog_error(&error))?;
        let full = names.len() == limit as usize;
        let last = names.last().filter(|_| full).cloned();
        self.access.retain_visible(&caller, &mut names, now_ms).await?;
        names.retain(|name| self.shows(&caller, name));
        let mut response = json(serde_json::json!({ "repositories": names }).to_string());
        let link = last.map(|last| format!("</v2/_catalog?n={limit}&last={last}>; rel=\"next\""));
        if let Some(Ok(link)) = link.map(|link| HeaderValue::from_str(&link)) {
            response.headers_mut().insert(header::LINK, link);
        }
        Ok(response)
    }
}

struct Asked<'a> {
    route: &'a Route,
    query: &'a Query,
}

/// Lets a push mount a blob that the caller may pull, from hosted or cached repositories.
struct Mounts<'a> {
    service: &'a Service,
    caller: &'a Caller,
}

impl MountSource for Mounts<'_> {
    fn may_pull(&self, repository: &str) -> bool {
        self.caller.may(Action::Pull, repository)
    }

    fn cached<'a>(
        &'a self,
        repository: &'a str,
        digest: &'a Digest,
    ) -> BoxFuture<'a, Option<Mountable>> {
        Box::pin(async move {
            if !self.service.shows(self.caller, repository) {
                return None;
            }
            self.service.proxied.mountable(repository, digest).await
        })
    }
}

fn action_of(method: &Method, route: &Route) -> Action {
    match (method, route) {
        // Cancelling one's own upload is part of pushing.
        (&Method::DELETE, Route::Upload(..)) => Action::Push,
        (&Method::DELETE, _) => Action::Delete,
        (&Method::GET, Route::Upload(..)) => Action::Push,
        (&Method::GET | &Method::HEAD, _) => Action::Pull,
        _ => Action::Push,
    }
}

/// The request without its body, to be asked again elsewhere.
fn clone_head(request: &Request) -> Request {
    let mut again = http::Request::new(bytes::Bytes::new().into());
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.headers_mut() = request.headers().clone();
    *again.extensions_mut() = request.extensions().clone();
    again
}

fn json(text: String) -> Response {
    let length = HeaderValue::from(text.len());
    let mut response = http::Response::new(Body::full(text));
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    headers.insert(header::CONTENT_LENGTH, length);
    response
}

fn method_label(method: &Method) -> &'static str {
    match method.as_str() {
        "GET" => "GET",
        "HEAD" => "HEAD",
        "PUT" => "PUT",
        "POST" => "POST",
        "PATCH" => "PATCH",
        "DELETE" => "DELETE",
        _ => "other",
    }
}
