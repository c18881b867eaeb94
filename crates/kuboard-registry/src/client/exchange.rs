//! One question to one endpoint until it is answered: credentials after a 401, redirects, the
//! headers about limits, and what the answer says of the endpoint's health.

use http::{HeaderMap, HeaderValue, Method, StatusCode, header};

use super::{
    auth::{Errand, Pass},
    endpoint::Endpoint,
    error::{Failure, UpstreamErrorKind, kind_of},
    rate::{self, RateLimit},
    redirect::Trail,
    shared::Shared,
    transport::drain,
};

/// A question about a repository.
#[derive(Clone, Debug)]
pub(super) struct Ask {
    pub(super) method: Method,
    /// Behind the repository's name, such as `manifests/latest`.
    pub(super) tail: String,
    pub(super) query: Option<String>,
    pub(super) accept: Option<&'static str>,
    /// The value of a `Range` header.
    pub(super) range: Option<String>,
}

impl Ask {
    pub(super) fn new(method: Method, tail: String) -> Ask {
        Ask { method, tail, query: None, accept: None, range: None }
    }

    fn headers(&self) -> Result<HeaderMap, Failure> {
        let mut headers = HeaderMap::new();
        if let Some(accept) = self.accept {
            headers.insert(header::ACCEPT, HeaderValue::from_static(accept));
        }
        if let Some(range) = &self.range {
            let range = HeaderValue::from_str(range)
                .map_err(|error| Failure::invalid("the range is malformed").because(error))?;
            headers.insert(header::RANGE, range);
        }
        Ok(headers)
    }
}

/// What came back.
#[derive(Debug)]
pub(super) struct Answer {
    pub(super) response: reqwest::Response,
    pub(super) method: Method,
    /// It came from a host that the registry sent us to.
    pub(super) elsewhere: bool,
}

impl Answer {
    pub(super) fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// A header as text; `None` too where it is no text.
    pub(super) fn header(&self, name: impl header::AsHeaderName) -> Option<&str> {
        self.response.headers().get(name)?.to_str().ok()
    }

    /// The length of the body that the head promises; for HEAD, the one that GET would have.
    pub(super) fn length(&self) -> Option<u64> {
        self.header(header::CONTENT_LENGTH)?.trim().parse().ok()
    }
}

/// Requests of one exchange: without credentials, with a token that turned out to be stale, and
/// with a fresh one.
const ATTEMPTS: usize = 3;

impl Shared {
    /// Asks an endpoint. Any status but the 401s that credentials could answer comes back.
    pub(super) async fn exchange(&self, errand: Errand<'_>, ask: &Ask) -> Result<Answer, Failure> {
        let mut pass = self.auth.before(errand, &self.transport, &self.metrics).await?;
        let mut attempt = 1;
        loop {
            let answer = self.follow(errand, ask, &pass).await?;
            if answer.status() != StatusCode::UNAUTHORIZED || answer.elsewhere {
                self.auth.accepted(errand.endpoint, &pass);
                return Ok(answer);
            }
            let headers = answer.response.headers();
            let next =
                self.auth.after_401(errand, &pass, headers, &self.transport, &self.metrics).await?;
            match next {
                Some(next) if attempt < ATTEMPTS => pass = next,
                _ => return Ok(answer),
            }
            drain(answer.response).await;
            attempt += 1;
        }
    }

    /// Sends one request and goes where it is sent.
    async fn follow(&self, errand: Errand<'_>, ask: &Ask, pass: &Pass) -> Result<Answer, Failure> {
        let mut start = errand.endpoint.url(errand.repository, &ask.tail);
        start.set_query(ask.query.as_deref());
        let headers = ask.headers()?;
        let mut trail = Trail::new(start);
        loop {
            let mut headers = headers.clone();
            if let Some(pass) = pass.header.as_ref().filter(|_| trail.is_home()) {
                headers.insert(header::AUTHORIZATION, pass.clone());
            }
            let sent = self.transport.send(ask.method.clone(), trail.at().clone(), headers, None);
            let response = sent.await.inspect_err(|failure| self.count(failure.kind.as_str()))?;
            self.count(response.status().as_str());
            if trail.is_home() {
                self.observe(errand.endpoint, &response);
            }
            let location = match response.status() {
                StatusCode::MOVED_PERMANENTLY
                | StatusCode::FOUND
                | StatusCode::SEE_OTHER
                | StatusCode::TEMPORARY_REDIRECT
                | StatusCode::PERMANENT_REDIRECT => response.headers().get(header::LOCATION),
                _ => {
                    let elsewhere = !trail.is_home();
                    return Ok(Answer { response, method: ask.method.clone(), elsewhere });
                }
            };
            let location = location
                .and_then(|location| location.to_str().ok())
                .ok_or_else(|| Failure::invalid("it redirects to nowhere"))?
                .to_owned();
            drain(response).await;
            trail.follow(&location).map_err(|why| {
                Failure::new(UpstreamErrorKind::Refused, format!("it answered with {why}"))
            })?;
        }
    }

