//! Tokens of token services: kept until shortly before they end, one request at a time for each.

use std::{
    collections::HashMap,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use http::{HeaderMap, HeaderValue, Method, header};
use parking_lot::Mutex;
use serde::Deserialize;
use url::Url;

use super::{
    error::{Failure, UpstreamErrorKind, kind_of},
    rate,
    redirect::Trail,
    transport::{Transport, drain},
};
use crate::credentials::Credential;

/// Longest answer of a token service, in bytes.
const MAX_ANSWER: usize = 128 * 1024;
/// Life of a token whose answer does not say it; shorter ones are taken for it too, as in
/// docker.
const DEFAULT_LIFE: Duration = Duration::from_secs(60);
const LONGEST_LIFE: Duration = Duration::from_secs(24 * 3600);
const MAX_TOKENS: usize = 4096;
/// Who we are for OAuth 2.
const CLIENT_ID: &str = "kuboard";

/// What a token was given for.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct TokenKey {
    pub(super) realm: Url,
    pub(super) service: Option<String>,
    /// Several are separated by spaces.
    pub(super) scope: String,
    /// Identity of the credential; `None` is anonymous.
    pub(super) credential: Option<u64>,
}

#[derive(Clone, Debug)]
pub(super) struct Token {
    /// The whole `Authorization` header.
    pub(super) header: HeaderValue,
    /// Monotonic.
    use_until: Duration,
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct TokenCache(Mutex<HashMap<TokenKey, Arc<Slot>>>);

#[derive(Debug, Default)]
struct Slot {
    /// Requests to the token service that ended.
    ended: AtomicU64,
    /// Held while the token service is asked.
    last: tokio::sync::Mutex<Option<Result<Token, Failure>>>,
}

impl TokenCache {
    /// The token that is kept, or the one that `fetch` gets. Those who come while it is being
    /// fetched share the outcome, also a failure. Says whether it came fresh.
    pub(super) async fn get(
        &self,
        key: &TokenKey,
        now: Duration,
        fetch: impl Future<Output = Result<Token, Failure>>,
    ) -> Result<(HeaderValue, bool), Failure> {
        let slot = self.slot(key);
        let seen = slot.ended.load(Ordering::Acquire);
        let mut last = slot.last.lock().await;
        let waited = slot.ended.load(Ordering::Acquire) != seen;
        match &*last {
            Some(Ok(token)) if now < token.use_until => return Ok((token.header.clone(), waited)),
            Some(Err(failure)) if waited => return Err(failure.clone()),
            _ => {}
        }
        let outcome = fetch.await;
        slot.ended.fetch_add(1, Ordering::Release);
        *last = Some(outcome.clone());
        outcome.map(|token| (token.header, true))
    }

    fn slot(&self, key: &TokenKey) -> Arc<Slot> {
        let mut slots = self.0.lock();
        if slots.len() >= MAX_TOKENS && !slots.contains_key(key) {
            // Those in use stay; the others are a request away.
            slots.retain(|_, slot| Arc::strong_count(slot) > 1);
        }
        Arc::clone(slots.entry(key.clone()).or_default())
    }

