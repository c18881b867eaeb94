//! With what secrets an upstream registry is asked, and where they come from.
//!
//! [`Credentials`] is the door; behind it stand a docker `config.json` ([`DockerConfig`]), AWS
//! ([`EcrToken`]), one fixed secret ([`Static`]) and several of them in order ([`Chain`]).
//! Whether a secret may be sent to a given host is decided by [`client`](crate::client), never
//! here.

mod docker_config;
mod ecr;
mod helper;
mod keyring;

use std::{fmt, sync::Arc};

use kuboard_rt::BoxFuture;

pub use docker_config::DockerConfig;
pub use ecr::{AwsKeys, EcrToken};

/// A text that reaches no log: it has neither `Display` nor a telling `Debug`.
#[derive(Clone, Eq, PartialEq, Hash)]
pub struct Secret(Arc<str>);

impl Secret {
    /// Keeps a text.
    #[must_use]
    pub fn new(text: impl Into<Arc<str>>) -> Secret {
        Secret(text.into())
    }

    /// The text, for the one place that sends it.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl From<String> for Secret {
    fn from(text: String) -> Secret {
        Secret::new(text)
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// What one registry is shown.
#[derive(Clone, Debug, Eq, PartialEq, Hash)]
pub enum Credential {
    /// User name and password, given to the registry itself (Basic) or to its token service.
    Basic {
        /// As the registry knows it, such as `robot$team+puller`.
        user: String,
        /// Password, robot secret or access token.
        password: Secret,
    },
    /// A refresh token, exchanged at the token service (OAuth 2); `identitytoken` in docker's
    /// files.
    IdentityToken(Secret),
    /// An access token that is sent as it is.
    Bearer(Secret),
}

/// Finds the credential for a repository. Asked each time one is needed, so it must be quick or
/// keep what it found, and a secret that was replaced is used from the next request on.
pub trait Credentials: Send + Sync {
    /// `registry` is the upstream's name (`docker.io`), or `host[:port]` where a mirror of it is
    /// asked; `repository` the name inside it. `None` means that nothing is known: go
    /// anonymously.
    ///
    /// # Errors
    /// The source is there but cannot be read; going on without it would turn "denied" into
    /// "does not exist".
    fn for_repository<'a>(
        &'a self,
        registry: &'a str,
        repository: &'a str,
    ) -> BoxFuture<'a, Result<Option<Credential>, CredentialError>>;
}

/// A source of credentials that did not answer.
#[derive(Clone, Debug, thiserror::Error)]
#[error("{message}")]
pub struct CredentialError {
    message: Box<str>,
    retryable: bool,
    #[source]
    source: Option<Arc<dyn std::error::Error + Send + Sync>>,
}

impl CredentialError {
    /// A fault that stays until somebody changes something.
    #[must_use]
    pub fn lasting(message: impl Into<String>) -> CredentialError {
        CredentialError { message: message.into().into(), retryable: false, source: None }
    }

    /// A fault that may pass by itself.
    #[must_use]
    pub fn passing(message: impl Into<String>) -> CredentialError {
        CredentialError { message: message.into().into(), retryable: true, source: None }
    }

    /// The same with its cause.
    #[must_use]
    pub fn because(
        mut self,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> CredentialError {
        self.source = Some(Arc::from(source.into()));
        self
    }

    /// Whether asking again may help.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        self.retryable
    }
}

/// One credential for one registry.
#[derive(Clone, Debug)]
pub struct Static {
    registry: Box<str>,
    credential: Credential,
}

impl Static {
    /// `registry` is compared as a whole with what is asked for: the upstream's name, or
    /// `host[:port]` of a mirror.
    #[must_use]
    pub fn new(registry: impl Into<String>, credential: Credential) -> Static {
        Static { registry: registry.into().into(), credential }
    }
}

impl Credentials for Static {
    fn for_repository<'a>(
        &'a self,
        registry: &'a str,
        _repository: &'a str,
    ) -> BoxFuture<'a, Result<Option<Credential>, CredentialError>> {
        let found = registry.eq_ignore_ascii_case(&self.registry).then(|| self.credential.clone());
        Box::pin(std::future::ready(Ok(found)))
    }
}

/// Several sources; the first that knows something is used. The empty chain is anonymous.
#[derive(Clone, Default)]
pub struct Chain(Vec<Arc<dyn Credentials>>);

impl Chain {
    /// Asked in the order given.
    #[must_use]
    pub fn new(sources: Vec<Arc<dyn Credentials>>) -> Chain {
        Chain(sources)
    }
}

impl Credentials for Chain {
    fn for_repository<'a>(
        &'a self,
        registry: &'a str,
        repository: &'a str,
    ) -> BoxFuture<'a, Result<Option<Credential>, CredentialError>> {
        Box::pin(async move {
            for source in &self.0 {
                if let Some(found) = source.for_repository(registry, repository).await? {
                    return Ok(Some(found));
                }
            }
            Ok(None)
        })
    }
}
