//! The webhook: armed only after the API server could call it, kept as it should be, taken away
//! on demand.
//!
//! [`configuration`] and [`floor`] say what the API server is told, [`self_test`] asks whether it
//! reaches us, [`Keeper`] is the loop of the leader, [`status`], [`disarm`] and [`allow`] are what
//! `kuboard admission` does with nothing but a kubeconfig.

pub mod configuration;
pub mod floor;
mod probe;
mod state;

use std::{sync::Arc, time::Duration};

use k8s_openapi::{
    api::{
        admissionregistration::v1::{
            MutatingWebhookConfiguration, ValidatingAdmissionPolicy,
            ValidatingAdmissionPolicyBinding, ValidatingWebhookConfiguration,
        },
        core::v1::Namespace,
        rbac::v1::ClusterRole,
    },
    apimachinery::pkg::apis::meta::v1::OwnerReference,
};
use kube::{Api, Client, Resource};
use kuboard_api::names;
use kuboard_rt::Clock;

pub use configuration::{Address, Settings};
pub use probe::self_test;
pub use state::{STATE, Status, allow, disarm, status};

use crate::{
    Error, OperatorMetrics,
    apply::{apply, remove},
    certificates::WebhookCertificates,
    client::ask,
    lease::Term,
};

/// How often what is armed is compared with what should be.
const LOOK: Duration = Duration::from_secs(10);
/// While it is not: somebody may be waiting for it.
const LOOK_UNARMED: Duration = Duration::from_secs(3);
/// How often the self-test is repeated while it is armed.
const TEST_EACH_MS: i64 = 300_000;
/// The same after one that failed.
const TEST_AGAIN_MS: i64 = 60_000;

/// Keeps the webhook armed, while this process leads.
pub struct Keeper {
    /// The cluster.
    pub client: Client,
    /// Where the webhook is.
    pub settings: Settings,
    /// Its certificates.
    pub certificates: Arc<WebhookCertificates>,
    /// Tells names of self-tests and when they are due.
    pub clock: Arc<dyn Clock>,
    /// What it counts.
    pub metrics: Arc<OperatorMetrics>,
    /// Whether this process can judge: policies and facts have been read. Not armed before.
    pub is_ready: Arc<dyn Fn() -> bool + Send + Sync>,
}

/// What a look found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Armed {
    /// It is armed.
    Yes,
    /// Somebody took it away on purpose.
    Disarmed,
    /// Not yet.
    NotYet,
}

impl Keeper {
    /// Runs as long as the term lasts.
    pub async fn run(&self, term: Term) {
        let mut told: Option<String> = None;
        let mut tested_ms = i64::MIN;
        let mut changes = self.certificates.changes();
        while term.lasts() {
            let armed = match self.look(&mut tested_ms).await {
                Ok(armed) => {
                    told = None;
                    armed
                }
                Err(error) => {
                    self.tell(&mut told, &error).await;
                    Armed::NotYet
                }
            };
            self.metrics.armed.set(i64::from(armed == Armed::Yes));
            let wait = if armed == Armed::Yes { LOOK } else { LOOK_UNARMED };
            tokio::select! {
                () = tokio::time::sleep(wait) => {}
                // New authorities are told to the API server before anything is signed by them.
                Ok(()) = changes.changed() => {}
            }
        }
    }

    async fn tell(&self, told: &mut Option<String>, error: &Error) {
        let said = error.to_string();
        if told.as_ref() == Some(&said) {
            return;
        }
        tracing::warn!("webhook: {said}");
        let noted = state::note_problem(&self.client, &self.settings.namespace, &said).await;
        if let Err(error) = noted {
            tracing::debug!("{error}");
        }
        *told = Some(said);
    }

    /// Compares and mends once. `tested_ms` is when the last self-test succeeded.
    ///
    /// # Errors
    /// The cluster can't be read or written, or the webhook does not answer.
    pub async fn look(&self, tested_ms: &mut i64) -> Result<Armed, Error> {
        let namespace = &self.settings.namespace;
        let status = state::status(&self.client, namespace).await?;
        if status.disarmed.is_some() {
            if status.armed || status.mutating {
                state::take_away(&self.client).await?;
            }
            return Ok(Armed::Disarmed);
        }
        let owner = self.owner().await?;
        self.lay_floor(owner.as_ref()).await?;
        let bundle = self.certificates.bundle();
        if bundle.is_empty() || (!status.armed && !(self.is_ready)()) {
            return Ok(if status.armed { Armed::Yes } else { Armed::NotYet });
        }
        if status.armed {
            // What is armed must trust what is served at once; the self-test comes after.
            self.arm(&bundle, owner.as_ref()).await?;
        }
        let now_ms = self.clock.now_ms();
        let is_tested = (0..TEST_EACH_MS).contains(&now_ms.saturating_sub(*tested_ms));
        if status.armed && is_tested {
            return Ok(Armed::Yes);
        }
        let tested = self.test(&bundle, owner.as_ref(), now_ms).await;
        *tested_ms = now_ms;
        if !status.armed {
            tested?;
            self.arm(&bundle, owner.as_ref()).await?;
            tracing::info!("webhook armed");
            state::note_problem(&self.client, namespace, "").await?;
        } else if let Err(error) = tested {
            // It stays armed: where pods may run unjudged they do, and strict namespaces wait.
            tracing::warn!("the webhook is armed and does not answer: {error}");
            *tested_ms = now_ms.saturating_sub(TEST_EACH_MS - TEST_AGAIN_MS);
            state::note_problem(&self.client, namespace, &error.to_string()).await?;
        } else {
            state::note_problem(&self.client, namespace, "").await?;
        }
        Ok(Armed::Yes)
    }

