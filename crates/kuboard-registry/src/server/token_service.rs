//! The token service: credentials in, a token for five minutes out.
//!
//! `GET` with Basic credentials as docker, containerd, skopeo and crane ask, and `POST` as OAuth 2
//! with the grants `password` and `refresh_token`. A refresh token is made only where a `POST`
//! asks for one by `access_type=offline`: a `GET` with `offline_token=true` gets none, because
//! `docker login` would then write it in place of the password, and Kubernetes cannot use such a
//! file as a pull secret.

use std::net::IpAddr;

use http::Method;
use http::header::{ALLOW, CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::request::Parts;
use kuboard_rt::http::{Body, Request, RequestBody, Response};
use serde::Serialize;

use super::access::{Access, WRONG};
use super::audit;
use super::caller::{Action, Caller};
use super::credentials::{Presented, presented};
use super::error::{ApiError, ErrorCode};
use super::query::Query;
use super::scope::{self, Asked, Granted};
use super::token::{Refresh, Subject};
use super::visitor::Visitor;

/// Longest form that is read, in bytes.
const MAX_FORM_BYTES: usize = 16 * 1024;

#[derive(Serialize)]
struct Reply {
    /// Of a `GET` only; OAuth 2 knows it by its other name.
    #[serde(skip_serializing_if = "Option::is_none")]
    token: Option<String>,
    access_token: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    scope: Option<String>,
    expires_in: i64,
    issued_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    refresh_token: Option<String>,
}

/// Who gets the token.
struct Bearer {
    caller: Caller,
    /// Of a user: what a refresh token needs, and when the credentials end.
    refresh: Option<Refresh>,
    ends_ms: Option<i64>,
}

impl Access {
    /// Answers a request to the token service. It grants what was asked as far as the caller may
    /// have it, which may be nothing; wrong credentials are 401.
    pub async fn token(&self, request: Request, now_ms: i64) -> Response {
        let (parts, body) = request.into_parts();
        let reply = match parts.method {
            Method::GET | Method::HEAD => self.by_basic(&parts, now_ms).await,
            Method::POST => self.by_form(&parts, body, now_ms).await,
            _ => Err(ApiError::new(ErrorCode::Unsupported, "the token service takes GET and POST")
                .with_header(ALLOW, "GET, HEAD, POST")),
        };
        let text =
            reply.and_then(|reply| serde_json::to_string(&reply).map_err(ApiError::internal));
        let mut response = match text {
            Ok(text) => {
                let mut response = Response::new(Body::full(text));
                let json = HeaderValue::from_static("application/json");
                response.headers_mut().insert(CONTENT_TYPE, json);
                response
            }
            Err(error) => error.into_response(),
        };
        response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
        response
    }

    async fn by_basic(&self, parts: &Parts, now_ms: i64) -> Result<Reply, ApiError> {
        let visitor = Visitor::of_parts(parts);
        let query = form(parts.uri.query().unwrap_or_default())?;
        let wrong = |message| self.challenge_basic(message);
        let bearer = match presented(visitor.headers).map_err(wrong)? {
            Presented::None => {
                let caller = Caller::without_credentials(self.anonymous);
                if !caller.may(Action::Pull, "") {
                    return Err(wrong("authentication required"));
                }
                Bearer { caller, refresh: None, ends_ms: None }
            }
            Presented::Basic { user, secret } => {
                self.by_password(&user, &secret, visitor.address, now_ms).await?
            }
            Presented::Bearer(token) if self.knows_token(&token) => {
                self.by_password("", &token, visitor.address, now_ms).await?
            }
            Presented::Bearer(_) => return Err(wrong("the token service takes Basic credentials")),
        };
        let (token, expires_in, _) = self.issue(&bearer, &query, visitor.host(), now_ms).await?;
        Ok(Reply {
            access_token: token.clone(),
            token: Some(token),
            scope: None,
            expires_in,
            issued_at: issued_at(now_ms),
            refresh_token: None,
        })
    }

    async fn by_form(
        &self,
        parts: &Parts,
        body: RequestBody,
        now_ms: i64,
    ) -> Result<Reply, ApiError> {
        let visitor = Visitor::of_parts(parts);
        let unread = |fault: std::io::Error| {
            ApiError::new(ErrorCode::Unsupported, format!("the form cannot be read: {fault}"))
                .with_status(http::StatusCode::BAD_REQUEST)
        };
        let form = body.collect(MAX_FORM_BYTES).await.map_err(unread)?;
        let text = std::str::from_utf8(&form).map_err(|_| malformed("the form is not UTF-8"))?;
        let form = self::form(text)?;
        let field = |name: &str| {
            form.get(name).ok_or_else(|| malformed(&format!("the form has no {name}")))
        };
        let bearer = match field("grant_type")? {
            "password" => {
                let (user, secret) = (field("username")?, field("password")?);
                self.by_password(user, secret, visitor.address, now_ms).await?
            }
            "refresh_token" => {
                let token = field("refresh_token")?;
                if self.knows_token(token) {
                    self.by_password("", token, visitor.address, now_ms).await?
                } else {
                    self.by_refresh(token, now_ms).await?
                }
            }
            _ => return Err(malformed("grant_type is neither password nor refresh_token")),
        };
        let (token, expires_in, access) =
            self.issue(&bearer, &form, visitor.host(), now_ms).await?;
        let offline = form.get("access_type") == Some("offline");
        let refresh = bearer.refresh.filter(|_| offline);
        let refresh = refresh.map(|refresh| self.signer.refresh_token(refresh, now_ms));
        let scopes: Vec<String> = access.iter().map(Granted::to_string).collect();
        Ok(Reply {
            token: None,
            access_token: token,
            scope: Some(scopes.join(" ")),
            expires_in,
            issued_at: issued_at(now_ms),
            refresh_token: refresh.transpose()?,
        })
    }

    async fn by_password(
        &self,
        user: &str,
        secret: &str,
        address: Option<IpAddr>,
        now_ms: i64,
    ) -> Result<Bearer, ApiError> {
        let grant = self.login(user, secret, address, now_ms).await?;
        let grant = grant.ok_or_else(|| self.challenge_basic(WRONG))?;
        let refresh = Refresh { name: grant.name.clone(), stamp: grant.stamp.clone() };
        let refresh = Some(refresh).filter(|refresh| !refresh.stamp.is_empty());
        let ends_ms = grant.expires_ms;
        let caller = Caller::granted(grant, self.anonymous);
        Ok(Bearer { caller, refresh, ends_ms })
    }

    async fn by_refresh(&self, token: &str, now_ms: i64) -> Result<Bearer, ApiError> {
        if let Some(refresh) = self.signer.refresh(token, now_ms) {
            for authorizer in &self.authorizers {
                let renewed = authorizer.renew(&refresh.name, &refresh.stamp, now_ms).await?;
                if let Some(grant) = renewed {
                    let ends_ms = grant.expires_ms;
                    let caller = Caller::granted(grant, self.anonymous);
                    return Ok(Bearer { caller, refresh: Some(refresh), ends_ms });
                }
            }
        }
        let message = "the refresh token is not ours, has ended, or its credentials changed";
        Err(self.challenge_basic(message))
    }

    /// The token, the seconds it lives and what it grants.
    async fn issue(
        &self,
        bearer: &Bearer,
        asked: &Query,
        host: Option<&str>,
        now_ms: i64,
    ) -> Result<(String, i64, Vec<Granted>), ApiError> {
        let caller = &bearer.caller;
        let mut access: Vec<Granted> = Vec::new();
        for asked in scope::parse(asked.get_all("scope")) {
            match asked {
                Asked::Catalog => {
                    if self.allows(caller, Action::Catalog, "", now_ms).await? {
                        access.push(Granted::catalog());
                    }
                }
                Asked::Repository { name, actions } => {
                    for name in (self.naming)(host, &name) {
                        let mut may: Vec<Action> = Vec::new();
                        for action in &actions {
                            if self.allows(caller, *action, &name, now_ms).await? {
                                may.push(*action);
                            }
                        }
                        audit::granted(caller, &name, &actions, &may);
                        if !may.is_empty() {
                            access.push(Granted::repository(name, &may));
                        }
                    }
                }
            }
        }
        let subject = Subject { name: caller.name.as_deref(), workload: caller.workload.as_ref() };
        let (token, lives) = self.signer.token(subject, access.clone(), now_ms, bearer.ends_ms)?;
        Ok((token, lives, access))
    }
}

/// Reads a form, or a query that is spelled like one: between scopes stands a plus for a space.
fn form(text: &str) -> Result<Query, ApiError> {
    Query::parse(Some(&text.replace('+', "%20")))
}

fn malformed(message: &str) -> ApiError {
    ApiError::new(ErrorCode::Unsupported, message).with_status(http::StatusCode::BAD_REQUEST)
}

fn issued_at(now_ms: i64) -> String {
    jiff::Timestamp::from_millisecond(now_ms.div_euclid(1000) * 1000)
        .map_or_else(|_| String::new(), |time| time.to_string())
}
