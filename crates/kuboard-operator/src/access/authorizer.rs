//! The body of users that the API server knows.

use std::fmt::Debug;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use k8s_openapi::api::authentication::v1::{TokenReview, TokenReviewSpec};
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SubjectAccessReview, SubjectAccessReviewSpec,
};
use kube::api::{Api, PostParams};
use kuboard_api::names;
use kuboard_registry::server::{
    Action, ApiError, Authorizer, ErrorCode, Fingerprint, Grant, Judge, Memory, Rights,
};
use kuboard_rt::BoxFuture;
use serde::Serialize;
use serde::de::DeserializeOwned;
use tokio::sync::Semaphore;

use super::claims::Claims;
use super::metrics::Metrics;
use super::questions::{Question, questions};
use super::subject::Subject;

/// How long a yes is remembered.
const YES_MS: i64 = 30_000;
/// How long a no is.
const NO_MS: i64 = 5_000;
/// Tokens remembered at a time.
const TOKENS: usize = 16_384;
/// Rights remembered at a time.
const RIGHTS: usize = 65_536;
/// Questions at a time.
const CONCURRENT: usize = 32;
/// How long a question may take, its turn included.
const PATIENCE: Duration = Duration::from_secs(3);
/// How long nobody is asked after a question that got no answer.
const PAUSE_MS: i64 = 1_000;

/// What access by RBAC depends on.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The audience that tokens must be for.
    pub audience: String,
}

impl Default for Settings {
    fn default() -> Self {
        Self { audience: names::AUDIENCE.to_owned() }
    }
}

/// Users with tokens of the cluster, whose rights RBAC knows.
pub struct KubernetesAuthorizer(Arc<Shared>);

struct Shared {
    client: kube::Client,
    audience: String,
    /// Who a token stands for; `None` for tokens that were not accepted.
    grants: Memory<Option<Arc<Grant>>>,
    rights: Memory<bool>,
    turns: Semaphore,
    /// Until when nobody is asked, in milliseconds since 1970.
    pause_until_ms: AtomicI64,
    metrics: Metrics,
}

impl KubernetesAuthorizer {
    /// Asks through this client, whose own retries must be off: a pull waits for the answer.
    ///
    /// # Errors
    /// The machine gives no random bytes.
    pub fn new(
        client: kube::Client,
        settings: Settings,
        metrics: Metrics,
    ) -> Result<Self, ApiError> {
        let randomness = |_| ApiError::internal("the machine gives no random bytes");
        Ok(Self(Arc::new(Shared {
            client,
            audience: settings.audience,
            grants: Memory::new(TOKENS).map_err(randomness)?,
            rights: Memory::new(RIGHTS).map_err(randomness)?,
            turns: Semaphore::new(CONCURRENT),
            pause_until_ms: AtomicI64::new(i64::MIN),
            metrics,
        })))
    }

    fn recall(&self, token: &str, now_ms: i64) -> Option<Option<Arc<Grant>>> {
        self.0.grants.get(&self.0.grants.fingerprint(&[token]), now_ms)
    }

    async fn review(
        &self,
        token: &str,
        claims: &Claims,
        now_ms: i64,
    ) -> Result<Option<Arc<Grant>>, ApiError> {
        let shared = &self.0;
        let question = TokenReview {
            spec: TokenReviewSpec {
                token: token.to_owned(),
                audiences: Some(vec![shared.audience.clone()]),
            },
            ..TokenReview::default()
        };
        let status = shared.ask("token", &question, now_ms).await?.status.unwrap_or_default();
        if let Some(error) = status.error.as_deref().filter(|error| !error.is_empty()) {
            tracing::debug!(error, subject = claims.sub, "the API server did not accept a token");
        }
        let subject = Subject::of(status, &shared.audience);
        shared.metrics.count("token", if subject.is_some() { "yes" } else { "no" });
        Ok(subject.map(|subject| self.grant(subject, claims)))
    }

