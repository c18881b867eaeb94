//! What can go wrong with an upstream: the kind and whether to retry as data, the rest as words.

use std::{error::Error, fmt, sync::Arc, time::Duration};

use http::StatusCode;

/// What kind of failure it was, as the caller must treat it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum UpstreamErrorKind {
    /// The upstream itself says that it does not exist.
    NotFound,
    /// The upstream wants (other) credentials. Docker Hub also says so of repositories that do
    /// not exist.
    Unauthorized,
    /// The upstream knows us and says no.
    Denied,
    /// The upstream wants us to wait.
    Throttled {
        /// For how long, if it said so.
        retry_after: Option<Duration>,
    },
    /// No connection, a server's error, or it is being left alone after several of them.
    Unavailable,
    /// No answer, or no free place to ask, within the bound.
    Timeout,
    /// An answer that is against the protocol: wrong digest, wrong range, too large.
    Invalid,
    /// Our own rules forbid it: a foreign token service, a redirect loop, a downgrade.
    Refused,
}

impl UpstreamErrorKind {
    /// One word, as in metrics.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            UpstreamErrorKind::NotFound => "not_found",
            UpstreamErrorKind::Unauthorized => "unauthorized",
            UpstreamErrorKind::Denied => "denied",
            UpstreamErrorKind::Throttled { .. } => "throttled",
            UpstreamErrorKind::Unavailable => "unavailable",
            UpstreamErrorKind::Timeout => "timeout",
            UpstreamErrorKind::Invalid => "invalid",
            UpstreamErrorKind::Refused => "refused",
        }
    }

    /// Whether it is a word about the content and our rights, final if the upstream itself
    /// spoke it.
    pub(super) fn is_verdict(self) -> bool {
        use UpstreamErrorKind::{Denied, NotFound, Unauthorized};
        matches!(self, NotFound | Unauthorized | Denied)
    }
}

/// A request to an upstream that failed. Holds no secret: neither credentials nor the query of
/// an address.
#[derive(Clone, Debug)]
pub struct UpstreamError {
    /// What to do about it.
    pub kind: UpstreamErrorKind,
    /// The upstream's name.
    upstream: Arc<str>,
    /// What was asked of whom, and what happened.
    message: Box<str>,
    source: Option<Arc<dyn Error + Send + Sync>>,
}

impl UpstreamError {
    /// A failure that a caller found out about an upstream, such as bytes that are not their
    /// digest.
    #[must_use]
    pub fn new(
        kind: UpstreamErrorKind,
        upstream: impl Into<Arc<str>>,
        message: impl Into<String>,
    ) -> UpstreamError {
        let message: String = message.into();
        UpstreamError { kind, upstream: upstream.into(), message: message.into(), source: None }
    }

    /// Whether the same request may succeed later.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(
            self.kind,
            UpstreamErrorKind::Throttled { .. }
                | UpstreamErrorKind::Unavailable
                | UpstreamErrorKind::Timeout
        )
    }

    /// How long the upstream asked us to wait.
    #[must_use]
    pub fn retry_after(&self) -> Option<Duration> {
        match self.kind {
            UpstreamErrorKind::Throttled { retry_after } => retry_after,
            _ => None,
        }
    }

    /// The upstream's name.
    #[must_use]
    pub fn upstream(&self) -> &str {
        &self.upstream
    }
}

impl fmt::Display for UpstreamError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.upstream, self.message)
    }
}

impl Error for UpstreamError {
    fn source(&self) -> Option<&(dyn Error + 'static)> {
        self.source.as_deref().map(|source| source as &(dyn Error + 'static))
    }
}

/// A failure below the place that knows what was asked of whom.
#[derive(Clone, Debug)]
pub(super) struct Failure {
    pub(super) kind: UpstreamErrorKind,
    pub(super) message: Box<str>,
    pub(super) source: Option<Arc<dyn Error + Send + Sync>>,
    pub(super) shows: Shows,
}

/// What a failure shows of the endpoint, beyond the one request.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Shows {
    Nothing,
    /// It is down, or its way is.
    Unwell,
    /// Its answers are wrong.
    Wrong,
}

impl Failure {
    pub(super) fn new(kind: UpstreamErrorKind, message: impl Into<String>) -> Failure {
        Failure { kind, message: message.into().into(), source: None, shows: Shows::Nothing }
    }

    pub(super) fn unhealthy(self) -> Failure {
        Failure { shows: Shows::Unwell, ..self }
    }

    pub(super) fn invalid(message: impl Into<String>) -> Failure {
        Failure::new(UpstreamErrorKind::Invalid, message)
    }

    /// An answer against the protocol, after which other endpoints are preferred.
    pub(super) fn wrong(message: impl Into<String>) -> Failure {
        Failure { shows: Shows::Wrong, ..Failure::invalid(message) }
    }

    pub(super) fn because(mut self, source: impl Into<Box<dyn Error + Send + Sync>>) -> Failure {
        self.source = Some(Arc::from(source.into()));
        self
    }

