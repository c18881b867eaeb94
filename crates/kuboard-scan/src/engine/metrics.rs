//! What the scan engine counts.

use std::collections::BTreeMap;

use kuboard_vuln::DatabaseStamp;
use parking_lot::Mutex;
use prometheus::{Histogram, HistogramOpts, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry};

use super::results::Summary;

/// Metrics of the engine.
pub struct EngineMetrics {
    /// `scan_vulnerabilities_found{severity,registry}`.
    found: IntGaugeVec,
    /// By image, what it adds to `found`.
    counted: Mutex<BTreeMap<String, Summary>>,
    /// Ended jobs by kind and result.
    pub(crate) jobs: IntCounterVec,
    /// Open and failed jobs by kind and state.
    pub queue: IntGaugeVec,
    /// Age of the oldest waiting job, in seconds, by kind.
    pub queue_age: IntGaugeVec,
    /// Time of whole scans.
    pub(crate) scan_seconds: Histogram,
    /// Time of matching one image.
    pub(crate) match_seconds: Histogram,
    generation: IntGauge,
    built: IntGauge,
    /// Deliveries by receiver and state.
    pub deliveries: IntGaugeVec,
    /// Tries of deliveries by receiver and result.
    pub delivery_tries: IntCounterVec,
}

/// Images whose counts are remembered one by one.
const MAX_IMAGES: usize = 100_000;

impl EngineMetrics {
    /// Registers all of them.
    ///
    /// # Errors
    /// A name is taken.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauges = |name: &str, help: &str, labels: &[&str]| -> Result<_, prometheus::Error> {
            let family = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(family.clone()))?;
            Ok(family)
        };
        let gauge = |name: &str, help: &str| -> Result<IntGauge, prometheus::Error> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let counters = |name: &str, help: &str, labels: &[&str]| -> Result<_, prometheus::Error> {
            let family = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(family.clone()))?;
            Ok(family)
        };
        let histogram = |name: &str, help: &str, first: f64| -> Result<_, prometheus::Error> {
            let buckets = prometheus::exponential_buckets(first, 4.0, 10)?;
            let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?;
            registry.register(Box::new(histogram.clone()))?;
            Ok(histogram)
        };
        Ok(Self {
            found: gauges(
                "scan_vulnerabilities_found",
                "Vulnerabilities found in the images known, by severity and registry",
                &["severity", "registry"],
            )?,
            counted: Mutex::default(),
            jobs: counters("scan_jobs_total", "Jobs that ended, by result", &["kind", "result"])?,
            queue: gauges("scan_queue_jobs", "Jobs in the queue, by state", &["kind", "state"])?,
            queue_age: gauges(
                "scan_queue_oldest_seconds",
                "Age of the oldest waiting job",
                &["kind"],
            )?,
            scan_seconds: histogram("scan_duration_seconds", "Time of a whole scan", 0.001)?,
            match_seconds: histogram(
                "scan_match_duration_seconds",
                "Time of matching one image with the advisories",
                0.000_1,
            )?,
            generation: gauge("scan_database_generation", "Generation of the advisories in use")?,
            built: gauge(
                "scan_database_built_timestamp_seconds",
                "When the advisories in use were compiled",
            )?,
            deliveries: gauges(
                "scan_deliveries",
                "Events for receivers, by state",
                &["receiver", "state"],
            )?,
            delivery_tries: counters(
                "scan_delivery_tries_total",
                "Tries to deliver an event, by result",
                &["receiver", "result"],
            )?,
        })
    }

    pub(crate) fn database(&self, stamp: &DatabaseStamp) {
        self.generation.set(i64::try_from(stamp.generation).unwrap_or(i64::MAX));
        self.built.set(stamp.built_ms / 1000);
    }

    /// Counts a report in place of the last one of the same name.
    pub(crate) fn reported(&self, summary: &Summary) {
        let mut counted = self.counted.lock();
        if counted.len() >= MAX_IMAGES && !counted.contains_key(&summary.name) {
            return;
        }
        self.add(summary, 1);
        if let Some(last) = counted.insert(summary.name.clone(), summary.clone()) {
            self.add(&last, -1);
        }
    }

    /// Counts these reports, by name, in place of all that were counted.
    pub(crate) fn recount(&self, all: BTreeMap<String, Summary>) {
        let all: BTreeMap<_, _> = all.into_iter().take(MAX_IMAGES).collect();
        let mut counted = self.counted.lock();
        // First what is new: a gauge that is read meanwhile never shows that nothing was found.
        for (name, summary) in &all {
            if counted.get(name) != Some(summary) {
                self.add(summary, 1);
            }
        }
        for (name, summary) in &*counted {
            if all.get(name) != Some(summary) {
                self.add(summary, -1);
            }
        }
        *counted = all;
    }

    fn add(&self, summary: &Summary, sign: i64) {
        let registry = match summary.registry.as_str() {
            "" => "hosted",
            registry => registry,
        };
        for (severity, count) in &summary.findings {
            self.found.with_label_values(&[severity, registry]).add(sign * as_gauge(*count));
        }
    }

    /// Touches each once, for the reference page.
    pub fn touch(&self) {
        self.found.with_label_values(&["HIGH", "docker.io"]).set(0);
        self.jobs.with_label_values(&["scan", "done"]).inc_by(0);
        self.queue.with_label_values(&["scan", "waiting"]).set(0);
        self.queue_age.with_label_values(&["scan"]).set(0);
        self.deliveries.with_label_values(&["receiver", "waiting"]).set(0);
        self.delivery_tries.with_label_values(&["receiver", "delivered"]).inc_by(0);
    }
}

fn as_gauge(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}
