//! Which `Authorization` a request carries: none at first; after a 401 what its challenges ask
//! for; and from then on the same at once, without another 401.

use std::{
    hash::{BuildHasher as _, RandomState},
    sync::Arc,
    time::Duration,
};

use http::{HeaderMap, HeaderValue, header};
use kuboard_oci::{
    RepositoryName,
    challenge::{self, Challenge},
};
use kuboard_rt::Clock;
use parking_lot::Mutex;
use url::Url;

use super::{
    boundary::{Boundary, Verdict},
    endpoint::Endpoint,
    error::{Failure, UpstreamErrorKind},
    lockout::Lockouts,
    metrics::Metrics,
    token::{self, TokenCache, TokenKey, basic, bearer},
    transport::Transport,
};
use crate::credentials::{Credential, Credentials};

/// Longest scope that a challenge may ask for.
const MAX_SCOPE: usize = 1024;

/// In whose name a request is made.
#[derive(Clone, Copy, Debug)]
pub(super) enum Who<'a> {
    /// With the credential that is configured, if any.
    Upstream,
    /// With what a caller brought.
    Caller(&'a Credential),
}

/// What one request is about.
#[derive(Clone, Copy)]
pub(super) struct Errand<'a> {
    pub(super) endpoint: &'a Endpoint,
    pub(super) repository: &'a RepositoryName,
    pub(super) who: Who<'a>,
}

/// What one request carries.
#[derive(Clone, Debug, Default)]
pub(super) struct Pass {
    pub(super) header: Option<HeaderValue>,
    kind: PassKind,
}

#[derive(Clone, Debug, Default)]
enum PassKind {
    #[default]
    Nothing,
    Basic(u64),
    /// An access token of the credential itself.
    Straight,
    /// A token of a token service, and whether it was fetched for this request.
    Token(TokenKey, bool),
}

/// See the module.
pub(super) struct Authenticator {
    pub(super) upstream: Arc<str>,
    pub(super) credentials: Arc<dyn Credentials>,
    pub(super) boundary: Boundary,
    pub(super) clock: Arc<dyn Clock>,
    tokens: TokenCache,
    lockouts: Mutex<Lockouts>,
    /// By endpoint: what it asked for last.
    schemes: Vec<Mutex<Option<Scheme>>>,
    identities: RandomState,
}

/// What an endpoint asks for.
#[derive(Clone, Debug)]
enum Scheme {
    Basic,
    Bearer { realm: Url, service: Option<String>, scope: Scope },
}

/// For what an endpoint wants tokens to be given.
#[derive(Clone, Debug, Eq, PartialEq)]
enum Scope {
    /// For the repository, whose name stands between these two.
    Repository { before: String, after: String },
    /// Always the same, as at public.ecr.aws.
    Fixed(String),
}

impl Scope {
    /// What a challenge asked for when this repository was wanted.
    fn read(asked: Option<&str>, repository: &str) -> Scope {
        let Some(asked) = asked else {
            return Scope::Repository { before: "repository:".into(), after: ":pull".into() };
        };
        match asked.split_once(&format!(":{repository}:")) {
            Some((before, after)) => {
                Scope::Repository { before: format!("{before}:"), after: format!(":{after}") }
            }
            None => Scope::Fixed(asked.to_owned()),
        }
    }

    fn of(&self, repository: &str) -> String {
        match self {
            Scope::Repository { before, after } => format!("{before}{repository}{after}"),
            Scope::Fixed(scope) => scope.clone(),
        }
    }
}

impl Authenticator {
    pub(super) fn new(
        upstream: Arc<str>,
        credentials: Arc<dyn Credentials>,
        boundary: Boundary,
        clock: Arc<dyn Clock>,
        endpoints: usize,
    ) -> Authenticator {
        Authenticator {
            upstream,
            credentials,
            boundary,
            clock,
            tokens: TokenCache::default(),
            lockouts: Mutex::default(),
            schemes: (0..endpoints).map(|_| Mutex::default()).collect(),
            identities: RandomState::new(),
        }
    }

