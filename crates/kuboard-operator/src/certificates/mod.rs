//! The certificate of the webhook: an authority and a leaf in a Secret that all replicas share,
//! written by compare-and-swap, renewed in time, swapped without a restart.
//!
//! [`what_to_do`] decides, [`Keyring`] makes, [`WebhookCertificates`] acts.

mod decide;
mod keyring;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use k8s_openapi::api::{
    admissionregistration::v1::ValidatingWebhookConfiguration, core::v1::Secret,
};
use kube::{
    Api, Client,
    api::{ObjectMeta, PostParams},
};
use kuboard_api::names;
use kuboard_rt::{Clock, Shutdown, tls::Certificates};
use tokio::sync::watch;

pub use decide::{AUTHORITY_LIFE_MS, DAY_MS, Held, LEAF_LIFE_MS, Life, Plan, what_to_do};
pub use keyring::Keyring;

use crate::{Error, client::ask, metrics::OperatorMetrics};

/// How often the clock is looked at: it may jump.
const LOOK: Duration = Duration::from_secs(2);
/// How often the Secret is read if the clock asks for nothing: another replica may have renewed.
const READ: Duration = Duration::from_secs(15);
/// After a failure.
const AGAIN: Duration = Duration::from_secs(5);
/// Others may be writing too; each conflict means that one of them succeeded.
const TRIES: usize = 5;

/// The certificates of the webhook of this process.
pub struct WebhookCertificates {
    client: Client,
    namespace: String,
    /// The names that clients use: `SERVICE.NAMESPACE.svc` and the host of a webhook URL.
    names: Vec<String>,
    clock: Arc<dyn Clock>,
    certificates: Arc<Certificates>,
    metrics: Arc<OperatorMetrics>,
    held: watch::Sender<Keyring>,
}

impl WebhookCertificates {
    /// Nothing is read yet: until [`WebhookCertificates::refresh`], handshakes are refused.
    ///
    /// # Errors
    /// When the TLS library refuses.
    pub fn new(
        client: Client,
        namespace: &str,
        names: Vec<String>,
        clock: Arc<dyn Clock>,
        metrics: Arc<OperatorMetrics>,
    ) -> Result<Arc<Self>, Error> {
        let certificates = Certificates::handed()
            .map_err(|error| Error::Config(format!("no TLS for the webhook: {error}")))?;
        Ok(Arc::new(Self {
            client,
            namespace: namespace.to_owned(),
            names,
            clock,
            certificates,
            metrics,
            held: watch::Sender::new(Keyring::default()),
        }))
    }

    /// What the webhook's listener takes; its content is swapped when it is renewed.
    #[must_use]
    pub fn listener(&self) -> Arc<Certificates> {
        self.certificates.clone()
    }

    /// The authorities that the API server is to trust, PEM; changes when they do. Empty until
    /// the Secret was read.
    #[must_use]
    pub fn bundle(&self) -> String {
        self.held.borrow().bundle()
    }