    /// Drops a token that the registry refused, unless it was replaced meanwhile.
    pub(super) fn forget(&self, key: &TokenKey, header: &HeaderValue) {
        let mut slots = self.0.lock();
        let same = slots.get(key).is_some_and(|slot| {
            slot.last
                .try_lock()
                .is_ok_and(|last| matches!(&*last, Some(Ok(token)) if token.header == *header))
        });
        if same {
            slots.remove(key);
        }
    }
}

/// Asks the token service: `GET` with the password, or anonymously; `POST` with a refresh token.
/// `now` is monotonic, `now_ms` the wall clock.
pub(super) async fn fetch(
    transport: &Transport,
    key: &TokenKey,
    credential: Option<&Credential>,
    now: Duration,
    now_ms: i64,
) -> Result<Token, Failure> {
    let response = match credential {
        Some(Credential::IdentityToken(token)) => {
            let form = url::form_urlencoded::Serializer::new(String::new())
                .append_pair("grant_type", "refresh_token")
                .append_pair("client_id", CLIENT_ID)
                .append_pair("service", key.service.as_deref().unwrap_or_default())
                .append_pair("scope", &key.scope)
                .append_pair("refresh_token", token.expose())
                .finish();
            let mut headers = HeaderMap::new();
            let form_type = HeaderValue::from_static("application/x-www-form-urlencoded");
            headers.insert(header::CONTENT_TYPE, form_type);
            transport.send(Method::POST, key.realm.clone(), headers, Some(form)).await?
        }
        Some(Credential::Basic { user, password }) => {
            let mut headers = HeaderMap::new();
            headers.insert(header::AUTHORIZATION, basic(user, password.expose())?);
            get(transport, key, headers).await?
        }
        Some(Credential::Bearer(_)) | None => get(transport, key, HeaderMap::new()).await?,
    };
    let status = response.status();
    if !status.is_success() {
        let retry_after = rate::retry_after(response.headers(), now_ms);
        let kind = match kind_of(status, retry_after, false) {
            // Not the image: the token service.
            UpstreamErrorKind::NotFound => UpstreamErrorKind::Invalid,
            kind => kind,
        };
        drain(response).await;
        let failure = Failure::new(kind, format!("the token service answered {status}"));
        return Err(if status.is_server_error() { failure.unhealthy() } else { failure });
    }
    let date = response.headers().get(header::DATE).and_then(|date| date.to_str().ok());
    let server_ms = date.and_then(rate::http_date_ms).unwrap_or(now_ms);
    let bytes = transport.body(response, MAX_ANSWER).await?;
    Answer::parse(&bytes)
        .and_then(|answer| answer.token(server_ms, now))
        .ok_or_else(|| Failure::invalid("the token service answered without a usable token"))
}

/// Asks with the key's parameters; follows redirects on the same host only.
async fn get(
    transport: &Transport,
    key: &TokenKey,
    headers: HeaderMap,
) -> Result<reqwest::Response, Failure> {
    let mut url = key.realm.clone();
    {
        let mut query = url.query_pairs_mut();
        if let Some(service) = &key.service {
            query.append_pair("service", service);
        }
        for scope in key.scope.split_ascii_whitespace() {
            query.append_pair("scope", scope);
        }
    }
    if url.query() == Some("") {
        url.set_query(None);
    }
    let refused = |why: &str| {
        Failure::new(UpstreamErrorKind::Refused, format!("the token service answered with {why}"))
    };
    let mut trail = Trail::new(url);
    loop {
        let response =
            transport.send(Method::GET, trail.at().clone(), headers.clone(), None).await?;
        if !response.status().is_redirection() {
            return Ok(response);
        }
        let location = response.headers().get(header::LOCATION).and_then(|l| l.to_str().ok());
        let location = location.ok_or_else(|| refused("a redirect to nowhere"))?.to_owned();
        drain(response).await;
        trail.follow(&location).map_err(|why| refused(&why))?;
        if !trail.is_home() {
            return Err(refused("a redirect to another host"));
        }
    }
}

/// A `Basic` header.
pub(super) fn basic(user: &str, password: &str) -> Result<HeaderValue, Failure> {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    secret_header(&format!("Basic {}", STANDARD.encode(format!("{user}:{password}"))))
}

/// A `Bearer` header.
pub(super) fn bearer(token: &str) -> Result<HeaderValue, Failure> {
    secret_header(&format!("Bearer {token}"))
}

fn secret_header(text: &str) -> Result<HeaderValue, Failure> {
    let mut value = HeaderValue::from_str(text)
        .map_err(|_| Failure::invalid("a credential has characters that no header can hold"))?;
    value.set_sensitive(true);
    Ok(value)
}

#[derive(Deserialize)]
struct Answer {
    #[serde(default)]
    token: Option<String>,
    #[serde(default)]
    access_token: Option<String>,
    #[serde(default)]
    expires_in: Option<f64>,
    #[serde(default)]
    issued_at: Option<String>,
}

impl Answer {
    fn parse(bytes: &[u8]) -> Option<Answer> {
        serde_json::from_slice(bytes).ok()
    }

