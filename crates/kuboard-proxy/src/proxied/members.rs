//! The clients of all upstream registries, one each; for a rule that stands for a family of
//! registries, made when a member is first asked for.

use std::{collections::HashMap, path::PathBuf, sync::Arc};

use anyhow::Context;
use http::StatusCode;
use kuboard_api::{Rules, UpstreamCredentials, UpstreamRule};
use kuboard_registry::client::{Upstream, UpstreamConfig};
use kuboard_registry::credentials::{
    Chain, Credential, CredentialError, Credentials, DockerConfig, EcrToken, Secret,
};
use kuboard_registry::server::{ApiError, ErrorCode};
use kuboard_rt::{BoxFuture, Clock};
use parking_lot::RwLock;

/// Members of families kept at a time: far above what clusters use, and a bound on what a
/// stranger can make us keep by inventing names.
const MAX_MEMBERS: usize = 512;

/// A cold image with more layers than places must not fail for the last ones.
const BLOB_QUEUE: std::time::Duration = std::time::Duration::from_secs(600);

/// One upstream registry.
pub(crate) struct Member {
    /// First part of the names of its repositories here.
    pub(crate) name: Arc<str>,
    pub(crate) settings: UpstreamRule,
    pub(crate) upstream: Upstream,
}

/// All upstream registries.
pub(crate) struct Members {
    rules: Arc<Rules>,
    /// One for each rule, in their order.
    credentials: Vec<Arc<dyn Credentials>>,
    made: RwLock<HashMap<Box<str>, Arc<Member>>>,
    registry: prometheus::Registry,
    clock: Arc<dyn Clock>,
}

impl Members {
    /// Makes the clients of all rules that name one registry, so that a bad setting fails at
    /// start.
    pub(crate) async fn new(
        rules: Arc<Rules>,
        registry: prometheus::Registry,
        clock: Arc<dyn Clock>,
        others: Option<Arc<dyn Credentials>>,
    ) -> anyhow::Result<Self> {
        let mut known = Vec::new();
        for rule in rules.upstreams() {
            let said = credentials(&rule.credentials, &clock, others.as_ref()).await;
            known.push(said.with_context(|| format!("credentials of upstream {}", rule.name))?);
        }
        let members = Self {
            rules: rules.clone(),
            credentials: known,
            made: RwLock::default(),
            registry,
            clock,
        };
        for (index, rule) in rules.upstreams().iter().enumerate() {
            if !rule.is_family() {
                members.make(index, rule, &rule.name)?;
            }
        }
        Ok(members)
    }

    /// The client of `registry` under the rule of this index.
    pub(crate) fn get(&self, rule: usize, registry: &str) -> Result<Arc<Member>, ApiError> {
        if let Some(member) = self.made.read().get(registry) {
            return Ok(member.clone());
        }
        let settings = self.rules.get(rule).ok_or_else(|| failed("its rule is gone"))?;
        self.make(rule, settings, registry).map_err(|error| failed(&format!("{error:#}")))
    }

    fn make(
        &self,
        index: usize,
        rule: &UpstreamRule,
        registry: &str,
    ) -> anyhow::Result<Arc<Member>> {
        let endpoints = rule.endpoints(registry).into_iter().map(|endpoint| endpoint.url).collect();
        let config = UpstreamConfig {
            concurrency: rule.concurrency,
            blob_queue_timeout: Some(BLOB_QUEUE),
            connect_timeout: rule.connect_timeout,
            read_timeout: rule.read_timeout,
            ca_file: rule.ca_file.clone(),
            insecure_skip_verify: rule.insecure_skip_verify,
            trusted_realms: rule.trusted_realms.clone(),
            ..UpstreamConfig::new(registry, endpoints)
        };
        let said = self.credentials.get(index).context("a rule without credentials")?;
        let credentials: Arc<dyn Credentials> = match rule.credentials {
            // A password in our settings is for the upstream itself; a docker config and AWS know
            // by themselves which host a secret is for.
            UpstreamCredentials::Basic { .. } => {
                Arc::new(OnlyFor { registry: registry.into(), inner: said.clone() })
            }
            _ => said.clone(),
        };
        let upstream =
            Upstream::with_clock(config, credentials.clone(), &self.registry, self.clock.clone())?;
        let member = Arc::new(Member { name: registry.into(), settings: rule.clone(), upstream });
        // Of two that were made at once, the first stays: it may hold downloads already.
        let mut made = self.made.write();
        if made.len() >= MAX_MEMBERS {
            made.retain(|_, member| !member.settings.is_family() || Arc::strong_count(member) > 1);
        }
        Ok(made.entry(registry.into()).or_insert(member).clone())
    }
}

fn failed(why: &str) -> ApiError {
    ApiError::new(ErrorCode::Unknown, format!("this upstream can't be asked: {why}"))
        .with_status(StatusCode::BAD_GATEWAY)
}

async fn credentials(
    said: &UpstreamCredentials,
    clock: &Arc<dyn Clock>,
    others: Option<&Arc<dyn Credentials>>,
) -> anyhow::Result<Arc<dyn Credentials>> {
    Ok(match said {
        UpstreamCredentials::None => Arc::new(Chain::new(others.cloned().into_iter().collect())),
        UpstreamCredentials::Basic { user, password_file } => {
            let source = PasswordFile { user: user.clone(), file: password_file.clone() };
            source.read()?;
            Arc::new(source)
        }
        UpstreamCredentials::DockerConfig(path) => {
            Arc::new(DockerConfig::open(path.clone(), clock.clone()).await?)
        }
        UpstreamCredentials::Ecr => Arc::new(EcrToken::from_environment(clock.clone())?),
    })
}

/// Keeps a secret from whoever else is asked on behalf of an upstream: its mirrors.
struct OnlyFor {
    registry: Box<str>,
    inner: Arc<dyn Credentials>,
}

impl Credentials for OnlyFor {
    fn for_repository<'a>(
        &'a self,
        registry: &'a str,
        repository: &'a str,
    ) -> BoxFuture<'a, Result<Option<Credential>, CredentialError>> {
        if registry == &*self.registry {
            self.inner.for_repository(registry, repository)
        } else {
            Box::pin(async { Ok(None) })
        }
    }
}

/// A user whose password stands in a file, read anew for each token: a rotated secret is used
/// from the next request on.
struct PasswordFile {
    user: String,
    file: PathBuf,
}

impl PasswordFile {
    fn read(&self) -> Result<Credential, CredentialError> {
        let text = std::fs::read_to_string(&self.file).map_err(|error| {
            let file = self.file.display();
            CredentialError::passing(format!("password file {file} can't be read")).because(error)
        })?;
        let password = Secret::new(text.trim_end_matches(['\r', '\n']));
        Ok(Credential::Basic { user: self.user.clone(), password })
    }
}

impl Credentials for PasswordFile {
    fn for_repository<'a>(
        &'a self,
        _registry: &'a str,
        _repository: &'a str,
    ) -> BoxFuture<'a, Result<Option<Credential>, CredentialError>> {
        Box::pin(async move { self.read().map(Some) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_mirror_never_gets_the_upstreams_password() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        std::fs::write(&file, "secret\n").unwrap();
        let inner = Arc::new(PasswordFile { user: "user".to_owned(), file });
        let only = OnlyFor { registry: "docker.io".into(), inner };
        for (registry, given) in [("docker.io", true), ("mirror.example.com", false)] {
            let credential = only.for_repository(registry, "library/alpine").await.unwrap();
            assert_eq!(credential.is_some(), given, "{registry}");
        }
    }
}
