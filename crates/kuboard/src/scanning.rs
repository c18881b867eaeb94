//! The roles `scan-engine` and `scan-worker`: what of the scan engine runs in this process, and how
//! it is joined to the registry.

use std::{fs, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context;
use arc_swap::ArcSwap;
use base64::{Engine as _, engine::general_purpose::STANDARD};
use futures_util::{StreamExt, TryStreamExt, stream};
use http_body_util::BodyExt;
use kuboard_api::{Config, Webhook, WebhookTemplate, desired::Desired, policy};
use kuboard_catalog::{Catalog, ImageName, Kind};
use kuboard_feeds::{
    database::Generations,
    fetch::{Updater, UpdaterConfig},
};
use kuboard_oci::{Digest, Reference, RepositoryName};
use kuboard_proxy::{ManifestObserver, ManifestSeen, Observers, ReadError, Reader};
use kuboard_registry::{client::Upstream, credentials::Chain};
use kuboard_rt::{BoxFuture, Clock, Scope, Shutdown, Tasks, http::Handler};
use kuboard_scan::{
    api::{ClairApi, ClairRelay, HarborApi},
    clair_engine::ExternalClair,
    delivery::{self, DeliveryParts, Pace, Receiver, Template},
    engine::{
        Engine, EngineMetrics, EngineParts, Exclusions, Heard, LayerObserver, Passing,
        Repositories, SCAN, Scanner, Settled,
    },
    index::{Indexers, Settings},
    inspect::Inspector,
    inventories::CatalogInventories,
    schedule::{self, PolicySpec, Times},
    source::{BlobBytes, Contents, Document, RegistryContents, SourceError, SourceErrorKind},
};

use crate::{
    cli::Role,
    external_clair::{self, External},
    scan::severity,
};

/// How often a process that fetches no advisories itself looks for new ones in the folder.
const LOOK: Duration = Duration::from_secs(15);
/// How often the gauges of the queue are brought up to date.
const GAUGES: Duration = Duration::from_secs(5);
/// Ended jobs and delivered events are remembered so long.
const KEEP_MS: i64 = 14 * 86_400_000;

/// What looks on while content passes, before the registry is built.
pub(crate) struct Looking {
    passing: Arc<Passing>,
    heard: Heard,
    raw: Inspector,
}

/// What the scan engine needs of the process.
pub(crate) struct Ground<'a> {
    pub(crate) config: &'a Config,
    pub(crate) catalog: Catalog,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) tasks: Tasks,
}

/// What of the engine shall run here, and by which policies.
pub(crate) struct Wanted<'a> {
    pub(crate) roles: &'a [Role],
    pub(crate) desired: &'a Arc<ArcSwap<Desired>>,
}

/// The engine, and the APIs that it answers here.
pub(crate) struct Started {
    pub(crate) engine: Arc<Engine>,
    pub(crate) apis: Option<Apis>,
}

/// Whether any part of the scan engine runs here.
pub(crate) fn is_wanted(config: &Config, roles: &[Role]) -> bool {
    let asks = [Role::ScanEngine, Role::ScanWorker, Role::Admission, Role::Operator];
    config.scan.enable && asks.iter().any(|role| roles.contains(role))
}

impl Looking {
    /// Makes the observers' side.
    pub(crate) fn new(ground: &Ground<'_>) -> anyhow::Result<Self> {
        let indexers = Indexers::all();
        let spill = ground.config.data_dir.join("scratch");
        fs::create_dir_all(&spill).with_context(|| format!("{} can't be made", spill.display()))?;
        let inventories = CatalogInventories {
            catalog: ground.catalog.clone(),
            indexer: indexers.version(),
            clock: ground.clock.clone(),
        };
        let raw = Inspector {
            indexers,
            settings: Arc::new(Settings { spill, ..Settings::default() }),
            inventories: Arc::new(inventories),
            tasks: ground.tasks.clone(),
            parallel: 2,
        };
        let (passing, heard) = match external_clair::is_wanted(ground.config) {
            true => Passing::watching(ground.tasks.clone()),
            false => Passing::new(raw.clone(), ground.tasks.clone()),
        };
        Ok(Self { passing, heard, raw })
    }