    fn count(&self, code: &str) {
        self.metrics.requests.with_label_values(&[code]).inc();
    }

    /// Learns from the head of an answer of the endpoint itself.
    fn observe(&self, endpoint: &Endpoint, response: &reqwest::Response) {
        if !response.status().is_server_error() {
            self.healths.lock().succeeded(endpoint.index);
        }
        // The limits of a mirror are not those of the upstream, unless nobody else is asked.
        if (endpoint.own || !self.endpoints.iter().any(|endpoint| endpoint.own))
            && let Some(seen) = RateLimit::read(response.headers())
        {
            self.metrics.remaining(seen.remaining);
            *self.rate.lock() = Some((seen, self.clock.monotonic()));
        }
    }

    /// An answer that is no success becomes a failure, with what the registry said about it.
    pub(super) async fn checked(&self, answer: Answer) -> Result<Answer, Failure> {
        let status = answer.status();
        if matches!(status, StatusCode::OK | StatusCode::PARTIAL_CONTENT) {
            return Ok(answer);
        }
        let wait = rate::retry_after(answer.response.headers(), self.clock.now_ms());
        let elsewhere = answer.elsewhere;
        if status == StatusCode::NOT_FOUND
            && !elsewhere
            && is_foreign_page(answer.response.headers())
        {
            let message = "a 404 page that no registry wrote: something before it answered";
            return Err(Failure::new(UpstreamErrorKind::Unavailable, message));
        }
        let kind = kind_of(status, wait, elsewhere);
        let said = said(&drain(answer.response).await);
        let place = if elsewhere { "the storage it redirects to" } else { "it" };
        let failure = Failure::new(kind, format!("{place} answered {status}{said}"));
        // Gateways speak of the service, an internal error of one request.
        let gateway = matches!(status.as_u16(), 502..=504);
        Err(if gateway { failure.unhealthy() } else { failure })
    }
}

/// The first error of a registry's error body, fit for a log: ` (CODE: message)`, or nothing.
fn said(body: &[u8]) -> String {
    const MAX_CHARS: usize = 200;
    #[derive(serde::Deserialize)]
    struct Errors {
        errors: Vec<Item>,
    }
    #[derive(serde::Deserialize)]
    struct Item {
        #[serde(default)]
        code: String,
        #[serde(default)]
        message: String,
    }
    let errors: Option<Errors> = serde_json::from_slice(body).ok();
    let Some(first) = errors.and_then(|errors| errors.errors.into_iter().next()) else {
        return String::new();
    };
    let clean = |text: &str| -> String {
        text.chars().filter(|c| !c.is_control()).take(MAX_CHARS).collect()
    };
    match (clean(&first.code), clean(&first.message)) {
        (code, message) if message.is_empty() => format!(" ({code})"),
        (code, message) => format!(" ({code}: {message})"),
    }
}

/// Whether headers are those of a web page: an ingress whose registry is away answers so, and its
/// "not found" is no word about content. Registries answer JSON, or say which protocol they speak.
fn is_foreign_page(headers: &http::HeaderMap) -> bool {
    let page = headers
        .get(http::header::CONTENT_TYPE)
        .and_then(|value| value.to_str().ok())
        .is_some_and(|value| value.trim_start().to_ascii_lowercase().starts_with("text/html"));
    page && !headers.contains_key("docker-distribution-api-version")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_registries_say_is_short_and_plain() {
        let long = format!(r#"{{"errors":[{{"code":"X","message":"{}"}}]}}"#, "é".repeat(500));
        let cases = [
            (r#"{"errors":[{"code":"DENIED","message":"no\n\u001b[31m"}]}"#, " (DENIED: no[31m)"),
            (r#"{"errors":[{"code":"DENIED"}]}"#, " (DENIED)"),
            (r#"{"errors":[]}"#, ""),
            ("<html>", ""),
            ("", ""),
        ];
        for (body, expected) in cases {
            assert_eq!(said(body.as_bytes()), expected, "{body}");
        }
        assert_eq!(said(long.as_bytes()).chars().count(), 200 + " (X: )".len());
    }
}