    /// What a request carries before anybody asked for it.
    pub(super) async fn before(
        &self,
        errand: Errand<'_>,
        transport: &Transport,
        metrics: &Metrics,
    ) -> Result<Pass, Failure> {
        let known = self.schemes.get(errand.endpoint.index).and_then(|s| s.lock().clone());
        match known {
            Some(scheme) => {
                let pass = self.pass(errand, scheme, &PassKind::Nothing, transport, metrics);
                Ok(pass.await?.unwrap_or_default())
            }
            None => Ok(Pass::default()),
        }
    }

    /// What the request carries after it was answered 401; `None` if that was the last word.
    pub(super) async fn after_401(
        &self,
        errand: Errand<'_>,
        used: &Pass,
        headers: &HeaderMap,
        transport: &Transport,
        metrics: &Metrics,
    ) -> Result<Option<Pass>, Failure> {
        let offers = offers(headers);
        // The token is good, but its owner may not see this: asking for another is in vain.
        let powerless = offers.iter().any(|offer| offer.get("error") == Some("insufficient_scope"));
        match (&used.kind, &used.header) {
            (PassKind::Basic(credential), _) => {
                self.refused(&errand.endpoint.authority(), *credential);
            }
            (PassKind::Token(key, _), Some(header)) if !powerless => {
                self.tokens.forget(key, header);
            }
            _ => {}
        }
        let Some(scheme) = wanted(errand, &offers)? else { return Ok(None) };
        if let Some(known) = self.schemes.get(errand.endpoint.index) {
            *known.lock() = Some(scheme.clone());
        }
        let used = match &used.kind {
            PassKind::Token(key, fresh) => PassKind::Token(key.clone(), *fresh || powerless),
            kind => kind.clone(),
        };
        self.pass(errand, scheme, &used, transport, metrics).await
    }

    /// The registry let a request through.
    pub(super) fn accepted(&self, endpoint: &Endpoint, used: &Pass) {
        if let PassKind::Basic(credential) = used.kind {
            self.lockouts.lock().accepted(&endpoint.authority(), credential);
        }
    }

    /// What answers a scheme; `None` if that was tried already, or there is nothing to answer.
    async fn pass(
        &self,
        errand: Errand<'_>,
        scheme: Scheme,
        used: &PassKind,
        transport: &Transport,
        metrics: &Metrics,
    ) -> Result<Option<Pass>, Failure> {
        let credential = self.credential(errand).await?;
        if let Some(Credential::Bearer(token)) = &credential {
            let header = Some(bearer(token.expose())?);
            let tried = matches!(used, PassKind::Straight);
            return Ok((!tried).then_some(Pass { header, kind: PassKind::Straight }));
        }
        match (scheme, credential) {
            (Scheme::Basic, None) => Ok(None),
            (Scheme::Basic, Some(_)) if matches!(used, PassKind::Basic(_)) => Ok(None),
            (Scheme::Basic, Some(Credential::Basic { user, password })) => {
                let identity = self.identities.hash_one((&user, &password));
                self.rested(&errand.endpoint.authority(), identity)?;
                let header = Some(basic(&user, password.expose())?);
                Ok(Some(Pass { header, kind: PassKind::Basic(identity) }))
            }
            (Scheme::Basic, Some(_)) => Err(unauthorized(
                "it wants a user name and a password, and the credential is a refresh token",
            )),
            (Scheme::Bearer { realm, service, scope }, credential) => {
                // Before any secret is looked at twice: may this realm see it?
                let verdict = self.boundary.judge(errand.endpoint, &realm);
                let verdict =
                    verdict.map_err(|why| Failure::new(UpstreamErrorKind::Refused, why))?;
                let credential = credential.filter(|_| verdict == Verdict::Credential);
                let key = TokenKey {
                    scope: scope.of(&errand.endpoint.repository(errand.repository)),
                    credential: credential.as_ref().map(|c| self.identities.hash_one(c)),
                    realm,
                    service,
                };
                if matches!(used, PassKind::Token(old, true) if *old == key) {
                    return Ok(None);
                }
                let fetch = self.fetch(&key, credential.as_ref(), transport, metrics);
                let (header, fresh) = self.tokens.get(&key, self.clock.monotonic(), fetch).await?;
                Ok(Some(Pass { header: Some(header), kind: PassKind::Token(key, fresh) }))
            }
        }
    }