    /// What the registry tells of passing content.
    pub(crate) fn observers(&self) -> Observers {
        Observers {
            blobs: vec![Arc::new(LayerObserver(self.passing.clone()))],
            manifests: vec![Arc::new(SeenBy(self.passing.clone()))],
        }
    }

    /// Hears of hosted images whose push was answered and whose scan was never asked for, because
    /// the process was killed between the two.
    pub(crate) fn catch_up(
        &self,
        ground: &Ground<'_>,
        reader: Reader,
    ) -> impl FnOnce(Shutdown) -> BoxFuture<'static, anyhow::Result<()>> + Send + 'static {
        let (passing, catalog) = (self.passing.clone(), ground.catalog.clone());
        move |stop| Box::pin(hosted_images(passing, catalog, reader, stop))
    }

    /// Makes the engine, and starts what of it the roles ask for.
    pub(crate) fn start(
        self,
        ground: &Ground<'_>,
        repositories: Arc<dyn Repositories>,
        registry: &prometheus::Registry,
        scope: &mut Scope,
        wanted: &Wanted<'_>,
    ) -> anyhow::Result<Started> {
        let Wanted { roles, desired } = *wanted;
        let scan = &ground.config.scan;
        let external = External::open(ground, roles)?;
        let globs = scan.exclude_registries.iter().map(String::as_str);
        let exclusions = Exclusions::new(globs).context("scan.excludeRegistries")?;
        let settled =
            Settled { passing: self.passing.clone(), inner: self.raw.inventories.clone() };
        let metrics = EngineMetrics::new(registry)?;
        let tries = metrics.delivery_tries.clone();
        let parts = EngineParts {
            catalog: ground.catalog.clone(),
            inspector: Inspector { inventories: Arc::new(settled), ..self.raw },
            scanner: external.as_ref().map(|one| one.scanner.clone() as Arc<dyn Scanner>),
            repositories,
            exclusions,
            receivers: ground.config.webhook.iter().map(|one| one.name.clone()).collect(),
            clock: ground.clock.clone(),
            tasks: ground.tasks.clone(),
            metrics,
        };
        let engine = Engine::new(parts, self.passing);
        let is_engine = roles.contains(&Role::ScanEngine);
        let relayed = external.as_ref().map(|one| one.clair.clone());
        let apis = if is_engine { Apis::new(ground.config, &engine, relayed)? } else { None };
        match &external {
            Some(external) => external.start(engine.clone(), is_engine, scope),
            None => {
                let told = apis.as_ref().and_then(|apis| apis.clair.clone());
                let advisories = Advisories::open(ground, engine.clone(), told)?;
                scope.spawn("advisories", move |stop| advisories.run(is_engine, stop));
            }
        }
        if is_engine {
            let keeper = engine.clone();
            if let Some(apis) = &apis {
                apis.start(scope);
            }
            scope.spawn("scan gauges", move |stop| measure(keeper, stop));
            let delivery = DeliveryParts {
                catalog: ground.catalog.clone(),
                receivers: receivers(ground.config)?,
                clock: ground.clock.clone(),
                source: ground
                    .config
                    .server
                    .external_url
                    .as_ref()
                    .map_or_else(|| "/kuboard".to_owned(), ToString::to_string),
                tries,
                pace: Pace::default(),
            };
            scope.spawn("webhooks", move |stop| delivery::run(delivery, stop));
        }
        // Policies of a cluster are known where it is watched; the same run is never made twice.
        if is_engine || roles.contains(&Role::Operator) {
            let (planned, desired) = (engine.clone(), desired.clone());
            let policies: schedule::Policies = Arc::new(move || schedules(&desired.load()));
            scope.spawn("scan schedules", move |stop| schedule::run(planned, policies, stop));
        }
        let listening = engine.clone();
        let heard = self.heard;
        scope.spawn("passing images", move |stop| listening.listen(heard, stop));
        if roles.contains(&Role::ScanWorker) {
            for number in 0..scan.workers {
                let name = format!("{}-{number}", uuid::Uuid::new_v4());
                let worker = engine.clone();
                scope.spawn("scan worker", move |stop| worker.work(name, stop));
            }
        }
        Ok(Started { engine, apis })
    }
}

