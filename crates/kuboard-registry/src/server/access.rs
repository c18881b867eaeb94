//! Who may do what: from a request's credentials to a [`Caller`], or to the challenge that tells
//! the client how to come back.

use std::collections::HashMap;
use std::io;
use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use http::header::{AUTHORIZATION, HeaderMap, WWW_AUTHENTICATE};
use kuboard_rt::http::Peer;
use tokio::sync::Semaphore;

use super::audit;
use super::authorizer::{Authorizer, Grant};
use super::caller::{Action, Anonymous, Caller};
use super::credentials::{Presented, presented};
use super::error::{ApiError, ErrorCode};
use super::htpasswd::Htpasswd;
use super::keys::{self, KeySource, Keys};
use super::scope;
use super::throttle::Throttle;
use super::token::Signer;
use super::visitor::Visitor;

/// How long a login waits for those before it.
const TURN: Duration = Duration::from_secs(10);
/// Says no more than that: which of the three is wrong is nobody's business.
pub(crate) const WRONG: &str = "wrong user name, password or access key";

/// What access depends on.
#[derive(Clone, Debug)]
pub struct AccessConfig {
    /// What callers without credentials may do.
    pub anonymous: Anonymous,
    /// File of users.
    pub htpasswd: Option<PathBuf>,
    /// File of the key that signs tokens; made if it is not there.
    pub token_key: PathBuf,
    /// Name of this registry in tokens and challenges; replicas share it.
    pub service: String,
    /// How clients reach us, if not as their requests say.
    pub external_url: Option<String>,
}

/// Why access cannot be set up.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AccessError {
    /// The file of users cannot be used.
    #[error("the htpasswd file {}: {fault}", path.display())]
    Htpasswd {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, with the line.
        fault: String,
    },
    /// The file of the signing key can neither be read nor made.
    #[error("the token key {} can neither be read nor made", path.display())]
    Key {
        /// The file.
        path: PathBuf,
        /// What happened.
        source: io::Error,
    },
    /// The file holds something else than an Ed25519 key.
    #[error(
        "the token key {} is not an Ed25519 key in PKCS#8 PEM; hint: remove the file to have one \
         made, or make one with: openssl genpkey -algorithm ed25519", path.display()
    )]
    BadKey {
        /// The file.
        path: PathBuf,
    },
    /// The machine gives no random bytes.
    #[error("the machine gives no random bytes")]
    Randomness,
}

impl AccessError {
    pub(crate) fn key(path: &Path, source: io::Error) -> Self {
        Self::Key { path: path.to_owned(), source }
    }
}

/// Gives the names by which rights are checked for a repository that a client asks a token for, by
/// the host that it asked at and the name as it spells it.
type Naming = dyn Fn(Option<&str>, &str) -> Vec<String> + Send + Sync;

/// Settles who asks and what they may do.
pub struct Access {
    pub(crate) anonymous: Anonymous,
    pub(crate) signer: Signer,
    pub(crate) authorizers: Vec<Arc<dyn Authorizer>>,
    pub(crate) naming: Box<Naming>,
    htpasswd: Option<Arc<Htpasswd>>,
    throttle: Throttle,
    /// Logins that are not remembered go a few at a time, so that many equal ones cost one check.
    turns: Semaphore,
    external_url: Option<String>,
}

impl Access {
    /// Reads the files; makes the signing key if there is none.
    ///
    /// # Errors
    /// A file that cannot be used; the message names it, the line, and what to do.
    pub fn new(config: AccessConfig, keys: Arc<dyn KeySource>) -> Result<Self, AccessError> {
        let signer = Signer::open(&config.token_key, &config.service)?;
        let htpasswd = config.htpasswd.as_deref().map(Htpasswd::open).transpose()?.map(Arc::new);
        let mut authorizers: Vec<Arc<dyn Authorizer>> = vec![Arc::new(Keys::new(keys)?)];
        authorizers.extend(htpasswd.clone().map(|users| users as Arc<dyn Authorizer>));
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        Ok(Self {
            anonymous: config.anonymous,
            signer,
            authorizers,
            naming: Box::new(|_, name| vec![name.to_owned()]),
            htpasswd,
            throttle: Throttle::default(),
            turns: Semaphore::new(cores.div_ceil(2)),
            external_url: config.external_url.map(|url| url.trim_end_matches('/').to_owned()),
        })
    }

    /// Adds a body of users, asked after those of the configuration.
    #[must_use]
    pub fn with_authorizer(mut self, authorizer: Arc<dyn Authorizer>) -> Self {
        self.authorizers.push(authorizer);
        self
    }