    /// `server_ms` is the service's own clock, by which it wrote `issued_at`.
    fn token(self, server_ms: i64, now: Duration) -> Option<Token> {
        let given = self.token.filter(|token| !token.is_empty());
        let token = given.or(self.access_token).filter(|token| !token.is_empty())?;
        let life = Duration::try_from_secs_f64(self.expires_in.unwrap_or(0.0))
            .unwrap_or_default()
            .clamp(DEFAULT_LIFE, LONGEST_LIFE);
        let issued: Option<jiff::Timestamp> = self.issued_at.and_then(|at| at.parse().ok());
        let age_ms = issued.map_or(0, |at| server_ms.saturating_sub(at.as_millisecond()));
        let age = Duration::from_millis(u64::try_from(age_ms).unwrap_or(0));
        // A tenth is kept back for the request that carries it.
        let use_until = now + life.saturating_sub(age).saturating_sub(life / 10);
        Some(Token { header: bearer(&token).ok()?, use_until })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The token and for how many seconds it is used, of an answer at 1994-11-06T08:49:37Z.
    #[track_caller]
    fn check(answer: &str, expected: Option<(&str, u64)>) {
        let now = Duration::from_secs(1000);
        let token =
            Answer::parse(answer.as_bytes()).and_then(|answer| answer.token(784_111_777_000, now));
        let seen = token
            .as_ref()
            .map(|token| (token.header.to_str().unwrap(), (token.use_until - now).as_secs()));
        assert_eq!(seen, expected, "{answer}");
    }

    #[test]
    fn answers_of_many_token_services() {
        check(r#"{"token":"t"}"#, Some(("Bearer t", 54)));
        check(r#"{"access_token":"t"}"#, Some(("Bearer t", 54)));
        check(r#"{"token":"","access_token":"t"}"#, Some(("Bearer t", 54)));
        check(r#"{"token":"t","access_token":"u","expires_in":300}"#, Some(("Bearer t", 270)));
        check(r#"{"token":"t","expires_in":1}"#, Some(("Bearer t", 54)));
        check(r#"{"token":"t","expires_in":-5}"#, Some(("Bearer t", 54)));
        check(r#"{"token":"t","expires_in":1e9}"#, Some(("Bearer t", 77760)));
        check(r#"{"token":"t","expires_in":1e300}"#, Some(("Bearer t", 54)));
        check(r#"{"token":"t","expires_in":null,"issued_at":null}"#, Some(("Bearer t", 54)));
        check(
            r#"{"token":"t","expires_in":300,"issued_at":"1994-11-06T08:48:37Z"}"#,
            Some(("Bearer t", 210)),
        );
        check(
            r#"{"token":"t","expires_in":300,"issued_at":"1994-11-06T08:50:37Z"}"#,
            Some(("Bearer t", 270)),
        );
        check(
            r#"{"token":"t","expires_in":300,"issued_at":"1993-01-01T00:00:00Z"}"#,
            Some(("Bearer t", 0)),
        );
        check(r#"{"token":"t","issued_at":"yesterday"}"#, Some(("Bearer t", 54)));
        check(r#"{"token":"a\nb"}"#, None);
        check(r"{}", None);
        check(r#"{"token":""}"#, None);
        check("<html>", None);
    }

    #[test]
    fn headers_are_sensitive() {
        assert!(basic("robot$team+x", "päss").unwrap().is_sensitive());
        assert!(bearer("a b").unwrap().is_sensitive());
        assert!(bearer("a\0").is_err());
    }
}
