//! What admission counts.

use prometheus::{Histogram, HistogramOpts, HistogramVec, IntCounterVec, IntGauge, Opts, Registry};

use crate::review::Operation;
use crate::verdict::Outcome;

/// The metrics; handed a registry, never global.
pub(crate) struct Metrics {
    reviews: Vec<prometheus::IntCounter>,
    durations: Vec<Histogram>,
    pub(crate) cold: IntCounterVec,
    pub(crate) errors: IntCounterVec,
    pub(crate) facts: IntGauge,
}

/// Who asks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Webhook {
    Validate,
    Mutate,
    Workloads,
    ImagePolicy,
}

impl Webhook {
    const ALL: [Self; 4] = [Self::Validate, Self::Mutate, Self::Workloads, Self::ImagePolicy];

    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Validate => "validate",
            Self::Mutate => "mutate",
            Self::Workloads => "workloads",
            Self::ImagePolicy => "imagepolicy",
        }
    }

    /// The path of a request, with or without `/admission` before it.
    pub(crate) fn at(path: &str) -> Option<Self> {
        match path.strip_prefix("/admission").unwrap_or(path) {
            "/validate" => Some(Self::Validate),
            "/mutate" => Some(Self::Mutate),
            "/workloads" | "/warn" => Some(Self::Workloads),
            "/imagepolicy" => Some(Self::ImagePolicy),
            _ => None,
        }
    }
}

/// How a review ended, as a label.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Judged(Outcome),
    /// Nothing to judge.
    Passed,
    /// No answer, or one that only says that the question can't be read.
    Error,
}

const OPERATIONS: [Operation; 3] = [Operation::Create, Operation::Update, Operation::Other];
const ENDS: [Ended; 6] = [
    Ended::Judged(Outcome::Allow),
    Ended::Judged(Outcome::Audit),
    Ended::Judged(Outcome::Warn),
    Ended::Judged(Outcome::Deny),
    Ended::Passed,
    Ended::Error,
];

impl Ended {
    fn as_str(self) -> &'static str {
        match self {
            Self::Judged(outcome) => outcome.as_str(),
            Self::Passed => "pass",
            Self::Error => "error",
        }
    }
}

/// The place of a value among those that have a series.
fn place<T: PartialEq>(all: &[T], value: &T) -> usize {
    all.iter().position(|it| it == value).unwrap_or_default()
}

impl Metrics {
    pub(crate) fn new(registry: &Registry) -> Result<Self, prometheus::Error> {
        let counters = |name: &str, help: &str, labels: &[&str]| {
            let family = IntCounterVec::new(Opts::new(name, help), labels)?;
            registry.register(Box::new(family.clone()))?;
            Ok::<_, prometheus::Error>(family)
        };
        let reviews = counters(
            "admission_reviews_total",
            "Reviews answered, by webhook (validate, mutate, workloads, imagepolicy), operation \
             (CREATE, UPDATE, OTHER) and outcome (allow, audit, warn, deny, pass, error).",
            &["webhook", "operation", "outcome"],
        )?;
        let options = HistogramOpts::new(
            "admission_review_duration_seconds",
            "Time from the whole question to the answer, by webhook.",
        );
        let buckets = vec![
            0.000_01, 0.000_025, 0.000_05, 0.000_1, 0.000_25, 0.000_5, 0.001, 0.002_5, 0.005, 0.01,
            0.05, 0.25, 1.0, 2.5, 5.0,
        ];
        let durations = HistogramVec::new(options.buckets(buckets), &["webhook"])?;
        registry.register(Box::new(durations.clone()))?;
        let facts = IntGauge::new("admission_facts_images", "Images whose facts are in memory.")?;
        registry.register(Box::new(facts.clone()))?;
        // Every series is there from the start: a rate over one that appears late loses its first.
        let mut all = Vec::new();
        for webhook in Webhook::ALL {
            for operation in OPERATIONS {
                for end in ENDS {
                    let labels = [webhook.as_str(), operation.as_str(), end.as_str()];
                    all.push(reviews.with_label_values(&labels));
                }
            }
        }
        Ok(Self {
            reviews: all,
            durations: Webhook::ALL
                .iter()
                .map(|it| durations.with_label_values(&[it.as_str()]))
                .collect(),
            cold: counters(
                "admission_cold_lookups_total",
                "Lookups that memory could not answer, by kind (digest, facts) and result (found, \
                 missing, late, full, error).",
                &["kind", "result"],
            )?,
            errors: counters(
                "admission_errors_total",
                "Questions that got no verdict, by reason (unread, too_large, unsynced, busy, \
                 slow).",
                &["reason"],
            )?,
            facts,
        })
    }

    /// Makes every family appear, for a page that lists them.
    pub(crate) fn touch(&self) {
        self.cold.with_label_values(&["digest", "found"]).inc_by(0);
        self.errors.with_label_values(&["busy"]).inc_by(0);
    }

    pub(crate) fn ended(&self, webhook: Webhook, operation: Operation, end: Ended, seconds: f64) {
        let webhook = place(&Webhook::ALL, &webhook);
        let row = webhook * OPERATIONS.len() + place(&OPERATIONS, &operation);
        if let Some(counter) = self.reviews.get(row * ENDS.len() + place(&ENDS, &end)) {
            counter.inc();
        }
        if let Some(histogram) = self.durations.get(webhook) {
            histogram.observe(seconds);
        }
    }
}