    /// Says what was attempted: `HEAD manifests/latest of library/alpine at host`.
    pub(super) fn at(self, upstream: &Arc<str>, attempt: &str) -> UpstreamError {
        UpstreamError {
            kind: self.kind,
            upstream: Arc::clone(upstream),
            message: format!("{attempt}: {}", self.message).into(),
            source: self.source,
        }
    }
}

impl From<crate::credentials::CredentialError> for Failure {
    fn from(error: crate::credentials::CredentialError) -> Failure {
        let kind = if error.is_retryable() {
            UpstreamErrorKind::Unavailable
        } else {
            UpstreamErrorKind::Unauthorized
        };
        Failure::new(kind, "the credentials are not to be had").because(error)
    }
}

/// The kind of a status that is no success. `elsewhere` says that it came from a host we were
/// redirected to, whose word about existence and rights is not the registry's.
pub(super) fn kind_of(
    status: StatusCode,
    retry_after: Option<Duration>,
    elsewhere: bool,
) -> UpstreamErrorKind {
    match status {
        StatusCode::TOO_MANY_REQUESTS => UpstreamErrorKind::Throttled { retry_after },
        StatusCode::REQUEST_TIMEOUT | StatusCode::GATEWAY_TIMEOUT => UpstreamErrorKind::Timeout,
        // An address that was signed for a short time ran out, or its storage lags behind.
        StatusCode::NOT_FOUND | StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN if elsewhere => {
            UpstreamErrorKind::Unavailable
        }
        StatusCode::NOT_FOUND | StatusCode::GONE => UpstreamErrorKind::NotFound,
        StatusCode::UNAUTHORIZED | StatusCode::PROXY_AUTHENTICATION_REQUIRED => {
            UpstreamErrorKind::Unauthorized
        }
        StatusCode::FORBIDDEN
        | StatusCode::PAYMENT_REQUIRED
        | StatusCode::UNAVAILABLE_FOR_LEGAL_REASONS => UpstreamErrorKind::Denied,
        status if status.is_server_error() => UpstreamErrorKind::Unavailable,
        _ => UpstreamErrorKind::Invalid,
    }
}

/// Which error speaks for all endpoints. `errors` are in the order of asking, with whether the
/// endpoint is the upstream itself. The upstream's own word counts; a mirror's "not found"
/// counts only if nobody else could know better.
pub(super) fn conclude(errors: Vec<(bool, UpstreamError)>) -> Option<UpstreamError> {
    let any_own = errors.iter().any(|(own, _)| *own);
    let mut heard: Vec<UpstreamError> =
        errors.into_iter().filter(|(own, _)| *own || !any_own).map(|(_, error)| error).collect();
    let position = heard
        .iter()
        .position(|error| any_own && error.kind.is_verdict())
        .or_else(|| heard.iter().position(UpstreamError::is_retryable))
        .or_else(|| heard.iter().position(|error| error.kind != UpstreamErrorKind::NotFound))
        .or_else(|| heard.len().checked_sub(1))?;
    Some(heard.swap_remove(position))
}

#[cfg(test)]
mod tests {
    use super::*;
    use UpstreamErrorKind::{
        Denied, Invalid, NotFound, Throttled, Timeout, Unauthorized, Unavailable,
    };

    #[test]
    fn statuses_become_kinds() {
        let wait = Some(Duration::from_secs(3));
        let cases = [
            (404, false, NotFound),
            (404, true, Unavailable),
            (401, false, Unauthorized),
            (403, false, Denied),
            (403, true, Unavailable),
            (429, false, Throttled { retry_after: wait }),
            (429, true, Throttled { retry_after: wait }),
            (500, false, Unavailable),
            (503, false, Unavailable),
            (504, false, Timeout),
            (400, false, Invalid),
            (418, false, Invalid),
            (204, false, Invalid),
        ];
        for (status, elsewhere, expected) in cases {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(kind_of(status, wait, elsewhere), expected, "{status} {elsewhere}");
        }
    }

    /// The kind that speaks for endpoints that failed so, each with whether it is the upstream.
    #[track_caller]
    fn check(errors: &[(bool, UpstreamErrorKind)], expected: Option<UpstreamErrorKind>) {
        let name = Arc::from("reg");
        let made =
            errors.iter().map(|(own, kind)| (*own, Failure::new(*kind, "x").at(&name, "GET")));
        let kind = conclude(made.collect()).map(|error| error.kind);
        assert_eq!(kind, expected, "{errors:?}");
    }

    #[test]
    fn the_upstream_speaks_before_its_mirrors() {
        check(&[], None);
        check(&[(true, NotFound)], Some(NotFound));
        check(&[(false, NotFound), (true, Unavailable)], Some(Unavailable));
        check(&[(false, Unavailable), (true, NotFound)], Some(NotFound));
        check(&[(false, NotFound), (false, Timeout)], Some(Timeout));
        check(&[(false, NotFound), (false, Denied)], Some(Denied));
        check(&[(false, NotFound), (false, NotFound)], Some(NotFound));
        check(&[(true, Unavailable), (true, NotFound)], Some(NotFound));
        check(&[(false, Invalid), (true, Denied)], Some(Denied));
    }
}