/// A policy's schedule as the engine asks it.
struct PolicyTimes(policy::Schedule);

impl Times for PolicyTimes {
    fn next_after(&self, now_ms: i64) -> Option<i64> {
        self.0.next_after(now_ms)
    }

    fn last_before(&self, now_ms: i64) -> Option<i64> {
        self.0.last_before(now_ms)
    }
}

/// What people want, from the files of `scan.policies`; nothing without them.
pub(crate) fn desired_of_files(config: &Config, now_ms: i64) -> anyhow::Result<Desired> {
    match &config.scan.policies {
        Some(folder) => Ok(Desired::from_folder(policy::load(folder)?, now_ms)?),
        None => Ok(Desired::default()),
    }
}

/// By which name the runs of a policy's schedule are kept. `name`: with its namespace.
pub(crate) fn schedule_name(scope: policy::Scope, name: &str) -> String {
    format!("{scope:?} {name}")
}

/// The schedules of policies.
fn schedules(desired: &Desired) -> Vec<PolicySpec> {
    let mut specs = Vec::new();
    for policy in &desired.policies {
        let Some(schedule) = policy.schedule.clone().filter(|_| !policy.suspended) else {
            continue;
        };
        let about = policy.clone();
        specs.push(PolicySpec {
            name: schedule_name(policy.scope, &policy.name()),
            schedule: schedule.to_string(),
            times: Arc::new(PolicyTimes(schedule)),
            covers: Arc::new(move |name| about.covers(&name.registry, &name.repository, &name.tag)),
        });
    }
    specs
}

/// The receivers of webhooks.
fn receivers(config: &Config) -> anyhow::Result<Vec<Receiver>> {
    config.webhook.iter().map(receiver).collect()
}

fn receiver(webhook: &Webhook) -> anyhow::Result<Receiver> {
    let read = |key: &str, file: &Option<PathBuf>| {
        let read = file.as_ref().map(fs::read_to_string).transpose();
        read.with_context(|| format!("{key} of webhook {} can't be read", webhook.name))
    };
    let address = match (&webhook.url, read("urlFile", &webhook.url_file)?) {
        (Some(url), _) => url.to_string(),
        (None, Some(text)) => text.trim().to_owned(),
        (None, None) => String::new(),
    };
    let template = match webhook.template {
        WebhookTemplate::CloudEvents => Template::CloudEvents,
        WebhookTemplate::Slack => Template::Slack,
        WebhookTemplate::DingTalk => Template::DingTalk,
        WebhookTemplate::Feishu => Template::Feishu,
        WebhookTemplate::WeCom => Template::WeCom,
    };
    Ok(Receiver {
        name: webhook.name.clone(),
        url: address
            .parse()
            .with_context(|| format!("the address of webhook {} is none", webhook.name))?,
        secret: read("secretFile", &webhook.secret_file)?
            .map(|secret| secret.trim_end_matches(['\n', '\r']).as_bytes().to_vec()),
        template,
        language: template.language(),
        severity_threshold: webhook.severity_threshold.as_deref().map(severity).transpose()?,
        authority: read("caFile", &webhook.ca_file)?.map(String::into_bytes),
    })
}

async fn hosted_images(
    passing: Arc<Passing>,
    catalog: Catalog,
    reader: Reader,
    stop: Shutdown,
) -> anyhow::Result<()> {
    let mut after: Option<String> = None;
    loop {
        let page = catalog.repositories(Some(Kind::Hosted), after.as_deref(), 1000).await;
        let page = page.unwrap_or_default();
        let Some(last) = page.last().cloned() else { return Ok(()) };
        for repository in page {
            if stop.is_begun() {
                return Ok(());
            }
            if let Err(error) = hosted_repository(&passing, &catalog, &reader, &repository).await {
                tracing::warn!(repository, error = %format!("{error:#}"), "not looked through");
            }
        }
        after = Some(last);
    }
}