    async fn credential(&self, errand: Errand<'_>) -> Result<Option<Credential>, Failure> {
        let Errand { endpoint, repository, who } = errand;
        match who {
            Who::Caller(credential) => Ok(Some(credential.clone())),
            Who::Upstream if endpoint.own => {
                let found = self.credentials.for_repository(&self.upstream, repository.as_str());
                Ok(found.await?)
            }
            // A mirror is a registry of its own, with credentials of its own if any.
            Who::Upstream => {
                let (host, name) = (endpoint.authority(), endpoint.repository(repository));
                Ok(self.credentials.for_repository(&host, &name).await?)
            }
        }
    }

    async fn fetch(
        &self,
        key: &TokenKey,
        credential: Option<&Credential>,
        transport: &Transport,
        metrics: &Metrics,
    ) -> Result<token::Token, Failure> {
        let service = key.realm.host_str().unwrap_or_default();
        if let Some(identity) = key.credential {
            self.rested(service, identity)?;
        }
        let (now, now_ms) = (self.clock.monotonic(), self.clock.now_ms());
        let outcome = token::fetch(transport, key, credential, now, now_ms).await;
        let word = match &outcome {
            Ok(_) => "ok",
            Err(failure) => failure.kind.as_str(),
        };
        metrics.tokens.with_label_values(&[word]).inc();
        match (&outcome, key.credential) {
            (Ok(_), Some(identity)) => self.lockouts.lock().accepted(service, identity),
            (Err(failure), Some(identity)) if failure.kind == UpstreamErrorKind::Unauthorized => {
                self.refused(service, identity);
            }
            _ => {}
        }
        outcome
    }

    fn rested(&self, service: &str, credential: u64) -> Result<(), Failure> {
        let rest = self.lockouts.lock().rests(service, credential, self.clock.monotonic());
        rest.map_or(Ok(()), |rest| {
            let seconds = rest.as_secs_f32().ceil();
            Err(unauthorized(&format!(
                "{service} refused the credentials, which are not tried again for {seconds} s; \
                 hint: check user name and password; replaced ones are tried at once"
            )))
        })
    }

    fn refused(&self, service: &str, credential: u64) {
        let rest: Duration =
            self.lockouts.lock().refused(service, credential, self.clock.monotonic());
        tracing::debug!(
            upstream = &*self.upstream,
            service,
            rest_s = rest.as_secs(),
            "the credentials were refused"
        );
    }
}

fn unauthorized(why: &str) -> Failure {
    Failure::new(UpstreamErrorKind::Unauthorized, why)
}

/// The challenges that can be understood.
fn offers(headers: &HeaderMap) -> Vec<Challenge> {
    let values = headers.get_all(header::WWW_AUTHENTICATE).iter();
    values.filter_map(|value| challenge::parse(value.to_str().ok()?).ok()).flatten().collect()
}