    fn grant(&self, subject: Subject, claims: &Claims) -> Arc<Grant> {
        let name = subject.user.clone();
        let workload = subject.workload.clone().map(Arc::new);
        let rights = SubjectRights { shared: self.0.clone(), subject };
        Arc::new(Grant {
            judge: Some(Judge::new(Arc::new(rights))),
            expires_ms: claims.exp.map(|end| end.saturating_mul(1000)),
            workload,
            // The token is as good as a refresh token for it would be, and it ends in time.
            ..Grant::by_rules(name, Vec::new(), String::new())
        })
    }
}

impl Authorizer for KubernetesAuthorizer {
    fn remembered(&self, _user: &str, secret: &str, now_ms: i64) -> Option<Arc<Grant>> {
        let grant = self.recall(secret, now_ms)??;
        self.0.metrics.count("token", "remembered");
        Some(grant)
    }

    fn knows_token(&self, token: &str) -> bool {
        Claims::read(token).is_some_and(|claims| claims.audiences.name(&self.0.audience))
    }

    fn authenticate<'a>(
        &'a self,
        _user: &'a str,
        secret: &'a str,
        now_ms: i64,
    ) -> BoxFuture<'a, Result<Option<Arc<Grant>>, ApiError>> {
        Box::pin(async move {
            let Some(claims) = Claims::read(secret) else { return Ok(None) };
            if !claims.audiences.name(&self.0.audience) {
                return wrong_audience(&claims, &self.0.audience);
            }
            if claims.has_ended(now_ms) {
                return Ok(None);
            }
            if let Some(known) = self.recall(secret, now_ms) {
                self.0.metrics.count("token", "remembered");
                return Ok(known);
            }
            let grant = self.review(secret, &claims, now_ms).await?;
            let ends_ms = claims.exp.map_or(i64::MAX, |end| end.saturating_mul(1000));
            let keep_ms = if grant.is_some() { YES_MS } else { NO_MS };
            let until = now_ms.saturating_add(keep_ms).min(ends_ms);
            let print = self.0.grants.fingerprint(&[secret]);
            self.0.grants.put(print, grant.clone(), until, now_ms);
            Ok(grant)
        })
    }

    fn renew<'a>(
        &'a self,
        _name: &'a str,
        _stamp: &'a str,
        _now_ms: i64,
    ) -> BoxFuture<'a, Result<Option<Arc<Grant>>, ApiError>> {
        Box::pin(std::future::ready(Ok(None)))
    }
}

/// A service account's token for somebody else is no secret of ours, but whoever sends it should
/// learn why it opens nothing.
fn wrong_audience(claims: &Claims, audience: &str) -> Result<Option<Arc<Grant>>, ApiError> {
    if !claims.sub.starts_with("system:serviceaccount:") {
        return Ok(None);
    }
    Err(ApiError::unauthorized(format!(
        "this service-account token is not for the audience {audience}; hint: kubectl create \
         token NAME --audience {audience}"
    )))
}

/// What RBAC says of one subject.
struct SubjectRights {
    shared: Arc<Shared>,
    subject: Subject,
}

impl SubjectRights {
    fn fingerprint(&self, action: Action, repository: &str) -> Fingerprint {
        let Subject { user, uid, groups, extra, .. } = &self.subject;
        let groups = groups.iter().map(|group| format!("g:{group}"));
        let extra = extra.iter().flat_map(|(key, values)| {
            values.iter().map(move |value| format!("e:{}:{key}{value}", key.len()))
        });
        let about: Vec<String> = groups.chain(extra).collect();
        let mut parts = vec![user.as_str(), uid.as_str()];
        parts.extend(about.iter().map(String::as_str));
        parts.extend([action.as_str(), repository]);
        self.shared.rights.fingerprint(&parts)
    }

