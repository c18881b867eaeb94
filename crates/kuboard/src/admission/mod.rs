//! The role `admission`: joins the webhook to the registry, the scan engine and the catalogue.

mod background;
mod digests;
mod facts;
mod memory;
mod record;

use std::sync::Arc;

use anyhow::Context;
use kuboard_admission::{Admission, Doors, Events, FactsIndex, Knowledge, Settings};
use kuboard_api::{Config, Rules};
use kuboard_rt::{Scope, health::Health};
use kuboard_scan::engine::{Engine, Repositories};
use tokio::sync::watch;

pub(crate) use self::{background::Background, record::decisions_lost};
use self::{
    digests::{Places, RegistryDigests},
    facts::EngineFacts,
};
use crate::{cluster::Snapshots, scanning::Ground};

/// Images whose facts are held in memory.
const MAX_FACTS: usize = 1_000_000;

/// What the webhook is made of.
pub(crate) struct Parts<'a> {
    pub(crate) ground: &'a Ground<'a>,
    pub(crate) engine: Arc<Engine>,
    pub(crate) repositories: Arc<dyn Repositories>,
    pub(crate) snapshots: &'a Snapshots,
    pub(crate) events: Arc<dyn Events>,
}

/// Makes the webhook, and starts what keeps it up to date. The number counts changes of facts.
pub(crate) fn open(
    parts: Parts<'_>,
    scope: &mut Scope,
    health: &Health,
    registry: &prometheus::Registry,
) -> anyhow::Result<(Arc<Admission>, watch::Receiver<u64>)> {
    let Parts { ground, engine, repositories, snapshots, events } = parts;
    let config = ground.config;
    let places = Places { rules: Arc::new(Rules::new(config)?), own: own_hosts(config) };
    let platforms = platforms(config)?;
    let digests =
        RegistryDigests::new(places.clone(), repositories, platforms, ground.clock.clone());
    let index = Arc::new(FactsIndex::new(MAX_FACTS));
    let keep = config.admission.keep_decisions.duration();
    let (recorder, keeper) =
        record::record(ground.catalog.clone(), ground.clock.clone(), keep, registry)?;
    let doors = Doors {
        digests: Arc::new(digests),
        facts: Arc::new(EngineFacts::new(engine.clone(), places, ground.tasks.clone())),
        recorder: Arc::new(recorder),
        events,
    };
    let knowledge = Knowledge {
        desired: snapshots.desired.clone(),
        running: snapshots.running.clone(),
        facts: index.clone(),
    };
    let settings = Settings {
        namespace: config.kubernetes.namespace.clone(),
        excluded: config.kubernetes.excluded_namespaces.clone(),
        pin_digests: config.admission.pin_digests,
        ..Settings::default()
    };
    let clock = ground.clock.clone();
    let admission = Admission::new(settings, knowledge, doors, clock, &ground.tasks, registry)?;
    scope.spawn("decisions", move |stop| keeper.run(stop));
    let (changed, changes) = watch::channel(0);
    scope.spawn("facts", move |stop| facts::follow(engine, index, changed, stop));
    let asked = admission.clone();
    health.register("admission", move || {
        let ready = asked.ready();
        Box::pin(std::future::ready(ready))
    });
    Ok((admission, changes))
}

/// Names by which nodes reach this registry, in lower case and with ports.
fn own_hosts(config: &Config) -> Vec<String> {
    let port = config.server.listen.0.port();
    let loopback = ["localhost", "127.0.0.1", "[::1]"];
    let mut own: Vec<String> = loopback.map(|host| format!("{host}:{port}")).into();
    own.extend(config.admission.registry_hosts.iter().map(|host| host.to_ascii_lowercase()));
    let external = config.server.external_url.as_ref().and_then(|url| {
        let port = url.port().map(|port| format!(":{port}")).unwrap_or_default();
        Some(format!("{}{port}", url.host_str()?.to_ascii_lowercase()))
    });
    own.extend(external);
    own
}

/// `(os, architecture)` of the nodes.
fn platforms(config: &Config) -> anyhow::Result<Vec<(String, String)>> {
    let read = |text: &String| {
        let (os, rest) = text.split_once('/').with_context(|| {
            format!("admission.platforms: {text:?} is no platform; hint: write linux/amd64")
        })?;
        let architecture = rest.split('/').next().unwrap_or(rest);
        Ok((os.to_owned(), architecture.to_owned()))
    };
    let named: Vec<_> =
        config.admission.platforms.iter().map(read).collect::<anyhow::Result<_>>()?;
    if !named.is_empty() {
        return Ok(named);
    }
    let architecture = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    Ok(vec![("linux".to_owned(), architecture.to_owned())])
}

#[cfg(test)]
mod tests {
    use kuboard_api::Config;

    use super::{own_hosts, platforms};

    #[test]
    fn settings_become_hosts_and_platforms() {
        let text = "[server]\nlisten = \"0.0.0.0:5000\"\nexternalUrl = \"https://Reg.test:444\"\n\
             [admission]\nregistryHosts = [\"R.internal:5000\"]\n\
             platforms = [\"linux/arm64/v8\", \"linux/amd64\"]\n[access]\nanonymous = \"pull\"\n";
        let config = Config::parse(text).unwrap();
        assert_eq!(
            own_hosts(&config),
            ["localhost:5000", "127.0.0.1:5000", "[::1]:5000", "r.internal:5000", "reg.test:444"]
        );
        let pair = |os: &str, architecture: &str| (os.to_owned(), architecture.to_owned());
        assert_eq!(platforms(&config).unwrap(), [pair("linux", "arm64"), pair("linux", "amd64")]);
        let mut config = Config::default();
        config.admission.platforms = vec!["amd64".to_owned()];
        assert!(platforms(&config).unwrap_err().to_string().contains("linux/amd64"));
    }
}