async fn hosted_repository(
    passing: &Passing,
    catalog: &Catalog,
    reader: &Reader,
    repository: &str,
) -> anyhow::Result<()> {
    let name: RepositoryName = repository.parse()?;
    let mut after: Option<String> = None;
    loop {
        let tags = catalog.tags(repository, after.as_deref(), 1000).await?.unwrap_or_default();
        let Some(last) = tags.last().cloned() else { return Ok(()) };
        for tag in tags {
            let Some(row) = catalog.resolve(repository, &tag.parse()?).await? else { continue };
            let known = ImageName {
                registry: String::new(),
                repository: repository.to_owned(),
                tag: tag.clone(),
            };
            // Named first, asked for second: a kill may have come between these, too.
            if catalog.image_named(&known).await? == Some(row.digest)
                && (catalog.image_indexer(&row.digest).await?.is_some()
                    || catalog.last_job(SCAN, &row.digest.to_string()).await?.is_some())
            {
                continue;
            }
            let manifest = reader.manifest("", &name, &Reference::Digest(row.digest)).await?;
            let seen = ("", repository, tag.as_str());
            passing.manifest(seen, &row.digest, &manifest.media_type, &manifest.bytes);
            // The engine's ear holds a bounded number.
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        after = Some(last);
    }
}

/// Tells the scan engine of manifests.
struct SeenBy(Arc<Passing>);

impl ManifestObserver for SeenBy {
    fn manifest(&self, seen: ManifestSeen) {
        let tag = seen.tag.as_deref().unwrap_or_default();
        let name = (seen.registry.as_str(), seen.repository.as_str(), tag);
        self.0.manifest(name, &seen.digest, &seen.media_type, &seen.bytes);
    }
}

/// The APIs of Clair and Harbor; where an external Clair scans, its own API alone.
#[derive(Default)]
pub(crate) struct Apis {
    clair: Option<Arc<ClairApi>>,
    harbor: Option<Arc<HarborApi>>,
    relay: Option<Arc<ClairRelay>>,
}

impl Apis {
    fn new(
        config: &Config,
        engine: &Arc<Engine>,
        external: Option<Arc<ExternalClair>>,
    ) -> anyhow::Result<Option<Self>> {
        let settings = &config.scan.api;
        if !settings.enable {
            return Ok(None);
        }
        let psk = settings.psk_file.as_ref().map(fs::read_to_string).transpose();
        let psk = psk.context("scan.api.pskFile can't be read")?;
        let psk = psk.map(|text| STANDARD.decode(text.trim())).transpose();
        let url = |url: &Option<kuboard_api::HttpUrl>| {
            url.as_ref().map(|url| url.to_string().parse()).transpose()
        };
        let settings = kuboard_scan::api::Settings {
            psk: psk.context("scan.api.pskFile is no Base64")?,
            issuers: settings.issuers.clone(),
            open: config.server.listen.0.ip().is_loopback(),
            cache_seconds: settings.cache.duration().as_secs(),
            allow_private_addresses: settings.allow_private_addresses,
            notifier_target: url(&settings.notifier_target)?,
            notifier_callback: url(&settings.notifier_callback)?,
            ..kuboard_scan::api::Settings::default()
        };
        if let Some(clair) = external {
            let relay = Some(ClairRelay::new(&settings, clair, engine.clone()));
            return Ok(Some(Self { relay, ..Self::default() }));
        }
        let harbor = HarborApi::new(&settings, env!("CARGO_PKG_VERSION"), engine.clone())?;
        let clair = ClairApi::new(settings, engine.clone())?;
        Ok(Some(Self { clair: Some(clair), harbor: Some(harbor), relay: None }))
    }

    fn start(&self, scope: &mut Scope) {
        if let Some(clair) = self.clair.clone() {
            scope.spawn("clair notifier", move |stop| clair.notify(stop));
        }
        if let Some(harbor) = self.harbor.clone() {
            scope.spawn("harbor scans", move |stop| harbor.work(stop));
        }
    }

    /// Who answers a path, if one of them does.
    pub(crate) fn of(&self, path: &str) -> Option<&dyn Handler> {
        if ClairApi::serves(path) {
            let own = self.clair.as_deref().map(|clair| clair as &dyn Handler);
            return own.or(self.relay.as_deref().map(|relay| relay as &dyn Handler));
        }
        let harbor = self.harbor.as_deref().filter(|_| HarborApi::serves(path))?;
        Some(harbor)
    }
}

/// The advisories of this process.
struct Advisories {
    engine: Arc<Engine>,
    clair: Option<Arc<ClairApi>>,
    generations: Arc<Generations>,
    updater: Option<Updater>,
    interval: Duration,
}

/// Where the advisories are.
pub(crate) fn advisories_dir(config: &Config) -> PathBuf {
    config.advisories.dir.clone().unwrap_or_else(|| config.data_dir.join("advisories"))
}

impl Advisories {
    fn open(
        ground: &Ground<'_>,
        engine: Arc<Engine>,
        clair: Option<Arc<ClairApi>>,
    ) -> anyhow::Result<Self> {
        let folder = advisories_dir(ground.config);
        let generations = Arc::new(Generations::open(&folder)?);
        let settings = &ground.config.advisories;
        match generations.current() {
            Ok(Some(database)) => engine.use_database(database),
            Ok(None) => tracing::info!("no advisories yet: scans list packages only"),
            Err(error) => tracing::error!(%error, "the advisories can't be used"),
        }
        let authority = settings.ca_file.as_ref().map(fs::read).transpose();
        let config = UpdaterConfig {
            folder,
            feeds: settings.feeds.clone(),
            mirror: settings.mirror.clone(),
            authority: authority.context("advisories.caFile can't be read")?,
        };
        let updater = settings
            .update
            .then(|| {
                let (clock, tasks) = (ground.clock.clone(), ground.tasks.clone());
                Updater::new(config, generations.clone(), clock, tasks)
            })
            .transpose()?;
        let interval = settings.update_interval.duration();
        Ok(Self { engine, clair, generations, updater, interval })
    }

    /// `keeps`: this process keeps the advisories, and does not only follow another that does.
    async fn run(self, keeps: bool, stop: Shutdown) -> anyhow::Result<()> {
        match keeps {
            true => self.keep(stop).await,
            false => self.follow(stop).await,
        }
    }

    /// Fetches, or looks what others put into the folder; tells the engine.
    async fn keep(self, stop: Shutdown) -> anyhow::Result<()> {
        self.take().await;
        let Some(updater) = &self.updater else { return self.look(stop).await };
        loop {
            let updating = updater.update(false);
            tokio::select! {
                () = stop.begun() => return Ok(()),
                report = updating => match report {
                    Ok(report) => tracing::info!(generation = report.generation,
                        feeds = report.feeds.len(), "advisories asked for"),
                    Err(error) => tracing::warn!(error = %format!("{error:#}"),
                        "advisories not updated; the last good ones stay in use"),
                },
            }
            self.take().await;
            tokio::select! {
                () = stop.begun() => return Ok(()),
                () = tokio::time::sleep(self.interval) => {}
            }
        }
    }

    async fn look(&self, stop: Shutdown) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                () = stop.begun() => return Ok(()),
                () = tokio::time::sleep(LOOK) => self.take().await,
            }
        }
    }

    /// Uses what the engine of another process put into the folder.
    async fn follow(self, stop: Shutdown) -> anyhow::Result<()> {
        loop {
            tokio::select! {
                () = stop.begun() => return Ok(()),
                () = tokio::time::sleep(LOOK) => {}
            }
            if let Some(database) = self.newer() {
                self.engine.use_database(database);
            }
        }
    }

    fn newer(&self) -> Option<Arc<kuboard_feeds::database::Database>> {
        let used = self.engine.database().map(|database| database.generation());
        let current = self.generations.current().ok().flatten()?;
        (used != Some(current.generation())).then_some(current)
    }

    /// Takes the current generation into use; what it concerns is matched again.
    async fn take(&self) {
        let Ok(Some(current)) = self.generations.current() else { return };
        if let Some(clair) = &self.clair
            && let Err(error) = clair.advisories_changed(&current).await
        {
            tracing::warn!(%error, "Clair's clients not notified yet");
        }
        match self.engine.advisories_changed(current).await {
            Ok(0) => {}
            Ok(images) => tracing::info!(images, "images to be matched with new advisories"),
            Err(error) => tracing::warn!(%error, "new advisories not matched yet"),
        }
    }
}

