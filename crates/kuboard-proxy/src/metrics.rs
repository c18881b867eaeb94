//! What the registry counts, under the names that dashboards of other registries know.

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGaugeVec, Opts, Registry,
};

/// The counters of one registry; handed in, never global.
pub(crate) struct Metrics {
    /// `registry_pull_requests_total{registry,kind,result}`.
    pub(crate) pulls: IntCounterVec,
    /// `registry_storage_used_bytes{area}`.
    pub(crate) storage_used: IntGaugeVec,
    /// `registry_storage_limit_bytes{area}`.
    pub(crate) storage_limit: IntGaugeVec,
    pub(crate) evicted_bytes: IntGaugeVec,
    pub(crate) requests: IntCounterVec,
    pub(crate) hits: IntCounterVec,
    pub(crate) misses: IntCounterVec,
    pub(crate) pulled_blob_bytes: IntCounter,
    pub(crate) pulled_manifest_bytes: IntCounter,
    pub(crate) pushed_bytes: IntCounterVec,
    pub(crate) coalesced: IntCounter,
    pub(crate) resumed: IntCounter,
    pub(crate) rejected: IntCounter,
    pub(crate) uncached: IntCounterVec,
    pub(crate) stale_served: IntCounterVec,
    pub(crate) fill_seconds: Histogram,
    pub(crate) responses: IntCounterVec,
}

impl Metrics {
    /// Registers all counters.
    #[expect(clippy::too_many_lines, reason = "a table of names and what they mean")]
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let make = Maker { registry };
        let pulled = make.counters(
            "registry_proxy_pulled_bytes_total",
            "Bytes read from upstream registries.",
            &["type"],
        )?;
        Ok(Self {
            pulls: make.counters(
                "registry_pull_requests_total",
                "Pull requests answered, by registry (an upstream's name, or hosted), kind \
                 (manifest, blob) and result (hit, miss, stale, not_found, error).",
                &["registry", "kind", "result"],
            )?,
            storage_used: make.gauges(
                "registry_storage_used_bytes",
                "Bytes of content stored, by area (cache, hosted).",
                &["area"],
            )?,
            storage_limit: make.gauges(
                "registry_storage_limit_bytes",
                "Bytes that an area may hold (cacheSizeGB).",
                &["area"],
            )?,
            evicted_bytes: make.gauges(
                "registry_storage_evicted_bytes",
                "Bytes evicted since start, by area.",
                &["area"],
            )?,
            requests: make.counters(
                "registry_proxy_requests_total",
                "Requests for content of upstream registries.",
                &["type"],
            )?,
            hits: make.counters(
                "registry_proxy_hits_total",
                "Requests answered from the cache.",
                &["type"],
            )?,
            misses: make.counters(
                "registry_proxy_misses_total",
                "Requests that needed the upstream.",
                &["type"],
            )?,
            pulled_blob_bytes: pulled.with_label_values(&["blob"]),
            pulled_manifest_bytes: pulled.with_label_values(&["manifest"]),
            pushed_bytes: make.counters(
                "registry_proxy_pushed_bytes_total",
                "Bytes of upstream content promised to clients.",
                &["type"],
            )?,
            coalesced: make.counter(
                "registry_proxy_coalesced_total",
                "Requests that joined a download already under way.",
            )?,
            resumed: make.counter(
                "registry_proxy_resumed_total",
                "Downloads resumed after the upstream broke off.",
            )?,
            rejected: make.counter(
                "registry_proxy_rejected_total",
                "Downloads thrown away because the bytes were not the digest.",
            )?,
            uncached: make.counters(
                "registry_proxy_uncached_total",
                "Downloads passed through without being kept, by reason.",
                &["reason"],
            )?,
            stale_served: make.counters(
                "registry_proxy_stale_served_total",
                "Cached tags served because the upstream did not answer, by reason.",
                &["reason"],
            )?,
            fill_seconds: make.histogram(
                "registry_proxy_fill_seconds",
                "Time to fill one blob from its upstream.",
            )?,
            responses: make.counters(
                "registry_http_responses_total",
                "Responses by method and status code.",
                &["method", "code"],
            )?,
        })
    }
}

impl Metrics {
    /// Makes each family visible to a gatherer, with empty labels.
    pub(crate) fn touch(&self) {
        for (family, labels) in [
            (&self.pulls, 3),
            (&self.requests, 1),
            (&self.hits, 1),
            (&self.misses, 1),
            (&self.pushed_bytes, 1),
            (&self.uncached, 1),
            (&self.stale_served, 1),
            (&self.responses, 2),
        ] {
            let _ = family.get_metric_with_label_values(&vec![""; labels]);
        }
        for family in [&self.storage_used, &self.storage_limit, &self.evicted_bytes] {
            let _ = family.get_metric_with_label_values(&[""]);
        }
    }
}

struct Maker<'a> {
    registry: &'a Registry,
}

impl Maker<'_> {
    fn counters(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntCounterVec, prometheus::Error> {
        let made = IntCounterVec::new(Opts::new(name, help), labels)?;
        self.registry.register(Box::new(made.clone()))?;
        Ok(made)
    }

    fn gauges(
        &self,
        name: &str,
        help: &str,
        labels: &[&str],
    ) -> Result<IntGaugeVec, prometheus::Error> {
        let made = IntGaugeVec::new(Opts::new(name, help), labels)?;
        self.registry.register(Box::new(made.clone()))?;
        Ok(made)
    }

    fn counter(&self, name: &str, help: &str) -> Result<IntCounter, prometheus::Error> {
        let made = IntCounter::new(name, help)?;
        self.registry.register(Box::new(made.clone()))?;
        Ok(made)
    }

    fn histogram(&self, name: &str, help: &str) -> Result<Histogram, prometheus::Error> {
        let buckets = vec![0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0];
        let made = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?;
        self.registry.register(Box::new(made.clone()))?;
        Ok(made)
    }
}
