//! An external Clair in place of the own scanner: how it is reached, and how it reaches this
//! registry.

use std::{fs, sync::Arc};

use anyhow::Context;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use kuboard_api::{Config, HttpUrl, ScanEngine};
use kuboard_oci::RepositoryName;
use kuboard_rt::Scope;
use kuboard_scan::{
    clair_engine::{Authorize, ClairScanner, ClairSettings, ExternalClair, INTRASERVICE, LOOK},
    engine::Engine,
};

use crate::{access, cli::Role, scanning::Ground};

/// Tries of one request before the job that needs it is put off.
const TRIES: u32 = 3;
/// Who reads layers, in logs.
const READER: &str = "clair";

/// The external Clair of the settings.
#[derive(Clone)]
pub(crate) struct External {
    pub(crate) clair: Arc<ExternalClair>,
    pub(crate) scanner: Arc<ClairScanner>,
}

/// Whether an external Clair scans.
pub(crate) fn is_wanted(config: &Config) -> bool {
    config.scan.engine == ScanEngine::Clair
}

impl External {
    /// `None`: the own scanner is wanted.
    pub(crate) fn open(ground: &Ground<'_>, roles: &[Role]) -> anyhow::Result<Option<Self>> {
        if !is_wanted(ground.config) {
            return Ok(None);
        }
        let settings = &ground.config.scan.clair;
        let psk = settings.psk_file.as_ref().map(fs::read_to_string).transpose();
        let psk = psk.context("scan.clair.pskFile can't be read")?;
        let psk = psk.map(|text| STANDARD.decode(text.trim())).transpose();
        let settings = ClairSettings {
            url: address("scan.clair.url", settings.url.as_ref())?,
            psk: psk.context("scan.clair.pskFile is no Base64")?,
            issuer: INTRASERVICE.to_owned(),
            registry_url: address("scan.clair.registryUrl", settings.registry_url.as_ref())?,
            tries: TRIES,
        };
        let authorize = authorize(ground, roles)?;
        let clair = ExternalClair::new(settings, authorize, ground.clock.clone())?;
        let scanner = ClairScanner::new(clair.clone(), ground.catalog.clone());
        Ok(Some(Self { clair, scanner }))
    }

    /// Follows Clair's advisories. The process that keeps the engine asks Clair, others look what
    /// that one noted.
    pub(crate) fn start(&self, engine: Arc<Engine>, asks: bool, scope: &mut Scope) {
        let scanner = self.scanner.clone();
        scope.spawn("clair advisories", move |stop| scanner.keep(engine, asks, LOOK, stop));
    }
}

fn address(key: &str, url: Option<&HttpUrl>) -> anyhow::Result<url::Url> {
    let url = url.with_context(|| format!("{key} is not set"))?;
    url.to_string().parse().with_context(|| format!("{key} is no address"))
}

/// Clair reads layers by tokens for one repository each. A process that has not the registry's key
/// gives none: then the registry must let anybody pull.
fn authorize(ground: &Ground<'_>, roles: &[Role]) -> anyhow::Result<Authorize> {
    let config = ground.config;
    if !roles.contains(&Role::RegistryCache) && config.access.token_key.is_none() {
        return Ok(Arc::new(|_: &RepositoryName| None));
    }
    let (tokens, clock) = (access::tokens(config)?, ground.clock.clone());
    Ok(Arc::new(move |repository: &RepositoryName| {
        let token = tokens.reading_token(READER, repository.as_str(), clock.now_ms());
        let token = token.inspect_err(|error| tracing::warn!(%error, "no token for Clair")).ok()?;
        Some(format!("Bearer {token}"))
    }))
}