    async fn ask(&self, question: Question, now_ms: i64) -> Result<bool, ApiError> {
        let Subject { user, uid, groups, extra, .. } = &self.subject;
        let Question { verb, namespace, name } = question;
        let some = |text: &str| Some(text.to_owned()).filter(|text| !text.is_empty());
        let review = SubjectAccessReview {
            spec: SubjectAccessReviewSpec {
                user: some(user),
                uid: some(uid),
                groups: Some(groups.clone()),
                extra: Some(extra.clone()).filter(|extra| !extra.is_empty()),
                resource_attributes: Some(ResourceAttributes {
                    group: some(names::REGISTRY_GROUP),
                    resource: some(names::REPOSITORIES),
                    verb: some(verb),
                    namespace: some(&namespace),
                    name: some(&name),
                    ..ResourceAttributes::default()
                }),
                ..SubjectAccessReviewSpec::default()
            },
            ..SubjectAccessReview::default()
        };
        let answer = self.shared.ask("access", &review, now_ms).await?;
        let status = answer.status.unwrap_or_default();
        if !status.allowed
            && let Some(error) = status.evaluation_error.filter(|error| !error.is_empty())
        {
            // RBAC goes on past roles that are missing; the rest of its answer still counts.
            tracing::debug!(error, user, "the API server could not evaluate all rules");
        }
        Ok(status.allowed)
    }
}

impl Rights for SubjectRights {
    fn allows<'a>(
        &'a self,
        action: Action,
        repository: &'a str,
        now_ms: i64,
    ) -> BoxFuture<'a, Result<bool, ApiError>> {
        Box::pin(async move {
            let shared = &self.shared;
            let print = self.fingerprint(action, repository);
            if let Some(known) = shared.rights.get(&print, now_ms) {
                shared.metrics.count("access", "remembered");
                return Ok(known);
            }
            let mut allowed = false;
            for question in questions(action, repository) {
                allowed = self.ask(question, now_ms).await?;
                if allowed {
                    break;
                }
            }
            shared.metrics.count("access", if allowed { "yes" } else { "no" });
            let keep_ms = if allowed { YES_MS } else { NO_MS };
            shared.rights.put(print, allowed, now_ms.saturating_add(keep_ms), now_ms);
            Ok(allowed)
        })
    }
}

impl Shared {
    /// Sends a question and returns it with its answer.
    async fn ask<K>(&self, kind: &str, question: &K, now_ms: i64) -> Result<K, ApiError>
    where
        K: kube::Resource<DynamicType = ()> + Clone + Debug + Serialize + DeserializeOwned,
    {
        if self.is_paused(now_ms) {
            self.metrics.count(kind, "failed");
            return Err(away());
        }
        let api: Api<K> = Api::all(self.client.clone());
        let timer = self.metrics.seconds.start_timer();
        let answer = tokio::time::timeout(PATIENCE, async {
            let _turn = self.turns.acquire().await.map_err(ApiError::internal)?;
            Ok(api.create(&PostParams::default(), question).await)
        });
        let failed = match answer.await {
            Ok(Ok(Ok(answer))) => {
                timer.stop_and_record();
                return Ok(answer);
            }
            Ok(Ok(Err(error))) => self.failed(kind, error, now_ms),
            Ok(Err(error)) => error,
            Err(_) => {
                self.pause(now_ms);
                away().caused_by("the API server did not answer within 3 s")
            }
        };
        timer.stop_and_discard();
        self.metrics.count(kind, "failed");
        Err(failed)
    }

    fn failed(&self, kind: &str, error: kube::Error, now_ms: i64) -> ApiError {
        let forbidden = matches!(&error, kube::Error::Api(status) if status.is_forbidden());
        if forbidden {
            return away().caused_by(format!(
                "the API server does not answer {kind} reviews of this service account; hint: \
                 kubectl create clusterrolebinding kuboard-registry-auth --clusterrole \
                 system:auth-delegator --serviceaccount NAMESPACE:NAME"
            ));
        }
        self.pause(now_ms);
        // The client's errors print their source themselves.
        away().caused_by(error)
    }

    fn is_paused(&self, now_ms: i64) -> bool {
        let until = self.pause_until_ms.load(Ordering::Relaxed);
        // A clock that was set back must not make the pause longer.
        now_ms < until && until - now_ms <= PAUSE_MS
    }

    fn pause(&self, now_ms: i64) {
        self.pause_until_ms.store(now_ms.saturating_add(PAUSE_MS), Ordering::Relaxed);
    }
}

fn away() -> ApiError {
    ApiError::new(
        ErrorCode::Unavailable,
        "the cluster cannot be asked about these credentials now; hint: try again, or see the \
         server's log",
    )
    .with_retry_after(Duration::from_secs(2))
}