/// What the challenges of a 401 ask for. Of several, a token service is preferred, as it sees
/// the password instead of each request. A 401 without any challenge is taken for Basic, as some
/// servers forget it.
fn wanted(errand: Errand<'_>, offers: &[Challenge]) -> Result<Option<Scheme>, Failure> {
    let repository = errand.endpoint.repository(errand.repository);
    let bearer =
        offers.iter().find(|offer| offer.scheme == "bearer" && offer.get("realm").is_some());
    if let Some(offer) = bearer {
        let realm = offer.get("realm").and_then(|realm| Url::parse(realm).ok());
        let realm = realm
            .ok_or_else(|| Failure::invalid("the realm of its challenge is not an address"))?;
        let scope = offer.get("scope").filter(|scope| !scope.is_empty());
        if scope.is_some_and(|scope| scope.len() > MAX_SCOPE) {
            return Err(Failure::invalid("the scope of its challenge is above 1 KiB"));
        }
        return Ok(Some(Scheme::Bearer {
            realm,
            service: offer.get("service").map(str::to_owned),
            scope: Scope::read(scope, &repository),
        }));
    }
    let basic = offers.is_empty() || offers.iter().any(|offer| offer.scheme == "basic");
    Ok(basic.then_some(Scheme::Basic))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scopes_are_learnt_from_challenges() {
        let cases = [
            (None, "repository:team/b:pull"),
            (Some("repository:team/a:pull"), "repository:team/b:pull"),
            (Some("repository:team/a:pull,push"), "repository:team/b:pull,push"),
            (Some("repository(plugin):team/a:pull x"), "repository(plugin):team/b:pull x"),
            (Some("aws"), "aws"),
            (Some("repository:other:pull"), "repository:other:pull"),
        ];
        for (asked, expected) in cases {
            assert_eq!(Scope::read(asked, "team/a").of("team/b"), expected, "{asked:?}");
        }
    }

    #[track_caller]
    fn check(challenges: &[&str], expected: Result<Option<&str>, &str>) {
        let endpoint = Endpoint::new(0, &Url::parse("https://reg.test").unwrap(), true);
        let repository = "team/a".parse().unwrap();
        let errand = Errand { endpoint: &endpoint, repository: &repository, who: Who::Upstream };
        let headers = challenges
            .iter()
            .map(|challenge| (header::WWW_AUTHENTICATE, challenge.parse().unwrap()))
            .collect();
        let scheme = wanted(errand, &offers(&headers)).map(|scheme| {
            scheme.map(|scheme| match scheme {
                Scheme::Basic => "basic".to_owned(),
                Scheme::Bearer { realm, service, scope } => {
                    format!("{realm} {} {}", service.unwrap_or_default(), scope.of("x"))
                }
            })
        });
        match (scheme, expected) {
            (Ok(scheme), Ok(expected)) => assert_eq!(scheme.as_deref(), expected),
            (Err(failure), Err(part)) => assert!(failure.message.contains(part), "{failure:?}"),
            (scheme, _) => panic!("{challenges:?}: {scheme:?}"),
        }
    }

    #[test]
    fn challenges_as_registries_write_them() {
        let bearer =
            "Bearer realm=\"https://a.test/t\",service=\"s\",scope=\"repository:team/a:pull\"";
        let expected = Ok(Some("https://a.test/t s repository:x:pull"));
        check(&[bearer], expected);
        check(&["Basic realm=\"x\"", bearer], expected);
        check(&[&format!("Basic realm=\"x\", {bearer}")], expected);
        check(
            &["Bearer realm=\"https://a.test/t\""],
            Ok(Some("https://a.test/t  repository:x:pull")),
        );
        check(&["BASIC realm=\"Sonatype Nexus Repository Manager\""], Ok(Some("basic")));
        check(&["Basic"], Ok(Some("basic")));
        check(&[], Ok(Some("basic")));
        check(&["\"\"\""], Ok(Some("basic")));
        check(&["Negotiate"], Ok(None));
        check(&["Bearer"], Ok(None));
        check(&["Bearer realm=\"/token\""], Err("not an address"));
        let long = format!("Bearer realm=\"https://a.test/t\",scope=\"{}\"", "x".repeat(2000));
        check(&[&long], Err("1 KiB"));
    }
}
