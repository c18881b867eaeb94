//! The room as a whole: what it is made of, and the chores that it does while it runs.

use std::{sync::Arc, time::Duration};

use anyhow::Context;
use kuboard_api::Rules;
use kuboard_catalog::Catalog;
use kuboard_registry::{credentials::Credentials, server::Access};
use kuboard_rt::{Clock, Shutdown, Tasks, http::Handler};
use kuboard_store::{BlobStore, Cache, Spool};

use crate::{
    admin::{Admin, Running},
    hosted::{Hosted, HostedMetrics, HostedParts},
    manifest_cache::ManifestCache,
    metrics::Metrics,
    observer::Observers,
    proxied::{Members, Proxied, ProxiedParts},
    reader::Reader,
    service::Service,
};

/// Bytes of manifests kept in memory: thousands of images, and little beside 64 MiB.
const MANIFEST_MEMORY: u64 = 16 << 20;

/// An unfinished upload is thrown away so long after its last byte.
const UPLOAD_TTL: Duration = Duration::from_secs(24 * 3600);

/// How often the gauges of the cache are brought up to date.
const GAUGE_INTERVAL: Duration = Duration::from_secs(2);

/// How often hosted bytes are counted, which reads an index of the catalogue.
const COUNT_INTERVAL: Duration = Duration::from_secs(60);

/// The settings of the room.
pub struct Config {
    /// Which upstreams there are, and how they are meant.
    pub rules: Arc<Rules>,
    /// How long hosted content that no manifest names is kept.
    pub lease: Duration,
    /// How often hosted content is collected; zero for never.
    pub gc_interval: Duration,
    /// Age at which untagged hosted manifests go; zero keeps them.
    pub untagged: Duration,
    /// This process alone writes the catalogue.
    pub exclusive: bool,
}

/// What the room is handed.
pub struct Deps {
    /// Content of upstreams.
    pub cache: Arc<Cache>,
    /// Files on their way into the cache.
    pub cache_spool: Spool,
    /// Content pushed here.
    pub hosted: Arc<dyn BlobStore>,
    /// Uploads; on the file system of `hosted`, if that is a folder.
    pub upload_spool: Spool,
    /// What is known of both.
    pub catalog: Catalog,
    /// Who may do what.
    pub access: Arc<Access>,
    /// What upstreams are asked with whose rules name no credentials; `None` is anonymously.
    pub credentials: Option<Arc<dyn Credentials>>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// Where downloads and changes run.
    pub tasks: Tasks,
    /// Where everything is counted.
    pub registry: prometheus::Registry,
    /// Who looks on.
    pub observers: Observers,
}

/// The registry, ready to answer.
pub struct Room {
    service: Arc<Service>,
    admin: Admin,
    reader: Reader,
    hosted: Arc<Hosted>,
    proxied: Arc<Proxied>,
    cache: Arc<Cache>,
    catalog: Catalog,
    cache_spool: Spool,
    clock: Arc<dyn Clock>,
    metrics: Arc<Metrics>,
    gc_interval: Duration,
    untagged: Duration,
}