/// Brings the queue's gauges up to date, and forgets what is long over.
async fn measure(engine: Arc<Engine>, stop: Shutdown) -> anyhow::Result<()> {
    loop {
        tokio::select! {
            () = stop.begun() => return Ok(()),
            () = tokio::time::sleep(GAUGES) => {}
        }
        if let Err(error) = engine.measure().await {
            tracing::debug!(%error, "queue not measured");
        }
        if let Err(error) = engine.forget(engine.now_ms() - KEEP_MS).await {
            tracing::debug!(%error, "old jobs not forgotten");
        }
    }
}

/// Repositories of the registry in this process.
pub(crate) struct OwnRepositories(pub(crate) Reader);

impl Repositories for OwnRepositories {
    fn contents(
        &self,
        registry: &str,
        repository: &RepositoryName,
    ) -> Result<Arc<dyn Contents>, SourceError> {
        Ok(Arc::new(OwnRepository {
            reader: self.0.clone(),
            registry: registry.to_owned(),
            repository: repository.clone(),
        }))
    }

    fn is_cached<'a>(&'a self, blob: &'a Digest) -> BoxFuture<'a, bool> {
        Box::pin(self.0.is_cached(blob))
    }
}

struct OwnRepository {
    reader: Reader,
    registry: String,
    repository: RepositoryName,
}

