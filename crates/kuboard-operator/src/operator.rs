//! The room: what a process that talks to the cluster consists of, and how it runs.
//!
//! Every replica watches, serves the webhook with the shared certificate and tells of refusals.
//! One of them leads: it installs our kinds, keeps the webhook armed and writes what is found.

use std::{sync::Arc, time::Duration};

use kube::Client;
use kuboard_api::names;
use kuboard_rt::{Clock, Scope};
use prometheus::Registry;

use crate::{
    Error, OperatorMetrics,
    certificates::WebhookCertificates,
    crds,
    events::{Events, Teller},
    judge::Judge,
    lease::{Lease, Term, Timing},
    reports::{Limits, Reporter},
    watch::Watch,
    webhook::{Keeper, Settings},
};

/// Between two tries to install our kinds.
const AGAIN: Duration = Duration::from_secs(5);

/// How the operator is set up.
#[derive(Clone, Debug)]
pub struct Config {
    /// Our namespace.
    pub namespace: String,
    /// Who this process is; no other process has the same, not even its predecessor. The name of
    /// the pod and something that is new each time.
    pub identity: String,
    /// The webhook, if this process serves it.
    pub webhook: Option<Settings>,
    /// Whether this process may lead.
    pub may_lead: bool,
    /// Whether a leader installs our kinds and brings them up to date.
    pub install_crds: bool,
    /// Bounds of what is written.
    pub limits: Limits,
    /// Of the lease.
    pub timing: Timing,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            namespace: names::NAMESPACE.to_owned(),
            identity: String::new(),
            webhook: None,
            may_lead: true,
            install_crds: true,
            limits: Limits::default(),
            timing: Timing::default(),
        }
    }
}

/// The operator of a process.
pub struct Operator {
    config: Config,
    client: Client,
    clock: Arc<dyn Clock>,
    metrics: Arc<OperatorMetrics>,
    watch: Arc<Watch>,
    certificates: Option<Arc<WebhookCertificates>>,
    events: Events,
    teller: Teller,
}

/// What the operator needs of the binary once it runs.
pub struct Parts {
    /// Judges what runs.
    pub judge: Arc<dyn Judge>,
    /// Whether the policy engine of this process can judge. The webhook is armed only then.
    pub is_ready: Arc<dyn Fn() -> bool + Send + Sync>,
}

impl Config {
    /// Sets it up. Nothing is asked of the cluster yet.
    ///
    /// # Errors
    /// A metric's name is taken, or the TLS library refuses.
    pub fn build(
        self,
        client: Client,
        clock: Arc<dyn Clock>,
        registry: &Registry,
    ) -> Result<Operator, Error> {
        let metrics = OperatorMetrics::new(registry)
            .map_err(|error| Error::Config(format!("no metrics of the operator: {error}")))?;
        let metrics = Arc::new(metrics);
        let watch = Watch::new(clock.clone(), metrics.clone());
        let certificates = match &self.webhook {
            Some(settings) => Some(WebhookCertificates::new(
                client.clone(),
                &self.namespace,
                settings.certificate_names(),
                clock.clone(),
                metrics.clone(),
            )?),
            None => None,
        };
        let (events, teller) =
            Events::new(client.clone(), &self.identity, clock.clone(), metrics.clone());
        Ok(Operator { config: self, client, clock, metrics, watch, certificates, events, teller })
    }
}

impl Operator {
    /// What is watched: policies, what runs, readiness.
    #[must_use]
    pub fn watch(&self) -> Arc<Watch> {
        self.watch.clone()
    }

    /// The certificates for the webhook's listener, if this process serves it.
    #[must_use]
    pub fn certificates(&self) -> Option<Arc<WebhookCertificates>> {
        self.certificates.clone()
    }

    /// Takes what is to become Kubernetes Events.
    #[must_use]
    pub fn teller(&self) -> Teller {
        self.teller.clone()
    }

    /// The cluster.
    #[must_use]
    pub fn client(&self) -> Client {
        self.client.clone()
    }

    /// Starts everything in `scope`.
    pub fn start(self, parts: Parts, scope: &mut Scope) {
        let (watch, client) = (self.watch.clone(), self.client.clone());
        scope.spawn("watch of the cluster", move |stop| async move {
            watch.run(client, stop).await;
            Ok(())
        });
        let events = self.events;
        scope.spawn("events", move |stop| async move {
            events.run(stop).await;
            Ok(())
        });
        if let Some(certificates) = self.certificates.clone() {
            scope.spawn("webhook certificates", move |stop| async move {
                certificates.run(stop).await;
                Ok(())
            });
        }
        if !self.config.may_lead {
            return;
        }
        let is_ready = {
            let (watch, is_ready) = (self.watch.clone(), parts.is_ready);
            Arc::new(move || watch.is_synced() && is_ready())
        };
        let leader = Arc::new(Leader {
            client: self.client.clone(),
            install_crds: self.config.install_crds,
            metrics: self.metrics.clone(),
            keeper: self.config.webhook.zip(self.certificates).map(|(settings, certificates)| {
                Keeper {
                    client: self.client.clone(),
                    settings,
                    certificates,
                    clock: self.clock.clone(),
                    metrics: self.metrics.clone(),
                    is_ready,
                }
            }),
            reporter: Reporter {
                client: self.client.clone(),
                watch: self.watch,
                judge: parts.judge,
                namespace: self.config.namespace.clone(),
                limits: self.config.limits,
                clock: self.clock.clone(),
                metrics: self.metrics.clone(),
                teller: self.teller,
            },
        });
        let lease = Lease {
            client: self.client,
            namespace: self.config.namespace,
            name: names::LEASE.to_owned(),
            identity: self.config.identity,
            timing: self.config.timing,
            clock: self.clock,
        };
        let metrics = self.metrics;
        scope.spawn("leader election", move |stop| async move {
            let tell = |leads: bool| metrics.leader.set(i64::from(leads));
            lease.run(stop, tell, |term| leader.clone().lead(term)).await;
            metrics.armed.set(0);
            Ok(())
        });
    }
}

/// What only one does.
struct Leader {
    client: Client,
    install_crds: bool,
    metrics: Arc<OperatorMetrics>,
    keeper: Option<Keeper>,
    reporter: Reporter,
}

impl Leader {
    async fn lead(self: Arc<Self>, term: Term) {
        self.install(&term).await;
        let keep = async {
            if let Some(keeper) = &self.keeper {
                keeper.run(term.clone()).await;
            }
        };
        tokio::join!(keep, self.reporter.run(term.clone()));
    }

    async fn install(&self, term: &Term) {
        while self.install_crds && term.lasts() {
            match crds::install(&self.client, Some(&self.metrics)).await {
                Ok(()) => return,
                // Who may not install kinds works with those that somebody else installed.
                Err(error) if error.is_forbidden() => {
                    tracing::warn!("our kinds stay as they are: {error}");
                    return;
                }
                Err(error) => tracing::warn!("our kinds are not installed yet: {error}"),
            }
            tokio::time::sleep(AGAIN).await;
        }
    }
}