    /// Sets by which names rights are checked for a repository that a client asks a token for.
    /// `naming` gets the host that the client asked at and the name as the client spells it. A
    /// client that reaches an upstream by its `Host` header asks for `team/app` and means
    /// `registry.example.com/team/app`; one that asks for `docker.io/alpine` means
    /// `docker.io/library/alpine`. Without this, names mean what they say.
    #[must_use]
    pub fn with_naming(
        mut self,
        naming: impl Fn(Option<&str>, &str) -> Vec<String> + Send + Sync + 'static,
    ) -> Self {
        self.naming = Box::new(naming);
        self
    }

    /// Who sent a request; nobody's rights are checked yet.
    ///
    /// # Errors
    /// 401 for credentials that are malformed, wrong or over, without the challenge that
    /// [`Access::with_challenge`] adds; 429 after too many of them; 503 when they cannot be
    /// checked now.
    pub async fn caller(
        &self,
        headers: &HeaderMap,
        peer: Option<Peer>,
        now_ms: i64,
    ) -> Result<Caller, ApiError> {
        let address = peer.and_then(|peer| peer.addr).map(|address| address.ip());
        match presented(headers).map_err(ApiError::unauthorized)? {
            Presented::None => Ok(Caller::without_credentials(self.anonymous)),
            Presented::Basic { user, secret } => self.user(&user, &secret, address, now_ms).await,
            Presented::Bearer(token) if token.starts_with(keys::PREFIX) => {
                self.user("", &token, address, now_ms).await
            }
            Presented::Bearer(token) => {
                let caller = self.signer.caller(&token, self.anonymous, now_ms);
                match caller {
                    Some(caller) => Ok(caller),
                    None if self.knows_token(&token) => {
                        self.user("", &token, address, now_ms).await
                    }
                    None => Err(ApiError::unauthorized("the token is not ours or has ended")),
                }
            }
        }
    }

    /// Whether the caller may do this to the repository. Where its rights cannot be listed, whoever
    /// knows them is asked.
    ///
    /// # Errors
    /// When it cannot be known now.
    pub async fn allows(
        &self,
        caller: &Caller,
        action: Action,
        repository: &str,
        now_ms: i64,
    ) -> Result<bool, ApiError> {
        if caller.may(action, repository) {
            return Ok(true);
        }
        match caller.judge() {
            Some(judge) => judge.rights().allows(action, repository, now_ms).await,
            None => Ok(false),
        }
    }

    /// Keeps of `names` the repositories that the caller may pull. Where rights must be asked for,
    /// that is once for each first component of a name: repositories that the caller may pull only
    /// by their own names are left out.
    ///
    /// # Errors
    /// When it cannot be known now.
    pub async fn retain_visible(
        &self,
        caller: &Caller,
        names: &mut Vec<String>,
        now_ms: i64,
    ) -> Result<(), ApiError> {
        let mut asked: HashMap<String, bool> = HashMap::new();
        if let Some(judge) = caller.judge() {
            for name in names.iter() {
                let Some((first, _)) = name.split_once('/') else { continue };
                if !asked.contains_key(first) {
                    let all = format!("{first}/*");
                    let allowed = judge.rights().allows(Action::Pull, &all, now_ms).await?;
                    asked.insert(first.to_owned(), allowed);
                }
            }
        }
        names.retain(|name| {
            let first = name.split_once('/').map(|(first, _)| first);
            caller.may(Action::Pull, name)
                || first.and_then(|first| asked.get(first)).is_some_and(|allowed| *allowed)
        });
        Ok(())
    }

    /// The caller of a request, if it may do this to the repository; else the refusal or the
    /// challenge that says how to come back. What workloads of a cluster ask for is audited.
    ///
    /// # Errors
    /// As [`Access::caller`] and [`Access::refusal`].
    pub async fn permit<B>(
        &self,
        request: &http::Request<B>,
        action: Action,
        repository: &str,
        now_ms: i64,
    ) -> Result<Caller, ApiError> {
        let peer = request.extensions().get::<Peer>().copied();
        let asked = self.caller(request.headers(), peer, now_ms);
        let caller =
            asked.await.map_err(|error| self.with_challenge(error, request, action, repository))?;
        let allowed = self.allows(&caller, action, repository, now_ms).await?;
        audit::asked(&caller, request.method(), request.uri().path(), repository, allowed);
        if allowed {
            return Ok(caller);
        }
        Err(self.refusal(&caller, request, action, repository))
    }

    /// Whether a body of users takes this for one of its tokens.
    pub(crate) fn knows_token(&self, token: &str) -> bool {
        self.authorizers.iter().any(|known| known.knows_token(token))
    }

    /// The answer to a caller who may not do this: 403 to a user whose rights end here, else 401
    /// with the challenge to come back with (other) credentials.
    pub fn refusal<B>(
        &self,
        caller: &Caller,
        request: &http::Request<B>,
        action: Action,
        repository: &str,
    ) -> ApiError {
        let detail = serde_json::json!({ "action": action.as_str(), "repository": repository });
        if caller.is_authenticated() && !caller.bears_token() {
            let message = "these credentials do not allow this";
            return ApiError::new(ErrorCode::Denied, message).with_detail(detail);
        }
        let error = caller.bears_token().then_some("insufficient_scope");
        let scope = Some(scope::needed(action, repository));
        ApiError::unauthorized("authentication required")
            .with_detail(detail)
            .with_header(WWW_AUTHENTICATE, &self.bearer(&Visitor::of(request), scope, error))
    }