    async fn test(
        &self,
        bundle: &str,
        owner: Option<&OwnerReference>,
        now_ms: i64,
    ) -> Result<(), Error> {
        let probe = format!("{:x}", now_ms.unsigned_abs());
        let outcome = self_test(&self.client, &self.settings, bundle, &probe, owner).await;
        let result = if outcome.is_ok() { "ok" } else { "error" };
        self.metrics.self_tests.with_label_values(&[result]).inc();
        if outcome.is_ok() {
            self.metrics.self_test_success.set(now_ms / 1_000);
        }
        outcome
    }

    async fn arm(&self, bundle: &str, owner: Option<&OwnerReference>) -> Result<(), Error> {
        let metrics = Some(&*self.metrics);
        let validating: Api<ValidatingWebhookConfiguration> = Api::all(self.client.clone());
        let wanted = configuration::validating(&self.settings, bundle, owner);
        apply(&validating, &wanted, metrics).await?;
        let mutating: Api<MutatingWebhookConfiguration> = Api::all(self.client.clone());
        if self.settings.mutate {
            let wanted = configuration::mutating(&self.settings, bundle, owner);
            apply(&mutating, &wanted, metrics).await?;
        } else {
            remove(&mutating, names::WEBHOOK).await?;
        }
        Ok(())
    }

    /// Older API servers have no such policies; all else works without.
    async fn lay_floor(&self, owner: Option<&OwnerReference>) -> Result<(), Error> {
        let metrics = Some(&*self.metrics);
        let policies: Api<ValidatingAdmissionPolicy> = Api::all(self.client.clone());
        match apply(&policies, &floor::policy(owner), metrics).await {
            Err(error) if error.is_not_found() => return Ok(()),
            other => other?,
        };
        let bindings: Api<ValidatingAdmissionPolicyBinding> = Api::all(self.client.clone());
        apply(&bindings, &floor::binding(owner), metrics).await.map(drop)
    }

    /// What takes everything along when it goes: the chart's ClusterRole, else our namespace.
    async fn owner(&self) -> Result<Option<OwnerReference>, Error> {
        let roles: Api<ClusterRole> = Api::all(self.client.clone());
        let name = self.settings.owner.as_str();
        let what = format!("read ClusterRole {name}");
        match ask(&what, || roles.get_opt(name)).await {
            Ok(Some(role)) => return Ok(role.owner_ref(&()).map(no_block)),
            Ok(None) => {}
            Err(error) if error.is_forbidden() => {}
            Err(error) => return Err(error),
        }
        let namespaces: Api<Namespace> = Api::all(self.client.clone());
        let name = self.settings.namespace.as_str();
        let what = format!("read Namespace {name}");
        let found = ask(&what, || namespaces.get_opt(name)).await?;
        Ok(found.and_then(|it| it.owner_ref(&())).map(no_block))
    }
}

/// An owner that may go before what it owns.
fn no_block(owner: OwnerReference) -> OwnerReference {
    OwnerReference { block_owner_deletion: None, controller: None, ..owner }
}

/// Removes everything that was told to the API server: webhooks and the guard of labels. What the
/// chart calls before it is uninstalled: an operator that still runs is told to leave it so, by
/// word that goes with the ClusterRole of [`Settings::owner`].
///
/// # Errors
/// The cluster could not be written. Done again, it goes on where it ended.
pub async fn uninstall(client: &Client, namespace: &str) -> Result<(), Error> {
    let name = Settings::default().owner;
    let roles: Api<ClusterRole> = Api::all(client.clone());
    let what = format!("read ClusterRole {name}");
    let role = ask(&what, || roles.get_opt(&name)).await?;
    match role.and_then(|role| role.owner_ref(&())).map(no_block) {
        Some(owner) => state::say_uninstalled(client, namespace, owner).await?,
        None => drop(remove(&state::marks_of(client, namespace), STATE).await?),
    }
    state::take_away(client).await?;
    remove(&Api::<ValidatingAdmissionPolicyBinding>::all(client.clone()), floor::FLOOR).await?;
    remove(&Api::<ValidatingAdmissionPolicy>::all(client.clone()), floor::FLOOR).await.map(drop)
}