    /// Hears of each change of what [`WebhookCertificates::bundle`] and the listener have.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<Keyring> {
        self.held.subscribe()
    }

    /// Reads the Secret, renews what is due and takes it over. True if something is new here.
    ///
    /// # Errors
    /// The Secret can't be read or written. What is in use stays in use.
    pub async fn refresh(&self) -> Result<bool, Error> {
        for _ in 0..TRIES {
            let (found, version) = self.read().await?;
            let now_ms = self.clock.now_ms();
            let plan = what_to_do(now_ms, &found.held(&self.names));
            if plan == Plan::Keep || (plan == Plan::Promote && !self.may_promote(&found).await?) {
                return self.take_over(found);
            }
            let made = found.carry_out(plan, &self.names, now_ms)?;
            match self.write(&made, version).await {
                Ok(()) => tracing::info!(?plan, "renewed the certificates of the webhook"),
                // Somebody renewed at the same moment; theirs is as good as ours.
                Err(error) if error.is_conflict() => {}
                Err(error) => return Err(error),
            }
        }
        Err(Error::Content {
            object: format!("Secret {}/{}", self.namespace, names::WEBHOOK_SECRET),
            reason: "it changes faster than it can be renewed; hint: is there a second \
                     installation in this namespace, or another tool that writes it?"
                .to_owned(),
        })
    }

    /// Keeps them fresh until `stop` begins.
    pub async fn run(self: Arc<Self>, stop: Shutdown) {
        let mut told: Option<String> = None;
        loop {
            let wait = match self.refresh().await {
                Ok(_) => {
                    told = None;
                    READ
                }
                Err(error) => {
                    let said = error.to_string();
                    if told.as_ref() != Some(&said) {
                        tracing::warn!("the certificates of the webhook stay as they are: {said}");
                        told = Some(said);
                    }
                    AGAIN
                }
            };
            tokio::select! {
                () = stop.begun() => return,
                () = self.is_due(wait) => {}
            }
        }
    }

    /// After `wait`, or when the clock asks for something.
    async fn is_due(&self, wait: Duration) {
        let asleep = async {
            loop {
                tokio::time::sleep(LOOK).await;
                let held = self.held.borrow().held(&self.names);
                if what_to_do(self.clock.now_ms(), &held) != Plan::Keep {
                    return;
                }
            }
        };
        let _ = tokio::time::timeout(wait, asleep).await;
    }

    async fn read(&self) -> Result<(Keyring, Option<String>), Error> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let what = format!("read Secret {}/{}", self.namespace, names::WEBHOOK_SECRET);
        let found = ask(&what, || api.get_opt(names::WEBHOOK_SECRET)).await?;
        Ok(found.map_or_else(Default::default, |secret| {
            let data = secret.data.unwrap_or_default();
            (Keyring::read(&data), secret.metadata.resource_version)
        }))
    }

    /// Writes over the version that was read, or makes the Secret if there was none.
    async fn write(&self, made: &Keyring, version: Option<String>) -> Result<(), Error> {
        let api: Api<Secret> = Api::namespaced(self.client.clone(), &self.namespace);
        let what = format!("write Secret {}/{}", self.namespace, names::WEBHOOK_SECRET);
        let post = PostParams { field_manager: Some(names::MANAGER.to_owned()), dry_run: false };
        let exists = version.is_some();
        let secret = Secret {
            metadata: ObjectMeta {
                name: Some(names::WEBHOOK_SECRET.to_owned()),
                namespace: Some(self.namespace.clone()),
                labels: Some(BTreeMap::from([(
                    "app.kubernetes.io/managed-by".to_owned(),
                    names::MANAGER.to_owned(),
                )])),
                resource_version: version,
                ..ObjectMeta::default()
            },
            data: Some(made.write()),
            type_: Some("kubernetes.io/tls".to_owned()),
            ..Secret::default()
        };
        let post = &post;
        let secret = &secret;
        let api = &api;
        ask(&what, || async move {
            if exists {
                api.replace(names::WEBHOOK_SECRET, post, secret).await
            } else {
                api.create(post, secret).await
            }
        })
        .await
        .map(drop)
    }

    /// Whether the API server was told of the next authority. While the webhook is armed with
    /// other authorities only, a leaf of the next one would be refused.
    async fn may_promote(&self, found: &Keyring) -> Result<bool, Error> {
        if found.held(&self.names).authority.is_none_or(|it| it.until_ms <= self.clock.now_ms()) {
            return Ok(true);
        }
        let api: Api<ValidatingWebhookConfiguration> = Api::all(self.client.clone());
        let what = format!("read ValidatingWebhookConfiguration {}", names::WEBHOOK);
        let armed = ask(&what, || api.get_opt(names::WEBHOOK)).await?;
        let wanted = found.bundle();
        let webhooks = armed.and_then(|it| it.webhooks).unwrap_or_default();
        let trusts_all = webhooks.iter().all(|webhook| {
            let bundle = webhook.client_config.ca_bundle.as_ref();
            bundle.is_some_and(|it| String::from_utf8_lossy(&it.0).contains(wanted.trim()))
        });
        Ok(trusts_all)
    }

    fn take_over(&self, found: Keyring) -> Result<bool, Error> {
        self.metrics.certificate(found.lives());
        let is_new = *self.held.borrow() != found;
        if is_new {
            let name = format!("Secret {}/{}", self.namespace, names::WEBHOOK_SECRET);
            self.certificates.hand_over(&name, &found.chain, &found.key).map_err(|error| {
                Error::Content { object: name.clone(), reason: error.to_string() }
            })?;
            self.held.send_replace(found);
        }
        Ok(is_new)
    }
}