fn unreadable(error: ReadError) -> SourceError {
    let kind = match error.not_found {
        true => SourceErrorKind::NotFound,
        false => SourceErrorKind::Unreachable,
    };
    SourceError::new(kind, error.message)
}

impl Contents for OwnRepository {
    fn manifest<'a>(
        &'a self,
        reference: Option<&'a Reference>,
    ) -> BoxFuture<'a, Result<Document, SourceError>> {
        Box::pin(async move {
            let reference =
                reference.ok_or_else(|| SourceError::invalid("no tag and no digest"))?;
            let found = self.reader.manifest(&self.registry, &self.repository, reference).await;
            let found = found.map_err(unreadable)?;
            Ok(Document { digest: found.digest, media_type: found.media_type, bytes: found.bytes })
        })
    }

    fn blob<'a>(&'a self, digest: &'a Digest) -> BoxFuture<'a, Result<BlobBytes, SourceError>> {
        Box::pin(async move {
            let read = self.reader.blob(&self.registry, &self.repository, digest).await;
            let (body, _) = read.map_err(unreadable)?;
            let frames = stream::unfold(body, |mut body| async move {
                body.frame().await.map(|frame| (frame, body))
            });
            let pieces = frames.try_filter_map(|frame| async move { Ok(frame.into_data().ok()) });
            Ok(BlobBytes::Stream(pieces.boxed()))
        })
    }
}

/// Repositories of caches that run elsewhere.
pub(crate) struct DistantRepositories {
    upstream: Upstream,
}

impl DistantRepositories {
    /// The caches of `proxy.caches`.
    pub(crate) fn new(config: &Config, registry: &prometheus::Registry) -> anyhow::Result<Self> {
        let caches: Vec<url::Url> = config
            .proxy
            .caches
            .iter()
            .map(|address| address.to_string().parse())
            .collect::<Result<_, _>>()?;
        anyhow::ensure!(
            !caches.is_empty(),
            "a scan worker by itself needs to know where images are; hint: set caches in [proxy]"
        );
        let config = kuboard_registry::client::UpstreamConfig::new("registry-cache", caches);
        let credentials = Arc::new(Chain::new(Vec::new()));
        Ok(Self { upstream: Upstream::new(config, credentials, registry)? })
    }
}

impl Repositories for DistantRepositories {
    fn contents(
        &self,
        registry: &str,
        repository: &RepositoryName,
    ) -> Result<Arc<dyn Contents>, SourceError> {
        let name = match registry {
            "" => repository.to_string(),
            registry => format!("{registry}/{repository}"),
        };
        let repository = name.parse().map_err(SourceError::invalid)?;
        Ok(Arc::new(RegistryContents { upstream: self.upstream.clone(), repository }))
    }
}