impl Config {
    /// Makes the room; whatever is wrong with the settings fails here.
    pub async fn build(self, deps: Deps) -> anyhow::Result<Room> {
        let metrics = Arc::new(Metrics::new(&deps.registry)?);
        let manifests = Arc::new(ManifestCache::new(MANIFEST_MEMORY));
        let (registry, clock) = (deps.registry.clone(), deps.clock.clone());
        let members = Members::new(self.rules.clone(), registry, clock, deps.credentials).await?;
        let hosted = Hosted::new(HostedParts {
            store: deps.hosted,
            spool: deps.upload_spool,
            catalog: deps.catalog.clone(),
            manifests: manifests.clone(),
            clock: deps.clock.clone(),
            tasks: deps.tasks.clone(),
            lease: self.lease,
            upload_ttl: UPLOAD_TTL,
            exclusive: self.exclusive,
            observers: deps.observers.clone(),
            metrics: HostedMetrics::new(&deps.registry, &metrics.pulls)?,
        });
        let proxied = Proxied::new(ProxiedParts {
            members,
            cache: deps.cache.clone(),
            spool: deps.cache_spool.clone(),
            catalog: deps.catalog.clone(),
            manifests: manifests.clone(),
            clock: deps.clock.clone(),
            tasks: deps.tasks,
            metrics: metrics.clone(),
            observers: deps.observers,
        });
        for pin in deps.catalog.pins().await.context("pins can't be read")? {
            deps.cache.pin(&pin.digest);
        }
        // The bound may be lower than when this folder was filled.
        deps.cache.trim().await;
        let admin = Admin {
            cache: deps.cache.clone(),
            catalog: deps.catalog.clone(),
            clock: deps.clock.clone(),
            running: Some(Running { proxied: proxied.clone(), manifests }),
        };
        let reader =
            Reader { rules: self.rules.clone(), hosted: hosted.clone(), proxied: proxied.clone() };
        let service = Arc::new(Service {
            rules: self.rules,
            access: deps.access,
            hosted: hosted.clone(),
            proxied: proxied.clone(),
            catalog: deps.catalog.clone(),
            clock: deps.clock.clone(),
            metrics: metrics.clone(),
        });
        Ok(Room {
            service,
            admin,
            reader,
            hosted,
            proxied,
            cache: deps.cache,
            catalog: deps.catalog,
            cache_spool: deps.cache_spool,
            clock: deps.clock,
            metrics,
            gc_interval: self.gc_interval,
            untagged: self.untagged,
        })
    }
}

impl Room {
    /// Answers `/v2/` and `/token`.
    pub fn handler(&self) -> Arc<dyn Handler> {
        self.service.clone()
    }

    /// The orders of an operator on this running room.
    pub fn admin(&self) -> Admin {
        self.admin.clone()
    }

    /// Reads content for other parts of this process.
    pub fn reader(&self) -> Reader {
        self.reader.clone()
    }

    /// Does the chores until stop: gauges, collection of hosted content.
    pub async fn run(self, stop: Shutdown) -> anyhow::Result<()> {
        // What a killed process left half-written is worth nothing: nobody follows it any more.
        if let Err(error) = self.cache_spool.sweep(self.clock.now_ms(), |_| false, usize::MAX).await
        {
            tracing::warn!(%error, "left-over downloads not swept");
        }
        let mut gauges = tokio::time::interval(GAUGE_INTERVAL);
        let mut counts = tokio::time::interval(COUNT_INTERVAL);
        let mut collection = tokio::time::interval(match self.gc_interval {
            Duration::ZERO => Duration::from_secs(24 * 3600),
            interval => interval,
        });
        collection.tick().await;
        loop {
            tokio::select! {
                () = stop.begun() => {
                    tracing::debug!(fills = self.proxied.fills_running(), "stopping");
                    return Ok(());
                }
                _ = gauges.tick() => self.measure(),
                _ = counts.tick() => self.count().await,
                _ = collection.tick(), if !self.gc_interval.is_zero() => self.collect().await,
            }
        }
    }

    async fn collect(&self) {
        let now_ms = self.clock.now_ms();
        let untagged_before_ms =
            (!self.untagged.is_zero()).then(|| now_ms - self.untagged.as_millis() as i64);
        match self.hosted.collect(now_ms, untagged_before_ms).await {
            Ok(collected) => tracing::info!(?collected, "collected hosted content"),
            Err(error) => tracing::warn!(%error, "hosted content not collected"),
        }
    }

    fn measure(&self) {
        let stats = self.cache.stats();
        gauge(&self.metrics.storage_used, "cache", stats.used);
        gauge(&self.metrics.storage_limit, "cache", stats.max);
        gauge(&self.metrics.evicted_bytes, "cache", stats.evicted_bytes);
    }

    async fn count(&self) {
        match self.catalog.counts().await {
            Ok(counts) => gauge(&self.metrics.storage_used, "hosted", counts.hosted_bytes),
            Err(error) => tracing::warn!(%error, "hosted bytes not counted"),
        }
    }
}

fn gauge(family: &prometheus::IntGaugeVec, area: &str, value: u64) {
    family.with_label_values(&[area]).set(i64::try_from(value).unwrap_or(i64::MAX));
}

/// Registers all metrics of the room and touches each once, for the reference page.
pub fn register_metrics(registry: &prometheus::Registry) -> Result<(), prometheus::Error> {
    let metrics = Metrics::new(registry)?;
    HostedMetrics::new(registry, &metrics.pulls)?;
    metrics.touch();
    Ok(())
}