    /// Adds to a 401 the challenge to come back with a token for this; another error, and one
    /// with a challenge of its own, stays as it is.
    #[must_use]
    pub fn with_challenge<B>(
        &self,
        error: ApiError,
        request: &http::Request<B>,
        action: Action,
        repository: &str,
    ) -> ApiError {
        let challenged = error.headers.contains_key(WWW_AUTHENTICATE);
        if error.status != StatusCode::UNAUTHORIZED || challenged {
            return error;
        }
        let wrong = request.headers().contains_key(AUTHORIZATION).then_some("invalid_token");
        let scope = Some(scope::needed(action, repository));
        let challenge = self.bearer(&Visitor::of(request), scope, wrong);
        error.with_header(WWW_AUTHENTICATE, &challenge)
    }

    /// 401 with the challenge to log in, for `/v2/` itself.
    pub fn challenge_base<B>(&self, request: &http::Request<B>) -> ApiError {
        let challenge = self.bearer(&Visitor::of(request), None, None);
        ApiError::unauthorized("authentication required").with_header(WWW_AUTHENTICATE, &challenge)
    }

    /// True if `/v2/` needs no challenge, because callers without credentials may do everything.
    ///
    /// Some clients learn only there how to log in. Where callers without credentials may pull
    /// and users may push, they must be challenged there too; they come back with a token, be it
    /// an anonymous one.
    pub fn allows_anonymous(&self) -> bool {
        self.anonymous == Anonymous::Push
    }

    /// 401 with a Basic challenge.
    pub(crate) fn challenge_basic(&self, message: &str) -> ApiError {
        let challenge = format!("Basic realm=\"{}\"", self.signer.service());
        ApiError::unauthorized(message).with_header(WWW_AUTHENTICATE, &challenge)
    }

    async fn user(
        &self,
        user: &str,
        secret: &str,
        address: Option<IpAddr>,
        now_ms: i64,
    ) -> Result<Caller, ApiError> {
        match self.login(user, secret, address, now_ms).await? {
            Some(grant) => Ok(Caller::granted(grant, self.anonymous)),
            None => Err(ApiError::unauthorized(WRONG)),
        }
    }

    /// The grant of a user and a secret; `None` if they are wrong.
    pub(crate) async fn login(
        &self,
        user: &str,
        secret: &str,
        address: Option<IpAddr>,
        now_ms: i64,
    ) -> Result<Option<Arc<Grant>>, ApiError> {
        if let Some(users) = &self.htpasswd {
            users.refresh(now_ms).await;
        }
        let known =
            || self.authorizers.iter().find_map(|known| known.remembered(user, secret, now_ms));
        if let Some(grant) = known() {
            return Ok(Some(grant));
        }
        let busy = || {
            ApiError::new(ErrorCode::TooManyRequests, "too many logins at a time")
                .with_retry_after(Duration::from_secs(5))
        };
        let turn = tokio::time::timeout(TURN, self.turns.acquire());
        let _turn = turn.await.map_err(|_| busy())?.map_err(ApiError::internal)?;
        if let Some(grant) = known() {
            return Ok(Some(grant));
        }
        // Charged before the check, so that a client that hangs up early has paid too.
        let last = self.throttle.attempt(address, user, now_ms).map_err(|wait| {
            ApiError::new(ErrorCode::TooManyRequests, "too many failed logins")
                .with_retry_after(wait)
        })?;
        for authorizer in &self.authorizers {
            let outcome = authorizer.authenticate(user, secret, now_ms).await;
            let wrong = match &outcome {
                Ok(found) => found.is_none(),
                Err(error) => error.status == StatusCode::UNAUTHORIZED,
            };
            if !wrong {
                self.throttle.refund(address, user);
            }
            if let Some(grant) = outcome? {
                return Ok(Some(grant));
            }
        }
        if last {
            tracing::warn!(
                ?address,
                "too many failed logins; further ones are refused for a while"
            );
        }
        Ok(None)
    }

    fn bearer(&self, visitor: &Visitor<'_>, scope: Option<String>, error: Option<&str>) -> String {
        let base = self.external_url.clone().unwrap_or_else(|| visitor.base_url());
        let service = self.signer.service();
        let mut challenge = format!("Bearer realm=\"{base}/token\",service=\"{service}\"");
        for (name, value) in [("scope", scope.as_deref()), ("error", error)] {
            if let Some(value) = value {
                challenge.push_str(&format!(",{name}=\"{value}\""));
            }
        }
        challenge
    }
}
