//! What the operator counts.

use prometheus::{
    Histogram, HistogramOpts, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

use crate::certificates::Life;

/// Metrics of the operator.
pub struct OperatorMetrics {
    certificate: IntGaugeVec,
    /// Whether this process leads.
    pub(crate) leader: IntGauge,
    /// Whether the webhook is armed.
    pub(crate) armed: IntGauge,
    /// Self-tests by result.
    pub(crate) self_tests: IntCounterVec,
    /// When the last self-test succeeded.
    pub(crate) self_test_success: IntGauge,
    /// Failures of watches by kind.
    pub(crate) watch_failures: IntCounterVec,
    /// Objects watched by kind.
    pub(crate) watched: IntGaugeVec,
    /// Time of making a snapshot.
    pub(crate) snapshot_seconds: Histogram,
    /// Policies by state.
    pub(crate) policies: IntGaugeVec,
    /// Writes by kind and result.
    pub(crate) writes: IntCounterVec,
    /// Image reports there are.
    pub(crate) reports: IntGauge,
    /// Whether writing reports is suspended.
    pub(crate) breaker: IntGauge,
    /// Events that were not written because there were too many.
    pub(crate) events_dropped: IntCounter,
    /// What runs, by the last verdict on it.
    pub(crate) running: IntGaugeVec,
    /// Time of judging everything that runs.
    pub(crate) reevaluation_seconds: Histogram,
}

impl OperatorMetrics {
    /// Registers all of them.
    ///
    /// # Errors
    /// A name is taken.
    pub fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let gauges = |name: &str, help: &str, labels: &[&str]| -> prometheus::Result<_> {
            let family = IntGaugeVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(family.clone()))?;
            Ok(family)
        };
        let gauge = |name: &str, help: &str| -> prometheus::Result<_> {
            let gauge = IntGauge::new(name, help)?;
            registry.register(Box::new(gauge.clone()))?;
            Ok(gauge)
        };
        let counters = |name: &str, help: &str, labels: &[&str]| -> prometheus::Result<_> {
            let family = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(family.clone()))?;
            Ok(family)
        };
        let seconds = |name: &str, help: &str| -> prometheus::Result<_> {
            let buckets = prometheus::exponential_buckets(0.0005, 4.0, 9)?;
            let histogram = Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets))?;
            registry.register(Box::new(histogram.clone()))?;
            Ok(histogram)
        };
        let events_dropped = IntCounter::new(
            "operator_events_dropped_total",
            "Kubernetes Events that were not written because there were too many",
        )?;
        registry.register(Box::new(events_dropped.clone()))?;
        Ok(Self {
            certificate: gauges(
                "operator_certificate_expiry_timestamp_seconds",
                "When a certificate of the webhook ends",
                &["certificate"],
            )?,
            leader: gauge("operator_leader", "Whether this process leads")?,
            armed: gauge("operator_webhook_armed", "Whether the webhook is armed")?,
            self_tests: counters(
                "operator_webhook_self_tests_total",
                "Self-tests of the webhook through the API server, by result",
                &["result"],
            )?,
            self_test_success: gauge(
                "operator_webhook_self_test_success_timestamp_seconds",
                "When the last self-test of the webhook succeeded",
            )?,
            watch_failures: counters(
                "operator_watch_failures_total",
                "Failures of watches, by kind",
                &["kind"],
            )?,
            watched: gauges("operator_watched_objects", "Objects watched, by kind", &["kind"])?,
            snapshot_seconds: seconds(
                "operator_snapshot_duration_seconds",
                "Time of making a snapshot of what is watched",
            )?,
            policies: gauges("operator_policies", "Policies and exemptions, by state", &["state"])?,
            writes: counters(
                "operator_writes_total",
                "Writes to the API server, by kind and result",
                &["kind", "result"],
            )?,
            reports: gauge("operator_image_reports", "ImageReports in the cluster")?,
            breaker: gauge(
                "operator_reports_suspended",
                "Whether writing reports is suspended because the cluster has no room",
            )?,
            events_dropped,
            running: gauges(
                "operator_running_images",
                "Images that run, by namespace once each, by the last verdict",
                &["verdict"],
            )?,
            reevaluation_seconds: seconds(
                "operator_reevaluation_duration_seconds",
                "Time of judging everything that runs",
            )?,
        })
    }

    /// Makes every family appear, for a page that lists them.
    pub fn touch(&self) {
        for family in [&self.certificate, &self.watched, &self.policies, &self.running] {
            family.with_label_values(&[""]).set(0);
        }
        for family in [&self.self_tests, &self.watch_failures] {
            family.with_label_values(&[""]).inc_by(0);
        }
        self.writes.with_label_values(&["", ""]).inc_by(0);
    }

    /// The lives of the authority and of the leaf.
    pub(crate) fn certificate(&self, (authority, leaf): (Option<Life>, Option<Life>)) {
        for (name, life) in [("authority", authority), ("leaf", leaf)] {
            let until = life.map_or(0, |it| it.until_ms / 1_000);
            self.certificate.with_label_values(&[name]).set(until);
        }
    }

    /// A write that was tried.
    pub(crate) fn wrote<T, E>(&self, kind: &str, outcome: &Result<T, E>) {
        let result = if outcome.is_ok() { "ok" } else { "error" };
        self.writes.with_label_values(&[kind, result]).inc();
    }
}

#[cfg(test)]
mod tests {
    use super::OperatorMetrics;

    #[test]
    fn names_are_registered_once() {
        let registry = prometheus::Registry::new();
        OperatorMetrics::new(&registry).unwrap();
        assert!(OperatorMetrics::new(&registry).is_err(), "the names are taken");
    }
}
