//! The roles that know a cluster: what is wanted and what runs as snapshots, the webhook for the
//! API server, and what is written back.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use arc_swap::ArcSwap;
use kuboard_admission::{Admission, Event, Events};
use kuboard_api::{
    Config,
    desired::{Desired, Running},
};
use kuboard_operator::{
    Operator, Teller, Told,
    webhook::{Address, Settings, disarm, status},
};
use kuboard_rt::{
    Clock, Scope, SystemClock,
    health::Health,
    http::{self, Limits},
    metrics::Metrics,
    tls::Certificates,
};
use kuboard_scan::engine::{Engine, Repositories};

use crate::{
    admission::{self, Background},
    cli::Role,
    scanning,
    scanning::Ground,
    webhook,
};

/// How long reviews under way may take when we stop.
const GRACE: Duration = Duration::from_secs(5);

/// What is wanted and what runs, as it was last seen.
#[derive(Clone, Default)]
pub(crate) struct Snapshots {
    pub(crate) desired: Arc<ArcSwap<Desired>>,
    pub(crate) running: Arc<ArcSwap<Running>>,
}

/// What the roles rest on.
pub(crate) struct Parts<'a> {
    pub(crate) ground: &'a Ground<'a>,
    pub(crate) engine: Arc<Engine>,
    pub(crate) repositories: Arc<dyn Repositories>,
    pub(crate) snapshots: &'a Snapshots,
}

/// Opens the cluster where a role wants one; else what is wanted comes from files.
pub(crate) async fn open(
    config: &Config,
    roles: &[Role],
    metrics: &Metrics,
) -> anyhow::Result<(Option<Operator>, Snapshots)> {
    let serves = roles.contains(&Role::Admission);
    if !roles.contains(&Role::Operator) && !serves {
        let desired = scanning::desired_of_files(config, SystemClock.now_ms())?;
        let snapshots = Snapshots::default();
        snapshots.desired.store(Arc::new(desired));
        return Ok((None, snapshots));
    }
    anyhow::ensure!(
        config.scan.enable,
        "pods can't be judged without scans; hint: set enable = true in [scan]"
    );
    anyhow::ensure!(
        serves,
        "the role operator judges what runs and needs the role admission beside it; hint: --role \
         operator,admission"
    );
    if config.scan.policies.is_some() {
        tracing::warn!("scan.policies is not read: policies come from the Kubernetes API");
    }
    let client = webhook::cluster(config, None).client().await.context("kubernetes")?;
    let operator = kuboard_operator::Config {
        namespace: config.kubernetes.namespace.clone(),
        identity: identity(),
        webhook: Some(settings(config)),
        may_lead: roles.contains(&Role::Operator),
        ..kuboard_operator::Config::default()
    };
    let operator = operator.build(client, Arc::new(SystemClock), metrics.registry())?;
    let watch = operator.watch();
    Ok((Some(operator), Snapshots { desired: watch.desired(), running: watch.running() }))
}

/// Starts the roles.
pub(crate) async fn start(
    operator: Operator,
    parts: Parts<'_>,
    scope: &mut Scope,
    registry: &prometheus::Registry,
    health: &Health,
) -> anyhow::Result<()> {
    let Parts { ground, engine, repositories, snapshots } = parts;
    let config = ground.config;
    if !config.admission.arm {
        leave_unarmed(&operator, config).await?;
    }
    let watch = operator.watch();
    health.register("cluster", move || {
        let unread = watch.unread();
        Box::pin(std::future::ready(match unread.is_empty() {
            true => Ok(()),
            false => Err(format!("not read yet: {}", unread.join(", "))),
        }))
    });
    let events = Arc::new(Tell(operator.teller()));
    let parts =
        admission::Parts { ground, engine: engine.clone(), repositories, snapshots, events };
    let (admission, changes) = admission::open(parts, scope, health, registry)?;
    if let Some(certificates) = operator.certificates() {
        listen(config, &admission, certificates.listener(), scope).await?;
    }
    let ready = admission.clone();
    let judge = Background { admission, engine, snapshots: snapshots.clone(), changes };
    let parts = kuboard_operator::Parts {
        judge: Arc::new(judge),
        is_ready: Arc::new(move || ready.ready().is_ok()),
    };
    operator.start(parts, scope);
    Ok(())
}

/// Leaves word that the webhook is not to be armed, as `kuboard admission disarm` does; what
/// somebody armed since stays armed.
async fn leave_unarmed(operator: &Operator, config: &Config) -> anyhow::Result<()> {
    let (client, namespace) = (operator.client(), &config.kubernetes.namespace);
    if !status(&client, namespace).await?.armed {
        disarm(&client, namespace, "admission.arm = false", SystemClock.now_ms()).await?;
    }
    Ok(())
}

/// Answers the API server.
async fn listen(
    config: &Config,
    admission: &Arc<Admission>,
    certificates: Arc<Certificates>,
    scope: &mut Scope,
) -> anyhow::Result<()> {
    let listen = config.admission.listen.0;
    let bound = http::bind(listen, Some(certificates), Limits::default())
        .await
        .with_context(|| format!("admission.listen {listen} can't be listened on"))?;
    let handler = admission.clone();
    scope.spawn("webhook", move |stop| bound.serve(handler, stop, GRACE));
    tracing::info!(addr = %listen, "judging pods");
    Ok(())
}

/// What admission tells becomes Kubernetes Events.
struct Tell(Teller);

impl Events for Tell {
    fn tell(&self, event: Event) {
        self.0.tell(Told {
            namespace: event.namespace,
            api_version: event.regarding.api_version,
            kind: event.regarding.kind,
            name: event.regarding.name,
            uid: event.regarding.uid,
            reason: event.reason.to_owned(),
            message: event.message,
        });
    }
}

/// Unlike any other process's, our predecessor's included.
#[expect(clippy::disallowed_methods, reason = "a pod's name is told by its environment only")]
fn identity() -> String {
    let host = std::env::var("HOSTNAME").unwrap_or_else(|_| "kuboard".to_owned());
    format!("{host}_{}", uuid::Uuid::new_v4())
}

/// Where the API server finds the webhook.
fn settings(config: &Config) -> Settings {
    let namespace = config.kubernetes.namespace.clone();
    let address = match &config.admission.webhook_url {
        Some(url) => Address::Url(url.to_string().trim_end_matches('/').to_owned()),
        None => Address::Service {
            namespace: namespace.clone(),
            name: config.admission.service.clone(),
            port: 443,
        },
    };
    Settings {
        namespace,
        address,
        mutate: config.admission.pin_digests,
        excluded_namespaces: config.kubernetes.excluded_namespaces.clone(),
        ..Settings::default()
    }
}

#[cfg(test)]
mod tests {
    use kuboard_api::Config;

    use super::settings;

    #[test]
    fn the_webhook_is_called_by_its_service_or_by_a_url() {
        let check = |text: &str, want: &str| {
            let config = Config::parse(text).unwrap();
            let names = settings(&config).certificate_names();
            assert!(names.iter().any(|name| name == want), "{text}: {names:?}");
        };
        check("", "kuboard-admission.kuboard.svc");
        check("[kubernetes]\nnamespace = \"images\"", "kuboard-admission.images.svc");
        check("[admission]\nwebhookUrl = \"https://10.0.0.1:9443\"", "10.0.0.1");
        check("[admission]\nwebhookUrl = \"https://hook.test\"", "hook.test");
    }
}
